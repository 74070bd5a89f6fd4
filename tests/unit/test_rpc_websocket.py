"""The messages of wsLink, as tRPC's own server exchanges them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from oplata.rpc import KeepAlive, Limits, Router, RpcApp, RpcError, Settings, tracked
from oplata.rpc.conformance.router import conformance_router

pytestmark = pytest.mark.anyio


class Client:
    """The far end of a WebSocket, spoken over ASGI."""

    def __init__(self, app: Any, query: str = "") -> None:
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._outbox: asyncio.Queue[Any] = asyncio.Queue()
        scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/",
            "query_string": query.encode(),
            "headers": [],
            "client": None,
        }
        self._task = asyncio.create_task(app(scope, self._inbox.get, self._outbox.put))

    async def __aenter__(self) -> Client:
        self._inbox.put_nowait({"type": "websocket.connect"})
        assert (await self._outbox.get())["type"] == "websocket.accept"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
        async with asyncio.timeout(5):
            await self._task

    def say(self, *messages: str) -> None:
        for message in messages:
            self._inbox.put_nowait({"type": "websocket.receive", "text": message})

    async def hear(self) -> str:
        async with asyncio.timeout(5):
            message = await self._outbox.get()
        return str(message.get("text") or message["code"])

    async def ask(self, message: str, answers: int = 1) -> list[str]:
        self.say(message)
        return [await self.hear() for _ in range(answers)]


def app_of(router: Router | None = None, **settings: Any) -> RpcApp:
    return RpcApp(router or conformance_router(), Settings(**settings))


def parse_error(message: str) -> str:
    data = '"data":{"code":"PARSE_ERROR","httpStatus":400}'
    return f'{{"id":null,"error":{{"message":{json.dumps(message)},"code":-32700,{data}}}}}'


NOPE = '{"message":"nope","code":-32001,"data":{"code":"UNAUTHORIZED","httpStatus":401,"path":"fail"}}'


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ('{"id":1,"method":"query","params":{"path":"hello"}}', '{"id":1,"result":{"type":"data","data":"world"}}'),
        (
            '{"id":2,"jsonrpc":"2.0","method":"query","params":{"path":"post.byId","input":"7"}}',
            '{"id":2,"jsonrpc":"2.0","result":{"type":"data","data":{"id":"7"}}}',
        ),
        ('{"id":"s","method":"query","params":{"path":"undef"}}', '{"id":"s","result":{"type":"data"}}'),
        ('{"id":3,"method":"query","params":{"path":"nil"}}', '{"id":3,"result":{"type":"data","data":null}}'),
        (
            '{"id":1,"method":"mutation","params":{"path":"add","input":{"a":1,"b":2}}}',
            '{"id":1,"result":{"type":"data","data":3}}',
        ),
        ('{"id":2,"method":"query","params":{"path":"fail"}}', '{"id":2,"error":' + NOPE + "}"),
        (
            '{"id":3,"method":"query","params":{"path":"nope"}}',
            (
                '{"id":3,"error":{"message":"No \\"query\\"-procedure on path \\"nope\\"","code":-32004,'
                '"data":{"code":"NOT_FOUND","httpStatus":404,"path":"nope"}}}'
            ),
        ),
        (
            '{"id":1,"method":"query","params":{"path":"count","input":{"to":1}}}',
            (
                '{"id":1,"error":{"message":"Cannot return an async iterable or observable from a query procedure with '
                'WebSockets","code":-32015,"data":{"code":"UNSUPPORTED_MEDIA_TYPE","httpStatus":415,"path":"count"}}}'
            ),
        ),
        ("5", parse_error("Not an object")),
        ("{}", parse_error("Invalid request id")),
        ('{"id":null,"method":"query","params":{"path":"hello"}}', parse_error("`id` is required")),
        ('{"id":1,"method":"bogus","params":{}}', parse_error("Invalid procedure type")),
        ('{"id":1,"jsonrpc":"1.0","method":"query","params":{"path":"hello"}}', parse_error("Must be JSONRPC 2.0")),
        ('{"id":2,"method":"query"}', parse_error("Not an object")),
        ("PING", "PONG"),
    ],
)
async def test_an_answer_is_byte_for_byte_what_trpc_answers(said: str, heard: str) -> None:
    async with Client(app_of()) as client:
        assert await client.ask(said) == [heard]


async def test_calls_of_one_message_are_answered_as_they_end() -> None:
    async with Client(app_of()) as client:
        calls = [
            {"id": number, "method": "query", "params": {"path": path}} for number, path in ((1, "slow"), (2, "nil"))
        ]
        heard = await client.ask(json.dumps(calls), 2)
    assert [json.loads(each)["id"] for each in heard] == [2, 1]


def mixed() -> Router:
    router = Router()

    @router.subscription
    async def sub(last_event_id: str | None = None) -> AsyncIterator[Any]:
        yield {"start": last_event_id}
        yield tracked("7", {"v": 1})
        yield None

    return router


async def test_a_subscription_starts_tells_and_stops() -> None:
    async with Client(app_of(mixed())) as client:
        said = '{"id":1,"method":"subscription","params":{"path":"sub","lastEventId":"42"}}'
        assert await client.ask(said, 5) == [
            '{"id":1,"result":{"type":"started"}}',
            '{"id":1,"result":{"type":"data","data":{"start":"42"}}}',
            '{"id":1,"result":{"type":"data","data":{"id":"7","data":{"v":1}},"id":"7"}}',
            '{"id":1,"result":{"type":"data","data":null}}',
            '{"id":1,"result":{"type":"stopped"}}',
        ]


async def test_superjson_wraps_the_data_and_not_the_message() -> None:
    async with Client(app_of(mixed(), transformer="superjson")) as client:
        heard = await client.ask('{"id":3,"method":"subscription","params":{"path":"sub"}}', 5)
    assert heard[2] == '{"id":3,"result":{"type":"data","data":{"json":{"id":"7","data":{"v":1}}},"id":"7"}}'


async def test_an_error_is_followed_by_stopped() -> None:
    async with Client(app_of()) as client:
        heard = await client.ask('{"id":1,"method":"subscription","params":{"path":"subErr"}}', 4)
    assert heard[2:] == [
        '{"id":1,"error":{"message":"subfail","code":-32600,"data":{"code":"BAD_REQUEST","httpStatus":400,"path":"subErr"}}}',
        '{"id":1,"result":{"type":"stopped"}}',
    ]  # fmt: skip


async def test_a_stopped_subscription_ends_and_its_id_is_free_again() -> None:
    router, ended = Router(), asyncio.Event()

    @router.subscription
    async def wait() -> AsyncIterator[int]:
        try:
            yield 0
            await asyncio.sleep(30)
        finally:
            ended.set()

    start = '{"id":1,"method":"subscription","params":{"path":"wait"}}'
    async with Client(app_of(router)) as client:
        await client.ask(start, 2)
        assert "Duplicate id 1" in (await client.ask(start))[0]
        assert await client.ask('{"id":1,"method":"subscription.stop"}') == ['{"id":1,"result":{"type":"stopped"}}']
        assert ended.is_set()
        assert (await client.ask(start))[0] == '{"id":1,"result":{"type":"started"}}'


async def test_a_client_that_leaves_takes_its_calls_with_it() -> None:
    router, ended = Router(), asyncio.Event()

    @router.query
    async def wait() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    async with Client(app_of(router)) as client:
        client.say('{"id":1,"method":"query","params":{"path":"wait"}}')
        await asyncio.sleep(0.02)
    assert ended.is_set()


async def test_connection_params_come_first_and_the_context_is_made_once() -> None:
    made: list[Any] = []
    app = app_of(context=lambda request: made.append(request.connection_params))
    async with Client(app, "connectionParams=1") as client:
        client.say('{"method":"connectionParams","data":{"token":"x"}}')
        await client.ask('{"id":1,"method":"query","params":{"path":"hello"}}')
        await client.ask('{"id":2,"method":"query","params":{"path":"hello"}}')
    assert made == [{"token": "x"}]
    async with Client(app, "connectionParams=1") as client:
        assert await client.ask("{x", 2) == [parse_error("Malformed TRPCConnectionParamsMessage"), "1011"]


async def test_a_context_that_cannot_be_made_closes_the_connection() -> None:
    def context(request: Any) -> None:
        raise RpcError("FORBIDDEN", "ctx")

    async with Client(app_of(context=context)) as client:
        heard = [await client.hear(), await client.hear()]
    assert heard == [
        '{"id":null,"error":{"message":"ctx","code":-32003,"data":{"code":"FORBIDDEN","httpStatus":403}}}',
        "1011",
    ]


async def test_work_is_bounded() -> None:
    limits = Limits(socket_calls=2, socket_message_bytes=200, connections=1, batch_calls=3)
    app = app_of(limits=limits)
    async with Client(app) as client:
        for number in range(3):
            client.say(json.dumps({"id": number, "method": "query", "params": {"path": "slow"}}))
        assert "TOO_MANY_REQUESTS" in await client.hear()
        async with Client(app) as second:
            assert await second.hear() == "1013"
        assert "Batch call exceeds" in (await client.ask("[" + "1," * 3 + "1]"))[0]
        client.say("x" * 201)
        heard = [await client.hear()]
        while heard[-1] != "1009":
            heard.append(await client.hear())


async def test_silence_is_asked_and_then_given_up() -> None:
    async with Client(app_of(keep_alive=KeepAlive(ping_s=0.02, pong_s=0.05))) as client:
        assert await client.hear() == "PING"
        client.say("PONG")
        assert await client.hear() == "PING"
        assert await client.hear() == "1011"


async def test_clients_are_asked_to_reconnect_before_the_server_ends() -> None:
    app = app_of()
    async with Client(app) as client:
        await client.ask("PING")
        await app.shutdown()
        assert await client.hear() == '{"id":null,"method":"reconnect"}'


VALUES = strategies.none() | strategies.integers() | strategies.text(max_size=5) | strategies.just({"path": "add"})
PARAMS = strategies.fixed_dictionaries({"path": VALUES}, optional={"input": VALUES, "lastEventId": VALUES})
FRAMES = strategies.one_of(
    strategies.text(max_size=30),
    strategies.fixed_dictionaries(
        {},
        optional={
            "id": VALUES,
            "method": strategies.sampled_from(["query", "mutation", "subscription", "subscription.stop", "x"]),
            "params": VALUES | PARAMS,
            "jsonrpc": VALUES,
        },
    ).map(json.dumps),
)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(frames=strategies.lists(FRAMES, max_size=6))
def test_no_message_makes_us_fail(frames: list[str]) -> None:
    async def run() -> list[str]:
        app = app_of()
        heard: list[str] = []
        async with asyncio.timeout(10), Client(app) as client:
            client.say(*frames)
            client.say("PING")
            while heard[-1:] != ["PONG"]:
                heard.append(await client.hear())
            assert app.connections == 1
        assert app.connections == 0
        return heard

    assert "INTERNAL_SERVER_ERROR" not in "".join(asyncio.run(run()))
