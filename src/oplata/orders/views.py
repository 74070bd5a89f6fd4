"""Orders as the shop sees them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from oplata.domain.events import Event, EventKind
from oplata.domain.payment import Payment, PaymentKey
from oplata.storage.orders import OrderRow
from oplata.storage.unit_of_work import UnitOfWork
from oplata.storage.words import Word


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


class WordView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What somebody with a key said of an order, beside what its payments make of it."""

    status: str
    said_by: str
    said_why: str | None
    said_at: int


class OrderView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An order as the shop sees it. Amounts are kopecks; times are milliseconds since the Unix epoch.

    ``review`` says why a person must look at the order, and is null for most. ``version`` counts its changes. ``word``
    is a status that was said by hand or by another program, and null where only the bank spoke.
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
    word: WordView | None = None


def for_buyer(view: OrderView) -> OrderView:
    """The order without what is the shop's own business."""
    payments = [msgspec.structs.replace(payment, review=None) for payment in view.payments]
    return msgspec.structs.replace(view, review=None, word=None, payments=payments)


async def views_of(uow: UnitOfWork, rows: Sequence[OrderRow]) -> list[OrderView]:
    """These orders with all that belongs to them."""
    if not rows:
        return []
    ids = [row.order_id for row in rows]
    payments = await uow.payments.of_orders(ids)
    receipts = await uow.events.receipts_of(ids)
    words = await uow.words.of_orders(ids)
    return [
        _view(row, payments.get(row.order_id, {}), receipts.get(row.order_id, []), words.get(row.order_id))
        for row in rows
    ]


def _view(
    row: OrderRow, payments: dict[PaymentKey, Payment], receipts: Sequence[Event], word: Word | None
) -> OrderView:
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
        word=None
        if word is None
        else WordView(status=word.status, said_by=word.said_by, said_why=word.said_why, said_at=word.said_at_ms),
    )
