"""A bare AMQP client: what is left of one when every comfort is taken away. The limit that ours is held against.

It knows one connection and one channel, no reconnect, no heartbeat, no flow control, and reads only the frames that it
waits for. Nobody should use it.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote, urlsplit

FRAME = struct.Struct(">BHL")
END = b"\xce"
CONTENT_TYPE_AND_MODE = (1 << 15 | 1 << 12).to_bytes(2, "big")
ACK, DELIVER = 0x003C0050, 0x003C003C


class BareClient(asyncio.Protocol):
    """Publishes with confirms, or consumes; ``on_message`` is called with each delivery tag and body."""

    def __init__(self, url: str, on_message: Callable[[int, bytes], None] | None = None) -> None:
        self._url = urlsplit(url)
        self._on_message = on_message
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answers: deque[asyncio.Future[bytes]] = deque()
        self._outgoing: list[bytes] = []
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._tag = 0
        self._deliver_tag = 0
        self._size = 0
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Connect and open the channel."""
        host, port = self._url.hostname or "127.0.0.1", self._url.port or 5672
        await self._loop.create_connection(lambda: self, host, port)
        await self._ask(b"AMQP\x00\x00\x09\x01")
        user, password = unquote(self._url.username or ""), unquote(self._url.password or "")
        plain = f"\0{user}\0{password}".encode()
        start_ok = struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", len(plain)) + plain + b"\x05en_US"
        await self._ask(self._method(0, 0x000A000B, start_ok))
        self._send(self._method(0, 0x000A001F, struct.pack(">HIH", 2047, 131072, 0)))
        await self._ask(self._method(0, 0x000A0028, b"\x01/\0\0"))
        await self._ask(self._method(1, 0x0014000A, b"\0"))

    async def declare(self, queue: str, kind: str) -> None:
        """A durable queue, ``quorum`` or ``classic``."""
        arguments = b"\x0cx-queue-typeS" + struct.pack(">I", len(kind)) + kind.encode()
        table = struct.pack(">I", len(arguments)) + arguments
        await self._ask(self._method(1, 0x0032000A, b"\0\0" + _short(queue) + b"\x02" + table))

    async def purge(self, queue: str) -> None:
        """Empty a queue."""
        await self._ask(self._method(1, 0x0032001E, b"\0\0" + _short(queue) + b"\0"))

    async def delete(self, queue: str) -> None:
        """Delete a queue."""
        await self._ask(self._method(1, 0x00320028, b"\0\0" + _short(queue) + b"\0"))

    async def confirm(self) -> None:
        """Ask for confirms."""
        await self._ask(self._method(1, 0x0055000A, b"\0"))

    async def consume(self, queue: str, prefetch: int) -> None:
        """Begin to consume."""
        await self._ask(self._method(1, 0x003C000A, struct.pack(">IHB", 0, prefetch, 0)))
        await self._ask(self._method(1, 0x003C0014, b"\0\0" + _short(queue) + b"\0\0" + struct.pack(">I", 0)))

    def publish(self, queue: str, body: bytes) -> asyncio.Future[None]:
        """Send a persistent message; the future is done with its confirm."""
        method = self._method(1, 0x003C0028, b"\0\0\0" + _short(queue) + b"\x01")
        properties = CONTENT_TYPE_AND_MODE + b"\x10application/json\x02"
        head = b"\x02\0\x01" + struct.pack(">LHHQ", 12 + len(properties), 60, 0, len(body)) + properties + END
        self._send(b"".join((method, head, FRAME.pack(3, 1, len(body)), body, END)))
        self._tag += 1
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((self._tag, future))
        return future

    def ack(self, tag: int) -> None:
        """All up to this one."""
        self._send(self._method(1, ACK, struct.pack(">QB", tag, 1)))

    def close(self) -> None:
        """Hang up."""
        assert self._transport is not None
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at, have = 0, len(buffer)
        while have - at >= 8:
            kind, _, size = FRAME.unpack_from(buffer, at)
            end = at + 8 + size
            if end > have:
                break
            self._read(kind, buffer, at + 7, end - 1)
            at = end
        self._buffer = buffer[at:]

    def _read(self, kind: int, buffer: bytes, at: int, end: int) -> None:
        if kind == 3 and self._on_message is not None:
            self._on_message(self._deliver_tag, buffer[at:end])
        elif kind == 1:
            index = int.from_bytes(buffer[at : at + 4], "big")
            if index == ACK:
                tag, multiple = struct.unpack_from(">QB", buffer, at + 4)
                self._confirmed(tag, multiple)
            elif index == DELIVER:
                after = at + 5 + buffer[at + 4]
                self._deliver_tag = struct.unpack_from(">Q", buffer, after)[0]
            elif self._answers:
                self._answers.popleft().set_result(buffer[at:end])

    def _confirmed(self, tag: int, multiple: int) -> None:
        if multiple:
            while self._waiting and self._waiting[0][0] <= tag:
                _settle(self._waiting.popleft()[1])
        elif self._waiting and self._waiting[0][0] == tag:
            _settle(self._waiting.popleft()[1])
        else:
            found = next(pair for pair in self._waiting if pair[0] == tag)
            self._waiting.remove(found)
            _settle(found[1])

    async def _ask(self, data: bytes) -> bytes:
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._answers.append(answer)
        self._send(data)
        return await answer

    def _send(self, data: bytes) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)

    def _flush(self) -> None:
        assert self._transport is not None
        self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    @staticmethod
    def _method(channel: int, index: int, arguments: bytes) -> bytes:
        payload = struct.pack(">I", index) + arguments
        return FRAME.pack(1, channel, len(payload)) + payload + END


def _settle(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded
