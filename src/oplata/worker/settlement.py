"""Every delivery of a batch comes to its end here: applied or buried and then acked, put off, or handed back."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import perf_counter

import structlog
from opentelemetry.trace import Tracer

from oplata.errors import Contention, DataRejected, HandlerFailed, OplataError, QueueUnavailable
from oplata.observability.faults import describe
from oplata.observability.tracing import trace_id_of
from oplata.queue.backoff import delay_s
from oplata.queue.base import Consumer
from oplata.queue.envelope import Delivery
from oplata.storage.changes import Change
from oplata.storage.engine import Database
from oplata.storage.unit_of_work import UnitOfWork
from oplata.storage.verdicts import Handle
from oplata.worker.apply import Applied, apply
from oplata.worker.batch import EXHAUSTED, HANDLER_FAILED, REJECTED, Part, dead_letter
from oplata.worker.handling import Handling
from oplata.worker.measures import Measures
from oplata.worker.retry import Remedy, remedy, rung_delay_ms
from oplata.worker.stats import Stats
from oplata.worker.traced import trace_part, traces_of

TRANSACTION_TIMEOUT_S = 60.0
CANARY_TIMEOUT_S = 10.0
HOLD_S = 1200.0
"""How long a batch is held while the database is away. A broker counts each time a message comes back, so it goes back
as seldom as possible; but RabbitMQ takes it back by itself, and closes the channel, after half an hour."""

_AGAIN_BASE_S = 0.02
_AGAIN_CAP_S = 0.5

log = structlog.get_logger("oplata.worker")


class Settlement:
    """Commits parts one after another, and does what ``retry.remedy`` says when one fails.

    ``pause`` waits a while, longer with each try, and returns early once ``stopping`` is set. ``turn`` is called each
    time another part is taken up.
    """

    def __init__(
        self,
        *,
        database: Database,
        stats: Stats,
        stopping: asyncio.Event,
        pause: Callable[[int], Awaitable[None]],
        turn: Callable[[], None] = lambda: None,
        hold_s: float,
        retry_delays_ms: Sequence[int],
        max_attempts: int,
        announce: Callable[[Sequence[Change]], None] | None,
        now_ms: Callable[[], int],
        rng: random.Random,
        handling: Handling | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._database = database
        self._handling = handling
        self._stats = stats
        self.measures = Measures()
        self._tracer = tracer
        self._stopping = stopping
        self._pause = pause
        self._turn = turn
        self._hold_s = hold_s
        self._retry_delays_ms = retry_delays_ms
        self._max_attempts = max_attempts
        self._announce = announce
        self._now_ms = now_ms
        self._rng = rng

    async def settle(self, consumer: Consumer, whole: Part) -> bool:
        """Bring the whole batch to its end. False when the database stayed away and the rest has to go back."""
        now_s = asyncio.get_running_loop().time
        await self._put_off_all(consumer, whole.puzzling)
        await self._note_canaries(consumer, whole.canaries)
        pending, tries, away_since_s = deque([whole] if whole.size else []), 0, 0.0
        while pending:
            part = pending.popleft()
            self._turn()
            try:
                await self._commit(part)
            except Exception as error:
                tries += 1
                match self._remedy(part, error, tries):
                    case Remedy.SPLIT:
                        pending.extendleft(reversed(_pieces(part, error)))
                        tries = 0
                    case Remedy.BURY:
                        pending.appendleft(self._buried(part, error))
                    case Remedy.LATER:
                        await self._put_off(consumer, part, error)
                        tries = 0
                    case Remedy.AGAIN:
                        pending.appendleft(part)
                        await asyncio.sleep(delay_s(tries, self._rng, _AGAIN_BASE_S, _AGAIN_CAP_S))
                    case Remedy.PAUSE:
                        pending.appendleft(part)
                        log.warning("database is away", action="worker.pause", tries=tries, error=describe(error))
                        away_since_s = away_since_s or now_s()
                        if self._stopping.is_set() or now_s() - away_since_s > self._hold_s:
                            self._stats.released += sum(each.size for each in pending)
                            return False
                        await self._pause(tries)
            else:
                tries, away_since_s = 0, 0.0
                await self._ack(consumer, part.deliveries)
        return True

    async def _note_canaries(self, consumer: Consumer, canaries: Sequence[tuple[Delivery, int]]) -> None:
        """Note the newest one in a transaction of its own, and forget them all: one that is lost shows by its age."""
        if not canaries:
            return
        try:
            async with asyncio.timeout(CANARY_TIMEOUT_S), self._database.unit_of_work() as uow:
                await uow.canaries.note(max(sent_at_ms for _, sent_at_ms in canaries))
                await uow.commit()
        except (OplataError, TimeoutError) as error:
            log.debug("a canary was not noted", action="worker.canary", error=describe(error))
        self._stats.canaries += len(canaries)
        await self._ack(consumer, [delivery for delivery, _ in canaries])

    def _remedy(self, part: Part, error: Exception, tries: int) -> Remedy:
        chosen = remedy(
            error,
            size=part.size,
            tries=tries,
            attempt=max(each.attempt for each in part.deliveries),
            max_attempts=self._max_attempts,
        )
        if chosen is Remedy.BURY and not part.works:
            # A dead letter holds only values that every database takes. Should one be refused all the same, it goes
            # round by the slowest rung and is heard of each time, rather than being lost.
            log.error("a dead letter was refused", action="worker.bury", error=describe(error))
            return Remedy.LATER
        return chosen

    async def _commit(self, part: Part) -> None:
        at_ms, began_s = self._now_ms(), perf_counter()
        try:
            async with asyncio.timeout(TRANSACTION_TIMEOUT_S):
                if self._handling is None:
                    applied = await self._database.transact(partial(self._do, part, at_ms))
                else:
                    # A handler waits for what it likes.
                    async with self._database.unit_of_work() as uow:
                        applied = await self._do(part, at_ms, uow)
                        await uow.commit()
        except HandlerFailed:
            # A statement of a handler's fails as well when the database has gone; that costs no attempt.
            await self._database.probe()
            raise
        except TimeoutError:
            # It may have been too much at once, so it is worth trying again with less.
            raise Contention(f"a batch took longer than {TRANSACTION_TIMEOUT_S:.0f} s") from None
        self.measures.committed(
            part, applied.statuses if applied else {}, took_s=perf_counter() - began_s, now_ms=self._now_ms()
        )
        if self._tracer is not None:
            ended_ns = time.time_ns()
            began_ns = ended_ns - int((perf_counter() - began_s) * 1e9)
            trace_part(self._tracer, part, began_ns=began_ns, ended_ns=ended_ns)
        self._stats.batches += 1
        self._stats.buried += len(part.poison)
        for _, letter in part.poison:
            log.error(
                "message buried",
                action="worker.bury",
                reason=letter.reason,
                order_id=letter.order_id,
                trace_id=trace_id_of(letter.headers),
            )
        if applied is not None:
            self._note(applied)

    async def _do(self, part: Part, at_ms: int, uow: UnitOfWork) -> Applied | None:
        """All that a part comes to. The change log comes last: everybody waits for whoever holds it."""
        if self._tracer is not None:
            uow.changes.traces = traces_of(part.works)
        await uow.dead_letters.bury([letter for _, letter in part.poison])
        return await apply(uow, part.works, at_ms, handle=self._handle(part)) if part.works else None

    def _handle(self, part: Part) -> Handle | None:
        if self._handling is None:
            return None
        return self._handling.batch if part.size > 1 else self._handling.alone

    def _note(self, applied: Applied) -> None:
        self._stats.applied += applied.fresh
        self._stats.repeats += applied.repeats
        self._stats.changes += len(applied.changes)
        if applied.unknown_statuses:
            log.warning("unknown statuses kept", action="worker.apply", statuses=sorted(applied.unknown_statuses)[:10])
        if self._announce is not None and applied.changes:
            self._announce(applied.changes)

    async def _ack(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        try:
            await consumer.ack(deliveries)
        except QueueUnavailable as error:
            # It is applied; it will be delivered again, and change nothing.
            log.warning("cannot ack", action="worker.ack", error=str(error))

    def _buried(self, part: Part, error: Exception) -> Part:
        """A part of one work that cannot be applied, as a part of one dead letter."""
        work = part.works[0]
        if isinstance(error, DataRejected):
            reason, told = REJECTED, str(error)
        elif isinstance(error, HandlerFailed):
            reason, told = HANDLER_FAILED, str(error)
        else:
            reason, told = EXHAUSTED, "".join(traceback.format_exception(error))
        return Part((), [(work.delivery, dead_letter(work.delivery, reason, told, self._now_ms(), work.event))])

    async def _put_off(self, consumer: Consumer, part: Part, error: Exception) -> None:
        """One message goes to a rung of the ladder: the delay lives in the queue, not in this process."""
        delivery = part.deliveries[0]
        # What cannot even be buried has the time of the slowest rung.
        delay_ms = rung_delay_ms(delivery.attempt, self._retry_delays_ms) if part.works else self._retry_delays_ms[-1]
        log.warning(
            "message put off",
            action="worker.retry",
            attempt=delivery.attempt,
            delay_ms=delay_ms,
            order_id=part.works[0].event.order_id if part.works else None,
            trace_id=trace_id_of(delivery.envelope.headers),
            error=describe(error),
        )
        await self._to_rung(consumer, delivery, delay_ms)

    async def _put_off_all(self, consumer: Consumer, puzzling: Sequence[Delivery]) -> None:
        """Messages that our own endpoint verified and that we cannot: it may have a password that we have not yet."""
        for delivery in puzzling:
            log.warning(
                "token not known here",
                action="worker.retry",
                attempt=delivery.attempt,
                trace_id=trace_id_of(delivery.envelope.headers),
            )
            await self._to_rung(consumer, delivery, rung_delay_ms(delivery.attempt, self._retry_delays_ms))

    async def _to_rung(self, consumer: Consumer, delivery: Delivery, delay_ms: int) -> None:
        try:
            await consumer.retry(delivery, delay_ms=delay_ms)
        except Exception as error:
            # Whatever it is, one message may not end the worker; it goes back as it came.
            log.warning("cannot put off", action="worker.retry", error=describe(error))
            await consumer.release([delivery])
            self._stats.released += 1
        else:
            self._stats.retried += 1


def _pieces(part: Part, error: Exception) -> tuple[Part, Part]:
    """Two smaller parts. Whose handler failed is known, and need not be searched for."""
    return part.apart(error.order_id) if isinstance(error, HandlerFailed) else part.halves()
