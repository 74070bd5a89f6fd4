"""Register an order, get one, list many. Every door to the orders leads through here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from oplata.domain.events import Event, EventKind
from oplata.domain.money import kopecks
from oplata.domain.payment import Payment, PaymentKey
from oplata.domain.status import OrderStatus
from oplata.errors import Contention, OrderError, OrderNotFound
from oplata.storage.engine import Database
from oplata.storage.orders import OrderRow
from oplata.storage.unit_of_work import UnitOfWork
from oplata.storage.verdicts import reach_verdicts

MAX_ORDER_ID_LENGTH = 36
"""The bank takes no longer one in Init."""

MAX_LISTED = 1000
_TRIES = 5


class PaymentView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A payment as the shop sees it; ``amount`` is the current one, in kopecks, or null where the bank gave none."""

    payment_id: str
    terminal_key: str
    status: str
    amount: int | None
    review: str | None


class ReceiptView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A fiscal receipt that the bank told of. ``type`` is the bank's word, such as Income or IncomeReturn."""

    payment_id: str | None
    type: str | None
    url: str | None
    amount: int | None


class OrderView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An order as the shop sees it. Amounts are kopecks; times are milliseconds since the Unix epoch.

    ``review`` says why a person must look at the order, and is null for most. ``version`` counts its changes.
    """

    order_id: str
    status: str
    amount: int | None
    review: str | None
    payments: Sequence[PaymentView]
    receipts: Sequence[ReceiptView]
    version: int
    registered_at: int | None
    updated_at: int


def wall_clock_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class Orders:
    """The shop's orders in this database."""

    def __init__(self, database: Database, *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._database = database
        self._now_ms = now_ms

    async def register(self, order_id: str, amount_kopecks: int) -> OrderView:
        """Tell of an order that is to be paid; payments that came before it take effect now.

        Doing it twice is doing it once. Raises ``OrderError`` when the id is not one the bank would take or the order
        is registered with another amount, and ``MoneyError``.
        """
        if not 1 <= len(order_id) <= MAX_ORDER_ID_LENGTH or not order_id.isprintable():
            raise OrderError(f"an order id has 1 to {MAX_ORDER_ID_LENGTH} printable characters")
        if kopecks(amount_kopecks) == 0:
            raise OrderError("an order's amount is at least 1 kopeck")
        for attempt in range(_TRIES):
            try:
                return await self._register(order_id, amount_kopecks)
            except Contention:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    async def get(self, order_id: str) -> OrderView:
        """One registered order. Raises ``OrderNotFound``, which tells of payments that name an unregistered one."""
        async with self._database.unit_of_work(read_only=True) as uow:
            row = await uow.orders.get(order_id)
            if row is None:
                raise OrderNotFound(f"order {order_id} is not registered, and no payment names it")
            view = (await _views(uow, [row]))[0]
        if row.amount_kopecks is None:
            told = ", ".join(map(_told, view.payments)) or "none yet"
            raise OrderNotFound(
                f"order {order_id} is not registered; payments that name it are kept ({told}) "
                "and take effect when it is registered"
            )
        return view

    async def list(
        self, status: OrderStatus | None = None, *, limit: int = 100, after: str | None = None
    ) -> list[OrderView]:
        """Orders, newest first, at most ``limit``. ``after`` is the id of the last one of the page before.

        Orders that only payments name are among them, as ``unregistered``.
        """
        async with self._database.unit_of_work(read_only=True) as uow:
            last = None if after is None else await uow.orders.get(after)
            if after is not None and last is None:
                raise OrderNotFound(f"order {after} is not known, so there is no page after it")
            rows = await uow.orders.newest(status=status, limit=min(max(limit, 1), MAX_LISTED), after=last)
            return await _views(uow, rows)

    async def _register(self, order_id: str, amount_kopecks: int) -> OrderView:
        at_ms = self._now_ms()
        async with self._database.unit_of_work() as uow:
            row = (await uow.orders.lock([order_id], at_ms))[order_id]
            if row.amount_kopecks is None:
                await uow.orders.register(order_id, amount_kopecks, at_ms)
                await reach_verdicts(uow, [order_id], at_ms)
            elif row.amount_kopecks != amount_kopecks:
                raise OrderError(
                    f"order {order_id} is registered with {row.amount_kopecks} kopecks, not {amount_kopecks}"
                )
            registered = await uow.orders.get(order_id)
            assert registered is not None  # noqa: S101  It is locked by us.
            view = (await _views(uow, [registered]))[0]
            await uow.commit()
        return view


def _told(payment: PaymentView) -> str:
    amount = "" if payment.amount is None else f" {payment.amount} kopecks"
    return f"{payment.payment_id} {payment.status}{amount}"


async def _views(uow: UnitOfWork, rows: Sequence[OrderRow]) -> list[OrderView]:
    if not rows:
        return []
    ids = [row.order_id for row in rows]
    payments = await uow.payments.of_orders(ids)
    receipts = await uow.events.receipts_of(ids)
    return [_view(row, payments.get(row.order_id, {}), receipts.get(row.order_id, [])) for row in rows]


def _view(row: OrderRow, payments: dict[PaymentKey, Payment], receipts: Sequence[Event]) -> OrderView:
    return OrderView(
        order_id=row.order_id,
        status=row.status,
        amount=row.amount_kopecks,
        review=row.review,
        payments=[
            PaymentView(
                payment_id=payment_id,
                terminal_key=terminal_key,
                status=payment.status,
                amount=payment.amount_kopecks,
                review=payment.review,
            )
            for (terminal_key, payment_id), payment in sorted(payments.items())
        ],
        receipts=[
            ReceiptView(
                payment_id=event.payment_id,
                type=event.details.get("Type"),
                url=event.details.get("Url"),
                amount=event.amount_kopecks,
            )
            for event in receipts
            if event.kind is EventKind.RECEIPT
        ],
        version=row.version,
        registered_at=row.registered_at_ms,
        updated_at=row.updated_at_ms,
    )
