"""What the databases refuse, lose or fail at is told in our own words, and a batch costs the same whatever its size."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from urllib.parse import urlsplit

import msgspec
import pytest

from oplata.domain.events import Event, EventKind
from oplata.errors import DatabaseUnavailable, DataRejected, OplataError, SchemaError, SettingsError
from oplata.orders.commands import Orders
from oplata.storage.dead_letters import DeadLetter
from oplata.storage.engine import Database
from oplata.worker.apply import apply
from oplata.worker.batch import Work
from tests.databases import (
    NOW_MS,
    ORDER_KOPECKS,
    TABLES,
    Row,
    apply_all,
    assert_log_is_whole,
    callback,
    counted,
    execute,
    opened,
    scheme_of,
    select_all,
    stored,
    without_begin,
    works,
)
from tests.services.breakable import Breakable
from tests.services.proxy import Proxy

pytestmark = pytest.mark.anyio

SECRET = "s3cret-Pa55"

STATEMENTS_OF_NEWS = {"postgresql": 4, "sqlite": 9}
"""Each is a way to the server and back; in SQLite, which makes one thing of less, to its thread."""

STATEMENTS_OF_REPEATS = {"postgresql": 1, "sqlite": 2}


async def test_one_callback_and_five_hundred_cost_the_same_statements(database: Database, database_url: str) -> None:
    for number in range(501):
        if number % 5 == 0:
            await Orders(database).register(f"order-{number}", ORDER_KOPECKS)
    with counted(database) as for_one:
        await apply_all(database, callback(payment_id="0", order_id="order-0"))
    with counted(database) as for_many:
        applied = await apply_all(
            database,
            *(callback(payment_id=str(number), order_id=f"order-{number}") for number in range(1, 501)),
        )
    assert (applied.fresh, len(applied.changes)) == (500, 100)
    assert [len(without_begin(each)) for each in (for_one, for_many)] == [
        STATEMENTS_OF_NEWS[scheme_of(database_url)]
    ] * 2


async def test_a_batch_of_repeats_costs_no_more_than_the_archive_and_the_events(
    database: Database, database_url: str
) -> None:
    body = callback()
    await apply_all(database, body)
    with counted(database) as statements:
        await apply_all(database, body, body)
    assert len(without_begin(statements)) == STATEMENTS_OF_REPEATS[scheme_of(database_url)]


async def test_a_value_that_no_column_holds_is_refused_and_not_waited_for(database: Database) -> None:
    """The client's own encoder meets it before the server does, and that must not look like a lost connection."""
    huge = Event(digest="d", kind=EventKind.PAYMENT, terminal_key="t", status="NEW", amount_kopecks=2**70)
    lone = Event(digest="d", kind=EventKind.PAYMENT, terminal_key="\ud800", status="NEW")
    for odd in (huge, lone):
        with pytest.raises(DataRejected):
            async with database.unit_of_work() as uow:
                await uow.events.record([odd], NOW_MS)
    assert await _counts(database) == 0


@pytest.mark.parametrize("others", [0, 2])
async def test_a_value_that_no_column_holds_is_refused_among_others_too(database: Database, others: int) -> None:
    plain = [*works(*(callback(payment_id=str(number)) for number in range(others))), *works(callback(payment_id="9"))]
    values: list[dict[str, object]] = [
        {"amount_kopecks": 2**70},
        {"order_id": "\ud800"},
        {"source": "\ud800"},
        {"payment_id": "\x1f\ud800"},
        {"details": {"Note": "\ud800"}},
    ]
    for odd in values:
        refused = [_changed(plain[0], odd), *plain[1:]]
        with pytest.raises(DataRejected):
            async with database.unit_of_work() as uow:
                await apply(uow, refused, NOW_MS)
    assert await _counts(database) == 0


def _changed(work: Work, odd: dict[str, object]) -> Work:
    if "source" in odd:
        return msgspec.structs.replace(work, **odd)
    return msgspec.structs.replace(work, event=msgspec.structs.replace(work.event, **odd))


async def _counts(database: Database) -> int:
    async with database.unit_of_work(read_only=True) as uow:
        return await uow.archive.count()


async def test_what_is_not_committed_by_name_is_rolled_back(database: Database, database_url: str) -> None:
    async with database.unit_of_work() as uow:
        await apply(uow, works(callback()), NOW_MS)
    with contextlib.suppress(ZeroDivisionError):
        async with database.unit_of_work() as uow:
            await apply(uow, works(callback()), NOW_MS)
            raise ZeroDivisionError
    assert all(rows == [] for rows in (await stored(database_url)).values())
    assert (await apply_all(database, callback())).fresh == 1


