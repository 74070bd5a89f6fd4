"""Tells one sink of every change, in order for each order, for as long as this process holds its lease.

The change log is copied into deliveries that wait (``_dispatch``), those that are due are taken order by order
(``_supply``), told (``_tell``), and what became of them is written down in groups (``_settle``). All that is lost in a
crash is what was told and not yet written down: that is told once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import Any

import msgspec
import structlog

from oplata.errors import DeliveryRefused, LeaseLost, OplataError
from oplata.feed.breaker import Breaker
from oplata.feed.event import event_of
from oplata.feed.hub import Hub
from oplata.feed.lease import Lease
from oplata.feed.patience import wait_for
from oplata.feed.schedule import Schedule, missed, told
from oplata.feed.sinks.base import Sink
from oplata.observability.faults import describe
from oplata.observability.tracing import Tracing
from oplata.queue.backoff import delay_s
from oplata.storage.deliveries import PRUNED_AT_ONCE, RECALLED_AT_ONCE, Due, Settled, State
from oplata.storage.engine import Database
from oplata.storage.sinks import SinkRow

PAGE = 200
MAX_TAKEN = 1_000
"""Deliveries in this process's memory: under way, waiting for their turn, or not yet written down."""

MAX_WAITING = 10_000
"""Deliveries that wait in the database; beyond it the change log itself is the place where they wait."""

LOOK_S = 1.0
"""How often due deliveries are looked for when nothing happens: replays, and those that failed in another process."""

TIDY_EVERY_S = 60.0
SETTLE_GAP_S = 0.01
DELIVERY_GRACE_S = 1.0

KEEP_DAYS = 90
_DAY_MS = 86_400_000

