"""The shop's own functions in the worker's transaction: once in effect, and no harm to anybody else's message."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

import pytest
import structlog

from oplata import Change, Handlers, OplataError, Transaction
from oplata.errors import DataRejected
from oplata.orders.commands import Orders
from oplata.queue.sqlite import SqliteQueue
from oplata.storage.dead_letters import Wanted
from oplata.storage.engine import Database
from oplata.storage.settling import Act
from oplata.worker.archived import Span
from oplata.worker.backlog import begin
from oplata.worker.loop import Worker
from oplata.worker.redrive import Redrive
from oplata.worker.replay import Replay
from tests.contract.sqlite_processes import Clock
from tests.contract.working import put, queue, until, until_empty, working
from tests.databases import (
    KEYRING,
    ORDER_KOPECKS,
    Row,
    apply_all,
    assert_log_is_whole,
    callback,
    counted,
    execute,
    opened,
    select_all,
)
from tests.services.breakable import Breakable

__all__ = ["queue"]

pytestmark = pytest.mark.anyio

CARD = "4300000000000777"
TABLE = "CREATE TABLE shipments (order_id varchar NOT NULL, status varchar NOT NULL, version bigint NOT NULL)"


@pytest.fixture
async def shop(database: Database, database_url: str) -> Database:
    """The database, with a table of the shop's own in it; handlers have begun."""
    await execute(database_url, TABLE)
    await begin(database)
    return database


async def ship(change: Change, tx: Transaction) -> None:
    """What a shop does."""
    await tx.execute(
        "INSERT INTO shipments (order_id, status, version) VALUES (:order_id, :status, :version)",
        order_id=change.order_id,
        status=change.status,
        version=change.version,
    )


def handlers_of(*functions: object, statuses: Sequence[str] = ("paid",)) -> Handlers:
    app = Handlers()
    for function in functions:
        app.on(*statuses)(function)  # type: ignore[type-var]
    return app


def at_work(queue: SqliteQueue, database: Database, handlers: Handlers, **options: object) -> Worker:
    given: dict[str, object] = {"retry_delays_ms": [100], "handler_timeout_s": 20.0, "max_attempts": 2} | options
    return Worker(queue=queue, database=database, keyring=KEYRING, handlers=handlers, **given)  # type: ignore[arg-type]


async def register(database: Database, *order_ids: str) -> None:
    for order_id in order_ids:
        await Orders(database).register(order_id, ORDER_KOPECKS)


async def shipments(url: str) -> list[Row]:
    return await select_all(url, "SELECT order_id, status, version FROM shipments ORDER BY order_id, version")


async def letters(url: str) -> list[Row]:
    return await select_all(url, "SELECT reason, order_id, attempts, detail FROM dead_letters ORDER BY order_id")


async def test_what_a_handler_writes_is_committed_with_the_event_once(
    queue: SqliteQueue, shop: Database, database_url: str
) -> None:
    await register(shop, "a", "b")
    bodies = [callback("AUTHORIZED", order_id="a"), callback(order_id="a"), callback(order_id="b", payment_id="2")]
    await put(queue, *bodies, *bodies)
    async with working(at_work(queue, shop, handlers_of(ship))):
        await until_empty(queue)
        await put(queue, *bodies)
        await until_empty(queue)
    assert [row[:2] for row in await shipments(database_url)] == [("a", "paid"), ("b", "paid")]
    await assert_log_is_whole(database_url)


async def test_a_handler_that_raises_sends_its_message_alone_down_the_ladder_and_to_the_dead_letters(
    queue: SqliteQueue, shop: Database, database_url: str
) -> None:
    calls: Counter[str] = Counter()

    async def bad(change: Change, tx: Transaction) -> None:
        calls[change.order_id] += 1
        if change.order_id == "o-13":
            raise KeyError(CARD)

    names = [f"o-{number:02}" for number in range(40)]
    await register(shop, *names)
    await put(queue, *(callback(order_id=name, payment_id=name) for name in names))
    worker = at_work(queue, shop, handlers_of(ship, bad))
    with structlog.testing.capture_logs() as logs:
        async with working(worker):
            await until(lambda: worker.stats.buried == 1)
            await until_empty(queue)
    assert [row[0] for row in await shipments(database_url)] == [name for name in names if name != "o-13"]
    assert await select_all(database_url, "SELECT status FROM orders WHERE order_id = 'o-13'") == [("pending",)]
    (letter,) = await letters(database_url)
    assert letter[:3] == ("handler_failed", "o-13", 2)
    assert "bad failed on change 2 of order o-13: KeyError" in str(letter[3])
    assert "test_handlers.py" in str(letter[3])
    assert CARD not in str(letter[3]) + str(logs)
    # It is known who failed: his neighbours are not tried again and again to find out.
    assert max(count for name, count in calls.items() if name != "o-13") <= 2
    assert (worker.stats.applied, worker.stats.retried) == (39, 1)


