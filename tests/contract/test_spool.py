"""The spool: while the broker is away a local file takes the callbacks, and passes on every one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oplata.errors import NotConfirmed, Overloaded, QueueUnavailable, TopologyError
from oplata.queue.base import Depth, Queue
from oplata.queue.envelope import Delivery, Envelope
from oplata.queue.rabbitmq import RabbitQueue
from oplata.queue.spool import SpoolingPublisher
from oplata.queue.sqlite import SqliteQueue
from oplata.settings import Settings
from oplata.settings.stores import spool_of
from tests.services.breakable import NEW_QUEUE_S, Breakable

pytestmark = pytest.mark.anyio

PATIENCE_S = 0.3
EMPTY = Depth(ready=0, unacked=0, retry=0, dead=0)


class Switch:
    """A real queue's publisher behind a switch: what ``fails`` returns is raised instead of publishing."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.fails: Callable[[], Exception | None] = lambda: None
        self.delay_s = 0.0

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        await asyncio.sleep(self.delay_s)
        error = self.fails()
        if error is not None:
            raise error
        await self._queue.publisher().publish(envelope, timeout_s=timeout_s)


@asynccontextmanager
async def spooling(
    folder: Path, *, max_bytes: int | None = None, spool: SqliteQueue | None = None
) -> AsyncIterator[tuple[SpoolingPublisher, Switch, SqliteQueue]]:
    primary = SqliteQueue(folder / "primary.db")
    await primary.start()
    switch = Switch(primary)
    spool = spool or SqliteQueue(folder / "spool.db", max_bytes=max_bytes)
    publisher = SpoolingPublisher(switch, spool, patience_s=PATIENCE_S)
    await publisher.start()
    try:
        yield publisher, switch, primary
    finally:
        await publisher.stop()
        await primary.stop()


def message(number: int, body: bytes = b"{}") -> Envelope:
    return Envelope(body=body, message_id=f"m{number}")


async def arrived(queue: Queue, count: int, *, within_s: float = 10) -> list[str]:
    """The ids of the next ``count`` messages of the queue, in their order."""
    consumer = queue.consumer(prefetch=1000)
    found: list[Delivery] = []
    try:
        async with asyncio.timeout(within_s):
            while len(found) < count:
                fresh: Sequence[Delivery] = await consumer.receive(limit=1000, timeout_s=1)
                await consumer.ack(fresh)
                found.extend(fresh)
    finally:
        await consumer.close()
    return [each.envelope.message_id for each in found]


async def refused(publisher: SpoolingPublisher, envelope: Envelope) -> bool:
    """Whether neither the queue nor the spool takes it."""
    try:
        await publisher.publish(envelope, timeout_s=2)
    except QueueUnavailable:
        return True
    return False


