"""The callback as a plain ASGI application: what it asks of its server, and that it never raises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
import structlog
from starlette.types import Message

from oplata.bank.keyring import Keyring
from oplata.bank.token import token_of
from oplata.ingest import answer
from oplata.ingest.answer import Answer
from oplata.ingest.callback import Callback, Limits, message_ids
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


class Prompt(Memory):
    """A publisher that takes messages without waiting, and tells of them when it is asked to."""

    def __init__(self, *, takes: bool = True) -> None:
        super().__init__()
        self.takes = takes
        self.begun: list[tuple[Envelope, Callable[[bool], None], float]] = []

    def begin(self, envelope: Envelope, told: Callable[[bool], None], *, timeout_s: float) -> bool:
        if self.takes:
            self.begun.append((envelope, told, timeout_s))
        return self.takes


class Whole:
    """Who asks with a whole request: what was answered, and the tasks that it took."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.tasks: list[asyncio.Task[None]] = []

    def answer(self, reply: Answer) -> None:
        self.answers.append(reply)

    def spawn(self, answering: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(answering))

    async def with_(self, callback: Callback, body: bytes = BODY, *headers: tuple[bytes, bytes]) -> Answer:
        callback.take("192.0.2.7", headers, body, self)
        await asyncio.gather(*self.tasks)
        [reply] = self.answers
        return reply


async def test_a_whole_request_is_answered_when_it_is_durable_and_not_before() -> None:
    publisher, whole = Prompt(), Whole()
    callback = callback_for(
        publisher, now_ms=lambda: 1_700_000_000_123, new_message_id=lambda: "id-1", limits=Limits(confirm_s=3)
    )
    callback.take("192.0.2.7", [], BODY, whole)
    [(envelope, told, timeout_s)] = publisher.begun

    headers: dict[str, str | int] = {RECEIVED_AT_HEADER: 1_700_000_000_123, SOURCE_HEADER: "192.0.2.7"}
    assert (envelope, timeout_s) == (Envelope(body=BODY, message_id="id-1", headers=headers), 3)
    assert (whole.answers, callback.outcomes, callback.begun) == ([], Outcomes(), 1)
    told(True)
    assert (whole.answers, whole.tasks) == ([answer.OK], [])
    assert (callback.outcomes, callback.seconds.count) == (Outcomes(accepted=1), 1)


async def test_what_may_be_lost_is_published_in_what_is_left_of_the_time() -> None:
    publisher, whole = Prompt(), Whole()
    callback = callback_for(publisher, limits=Limits(confirm_s=3))
    callback.take("192.0.2.7", [], BODY, whole)
    await asyncio.sleep(0.2)
    publisher.begun[0][1](False)
    assert whole.answers == []
    await asyncio.gather(*whole.tasks)

    [(envelope, timeout_s)] = publisher.published
    assert envelope == publisher.begun[0][0]
    assert 2 < timeout_s < 2.9
    assert whole.answers == [answer.OK]


async def test_what_is_in_doubt_when_the_time_is_over_is_not_ok() -> None:
    publisher, whole = Prompt(), Whole()
    callback = callback_for(publisher, limits=Limits(confirm_s=0.1))
    callback.take("192.0.2.7", [], BODY, whole)
    await asyncio.sleep(0.15)
    publisher.begun[0][1](False)
    await asyncio.gather(*whole.tasks)

    assert (whole.answers, publisher.published) == ([answer.UNCONFIRMED], [])
    assert callback.outcomes == Outcomes(unconfirmed=1)


async def test_a_publisher_that_keeps_no_limit_is_not_waited_for_much_longer() -> None:
    class Stuck(Prompt):
        async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
            await asyncio.sleep(60)

    callback = callback_for(Stuck(takes=False), limits=Limits(confirm_s=0.05))
    assert await Whole().with_(callback) == answer.UNCONFIRMED
    assert callback.outcomes == Outcomes(unconfirmed=1)


async def test_where_there_is_something_to_wait_for_a_task_waits() -> None:
    publisher, whole = Prompt(takes=False), Whole()
    assert await whole.with_(callback_for(publisher)) == answer.OK
    assert len(publisher.published) == 1


async def test_a_publisher_that_knows_no_other_way_is_waited_for() -> None:
    memory = Memory()
    assert await Whole().with_(callback_for(memory)) == answer.OK
    assert len(memory.published) == 1


@pytest.mark.parametrize(
    ("body", "headers", "reply"),
    [
        (BODY.replace(b"CONFIRMED", b"REFUNDED"), [], answer.NOT_AUTHENTIC),
        (b"x" * 70_000, [], answer.TOO_LONG),
        (BODY, [(b"content-length", b"70000")], answer.TOO_LONG),
        (BODY, [(b"content-encoding", b"gzip")], answer.ENCODED),
    ],
)
async def test_a_whole_request_is_refused_like_any_other(
    body: bytes, headers: list[tuple[bytes, bytes]], reply: answer.Answer
) -> None:
    publisher = Prompt()
    callback = callback_for(publisher)
    refused = await Whole().with_(callback, body, *headers)
    assert (refused.status, refused.body) == (reply.status, reply.body)
    assert (publisher.begun, publisher.published) == ([], [])
    assert callback.outcomes.refused == 1


async def test_a_whole_request_from_a_network_that_is_not_allowed_is_refused() -> None:
    callback = callback_for(Prompt(), gate=Gate(networks_of(["10.0.0.0/8"])))
    assert await Whole().with_(callback) == answer.WRONG_NETWORK


async def test_a_part_of_ours_that_breaks_on_a_whole_request_is_answered_503() -> None:
    class Broken(Prompt):
        def begin(self, envelope: Envelope, told: Callable[[bool], None], *, timeout_s: float) -> bool:
            raise RuntimeError(PASSWORD)

    callback = callback_for(Broken())
    with structlog.testing.capture_logs() as lines:
        assert await Whole().with_(callback) == answer.FAILED
    assert callback.outcomes == Outcomes(failed=1)
    assert PASSWORD not in repr(lines)


async def test_a_whole_request_that_waits_when_the_server_gives_up_is_answered() -> None:
    class Stuck(Memory):
        async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
            await asyncio.sleep(60)

    callback, whole = callback_for(Stuck()), Whole()
    callback.take("192.0.2.7", [], BODY, whole)
    await asyncio.sleep(0.01)
    whole.tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole.tasks[0]
    assert whole.answers == [answer.STOPPING]
    assert callback.outcomes == Outcomes(stopped=1)


def test_message_ids_are_of_this_process_and_no_two_alike() -> None:
    ours, others = message_ids(), message_ids()
    made = [each() for each in (ours, ours, others) for _ in range(3)]
    assert len(set(made)) == 9
    assert {len(each) for each in made} == {32}


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
