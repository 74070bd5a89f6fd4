"""A sink in memory that fails as it is told to, and what must hold of what it was told."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from oplata.feed.event import Event
from oplata.feed.hub import Hub
from oplata.feed.lane import Options
from oplata.feed.relay import Relay, Start, Target
from oplata.feed.schedule import Schedule
from oplata.feed.sinks.base import Sink
from oplata.observability.tracing import Tracing
from oplata.storage.engine import Database

FAST = Options(concurrency=8, timeout_s=1.0, schedule=Schedule(delays_ms=(10, 30), max_attempts=5))


class MemorySink:
    """Keeps what it was told. ``fault`` is asked at each delivery for an error to raise, or None."""

    def __init__(self, fault: Callable[[Event], Exception | None] = lambda _event: None) -> None:
        self.fault = fault
        self.told: list[Event] = []
        self.asked = 0
        self.delay_s: Callable[[Event], float] = lambda _event: 0.0
        self.at_once = 0
        self.most_at_once = 0
        self.unwanted: frozenset[str] = frozenset()
        self.of_order: dict[str, int] = {}

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    def wants(self, event: Event) -> bool:
        return event.change.status not in self.unwanted

    async def deliver(self, event: Event) -> None:
        order_id = event.change.order_id
        self.asked += 1
        self.at_once += 1
        self.of_order[order_id] = self.of_order.get(order_id, 0) + 1
        assert self.of_order[order_id] == 1, "two deliveries of one order at once"
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay_s(event))
            error = self.fault(event)
            if error is not None:
                raise error
            self.told.append(event)
        finally:
            self.at_once -= 1
            self.of_order[order_id] -= 1

    def versions(self, order_id: str) -> list[int]:
        """What was told of an order, as the versions in the order in which they came."""
        return [event.change.version for event in self.told if event.change.order_id == order_id]

    async def until(self, holds: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110  It comes about in other tasks.
                await asyncio.sleep(0.01)


def assert_in_order(versions: Sequence[int], last: int, *, without: Iterable[int] = ()) -> None:
    """Each version is told at least once, and none before all before it were. Repeats begin anew and go on in order."""
    left_out, told = frozenset(without), 0
    wanted = [version for version in range(1, last + 1) if version not in left_out]
    for version in versions:
        place = wanted.index(version)
        assert place <= told, f"version {version} came before one that precedes it: {versions}"
        told = max(told, place + 1)
    assert told == len(wanted), f"not all was told: {versions} of {wanted}"


@contextlib.asynccontextmanager
async def relaying(
    database: Database,
    *sinks: tuple[str, Sink],
    options: Options = FAST,
    start: Start = "beginning",
    lease_ttl_s: float = 12.0,
    seed: int = 7,
    tracing: Tracing | None = None,
) -> AsyncIterator[tuple[Relay, Hub]]:
    """A relay with a hub of its own, stopped in good order; what ended it before is raised."""
    hub = Hub(database)
    await hub.start()
    targets = [Target(name=name, sink=sink, options=options, start=start) for name, sink in sinks]
    relay = Relay(database, hub, targets, lease_ttl_s=lease_ttl_s, rng=random.Random(seed), tracing=tracing)
    running = asyncio.create_task(relay.run())
    try:
        yield relay, hub
    finally:
        relay.stop()
        try:
            await asyncio.wait_for(running, 15)
        finally:
            await hub.stop()


async def crash(
    database: Database,
    sink: MemorySink,
    after_s: float,
    *,
    lease_ttl_s: float = 0.4,
    options: Options = FAST,
    having: Callable[[], Awaitable[bool]] | None = None,
) -> None:
    """Run a relay and end it in the middle of whatever it does, with its lease held; not before ``having`` is true."""
    hub = Hub(database)
    await hub.start()
    relay = Relay(database, hub, [Target(name="shop", sink=sink, options=options)], lease_ttl_s=lease_ttl_s)
    running = asyncio.create_task(relay.run())
    await asyncio.sleep(after_s)
    async with asyncio.timeout(20):
        while having is not None and not await having():  # noqa: ASYNC110  It comes about in the database.
            await asyncio.sleep(0.01)
    # Nothing is released and nothing written down: the tasks are cancelled where they stand.
    lane = relay._lanes.get("shop")
    if lane is not None:
        lane._lease._until_s = 0.0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await hub.stop()
