"""What a person does with sinks: pause one, let it go on, have it told again. Each leaves an entry in the audit."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from oplata.errors import SinkNotFound
from oplata.storage.audit import Entry
from oplata.storage.deliveries import dead_and_later, of_order, since
from oplata.storage.engine import Database
from oplata.storage.sinks import SinkRow
from oplata.storage.unit_of_work import UnitOfWork

MAX_LISTED = 1_000


class SinkView(msgspec.Struct, frozen=True, kw_only=True):
    """A sink as a person sees it. ``behind`` counts ids of the log that have no delivery yet; some may not exist."""

    name: str
    paused: bool
    held: bool
    behind: int
    waiting: int
    dead: int
    told: int
    last_told_at_ms: int | None
    failing_since_ms: int | None
    last_error: str | None


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be told again: what is dead, an order, or everything from a time on."""

    dead: bool = False
    order_id: str | None = None
    since_ms: int | None = None


class Steering:
    """Acts on the rows; whoever runs the relay sees it within seconds."""

    def __init__(self, database: Database, *, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._database = database
        self._now_ms = now_ms

    async def every(self) -> list[SinkView]:
        """All sinks that were ever told of anything, by name."""
        async with self._database.unit_of_work(snapshot=True) as uow:
            last_id = await uow.changes.last_id()
            clock_ms = await uow.clock_ms()
            return [await _view(uow, row, last_id, clock_ms) for row in await uow.sinks.every(limit=MAX_LISTED)]

    async def pause(self, name: str, *, paused: bool, who: str, why: str) -> None:
        """Have it told nothing from now on, or have it told again. Raises ``SinkNotFound``."""
        async with self._database.unit_of_work() as uow:
            if not await uow.sinks.pause(name, paused=paused):
                raise _unknown(name)
            await uow.audit.note([self._entry("sink_pause" if paused else "sink_resume", name, who, why, {})])
            await uow.commit()

    async def replay(self, name: str, again: Again, *, who: str, why: str) -> int:
        """Have it told again, each order in its order and up to what it is now; returns how many deliveries that is.

        Raises ``SinkNotFound``.
        """
        async with self._database.unit_of_work() as uow:
            row = await uow.sinks.lock(name)
            if row is None:
                raise _unknown(name)
            if again.dead:
                which = dead_and_later(name)
            elif again.order_id is not None:
                which = of_order(again.order_id)
            else:
                which = since(await uow.changes.last_id_before(again.since_ms or 0) + 1)
            count = await uow.deliveries.replay(name, await uow.clock_ms(), up_to=row.cursor_id, which=which)
            details = {**msgspec.structs.asdict(again), "deliveries": count}
            await uow.audit.note([self._entry("sink_replay", name, who, why, details)])
            await uow.commit()
        return count

    def _entry(self, action: str, name: str, who: str, why: str, details: dict[str, object]) -> Entry:
        return Entry(
            at_ms=self._now_ms(), actor=who, action=action, subject=f"sink:{name}", reason=why, details=details
        )


async def _view(uow: UnitOfWork, row: SinkRow, last_id: int, clock_ms: int) -> SinkView:
    counts = await uow.deliveries.counts(row.name)
    return SinkView(
        name=row.name,
        paused=row.paused,
        held=row.holder is not None and row.lease_until_ms >= clock_ms,
        behind=max(last_id - row.cursor_id, 0),
        waiting=counts.get("waiting", 0),
        dead=counts.get("dead", 0),
        told=row.told,
        last_told_at_ms=row.last_told_at_ms,
        failing_since_ms=row.failing_since_ms,
        last_error=row.last_error,
    )


def _unknown(name: str) -> SinkNotFound:
    return SinkNotFound(f"no sink called {name} has been told anything; `oplata sinks list` shows those that were")
