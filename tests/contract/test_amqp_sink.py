"""Events on a topic exchange: confirmed, persistent, and told again when the broker was away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pika
import pytest

from oplata.errors import DeliveryFailed
from oplata.feed.event import event_of
from oplata.feed.lane import Options
from oplata.feed.schedule import Schedule
from oplata.feed.sinks.amqp import AmqpSink
from oplata.queue.rabbitmq.topic import Topic
from oplata.storage.engine import Database
from tests.changes import append, change, versions
from tests.contract.amqp import stranger
from tests.services.breakable import Breakable
from tests.sinks import assert_in_order, relaying

pytestmark = pytest.mark.anyio

WAIT_S = 30.0


def _sink(url: str, exchange: str, *, mandatory: bool = False, declare: Any = "active") -> AmqpSink:
    topic = Topic(url, exchange, mandatory=mandatory, declare=declare, rng=random.Random(1))
    return AmqpSink(topic, timeout_s=3.0)


@contextlib.asynccontextmanager
async def _started(sink: AmqpSink) -> AsyncIterator[AmqpSink]:
    await sink.start()
    try:
        yield sink
    finally:
        await sink.stop()


async def _bind(url: str, exchange: str, queue: str, key: str) -> None:
    async with stranger(url) as channel:
        await channel.call(channel.raw.exchange_declare, exchange, "topic", durable=True)
        await channel.call(channel.raw.queue_declare, queue, durable=True)
        await channel.call(channel.raw.queue_bind, queue, exchange, routing_key=key)


async def _drop(url: str, exchange: str, queue: str) -> None:
    async with stranger(url) as channel:
        await channel.call(channel.raw.queue_delete, queue)
        await channel.call(channel.raw.exchange_delete, exchange)


async def _read(url: str, queue: str, enough: int) -> list[tuple[Any, Any, bytes]]:
    """Messages from a queue, until so many different ones have come."""
    return await asyncio.wait_for(asyncio.to_thread(_read_with_pika, url, queue, enough), WAIT_S + 5)


def _read_with_pika(url: str, queue: str, enough: int) -> list[tuple[Any, Any, bytes]]:
    """As another program would, with pika's own way of reading."""
    told: list[tuple[Any, Any, bytes]] = []
    connection, ends_s = pika.BlockingConnection(pika.URLParameters(url)), time.monotonic() + WAIT_S
    try:
        for method, properties, body in connection.channel().consume(queue, auto_ack=True, inactivity_timeout=0.2):
            if method is not None:
                told.append((method, properties, body))
            if len({properties.message_id for _, properties, _ in told}) >= enough:
                break
            assert time.monotonic() < ends_s, f"{len(told)} messages came"
    finally:
        connection.close()
    return told


async def test_an_event_has_a_key_an_id_and_a_body(amqp_url: str, queue_name: str) -> None:
    exchange = f"{queue_name}.events"
    await _bind(amqp_url, exchange, queue_name, "order.paid")
    event = event_of(17, change(status="paid"))
    try:
        async with _started(_sink(amqp_url, exchange)) as sink:
            await sink.deliver(event_of(16, change(status="pending")))
            await sink.deliver(event)
        ((method, properties, body),) = await _read(amqp_url, queue_name, 1)
    finally:
        await _drop(amqp_url, exchange, queue_name)
    assert (method.routing_key, properties.message_id, properties.type) == ("order.paid", event.id, "order.paid")
    assert (properties.delivery_mode, properties.content_type) == (2, "application/json")
    assert (json.loads(body)["data"]["orderId"], body) == ("order-1", event.document())


async def test_an_event_that_no_queue_takes_is_a_failure_where_that_is_wanted(amqp_url: str, queue_name: str) -> None:
    exchange = f"{queue_name}.events"
    await _bind(amqp_url, exchange, queue_name, "order.paid")
    try:
        async with _started(_sink(amqp_url, exchange, mandatory=True)) as sink:
            await sink.deliver(event_of(1, change(status="paid")))
            with pytest.raises(DeliveryFailed, match="No queue is bound"):
                await sink.deliver(event_of(2, change(status="pending")))
            await sink.deliver(event_of(3, change(status="paid")))
        assert len(await _read(amqp_url, queue_name, 2)) == 2
    finally:
        await _drop(amqp_url, exchange, queue_name)


async def test_an_exchange_that_is_missing_or_of_another_type_is_told_of(amqp_url: str, queue_name: str) -> None:
    async with _started(_sink(amqp_url, f"{queue_name}.none", declare="passive")) as sink:
        with pytest.raises(DeliveryFailed, match="cannot be used"):
            await sink.deliver(event_of(1, change()))


async def test_a_broker_that_dies_under_load_is_told_all_in_order(
    database: Database, broker: Breakable, queue_name: str
) -> None:
    exchange = f"{queue_name}.events"
    await _bind(broker.url, exchange, queue_name, "order.#")
    options = Options(timeout_s=3.0, schedule=Schedule(delays_ms=(50, 200), max_attempts=1000))
    try:
        async with relaying(database, ("events", _sink(broker.url, exchange)), options=options):
            await append(database, *(each for number in range(30) for each in versions(f"order-{number}", 1, 3)))
            await asyncio.sleep(0.2)
            await broker.kill9()
            for version in range(4, 8):
                await append(database, *(change(f"order-{number}", version) for number in range(30)))
            await broker.start()
            told = await _read(broker.url, queue_name, 210)
    finally:
        await _drop(broker.url, exchange, queue_name)
    by_order: dict[str, list[int]] = {}
    for _, _, body in told:
        data = json.loads(body)["data"]
        by_order.setdefault(data["orderId"], []).append(data["version"])
    assert len(by_order) == 30
    for order_id in by_order:
        assert_in_order(by_order[order_id], 7)
