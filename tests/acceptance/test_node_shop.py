"""What shops run today, with h3, amqplib and tRPC from npm, and either half of it replaced by ours.

The shop's programs are those of ``examples/node-shop``, which the pages of ``docs/guide`` are about.
"""

from __future__ import annotations

import asyncio

import pytest

from oplata.orders.commands import Orders
from tests.acceptance.street import Street, is_, known_to, notification, orders, paid, settings, street, tell, until
from tests.databases import select_all

__all__ = ["orders", "settings", "street"]

pytestmark = pytest.mark.anyio


async def test_our_endpoint_feeds_their_worker(street: Street) -> None:
    shop, url = await street.theirs("trpc")
    worker, _ = await street.theirs("worker", SHOP_URL=url)
    serve, endpoint = await street.ours("serve")

    answers = [await tell(endpoint, notification(f"A-{number}", number)) for number in (1, 2, 3)]
    expected = {f"A-{number}": ["paid"] for number in (1, 2, 3)}
    await until(lambda: is_(known_to(url), expected), worker.tail)
    # Their shop is away for a while: their worker puts our message back until it is not.
    await shop.stop()
    answers.append(await tell(endpoint, notification("A-4", 4)))
    await worker.until_said("fetch failed")
    await street.theirs("trpc", PORT=url.rpartition(":")[2])
    await until(lambda: is_(known_to(url), {"A-4": ["paid"]}), worker.tail)

    assert answers == ["OK"] * 4
    assert await serve.stop() == 0, serve.tail()


async def test_their_endpoint_feeds_our_worker(street: Street, orders: Orders, settings: dict[str, str]) -> None:
    """A plain durable classic queue that they declared, no header of ours, a body that JSON.stringify wrote anew."""
    for number in (1, 2, 3):
        await orders.register(f"A-{number}", 19_900)
    _, url = await street.theirs("endpoint")
    answers = [await tell(url, notification(f"A-{number}", number, "AUTHORIZED")) for number in (1, 2, 3)]
    worker, _ = await street.ours("worker")
    # Nothing at their door looks at the token: what is forged reaches the queue, and no order.
    forged: list[dict[str, object]] = [notification("A-1", 1) | {"OrderId": "A-9"}, {"orderId": "A-9"}]
    genuine = [notification(f"A-{number}", number) for number in (1, 2, 1, 3)]
    answers += [await tell(url, body) for body in (genuine[0], *forged, *genuine[1:])]
    await until(lambda: is_(paid(orders), {"A-1", "A-2", "A-3"}), worker.tail)

    async def buried() -> list[tuple[object, ...]]:
        return await select_all(settings["OPLATA_DATABASE_URL"], "SELECT reason FROM dead_letters ORDER BY reason")

    await until(lambda: is_(buried(), [("not_authentic",), ("unreadable",)]), worker.tail)
    # The bank hears this, and not OK: it comes again for a month.
    assert set(answers) == {'{"ok":true}'}
    assert [order.review for order in await orders.list()] == [None] * 3
    assert await worker.stop() == 0, worker.tail()


async def test_both_halves_are_moved_under_load_and_no_callback_is_lost(street: Street, orders: Orders) -> None:
    """Step by step as the guide has it: the endpoint first, then the worker, on the queue that they declared."""
    _, shop_url = await street.theirs("trpc")
    their_endpoint, current = await street.theirs("endpoint")
    their_worker, _ = await street.theirs("worker", SHOP_URL=shop_url)
    sent, moved = 0, asyncio.Event()

    async def bank() -> None:
        nonlocal sent
        while not moved.is_set() or sent < 40:
            await tell(current, notification(f"A-{sent}", sent + 1))
            sent += 1

    async def passed(count: int) -> None:
        goal = sent + count
        await until(lambda: _true(sent >= goal or telling.done()), lambda: str(telling))

    telling = asyncio.create_task(bank())
    try:
        await passed(8)
        serve, current = await street.ours("serve")
        await passed(8)
        await their_endpoint.stop()
        worker, _ = await street.ours("worker")
        await passed(8)
        their_worker.kill9()
        await passed(8)
    finally:
        moved.set()
        await telling
    for number in range(sent):
        await orders.register(f"A-{number}", 19_900)
    everyone = {f"A-{number}" for number in range(sent)}

    async def all_told() -> bool:
        by_them = {order_id for order_id, told in (await known_to(shop_url)).items() if "paid" in told}
        return await _listed(orders, by_them) == everyone

    await until(all_told, lambda: worker.tail() + serve.tail())
    assert await serve.stop() == 0, serve.tail()
    assert await worker.stop() == 0, worker.tail()


async def _listed(orders: Orders, others: set[str]) -> set[str]:
    return others | {order.order_id for order in await orders.list(limit=1000) if order.status == "paid"}


async def _true(value: bool) -> bool:
    return value
