"""More wrong turns, each in the place of something that was right; ``unforeseen`` puts them into the program."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import event, text

from oplata.domain.payment import Evidence, evidence_of
from oplata.errors import Contention, DataRejected, NotConfirmed, Overloaded, QueueUnavailable
from oplata.ingest.callback import Callback
from oplata.queue.envelope import Envelope
from oplata.queue.rabbitmq.confirms import Confirms, Outcome
from oplata.queue.rabbitmq.consumer import RabbitConsumer
from oplata.queue.spool import SpoolingPublisher
from oplata.queue.sqlite import lane
from oplata.queue.sqlite import queue as sqlite_queue
from oplata.queue.sqlite.lane import Lane
from oplata.storage import engine
from oplata.storage.changes import ChangeLog
from oplata.storage.events import EventStore
from oplata.worker import batch
from oplata.worker.apply import apply as _apply
from oplata.worker.batch import Part
from oplata.worker.retry import Remedy
from oplata.worker.retry import remedy as _remedy
from oplata.worker.settlement import Settlement

_transact, _submit, _sqlite_engine, _record = lane.transact, Lane.submit, engine._sqlite_engine, EventStore.record
_settle, _settle_part, _append, _halves = Confirms.settle, Settlement.settle, ChangeLog.append, Part.halves
_close, _retry, _publish_sqlite, _read, _envelope = (
    RabbitConsumer.close,
    RabbitConsumer.retry,
    sqlite_queue.SqlitePublisher.publish,
    batch.read,
    Callback._envelope,
)
DELETE_LEASED = "DELETE FROM messages WHERE state IN ('leased', 'dead leased') AND seat = ?"

_background: set[asyncio.Future[None]] = set()


def transact_unsynced(store: Any, reads: Any, writes: Any, *, is_synced: bool = True) -> Any:
    return _transact(store, reads, writes, is_synced=False)


def publish_as_if_it_did_not_matter(self: Lane, operation: Any, **how: Any) -> Any:
    return _submit(self, operation, **{**how, "is_lasting": not how.get("is_publish", False)})


def hasty_engine(*given: Any) -> Any:
    made = _sqlite_engine(*given)

    @event.listens_for(made.sync_engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    return made


def failure_is_success(_store: Any, writes: Sequence[Any], _error: Exception) -> tuple[list[object], int]:
    return [None] * len(writes), 1


async def late_is_confirmed(self: Any, envelope: Any, *, timeout_s: float) -> None:
    try:
        await _publish_sqlite(self, envelope, timeout_s=timeout_s)
    except NotConfirmed as error:
        if str(error) != str(NotConfirmed()):
            raise


def a_return_is_nothing(_self: Any, _channel: Any, _returned: Any) -> None:
    """The broker confirms what it returned, too."""


def confirm_the_next(self: Confirms, tag: int, outcome: Outcome, *, multiple: bool, now_s: float) -> None:
    _settle(self, tag + 1, outcome, multiple=multiple, now_s=now_s)


async def release_by_ack(self: RabbitConsumer, deliveries: Any) -> None:
    await self.ack(deliveries)


async def put_off_every_other_time(self: RabbitConsumer, delivery: Any, *, delay_ms: int) -> None:
    """No mistake: a broker need not confirm. It seldom does not, and what is not put off goes back by ``release``."""
    turns = self.__dict__["turns"] = self.__dict__.get("turns", 0) + 1
    if turns % 2:
        raise NotConfirmed
    await _retry(self, delivery, delay_ms=delay_ms)


async def close_by_ack(self: RabbitConsumer) -> None:
    if self._channel is not None and self._unsettled:
        self._settle("basic_ack", next(reversed(self._unsettled)), multiple=True)
    await _close(self)


async def spool_unwaited(self: SpoolingPublisher, envelope: Envelope, *, timeout_s: float) -> None:
    try:
        await self._primary.publish(envelope, timeout_s=min(self._patience_s, timeout_s))
    except (QueueUnavailable, Overloaded):
        spooling = asyncio.ensure_future(self._spool.publisher().publish(envelope, timeout_s=timeout_s))
        _background.add(spooling)
        spooling.add_done_callback(_background.discard)


async def spool_hopefully(self: SpoolingPublisher, envelope: Envelope, *, timeout_s: float) -> None:
    try:
        await self._primary.publish(envelope, timeout_s=min(self._patience_s, timeout_s))
    except (QueueUnavailable, Overloaded):
        with contextlib.suppress(QueueUnavailable, Overloaded):
            await self._spool.publisher().publish(envelope, timeout_s=timeout_s)


async def forward_overloads(self: SpoolingPublisher, consumer: Any, deliveries: Any) -> bool:
    outcomes = await asyncio.gather(
        *(self._primary.publish(each.envelope, timeout_s=self._forward_timeout_s) for each in deliveries),
        return_exceptions=True,
    )
    pairs = list(zip(deliveries, outcomes, strict=True))
    done = [each for each, outcome in pairs if outcome is None or isinstance(outcome, Overloaded)]
    await consumer.ack(done)
    await consumer.release([each for each in deliveries if each not in done])
    return bool(done)


async def record_by_itself(self: EventStore, told: Sequence[Any], at_ms: int) -> frozenset[str]:
    fresh = await _record(self, told, at_ms)
    await self._session.execute(text("COMMIT"))
    await self._session.execute(text("BEGIN IMMEDIATE"))
    return fresh


async def commit_what_there_is(self: Settlement, part: Part) -> None:
    async with self._database.unit_of_work() as uow:
        try:
            await uow.dead_letters.bury([letter for _, letter in part.poison])
            if part.works:
                await _apply(uow, part.works, self._now_ms(), handle=self._handle(part))
        finally:
            await uow.commit()


def the_first_wins(left: Evidence, right: Evidence) -> Evidence:
    return left or right


def the_highest_wins(left: Evidence, right: Evidence) -> Evidence:
    seen = {**left.seen}
    for status, amounts in right.seen.items():
        mine = seen.get(status, amounts)
        seen[status] = max(mine, amounts, key=lambda each: each.high)
    return msgspec.structs.replace(
        left, seen=dict(sorted(seen.items())), failed=left.failed or right.failed, orders=left.orders or right.orders
    )


def every_claim_counts(told: Any) -> Evidence:
    return evidence_of(msgspec.structs.replace(told, success=True))


async def tell_twice(self: ChangeLog, told: Sequence[Any], **how: Any) -> None:
    await _append(self, [again for each in told for again in (each, each)], **how)


def lock_buries(error: Exception, **given: Any) -> Remedy:
    if isinstance(error, Contention):
        return Remedy.SPLIT if given["size"] > 1 else Remedy.BURY
    return _remedy(error, **given)


def refusal_pauses(error: Exception, **given: Any) -> Remedy:
    return Remedy.PAUSE if isinstance(error, DataRejected) else _remedy(error, **given)


def surprise_buries(error: Exception, **given: Any) -> Remedy:
    chosen = _remedy(error, **given)
    return Remedy.BURY if chosen is Remedy.LATER else chosen


def halve_the_works_alone(self: Part) -> tuple[Part, Part]:
    if self.works and self.poison:
        return Part(self.works, ()), Part((), self.poison[:-1])
    return _halves(self)


async def skip_a_part_of_one(self: Settlement, consumer: Any, whole: Part) -> bool:
    if whole.size == 1 and whole.deliveries[0].redelivered:
        await consumer.ack(whole.deliveries)
        return True
    return await _settle_part(self, consumer, whole)


def read_redelivered_as_known(deliveries: Any, keyring: Any, now_ms: int, **how: Any) -> Part:
    part = _read(deliveries, keyring, now_ms, **how)
    works = [work for work in part.works if not work.delivery.redelivered] or part.works[:1]
    return Part(works, part.poison, part.puzzling)


def written_anew(self: Callback, body: bytes, content_type: str, source: Any) -> Envelope:
    envelope = _envelope(self, body, content_type, source)
    if not body.startswith(b"{"):
        return envelope
    return msgspec.structs.replace(envelope, body=msgspec.json.format(body, indent=1))


def no_dead_letters(read_dead: Callable[..., Part]) -> Callable[..., Part]:
    def read(deliveries: Any, now_ms: int) -> Part:
        part = read_dead(deliveries, now_ms)
        return Part(part.works, part.poison[:0])

    return read
