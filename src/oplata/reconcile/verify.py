"""``oplata verify``: archive, events, payments, orders, change log and money, held against each other in one snapshot.

Everything is read page by page in one read-only transaction that sees the tables as they were when it began; so workers
may run, and what they are about to commit is no gap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from oplata.domain.payment import Payment, PaymentKey, conclude, moves_payment
from oplata.domain.status import OrderStatus
from oplata.errors import QueueUnavailable, TopologyError
from oplata.queue.base import Queue
from oplata.reconcile import checks
from oplata.reconcile.gaps import Account, Gaps
from oplata.storage.dead_letters import State, Wanted
from oplata.storage.engine import Database
from oplata.storage.orders import OrderRow
from oplata.storage.projection import Stored, refolded
from oplata.storage.rollups import REVIEW, Tally
from oplata.storage.unit_of_work import UnitOfWork

PAGE_SIZE = 500
MAX_GAPS = 20
"""So many sentences are kept of each check; the rest is counted."""


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """From one time up to another; None is unbounded.

    It selects the callbacks that were first seen and the events that were recorded in that time, and, since a payment
    and an order have but the time of their last change, those that were changed after its beginning.
    """

    from_ms: int | None = None
    to_ms: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it leaves nothing out. Only then the sums of money can be compared."""
        return self.from_ms is None and self.to_ms is None


