"""The disk under the SQLite queue and the spool: slow, or full. Work on a file is done in the event loop itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from oplata.queue.sqlite import SqliteQueue
from tests.simulation.loop import Loop
from tests.simulation.power import Platter

T = TypeVar("T")
_ALL_PAGES = 1_073_741_823


class Disk:
    """``on_write`` is called after each piece of work on a file."""

    def __init__(self, loop: Loop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.is_full = False
        self.slowness = 1.0
        self.failure_chance = 0.0
        self.failures = 0
        self.on_write: Callable[[], None] = lambda: None
        self.files: set[Path] = set()
        self.platters: dict[Path, Platter] = {}

    def latency_s(self) -> float:
        """How long a piece of work waits for the disk."""
        return self.rng.expovariate(1 / 0.001) * self.slowness

    def bodies(self) -> list[bytes]:
        """Every message in every file, read past the program."""
        found: list[bytes] = []
        for path in sorted(self.files):
            if path.exists():
                with sqlite3.connect(path) as connection:
                    found += [row[0] for row in connection.execute("SELECT body FROM messages")]
                connection.close()
        return found

    def add(self, path: Path) -> None:
        """Another file lies on this disk."""
        self.files.add(path)
        self.platters.setdefault(path, Platter(path))


class Inline:
    """A ``Runner`` for one queue object. ``queue`` tells which, since the runner is made before it is opened."""

    def __init__(self, disk: Disk, queue: Callable[[], SqliteQueue]) -> None:
        self._disk = disk
        self._queue = queue

    async def run(self, work: Callable[[], T]) -> T:
        """The work, some time before and some time after; a crash may come at either."""
        await asyncio.sleep(self._disk.latency_s())
        if self._disk.loop.is_over:
            raise OSError("the simulation is over")
        self._set_room()
        failing = self._begin_to_fail()
        try:
            result = work()
        finally:
            self._note_what_is_synced()
            if failing is not None:
                # The program may have closed it over the error.
                with contextlib.suppress(sqlite3.ProgrammingError):
                    failing.set_progress_handler(None, 0)
        self._disk.on_write()
        await asyncio.sleep(self._disk.latency_s())
        return result

    def close(self) -> None:
        """There is no thread to end."""

    def _note_what_is_synced(self) -> None:
        store = self._queue()._store
        self._disk.platters[store.path].note(store._connection)

    def _begin_to_fail(self) -> sqlite3.Connection | None:
        """Now and then some statement of the work breaks off in its middle, as with an error of the disk."""
        disk, connection = self._disk, self._queue()._store._connection
        if connection is None or not disk.failure_chance or disk.rng.random() >= disk.failure_chance:
            return None
        disk.failures += 1
        connection.set_progress_handler(lambda: 1, disk.rng.choice((1, 10, 40, 100)))
        return connection

    def _set_room(self) -> None:
        connection = self._queue()._store._connection
        if connection is not None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0] if self._disk.is_full else _ALL_PAGES
            connection.execute(f"PRAGMA max_page_count = {pages}")
