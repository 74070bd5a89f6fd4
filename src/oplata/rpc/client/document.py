"""Values into requests and answers into values, with or without superjson."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from oplata.rpc import superjson
from oplata.rpc.annotations import is_model
from oplata.rpc.codec import Codec
from oplata.rpc.errors import CODES, BadAnswer, RpcError, code_of_number
from oplata.rpc.shape import Shapes
from oplata.rpc.wire import Transformer

_ENCODER: Final = msgspec.json.Encoder(decimal_format="string")


@lru_cache(maxsize=512)
def _codec(annotation: Hashable) -> Codec:
    return Codec(annotation, Shapes())


class Documents:
    """Reads and writes what travels."""

    def __init__(self, transformer: Transformer) -> None:
        self._is_superjson = transformer == "superjson"

    def input(self, value: Any) -> Any:
        """An input ready to be encoded; UNSET stays UNSET without a transformer, and is then left out."""
        tree = value if value is msgspec.UNSET else outgoing(value)
        return superjson.serialize(tree) if self._is_superjson else tree

    def encode(self, document: Any) -> bytes:
        return _ENCODER.encode(document)

    def parse(self, raw: bytes | str) -> Any:
        """JSON. Raises BadAnswer, which shows the beginning of what came instead."""
        try:
            return msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            text = raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
            raise BadAnswer(f"The server's answer is not JSON: {text[:200]!r}") from error

    def unwrap(self, document: Any) -> Any:
        """What a document stands for; None for what JavaScript calls undefined."""
        value = superjson.deserialize(document, has_instants=True) if self._is_superjson else document
        return None if value is msgspec.UNSET else value

    def answer(self, envelope: Any) -> Any:
        """The data of a result. Raises the RpcError of an error, BadAnswer for anything else."""
        if isinstance(envelope, Mapping):
            if "error" in envelope:
                raise failure(self.unwrap(envelope["error"]))
            result = envelope.get("result")
            if isinstance(result, Mapping):
                return self.unwrap(result["data"]) if "data" in result else None
        raise BadAnswer


def outgoing(value: Any) -> Any:
    """Builtins in which the fields of dataclasses, structs and models have their names on the wire."""
    if isinstance(value, dict):
        return {key: outgoing(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [outgoing(each) for each in value]
    kind: Any = type(value)
    is_record = dataclasses.is_dataclass(value) or isinstance(value, msgspec.Struct) or is_model(type(value))
    return _codec(kind).tree(value) if is_record else value


def returned(value: Any, annotation: Any | None) -> Any:
    """The value as the type that the caller asked for. Raises BadAnswer where it is of another."""
    if annotation is None:
        return value
    try:
        return _codec(annotation).convert(value)
    except RpcError as error:
        raise BadAnswer(f"The server's answer is not what was asked for. {error.message}") from error


def failure(shape: Any) -> RpcError | BadAnswer:
    """The error that a server told us of."""
    if not isinstance(shape, Mapping) or not isinstance(shape.get("message"), str):
        return BadAnswer()
    data = shape.get("data")
    name = data.get("code") if isinstance(data, Mapping) else None
    number = shape.get("code")
    known = [code for code in CODES if code == name]
    code = known[0] if known else code_of_number(number if isinstance(number, int) else 0)
    return RpcError(code, shape["message"], shape=shape)
