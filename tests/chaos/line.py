"""An HTTP client that spends little: the load must not come to an end before the program under it does."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import NamedTuple, cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_KEEP = re.compile(rb"\r\nkeep-alive: *timeout=(\d+)", re.IGNORECASE)

RETIRE_S = 1.0
"""How long before the announced end of its life a connection is no longer used: Node's own client takes as much."""


class Answer(NamedTuple):
    """What came of one request: a status and a body, or status 0 and the fault.

    ``reset`` is a connection that ended without an answer to what was sent over it, and ``stale`` the same on a
    connection that had served before, where client and server may have spoken at the same moment.
    """

    status: int
    body: bytes = b""
    fault: str = ""

    @property
    def accepted(self) -> bool:
        """True for what the bank takes as an acceptance, and nothing else."""
        return self.status == 200 and self.body == b"OK"


class _Line(asyncio.Protocol):
    """One connection, one request at a time. ``usable_until_s`` is on the loop's clock; the server says how long."""

    def __init__(self) -> None:
        self.closed = False
        self.usable_until_s = 0.0
        self.served = 0
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its ancestry.

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = bytes(self._buffer).partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or (length is not None and len(body) < int(length[1])):
            return
        self._buffer.clear()
        self.served += 1
        keep = _KEEP.search(head)
        if _CLOSE.search(head) or keep is None:
            self.abort()
        else:
            self.usable_until_s = asyncio.get_running_loop().time() + int(keep[1]) - RETIRE_S
        self._settle(Answer(int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._settle(Answer(0, fault="stale" if self.served else "reset"))

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        self._waiter = asyncio.get_running_loop().create_future()
        assert self._transport is not None
        self._transport.write(request)
        return self._waiter

    def abort(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _settle(self, answer: Answer) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)


class Endpoint:
    """One address of the shop, with connections that are kept alive, at most ``most`` of them."""

    def __init__(self, port: int, *, path: str = "/api/tinkoff-callback", most: int = 500) -> None:
        self.port = port
        self._path = path
        self._room = asyncio.Semaphore(most)
        self._idle: deque[_Line] = deque()

    def request(self, body: bytes, content_type: str) -> bytes:
        """The bytes of a POST."""
        head = f"POST {self._path} HTTP/1.1\r\nHost: shop\r\nContent-Type: {content_type}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def post(self, body: bytes, content_type: str, *, timeout_s: float = 10.0) -> Answer:
        """Send one request and wait for its answer; never raises. Waits as long as it takes for a free connection."""
        async with self._room:
            line: _Line | None = None
            try:
                async with asyncio.timeout(timeout_s):
                    line = self._kept() or await self._connect()
                    answer = await line.ask(self.request(body, content_type))
            except TimeoutError:
                if line is not None:
                    line.abort()
                return Answer(0, fault="timeout")
            except OSError:
                return Answer(0, fault="refused")
            if not line.closed:
                self._idle.append(line)
            return answer

    def close(self) -> None:
        """Let go of every connection."""
        while self._idle:
            self._idle.popleft().abort()

    def _kept(self) -> _Line | None:
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            line = self._idle.pop()
            if not line.closed and line.usable_until_s > now_s:
                return line
            line.abort()
        return None

    async def _connect(self) -> _Line:
        _, line = await asyncio.get_running_loop().create_connection(_Line, "127.0.0.1", self.port)
        return line
