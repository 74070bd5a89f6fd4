"""Values of one type to and from JSON, checked against the type in both directions."""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from oplata.rpc.annotations import Reader, is_model
from oplata.rpc.errors import RpcError
from oplata.rpc.forms import FormData, Octets
from oplata.rpc.naming import camel
from oplata.rpc.renaming import Renaming
from oplata.rpc.shape import Scalar, Shape, Shapes

MAX_DEPTH: Final = 64
MAX_FAULTS: Final = 10
OUTPUT_FAILED: Final = "Output validation failed"
# Possessive, and with an end that may be missing: one pass over whatever somebody sends.
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NESTING = re.compile(rb"[\[\]{}]")
_QUOTED = re.compile(r"`([^`]*)`")
_EXACT: Final = (str, bool, int, decimal.Decimal)


def write_foreign(value: Any) -> Any:
    """How values that msgspec does not know are written: pydantic's models, and nothing else."""
    if is_model(type(value)):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"Values of type {type(value).__qualname__} cannot travel.")


def read_foreign(kind: type[Any], value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if is_model(kind):
        return _read_model(kind, value)
    raise TypeError(f"Values of type {kind.__qualname__} cannot travel.")


def _read_model(model: Any, value: Any) -> Any:
    """pydantic's own messages repeat the value and point to its site; what is wrong, and where, is enough."""
    try:
        return model.model_validate(value)
    except ValueError as error:
        if not hasattr(error, "errors"):
            raise
        faults = [f"{each['msg']} - at `{'.'.join(map(str, each['loc']))}`" for each in error.errors()]
        raise ValueError("; ".join(faults[:MAX_FAULTS])) from error


def refuse_depth(raw: bytes, limit: int = MAX_DEPTH) -> None:
    """Raises RpcError for JSON nested deeper than the limit. Costs two counts unless there are many brackets."""
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return
    depth = 0
    for bracket in _NESTING.finditer(_TEXT.sub(b"", raw)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > limit:
            raise RpcError("BAD_REQUEST", f"The input is nested deeper than {limit} levels.")


def _on_the_wire(message: str) -> str:
    """``at `$.order_id` `` becomes ``at `$.orderId` ``: the reader of the message wrote the latter."""
    return _QUOTED.sub(lambda match: f"`{camel(match.group(1))}`", message)


class Codec:
    """Reads and writes one type.

    ``decode`` takes JSON bytes, ``convert`` builtins; both raise RpcError (BAD_REQUEST) with the place of the fault.
    ``encode`` gives JSON bytes and ``tree`` builtins in which instants are still datetimes; both return exactly what
    the type declares, extra fields dropped, and raise RpcError (INTERNAL_SERVER_ERROR) for a value that is not of
    the type.
    """

    def __init__(self, annotation: Any, shapes: Shapes) -> None:
        self.annotation = annotation
        self.shape: Shape = Reader(shapes).read(annotation)
        self._to_python = Renaming(shapes, "to python").of(self.shape)
        self._to_wire = Renaming(shapes, "to wire").of(self.shape)
        self._raw = isinstance(self.shape, Scalar) and self.shape.kind in ("form", "octets")
        self._decoder = msgspec.json.Decoder(Any if self._raw else annotation, dec_hook=read_foreign)
        self._encoder = msgspec.json.Encoder(enc_hook=write_foreign, decimal_format="string")
        self._exact = annotation if annotation in _EXACT else None

    def decode(self, raw: bytes | msgspec.Raw) -> Any:
        if self._to_python is not None or self._raw:
            return self.convert(parse(raw))
        refuse_depth(bytes(raw))
        return _refusing(lambda: self._decoder.decode(raw))

    def convert(self, value: Any) -> Any:
        if self._raw:
            return self._convert_raw(value)
        return self.convert_stored(value if self._to_python is None else self._to_python(value))

    def convert_stored(self, value: Any) -> Any:
        """As ``convert``, for builtins whose keys are Python's own."""
        return _refusing(lambda: msgspec.convert(value, self.annotation, dec_hook=read_foreign))

    def _convert_raw(self, value: Any) -> Any:
        wanted = FormData if self.annotation is FormData else Octets
        if isinstance(value, wanted):
            return value
        kind = "a form" if wanted is FormData else "bytes"
        raise RpcError("BAD_REQUEST", f"The input has to be {kind}.")

    def encode(self, value: Any) -> bytes:
        if self._exact is not None and type(value) is self._exact:
            return self._encoder.encode(value)
        try:
            if self._to_wire is not None:
                return self._encoder.encode(self._to_wire(self._builtins(self.checked(value))))
            # Written, read back as the type, and written again: three passes in C, and no undeclared field gets out.
            return self._encoder.encode(self._decoder.decode(self._encoder.encode(value)))
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            raise RpcError("INTERNAL_SERVER_ERROR", OUTPUT_FAILED) from error

    def checked(self, value: Any) -> Any:
        """The value as its type declares it, or RpcError (INTERNAL_SERVER_ERROR)."""
        if self._exact is not None and type(value) is self._exact:
            return value
        try:
            return self._decoder.decode(self._encoder.encode(value))
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
            raise RpcError("INTERNAL_SERVER_ERROR", OUTPUT_FAILED) from error

    def tree(self, value: Any) -> Any:
        builtins = self._builtins(self.checked(value))
        return builtins if self._to_wire is None else self._to_wire(builtins)

    def _builtins(self, value: Any) -> Any:
        return msgspec.to_builtins(value, builtin_types=(datetime.datetime,), enc_hook=write_foreign, str_keys=True)


def parse(raw: bytes | msgspec.Raw) -> Any:
    """JSON of no particular type; RpcError (BAD_REQUEST) where it is none."""
    refuse_depth(bytes(raw))
    return _refusing(lambda: msgspec.json.decode(raw))


def _refusing(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except msgspec.ValidationError as error:
        raise RpcError("BAD_REQUEST", _on_the_wire(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RpcError("BAD_REQUEST", str(error)) from error
    except RecursionError as error:
        raise RpcError("BAD_REQUEST", "The input is nested too deeply.") from error
