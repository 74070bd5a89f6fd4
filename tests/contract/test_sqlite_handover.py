"""What is published goes straight into the hands of a consumer of the same process that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oplata.errors import NotConfirmed
from oplata.queue.base import Depth
from oplata.queue.envelope import ATTEMPT_HEADER, Delivery, Envelope
from oplata.queue.sqlite import SqliteQueue
from oplata.queue.sqlite.consumer import SqliteConsumer
from oplata.queue.sqlite.lane import Inline, OneThread
from tests.contract.sqlite_processes import ids, outcome_of, publish, query, started, take

pytestmark = pytest.mark.anyio

T = TypeVar("T")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
envelopes = st.builds(
    Envelope,
    body=st.binary(max_size=40),
    message_id=texts,
    content_type=texts,
    headers=st.dictionaries(texts, st.one_of(texts, st.integers(-(2**63), 2**63 - 1)), max_size=3),
)


class Counted(OneThread):
    """A thread that counts how often it is given something to do."""

    turns = 0

    async def run(self, work: Callable[[], T]) -> T:
        self.turns += 1
        return await super().run(work)


class Gated(Inline):
    """A disk that does nothing more until it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    async def run(self, work: Callable[[], T]) -> T:
        await self.open.wait()
        return work()


async def waiting(queue: SqliteQueue, *, prefetch: int = 100) -> tuple[SqliteConsumer, asyncio.Task[list[Delivery]]]:
    """A consumer that has a seat, has seen all there was, and waits for more."""
    consumer = queue.consumer(prefetch=prefetch)
    await publish(queue, "first")
    await consumer.ack(await consumer.receive(limit=1, timeout_s=5))
    assert await consumer.receive(limit=10, timeout_s=0.1) == []
    receiving = asyncio.create_task(consumer.receive(limit=100, timeout_s=20))
    await asyncio.sleep(0.02)
    return consumer, receiving


async def put(queue: SqliteQueue, given: Sequence[Envelope]) -> None:
    await asyncio.gather(*(queue.publisher().publish(envelope, timeout_s=10) for envelope in given))


async def test_it_is_leased_by_the_transaction_that_publishes_it(tmp_path: Path) -> None:
    path, runner = tmp_path / "queue.db", Counted()
    async with started(SqliteQueue(path, poll_interval_s=20, runner=lambda: runner)) as queue:
        consumer, receiving = await waiting(queue)
        turns, commits = runner.turns, queue.commits()

        await publish(queue, "one", "two", "three")

        assert ids(await receiving) == ["one", "two", "three"]
        assert (runner.turns - turns, queue.commits() - commits) == (1, 1)
        assert await queue.depth() == Depth(ready=0, unacked=3, retry=0, dead=0)
        await consumer.ack(receiving.result())
        assert await queue.depth() == Depth(ready=0, unacked=0, retry=0, dead=0)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(given=st.lists(envelopes, min_size=1, max_size=6), attempt=st.integers(-1, 3))
async def test_it_is_what_another_process_would_read(
    tmp_path_factory: pytest.TempPathFactory, given: list[Envelope], attempt: int
) -> None:
    given = [*given, Envelope(body=b"\0\xff", message_id="nul\0nul", headers={ATTEMPT_HEADER: attempt})]
    path = tmp_path_factory.mktemp("queue") / "queue.db"
    async with started(SqliteQueue(path)) as queue, started(SqliteQueue(path)) as other:
        consumer, receiving = await waiting(queue)
        await put(queue, given)
        handed_over = await receiving
        await consumer.close()
        read = await take(other, len(given))
    assert [each.envelope for each in handed_over] == given
    assert [(each.envelope, each.attempt) for each in read] == [(each.envelope, each.attempt) for each in handed_over]
    assert [(each.tag, each.generation + 1) for each in handed_over] == [(each.tag, each.generation) for each in read]


async def test_what_lies_in_the_file_comes_first(tmp_path: Path) -> None:
    async with started(SqliteQueue(tmp_path / "queue.db")) as queue:
        consumer, receiving = await waiting(queue, prefetch=3)
        names = [f"{number:02}" for number in range(20)]
        await publish(queue, *names[:10])
        received = await receiving
        while len(received) < 20:
            held = received[-3:]
            await consumer.ack(held[:1])
            if len(received) < 8:
                await publish(queue, *names[10:])
                names = names[:10]
            await consumer.ack(held[1:])
            received += await consumer.receive(limit=10, timeout_s=5)

        assert ids(received) == [f"{number:02}" for number in range(20)]


