"""Every sink is told of every change at least once, and of each order in order, whatever fails and whoever dies."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from oplata.errors import DeliveryFailed, DeliveryRefused, SinkNotFound
from oplata.feed.event import Event
from oplata.feed.lane import Options
from oplata.feed.relay import begin
from oplata.feed.schedule import Schedule
from oplata.feed.steering import Again, Steering
from oplata.storage.changes import Change
from oplata.storage.deliveries import Settled, State
from oplata.storage.engine import Database
from tests.changes import AT_MS, append, change, versions
from tests.databases import execute, opened, select_all
from tests.sinks import FAST, MemorySink, assert_in_order, crash, relaying

pytestmark = pytest.mark.anyio

PATIENT = Options(concurrency=4, timeout_s=1, schedule=Schedule(delays_ms=(20,), max_attempts=10_000))


def _shuffled(orders: int, each: int, rng: random.Random) -> list[Change]:
    """The changes of some orders, mixed, each order's in order."""
    left = {f"order-{number}": versions(f"order-{number}", 1, each) for number in range(orders)}
    mixed: list[Change] = []
    while left:
        order_id = rng.choice(sorted(left))
        mixed.append(left[order_id][0])
        left[order_id] = left[order_id][1:]
        if not left[order_id]:
            del left[order_id]
    return mixed


async def test_all_is_told_in_order_and_several_orders_at_once(database: Database) -> None:
    sink = MemorySink()
    sink.delay_s = lambda event: 0.002 * (event.change_id % 3)
    await append(database, *_shuffled(40, 5, random.Random(1)))
    async with relaying(database, ("shop", sink)):
        await sink.until(lambda: len(sink.told) >= 200)
        await append(database, *(change(f"order-{number}", 6) for number in range(40)))
        await sink.until(lambda: len(sink.told) >= 240)
    assert [sink.versions(f"order-{number}") for number in range(40)] == [[1, 2, 3, 4, 5, 6]] * 40
    assert 2 <= sink.most_at_once <= FAST.concurrency


async def test_one_order_that_fails_holds_up_itself_alone(database: Database) -> None:
    healed = asyncio.Event()

    def fault(event: Event) -> Exception | None:
        return DeliveryFailed("no") if event.change.order_id == "sick" and not healed.is_set() else None

    sink = MemorySink(fault)
    await append(database, *versions("sick", 1, 3), *versions("well", 1, 3))
    async with relaying(database, ("shop", sink), options=PATIENT):
        await sink.until(lambda: sink.versions("well") == [1, 2, 3])
        await append(database, change("sick", 4), change("well", 4))
        await sink.until(lambda: sink.versions("well") == [1, 2, 3, 4])
        assert sink.versions("sick") == []
        healed.set()
        await sink.until(lambda: len(sink.versions("sick")) == 4)
    assert sink.versions("sick") == [1, 2, 3, 4]


async def test_a_dead_sink_delays_no_other_and_makes_no_dead_letters(database: Database) -> None:
    well, down = MemorySink(), MemorySink(lambda _event: DeliveryFailed("down"))
    options = Options(concurrency=8, timeout_s=1, schedule=Schedule(delays_ms=(10,), max_attempts=3))
    await append(database, *_shuffled(30, 2, random.Random(2)))
    async with relaying(database, ("well", well), ("down", down), options=options):
        await well.until(lambda: len(well.told) == 60)
        await asyncio.sleep(1.5)
        # The breaker lets a probe through now and then; without it this would be thousands.
        assert down.asked < 60
        views = {view.name: view for view in await Steering(database).every()}
        assert (views["down"].waiting, views["down"].dead) == (60, 0)
        down.fault = lambda _event: None
        await down.until(lambda: len(down.told) == 60)
    for number in range(30):
        assert_in_order(down.versions(f"order-{number}"), 2)


