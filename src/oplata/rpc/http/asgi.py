"""The few shapes of ASGI, and how a request's head and body are read from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote_to_bytes

from oplata.rpc.errors import RpcError

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

MAX_QUERY_FIELDS = 64


class BadUrl(RpcError):
    """The path or the query of the request cannot be read."""


@dataclass(frozen=True, slots=True)
class Head:
    """``path`` is what stands behind the place where the router is mounted, decoded and without a slash in front."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


def read_head(scope: Scope, prefix: str = "") -> Head:
    """Raises RpcError (BAD_REQUEST) for a path that is not UTF-8 in percent encoding, or a query of too many fields."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    method = str(scope.get("method", "GET"))
    return Head(method, _path(scope, prefix), _query(scope), headers)


def mounted_at(scope: Scope, prefix: str = "") -> str:
    return str(scope.get("root_path", "")).rstrip("/") + prefix.rstrip("/")


def _path(scope: Scope, prefix: str) -> str:
    mounted = mounted_at(scope, prefix)
    raw = scope.get("raw_path")
    # Servers decode leniently; a procedure's name has to be read exactly, or two paths could mean one procedure.
    text = str(scope["path"]) if raw is None else _decoded(raw.split(b"?", 1)[0], mounted)
    return text.removeprefix(mounted).removeprefix("/")


def _decoded(raw: bytes, mounted: str) -> str:
    if b"%" not in raw:
        return raw.decode("latin-1")
    try:
        for escape in raw.split(b"%")[1:]:
            int(escape[:2].decode("ascii") if len(escape) >= 2 and escape[:2].isalnum() else "?", 16)
        return unquote_to_bytes(raw).decode("utf-8")
    except ValueError:
        shown = raw.decode("latin-1").removeprefix(mounted).removeprefix("/")
        raise BadUrl("BAD_REQUEST", f'Invalid URL-encoding in path "{shown}"') from None


def _query(scope: Scope) -> Mapping[str, str]:
    raw: bytes = scope.get("query_string", b"")
    if not raw:
        return {}
    try:
        pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise BadUrl("BAD_REQUEST", f"The query has more than {MAX_QUERY_FIELDS} fields") from None
    return dict(reversed(pairs))


async def read_body(receive: Receive, limit_bytes: int, timeout_s: float, declared: str | None) -> bytes:
    """Raises RpcError: PAYLOAD_TOO_LARGE, TIMEOUT for a body that trickles in, CLIENT_CLOSED_REQUEST."""
    if declared is not None and declared.isdigit() and int(declared[:20]) > limit_bytes:
        raise RpcError("PAYLOAD_TOO_LARGE")
    message = await _first(receive, timeout_s)
    body = message.get("body", b"")
    if message.get("more_body"):
        body = await _rest(receive, body, limit_bytes, timeout_s)
    if len(body) > limit_bytes:
        raise RpcError("PAYLOAD_TOO_LARGE")
    return bytes(body)


async def _first(receive: Receive, timeout_s: float) -> Message:
    try:
        async with asyncio.timeout(timeout_s):
            return _sent(await receive())
    except TimeoutError:
        raise RpcError("TIMEOUT", "The request's body did not come in time") from None


async def _rest(receive: Receive, begun: bytes, limit_bytes: int, timeout_s: float) -> bytes:
    parts, size, more = [begun], len(begun), True
    try:
        async with asyncio.timeout(timeout_s):
            while more:
                message = _sent(await receive())
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit_bytes:
                    raise RpcError("PAYLOAD_TOO_LARGE")
                more = bool(message.get("more_body"))
    except TimeoutError:
        raise RpcError("TIMEOUT", "The request's body did not come in time") from None
    return b"".join(parts)


def _sent(message: Message) -> Message:
    if message["type"] == "http.disconnect":
        raise RpcError("CLIENT_CLOSED_REQUEST")
    return message
