"""A batch of rows as one FROM clause and one set of parameters, so that a statement works on any number of them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import (
    ARRAY,
    Column,
    FromClause,
    Integer,
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

from oplata.errors import DataRejected

_NAME = "input"
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
    turned = zip(*listed, strict=True) if listed else ((),) * len(columns)
    if dialect == "postgresql":
        return {_parameter(col): list(values) for col, values in zip(columns, turned, strict=True)}
    plain = [_plain(col, values) for col, values in zip(columns, turned, strict=True)]
    return {f"{_NAME}_rows": msgspec.json.encode(list(zip(*plain, strict=True))).decode()}


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


def _plain(col: Column[Any], values: Sequence[Any]) -> Sequence[Any]:
    """A column's values as JSON has them. Raises ``OverflowError``."""
    if isinstance(col.type, LargeBinary):
        return [None if value is None else value.decode() for value in values]
    if isinstance(col.type, Integer):
        # SQLite would take a larger JSON number, and keep a rounded one.
        array("q", [value or 0 for value in values])
    return values


def as_json(value: object) -> str:
    """JSON that is stored as a text. Raises ``DataRejected`` for a text in it that has no UTF-8."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        raise DataRejected("the database refuses a value: UnicodeEncodeError") from None


class Statement(msgspec.Struct, frozen=True):
    """A statement in PostgreSQL's own words over some relations, which are given column by column, as texts.

    Where none of them has more than one row, they are plain values: to call a function for each column costs a lone
    callback as much as half of its work.
    """

    for_many: str
    for_one: str

    def over(self, *relations: Sequence[Sequence[str | None]]) -> list[object]:
        """The words, and the values of these relations. Others follow them, and are numbered from there."""
        if all(len(columns[0]) <= 1 for columns in relations):
            return [self.for_one, *_values(relations)]
        return [self.for_many, *_texts(relations)]


Relation = Callable[[str, str, int], str]
"""The words of a relation, with a number ``n`` from 1, to stand in a WITH: from its name, the names of its columns with
a space between two, and the place of its first parameter. The first relation of all begins with the third."""


def stated(words: Callable[[Relation], str]) -> Statement:
    """The statement that these words make of its relations."""
    return Statement(words(_split), words(_alone))


def _split(name: str, columns: str, first: int) -> str:
    names = columns.split()
    split = ", ".join(f"string_to_table(${place}, $1, $2)" for place in range(first + 1, first + 1 + len(names)))
    given = f"ROWS FROM ({split}) WITH ORDINALITY AS given ({', '.join(names)}, n)"
    return f"{name} AS (SELECT * FROM {given} WHERE n <= ${first})"  # noqa: S608  Names and places, and they are ours.


def _alone(name: str, columns: str, first: int) -> str:
    given = ", ".join(f"${place}::text AS {col}" for place, col in enumerate(columns.split(), first + 1))
    # The two marks are told all the same.
    return f"{name} AS (SELECT {given}, 1::bigint AS n WHERE ${first}::bigint > 0 AND concat($1::text, $2::text) = '')"


def _values(relations: Sequence[Sequence[Sequence[str | None]]]) -> list[object]:
    given: list[object] = ["", ""]
    for columns in relations:
        given.append(len(columns[0]))
        given += [values[0] if values else None for values in columns]
    return given


def _texts(relations: Sequence[Sequence[Sequence[str | None]]]) -> list[object]:
    """Two marks, then for each relation its length and its columns.

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
    raise DataRejected("these texts hold every character that could stand between them: apply fewer at once")


def _marks() -> Iterator[tuple[str, str]]:
    """Two control characters that were made for this, and then what nobody may have agreed upon a meaning for."""
    yield "\x1f", "\x1e"
    for first, last in _PRIVATE_USE:
        for code in range(first, last, 2):
            yield chr(code), chr(code + 1)
