"""What the verdict over an order rests on: its payments, and what somebody with a key said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from oplata.domain.payment import Payment, PaymentKey, conclude
from oplata.domain.status import OrderStatus
from oplata.storage.payments import Payments, decoded
from oplata.storage.rows import Relation, stated
from oplata.storage.session import Session
from oplata.storage.words import Words, status_of, status_said


# A sub-select with an OFFSET is run once for each order, by the index, however many payments there are.
def _reading(relation: Relation) -> str:
    return f"""
WITH {relation("wanted", "order_id", 3)}
SELECT wanted.order_id, found.terminal_key, found.payment_id, found.evidence FROM wanted CROSS JOIN LATERAL (
    SELECT terminal_key, payment_id, evidence FROM payments WHERE payments.order_id = wanted.order_id OFFSET 0
) AS found
UNION ALL
SELECT wanted.order_id, NULL, NULL, found.status FROM wanted CROSS JOIN LATERAL (
    SELECT status FROM words WHERE words.order_id = wanted.order_id OFFSET 0
) AS found
"""  # noqa: S608  Names and places, and all of them are ours.


_READING = stated(_reading)


class Basis(msgspec.Struct, frozen=True):
    """Both by order; one without payments, or of which nothing was said, is absent."""

    payments: dict[str, dict[PaymentKey, Payment]]
    words: dict[str, OrderStatus | None]


class Grounds:
    """Reads ``payments`` and ``words`` of orders that were locked in a statement before."""

    def __init__(self, session: Session, payments: Payments, words: Words) -> None:
        self._session = session
        self._payments = payments
        self._words = words

    async def of_orders(self, order_ids: Sequence[str], mine: Mapping[PaymentKey, Payment]) -> Basis:
        """What these orders rest on. ``mine`` are payments that this transaction holds, and perhaps has yet to save."""
        if self._session.dialect == "postgresql":
            basis = await self._at_once(order_ids, mine)
        else:
            words = await self._words.of_orders(order_ids)
            others = await self._payments.of_orders(order_ids, besides=mine)
            basis = Basis(others, {key: status_of(words[key]) for key in words})
        wanted = frozenset(order_ids)
        for key, payment in mine.items():
            if payment.order_id in wanted:
                basis.payments.setdefault(payment.order_id, {})[key] = payment
        return basis

    async def _at_once(self, order_ids: Sequence[str], mine: Mapping[PaymentKey, Payment]) -> Basis:
        basis = Basis({}, {})
        for order_id, terminal_key, payment_id, told in await self._session.ask(*_READING.over([order_ids])):
            if terminal_key is None:
                basis.words[order_id] = status_said(told)
            elif (key := (terminal_key, payment_id)) not in mine:
                basis.payments.setdefault(order_id, {})[key] = conclude(decoded(told))
        return basis
