"""aio-pika by hand: prefetch 100, one UPDATE for each message through a pool of ten connections, then its ack."""

from __future__ import annotations

import asyncio
import json

import aio_pika
import asyncpg
import uvloop

from bench.peers.place import DATABASE_URL, KIND, PREFETCH, QUEUE, UPDATE, URL


async def main() -> None:
    pool = await asyncpg.create_pool(DATABASE_URL, min_size=10, max_size=10)
    connection = await aio_pika.connect_robust(URL)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": KIND})

    async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process(requeue=True):
            await pool.execute(UPDATE, json.loads(message.body)["OrderId"])

    await queue.consume(on_message)
    await asyncio.Future()


if __name__ == "__main__":
    uvloop.run(main())
