"""Being told that the change log has grown: by PostgreSQL's NOTIFY, or by a look at SQLite's file.

This only wakes a reader who would look by himself a little later. What is missed here is late, and never lost.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncEngine

from oplata.errors import DatabaseUnavailable
from oplata.storage.faults import mapped

CHANGE_LOG_CHANNEL = "oplata_changes"
"""What PostgreSQL calls this on LISTEN and NOTIFY. Channels belong to one database of the server."""

PROBE_S = 15.0
PROBE_TIMEOUT_S = 5.0
"""A connection on which nothing arrives looks like one whose other end is gone, so it is asked now and then."""

LOOK_S = 0.02
SYNC_S = 0.4
"""How long a disk may take to sync a commit. One that is slower is found when the reader looks by himself."""


async def hear_notifications(engine: AsyncEngine, heard: Callable[[], None]) -> None:
    """Call ``heard`` for each commit that appended changes. Raises ``DatabaseUnavailable`` when the connection ends."""
    lost = asyncio.Event()

    def on_lost(_connection: object) -> None:
        lost.set()

    def on_notification(*_told: object) -> None:
        heard()

    with mapped():
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None  # noqa: S101  It was connected just now.
            driver.add_termination_listener(on_lost)
            await driver.add_listener(CHANGE_LOG_CHANNEL, on_notification)
            heard()  # What was committed before this moment was told to nobody.
            while not await _within(lost, PROBE_S):
                await driver.fetchval("SELECT 1", timeout=PROBE_TIMEOUT_S)
            raise DatabaseUnavailable("the connection that listens for changes was lost")


async def watch_file(path: str, heard: Callable[[], None]) -> None:
    """Call ``heard`` when SQLite's log beside the file has been written to, by whichever process, and for a while more.

    A commit is written first, synced then, and can be read only after that.
    """
    log, seen, looks = f"{path}-wal", None, 1
    while True:
        now = _mark(log)
        if now != seen:
            seen, looks = now, round(SYNC_S / LOOK_S)
        if looks:
            looks -= 1
            heard()
        await asyncio.sleep(LOOK_S)


def _mark(path: str) -> tuple[int, int, int] | None:
    """Changes with each write; None where there is no such file."""
    try:
        told = os.stat(path)  # noqa: PTH116  Fifty times a second; it never waits for a disk.
    except OSError:
        return None
    return told.st_ino, told.st_size, told.st_mtime_ns


async def _within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
