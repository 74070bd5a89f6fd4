"""What only RabbitMQ can do to us: topologies that differ, queues that vanish, strangers and their headers."""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import pytest
import uvloop
from pika import spec

from oplata.errors import NotConfirmed, QueueUnavailable, SettingsError, TopologyError
from oplata.queue.base import Depth
from oplata.queue.envelope import ATTEMPT_HEADER, JSON, Envelope
from oplata.queue.rabbitmq import RabbitQueue
from tests.contract.amqp import (
    RUNGS_MS,
    TIMEOUT_S,
    collect,
    declare_classic,
    delete,
    publish_once_mended,
    received,
    running,
    stranger,
)

pytestmark = pytest.mark.anyio


async def test_declaring_twice_and_from_another_process_changes_nothing(amqp_url: str, queue_name: str) -> None:
    async with running(amqp_url, queue_name) as queue:
        await queue.publisher().publish(Envelope(body=b"kept"), timeout_s=TIMEOUT_S)
        program = (
            "import asyncio, sys\n"
            "from oplata.queue.rabbitmq import RabbitQueue\n"
            f"queue = RabbitQueue(sys.argv[1], sys.argv[2], retry_delays_ms={RUNGS_MS!r})\n"
            "print(asyncio.run(queue.check()))\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, amqp_url, queue_name, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)

        assert process.returncode == 0
        assert f'queue "{queue_name}" (active), 1 messages ready.' in output.decode()
        assert await queue.depth() == Depth(ready=1, unacked=0, retry=0, dead=0)


async def test_the_check_names_the_broker_and_its_version(amqp_url: str, queue_name: str) -> None:
    sentence = await RabbitQueue(amqp_url, queue_name).check()

    assert sentence.startswith("RabbitMQ ")
    assert f"{urlsplit(amqp_url).hostname}:{urlsplit(amqp_url).port}" in sentence


async def test_a_plain_classic_queue_of_another_program_is_used_as_it_stands(amqp_url: str, queue_name: str) -> None:
    await declare_classic(amqp_url, queue_name)
    async with running(amqp_url, queue_name, declare="passive") as queue:
        await queue.publisher().publish(Envelope(body=b"1", message_id="m"), timeout_s=TIMEOUT_S)
        consumer = queue.consumer(prefetch=5)
        [first] = await received(consumer, 1)
        await consumer.retry(first, delay_ms=100)
        [second] = await received(consumer, 1)
        await consumer.ack([second])

        assert [(d.envelope.body, d.envelope.message_id, d.attempt) for d in (first, second)] == [
            (b"1", "m", 1),
            (b"1", "m", 2),
        ]


async def test_a_queue_with_other_arguments_is_reported_with_what_differs_and_what_to_do(
    amqp_url: str, queue_name: str
) -> None:
    await declare_classic(amqp_url, queue_name)
    async with running(amqp_url, queue_name) as queue:
        for attempt in (queue.check(), queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)):
            with pytest.raises(TopologyError) as caught:
                await attempt
            sentence = str(caught.value)

            assert f'The queue "{queue_name}" exists on the broker with other arguments' in sentence
            assert "x-queue-type" in sentence or "x-dead-letter-exchange" in sentence
            assert 'set declare = "passive"' in sentence


async def test_a_topology_error_reaches_a_receiving_loop_without_making_it_spin(amqp_url: str, queue_name: str) -> None:
    await declare_classic(amqp_url, queue_name)
    async with running(amqp_url, queue_name) as queue:
        consumer = queue.consumer(prefetch=1)
        reports, turns, end_s = 0, 0, time.monotonic() + 2
        while time.monotonic() < end_s:
            turns += 1
            try:
                await consumer.receive(limit=1, timeout_s=0.5)
            except TopologyError:
                reports += 1

        assert 1 <= reports <= turns < 60

        await delete(amqp_url, queue_name)
        await publish_once_mended(queue, b"mended")

        assert [d.envelope.body for d in await collect(consumer, 1)] == [b"mended"]


async def test_a_missing_queue_of_another_program_is_a_sentence_and_heals_when_it_appears(
    amqp_url: str, queue_name: str
) -> None:
    async with running(amqp_url, queue_name, declare="passive") as queue:
        consumer = queue.consumer(prefetch=1)
        with pytest.raises(TopologyError, match='start that program first, or set declare = "active"'):
            await queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        with pytest.raises(TopologyError, match=f'The queue "{queue_name}" does not exist'):
            await consumer.receive(limit=1, timeout_s=TIMEOUT_S)

        await declare_classic(amqp_url, queue_name)
        await publish_once_mended(queue, b"2")

        assert [d.envelope.body for d in await collect(consumer, 1)] == [b"2"]


