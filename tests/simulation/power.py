"""What of a SQLite file would still be there after a loss of power: all that was synced, and any part of the rest.

In WAL mode a commit is a run of frames at the end of the log, and a recovery keeps the commits up to the first frame
that is damaged. So what may be lost is an end of the log: everything behind the last commit that was synced. What a
checkpoint moved into the file itself was synced before, as long as SQLite was asked to sync anything at all.
"""

from __future__ import annotations

import random
import sqlite3
import struct
from pathlib import Path

_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_FULL = 2


class Platter:
    """Follows one file. ``note`` is called after each piece of work on it, ``fail`` when the power does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._generation = b""
        self._synced = 0
        self._unsynced: list[int] = []
        self._image: tuple[bytes, bytes] | None = None

    def note(self, connection: sqlite3.Connection | None) -> None:
        """What was committed since the last time was synced, or not, as this connection is set up."""
        before = len(self._unsynced)
        self._read_log()
        if len(self._unsynced) > before and connection is not None and _waits_for_the_disk(connection):
            self._synced, self._unsynced = self._unsynced[-1], []

    def fail(self, rng: random.Random) -> int:
        """The power fails now; returns how many commits are lost. ``restore`` is called when nobody has it open."""
        self._read_log()
        if not self._path.exists():
            return 0
        ends = [self._synced, *self._unsynced]
        kept = rng.randrange(len(ends))
        log = self._log.read_bytes()[: ends[kept]] if self._log.exists() else b""
        self._image = self._path.read_bytes(), log
        return len(ends) - 1 - kept

    def restore(self) -> None:
        """Put the file back as the disk has it."""
        if self._image is None:
            return
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        content, log = self._image
        self._image = None
        self._path.write_bytes(content)
        if log:
            self._log.write_bytes(log)
        self._generation, self._synced, self._unsynced = log[16:24], len(log), []

    def _read_log(self) -> None:
        """Find the ends of the commits that have been added. A log that begins anew was synced before it did."""
        if not self._log.exists():
            self._generation, self._synced, self._unsynced = b"", 0, []
            return
        with self._log.open("rb") as log:
            header = log.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES:
                self._generation, self._synced, self._unsynced = b"", 0, []
                return
            (page_bytes,) = struct.unpack(">I", header[8:12])
            if header[16:24] != self._generation:
                self._generation, self._synced, self._unsynced = header[16:24], _HEADER_BYTES, []
            at = self._unsynced[-1] if self._unsynced else self._synced
            while True:
                log.seek(at)
                frame = log.read(_FRAME_HEADER_BYTES)
                if len(frame) < _FRAME_HEADER_BYTES or frame[8:16] != self._generation:
                    return
                at += _FRAME_HEADER_BYTES + page_bytes
                if frame[4:8] != b"\0\0\0\0":
                    self._unsynced.append(at)


def _waits_for_the_disk(connection: sqlite3.Connection) -> bool:
    return int(connection.execute("PRAGMA synchronous").fetchone()[0]) >= _FULL
