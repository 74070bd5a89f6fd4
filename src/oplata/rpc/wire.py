"""Between procedures and documents: which form a result, an error or an input has with the transformer that was
chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from oplata.rpc import superjson
from oplata.rpc.codec import parse
from oplata.rpc.procedure import Procedure

Transformer = Literal["none", "superjson"]
# What a result is on its way out: JSON that is written already, a tree that superjson still has to see, or UNSET.
Payload: TypeAlias = Any

_ENCODER: Final = msgspec.json.Encoder(decimal_format="string")


class Wire:
    """One of the two transformers, applied at the places where tRPC applies them."""

    def __init__(self, transformer: Transformer = "none") -> None:
        self.is_superjson: Final = transformer == "superjson"

    def payload(self, procedure: Procedure, value: Any) -> Payload:
        """A result or one item of a stream, checked. Raises RpcError where it is not what the procedure declares."""
        if procedure.output is None:
            return msgspec.UNSET
        if self.is_superjson:
            return procedure.output.tree(value)
        return msgspec.Raw(procedure.output.encode(value))

    def wrap(self, payload: Payload) -> Any:
        """As a document of its own."""
        return superjson.serialize(payload) if self.is_superjson else payload

    def encode(self, document: Any) -> bytes:
        return _ENCODER.encode(document)

    def result(self, payload: Payload) -> dict[str, Any]:
        """``{"result": {"data": ...}}``; without transformer, an undefined result has no data."""
        if payload is msgspec.UNSET and not self.is_superjson:
            return {"result": {}}
        return {"result": {"data": self.wrap(payload)}}

    def error(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        return {"error": self.wrap(shape)}

    def read(self, procedure: Procedure, raw: bytes | msgspec.Raw | None) -> Any:
        """The value of an input, UNSET where none was sent. Raises RpcError (BAD_REQUEST)."""
        if raw is None or procedure.input is None:
            return procedure.absent_input()
        if not self.is_superjson:
            return procedure.input.decode(raw)
        value = superjson.deserialize(parse(raw))
        return procedure.absent_input() if value is msgspec.UNSET else procedure.input.convert(value)

    def tree(self, raw: bytes | msgspec.Raw | None) -> Any:
        """An input as builtins, before any type was looked at; UNSET where none was sent."""
        if raw is None:
            return msgspec.UNSET
        return superjson.deserialize(parse(raw)) if self.is_superjson else parse(raw)
