"""A receiver of webhooks that answers as it is told to: well, with an error, elsewhere, without end or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

ENDLESS = -1
TAKEN_ENDLESSLY = -2
HANG = 0


class Request(NamedTuple):
    """What was sent."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """``answer`` says for each request a status, or HANG or ENDLESS. What was answered 2xx is in ``taken``."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], int] = lambda _request: 204
        self.asked: list[Request] = []
        self.taken: list[Request] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while await self._exchange(reader, writer):
                pass

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(head[0].split(" ")[1], headers, body)
        self.asked.append(request)
        status = self.answer(request)
        if status == HANG:
            await asyncio.sleep(3600)
        if status in (ENDLESS, TAKEN_ENDLESSLY):
            writer.write(b"HTTP/1.1 %d Oh\r\n\r\n" % (500 if status == ENDLESS else 200))
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        if 200 <= status < 300:
            self.taken.append(request)
        location = f"location: {self.url}/elsewhere\r\n" if 300 <= status < 400 else ""
        length = "" if status == 204 else "content-length: 2\r\n"
        text = "" if status == 204 else "no"
        writer.write(f"HTTP/1.1 {status} X\r\n{location}{length}\r\n{text}".encode())
        await writer.drain()
        return True


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens."""
    receiver = Receiver()
    await receiver.start()
    try:
        yield receiver
    finally:
        await receiver.stop()
