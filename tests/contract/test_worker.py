"""The worker between a real queue and a real database: every message is applied once or buried, and none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Awaitable

import pytest
import structlog

from oplata.orders.commands import Orders
from oplata.queue.base import Depth
from oplata.queue.envelope import RECEIVED_AT_HEADER, SOURCE_HEADER, Envelope, HeaderValue
from oplata.queue.sqlite import SqliteQueue
from oplata.storage.engine import Database
from oplata.worker.loop import Worker
from tests.contract.working import put, queue, until, until_empty, working
from tests.databases import (
    KEYRING,
    ORDER_KOPECKS,
    assert_log_is_whole,
    callback,
    empty,
    execute,
    opened,
    select_all,
)
from tests.notifications import signed_by_hand
from tests.services.breakable import Breakable

__all__ = ["queue"]

pytestmark = pytest.mark.anyio


def letters(url: str) -> Awaitable[list[tuple[object, ...]]]:
    return select_all(url, "SELECT reason, body, times_seen FROM dead_letters ORDER BY reason, body")


async def test_what_lies_in_the_queue_is_applied_and_forgotten(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    for number in range(20):
        await Orders(database).register(f"order-{number}", ORDER_KOPECKS)
    bodies = [callback(order_id=f"order-{number}", payment_id=str(number)) for number in range(20)]
    await put(queue, *bodies, *bodies[:5])
    told: list[str] = []
    worker = Worker(
        queue=queue,
        database=database,
        keyring=KEYRING,
        batch_size=7,
        announce=lambda changes: told.extend(change.order_id for change in changes),
    )
    async with working(worker):
        await until_empty(queue)
    assert await select_all(database_url, "SELECT status, count(*) FROM orders GROUP BY status") == [("paid", 20)]
    assert sorted(told) == sorted(f"order-{number}" for number in range(20))
    stats = worker.stats
    assert (stats.received, stats.applied, stats.repeats, stats.buried, stats.changes) == (25, 20, 5, 0, 20)
    await assert_log_is_whole(database_url)


async def test_several_workers_share_the_work(queue: SqliteQueue, database: Database, database_url: str) -> None:
    await put(queue, *(callback(order_id=f"o-{n % 7}", payment_id=str(n)) for n in range(100)))
    async with opened(database_url) as second, contextlib.AsyncExitStack() as stack:
        workers = [
            Worker(queue=queue, database=each, keyring=KEYRING, batch_size=10, prefetch=10)
            for each in (database, second, database)
        ]
        for worker in workers:
            await stack.enter_async_context(working(worker))
        await until_empty(queue)
    assert await select_all(database_url, "SELECT count(*) FROM payments") == [(100,)]
    assert sum(worker.stats.applied for worker in workers) == 100


async def test_poison_is_buried_with_its_bytes_and_its_neighbours_are_applied(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    forged = callback().replace(b'"Amount":19900', b'"Amount":19901')
    assert forged != callback()
    stranger = signed_by_hand({"TerminalKey": "somebody", "OrderId": "o", "PaymentId": "1", "Status": "NEW"})
    noise = b"\xff\x00 not JSON"
    await put(queue, noise, callback(payment_id="1"), forged, stranger, callback(payment_id="2"), b"", noise)
    worker = Worker(queue=queue, database=database, keyring=KEYRING)
    async with working(worker):
        await until_empty(queue)
    # Where two in one batch are the same poison, it is one dead letter that was seen twice.
    assert await letters(database_url) == sorted(
        [("not_authentic", forged, 1), ("not_authentic", stranger, 1), ("unreadable", b"", 1), ("unreadable", noise, 2)]
    )
    assert await select_all(database_url, "SELECT payment_id FROM payments ORDER BY 1") == [("1",), ("2",)]
    assert (worker.stats.applied, worker.stats.buried) == (2, 5)


async def test_the_same_poison_on_another_day_is_counted(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    async with working(Worker(queue=queue, database=database, keyring=KEYRING)):
        for _ in range(2):
            await put(queue, b"poison")
            await until_empty(queue)
    assert await letters(database_url) == [("unreadable", b"poison", 2)]


_DYING = """
import asyncio, os, sys
from oplata.queue.sqlite import SqliteQueue
async def main():
    queue = SqliteQueue(sys.argv[1], delivery_limit=2)
    await queue.start()
    while not await queue.consumer(prefetch=1).receive(limit=1, timeout_s=5):
        pass
    os._exit(9)
