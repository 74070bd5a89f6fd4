"""Subscribers see every change once and in order: late commits, slow readers, restarts and other processes included."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest

from oplata.errors import FeedUnavailable
from oplata.feed.hub import Hub
from oplata.orders.commands import Orders
from oplata.storage.engine import Database
from tests.changes import append, change, versions
from tests.databases import Gate, execute, opened
from tests.services.breakable import Breakable

pytestmark = pytest.mark.anyio

PATIENCE_S = 20
NEVER_S = 600
"""A hub that looks by itself only after so long does so when the test has long given up."""


@pytest.fixture
async def hub(database: Database) -> AsyncIterator[Hub]:
    """A hub that holds few changes, so that the log is needed as well."""
    hub = Hub(database, recent_limit=20)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


@pytest.fixture
def patient_with_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is busy may take longer to sync a commit than the reader of SQLite's file would wait."""
    monkeypatch.setattr("oplata.storage.listener.SYNC_S", PATIENCE_S)


async def _take(
    hub: Hub, count: int, *, after: int | None = None, order_id: str | None = None, ids: list[int] | None = None
) -> list[int]:
    """The ids of the next so many changes; they are put into ``ids`` as they come."""
    ids = [] if ids is None else ids
    async with asyncio.timeout(PATIENCE_S), aclosing(hub.subscribe(after=after, order_id=order_id)) as told:
        async for change_id, _ in told:
            ids.append(change_id)
            if len(ids) == count:
                break
    return ids


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110  The hub has no event for it.
            await asyncio.sleep(0.005)


async def _subscribed(hub: Hub, count: int = 1) -> None:
    await _until(lambda: hub.subscribers >= count and hub.last_id is not None)


async def test_a_change_that_commits_late_is_told_in_its_place(database: Database, hub: Hub) -> None:
    """The first transaction has its id and has not committed; without the log's lock the second would be seen first."""
    taking = asyncio.create_task(_take(hub, 3, after=0))
    gate = Gate()

    async def late() -> None:
        async with database.unit_of_work() as uow:
            gate.stand_before(uow, "commit")
            await uow.changes.append([change("late")])
            await uow.commit()

    first = asyncio.create_task(late())
    await gate.reached.wait()
    second = asyncio.create_task(append(database, change("early")))
    await asyncio.sleep(0.3)
    gate.opened.set()
    await asyncio.gather(first, second)
    await append(database, change("last"))
    assert await taking == [1, 2, 3]


async def test_the_log_and_what_comes_meet_without_gap_or_repeat(database: Database, hub: Hub) -> None:
    rng = random.Random(7)
    await append(database, *versions("before", 1, 50))

    async def write() -> None:
        for number in range(60):
            await append(database, *versions(f"order-{number}", 1, rng.randint(1, 5)))

    async def read(after: int) -> list[int]:
        ids: list[int] = []
        async with aclosing(hub.subscribe(after=after)) as told:
            async for change_id, each in told:
                ids.append(change_id)
                if rng.random() < 0.05:
                    await asyncio.sleep(rng.random() / 50)
                if each.order_id == "end":
                    break
        return ids

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        readers = [group.create_task(read(after)) for after in [0, 0, 17, 49, 50] * 4]
        await group.create_task(write())
        await append(database, change("end"))
    async with database.unit_of_work(read_only=True) as uow:
        last_id = await uow.changes.last_id()
    assert [list(range(after + 1, last_id + 1)) for after in [0, 0, 17, 49, 50] * 4] == [
        reader.result() for reader in readers
    ]


async def test_without_an_id_only_what_comes_from_now_on_is_told(database: Database, hub: Hub) -> None:
    await append(database, *versions("order-1", 1, 30))
    taking = asyncio.create_task(_take(hub, 2))
    await _subscribed(hub)
    await append(database, *versions("order-1", 31, 32))
    assert await taking == [31, 32]


async def test_a_subscriber_of_one_order_hears_of_no_other(database: Database, hub: Hub) -> None:
    await append(database, change("mine"), *versions("other", 1, 40))
    taking = asyncio.create_task(_take(hub, 4, after=0, order_id="mine"))
    await _subscribed(hub)
    await append(database, change("mine", 2), *versions("other", 41, 70))
    await asyncio.sleep(0.05)
    for number in (3, 4):
        await append(database, *versions("other", number * 100, number * 100 + 30), change("mine", number))
    assert await taking == [1, 42, 104, 136]


async def test_a_slow_subscriber_costs_no_memory_and_misses_nothing(database: Database, hub: Hub) -> None:
    await append(database, change("first"))
    async with asyncio.timeout(PATIENCE_S), aclosing(hub.subscribe(after=0)) as told:
        ids = [(await anext(told))[0]]
        for number in range(10):
            await append(database, *versions(f"order-{number}", 1, 30))
        await _until(lambda: hub.last_id == 301)
        assert hub._recent is not None
        assert len(hub._recent) <= 20
        while len(ids) < 301:
            ids.append((await anext(told))[0])
    assert ids == list(range(1, 302))


