"""Old bodies go by the policy, and nothing that was concluded from them does."""

from __future__ import annotations

import asyncpg
import pytest

from oplata.reconcile.verify import Range, Verification
from oplata.storage.audit import Entry
from oplata.storage.engine import Database
from oplata.worker.archived import Span
from oplata.worker.difference import Difference
from oplata.worker.forecast import Forecast
from oplata.worker.replay import Replay
from oplata.worker.retention import DAY_MS, SUBJECT, Retention
from tests.databases import NOW_MS, Row, apply_all, callback, execute, opened, select_all, stored

pytestmark = pytest.mark.anyio

OLD_MS = NOW_MS - 40 * DAY_MS
PRUNED = "SELECT count(*) FROM callbacks WHERE pruned_at_ms IS NOT NULL AND length(body) = 0"


def retention(database: Database, *, batch_size: int = 2) -> Retention:
    return Retention(database, now_ms=lambda: NOW_MS, batch_size=batch_size)


async def with_old_and_new(database: Database) -> None:
    for number in range(5):
        await apply_all(database, callback(order_id=f"old-{number}", payment_id=f"1{number}"), at_ms=OLD_MS + number)
    await apply_all(database, callback(order_id="new", payment_id="2"), at_ms=NOW_MS)


async def verified(database: Database) -> tuple[list[str], int, int]:
    verification = Verification(database, None, Range())
    await verification.run()
    gaps = [gap.sentence for gap in verification.gaps]
    return gaps, verification.account.callbacks, verification.account.pruned


async def test_old_bodies_go_and_all_else_stays(database: Database, database_url: str) -> None:
    await with_old_and_new(database)
    before = await stored(database_url)

    totals = await retention(database).run(30, who="olga")

    after = await stored(database_url)
    assert (totals.looked_at, totals.pruned, totals.kept) == (5, 5, 0)
    assert totals.pruned_bytes == _bytes(before) - _bytes(after) > 0
    assert await select_all(database_url, PRUNED) == [(5,)]
    assert {name: rows for name, rows in after.items() if name != "callbacks"} == {
        name: rows for name, rows in before.items() if name != "callbacks"
    }
    assert await verified(database) == ([], 6, 5)


def _bytes(tables: dict[str, list[Row]]) -> int:
    return sum(len(body) for _, body in tables["callbacks"] if isinstance(body, bytes))


async def test_a_repeat_of_a_pruned_callback_is_still_a_repeat(database: Database, database_url: str) -> None:
    await with_old_and_new(database)
    await retention(database).run(30, who="olga")

    applied = await apply_all(database, callback(order_id="old-1", payment_id="11"))

    assert (applied.fresh, applied.repeats) == (0, 1)
    assert await select_all(database_url, PRUNED) == [(5,)]
    assert await select_all(database_url, "SELECT max(times_seen) FROM callbacks") == [(2,)]


async def test_a_dry_run_counts_and_changes_nothing(database: Database, database_url: str) -> None:
    await with_old_and_new(database)

    forecast = await retention(database).run(30, who="olga", dry_run=True)

    assert await select_all(database_url, PRUNED) == [(0,)]
    assert await select_all(database_url, "SELECT count(*) FROM audit") == [(0,)]
    assert forecast == await retention(database).run(30, who="olga")


async def test_a_run_goes_on_where_the_last_one_ended_and_is_audited(database: Database) -> None:
    await with_old_and_new(database)
    await retention(database).run(30, who="olga")

    second = await retention(database).run(30, who="boris")
    whole = await retention(database).run(30, who="boris", everything=True)

    async with database.unit_of_work(read_only=True) as uow:
        entries: list[Entry] = await uow.audit.newest(subject=SUBJECT, limit=10)
    assert (second.looked_at, whole.looked_at, whole.pruned) == (0, 5, 0)
    assert [(each.actor, each.action) for each in entries[-2:]] == [("olga", "retention"), ("olga", "retention_begins")]
    assert (entries[-2].details["pruned"], entries[-2].details["days"]) == (5, 30)


async def test_the_projection_is_built_again_from_pruned_callbacks(database: Database, database_url: str) -> None:
    await with_old_and_new(database)
    await retention(database).run(30, who="olga")
    before = await stored(database_url)
    await execute(database_url, "DELETE FROM payments", "UPDATE orders SET status = 'pending'")
    told: list[Difference] = []

    forecast = await Forecast(database, tell=told.append).run(Span(to_ms=NOW_MS - DAY_MS))
    totals = await Replay(database, now_ms=lambda: NOW_MS).run(Span(to_ms=NOW_MS - DAY_MS), who="olga")
    await Replay(database, now_ms=lambda: NOW_MS).run(Span(), who="olga")

    assert (totals.callbacks, totals.pruned, totals.unreadable, totals.payments_mended) == (0, 5, 0, 5)
    assert (forecast.pruned, forecast.payments_mended) == (5, 5)
    assert await stored(database_url) == before
    assert (await verified(database))[0] == []


async def test_an_event_that_is_lost_after_the_pruning_is_told(database: Database, database_url: str) -> None:
    await with_old_and_new(database)
    await retention(database).run(30, who="olga")
    await execute(database_url, "DELETE FROM events WHERE payment_id = '11'")
    told: list[Difference] = []

    totals = await Replay(database, tell=told.append, now_ms=lambda: NOW_MS).run(Span(), who="olga")

    assert totals.unreadable == 1
    assert told[0].before == "pruned, and its event is gone"
    assert any("was pruned and has no event" in gap for gap in (await verified(database))[0])


async def test_a_body_without_an_event_is_all_there_is_and_stays(database: Database, database_url: str) -> None:
    await with_old_and_new(database)
    await execute(database_url, "DELETE FROM events WHERE payment_id = '11'")

    totals = await retention(database).run(30, who="olga")
    again = await retention(database).run(30, who="olga")

    assert (totals.pruned, totals.kept) == (4, 1)
    assert (again.looked_at, again.kept) == (4, 1)


async def test_dead_letters_stay(database: Database, database_url: str) -> None:
    columns = "fingerprint, reason, detail, body, content_type, headers, first_seen_at_ms, last_seen_at_ms, times_seen"
    await execute(
        database_url,
        f"INSERT INTO dead_letters ({columns}) VALUES ('f', 'x', 'x', 'body', 'x', '{{}}', 1, 1, 1)",  # noqa: S608
    )

    await retention(database).run(1, who="olga", everything=True)

    assert await select_all(database_url, "SELECT count(*) FROM dead_letters WHERE length(body) = 4") == [(1,)]


async def test_a_row_that_a_worker_holds_is_left_to_the_next_run(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        await database.migrate()
        await with_old_and_new(database)
        worker = await asyncpg.connect(postgres_url, timeout=10)
        working = worker.transaction()
        await working.start()
        await worker.execute(
            "UPDATE callbacks SET times_seen = 2 WHERE digest = (SELECT digest FROM events WHERE payment_id = '11')"
        )
        first = await retention(database).run(30, who="olga")
        await working.rollback()
        await worker.close()
        second = await retention(database).run(30, who="olga")

    assert (first.pruned, first.kept) == (4, 1)
    assert (second.pruned, second.kept) == (1, 0)
