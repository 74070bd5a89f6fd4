"""Orders: what the shop registered, and what the payments made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Executable, exists, func, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from oplata.domain.status import OrderStatus
from oplata.storage.pages import Found, newest
from oplata.storage.rows import Relation, stated
from oplata.storage.session import Session, built_once
from oplata.storage.tables import orders, payments

_NEW = (orders.c.order_id, orders.c.status, orders.c.version, orders.c.created_at_ms, orders.c.updated_at_ms)
_STATE = (orders.c.order_id, orders.c.status, orders.c.review, orders.c.version, orders.c.updated_at_ms)
_ALL = tuple(orders.c)


# As with the payments in ``intake``: an update that changes no row locks every row that it met, in the order of the
# keys, and the rows that were there are read after that, each at its newest version.
def _holding(relation: Relation) -> str:
    return f"""
WITH {relation("wanted", "order_id", 3)},
made AS (
    INSERT INTO orders (order_id, status, version, created_at_ms, updated_at_ms)
    SELECT order_id, $5::text, 0, $6::bigint, $6 FROM wanted ORDER BY n
    ON CONFLICT (order_id) DO UPDATE SET version = orders.version WHERE false
    RETURNING order_id
)
SELECT wanted.order_id, known.amount_kopecks, known.status, known.review, known.version, known.registered_at_ms,
    known.created_at_ms, known.updated_at_ms, made.order_id IS NOT NULL AS made
