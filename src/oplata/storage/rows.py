"""A batch of rows as one FROM clause and one set of parameters, so that a statement works on any number of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import (
    ARRAY,
    Column,
    FromClause,
    LargeBinary,
    Select,
    bindparam,
    cast,
    column,
    func,
    select,
    type_coerce,
)
from sqlalchemy.sql.elements import ColumnElement

_NAME = "input"
_LARGEST_BITS = 63
_PRIVATE_USE = ((0xE000, 0xF8FF), (0xF0000, 0xFFFFD), (0x100000, 0x10FFFD))


@lru_cache(maxsize=100)
def source(dialect: str, columns: tuple[Column[Any], ...]) -> FromClause:
    """A relation called ``input`` with these columns, fed by ``bind``; its rows keep the order they were bound in.

    PostgreSQL unnests one array per column. SQLite walks one JSON text, since it has neither arrays nor a way to
    return rows from a statement that is executed many times.
    """
    return _unnested(columns) if dialect == "postgresql" else _walked(columns).subquery(_NAME)


def bind(dialect: str, columns: Sequence[Column[Any]], rows: Iterable[Sequence[object]]) -> dict[str, object]:
    """The parameters that put these rows, each in the order of the columns, into ``source``.

    Bytes must be UTF-8 text: what is verified always is.
    """
    listed = list(rows)
    if dialect == "postgresql":
        turned = zip(*listed, strict=True) if listed else ((),) * len(columns)
        return {_parameter(col): list(values) for col, values in zip(columns, turned, strict=True)}
    plain = [[each if type(each) is str or each is None else _plain(each) for each in row] for row in listed]
    return {f"{_NAME}_rows": msgspec.json.encode(plain).decode()}


def _parameter(col: Column[Any]) -> str:
    return f"{_NAME}_{col.name}"


def _unnested(columns: Sequence[Column[Any]]) -> FromClause:
    arrays = [bindparam(_parameter(col), type_=ARRAY(col.type)) for col in columns]
    named = [column(col.name, col.type) for col in columns]
    return func.unnest(*arrays).table_valued(*named, name=_NAME).render_derived(name=_NAME)


def _walked(columns: Sequence[Column[Any]]) -> Select[Any]:
    each = func.json_each(bindparam(f"{_NAME}_rows")).table_valued("key", "value", name="each")
    return select(*[_cell(each.c.value, place, col) for place, col in enumerate(columns)]).order_by(each.c.key)


def _cell(row: ColumnElement[Any], place: int, col: Column[Any]) -> ColumnElement[Any]:
    cell = func.json_extract(row, f"$[{place}]")
    if isinstance(col.type, LargeBinary):
        return cast(cell, LargeBinary).label(col.name)
    return type_coerce(cell, col.type).label(col.name)


def _plain(value: object) -> object:
    if isinstance(value, int) and value.bit_length() > _LARGEST_BITS:
        # SQLite would take the JSON number, and keep a rounded one.
        raise OverflowError
    return value.decode() if isinstance(value, bytes) else value


def relation(name: str, columns: str, *, first: int) -> str:
    """PostgreSQL's words for a relation of texts with a number ``n`` from 1, to stand in a WITH; filled by ``texts``.

    ``columns`` are the names, with a space between two; ``first`` is the place of its first parameter.
    """
    names = columns.split()
    split = ", ".join(f"string_to_table(${place}, $1, $2)" for place in range(first + 1, first + 1 + len(names)))
    given = f"ROWS FROM ({split}) WITH ORDINALITY AS given ({', '.join(names)}, n)"
    return f"{name} AS (SELECT * FROM {given} WHERE n <= ${first})"  # noqa: S608  Names and places, and they are ours.


def texts(*relations: Sequence[Sequence[str | None]]) -> list[object]:
    """The parameters of some relations, each given column by column: two marks, then for each its length and its texts.

    An array costs the driver a question for each value, and the server a call. A column that is one text, with a mark
    behind each value, costs both of them next to nothing. The marks are such that no value holds one.
    """
    for separator, nothing in _marks():
        given: list[object] = [separator, nothing]
        for columns in relations:
            rows = len(columns[0])
            given.append(rows)
            for values in columns:
                nulls = values.count(None)
                filled = [nothing if each is None else each for each in values] if nulls else values
                text = separator.join([*filled, ""])  # type: ignore[list-item]  # There is no None in it.
                if text.count(separator) != rows or text.count(nothing) != nulls:
                    break
                given.append(text)
            else:
                continue
            break
        else:
            return given
    raise OverflowError


def _marks() -> Iterator[tuple[str, str]]:
    """Two control characters that were made for this, and then what nobody may have agreed upon a meaning for."""
    yield "\x1f", "\x1e"
    for first, last in _PRIVATE_USE:
        for code in range(first, last, 2):
            yield chr(code), chr(code + 1)
