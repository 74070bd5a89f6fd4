"""Requests put to an RpcApp as a server would put them, and the sentences that answers are compared with."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from oplata.rpc import Cors, Router, RpcApp, Settings
from oplata.rpc.conformance.router import conformance_router

JSON = {"content-type": "application/json"}
JSONL = {"trpc-accept": "application/jsonl"}
OLD_STREAM = {"trpc-batch-mode": "stream"}


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict[str, str]
    chunks: list[bytes]

    @property
    def text(self) -> str:
        return b"".join(self.chunks).decode()


async def ask(
    app: Any,
    path: str,
    *,
    method: str = "GET",
    query: str = "",
    headers: Mapping[str, str] | None = None,
    body: bytes | list[bytes] = b"",
    leaves_after_s: float | None = None,
) -> Answer:
    """One request as a server would hand it over; the client leaves after the time given, or stays to the end."""
    parts = body if isinstance(body, list) else [body]
    messages: list[Any] = [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1} for index, part in enumerate(parts)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(30 if leaves_after_s is None else leaves_after_s)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    if not sent:
        return Answer(0, {}, [])
    named = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], named, [message["body"] for message in sent[1:] if message["body"]])


def app_of(router: Router | None = None, cors: Cors | None = None, **settings: Any) -> RpcApp:
    return RpcApp(router or conformance_router(), Settings(**settings), cors=cors)


NOPE = '{"error":{"message":"nope","code":-32001,"data":{"code":"UNAUTHORIZED","httpStatus":401,"path":"fail"}}}'


def refusal(message: str, code: str = "BAD_REQUEST", number: int = -32600, status: int = 400, path: str = "") -> str:
    data = {"code": code, "httpStatus": status} | ({"path": path} if path else {})
    shape = {"error": {"message": message, "code": number, "data": data}}
    return json.dumps(shape, separators=(",", ":"))
