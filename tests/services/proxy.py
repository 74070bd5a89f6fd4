"""A wire between a client and a server, which a test may cut, stall or refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536


class Proxy:
    """A TCP proxy on the loopback: ``async with Proxy(port) as wire: connect("127.0.0.1", wire.port)``."""

    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self._target = (target_host, target_port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._links: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    async def cut(self) -> None:
        """Break every connection now; new ones are let through."""
        for link in (links := list(self._links)):
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    def stall(self) -> None:
        """Stay connected and pass nothing on, as a network that swallows packets."""
        self._flowing.clear()

    async def refuse(self) -> None:
        """Break every connection, and each new one at once."""
        self._refusing = True
        await self.cut()

    def resume(self) -> None:
        """Let everything through again; what was stalled goes on where it stood."""
        self._refusing = False
        self._flowing.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.ensure_future(self._link(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        writers = [near_writer]
        try:
            if not self._refusing:
                far, far_writer = await asyncio.open_connection(*self._target)
                writers.append(far_writer)
                await self._join(self._pump(near, far_writer), self._pump(far, near_writer))
                # One side has closed in good order, so what it said last still goes out.
                for writer in writers:
                    writer.close()
        except (OSError, asyncio.CancelledError):
            # Either side broke, or the test cut the wire: what is buffered is lost, and nobody is waited for.
            for writer in writers:
                writer.transport.abort()
        finally:
            if self._refusing:
                near_writer.transport.abort()

    async def _join(self, *ways: Coroutine[None, None, None]) -> None:
        """Carry both ways until one of them ends."""
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._flowing.wait()
            writer.write(chunk)
            await writer.drain()
