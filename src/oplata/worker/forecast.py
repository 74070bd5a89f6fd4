"""What a replay would change, computed from reads alone: it locks nothing and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from oplata.domain.events import Event
from oplata.domain.order import judge
from oplata.domain.payment import Payment, PaymentKey, conclude, moves_payment
from oplata.domain.status import OrderStatus
from oplata.errors import Permanent
from oplata.storage.changes import Change
from oplata.storage.engine import Database
from oplata.storage.orders import OrderRow, unregistered
from oplata.storage.projection import Stored, projected, refolded
from oplata.storage.unit_of_work import UnitOfWork
from oplata.storage.verdicts import as_told
from oplata.storage.words import status_of
from oplata.worker.archived import Span, each_lost, walk
from oplata.worker.difference import Difference, Replayed, difference, named_orders, orders_of, payment_keys, said
from oplata.worker.replay import BATCH_SIZE

MAX_ORDERS = 500_000

MAX_MISSING_EVENTS = 100_000
"""Events that are in the archive and not in the table are held in memory meanwhile."""

_NOTHING = Stored(order_id=None, status="NEW", amount_kopecks=None, review=None, evidence=None)


class Forecast:
    """``Replay``, as if. Used once."""

    def __init__(
        self,
        database: Database,
        *,
        tell: Callable[[Difference], None] = lambda _: None,
        progress: Callable[[Replayed], None] = lambda _: None,
        batch_size: int = BATCH_SIZE,
        max_orders: int = MAX_ORDERS,
    ) -> None:
        self._database = database
        self._tell = tell
        self._progress = progress
        self._batch_size = batch_size
        self._max_orders = max_orders
        self._missing: dict[str, Event] = {}
        self._orders: set[str] = set()
        self._done: set[PaymentKey] = set()
        self.totals = Replayed()

    async def run(self, span: Span) -> Replayed:
        """Say what a replay would change. Raises ``Permanent`` when that is more than can be held in memory."""
        async for page in walk(self._database, span, page_size=self._batch_size):
            self.totals.callbacks += len(page.events)
            self.totals.unreadable += len(page.unreadable) + len(page.forgotten)
            for lost in each_lost(page):
                self._tell(lost)
            self.totals.pruned += len(page.remembered)
            self._touch(named_orders(page.remembered))
            await self._compare_events(page.events)
            self._progress(self.totals)
        todo, seen = sorted(self._orders), set[str]()
        while todo:
            for start in range(0, len(todo), self._batch_size):
                await self._compare_orders(todo[start : start + self._batch_size])
                self._progress(self.totals)
            seen.update(todo)
            # A damaged row may name an order that no event names; that one is judged as well.
            todo = sorted(self._orders - seen)
        return self.totals

    async def _compare_events(self, events: Sequence[Event]) -> None:
        async with self._database.unit_of_work(read_only=True) as uow:
            recorded = await uow.events.get([event.digest for event in events])
        for event in events:
            stands = recorded.get(event.digest)
            named = {each.order_id for each in (event, stands) if each is not None and each.order_id is not None}
            self._touch(named)
            if stands != event:
                self._missing[event.digest] = event
                self.totals.events_recorded += stands is None
                self.totals.events_restored += stands is not None
        if len(self._missing) > MAX_MISSING_EVENTS:
            raise Permanent(f"more than {MAX_MISSING_EVENTS} events are missing: ask for a shorter time")

    def _touch(self, order_ids: Iterable[str]) -> None:
        self._orders.update(order_ids)
        if len(self._orders) > self._max_orders:
            raise Permanent(f"more than {self._max_orders} orders are touched: ask for a shorter time")

    async def _compare_orders(self, order_ids: Sequence[str]) -> None:
        async with self._database.unit_of_work(snapshot=True) as uow:
            folded = await self._compare_payments(uow, order_ids)
            rows = await uow.orders.some(order_ids)
            told = await uow.changes.of_orders(order_ids)
            words = await uow.words.of_orders(order_ids)
        self.totals.orders += len(order_ids)
        for order_id in order_ids:
            payments = {key: each for key, each in folded.items() if each.order_id == order_id}
            last = told[order_id][-1][1] if order_id in told else None
            self._compare_order(order_id, rows.get(order_id), last, payments, status_of(words.get(order_id)))

    async def _compare_payments(self, uow: UnitOfWork, order_ids: Sequence[str]) -> dict[PaymentKey, Payment]:
        wanted = frozenset(order_ids)
        missing = [event for event in self._missing.values() if event.order_id in wanted]
        keys = sorted(await uow.projection.keys_of_orders(order_ids) | payment_keys(missing))
        stored, told = await uow.projection.get(keys), await uow.events.of_payments(keys)
        folded = refolded(keys, self._completed(told))
        for key in keys:
            stands, ought = stored.get(key), projected(folded[key])
            if key in self._done or (stands is None and not folded[key]):
                continue
            self._done.add(key)
            self.totals.payments += 1
            if stands != ought:
                self.totals.payments_mended += 1
                self._touch(orders_of(stands or _NOTHING, ought))
                self._tell(difference(key, stands or projected(refolded([key], {})[key]), ought))
        return {key: conclude(evidence) for key, evidence in folded.items() if evidence}

    def _completed(self, told: Mapping[PaymentKey, Sequence[Event]]) -> dict[PaymentKey, list[Event]]:
        """The events as they will be recorded: damaged ones give way to what the archive says."""
        whole = {key: [each for each in events if each.digest not in self._missing] for key, events in told.items()}
        for event in self._missing.values():
            if moves_payment(event):
                whole.setdefault((event.terminal_key, event.payment_id or ""), []).append(event)
        return whole

    def _compare_order(
        self,
        order_id: str,
        row: OrderRow | None,
        last: Change | None,
        payments: Mapping[PaymentKey, Payment],
        word: OrderStatus | None,
    ) -> None:
        stands = row or unregistered(order_id, at_ms=0)
        restored = as_told(stands, last)
        verdict = judge(restored.amount_kopecks, payments, word)
        if restored != stands:
            self.totals.orders_restored += 1
        if (restored.status, restored.review) != (verdict.status.value, verdict.review):
            self.totals.orders_changed += 1
        before, after = said(stands.status, stands.review), said(verdict.status.value, verdict.review)
        if restored != stands or before != after:
            self._tell(Difference(kind="order", key=order_id, before=before, after=after))
