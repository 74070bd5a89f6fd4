"""The work that is done for a message, counted: statements, round trips, writes, reads, allocations; never seconds.

Whoever makes one of these numbers grow makes every message dearer, on every machine. They may fall at any time.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from oplata.bank.notification import parse
from oplata.orders.commands import Orders
from oplata.queue.envelope import Envelope
from oplata.storage.engine import Database
from tests.contract.amqp import received, running
from tests.databases import KEYRING, ORDER_KOPECKS, apply_all, callback

pytestmark = pytest.mark.anyio

MOST_STATEMENTS_OF_NEWS = 10
MOST_STATEMENTS_OF_REPEATS = 2
MOST_STATEMENTS_OF_KNOWN_PAYMENTS = 12
MOST_ALLOCATED_BLOCKS = 60


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """Every statement that any engine sends meanwhile, but for the transactions' own."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(("BEGIN", "COMMIT")):
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def applied(database: Database, *bodies: bytes) -> int:
    with counted_statements() as seen:
        await apply_all(database, *bodies)
    return len(seen)


async def test_a_batch_costs_the_same_statements_whatever_its_size(database: Database) -> None:
    for number in range(103):
        await Orders(database).register(f"order-{number}", ORDER_KOPECKS)
    bodies = [callback(order_id=f"order-{n}", payment_id=str(n)) for n in range(103)]
    await apply_all(database, bodies[0])

    one, hundred = await applied(database, bodies[1]), await applied(database, *bodies[2:102])

    assert one == hundred
    assert hundred <= MOST_STATEMENTS_OF_NEWS


async def test_repeats_alone_cost_the_archive_and_the_claim(database: Database) -> None:
    bodies = [callback(order_id=f"order-{n}", payment_id=str(n)) for n in range(50)]
    await apply_all(database, *bodies)

    assert await applied(database, *bodies) <= MOST_STATEMENTS_OF_REPEATS


async def test_a_further_event_of_known_payments_costs_two_statements_more(database: Database) -> None:
    await apply_all(database, *(callback("AUTHORIZED", order_id=f"order-{n}", payment_id=str(n)) for n in range(50)))
    confirmed = [callback("CONFIRMED", order_id=f"order-{n}", payment_id=str(n)) for n in range(50)]

    assert await applied(database, *confirmed) <= MOST_STATEMENTS_OF_KNOWN_PAYMENTS


async def test_what_is_published_in_one_turn_leaves_in_one_write(amqp_url: str, queue_name: str) -> None:
    async with running(amqp_url, queue_name) as queue:
        channel = await queue.publisher().ready()
        wire = channel.link.wire
        frames, writes = wire.frames_sent, wire.writes

        await asyncio.gather(
            *(queue.publisher().publish(Envelope(body=b"{}"), timeout_s=20) for _ in range(200)),
        )

        assert wire.writes - writes <= 3
        assert wire.frames_sent - frames <= 3 * 200 + 3


async def test_a_batch_is_acked_by_one_frame(amqp_url: str, queue_name: str) -> None:
    async with running(amqp_url, queue_name) as queue:
        await asyncio.gather(*(queue.publisher().publish(Envelope(body=b"{}"), timeout_s=20) for _ in range(200)))
        consumer = queue.consumer(prefetch=500)
        deliveries = await received(consumer, 200)
        assert consumer._channel is not None
        frames = consumer._channel.link.wire.frames_sent

        await consumer.ack(deliveries)

        assert consumer._channel.link.wire.frames_sent - frames == 1


def test_a_callback_read_and_verified_leaves_nothing_but_itself() -> None:
    body = callback()
    kept = [parse(body) for _ in range(10)]
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        for _ in range(200):
            notification = parse(body)
            KEYRING.verify(notification)
            kept.append(notification)
        grown = sys.getallocatedblocks() - before
    finally:
        gc.enable()

    assert grown / 200 <= MOST_ALLOCATED_BLOCKS
