"""Payments: the joined evidence of each, and what follows from it in columns that can be searched."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Executable, and_, false, select, update

from oplata.domain.payment import Evidence, Payment, PaymentKey, conclude
from oplata.errors import DataRejected
from oplata.storage.rows import as_json
from oplata.storage.session import Session, built_once
from oplata.storage.tables import payments

_KEY = (payments.c.terminal_key, payments.c.payment_id)
_NEW = (*_KEY, payments.c.status, payments.c.evidence, payments.c.created_at_ms, payments.c.updated_at_ms)
_STATE = (
    *_KEY,
    payments.c.order_id,
    payments.c.status,
    payments.c.amount_kopecks,
    payments.c.review,
    payments.c.evidence,
    payments.c.updated_at_ms,
)
_WHOLE = (*_STATE[:-1], payments.c.created_at_ms, payments.c.updated_at_ms)


PAYMENT_COLUMNS = "terminal_key payment_id order_id status amount_kopecks review evidence"
"""What ``as_columns`` makes."""


class Held(msgspec.Struct, frozen=True):
    """What is known of a payment: the evidence, what it amounts to, and the text that it is stored as."""

    evidence: Evidence
    payment: Payment
    text: str


def held(evidence: Evidence) -> Held:
    """All that follows from this evidence, which holds at least one status."""
    return Held(evidence, conclude(evidence), as_json(evidence))


class Payments:
    """Reads and writes ``payments``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def lock(self, told: Mapping[PaymentKey, Held], at_ms: int) -> dict[PaymentKey, Evidence]:
        """Hold these payments until the transaction ends; new ones are stored with the evidence that is told of them.

        Returns the evidence of the others, as it stood. Whoever locks several locks them in ascending order, so nobody
        deadlocks.
        """
        if not told:
            return {}
        keys = sorted(told)
        rows = [(*key, *_columns(told[key]), at_ms, at_ms) for key in keys]
        fresh: Any = await self._session.execute(self._holding(), self._session.bind(_WHOLE, rows))
        inserted = {tuple(row) for row in fresh}
        return await self.read([key for key in keys if key not in inserted])

    async def read(self, keys: Sequence[PaymentKey]) -> dict[PaymentKey, Evidence]:
        """The evidence of these payments, which are locked."""
        if not keys:
            return {}
        stood: Any = await self._session.execute(self._reading(), self._session.bind(_KEY, keys))
        return {(row[0], row[1]): decoded(row[2]) for row in stood}

    @built_once
    def _holding(self) -> Executable:
        given = self._session.source(_WHOLE)
        insert = self._session.insert(payments)
        # An update that changes no row locks every row that it met; what comes back are those that were inserted.
        return (
            insert.from_select(list(given.c.keys()), self._session.every(given))
            .on_conflict_do_update(index_elements=list(_KEY), set_={"status": payments.c.status}, where=false())
            .returning(*_KEY)
        )

    @built_once
    def _reading(self) -> Executable:
        wanted = self._session.source(_KEY)
        return select(*_KEY, payments.c.evidence).join(wanted, and_(*(col == wanted.c[col.name] for col in _KEY)))

    async def create(self, keys: Sequence[PaymentKey], at_ms: int) -> None:
        """Give each of these that has no row one, without evidence. ``keys`` are distinct and ascending."""
        given = self._session.source(_NEW)
        fresh = (
            self._session.insert(payments)
            .from_select(list(given.c.keys()), self._session.every(given))
            .on_conflict_do_nothing(index_elements=list(_KEY))
        )
        nothing = as_json(Evidence())
        await self._session.execute(
            fresh, self._session.bind(_NEW, [(*key, "NEW", nothing, at_ms, at_ms) for key in keys])
        )

    async def save(self, changed: Mapping[PaymentKey, Held], at_ms: int) -> None:
        """Store the evidence of payments that are locked, and all that follows from it."""
        if not changed:
            return
        rows = [(*key, *_columns(changed[key]), at_ms) for key in sorted(changed)]
        await self._session.execute(self._saving(), self._session.bind(_STATE, rows))

    @built_once
    def _saving(self) -> Executable:
        given = self._session.source(_STATE)
        return (
            update(payments)
            .values({col.name: given.c[col.name] for col in _STATE[len(_KEY) :]})
            .where(and_(*(col == given.c[col.name] for col in _KEY)))
        )

    async def of_orders(
        self, order_ids: Sequence[str], besides: Container[PaymentKey] = ()
    ) -> dict[str, dict[PaymentKey, Payment]]:
        """The payments that belong to each of these orders, but for some; an order without any is absent."""
        found: dict[str, dict[PaymentKey, Payment]] = {}
        bound = self._session.bind((payments.c.order_id,), [(order_id,) for order_id in order_ids])
        rows: Any = await self._session.execute(self._of_orders(), bound)
        for terminal_key, payment_id, text in rows:
            key = (terminal_key, payment_id)
            if key not in besides:
                payment = conclude(decoded(text))
                found.setdefault(str(payment.order_id), {})[key] = payment
        return found

    @built_once
    def _of_orders(self) -> Executable:
        wanted = self._session.source((payments.c.order_id,))
        return (
            select(*_KEY, payments.c.evidence)
            .join(wanted, payments.c.order_id == wanted.c.order_id)
            .order_by(payments.c.order_id, *_KEY)
        )


def as_columns(known: Mapping[PaymentKey, Held]) -> list[Sequence[str | None]]:
    """Payments as columns of texts, for PostgreSQL's own statements."""
    concluded = [held.payment for held in known.values()]
    return [
        [key[0] for key in known],
        [key[1] for key in known],
        [payment.order_id for payment in concluded],
        [payment.status for payment in concluded],
        [None if payment.amount_kopecks is None else str(payment.amount_kopecks) for payment in concluded],
        [payment.review for payment in concluded],
        [held.text for held in known.values()],
    ]


def _columns(known: Held) -> tuple[object, ...]:
    payment = known.payment
    return (payment.order_id, payment.status, payment.amount_kopecks, payment.review, known.text)


_DECODER = msgspec.json.Decoder(Evidence)


def decoded(text: str) -> Evidence:
    """The evidence that is stored as this text. Raises ``DataRejected``."""
    try:
        return _DECODER.decode(text)
    except msgspec.MsgspecError:
        raise DataRejected("a payment's stored evidence cannot be read: run `oplata replay`") from None
