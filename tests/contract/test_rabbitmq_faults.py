"""Brokers that die, networks that swallow, alarms: what was confirmed stays, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import time

import pytest

from oplata.errors import NotConfirmed, Overloaded
from oplata.queue.base import Depth
from oplata.queue.envelope import Envelope
from tests.contract.amqp import BLOCKED, TIMEOUT_S, UNBLOCKED, Wire, collect, received, running
from tests.services.breakable import Breakable

pytestmark = pytest.mark.anyio


async def test_whatever_a_publish_returned_for_is_in_the_queue_after_the_broker_was_killed(
    broker: Breakable, queue_name: str
) -> None:
    confirmed: set[bytes] = set()
    many = asyncio.Event()

    async with running(broker.url, queue_name) as queue:

        async def publish(lane: int) -> None:
            for n in range(150):
                body = f"{lane}-{n}".encode()
                await queue.publisher().publish(Envelope(body=body, message_id=body.decode()), timeout_s=60)
                confirmed.add(body)
                if len(confirmed) == 500:
                    many.set()

        await queue.publisher().publish(Envelope(body=b"0"), timeout_s=TIMEOUT_S)
        lanes = [asyncio.create_task(publish(lane)) for lane in range(20)]
        await asyncio.wait_for(many.wait(), 30)
        await broker.kill9()
        await broker.start()
        await asyncio.gather(*lanes)

        bodies = {d.envelope.body for d in await collect(queue.consumer(prefetch=500), 3001, within_s=30)}

        assert len(confirmed) == 3000
        assert confirmed - bodies == set()


async def test_acks_of_a_lost_connection_are_dropped_and_the_messages_come_again(
    amqp_url: str, queue_name: str
) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        consumer = queue.consumer(prefetch=10)
        for n in range(3):
            await queue.publisher().publish(Envelope(body=str(n).encode()), timeout_s=TIMEOUT_S)
        held = await received(consumer, 3)
        await wire.cut()
        again = await received(consumer, 3)
        await consumer.ack(held)
        await consumer.retry(held[0], delay_ms=1)
        await consumer.release(held)

        assert sorted(d.envelope.body for d in again) == [b"0", b"1", b"2"]
        assert {d.redelivered for d in again} == {True}
        assert await queue.depth() == Depth(ready=0, unacked=3, retry=0, dead=0)
        await consumer.ack(again)
        assert await queue.depth() == Depth(ready=0, unacked=0, retry=0, dead=0)


async def test_publishing_survives_a_network_that_swallows_everything(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        await queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        wire.swallow()
        began_s = time.monotonic()
        await queue.publisher().publish(Envelope(body=b"2"), timeout_s=TIMEOUT_S)

        assert 2.5 < time.monotonic() - began_s < TIMEOUT_S
        assert wire.accepted == 2


async def test_silence_is_noticed_although_every_publish_gives_up_early(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        await queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        wire.swallow()
        failures = 0
        for _ in range(40):
            try:
                await queue.publisher().publish(Envelope(body=b"2"), timeout_s=0.2)
                break
            except NotConfirmed:
                failures += 1

        assert 5 < failures < 35


async def test_a_network_that_swallows_everything_is_noticed_within_the_heartbeat_without_any_message(
    amqp_url: str, queue_name: str
) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name, heartbeat_s=2) as queue:
        consumer = queue.consumer(prefetch=10)
        await queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        assert len(await received(consumer, 1)) == 1
        wire.swallow()
        # pika itself would need seven seconds at the least.
        await asyncio.sleep(5)

        assert wire.accepted == 4
        assert [d.envelope.body for d in await collect(consumer, 1)] == [b"1"]


async def test_one_silent_caller_does_not_end_a_connection_that_serves_others(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        publisher = queue.publisher()
        await publisher.publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        # The broker confirms what it knows; of a tag that we wait for and it never saw, it will never speak.
        publisher._confirms.expect(asyncio.get_running_loop().time())
        publisher._confirms._waiting[10**9] = publisher._confirms._waiting.popitem()[1]
        publisher._confirms._last_tag -= 1
        end_s = time.monotonic() + 4.5
        while time.monotonic() < end_s:
            await publisher.publish(Envelope(body=b"2"), timeout_s=TIMEOUT_S)
            await asyncio.sleep(0.05)

        assert wire.accepted == 1


async def test_an_alarm_of_the_broker_is_waited_for_and_the_connection_kept(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        await queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        wire.say(BLOCKED)
        await asyncio.sleep(0.2)
        with pytest.raises(NotConfirmed, match="memory or disk alarm"):
            await queue.publisher().publish(Envelope(body=b"2"), timeout_s=0.5)
        waiting = asyncio.create_task(queue.publisher().publish(Envelope(body=b"3"), timeout_s=TIMEOUT_S))
        await asyncio.sleep(4)
        assert not waiting.done()
        wire.say(UNBLOCKED)
        await waiting

        assert wire.accepted == 1
        assert await queue.depth() == Depth(ready=2, unacked=0, retry=0, dead=0)


async def test_an_alarm_with_messages_in_flight_does_not_end_the_connection(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        await queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        wire.swallow()
        waiting = asyncio.create_task(queue.publisher().publish(Envelope(body=b"2"), timeout_s=5))
        await asyncio.sleep(0.2)
        wire.say(BLOCKED)
        with pytest.raises(NotConfirmed, match="memory or disk alarm"):
            await waiting

        assert wire.accepted == 1


async def test_more_than_the_limit_in_flight_is_refused_at_once(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name, max_in_flight=3) as queue:
        publisher = queue.publisher()
        await publisher.publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        wire.swallow()
        tasks = [asyncio.create_task(publisher.publish(Envelope(body=b"2"), timeout_s=TIMEOUT_S)) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded):
            await publisher.publish(Envelope(body=b"3"), timeout_s=TIMEOUT_S)
        for task in tasks[:2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        # What was cancelled has freed its place, now that the dead connection is gone.
        await asyncio.gather(*(publisher.publish(Envelope(body=b"4"), timeout_s=TIMEOUT_S) for _ in range(3)))


async def test_a_stalled_broker_cannot_hold_up_a_stop(amqp_url: str, queue_name: str) -> None:
    async with Wire(amqp_url) as wire, running(wire.url, queue_name) as queue:
        consumer = queue.consumer(prefetch=1)
        await queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        assert len(await received(consumer, 1)) == 1
        wire.swallow()
        late = asyncio.create_task(queue.publisher().publish(Envelope(body=b"2"), timeout_s=30))
        await asyncio.sleep(0.1)
        await queue.stop()

        with pytest.raises(NotConfirmed, match="stopped"):
            await late
