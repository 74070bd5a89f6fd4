"""A router as JSON for the page: types to read, and shapes to make forms of."""

from __future__ import annotations

from typing import Any

from oplata.rpc.procedure import Procedure
from oplata.rpc.service import Service
from oplata.rpc.shape import Choice, Constants, Fixed, Mapping, Reference, Scalar, Sequence, Shape, Shapes, Stream
from oplata.rpc.typescript.types import Types


class Description:
    """Collects the records of all procedures, so that a type that contains itself is written once."""

    def __init__(self) -> None:
        self._places: dict[Any, int] = {}
        self._records: list[dict[str, Any]] = []

    def of(self, service: Service, endpoint: str) -> dict[str, Any]:
        types = Types(has_dates=service.wire.is_superjson)
        procedures = [self._procedure(path, each, types) for path, each in service.procedures.items()]
        return {
            "endpoint": endpoint,
            "superjson": service.wire.is_superjson,
            "procedures": procedures,
            "records": self._records,
            "types": types.declarations().strip(),
        }

    def _procedure(self, path: str, procedure: Procedure, types: Types) -> dict[str, Any]:
        inline = isinstance(procedure.input_shape, Reference) and not procedure.signature.input_is_whole
        if inline and isinstance(procedure.input_shape, Reference):
            record = procedure.shapes.record(procedure.input_shape)
            input_text = types.inline(record, procedure.shapes, "input")
        else:
            input_text = types.write(procedure.input_shape, procedure.shapes, "input")
        return {
            "path": path,
            "kind": procedure.kind,
            "doc": procedure.doc,
            "streams": procedure.signature.streams,
            "input": None if procedure.input is None else self._shape(procedure.input.shape, procedure.shapes),
            "optional": procedure.input_may_be_absent,
            "inputText": input_text,
            "outputText": types.write(procedure.output_shape, procedure.shapes, "output"),
        }

    def _shape(self, shape: Shape, shapes: Shapes) -> dict[str, Any]:
        match shape:
            case Scalar(kind, hint):
                return {"kind": kind, "hint": hint}
            case Constants(values):
                return {"kind": "constants", "values": values}
            case Sequence(item) | Stream(item):
                return {"kind": "list", "item": self._shape(item, shapes)}
            case Fixed(items):
                return {"kind": "tuple", "items": [self._shape(item, shapes) for item in items]}
            case Mapping(value):
                return {"kind": "map", "value": self._shape(value, shapes)}
            case Choice(options):
                return {"kind": "choice", "options": [self._shape(option, shapes) for option in options]}
            case Reference():
                return {"kind": "record", "index": self._record(shape, shapes)}

    def _record(self, reference: Reference, shapes: Shapes) -> int:
        if reference.key in self._places:
            return self._places[reference.key]
        record = shapes.record(reference)
        place = self._places[reference.key] = len(self._records)
        written: dict[str, Any] = {"name": record.name, "doc": record.doc, "tag": record.tag, "fields": []}
        self._records.append(written)
        for slot in record.slots:
            shape = self._shape(slot.shape, shapes)
            written["fields"].append({"key": slot.wire, "shape": shape, "required": slot.required, "doc": slot.doc})
        return place
