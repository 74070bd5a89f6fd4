"""Lists of long tables: each page is found by looking through so many rows, however many there are."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from oplata.domain.status import OrderStatus
from oplata.orders.audit import AuditTrail
from oplata.orders.callbacks import Callbacks
from oplata.orders.commands import Orders
from oplata.orders.letters import Letters
from oplata.orders.payments import Payments
from oplata.queue.envelope import SOURCE_HEADER
from oplata.storage.dead_letters import DeadLetter, Wanted
from oplata.storage.engine import Database
from oplata.storage.orders import Filter
from oplata.storage.pages import LOOKED_THROUGH
from tests.databases import NOW_MS, ORDER_KOPECKS, apply_all, callback, counted, execute, opened

pytestmark = pytest.mark.anyio


async def fill(url: str, count: int) -> None:
    """So many orders, n-1 and on, each a millisecond younger than the one before."""
    await execute(
        url,
        f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) "  # noqa: S608
        "INSERT INTO orders (order_id, status, version, created_at_ms, updated_at_ms) "
        f"SELECT 'n-' || n, 'unregistered', 0, {NOW_MS} + n, {NOW_MS} + n FROM numbers",
    )


async def found(orders: Orders, wanted: Filter, limit: int) -> list[list[str]]:
    """The ids on each page, to the end."""
    pages: list[list[str]] = []
    cursor: str | None = None
    while True:
        page = await orders.page(wanted, limit=limit, cursor=cursor)
        pages.append([view.order_id for view in page.items])
        cursor = page.next_cursor
        if cursor is None:
            return pages


async def test_a_part_of_an_id_is_looked_for_in_steps_that_have_an_end(database: Database, database_url: str) -> None:
    orders = Orders(database, now_ms=lambda: NOW_MS)
    await orders.register("shop/47%_11", ORDER_KOPECKS)
    await fill(database_url, LOOKED_THROUGH)

    assert await found(orders, Filter(text="7%_1"), 10) == [[], ["shop/47%_11"]]
    assert [view.order_id for view in await orders.list(Filter(text="7%_1"))] == ["shop/47%_11"]
    for other in ("7__1", "SHOP", "47%_12", "n-1 "):
        assert await orders.list(Filter(text=other)) == []


async def test_pages_of_a_part_hold_each_order_once_newest_first(database: Database, database_url: str) -> None:
    count = 2 * LOOKED_THROUGH + 998  # So the last row that a page looks at is one of those that are wanted.
    await fill(database_url, count)
    expected = [f"n-{number}" for number in range(count, 0, -1) if "999" in str(number)]
    orders = Orders(database)

    for limit in (20, 1000):
        pages = await found(orders, Filter(text="999"), limit)
        assert [order_id for page in pages for order_id in page] == expected
    narrowed = Filter(text="999", until_ms=NOW_MS + 1000, status="unregistered", review=False)
    assert await found(orders, narrowed, 10) == [["n-999"]]


async def test_what_no_index_leads_to_is_found_in_every_list(database: Database) -> None:
    orders = Orders(database, now_ms=lambda: NOW_MS)
    for number in (1, 2):
        await orders.register(f"order-{number}", ORDER_KOPECKS)
        await orders.update_status(f"order-{number}", OrderStatus.CANCELED, who=f"clerk {number}")
    rejected = callback("REJECTED", order_id="order-1", payment_id="1")
    contradicting = callback("CONFIRMED", 5, order_id="order-2", payment_id="2")
    await apply_all(database, rejected, headers={SOURCE_HEADER: "192.0.2.1"})
    await apply_all(database, contradicting, headers={SOURCE_HEADER: "192.0.2.2"})
    async with database.unit_of_work() as uow:
        for reason in ("one", "another"):
            letter = DeadLetter(
                reason=reason, detail="", body=b"x", content_type="", headers={}, terminal_key=reason, seen_at_ms=NOW_MS
            )
            await uow.dead_letters.bury([letter])
        await uow.commit()

    payments, callbacks = Payments(database), Callbacks(database)
    assert [each.payment_id for each in (await payments.page(status="REJECTED")).items] == ["1"]
    assert [each.payment_id for each in (await payments.page(order_id="order-1", status="CONFIRMED")).items] == []
    assert [each.payment_id for each in (await payments.page(review=False)).items] == ["2", "1"]
    assert [each.order_id for each in (await callbacks.page(source="192.0.2.2")).items] == ["order-2"]
    assert [each.order_id for each in (await callbacks.page(order_id="order-1")).items] == ["order-1"]
    assert [each.subject for each in (await AuditTrail(database).page(actor="clerk 2")).items] == ["order:order-2"]
    assert (await AuditTrail(database).page(action="key.created")).items == []
    assert [each.reason for each in (await Letters(database).page(Wanted(reason="one"))).items] == ["one"]
    assert [each.reason for each in (await Letters(database).page(Wanted(terminal_key="another"))).items] == ["another"]


async def test_the_callbacks_of_an_order_are_found_without_a_walk_through_the_archive(tmp_path: Path) -> None:
    """SQLite says how it goes about it also for an empty table; PostgreSQL says so of a full one alone."""
    path = tmp_path / "oplata.db"
    async with opened(f"sqlite:///{path}") as database:
        await database.migrate()
        with counted(database) as sent:
            await Callbacks(database).page(order_id="order-1")
    [statement] = [each for each in sent if "FROM callbacks" in each]

    def plan() -> list[str]:
        with closing(sqlite3.connect(path)) as connection:
            marks = ["x"] * statement.count("?")
            return [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", marks)]

    assert not [step for step in await asyncio.to_thread(plan) if step.startswith("SCAN")]
