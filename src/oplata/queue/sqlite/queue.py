"""The embedded queue: a SQLite file that survives ``kill -9`` and is shared by every process that opens it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from oplata.errors import DataRejected, NotConfirmed, Overloaded, QueueUnavailable
from oplata.queue.base import DEFAULT_RETRY_DELAYS_MS, Depth
from oplata.queue.deadlines import Deadlines
from oplata.queue.envelope import Envelope
from oplata.queue.sqlite.consumer import SqliteConsumer
from oplata.queue.sqlite.file import free_disk_bytes
from oplata.queue.sqlite.lane import Lane, OneThread, Publishing, Runner
from oplata.queue.sqlite.publishing import to_row
from oplata.queue.sqlite.store import SqliteStore

TICK_S = 1.0
STOP_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
DIFFERENT_TIMEOUTS = 16

T = TypeVar("T")


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteQueue:
    """A durable queue in one file; see ``Queue``.

    ``path`` is created with its directory when it is missing. ``retry_delays_ms`` are the rungs that ``retry`` rounds
    up to; ``delivery_limit`` is how many deaths of its consumers a message outlives before it is dead;
    ``max_in_flight`` bounds the publishes that wait for their commit; publishes are refused beyond ``max_bytes`` of
    file and below ``min_free_bytes`` of free disk. A consumer whose process dies frees its messages at once, one that
    falls silent for ``lease_s`` frees them then. Messages of other processes are noticed after ``poll_interval_s``.

    One limit comes with SQLite: a process that is frozen (not killed) within its transaction keeps the others out of
    the file until it goes on or dies; their publishes end in ``NotConfirmed``.

    ``runner`` makes the place where the file is touched: a thread, or the event loop itself for a simulation.
    Start it after a fork, not before.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        retry_delays_ms: Sequence[int] = DEFAULT_RETRY_DELAYS_MS,
        delivery_limit: int = 20,
        max_in_flight: int = 2_000,
        lease_s: float = 30.0,
        poll_interval_s: float = 0.05,
        max_bytes: int | None = None,
        min_free_bytes: int = 64 * 2**20,
        now_ms: Callable[[], int] = _wall_clock_ms,
        rng: Random | None = None,
        runner: Callable[[], Runner] = OneThread,
    ) -> None:
        if not retry_delays_ms:
            raise ValueError("retry_delays_ms needs at least one delay")
        self.path = Path(path).absolute()
        self._retry_delays_ms = tuple(sorted(retry_delays_ms))
        self._max_in_flight = max_in_flight
        self._lease_s = lease_s
        self._poll_interval_s = poll_interval_s
        self._rng = rng or Random()  # noqa: S311  # It spreads delays and names files; no secret is made of it.
        self._store = SqliteStore(
            self.path,
            delivery_limit=delivery_limit,
            lease_ms=int(lease_s * 1_000),
            now_ms=now_ms,
            rng=self._rng,
            max_bytes=max_bytes,
            min_free_bytes=min_free_bytes,
        )
        self._make_runner = runner
        self._lane: Lane | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._consumers: list[SqliteConsumer] = []
        self._publisher = SqlitePublisher(self)

    async def start(self) -> None:
        """Open the file. Raises ``Permanent`` when it can never be this queue; waits for nothing that may pass."""
        if self._lane is not None:
            return
        self._lane = Lane(self._store, self._make_runner(), taker=self._taker, left_behind=self.left_behind)
        try:
            await self._lane.open()
        except BaseException:
            await self._close_lane()
            raise
        self._ticking = asyncio.get_running_loop().create_task(self._tick_forever())

    async def stop(self) -> None:
        """Finish what is being published, hand back every lease and close the file; takes seconds at the worst."""
        ticking, self._ticking = self._ticking, None
        if ticking is not None:
            ticking.cancel()
            await asyncio.wait((ticking,))
        for consumer in self._consumers:
            consumer.shut()
        self._consumers.clear()
        await self._close_lane()

    def abandon(self) -> None:
        """Let go of the file and say nothing, as a killed process would. For simulations that run inline."""
        ticking, lane, self._ticking, self._lane = self._ticking, self._lane, None, None
        if ticking is not None:
            ticking.cancel()
        for consumer in self._consumers:
            consumer.shut()
        self._consumers.clear()
        if lane is not None:
            lane.abandon()
        self._store.abandon()

    def publisher(self) -> SqlitePublisher:
        """The publisher of this queue; all callers share one."""
        return self._publisher

    def consumer(self, *, prefetch: int, dead: bool = False) -> SqliteConsumer:
        """A new consumer that holds at most ``prefetch`` unsettled messages, of the queue or of its dead letters."""
        consumer = SqliteConsumer(
            self.lane,
            prefetch=prefetch,
            dead=dead,
            poll_interval_s=self._poll_interval_s,
            to_rung_ms=self._to_rung_ms,
            ring_all=self.ring_all,
            left_behind=self.left_behind,
        )
        self._consumers.append(consumer)
        return consumer

    async def depth(self) -> Depth:
        """Count the messages. Raises ``QueueUnavailable``."""
        return await self._answer(SqliteStore.depth, is_write=False)

    async def oldest_age_ms(self) -> int | None:
        """How long the message that came first has been here, or None. Raises ``QueueUnavailable``."""
        return await self._answer(SqliteStore.oldest_age_ms, is_write=False)

    async def has_space(self) -> bool:
        """Whether the limits of bytes and of the disk leave space for more. Raises ``QueueUnavailable``."""
        return await self._answer(SqliteStore.has_space, is_write=False)

    async def used_bytes(self) -> int:
        """How many bytes of the file are in use. Raises ``QueueUnavailable``."""
        return await self._answer(SqliteStore.used_bytes, is_write=False)

    @property
    def available(self) -> bool:
        """Whether it is worth offering a message now."""
        return self._lane is not None and self.has_room()

    async def check(self) -> str:
        """Write and sync, and say in a sentence what the queue is; or raise the error that says what to mend."""
        mode = await self._answer(SqliteStore.prove_writable, is_write=True)
        free_gib = free_disk_bytes(self.path) / 2**30
        return f"SQLite file {self.path} (journal mode {mode}, writable, {free_gib:.1f} GiB free)."

    def lane(self) -> Lane:
        """Where the operations line up. Raises ``QueueUnavailable`` when the queue is stopped."""
        if self._lane is None:
            raise QueueUnavailable("The SQLite queue is stopped; start it first.")
        return self._lane

    def has_room(self) -> bool:
        """Whether one more publish may wait for its commit."""
        return self.lane().publishing < self._max_in_flight

    def ring_all(self) -> None:
        """Wake every consumer that waits: there may be something to take."""
        for consumer in self._consumers:
            consumer.ring()

    def left_behind(self) -> None:
        """Tell every consumer that messages lie in the file which nobody has taken."""
        for consumer in self._consumers:
            consumer.fall_behind()

    def _taker(self) -> SqliteConsumer | None:
        return next((consumer for consumer in self._consumers if consumer.waits()), None)

    def commits(self) -> int:
        """How many transactions changed something since the start."""
        return self._lane.commits if self._lane is not None else 0

    def _to_rung_ms(self, delay_ms: int) -> int:
        """The smallest rung that is long enough, or the longest; shortened at random so that a crowd disperses."""
        rung_ms = next((rung_ms for rung_ms in self._retry_delays_ms if rung_ms >= delay_ms), self._retry_delays_ms[-1])
        return self._rng.randint(min(rung_ms, max(delay_ms, rung_ms * 9 // 10)), rung_ms)

    async def _answer(self, operation: Callable[[SqliteStore], T], *, is_write: bool) -> T:
        ticket = self.lane().submit(operation, is_write=is_write)
        if not await ticket.wait(ANSWER_TIMEOUT_S):
            raise QueueUnavailable(f"The SQLite queue {self.path} did not answer within {ANSWER_TIMEOUT_S:.0f} s.")
        return ticket.future.result()

    async def _tick_forever(self) -> None:
        """Keep the leases, repeat the settlements that failed, and shrink the file when nothing happens."""
        last_s, last_commits, is_tidy = asyncio.get_running_loop().time(), 0, True
        while True:
            await asyncio.sleep(min(TICK_S, self._lease_s / 4))
            self._consumers = [consumer for consumer in self._consumers if not consumer.is_done()]
            for consumer in self._consumers:
                consumer.settle_what_failed()
            lane, now_s = self.lane(), asyncio.get_running_loop().time()
            if any(consumer.is_holding() for consumer in self._consumers) and now_s - last_s >= self._lease_s / 4:
                lane.submit(SqliteStore.renew, is_lasting=False)
                last_s = now_s
            elif lane.commits != last_commits:
                last_commits, is_tidy = lane.commits, False
            elif not is_tidy:
                ticket = lane.submit(SqliteStore.tidy, is_write=False)
                await ticket.wait(TICK_S)
                is_tidy = ticket.future.done() and not ticket.future.exception() and ticket.future.result()

    async def _close_lane(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            await lane.close(timeout_s=STOP_TIMEOUT_S)


class _Attempt:
    """A message that waits for its commit, for so long, and whoever is to be told of it."""

    __slots__ = ("_told", "at_s", "future", "is_over")

    def __init__(self, told: Callable[[bool], None], future: asyncio.Future[Any]) -> None:
        self.at_s = 0.0
        self.is_over = False
        self.future = future
        self._told = told

    def end(self, future: asyncio.Future[Any]) -> None:
        if not self.is_over:
            self.is_over = True
            self._told(not future.cancelled() and future.exception() is None)

    def expire(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.future.cancel()  # What has not begun never will.
            self._told(False)


class SqlitePublisher:
    """Appends messages; see ``PromptPublisher``."""

    def __init__(self, queue: SqliteQueue) -> None:
        self._queue = queue
        self._deadlines: dict[float, Deadlines] = {}

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        """Return once the message is committed and synced.

        Raises ``Overloaded``, ``NotConfirmed``, or ``DataRejected`` for metadata that has no form in the file.
        """
        row = to_row(envelope)
        lane = self._queue.lane()
        if not self._queue.has_room():
            raise Overloaded
        ticket = lane.submit(Publishing(row), is_publish=True)
        try:
            # Cancelled by the limit or by the caller, it never begins if it has not begun.
            with self._limits(timeout_s).limit():
                await ticket.future
        except TimeoutError:
            raise NotConfirmed from None
        except QueueUnavailable as error:
            raise NotConfirmed(str(error)) from error

    def begin(self, envelope: Envelope, told: Callable[[bool], None], *, timeout_s: float) -> bool:
        """As the protocol says: when the queue is started, and has room for one more publish."""
        if not self._queue.available:
            return False
        try:
            ticket = self._queue.lane().submit(Publishing(to_row(envelope)), is_publish=True)
        except (DataRejected, QueueUnavailable):
            return False
        attempt = _Attempt(told, ticket.future)
        ticket.future.add_done_callback(attempt.end)
        self._limits(timeout_s).watch(attempt, asyncio.get_running_loop())
        return True

    def _limits(self, timeout_s: float) -> Deadlines:
        """One timer for all who wait that long. Nearly all wait equally long."""
        if timeout_s not in self._deadlines:
            if len(self._deadlines) >= DIFFERENT_TIMEOUTS:
                self._deadlines.clear()
            self._deadlines[timeout_s] = Deadlines(timeout_s)
        return self._deadlines[timeout_s]
