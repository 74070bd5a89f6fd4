"""Subscribers over restarts of the endpoint and of the database, and callbacks beside them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from oplata.errors import DatabaseUnavailable
from oplata.orders.buyer import BuyerTokens
from oplata.orders.commands import Orders
from oplata.orders.doorkeeper import BUYER_STREAMS
from oplata.orders.keys import Keys
from oplata.orders.scopes import Scope
from oplata.storage.engine import Database
from tests.acceptance.command import STOP_TIMEOUT_S, Running, running
from tests.acceptance.subscribers import Subscriber
from tests.databases import opened
from tests.notifications import PASSWORD, TERMINAL_KEY, signed_by_hand
from tests.services.breakable import Breakable

pytestmark = pytest.mark.anyio

SUBSCRIBERS = 250
WAIT_S = 60.0
SIGNING = "0123456789abcdef" * 2


def settings(database_url: str) -> dict[str, str]:
    return {
        "OPLATA_TERMINAL_KEY": TERMINAL_KEY,
        "OPLATA_TERMINAL_PASSWORD": PASSWORD,
        "OPLATA_DATABASE_URL": database_url,
        "OPLATA_INSECURE": "false",
        "OPLATA_RPC_KEY_RATE": "5000",
        "OPLATA_BUYER_TOKEN_KEYS": SIGNING,
        # Twice as long as a process is waited for: a stream that is kept as long as idle connections are is seen.
        "OPLATA_KEEP_ALIVE_S": str(round(2 * STOP_TIMEOUT_S)),
    }


async def until(description: str, holds: object) -> None:
    """Wait until this is so."""
    assert callable(holds)
    ends_at = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < ends_at, description
        await asyncio.sleep(0.05)


@asynccontextmanager
async def subscribed(port: int, key: str, count: int) -> AsyncIterator[Sequence[Subscriber]]:
    """So many subscribers to everything, all of them connected."""
    rng = random.Random(7)
    subscribers = [Subscriber(port, key, None, rng) for _ in range(count)]
    tasks = [asyncio.create_task(each.run()) for each in subscribers]
    try:
        await until("all are connected", lambda: all(each.connected for each in subscribers))
        yield subscribers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def changed(database: Database, name: str, count: int) -> list[int]:
    """Register so many orders, one transaction each; returns the ids of the changes."""
    orders = Orders(database)
    for number in range(count):
        await orders.register(f"{name}-{number}", 100)
    async with database.unit_of_work(read_only=True) as uow:
        told = await uow.changes.of_orders([f"{name}-{number}" for number in range(count)])
    return sorted(change_id for changes in told.values() for change_id, _ in changes)


async def answering(database: Database) -> None:
    """Connections of before the restart are dead, and are found so one by one."""
    for _ in range(20):
        with contextlib.suppress(DatabaseUnavailable):
            await database.probe()


async def stopped(process: Running) -> None:
    process.process.terminate()
    await asyncio.to_thread(process.wait)


async def test_every_subscriber_sees_every_change_once_over_restarts(
    database_server: Breakable, tmp_path: Path, free_port: int
) -> None:
    url = database_server.url
    port = str(free_port)
    async with opened(url) as database:
        await database.migrate()
        key = (await Keys(database).create("browsers", Scope.READ, who="test")).key
        with running("serve", "--port", port, cwd=tmp_path, **settings(url)) as serve:
            await asyncio.to_thread(serve.line, "oplata serve is ready")
            async with subscribed(free_port, key, SUBSCRIBERS) as subscribers:
                expected = await changed(database, f"a{port}", 10)
                # The drain ends the streams at its beginning, or this would take as long as idle connections are kept.
                await stopped(serve)
                expected += await changed(database, f"b{port}", 10)
                with running("serve", "--port", port, cwd=tmp_path, **settings(url)) as again:
                    await asyncio.to_thread(again.line, "oplata serve is ready")
                    expected += await changed(database, f"c{port}", 10)
                    await database_server.kill9()
                    await database_server.start()
                    await answering(database)
                    expected += await changed(database, f"d{port}", 10)
                    await until("all are told", lambda: all(len(each.ids) >= len(expected) for each in subscribers))
    assert {tuple(each.ids) for each in subscribers} == {tuple(expected)}


async def test_callbacks_are_taken_beside_as_many_subscribers_as_may_be(tmp_path: Path, free_port: int) -> None:
    url = f"sqlite:///{tmp_path / 'oplata.db'}"
    few = {**settings(url), "OPLATA_MAX_SUBSCRIBERS": "100"}
    async with opened(url) as database:
        await database.migrate()
        key = (await Keys(database).create("browsers", Scope.READ, who="test")).key
        with running("serve", "--port", str(free_port), cwd=tmp_path, **few) as serve:
            await asyncio.to_thread(serve.line, "oplata serve is ready")
            async with subscribed(free_port, key, 100), httpx.AsyncClient() as bank:
                late = Subscriber(free_port, key, None, random.Random(1))
                asking = asyncio.create_task(late.run())
                await until("one more is told to come again", lambda: late.refusals)
                asking.cancel()
                body = signed_by_hand({"TerminalKey": TERMINAL_KEY, "OrderId": "1", "Status": "NEW", "PaymentId": "1"})
                headers = {"content-type": "application/json"}
                path = f"http://127.0.0.1:{free_port}/api/tinkoff-callback"
                answers = [(await bank.post(path, content=body, headers=headers)).text for _ in range(5)]
            await stopped(serve)
    assert answers == ["OK"] * 5
    assert any("-32603" in refusal for refusal in late.refusals)


async def test_one_buyer_cannot_take_the_streams_of_all_others(tmp_path: Path, free_port: int) -> None:
    url = f"sqlite:///{tmp_path / 'oplata.db'}"
    async with opened(url) as database:
        await database.migrate()
        await Keys(database).create("unused", Scope.READ, who="test")
        for order_id in ("1", "2"):
            await Orders(database).register(order_id, 100)
    with running("serve", "--port", str(free_port), cwd=tmp_path, **settings(url)) as serve:
        await asyncio.to_thread(serve.line, "oplata serve is ready")
        token, others = (BuyerTokens([SIGNING.encode()]).mint(order_id)[0] for order_id in ("1", "2"))
        rng = random.Random(1)
        crowd = [Subscriber(free_port, token, "1", rng) for _ in range(BUYER_STREAMS + 1)]
        another = Subscriber(free_port, others, "2", rng)
        tasks = [asyncio.create_task(each.run()) for each in (*crowd, another)]
        await until("all but one are told", lambda: sum(bool(each.ids) for each in crowd) == BUYER_STREAMS)
        await until("one is told to come again", lambda: any(each.refusals for each in crowd))
        await until("another buyer is told", lambda: another.ids)
        [late] = [each for each in crowd if each.refusals]
        assert (late.ids, another.refusals.total()) == ([], 0)
        assert all("SERVICE_UNAVAILABLE" in refusal for refusal in late.refusals)
        tasks[next(place for place, each in enumerate(crowd) if each is not late)].cancel()
        await until("the place of one who left is taken", lambda: late.ids)
        for task in tasks:
            task.cancel()
        await stopped(serve)


async def test_a_stream_ends_with_the_token_or_the_key_that_opened_it(tmp_path: Path, free_port: int) -> None:
    url = f"sqlite:///{tmp_path / 'oplata.db'}"
    async with opened(url) as database:
        await database.migrate()
        keys = Keys(database)
        made = await keys.create("browsers", Scope.READ, who="test")
        with running("serve", "--port", str(free_port), cwd=tmp_path, **settings(url)) as serve:
            await asyncio.to_thread(serve.line, "oplata serve is ready")
            token = BuyerTokens([SIGNING.encode()]).mint("1", lifetime_s=3)[0]
            rng = random.Random(1)
            buyer, holder = Subscriber(free_port, token, "1", rng), Subscriber(free_port, made.key, None, rng)
            tasks = [asyncio.create_task(each.run()) for each in (buyer, holder)]
            await until("both watch", lambda: buyer.connected and holder.connected)
            assert not buyer.refusals
            await until("the token has expired", lambda: buyer.refusals)
            assert not holder.refusals
            await keys.revoke(made.view.id, who="olga", why="test")
            await until("the key opens nothing", lambda: holder.refusals)
            for task in tasks:
                task.cancel()
            await stopped(serve)
    for each in (buyer, holder):
        assert all("UNAUTHORIZED" in refusal for refusal in each.refusals)
