"""Python annotations read into shapes. msgspec knows the types; pydantic's models are read through their fields."""

from __future__ import annotations

import enum
import inspect
from collections.abc import AsyncIterable, Iterable
from typing import Any, get_args, get_origin

import msgspec
from msgspec import inspect as kinds

from oplata.rpc.errors import DeclarationError
from oplata.rpc.forms import FormData, Octets
from oplata.rpc.naming import camel
from oplata.rpc.shape import (
    NULL,
    UNKNOWN,
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
from oplata.rpc.tracked import Tracked

_SCALARS: dict[type[Any], Scalar] = {
    kinds.BoolType: Scalar("boolean"),
    kinds.IntType: Scalar("number", "integer"),
    kinds.FloatType: Scalar("number"),
    kinds.StrType: Scalar("string"),
    kinds.BytesType: Scalar("string", "base64"),
    kinds.ByteArrayType: Scalar("string", "base64"),
    kinds.MemoryViewType: Scalar("string", "base64"),
    kinds.DateTimeType: Scalar("date", "date and time"),
    kinds.DateType: Scalar("string", "date"),
    kinds.TimeType: Scalar("string", "time"),
    kinds.TimeDeltaType: Scalar("string", "duration"),
    kinds.UUIDType: Scalar("string", "uuid"),
    kinds.DecimalType: Scalar("string", "decimal"),
    kinds.NoneType: NULL,
    kinds.AnyType: UNKNOWN,
    kinds.RawType: UNKNOWN,
    kinds.ExtType: UNKNOWN,
}


def is_model(kind: Any) -> bool:
    """Whether this is a pydantic model, without importing pydantic."""
    return isinstance(kind, type) and hasattr(kind, "model_validate") and hasattr(kind, "model_fields")


def stream_item(annotation: Any) -> Any | None:
    """The item's type of an ``AsyncIterator[T]`` or ``AsyncGenerator[T, None]``; None for anything else."""
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, AsyncIterable):
        arguments = get_args(annotation)
        return arguments[0] if arguments else Any
    return None


def tracked_item(annotation: Any) -> Any | None:
    """``T`` of a ``Tracked[T]``; None for anything else."""
    if annotation is Tracked:
        return Any
    return get_args(annotation)[0] if get_origin(annotation) is Tracked else None


