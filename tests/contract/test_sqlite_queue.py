"""What only the SQLite queue has to promise: about processes that die, clocks that jump, and its limits."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from oplata.errors import DataRejected, Overloaded, QueueUnavailable
from oplata.queue.base import Depth
from oplata.queue.envelope import Envelope
from oplata.queue.sqlite import SqliteQueue
from oplata.queue.sqlite.lane import Inline
from tests.contract.sqlite_processes import (
    HOLD_FOREVER,
    PUBLISH_FOREVER,
    Clock,
    ids,
    next_line,
    outcome_of,
    process,
    publish,
    query,
    sizes,
    started,
    take,
)

pytestmark = pytest.mark.anyio

T = TypeVar("T")


# Processes.


async def test_what_a_killed_publisher_saw_confirmed_is_in_the_queue(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    confirmed = []
    async with process(PUBLISH_FOREVER, path, "a", 1_000_000) as child:
        for _ in range(300):
            confirmed.append(await next_line(child))
        child.send_signal(signal.SIGKILL)
        rest, _ = await child.communicate()
        # The last line may have been cut off by the kill.
        confirmed += [line.decode() for line in rest.splitlines(keepends=True)[:-1]]
        confirmed = [line.strip() for line in confirmed]

    stored = {row[0] for row in query(path, "SELECT message_id FROM messages")}
    assert set(confirmed) - stored == set()
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    async with started(SqliteQueue(path)) as queue:
        assert (await queue.depth()).ready == len(stored)


async def test_the_messages_of_a_killed_consumer_come_at_once_and_count_a_death(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path)) as queue:
        await publish(queue, "one", "two")
        async with process(HOLD_FOREVER, path, 3_600) as child:
            assert await next_line(child) == "2"
            waiting = asyncio.create_task(take(queue, 2))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            child.kill()
            await child.wait()
            killed_s = time.monotonic()

            received = await waiting

        assert time.monotonic() - killed_s < 2
        assert [(name, delivery.redelivered) for name, delivery in zip(ids(received), received, strict=True)] == [
            ("one", True),
            ("two", True),
        ]
        assert query(path, "SELECT DISTINCT deaths FROM messages") == [(1,)]


async def test_a_consumer_that_falls_silent_loses_its_messages_when_the_lease_is_over(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path)) as queue:
        await publish(queue, "one")
        async with process(HOLD_FOREVER, path, 1) as child:
            assert await next_line(child) == "1"
            consumer = queue.consumer(prefetch=1)
            # It renews its lease as long as it lives.
            assert await consumer.receive(limit=1, timeout_s=2.5) == []
            with closing(sqlite3.connect(path, isolation_level=None)) as gate:
                # A process that is frozen inside a transaction would keep everybody out of the file.
                gate.execute("BEGIN IMMEDIATE")
                child.send_signal(signal.SIGSTOP)
                # The signal stops one thread first; this returns when all have stopped.
                await asyncio.to_thread(os.waitid, os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)

            assert ids(await consumer.receive(limit=1, timeout_s=10)) == ["one"]
            child.send_signal(signal.SIGCONT)


async def test_two_processes_publish_and_a_third_consumes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with (
        process(PUBLISH_FOREVER, path, "a", 50) as first,
        process(PUBLISH_FOREVER, path, "b", 50) as second,
        started(SqliteQueue(path)) as queue,
    ):
        consumer, received, deadline_s = queue.consumer(prefetch=100), list[str](), time.monotonic() + 40
        while len(received) < 800 and time.monotonic() < deadline_s:
            deliveries = await consumer.receive(limit=100, timeout_s=1)
            received += ids(deliveries)
            await consumer.ack(deliveries)
        outcomes = [(await child.communicate(), child.returncode)[1] for child in (first, second)]

    expected = [f"{name}-{lane}-{number}" for name in "ab" for lane in range(8) for number in range(50)]
    assert sorted(received) == sorted(expected)
    assert outcomes == [0, 0]


async def test_a_message_of_another_queue_object_is_noticed_soon(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path)) as reader, started(SqliteQueue(path)) as writer:
        waiting = asyncio.create_task(take(reader, 1))
        await asyncio.sleep(0.3)
        published_s = time.monotonic()
        await publish(writer, "one")

        assert ids(await waiting) == ["one"]
        assert time.monotonic() - published_s < 0.5


async def test_a_crash_loop_ends_among_the_dead_letters(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path, delivery_limit=2)) as queue:
        await publish(queue, "poison")
        # As on RabbitMQ: a limit of two means three deliveries.
        for _ in range(3):
            crashing = SqliteQueue(path, delivery_limit=2, runner=Inline)
            await crashing.start()
            assert ids(await take(crashing, 1)) == ["poison"]
            crashing.abandon()

        [delivery] = await take(queue, 1, dead=True)

        assert (delivery.envelope.message_id, delivery.dead_reason) == ("poison", "delivery_limit")
        assert await queue.depth() == Depth(ready=0, unacked=0, retry=0, dead=1)


async def test_releasing_and_closing_count_no_death(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path, delivery_limit=0)) as queue:
        await publish(queue, "one")
        for _ in range(3):
            consumer = queue.consumer(prefetch=1)
            await consumer.release(await consumer.receive(limit=1, timeout_s=5))
            await consumer.receive(limit=1, timeout_s=5)
            await consumer.close()
    async with started(SqliteQueue(path, delivery_limit=0)) as queue:
        await take(queue, 1)
    async with started(SqliteQueue(path)) as queue:
        assert await queue.depth() == Depth(ready=1, unacked=0, retry=0, dead=0)


async def test_a_seat_is_left_clean(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path)) as queue:
        await publish(queue, "one")
        async with process(HOLD_FOREVER, path, 30) as child:
            await next_line(child)
        assert ids(await take(queue, 1)) == ["one"]
        assert query(path, "SELECT count(*) FROM seats") == [(1,)]
    async with started(SqliteQueue(path)):
        pass
    assert sizes(tmp_path).keys() == {"queue.db"}
    assert query(path, "SELECT count(*) FROM seats") == [(0,)]


# The clock.


async def test_a_clock_set_back_an_hour_strands_nothing(tmp_path: Path) -> None:
    path, clock = tmp_path / "queue.db", Clock()
    async with (
        started(SqliteQueue(path, retry_delays_ms=(1_000,), now_ms=clock)) as queue,
        started(SqliteQueue(path, retry_delays_ms=(1_000,), now_ms=clock)) as other,
    ):
        await publish(queue, "retried", "held")
        consumer = other.consumer(prefetch=10)
        retried, held = await consumer.receive(limit=2, timeout_s=5)
        await consumer.retry(retried, delay_ms=1_000)

        clock.ahead_ms = -3_600_000

        assert sorted(ids(await take(queue, 2, within_s=5))) == ["held", "retried"]
        await consumer.ack([held])
        assert await queue.depth() == Depth(ready=0, unacked=2, retry=0, dead=0)


async def test_a_clock_set_forward_only_delivers_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "queue.db", Clock()
    async with (
        started(SqliteQueue(path, now_ms=clock)) as queue,
        started(SqliteQueue(path, now_ms=clock)) as other,
    ):
        await publish(queue, "held")
        [former] = await take(other, 1)

        clock.ahead_ms = 3_600_000

        [present] = await take(queue, 1, within_s=5)
        assert (former.envelope, present.redelivered) == (present.envelope, True)


# Limits.


async def test_more_than_the_limit_in_flight_is_refused_at_once(tmp_path: Path) -> None:
    async with started(SqliteQueue(tmp_path / "queue.db", max_in_flight=10)) as queue:
        names = [str(number) for number in range(30)]
        outcomes = await asyncio.gather(*[publish(queue, name) for name in names], return_exceptions=True)

        assert outcomes == [None] * 10 + [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
        assert len(outcomes) == 30
        await publish(queue, "afterwards")
        assert (await queue.depth()).ready == 11


async def test_metadata_without_a_form_in_the_file_fails_alone(tmp_path: Path) -> None:
    async with started(SqliteQueue(tmp_path / "queue.db")) as queue:
        for bad in (
            Envelope(body=b"", message_id="\ud800"),
            Envelope(body=b"", headers={"x": "\ud800"}),
            Envelope(body=b"", headers={"x": None}),  # type: ignore[dict-item]  # Somebody may not check their types.
        ):
            with pytest.raises(DataRejected):
                await queue.publisher().publish(bad, timeout_s=5)
        await publish(queue, "good")
        assert ids(await take(queue, 1)) == ["good"]


async def test_stop_leaves_no_thread_and_hands_the_leases_back(tmp_path: Path) -> None:
    path, before = tmp_path / "queue.db", threading.active_count()
    queue = SqliteQueue(path)
    await queue.start()
    await publish(queue, "one", "two")
    await take(queue, 2)
    await queue.stop()

    assert threading.active_count() == before
    assert query(path, "SELECT state, seat, deaths FROM messages") == [("ready", None, 0)] * 2


async def test_stop_is_bounded_while_the_file_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oplata.queue.sqlite.queue.STOP_TIMEOUT_S", 1.5)
    path = tmp_path / "queue.db"
    queue = SqliteQueue(path)
    await queue.start()
    await publish(queue, "one")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(publish(queue, "two"))
        await asyncio.sleep(0.1)
        started_s = time.monotonic()
        await queue.stop()
        assert time.monotonic() - started_s < 6
        with pytest.raises(QueueUnavailable):
            await waiting


async def test_the_store_runs_inline_for_a_simulation(tmp_path: Path) -> None:
    before = threading.active_count()
    async with started(SqliteQueue(tmp_path / "queue.db", runner=Inline)) as queue:
        await publish(queue, "one")
        assert ids(await take(queue, 1)) == ["one"]
        assert threading.active_count() == before


async def test_an_abandoned_queue_does_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    queue = SqliteQueue(path, runner=Inline)
    await queue.start()
    await publish(queue, "one")
    waiting = asyncio.create_task(publish(queue, "two"))
    await asyncio.sleep(0)
    queue.abandon()

    assert isinstance(await outcome_of(waiting), QueueUnavailable)
    assert query(path, "SELECT message_id FROM messages") == [("one",)]


async def test_a_message_of_this_process_is_noticed_without_polling(tmp_path: Path) -> None:
    async with started(SqliteQueue(tmp_path / "queue.db", poll_interval_s=20)) as queue:
        consumer = queue.consumer(prefetch=1)
        waiting = asyncio.create_task(consumer.receive(limit=1, timeout_s=20))
        await asyncio.sleep(0.2)
        published_s = time.monotonic()
        await publish(queue, "one")

        assert ids(await waiting) == ["one"]
        assert time.monotonic() - published_s < 1


class Slow(Inline):
    """A disk whose answers wait until they are let through."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()

    async def run(self, work: Callable[[], T]) -> T:
        result = work()
        await self.answers.wait()
        return result


async def test_what_was_leased_for_a_cancelled_receive_goes_to_the_next(tmp_path: Path) -> None:
    disk = Slow()
    async with started(SqliteQueue(tmp_path / "queue.db", runner=lambda: disk)) as queue:
        await publish(queue, "one", "two")
        consumer = queue.consumer(prefetch=10)
        disk.answers.clear()
        waiting = asyncio.create_task(consumer.receive(limit=10, timeout_s=5))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.wait((waiting,))
        disk.answers.set()

        assert waiting.cancelled()
        assert ids(await consumer.receive(limit=1, timeout_s=1)) == ["one"]
        assert ids(await consumer.receive(limit=1, timeout_s=1)) == ["two"]
