"""Who is alive beside a SQLite queue: one locked file per process that takes messages.

A lease alone notices a killed worker only when it runs out. The kernel knows at once: it drops the lock of a process
that died, however it died. So each queue object that takes messages sits on a file of its own beside the database and
holds its lock; whoever finds the file without a lock, or no file at all, may take the messages back.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from random import Random

SEATS_TRIED = 20


class Seat:
    """A locked file beside the database. It must be taken after a fork: a child would share the lock."""

    def __init__(self, name: str, path: Path, descriptor: int) -> None:
        self.name = name
        self._path = path
        self._descriptor = descriptor

    def leave(self) -> None:
        """Give the seat up; whoever looks finds it empty."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def abandon(self) -> None:
        """Drop the lock and leave the file behind, as a killed process would."""
        os.close(self._descriptor)


def take_seat(database: Path, rng: Random) -> Seat:
    """Create and lock a file that nobody else has. Raises ``OSError``."""
    for _ in range(SEATS_TRIED):
        name = f"{rng.getrandbits(64):016x}"
        path = _seat_path(database, name)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        if _lock(descriptor, fcntl.LOCK_EX) and _is_same_file(path, descriptor):
            return Seat(name, path, descriptor)
        # Somebody who sweeps empty seats was between our open and our lock.
        os.close(descriptor)
    raise OSError(f"none of {SEATS_TRIED} seats beside {database} could be locked")


def is_taken(database: Path, name: str) -> bool:
    """Whether the process that took this seat still runs."""
    try:
        descriptor = os.open(_seat_path(database, name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def sweep_seats(database: Path) -> None:
    """Remove the files of seats that nobody holds."""
    prefix = _seat_path(database, "").name
    for path in [path for path in database.parent.iterdir() if path.name.startswith(prefix)]:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if _lock(descriptor, fcntl.LOCK_SH):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _seat_path(database: Path, name: str) -> Path:
    return database.with_name(f"{database.name}-seat-{name}")


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
