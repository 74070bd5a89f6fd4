"""The bare client and asyncpg, batches of up to 500, with the full effect: archive, event, payment, order, change log.

It verifies nothing, and a message that it cannot read ends it. The limit of this design.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time

import asyncpg
import uvloop

from bench.peers.amqp import BareClient
from bench.peers.place import DATABASE_URL, KIND, QUEUE, URL

BATCH, PREFETCH = 500, 1000
STATEMENTS = (
    "INSERT INTO bare_archive SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) ON CONFLICT DO NOTHING",
    (
        "INSERT INTO bare_events SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) "
        "ON CONFLICT DO NOTHING RETURNING digest"
    ),
    (
        "INSERT INTO bare_payments SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) "
        "ON CONFLICT (payment_id) DO UPDATE SET status = excluded.status"
    ),
    (
        "UPDATE shop_orders SET status = 'paid' FROM unnest($1::text[]) AS paid(order_id) "
        "WHERE shop_orders.order_id = paid.order_id"
    ),
    "INSERT INTO bare_changes (order_id, status) SELECT *, 'paid' FROM unnest($1::text[])",
)


async def main() -> None:
    database = await asyncpg.connect(DATABASE_URL)
    messages: list[tuple[int, bytes]] = []
    arrived = asyncio.Event()

    def on_message(tag: int, body: bytes) -> None:
        messages.append((tag, body))
        arrived.set()

    client = BareClient(URL, on_message)
    await client.open()
    await client.declare(QUEUE, KIND)
    await client.consume(QUEUE, PREFETCH)
    while True:
        await arrived.wait()
        batch, messages[:] = messages[:BATCH], messages[BATCH:]
        if not messages:
            arrived.clear()
        await apply(database, [body for _, body in batch])
        client.ack(batch[-1][0])


async def apply(database: asyncpg.Connection, bodies: list[bytes]) -> None:
    told = {hashlib.sha256(body).hexdigest(): (body, json.loads(body)) for body in bodies}
    digests = list(told)
    payments = [payment for _, payment in told.values()]
    orders = sorted({payment["OrderId"] for payment in payments})
    ids = [str(payment["PaymentId"]) for payment in payments]
    statuses, amounts = [payment["Status"] for payment in payments], [payment["Amount"] for payment in payments]
    archive, events, rows, update, changes = STATEMENTS
    async with database.transaction():
        await database.execute(
            archive, digests, [body.decode() for body, _ in told.values()], [time.time_ns()] * len(told)
        )
        await database.fetch(events, digests, ids, [payment["OrderId"] for payment in payments], statuses, amounts)
        await database.execute(rows, ids, [payment["OrderId"] for payment in payments], statuses, amounts)
        await database.execute(update, orders)
        await database.execute(changes, orders)


if __name__ == "__main__":
    uvloop.run(main())
