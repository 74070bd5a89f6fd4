"""The projection as it lies in the table, read without trust: for proving it against the events, and for mending it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import RowMapping, and_, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from oplata.domain.events import Event, EventKind
from oplata.domain.payment import Evidence, Payment, PaymentKey, conclude, fold
from oplata.storage.pages import Found, newest
from oplata.storage.session import Session
from oplata.storage.tables import events, payments

Place = tuple[int, str, str]
"""Where a payment stands in the list: when its row was made, terminal key, payment id."""

_KEY = (payments.c.terminal_key, payments.c.payment_id)
_STATE = (
    *_KEY,
    payments.c.order_id,
    payments.c.status,
    payments.c.amount_kopecks,
    payments.c.review,
    payments.c.evidence,
)
_LISTED = (*_STATE, payments.c.created_at_ms, payments.c.updated_at_ms)


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``payments``, but for its times. ``evidence`` is None where the column holds none that can be read."""

    order_id: str | None
    status: str
    amount_kopecks: int | None
    review: str | None
    evidence: Evidence | None

    def payment(self) -> Payment | None:
        """What the stored evidence amounts to; None where it cannot be read."""
        return None if self.evidence is None else conclude(self.evidence)


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A payment with its times, for a list."""

    key: PaymentKey
    stored: Stored
    created_at_ms: int
    updated_at_ms: int


def projected(evidence: Evidence) -> Stored:
    """The row that this evidence ought to have."""
    payment = conclude(evidence)
    return Stored(
        order_id=payment.order_id,
        status=payment.status,
        amount_kopecks=payment.amount_kopecks,
        review=payment.review,
        evidence=evidence,
    )


def refolded(keys: Iterable[PaymentKey], told: Mapping[PaymentKey, Sequence[Event]]) -> dict[PaymentKey, Evidence]:
    """The evidence of each payment from nothing but its events."""
    return {key: fold(told.get(key, ())) for key in keys}


class Projection:
    """Reads ``payments`` column by column; ``Payments`` reads the evidence alone and relies on it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, keys: Sequence[PaymentKey], *, lock: bool = False) -> dict[PaymentKey, Stored]:
        """These payments, ascending keys; one without a row is absent. ``lock`` holds them until the end."""
        wanted = self._session.source(_KEY)
        statement = select(*_STATE).join(wanted, and_(*(col == wanted.c[col.name] for col in _KEY))).order_by(*_KEY)
        if lock:
            statement = statement.with_for_update(of=payments)
        rows = (await self._session.execute(statement, self._session.bind(_KEY, keys))).mappings()
        return {_key(row): _stored(row) for row in rows}

    async def page(
        self, after: PaymentKey | None, *, changed_from_ms: int | None, limit: int
    ) -> dict[PaymentKey, Stored]:
        """The next payments by key, of those that were last changed at this time or later."""
        statement = select(*_STATE).order_by(*_KEY).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*_KEY) > after)
        if changed_from_ms is not None:
            statement = statement.where(payments.c.updated_at_ms >= changed_from_ms)
        return {_key(row): _stored(row) for row in (await self._session.execute(statement)).mappings()}

    async def search(
        self, *, order_id: str | None, status: str | None, review: bool | None, limit: int, before: Place | None
    ) -> Found[Listed]:
        """The newest of these payments; ``before`` is the place of the last one of the page before."""
        table = payments.c
        besides: list[ColumnElement[bool]] = []
        if status is not None:
            besides.append(table.status == status)
        if review is not None:
            besides.append(table.review.is_not(None) if review else table.review.is_(None))
        found = await newest(
            self._session,
            _LISTED,
            (table.created_at_ms, *_KEY),
            along=() if order_id is None else (table.order_id == order_id,),
            besides=besides,
            before=before,
            limit=limit,
        )
        return found.each(_listed)

    async def one(self, key: PaymentKey) -> Listed | None:
        """One payment with its times, or None."""
        statement = select(*_LISTED).where(payments.c.terminal_key == key[0], payments.c.payment_id == key[1])
        rows = (await self._session.execute(statement)).mappings()
        return next((_listed(row) for row in rows), None)

    async def of_orders(self, order_ids: Sequence[str]) -> dict[str, dict[PaymentKey, Stored]]:
        """The payments whose row names one of these orders; an order without any is absent."""
        wanted = self._session.source((payments.c.order_id,))
        statement = (
            select(*_STATE).join(wanted, payments.c.order_id == wanted.c.order_id).order_by(payments.c.order_id, *_KEY)
        )
        bound = self._session.bind((payments.c.order_id,), [(order_id,) for order_id in order_ids])
        found: dict[str, dict[PaymentKey, Stored]] = {}
        for row in (await self._session.execute(statement, bound)).mappings():
            found.setdefault(row["order_id"], {})[_key(row)] = _stored(row)
        return found

    async def keys_of_orders(self, order_ids: Sequence[str]) -> set[PaymentKey]:
        """Every payment that an event or its own row ties to one of these orders."""
        rows = await self.of_orders(order_ids)
        wanted = self._session.source((events.c.order_id,))
        statement = (
            select(events.c.terminal_key, events.c.payment_id)
            .distinct()
            .join(wanted, events.c.order_id == wanted.c.order_id)
            .where(events.c.payment_id.is_not(None), events.c.kind == EventKind.PAYMENT.value)
        )
        bound = self._session.bind((events.c.order_id,), [(order_id,) for order_id in order_ids])
        named = (await self._session.execute(statement, bound)).mappings()
        return {key for keys in rows.values() for key in keys} | {_key(row) for row in named}


def _key(row: RowMapping) -> PaymentKey:
    return str(row["terminal_key"]), str(row["payment_id"])


def _listed(row: RowMapping) -> Listed:
    return Listed(
        key=_key(row), stored=_stored(row), created_at_ms=row["created_at_ms"], updated_at_ms=row["updated_at_ms"]
    )


def _stored(row: RowMapping) -> Stored:
    amount = row["amount_kopecks"]
    return Stored(
        order_id=_text(row["order_id"]),
        status=str(row["status"]),
        amount_kopecks=amount if isinstance(amount, int) else None,
        review=_text(row["review"]),
        evidence=_evidence(str(row["evidence"])),
    )


def _evidence(text: str) -> Evidence | None:
    try:
        evidence = msgspec.json.decode(text, type=Evidence)
        conclude(evidence)
    except (msgspec.MsgspecError, KeyError):  # Not JSON, not of the shape, or a status that is none.
        return None
    return evidence


def _text(value: object) -> str | None:
    return None if value is None else str(value)
