"""The pure parts of the RabbitMQ queue: confirms, acks, names, headers."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import spec

from oplata.errors import SettingsError
from oplata.queue.envelope import Envelope
from oplata.queue.rabbitmq.confirms import Confirms, Outcome
from oplata.queue.rabbitmq.consumer import plan
from oplata.queue.rabbitmq.message import to_attempt, to_dead_reason, to_headers, to_properties
from oplata.queue.rabbitmq.topology import Topology
from oplata.queue.rabbitmq.wire import without_headers

TEXT = st.text(max_size=40)


@pytest.mark.parametrize(
    ("unsettled", "tags", "expected"),
    [
        ([1, 2, 3, 4], [1, 2], (2, [])),
        ([1, 2, 3, 4], [2, 1, 4], (2, [4])),
        ([1, 2, 3], [3], (0, [3])),
        ([5, 7, 8], [8, 5, 7], (8, [])),
        ([1, 2], [], (0, [])),
        ([], [], (0, [])),
    ],
)
def test_only_the_oldest_messages_without_a_gap_are_settled_together(
    unsettled: list[int], tags: list[int], expected: tuple[int, list[int]]
) -> None:
    assert plan(unsettled, tags) == expected


@given(unsettled=st.sets(st.integers(1, 60)), chosen=st.sets(st.integers(1, 60)))
def test_what_is_settled_is_exactly_what_was_asked_for(unsettled: set[int], chosen: set[int]) -> None:
    tags = unsettled & chosen
    upto, singles = plan(sorted(unsettled), tags)

    assert {tag for tag in unsettled if tag <= upto} | set(singles) == tags


@pytest.mark.anyio
async def test_a_confirm_of_many_settles_all_up_to_it_and_no_other() -> None:
    confirms = Confirms()
    futures = [confirms.expect(0.0) for _ in range(5)]
    confirms.settle(2, Outcome.REFUSED, multiple=False, now_s=1.0)
    futures[0].cancel()
    confirms.settle(3, Outcome.CONFIRMED, multiple=True, now_s=1.0)
    confirms.settle(99, Outcome.CONFIRMED, multiple=False, now_s=1.0)

    assert [future.done() for future in futures] == [True, True, True, False, False]
    assert [futures[n].result() for n in (1, 2)] == [Outcome.REFUSED, Outcome.CONFIRMED]
    assert len(confirms) == 2
    confirms.lose_all()
    assert [await asyncio.wait_for(future, 1) for future in futures[3:]] == [Outcome.LOST, Outcome.LOST]


@pytest.mark.anyio
async def test_silence_counts_from_the_last_confirm_and_only_while_one_is_owed() -> None:
    confirms = Confirms()
    assert (confirms.silent_s(50.0), confirms.oldest_s(50.0)) == (0.0, 0.0)
    confirms.expect(100.0)
    confirms.expect(101.0)
    assert (confirms.silent_s(103.0), confirms.oldest_s(103.0)) == (3.0, 3.0)
    confirms.settle(2, Outcome.CONFIRMED, multiple=False, now_s=103.0)
    assert (confirms.silent_s(104.0), confirms.oldest_s(104.0)) == (1.0, 4.0)
    confirms.settle(1, Outcome.CONFIRMED, multiple=False, now_s=104.0)
    assert confirms.silent_s(200.0) == 0.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, 1), (0, 1), (1, 2), (41, 42), (True, 1), (-1, 1), ("3", 1), (2**40, 1), (b"1", 1), ([1], 1), ({}, 1)],
)
def test_the_attempt_is_one_more_than_the_header_and_one_for_nonsense(value: object, expected: int) -> None:
    assert to_attempt(value) == expected


def test_the_brokers_own_headers_are_not_passed_on() -> None:
    raw = {"x-death": [], "x-first-death-reason": "expired", "x-last-death-queue": "q", "x-delivery-count": 3, "a": 1}

    assert to_headers(raw) == {"a": 1}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, ""),
        ({"x-first-death-reason": "expired"}, "expired"),
        ({"x-death": "nonsense", "x-first-death-reason": b"\xff"}, "?"),
        ({"x-death": [{"reason": "maxlen", "queue": "q"}], "x-first-death-reason": "expired"}, "maxlen from q"),
        ({"x-last-death-reason": "rejected", "x-last-death-queue": "q", "x-death": [{}]}, "rejected from q"),
    ],
)  # fmt: skip
def test_the_reason_is_that_of_the_latest_death(raw: dict[str, object], expected: str) -> None:
    assert to_dead_reason(raw) == expected


@given(
    content_type=st.none() | TEXT,
    content_encoding=st.none() | TEXT,
    headers=st.none() | st.dictionaries(TEXT, TEXT | st.integers(-(2**60), 2**60), max_size=4),
    message_id=st.none() | TEXT,
)
def test_taking_the_headers_away_leaves_every_other_property(
    content_type: str | None, content_encoding: str | None, headers: dict[str, str | int] | None, message_id: str | None
) -> None:
    given_properties = spec.BasicProperties(
        content_type=content_type,
        content_encoding=content_encoding,
        headers=headers,
        message_id=message_id,
        timestamp=7,
    )
    encoded = b"".join(given_properties.encode())
    left = spec.BasicProperties().decode(without_headers(encoded))

    assert (left.content_type, left.content_encoding, left.message_id, left.timestamp) == (
        content_type,
        content_encoding,
        message_id,
        7,
    )
    assert left.headers == (None if headers is None else {})
    assert struct.unpack_from(">H", encoded) == struct.unpack_from(">H", without_headers(encoded))


def test_a_message_is_persistent_and_carries_the_envelopes_metadata() -> None:
    envelope = Envelope(body=b"1", message_id="m", content_type="text/plain", headers={"a": 1})
    properties = to_properties(envelope, now_ms=1_700_000_000_999, expiration_ms=250)

    assert (properties.delivery_mode, properties.message_id, properties.content_type) == (2, "m", "text/plain")
    assert (properties.headers, properties.timestamp, properties.expiration) == ({"a": 1}, 1_700_000_000, "250")


def test_a_message_id_that_does_not_fit_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        to_properties(Envelope(body=b"", message_id="я" * 128), now_ms=0)


@pytest.mark.parametrize(("delay_ms", "rung_ms"), [(-5, 10), (0, 10), (10, 10), (11, 20), (20, 20), (21, 20)])
def test_the_rung_is_the_shortest_that_is_long_enough_or_else_the_longest(delay_ms: int, rung_ms: int) -> None:
    topology = Topology(name="q", declare="active", retry_delays_ms=(10, 20), delivery_limit=5)

    assert topology.rung_for(delay_ms) == rung_ms


@pytest.mark.parametrize(
    "change",
    [{"name": ""}, {"name": "amq.x"}, {"name": "я" * 116}, {"declare": "maybe"}, {"retry_delays_ms": ()},
     {"retry_delays_ms": (5, 5)}, {"retry_delays_ms": (9, 5)}, {"retry_delays_ms": (0,)}, {"delivery_limit": 0}],
)  # fmt: skip
def test_a_topology_that_cannot_work_is_refused(change: dict[str, object]) -> None:
    values: dict[str, object] = {"name": "q", "declare": "active", "retry_delays_ms": (10,), "delivery_limit": 5}

    with pytest.raises(SettingsError):
        Topology(**{**values, **change})  # type: ignore[arg-type]  # Wrong values are the point.
