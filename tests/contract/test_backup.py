"""The drill of docs/guide/backup.md: dump, lose an hour, restore, come back from the archive's copy and the queue."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from oplata.orders.commands import Orders
from oplata.queue.envelope import Envelope
from oplata.queue.sqlite import SqliteQueue
from oplata.reconcile.verify import Range, Verification
from oplata.storage.engine import Database
from oplata.worker.archived import Span
from oplata.worker.loop import Worker
from oplata.worker.replay import Replay
from tests.databases import (
    KEYRING,
    NOW_MS,
    apply_all,
    assert_log_is_whole,
    callback,
    execute,
    select_all,
)
from tests.services.postgres import FOLDER
from tests.services.program import program

pytestmark = pytest.mark.anyio

BEFORE, COPIED, LOST, QUEUED = range(4), range(4, 8), range(8, 10), range(10, 14)
ARCHIVE = "digest, body, content_type, source, first_seen_at_ms, last_seen_at_ms, times_seen, pruned_at_ms"

COPIED_ROWS = f"SELECT {ARCHIVE} FROM copied"  # noqa: S608


def bodies(numbers: Sequence[int]) -> list[bytes]:
    return [callback(order_id=f"order-{number}", payment_id=str(number)) for number in numbers]


async def test_an_hour_is_lost_and_found_again(database: Database, database_url: str, tmp_path: Path) -> None:
    backup = Sqlite(database_url, tmp_path) if database_url.startswith("sqlite") else Postgres(database_url, tmp_path)
    queue = SqliteQueue(tmp_path / "queue.db", retry_delays_ms=[100])
    await queue.start()
    for number in (*BEFORE, *COPIED, *LOST, *QUEUED):
        await Orders(database, now_ms=lambda: NOW_MS).register(f"order-{number}", 19_900)
    await apply_all(database, *bodies(BEFORE))
    await asyncio.to_thread(backup.dump)
    await apply_all(database, *bodies(COPIED), at_ms=NOW_MS + 1)
    await asyncio.to_thread(backup.copy_archive, NOW_MS)
    await apply_all(database, *bodies(LOST), at_ms=NOW_MS + 2)
    for body in bodies(QUEUED):
        await queue.publisher().publish(Envelope(body=body), timeout_s=5)
    await database.stop()

    await backup.lose_everything()
    await asyncio.to_thread(backup.restore)
    await database.start()
    assert await paid(database_url) == {f"order-{number}" for number in BEFORE}
    await asyncio.to_thread(backup.load_archive)
    replayed = await Replay(database, now_ms=lambda: NOW_MS + 5).run(Span(from_ms=NOW_MS), who="drill")
    await work(queue, database, len(QUEUED))

    # What had been applied after the last copy, and was answered OK, is in nothing of ours. The bank's list has it.
    of_the_bank = {f"order-{number}" for number in (*BEFORE, *COPIED, *LOST, *QUEUED)}
    missing = of_the_bank - await paid(database_url)
    assert missing == {f"order-{number}" for number in LOST}
    assert replayed.events_recorded == len(COPIED)
    assert await gaps(database) == []

    for body in bodies(LOST):
        await queue.publisher().publish(Envelope(body=body), timeout_s=5)
    await work(queue, database, len(LOST))
    await queue.stop()

    assert await paid(database_url) == of_the_bank
    assert await gaps(database) == []
    await assert_log_is_whole(database_url)


async def paid(url: str) -> set[str]:
    return {str(row[0]) for row in await select_all(url, "SELECT order_id FROM orders WHERE status = 'paid'")}


async def gaps(database: Database) -> list[str]:
    verification = Verification(database, None, Range())
    await verification.run()
    return [gap.sentence for gap in verification.gaps]


async def work(queue: SqliteQueue, database: Database, count: int) -> None:
    worker = Worker(queue=queue, database=database, keyring=KEYRING, retry_delays_ms=[100])
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        while worker.stats.applied < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    worker.stop()
    await running


class Postgres:
    """The commands of the guide for PostgreSQL."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._dump, self._archive = folder / "oplata.dump", folder / "archive.copy"

    def dump(self) -> None:
        self._run("pg_dump", "--format=custom", f"--file={self._dump}", self._url)

    def copy_archive(self, since_ms: int) -> None:
        query = f"SELECT {ARCHIVE} FROM callbacks WHERE last_seen_at_ms >= {since_ms}"  # noqa: S608
        self._run("psql", self._url, "-c", f"\\copy ({query}) TO '{self._archive}' WITH (FORMAT binary)")

    async def lose_everything(self) -> None:
        await execute(self._url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")

    def restore(self) -> None:
        self._run("pg_restore", "--exit-on-error", "--clean", "--if-exists", f"--dbname={self._url}", str(self._dump))

    def load_archive(self) -> None:
        script = (
            "BEGIN;\nCREATE TEMP TABLE copied (LIKE callbacks) ON COMMIT DROP;\n"
            f"\\copy copied ({ARCHIVE}) FROM '{self._archive}' WITH (FORMAT binary)\n"
            f"INSERT INTO callbacks ({ARCHIVE}) {COPIED_ROWS} ON CONFLICT DO NOTHING;\nCOMMIT;\n"
        )
        self._run("psql", self._url, "-v", "ON_ERROR_STOP=1", said=script)

    def _run(self, name: str, *arguments: str, said: str = "") -> None:
        path = program(name, FOLDER)
        assert path is not None, f"{name} is missing: it belongs to PostgreSQL's client programs"
        done = subprocess.run([path, *arguments], input=said, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


class Sqlite:
    """The same for a file."""

    def __init__(self, url: str, folder: Path) -> None:
        self._file = Path(url.removeprefix("sqlite:///"))
        self._dump, self._archive = folder / "dump.db", folder / "archive.db"

    def dump(self) -> None:
        with closing(sqlite3.connect(self._file)) as connection:
            connection.execute("VACUUM INTO ?", (str(self._dump),))

    def copy_archive(self, since_ms: int) -> None:
        with closing(sqlite3.connect(self._file)) as connection:
            connection.execute("ATTACH ? AS copy", (str(self._archive),))
            query = f"SELECT {ARCHIVE} FROM callbacks WHERE last_seen_at_ms >= {since_ms}"  # noqa: S608
            connection.execute(f"CREATE TABLE copy.callbacks AS {query}")
            connection.commit()

    async def lose_everything(self) -> None:
        for path in self._file.parent.glob(f"{self._file.name}*"):
            path.unlink()

    def restore(self) -> None:
        self._dump.rename(self._file)

    def load_archive(self) -> None:
        with closing(sqlite3.connect(self._file)) as connection:
            connection.execute("ATTACH ? AS copy", (str(self._archive),))
            connection.execute(f"INSERT OR IGNORE INTO callbacks ({ARCHIVE}) SELECT {ARCHIVE} FROM copy.callbacks")  # noqa: S608
            connection.commit()
