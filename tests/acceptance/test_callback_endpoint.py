"""The callback endpoint over real HTTP: what is taken, at which address, and from where."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from oplata.ingest.app import CALLBACK_PATH
from oplata.ingest.callback import Limits
from oplata.ingest.networks import Gate
from oplata.queue.envelope import FORM, JSON, RECEIVED_AT_HEADER, SOURCE_HEADER, Delivery
from oplata.queue.sqlite import SqliteQueue
from tests.acceptance.endpoint import (
    VECTORS,
    Endpoint,
    Recorder,
    assert_refused,
    request,
    serving,
    signed,
    wait_until,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Endpoint]:
    with serving(limits=Limits(body_s=1.0)) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(shared: Endpoint) -> Endpoint:
    shared.recorder.envelopes.clear()
    return shared


# What is taken


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_notification_that_the_bank_published_is_answered_ok(endpoint: Endpoint, vector: dict[str, Any]) -> None:
    body = json.dumps(vector["body"], ensure_ascii=False).encode()

    answer = endpoint.post(body, {"content-type": "application/json"})

    assert (answer.status_code, answer.content) == (200, b"OK")
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["content-length"] == "2"
    assert endpoint.recorder.bodies == [body]


def test_what_is_published_is_the_body_byte_for_byte_with_our_metadata_beside_it(endpoint: Endpoint) -> None:
    body = b"\n " + signed(Extra="\u20bd", Note=None).replace(b", ", b" ,\t") + b"  \n"
    before_ms = time.time_ns() // 1_000_000

    assert endpoint.post(body).content == b"OK"

    (envelope,) = endpoint.recorder.envelopes
    assert envelope.body == body
    assert envelope.content_type == JSON
    assert len(envelope.message_id) == 32
    assert set(envelope.headers) == {RECEIVED_AT_HEADER, SOURCE_HEADER}
    assert before_ms <= int(envelope.headers[RECEIVED_AT_HEADER]) <= time.time_ns() // 1_000_000
    assert envelope.headers[SOURCE_HEADER] == "127.0.0.1"


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON;charset=UTF-8", "text/plain", ""],
)
def test_json_is_taken_whatever_the_content_type_calls_it(endpoint: Endpoint, content_type: str) -> None:
    assert endpoint.post(signed(), {"content-type": content_type}).content == b"OK"


def test_json_without_a_content_type_is_taken(endpoint: Endpoint) -> None:
    with endpoint.wire() as wire:
        wire.send(request(signed()))
        answer = wire.answer()

    assert answer is not None
    assert (answer[0], answer[2]) == (200, b"OK")


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=UTF-8"])
def test_a_form_is_taken(endpoint: Endpoint, content_type: str) -> None:
    texts = json.loads(signed(Success="true", PaymentId="12", Amount="19900"))

    answer = endpoint.post(urlencode(texts).encode(), {"content-type": content_type})

    assert answer.content == b"OK"
    assert [envelope.content_type for envelope in endpoint.recorder.envelopes] == [FORM]


@pytest.mark.parametrize("value", [None, False, True, 0, -1, "", "0", 10**30, 1.0, 1e300, "\u20bd", {"a": [None]}, []])
def test_a_field_that_nobody_knows_is_verified_as_it_arrived(endpoint: Endpoint, value: object) -> None:
    assert endpoint.post(signed(NewField=value)).content == b"OK"


def test_requests_on_one_connection_are_answered_in_turn_even_when_sent_at_once(endpoint: Endpoint) -> None:
    bodies = [signed(OrderId=f"order-{number}") for number in range(5)]
    wrong = signed().replace(b"CONFIRMED", b"AUTHORIZED")

    with endpoint.wire() as wire:
        wire.send(b"".join(map(request, [*bodies, wrong, bodies[0]])))
        statuses = [(wire.answer() or (None,))[0] for _ in range(7)]

    assert statuses == [200, 200, 200, 200, 200, 403, 200]
    assert endpoint.recorder.bodies == [*bodies, bodies[0]]


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(endpoint: Endpoint) -> None:
    with endpoint.wire() as wire:
        wire.send(request(b"", f"Content-Length: {len(signed())}", "Expect: 100-continue", length=False))
        assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(signed())
        answer = wire.answer()

    assert answer is not None
    assert answer[0] == 200


def test_the_endpoint_works_mounted_under_another_applications_path() -> None:
    def mounted(app: ASGIApp) -> ASGIApp:
        return Starlette(routes=[Mount("/shop", app=app)])

    with serving(wrap=mounted) as endpoint:
        below = endpoint.url.replace(CALLBACK_PATH, f"/shop{CALLBACK_PATH}")

        assert httpx.post(below, content=signed(), trust_env=False).content == b"OK"
        assert endpoint.post(signed()).status_code == 404


def test_a_server_that_stops_answers_what_is_in_flight_first() -> None:
    entered = []

    async def slow() -> None:
        entered.append(1)
        await asyncio.sleep(0.5)

    with serving(Recorder(slow)) as endpoint, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(endpoint.post, signed())
        wait_until(lambda: bool(entered))
        endpoint.server.should_exit = True

        assert answer.result().content == b"OK"


def test_a_callback_that_outlasts_the_shutdown_is_told_to_come_again() -> None:
    entered = []

    async def stuck() -> None:
        entered.append(1)
        await asyncio.sleep(60)

    with serving(Recorder(stuck)) as endpoint, ThreadPoolExecutor(1) as pool:
        endpoint.server.config.timeout_graceful_shutdown = 1
        answer = pool.submit(endpoint.post, signed())
        wait_until(lambda: bool(entered))
        endpoint.server.should_exit = True

        assert_refused(answer.result(), 503, "stopping")


def test_ok_means_that_the_callback_lies_in_the_queues_file(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    bodies = [signed(OrderId=f"order-{number}") for number in range(50)]
    wrong = signed().replace(b"CONFIRMED", b"AUTHORIZED")

    with (
        serving(queue.publisher(), on_start=[queue.start], on_stop=[queue.stop]) as endpoint,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(endpoint.post, [*bodies, wrong]))

    assert [answer.content for answer in answers[:-1]] == [b"OK"] * 50
    assert answers[-1].status_code == 403
    assert sorted(delivery.envelope.body for delivery in asyncio.run(drained(tmp_path / "queue.db"))) == sorted(bodies)


async def drained(path: Path) -> list[Delivery]:
    """Every message that the queue's file holds, seen by someone who had no part in writing it."""
    queue = SqliteQueue(path)
    await queue.start()
    try:
        return await queue.consumer(prefetch=100).receive(limit=100, timeout_s=1)
    finally:
        await queue.stop()


