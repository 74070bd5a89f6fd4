"""The change log: what every order became, written in the transaction that changed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Executable, Select, func, insert, select, true

from oplata.storage.session import Session, built_once
from oplata.storage.tables import changes, orders

_COLUMNS = tuple(col for col in changes.c if col.name not in ("id", "handled", "traceparent"))
_WRITTEN = (*_COLUMNS, changes.c.traceparent)
_NAMES = [col.name for col in _COLUMNS]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """An order's state after a change; ``version`` counts the order's changes from 1 without a gap."""

    order_id: str
    version: int
    status: str
    previous_status: str | None
    amount_kopecks: int | None
    review: str | None
    changed_at_ms: int


class ChangeLog:
    """Reads and writes ``changes``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.traces: Mapping[str, str] = {}
        """The trace of each order's callback, by order; whoever traces sets it before the changes are appended."""

    async def append(self, told: Sequence[Change], *, handled: bool = False) -> None:
        """Add these to the end. Nothing else is locked after this; the transaction commits next.

        ``handled`` says that the shop's handlers ran for them in this transaction; for others they are run later.
        """
        if not told:
            return
        # A number taken from a sequence becomes visible when its transaction commits, and those commit in any order:
        # a reader that remembers the last number it saw would skip the late ones. One lock, held from here to the
        # commit, makes the order of the numbers the order of the commits.
        written = [(*msgspec.structs.astuple(each), self.traces.get(each.order_id)) for each in told]
        statement = self._appending_handled() if handled else self._appending()
        await self._session.execute(statement, self._session.bind(_WRITTEN, written))

    @built_once
    def _appending(self) -> Executable:
        given = self._session.source(_WRITTEN)
        return insert(changes).from_select(list(given.c.keys()), self._session.with_change_log(given))

    @built_once
    def _appending_handled(self) -> Executable:
        given = self._session.source(_WRITTEN)
        rows = self._session.with_change_log(given).add_columns(true())
        return insert(changes).from_select([*given.c.keys(), changes.c.handled.name], rows)

    async def traceparents(self, ids: Sequence[int]) -> dict[int, str]:
        """The traces that these changes belong to; a change without one is absent."""
        traced = changes.c.traceparent.is_not(None)
        statement = select(changes.c.id, changes.c.traceparent).where(changes.c.id.in_(list(ids)), traced)
        return {row["id"]: row["traceparent"] for row in (await self._session.execute(statement)).mappings()}

    async def of_orders(self, order_ids: Sequence[str]) -> dict[str, list[tuple[int, Change]]]:
        """All that was told of each of these orders, with the ids, by version; one of which nothing was is absent."""
        wanted = self._session.source((changes.c.order_id,))
        statement = (
            select(changes.c.id, *_COLUMNS)
            .join(wanted, changes.c.order_id == wanted.c.order_id)
            .order_by(changes.c.order_id, changes.c.version)
        )
        bound = self._session.bind((changes.c.order_id,), [(order_id,) for order_id in order_ids])
        found: dict[str, list[tuple[int, Change]]] = {}
        for row in (await self._session.execute(statement, bound)).mappings():
            change = Change(**{name: row[name] for name in _NAMES})
            found.setdefault(change.order_id, []).append((row["id"], change))
        return found

    async def orphans(self, last_id: int, *, limit: int) -> tuple[int | None, list[str]]:
        """Of the changes after this id: the id of the page's last one (None at the end), and orders without a row."""
        statement = (
            select(changes.c.id, changes.c.order_id, orders.c.order_id.label("row"))
            .outerjoin(orders, orders.c.order_id == changes.c.order_id)
            .where(changes.c.id > last_id)
            .order_by(changes.c.id)
            .limit(limit)
        )
        rows = (await self._session.execute(statement)).mappings().all()
        return (rows[-1]["id"] if rows else None), [row["order_id"] for row in rows if row["row"] is None]

    async def after(self, last_id: int, *, limit: int, order_id: str | None = None) -> list[tuple[int, Change]]:
        """The changes after this id with their ids, oldest first; of one order, or of all."""
        statement = select(changes.c.id, *_COLUMNS).where(changes.c.id > last_id)
        if order_id is not None:
            statement = statement.where(changes.c.order_id == order_id)
        return await self._told(statement.order_by(changes.c.id).limit(limit))

    async def newest(self, *, limit: int) -> list[tuple[int, Change]]:
        """The last changes with their ids, oldest first."""
        return (await self._told(select(changes.c.id, *_COLUMNS).order_by(changes.c.id.desc()).limit(limit)))[::-1]

    async def last_id(self) -> int:
        """The id of the last change; 0 before the first one."""
        return int((await self._session.execute(select(func.coalesce(func.max(changes.c.id), 0)))).scalar_one())

    async def last_id_before(self, at_ms: int) -> int:
        """The id that precedes the first change of this time or later; the last one when there is none."""
        first = select(func.min(changes.c.id)).where(changes.c.changed_at_ms >= at_ms)
        found = (await self._session.execute(first)).scalar_one()
        return await self.last_id() if found is None else int(found) - 1

    async def _told(self, statement: Select[Any]) -> list[tuple[int, Change]]:
        rows = await self._session.execute(statement)
        return [(row[0], Change(**dict(zip(_NAMES, row[1:], strict=True)))) for row in rows]
