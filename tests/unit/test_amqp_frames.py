"""Our own reading and writing of a message's three frames is held against pika's."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from oplata.queue.envelope import Envelope
from oplata.queue.rabbitmq import frames
from oplata.queue.rabbitmq.frames import INCOMPLETE, UNUSUAL
from oplata.queue.rabbitmq.message import to_delivery, to_properties

LARGEST = 1000
SHORT = st.text(max_size=60).filter(lambda text: len(text.encode()) <= 255)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
ENVELOPES = st.builds(
    Envelope,
    body=st.binary(max_size=2500),
    message_id=SHORT,
    content_type=SHORT,
    headers=st.dictionaries(SHORT, st.one_of(st.text(max_size=300), NUMBERS, st.booleans()), max_size=5),
)


def pikas_frames(routing_key: str, properties: Any, body: bytes) -> bytes:
    method = spec.Basic.Publish(exchange="", routing_key=routing_key, mandatory=True)
    parts = [body[at : at + LARGEST] for at in range(0, len(body), LARGEST)]
    pieces = [frame.Method(7, method), frame.Header(7, len(body), properties), *(frame.Body(7, part) for part in parts)]
    return b"".join(piece.marshal() for piece in pieces)


def pikas_properties(properties: Any) -> Any:
    return spec.BasicProperties(**msgspec.structs.asdict(properties))


@given(ENVELOPES, st.one_of(st.none(), st.integers(1, 10**9)))
def test_a_message_is_written_as_pika_writes_it(envelope: Envelope, expiration_ms: int | None) -> None:
    properties = to_properties(envelope, now_ms=1_790_000_000_000, expiration_ms=expiration_ms)

    written = b"".join(frames.message_frames(7, "oplata.callbacks", properties, envelope.body, LARGEST))

    assert pikas_frames("oplata.callbacks", pikas_properties(properties), envelope.body) == written


def delivered(properties: Any, body: bytes, *, redelivered: bool = False) -> bytes:
    method = spec.Basic.Deliver("ctag1.0", 4711, redelivered, "", "oplata.callbacks")
    pieces = [frame.Method(7, method), frame.Header(7, len(body), properties)]
    return b"".join(piece.marshal() for piece in (*pieces, *([frame.Body(7, body)] if body else [])))


@given(ENVELOPES.filter(lambda envelope: envelope.body != b""), st.booleans())
def test_a_delivery_is_read_as_pika_reads_it(envelope: Envelope, redelivered: bool) -> None:
    properties = pikas_properties(to_properties(envelope, now_ms=1_790_000_000_000))
    written = b"before" + delivered(properties, envelope.body, redelivered=redelivered) + b"behind"
    decoded = spec.BasicProperties().decode(b"".join(properties.encode()))
    method = spec.Basic.Deliver(delivery_tag=4711, redelivered=redelivered)

    end, message = frames.read_delivery(written, 6)

    assert message is not None
    assert (len(written) - 6, 7, "ctag1.0") == (end, message.channel_number, message.consumer_tag)
    expected = to_delivery(method, decoded, envelope.body, generation=1, dead=False)
    assert expected == to_delivery(message.method, message.properties, message.body, generation=1, dead=False)


def test_what_has_not_arrived_to_its_last_byte_is_incomplete() -> None:
    written = delivered(spec.BasicProperties(content_type="application/json", message_id="a"), b"{}")

    # What calls it knows that the method's frame is whole.
    method = len(frame.Method(7, spec.Basic.Deliver("ctag1.0", 4711, False, "", "oplata.callbacks")).marshal())
    assert {(INCOMPLETE, None)} == {frames.read_delivery(written[:length], 0) for length in range(method, len(written))}


def test_what_is_unusual_is_left_to_pika() -> None:
    plain = spec.BasicProperties(content_type="application/json")
    split = delivered(plain, b"{}")[:-10] + frame.Body(7, b"{").marshal() + frame.Body(7, b"}").marshal()
    cases = {
        "no body": delivered(plain, b"") + frame.Heartbeat().marshal(),
        "two body frames": split,
        "a nested header": delivered(spec.BasicProperties(headers={"x-death": [{"count": 1}]}), b"{}"),
        "an encoding": delivered(spec.BasicProperties(content_encoding="gzip"), b"{}"),
        "a text that is no UTF-8": delivered(spec.BasicProperties(message_id=b"\xff\xfe"), b"{}"),
        "another frame between": delivered(plain, b"{}")[:-10] + frame.Heartbeat().marshal() + b"\0" * 10,
        "a wrong frame end": delivered(plain, b"{}")[:-1] + b"\0",
    }

    assert dict.fromkeys(cases, UNUSUAL) == {name: frames.read_delivery(case, 0)[0] for name, case in cases.items()}


@given(st.binary(min_size=12, max_size=200), st.integers(0, 200))
def test_no_bytes_at_all_raise_anything(noise: bytes, cut: int) -> None:
    written = bytearray(delivered(spec.BasicProperties(message_id="a", headers={"b": "c", "d": 1}), b"{}"))
    written[min(cut, len(written) - 1) : cut + len(noise)] = noise
    method = frame.Method(7, spec.Basic.Deliver("ctag1.0", 4711, False, "", "oplata.callbacks")).marshal()

    end, message = frames.read_delivery(method + bytes(written)[len(method) :], 0)

    assert end in (INCOMPLETE, UNUSUAL) or message is not None


def test_the_brokers_word_on_what_was_published_is_read() -> None:
    ack = frame.Method(1, spec.Basic.Ack(2**40, True)).marshal()
    nack = frame.Method(1, spec.Basic.Nack(7, False, requeue=True)).marshal()

    assert ((2**40, True), (7, False)) == (frames.read_confirm(ack, 7), frames.read_confirm(nack, 7))
