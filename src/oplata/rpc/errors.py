"""The one error that travels, its code table, and the error of a wrong declaration.

The numbers are JSON-RPC's, as tRPC uses them; a client that sees -32603 on a subscription tries again, every other
number ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from oplata.errors import OplataError, Permanent, Retryable

Code = Literal[
    "PARSE_ERROR",
    "BAD_REQUEST",
    "INTERNAL_SERVER_ERROR",
    "NOT_IMPLEMENTED",
    "BAD_GATEWAY",
    "SERVICE_UNAVAILABLE",
    "GATEWAY_TIMEOUT",
    "UNAUTHORIZED",
    "PAYMENT_REQUIRED",
    "FORBIDDEN",
    "NOT_FOUND",
    "METHOD_NOT_SUPPORTED",
    "TIMEOUT",
    "CONFLICT",
    "PRECONDITION_FAILED",
    "PAYLOAD_TOO_LARGE",
    "UNSUPPORTED_MEDIA_TYPE",
    "UNPROCESSABLE_CONTENT",
    "PRECONDITION_REQUIRED",
    "TOO_MANY_REQUESTS",
    "CLIENT_CLOSED_REQUEST",
]

# name -> (number on the wire, HTTP status)
CODES: Final[Mapping[Code, tuple[int, int]]] = MappingProxyType(
    {
        "PARSE_ERROR": (-32700, 400),
        "BAD_REQUEST": (-32600, 400),
        "INTERNAL_SERVER_ERROR": (-32603, 500),
        "NOT_IMPLEMENTED": (-32603, 501),
        "BAD_GATEWAY": (-32603, 502),
        "SERVICE_UNAVAILABLE": (-32603, 503),
        "GATEWAY_TIMEOUT": (-32603, 504),
        "UNAUTHORIZED": (-32001, 401),
        "PAYMENT_REQUIRED": (-32002, 402),
        "FORBIDDEN": (-32003, 403),
        "NOT_FOUND": (-32004, 404),
        "METHOD_NOT_SUPPORTED": (-32005, 405),
        "TIMEOUT": (-32008, 408),
        "CONFLICT": (-32009, 409),
        "PRECONDITION_FAILED": (-32012, 412),
        "PAYLOAD_TOO_LARGE": (-32013, 413),
        "UNSUPPORTED_MEDIA_TYPE": (-32015, 415),
        "UNPROCESSABLE_CONTENT": (-32022, 422),
        "PRECONDITION_REQUIRED": (-32028, 428),
        "TOO_MANY_REQUESTS": (-32029, 429),
        "CLIENT_CLOSED_REQUEST": (-32099, 499),
    }
)


class DeclarationError(Permanent):
    """A router or a procedure is declared in a way that cannot be served."""


class Unreachable(Retryable):
    """The server could not be reached, or did not answer in time."""


class BadAnswer(Permanent):
    """What came back is no answer of a tRPC server. ``of_batch`` says that it is all that came for a whole batch."""

    of_batch = False


class RpcError(OplataError):
    """The call failed in a way that its caller is told about.

    ``code`` is a name of the table above, ``message`` is shown to the caller as it stands. ``shape`` is what a client
    received from a foreign server, where there was one; it is empty for errors raised on this side. ``of_batch`` says
    that a server told it of a whole batch, and nothing of any call in it.
    """

    of_batch = False

    def __init__(self, code: Code, message: str | None = None, *, shape: Mapping[str, Any] | None = None) -> None:
        if code not in CODES:
            raise DeclarationError(f"{code!r} is no error code of tRPC; the names are {', '.join(CODES)}.")
        super().__init__(message if message is not None else code)
        self.code: Code = code
        self.message = str(self)
        self.shape: Mapping[str, Any] = shape or {}

    @property
    def number(self) -> int:
        return CODES[self.code][0]

    @property
    def http_status(self) -> int:
        return CODES[self.code][1]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.code, self.message, dict(self.shape))


class ConnectionDropped(BaseException):  # it is no failure of a procedure, so it is no Exception either
    """Raised by a procedure, ends its connection as a broken network would: for tests of clients that have to come
    back.
    """


def _rebuilt(code: Code, message: str, shape: Mapping[str, Any]) -> RpcError:
    return RpcError(code, message, shape=shape)


def code_of_number(number: int) -> Code:
    """The name that stands for a number where a peer sent no name; an unknown number is an internal error."""
    for name, (known, _) in CODES.items():
        if known == number:
            return name
    return "INTERNAL_SERVER_ERROR"
