"""What a queue promises. Every sentence holds on SQLite and on RabbitMQ alike."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from oplata.errors import QueueUnavailable
from oplata.queue.base import Consumer, Depth, Queue
from oplata.queue.envelope import FORM, JSON, Delivery, Envelope
from oplata.queue.rabbitmq import RabbitQueue
from oplata.queue.sqlite import SqliteQueue

pytestmark = pytest.mark.anyio

SHORT_RETRY_MS = 300
LONG_RETRY_MS = 4_000
PATIENCE_S = 15.0

MakeQueue = Callable[[], Queue]


@pytest.fixture(params=["sqlite", "rabbitmq"])
def make_queue(request: pytest.FixtureRequest, tmp_path: Path) -> MakeQueue:
    """Make another queue object over the same durable queue."""
    retry_delays_ms = (SHORT_RETRY_MS, LONG_RETRY_MS)
    if request.param == "sqlite":
        path = tmp_path / "queue.db"
        return lambda: SqliteQueue(path, retry_delays_ms=retry_delays_ms)
    url: str = request.getfixturevalue("amqp_url")
    name: str = request.getfixturevalue("queue_name")
    return lambda: RabbitQueue(url, name, retry_delays_ms=retry_delays_ms)


@pytest.fixture
async def queue(make_queue: MakeQueue) -> AsyncIterator[Queue]:
    queue = make_queue()
    await queue.start()
    yield queue
    await queue.stop()


def message(number: int) -> Envelope:
    return Envelope(body=f'{{"number": {number}}}'.encode(), message_id=f"message-{number}")


async def publish(queue: Queue, *envelopes: Envelope) -> None:
    for envelope in envelopes:
        await queue.publisher().publish(envelope, timeout_s=PATIENCE_S)


async def collect(consumer: Consumer, count: int, *, within_s: float = PATIENCE_S) -> list[Delivery]:
    """Receive until there are ``count`` or the time is over; acknowledge nothing."""
    deliveries: list[Delivery] = []
    deadline_s = time.monotonic() + within_s
    while len(deliveries) < count and (remaining_s := deadline_s - time.monotonic()) > 0:
        deliveries += await consumer.receive(limit=count - len(deliveries), timeout_s=remaining_s)
    return deliveries


async def eventually(queue: Queue, expected: Depth) -> Depth:
    """A broker counts a moment late, so ask until the answer is the expected one, or give back the last."""
    for _ in range(50):
        depth = await queue.depth()
        if depth == expected:
            break
        await asyncio.sleep(0.1)
    return depth


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.envelope.message_id for delivery in deliveries]


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(body=b'{"Amount":100}', message_id="plain"),
        Envelope(body=b"", message_id="empty"),
        Envelope(body=random.Random(7).randbytes(64 * 1024), message_id="64-kib"),
        Envelope(body=b"\xff\xfe\x00 not UTF-8", message_id="bytes"),
        Envelope(body=b"a=1&b=2", message_id="form", content_type=FORM),
        Envelope(body=b"{}", message_id="платёж-1", headers={"x-shop": "Пышечная «Уют» 🍩", "x-number": 2**53}),
    ],
    ids=lambda envelope: envelope.message_id,
)
async def test_what_is_published_is_received_byte_for_byte(queue: Queue, envelope: Envelope) -> None:
    await publish(queue, envelope)

    [delivery] = await collect(queue.consumer(prefetch=10), 1)

    assert delivery.envelope == envelope
    assert (delivery.attempt, delivery.redelivered, delivery.dead_reason) == (1, False, "")


async def test_a_message_without_any_metadata_is_a_first_attempt(queue: Queue) -> None:
    await publish(queue, Envelope(body=b"{}"))

    [delivery] = await collect(queue.consumer(prefetch=10), 1)

    assert delivery.envelope == Envelope(body=b"{}", message_id="", content_type=JSON, headers={})
    assert delivery.attempt == 1


async def test_one_consumer_receives_in_order_of_arrival(queue: Queue) -> None:
    await publish(queue, *[message(number) for number in range(50)])

    deliveries = await collect(queue.consumer(prefetch=100), 50)

    assert ids(deliveries) == [f"message-{number}" for number in range(50)]


async def test_what_is_acknowledged_never_comes_again(make_queue: MakeQueue, queue: Queue) -> None:
    await publish(queue, *[message(number) for number in range(20)])
    consumer = queue.consumer(prefetch=100)
    await consumer.ack(await collect(consumer, 20))
    assert await eventually(queue, Depth(ready=0, unacked=0, retry=0, dead=0)) == Depth(
        ready=0, unacked=0, retry=0, dead=0
    )
    await queue.stop()

    again = make_queue()
    await again.start()
    assert await again.consumer(prefetch=100).receive(limit=100, timeout_s=0.5) == []
    await again.stop()


async def test_messages_survive_the_end_of_the_queue_object(make_queue: MakeQueue, queue: Queue) -> None:
    await publish(queue, message(1), message(2))
    await queue.stop()

    again = make_queue()
    await again.start()
    assert ids(await collect(again.consumer(prefetch=10), 2)) == ["message-1", "message-2"]
    await again.stop()


async def test_what_was_not_acknowledged_comes_again_after_the_consumer_closed(queue: Queue) -> None:
    await publish(queue, message(1), message(2))
    consumer = queue.consumer(prefetch=10)
    received = await collect(consumer, 2)
    await consumer.ack(received[:1])
    await consumer.close()

    [delivery] = await collect(queue.consumer(prefetch=10), 1)

    assert (delivery.envelope, delivery.redelivered, delivery.attempt) == (message(2), True, 1)


async def test_released_messages_come_at_once_with_their_attempt_unchanged(queue: Queue) -> None:
    await publish(queue, message(1), message(2))
    consumer = queue.consumer(prefetch=10)
    received = await collect(consumer, 2)
    started_s = time.monotonic()

    await consumer.release(received)

    again = await collect(consumer, 2)
    assert time.monotonic() - started_s < 2
    assert sorted(ids(again)) == ["message-1", "message-2"]
    assert [delivery.attempt for delivery in again] == [1, 1]
    assert [delivery.redelivered for delivery in again] == [True, True]


async def test_a_retry_comes_after_its_delay_with_the_attempt_raised(queue: Queue) -> None:
    envelope = Envelope(body=b"\x00body", message_id="one", headers={"x-kept": "да"})
    await publish(queue, envelope)
    consumer = queue.consumer(prefetch=10)

    for attempt in (1, 2, 3):
        [delivery] = await collect(consumer, 1)
        assert delivery.attempt == attempt
        assert (delivery.envelope.body, delivery.envelope.message_id) == (envelope.body, envelope.message_id)
        assert delivery.envelope.headers["x-kept"] == "да"
        started_s = time.monotonic()
        await consumer.retry(delivery, delay_ms=SHORT_RETRY_MS)
        assert await consumer.receive(limit=10, timeout_s=SHORT_RETRY_MS / 1_000 * 0.6) == []

    [delivery] = await collect(consumer, 1)
    assert SHORT_RETRY_MS / 1_000 * 0.85 < time.monotonic() - started_s < 3
    assert delivery.attempt == 4


async def test_a_retry_survives_the_end_of_the_queue_object(make_queue: MakeQueue, queue: Queue) -> None:
    await publish(queue, message(1))
    consumer = queue.consumer(prefetch=10)
    [delivery] = await collect(consumer, 1)
    await consumer.retry(delivery, delay_ms=SHORT_RETRY_MS)
    await queue.stop()

    again = make_queue()
    await again.start()
    [delivery] = await collect(again.consumer(prefetch=10), 1)
    assert (delivery.envelope.body, delivery.attempt) == (message(1).body, 2)
    await again.stop()


async def test_a_delay_beyond_the_longest_rung_waits_on_the_longest(queue: Queue) -> None:
    await publish(queue, message(1))
    consumer = queue.consumer(prefetch=10)
    [delivery] = await collect(consumer, 1)
    started_s = time.monotonic()

    await consumer.retry(delivery, delay_ms=LONG_RETRY_MS * 1_000)

    [delivery] = await collect(consumer, 1, within_s=LONG_RETRY_MS / 1_000 + 5)
    assert time.monotonic() - started_s > LONG_RETRY_MS / 1_000 * 0.8
    assert delivery.attempt == 2


async def test_two_consumers_share_the_messages_without_overlap(queue: Queue) -> None:
    first, second = queue.consumer(prefetch=5), queue.consumer(prefetch=5)
    await publish(queue, *[message(number) for number in range(40)])
    received: list[str] = []

    async def work(consumer: Consumer) -> int:
        count = 0
        while deliveries := await consumer.receive(limit=5, timeout_s=1.0):
            received.extend(ids(deliveries))
            count += len(deliveries)
            await asyncio.sleep(0.01)
            await consumer.ack(deliveries)
        return count

    counts = await asyncio.gather(work(first), work(second))

    assert sorted(received) == sorted(f"message-{number}" for number in range(40))
    assert all(count > 0 for count in counts)


async def test_a_consumer_holds_no_more_than_its_prefetch(queue: Queue) -> None:
    await publish(queue, *[message(number) for number in range(10)])
    consumer = queue.consumer(prefetch=3)

    held = await collect(consumer, 10, within_s=1.0)
    assert ids(held) == ["message-0", "message-1", "message-2"]

    await consumer.ack(held[:1])
    assert ids(await collect(consumer, 10, within_s=1.0)) == ["message-3"]


async def test_receive_returns_no_more_than_its_limit(queue: Queue) -> None:
    await publish(queue, *[message(number) for number in range(10)])
    consumer = queue.consumer(prefetch=10)

    batches = [await consumer.receive(limit=4, timeout_s=0.3) for _ in range(10)]

    assert max(len(batch) for batch in batches) <= 4
    assert sum(len(batch) for batch in batches) == 10


async def test_receive_with_nothing_returns_empty_when_its_time_is_over(queue: Queue) -> None:
    consumer = queue.consumer(prefetch=10)
    await consumer.receive(limit=1, timeout_s=1.0)
    started_s = time.monotonic()

    assert await consumer.receive(limit=10, timeout_s=0.4) == []

    assert 0.35 <= time.monotonic() - started_s < 1.0


async def test_receive_never_waits_for_a_fuller_batch(queue: Queue) -> None:
    await publish(queue, message(1))
    started_s = time.monotonic()

    deliveries = await queue.consumer(prefetch=100).receive(limit=100, timeout_s=PATIENCE_S)

    assert ids(deliveries) == ["message-1"]
    assert time.monotonic() - started_s < 3


async def test_a_message_wakes_the_consumer_that_waits_for_it(queue: Queue) -> None:
    consumer = queue.consumer(prefetch=10)
    waiting = asyncio.create_task(consumer.receive(limit=10, timeout_s=PATIENCE_S))
    await asyncio.sleep(0.5)
    started_s = time.monotonic()

    await publish(queue, message(1))

    assert ids(await waiting) == ["message-1"]
    assert time.monotonic() - started_s < 0.5


async def test_to_settle_a_stale_delivery_is_harmless(queue: Queue) -> None:
    await publish(queue, message(1))
    former = queue.consumer(prefetch=10)
    stale = await collect(former, 1)
    await former.close()
    present = queue.consumer(prefetch=10)
    await collect(present, 1)

    await former.ack(stale)
    await former.release(stale)
    await present.ack(stale[:0])
    other = queue.consumer(prefetch=10)
    assert await other.receive(limit=10, timeout_s=0.5) == []
    await present.close()

    assert ids(await collect(other, 1)) == ["message-1"]


async def test_messages_are_acknowledged_in_any_order_and_in_part(queue: Queue) -> None:
    await publish(queue, *[message(number) for number in range(10)])
    consumer = queue.consumer(prefetch=10)
    received = await collect(consumer, 10)

    await consumer.ack([received[7], received[2], received[9]])
    await consumer.ack([received[0]])
    await consumer.ack([])
    await consumer.close()

    left = await collect(queue.consumer(prefetch=10), 6)
    assert sorted(ids(left)) == [f"message-{number}" for number in (1, 3, 4, 5, 6, 8)]


async def test_a_fresh_queue_is_empty(queue: Queue) -> None:
    assert await queue.depth() == Depth(ready=0, unacked=0, retry=0, dead=0)


async def test_depth_counts_every_place(queue: Queue) -> None:
    await publish(queue, *[message(number) for number in range(5)])
    assert await eventually(queue, Depth(ready=5, unacked=0, retry=0, dead=0)) == Depth(
        ready=5, unacked=0, retry=0, dead=0
    )
    consumer = queue.consumer(prefetch=5)
    received = await collect(consumer, 5)
    await consumer.retry(received[0], delay_ms=LONG_RETRY_MS)

    holding = Depth(ready=0, unacked=4, retry=1, dead=0)
    assert await eventually(queue, holding) == holding
    await consumer.ack(received[1:3])
    await consumer.close()
    released = Depth(ready=2, unacked=0, retry=1, dead=0)
    assert await eventually(queue, released) == released


async def test_a_stopped_queue_refuses_a_message_and_takes_it_when_started_again(queue: Queue) -> None:
    await publish(queue, message(1))
    await queue.stop()
    with pytest.raises(QueueUnavailable):
        await queue.publisher().publish(message(2), timeout_s=0.5)

    await queue.start()
    await publish(queue, message(3))

    assert ids(await collect(queue.consumer(prefetch=10), 2)) == ["message-1", "message-3"]


async def test_stopping_twice_is_as_good_as_once(queue: Queue) -> None:
    await queue.stop()
    await queue.stop()


async def test_hundreds_of_concurrent_publishes_all_arrive_once(queue: Queue) -> None:
    await asyncio.gather(*[publish(queue, message(number)) for number in range(500)])
    consumer = queue.consumer(prefetch=500)

    deliveries = await collect(consumer, 500)

    assert sorted(ids(deliveries)) == sorted(f"message-{number}" for number in range(500))
    assert await consumer.receive(limit=10, timeout_s=0.3) == []


async def test_a_cancelled_receive_loses_nothing(queue: Queue) -> None:
    consumer = queue.consumer(prefetch=100)
    received: list[Delivery] = []
    for number in range(30):
        waiting = asyncio.create_task(consumer.receive(limit=10, timeout_s=PATIENCE_S))
        await publish(queue, message(number))
        await asyncio.sleep(number * 0.000_1)
        waiting.cancel()
        received += next((r for r in await asyncio.gather(waiting, return_exceptions=True) if isinstance(r, list)), [])

    received += await collect(consumer, 30 - len(received))

    assert ids(received) == [f"message-{number}" for number in range(30)]


async def test_nothing_is_dead_in_a_fresh_queue(queue: Queue) -> None:
    await publish(queue, message(1))

    assert await queue.consumer(prefetch=10, dead=True).receive(limit=10, timeout_s=0.5) == []


async def test_check_says_in_a_sentence_what_the_queue_is(queue: Queue) -> None:
    sentence = await queue.check()

    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence.split()) > 3