FROM wanted LEFT JOIN made ON made.order_id = wanted.order_id
LEFT JOIN LATERAL (
    SELECT orders.* FROM orders WHERE orders.order_id = wanted.order_id AND made.order_id IS NULL
    FOR NO KEY UPDATE OFFSET 0
) AS known ON true
"""  # noqa: S608  Names and places, and all of them are ours.


_HOLDING = stated(_holding)


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it is stored. ``amount_kopecks`` is None while payments name it and the shop has not."""

    order_id: str
    amount_kopecks: int | None
    status: str
    review: str | None
    version: int
    registered_at_ms: int | None
    created_at_ms: int
    updated_at_ms: int


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders: all of what is given must hold. Times bound the creation, from the first up to the second.

    ``review`` asks for those that a person must look at, or for the others; ``text`` stands in the id, anywhere.
    """

    status: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    review: bool | None = None
    text: str | None = None


class Orders:
    """Reads and writes ``orders``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def lock(self, order_ids: Sequence[str], at_ms: int) -> dict[str, OrderRow]:
        """Hold these orders until the transaction ends; one that is not known yet gets a row without an amount.

        That row is what a registration and a callback, at the same moment, meet at: without it each would miss the
        other. ``order_ids`` are distinct and ascending.
        """
        if self._session.dialect == "postgresql":
            return await self._lock_at_once(order_ids, at_ms)
        rows = [(order_id, OrderStatus.UNREGISTERED.value, 0, at_ms, at_ms) for order_id in order_ids]
        await self._session.execute(self._making(), self._session.bind(_NEW, rows))
        bound = self._session.bind((orders.c.order_id,), [(order_id,) for order_id in order_ids])
        found: Any = await self._session.execute(self._holding(), bound)
        return {row[0]: _order(row) for row in found}

    async def _lock_at_once(self, order_ids: Sequence[str], at_ms: int) -> dict[str, OrderRow]:
        rows = await self._session.ask(*_HOLDING.over([order_ids]), OrderStatus.UNREGISTERED.value, at_ms)
        held: dict[str, OrderRow] = {}
        unseen: list[str] = []
        for row in rows:
            if row[2] is not None:
                held[row[0]] = _order(row)
            elif row[8]:
                held[row[0]] = unregistered(row[0], at_ms)
            else:
                unseen.append(row[0])
        # These were made by a transaction that was committed after the statement had begun.
        return held | await self.some(unseen) if unseen else held

    @built_once
    def _making(self) -> Executable:
        given = self._session.source(_NEW)
        return (
            self._session.insert(orders)
            .from_select(list(given.c.keys()), self._session.every(given))
            .on_conflict_do_nothing(index_elements=[orders.c.order_id])
        )

    @built_once
    def _holding(self) -> Executable:
        wanted = self._session.source((orders.c.order_id,))
        return (
            select(*_ALL)
            .join(wanted, orders.c.order_id == wanted.c.order_id)
            .order_by(orders.c.order_id)
            .with_for_update(of=orders)
        )

    async def register(self, order_id: str, amount_kopecks: int, at_ms: int) -> None:
        """Give a locked order that has no amount its amount."""
        await self._session.execute(
            update(orders)
            .where(orders.c.order_id == order_id, orders.c.amount_kopecks.is_(None))
            .values(amount_kopecks=amount_kopecks, registered_at_ms=at_ms, updated_at_ms=at_ms)
        )

    async def save(self, changed: Mapping[str, OrderRow]) -> None:
        """Store status, review, version and time of locked orders."""
        if not changed:
            return
        rows = [
            (row.order_id, row.status, row.review, row.version, row.updated_at_ms) for _, row in sorted(changed.items())
        ]
        await self._session.execute(self._saving(), self._session.bind(_STATE, rows))

    @built_once
    def _saving(self) -> Executable:
        given = self._session.source(_STATE)
        return (
            update(orders)
            .values({col.name: given.c[col.name] for col in _STATE[1:]})
            .where(orders.c.order_id == given.c.order_id)
        )

    async def count_unregistered(self, *, limit: int) -> int:
        """How many orders only payments name; counted in the index, and no further than to ``limit``."""
        found = select(orders.c.order_id).where(orders.c.status == OrderStatus.UNREGISTERED.value).limit(limit)
        return int((await self._session.execute(select(func.count()).select_from(found.subquery()))).scalar_one())

    async def get(self, order_id: str) -> OrderRow | None:
        """The order, also one that only payments name; or None."""
        rows = await self._session.execute(select(*_ALL).where(orders.c.order_id == order_id))
        return next((OrderRow(**row) for row in rows.mappings()), None)

    async def page(self, after: str, *, changed_from_ms: int | None, limit: int) -> list[OrderRow]:
        """The next orders by id, of those that were changed, or a payment of theirs, at this time or later."""
        statement = select(*_ALL).where(orders.c.order_id > after).order_by(orders.c.order_id).limit(limit)
        if changed_from_ms is not None:
            paid = exists().where(payments.c.order_id == orders.c.order_id, payments.c.updated_at_ms >= changed_from_ms)
            statement = statement.where(or_(orders.c.updated_at_ms >= changed_from_ms, paid))
        return [OrderRow(**row) for row in (await self._session.execute(statement)).mappings()]

    async def some(self, order_ids: Sequence[str]) -> dict[str, OrderRow]:
        """Those of these orders that have a row."""
        wanted = self._session.source((orders.c.order_id,))
        statement = select(*_ALL).join(wanted, orders.c.order_id == wanted.c.order_id)
        bound = self._session.bind((orders.c.order_id,), [(order_id,) for order_id in order_ids])
        return {row["order_id"]: OrderRow(**row) for row in (await self._session.execute(statement, bound)).mappings()}

    async def search(self, wanted: Filter, *, limit: int, before: tuple[Any, ...] | None) -> Found[OrderRow]:
        """These orders by creation, newest first; ``before`` is the place of the last one of the page before."""
        table = orders.c
        along: list[ColumnElement[bool]] = []
        besides: list[ColumnElement[bool]] = []
        if wanted.status is not None:
            along.append(table.status == wanted.status)
        if wanted.since_ms is not None:
            along.append(table.created_at_ms >= wanted.since_ms)
        if wanted.until_ms is not None:
            along.append(table.created_at_ms < wanted.until_ms)
        if wanted.review:
            along.append(table.review.is_not(None))  # These have an index of their own.
        elif wanted.review is not None:
            besides.append(table.review.is_(None))
        if wanted.text:
            besides.append(self._session.contains(table.order_id, wanted.text))
        place = (table.created_at_ms, table.order_id)
        found = await newest(self._session, _ALL, place, along=along, besides=besides, before=before, limit=limit)
        return found.each(lambda row: OrderRow(**row))


def _order(row: Sequence[Any]) -> OrderRow:
    return OrderRow(
        order_id=row[0],
        amount_kopecks=row[1],
        status=row[2],
        review=row[3],
        version=row[4],
        registered_at_ms=row[5],
        created_at_ms=row[6],
        updated_at_ms=row[7],
    )


def unregistered(order_id: str, at_ms: int) -> OrderRow:
    """The row of an order that was not known before."""
    return OrderRow(
        order_id=order_id,
        amount_kopecks=None,
        status=OrderStatus.UNREGISTERED.value,
        review=None,
        version=0,
        registered_at_ms=None,
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
    )