class Beginner(Switch):
    """The same, for messages that need nobody to wait: ``told`` holds what is still to be told of them."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue)
        self.told: list[Callable[[bool], None]] = []

    def begin(self, _envelope: Envelope, told: Callable[[bool], None], *, timeout_s: float) -> bool:
        self.told.append(told)
        asyncio.get_running_loop().call_later(timeout_s, self._expire, told)
        return True

    def _expire(self, told: Callable[[bool], None]) -> None:
        if told in self.told:
            self.told.remove(told)
            told(False)


async def test_what_is_begun_and_not_confirmed_in_time_makes_the_next_ones_go_to_the_spool(tmp_path: Path) -> None:
    async with spooling(tmp_path) as (_, switch, primary):
        beginner = Beginner(primary)
        publisher = SpoolingPublisher(beginner, SqliteQueue(tmp_path / "another.db"), patience_s=PATIENCE_S)
        await publisher.start()
        outcomes: list[bool] = []
        assert publisher.begin(message(1), outcomes.append, timeout_s=5)
        beginner.told.pop()(True)
        assert publisher.begin(message(2), outcomes.append, timeout_s=5)
        beginner.told.pop()(False)
        # A connection that was lost may be back at once; so the next one is tried again.
        assert publisher.begin(message(3), outcomes.append, timeout_s=5)
        await asyncio.sleep(PATIENCE_S + 0.2)

        assert outcomes == [True, False, False]
        assert not publisher.begin(message(4), outcomes.append, timeout_s=5)
        switch.fails = NotConfirmed
        beginner.fails = NotConfirmed
        await publisher.publish(message(4), timeout_s=5)
        assert publisher.spooled == 1
        await publisher.stop()


@asynccontextmanager
async def away(folder: Path) -> AsyncIterator[tuple[SpoolingPublisher, Beginner]]:
    """A publisher whose queue has just not confirmed something that was begun."""
    primary = SqliteQueue(folder / "primary.db")
    await primary.start()
    beginner = Beginner(primary)
    publisher = SpoolingPublisher(beginner, SqliteQueue(folder / "spool.db"), patience_s=PATIENCE_S)
    await publisher.start()
    try:
        outcomes: list[bool] = []
        assert publisher.begin(message(1), outcomes.append, timeout_s=5)
        await asyncio.sleep(PATIENCE_S + 0.2)
        assert outcomes == [False]
        assert not publisher.begin(message(2), outcomes.append, timeout_s=5)
        yield publisher, beginner
    finally:
        await publisher.stop()
        await primary.stop()


async def test_after_a_while_one_that_the_queue_confirms_lets_the_next_ones_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oplata.queue.spool.AWAY_S", 0.3)
    async with away(tmp_path) as (publisher, _):
        await asyncio.sleep(0.4)
        assert not publisher.begin(message(2), lambda _: None, timeout_s=5)
        await publisher.publish(message(2), timeout_s=5)
        assert publisher.spooled == 0
        assert publisher.begin(message(3), lambda _: None, timeout_s=5)


async def test_what_is_passed_on_lets_the_next_ones_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oplata.queue.spool.AWAY_S", 60.0)
    async with away(tmp_path) as (publisher, beginner):
        await publisher.publish(message(2), timeout_s=5)
        async with asyncio.timeout(10):
            while not publisher.begin(message(3), lambda _: None, timeout_s=5):  # noqa: ASYNC110  Nobody tells of it.
                await asyncio.sleep(0.05)
        assert (publisher.spooled, publisher.forwarded, len(beginner.told)) == (1, 1, 1)


async def test_without_a_primary_that_can_nothing_is_begun(tmp_path: Path) -> None:
    async with spooling(tmp_path) as (publisher, _, _):
        assert not publisher.begin(message(1), lambda _: None, timeout_s=5)


async def test_while_the_queue_confirms_the_spool_is_not_used(tmp_path: Path) -> None:
    async with spooling(tmp_path) as (publisher, _, primary):
        await publisher.publish(message(1), timeout_s=5)
        assert ["m1"] == await arrived(primary, 1)
        assert 0 == publisher.spooled


@pytest.mark.parametrize("error", [NotConfirmed(), QueueUnavailable(), TopologyError(), Overloaded()], ids=repr)
async def test_what_the_queue_does_not_take_is_spooled_and_passed_on_when_it_is_back(
    tmp_path: Path, error: Exception
) -> None:
    async with spooling(tmp_path) as (publisher, switch, primary):
        switch.fails = lambda: error
        await publisher.publish(message(1), timeout_s=5)
        assert 1 == publisher.spooled
        switch.fails = lambda: None
        assert ["m1"] == await arrived(primary, 1)


async def test_what_is_spooled_is_passed_on_in_the_order_of_its_arrival(tmp_path: Path) -> None:
    async with spooling(tmp_path) as (publisher, switch, primary):
        switch.fails = NotConfirmed
        for number in range(50):
            await publisher.publish(message(number), timeout_s=5)
        switch.fails = lambda: None
        assert [f"m{number}" for number in range(50)] == await arrived(primary, 50)


async def test_while_the_queue_is_known_to_be_away_nobody_waits_for_it(tmp_path: Path) -> None:
    async with spooling(tmp_path) as (publisher, switch, _):
        switch.fails = NotConfirmed
        switch.delay_s = PATIENCE_S
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(30):
            await publisher.publish(message(number), timeout_s=5)
        # One waited for the queue; if all had, it would have been thirty times as long.
        assert loop.time() - began_s < 15 * PATIENCE_S


async def test_a_row_is_forgotten_only_after_the_confirm_and_survives_a_restart(tmp_path: Path) -> None:
    async with spooling(tmp_path) as (publisher, switch, _):
        switch.fails = NotConfirmed
        for number in range(5):
            await publisher.publish(message(number), timeout_s=5)
    async with spooling(tmp_path) as (_, _, primary):
        assert [f"m{number}" for number in range(5)] == await arrived(primary, 5)


async def test_a_queue_that_takes_some_and_refuses_others_gets_each_of_them_in_the_end(tmp_path: Path) -> None:
    async with spooling(tmp_path) as (publisher, switch, primary):
        switch.fails = NotConfirmed
        for number in range(20):
            await publisher.publish(message(number), timeout_s=5)
        turn = iter(range(10_000))
        switch.fails = lambda: NotConfirmed() if next(turn) % 2 else None
        assert {f"m{number}" for number in range(20)} == set(await arrived(primary, 20, within_s=30))


async def test_a_full_spool_refuses_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    async with spooling(tmp_path, max_bytes=400_000) as (publisher, switch, primary):
        switch.fails = NotConfirmed
        outcomes = [await refused(publisher, message(number, b"x" * 20_000)) for number in range(40)]
        taken = outcomes.index(True)
        assert 0 < taken
        assert [True] * (40 - taken) == outcomes[taken:]
        switch.fails = lambda: None
        assert taken == len(await arrived(primary, taken))
        await publisher.publish(message(1000), timeout_s=5)
        assert ["m1000"] == await arrived(primary, 1)


async def test_however_often_the_process_dies_with_them_spooled_callbacks_are_passed_on(tmp_path: Path) -> None:
    settings = Settings(queue_url="amqp://127.0.0.1/", spool_path=str(tmp_path / "spool.db"))
    for _ in range(25):
        spool = spool_of(settings)
        assert spool is not None
        await spool.start()
        if await spool.depth() == EMPTY:
            await spool.publisher().publish(message(1), timeout_s=5)
        assert ["m1"] == [
            each.envelope.message_id for each in await spool.consumer(prefetch=9).receive(limit=9, timeout_s=5)
        ]
        spool.abandon()
    spool = spool_of(settings)
    assert spool is not None
    async with spooling(tmp_path, spool=spool) as (_, _, primary):
        assert ["m1"] == await arrived(primary, 1)


async def test_no_callback_that_was_taken_is_lost_while_the_broker_is_killed(
    broker: Breakable, queue_name: str, tmp_path: Path
) -> None:
    queue = RabbitQueue(broker.url, queue_name)
    publisher = SpoolingPublisher(queue.publisher(), SqliteQueue(tmp_path / "spool.db"), patience_s=PATIENCE_S)
    await queue.start()
    await publisher.start()
    try:
        await publisher.publish(message(0), timeout_s=30)
        await asyncio.sleep(NEW_QUEUE_S)
        await broker.kill9()
        await asyncio.gather(*(publisher.publish(message(number), timeout_s=8) for number in range(1, 300)))
        assert publisher.spooled > 0
        await broker.start()
        assert {f"m{number}" for number in range(300)} <= set(await arrived(queue, 300, within_s=60))
    finally:
        await publisher.stop()
        await queue.stop()
