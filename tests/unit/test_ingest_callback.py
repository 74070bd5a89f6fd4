"""The callback as a plain ASGI application: what it asks of its server, and that it never raises."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
import structlog
from starlette.types import Message

from oplata.bank.keyring import Keyring
from oplata.bank.token import token_of
from oplata.ingest import answer
from oplata.ingest.callback import Callback, Limits
from oplata.ingest.networks import Gate, networks_of
from oplata.ingest.outcomes import LineLimit, Outcome, Outcomes
from oplata.observability.faults import describe
from oplata.queue.envelope import JSON, RECEIVED_AT_HEADER, SOURCE_HEADER, Envelope

pytestmark = pytest.mark.anyio

TERMINAL, PASSWORD = "1700000000001DEMO", "a password"
FIELDS = {
    "TerminalKey": TERMINAL,
    "OrderId": "1",
    "PaymentId": 2,
    "Status": "CONFIRMED",
    "Amount": 100,
    "Success": True,
}
BODY = json.dumps({**FIELDS, "Token": token_of(FIELDS, PASSWORD)}).encode()


class Memory:
    """A publisher that remembers what it was given, and for how long it was allowed to take."""

    def __init__(self) -> None:
        self.published: list[tuple[Envelope, float]] = []

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        self.published.append((envelope, timeout_s))


class Exchange:
    """One request with its body in pieces, and what was answered."""

    def __init__(self, *pieces: bytes, client: tuple[str, int] | None = ("192.0.2.7", 1), method: str = "POST") -> None:
        self.scope: dict[str, Any] = {"type": "http", "method": method, "path": "/", "headers": [], "client": client}
        self.sent: list[Message] = []
        self.received = 0
        self._pieces = list(pieces)

    async def receive(self) -> Message:
        self.received += 1
        if not self._pieces:
            return {"type": "http.disconnect"}
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def with_(self, callback: Callback) -> list[Message]:
        await callback(self.scope, self.receive, self.send)
        return self.sent


def callback_for(publisher: Memory, **options: Any) -> Callback:
    return Callback(publisher, Keyring({TERMINAL: [PASSWORD]}), **options)


async def test_time_and_ids_come_from_outside() -> None:
    memory = Memory()
    callback = callback_for(
        memory, now_ms=lambda: 1_700_000_000_123, new_message_id=lambda: "id-1", limits=Limits(confirm_s=3)
    )

    await Exchange(BODY[:9], b"", BODY[9:]).with_(callback)

    headers: dict[str, str | int] = {RECEIVED_AT_HEADER: 1_700_000_000_123, SOURCE_HEADER: "192.0.2.7"}
    assert memory.published == [(Envelope(body=BODY, message_id="id-1", content_type=JSON, headers=headers), 3)]


async def test_an_answer_is_two_messages_that_a_middleware_may_write_into() -> None:
    callback = callback_for(Memory())
    for _ in range(2):
        start, body = await Exchange(BODY).with_(callback)

        assert start["type"] == "http.response.start"
        assert start["status"] == 200
        assert list(start["headers"]) == [(b"content-type", b"text/plain"), (b"content-length", b"2")]
        assert body == {"type": "http.response.body", "body": b"OK"}
        start["headers"] = [*start["headers"], (b"x-added", b"1")]


@pytest.mark.parametrize(
    ("exchange", "status"),
    [(Exchange(BODY, method="GET"), 405), (Exchange(BODY), 403), (Exchange(BODY, client=None), 403)],
)
async def test_a_sender_that_is_refused_by_its_head_is_not_listened_to(exchange: Exchange, status: int) -> None:
    memory = Memory()
    gate = Gate(networks_of(["10.0.0.0/8" if status == 403 else "192.0.2.0/24"]))

    start, _ = await exchange.with_(callback_for(memory, gate=gate))

    assert (start["status"], exchange.received, memory.published) == (status, 0, [])


async def test_a_client_that_hangs_up_gets_no_answer_and_leaves_no_trace_but_a_count() -> None:
    callback = callback_for(Memory())
    exchange = Exchange()

    with structlog.testing.capture_logs() as lines:
        assert await exchange.with_(callback) == []

    assert lines == []
    assert callback.outcomes == Outcomes(disconnected=1)


async def test_a_client_that_is_gone_when_it_is_answered_is_no_error() -> None:
    callback = callback_for(Memory())
    exchange = Exchange(BODY)

    async def gone(_: Message) -> None:
        raise OSError("the connection is closed")

    await callback(exchange.scope, exchange.receive, gone)

    assert callback.outcomes == Outcomes(accepted=1)


async def test_a_broken_part_of_ours_is_answered_503_and_raises_nothing() -> None:
    def broken() -> int:
        raise RuntimeError(f"no time for {PASSWORD}")

    callback = callback_for(Memory(), now_ms=broken)
    with structlog.testing.capture_logs() as lines:
        start, _ = await Exchange(BODY).with_(callback)

    assert start["status"] == 503
    assert callback.outcomes == Outcomes(failed=1)
    assert [line["action"] for line in lines] == ["callback.failed"]
    assert PASSWORD not in repr(lines)


async def test_a_cancelled_request_is_answered_and_stays_cancelled() -> None:
    class Stuck(Memory):
        async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
            await asyncio.sleep(60)

    callback = callback_for(Stuck())
    exchange = Exchange(BODY)
    task = asyncio.create_task(exchange.with_(callback))
    await asyncio.sleep(0.01)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert exchange.sent[0]["status"] == 503
    assert callback.outcomes == Outcomes(stopped=1)


def test_every_outcome_has_its_counter() -> None:
    outcomes = Outcomes()
    for outcome in Outcome:
        outcomes.count(outcome)

    assert msgspec.structs.asdict(outcomes) == dict.fromkeys(map(str, Outcome), 1)
    assert outcomes.total == len(Outcome)
    assert outcomes.refused == 6


def test_no_answer_but_one_says_ok() -> None:
    answers = [value for value in vars(answer).values() if isinstance(value, answer.Answer)]

    assert [one.status for one in answers if b"OK" in one.body] == [200]
    assert len(answers) > 10


def test_an_error_is_described_by_places_and_types_to_a_limited_depth() -> None:
    error: BaseException = ValueError("secret")
    for _ in range(10):
        outer = KeyError("secret")
        outer.__cause__ = error
        error = outer

    assert describe(error) == "\n".join(["KeyError"] * 4)


def test_lines_beyond_the_limit_are_counted_and_told_with_the_next_one() -> None:
    times_s = iter([0.0, 0.2, 0.4, 0.9, 1.0, 1.1, 1.2, 5.0])
    lines = LineLimit(2, lambda: next(times_s))

    assert [lines.admit() for _ in range(8)] == [0, 0, None, None, 2, 0, None, 1]