async def test_a_message_that_a_full_queue_refuses_is_not_confirmed(amqp_url: str, queue_name: str) -> None:
    await declare_classic(amqp_url, queue_name, **{"x-max-length": 1, "x-overflow": "reject-publish"})
    async with running(amqp_url, queue_name, declare="passive") as queue:
        await queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)

        with pytest.raises(NotConfirmed, match="refused a message"):
            await queue.publisher().publish(Envelope(body=b"2"), timeout_s=TIMEOUT_S)


async def test_a_queue_deleted_under_the_publisher_is_declared_again_and_nothing_confirmed_is_missing(
    amqp_url: str, queue_name: str
) -> None:
    async with running(amqp_url, queue_name) as queue:
        await queue.publisher().publish(Envelope(body=b"before"), timeout_s=TIMEOUT_S)
        await delete(amqp_url, queue_name)
        same_id = [Envelope(body=str(n).encode(), message_id="same") for n in range(50)]
        await asyncio.gather(*(queue.publisher().publish(envelope, timeout_s=TIMEOUT_S) for envelope in same_id))

        bodies = {d.envelope.body for d in await collect(queue.consumer(prefetch=100), 50)}

        assert bodies == {envelope.body for envelope in same_id}


async def test_a_queue_deleted_under_the_consumer_is_declared_again_and_consumed(
    amqp_url: str, queue_name: str
) -> None:
    async with running(amqp_url, queue_name) as queue:
        consumer = queue.consumer(prefetch=5)
        await queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        [held] = await received(consumer, 1)
        await delete(amqp_url, queue_name)
        await queue.publisher().publish(Envelope(body=b"2"), timeout_s=TIMEOUT_S)

        assert [d.envelope.body for d in await collect(consumer, 1)] == [b"2"]
        await consumer.ack([held])


async def test_an_idle_consumer_subscribes_anew_and_misses_nothing(amqp_url: str, queue_name: str) -> None:
    async with running(amqp_url, queue_name) as queue:
        consumer = queue.consumer(prefetch=5)
        consumer._idle_limit_s = 0.1
        await queue.publisher().publish(Envelope(body=b"1"), timeout_s=TIMEOUT_S)
        [first] = await collect(consumer, 1)
        for _ in range(3):
            assert await consumer.receive(limit=1, timeout_s=0.3) == []
        await queue.publisher().publish(Envelope(body=b"2"), timeout_s=TIMEOUT_S)
        [second] = await collect(consumer, 1)

        assert (first.envelope.body, second.envelope.body) == (b"1", b"2")
        assert second.generation > first.generation


async def test_a_message_that_crashes_its_workers_ends_in_dead_letters_with_the_reason(
    amqp_url: str, queue_name: str
) -> None:
    async with running(amqp_url, queue_name, delivery_limit=2) as queue:
        await queue.publisher().publish(Envelope(body=b"poison", message_id="p"), timeout_s=TIMEOUT_S)
        for _ in range(3):
            worker = queue.consumer(prefetch=1)
            assert len(await received(worker, 1)) == 1
            await worker.close()
        [dead] = await received(queue.consumer(prefetch=1, dead=True), 1)

        assert (dead.envelope.body, dead.dead_reason) == (b"poison", f"delivery_limit from {queue_name}")
        assert dead.envelope.headers == {}


async def test_cancelled_publishes_leave_the_count_of_confirms_right(amqp_url: str, queue_name: str) -> None:
    async with running(amqp_url, queue_name, max_in_flight=50) as queue:
        publisher = queue.publisher()
        await publisher.publish(Envelope(body=b"first"), timeout_s=TIMEOUT_S)
        for _ in range(10):
            tasks = [
                asyncio.create_task(publisher.publish(Envelope(body=b"x"), timeout_s=TIMEOUT_S)) for _ in range(40)
            ]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)] == []
            await publisher.publish(Envelope(body=b"y"), timeout_s=TIMEOUT_S)

        assert (publisher._callers, len(publisher._confirms)) == (0, 0)


async def test_a_consumer_never_holds_more_than_its_prefetch(amqp_url: str, queue_name: str) -> None:
    async with running(amqp_url, queue_name) as queue:
        for n in range(10):
            await queue.publisher().publish(Envelope(body=str(n).encode()), timeout_s=TIMEOUT_S)
        consumer = queue.consumer(prefetch=4)
        held = await received(consumer, 4)

        assert await consumer.receive(limit=10, timeout_s=0.3) == []
        assert await queue.depth() == Depth(ready=6, unacked=4, retry=0, dead=0)

        # Settled out of order: the broker must not take the untouched ones along.
        await consumer.ack([held[3], held[1]])
        assert len(await received(consumer, 2)) == 2
        await consumer.ack([held[0], held[2]])
        await consumer.close()
        assert len(await collect(queue.consumer(prefetch=10), 6)) == 6