log = structlog.get_logger("oplata.relay")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a sink is told: so many orders at once, each delivery within a time, and again by a schedule.

    What was told is forgotten after ``keep_days``; the change log has it still.
    """

    concurrency: int = 16
    timeout_s: float = 10.0
    schedule: Schedule = Schedule()
    keep_days: int = KEEP_DAYS


class Lane:
    """One sink's deliveries. ``run`` ends when the lease is lost, the sink is paused, or ``stop`` is called."""

    def __init__(
        self,
        *,
        name: str,
        sink: Sink,
        options: Options,
        database: Database,
        hub: Hub,
        lease: Lease,
        row: SinkRow,
        rng: random.Random,
        tracing: Tracing | None = None,
    ) -> None:
        self._name = name
        self._sink = sink
        self._options = options
        self._database = database
        self._hub = hub
        self._lease = lease
        self._cursor_id = row.cursor_id
        self._rng = rng
        self._tracing = tracing
        self._breaker = Breaker(rng=rng)
        self._slots = asyncio.Semaphore(options.concurrency)
        self._stopping = asyncio.Event()
        # An order is taken with all of it that is due, and is not taken again before all of that is written down.
        self._busy: set[str] = set()
        self._tellers: set[asyncio.Task[None]] = set()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._writing = asyncio.Lock()
        self._results: list[Settled] = []
        self._ended: list[str] = []
        self._taken = 0
        self._backlog = 0
        self._again_at_ms: int | None = None
        self._tidy_at_s = 0.0
        self._news = asyncio.Event()
        self._settleable = asyncio.Event()
        self._room = asyncio.Event()
        # Whoever told the sink before us may have noted that it fails; it does until it takes something.
        self._health = self._noted = row.last_error

    def stop(self) -> None:
        """Finish what is under way and take nothing more."""
        self._stopping.set()

    async def run(self) -> None:
        """Tell the sink. Raises ``LeaseLost``; a database that is away is waited for as long as the lease lasts."""
        async with self._database.unit_of_work(read_only=True) as uow:
            self._backlog = await uow.deliveries.waiting(self._name, limit=MAX_WAITING)
        steps = (self._dispatch, self._supply, self._settle, self._renew)
        tasks = [asyncio.create_task(self._keep(step)) for step in steps]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
            await self._drain(tasks)
        finally:
            everything = [*tasks, stopping, *self._tellers]
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    async def _drain(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Let what is under way come to its end, and write it down."""
        for task in tasks[:2]:
            task.cancel()
        for teller in self._tellers - self._under_way:
            teller.cancel()
        if self._tellers:
            await asyncio.wait(set(self._tellers), timeout=self._options.timeout_s + DELIVERY_GRACE_S)
        with contextlib.suppress(OplataError):
            await self._write_down()

    async def _keep(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step over and over, until the sink is not ours any more."""
        failures = 0
        while True:
            try:
                await step()
                failures = 0
            except LeaseLost:
                raise
            except OplataError as error:
                failures += 1
                log.warning("the relay waits", action="relay.wait", sink=self._name, error=describe(error))
                if not self._lease.is_ours:
                    raise LeaseLost(f"the lease on the sink {self._name} was not prolonged in time") from None
                await asyncio.sleep(delay_s(failures, self._rng, 0.1, 1.0))

    async def _dispatch(self) -> None:
        """Copy the log, from the cursor on, into deliveries that wait."""
        async with aclosing(self._hub.pages(after=self._cursor_id, limit=PAGE)) as pages:
            async for page in pages:
                while self._backlog >= MAX_WAITING:
                    await wait_for(self._room, LOOK_S)
                    self._room.clear()
                events = (event_of(*each) for each in page)
                wanted = [(event.change_id, event.change) for event in events if self._sink.wants(event)]
                async with self._lease.writing(cursor_id=page[-1][0]) as (uow, _):
                    await uow.deliveries.queue(self._name, wanted, self._lease.now_ms())
                self._cursor_id = page[-1][0]
                self._backlog += len(wanted)
                self._news.set()
        # The hub was stopped, which the program does last of all.
        await self._stopping.wait()

    async def _supply(self) -> None:
        """Take what is due."""
        self._news.clear()
        if self._again_at_ms is not None and self._again_at_ms <= self._lease.now_ms():
            self._again_at_ms = None
        room = MAX_TAKEN - self._taken
        if room <= 0:
            await wait_for(self._news, LOOK_S)
            return
        async with self._database.unit_of_work(read_only=True) as uow:
            due = await uow.deliveries.due(self._name, self._lease.now_ms(), without=sorted(self._busy), limit=room)
        self._taken += len(due)
        by_order = sorted(due, key=lambda each: (each.change.order_id, each.change_id))
        for order_id, group in groupby(by_order, key=lambda each: each.change.order_id):
            self._busy.add(order_id)
            teller = asyncio.create_task(self._tell(order_id, list(group)))
            self._tellers.add(teller)
            teller.add_done_callback(self._tellers.discard)
        if len(due) < room:
            await wait_for(self._news, self._look_s())

    def _look_s(self) -> float:
        """How long until something may be due."""
        if self._again_at_ms is None:
            return LOOK_S
        return min(LOOK_S, max(0, self._again_at_ms - self._lease.now_ms() + 1) / 1000)

    async def _tell(self, order_id: str, dues: Sequence[Due]) -> None:
        """Tell one order's changes one after another; the first that fails holds up the rest."""
        written = 0
        try:
            for due in dues:
                async with self._slots:
                    if self._stopping.is_set() or not self._lease.is_ours:
                        break
                    outcome = await self._attempt(due)
                self._results.append(outcome)
                written += 1
                self._settleable.set()
                if outcome.state is State.WAITING:
                    break
        finally:
            self._taken -= len(dues) - written
            self._ended.append(order_id)
            self._settleable.set()

    async def _attempt(self, due: Due) -> Settled:
        event = event_of(due.change_id, due.change)
        if not self._sink.wants(event):
            return told(due, self._lease.now_ms(), state=State.SKIPPED)
        probe = await self._breaker.enter()
        teller = asyncio.current_task()
        assert teller is not None  # noqa: S101  A coroutine runs in a task.
        self._under_way.add(teller)
        try:
            async with asyncio.timeout(self._options.timeout_s):
                with self._traced(due):
                    await self._sink.deliver(event)
        except asyncio.CancelledError:
            self._breaker.abandoned(probe=probe)
            raise
        except Exception as error:
            return self._missed(due, error, probe=probe)
        finally:
            self._under_way.discard(teller)
        self._breaker.succeeded()
        self._health = None
        return told(due, self._lease.now_ms())

    def _traced(self, due: Due) -> contextlib.AbstractContextManager[object]:
        if self._tracing is None:
            return contextlib.nullcontext()
        return self._tracing.sinking(due.traceparent, sink=self._name, order_id=due.change.order_id)

    def _missed(self, due: Due, error: Exception, *, probe: bool) -> Settled:
        settled = missed(due, error, self._lease.now_ms(), self._options.schedule, probe=probe, rng=self._rng)
        order_id, dead = due.change.order_id, settled.state is State.DEAD
        (log.error if dead else log.warning)(
            "a delivery is dead" if dead else "a delivery failed",
            action="relay.dead" if dead else "relay.retry",
            sink=self._name,
            order_id=order_id,
            change_id=due.change_id,
            attempts=settled.attempts,
            error=describe(error),
        )
        if isinstance(error, DeliveryRefused):
            self._breaker.succeeded()  # It answered.
        else:
            self._breaker.failed(order_id, probe=probe)
            self._health = settled.last_error
        return settled

    async def _settle(self) -> None:
        """Write down what became of deliveries, whatever came together within a moment."""
        await self._settleable.wait()
        await self._write_down()
        await asyncio.sleep(SETTLE_GAP_S)

    async def _write_down(self) -> None:
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        self._settleable.clear()
        results, ended = self._results, self._ended
        self._results, self._ended = [], []
        try:
            if results:
                await self._write_results(results)
        except BaseException:
            self._results, self._ended = results + self._results, ended + self._ended
            self._settleable.set()
            raise
        again = [each.due_at_ms for each in results if each.state is State.WAITING]
        if again:
            self._again_at_ms = min(again if self._again_at_ms is None else [*again, self._again_at_ms])
        self._taken -= len(results)
        self._backlog -= sum(each.state is not State.WAITING for each in results)
        self._busy.difference_update(ended)
        self._news.set()
        self._room.set()

    async def _write_results(self, results: Sequence[Settled]) -> None:
        """Settle these, and note how the sink is, which nothing but an attempt changes."""
        health, successes = self._health, sum(each.state is State.TOLD for each in results)
        async with self._lease.writing(told=successes) as (uow, _):
            await uow.deliveries.settle(self._name, results)
            if health != self._noted:
                await uow.sinks.note_health(self._name, health, self._lease.now_ms())
        self._noted = health

    async def _renew(self) -> None:
        """Keep the lease, learn of a pause, and now and then see to what lies about."""
        await asyncio.sleep(self._lease.renew_s)
        async with self._lease.writing() as (uow, row):
            self._backlog = await uow.deliveries.waiting(self._name, limit=MAX_WAITING)
        await self._tidy()
        if row.paused:
            log.info("the sink is paused", action="relay.pause", sink=self._name)
            self._stopping.set()
            await asyncio.Event().wait()

    async def _tidy(self) -> None:
        """Take up what waits by a clock that was set back, and forget what was told long ago."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._tidy_at_s:
            return
        async with self._lease.writing() as (uow, _):
            now_ms, longest_ms = self._lease.now_ms(), self._options.schedule.longest_ms
            recalled = await uow.deliveries.recall(self._name, now_ms, longest_ms=longest_ms)
            pruned = await uow.deliveries.prune(self._name, now_ms - self._options.keep_days * _DAY_MS)
        if recalled < RECALLED_AT_ONCE and pruned < PRUNED_AT_ONCE:
            self._tidy_at_s = now_s + TIDY_EVERY_S
        if recalled:
            log.warning("a clock was set back", action="relay.recall", sink=self._name, deliveries=recalled)
            self._news.set()
