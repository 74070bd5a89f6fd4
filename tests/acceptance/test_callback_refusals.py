"""The callback endpoint over real HTTP: what is refused and how, and that OK is said to none of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import structlog

from oplata.errors import NotConfirmed, Overloaded, QueueUnavailable
from oplata.ingest.callback import Limits
from tests.acceptance.endpoint import (
    PASSWORD,
    TERMINAL,
    Endpoint,
    Recorder,
    assert_refused,
    request,
    serving,
    signed,
    wait_until,
)

BODY_LIMIT_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def shared() -> Iterator[Endpoint]:
    with serving(limits=Limits(body_s=1.0)) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(shared: Endpoint) -> Endpoint:
    shared.recorder.envelopes.clear()
    return shared


# What is not a notification

DEEP = b'{"TerminalKey": "t", "Token": "t", "a": ' + b"[" * 5000 + b"]" * 5000 + b"}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "empty", id="nothing"),
        pytest.param(b"OK", "not JSON", id="no JSON"),
        pytest.param(b'{"TerminalKey": "t"', "not JSON", id="cut off"),
        pytest.param(b"[]", "not an object", id="array"),
        pytest.param(b'"TerminalKey"', "not an object", id="string"),
        pytest.param(b"null", "not an object", id="null"),
        pytest.param(b'{"Token": "t"}', "TerminalKey is missing", id="no terminal"),
        pytest.param(b'{"TerminalKey": "t"}', "Token is missing", id="no token"),
        pytest.param(b'{"TerminalKey": "t", "Token": 5}', "Token is not a string", id="token of another type"),
        pytest.param(signed(OrderId={"a": 1}), "OrderId", id="order of an impossible type"),
        pytest.param(signed(Amount="much"), "Amount", id="amount that is none"),
        pytest.param(signed(Success="perhaps"), "Success", id="success that is neither"),
        pytest.param(DEEP, "nested", id="too deep"),
        pytest.param(signed()[:-1] + b', "Amount": 1}', "twice", id="a field twice"),
        pytest.param(signed()[:-1] + b', "New": NaN}', "NaN", id="NaN"),
        pytest.param(signed()[:-1] + b', "New": -Infinity}', "Infinity", id="infinity"),
        pytest.param(signed()[:-1] + b', "New": "\xff"}', "UTF-8", id="invalid UTF-8"),
        pytest.param(b"\xef\xbb\xbf" + signed(), "not JSON", id="byte order mark"),
        pytest.param(signed().decode().encode("utf-16"), "UTF-8", id="UTF-16"),
    ],
)
def test_what_is_not_a_notification_is_refused_with_a_sentence(endpoint: Endpoint, body: bytes, words: str) -> None:
    assert_refused(endpoint.post(body), 400, words)
    assert endpoint.recorder.bodies == []


def test_a_compressed_body_is_not_decompressed(endpoint: Endpoint) -> None:
    assert_refused(endpoint.post(signed(), {"content-encoding": "gzip"}), 400, "compressed")
    assert endpoint.post(signed(), {"content-encoding": "identity"}).content == b"OK"


# Who is not the bank


def test_an_unknown_terminal_and_a_wrong_token_get_the_very_same_answer(endpoint: Endpoint) -> None:
    unknown = signed().replace(TERMINAL.encode(), b"1000000000000DEMO")
    wrong = signed().replace(b"19900", b"19901")
    raw = []
    for body in (unknown, wrong):
        with endpoint.wire() as wire:
            wire.send(request(body))
            answer = wire.answer()
            assert answer is not None
            raw.append((answer[0], {**answer[1], b"date": b""}, answer[2]))

    assert raw[0] == raw[1]
    assert raw[0][0] == 403
    assert endpoint.recorder.bodies == []


def test_a_refusal_is_one_log_line_without_token_body_or_password() -> None:
    wrong = signed(Pan="220000******1234").replace(b"19900", b"19901")

    with serving() as endpoint, structlog.testing.capture_logs() as lines:
        endpoint.post(wrong)

    (line,) = lines
    assert (line["action"], line["outcome"], line["log_level"]) == ("callback.refused", "not_authentic", "info")
    assert (line["terminal_key"], line["source"]) == (TERMINAL, "127.0.0.1")
    secrets = [json.loads(wrong)["Token"], PASSWORD, "220000******1234"]
    assert [secret for secret in secrets if secret in repr(line)] == []


def test_a_terminal_key_that_is_none_is_not_logged() -> None:
    with serving() as endpoint, structlog.testing.capture_logs() as lines:
        endpoint.post(json.dumps({"TerminalKey": "a\nb", "Token": "t"}).encode())
        endpoint.post(json.dumps({"TerminalKey": "1" * 21, "Token": "t"}).encode())

    assert [line["terminal_key"] for line in lines] == [None, None]


def test_a_flood_of_refusals_is_counted_in_full_and_logged_in_part() -> None:
    with serving() as endpoint, structlog.testing.capture_logs() as lines, endpoint.wire() as wire:
        for _ in range(60):
            wire.send(request(b"[]"))
            wire.answer()
        time.sleep(1.1)
        wire.send(request(b"[]"))
        wire.answer()

        assert endpoint.callback.outcomes.malformed == 61
    assert len(lines) <= 31
    assert sum(line["suppressed"] for line in lines) == 61 - len(lines)


# Too long, too slow, gone


def test_a_body_of_exactly_the_limit_is_taken(endpoint: Endpoint) -> None:
    padding = BODY_LIMIT_BYTES - len(signed(New=""))

    assert endpoint.post(signed(New="x" * padding)).content == b"OK"
    assert_refused(endpoint.post(signed(New="x" * (padding + 1))), 413)


@pytest.mark.parametrize("length", [BODY_LIMIT_BYTES + 1, 10**12])
def test_a_body_that_declares_itself_too_long_is_refused_before_it_is_read(endpoint: Endpoint, length: int) -> None:
    with endpoint.wire() as wire:
        wire.send(request(b"", f"Content-Length: {length}", length=False))
        answer = wire.answer()

        assert answer is not None
        assert answer[0] == 413
        assert answer[1][b"connection"] == b"close"
        assert wire.closed()


def test_a_body_that_turns_out_too_long_is_refused_before_its_end(endpoint: Endpoint) -> None:
    with endpoint.wire() as wire:
        wire.send(request(b"", "Transfer-Encoding: chunked", length=False))
        for _ in range(5):
            wire.send(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        answer = wire.answer()

        assert answer is not None
        assert answer[0] == 413
        assert answer[1][b"connection"] == b"close"
        assert wire.closed()


def test_a_body_in_pieces_is_taken(endpoint: Endpoint) -> None:
    with endpoint.wire() as wire:
        wire.send(request(b"", "Transfer-Encoding: chunked", length=False))
        for start in range(0, len(signed()), 50):
            piece = signed()[start : start + 50]
            wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            time.sleep(0.01)
        wire.send(b"0\r\n\r\n")
        answer = wire.answer()

    assert answer is not None
    assert answer[0] == 200


def test_a_body_that_comes_too_slowly_is_given_up_even_if_it_never_pauses(endpoint: Endpoint) -> None:
    started_s = time.monotonic()
    with endpoint.wire() as wire:
        wire.send(request(b"", f"Content-Length: {len(signed())}", length=False))
        for position in range(6):
            time.sleep(0.2)
            wire.send(signed()[position : position + 1])
        answer = wire.answer()

    assert answer is not None
    assert answer[0] == 408
    assert answer[1][b"connection"] == b"close"
    assert 1.0 <= time.monotonic() - started_s < 4


def test_a_client_that_hangs_up_in_the_midst_of_its_body_is_counted_and_nothing_else(endpoint: Endpoint) -> None:
    before = endpoint.callback.outcomes.disconnected

    with structlog.testing.capture_logs() as lines:
        with endpoint.wire() as wire:
            wire.send(request(signed()[:40], f"Content-Length: {len(signed())}", length=False))
            time.sleep(0.05)
        wait_until(lambda: endpoint.callback.outcomes.disconnected == before + 1)

    assert lines == []
    assert endpoint.recorder.bodies == []


# The queue


async def never() -> None:
    await asyncio.sleep(60)


async def not_confirmed() -> None:
    raise NotConfirmed


async def overloaded() -> None:
    raise Overloaded


async def unavailable() -> None:
    raise QueueUnavailable


async def secretive() -> None:
    raise ValueError(f"cannot store {signed()!r}") from RuntimeError(f"the password is {PASSWORD}")


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (never, "unconfirmed"),
        (not_confirmed, "unconfirmed"),
        (overloaded, "overloaded"),
        (unavailable, "unavailable"),
        (secretive, "failed"),
    ],
)
def test_what_the_queue_did_not_confirm_is_asked_for_again(step: Callable[[], Awaitable[None]], outcome: str) -> None:
    with serving(Recorder(step), limits=Limits(confirm_s=0.2)) as endpoint:
        started_s = time.monotonic()
        answer = endpoint.post(signed())

        assert_refused(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        assert time.monotonic() - started_s < 3
        assert getattr(endpoint.callback.outcomes, outcome) == endpoint.callback.outcomes.total == 1


def test_an_overloaded_queue_is_answered_at_once() -> None:
    with serving(Recorder(overloaded)) as endpoint:
        started_s = time.monotonic()
        assert_refused(endpoint.post(signed()), 503)

    assert time.monotonic() - started_s < 2


def test_an_error_that_nobody_foresaw_is_logged_by_its_place_and_type_but_not_its_words() -> None:
    with serving(Recorder(secretive)) as endpoint, structlog.testing.capture_logs() as lines:
        endpoint.post(signed())

    (line,) = lines
    assert (line["action"], line["log_level"]) == ("callback.failed", "error")
    assert "in secretive" in line["traceback"]
    assert "ValueError" in line["traceback"]
    assert "RuntimeError" in line["traceback"]
    assert PASSWORD not in repr(line)
    assert "3269844626" not in repr(line)


def test_beyond_its_limit_of_connections_the_server_asks_to_come_again() -> None:
    with serving(max_connections=2) as endpoint, endpoint.wire() as held:
        held.send(request(b"", f"Content-Length: {len(signed())}", length=False))
        wait_until(lambda: endpoint.callback.begun == 1)
        assert_refused(answer := endpoint.post(signed()), 503, "connections")
        assert int(answer.headers["retry-after"]) > 0
        assert endpoint.recorder.bodies == []


def test_who_idles_makes_room_for_who_asks() -> None:
    with serving(max_connections=3) as endpoint:
        for _ in range(10):
            with endpoint.wire(), endpoint.wire():
                assert endpoint.post(signed()).status_code == 200