class Verification:
    """One verification. ``progress`` hears the account after each page."""

    def __init__(
        self,
        database: Database,
        queue: Queue | None,
        span: Range,
        *,
        page_size: int = PAGE_SIZE,
        max_gaps: int = MAX_GAPS,
        progress: Callable[[Account], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._queue = queue
        self._span = span
        self._page_size = page_size
        self._progress = progress
        self._counted: dict[str, Tally] = {}
        self.account = Account()
        self.gaps = Gaps(max_gaps)

    async def run(self) -> None:
        """Check all; ``account`` and ``gaps`` say what came of it. Raises the errors of storage."""
        async with self._database.unit_of_work(snapshot=True) as uow:
            await self._archive(uow)
            await self._events(uow)
            await self._payments(uow)
            await self._orders(uow)
            await self._orphans(uow)
            await self._letters(uow)
            await self._rollup(uow)
        if self._span.whole and self.account.captured_kopecks != self.account.accounted_kopecks:
            held = f"and the orders' payments hold {self.account.accounted_kopecks} kopecks"
            told = f"by the events the bank confirmed {self.account.captured_kopecks} kopecks"
            self.gaps.add("money", [f"{told}, {held}"])
        await self._count_queue()

    async def _archive(self, uow: UnitOfWork) -> None:
        after: tuple[int, str] | None = None
        span = self._span
        while page := await uow.archive.page(after, from_ms=span.from_ms, to_ms=span.to_ms, limit=self._page_size):
            after = page[-1].first_seen_at_ms, page[-1].digest
            recorded = await uow.events.get([callback.digest for callback in page])
            for callback in page:
                self.gaps.add("archive-events", checks.callback_and_event(callback, recorded.get(callback.digest)))
            self.account.callbacks += len(page)
            self.account.pruned += sum(callback.pruned_at_ms is not None for callback in page)
            self._progress(self.account)

    async def _events(self, uow: UnitOfWork) -> None:
        last, span = "", self._span
        while page := await uow.events.page(last, from_ms=span.from_ms, to_ms=span.to_ms, limit=self._page_size):
            last = page[-1][0].digest
            for event, has_callback, has_payment in page:
                if not has_callback:
                    self.gaps.add("archive-events", [f"event {event.digest} has no callback in the archive"])
                if not has_payment and moves_payment(event):
                    absent = f"payment {event.payment_id} of terminal {event.terminal_key} has no row"
                    self.gaps.add("events-payments", [f"{absent}, and has the event {event.digest}"])
            self.account.events += len(page)
            self._progress(self.account)

    async def _payments(self, uow: UnitOfWork) -> None:
        last: PaymentKey | None = None
        changed_from_ms = self._span.from_ms
        while page := await uow.projection.page(last, changed_from_ms=changed_from_ms, limit=self._page_size):
            last = next(reversed(page))
            folded = refolded(page, await uow.events.of_payments(sorted(page)))
            for key, stored in page.items():
                self.gaps.add("events-payments", checks.payment_and_events(key, stored, folded[key]))
                if held := checks.captured(conclude(folded[key])):
                    self.account.captured_payments += 1
                    self.account.captured_kopecks += held
            await self._rows_of_orders(uow, page)
            self.account.payments += len(page)
            self._progress(self.account)

    async def _rows_of_orders(self, uow: UnitOfWork, page: Mapping[PaymentKey, Stored]) -> None:
        named = {stored.order_id: key for key, stored in page.items() if stored.order_id is not None}
        rows = await uow.orders.some(sorted(named))
        for order_id in sorted(named.keys() - rows.keys()):
            self.gaps.add("payments-orders", [f"payment {named[order_id][1]} is of order {order_id}, which has no row"])

    async def _orders(self, uow: UnitOfWork) -> None:
        last = ""
        while page := await uow.orders.page(last, changed_from_ms=self._span.from_ms, limit=self._page_size):
            ids = [row.order_id for row in page]
            last = ids[-1]
            stored, told = await uow.projection.of_orders(ids), await uow.changes.of_orders(ids)
            words = await uow.words.of_orders(ids)
            for row in page:
                payments, word = _readable(stored.get(row.order_id, {})), words.get(row.order_id)
                if payments is not None:
                    self.gaps.add("payments-orders", checks.order_and_payments(row, payments, word))
                    self.gaps.add("money", checks.order_and_money(row, payments, word))
                    self.account.accounted_kopecks += sum(map(checks.captured, payments.values()))
                    self.account.paid_by_word += checks.paid_by_word(row, payments, word)
                self._count(row)
                self.gaps.add("orders-changes", checks.order_and_log(row, told.get(row.order_id, [])))
                self.account.orders_for_review += row.review is not None
                if row.status == OrderStatus.PAID.value:
                    self.account.paid_orders += 1
                    self.account.paid_kopecks += row.amount_kopecks or 0
            self.account.orders += len(page)
            self.account.changes += sum(map(len, told.values()))
            self._progress(self.account)

    def _count(self, row: OrderRow) -> None:
        names = [row.status] if row.status != OrderStatus.UNREGISTERED.value else []
        for name in [*names, *([REVIEW] if row.review is not None else [])]:
            before, amount = self._counted.get(name, Tally(0, 0)), row.amount_kopecks or 0
            self._counted[name] = Tally(before.orders + 1, before.kopecks + (0 if name == REVIEW else amount))

    async def _rollup(self, uow: UnitOfWork) -> None:
        """Where the orders or the log are damaged, the counts differ as a matter of course."""
        if self._span.whole and not self.gaps.of("orders-changes") and not self.gaps.of("payments-orders"):
            self.gaps.add("rollups", checks.rollup(await uow.rollups.standing(), self._counted))

    async def _orphans(self, uow: UnitOfWork) -> None:
        last: int | None = 0
        while last is not None:
            last, orphans = await uow.changes.orphans(last, limit=self._page_size)
            self.gaps.add("orders-changes", (f"order {each} has changes in the log and no row" for each in orphans))

    async def _letters(self, uow: UnitOfWork) -> None:
        self.account.dead_letters = await uow.dead_letters.count_by_state()
        unknown: Sequence[str] = sorted(self.account.dead_letters.keys() - {state.value for state in State})
        self.gaps.add("dead letters", (f"there are dead letters in the unknown state {state!r}" for state in unknown))
        for state in State:
            last = 0
            while page := await uow.dead_letters.page(Wanted(state=state), after_id=last, limit=self._page_size):
                last = page[-1].id
                for buried in page:
                    self.gaps.add("dead letters", checks.letter(buried))

    async def _count_queue(self) -> None:
        if self._queue is None:
            return
        try:
            self.account.depth = await self._queue.depth()
        except (QueueUnavailable, TopologyError) as error:
            self.gaps.add("queue", [f"the queue could not be counted: {error}"])


def _readable(stored: Mapping[PaymentKey, Stored]) -> dict[PaymentKey, Payment] | None:
    """The payments of an order; None where one of them cannot be read, which was named before."""
    payments = {key: row.payment() for key, row in stored.items()}
    return {key: each for key, each in payments.items() if each is not None} if all(payments.values()) else None