async def test_what_is_handed_back_comes_before_what_came_after_it(tmp_path: Path) -> None:
    async with started(SqliteQueue(tmp_path / "queue.db")) as queue:
        consumer, receiving = await waiting(queue)
        await publish(queue, "one")
        received = await receiving
        await publish(queue, "two")
        later = asyncio.create_task(publish(queue, "three"))
        await asyncio.sleep(0)
        await consumer.release(received)
        await later

        seen: list[str] = []
        while len(seen) < 3:
            seen += ids(await consumer.receive(limit=1, timeout_s=5))
        assert seen == ["one", "two", "three"]


async def test_what_is_on_its_way_while_something_is_handed_back_comes_after_it(tmp_path: Path) -> None:
    disk = Gated()
    async with started(SqliteQueue(tmp_path / "queue.db", runner=lambda: disk)) as queue:
        consumer, receiving = await waiting(queue)
        await publish(queue, "one")
        received = await receiving
        disk.open.clear()
        later = asyncio.create_task(publish(queue, "two"))
        await asyncio.sleep(0.02)
        releasing = asyncio.create_task(consumer.release(received))
        await asyncio.sleep(0.02)
        disk.open.set()
        await asyncio.gather(releasing, later)

        seen: list[str] = []
        while len(seen) < 2:
            seen += ids(await consumer.receive(limit=1, timeout_s=5))
        assert seen == ["one", "two"]


async def test_those_of_a_process_that_dies_come_again_and_count_a_death(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    dying = SqliteQueue(path, runner=Inline)
    await dying.start()
    _, receiving = await waiting(dying)
    await publish(dying, "one", "two")
    assert ids(await receiving) == ["one", "two"]
    dying.abandon()

    async with started(SqliteQueue(path)) as queue:
        received = await take(queue, 2)
        assert [(each.envelope.message_id, each.redelivered) for each in received] == [("one", True), ("two", True)]
        assert query(path, "SELECT DISTINCT deaths FROM messages") == [(1,)]


async def test_a_consumer_that_closes_meanwhile_hands_it_back(tmp_path: Path) -> None:
    async with started(SqliteQueue(tmp_path / "queue.db")) as queue:
        consumer, receiving = await waiting(queue)
        publishing = asyncio.create_task(publish(queue, "one"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        receiving.cancel()
        await consumer.close()
        await publishing

        assert ids(await take(queue, 1)) == ["one"]


async def test_messages_of_other_processes_are_not_starved_by_our_own(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path, poll_interval_s=0.05)) as queue, started(SqliteQueue(path)) as other:
        consumer, receiving = await waiting(queue)
        over = asyncio.Event()

        async def flood() -> None:
            while not over.is_set():
                await publish(queue, "ours")

        floods = [asyncio.create_task(flood()) for _ in range(8)]
        await publish(other, "theirs")
        seen: list[str] = ids(await receiving)
        await consumer.ack(receiving.result())
        async with asyncio.timeout(10):
            while "theirs" not in seen:
                received = await consumer.receive(limit=100, timeout_s=5)
                seen += ids(received)
                await consumer.ack(received)
        over.set()
        await asyncio.gather(*floods)


async def test_one_that_is_refused_by_itself_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path)) as queue:
        # It stands for whatever SQLite may have against one message's values.
        query(path, "CREATE UNIQUE INDEX odd ON messages (message_id) WHERE message_id = 'twice'")
        await publish(queue, "twice")
        outcomes = await asyncio.gather(*(outcome_of(publish(queue, name)) for name in ("one", "twice", "two")))

        assert [type(outcome).__name__ for outcome in outcomes] == ["NoneType", "DataRejected", "NoneType"]
        assert sorted(ids(await take(queue, 3))) == ["one", "twice", "two"]


async def test_room_is_counted_message_by_message(tmp_path: Path) -> None:
    async with started(SqliteQueue(tmp_path / "queue.db", max_bytes=300_000)) as queue:
        body = b"x" * 60_000
        outcomes = await asyncio.gather(*(outcome_of(publish(queue, str(n), body=body)) for n in range(30)))

        stored = [outcome for outcome in outcomes if outcome is None]
        assert len(stored) in (4, 5)
        assert all(isinstance(outcome, NotConfirmed) for outcome in outcomes[len(stored) :])
        assert (await queue.depth()).ready == len(stored)


@pytest.mark.parametrize("dead", [False, True])
async def test_a_consumer_that_waits_looks_at_the_file_now_and_then(tmp_path: Path, dead: bool) -> None:
    runner = Counted()
    async with started(SqliteQueue(tmp_path / "queue.db", poll_interval_s=0.1, runner=lambda: runner)) as queue:
        consumer = queue.consumer(prefetch=10, dead=dead)
        assert await consumer.receive(limit=10, timeout_s=1) == []
        assert 2 <= runner.turns <= 20
