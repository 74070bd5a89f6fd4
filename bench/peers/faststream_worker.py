"""FastStream: a subscriber with prefetch 100, one UPDATE for each message, acked when the function returns."""

from __future__ import annotations

import asyncpg
import uvloop
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from bench.peers.place import DATABASE_URL, KIND, PREFETCH, QUEUE, UPDATE, URL

broker = RabbitBroker(URL, default_channel=Channel(prefetch_count=PREFETCH), logger=None)
app = FastStream(broker, logger=None)
pools: list[asyncpg.Pool] = []


@app.on_startup
async def connect() -> None:
    pools.append(await asyncpg.create_pool(DATABASE_URL, min_size=10, max_size=10))


@broker.subscriber(RabbitQueue(QUEUE, queue_type=QueueType(KIND), durable=True), ack_policy=AckPolicy.NACK_ON_ERROR)
async def apply(payment: dict[str, object]) -> None:
    await pools[0].execute(UPDATE, payment["OrderId"])


if __name__ == "__main__":
    uvloop.run(app.run())