class _Odd(spec.BasicProperties):  # type: ignore[misc]  # pika ships no type information.
    """Headers with a date in the year 56840, which a Node program makes of milliseconds, and which pika cannot read."""

    def encode(self) -> list[bytes]:
        table = b"\x04whenT" + struct.pack(">Q", 1_731_000_000_000) + b"\x01aS" + struct.pack(">I", 1) + b"b"
        return [
            struct.pack(">H", self.FLAG_HEADERS | self.FLAG_MESSAGE_ID),
            struct.pack(">I", len(table)),
            table,
            b"\x02id",
        ]


async def test_messages_of_strangers_are_delivered_whatever_their_headers_hold(amqp_url: str, queue_name: str) -> None:
    odd = {
        "text": "т", "number": 7, "truth": True, "table": {"a": [1]}, "bytes": b"\xff", "none": None,
        "date": datetime(2026, 1, 1, tzinfo=UTC), ATTEMPT_HEADER: "many", "x-death": [{"reason": "forged"}],
    }  # fmt: skip
    async with running(amqp_url, queue_name) as queue:
        await queue.check()
        async with stranger(amqp_url) as channel:
            channel.raw.basic_publish("", queue_name, b"plain")
            channel.raw.basic_publish("", queue_name, b"odd", spec.BasicProperties(headers=odd))
            channel.raw.basic_publish("", queue_name, b"year", _Odd())
            channel.raw.basic_publish("", queue_name, b"")
        consumer = queue.consumer(prefetch=10)
        deliveries = sorted(await received(consumer, 4), key=lambda d: d.envelope.body)
        await consumer.ack(deliveries)

        assert [d.envelope for d in deliveries] == [
            Envelope(body=b""),
            Envelope(body=b"odd", headers={"text": "т", "number": 7, "truth": 1, ATTEMPT_HEADER: "many"}),
            Envelope(body=b"plain", content_type=JSON),
            Envelope(body=b"year", message_id="id"),
        ]
        assert [d.attempt for d in deliveries] == [1, 1, 1, 1]


async def test_the_password_is_in_no_error_and_no_text_of_an_object(amqp_url: str, queue_name: str) -> None:
    secret = "s3cr3t/pass@word"
    parts = urlsplit(amqp_url)
    place = f"{parts.hostname}:{parts.port}"
    texts: list[str] = []
    for url in (
        f"amqp://nobody:{quote(secret, safe='')}@{place}/%2F",
        f"amqp://nobody:{quote(secret, safe='')}@127.0.0.1:1/",
    ):
        queue = RabbitQueue(url, queue_name)
        texts.append(repr(queue))
        with pytest.raises(QueueUnavailable) as unavailable:
            await queue.check()
        texts.append(str(unavailable.value))
        async with running(url, queue_name) as started:
            with pytest.raises(NotConfirmed) as late:
                await started.publisher().publish(Envelope(body=b"1"), timeout_s=1)
            texts.append(str(late.value))
    for url in (f"amqp://nobody:{secret}@{place}", f"http://nobody:{secret}@{place}", f"amqp://n:{secret}@h:port/"):
        with pytest.raises(SettingsError) as wrong:
            RabbitQueue(url)
        assert wrong.value.__cause__ is None
        texts.append(str(wrong.value))

    assert [text for text in texts if "s3cr3t" in text or "pass@word" in text] == []
    assert f'RabbitMQ at {place} refused the user "nobody": check the name and password in the URL.' in texts
    assert "Nothing accepts connections at 127.0.0.1:1: is RabbitMQ running there?" in texts


async def test_a_missing_virtual_host_is_said_to_be_missing(amqp_url: str) -> None:
    url = urlsplit(amqp_url)._replace(path="/nowhere").geturl()

    with pytest.raises(QueueUnavailable, match='virtual host "nowhere": check that it exists'):
        await RabbitQueue(url).check()


def test_it_runs_on_uvloop(amqp_url: str, queue_name: str) -> None:
    async def roundtrip() -> list[bytes]:
        async with running(amqp_url, queue_name) as queue:
            consumer = queue.consumer(prefetch=5)
            await queue.publisher().publish(Envelope(body=b"fast"), timeout_s=TIMEOUT_S)
            return [delivery.envelope.body for delivery in await collect(consumer, 1)]

    assert uvloop.run(roundtrip()) == [b"fast"]
