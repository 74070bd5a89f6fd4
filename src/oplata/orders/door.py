"""The ASGI application at ``/api/trpc``: the router, who may call it, and what every answer of it carries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from oplata.orders.doorkeeper import AddressOf, Doorkeeper, Rates
from oplata.orders.refusals import translated
from oplata.orders.router import router
from oplata.orders.shop import Shop
from oplata.orders.visitor import Visitor
from oplata.rpc import ContextRequest, Cors, Limits, RpcApp, RpcError, Settings, Sse
from oplata.rpc.http.asgi import Message, Receive, Scope, Send
from oplata.storage.engine import Database

BODY_BYTES = 256 * 1024
BODY_TIMEOUT_S = 5.0
BATCH_CALLS = 50
PING_S = 15.0
DRAIN_TRIES, DRAIN_PAUSE_S = 20, 0.05
POLICY_VIOLATION = 1008

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)
_NOT_KEPT = (b"cache-control", b"no-store")


class Door:
    """Serves the router. ``start`` and ``stop`` it with the process; ``drain`` lets streams go before it ends."""

    def __init__(self, keeper: Doorkeeper, *, origins: Sequence[str] = (), max_subscribers: int) -> None:
        self._keeper = keeper
        self.max_subscribers = max_subscribers
        self._is_draining = False
        self._subscriptions = frozenset(
            path for path, procedure in router.procedures().items() if procedure.kind == "subscription"
        )
        limits = Limits(
            body_bytes=BODY_BYTES,
            body_timeout_s=BODY_TIMEOUT_S,
            batch_calls=BATCH_CALLS,
            connections=max_subscribers,
        )
        settings = Settings(
            context=self._visitor,
            translate=translated,
            limits=limits,
            sse=Sse(ping_s=PING_S, reconnect_after_inactivity_s=3 * PING_S),
        )
        self.rpc = RpcApp(router, settings, cors=Cors(origins=tuple(origins)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. There are no WebSockets here: a key is looked at, and counted, with each request."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return

        # It is called for every event of every stream, so it hands on what is to be awaited and awaits nothing itself.
        def send_guarded(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *_HEADERS]
                kept = any(name == b"cache-control" for name, _ in headers)
                message = {**message, "headers": headers if kept else [*headers, _NOT_KEPT]}
            return send(message)

        await self.rpc(scope, receive, send_guarded)

    async def start(self) -> None:
        """Let streams come."""
        self._is_draining = False
        await self._keeper.start()

    async def drain(self) -> None:
        """End every stream now, and take no new one, so that its client goes on at the next process."""
        self._is_draining = True
        # One that is just beginning is not among them yet.
        for _ in range(DRAIN_TRIES):
            await self.rpc.shutdown()
            if self.rpc.connections == 0:
                return
            await asyncio.sleep(DRAIN_PAUSE_S)

    async def stop(self) -> None:
        """After the last request."""
        await self._keeper.stop()

    async def _visitor(self, request: ContextRequest) -> Visitor:
        if not self._subscriptions.isdisjoint(request.paths):
            if self._is_draining:
                raise RpcError("SERVICE_UNAVAILABLE", "This process is stopping; come again.")
            if self.rpc.connections >= self.max_subscribers:
                raise RpcError("SERVICE_UNAVAILABLE", "As many watch as may; come again.")
        return await self._keeper.recognise(request)


def door_of(
    database: Database,
    shop: Shop,
    *,
    address_of: AddressOf,
    open_to_all: bool,
    rates: Rates,
    origins: Sequence[str],
    max_subscribers: int,
) -> Door:
    """The door to this shop. Without ``open_to_all`` nobody comes in without a key or a token."""
    keeper = Doorkeeper(database, shop, shop.tokens, address_of=address_of, open_to_all=open_to_all, rates=rates)
    return Door(keeper, origins=origins, max_subscribers=max_subscribers)
