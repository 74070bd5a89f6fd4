"""Shapes as TypeScript: named interfaces for records, everything else in place."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from oplata.rpc.shape import (
    Choice,
    Constants,
    Fixed,
    Mapping,
    Record,
    Reference,
    Scalar,
    Sequence,
    Shape,
    Shapes,
    Slot,
    Stream,
)
from oplata.rpc.typescript.preamble import RESERVED

Side = Literal["input", "output"]

_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*\Z")
_SCALARS = {
    "string": "string",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
    "void": "void",
    "unknown": "unknown",
    "form": "FormData",
    "octets": "Uint8Array | Blob | File",
}


def comment(doc: str, indent: str = "") -> str:
    """A documentation comment; nothing for no documentation."""
    if not doc:
        return ""
    lines = doc.replace("*/", "*\u200b/").splitlines()
    if len(lines) == 1:
        return f"{indent}/** {lines[0]} */\n"
    body = "".join(f"{indent} * {line}".rstrip() + "\n" for line in lines)
    return f"{indent}/**\n{body}{indent} */\n"


def key(name: str) -> str:
    return name if _IDENTIFIER.match(name) else json.dumps(name)


class Types:
    """Writes shapes and collects the interfaces that they need, in the order in which they are first met.

    A record whose fields are optional on the way in and always there on the way out becomes two interfaces.
    """

    def __init__(self, *, has_dates: bool) -> None:
        self._has_dates = has_dates
        self._names: dict[Any, str] = {}
        self._taken: set[str] = set(RESERVED)
        self._declared: dict[tuple[Any, Side], str] = {}

    def declarations(self) -> str:
        return "".join(f"\n{text}" for text in self._declared.values())

    def write(self, shape: Shape, shapes: Shapes, side: Side) -> str:
        match shape:
            case Scalar():
                return ("Date" if self._has_dates else "string") if shape.kind == "date" else _SCALARS[shape.kind]
            case Constants():
                return self._constants(shape)
            case Sequence(item):
                return _grouped(self.write(item, shapes, side)) + "[]"
            case Fixed(items):
                return "[" + ", ".join(self.write(item, shapes, side) for item in items) + "]"
            case Mapping(value):
                return "{ [key: string]: " + self.write(value, shapes, side) + " }"
            case Choice(options):
                written = [self.write(option, shapes, side) for option in options]
                return " | ".join(dict.fromkeys(written))
            case Stream(item):
                return f"AsyncIterable<{self.write(item, shapes, side)}, void, any>"
            case Reference():
                return self._reference(shape, shapes, side)

    def inline(self, record: Record, shapes: Shapes, side: Side) -> str:
        """A record without a name, as one line or, where it has documentation, as several."""
        slots = [self._slot(slot, shapes, side) for slot in record.slots]
        return "{ " + "; ".join(slots) + " }" if slots else "{}"

    def _constants(self, shape: Constants) -> str:
        union = " | ".join(json.dumps(value) for value in shape.values) or "never"
        if not shape.name:
            return union
        name = self._name((shape.name, shape.values), shape.name)
        self._declared.setdefault((name, "output"), f"{comment(shape.doc)}export type {name} = {union};\n")
        return name

    def _reference(self, reference: Reference, shapes: Shapes, side: Side) -> str:
        record = shapes.record(reference)
        name = self._name(reference.key, record.name)
        kept: Side = "output"
        if side == "input" and self._differs(reference, shapes, set()):
            name, kept = self._name((reference.key, "input"), record.name + "Input"), "input"
        place = (reference.key, kept)
        if place not in self._declared:
            # The place is taken first: a record may contain itself, and comes before what it is made of.
            self._declared[place] = ""
            self._declared[place] = self._interface(name, record, shapes, kept)
        return name

    def _interface(self, name: str, record: Record, shapes: Shapes, side: Side) -> str:
        lines = []
        if record.tag is not None:
            lines.append(f"  {key(record.tag[0])}: {json.dumps(record.tag[1])};\n")
        for slot in record.slots:
            lines.append(comment(slot.doc, "  ") + f"  {self._slot(slot, shapes, side)};\n")
        return f"{comment(record.doc)}export interface {name} {{\n{''.join(lines)}}}\n"

    def _slot(self, slot: Slot, shapes: Shapes, side: Side) -> str:
        written = self.write(slot.shape, shapes, side)
        if slot.required if side == "input" else slot.present:
            return f"{key(slot.wire)}: {written}"
        return f"{key(slot.wire)}?: {written} | undefined"

    def _differs(self, shape: Shape, shapes: Shapes, seen: set[Any]) -> bool:
        match shape:
            case Sequence(item) | Stream(item) | Mapping(item):
                return self._differs(item, shapes, seen)
            case Fixed(items) | Choice(items):
                return any(self._differs(item, shapes, seen) for item in items)
            case Reference():
                if shape.key in seen:
                    return False
                seen.add(shape.key)
                slots = shapes.record(shape).slots
                return any(s.required != s.present or self._differs(s.shape, shapes, seen) for s in slots)
        return False

    def _name(self, owner: Any, wanted: str) -> str:
        """The name that is given once for each type; two types of one name are told apart by a number."""
        if owner not in self._names:
            name, number = wanted, 2
            while name in self._taken:
                name, number = f"{wanted}{number}", number + 1
            self._taken.add(name)
            self._names[owner] = name
        return self._names[owner]


def _grouped(written: str) -> str:
    return f"({written})" if " | " in written and not written.startswith(("{", "[")) else written
