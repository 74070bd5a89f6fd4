"""What a WebSocket client may say, read from its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

import msgspec

from oplata.rpc.codec import refuse_depth
from oplata.rpc.errors import RpcError
from oplata.rpc.middleware import Kind

RequestId: TypeAlias = int | float | str
_KINDS: Final = ("query", "mutation", "subscription")


@dataclass(frozen=True, slots=True)
class Ask:
    """A call. ``jsonrpc`` says whether the answer has to name that protocol, too."""

    id: RequestId
    jsonrpc: bool
    kind: Kind
    path: str
    raw: msgspec.Raw | None
    last_event_id: str | None


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of a subscription that the client no longer wants."""

    id: RequestId


def split(text: str) -> list[msgspec.Raw]:
    """A message, or the messages of an array. Raises RpcError (PARSE_ERROR)."""
    try:
        refuse_depth(text.encode())
        if text.lstrip().startswith("["):
            return msgspec.json.decode(text, type=list[msgspec.Raw])
        return [msgspec.json.decode(text, type=msgspec.Raw)]
    except (msgspec.MsgspecError, RpcError, UnicodeError) as error:
        raise RpcError("PARSE_ERROR", str(error)) from error


def read(raw: msgspec.Raw) -> Ask | Stop:
    """Raises RpcError (PARSE_ERROR) with the sentences that tRPC has for it."""
    message = _object(raw)
    request_id = _value(message, "id", "missing")
    if request_id is not None and (
        isinstance(request_id, bool) or not isinstance(request_id, RequestId) or "id" not in message
    ):
        raise _unreadable("Invalid request id")
    jsonrpc = _value(message, "jsonrpc", None)
    if jsonrpc not in (None, "2.0"):
        raise _unreadable("Must be JSONRPC 2.0")
    method = _value(message, "method", None)
    if method != "subscription.stop" and method not in _KINDS:
        raise _unreadable("Invalid procedure type")
    params = {} if method == "subscription.stop" else _object(message.get("params"))
    if request_id is None:
        raise _unreadable("`id` is required")
    if method == "subscription.stop":
        return Stop(request_id)
    return Ask(
        request_id,
        jsonrpc is not None,
        cast("Literal['query', 'mutation', 'subscription']", method),
        _text(params, "path") or "",
        params.get("input"),
        _text(params, "lastEventId") if "lastEventId" in params else None,
    )


def read_params(text: str) -> object:
    """The connection parameters of the first message; not yet checked. Raises RpcError (PARSE_ERROR)."""
    try:
        refuse_depth(text.encode())
        message = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RpcError, UnicodeError):
        message = None
    if not isinstance(message, dict) or message.get("method") != "connectionParams":
        raise _unreadable("Malformed TRPCConnectionParamsMessage")
    return message.get("data")


def _object(raw: msgspec.Raw | None) -> Mapping[str, msgspec.Raw]:
    if raw is None:
        raise _unreadable("Not an object")
    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        raise _unreadable("Not an object") from None


def _value(message: Mapping[str, msgspec.Raw], key: str, missing: object) -> object:
    return msgspec.json.decode(message[key]) if key in message else missing


def _text(message: Mapping[str, msgspec.Raw], key: str) -> str | None:
    value = _value(message, key, None)
    if not isinstance(value, str):
        raise _unreadable("Invalid string")
    return value


def _unreadable(sentence: str) -> RpcError:
    return RpcError("PARSE_ERROR", sentence)
