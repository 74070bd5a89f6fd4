"""How uvicorn is set up for callbacks: every limit in one place."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence

import uvicorn
from starlette.types import ASGIApp

from oplata.ingest.connection import Connection
from oplata.ingest.listener import accept_waiting, ignore_newcomers

BACKLOG = 2048
"""Connections that the kernel keeps for us while we are busy."""

MAX_CONNECTIONS = 2000
"""Beyond these a request is answered 503 at once. Each holds at most a body of 64 KiB and one read of the socket."""

KEEP_ALIVE_S = 5
"""How long a client may let a connection idle and still use it again. ``Keep-Alive`` announces it with each answer."""

MARGIN_S = 2.0
"""How much longer than announced an idle connection is kept: an answer and a request may be this long on their way."""

GRACE_S = 0.3
"""How long a draining server still takes connections at least, and how long a handshake may take to its end."""

TICK_S = 0.05

DRAIN_S = 15
"""How long a shutdown waits for requests in flight: longer than a body and a confirmation may take together."""


def uvicorn_config(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    max_connections: int = MAX_CONNECTIONS,
    keep_alive_s: int = KEEP_ALIVE_S,
    drain_s: float = DRAIN_S,
) -> uvicorn.Config:
    """The configuration of ``uvicorn.Server(...)``; its ``run()`` brings uvloop along.

    A server that is told to stop drains as ``Server`` says: it waits for idle connections as long as ``keep_alive_s``
    promised, then for what is in flight within ``drain_s``, and runs the application's shutdown. The rest is
    cancelled and answered 503. ``X-Forwarded-*`` is left alone: the callback's
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
        headers=[("keep-alive", f"timeout={keep_alive_s}")],
        timeout_keep_alive=keep_alive_s + MARGIN_S,  # type: ignore[arg-type]  # It is handed to call_later.
        timeout_graceful_shutdown=drain_s,  # type: ignore[arg-type]  # It is handed to wait_for.
    )


class Server(uvicorn.Server):
    """uvicorn's server, which by itself resets what a client has sent a moment before the shutdown.

    HTTP knows no way to take back an idle connection: who closes it may close it under a request that is just on its
    way. So a draining server goes on listening, says ``Connection: close`` with every answer, and closes an idle
    connection only when it has idled for longer than ``Keep-Alive`` allowed. Signals are the caller's to hear: set
    ``should_exit`` and the server drains. ``on_drain`` is called when it begins to, and again while anyone stays:
    what streams has to end there.
    """

    def __init__(self, config: uvicorn.Config, *, on_drain: Sequence[Callable[[], Awaitable[None]]] = ()) -> None:
        super().__init__(config)
        self._on_drain = tuple(on_drain)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer everything that was sent before the listening socket closed, then end. ``sockets`` were given."""
        self._announce_the_end()
        await self._end_streams()
        await asyncio.sleep(GRACE_S)
        await self._outlast(self._promised(), self.config.timeout_keep_alive)
        await self._close_the_door(sockets or [])
        await self._end_streams()
        await super().shutdown(sockets)

    def _announce_the_end(self) -> None:
        """From now on every answer is the last on its connection."""
        date = [(name, value) for name, value in self.server_state.default_headers if name == b"date"]
        self.server_state.default_headers = [*date, (b"connection", b"close")]
        for connection in self._promised():
            connection.announce_the_end()

    def _promised(self) -> set[Connection]:
        """The connections that have served a request: whoever holds one may think that it can be used again."""
        connections = self.server_state.connections
        return {each for each in connections if isinstance(each, Connection) and each.cycle is not None}

    async def _outlast(self, connections: set[Connection], most_s: float) -> None:
        """Wait until these are gone: each is answered a last time, or idles for longer than it was allowed to."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + most_s
        while not connections.isdisjoint(self._promised()):
            if loop.time() >= until_s:
                return
            await asyncio.sleep(TICK_S)

    async def _end_streams(self) -> None:
        for end in self._on_drain:
            await end()

    async def _close_the_door(self, sockets: list[socket.socket]) -> None:
        """Accept what the kernel has accepted for us; closing the listening socket would reset it."""
        ignoring = [ignore_newcomers(each) for each in sockets]
        if any(ignoring):
            await asyncio.sleep(GRACE_S)
        listening = [each.dup() for each in sockets]
        for server in self.servers:
            server.close()
        waiting: list[socket.socket] = []
        for listener in listening:
            with listener:
                waiting += accept_waiting(listener, BACKLOG - len(waiting))
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        return Connection(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
