"""The file under a SQLite queue: how it is opened, laid out, proved and shrunk, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from oplata.errors import DataRejected, OplataError, QueueUnavailable, SchemaError, SettingsError

APPLICATION_ID = 0x6F706C71
"""The letters "oplq" in the file's header, so that no other program's database is taken for a queue."""

SCHEMA_VERSION = 1
BUSY_TIMEOUT_MS = 1_000
WAL_LIMIT_BYTES = 4 * 1024 * 1024
FREE_PAGES_KEPT = 256
FREE_PAGES_RETURNED_AT_ONCE = 2_000

_SCHEMA = (
    """
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        state TEXT NOT NULL CHECK (state IN ('ready', 'retry', 'leased', 'dead', 'dead leased')),
        due_at_ms INTEGER NOT NULL,
        set_at_ms INTEGER NOT NULL,
        seat TEXT,
        leases INTEGER NOT NULL DEFAULT 0,
        deaths INTEGER NOT NULL DEFAULT 0,
        redelivered INTEGER NOT NULL DEFAULT 0,
        dead_reason TEXT NOT NULL DEFAULT '',
        message_id TEXT NOT NULL,
        content_type TEXT NOT NULL,
        headers BLOB NOT NULL,
        body BLOB NOT NULL
    )
    """,
    "CREATE INDEX messages_by_state ON messages (state, due_at_ms)",
    "CREATE INDEX retries_by_set_at ON messages (set_at_ms) WHERE state = 'retry'",
    "CREATE TABLE seats (name TEXT PRIMARY KEY, renewed_at_ms INTEGER NOT NULL, lease_ms INTEGER NOT NULL)",
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, and create it and its directory when they are missing.

    Raises ``SchemaError`` for a file of a newer version, ``SettingsError`` for a file that is something else or
    cannot be there, and ``sqlite3.Error`` or ``OSError`` for what may pass.
    """
    _make_directory(path)
    is_new = not path.exists()
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1_000, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    if is_new:
        # SQLite syncs the directory for its journals, not for the database file itself.
        _sync_directory(path.parent)
    return connection


def inode(path: Path) -> int:
    """Which file is at the path; 0 when there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def rewrite_version(connection: sqlite3.Connection) -> None:
    """Write a page and sync it without changing anything."""
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def shrink(connection: sqlite3.Connection) -> bool:
    """Return some free pages to the disk and empty the write-ahead log, unless another process is in the way.

    True when no more is to be had.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        if connection.execute("PRAGMA freelist_count").fetchone()[0] > FREE_PAGES_KEPT:
            # Each step of this pragma frees one page, and only executescript steps to the end.
            connection.executescript(f"PRAGMA incremental_vacuum({FREE_PAGES_RETURNED_AT_ONCE})")
        is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not is_busy and connection.execute("PRAGMA freelist_count").fetchone()[0] <= FREE_PAGES_KEPT
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")


def used_bytes(connection: sqlite3.Connection) -> int:
    """How much of the file is in use; its free pages are not."""
    pages, free_pages, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free_pages) * page_bytes)


def free_disk_bytes(path: Path) -> int:
    """How much an ordinary user may still write to the file's disk."""
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize


def is_busy(error: Exception) -> bool:
    """Whether another process holds the lock; nothing was written."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: Exception) -> bool:
    """Whether there is no room; the connection stays good."""
    return _code(error) == sqlite3.SQLITE_FULL


def is_about_one_message(error: Exception) -> bool:
    """Whether SQLite refused the values of one statement; the transaction stays good."""
    return isinstance(
        error, sqlite3.DataError | sqlite3.IntegrityError | sqlite3.ProgrammingError | OverflowError | UnicodeError
    )


def to_oplata_error(error: Exception, path: Path) -> OplataError:
    """What a foreign error means to whoever called, in a sentence."""
    if isinstance(error, OplataError):
        return error
    if is_about_one_message(error):
        return DataRejected(f"The SQLite queue {path} refuses the message: {type(error).__name__}.")
    if is_full(error):
        return QueueUnavailable(f"The SQLite queue {path} has no room: the disk is full.")
    if is_busy(error):
        return QueueUnavailable(f"The SQLite queue {path} is locked by another process.")
    return QueueUnavailable(f"The SQLite queue {path} cannot be used now: {error}.")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    try:
        is_laid_out = _is_laid_out(connection, path)
    except sqlite3.DatabaseError as error:
        if _code(error) == sqlite3.SQLITE_NOTADB:
            raise SettingsError(f"{path} is not a SQLite database; name another file for the queue.") from error
        raise
    if not is_laid_out:
        # It has an effect only before anything is written.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    if not is_laid_out:
        _lay_out(connection, path)


def _is_laid_out(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether our tables are there; raises when something else is, before anything was changed in it."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (version, application_id, tables) == (0, 0, 0):
        return False
    if application_id != APPLICATION_ID:
        raise SettingsError(f"{path} is another program's SQLite database; name another file for the queue.")
    if version != SCHEMA_VERSION:
        raise SchemaError(
            f"{path} is a queue of version {version} and this program knows version {SCHEMA_VERSION}; "
            "update oplata, or name another file for the queue."
        )
    return True


def _lay_out(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables. A second process that does the same waits at the first line, and then finds them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _is_laid_out(connection, path):
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            rewrite_version(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make_directory(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise SettingsError(
            f"The directory of the queue's file {path} cannot be created: {error.strerror}; name another file."
        ) from error
    if path.is_dir():
        raise SettingsError(f"{path} is a directory; name a file for the queue.")


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _code(error: Exception) -> int:
    """The primary code: SQLite puts details into the higher bits."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
