"""The worker dies at every statement and at every await of a batch in turn, is started again, and nothing differs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from oplata.orders.commands import Orders
from oplata.queue.base import Depth
from oplata.queue.envelope import Envelope
from oplata.queue.sqlite import SqliteQueue
from oplata.storage.engine import Database
from tests.contract.dying_worker import NEVER
from tests.databases import (
    ORDER_KOPECKS,
    TABLES,
    Row,
    apply_all,
    assert_log_is_whole,
    callback,
    execute,
    scheme_of,
)

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
KILLED = -9
MOST_POINTS = 400
JOB_TIMEOUT_S = 30.0
POINTS_AT_STATEMENTS = {"postgresql": 15, "sqlite": 29}
"""Two for each statement of the batch, the handler's own among them, and one for the commit."""

FEWEST_AT_AWAITS = 20
EMPTY = Depth(ready=0, unacked=0, retry=0, dead=0)

TOLD = {
    "callbacks": "SELECT digest, body FROM callbacks ORDER BY digest",
    "events": "SELECT digest, kind, payment_id, order_id, status, success, amount_kopecks FROM events ORDER BY digest",
    "payments": "SELECT terminal_key, payment_id, order_id, status, amount_kopecks, review, evidence FROM payments "
    "ORDER BY terminal_key, payment_id",
    "orders": "SELECT order_id, amount_kopecks, status, review, version FROM orders ORDER BY order_id",
    "changes": "SELECT order_id, version, previous_status, status, review, amount_kopecks FROM changes "
    "ORDER BY order_id, version",
    "dead_letters": "SELECT reason, body, times_seen FROM dead_letters ORDER BY fingerprint",
    "shipments": "SELECT order_id FROM shipments ORDER BY order_id",
}

BATCH = (
    callback("CONFIRMED", order_id="paid", payment_id="1"),
    callback("CONFIRMED", order_id="paid", payment_id="1"),
    callback("REFUNDED", 0, order_id="refunded", payment_id="2"),
    callback("CONFIRMED", ORDER_KOPECKS - 1, order_id="short", payment_id="3"),
    callback("CONFIRMED", order_id="unregistered", payment_id="4"),
    callback("RECEIPT", order_id="paid", payment_id="1", Type="Income"),
    callback("NEWS_TO_US", order_id="paid", payment_id="1"),
    callback("CONFIRMED", order_id="paid", payment_id="5").replace(b'"Amount": 19900', b'"Amount": 19901'),
)
"""Paid twice over, refunded, short, unknown, a receipt, a status from the future, and a forgery to be buried."""


class Template:
    """The process that forks a worker for each job."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, database_url: str) -> None:
        self._process = process
        self._folder = folder
        self._database_url = database_url

    def queue_path(self, number: int) -> Path:
        return self._folder / f"queue-{number}.db"

    async def worker(self, queue: int, kind: str, number: int) -> int:
        """Let a worker take a batch; returns its exit status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {"database_url": self._database_url, "queue_path": str(self.queue_path(queue))}
        self._process.stdin.write(json.dumps({**job, "kind": kind, "number": number}).encode() + b"\n")
        await self._process.stdin.drain()
        return int(await asyncio.wait_for(self._process.stdout.readline(), JOB_TIMEOUT_S))


@pytest.fixture
async def template(tmp_path: Path, database_url: str, database: Database) -> AsyncIterator[Template]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.contract.dying_worker",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Template(process, tmp_path, database_url)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), JOB_TIMEOUT_S)


class Tables:
    """One connection past the program's code; a new one for each look would take longer than the look."""

    def __init__(self, url: str, connection: asyncpg.Connection | sqlite3.Connection) -> None:
        self._url = url
        self._connection = connection

    async def run(self, statement: str) -> list[Row]:
        """Run a statement by itself, and return its rows."""
        if isinstance(self._connection, sqlite3.Connection):
            with self._connection as connection:
                return [tuple(row) for row in connection.execute(statement)]
        return [tuple(row) for row in await self._connection.fetch(statement, timeout=30)]

    async def told(self) -> dict[str, list[Row]]:
        """All that they say of what happened, but for times and counts of repeats."""
        if not isinstance(self._connection, sqlite3.Connection):
            await self._until_quiet()
        return {table: await self.run(query) for table, query in TOLD.items()}

    async def _until_quiet(self) -> None:
        """PostgreSQL may be at a COMMIT still when the worker that asked for it is dead."""
        busy = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        for _ in range(1000):
            if await self.run(busy) == [(0,)]:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the database does not come to rest")

    async def empty(self) -> None:
        """Delete every row."""
        for table in (*TABLES, "shipments"):
            await self.run(f"DELETE FROM {table}")  # noqa: S608


@pytest.fixture
async def tables(database_url: str, database: Database) -> AsyncIterator[Tables]:
    await execute(database_url, "CREATE TABLE shipments (order_id varchar NOT NULL)")
    if database_url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(database_url.removeprefix("sqlite:///"), timeout=10)) as file:
            yield Tables(database_url, file)
        return
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        yield Tables(database_url, connection)
    finally:
        await connection.close()


async def begin(database: Database, tables: Tables, queue_path: Path) -> dict[str, list[Row]]:
    """The state in which each worker finds things: some of the story is told, the rest is in the queue."""
    await tables.empty()
    for order_id in ("paid", "refunded", "short"):
        await Orders(database).register(order_id, ORDER_KOPECKS)
    await apply_all(database, callback("AUTHORIZED", order_id="paid"), callback(order_id="refunded", payment_id="2"))
    queue = SqliteQueue(queue_path, retry_delays_ms=[100])
    await queue.start()
    await asyncio.gather(*(queue.publisher().publish(Envelope(body=body), timeout_s=10) for body in BATCH))
    await queue.stop()
    return await tables.told()


async def depth(queue_path: Path) -> Depth:
    queue = SqliteQueue(queue_path, retry_delays_ms=[100])
    await queue.start()
    try:
        return await queue.depth()
    finally:
        await queue.stop()


@pytest.mark.timeout(300)  # Some hundred workers live and die here, and the machine may be busy.
@pytest.mark.parametrize("kind", ["statement", "await"])
async def test_a_worker_that_dies_anywhere_in_a_batch_leaves_no_trace(
    kind: str, template: Template, database: Database, database_url: str, tables: Tables
) -> None:
    before = await begin(database, tables, template.queue_path(0))
    assert await template.worker(0, kind, NEVER) == 0
    after = await tables.told()
    assert before != after
    assert after["shipments"] == [("paid",)]
    assert await depth(template.queue_path(0)) == EMPTY

    landed = set[bool]()
    for number in range(1, MOST_POINTS):
        path = template.queue_path(number)
        assert await begin(database, tables, path) == before
        if await template.worker(number, kind, number) != KILLED:
            break
        found = await tables.told()
        assert found in (before, after), f"half a batch is in the tables, killed at {kind} {number}"
        landed.add(found == after)
        if await depth(path) != EMPTY:
            assert await template.worker(number, kind, NEVER) == 0
        assert await tables.told() == after, f"killed at {kind} {number}"
        assert await depth(path) == EMPTY

    await assert_log_is_whole(database_url)
    if kind == "statement":
        assert number - 1 == POINTS_AT_STATEMENTS[scheme_of(database_url)]
    else:
        assert number > FEWEST_AT_AWAITS
    # It died before the commit, and where it can also die between the commit and the ack, there too.
    assert landed == ({False} if kind == "statement" else {False, True})
