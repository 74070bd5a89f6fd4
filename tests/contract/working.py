"""A worker at work, and the queue between it and the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from oplata.queue.base import Depth
from oplata.queue.envelope import Envelope, HeaderValue
from oplata.queue.sqlite import SqliteQueue
from oplata.worker.loop import Worker

EMPTY = Depth(ready=0, unacked=0, retry=0, dead=0)


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[SqliteQueue]:
    queue = SqliteQueue(tmp_path / "queue.db", retry_delays_ms=[100], delivery_limit=2)
    await queue.start()
    yield queue
    await queue.stop()


async def put(queue: SqliteQueue, *bodies: bytes, headers: dict[str, HeaderValue] | None = None) -> None:
    envelopes = [Envelope(body=body, headers=headers or {}) for body in bodies]
    await asyncio.gather(*(queue.publisher().publish(each, timeout_s=10) for each in envelopes))


@contextlib.asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """The worker at work; drained at the end."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        worker.stop()
        await asyncio.wait_for(task, 30)


async def until(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(0.02)


async def until_empty(queue: SqliteQueue) -> None:
    async def is_empty() -> bool:
        return await queue.depth() == EMPTY

    await until(is_empty)
