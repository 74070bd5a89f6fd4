"""superjson: JSON with a table beside it that says which texts are dates and which nulls are undefined.

Sent are dates and ``undefined``. Read are all the types that superjson has by itself; what a Python type has to be
made of them is then up to the annotation, so a Date stays a text until it is read as a datetime.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from oplata.rpc.errors import RpcError

MAX_ANNOTATIONS: Final = 10_000
# Repeated values may repeat one another: thirty annotations could stand for a billion values.
MAX_REPEATED: Final = 50_000
_REMOVED: Final = object()
Readers: TypeAlias = dict[str, Callable[[Any], Any]]


def iso_instant(value: datetime.datetime) -> str:
    """``1970-01-01T00:00:00.000Z``, as JavaScript writes it; a datetime without a zone is taken to be in UTC."""
    aware = value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)
    return aware.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def serialize(tree: Any) -> dict[str, Any]:
    """Builtins, datetimes and UNSET into ``{"json": ..., "meta": ...}``."""
    if tree is msgspec.UNSET:
        return {"json": None, "meta": {"values": ["undefined"], "v": 1}}
    if isinstance(tree, datetime.datetime):
        return {"json": iso_instant(tree), "meta": {"values": ["Date"], "v": 1}}
    values: dict[str, list[str]] = {}
    json = _plain(tree, "", values)
    return {"json": json, "meta": {"values": values, "v": 1}} if values else {"json": json}


def _plain(tree: Any, path: str, values: dict[str, list[str]]) -> Any:
    if isinstance(tree, dict):
        return {key: _plain(each, _join(path, str(key)), values) for key, each in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(each, _join(path, str(index)), values) for index, each in enumerate(tree)]
    if isinstance(tree, datetime.datetime):
        values[path] = ["Date"]
        return iso_instant(tree)
    if tree is msgspec.UNSET:
        values[path] = ["undefined"]
        return None
    return tree


def _join(path: str, key: str) -> str:
    escaped = key.replace("\\", "\\\\").replace(".", "\\.")
    return f"{path}.{escaped}" if path else escaped


def deserialize(document: Any, *, has_instants: bool = False) -> Any:
    """What the document stands for; UNSET for ``undefined``, also for a document that is not superjson's.

    ``has_instants`` makes datetimes of dates. Raises RpcError (BAD_REQUEST) for a table that does not fit its JSON.
    """
    if not isinstance(document, dict) or "json" not in document:
        return msgspec.UNSET
    meta = document.get("meta")
    if not isinstance(meta, dict):
        return document["json"]
    root = [document["json"]]
    try:
        version = meta.get("v", 0)
        for path, kind in _leaves(meta.get("values"), bool(version), ()):
            _replace(root, path, kind, _READERS_WITH_INSTANTS if has_instants else _READERS)
        equalities = _equalities(meta.get("referentialEqualities"))
        for source, targets in equalities:
            _alias(root, source, targets, bool(version))
        if equalities:
            _refuse_growth(root)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RpcError("BAD_REQUEST", "The superjson annotations do not fit their JSON.") from error
    return msgspec.UNSET if root[0] is _REMOVED else _without_holes(root[0])


def _leaves(tree: Any, escapes: bool, prefix: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    """Every annotated path with its type, the innermost first, because an outer type (a Map) is made of inner
    values.
    """
    found: list[tuple[tuple[str, ...], Any]] = []
    kind = None
    children = tree
    if isinstance(tree, list):
        kind = tree[0]
        children = tree[1] if len(tree) > 1 else None
    for key, inner in (children or {}).items():
        found.extend(_leaves(inner, escapes, (*prefix, *_split(key, escapes))))
        if len(found) > MAX_ANNOTATIONS:
            raise ValueError("too many annotations")
    if kind is not None:
        found.append((prefix, kind))
    return found


def _split(path: str, escapes: bool) -> list[str]:
    parts, current, index = [], "", 0
    while index < len(path):
        sign = path[index]
        following = path[index + 1 : index + 2]
        if sign == "\\" and (following == "." or (escapes and following == "\\")):
            current += following
            index += 1
        elif sign == ".":
            parts.append(current)
            current = ""
        else:
            current += sign
        index += 1
    return [*parts, current]


def _step(holder: Any, key: str) -> Any:
    return holder[int(key)] if isinstance(holder, list) else holder[key]


def _replace(root: list[Any], path: tuple[str, ...], kind: Any, readers: Readers) -> None:
    holder: Any = root
    key: Any = 0
    for part in path:
        holder = holder[key]
        key = int(part) if isinstance(holder, list) else part
    value = holder[key]
    holder[key] = readers[kind](value) if isinstance(kind, str) and kind in readers else value


def _equalities(table: Any) -> list[tuple[str, list[str]]]:
    """``{"a": ["b"]}``, or ``[["b"], {...}]`` where the root itself is repeated; the latter is a cycle, which JSON
    has not.
    """
    if table is None:
        return []
    if isinstance(table, list):
        raise ValueError("the value contains itself")
    return [(source, targets) for source, targets in table.items() if isinstance(targets, list)]


def _alias(root: list[Any], source: str, targets: list[str], escapes: bool) -> None:
    value = root[0]
    for part in _split(source, escapes):
        value = _step(value, part)
    for target in targets[:MAX_ANNOTATIONS]:
        *way, last = _split(target, escapes)
        holder = root[0]
        for part in way:
            holder = _step(holder, part)
            if holder is value:
                raise ValueError("the value contains itself")
        if isinstance(holder, list):
            holder[int(last)] = value
        else:
            holder[last] = value


def _refuse_growth(root: list[Any]) -> None:
    """Raises ValueError for a value that aliases have made too large, or that contains itself, which never ends."""
    waiting, seen = list(root), 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > MAX_REPEATED:
            raise ValueError("the repeated values are too many")
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _without_holes(value: Any) -> Any:
    """Undefined fields vanish; an undefined element of a list is null, as in JSON."""
    if isinstance(value, dict):
        return {key: _without_holes(each) for key, each in value.items() if each is not _REMOVED}
    if isinstance(value, list):
        return [None if each is _REMOVED else _without_holes(each) for each in value]
    return value


def _number(value: Any) -> float:
    named = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "-0": -0.0}
    return named[value] if isinstance(value, str) else float(value)


_READERS: Final[Readers] = {
    "undefined": lambda _: _REMOVED,
    "bigint": lambda value: int(str(value)[:1_000]),
    "number": _number,
    "map": lambda value: {key: each for key, each in value if isinstance(key, str | int | float | bool)},
}
_READERS_WITH_INSTANTS: Final[Readers] = {**_READERS, "Date": datetime.datetime.fromisoformat}