asyncio.run(main())
"""


async def _is_dead(queue: SqliteQueue) -> bool:
    # A look at the queue is what finds that the holder of a message is gone.
    looking = queue.consumer(prefetch=1)
    assert await looking.receive(limit=1, timeout_s=0.1) == []
    await looking.close()
    return (await queue.depth()).dead == 1


async def test_what_the_queue_gave_up_lies_in_the_dead_letters(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    await put(queue, callback())
    # Consumers die with the message in their hands until the queue has had enough.
    for _ in range(3):
        process = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", _DYING, str(queue.path)], timeout=30, check=False
        )
        assert process.returncode == 9
    await until(lambda: _is_dead(queue))
    async with working(Worker(queue=queue, database=database, keyring=KEYRING)):
        await until_empty(queue)
    assert await letters(database_url) == [("given_up_by_queue", callback(), 1)]


async def test_odd_metadata_never_stands_in_the_way_of_a_genuine_callback(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    odd: list[dict[str, HeaderValue]] = [
        {RECEIVED_AT_HEADER: 2**62},
        {RECEIVED_AT_HEADER: -5},
        {RECEIVED_AT_HEADER: "yesterday", SOURCE_HEADER: 7},
        {SOURCE_HEADER: "a\x00b"},
        {SOURCE_HEADER: "я" * 5000},
        {"x-oplata-attempt": "many", "anything": "else"},
    ]
    for number, headers in enumerate(odd):
        await put(queue, callback(payment_id=str(number)), headers=headers)
    nul = Envelope(body=callback(payment_id="nul"), content_type="application/json\x00; я=\n")
    await queue.publisher().publish(nul, timeout_s=10)
    async with working(Worker(queue=queue, database=database, keyring=KEYRING)):
        await until_empty(queue)
    assert await letters(database_url) == []
    assert await select_all(database_url, "SELECT count(*) FROM payments") == [(len(odd) + 1,)]
    seen = await select_all(database_url, "SELECT min(first_seen_at_ms), max(last_seen_at_ms) FROM callbacks")
    assert all(1_500_000_000_000 < int(str(at_ms)) < 2_500_000_000_000 for at_ms in seen[0])


REFUSE = {
    "sqlite": """
        CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.payment_id LIKE 'bad%'
        BEGIN SELECT RAISE(ABORT, 'refused'); END
        """,
    "postgresql": "ALTER TABLE events ADD CONSTRAINT refuse CHECK (payment_id NOT LIKE 'bad%')",
}


async def test_a_row_that_the_database_refuses_is_buried_alone(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    await execute(database_url, REFUSE[database_url.partition(":")[0]])
    bodies = [callback(payment_id=f"{'bad' if n in (3, 17, 18) else 'good'}-{n}") for n in range(40)]
    await put(queue, *bodies, b"poison")
    worker = Worker(queue=queue, database=database, keyring=KEYRING)
    async with working(worker):
        await until_empty(queue)
    expected = [("rejected_by_database", bodies[n], 1) for n in (3, 17, 18)]
    assert await letters(database_url) == sorted([*expected, ("unreadable", b"poison", 1)])
    named = await select_all(
        database_url, "SELECT DISTINCT order_id FROM dead_letters WHERE reason = 'rejected_by_database'"
    )
    assert named == [("order-1",)]
    assert (worker.stats.applied, worker.stats.buried, worker.stats.released) == (37, 4, 0)
    assert await select_all(database_url, "SELECT count(*) FROM payments") == [(37,)]


async def test_a_worker_waits_for_the_tables_and_goes_on(queue: SqliteQueue, database_url: str) -> None:
    await put(queue, callback(), b"poison")
    async with opened(database_url) as database:
        worker = Worker(queue=queue, database=database, keyring=KEYRING)
        with structlog.testing.capture_logs() as logs:
            async with working(worker):
                await until(lambda: worker.stats.pauses >= 2)
                await database.migrate()
                await until_empty(queue)
    assert any("run `oplata migrate`" in str(entry.get("error")) for entry in logs)
    assert (worker.stats.applied, worker.stats.buried, worker.stats.released) == (1, 1, 0)
    assert await letters(database_url) == [("unreadable", b"poison", 1)]


async def _server_ready(server: Breakable, database: Database) -> None:
    await database.migrate()
    await empty(server.url)


async def test_a_database_that_is_killed_is_waited_for_and_nothing_is_given_up(
    queue: SqliteQueue, database_server: Breakable
) -> None:
    async with opened(database_server.url) as database:
        await _server_ready(database_server, database)
        worker = Worker(queue=queue, database=database, keyring=KEYRING, batch_size=5, prefetch=5)
        async with working(worker):
            await put(queue, *(callback(payment_id=f"k{n}") for n in range(30)))
            await until(lambda: worker.stats.applied >= 5)
            await database_server.kill9()
            await put(queue, *(callback(payment_id=f"k{n}") for n in range(30, 60)))
            await until(lambda: worker.stats.pauses >= 3)
            await database_server.start()
            await until_empty(queue)
    assert await select_all(database_server.url, "SELECT count(*) FROM payments WHERE payment_id LIKE 'k%'") == [(60,)]
    assert await letters(database_server.url) == []
    assert worker.stats.released == 0


async def test_messages_are_not_held_for_ever_while_the_database_is_away(
    queue: SqliteQueue, database_server: Breakable
) -> None:
    async with opened(database_server.url) as database:
        await _server_ready(database_server, database)
        worker = Worker(queue=queue, database=database, keyring=KEYRING, hold_s=0.1)
        await database_server.kill9()
        async with working(worker):
            await put(queue, *(callback(payment_id=f"h{n}") for n in range(10)))
            await until(lambda: worker.stats.released > 0)
            released = worker.stats.released
            await until(lambda: worker.stats.pauses >= 3)
            # It takes up nothing more until the database answers, so nothing is handed to and fro meanwhile.
            assert worker.stats.released == released
            await database_server.start()
            await until_empty(queue)
    assert await select_all(database_server.url, "SELECT count(*) FROM payments WHERE payment_id LIKE 'h%'") == [(10,)]
    assert await letters(database_server.url) == []


async def test_a_worker_that_is_stopped_while_the_database_is_away_gives_everything_back(
    queue: SqliteQueue, database_server: Breakable
) -> None:
    async with opened(database_server.url) as database:
        await _server_ready(database_server, database)
        await database_server.kill9()
        worker = Worker(queue=queue, database=database, keyring=KEYRING)
        async with working(worker):
            await put(queue, *(callback(payment_id=f"s{n}") for n in range(10)))
            await until(lambda: worker.stats.pauses >= 1)
    assert await queue.depth() == Depth(ready=10, unacked=0, retry=0, dead=0)


async def test_stop_finishes_the_batch_in_hand_and_gives_back_the_rest(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    await put(queue, *(callback(payment_id=str(number)) for number in range(50)))
    worker = Worker(queue=queue, database=database, keyring=KEYRING, batch_size=10, prefetch=30)
    async with database.unit_of_work() as uow:
        await uow.orders.lock(["order-1"], 1)
        task = asyncio.create_task(worker.run())
        await until(lambda: worker.stats.received > 0)
        worker.stop()
        await asyncio.sleep(0.1)
        assert not task.done()
        await uow.commit()
    await asyncio.wait_for(task, 30)
    assert (worker.stats.received, worker.stats.applied) == (10, 10)
    assert await queue.depth() == Depth(ready=40, unacked=0, retry=0, dead=0)
    assert await select_all(database_url, "SELECT count(*) FROM payments") == [(10,)]


async def test_an_idle_worker_stops_at_once(queue: SqliteQueue, database: Database) -> None:
    worker = Worker(queue=queue, database=database, keyring=KEYRING)
    task = asyncio.create_task(worker.run())
    await asyncio.sleep(0.1)
    worker.stop()
    await asyncio.wait_for(task, 1)


async def test_a_worker_that_is_cancelled_leaves_its_messages_in_the_queue(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    await put(queue, *(callback(payment_id=str(number)) for number in range(20)))
    async with database.unit_of_work() as uow:
        await uow.orders.lock(["order-1"], 1)
        worker = Worker(queue=queue, database=database, keyring=KEYRING)
        task = asyncio.create_task(worker.run())
        await until(lambda: worker.stats.received > 0)
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await queue.depth() == Depth(ready=20, unacked=0, retry=0, dead=0)
    async with working(Worker(queue=queue, database=database, keyring=KEYRING)):
        await until_empty(queue)
    assert await select_all(database_url, "SELECT count(*) FROM payments") == [(20,)]


async def test_a_form_and_a_body_without_headers_are_worked(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    from urllib.parse import urlencode

    fields = {name: str(value) for name, value in json.loads(callback(payment_id="9")).items() if name != "Token"}
    fields["Success"] = "true"
    signed = json.loads(signed_by_hand(dict(fields)))
    form = Envelope(body=urlencode(signed).encode(), content_type="application/x-www-form-urlencoded; charset=utf-8")
    await queue.publisher().publish(form, timeout_s=10)
    await put(queue, callback(payment_id="10"))
    async with working(Worker(queue=queue, database=database, keyring=KEYRING)):
        await until_empty(queue)
    assert await select_all(database_url, "SELECT payment_id FROM payments ORDER BY 1") == [("10",), ("9",)]


async def test_a_token_that_only_the_endpoint_knows_yet_is_waited_for_and_buried_in_the_end(
    queue: SqliteQueue, database: Database, database_url: str
) -> None:
    forged = callback().replace(b"CONFIRMED", b"REJECTED")
    worker = Worker(queue=queue, database=database, keyring=KEYRING, retry_delays_ms=[100, 100, 100])
    await put(queue, forged, headers={RECEIVED_AT_HEADER: 1})
    await put(queue, forged + b" ")
    async with working(worker):
        await until(lambda: worker.stats.buried == 2)
    assert 3 == worker.stats.retried
    assert [("not_authentic",), ("not_authentic",)] == await select_all(database_url, "SELECT reason FROM dead_letters")


async def test_a_database_that_takes_no_writes_is_waited_for_and_the_messages_go_back_once(
    queue: SqliteQueue, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2].partition("?")[0]
    async with opened(postgres_url) as database:
        await database.migrate()
        await execute(postgres_url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await database.stop()
        await database.start()
        worker = Worker(queue=queue, database=database, keyring=KEYRING, hold_s=0.1)
        await put(queue, callback())
        async with working(worker):
            await until(lambda: worker.stats.released > 0)
            pauses = worker.stats.pauses
            await until(lambda: worker.stats.pauses > pauses + 2)
            assert (1, 0) == (worker.stats.released, worker.stats.buried)
            read_write = f'ALTER DATABASE "{name}" SET default_transaction_read_only = off'
            await execute(postgres_url, "SET default_transaction_read_only = off", read_write)
            await database.stop()
            await database.start()
            await until(lambda: worker.stats.applied == 1)
