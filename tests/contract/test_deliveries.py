"""The log of deliveries: what needs nobody any more goes from it after a while, and what is wanted again comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from oplata.errors import DeliveryRefused
from oplata.feed.event import Event
from oplata.feed.lane import Options
from oplata.feed.steering import Again, Steering
from oplata.storage.engine import Database
from tests.changes import append, change, versions
from tests.databases import Row, execute, select_all
from tests.sinks import MemorySink, relaying

pytestmark = pytest.mark.anyio

KEPT = "SELECT sink, order_id FROM deliveries ORDER BY sink, order_id"


async def _until(database_url: str, query: str, expected: Sequence[Row]) -> None:
    """Wait until the database says so, or say what it says."""
    async with asyncio.timeout(20):
        while await select_all(database_url, query) != expected:  # noqa: ASYNC110  The database has no event for it.
            await asyncio.sleep(0.05)


async def test_what_was_told_long_ago_is_forgotten_and_can_be_told_again(database: Database, database_url: str) -> None:
    def fault(event: Event) -> Exception | None:
        return DeliveryRefused("never") if event.change.order_id == "dead" else None

    sink = MemorySink(fault)
    await append(database, *versions("old", 1, 2), change("dead"), change("young"))
    async with relaying(database, ("shop", sink), ("crm", MemorySink())):
        await _until(database_url, "SELECT count(settled_at_ms) FROM deliveries", [(8,)])
    await execute(
        database_url,
        "UPDATE deliveries SET settled_at_ms = settled_at_ms - 2 * 86400000 WHERE order_id <> 'young'",
        # One that was skipped is told as little as one that was told.
        "UPDATE deliveries SET state = 'skipped' WHERE sink = 'shop' AND order_id = 'old' AND change_id = 2",
    )
    of_another_sink = [("crm", order_id) for order_id in ("dead", "old", "old", "young")]
    async with relaying(database, ("shop", sink), options=Options(keep_days=1), lease_ttl_s=1.0):
        await _until(database_url, KEPT, [*of_another_sink, ("shop", "dead"), ("shop", "young")])
        assert await Steering(database).replay("shop", Again(order_id="old"), who="anna", why="a look") == 2
        await sink.until(lambda: sink.versions("old") == [1, 2, 1, 2])


async def test_one_batch_goes_at_a_time_the_oldest_first(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oplata.storage.deliveries.PRUNED_AT_ONCE", 2)
    await append(database, *versions("order-1", 1, 5))
    async with relaying(database, ("shop", MemorySink())):
        await _until(database_url, "SELECT count(settled_at_ms) FROM deliveries", [(5,)])
    await execute(database_url, "UPDATE deliveries SET settled_at_ms = 10 - change_id")
    pruned, left = [], []
    for _ in range(3):
        async with database.unit_of_work() as uow:
            pruned.append(await uow.deliveries.prune("shop", 100))
            await uow.commit()
        left.append([row[0] for row in await select_all(database_url, "SELECT change_id FROM deliveries ORDER BY 1")])
    assert (pruned, left) == ([2, 2, 1], [[3, 4, 5], [5], []])
