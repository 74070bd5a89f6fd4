"""How the shop stands, from counts that are kept as things change: it costs the same however much there is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from oplata.domain.status import OrderStatus
from oplata.orders.clock import wall_clock_ms
from oplata.storage.engine import Database
from oplata.storage.rollups import HOUR_MS, REVIEW, Tally

MAX_HOURS = 31 * 24
COUNTED = 10_000
"""What no rollup holds is counted up to so many, along an index."""


class StatusCount(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """So many orders with so many kopecks together."""

    status: str
    orders: int
    kopecks: int


class Hour(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What entered each status in the hour that began ``at``, in milliseconds since the Unix epoch."""

    at: int
    entered: list[StatusCount]


class Overview(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The registered orders by status, and what wants a person's eye.

    ``unregistered`` are orders that only payments name. That and ``deadLetters``, the open ones, are counted up to
    10000. Hours in which nothing happened are absent.
    """

    at: int
    orders: list[StatusCount]
    for_review: int
    unregistered: int
    dead_letters: int
    hours: list[Hour]


class Stats:
    """The counts of this database."""

    def __init__(self, database: Database, *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._database = database
        self._now_ms = now_ms

    async def overview(self, *, hours: int = 24) -> Overview:
        """How things stand now, and what happened in each of the last hours."""
        now_ms = self._now_ms()
        this_hour_ms = now_ms - now_ms % HOUR_MS
        first_ms = this_hour_ms - (min(max(hours, 1), MAX_HOURS) - 1) * HOUR_MS
        async with self._database.unit_of_work(read_only=True) as uow:
            standing = await uow.rollups.standing()
            past = await uow.rollups.hours(first_ms, this_hour_ms)
            unregistered = await uow.orders.count_unregistered(limit=COUNTED)
            dead_letters = sum((await uow.dead_letters.open_by_reason(limit=COUNTED)).values())
        return Overview(
            at=now_ms,
            orders=_counts(standing),
            for_review=standing.get(REVIEW, Tally(0, 0)).orders,
            unregistered=unregistered,
            dead_letters=dead_letters,
            hours=[Hour(at=at_ms, entered=_counts(past[at_ms])) for at_ms in sorted(past)],
        )


def _counts(tallies: Mapping[str, Tally]) -> list[StatusCount]:
    known = [(each.value, tallies[each.value]) for each in OrderStatus if each.value in tallies]
    return [StatusCount(status=name, orders=tally.orders, kopecks=tally.kopecks) for name, tally in known]