# Another address


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_another_method_is_told_which_one_is_right(endpoint: Endpoint, method: str) -> None:
    answer = httpx.request(method, endpoint.url, trust_env=False)

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert method == "HEAD" or list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    "path", ["/", "/api", CALLBACK_PATH + "/", CALLBACK_PATH + "x", "/" + CALLBACK_PATH, "/API/tinkoff-callback"]
)
def test_another_path_is_not_found_and_never_redirected(endpoint: Endpoint, path: str) -> None:
    with endpoint.wire() as wire:
        wire.send(request(signed(), path=path))
        answer = wire.answer()

    assert answer is not None
    assert answer[0] == 404
    assert list(json.loads(answer[2])) == ["error"]
    assert endpoint.recorder.bodies == []


# The allow-list


def gated(networks: str, proxies: str = "") -> Gate:
    return Gate([ip_network(text) for text in networks.split()], [ip_network(text) for text in proxies.split()])


@pytest.mark.parametrize(
    ("gate", "forwarded", "status"),
    [
        (gated("127.0.0.0/8"), None, 200),
        (gated("192.0.2.0/24"), None, 403),
        (gated("192.0.2.0/24"), "192.0.2.7", 403),
        (gated("192.0.2.0/24", "127.0.0.1"), "192.0.2.7", 200),
        (gated("192.0.2.0/24", "127.0.0.1"), "192.0.2.7, 203.0.113.9", 403),
        (gated("192.0.2.0/24", "127.0.0.1"), "nonsense, 192.0.2.7", 200),
        (gated("192.0.2.0/24", "127.0.0.1"), "192.0.2.7, nonsense", 403),
        (gated("192.0.2.0/24", "127.0.0.1"), None, 403),
    ],
)
def test_only_what_a_trusted_proxy_says_of_the_sender_counts(gate: Gate, forwarded: str | None, status: int) -> None:
    with serving(gate=gate) as endpoint:
        answer = endpoint.post(signed(), {} if forwarded is None else {"x-forwarded-for": forwarded})

        assert answer.status_code == status
        assert len(endpoint.recorder.bodies) == (status == 200)
        if status == 200 and forwarded is not None:
            assert endpoint.recorder.envelopes[0].headers[SOURCE_HEADER] == "192.0.2.7"


def test_a_sender_from_elsewhere_is_refused_before_its_body_is_read() -> None:
    with serving(gate=gated("192.0.2.0/24")) as endpoint, endpoint.wire() as wire:
        wire.send(request(b"", "Content-Length: 100", length=False))
        answer = wire.answer()

        assert answer is not None
        assert answer[0] == 403
        assert b"network" in answer[2]
        assert wire.closed()
