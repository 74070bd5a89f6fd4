"""The work that is done for a message, counted: statements, round trips, writes, reads, allocations; never seconds.

Whoever makes one of these numbers grow makes every message dearer, on every machine. They may fall at any time. What a
batch of news and one of repeats cost in statements is counted in ``test_storage_faults.py``.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence

import pytest

from oplata.bank.notification import parse
from oplata.orders.commands import Orders
from oplata.queue.envelope import Envelope
from oplata.storage.changes import Change
from oplata.storage.engine import Database
from oplata.storage.unit_of_work import UnitOfWork
from oplata.worker.apply import apply
from tests.contract.amqp import received, running
from tests.databases import (
    KEYRING,
    NOW_MS,
    ORDER_KOPECKS,
    apply_all,
    callback,
    counted,
    execute,
    scheme_of,
    without_begin,
    works,
)

pytestmark = pytest.mark.anyio

STATEMENTS_OF_KNOWN_PAYMENTS = {"postgresql": 4, "sqlite": 11}
STATEMENTS_WITH_HANDLERS = {"postgresql": 5, "sqlite": 9}
MOST_ALLOCATED_BLOCKS = 60


async def test_a_further_event_of_known_payments_costs_what_it_did(database: Database, database_url: str) -> None:
    for number in range(50):
        await Orders(database).register(f"order-{number}", ORDER_KOPECKS)
    await apply_all(database, *(callback("AUTHORIZED", order_id=f"order-{n}", payment_id=str(n)) for n in range(50)))
    confirmed = [callback("CONFIRMED", order_id=f"order-{n}", payment_id=str(n)) for n in range(50)]

    with counted(database) as statements:
        await apply_all(database, *confirmed)
    assert len(without_begin(statements)) == STATEMENTS_OF_KNOWN_PAYMENTS[scheme_of(database_url)]


async def test_handlers_stand_between_two_statements_and_cost_no_more(database: Database, database_url: str) -> None:
    async def handle(_uow: UnitOfWork, told: Sequence[Change]) -> None:
        handled.append(len(told))

    handled: list[int] = []
    await Orders(database).register("order-1", ORDER_KOPECKS)
    with counted(database) as statements:
        async with database.unit_of_work() as uow:
            await apply(uow, works(callback()), NOW_MS, handle=handle)
            await uow.commit()

    assert handled == [1]
    assert len(without_begin(statements)) == STATEMENTS_WITH_HANDLERS[scheme_of(database_url)]


async def test_a_callback_costs_no_more_calls_in_a_large_batch_than_in_a_small_one(
    database: Database, database_url: str
) -> None:
    for name, count in (("warm", 2), ("small", 50), ("large", 250)):
        rows = [f"('{name}-{n}', {ORDER_KOPECKS}, 'pending', 1, 1, 1, 1)" for n in range(count)]
        columns = "order_id, amount_kopecks, status, version, registered_at_ms, created_at_ms, updated_at_ms"
        await execute(database_url, f"INSERT INTO orders ({columns}) VALUES {', '.join(rows)}")  # noqa: S608
    await _calls_of(database, "warm", 2)
    small, large = await _calls_of(database, "small", 50), await _calls_of(database, "large", 250)

    assert large / 250 <= small / 50


async def _calls_of(database: Database, name: str, count: int) -> int:
    """How many functions are called, those written in C among them, to apply so many callbacks of different orders."""
    bodies = [callback("CONFIRMED", order_id=f"{name}-{n}", payment_id=f"{name}-{n}") for n in range(count)]
    calls = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        applied = await apply_all(database, *bodies)
    finally:
        sys.setprofile(None)
    assert len(applied.changes) == count
    return calls


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
