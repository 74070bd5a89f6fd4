"""What PostgreSQL is told in its own words: columns that come in as one text each, and rows found by their index."""

from __future__ import annotations

import asyncio
import contextlib
import random

import asyncpg
import pytest

from oplata.errors import Contention, DataRejected, SchemaError
from oplata.orders.commands import Orders
from oplata.storage.engine import Database
from oplata.storage.rows import stated
from oplata.storage.unit_of_work import UnitOfWork
from oplata.worker.apply import apply
from tests.databases import NOW_MS, ORDER_KOPECKS, apply_all, callback, execute, opened, select_all, works
from tests.notifications import TERMINAL_KEY

pytestmark = pytest.mark.anyio

ODD = [
    "",
    " ",
    "\x1f",
    "\x1e",
    "\x1f\x1e",
    "a\x1fb",
    "\ue000",
    "\ue001\x1e",
    "заказ",
    "\U0001f600",
    '{"a":"b,\\""}',
    "NULL",
]
LARGE_TABLES = ("callbacks", "events", "payments", "orders", "changes", "words")


@pytest.mark.parametrize("seed", range(20))
async def test_columns_come_out_as_they_went_in(postgres_url: str, seed: int) -> None:
    rng = random.Random(seed)
    given: list[list[list[str | None]]] = []
    for width in (1, 3):
        rows = rng.choice((0, 1, 1, 2, 7))
        given.append([[rng.choice([*ODD, None, "plain"]) for _ in range(rows)] for _ in range(width)])
    statement = stated(
        lambda relation: (
            f"WITH {relation('one', 'a', 3)}, {relation('three', 'a b c', 5)} "  # noqa: S608  It is ours.
            "SELECT 1, n, a, NULL, NULL FROM one UNION ALL SELECT 3, n, a, b, c FROM three ORDER BY 1, 2"
        )
    )
    connection = await asyncpg.connect(postgres_url, timeout=10)
    try:
        found = [tuple(row) for row in await connection.fetch(*statement.over(*given), timeout=30)]
    finally:
        await connection.close()
    [one], three = given
    expected: list[tuple[object, ...]] = [(1, n, each, None, None) for n, each in enumerate(one, 1)]
    expected += [(3, n, *row) for n, row in enumerate(zip(*three, strict=True), 1)]
    assert found == expected


def test_a_text_that_leaves_no_mark_is_refused() -> None:
    every = "".join(map(chr, [*range(0x20), *range(0xE000, 0xF900), *range(0xF0000, 0x110000)]))
    with pytest.raises(DataRejected):
        stated(lambda relation: relation("one", "a", 3)).over([[every, every]])


async def test_no_table_is_read_whole_however_short_it_is(postgres_url: str) -> None:
    """A plan is kept: one that was made for a short table would be there still when the table is long."""
    async with opened(postgres_url) as database:
        await database.migrate()
        for number in range(60):
            await Orders(database).register(f"order-{number}", ORDER_KOPECKS)
        for status in ("AUTHORIZED", "CONFIRMED"):
            await apply_all(database, *(callback(status, order_id=f"order-{n}", payment_id=str(n)) for n in range(60)))
    await execute(postgres_url, "VACUUM ANALYZE")
    before = await _read_whole(postgres_url)
    async with opened(postgres_url) as database:
        for number in range(12):  # From the sixth time on, the plan is one for all values.
            told = [
                callback(status, order_id=f"order-{n}", payment_id=str(n), n=number)
                for n in range(number, 60, 12)
                for status in ("PARTIAL_REFUNDED", "REFUNDED")
            ]
            applied = await apply_all(database, *told, at_ms=NOW_MS + number)
            assert (applied.fresh, len(applied.changes)) == (10, 5)
    assert await _read_whole(postgres_url) == before


async def _read_whole(url: str) -> list[tuple[object, ...]]:
    # What a connection has counted is told at its end.
    names = ", ".join(f"'{name}'" for name in LARGE_TABLES)
    query = f"SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname IN ({names}) ORDER BY relname"  # noqa: S608
    return await select_all(url, query)


