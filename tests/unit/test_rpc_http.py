"""The byte forms that tRPC's own server has on the wire, asked of ours over ASGI."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from oplata.rpc import ContextRequest, Cors, Limits, Router, RpcApp, RpcError, beside
from oplata.rpc.conformance.router import Post, conformance_router
from tests.rpc_asking import JSON, JSONL, NOPE, app_of, ask, refusal

pytestmark = pytest.mark.anyio


GOLDEN: list[tuple[str, str, str, dict[str, str], bytes, int, str]] = [
    ("GET", "/hello", "", {}, b"", 200, '{"result":{"data":"world"}}'),
    ("GET", "/nil", "", {}, b"", 200, '{"result":{"data":null}}'),
    ("GET", "/undef", "", {}, b"", 200, '{"result":{}}'),
    ("GET", "/post.byId", "input=%221%22", {}, b"", 200, '{"result":{"data":{"id":"1"}}}'),
    ("GET", "/fail", "", {}, b"", 401, NOPE),
    ("GET", "/hello", "batch=true", {}, b"", 200, '{"result":{"data":"world"}}'),
    ("GET", "/hello", "batch=1&input=%7B%7D", {}, b"", 200, '[{"result":{"data":"world"}}]'),
    ("GET", "/undef,nil", "batch=1", {}, b"", 200, '[{"result":{}},{"result":{"data":null}}]'),
    ("GET", "/hello%2Cnil", "batch=1", {}, b"", 200, '[{"result":{"data":"world"}},{"result":{"data":null}}]'),
    ("GET", "/hello,fail", "batch=1", {}, b"", 207, '[{"result":{"data":"world"}},' + NOPE + "]"),
    ("GET", "/fail,fail", "batch=1", {}, b"", 401, f"[{NOPE},{NOPE}]"),
    (
        "GET",
        "/hello,fail",
        "",
        {},
        b"",
        404,
        refusal('No procedure found on path "hello,fail"', "NOT_FOUND", -32004, 404, "hello,fail"),
    ),
    (
        "GET",
        "/add",
        "",
        {},
        b"",
        405,
        refusal(
            'Unsupported GET-request to mutation procedure at path "add"', "METHOD_NOT_SUPPORTED", -32005, 405, "add"
        ),
    ),
    ("GET", "/%E0%A4%A", "", {}, b"", 400, refusal('Invalid URL-encoding in path "%E0%A4%A"')),
    ("GET", "/hello,denied", "batch=1", {}, b"", 400, refusal("Batching is not enabled on the server")),
    ("GET", "/hello,add", "batch=1", {}, b"", 400, refusal("Cannot mix procedure types in call: query, mutation")),
    (
        "GET",
        "/hello",
        "",
        JSONL,
        b"",
        400,
        refusal("Streaming requests must be batched (you can do a batch of 1)"),
    ),
    (
        "GET",
        "/post.byId,hello",
        "batch=1&input=[1,2]",
        {},
        b"",
        207,
        "["
        + refusal('"input" needs to be an object when doing a batch call', path="post.byId")
        + ',{"result":{"data":"world"}}]',
    ),
    ("GET", "/sub,sub", "batch=1", {}, b"", 400, "SUBS"),
    ("GET", "/sub", "connectionParams=%7Bx", {}, b"", 400, refusal("Not JSON-parsable query params", "PARSE_ERROR",
    -32700)), (
        "GET",
        "/sub",
        "connectionParams=%7B%22a%22:1%7D",
        {},
        b"",
        400,
        refusal("Invalid connection params shape", "PARSE_ERROR", -32700),
    ),
    ("POST", "/add", "", JSON, b'{"a":1,"b":2}', 200, '{"result":{"data":3}}'),
    ("POST", "/add", "", {"content-type": "Application/JSON; charset=utf-8"}, b'{"a":1,"b":2}', 200,
    '{"result":{"data":3}}'), ("POST", "/noin", "", JSON, b"", 200, '{"result":{"data":{"isUndef":true}}}'),
    (
        "POST",
        "/noin",
        "",
        {},
        b"",
        415,
        refusal("Missing content-type header", "UNSUPPORTED_MEDIA_TYPE", -32015, 415),
    ),
    (
        "POST",
        "/add",
        "",
        {"content-type": "text/plain"},
        b"{}",
        415,
        ('{"error":{"message":"Unsupported content-type \\"text/plain","code":-32015,'
        '"data":{"code":"UNSUPPORTED_MEDIA_TYPE","httpStatus":415}}}'),
    ),
    (
        "POST",
        "/hello",
        "",
        JSON,
        b"",
        405,
        refusal(
            'Unsupported POST-request to query procedure at path "hello"', "METHOD_NOT_SUPPORTED", -32005, 405, "hello"
        ),
    ),
    ("POST", "/add,add", "batch=1", JSON, b'{"0":{"a":1,"b":2},"1":{"a":3,"b":4}}', 200,
    '[{"result":{"data":3}},{"result":{"data":7}}]'), ("POST", "/octets", "", {"content-type":
    "application/octet-stream"}, b"0123456789", 200, '{"result":{"data":10}}'), (
        "GET",
        "/count",
        "input=%7B%22to%22:1%7D",
        {},
        b"",
        415,
        refusal(
            "Cannot use stream-like response in non-streaming request - use httpBatchStreamLink",
            "UNSUPPORTED_MEDIA_TYPE",
            -32015,
            415,
        ),
    ),
]  # fmt: skip
SUBS = "[" + ",".join([refusal("Cannot batch subscription calls", path="sub")] * 2) + "]"


@pytest.mark.parametrize(("method", "path", "query", "headers", "body", "status", "text"), GOLDEN)
async def test_an_answer_is_byte_for_byte_what_trpc_answers(
    method: str, path: str, query: str, headers: dict[str, str], body: bytes, status: int, text: str
) -> None:
    answer = await ask(app_of(), path, method=method, query=query, headers=headers, body=body)
    assert (answer.status, answer.text) == (status, SUBS if text == "SUBS" else text)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "trpc-accept, accept"


@pytest.mark.parametrize(
    ("path", "query", "text"),
    [
        ("/undef", "", '{"result":{"data":{"json":null,"meta":{"values":["undefined"],"v":1}}}}'),
        (
            "/date",
            "",
            '{"result":{"data":{"json":{"at":"1970-01-01T00:00:00.000Z"},"meta":{"values":{"at":["Date"]},"v":1}}}}',
        ),
        ("/fail", "", NOPE.replace('"error":{', '"error":{"json":{') + "}"),
        (
            "/dayAfter",
            'input={"json":{"day":"1970-01-01T00:00:00.000Z"},"meta":{"values":{"day":["Date"]},"v":1}}',
            '{"result":{"data":{"json":"1970-01-02T00:00:00.000Z","meta":{"values":["Date"],"v":1}}}}',
        ),
    ],
)
async def test_superjson_answers_are_those_of_the_capture(path: str, query: str, text: str) -> None:
    assert (await ask(app_of(transformer="superjson"), path, query=query)).text == text


async def test_head_is_answered_without_a_body() -> None:
    answer = await ask(app_of(), "/hello", method="HEAD")
    assert (answer.status, answer.text) == (204, "")


async def test_a_refused_method_names_the_one_that_works() -> None:
    assert (await ask(app_of(), "/add")).headers["allow"] == "POST"


async def test_queries_come_as_post_where_that_is_allowed() -> None:
    answer = await ask(app_of(method_override=True), "/post.byId", method="POST", headers=JSON, body=b'"7"')
    assert answer.text == '{"result":{"data":{"id":"7"}}}'
    refused = await ask(app_of(method_override=True), "/add")
    assert (refused.status, refused.headers["allow"]) == (405, "POST")


async def test_the_context_is_made_once_for_a_batch_and_may_set_headers() -> None:
    router, made = Router(), []

    @router.query
    async def who(ctx: str) -> str:
        return ctx

    async def context(request: ContextRequest) -> str:
        made.append(request.paths)
        request.response_headers.append(("set-cookie", "a=b"))
        return request.headers["x-user"]

    answer = await ask(app_of(router, context=context), "/who,who", query="batch=1", headers={"x-user": "ann"})
    assert answer.text == '[{"result":{"data":"ann"}},{"result":{"data":"ann"}}]'
    assert (made, answer.headers["set-cookie"]) == ([("who", "who")], "a=b")


async def test_a_context_that_cannot_be_made_fails_every_call() -> None:
    def context(request: ContextRequest) -> None:
        raise RpcError("FORBIDDEN", "ctx")

    app = app_of(context=context)
    assert (await ask(app, "/hello,nil", query="batch=1")).status == 403
    lines = (await ask(app, "/hello,nil", query="batch=1", headers=JSONL)).text
    assert lines.count('"message":"ctx"') == 2
    assert "serialized-error" in (await ask(app, "/sub")).text


async def test_connection_params_reach_the_context() -> None:
    seen: list[Any] = []
    app = app_of(context=lambda request: seen.append(request.connection_params))
    await ask(app, "/subErr", query="connectionParams=%7B%22token%22:%22t%22%7D")
    assert seen == [{"token": "t"}]


async def test_a_cache_header_is_sent_when_all_of_a_batch_agree_on_it() -> None:
    router = Router()

    @router.query(cache_control="public, max-age=60")
    async def kept() -> int:
        return 1

    @router.query
    async def fresh() -> int:
        return 2

    app = app_of(router)
    assert (await ask(app, "/kept,kept", query="batch=1")).headers["cache-control"] == "public, max-age=60"
    assert "cache-control" not in (await ask(app, "/kept,fresh", query="batch=1")).headers


async def test_what_was_not_foreseen_is_hidden_logged_and_shown_in_development(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = Router()

    @router.query
    async def boom() -> int:
        raise ZeroDivisionError("a secret")

    answer = await ask(app_of(router), "/boom")
    assert (answer.status, answer.text) == (
        500,
        refusal("Internal server error", "INTERNAL_SERVER_ERROR", -32603, 500, "boom"),
    )
    assert "a secret" in str(caplog.records[0].exc_info)
    assert "a secret" in (await ask(app_of(router, development=True), "/boom")).text


async def test_a_result_is_held_to_its_type_on_its_way_out() -> None:
    router = Router()

    @router.query
    async def generous() -> Post:
        return {"id": "7", "password": "secret"}  # type: ignore[typeddict-unknown-key]  # the check has to drop it

    @router.query
    async def wrong() -> Post:
        return {"id": 7}  # type: ignore[typeddict-item]  # the check has to refuse it

    app = app_of(router)
    assert (await ask(app, "/generous")).text == '{"result":{"data":{"id":"7"}}}'
    refused = await ask(app, "/wrong")
    assert (refused.status, json.loads(refused.text)["error"]["message"]) == (500, "Output validation failed")


async def test_errors_are_translated_and_formatted() -> None:
    router = Router()

    @router.query
    async def missing() -> int:
        raise LookupError("order")

    app = app_of(
        router,
        translate=lambda error: RpcError("NOT_FOUND", str(error)) if isinstance(error, LookupError) else None,
        formatter=lambda shape, failure: {**shape, "data": {**shape["data"], "hint": failure.kind}},
    )
    answer = json.loads((await ask(app, "/missing")).text)["error"]
    assert (answer["message"], answer["data"]["hint"], answer["data"]["httpStatus"]) == ("order", "query", 404)


async def test_too_much_is_refused() -> None:
    app = app_of(limits=Limits(body_bytes=5, batch_calls=1))
    for body in (b'{"a":1,"b":2}', [b'{"a":1', b',"b":2}']):
        assert (await ask(app, "/add", method="POST", headers=JSON, body=body)).text == refusal(
            "PAYLOAD_TOO_LARGE", "PAYLOAD_TOO_LARGE", -32013, 413, "add"
        )
    assert (await ask(app, "/hello,hello", query="batch=1")).text == refusal("Batch call exceeds maximum size")
    assert (await ask(app_of(batching=False), "/hello", query="batch=1")).status == 400


async def test_a_body_without_end_is_read_no_further_than_its_limit() -> None:
    read = 0

    async def receive() -> Any:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"12345", "more_body": read < 1_000}

    async def send(message: Any) -> None: ...

    scope = {"type": "http", "method": "POST", "path": "/add", "headers": [(b"content-type", b"application/json")]}
    await app_of(limits=Limits(body_bytes=10))(scope, receive, send)
    assert read == 3


async def test_a_body_that_trickles_in_is_given_up() -> None:
    async def receive() -> Any:
        await asyncio.sleep(30)

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/noin", "headers": [(b"content-type", b"application/json")]}
    await app_of(limits=Limits(body_timeout_s=0.05))(scope, receive, send)
    assert sent[0]["status"] == 408


async def test_other_sites_may_call_where_they_are_named() -> None:
    app = app_of(cors=Cors(("https://shop.example",), credentials=True))
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    answer = await ask(app, "/hello", method="OPTIONS", headers=asked)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert "trpc-accept" in answer.headers["access-control-allow-headers"]
    stranger = await ask(app, "/hello", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in stranger.headers
    with pytest.raises(ValueError, match="named"):
        Cors(("*",), credentials=True)


async def test_a_form_with_a_file_is_read() -> None:
    body = (
        b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\nb\r\n'
        b'--x\r\ncontent-disposition: form-data; name="f"; filename="n.txt"'
        b"\r\ncontent-type: text/plain\r\n\r\nabc\r\n--x--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert (await ask(app_of(), "/form", method="POST", headers=headers, body=body)).text == (
        '{"result":{"data":{"a":"b","f":"abc"}}}'
    )
    assert (await ask(app_of(), "/form", method="POST", headers=headers, body=b"nonsense")).status == 400


async def test_it_stands_beside_another_application() -> None:
    async def other(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"other"})

    app = beside(RpcApp(conformance_router(), prefix="/api/trpc"), "/api/trpc", other)
    assert (await ask(app, "/api/trpc/hello")).text == '{"result":{"data":"world"}}'
    assert (await ask(app, "/api/trpcs/hello")).text == "other"