async def test_a_handler_that_hangs_is_timed_out_and_one_that_will_not_leave_is_left_behind(
    queue: SqliteQueue, shop: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oplata.worker.handling.STUBBORN_S", 0.1)
    late: list[BaseException] = []
    leave = asyncio.Event()

    async def hang(change: Change, tx: Transaction) -> None:
        if change.order_id == "hangs":
            await asyncio.sleep(60)
        while change.order_id == "stubborn" and not leave.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await leave.wait()
        if change.order_id == "stubborn":
            try:
                await ship(change, tx)
            except OplataError as error:
                late.append(error)

    await register(shop, "fine", "hangs", "stubborn")
    await put(queue, *(callback(order_id=name, payment_id=name) for name in ("hangs", "stubborn", "fine")))
    worker = at_work(queue, shop, handlers_of(ship, hang), max_attempts=1, handler_timeout_s=0.8)
    async with working(worker):
        await until(lambda: worker.stats.buried == 2)
        await until_empty(queue)
        leave.set()
    assert [row[0] for row in await shipments(database_url)] == ["fine"]
    assert ["it took longer than 0.8 s" in str(letter[3]) for letter in await letters(database_url)] == [True, True]
    assert ["the handler is over" in str(error) for error in late] == [True] * len(late)
    assert len(late) > 0


async def test_a_database_error_that_a_handler_swallows_fails_it_all_the_same(
    queue: SqliteQueue, shop: Database, database_url: str
) -> None:
    said: list[str] = []

    async def swallow(change: Change, tx: Transaction) -> None:
        await ship(change, tx)
        if change.order_id != "bad":
            return
        for statement in ("SELECT nothing FROM nowhere", "SELECT 1 AS one"):
            try:
                await tx.execute(statement)
            except OplataError as error:
                said.append(str(error))

    await register(shop, "bad", "good")
    await put(queue, callback(order_id="bad"), callback(order_id="good", payment_id="2"))
    worker = at_work(queue, shop, handlers_of(swallow), max_attempts=1)
    async with working(worker):
        await until(lambda: worker.stats.buried == 1)
        await until_empty(queue)
    assert [row[0] for row in await shipments(database_url)] == ["good"]
    assert said[0] == said[1]
    assert "a handler's statement failed" in said[0]
    assert worker.stats.pauses == 0


async def test_a_statement_that_is_cut_short_inside_a_handler_fails_it(queue: SqliteQueue, postgres_url: str) -> None:
    async def hasty(change: Change, tx: Transaction) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await tx.execute("SELECT pg_sleep(2)")

    async with opened(postgres_url) as database:
        await database.migrate()
        await register(database, "order-1")
        await put(queue, callback())
        worker = at_work(queue, database, handlers_of(hasty), max_attempts=1)
        async with working(worker):
            await until(lambda: worker.stats.buried == 1)
    assert "cancelled before it was answered" in str((await letters(postgres_url))[0][3])
    assert worker.stats.pauses == 0


ENDINGS = [
    "COMMIT",
    "rollback",
    "  END",
    ";COMMIT",
    "-- a note\nCOMMIT",
    "/* a /* nested */ note */ COMMIT",
    "SELECT 1; COMMIT",
    "SAVEPOINT x",
    "PRAGMA synchronous=OFF",
    "SET statement_timeout = 0",
    "CREATE TABLE mine (id bigint)",
    "",
]


async def test_a_handler_cannot_end_the_transaction_that_it_was_lent(shop: Database, database_url: str) -> None:
    async def end(ending: str) -> None:
        async with shop.unit_of_work() as uow, uow.lend() as tx:
            await tx.execute("INSERT INTO shipments VALUES ('half', 'done', 1)")
            await tx.execute(ending)

    for ending in ENDINGS:
        with pytest.raises(DataRejected):
            await end(ending)
    assert await shipments(database_url) == []


async def test_rows_come_back_by_name_and_values_go_in_as_they_are(shop: Database, database_url: str) -> None:
    async with shop.unit_of_work() as uow:
        async with uow.lend() as tx:
            quoted = "'; DROP TABLE shipments; --"
            insert = "INSERT INTO shipments VALUES (:id, :status, :version) RETURNING order_id, version"
            assert await tx.execute(insert, id=quoted, status="", version=7) == [{"order_id": quoted, "version": 7}]
            assert await tx.execute("UPDATE shipments SET version = version + :more", more=1) == []
            # Statements of one handler that run side by side take turns on the one connection.
            read = "SELECT version FROM shipments WHERE order_id = :id"
            answers = await asyncio.gather(*(tx.execute(read, id=quoted) for _ in range(3)))
        with pytest.raises(DataRejected, match="the handler is over"):
            await tx.execute("SELECT 1")
        await uow.commit()
    assert answers == [[{"version": 8}]] * 3
    assert await shipments(database_url) == [(quoted, "", 8)]


async def test_workers_side_by_side_run_each_handler_once_in_effect(
    queue: SqliteQueue, shop: Database, database_url: str
) -> None:
    names = [f"o-{number}" for number in range(12)]
    await register(shop, *names[:6])
    await put(
        queue, *(callback(status, order_id=n, payment_id=n) for status in ("AUTHORIZED", "CONFIRMED") for n in names)
    )
    async with opened(database_url) as second, contextlib.AsyncExitStack() as stack:
        workers = [at_work(queue, each, handlers_of(ship), batch_size=3, prefetch=3) for each in (shop, second)]
        for worker in workers:
            await stack.enter_async_context(working(worker))
        await register(second, *names[6:])
        await until_empty(queue)

        async def all_shipped() -> bool:
            return len(await shipments(database_url)) >= len(names)

        await until(all_shipped)
        await asyncio.sleep(0.2)
    assert sorted(str(row[0]) for row in await shipments(database_url)) == sorted(names)


async def test_an_order_that_is_registered_after_its_payment_is_shipped(
    queue: SqliteQueue, shop: Database, database_url: str
) -> None:
    await apply_all(shop, callback())
    await register(shop, "order-1")
    worker = at_work(queue, shop, handlers_of(ship))
    async with working(worker):
        await until(lambda: worker.stats.handled == 1)
        await register(shop, "order-1")
    assert await shipments(database_url) == [("order-1", "paid", 1)]
    assert await select_all(database_url, "SELECT count(*) FROM handler_backlog") == [(0,)]


async def test_what_a_worker_without_handlers_and_a_replay_change_is_handled_too(
    queue: SqliteQueue, shop: Database, database_url: str
) -> None:
    await register(shop, "a", "b")
    await apply_all(shop, callback(order_id="a"))
    await execute(database_url, "UPDATE orders SET amount_kopecks = 1 WHERE order_id = 'a'")
    await Replay(shop).run(Span(), who="olga")
    worker = at_work(queue, shop, handlers_of(ship, statuses=()))
    async with working(worker):
        await until(lambda: worker.stats.handled == 4)
    assert await shipments(database_url) == [
        ("a", "pending", 1),
        ("a", "paid", 2),
        ("a", "pending", 3),
        ("b", "pending", 1),
    ]


async def test_a_message_runs_first_what_its_order_has_outstanding(
    queue: SqliteQueue, shop: Database, database_url: str
) -> None:
    """Else the goods of an order that was paid at its registration might be sent after its refund."""
    told: list[tuple[str, int]] = []

    async def note(change: Change, tx: Transaction) -> None:
        told.append((change.status, change.version))

    await apply_all(shop, callback())
    await register(shop, "order-1")
    worker = at_work(queue, shop, handlers_of(note, ship, statuses=("paid", "refunded")))
    worker._backlog = None  # It comes too late.
    async with working(worker):
        await put(queue, callback("REFUNDED", 0))
        await until_empty(queue)
    assert told == [("paid", 1), ("refunded", 2)]
    assert [row[1:] for row in await shipments(database_url)] == [("paid", 1), ("refunded", 2)]
    again = at_work(queue, shop, handlers_of(note, statuses=("paid", "refunded")))
    async with working(again):
        await asyncio.sleep(0.3)
    assert len(told) == 2


async def test_a_change_whose_handler_keeps_failing_is_given_up_told_and_can_be_redriven(
    queue: SqliteQueue, shop: Database, database_url: str
) -> None:
    broken = True

    async def sometimes(change: Change, tx: Transaction) -> None:
        await ship(change, tx)
        if broken and change.status == "paid":
            raise ValueError(CARD)

    await apply_all(shop, callback())
    await register(shop, "order-1", "order-2")
    await apply_all(shop, callback("REFUNDED", 0))
    worker = at_work(queue, shop, handlers_of(sometimes, statuses=()))
    async with working(worker):
        await until(lambda: worker.stats.handled == 2 and worker.stats.handlers_given_up == 1)
        assert await shipments(database_url) == [("order-1", "refunded", 2), ("order-2", "pending", 1)]
        (letter,) = await letters(database_url)
        assert letter[:3] == ("handler_failed", "order-1", 2)
        assert "ValueError" in str(letter[3])
        assert CARD not in str(letter[3])

        redrive, act = Redrive(shop), Act(who="olga", why="the warehouse is back")
        rehearsed = [trial async for trial in redrive.rehearse(KEYRING, Wanted(), limit=10)]
        assert [(each.order_id, each.buried_again) for each in rehearsed[0].prospects] == [("order-1", None)]
        broken = False
        outcomes = [each async for each in redrive.redrive(queue.publisher(), Wanted(), act, limit=10)]
        assert [each.settled for each in outcomes] == [True]
        await until(lambda: worker.stats.handled == 3)
    assert (await queue.depth()).ready == 0
    assert await shipments(database_url) == [
        ("order-1", "paid", 1),
        ("order-1", "refunded", 2),
        ("order-2", "pending", 1),
    ]


async def test_a_clock_set_back_an_hour_strands_no_change(
    queue: SqliteQueue, shop: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oplata.worker.backlog.RECALL_EVERY_S", 0.1)
    clock = Clock()
    clock.ahead_ms = 3_600_000
    failing = True

    async def sometimes(change: Change, tx: Transaction) -> None:
        if failing:
            raise LookupError(change.order_id)
        await ship(change, tx)

    async def is_put_off() -> bool:
        return await select_all(database_url, "SELECT attempts FROM handler_backlog") == [(1,)]

    await register(shop, "order-1")
    handlers = handlers_of(sometimes, statuses=())
    worker = at_work(queue, shop, handlers, retry_delays_ms=[2_000], max_attempts=9, now_ms=clock)
    async with working(worker):
        await until(is_put_off)
        failing = False
        clock.ahead_ms = 0
        await until(lambda: worker.stats.handled == 1, timeout_s=10)
    assert await shipments(database_url) == [("order-1", "pending", 1)]


async def test_only_what_waits_for_longer_than_it_was_put_off_is_recalled(shop: Database, database_url: str) -> None:
    now_ms, minute_ms, month_ms = 1_760_000_000_000, 60_000, 30 * 24 * 3_600_000
    delays_ms = (0, 1_000, month_ms)
    waits = {
        "not-yet-tried": (0, 0),
        "not-yet-tried, another clock": (0, minute_ms),
        "not-yet-tried, set back": (0, minute_ms + 1),
        "failed once": (1, 1_000 + minute_ms),
        "failed once, set back": (1, 1_000 + minute_ms + 1),
        "failed often": (7, month_ms + minute_ms),
        "failed often, set back": (7, month_ms + minute_ms + 1),
    }
    async with shop.unit_of_work() as uow:
        for order_id, (attempts, ahead_ms) in waits.items():
            await uow.handling.put_off(order_id, due_at_ms=now_ms + ahead_ms, attempts=attempts)
        await uow.commit()

    async with shop.unit_of_work() as uow:
        recalled = await uow.handling.recall(delays_ms, now_ms)
        await uow.commit()

    expected = {
        order_id: (attempts, now_ms if "set back" in order_id else now_ms + ahead_ms)
        for order_id, (attempts, ahead_ms) in waits.items()
    }
    rows = await select_all(database_url, "SELECT order_id, attempts, due_at_ms FROM handler_backlog")
    assert (3, expected) == (recalled, {row[0]: row[1:] for row in rows})


async def test_changes_from_before_the_first_handler_are_history(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    await execute(database_url, TABLE)
    await register(database, "before")
    await apply_all(database, callback(order_id="before"))
    await begin(database)
    await begin(database)
    await register(database, "after")
    worker = at_work(queue, database, handlers_of(ship, statuses=()))
    async with working(worker):
        await until(lambda: worker.stats.handled == 1)
        await put(queue, callback("REFUNDED", 0, order_id="before"))
        await until_empty(queue)
    assert await shipments(database_url) == [("after", "pending", 1), ("before", "refunded", 3)]


async def test_a_slow_handler_holds_up_no_other_worker(queue: SqliteQueue, postgres_url: str) -> None:
    """The change log is locked from the append to the commit, and handlers run before."""
    reached, gate = asyncio.Event(), asyncio.Event()

    async def slow(change: Change, tx: Transaction) -> None:
        await ship(change, tx)
        reached.set()
        await gate.wait()

    async with opened(postgres_url) as database:
        await database.migrate()
        await execute(postgres_url, TABLE)
        await register(database, "order-1")
        await put(queue, callback())
        worker = at_work(queue, database, handlers_of(slow))
        async with working(worker):
            await asyncio.wait_for(reached.wait(), 10)
            async with asyncio.timeout(5):
                await apply_all(database, callback(order_id="order-2", payment_id="2"))
                await register(database, "order-2")
            assert worker.stats.applied == 0
            gate.set()
            await until(lambda: worker.stats.applied == 1)
    await assert_log_is_whole(postgres_url)


async def test_a_batch_of_slow_handlers_is_cut_in_two(
    queue: SqliteQueue, shop: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oplata.worker.handling.BUDGET_S", 0.02)
    longest: list[int] = []

    async def slow(change: Change, tx: Transaction) -> None:
        await ship(change, tx)
        await asyncio.sleep(0.015)
        longest.append(len(await tx.execute("SELECT order_id FROM shipments")))

    names = [f"o-{number}" for number in range(8)]
    await register(shop, *names)
    await put(queue, *(callback(order_id=name, payment_id=name) for name in names))
    worker = at_work(queue, shop, handlers_of(slow))
    async with working(worker):
        await until(lambda: worker.stats.applied == 8)
    assert sorted(str(row[0]) for row in await shipments(database_url)) == names
    assert worker.stats.batches > 1
    assert worker.stats.retried == 0


async def test_a_database_that_goes_away_under_a_handler_costs_no_attempt(
    queue: SqliteQueue, database_server: Breakable
) -> None:
    async def ask(change: Change, tx: Transaction) -> None:
        if not killed:
            killed.append(1)
            await database_server.kill9()
        await tx.execute("SELECT 1")

    killed: list[int] = []
    async with opened(database_server.url) as database:
        await database.migrate()
        await Orders(database).register("under-a-handler", ORDER_KOPECKS)
        await put(queue, callback(order_id="under-a-handler", payment_id="uh"))
        worker = at_work(queue, database, handlers_of(ask))
        async with working(worker):
            await until(lambda: worker.stats.pauses > 0)
            await database_server.start()
            await until(lambda: worker.stats.applied == 1)
    assert (worker.stats.retried, worker.stats.buried) == (0, 0)


async def test_without_handlers_no_statement_knows_of_them(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    await register(database, "order-1")
    await put(queue, callback())
    with counted(database) as statements:
        worker = Worker(queue=queue, database=database, keyring=KEYRING, handlers=Handlers())
        async with working(worker):
            await until(lambda: worker.stats.applied == 1)
    assert [each for each in statements if "INSERT INTO changes" in each]
    assert [each for each in statements if "handle" in each] == []