async def test_one_that_is_cancelled_in_any_statement_leaves_nothing_and_blocks_nobody(
    database: Database, database_url: str
) -> None:
    await Orders(database).register("order-1", ORDER_KOPECKS)
    untouched = await _everything(database_url)
    number = 1
    # Each try would wait for what the one before it had left locked.
    while True:
        was_cancelled, statements = await asyncio.wait_for(_cancelled_in(database, number), 5)
        if not was_cancelled:
            break
        assert (len(statements), await _everything(database_url)) == (number, untouched)
        number += 1
    # The last one went through, and before it each statement that it takes was the one to be cancelled in.
    assert len(statements) == number - 1
    assert await select_all(database_url, "SELECT payment_id, status FROM payments") == [("1", "CONFIRMED")]
    assert await select_all(database_url, "SELECT status, version FROM orders") == [("paid", 2)]


async def _everything(url: str) -> dict[str, list[Row]]:
    return {name: sorted(await select_all(url, f"SELECT * FROM {name}"), key=repr) for name in TABLES}  # noqa: S608


async def _cancelled_in(database: Database, number: int) -> tuple[bool, list[str]]:
    """Apply a callback, and cancel that in its statement of this number; whether that ended it, and its statements."""
    task = asyncio.create_task(apply_all(database, callback()))

    def cancel(statements: list[str]) -> None:
        if len(statements) == number:
            task.cancel()

    with counted(database, cancel) as statements:
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()
    return task.cancelled(), statements


async def test_a_commit_whose_answer_is_lost_is_applied_once(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    async with opened(postgres_url) as direct:
        await direct.migrate()
        await Orders(direct).register("order-1", ORDER_KOPECKS)
        # The server is in the middle of COMMIT, and past the point of asking the client, when the wire is cut.
        await execute(
            postgres_url,
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.8); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION dawdle()",
        )
        async with Proxy(parts.port or 5432, parts.hostname or "127.0.0.1") as wire:
            near = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{wire.port}")).geturl()
            near = near.replace(f"@{parts.hostname}", "@127.0.0.1")
            async with opened(near) as database:
                lost = asyncio.create_task(apply_all(database, callback()))
                await _until_committing(postgres_url)
                await wire.cut()
                with pytest.raises(DatabaseUnavailable):
                    await lost
                for _ in range(100):
                    if await select_all(postgres_url, "SELECT * FROM events"):
                        break
                    await asyncio.sleep(0.1)
                before = await stored(postgres_url)
                applied = await apply_all(database, callback())
    assert (applied.fresh, applied.repeats, list(applied.changes)) == (0, 1, [])
    assert await stored(postgres_url) == before
    assert await select_all(postgres_url, "SELECT status, version FROM orders") == [("paid", 2)]
    await assert_log_is_whole(postgres_url)


async def _until_committing(url: str) -> None:
    query = """
        SELECT 1 FROM pg_stat_activity
        WHERE application_name = 'oplata' AND query ILIKE 'COMMIT%' AND state = 'active'
        """
    for _ in range(100):
        if await select_all(url, query):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nobody commits")


async def _apply_and_die(database: Database, server: Breakable, body: bytes, step: str) -> None:
    async with database.unit_of_work() as uow:
        part, _, name = step.rpartition(".")
        owner = getattr(uow, part) if part else uow
        whole = getattr(owner, name)

        async def dying(*args: object, **named: object) -> object:
            await server.kill9()
            return await whole(*args, **named)

        setattr(owner, name, dying)
        await apply(uow, works(body), NOW_MS)
        await uow.commit()


@pytest.mark.parametrize("step", ["intake.take", "orders.lock", "telling.tell", "commit"])
async def test_a_server_that_dies_at_any_step_is_a_retryable_fault_and_leaves_nothing(
    database_server: Breakable, step: str
) -> None:
    async with opened(database_server.url) as database:
        await database.migrate()
        order_id = f"dies-at-{step}"
        await Orders(database).register(order_id, ORDER_KOPECKS)
        body = callback(order_id=order_id, payment_id=order_id)
        with pytest.raises(DatabaseUnavailable):
            await _apply_and_die(database, database_server, body, step)
        with pytest.raises(DatabaseUnavailable):
            await database.check()
        await database_server.start()
        applied = await apply_all(database, body)
        assert (applied.fresh, len(applied.changes)) == (1, 1)
        assert (await Orders(database).get(order_id)).status == "paid"


