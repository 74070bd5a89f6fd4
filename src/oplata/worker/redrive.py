"""Dead letters go back to the queue, or are discarded, by a person who says why; or it is tried and taken back."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from oplata.bank.keyring import Keyring
from oplata.errors import Contention, DataRejected, OplataError, QueueUnavailable
from oplata.queue.base import Publisher
from oplata.queue.envelope import ATTEMPT_HEADER, Delivery, Envelope
from oplata.storage.audit import Entry
from oplata.storage.dead_letters import Buried, State, Wanted
from oplata.storage.engine import Database
from oplata.storage.settling import Act, Move, Outcome, Prospect, Trial
from oplata.storage.unit_of_work import UnitOfWork
from oplata.worker.apply import apply
from oplata.worker.backlog import change_of
from oplata.worker.batch import Part, Work, read

BATCH_SIZE = 100
PUBLISH_TIMEOUT_S = 10.0
_CONTENTION_TRIES = 5


def again(letter: Buried, message_id: str) -> Envelope:
    """The letter as a message that nobody has taken up before."""
    headers = {name: value for name, value in letter.letter.headers.items() if name != ATTEMPT_HEADER}
    return Envelope(
        body=letter.letter.body, message_id=message_id, content_type=letter.letter.content_type, headers=headers
    )


class Redrive:
    """Settles dead letters in batches, in the order of their ids. What it does twice has the effect of once.

    ``new_id`` makes the ids of the messages. Every method raises the errors of storage, and those of the queue where it
    publishes; whatever was settled before stays settled.
    """

    def __init__(
        self,
        database: Database,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self._database = database
        self._now_ms = now_ms
        self._new_id = new_id
        self._batch_size = batch_size

    async def redrive(self, publisher: Publisher, wanted: Wanted, act: Act, *, limit: int) -> AsyncIterator[Outcome]:
        """Publish these letters, and mark each one once the queue has confirmed it.

        A crash in between leaves the letter open; redriven again, its fact is known already and changes nothing. A
        change that its handlers have yet to see is no message: the transaction that marks it hands it to them.
        """
        async for batch in self._batches(wanted, limit):
            sent, failure = await self._publish(publisher, [each for each in batch if change_of(each.letter) is None])
            sent += [each for each in batch if change_of(each.letter) is not None]
            for outcome in await self._settle(sent, State.REDRIVEN, act):
                yield outcome
            if failure is not None:
                raise failure

    async def discard(self, wanted: Wanted, act: Act, *, limit: int) -> AsyncIterator[Outcome]:
        """Mark these letters as of no use. Their bytes stay."""
        async for batch in self._batches(wanted, limit):
            for outcome in await self._settle(batch, State.DISCARDED, act):
                yield outcome

    async def letters(self, wanted: Wanted, *, limit: int) -> AsyncIterator[Buried]:
        """The letters that a redrive or a discard would take up, in its order."""
        async for batch in self._batches(wanted, limit):
            for letter in batch:
                yield letter

    async def rehearse(self, keyring: Keyring, wanted: Wanted, *, limit: int) -> AsyncIterator[Trial]:
        """Say what ``redrive`` would do, and do nothing: each batch is applied in a transaction and rolled back."""
        async for batch in self._batches(wanted, limit):
            yield await self._rehearse_batch(keyring, batch)

    async def _batches(self, wanted: Wanted, limit: int) -> AsyncIterator[list[Buried]]:
        last, left = 0, limit
        while left > 0:
            async with self._database.unit_of_work(read_only=True) as uow:
                batch = await uow.dead_letters.page(wanted, after_id=last, limit=min(self._batch_size, left))
            if not batch:
                return
            yield batch
            last, left = batch[-1].id, left - len(batch)

    async def _publish(
        self, publisher: Publisher, batch: Sequence[Buried]
    ) -> tuple[list[Buried], QueueUnavailable | None]:
        results = await asyncio.gather(
            *(publisher.publish(again(each, self._new_id()), timeout_s=PUBLISH_TIMEOUT_S) for each in batch),
            return_exceptions=True,
        )
        sent = [each for each, result in zip(batch, results, strict=True) if result is None]
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, QueueUnavailable):
                raise failure
        return sent, next((each for each in failures if isinstance(each, QueueUnavailable)), None)

    async def _settle(self, letters: Sequence[Buried], state: State, act: Act) -> list[Outcome]:
        if not letters:
            return []
        for attempt in range(_CONTENTION_TRIES):
            try:
                settled = await self._mark(letters, state, act)
            except Contention:
                if attempt == _CONTENTION_TRIES - 1:
                    raise
            else:
                return [Outcome(letter=each, settled=each.id in settled) for each in letters]
        raise AssertionError("unreachable")

    async def _mark(self, letters: Sequence[Buried], state: State, act: Act) -> frozenset[int]:
        at_ms = self._now_ms()
        async with self._database.unit_of_work() as uow:
            settled = await uow.dead_letters.settle(letters, state, at_ms=at_ms, by=act.who, why=act.why)
            for each in letters:
                change = change_of(each.letter)
                if change is not None and state is State.REDRIVEN and each.id in settled:
                    await uow.handling.reopen(change.order_id, change.version, at_ms)
            await uow.audit.note(
                [
                    Entry(
                        at_ms=at_ms,
                        actor=act.who,
                        action=f"dead_letter.{state.value}",
                        subject=f"dead_letter:{each.id}",
                        reason=act.why,
                        details={
                            "reason": each.letter.reason,
                            "timesSeen": each.times_seen,
                            "marked": each.id in settled,
                        },
                    )
                    for each in letters
                ]
            )
            await uow.commit()
        return settled

    async def _rehearse_batch(self, keyring: Keyring, batch: Sequence[Buried]) -> Trial:
        deliveries = [
            Delivery(envelope=again(each, str(each.id)), tag=place)
            for place, each in enumerate(batch)
            if change_of(each.letter) is None
        ]
        part = read(deliveries, keyring, self._now_ms())
        trial = await self._try(part, batch)
        # What a handler does is the shop's; it is not tried.
        handed = [
            Prospect(letter=each, buried_again=None, fresh=True, order_id=change.order_id)
            for each in batch
            if (change := change_of(each.letter)) is not None
        ]
        prospects = sorted([*trial.prospects, *handed], key=lambda each: each.letter.id)
        return msgspec.structs.replace(trial, prospects=prospects)

    async def _try(self, part: Part, batch: Sequence[Buried]) -> Trial:
        refused = [
            Prospect(
                letter=batch[delivery.tag], buried_again=f"{dead.reason}: {dead.detail}", fresh=False, order_id=None
            )
            for delivery, dead in part.poison
        ]
        applied = await self._try_works(part.works, batch)
        return Trial(prospects=[*refused, *applied.prospects], moves=applied.moves)

    async def _try_works(self, works: Sequence[Work], batch: Sequence[Buried], tries: int = 1) -> Trial:
        """As the worker does: what the database refuses is cut in two until the culprit stands alone."""
        if not works:
            return Trial(prospects=[], moves=[])
        try:
            async with self._database.unit_of_work() as uow:
                return await _applied(uow, works, batch, self._now_ms())
        except DataRejected as error:
            if len(works) == 1:
                return Trial(prospects=[_refused(works[0], batch, error)], moves=[])
            middle = len(works) // 2
            halves = [await self._try_works(half, batch) for half in (works[:middle], works[middle:])]
            return Trial(
                prospects=[prospect for half in halves for prospect in half.prospects],
                moves=[move for half in halves for move in half.moves],
            )
        except Contention:
            if tries >= _CONTENTION_TRIES:
                raise
            return await self._try_works(works, batch, tries + 1)


class Redriver:
    """``Redrive`` with the queue that it sends to and the passwords that it tries with."""

    def __init__(
        self, database: Database, publisher: Publisher, keyring: Keyring, *, batch_size: int = BATCH_SIZE
    ) -> None:
        self._redrive = Redrive(database, batch_size=batch_size)
        self._publisher = publisher
        self._keyring = keyring
        self.discard = self._redrive.discard
        self.letters = self._redrive.letters

    def redrive(self, wanted: Wanted, act: Act, *, limit: int) -> AsyncIterator[Outcome]:
        """As ``Redrive.redrive``."""
        return self._redrive.redrive(self._publisher, wanted, act, limit=limit)

    def rehearse(self, wanted: Wanted, *, limit: int) -> AsyncIterator[Trial]:
        """As ``Redrive.rehearse``."""
        return self._redrive.rehearse(self._keyring, wanted, limit=limit)


async def _applied(uow: UnitOfWork, works: Sequence[Work], batch: Sequence[Buried], at_ms: int) -> Trial:
    """Apply and look. The caller never commits."""
    known = await uow.events.known([work.event.digest for work in works])
    applied = await apply(uow, works, at_ms)
    moves = [
        Move(
            order_id=each.order_id,
            before=each.previous_status or "unregistered",
            after=each.status,
            review=each.review,
        )
        for each in applied.changes
    ]
    prospects = [
        Prospect(
            letter=batch[work.delivery.tag],
            buried_again=None,
            fresh=work.event.digest not in known,
            order_id=work.event.order_id,
        )
        for work in works
    ]
    return Trial(prospects=prospects, moves=moves)


def _refused(work: Work, batch: Sequence[Buried], error: OplataError) -> Prospect:
    return Prospect(
        letter=batch[work.delivery.tag],
        buried_again=f"rejected_by_database: {error}",
        fresh=False,
        order_id=work.event.order_id,
    )
