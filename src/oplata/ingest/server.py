"""How uvicorn is set up for callbacks: every limit in one place."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from oplata.ingest.connection import Connection

BACKLOG = 2048
"""Connections that the kernel keeps for us while we are busy."""

MAX_CONNECTIONS = 2000
"""Beyond these a request is answered 503 at once. Each holds at most a body of 64 KiB and one read of the socket."""

KEEP_ALIVE_S = 15
"""How long a connection may idle between two requests."""

GRACE_S = 0.3
"""How long a draining server still takes connections, and tells everyone that each answer is the last on its own."""

DRAIN_S = 15
"""How long a shutdown waits for requests in flight: longer than a body and a confirmation may take together."""


def uvicorn_config(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    max_connections: int = MAX_CONNECTIONS,
    drain_s: int = DRAIN_S,
) -> uvicorn.Config:
    """The configuration of ``uvicorn.Server(...)``; its ``run()`` brings uvloop along.

    On SIGTERM or SIGINT the server stops accepting, answers what is in flight within ``drain_s``, and runs the
    application's shutdown. The rest is cancelled and answered 503. ``X-Forwarded-*`` is left alone: the callback's
    own gate decides whom to believe. uvicorn says only errors, since every line below is one that a stranger can
    have written as often as they like.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        limit_concurrency=max_connections,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_s,
    )


class Server(uvicorn.Server):
    """uvicorn's server, which by itself resets what a client has sent a moment before the shutdown.

    Signals are the caller's to hear: set ``should_exit`` and the server drains.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer everything that was sent before the listening socket closed, then end. ``sockets`` were given."""
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        await asyncio.sleep(GRACE_S)
        await self._take_the_backlog(sockets or [])
        await super().shutdown(sockets)

    async def _take_the_backlog(self, sockets: list[socket.socket]) -> None:
        """Accept what the kernel has accepted for us; closing the listening socket would reset it."""
        listening = [each.dup() for each in sockets]
        for server in self.servers:
            server.close()
        waiting: list[socket.socket] = []
        for listener in listening:
            with listener, contextlib.suppress(BlockingIOError):
                listener.setblocking(False)
                while len(waiting) < BACKLOG:
                    waiting.append(listener.accept()[0])
        loop = asyncio.get_running_loop()
        for connection in waiting:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        return Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
