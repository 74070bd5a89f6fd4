"""The worker: start, main loop, drain. ``batch`` reads, ``apply`` applies and ``retry`` decides; this one acts."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import structlog

from oplata.bank.keyring import Keyring
from oplata.errors import DatabaseUnavailable, OplataError, QueueUnavailable, TopologyError
from oplata.queue.backoff import delay_s
from oplata.queue.base import Consumer, Queue
from oplata.queue.envelope import Delivery
from oplata.storage.changes import Change
from oplata.storage.dead_letters import DeadLetter
from oplata.storage.engine import Database
from oplata.worker.apply import Applied, apply
from oplata.worker.batch import GIVEN_UP_BY_QUEUE, REJECTED, Work, dead_letter, read
from oplata.worker.retry import Remedy, remedy

RECEIVE_TIMEOUT_S = 5.0
TRANSACTION_TIMEOUT_S = 60.0
HOLD_S = 60.0
"""How long a batch is held while the database is away, before the messages go back to the queue for others to take."""

DEAD_PREFETCH = 100

log = structlog.get_logger("oplata.worker")


class Stats(msgspec.Struct):
    """What this worker has done since it started. ``received`` is ``applied`` + ``repeats`` + ``buried`` + released."""

    batches: int = 0
    received: int = 0
    applied: int = 0
    repeats: int = 0
    buried: int = 0
    released: int = 0
    pauses: int = 0
    changes: int = 0


class Part(msgspec.Struct, frozen=True):
    """What one transaction is to do: apply some callbacks, bury some messages."""

    works: Sequence[Work]
    poison: Sequence[tuple[Delivery, DeadLetter]]

    @property
    def deliveries(self) -> list[Delivery]:
        """All that this part settles."""
        return [work.delivery for work in self.works] + [delivery for delivery, _ in self.poison]

    def halves(self) -> tuple[Part, Part]:
        """Two smaller parts; the poison is kept from the works first."""
        if self.works and self.poison:
            return Part(self.works, ()), Part((), self.poison)
        if self.works:
            middle = len(self.works) // 2
            return Part(self.works[:middle], ()), Part(self.works[middle:], ())
        middle = len(self.poison) // 2
        return Part((), self.poison[:middle]), Part((), self.poison[middle:])


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
        announce: Callable[[Sequence[Change]], None] | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rng: random.Random | None = None,
    ) -> None:
        self._queue = queue
        self._database = database
        self._keyring = keyring
        self._batch_size = batch_size
        self._prefetch = max(prefetch, batch_size)
        self._hold_s = hold_s
        self._announce = announce
        self._now_ms = now_ms
        self._rng = rng or random.Random()  # noqa: S311  Jitter is no secret.
        self._stopping = asyncio.Event()
        self.stats = Stats()

    async def run(self) -> None:
        """Work until ``stop`` is called; then finish the batch in hand, settle it and return the rest to the queue."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop(self._queue.consumer(prefetch=self._prefetch), self._read_live))
            group.create_task(self._loop(self._queue.consumer(prefetch=DEAD_PREFETCH, dead=True), self._read_dead))

    def stop(self) -> None:
        """Begin to drain. May be called from a signal handler."""
        self._stopping.set()

    async def _loop(self, consumer: Consumer, reader: Callable[[Sequence[Delivery]], Part]) -> None:
        failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    deliveries = await self._receive(consumer)
                except (QueueUnavailable, TopologyError) as error:
                    failures += 1
                    log.warning("cannot receive", action="worker.receive", error=str(error))
                    await self._pause(failures)
                    continue
                failures = 0
                if deliveries:
                    self.stats.received += len(deliveries)
                    await self._settle(consumer, reader(deliveries))
        finally:
            await consumer.close()

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

    def _read_live(self, deliveries: Sequence[Delivery]) -> Part:
        batch = read(deliveries, self._keyring, self._now_ms())
        return Part(batch.works, batch.poison)

    def _read_dead(self, deliveries: Sequence[Delivery]) -> Part:
        """What the queue itself gave up comes here to lie in the database, where it can be seen."""
        now_ms = self._now_ms()
        return Part(
            (),
            [
                (each, dead_letter(each, GIVEN_UP_BY_QUEUE, each.dead_reason or "the queue gave no reason", now_ms))
                for each in deliveries
            ],
        )

    async def _settle(self, consumer: Consumer, whole: Part) -> None:
        """Bring every delivery of ``whole`` to its end: applied or buried, and acked; or given back to the queue."""
        pending, tries, held_since = deque([whole]), 0, time.monotonic()
        while pending:
            part = pending.popleft()
            try:
                await self._commit(part)
            except OplataError as error:
                tries += 1
                size = len(part.works) + len(part.poison)
                match remedy(error, size=size, tries=tries):
                    case Remedy.SPLIT:
                        pending.extendleft(reversed(part.halves()))
                        tries = 0
                    case Remedy.BURY:
                        pending.appendleft(self._buried(part, error))
                    case Remedy.AGAIN:
                        pending.appendleft(part)
                        await asyncio.sleep(delay_s(tries, self._rng, 0.02, 0.5))
                    case Remedy.PAUSE:
                        pending.appendleft(part)
                        log.warning("database is away", action="worker.pause", tries=tries, error=str(error))
                        if self._stopping.is_set() or time.monotonic() - held_since > self._hold_s:
                            await self._give_back(consumer, pending)
                            return
                        await self._pause(tries)
            else:
                tries = 0
                await consumer.ack(part.deliveries)

    async def _commit(self, part: Part) -> None:
        at_ms = self._now_ms()
        try:
            async with asyncio.timeout(TRANSACTION_TIMEOUT_S), self._database.unit_of_work() as uow:
                applied = await apply(uow, part.works, at_ms) if part.works else None
                await uow.dead_letters.bury([letter for _, letter in part.poison])
                await uow.commit()
        except TimeoutError:
            raise DatabaseUnavailable(f"a batch took longer than {TRANSACTION_TIMEOUT_S} s") from None
        self.stats.batches += 1
        self.stats.buried += len(part.poison)
        for _, letter in part.poison:
            log.error("message buried", action="worker.bury", reason=letter.reason, order_id=letter.order_id)
        if applied is not None:
            self._note(applied)

    def _note(self, applied: Applied) -> None:
        self.stats.applied += applied.fresh
        self.stats.repeats += applied.repeats
        self.stats.changes += len(applied.changes)
        if applied.unknown_statuses:
            log.warning("unknown statuses kept", action="worker.apply", statuses=sorted(applied.unknown_statuses)[:10])
        if self._announce is not None and applied.changes:
            self._announce(applied.changes)

    def _buried(self, part: Part, error: OplataError) -> Part:
        """A part of one work that the database refuses, as a part of one dead letter."""
        if not part.works:
            raise error  # A dead letter holds only values that every database takes; this would be our own fault.
        work = part.works[0]
        letter = dead_letter(work.delivery, REJECTED, str(error), self._now_ms(), work.event)
        return Part((), [(work.delivery, letter)])

    async def _give_back(self, consumer: Consumer, pending: Sequence[Part]) -> None:
        """Let the queue have what cannot be worked now, and take nothing more until the database answers."""
        deliveries = [delivery for part in pending for delivery in part.deliveries]
        self.stats.released += len(deliveries)
        await consumer.release(deliveries)
        tries = 0
        while not self._stopping.is_set():
            try:
                await self._database.check()
            except OplataError as error:
                tries += 1
                log.warning("database is still away", action="worker.pause", tries=tries, error=str(error))
                await self._pause(tries)
            else:
                return

    async def _pause(self, tries: int) -> None:
        """Wait a while, longer after each failure, or until ``stop`` is called."""
        self.stats.pauses += 1
        try:
            async with asyncio.timeout(0.05 + delay_s(tries, self._rng, 0.2, 10.0)):
                await self._stopping.wait()
        except TimeoutError:
            return