class Reader:
    """Reads annotations into shapes and keeps the records that it meets."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes

    def read(self, annotation: Any) -> Shape:
        """The shape of a type. Raises DeclarationError where the type has no form on the wire."""
        if (item := stream_item(annotation)) is not None:
            inner = tracked_item(item)
            return Stream(self.read(item if inner is None else inner), tracked=inner is not None)
        if annotation is FormData:
            return Scalar("form")
        if annotation is Octets:
            return Scalar("octets")
        try:
            return self._shape(kinds.type_info(annotation))
        except (TypeError, NameError, AttributeError) as error:
            raise DeclarationError(f"{annotation!r} cannot travel: {error}") from error

    def _shape(self, kind: kinds.Type) -> Shape:
        if isinstance(kind, kinds.Metadata):
            return self._shape(kind.type)
        if (scalar := _SCALARS.get(type(kind))) is not None:
            return scalar
        match kind:
            case kinds.LiteralType():
                return Constants(tuple(kind.values))
            case kinds.EnumType():
                return _enumeration(kind.cls)
            case kinds.ListType() | kinds.VarTupleType() | kinds.SetType() | kinds.FrozenSetType():
                return Sequence(self._shape(kind.item_type))
            case kinds.CollectionType():
                return Sequence(self._shape(kind.item_type))
            case kinds.TupleType():
                return Fixed(tuple(self._shape(item) for item in kind.item_types))
            case kinds.DictType():
                return Mapping(self._shape(kind.value_type))
            case kinds.UnionType():
                return Choice(tuple(self._shape(option) for option in kind.types))
            case kinds.NamedTupleType():
                return Fixed(tuple(self._shape(field.type) for field in kind.fields))
            case kinds.StructType() if kind.array_like:
                return Fixed(tuple(self._shape(field.type) for field in kind.fields))
            case kinds.StructType() | kinds.DataclassType() | kinds.TypedDictType():
                return self._record(kind)
            case kinds.CustomType() if is_model(kind.cls):
                return self._model(kind.cls)
        raise DeclarationError(f"{getattr(kind, 'cls', kind)!r} cannot travel: msgspec has no form for it.")

    def _record(self, kind: kinds.StructType | kinds.DataclassType | kinds.TypedDictType) -> Reference:
        key = kind.cls
        if key in self._shapes.records:
            return Reference(key)
        is_struct = isinstance(kind, kinds.StructType)
        tag = None
        if isinstance(kind, kinds.StructType) and kind.tag_field is not None and kind.tag is not None:
            tag = (kind.tag_field, kind.tag)
        origin = get_origin(key) or key
        name, doc = _title(key), _doc(origin)
        # The place is taken before the fields are read, because a type may contain itself.
        self._shapes.records[key] = Record(name, (), doc, tag)
        omits = is_struct and bool(getattr(getattr(origin, "__struct_config__", None), "omit_defaults", False))
        slots = tuple(self._slot(field, isinstance(kind, kinds.TypedDictType), omits) for field in kind.fields)
        self._shapes.records[key] = Record(name, slots, doc, tag)
        _refuse_clashes(name, slots)
        return Reference(key)

    def _slot(self, field: kinds.Field, is_typed_dict: bool, omits_defaults: bool) -> Slot:
        wire = field.encode_name if field.encode_name != field.name else camel(field.name)
        may_be_unset = field.default is msgspec.UNSET
        absent = may_be_unset or (not field.required and (is_typed_dict or omits_defaults))
        doc = _field_doc(field.type)
        return Slot(field.encode_name, wire, self._shape(field.type), field.required, not absent, doc)

    def _model(self, model: Any) -> Reference:
        if model in self._shapes.records:
            return Reference(model)
        self._shapes.records[model] = Record(model.__name__, (), _doc(model))
        slots = tuple(self._model_slot(name, info) for name, info in model.model_fields.items())
        self._shapes.records[model] = Record(model.__name__, slots, _doc(model))
        _refuse_clashes(model.__name__, slots)
        return Reference(model)

    def _model_slot(self, name: str, info: Any) -> Slot:
        alias = info.alias or info.serialization_alias
        required = bool(info.is_required())
        shape = self.read(info.annotation)
        return Slot(alias or name, alias or camel(name), shape, required, True, info.description or "")


def _refuse_clashes(name: str, slots: Iterable[Slot]) -> None:
    seen: dict[str, str] = {}
    for slot in slots:
        if slot.wire in seen:
            raise DeclarationError(
                f"{name}: {seen[slot.wire]!r} and {slot.stored!r} are both {slot.wire!r} on the wire."
            )
        seen[slot.wire] = slot.stored


def _enumeration(kind: type[enum.Enum]) -> Constants:
    return Constants(tuple(member.value for member in kind), kind.__name__, _doc(kind))


def _title(key: Any) -> str:
    """``Page[Post]`` is named ``PagePost``: TypeScript's names have no brackets."""
    origin = get_origin(key) or key
    arguments = "".join(_title(argument).title().replace(" ", "") for argument in get_args(key))
    name = str(getattr(origin, "__name__", "Value"))
    return "".join(letter for letter in name + arguments if letter.isalnum() or letter == "_")


def _doc(kind: Any) -> str:
    """The docstring that was written, not the one that dataclasses and enumerations make up."""
    doc = getattr(kind, "__doc__", None) if isinstance(kind, type) else None
    if not doc or doc.startswith((f"{kind.__name__}(", "An enumeration.", "dict(")):
        return ""
    inherited = any(base.__doc__ == doc for base in kind.__mro__[1:])
    return "" if inherited else inspect.cleandoc(doc)


def _field_doc(kind: kinds.Type) -> str:
    extra = (kind.extra_json_schema or {}) if isinstance(kind, kinds.Metadata) else {}
    return str(extra.get("description", ""))
