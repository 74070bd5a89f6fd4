"""What a type looks like on the wire, as plain values: the codec, TypeScript and the panel all read these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

ScalarKind = Literal["string", "number", "boolean", "null", "void", "unknown", "date", "form", "octets"]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value without parts. ``hint`` says more than the kind does ("decimal", "uuid"); it is shown, never enforced."""

    kind: ScalarKind
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Constants:
    """One of these JSON values; ``name`` is set for an enumeration."""

    values: tuple[str | int | bool | None, ...]
    name: str = ""
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Sequence:
    item: Shape


@dataclass(frozen=True, slots=True)
class Fixed:
    """A list whose places have types of their own."""

    items: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    value: Shape


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """Values that come one after another; ``tracked`` ones carry an id."""

    item: Shape
    tracked: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """A record by its place in ``Shapes.records``, so that types may contain themselves."""

    key: Any


Shape: TypeAlias = Scalar | Constants | Sequence | Fixed | Mapping | Choice | Stream | Reference


@dataclass(frozen=True, slots=True)
class Slot:
    """One field of a record.

    ``stored`` is the key that msgspec or pydantic reads and writes, ``wire`` the one that travels. ``required``
    holds for what is received, ``present`` for what is sent: a field with a default need not be given, yet it is
    always sent.
    """

    stored: str
    wire: str
    shape: Shape
    required: bool
    present: bool
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    slots: tuple[Slot, ...]
    doc: str = ""
    tag: tuple[str, str | int] | None = None


@dataclass(slots=True)
class Shapes:
    """The records that a set of types refers to."""

    records: dict[Any, Record] = field(default_factory=dict)

    def record(self, reference: Reference) -> Record:
        return self.records[reference.key]


VOID = Scalar("void")
NULL = Scalar("null")
UNKNOWN = Scalar("unknown")
