"""What waits for the shop's handlers is measured, and ``oplata doctor`` says when it waits for long."""

from __future__ import annotations

import pytest

from oplata.cli.checkup import judge_handlers
from oplata.observability.metrics import Metrics
from oplata.orders.commands import Orders
from oplata.reconcile.survey import Survey
from oplata.storage.engine import Database
from oplata.storage.handling import Waiting, Wanted
from oplata.worker.backlog import begin
from tests.changes import append, change
from tests.unit.test_metrics import scraped

pytestmark = pytest.mark.anyio

NOW_MS = 1_800_000_000_000
EVERYTHING = Wanted(None)


async def measured(database: Database) -> tuple[float, float] | None:
    """Orders that wait, and the seconds by which the first is late; None where neither is told."""
    metrics = Metrics()
    survey = Survey(queue=None, spool=None, database=database, interval_s=1, now_ms=lambda: NOW_MS)
    survey.expose(metrics)
    await survey.once()
    found = {
        name.removeprefix("oplata_handlers_"): told for name, told in scraped(metrics).items() if "handlers" in name
    }
    return (found["waiting_orders"], found["late_seconds"]) if found else None


async def test_what_waits_for_handlers_is_counted_from_the_change_to_its_handling(database: Database) -> None:
    await Orders(database).register("before", 100)
    assert await measured(database) is None
    await begin(database)
    assert await measured(database) == (0.0, 0.0)

    await append(database, change("order-1", 1, at_ms=NOW_MS - 60_000), change("order-2", 1, at_ms=NOW_MS))
    assert await measured(database) == (0.0, 60.0)  # Nobody has looked at either.

    async with database.unit_of_work() as uow:
        await uow.handling.scan(EVERYTHING, NOW_MS - 20_000)
        await uow.commit()
    assert await measured(database) == (2.0, 20.0)

    async with database.unit_of_work() as uow:
        await uow.handling.forget("order-1")
        await uow.handling.put_off("order-2", due_at_ms=NOW_MS + 1_000, attempts=1)
        await uow.commit()
    assert await measured(database) == (1.0, 0.0)  # It failed, and is not due yet.


async def test_orders_that_wait_are_counted_up_to_a_limit(database: Database) -> None:
    await begin(database)
    async with database.unit_of_work() as uow:
        for number in range(3):
            await uow.handling.put_off(f"order-{number}", due_at_ms=number, attempts=0)
        assert await uow.handling.waiting(limit=2) == Waiting(2, 0)


def test_the_doctor_is_content_until_a_change_has_waited_for_five_minutes() -> None:
    assert judge_handlers(NOW_MS, None) == []
    assert [each.ok for each in judge_handlers(NOW_MS, Waiting(3, NOW_MS - 299_000))] == [True]
    (late,) = judge_handlers(NOW_MS, Waiting(3, NOW_MS - 301_000))
    assert not late.ok
    assert "301 s" in late.message
    assert "--app" in late.message
