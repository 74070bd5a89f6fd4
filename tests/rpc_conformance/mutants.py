"""Servers that are wrong in one way each, so that every kind of check is seen to fail: ``python mutants.py <port>``.

A mutant stands at ``/<its name>/trpc`` and ``/<its name>/superjson``. It changes bytes on their way out, holds some
back, or hides a header from the server.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

from oplata.rpc import RpcApp, Settings
from oplata.rpc.conformance.__main__ import nothing
from oplata.rpc.conformance.router import conformance_router
from oplata.rpc.serving import server

HELD_BACK_S = 0.5


@dataclass(frozen=True)
class Mutant:
    """``kills`` are the checks, as link/transformer/check, that have to notice."""

    kills: tuple[str, ...]
    old: bytes = b""
    new: bytes = b""
    held_back: bytes = b""
    hidden_header: bytes = b""
    status: int | None = None


def _everywhere(check: str, *transformers: str) -> tuple[str, ...]:
    return tuple(
        f"{link}/{transformer}/{check}"
        for link in ("http", "batch", "batch-stream", "ws")
        for transformer in transformers or ("none", "superjson")
    )


def _batches(check: str) -> tuple[str, ...]:
    return tuple(f"{link}/{typed}/{check}" for link in ("batch", "batch-stream") for typed in ("none", "superjson"))


MUTANTS = {
    "word": Mutant(_everywhere("hello"), b'"world"', b'"word"'),
    "null": Mutant(_everywhere("nil", "none"), b'"data":null', b'"data":0'),
    "void": Mutant(_everywhere("undefined", "none")[:3:2], b'"result":{}', b'"result":{"data":1}'),
    "voidtyped": Mutant(("http/superjson/undefined",), b'["undefined"]', b'["Date"]'),
    "nested": Mutant(_everywhere("nested"), b'"id":"\xc3\xa9', b'"id":"e'),
    "slow": Mutant(_everywhere("slow"), b'"slow"', b'"slowly"'),
    "number": Mutant(_everywhere("error"), b"-32001", b"-32002"),
    "code": Mutant(_everywhere("unknown"), b'"NOT_FOUND"', b'"BAD_REQUEST"'),
    "sum": Mutant(_everywhere("mutation", "none"), b'"data":3', b'"data":4'),
    "noin": Mutant(_everywhere("mutation without input"), b"true", b"false"),
    "date": Mutant(_everywhere("date"), b"1970", b"1971"),
    "meta": Mutant(_everywhere("date as input", "superjson"), b'"meta"', b'"mete"'),
    "mixed": Mutant(_batches("mixed"), b'"UNAUTHORIZED"', b'"FORBIDDEN"'),
    "sums": Mutant(("batch/none/mixed mutations", "batch-stream/none/mixed mutations"), b'"data":7', b'"data":8'),
    "refusal": Mutant(_batches("refused whole"), b"Batching is not", b"Batching is"),
    "order": Mutant(("batch-stream/none/order of completion", "ws/none/order of completion"), held_back=b'"world"'),
    "item": Mutant(("batch-stream/none/iterable",), b",1,[[1]]]", b",1,[[5]]]"),
    "conflict": Mutant(("batch-stream/none/iterable that fails",), b'"CONFLICT"', b'"NOT_FOUND"'),
    "form": Mutant(("http/none/form",), b'"f":"abc"', b'"f":"ab"'),
    "octets": Mutant(("http/none/octets",), b'"data":10', b'"data":11'),
    "event": Mutant(("subscription/none/stop",), b"data: 2\n", b"data: 9\n"),
    "message": Mutant(("ws/none/stop",), b'"data":2}', b'"data":9}'),
    "failure": Mutant(
        ("subscription/none/failing subscription", "ws/none/failing subscription"), b"subfail", b"fail"
    ),
    "ids": Mutant(("subscription/none/resume",), b"id: 3", b"id: 4"),
    "tracked": Mutant(("ws/none/resume",), b'"id":"3"', b'"id":"4"'),
    "forgets": Mutant(("subscription/none/resume",), hidden_header=b"last-event-id"),
    "status": Mutant((), status=200),
}  # fmt: skip


def mutated(app: Any, mutant: Mutant) -> Any:
    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        headers = [(name, value) for name, value in scope.get("headers", []) if name != mutant.hidden_header]

        held: list[asyncio.Task[None]] = []

        async def later(message: Any) -> None:
            await asyncio.sleep(HELD_BACK_S)
            await send(message)

        async def changed(message: Any) -> None:
            if mutant.held_back and mutant.held_back in (message.get("text") or "").encode() + message.get("body", b""):
                held.append(asyncio.create_task(later(message)))
                return
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await asyncio.gather(*held)
            if mutant.old and message.get("body"):
                message = {**message, "body": message["body"].replace(mutant.old, mutant.new)}
            if mutant.old and message.get("text"):
                text = message["text"].encode().replace(mutant.old, mutant.new).decode()
                message = {**message, "text": text}
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name != b"content-length"]
                message = {**message, "headers": kept, "status": mutant.status or message["status"]}
            await send(message)

        await app({**scope, "headers": headers}, receive, changed)

    return wrapped


def main() -> None:
    apps: dict[str, Any] = {}
    inner = []
    for name, mutant in MUTANTS.items():
        for transformer, prefix in (("none", f"/{name}/trpc"), ("superjson", f"/{name}/superjson")):
            settings = Settings(transformer="superjson") if transformer == "superjson" else Settings()
            app = RpcApp(conformance_router(), settings, prefix=prefix)
            inner.append(app)
            apps[prefix] = mutated(app, mutant)

    async def root(scope: Any, receive: Any, send: Any) -> None:
        prefix = "/".join(str(scope["path"]).split("/")[:3])
        await apps.get(prefix, nothing)(scope, receive, send)

    server(root, inner, int(sys.argv[1])).run()


if __name__ == "__main__":
    main()
