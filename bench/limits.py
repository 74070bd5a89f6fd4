"""``python -m bench.limits WHAT COUNT``: what the broker and the database can do when nothing else is asked of them."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import asyncpg
import uvloop

from bench.corpus import bodies
from bench.peers.amqp import BareClient
from bench.peers.bare_worker import apply
from bench.peers.place import DATABASE_URL, KIND, QUEUE, URL

IN_FLIGHT, BATCH, PREFETCH = 1000, 500, 2000


async def confirms(count: int) -> float:
    """Publish with up to a thousand on their way; seconds until all are confirmed."""
    told = bodies(0, 1000)
    client = await _client()
    await client.confirm()
    begun_s = time.perf_counter()
    for start in range(0, count, IN_FLIGHT):
        await asyncio.gather(*(client.publish(QUEUE, told[n % 1000]) for n in range(start, start + IN_FLIGHT)))
    return time.perf_counter() - begun_s


async def consume(count: int) -> float:
    """Take what ``confirms`` has left, and ack every 500; seconds from the first message to the last."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen: list[float] = []

    def on_message(tag: int, _body: bytes) -> None:
        seen.append(time.perf_counter())
        if tag % BATCH == 0:
            client.ack(tag)
        if len(seen) == count:
            ended.set_result(None)

    client = await _client(on_message)
    await client.consume(QUEUE, PREFETCH)
    await ended
    return seen[-1] - seen[0]


async def store(count: int) -> float:
    """The full effect in batches of 500 into PostgreSQL; seconds, without the making of the callbacks."""
    batches = [bodies(start, BATCH) for start in range(0, count, BATCH)]
    database = await asyncpg.connect(DATABASE_URL)
    begun_s = time.perf_counter()
    for batch in batches:
        await apply(database, batch)
    return time.perf_counter() - begun_s


async def _client(on_message: object = None) -> BareClient:
    client = BareClient(URL, on_message)  # type: ignore[arg-type]
    await client.open()
    await client.declare(QUEUE, KIND)
    return client


if __name__ == "__main__":
    what, number = {"confirms": confirms, "consume": consume, "store": store}[sys.argv[1]], int(sys.argv[2])
    sys.stdout.write(json.dumps({"rate": number / uvloop.run(what(number))}))
