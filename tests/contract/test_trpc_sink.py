"""Changes of one moment go to the shop's tRPC in one request, and each is judged by its own answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import uvicorn

from oplata.errors import DeliveryFailed, DeliveryRefused
from oplata.feed.event import event_of
from oplata.feed.sinks.trpc import TrpcSink
from oplata.rpc import Router, RpcApp, RpcError, Settings
from oplata.rpc.http.asgi import Receive, Scope, Send
from tests.changes import change
from tests.services.server import free_port

pytestmark = pytest.mark.anyio


class Shop:
    """A tRPC server that notes how often it was asked and what it was told of which order."""

    def __init__(self, *, batching: bool = True) -> None:
        orders = Router()
        self.asked: list[int] = []
        self.told: list[str] = []
        self.hangs_on = ""

        @orders.mutation
        async def update_status(order_id: str, status: str) -> bool:
            if order_id == self.hangs_on:
                await asyncio.sleep(30)
            if status == "refused":
                raise RpcError("BAD_REQUEST", "no such status")
            self.told.append(order_id)
            return True

        self._rpc = RpcApp(Router(orders=orders), Settings(batching=batching), prefix="/api/trpc")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"].count(",") + 1)
        await self._rpc(scope, receive, send)


@contextlib.asynccontextmanager
async def _told_by(shop: Shop, *, batch: int = 16, timeout_s: float = 5.0) -> AsyncIterator[TrpcSink]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(shop, port=port, lifespan="off", log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn says it in no other way.
        await asyncio.sleep(0.01)
    sink = TrpcSink(f"http://127.0.0.1:{port}/api/trpc", batch=batch, timeout_s=timeout_s)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.stop()
        server.should_exit = server.force_exit = True
        await serving


async def _deliver(sink: TrpcSink, orders: Sequence[str], *, status: str = "paid") -> list[Any]:
    """What came of each, told at the same moment: None, or the error."""
    events = [event_of(number, change(order_id, status=status)) for number, order_id in enumerate(orders)]
    return await asyncio.gather(*(sink.deliver(event) for event in events), return_exceptions=True)


async def test_what_is_told_at_one_moment_goes_in_as_few_requests_as_may_be() -> None:
    shop = Shop()
    async with _told_by(shop, batch=4) as sink:
        assert await _deliver(sink, [f"order-{number}" for number in range(9)]) == [None] * 9
    assert sorted(shop.asked) == [1, 4, 4]
    assert sorted(shop.told) == [f"order-{number}" for number in range(9)]


async def test_each_call_of_a_batch_is_judged_by_its_own_answer() -> None:
    shop = Shop()
    async with _told_by(shop) as sink:
        (refused,), told = await asyncio.gather(
            _deliver(sink, ["sick"], status="refused"), _deliver(sink, ["order-1", "order-2"])
        )
    assert isinstance(refused, DeliveryRefused)
    assert told == [None, None]
    assert shop.asked == [3]


async def test_a_shop_that_takes_no_batches_is_told_one_by_one() -> None:
    shop = Shop(batching=False)
    async with _told_by(shop) as sink:
        assert await _deliver(sink, ["order-1", "order-2", "order-3"]) == [None] * 3
        assert shop.asked == [3, 1, 1, 1]
        # It is not asked again for what it does not take.
        assert await _deliver(sink, ["order-4", "order-5"]) == [None] * 2
    assert shop.asked == [3, 1, 1, 1, 1, 1]
    assert sorted(shop.told) == [f"order-{number}" for number in range(1, 6)]


async def test_a_status_that_is_not_told_is_not_named_as_the_one_before_either() -> None:
    fields = {"now": "status", "before": "previous_status"}
    sink = TrpcSink("http://shop.example", fields=fields, statuses={"pending": "", "paid": "payed"}, timeout_s=1)
    assert [sink.wants(event_of(1, change(status=status))) for status in ("pending", "paid")] == [False, True]
    assert sink.input(event_of(2, change(version=2))) == {"now": "payed", "before": None}
    assert sink.input(event_of(1, change(status="refunded"))) == {"now": "refunded", "before": None}


async def test_an_order_that_the_shop_hangs_on_takes_others_with_it_once_at_most() -> None:
    shop = Shop()
    shop.hangs_on = "sick"
    async with _told_by(shop, timeout_s=0.3) as sink:
        first = await _deliver(sink, ["sick", "order-1", "order-2"])
        assert [type(each) for each in first] == [DeliveryFailed] * 3
        second = await _deliver(sink, ["sick", "order-1", "order-2"])
        assert [type(each) for each in second] == [DeliveryFailed, type(None), type(None)]
        shop.hangs_on = ""
        assert await _deliver(sink, ["sick"]) == [None]
        assert await _deliver(sink, ["sick", "order-1"]) == [None, None]
    assert shop.asked == [3, 1, 1, 1, 1, 2]
