"""Requests that no client would send."""

from __future__ import annotations

import asyncio
import json
from typing import Literal

import hypothesis
from hypothesis import strategies

from oplata.rpc import Sse
from tests.rpc_asking import Answer, app_of, ask

TEXTS = strategies.text(max_size=20)
PATHS = strategies.one_of(
    TEXTS, strategies.sampled_from(["hello", "add", "sub", "post.byId,add", "count", "form", "denied"])
)
BODIES = strategies.one_of(
    strategies.binary(max_size=60),
    strategies.recursive(
        strategies.none() | strategies.booleans() | strategies.floats() | TEXTS,
        lambda inner: strategies.lists(inner) | strategies.dictionaries(TEXTS | strategies.sampled_from("01ab"), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
QUERIES = strategies.one_of(TEXTS, TEXTS.map(lambda text: "batch=1&input=" + text))
KINDS = [
    "application/json",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "application/octet-stream",
    "x",
    "",
]


@hypothesis.settings(max_examples=300, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(
    method=strategies.sampled_from(["GET", "POST", "PUT", "PATCH", "OPTIONS"]),
    path=PATHS,
    query=QUERIES,
    body=BODIES,
    kind=strategies.sampled_from(KINDS),
    accept=strategies.sampled_from(["application/jsonl", "x"]),
    transformer=strategies.sampled_from(["none", "superjson"]),
)
def test_no_request_makes_us_fail(
    method: str, path: str, query: str, body: bytes, kind: str, accept: str, transformer: Literal["none", "superjson"]
) -> None:
    headers = {"content-type": kind, "trpc-accept": accept}

    async def run() -> Answer:
        async with asyncio.timeout(10):
            app = app_of(transformer=transformer, sse=Sse(end_after_first=True))
            return await ask(app, "/" + path, method=method, query=query, headers=headers, body=body)

    answer = asyncio.run(run())
    assert 200 <= answer.status < 500
    assert "INTERNAL_SERVER_ERROR" not in answer.text
