"""The application around the callback: its life, its sentences, and the server's limits."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from oplata.bank.keyring import Keyring
from oplata.errors import SettingsError
from oplata.ingest.app import CALLBACK_PATH, create_app
from oplata.ingest.callback import CONFIRM_GRACE_S, Callback, Limits
from oplata.ingest.server import DRAIN_S, uvicorn_config
from oplata.queue.envelope import Envelope

pytestmark = pytest.mark.anyio


class Nowhere:
    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        raise AssertionError("nothing is published in these tests")


CALLBACK = Callback(Nowhere(), Keyring({"terminal": ["password"]}))


class Part:
    """Something that starts and stops, and writes down when it did; it may refuse to."""

    def __init__(self, name: str, journal: list[str], *, fails_to: str = "") -> None:
        self._name, self._journal, self._fails_to = name, journal, fails_to

    async def start(self) -> None:
        await self._do("start")

    async def stop(self) -> None:
        await self._do("stop")

    async def _do(self, verb: str) -> None:
        self._journal.append(f"{verb} {self._name}")
        if verb == self._fails_to:
            raise RuntimeError(f"{self._name} cannot {verb}")


def app_of(*parts: Part) -> Starlette:
    return create_app(CALLBACK, on_start=[part.start for part in parts], on_stop=[part.stop for part in parts])


async def test_parts_start_in_order_and_stop_in_reverse() -> None:
    journal: list[str] = []
    app = app_of(Part("queue", journal), Part("worker", journal))

    async with app.router.lifespan_context(app):
        journal.append("serve")

    assert journal == ["start queue", "start worker", "serve", "stop worker", "stop queue"]


@pytest.mark.parametrize("verb", ["start", "stop"])
async def test_a_part_that_fails_keeps_no_other_from_stopping(verb: str) -> None:
    journal: list[str] = []
    app = app_of(Part("queue", journal), Part("worker", journal, fails_to=verb))

    with pytest.raises(RuntimeError, match=f"worker cannot {verb}"):
        async with app.router.lifespan_context(app):
            pass

    assert journal == ["start queue", "start worker", "stop worker", "stop queue"]


@pytest.mark.parametrize("path", ["", "api", "/a b", "/{name}", "/a?b", "/a#b", "/%41", "/оплата"])
def test_a_path_that_cannot_be_one_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="to be plain"):
        create_app(CALLBACK, path=path)


async def test_other_routes_stand_beside_the_callback_and_refuse_in_sentences() -> None:
    async def health(_: Request) -> Response:
        return PlainTextResponse("well")

    app = create_app(CALLBACK, path="/pay", routes=[Route("/health", health)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        assert (await client.get("/health")).text == "well"
        refused = await client.post("/health")
        missing = await client.post("/pay/")
        malformed = await client.post("/pay")

    assert (refused.status_code, refused.json()) == (405, {"error": "this address does not take this method"})
    assert "GET" in refused.headers["allow"]
    assert (missing.status_code, missing.json()) == (404, {"error": "there is nothing at this address"})
    assert malformed.status_code == 400


async def test_what_is_mounted_is_reached_without_the_layers_between_and_finds_its_place() -> None:
    seen: list[tuple[str, str, object]] = []

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["path"], scope["root_path"], send))
        await Response("here")(scope, receive, send)

    app = create_app(CALLBACK, mounted={"/api/trpc": mounted})
    direct: list[Message] = []

    async def send(message: Message) -> None:
        direct.append(message)

    scope = {"type": "http", "method": "GET", "path": "/api/trpc/orders.get", "headers": [], "query_string": b""}
    await app(scope, _nothing_more, send)
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, proceed: proceed(request))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        assert (await client.get("/api/trpc/orders.get")).text == "here"
        assert (await client.get("/api/trpcx")).status_code == 404
    assert [each[:2] for each in seen] == [("/api/trpc/orders.get", "/api/trpc")] * 2
    assert seen[0][2] is send
    assert direct[-1]["body"] == b"here"


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


async def test_a_middleware_that_was_added_sees_the_callback_too() -> None:
    async def mark(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-seen"] = "yes"
        return response

    app = create_app(CALLBACK)
    app.add_middleware(BaseHTTPMiddleware, dispatch=mark)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        answer = await client.post(CALLBACK_PATH, content=b"[]")

    assert (answer.status_code, answer.headers["x-seen"]) == (400, "yes")


def test_the_server_hands_requests_to_the_callback_itself_only_where_nothing_stands_before_it() -> None:
    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        await CALLBACK(scope, receive, send)

    plain, seen, traced = create_app(CALLBACK), create_app(CALLBACK), create_app(around)
    seen.add_middleware(BaseHTTPMiddleware)
    prompts = [getattr(app, "prompt", "unknown") for app in (plain, seen, traced)]
    assert prompts == [(CALLBACK_PATH.encode(), CALLBACK), None, None]


def test_the_server_takes_nothing_on_trust_and_waits_for_what_is_in_flight() -> None:
    config = uvicorn_config(create_app(CALLBACK), "127.0.0.1", 0)

    assert (config.proxy_headers, config.server_header, config.access_log) == (False, False, False)
    assert (config.backlog, config.limit_concurrency) == (2048, 2000)
    assert config.timeout_graceful_shutdown == DRAIN_S
    assert Limits().body_s + Limits().confirm_s + CONFIRM_GRACE_S < DRAIN_S
    assert Limits().confirm_s + CONFIRM_GRACE_S < 10
