"""taskiq with taskiq-aio-pika: a task for each payment, acked when it is done, 100 at a time. ``fill N`` sends them."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import asyncpg
from taskiq import TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue
from taskiq_aio_pika.queue import QueueType

from bench.corpus import order_id
from bench.peers.place import DATABASE_URL, KIND, PREFETCH, QUEUE, UPDATE, URL

broker = AioPikaBroker(
    URL,
    qos=PREFETCH,
    exchange=Exchange(name=f"{QUEUE}.exchange"),
    task_queues=[Queue(name=QUEUE, type=QueueType(KIND), durable=True)],
)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def connect(state: TaskiqState) -> None:
    state.pool = await asyncpg.create_pool(DATABASE_URL, min_size=10, max_size=10)


@broker.task(task_name="apply")
async def apply(payment: dict[str, Any]) -> None:
    await broker.state.pool.execute(UPDATE, payment["OrderId"])


async def fill(count: int) -> None:
    await broker.startup()
    for start in range(0, count, 200):
        await asyncio.gather(*(apply.kiq({"OrderId": order_id(n)}) for n in range(start, min(count, start + 200))))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(fill(int(sys.argv[2])))
