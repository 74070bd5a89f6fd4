"""SQLite queues in other processes, queues that end with their test, and a clock that can be set."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from oplata.queue.envelope import Delivery, Envelope
from oplata.queue.sqlite import SqliteQueue

PUBLISH_FOREVER = """
import asyncio, sys
from oplata.queue.envelope import Envelope
from oplata.queue.sqlite import SqliteQueue

async def lane(queue, name):
    for number in range(int(sys.argv[3])):
        await queue.publisher().publish(Envelope(body=b"x" * 500, message_id=f"{name}-{number}"), timeout_s=20)
        print(f"{name}-{number}", flush=True)

async def main():
    queue = SqliteQueue(sys.argv[1])
    await queue.start()
    await asyncio.gather(*[lane(queue, f"{sys.argv[2]}-{number}") for number in range(8)])
    await queue.stop()

asyncio.run(main())
"""

HOLD_FOREVER = """
import asyncio, sys
from oplata.queue.sqlite import SqliteQueue

async def main():
    queue = SqliteQueue(sys.argv[1], lease_s=float(sys.argv[2]))
    await queue.start()
    consumer = queue.consumer(prefetch=100)
    print(len(await consumer.receive(limit=100, timeout_s=10)), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


PUBLISH_INTO_A_LIMIT = """
import asyncio, resource, sys
from oplata.errors import NotConfirmed
from oplata.queue.envelope import Envelope
from oplata.queue.sqlite import SqliteQueue

async def main():
    queue = SqliteQueue(sys.argv[1])
    await queue.start()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    publish = lambda: queue.publisher().publish(Envelope(body=b"x" * 60_000), timeout_s=10)
    confirmed = 0
    try:
        while confirmed < 100:
            await publish()
            confirmed += 1
    except NotConfirmed:
        print(confirmed, "NotConfirmed")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await publish()
    print("confirmed", (await queue.depth()).ready)
    await queue.stop()

asyncio.run(main())
"""


class Clock:
    """A wall clock that can be set."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


@asynccontextmanager
async def started(queue: SqliteQueue) -> AsyncIterator[SqliteQueue]:
    await queue.start()
    try:
        yield queue
    finally:
        await queue.stop()


@asynccontextmanager
async def process(script: str, *arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process that is killed at the latest when the test ends."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def next_line(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    return (await asyncio.wait_for(child.stdout.readline(), 20)).decode().strip()


async def publish(queue: SqliteQueue, *names: str, body: bytes = b"{}") -> None:
    await asyncio.gather(
        *[queue.publisher().publish(Envelope(body=body, message_id=name), timeout_s=10) for name in names]
    )


async def take(queue: SqliteQueue, count: int, *, within_s: float = 10, dead: bool = False) -> list[Delivery]:
    """Receive ``count`` messages with a new consumer that stays open, or fewer when the time is over."""
    consumer, deadline_s = queue.consumer(prefetch=max(1, count), dead=dead), time.monotonic() + within_s
    deliveries: list[Delivery] = []
    while len(deliveries) < count and time.monotonic() < deadline_s:
        deliveries += await consumer.receive(limit=count, timeout_s=deadline_s - time.monotonic())
    return deliveries


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.envelope.message_id for delivery in deliveries]


async def outcome_of(waiting: Awaitable[None]) -> Exception | None:
    [outcome] = await asyncio.gather(waiting, return_exceptions=True)
    assert outcome is None or isinstance(outcome, Exception)
    return outcome


def sizes(directory: Path) -> dict[str, int]:
    return {entry.name: entry.stat().st_size for entry in directory.iterdir()}


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()
