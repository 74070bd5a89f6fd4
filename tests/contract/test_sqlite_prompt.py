"""Publishing to the SQLite queue without waiting: each message is told of once, and as durable only when it is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from oplata.errors import QueueUnavailable
from oplata.queue.base import PromptPublisher
from oplata.queue.envelope import Envelope
from oplata.queue.sqlite import SqliteQueue
from tests.contract.prompt import Told
from tests.contract.sqlite_processes import ids, outcome_of, publish, query, started, take

pytestmark = pytest.mark.anyio

TIMEOUT_S = 10.0


def begin(queue: SqliteQueue, name: str, told: Callable[[bool], None], *, timeout_s: float = TIMEOUT_S) -> bool:
    publisher: PromptPublisher = queue.publisher()
    return publisher.begin(Envelope(body=b"{}", message_id=name), told, timeout_s=timeout_s)


async def test_what_is_told_durable_is_there(tmp_path: Path) -> None:
    path, told = tmp_path / "queue.db", Told()
    async with started(SqliteQueue(path)) as queue:
        assert isinstance(queue.publisher(), PromptPublisher)
        for number in range(200):
            assert begin(queue, str(number), told.of(number))
        assert told.outcomes == []
        await told.until(200)

        assert told.outcomes == [(number, True) for number in range(200)]
        assert [row[0] for row in query(path, "SELECT message_id FROM messages ORDER BY id")] == [
            str(number) for number in range(200)
        ]


async def test_what_is_late_is_told_once_and_is_not_written_any_more(tmp_path: Path) -> None:
    path, told = tmp_path / "queue.db", Told()
    async with started(SqliteQueue(path)) as queue:
        await publish(queue, "first")
        with closing(sqlite3.connect(path, isolation_level=None)) as gate:
            gate.execute("BEGIN IMMEDIATE")
            assert begin(queue, "in hand", told.of(1), timeout_s=0.3)
            await asyncio.sleep(0.1)
            assert begin(queue, "in line", told.of(2), timeout_s=0.3)
            await told.until(2)
            assert told.outcomes == [(1, False), (2, False)]
            gate.execute("ROLLBACK")
        await publish(queue, "last")
        assert told.outcomes == [(1, False), (2, False)]
        # The first one was with SQLite by then, and may have come through.
        assert set(ids(await take(queue, 2))) - {"in hand"} <= {"first", "last"}
        assert "in line" not in {row[0] for row in query(path, "SELECT message_id FROM messages")}


async def test_what_cannot_be_begun_is_left_to_publish(tmp_path: Path) -> None:
    told = Told()
    queue = SqliteQueue(tmp_path / "queue.db", max_in_flight=2)
    assert not begin(queue, "not started", told.of(0))
    async with started(queue):
        assert not begin(queue, "\ud800", told.of(0))
        assert [begin(queue, str(number), told.of(number)) for number in range(1, 4)] == [True, True, False]
        await told.until(2)
        assert begin(queue, "4", told.of(4))
        await told.until(3)
    assert not begin(queue, "stopped", told.of(0))
    assert told.outcomes == [(1, True), (2, True), (4, True)]


async def test_a_full_file_is_told_of(tmp_path: Path) -> None:
    told = Told()
    async with started(SqliteQueue(tmp_path / "queue.db", min_free_bytes=2**62)) as queue:
        assert begin(queue, "one", told.of(1))
        assert await told.until(1) == [(1, False)]
        assert queue.available


async def test_what_waits_when_the_queue_is_stopped_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oplata.queue.sqlite.queue.STOP_TIMEOUT_S", 0.5)
    path, told = tmp_path / "queue.db", Told()
    queue = SqliteQueue(path)
    await queue.start()
    await publish(queue, "first")
    with closing(sqlite3.connect(path, isolation_level=None)) as gate:
        gate.execute("BEGIN IMMEDIATE")
        assert begin(queue, "one", told.of(1))
        await queue.stop()
        await told.until(1)
    assert told.outcomes == [(1, False)]
    assert isinstance(await outcome_of(asyncio.create_task(publish(queue, "two"))), QueueUnavailable)