async def test_an_id_that_the_log_has_not_reached_is_taken_for_its_end(database: Database, hub: Hub) -> None:
    """A client may come back with an id of a log that was restored from a backup since."""
    await append(database, *versions("order-1", 1, 3))
    taking = asyncio.create_task(_take(hub, 1, after=1_000_000))
    await _subscribed(hub)
    await asyncio.sleep(0.1)
    await append(database, change("order-1", 4))
    assert await taking == [4]


async def test_each_commit_of_another_process_is_told_though_the_hub_looks_by_itself_only_much_later(
    database: Database, database_url: str, patient_with_disks: None
) -> None:
    """Nobody calls ``wake`` here: PostgreSQL notifies, and SQLite's file is looked at."""
    hub = Hub(database, poll_s=NEVER_S)
    await hub.start()
    ids: list[int] = []
    try:
        taking = asyncio.create_task(_take(hub, 26, after=0, ids=ids))
        async with opened(database_url) as other:
            for number in range(26):
                await append(other, change(f"order-{number}"))
                await _until(lambda: len(ids) == number + 1)  # noqa: B023  It is waited for within this turn.
    finally:
        await hub.stop()
    assert await taking == list(range(1, 27))


async def test_a_look_now_and_then_finds_what_no_notification_told(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler in front of PostgreSQL swallows LISTEN, and a file's clock may stand still."""

    async def deaf(_heard: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(database, "listen", deaf)
    hub = Hub(database, poll_s=0.05)
    await hub.start()
    try:
        taking = asyncio.create_task(_take(hub, 1))
        await _subscribed(hub)
        async with opened(database_url) as other:
            await append(other, change())
        assert await taking == [1]
    finally:
        await hub.stop()


async def test_a_stopped_hub_ends_its_subscriptions_and_one_that_starts_again_goes_on(
    database: Database, hub: Hub
) -> None:
    told: dict[str | None, list[int]] = {None: [], "order-1": [], "x": []}
    ended = [asyncio.create_task(_take(hub, 2, after=0, order_id=each, ids=ids)) for each, ids in told.items()]
    await _subscribed(hub, 3)
    await append(database, change())
    await _until(lambda: list(told.values()) == [[1], [1], []])
    await hub.stop()
    async with asyncio.timeout(5):
        assert [await each for each in ended] == [[1], [1], []]
    with pytest.raises(FeedUnavailable):
        await _take(hub, 1)
    await hub.start()
    assert await _take(hub, 1, after=0) == [1]
    assert hub.subscribers == 0


async def test_there_is_a_limit_to_subscribers(database: Database) -> None:
    hub = Hub(database, max_subscribers=1)
    await hub.start()
    try:
        taking = asyncio.create_task(_take(hub, 1))
        await _subscribed(hub)
        with pytest.raises(FeedUnavailable):
            await _take(hub, 1)
        await append(database, change())
        assert await taking == [1]
    finally:
        await hub.stop()


async def test_a_subscription_goes_on_over_a_restart_of_postgresql(database_server: Breakable) -> None:
    async with opened(database_server.url) as database:
        await database.migrate()
        await execute(database_server.url, "DELETE FROM changes")
        async with database.unit_of_work(read_only=True) as uow:
            before = await uow.changes.last_id()
        hub = Hub(database, poll_s=5)
        await hub.start()
        try:
            told: list[list[int]] = [[] for _ in range(20)]
            taking = [asyncio.create_task(_take(hub, 2, after=before, ids=ids)) for ids in told]
            await append(database, change("restart-1"))
            await _until(lambda: all(told))
            await database_server.kill9()
            await asyncio.sleep(0.3)
            await database_server.start()
            async with opened(database_server.url) as other:
                await append(other, change("restart-2"))
            ids = [await each for each in taking]
            assert ids[0][1] > ids[0][0]
            assert ids == [ids[0]] * 20
        finally:
            await hub.stop()


async def test_what_a_registration_commits_wakes_a_reader_of_another_process(
    database_url: str, patient_with_disks: None
) -> None:
    async with opened(database_url) as ours, opened(database_url) as theirs:
        await ours.migrate()
        hub = Hub(ours, poll_s=NEVER_S)
        await hub.start()
        told = asyncio.create_task(anext(hub.subscribe(after=0)))
        await asyncio.sleep(1)
        await Orders(theirs).register("order-1", 100)
        async with asyncio.timeout(20):
            assert (await told)[1].order_id == "order-1"
        await hub.stop()
