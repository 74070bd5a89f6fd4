"""Answers that come piece by piece: streamed batches and subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from oplata.rpc import Limits, Router, RpcApp, Sse, Tracked, tracked
from oplata.rpc.conformance.router import conformance_router
from tests.rpc_asking import JSONL, NOPE, OLD_STREAM, app_of, ask

pytestmark = pytest.mark.anyio


async def test_results_stream_in_the_order_of_completion() -> None:
    answer = await ask(app_of(), "/slow,hello,fail", query="batch=1&input={}", headers=JSONL)
    assert answer.chunks[0] == b'{"0":[[0],[null,0,0]],"1":[[0],[null,0,1]],"2":[[0],[null,0,2]]}\n'
    assert sorted(answer.chunks[1:3]) == [
        b'[1,0,[[{"result":{"data":"world"}}]]]\n',
        b"[2,0,[[" + NOPE.encode() + b"]]]\n",
    ]
    assert answer.chunks[3] == b'[0,0,[[{"result":{"data":"slow"}}]]]\n'


async def test_values_of_a_stream_nest_as_an_async_iterable() -> None:
    answer = await ask(app_of(), "/count", query='batch=1&input={"0":{"to":2}}', headers=JSONL)
    assert answer.text.splitlines() == [
        '{"0":[[0],[null,0,0]]}',
        '[0,0,[[{"result":0}],["result",0,1]]]',
        '[1,0,[[{"data":0}],["data",1,2]]]',
        "[2,1,[[0]]]",
        "[2,1,[[1]]]",
        "[2,0,[[]]]",
    ]
    failing = await ask(app_of(), "/count", query='batch=1&input={"0":{"to":0,"fails":true}}', headers=JSONL)
    shape = '{"message":"x","code":-32009,"data":{"code":"CONFLICT","httpStatus":409,"path":"count"}}'
    assert failing.text.splitlines()[-1] == f"[2,2,{shape}]"


async def test_the_stream_of_v10_is_one_object_in_the_order_of_completion() -> None:
    answer = await ask(app_of(), "/slow,hello", query="batch=1&input={}", headers=OLD_STREAM)
    assert answer.text == '{"1":{"result":{"data":"world"}}\n,"0":{"result":{"data":"slow"}}\n}'


@pytest.mark.parametrize("headers", [JSONL, OLD_STREAM])
async def test_a_streamed_batch_is_refused_call_by_call(headers: dict[str, str]) -> None:
    answer = await ask(app_of(), "/hello,denied", query="batch=1", headers=headers)
    assert answer.status == 200
    assert answer.text.count("Batching is not enabled on the server") == 2


async def test_a_silent_stream_is_kept_alive_with_spaces() -> None:
    answer = await ask(app_of(jsonl_ping_s=0.03), "/slow", query="batch=1", headers=JSONL)
    assert b" " in answer.chunks


async def test_a_subscription_has_the_events_of_the_capture() -> None:
    dropped = await ask(app_of(conformance_router()), "/sub")
    assert dropped.text == 'event: connected\ndata: {}\n\n\ndata: {"i":0}\nid: 0\n\n\ndata: {"i":1}\nid: 1\n\n\n'
    resumed = await ask(app_of(conformance_router()), "/sub", query="lastEventId=2")
    assert resumed.text == ('event: connected\ndata: {}\n\n\ndata: {"i":3}\nid: 3\n\n\nevent: return\ndata: \n\n\n')
    mixed = await ask(app_of(_mixed()), "/sub", headers={"last-event-id": "5"})
    assert mixed.headers["content-type"] == "text/event-stream"
    assert mixed.text == (
        'event: connected\ndata: {}\n\n\ndata: {"start":"5"}\nid: \n\n\nevent: restore-id\ndata: \nid: 5\n\n\n'
        'data: {"v":1}\nid: 7\n\n\ndata: "untracked"\nid: \n\n\nevent: restore-id\ndata: \nid: 7\n\n\n'
        "event: return\ndata: \n\n\n"
    )


def _mixed() -> Router:
    router = Router()

    @router.subscription
    async def sub(last_event_id: str | None = None) -> AsyncIterator[Any]:
        yield {"start": last_event_id}
        yield tracked("7", {"v": 1})
        yield "untracked"

    return router


async def test_an_error_of_a_subscription_keeps_its_shape_and_the_status_200() -> None:
    answer = await ask(app_of(sse=Sse(reconnect_after_inactivity_s=5)), "/subErr")
    assert (answer.status, answer.text) == (
        200,
        (
            'event: connected\ndata: {"reconnectAfterInactivityMs":5000}\n\n\ndata: 1\n\n\n'
            "event: serialized-error\ndata: "
            '{"message":"subfail","code":-32600,"data":{"code":"BAD_REQUEST","httpStatus":400,"path":"subErr"}}\n\n\n'
        ),
    )


async def test_a_subscription_pings_and_ends_after_its_duration_without_a_return() -> None:
    router = Router()

    @router.subscription
    async def silent() -> AsyncIterator[int]:
        await asyncio.sleep(30)
        yield 1

    answer = await ask(app_of(router, sse=Sse(ping_s=0.02, max_duration_s=0.1)), "/silent")
    assert answer.text.startswith("event: connected\ndata: {}\n\n\nevent: ping\ndata: \n\n\n")
    assert "return" not in answer.text
    first = await ask(app_of(sse=Sse(end_after_first=True)), "/forever")
    assert first.text == "event: connected\ndata: {}\n\n\ndata: 0\n\n\n"


@pytest.mark.parametrize(("path", "headers"), [("/wait", {}), ("/wait", JSONL), ("/listen", {})])
async def test_a_client_that_leaves_takes_its_procedure_with_it(path: str, headers: dict[str, str]) -> None:
    router, ended = Router(), asyncio.Event()

    @router.query
    async def wait() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    @router.subscription
    async def listen() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(30)
        finally:
            ended.set()

    query = "batch=1" if headers else ""
    async with asyncio.timeout(5):
        await ask(app_of(router), path, query=query, headers=headers, leaves_after_s=0.03)
        await ended.wait()


async def test_a_client_who_reads_slowly_makes_the_procedure_wait() -> None:
    router, made = Router(), []

    @router.subscription
    async def flood() -> AsyncIterator[int]:
        while True:
            made.append(1)
            yield len(made)

    blocked = asyncio.Event()

    async def send(message: Any) -> None:
        if b"data: 1\n" in message.get("body", b""):
            blocked.set()
            await asyncio.sleep(30)

    async def receive() -> Any:
        await blocked.wait()
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/flood", "headers": []}
    async with asyncio.timeout(5):
        await app_of(router, limits=Limits(stream_chunks=4))(scope, receive, send)
    assert len(made) <= 7


async def test_one_connection_too_many_is_told_to_come_again() -> None:
    answer = await ask(app_of(limits=Limits(connections=0)), "/forever")
    assert "Too many connections" in answer.text
    assert "-32603" in answer.text


async def test_one_value_that_is_told_to_many_is_written_down_once_for_all() -> None:
    router, shared = Router(), tracked("7", {"status": "paid"})

    @router.subscription
    async def news() -> AsyncIterator[Tracked[dict[str, str]]]:
        yield shared

    app = app_of(router)
    answers = [await ask(app, "/news") for _ in range(2)]
    first, second = (next(chunk for chunk in answer.chunks if b"id: 7" in chunk) for answer in answers)
    assert first == b'data: {"status":"paid"}\nid: 7\n\n\n'
    assert first is second


async def _ask_news(app: RpcApp, send: Any, leaves: asyncio.Event) -> None:
    async def receive() -> Any:
        await leaves.wait()
        return {"type": "http.disconnect"}

    async with asyncio.timeout(5):
        await app({"type": "http", "method": "GET", "path": "/news", "headers": []}, receive, send)


async def test_a_stream_that_never_waits_lets_others_have_their_turn() -> None:
    router, enough = Router(), asyncio.Event()
    sent: list[Any] = []

    @router.subscription
    async def news() -> AsyncIterator[int]:
        while True:
            yield 1

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 100:
            enough.set()
        assert len(sent) < 10_000, "nobody else came to run"

    await _ask_news(app_of(router), send, enough)
    assert len(sent) >= 100


async def test_a_connection_that_fails_is_no_error_of_the_procedure() -> None:
    router, ended = Router(), asyncio.Event()
    failures: list[object] = []

    @router.subscription
    async def news() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(30)
        finally:
            ended.set()

    async def send(message: Any) -> None:
        if b"data: 1" in message.get("body", b""):
            raise OSError("the connection is gone")

    with pytest.raises(OSError, match="gone"):
        await _ask_news(app_of(router, on_error=failures.append), send, leaves=asyncio.Event())
    assert ended.is_set()
    assert failures == []
