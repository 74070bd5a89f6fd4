"""The ASGI application: one router over HTTP and WebSocket.

    app = RpcApp(router, context=make_context)

``mounting`` says how it is put into Starlette and FastAPI, or beside another ASGI application, Django's for one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from oplata.rpc.errors import RpcError
from oplata.rpc.http.asgi import BadUrl, Receive, Scope, Send, read_head
from oplata.rpc.http.cors import Cors
from oplata.rpc.http.handler import JSON_HEADERS, handle, respond
from oplata.rpc.http.streams import stream
from oplata.rpc.router import Router
from oplata.rpc.service import Service, Settings
from oplata.rpc.spout import Spout
from oplata.rpc.websocket.socket import FAILED, Socket, turn_away


class RpcApp:
    """Serves a router.

    ``settings`` holds everything that can be chosen; ``prefix`` is where it stands if it is not mounted.

    Before the process ends, ``await app.shutdown()`` tells WebSocket clients to reconnect and ends open streams, so
    that the server's own grace period is not spent waiting for them.
    """

    def __init__(
        self, router: Router, settings: Settings | None = None, *, prefix: str = "", cors: Cors | None = None
    ) -> None:
        self.service: Final = Service(router, settings or Settings())
        self._prefix = prefix
        self._cors = cors or Cors()
        self._streams: set[Spout] = set()
        self._sockets: set[Socket] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def shutdown(self) -> None:
        """Ends every subscription over HTTP and tells WebSockets to reconnect; what comes after is not refused."""
        for spout in list(self._streams):
            spout.stop()
        await asyncio.gather(*(socket.notify_reconnect() for socket in list(self._sockets)))

    @property
    def connections(self) -> int:
        """How many subscriptions over HTTP and WebSockets are open."""
        return len(self._streams) + len(self._sockets)

    @property
    def _is_full(self) -> bool:
        return self.connections >= self.service.settings.limits.connections

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            head = read_head(scope, self._prefix)
        except BadUrl as error:
            await self._answer_bad_url(error, send)
            return
        exchange = await handle(self.service, self._cors, head, scope, receive, send)
        if exchange is not None:
            await stream(exchange, self._register, is_full=self._is_full)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            head = read_head(scope, self._prefix)
        except BadUrl:
            await send({"type": "websocket.close", "code": FAILED})
            return
        if self._is_full:
            await turn_away(receive, send)
            return
        socket = Socket(self.service, head, scope, receive, send)
        self._sockets.add(socket)
        try:
            await socket.run()
        finally:
            self._sockets.discard(socket)

    async def _answer_bad_url(self, error: RpcError, send: Send) -> None:
        status, shape = self.service.shape(error, None)
        wire = self.service.wire
        await respond(send, status, list(JSON_HEADERS), wire.encode(wire.error(shape)))

    @contextlib.contextmanager
    def _register(self, spout: Spout) -> Iterator[None]:
        self._streams.add(spout)
        try:
            yield
        finally:
            self._streams.discard(spout)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.shutdown()
                await send({"type": "lifespan.shutdown.complete"})
                return
