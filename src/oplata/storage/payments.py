"""Payments: the joined evidence of each, and what follows from it in columns that can be searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Executable, and_, false, select, update

from oplata.domain.payment import Evidence, Payment, PaymentKey, conclude
from oplata.errors import DataRejected
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


class Payments:
    """Reads and writes ``payments``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def lock(self, told: Mapping[PaymentKey, Evidence], at_ms: int) -> dict[PaymentKey, Evidence]:
        """Hold these payments until the transaction ends; new ones are stored with the evidence that is told of them.

        Returns the evidence of the others, as it stood. Whoever locks several locks them in ascending order, so nobody
        deadlocks.
        """
        keys = sorted(told)
        rows = [(*key, *_columns(told[key]), at_ms, at_ms) for key in keys]
        fresh: Any = await self._session.execute(self._holding(), self._session.bind(_WHOLE, rows))
        inserted = {tuple(row) for row in fresh}
        known = [key for key in keys if key not in inserted]
        if not known:
            return {}
        stood: Any = await self._session.execute(self._reading(), self._session.bind(_KEY, known))
        return {(row[0], row[1]): _decode(row[2]) for row in stood}

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
        nothing = _encode(Evidence())
        await self._session.execute(
            fresh, self._session.bind(_NEW, [(*key, "NEW", nothing, at_ms, at_ms) for key in keys])
        )

    async def save(self, evidence: Mapping[PaymentKey, Evidence], at_ms: int) -> None:
        """Store the evidence of payments that are locked, and all that follows from it."""
        if not evidence:
            return
        rows = [(*key, *_columns(evidence[key]), at_ms) for key in sorted(evidence)]
        await self._session.execute(self._saving(), self._session.bind(_STATE, rows))

    @built_once
    def _saving(self) -> Executable:
        given = self._session.source(_STATE)
        return (
            update(payments)
            .values({col.name: given.c[col.name] for col in _STATE[len(_KEY) :]})
            .where(and_(*(col == given.c[col.name] for col in _KEY)))
        )

    async def of_orders(self, order_ids: Sequence[str]) -> dict[str, dict[PaymentKey, Payment]]:
        """The payments that belong to each of these orders; an order without any is absent."""
        found: dict[str, dict[PaymentKey, Payment]] = {}
        bound = self._session.bind((payments.c.order_id,), [(order_id,) for order_id in order_ids])
        rows: Any = await self._session.execute(self._of_orders(), bound)
        for row in rows:
            payment = conclude(_decode(row[2]))
            found.setdefault(str(payment.order_id), {})[row[0], row[1]] = payment
        return found

    @built_once
    def _of_orders(self) -> Executable:
        wanted = self._session.source((payments.c.order_id,))
        return (
            select(*_KEY, payments.c.evidence)
            .join(wanted, payments.c.order_id == wanted.c.order_id)
            .order_by(payments.c.order_id, *_KEY)
        )


def _columns(evidence: Evidence) -> tuple[object, ...]:
    payment = conclude(evidence)
    return (payment.order_id, payment.status, payment.amount_kopecks, payment.review, _encode(evidence))


def _encode(evidence: Evidence) -> str:
    return msgspec.json.encode(evidence).decode()


_DECODER = msgspec.json.Decoder(Evidence)


def _decode(text: str) -> Evidence:
    try:
        return _DECODER.decode(text)
    except msgspec.MsgspecError:
        raise DataRejected("a payment's stored evidence cannot be read: run `oplata replay`") from None
