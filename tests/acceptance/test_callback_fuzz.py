"""Whatever is thrown at the endpoint: well-formed answers, never a 500, and only what the bank signed is published."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oplata.ingest import connection
from oplata.ingest.app import CALLBACK_PATH
from oplata.ingest.callback import Limits
from oplata.queue.envelope import FORM
from tests.acceptance.endpoint import PAYMENT, Endpoint, Wire, request, serving, signed, verifies

FUZZ = settings(max_examples=200, deadline=None, derandomize=True, database=None)
HEAD_TIMEOUT_S = 1.0
CHUNKED = request(b"", "Transfer-Encoding: chunked", length=False)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec="utf-8", exclude_characters="\x00"))
)
JSON_VALUES = st.recursive(
    SCALARS | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(PAYMENT)) | st.text(), inner, max_size=6)
    ),
    max_leaves=20,
)
NEW_FIELDS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).map(lambda name: "~" + name),
    SCALARS.filter(lambda value: not isinstance(value, float) or value - value == 0),
    max_size=8,
)
HEADER_LINES = st.lists(
    st.tuples(
        st.sampled_from(
            ["Content-Type", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Connection", "Expect"]
        )
        | st.sampled_from(["Upgrade", "X-Forwarded-For", "Host", "Cookie"])
        | st.text(max_size=20),
        st.sampled_from(
            [FORM, "application/json", "chunked", "gzip", "identity", "close", "upgrade", "websocket", "h2c"]
        )
        | st.integers(-5, 300).map(str)
        | st.text(max_size=40),
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "HEAD_TIMEOUT_S", HEAD_TIMEOUT_S)
        with serving(limits=Limits(body_s=HEAD_TIMEOUT_S)) as running:
            yield running


def exchange(endpoint: Endpoint, data: bytes) -> int | None:
    """Send these bytes on a connection of their own, and return the status, or None if the server only hung up."""
    endpoint.recorder.envelopes.clear()
    with endpoint.wire() as wire:
        wire.send(data)
        answer = wire.answer(method="HEAD" if data.startswith(b"HEAD") else "POST")
    return None if answer is None else answer[0]


def check(endpoint: Endpoint, body: bytes, *headers: str) -> int | None:
    """Post the body, and compare what was said and published with the second opinion on its signature."""
    status = exchange(endpoint, request(body, *headers))
    published = endpoint.recorder.bodies
    assert status in (200, 400, 403, 413)
    assert published == ([body] if status == 200 else [])
    assert status != 200 or verifies(body)
    return status


@FUZZ
@given(body=st.binary(max_size=400))
@example(body=b"\xff\xfe")
@example(body=b'{"TerminalKey":"\\ud800","Token":"t"}')
@example(body=b'{"a":' * 12_000)
@example(body=b"1" * 20_000)
@example(body=b'{"a":' + b"9" * 20_000 + b"}")
@example(body=b'{"a":"' + b"\\" * 20_000)
def test_arbitrary_bytes_are_never_taken(endpoint: Endpoint, body: bytes) -> None:
    assert check(endpoint, body) == 400
    assert check(endpoint, body, f"Content-Type: {FORM}") in (400, 403)


@FUZZ
@given(
    value=JSON_VALUES, overlay=st.dictionaries(st.sampled_from([*sorted(PAYMENT), "Token", "Password"]), JSON_VALUES)
)
def test_arbitrary_json_is_never_taken(endpoint: Endpoint, value: object, overlay: dict[str, object]) -> None:
    assert check(endpoint, json.dumps(value).encode()) in (400, 403)
    if overlay:
        check(endpoint, json.dumps({**json.loads(signed()), **overlay}).encode())


@FUZZ
@given(fields=NEW_FIELDS, ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 3]))
def test_whatever_the_bank_adds_and_signs_is_taken(
    endpoint: Endpoint, fields: dict[str, object], ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(json.loads(signed(fields)), ensure_ascii=ascii_only, indent=indent).encode()

    assert check(endpoint, body) == 200


@FUZZ
@given(data=st.data())
def test_a_signed_body_that_was_changed_is_taken_only_if_its_signature_still_holds(
    endpoint: Endpoint, data: st.DataObject
) -> None:
    body = bytearray(signed(data.draw(NEW_FIELDS)))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body) - 1))
        body[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))

    check(endpoint, bytes(body))


@FUZZ
@given(changes=st.dictionaries(st.sampled_from(sorted(PAYMENT)), st.text(max_size=10), min_size=1))
def test_a_form_that_was_changed_is_taken_only_if_its_signature_still_holds(
    endpoint: Endpoint, changes: dict[str, str]
) -> None:
    texts = json.loads(signed(Success="true", PaymentId="12", Amount="19900"))
    body = urlencode({**texts, **{name: text.encode("utf-8", "replace") for name, text in changes.items()}}).encode()

    check(endpoint, body, f"Content-Type: {FORM}")


@FUZZ
@given(
    lines=HEADER_LINES,
    method=st.sampled_from(["POST", "POST", "GET", "HEAD", "BREW", ""]),
    path=st.just("") | st.text(max_size=10),
)
def test_arbitrary_headers_get_a_well_formed_answer_or_none(
    endpoint: Endpoint, lines: list[tuple[str, str]], method: str, path: str
) -> None:
    body = signed()
    heads = [f"{name}: {value}".encode("utf-8", "replace").decode("latin-1") for name, value in lines]
    target = (CALLBACK_PATH + path).encode("utf-8", "replace").decode("latin-1")

    status = exchange(endpoint, request(body, *heads, method=method, path=target))

    assert status in (None, 200, 400, 403, 404, 405, 408, 413)
    assert status != 200 or len(endpoint.recorder.bodies) == 1
    assert all(map(verifies, endpoint.recorder.bodies))


@FUZZ
@given(data=st.binary(max_size=300))
@example(data=b"")
@example(data=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
@example(data=b"CONNECT x:1 HTTP/1.1\r\n\r\n")
@example(data=b"POST http://a HTTP/1.1\r\n\r\n")
@example(data=b"POST * HTTP/1.1\r\n\r\n")
@example(data=b"POST /%ff%00 HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
@example(data=b"POST /\xff HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
def test_arbitrary_bytes_on_the_wire_get_a_well_formed_answer_or_none(endpoint: Endpoint, data: bytes) -> None:
    assert exchange(endpoint, data) in (None, 400, 404, 405, 408)
    assert endpoint.recorder.bodies == []


# Patience and memory


@pytest.mark.parametrize("data", [b"", b"POST", b"POST / HTTP/1.1\r\nHost: x\r\nA: "])
def test_a_connection_that_never_completes_its_headers_is_closed(endpoint: Endpoint, data: bytes) -> None:
    with endpoint.wire() as wire:
        wire.send(request(signed()))
        assert wire.answer() is not None
        wire.send(data or b"P")
        assert wire.closed()
    with endpoint.wire() as fresh:
        fresh.send(data)
        assert fresh.closed()


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nA: ", b"a" * 65536, id="one header"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\n", b"A: a\r\n" * 10_000, id="many headers"),
        pytest.param(b"POST /", b"a" * 65536, id="a path"),
        pytest.param(CHUNKED + b"2\r\n{}\r\n0\r\nA: ", b"a" * 65536, id="one trailer"),
        pytest.param(CHUNKED + b"2\r\n{}\r\n0\r\n", b"A: a\r\n" * 10_000, id="many trailers"),
        pytest.param(CHUNKED, b"1\r\na\r\n" * 10_000, id="many chunks"),
        pytest.param(CHUNKED + b"2;", b"a" * 65536, id="a chunk's extension"),
    ],
)
def test_what_never_ends_around_a_body_is_cut_off_long_before_any_timeout(start: bytes, piece: bytes) -> None:
    """Much less is taken than was offered; what is fits into the buffers of the two sockets."""
    with serving() as patient, patient.wire() as wire:
        wire.send(start)
        assert offer(wire, piece, most=400) < 200


def test_no_more_than_some_pipelined_requests_are_kept(endpoint: Endpoint) -> None:
    with endpoint.wire() as wire:
        wire.send(b"POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n" * 5000)
        answers = 0
        while (answer := wire.answer()) is not None and answer[0] != 400:
            answers += 1

    assert answers <= connection.MAX_PIPELINED + 1


def test_memory_stays_bounded_while_large_bodies_are_streamed_at_once(endpoint: Endpoint) -> None:
    """Forty clients offer 16 MB each, in chunks and without; what the server keeps is nowhere near it."""
    piece = b" " * 65536
    heads = [
        request(b"", "Transfer-Encoding: chunked", length=False),
        request(b"", "Content-Length: 60000", length=False),
    ]

    def stream(number: int) -> None:
        with endpoint.wire() as wire:
            wire.send(heads[number % 2])
            offer(wire, b"10000\r\n" + piece + b"\r\n" if number % 2 == 0 else b"a" * 59, most=250)

    tracemalloc.start()
    try:
        with ThreadPoolExecutor(40) as pool:
            list(pool.map(stream, range(40)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 40 * 1024 * 1024


def offer(wire: Wire, piece: bytes, most: int) -> int:
    """Send the piece again and again until the server hangs up; return how many times it was taken."""
    wire.socket.settimeout(5)
    for taken in range(most):
        try:
            wire.socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return taken
        except TimeoutError:
            return taken
        time.sleep(0.001)
    return most
