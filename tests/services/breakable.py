"""A private server that a fault test may kill."""

from __future__ import annotations

import asyncio

from tests.services.server import Server

# RabbitMQ 3.10 writes the name of a new quorum queue to disk a moment after it has declared it. A kill before that
# leaves a queue that hangs for ever, confirmed messages and all, so a fault test waits this long after a declaration.
NEW_QUEUE_S = 1.5


class Breakable:
    """A server under the hands of an async test; the event loop goes on meanwhile, and so does the load on it."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """Where it is; the same after every restart."""
        return self._server.url

    @property
    def port(self) -> int:
        """Its TCP port on 127.0.0.1, to set a proxy before it."""
        return self._server.port

    async def kill9(self) -> None:
        """End all its processes with SIGKILL; returns when they are gone."""
        await asyncio.to_thread(self._server.kill9)

    async def start(self) -> None:
        """Run it on the data it has; returns when it answers."""
        await asyncio.to_thread(self._server.start)

    async def stop(self) -> None:
        """End it in good order."""
        await asyncio.to_thread(self._server.stop)

    async def restart(self) -> None:
        """End it in good order and run it again."""
        await self.stop()
        await self.start()