DIGEST = works(callback())[0].event.digest
A_CALLBACK = (
    "INSERT INTO callbacks (digest, body, content_type, first_seen_at_ms, last_seen_at_ms, times_seen) "  # noqa: S608
    f"VALUES ('{DIGEST}', '', '', 0, 0, 1)"
)
AN_EVENT = (
    "INSERT INTO events (digest, kind, terminal_key, status, details, recorded_at_ms) "  # noqa: S608
    f"VALUES ('{DIGEST}', '', '', '', '', 0)"
)
A_PAYMENT = (
    "INSERT INTO payments (terminal_key, payment_id, status, evidence, created_at_ms, updated_at_ms) "  # noqa: S608
    f"VALUES ('{TERMINAL_KEY}', '1', 'NEW', '{{}}', 0, 0)"
)
AN_ORDER = (
    "INSERT INTO orders (order_id, status, version, created_at_ms, updated_at_ms) "
    "VALUES ('order-1', 'unregistered', 0, 0, 0)"
)


@pytest.mark.parametrize(
    ("held", "behind"),
    [(A_CALLBACK, AN_EVENT), (AN_EVENT, A_PAYMENT), (A_PAYMENT, AN_ORDER)],
    ids=["archive", "events", "payments"],
)
async def test_what_waits_for_one_table_has_locked_nothing_of_those_behind_it(
    postgres_url: str, held: str, behind: str
) -> None:
    """The parts of one statement run in no order but that in which they wait for one another."""
    async with opened(postgres_url) as database:
        await database.migrate()
        first, second = [await asyncpg.connect(postgres_url, timeout=10) for _ in range(2)]
        try:
            async with contextlib.AsyncExitStack() as stack:
                outer = first.transaction()
                await outer.start()
                await first.execute(held, timeout=10)
                waiting = asyncio.create_task(apply_all(database, callback()))
                await _until_somebody_waits(second)
                inner = second.transaction()
                await inner.start()
                await second.execute(behind, timeout=5)
                stack.push_async_callback(outer.rollback)
                stack.push_async_callback(inner.rollback)
            applied = await asyncio.wait_for(waiting, 10)
        finally:
            await first.close()
            await second.close()
    assert applied.fresh == 1


async def _until_somebody_waits(connection: asyncpg.Connection) -> None:
    for _ in range(500):
        if await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted", timeout=10):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits for a lock")


async def test_a_connection_whose_rollback_was_interrupted_is_never_lent_again(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was done on it, and given up, would be committed with whatever comes next."""
    execute_whole = asyncpg.Connection.execute

    async def interrupted(connection: asyncpg.Connection, query: str, *args: object, **more: object) -> object:
        if query == "ROLLBACK":
            raise asyncio.CancelledError
        return await execute_whole(connection, query, *args, **more)

    database = Database(postgres_url, pool_size=1)
    await database.start()
    try:
        await database.migrate()
        with monkeypatch.context() as patched:
            patched.setattr(asyncpg.Connection, "execute", interrupted)
            with pytest.raises(asyncio.CancelledError):
                await database.transact(_apply_and_fail)
        await apply_all(database, callback(payment_id="2"))
    finally:
        await database.stop()
    assert await select_all(postgres_url, "SELECT payment_id FROM events") == [("2",)]


async def _apply_and_fail(uow: UnitOfWork) -> None:
    await apply(uow, works(callback()), NOW_MS)
    raise ZeroDivisionError


async def test_a_commit_of_what_has_failed_is_told(postgres_url: str) -> None:
    """PostgreSQL answers COMMIT with ROLLBACK then, and calls that no error."""
    async with opened(postgres_url) as database, database.unit_of_work() as uow:
        with pytest.raises(SchemaError):
            await apply(uow, works(callback()), NOW_MS)
        with pytest.raises(Contention, match="answered COMMIT with ROLLBACK"):
            await uow.commit()
