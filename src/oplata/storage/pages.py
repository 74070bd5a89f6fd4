"""Pages of long tables, newest first, each of them found by looking through so many rows and no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, RowMapping, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from oplata.storage.session import Session

T = TypeVar("T")
S = TypeVar("S")

LOOKED_THROUGH = 20_000
"""So many rows are looked at for one page, where no index leads to those that are wanted."""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """Some rows. ``behind`` is the place after which there may be more of them, and None where there are none."""

    rows: list[T]
    behind: tuple[Any, ...] | None

    def each(self, make: Callable[[T], S]) -> Found[S]:
        """The same, with what is made of each row."""
        return Found([make(row) for row in self.rows], self.behind)


async def newest(
    session: Session,
    columns: Sequence[Column[Any]],
    place: Sequence[Column[Any]],
    *,
    along: Sequence[ColumnElement[bool]] = (),
    besides: Sequence[ColumnElement[bool]] = (),
    before: Sequence[Any] | None,
    limit: int,
) -> Found[RowMapping]:
    """The last ``limit`` rows by their ``place`` for which all these conditions hold, of those ``before`` a place.

    ``along`` are conditions to whose rows an index leads. For ``besides`` there is none: of the rows before them, so
    many are looked through, and a page may be short, or empty, with more behind it. ``columns`` contain the place.
    """
    conditions = list(along)
    order = [col.desc() for col in place]
    if before is not None:
        conditions.append(tuple_(*place) < tuple(before))
    edge = None
    if besides:
        last = select(*place).where(*conditions).order_by(*order).offset(LOOKED_THROUGH - 1).limit(1)
        edge = (await session.execute(last)).first()
        if edge is not None:
            conditions.append(tuple_(*place) >= tuple(edge))
    statement = select(*columns).where(*conditions, *besides).order_by(*order).limit(limit + 1)
    rows = list((await session.execute(statement)).mappings())
    if len(rows) > limit:
        return Found(rows[:limit], tuple(rows[limit - 1][col.name] for col in place))
    return Found(rows, None if edge is None else tuple(edge))
