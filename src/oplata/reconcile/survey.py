"""The survey: how much waits where, asked of queue, spool and database now and then, so that no scrape has to wait.

Nothing here scans a table: orders are counted by the database as they change, and the rest is counted in an index and
no further than to a limit. What could not be asked is not known, rather than what it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import structlog

from oplata.domain.status import OrderStatus
from oplata.feed.hub import Hub
from oplata.observability.faults import describe
from oplata.observability.metrics import Metrics
from oplata.queue.base import Depth, Queue
from oplata.queue.sqlite import SqliteQueue
from oplata.storage.engine import Database
from oplata.storage.handling import Waiting
from oplata.storage.rollups import REVIEW
from oplata.storage.unit_of_work import UnitOfWork

T = TypeVar("T")

COUNT_LIMIT = 10_000
ASK_TIMEOUT_S = 8.0
MAX_SINKS = 100

_log = structlog.get_logger("oplata.survey")


class Survey:
    """What was found the last time. A part that is None is not asked."""

    def __init__(
        self,
        *,
        queue: Queue | None,
        spool: SqliteQueue | None,
        database: Database | None,
        hub: Hub | None = None,
        interval_s: float,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._database = database
        self._hub = hub
        self._interval_s = interval_s
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._ended_at_s: float | None = None
        self.depth: Depth | None = None
        self.queue_oldest_s: float | None = None
        self.spooled: int | None = None
        self.spool_bytes: int | None = None
        self.spool_oldest_s: float | None = None
        self.orders: Mapping[str, float] | None = None
        self.review: int | None = None
        self.dead_letters: Mapping[str, float] | None = None
        self.handlers: Waiting | None = None
        self.canary_sent_at_ms: int | None = None
        self.last_change_id: int | None = None
        self.sink_lag: Mapping[str, float] | None = None
        self.sink_told: Mapping[str, float] | None = None
        self.sink_failing_s: Mapping[str, float] | None = None
        self._database_up: bool | None = None

    async def run(self) -> None:
        """Survey again and again until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(self._interval_s)

    async def once(self) -> None:
        """Ask all of them, at most some seconds each."""
        if self._queue is not None:
            self.depth = await self._asked("queue", self._queue.depth)
            if isinstance(self._queue, SqliteQueue):
                self.queue_oldest_s = _seconds(await self._asked("queue", self._queue.oldest_age_ms))
        if self._spool is not None:
            depth = await self._asked("spool", self._spool.depth)
            self.spooled = None if depth is None else depth.ready + depth.unacked + depth.retry + depth.dead
            self.spool_bytes = await self._asked("spool", self._spool.used_bytes)
            self.spool_oldest_s = _seconds(await self._asked("spool", self._spool.oldest_age_ms))
        if self._database is not None:
            self._database_up = bool(await self._asked("database", self._ask_database))
        self._ended_at_s = self._monotonic_s()

    def expose(self, metrics: Metrics) -> None:
        """Supply what was asked for."""
        if self._queue is not None:
            metrics.supply("oplata_queue_up", lambda: self._since_begun(float(self.depth is not None)))
            metrics.supply("oplata_queue_messages", self._places)
            if isinstance(self._queue, SqliteQueue):
                metrics.supply("oplata_queue_oldest_seconds", lambda: self.queue_oldest_s)
        if self._spool is not None:
            metrics.supply("oplata_spool_messages", lambda: self.spooled)
            metrics.supply("oplata_spool_bytes", lambda: self.spool_bytes)
            metrics.supply("oplata_spool_oldest_seconds", lambda: self.spool_oldest_s)
        if self._database is not None:
            metrics.supply("oplata_database_up", lambda: self._since_begun(float(bool(self._database_up))))
            metrics.supply("oplata_orders", lambda: self.orders)
            metrics.supply("oplata_orders_review", lambda: self.review)
            metrics.supply("oplata_dead_letters", lambda: self.dead_letters)
            metrics.supply("oplata_handlers_waiting_orders", self._handlers_orders)
            metrics.supply("oplata_handlers_late_seconds", self._handlers_late_s)
            metrics.supply("oplata_canary_age_seconds", self._canary_age_s)
            metrics.supply("oplata_feed_lag_changes", self._feed_lag)
            metrics.supply("oplata_sink_lag_changes", lambda: self.sink_lag)
            metrics.supply("oplata_sink_told_total", lambda: self.sink_told)
            metrics.supply("oplata_sink_failing_seconds", lambda: self.sink_failing_s)
        hub = self._hub
        if hub is not None:
            metrics.supply("oplata_feed_subscribers", lambda: float(hub.subscribers))
        metrics.supply("oplata_survey_seconds", self._age_s)

    async def _asked(self, what: str, ask: Callable[[], Awaitable[T]]) -> T | None:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return await ask()
        except Exception as error:
            # Whatever it is, the survey goes on: a metric that is absent says as much.
            _log.debug("a survey had no answer", action="survey.ask", what=what, reason=describe(error))
            return None

    async def _ask_database(self) -> bool:
        self.orders = self.review = self.dead_letters = self.handlers = self.last_change_id = None
        self.sink_lag = self.sink_told = self.sink_failing_s = None
        assert self._database is not None  # noqa: S101  It is not asked otherwise.
        async with self._database.unit_of_work(read_only=True) as uow:
            standing = await uow.rollups.standing()
            unregistered = await uow.orders.count_unregistered(limit=COUNT_LIMIT)
            letters = await uow.dead_letters.open_by_reason(limit=COUNT_LIMIT)
            self.handlers = await uow.handling.waiting(limit=COUNT_LIMIT)
            self.canary_sent_at_ms = await uow.canaries.newest_ms()
            await self._ask_sinks(uow)
        registered = {
            status.value: float(standing[status].orders if status in standing else 0) for status in OrderStatus
        }
        self.orders = registered | {OrderStatus.UNREGISTERED.value: float(unregistered)}
        self.review = standing[REVIEW].orders if REVIEW in standing else 0
        self.dead_letters = {reason: float(count) for reason, count in letters.items()}
        return True

    async def _ask_sinks(self, uow: UnitOfWork) -> None:
        last_id = await uow.changes.last_id()
        rows = await uow.sinks.every(limit=MAX_SINKS)
        waiting = {row.name: await uow.deliveries.waiting(row.name, limit=COUNT_LIMIT) for row in rows}
        self.last_change_id = last_id
        self.sink_lag = {
            row.name: float(min(COUNT_LIMIT, max(0, last_id - row.cursor_id) + waiting[row.name])) for row in rows
        }
        self.sink_told = {row.name: float(row.told) for row in rows}
        now_ms = self._now_ms()
        self.sink_failing_s = {
            row.name: 0.0 if row.failing_since_ms is None else max(0, now_ms - row.failing_since_ms) / 1000
            for row in rows
        }

    def _feed_lag(self) -> float | None:
        # Where nobody subscribes nothing is read, and nothing lags.
        read_id = None if self._hub is None else self._hub.last_id
        if self.last_change_id is None or read_id is None:
            return None
        return float(max(0, self.last_change_id - read_id))

    def _places(self) -> Mapping[str, float] | None:
        depth = self.depth
        if depth is None:
            return None
        return {"ready": depth.ready, "unacked": depth.unacked, "retry": depth.retry, "dead": depth.dead}

    def _handlers_orders(self) -> float | None:
        return None if self.handlers is None else float(self.handlers.orders)

    def _handlers_late_s(self) -> float | None:
        return None if self.handlers is None else self.handlers.late_s(self._now_ms())

    def _canary_age_s(self) -> float | None:
        # The newest one that is known of ages on, also while the database is away: that is what it is there to show.
        return None if self.canary_sent_at_ms is None else max(0, self._now_ms() - self.canary_sent_at_ms) / 1000

    def _age_s(self) -> float | None:
        return None if self._ended_at_s is None else self._monotonic_s() - self._ended_at_s

    def _since_begun(self, value: float) -> float | None:
        return None if self._ended_at_s is None else value


def _seconds(age_ms: int | None) -> float:
    return 0.0 if age_ms is None else age_ms / 1000
