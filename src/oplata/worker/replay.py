"""Builds the projection again from the archive: events from bodies, payments from events, orders from payments.

Three passes, each in small transactions that take their locks in the house's order (event, payment, order, change log),
so workers may run meanwhile. No payment is folded before all events are back, and no order judged before all payments
are whole: what stands half built is never stored, and never told in the change log.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from oplata.domain.events import Event
from oplata.domain.payment import PaymentKey, fold
from oplata.errors import Contention
from oplata.queue.backoff import delay_s
from oplata.storage.audit import Entry
from oplata.storage.engine import Database
from oplata.storage.payments import held
from oplata.storage.projection import projected, refolded
from oplata.storage.unit_of_work import UnitOfWork
from oplata.storage.verdicts import reach_verdicts, restore_told
from oplata.worker.archived import Span, each_lost, walk
from oplata.worker.difference import Difference, Replayed, difference, named_orders, orders_of, said

T = TypeVar("T")

BATCH_SIZE = 500
MAX_TOUCHED_ORDERS = 50_000
"""Above this many every order there is is looked at, instead of remembering which were touched."""

_CONTENTION_TRIES = 8


class Replay:
    """Refolds what the archive holds. Doing it twice is doing it once, and where all is well it changes nothing.

    ``tell`` hears of each difference, and ``progress`` of the totals after each batch.
    """

    def __init__(
        self,
        database: Database,
        *,
        tell: Callable[[Difference], None] = lambda _: None,
        progress: Callable[[Replayed], None] = lambda _: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rng: random.Random | None = None,
        batch_size: int = BATCH_SIZE,
        max_touched_orders: int = MAX_TOUCHED_ORDERS,
    ) -> None:
        self._database = database
        self._tell = tell
        self._progress = progress
        self._now_ms = now_ms
        self._rng = rng or random.Random()  # noqa: S311  Jitter is no secret.
        self._batch_size = batch_size
        self._max_touched = max_touched_orders
        self._touched: set[str] | None = set()
        self.totals = Replayed()

    async def run(self, span: Span, *, who: str) -> Replayed:
        """Replay these callbacks; the audit keeps who did it. Raises the errors of storage."""
        self.totals, self._touched = Replayed(), set()
        async for page in walk(self._database, span, page_size=self._batch_size):
            self.totals.callbacks += len(page.events)
            self.totals.unreadable += len(page.unreadable) + len(page.forgotten)
            for lost in each_lost(page):
                self._tell(lost)
            self.totals.pruned += len(page.remembered)
            self._touch(named_orders(page.remembered))
            if page.events:
                await self._persist(partial(self._record, page.events))
            self._progress(self.totals)
        async for order_ids in self._orders_to_mend(span):
            await self._persist(partial(self._refold, order_ids))
            self._progress(self.totals)
        async for order_ids in self._orders_to_judge():
            await self._judge(order_ids)
        if span == Span():
            await self._persist(self._count_again)
        await self._note(span, who)
        return self.totals

    async def _record(self, events: Sequence[Event]) -> None:
        """First pass, one transaction: these events are there, and as the archive tells them."""
        at_ms = self._now_ms()
        async with self._database.unit_of_work() as uow:
            fresh = await uow.events.record(events, at_ms)
            recorded = await uow.events.get([event.digest for event in events])
            wrong = [event for event in events if recorded.get(event.digest) != event]
            if wrong:
                await uow.events.restore(wrong, at_ms)
            await uow.commit()
        self.totals.events_recorded += len(fresh)
        self.totals.events_restored += len(wrong)
        self._touch(named_orders([*events, *(recorded[event.digest] for event in wrong if event.digest in recorded)]))

    def _touch(self, order_ids: set[str]) -> None:
        if self._touched is not None:
            self._touched |= order_ids
            if len(self._touched) > self._max_touched:
                self._touched = None

    async def _orders_to_mend(self, span: Span) -> AsyncIterator[list[str]]:
        """The touched orders, and those that damaged rows of their payments name, which show up on the way."""
        seen: set[str] = set()
        while self._touched is not None and (todo := sorted(self._touched - seen)):
            for start in range(0, len(todo), self._batch_size):
                yield todo[start : start + self._batch_size]
            seen.update(todo)
        if self._touched is None:
            async for page in walk(self._database, span, page_size=self._batch_size):
                yield sorted(named_orders([*page.events, *page.remembered]))
            async for order_ids in self._every_order():
                yield order_ids

    async def _orders_to_judge(self) -> AsyncIterator[list[str]]:
        if self._touched is None:
            async for order_ids in self._every_order():
                yield order_ids
            return
        wanted = sorted(self._touched)
        for start in range(0, len(wanted), self._batch_size):
            yield wanted[start : start + self._batch_size]

    async def _every_order(self) -> AsyncIterator[list[str]]:
        last = ""
        while True:
            async with self._database.unit_of_work(read_only=True) as uow:
                rows = await uow.orders.page(last, changed_from_ms=None, limit=self._batch_size)
            if not rows:
                return
            last = rows[-1].order_id
            yield [row.order_id for row in rows]

    async def _refold(self, order_ids: Sequence[str]) -> None:
        """Second pass, one transaction: the payments of these orders are the fold of all their events."""
        at_ms = self._now_ms()
        async with self._database.unit_of_work() as uow:
            keys = sorted(await uow.projection.keys_of_orders(order_ids))
            mended, named = await _refold(uow, keys, at_ms)
            if self._touched is None:
                # Every order that has a row is judged in the end; so each one needs its row.
                await uow.orders.lock(sorted(named.union(order_ids)), at_ms)
            await uow.commit()
        self.totals.payments += len(keys)
        self.totals.payments_mended += len(mended)
        self._touch(named)
        for each in mended:
            self._tell(each)

    async def _judge(self, order_ids: Sequence[str]) -> None:
        await self._persist(partial(self._judge_once, order_ids))
        self._progress(self.totals)

    async def _judge_once(self, order_ids: Sequence[str]) -> None:
        """Third pass, one transaction: each order is what was told of it last; and if that is wrong, it is told."""
        at_ms = self._now_ms()
        async with self._database.unit_of_work() as uow:
            known = await _known(uow, order_ids)
            restored = await restore_told(uow, known, at_ms)
            changes = await reach_verdicts(uow, known, at_ms)
            await uow.commit()
        self.totals.orders += len(known)
        self.totals.orders_restored += len(restored)
        self.totals.orders_changed += len(changes)
        for row, told in restored:
            self._tell(
                Difference(
                    kind="order",
                    key=row.order_id,
                    before=said(row.status, row.review),
                    after=said(told.status, told.review),
                )
            )
        for change in changes:
            before = change.previous_status or "unregistered"
            after = said(change.status, change.review)
            self._tell(Difference(kind="order", key=change.order_id, before=before, after=after))

    async def _count_again(self) -> None:
        """The whole archive was asked for: what is counted of the orders is put right as well."""
        async with self._database.unit_of_work() as uow:
            wrong = await uow.rollups.count_again()
            await uow.commit()
        self.totals.rollups_mended += wrong

    async def _persist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a transaction again when another one had its rows."""
        for attempt in range(1, _CONTENTION_TRIES):
            try:
                return await step()
            except Contention:
                await asyncio.sleep(delay_s(attempt, self._rng, 0.02, 1.0))
        return await step()

    async def _note(self, span: Span, who: str) -> None:
        details = {**msgspec.structs.asdict(span), **msgspec.structs.asdict(self.totals)}
        entry = Entry(
            at_ms=self._now_ms(),
            actor=who,
            action="replay",
            subject="archive",
            reason="the projection was built again from the archive",
            details=details,
        )
        async with self._database.unit_of_work() as uow:
            await uow.audit.note([entry])
            await uow.commit()


