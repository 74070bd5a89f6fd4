"""The file under a SQLite queue: full, locked, deleted, too large, or something else altogether."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random

import pytest

from oplata.errors import NotConfirmed, QueueUnavailable, SchemaError, SettingsError
from oplata.queue.base import Depth
from oplata.queue.envelope import Envelope
from oplata.queue.sqlite import SqliteQueue
from oplata.queue.sqlite.lane import transact
from oplata.queue.sqlite.publishing import to_row
from oplata.queue.sqlite.store import SqliteStore
from tests.contract.sqlite_processes import (
    PUBLISH_INTO_A_LIMIT,
    Clock,
    ids,
    outcome_of,
    process,
    publish,
    query,
    sizes,
    started,
    take,
)

pytestmark = pytest.mark.anyio

FULL = 2
"""SQLite's number for the synchronous mode that syncs every commit."""


# The disk and the file.


async def test_a_full_file_refuses_messages_and_recovers_by_itself(tmp_path: Path) -> None:
    path, body = tmp_path / "queue.db", b"x" * 60_000
    async with started(SqliteQueue(path, max_bytes=1_000_000)) as queue:
        stored = 0
        while stored < 100 and await outcome_of(publish(queue, f"{stored}", body=body)) is None:
            stored += 1
        assert 5 < stored < 20
        with pytest.raises(NotConfirmed, match="no room"):
            await publish(queue, "late", body=body)
        assert (await queue.depth()).ready == stored

        consumer = queue.consumer(prefetch=100)
        await consumer.ack(await consumer.receive(limit=100, timeout_s=5))

        await publish(queue, "again", body=body)
        assert await queue.depth() == Depth(ready=1, unacked=0, retry=0, dead=0)


async def test_publishers_leave_some_disk_free(tmp_path: Path) -> None:
    async with started(SqliteQueue(tmp_path / "queue.db", min_free_bytes=2**62)) as queue:
        with pytest.raises(NotConfirmed, match="no room"):
            await publish(queue, "one")
        assert (await queue.depth()).ready == 0


async def test_a_message_without_room_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "queue.db", delivery_limit=1, lease_ms=1_000, now_ms=Clock(), rng=Random(1))
    store.open().execute("PRAGMA max_page_count = 100")
    bodies = [b"small", b"x" * 600_000, b"small"]
    rows = [to_row(Envelope(body=body)) for body in bodies]

    outcomes, commits = transact(store, [], [partial(SqliteStore.publish, row=row) for row in rows])

    assert ([type(outcome) for outcome in outcomes], commits) == ([type(None), QueueUnavailable, type(None)], 2)
    assert store.depth().ready == 2
    store.leave()


async def test_a_disk_that_refuses_to_write_is_used_again_when_it_writes(tmp_path: Path) -> None:
    async with process(PUBLISH_INTO_A_LIMIT, tmp_path / "queue.db") as child:
        output, _ = await child.communicate()
    confirmed, error, after, ready = output.decode().split()
    assert (int(confirmed) > 5, error, after) == (True, "NotConfirmed", "confirmed")
    # The failed one may or may not be in the queue.
    assert int(ready) - int(confirmed) in (1, 2)


async def test_a_lock_held_by_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path)) as queue:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(NotConfirmed):
                await queue.publisher().publish(Envelope(body=b"{}", message_id="late"), timeout_s=0.3)
            waiting = asyncio.create_task(publish(queue, "patient"))
            await asyncio.sleep(1.5)
            other.execute("ROLLBACK")
            await waiting

        assert "patient" in ids(await take(queue, 2, within_s=0.5))


async def test_a_failed_acknowledgement_is_repeated_until_it_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path)) as queue:
        await publish(queue, "one")
        consumer = queue.consumer(prefetch=1)
        received = await consumer.receive(limit=1, timeout_s=5)
        # A trigger stands for a disk that fails: it makes every deletion an error of the whole transaction.
        query(path, "CREATE TRIGGER broken BEFORE DELETE ON messages BEGIN SELECT json('{'); END")
        await consumer.ack(received)
        assert (await queue.depth()).unacked == 1

        query(path, "DROP TRIGGER broken")

        for _ in range(50):
            await asyncio.sleep(0.1)
            if (await queue.depth()).unacked == 0:
                break
        assert await queue.depth() == Depth(ready=0, unacked=0, retry=0, dead=0)


