"""SQLite's connection: it lives in a thread, and each hand-over to that takes as much work with it as it can.

aiosqlite hands over four times for a statement: for the cursor, the statement, its rows and the cursor's end. Here a
statement is one hand-over, and so is a whole transaction whose work waits for nothing else.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine, Sequence
from contextvars import copy_context
from threading import get_ident
from typing import Any, TypeVar

import aiosqlite
from sqlalchemy.util import await_only, greenlet_spawn

T = TypeVar("T")

WAL_TRIES = 100

_CHUNK = 64
_PRAGMAS = (
    "synchronous=FULL",
    # A batch of 500 touches 2,000 pages of 4 KiB. With SQLite's own 500 in the cache most are read and written twice,
    # and with its own 1,000 in the log each commit copies all of them into the file and syncs that too.
    "cache_size=-3000",
    "wal_autocheckpoint=4000",
)


class Cursor:
    """What SQLAlchemy asks of a cursor. The rows are at hand when the statement has run."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Cursor:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement, and take all of its rows."""
        self._keep(await self._connection._execute(self._connection.execute_whole, sql, parameters))

    async def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of these."""
        self._keep(await self._connection._execute(self._connection.execute_many, sql, parameters))

    async def fetchall(self) -> list[Any]:
        """The rows of the last statement."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """The cursor below ended with its statement."""

    def _keep(self, told: tuple[list[Any], Any, int, int | None]) -> None:
        self._rows, self.description, self.rowcount, self.lastrowid = told


class Connection(aiosqlite.Connection):
    """As aiosqlite's. ``whole`` does more than one statement at a time."""

    def __init__(self, path: str, **arguments: Any) -> None:
        super().__init__(lambda: sqlite3.connect(path, **arguments), _CHUNK)
        self._thread.daemon = True
        self._given_up = False

    def cursor(self) -> Cursor:  # type: ignore[override]  # SQLAlchemy only enters it.
        """A cursor; nothing is handed over for it."""
        return Cursor(self)

    def execute_whole(self, sql: str, parameters: Sequence[Any]) -> tuple[list[Any], Any, int, int | None]:
        """In the thread: run one statement, and tell its rows, what they are, how many it wrote, and the last one."""
        cursor = self._conn.execute(sql, parameters)
        rows = cursor.fetchall() if cursor.description else []
        return rows, cursor.description, cursor.rowcount, cursor.lastrowid

    def execute_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> tuple[list[Any], Any, int, int | None]:
        """As ``execute_whole``, for each of these; there are no rows."""
        cursor = self._conn.executemany(sql, parameters)
        return [], None, cursor.rowcount, cursor.lastrowid

    async def rollback(self) -> None:
        """Roll back what is begun; where nothing is, there is nothing to be handed over for."""
        if self._connection is not None and self._connection.in_transaction:
            await self._execute(self._connection.rollback)

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Do this in the thread from its beginning to its end. It waits for nothing but this connection's statements.

        When the caller is cancelled the work ends at its next statement, and is waited for until then.
        """
        doing = asyncio.ensure_future(self._execute(copy_context().run, _driven, greenlet_spawn(_driven, work)))
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            self._given_up = True
            while not doing.done():
                try:
                    await asyncio.wait({doing})
                except asyncio.CancelledError:
                    continue
            if not doing.cancelled():
                doing.exception()  # Looked at, or asyncio complains that nobody did.
            raise
        finally:
            self._given_up = False

    def go_on(self) -> None:
        """In the thread, before each step of a whole: raises ``CancelledError`` when nobody wants it any more."""
        if self._given_up:
            raise asyncio.CancelledError

    async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        if get_ident() == self._thread.ident:
            if self._connection is None:
                raise ValueError("Connection closed")  # In aiosqlite's words, which SQLAlchemy knows.
            return fn(*args, **kwargs)
        return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]


def set_up(connection: Any, *, lock_timeout_s: int) -> None:
    """Make a new connection, as SQLAlchemy has it, one that keeps our promises."""
    # The driver would begin transactions of its own, too late for us: the engine does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={lock_timeout_s * 1000}", *_PRAGMAS):
        cursor.execute(f"PRAGMA {pragma}")
    _write_ahead(cursor, lock_timeout_s)
    cursor.close()


def _write_ahead(cursor: Any, lock_timeout_s: int) -> None:
    """Have the file in WAL mode. The change of mode, once in a file's life, does not wait for others by itself."""
    for _ in range(WAL_TRIES):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            await_only(asyncio.sleep(lock_timeout_s / WAL_TRIES))
        else:
            return
    cursor.execute("PRAGMA journal_mode=WAL")


def _driven(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    work.close()
    raise RuntimeError("a transaction that is done in one go waited for something that is none of its statements")