async def test_what_was_put_off_by_a_machine_a_day_ahead_is_told_by_the_next_one(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_put_off() -> bool:
        return await select_all(database_url, "SELECT attempts FROM deliveries WHERE attempts > 0") != []

    sink = MemorySink(lambda _event: DeliveryFailed("not yet"))
    await append(database, *versions("order-1", 1, 2))
    await begin(database, "shop", "beginning", AT_MS)
    with monkeypatch.context() as patched:
        ahead_ns = time.time_ns() + 86_400 * 10**9
        patched.setattr(time, "time_ns", lambda: ahead_ns)
        patient = Options(schedule=Schedule(delays_ms=(1_000,), max_attempts=100))
        await crash(database, sink, 0.0, options=patient, having=is_put_off)
    sink.fault = lambda _event: None
    async with relaying(database, ("shop", sink)):
        await sink.until(lambda: sink.versions("order-1") == [1, 2], timeout_s=15)


async def test_a_databases_clock_set_back_a_day_strands_no_delivery(database: Database, database_url: str) -> None:
    sink = MemorySink(lambda _event: DeliveryFailed("not yet"))
    await append(database, change("order-1"), change("order-2"))
    async with relaying(database, ("shop", sink), options=PATIENT):
        await sink.until(lambda: sink.asked >= 4)
    await execute(database_url, "UPDATE deliveries SET due_at_ms = due_at_ms + 86400000")
    sink.fault = lambda _event: None
    async with relaying(database, ("shop", sink), lease_ttl_s=1.0):
        await sink.until(lambda: len(sink.told) == 2, timeout_s=10)


async def test_only_what_waits_for_longer_than_it_was_put_off_is_recalled(
    database: Database, database_url: str
) -> None:
    minute_ms, longest_ms = 60_000, 3_600_000
    waits = [
        ("queued", None, minute_ms),
        ("queued, set back", None, minute_ms + 1),
        ("failed", "no", longest_ms + minute_ms),
        ("failed, set back", "no", longest_ms + minute_ms + 1),
    ]
    async with database.unit_of_work() as uow:
        queued = [(number, change(name)) for number, (name, _, _) in enumerate(waits)]
        await uow.deliveries.queue("shop", queued, AT_MS)
        await uow.deliveries.queue("crm", queued, AT_MS + longest_ms)
        await uow.deliveries.settle(
            "shop", [_settled(number, due_at_ms=AT_MS + wait[2], error=wait[1]) for number, wait in enumerate(waits)]
        )
        assert await uow.deliveries.recall("shop", AT_MS, longest_ms=longest_ms) == 2
        await uow.commit()
    rows = await select_all(database_url, "SELECT order_id, due_at_ms FROM deliveries WHERE sink = 'shop' ORDER BY 1")
    assert rows == sorted((name, AT_MS if "set back" in name else AT_MS + ahead_ms) for name, _, ahead_ms in waits)
    rows = await select_all(database_url, "SELECT DISTINCT due_at_ms FROM deliveries WHERE sink = 'crm'")
    assert rows == [(AT_MS + longest_ms,)]


async def test_a_lease_from_before_the_databases_clock_was_set_back_is_no_lease(
    database: Database, database_url: str
) -> None:
    sink = MemorySink()
    await append(database, change("order-1"))
    await crash(database, sink, 0.0)
    await begin(database, "shop", "beginning", AT_MS)
    await execute(database_url, "UPDATE sinks SET holder = 'one who died', lease_until_ms = 99999999999999")
    async with relaying(database, ("shop", sink), lease_ttl_s=2.0):
        await sink.until(lambda: sink.versions("order-1") == [1], timeout_s=15)


async def test_what_is_refused_is_dead_at_once_and_what_follows_is_told(database: Database) -> None:
    sink = MemorySink(lambda event: DeliveryRefused("no such order") if event.change.version == 2 else None)
    await append(database, *versions("order-1", 1, 4))
    async with relaying(database, ("shop", sink)):
        await sink.until(lambda: len(sink.told) == 3)
        assert sink.versions("order-1") == [1, 3, 4]
        view = await _until_dead(database, 1)
        assert (view.waiting, view.told) == (0, 3)
        sink.fault = lambda _event: None
        # What is told again goes on to what the order is now, or the shop would end with the old news.
        count = await Steering(database).replay("shop", Again(dead=True), who="anna", why="the shop is mended")
        assert count == 3
        await sink.until(lambda: len(sink.told) == 6)
    assert sink.versions("order-1") == [1, 3, 4, 2, 3, 4]
    assert (await Steering(database).every())[0].dead == 0


async def test_a_replay_and_what_is_written_down_meanwhile_do_not_block_one_another(database: Database) -> None:
    """The lane writes in its order and the replay in another: whoever comes second waits for all of the first."""
    await append(database, *versions("order-1", 1, 2))
    await begin(database, "shop", "now", AT_MS)
    async with database.unit_of_work() as uow:
        await uow.deliveries.queue("shop", list(enumerate(versions("order-1", 1, 2), 1)), AT_MS)
        await uow.commit()
    async with database.unit_of_work() as uow:
        assert await uow.sinks.acquire("shop", "lane", ttl_ms=60_000) is not None
        await uow.deliveries.settle("shop", [_settled(2, State.TOLD)])
        replaying = asyncio.create_task(
            Steering(database).replay("shop", Again(order_id="order-1"), who="anna", why="a look")
        )
        await asyncio.sleep(0.3)
        await uow.deliveries.settle("shop", [_settled(1, State.TOLD)])
        await uow.commit()
    assert await replaying == 2


def _settled(
    change_id: int, state: State = State.WAITING, *, due_at_ms: int = AT_MS, error: str | None = None
) -> Settled:
    return Settled(
        change_id=change_id,
        round=0,
        state=state,
        attempts=0,
        due_at_ms=due_at_ms,
        settled_at_ms=AT_MS,
        last_error=error,
    )


async def test_what_fails_too_often_is_dead_and_visible(database: Database, database_url: str) -> None:
    sink = MemorySink(lambda event: DeliveryFailed("it chokes") if event.change.order_id == "sick" else None)
    await append(database, change("sick"), change("sick", 2), change("well"))
    async with relaying(database, ("shop", sink)):
        await _until_dead(database, 2)
    rows = await select_all(
        database_url, "SELECT order_id, state, attempts, last_error FROM deliveries ORDER BY change_id"
    )
    assert rows == [
        ("sick", "dead", 5, "DeliveryFailed: it chokes"),
        ("sick", "dead", 5, "DeliveryFailed: it chokes"),
        ("well", "told", 0, None),
    ]


async def _until_dead(database: Database, count: int) -> Any:
    async with asyncio.timeout(20):
        while True:
            views = await Steering(database).every()
            if views and views[0].dead == count:
                return views[0]
            await asyncio.sleep(0.02)


async def test_one_that_hangs_is_timed_out_and_holds_up_nobody(database: Database) -> None:
    sink = MemorySink()
    sink.delay_s = lambda event: 60.0 if event.change.order_id == "hangs" and sink.asked < 10 else 0.0
    await append(database, change("hangs"), *versions("well", 1, 50))
    options = Options(concurrency=2, timeout_s=0.3, schedule=Schedule(delays_ms=(50,), max_attempts=100))
    async with relaying(database, ("shop", sink), options=options):
        await sink.until(lambda: len(sink.told) == 51)
    assert sink.versions("well") == list(range(1, 51))


async def test_a_status_that_a_sink_does_not_want_is_skipped(database: Database) -> None:
    sink = MemorySink()
    sink.unwanted = frozenset({"pending"})
    await append(database, change(status="pending"), change(version=2), change("order-2", status="pending"))
    async with relaying(database, ("shop", sink)):
        await sink.until(lambda: len(sink.told) == 1)
        assert await Steering(database).replay("shop", Again(order_id="order-1"), who="anna", why="a look") == 2
        await sink.until(lambda: len(sink.told) == 2)
    assert sink.versions("order-1") == [2, 2]


@pytest.mark.parametrize(("start", "first"), [("beginning", 1), (AT_MS + 3, 3), (AT_MS + 99, 6), ("now", 6)])
async def test_a_new_sink_begins_where_it_is_told_to(database: Database, start: Any, first: int) -> None:
    await append(database, *(change(f"order-{number}", at_ms=AT_MS + number) for number in range(1, 6)))
    sink = MemorySink()
    await begin(database, "shop", start, AT_MS)
    await begin(database, "shop", "beginning", AT_MS)  # It is not new any more, and this changes nothing.
    await append(database, change("order-6", at_ms=AT_MS + 6))
    async with relaying(database, ("shop", sink), start=start):
        await sink.until(lambda: len(sink.told) == 7 - first)
        await asyncio.sleep(0.1)
    assert sorted(event.change.order_id for event in sink.told) == [f"order-{number}" for number in range(first, 7)]


async def test_a_paused_sink_is_told_nothing_and_goes_on_where_it_was(database: Database, database_url: str) -> None:
    sink, steering = MemorySink(), Steering(database)
    await begin(database, "shop", "beginning", AT_MS)
    await steering.pause("shop", paused=True, who="anna", why="the shop moves")
    await append(database, *versions("order-1", 1, 3))
    async with relaying(database, ("shop", sink), lease_ttl_s=1.6) as (relay, _):
        await asyncio.sleep(0.3)
        assert sink.told == []
        await steering.pause("shop", paused=False, who="anna", why="it has moved")
        await sink.until(lambda: len(sink.told) == 3)
        await steering.pause("shop", paused=True, who="anna", why="again")
        await sink.until(lambda: relay._lanes == {})  # It is heeded when the lease is prolonged.
        await append(database, change("order-1", 4))
        await asyncio.sleep(0.3)
        assert sink.versions("order-1") == [1, 2, 3]
    audit = await select_all(database_url, "SELECT action, subject, actor FROM audit ORDER BY id")
    assert audit == [(action, "sink:shop", "anna") for action in ("sink_pause", "sink_resume", "sink_pause")]
    with pytest.raises(SinkNotFound):
        await steering.pause("shopp", paused=True, who="anna", why="a slip")


async def test_two_relays_share_the_sinks_and_one_takes_over_when_the_other_dies(database_url: str) -> None:
    rng = random.Random(5)
    async with opened(database_url) as database, opened(database_url) as other:
        await database.migrate()
        await begin(database, "shop", "beginning", AT_MS)
        sink = MemorySink()
        sink.delay_s = lambda _event: rng.random() / 100
        changes = _shuffled(20, 12, rng)
        await append(database, *changes[:120])
        dying = asyncio.create_task(crash(database, sink, 0.4))
        await asyncio.sleep(0.1)
        async with relaying(other, ("shop", sink), lease_ttl_s=1.0):
            await append(database, *changes[120:])
            await dying
            await sink.until(lambda: len({event.id for event in sink.told}) == 240)
    for number in range(20):
        assert_in_order(sink.versions(f"order-{number}"), 12)


async def test_a_sink_that_recovers_under_another_relay_is_not_told_of_as_failing_for_ever(database: Database) -> None:
    sink, steering = MemorySink(lambda _event: DeliveryFailed("down")), Steering(database)
    await append(database, change("order-1"))
    async with relaying(database, ("shop", sink), options=PATIENT):
        await sink.until(lambda: sink.asked >= 2)
    (view,) = await steering.every()
    assert view.last_error == "DeliveryFailed: down"
    async with relaying(database, ("shop", sink), options=PATIENT):
        await sink.until(lambda: sink.asked >= 4)
        (again,) = await steering.every()
        assert again.failing_since_ms == view.failing_since_ms
        sink.fault = lambda _event: None
        await sink.until(lambda: len(sink.told) == 1)
    (view,) = await steering.every()
    assert (view.failing_since_ms, view.last_error) == (None, None)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_fails_and_dies_each_order_is_told_whole_and_in_order(database: Database, seed: int) -> None:
    """Relays are ended in the middle of anything, again and again, over a sink that fails at random."""
    rng = random.Random(seed)

    def fault(event: Event) -> Exception | None:
        if event.change.order_id == "order-3" and event.change.version == 2:
            return DeliveryRefused("never")
        return DeliveryFailed("now and then") if rng.random() < 0.1 else None

    sink = MemorySink(fault)
    sink.delay_s = lambda _event: rng.random() / 200
    await begin(database, "shop", "beginning", AT_MS)
    changes = _shuffled(12, 8, rng)
    for start in range(0, len(changes), 24):
        await append(database, *changes[start : start + 24])
        await crash(database, sink, 0.02 + rng.random() / 5, lease_ttl_s=0.2)
    patient = Options(concurrency=8, timeout_s=1.0, schedule=Schedule(delays_ms=(5,), max_attempts=1000))
    async with relaying(database, ("shop", sink), options=patient, lease_ttl_s=2.0, seed=seed):
        await sink.until(lambda: len({event.id for event in sink.told}) == 95)
    for number in range(12):
        without = [2] if number == 3 else []
        assert_in_order(sink.versions(f"order-{number}"), 8, without=without)


async def test_a_lease_that_was_lost_writes_nothing_more(database: Database) -> None:
    """The one who was frozen and goes on finds that his lease has run out before he finds anything else."""
    sink = MemorySink()
    await append(database, *versions("order-1", 1, 3))
    ttl_s = 10
    async with relaying(database, ("shop", sink), lease_ttl_s=ttl_s) as (relay, _):
        await sink.until(lambda: len(sink.told) == 3)
        async with database.unit_of_work() as uow:
            row = await uow.sinks.get("shop")
            assert row is not None
            await uow.sinks.release("shop", str(row.holder))
            assert await uow.sinks.acquire("shop", "another", ttl_ms=1000 * ttl_s) is not None
            await uow.commit()
        await append(database, change("order-1", 4))
        await sink.until(lambda: relay._lanes == {})
        await asyncio.sleep(0.5)
        assert sink.versions("order-1") == [1, 2, 3]
        async with database.unit_of_work() as uow:
            await uow.sinks.release("shop", "another")
            await uow.commit()
        await sink.until(lambda: 4 in sink.versions("order-1"))
    assert_in_order(sink.versions("order-1"), 4)
