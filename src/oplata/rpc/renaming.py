"""Keys between the wire and Python, following the types: data that merely looks like a field is never renamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from oplata.rpc.shape import Choice, Fixed, Mapping, Record, Reference, Sequence, Shape, Shapes, Stream

Rename: TypeAlias = Callable[[Any], Any]
Direction = Literal["to python", "to wire"]


class Renaming:
    """Builds, for a shape, the function that renames the keys of a tree of builtins; None where nothing has to
    change.
    """

    def __init__(self, shapes: Shapes, direction: Direction) -> None:
        self._shapes = shapes
        self._direction = direction
        self._built: dict[Any, Rename] = {}

    def of(self, shape: Shape) -> Rename | None:
        return self._build(shape) if self._matters(shape, set()) else None

    def _matters(self, shape: Shape, seen: set[Any]) -> bool:
        match shape:
            case Sequence(item) | Stream(item):
                return self._matters(item, seen)
            case Mapping(value):
                return self._matters(value, seen)
            case Fixed(items) | Choice(items):
                return any(self._matters(item, seen) for item in items)
            case Reference(key):
                if key in seen:
                    return False
                seen.add(key)
                slots = self._shapes.record(shape).slots
                return any(slot.stored != slot.wire or self._matters(slot.shape, seen) for slot in slots)
        return False

    def _build(self, shape: Shape) -> Rename:
        match shape:
            case Sequence(item) | Stream(item):
                return _sequence(self._build(item))
            case Mapping(value):
                return _mapping(self._build(value))
            case Fixed(items):
                return _fixed([self._build(item) for item in items])
            case Choice(options):
                return self._choice(options)
            case Reference():
                return self._record(shape)
        return _same

    def _record(self, reference: Reference) -> Rename:
        if reference.key in self._built:
            return lambda value: self._built[reference.key](value)
        # A type that contains itself finds this entry while its own fields are being built.
        self._built[reference.key] = _same
        keys: dict[str, tuple[str, Rename]] = {}
        for slot in self._shapes.record(reference).slots:
            read, written = (slot.wire, slot.stored) if self._direction == "to python" else (slot.stored, slot.wire)
            keys[read] = (written, self._build(slot.shape))
        self._built[reference.key] = _record(keys)
        return self._built[reference.key]

    def _choice(self, options: tuple[Shape, ...]) -> Rename:
        """msgspec allows one untagged object and one list in a union, so the value itself says which option it is."""
        lists = [self._build(option) for option in options if isinstance(option, Sequence | Fixed)]
        tagged: dict[str | int, Rename] = {}
        tag_field = ""
        objects: list[Rename] = []
        for option in options:
            record = self._shapes.record(option) if isinstance(option, Reference) else None
            if isinstance(record, Record) and record.tag is not None:
                tag_field = record.tag[0]
                tagged[record.tag[1]] = self._build(option)
            elif record is not None or isinstance(option, Mapping):
                objects.append(self._build(option))

        def rename(value: Any) -> Any:
            if isinstance(value, dict):
                tag = value.get(tag_field)
                if isinstance(tag, str | int) and tag in tagged:
                    return tagged[tag](value)
                return objects[0](value) if objects else value
            return lists[0](value) if lists and isinstance(value, list) else value

        return rename


def _same(value: Any) -> Any:
    return value


def _sequence(item: Rename) -> Rename:
    return lambda value: [item(each) for each in value] if isinstance(value, list | tuple) else value


def _mapping(inner: Rename) -> Rename:
    return lambda value: {key: inner(each) for key, each in value.items()} if isinstance(value, dict) else value


def _fixed(items: list[Rename]) -> Rename:
    def rename(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(items):
            return value
        return [item(each) for item, each in zip(items, value, strict=True)]

    return rename


def _record(keys: dict[str, tuple[str, Rename]]) -> Rename:
    taken = {written for written, _ in keys.values()}

    def rename(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        renamed = {}
        for key, each in value.items():
            if (slot := keys.get(key)) is not None:
                renamed[slot[0]] = slot[1](each)
            elif key not in taken:
                # An unknown key is left for msgspec, which ignores or refuses it as the type says.
                renamed[key] = each
        return renamed

    return rename
