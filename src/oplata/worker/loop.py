"""The worker: start, main loop, drain. ``batch`` reads, ``settlement`` brings what was read to its end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

import structlog
from opentelemetry.trace import Tracer

from oplata.bank.keyring import Keyring
from oplata.errors import OplataError, QueueUnavailable, TopologyError
from oplata.queue.backoff import delay_s
from oplata.queue.base import DEFAULT_RETRY_DELAYS_MS, Consumer, Queue
from oplata.queue.envelope import Delivery
from oplata.storage.changes import Change
from oplata.storage.engine import Database
from oplata.worker.backlog import Backlog
from oplata.worker.batch import Part, joined, read, read_dead
from oplata.worker.handlers import Handlers
from oplata.worker.handling import DEFAULT_TIMEOUT_S, Handling
from oplata.worker.progress import Progress
from oplata.worker.retry import MAX_ATTEMPTS
from oplata.worker.settlement import HOLD_S, Settlement
from oplata.worker.stats import Stats

RECEIVE_TIMEOUT_S = 5.0
_LOOK_AHEAD_S = 0.002
"""How often it is looked, while a transaction runs, whether a full batch has come in."""

_SLICE = 50
"""So many messages are read at a stretch while a transaction runs: its next statement waits no longer than that."""

DEAD_PREFETCH = 100

Reader = Callable[[Sequence[Delivery]], Part]

log = structlog.get_logger("oplata.worker")


class Worker:
    """Applies what the queue delivers. Several of them, in any number of processes, share one queue and one database.

    ``announce`` is called with the changes of each batch after its commit; it must be quick and may not raise.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        database: Database,
        keyring: Keyring,
        batch_size: int = 500,
        prefetch: int = 1000,
        hold_s: float = HOLD_S,
        retry_delays_ms: Sequence[int] = DEFAULT_RETRY_DELAYS_MS,
        max_attempts: int = MAX_ATTEMPTS,
        handlers: Handlers | None = None,
        handler_timeout_s: float = DEFAULT_TIMEOUT_S,
        announce: Callable[[Sequence[Change]], None] | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rng: random.Random | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._queue = queue
        self._database = database
        self._keyring = keyring
        self._batch_size = batch_size
        self._prefetch = max(prefetch, batch_size)
        self._patience = min(len(retry_delays_ms), max_attempts - 1)
        self._now_ms = now_ms
        self._rng = rng or random.Random()  # noqa: S311  Jitter is no secret.
        self._stopping = asyncio.Event()
        self.stats = Stats()
        self.progress = Progress()
        handling = Handling(handlers, timeout_s=handler_timeout_s) if handlers else None
        self._backlog: Backlog | None = None
        if handling is not None:
            self._backlog = Backlog(
                database=database,
                handling=handling,
                stats=self.stats,
                stopping=self._stopping,
                pause=self._pause,
                retry_delays_ms=retry_delays_ms,
                max_attempts=max_attempts,
                now_ms=now_ms,
            )
        self._settlement = Settlement(
            database=database,
            stats=self.stats,
            stopping=self._stopping,
            pause=self._pause,
            turn=self.progress.turn,
            hold_s=hold_s,
            retry_delays_ms=retry_delays_ms,
            max_attempts=max_attempts,
            announce=announce,
            now_ms=now_ms,
            rng=self._rng,
            handling=handling,
            tracer=tracer,
        )
        self.measures = self._settlement.measures

    async def run(self) -> None:
        """Work until ``stop`` is called; then finish the batch in hand, settle it and return the rest to the queue."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop(self._read, prefetch=self._prefetch, dead=False))
            group.create_task(self._loop(self._read_dead, prefetch=DEAD_PREFETCH, dead=True))
            if self._backlog is not None:
                group.create_task(self._backlog.run())

    def stop(self) -> None:
        """Begin to drain. May be called from a signal handler."""
        self._stopping.set()

    async def _loop(self, reader: Reader, *, prefetch: int, dead: bool) -> None:
        try:
            await self._go_round(reader, prefetch=prefetch, dead=dead)
        finally:
            self.progress.end()

    async def _go_round(self, reader: Reader, *, prefetch: int, dead: bool) -> None:
        while not self._stopping.is_set():
            consumer = self._queue.consumer(prefetch=prefetch, dead=dead)
            try:
                await self._consume(consumer, reader)
            finally:
                # Whatever is not settled goes back to the queue.
                await consumer.close()
            await self._until_the_database_takes_writes()

    async def _consume(self, consumer: Consumer, reader: Reader) -> None:
        """Work until ``stop``, or until the database has been away for too long to hold on to messages."""
        failures = 0
        while not self._stopping.is_set():
            self.progress.turn()
            try:
                deliveries = await self._receive(consumer)
            except (QueueUnavailable, TopologyError) as error:
                failures += 1
                log.warning("cannot receive", action="worker.receive", error=str(error))
                await self._pause(failures)
                continue
            failures = 0
            self.stats.received += len(deliveries)
            if deliveries and not await self._settle(consumer, reader, deliveries):
                return

    async def _settle(self, consumer: Consumer, reader: Reader, deliveries: Sequence[Delivery]) -> bool:
        """Settle these, and all full batches that are at hand before the one before them is settled.

        While one transaction is with the database, the next batch is read; never more than one, and never one that is
        not full: it has time to grow. The folds of two batches commute, and each is acked after its own commit.
        """
        part: Part | None = reader(deliveries)
        while part is not None:
            self.progress.turn()
            settling = asyncio.ensure_future(self._settlement.settle(consumer, part))
            try:
                part = await self._read_ahead(consumer, reader, settling)
            except BaseException:
                settling.cancel()
                await asyncio.wait({settling})
                raise
            if not await settling:
                if part is not None:
                    # It is unsettled, and goes back when the consumer is closed.
                    self.stats.released += part.size + len(part.puzzling) + len(part.canaries)
                return False
        return True

    async def _read_ahead(self, consumer: Consumer, reader: Reader, settling: asyncio.Future[bool]) -> Part | None:
        while not settling.done() and not self._stopping.is_set():
            if consumer.at_hand >= self._batch_size:
                deliveries = await consumer.receive(limit=self._batch_size, timeout_s=RECEIVE_TIMEOUT_S)
                self.stats.received += len(deliveries)
                return await _read_in_slices(reader, deliveries)
            await asyncio.wait({settling}, timeout=_LOOK_AHEAD_S)
        return None

    async def _until_the_database_takes_writes(self) -> None:
        """Take nothing from the queue before it does: each message handed back may count against a broker's limit."""
        tries = 0
        while not self._stopping.is_set():
            try:
                await self._database.probe()
            except OplataError as error:
                tries += 1
                log.warning("database is still away", action="worker.pause", tries=tries, error=str(error))
                await self._pause(tries)
            else:
                return

    async def _receive(self, consumer: Consumer) -> list[Delivery]:
        """The next batch, or nothing once ``stop`` was called: nobody waits for a quiet queue to drain."""
        receiving = asyncio.ensure_future(consumer.receive(limit=self._batch_size, timeout_s=RECEIVE_TIMEOUT_S))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return receiving.result() if receiving.done() else []
        finally:
            for task in (receiving, stopping):
                task.cancel()
            await asyncio.gather(receiving, stopping, return_exceptions=True)

    def _read(self, deliveries: Sequence[Delivery]) -> Part:
        return read(deliveries, self._keyring, self._now_ms(), patience=self._patience)

    def _read_dead(self, deliveries: Sequence[Delivery]) -> Part:
        return read_dead(deliveries, self._now_ms())

    async def _pause(self, tries: int) -> None:
        """Wait a while, longer after each failure, or until ``stop`` is called."""
        self.stats.pauses += 1
        self.progress.turn()
        try:
            async with asyncio.timeout(0.05 + delay_s(tries, self._rng, 0.2, 10.0)):
                await self._stopping.wait()
        except TimeoutError:
            return


async def _read_in_slices(reader: Reader, deliveries: Sequence[Delivery]) -> Part:
    parts: list[Part] = []
    for start in range(0, len(deliveries), _SLICE):
        parts.append(reader(deliveries[start : start + _SLICE]))
        await asyncio.sleep(0)
    return joined(parts)
