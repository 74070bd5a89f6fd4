"""Publishing to RabbitMQ without waiting: each message is told of once, and as durable only when it is."""

from __future__ import annotations

import asyncio
import struct
import weakref

import pytest

from oplata.queue.base import PromptPublisher
from oplata.queue.envelope import Envelope
from oplata.queue.rabbitmq import RabbitQueue
from tests.contract.amqp import BLOCKED, TIMEOUT_S, UNBLOCKED, Wire, collect, running
from tests.contract.prompt import Told

pytestmark = pytest.mark.anyio

REFUSED = struct.pack(">BHLHHQB", 1, 1, 13, 60, 120, 2, 0) + b"\xce"
"""``basic.nack`` of the second message on the first channel."""


async def prompt(queue: RabbitQueue) -> PromptPublisher:
    """The publisher, with a channel that was used once."""
    publisher = queue.publisher()
    await publisher.publish(Envelope(body=b"first"), timeout_s=TIMEOUT_S)
    assert isinstance(publisher, PromptPublisher)
    return publisher


async def test_what_is_told_durable_is_there(amqp_url: str, queue_name: str) -> None:
    async with running(amqp_url, queue_name) as queue:
        publisher, told = await prompt(queue), Told()
        for number in range(200):
            body = b"%d" % number
            assert publisher.begin(Envelope(body=body, message_id="m"), told.of(number), timeout_s=TIMEOUT_S)
        assert told.outcomes == []
        await told.until(200)

        assert sorted(told.outcomes) == [(number, True) for number in range(200)]
        found = await collect(queue.consumer(prefetch=500), 201)
        assert [each.envelope.body for each in found] == [b"first", *(b"%d" % number for number in range(200))]


async def test_before_there_is_a_channel_nothing_is_begun(amqp_url: str, queue_name: str) -> None:
    async with running(amqp_url, queue_name) as queue:
        publisher = queue.publisher()
        assert isinstance(publisher, PromptPublisher)
        assert not publisher.begin(Envelope(body=b"1"), Told().of(1), timeout_s=TIMEOUT_S)


async def test_when_the_connection_is_lost_it_is_told_that_nobody_knows(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        publisher, told = await prompt(queue), Told()
        wire.swallow()
        assert publisher.begin(Envelope(body=b"1"), told.of(1), timeout_s=TIMEOUT_S)
        await wire.cut()
        assert await told.until(1) == [(1, False)]
        # It is published again as after any doubt, and then it is there.
        await publisher.publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        assert {each.envelope.body for each in await collect(queue.consumer(prefetch=9), 2)} == {b"first", b"1"}


async def test_what_is_late_is_told_once_and_never_again(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        publisher, told = await prompt(queue), Told()
        wire.swallow()
        assert publisher.begin(Envelope(body=b"1"), told.of(1), timeout_s=0.3)
        assert await told.until(1) == [(1, False)]
        await wire.cut()
        await publisher.publish(Envelope(body=b"2"), timeout_s=TIMEOUT_S)
        assert told.outcomes == [(1, False)]


async def test_what_the_broker_refuses_is_not_durable(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        publisher, told = await prompt(queue), Told()
        wire.swallow()
        assert publisher.begin(Envelope(body=b"1"), told.of(1), timeout_s=TIMEOUT_S)
        wire.say(REFUSED)
        assert await told.until(1) == [(1, False)]


async def test_while_the_broker_takes_nothing_nothing_is_begun(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        publisher, told = await prompt(queue), Told()
        wire.say(BLOCKED)
        await asyncio.sleep(0.2)
        assert not publisher.begin(Envelope(body=b"1"), told.of(1), timeout_s=TIMEOUT_S)
        wire.say(UNBLOCKED)
        await asyncio.sleep(0.2)
        assert publisher.begin(Envelope(body=b"2"), told.of(2), timeout_s=TIMEOUT_S)
        assert await told.until(1) == [(2, True)]


async def test_no_more_are_begun_than_may_be_on_their_way(amqp_url: str, queue_name: str) -> None:
    async with running(amqp_url, queue_name, max_in_flight=5) as queue:
        publisher, told = await prompt(queue), Told()
        begun = [publisher.begin(Envelope(body=b"x"), told.of(n), timeout_s=TIMEOUT_S) for n in range(7)]
        assert begun == [True] * 5 + [False] * 2
        await told.until(5)
        assert publisher.begin(Envelope(body=b"x"), told.of(7), timeout_s=TIMEOUT_S)


async def test_whoever_fails_to_hear_holds_up_nobody_else(amqp_url: str, queue_name: str) -> None:
    def broken(_is_durable: bool) -> None:
        raise RuntimeError("nobody there")

    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        publisher, told = await prompt(queue), Told()
        for number in range(10):
            tell = broken if number == 4 else told.of(number)
            assert publisher.begin(Envelope(body=b"x"), tell, timeout_s=TIMEOUT_S)
        await told.until(9)
        assert [number for number, is_durable in told.outcomes if is_durable] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
        assert wire.accepted == 1


async def test_a_stop_tells_those_who_wait_that_nobody_knows(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        publisher, told = await prompt(queue), Told()
        wire.swallow()
        assert publisher.begin(Envelope(body=b"1"), told.of(1), timeout_s=TIMEOUT_S)
        await queue.stop()
        assert told.outcomes == [(1, False)]
        assert not publisher.begin(Envelope(body=b"2"), told.of(2), timeout_s=TIMEOUT_S)


async def test_whoever_was_told_is_let_go_of_while_others_still_wait(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        publisher, told, early = await prompt(queue), Told(), Told()
        gone = weakref.ref(early)
        assert publisher.begin(Envelope(body=b"1"), early.of(1), timeout_s=TIMEOUT_S)
        await early.until(1)
        del early
        assert gone() is None

        wire.swallow()
        late = Told()
        gone = weakref.ref(late)
        assert publisher.begin(Envelope(body=b"2"), told.of(2), timeout_s=TIMEOUT_S)
        assert publisher.begin(Envelope(body=b"3"), late.of(3), timeout_s=0.2)
        assert await late.until(1) == [(3, False)]
        del late
        assert gone() is None
        assert told.outcomes == []
