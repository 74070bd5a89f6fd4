"""Payments, whichever order they are of."""

from __future__ import annotations

import msgspec

from oplata.domain.events import Event
from oplata.errors import NotFound
from oplata.orders.paging import Page, page_of, place_of, within
from oplata.storage.engine import Database
from oplata.storage.projection import Listed, Place


class PaymentLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One payment of a list. ``amount`` is the current one in kopecks, null where the bank gave none."""

    terminal_key: str
    payment_id: str
    order_id: str | None
    status: str
    amount: int | None
    review: str | None
    created_at: int
    updated_at: int


class Fact(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something that the bank told of a payment; ``callback`` is the id of the callback that said it first."""

    callback: str
    status: str
    success: bool | None
    amount: int | None


class PaymentPage(PaymentLine, frozen=True, kw_only=True, rename="camel"):
    """A payment with everything that the bank told of it, in no order: the bank promises none."""

    facts: list[Fact]


class Payments:
    """The payments in this database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        *,
        order_id: str | None = None,
        status: str | None = None,
        review: bool | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[PaymentLine]:
        """The newest of these payments. Raises ``OrderError`` for a wrong cursor."""
        place = place_of(cursor, Place)
        async with self._database.unit_of_work(read_only=True) as uow:
            found = await uow.projection.search(
                order_id=order_id, status=status, review=review, limit=within(limit), before=place
            )
        return page_of([_line(each) for each in found.rows], found.behind)

    async def get(self, payment_id: str, terminal_key: str) -> PaymentPage:
        """One payment. Raises ``NotFound``."""
        key = (terminal_key, payment_id)
        async with self._database.unit_of_work(read_only=True) as uow:
            found = await uow.projection.one(key)
            told = await uow.events.of_payments([key])
        if found is None:
            raise NotFound(f"there is no payment {payment_id} of terminal {terminal_key}")
        return PaymentPage(**msgspec.structs.asdict(_line(found)), facts=[_fact(each) for each in told.get(key, [])])


def _line(listed: Listed) -> PaymentLine:
    (terminal_key, payment_id), stored = listed.key, listed.stored
    return PaymentLine(
        terminal_key=terminal_key,
        payment_id=payment_id,
        order_id=stored.order_id,
        status=stored.status,
        amount=stored.amount_kopecks,
        review=stored.review,
        created_at=listed.created_at_ms,
        updated_at=listed.updated_at_ms,
    )


def _fact(event: Event) -> Fact:
    return Fact(callback=event.digest, status=event.status, success=event.success, amount=event.amount_kopecks)
