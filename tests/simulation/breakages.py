"""The wrong turns that ``mutants`` puts into the program, each in the place of something that was right."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any
from unittest import mock

import sqlalchemy

from oplata.errors import DatabaseUnavailable, HandlerFailed, NotConfirmed, OplataError, QueueUnavailable
from oplata.ingest import answer
from oplata.ingest.callback import Callback
from oplata.queue.rabbitmq.confirms import Confirms, Outcome
from oplata.queue.rabbitmq.consumer import RabbitConsumer
from oplata.queue.rabbitmq.message import to_properties, with_attempt
from oplata.queue.rabbitmq.publisher import RabbitPublisher
from oplata.queue.spool import SpoolingPublisher
from oplata.queue.sqlite import queue as sqlite_queue
from oplata.storage import verdicts
from oplata.storage.changes import ChangeLog
from oplata.storage.dead_letters import DeadLetters
from oplata.storage.events import EventStore, _row
from oplata.storage.tables import events
from oplata.worker import batch
from oplata.worker.apply import apply as _apply
from oplata.worker.backlog import begin
from oplata.worker.batch import Part
from oplata.worker.handling import Handling
from oplata.worker.retry import Remedy
from oplata.worker.retry import remedy as _remedy
from oplata.worker.settlement import Settlement

_settle, _halves, _commit, _forward = Settlement.settle, Part.halves, Settlement._commit, SpoolingPublisher._forward
_append, _reach, _settle_confirm = ChangeLog.append, verdicts.reach_verdicts, Confirms.settle
_begin, _begin_sqlite = RabbitPublisher.begin, sqlite_queue.SqlitePublisher.begin
_run_handlers = Handling.run
_publish_sqlite, _read, _change = sqlite_queue.SqlitePublisher.publish, batch.read, verdicts._change
_background: set[asyncio.Future[None]] = set()


async def ack_first(self: Settlement, consumer: Any, whole: Part) -> bool:
    await consumer.ack(whole.deliveries)
    return await _settle(self, consumer, whole)


async def answer_first(self: Callback, envelope: Any, timeout_s: float) -> Any:
    publishing = asyncio.ensure_future(self._publisher.publish(envelope, timeout_s=timeout_s))
    _background.add(publishing)
    publishing.add_done_callback(_background.discard)
    return answer.OK


async def answer_anyway(self: Callback, envelope: Any, timeout_s: float) -> Any:
    with contextlib.suppress(NotConfirmed):
        await self._publisher.publish(envelope, timeout_s=timeout_s)
    return answer.OK


def sent_is_durable(self: RabbitPublisher, envelope: Any, told: Any, *, timeout_s: float) -> bool:
    has_begun = _begin(self, envelope, lambda _is_durable: None, timeout_s=timeout_s)
    if has_begun:
        asyncio.get_running_loop().call_soon(told, True)
    return has_begun


def doubt_is_durable(self: RabbitPublisher, envelope: Any, told: Any, *, timeout_s: float) -> bool:
    return _begin(self, envelope, lambda _is_durable: told(True), timeout_s=timeout_s)


def written_is_durable(self: sqlite_queue.SqlitePublisher, envelope: Any, told: Any, *, timeout_s: float) -> bool:
    has_begun = _begin_sqlite(self, envelope, lambda _is_durable: None, timeout_s=timeout_s)
    if has_begun:
        asyncio.get_running_loop().call_soon(told, True)
    return has_begun


def refused_is_durable(self: sqlite_queue.SqlitePublisher, envelope: Any, told: Any, *, timeout_s: float) -> bool:
    return _begin_sqlite(self, envelope, lambda _is_durable: told(True), timeout_s=timeout_s)


def doubt_is_told_as_it_is(self: Callback, _envelope: Any, source: Any, *_rest: Any) -> None:
    _rest[-1].answer(answer.OK)


async def plain_insert(self: EventStore, told: Sequence[Any], at_ms: int) -> frozenset[str]:
    fresh = [event for event in told if event.digest not in _KNOWN]
    for event in fresh:
        row = dict(zip((col.name for col in events.c), (*_row(event), at_ms), strict=True))
        await self._session.execute(sqlalchemy.insert(events).values(**row))
    return frozenset(event.digest for event in fresh)


_KNOWN: set[str] = set()


async def select_before(self: Settlement, part: Part) -> None:
    async with self._database.unit_of_work(read_only=True) as uow:
        known = await uow.events.known([work.event.digest for work in part.works])
    _KNOWN.clear()
    _KNOWN.update(known)
    await _commit(self, part)


async def remember(self: EventStore, told: Sequence[Any], at_ms: int) -> frozenset[str]:
    fresh = [event for event in told if (id(self._session._connection.engine), event.digest) not in _CACHE]
    _CACHE.update((id(self._session._connection.engine), event.digest) for event in fresh)
    return await _record(self, fresh, at_ms)


_CACHE: set[tuple[int, str]] = set()
_record = EventStore.record


class Trusting:
    def verify(self, _notification: object) -> None:
        """Believe anything."""


async def bury_nothing(self: DeadLetters, letters: Sequence[Any]) -> None:
    """Forget them."""


async def stash(self: ChangeLog, told: Sequence[Any], **_: Any) -> None:
    _STASHED.extend(told)


_STASHED: list[Any] = []


async def append_unmarked(self: ChangeLog, told: Sequence[Any], **_: Any) -> None:
    await _append(self, told)


async def forget_failures(self: Handling, uow: Any, change: Any) -> None:
    with contextlib.suppress(HandlerFailed):
        await _run_handlers(self, uow, change)


async def look_for_nothing(self: Any) -> None:
    with contextlib.suppress(OplataError):
        await begin(self._database)
    await self._stopping.wait()


async def tell_later(self: Settlement, part: Part) -> None:
    await _commit(self, part)
    told = list(_STASHED)
    _STASHED.clear()
    async with self._database.unit_of_work() as uow:
        await _append(uow.changes, told)
        await uow.commit()


async def ignore_earlier(uow: Any, order_ids: Any, at_ms: int) -> Any:
    async def nothing(*_asked: Any, **_how: Any) -> Any:
        return {}

    with mock.patch.object(uow.payments, "of_orders", nothing):
        return await _reach(uow, order_ids, at_ms)


async def ack_then_publish(self: RabbitConsumer, delivery: Any, *, delay_ms: int) -> None:
    if not self._current_tags([delivery]):
        return
    rung_ms = self._topology.rung_for(delay_ms)
    await self.ack([delivery])
    properties = to_properties(with_attempt(delivery), now_ms=self._now_ms(), expiration_ms=rung_ms)
    await self._publisher.send(self._topology.rung_name(rung_ms), properties, delivery.envelope.body, timeout_s=10)


async def forget_first(self: SpoolingPublisher, consumer: Any, deliveries: Any) -> None:
    await consumer.ack(deliveries)
    await _forward(self, consumer, deliveries)


async def ack_in_outage(self: Settlement, consumer: Any, whole: Part) -> bool:
    settled = await _settle(self, consumer, whole)
    if not settled:
        await consumer.ack(whole.deliveries)
    return settled


async def swallow_outage(self: Settlement, part: Part) -> None:
    with contextlib.suppress(DatabaseUnavailable):
        await _commit(self, part)


def lost_is_confirmed(self: Confirms) -> None:
    while self._waiting:
        self._waiting.popitem(last=False)[1].tell(Outcome.CONFIRMED)


def refused_is_confirmed(self: Confirms, tag: int, _outcome: Outcome, *, multiple: bool, now_s: float) -> None:
    _settle_confirm(self, tag, Outcome.CONFIRMED, multiple=multiple, now_s=now_s)


async def publish_unwaited(self: Any, envelope: Any, *, timeout_s: float) -> None:
    publishing = asyncio.ensure_future(_publish_sqlite(self, envelope, timeout_s=timeout_s))
    _background.add(publishing)
    publishing.add_done_callback(_background.discard)


async def publish_hopefully(self: Any, envelope: Any, *, timeout_s: float) -> None:
    with contextlib.suppress(QueueUnavailable):
        await _publish_sqlite(self, envelope, timeout_s=timeout_s)


def trust_anyone(deliveries: Any, _keyring: Any, now_ms: int, **how: Any) -> Part:
    keyring: Any = Trusting()
    return _read(deliveries, keyring, now_ms, **how)


def halve_wrongly(self: Part) -> tuple[Part, Part]:
    return (_halves(self)[0],) * 2


async def ack_what_is_put_off(_self: Settlement, consumer: Any, part: Part, _error: Exception) -> None:
    await consumer.ack(part.deliveries)


def outage_is_final(error: Exception, **given: Any) -> Any:
    if isinstance(error, DatabaseUnavailable):
        return Remedy.SPLIT if given["size"] > 1 else Remedy.BURY
    return _remedy(error, **given)


async def commit_for_the_hasty(self: Settlement, part: Part) -> None:
    _ANNOUNCE.set(self._announce)
    await _commit(self, part)


async def announce_first(uow: Any, works: Any, at_ms: int, **given: Any) -> Any:
    applied, announce = await _apply(uow, works, at_ms, **given), _ANNOUNCE.get()
    if announce is not None and applied.changes:
        announce(applied.changes)
    return applied


_ANNOUNCE: ContextVar[Any] = ContextVar("announce")


def change_without_review(order: Any, payments: Any, word: Any, at_ms: int) -> Any:
    change = _change(order, payments, word, at_ms)
    return None if change is not None and order.version and change.status == order.status else change


async def forward_once(self: SpoolingPublisher, consumer: Any, deliveries: Any) -> None:
    sending = (self._primary.publish(each.envelope, timeout_s=self._forward_timeout_s) for each in deliveries)
    await asyncio.gather(*sending, return_exceptions=True)
    await consumer.ack(deliveries)


def any_generation(_self: RabbitConsumer, deliveries: Any) -> list[int]:
    return [delivery.tag for delivery in deliveries]


def nobody_is_lost(_self: Any, _connection: Any, _now_ms: int) -> list[str]:
    return []


async def decide_nothing(_uow: Any, _order_ids: Any, _at_ms: int) -> list[Any]:
    return []