async def test_a_file_that_was_deleted_is_not_written_into_the_void(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path)) as queue:
        await publish(queue, "before")
        for name in ("queue.db", "queue.db-wal", "queue.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)

        await publish(queue, "after")

        assert query(path, "SELECT message_id FROM messages") == [("after",)]


async def test_twenty_thousand_messages_leave_a_small_file(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path)) as queue:
        consumer = queue.consumer(prefetch=1_000)
        for _ in range(20):
            await publish(queue, *map(str, range(1_000)), body=b"x" * 600)
            await consumer.ack(await consumer.receive(limit=1_000, timeout_s=5))
        assert sum(sizes(tmp_path).values()) < 12_000_000

        # A backlog's pages go back to the disk when nothing happens any more.
        for _ in range(5):
            await publish(queue, *map(str, range(1_000)), body=b"x" * 600)
        for _ in range(5):
            await consumer.ack(await consumer.receive(limit=1_000, timeout_s=5))
        for _ in range(100):
            await asyncio.sleep(0.1)
            if sum(sizes(tmp_path).values()) < 1_200_000:
                break
        assert sum(sizes(tmp_path).values()) < 1_200_000


async def test_a_group_of_publishers_shares_a_commit(tmp_path: Path) -> None:
    async with started(SqliteQueue(tmp_path / "queue.db")) as queue:
        for _ in range(10):
            await publish(queue, *map(str, range(64)))

        assert (await queue.depth()).ready == 640
        assert queue.commits() <= 20


async def test_a_publish_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with started(SqliteQueue(path)) as queue:
        for number in range(5):
            await publish(queue, str(number))
            assert query(path, "SELECT count(*) FROM messages") == [(number + 1,)]
        check = await queue.check()
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    store = SqliteStore(path, delivery_limit=1, lease_ms=1_000, now_ms=Clock(), rng=Random(1))
    assert store.open().execute("PRAGMA synchronous").fetchone() == (FULL,)
    store.leave()
    assert f"{path} (journal mode wal, writable, " in check


# What cannot be a queue.


def not_a_database(path: Path) -> None:
    path.write_bytes(b"This is a shopping list, not a database. " * 100)


def another_programs(path: Path) -> None:
    query(path, "CREATE TABLE shopping (item TEXT)")


def newer(path: Path) -> None:
    query(path, f"PRAGMA application_id = {0x6F706C71}")
    query(path, "PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (not_a_database, SettingsError, "is not a SQLite database; name another file"),
        (another_programs, SettingsError, "another program's SQLite database; name another file"),
        (newer, SchemaError, "version 99 .* update oplata"),
        (Path.mkdir, SettingsError, "is a directory; name a file"),
    ],
)
async def test_a_file_that_is_something_else_is_left_alone(
    tmp_path: Path, make: Callable[[Path], None], error: type[Exception], says: str
) -> None:
    path = tmp_path / "queue.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""

    with pytest.raises(error, match=says):
        await SqliteQueue(path).start()

    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be created"):
        await SqliteQueue(tmp_path / "file" / "queue.db").start()


async def test_a_missing_directory_is_created(tmp_path: Path) -> None:
    async with started(SqliteQueue(tmp_path / "a" / "b" / "queue.db")) as queue:
        await publish(queue, "one")
    assert sizes(tmp_path / "a" / "b").keys() == {"queue.db"}


def test_a_group_waits_for_the_disk_only_when_something_in_it_has_to_last(tmp_path: Path) -> None:
    store = SqliteStore(
        tmp_path / "queue.db", delivery_limit=20, lease_ms=30_000, now_ms=lambda: 1_000_000, rng=Random(1)
    )
    modes: list[object] = []

    def look(seen: SqliteStore) -> None:
        modes.append(seen.open().execute("PRAGMA synchronous").fetchone()[0])

    try:
        transact(store, [], [look], is_synced=False)
        transact(store, [], [look])
    finally:
        store.leave()
    assert [FULL - 1, FULL] == modes
