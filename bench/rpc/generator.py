"""The load: raw keep-alive connections in a process of its own, each with one request on its way at any time.

It reads a plan from its standard input and writes what it counted to its standard output, both as JSON. Every answer is
compared with the one that is right; a wrong one ends the run.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from functools import partial
from typing import Any, cast

import uvloop

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
MAX_ANSWER_BYTES = 1 << 20
LENGTH = b"content-length:"


class WrongAnswer(Exception):
    """The server said something else than it should have."""


class Connection(asyncio.Protocol):
    """Asks, reads the whole answer, compares, and asks the next."""

    def __init__(self, requests: list[bytes], answers: list[Any], first: int, learned: dict[int, bytes]) -> None:
        self._requests, self._answers, self._learned = requests, answers, learned
        self._at = first % len(requests)
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.count = 0
        self.is_over = False
        self.asked_at = 0.0
        self.waits_s: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not descend from it.
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        self.asked_at = time.perf_counter()
        self._transport.write(self._requests[self._at])

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        try:
            body = whole_body(self._buffer)
            if body is None:
                return
            self._compare(body)
        except WrongAnswer as error:
            self._end(error)
            return
        self.waits_s.append(time.perf_counter() - self.asked_at)
        self.count += 1
        self._buffer = b""
        self._at = (self._at + 1) % len(self._requests)
        if self.is_over:
            self._end(None)
        else:
            self._ask()

    def _compare(self, body: bytes) -> None:
        # Parsed once for each different question; after that, the bytes have to be the same.
        if self._learned.get(self._at) == body:
            return
        if json.loads(unchunked(body)) != self._answers[self._at]:
            raise WrongAnswer(f"{self._requests[self._at]!r} was answered with {body[:300]!r}")
        self._learned[self._at] = body

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(None if self.is_over else WrongAnswer(f"The server hung up: {exc}"))

    def _end(self, error: Exception | None) -> None:
        if not self.ended.done():
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)
        if self._transport is not None:
            self._transport.close()


def whole_body(buffer: bytes) -> bytes | None:
    """The body once it is whole, its chunks still as they came. Raises WrongAnswer."""
    if len(buffer) > MAX_ANSWER_BYTES or not b"HTTP/1.1 200 OK".startswith(buffer[:15]):
        raise WrongAnswer(f"Answered with {buffer[:300]!r}")
    end = buffer.find(HEAD_END)
    if end < 0:
        return None
    head = buffer[:end].lower()
    at = head.find(LENGTH)
    if at < 0:
        return buffer[end + 4 :] if buffer.endswith(LAST_CHUNK) else None
    length = int(head[at + len(LENGTH) :].split(b"\r\n", 1)[0])
    return buffer[end + 4 :] if len(buffer) - end - 4 == length else None


def unchunked(body: bytes) -> bytes:
    """The document within, if the body came in chunks."""
    if body[:1] in b"{[":
        return body
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)


def request(path: str, port: int) -> bytes:
    """What a client sends, without what no server here looks at."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode()


async def load(plan: dict[str, Any]) -> dict[str, Any]:
    """Loads the server for ``seconds``, and counts the answers that came within."""
    requests = [request(path, plan["port"]) for path in plan["paths"]]
    learned: dict[int, bytes] = {}
    loop = asyncio.get_running_loop()
    connections = []
    begun = time.perf_counter()
    for first in range(plan["connections"]):
        make = partial(Connection, requests, plan["answers"], first, learned)
        connections.append((await loop.create_connection(make, "127.0.0.1", plan["port"]))[1])
    ends = [connection.ended for connection in connections]
    await asyncio.wait(ends, timeout=plan["seconds"], return_when=asyncio.FIRST_EXCEPTION)
    seconds = time.perf_counter() - begun
    counted = sum(connection.count for connection in connections)
    for connection in connections:
        connection.is_over = True
    async with asyncio.timeout(10):
        await asyncio.gather(*ends)
    waits = sorted(wait for connection in connections for wait in connection.waits_s)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "requests": counted,
        "all_requests": sum(connection.count for connection in connections),
        "seconds": seconds,
        "p50_ms": waits[len(waits) // 2] * 1000,
        "p99_ms": waits[len(waits) * 99 // 100] * 1000,
        "generator_cpu_s": usage.ru_utime + usage.ru_stime,
    }


def main() -> int:
    """1 with a sentence on standard error if an answer was wrong."""
    try:
        sys.stdout.write(json.dumps(uvloop.run(load(json.load(sys.stdin)))))
    except (WrongAnswer, TimeoutError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