async def _refold(uow: UnitOfWork, keys: Sequence[PaymentKey], at_ms: int) -> tuple[list[Difference], set[str]]:
    """Make these payments the fold of their events; returns what was wrong, and every order those name or named."""
    told = await uow.events.of_payments(keys)
    # A payment that only statuses of the future speak of has no row, as with the worker.
    await uow.payments.create([key for key in keys if fold(told.get(key, ()))], at_ms)
    standing = await uow.projection.get(keys, lock=True)
    # Read again under the locks. What an event adds from here on, its transaction joins once it has the lock after us.
    folded = refolded(keys, await uow.events.of_payments(keys))
    wrong = {key: folded[key] for key, stored in standing.items() if stored != projected(folded[key])}
    if wrong:
        await uow.payments.save({key: held(evidence) for key, evidence in wrong.items()}, at_ms)
    orders = {each for key in wrong for each in orders_of(standing[key], projected(folded[key]))}
    return [difference(key, standing[key], projected(folded[key])) for key in sorted(wrong)], orders


async def _known(uow: UnitOfWork, order_ids: Sequence[str]) -> list[str]:
    """Those of these orders that are anything to us. An event may name an order and move no payment of it."""
    payments = await uow.projection.get(sorted(await uow.projection.keys_of_orders(order_ids)))
    known = {*await uow.orders.some(order_ids), *await uow.changes.of_orders(order_ids), *orders_of(*payments.values())}
    return [order_id for order_id in order_ids if order_id in known]
