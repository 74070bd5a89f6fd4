"""What shops run today, with h3, amqplib and tRPC from npm, and either half of it replaced by ours.

The shop's programs are those of ``examples/node-shop``, which the pages of ``docs/guide`` are about.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from oplata.bank.simulator import payload
from oplata.orders.commands import Orders
from tests.chaos.offspring import Offspring, migrate, oplata
from tests.contract.amqp import delete
from tests.databases import opened, select_all
from tests.services.node import Node
from tests.services.server import free_port

pytestmark = pytest.mark.anyio

QUEUE = "tinkoff_payments"
PATH = "/api/tinkoff-callback"
TERMINAL = {"OPLATA_TERMINAL_KEY": "TestDEMO", "OPLATA_TERMINAL_PASSWORD": "open-sesame"}
WAIT_S = 40.0


@pytest.fixture
async def settings(amqp_url: str, postgres_url: str, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The program beside a queue of the shop's name, which is not there before and not after."""
    names = [QUEUE, f"{QUEUE}.dead", f"{QUEUE}.retry.200"]
    await delete(amqp_url, *names)
    yield {
        **TERMINAL,
        "OPLATA_QUEUE_URL": amqp_url,
        "OPLATA_QUEUE_NAME": QUEUE,
        "OPLATA_QUEUE_DECLARE": "passive",
        "OPLATA_QUEUE_RETRY_DELAYS_MS": "200",
        "OPLATA_DATABASE_URL": postgres_url,
        "RABBITMQ_URL": amqp_url,
    }
    await delete(amqp_url, *names)


@pytest.fixture
async def orders(settings: dict[str, str], tmp_path: Path) -> AsyncIterator[Orders]:
    """Our tables, and the orders in them."""
    await migrate(tmp_path, settings)
    async with opened(settings["OPLATA_DATABASE_URL"]) as database:
        yield Orders(database)


class Street:
    """Starts the programs of a test, theirs and ours, and ends whatever of them still runs."""

    def __init__(self, node: Node, folder: Path, settings: Mapping[str, str]) -> None:
        self._node = node
        self._folder = folder
        self._settings = dict(settings)
        self._running: list[Offspring] = []

    async def theirs(self, name: str, **more: str) -> tuple[Offspring, str]:
        """One of ``examples/node-shop``, and the URL at which it listens if it does."""
        port = free_port()
        command = [self._node.program, str(self._node.folder / f"{name}.mjs")]
        settings = self._settings | {"PORT": str(port)} | more
        return await self._begin(Offspring(name, command, folder=self._folder, settings=settings)), _url(port)

    async def ours(self, name: str, *arguments: str, **more: str) -> tuple[Offspring, str]:
        """One of our commands, and the URL at which it listens if it does."""
        port = free_port()
        settings = self._settings | {"OPLATA_PORT": str(port)} | more
        return await self._begin(oplata(name, name, *arguments, folder=self._folder, settings=settings)), _url(port)

    async def _begin(self, program: Offspring) -> Offspring:
        self._running.append(program)
        await program.start()
        await program.until_said("is ready")
        return program

    async def clear(self) -> None:
        for program in reversed(self._running):
            await program.stop()


@pytest.fixture
async def street(node: Node, settings: dict[str, str], tmp_path: Path) -> AsyncIterator[Street]:
    street = Street(node, tmp_path, settings)
    yield street
    await street.clear()


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def notification(order_id: str, payment_id: int, status: str = "CONFIRMED") -> dict[str, object]:
    fields = payload.payment("TestDEMO", order_id, payment_id, status, 19_900)
    more = {"CardId": 7, "Pan": "430000******0777", "DATA": {"Имя": "Покупатель № 1"}}
    return payload.signed(fields | more, TERMINAL["OPLATA_TERMINAL_PASSWORD"])


async def tell(endpoint: str, body: Mapping[str, object]) -> str:
    """As the bank does; returns what it hears."""
    async with httpx.AsyncClient(timeout=WAIT_S) as bank:
        answer = await bank.post(endpoint + PATH, json=body)
    assert answer.status_code == 200, answer.text
    return answer.text


async def known_to(shop: str) -> dict[str, list[str]]:
    """What the shop's own router was told of each order, first to last."""
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        answer: dict[str, Any] = (await client.get(f"{shop}/api/trpc/orders.all")).json()
    told: dict[str, list[str]] = answer["result"]["data"]
    return told


async def until(condition: Callable[[], Awaitable[object]], told: Callable[[], str]) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not await condition():  # noqa: ASYNC110  What is waited for happens in other processes.
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(told()) from None


async def paid(orders: Orders) -> set[str]:
    return {order.order_id for order in await orders.list() if order.status == "paid"}


async def test_our_endpoint_feeds_their_worker(street: Street) -> None:
    shop, url = await street.theirs("trpc")
    worker, _ = await street.theirs("worker", SHOP_URL=url)
    serve, endpoint = await street.ours("serve")

    answers = [await tell(endpoint, notification(f"A-{number}", number)) for number in (1, 2, 3)]
    expected = {f"A-{number}": ["paid"] for number in (1, 2, 3)}
    await until(lambda: _is(known_to(url), expected), worker.tail)
    # Their shop is away for a while: their worker puts our message back until it is not.
    await shop.stop()
    answers.append(await tell(endpoint, notification("A-4", 4)))
    await worker.until_said("fetch failed")
    await street.theirs("trpc", PORT=url.rpartition(":")[2])
    await until(lambda: _is(known_to(url), {"A-4": ["paid"]}), worker.tail)

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
    await until(lambda: _is(paid(orders), {"A-1", "A-2", "A-3"}), worker.tail)

    async def buried() -> list[tuple[object, ...]]:
        return await select_all(settings["OPLATA_DATABASE_URL"], "SELECT reason FROM dead_letters ORDER BY reason")

    await until(lambda: _is(buried(), [("not_authentic",), ("unreadable",)]), worker.tail)
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


async def _is(found: Awaitable[object], expected: object) -> bool:
    return await found == expected


async def _true(value: bool) -> bool:
    return value