async def test_no_error_shows_a_password_or_a_payment(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    urls = [
        f"postgresql://oplata:{SECRET}@127.0.0.1:1/none",
        f"postgresql://oplata_nobody:{SECRET}@{parts.hostname}:{parts.port}/none",
        f"postgresql://oplata:{SECRET}@host.invalid/none",
    ]
    for url in urls:
        async with opened(url) as database:
            assert SECRET not in repr(database) + str(database) + database.name
            with pytest.raises(DatabaseUnavailable) as caught:
                await database.check()
            assert SECRET not in "".join(traceback.format_exception(caught.value))
    async with opened(postgres_url) as database:
        with pytest.raises(SchemaError) as unmigrated:
            await apply_all(database, callback(Pan="430000******0777", Message=SECRET))
        told = "".join(traceback.format_exception(unmigrated.value))
    assert SECRET not in told
    assert "oplata migrate" in str(unmigrated.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "oplata.db",
        f"oplata:{SECRET}@host/name",
        f"mysql://oplata:{SECRET}@host/name",
        f"postgresql://oplata:{SECRET}@host:port/name",
        f"postgresql://oplata:{SECRET}@host/name?connect_timeout=5",
        f"postgresql://oplata:{SECRET}@host/name?sslmode=sometimes",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///oplata.db?mode=ro",
    ],
)
def test_a_wrong_url_is_refused_at_once_with_a_sentence(url: str) -> None:
    with pytest.raises(SettingsError, match="the database URL") as caught:
        Database(url)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url", ["postgres://h/n", "postgresql+psycopg2://h/n?sslmode=require", "sqlite+pysqlite:///o.db"]
)
def test_a_url_as_other_programs_write_it_is_understood(url: str) -> None:
    assert Database(url).name.startswith(("postgres", "sqlite"))


async def test_a_file_that_is_no_database_is_told_in_a_sentence(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("odd") / "oplata.db"
    path.write_bytes(b"This is a letter to my aunt. " * 100)
    async with opened(f"sqlite:///{path}") as database:
        with pytest.raises(OplataError, match="not a database"):
            await database.check()
    with pytest.raises(DatabaseUnavailable, match="Not a directory"):
        await Database(f"sqlite:///{path}/under/it.db").start()


async def test_a_dead_letter_keeps_any_bytes_and_is_counted_when_it_comes_again(
    database: Database, database_url: str
) -> None:
    body = bytes(range(256)) + b"\xff\x00"
    letter = DeadLetter(
        reason="unreadable",
        detail="why",
        body=body,
        content_type="?",
        headers={"n": 1, "s": "\x00я"},
        seen_at_ms=NOW_MS,
    )
    for later_ms in (0, -5_000, 7):
        async with database.unit_of_work() as uow:
            later = DeadLetter(
                reason=letter.reason,
                detail=letter.detail,
                body=letter.body,
                content_type=letter.content_type,
                headers=letter.headers,
                seen_at_ms=NOW_MS + later_ms,
            )
            await uow.dead_letters.bury([later])
            await uow.commit()
    seen = "SELECT body, headers, times_seen, first_seen_at_ms, last_seen_at_ms FROM dead_letters"
    headers = '{"n":1,"s":"\\u0000я"}'
    assert await select_all(database_url, seen) == [(body, headers, 3, NOW_MS, NOW_MS + 7)]


async def test_what_is_written_is_read_back_as_it_was(database: Database) -> None:
    event_told = Event(
        digest="d1",
        kind=EventKind.RECEIPT,
        terminal_key="термінал",
        order_id="заказ 1\u2028\x7f\"'\\",
        status="RECEIPT",
        success=False,
        amount_kopecks=10**15,
        details={"Url": "https://receipt.example/?a=1&b=%20", "Type": "Income"},
    )
    async with database.unit_of_work() as uow:
        assert await uow.events.record([event_told], NOW_MS) == {"d1"}
        await uow.commit()
    async with database.unit_of_work(read_only=True) as uow:
        assert await uow.events.of_order(event_told.order_id or "") == [event_told]
        assert await uow.events.known(["d1", "d2"]) == {"d1"}
        assert await uow.events.receipts_of([event_told.order_id or "", "none"]) == {event_told.order_id: [event_told]}


async def test_the_servers_clock_is_read_in_milliseconds(database: Database) -> None:
    import time

    assert abs(await database.now_ms() - time.time() * 1000) < 60_000
