"""One transaction's connection, and the few words in which PostgreSQL and SQLite differ while it lasts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    CursorResult,
    Executable,
    FromClause,
    Select,
    Table,
    func,
    literal_column,
    select,
    text,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from oplata.errors import Contention, OplataError
from oplata.storage import rows
from oplata.storage.faults import mapped
from oplata.storage.listener import CHANGE_LOG_CHANNEL
from oplata.storage.thread import Connection as Thread

T = TypeVar("T")
S = TypeVar("S", bound=Executable)

ROLLBACK_TIMEOUT_S = 3

_BEGIN = "BEGIN"
_BEGIN_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

CHANGE_LOG_LOCK = 0x6F706C617461
"""The key of the advisory lock that orders the change log: the letters of oplata."""

# One statement for both: whoever holds the lock holds up all others, so each round trip counts.
_HELD = select(
    func.pg_advisory_xact_lock(CHANGE_LOG_LOCK).label("held"), func.pg_notify(CHANGE_LOG_CHANNEL, "").label("told")
)


def built_once(build: Callable[[Any], S]) -> Callable[[Any], S]:
    """A method that builds a statement from its room's session: built once for each database, and used from then on.

    Building one costs as much as running it, and every lone callback runs nine on SQLite.
    """
    built: dict[str, S] = {}

    @wraps(build)
    def statement(room: Any) -> S:
        dialect = room._session.dialect
        if dialect not in built:
            built[dialect] = build(room)
        return built[dialect]

    return statement


def driver_of(connection: AsyncConnection) -> Any:
    """The driver's own connection, without a question to anybody: it is connected."""
    assert connection.sync_connection is not None  # noqa: S101  As long as it is open.
    return connection.sync_connection.connection.driver_connection


class Session:
    """Runs statements inside one transaction, and raises only our own exceptions.

    PostgreSQL's connections are in SQLAlchemy's autocommit mode, which leaves BEGIN, COMMIT and ROLLBACK to us: that is
    one round trip each, by the driver's own hand, and whatever runs in between is in our transaction.

    ``thread`` is given where all of this runs in the thread of SQLite's connection, and nothing has to be waited for.
    """

    def __init__(self, connection: AsyncConnection, thread: Thread | None = None) -> None:
        self._connection = connection
        self._thread = thread
        self._dialect = connection.dialect.name
        self._driver: Any = driver_of(connection) if self._dialect == "postgresql" else None

    @property
    def dialect(self) -> str:
        """Which database it is."""
        return self._dialect

    async def execute(self, statement: Executable, parameters: Mapping[str, object] | None = None) -> CursorResult[Any]:
        """Run one statement. Raises the errors of the storage room."""
        with mapped():
            return await self.run(statement, parameters)

    async def run(self, statement: Executable, parameters: Mapping[str, object] | None = None) -> CursorResult[Any]:
        """As ``execute``, and raises what SQLAlchemy raises."""
        if self._thread is not None:
            self._thread.go_on()
            return self._at_once.execute(statement, parameters)
        return await self._whole(self._connection.execute(statement, parameters))

    async def ask(self, *statement: object) -> Sequence[Any]:
        """Run a statement in PostgreSQL's own words, followed by its values, past SQLAlchemy; and return its rows.

        The driver prepares it once for each connection. Raises the errors of the storage room.
        """
        with mapped():
            return cast(Sequence[Any], await self._driver.fetch(*statement))

    async def begin(self, *, snapshot: bool = False) -> None:
        """Begin the transaction."""
        with mapped():
            if self._thread is not None:
                self._at_once.begin()
            elif self._driver is None:
                await self._whole(self._connection.begin())
            else:
                await self._driver.execute(_BEGIN_SNAPSHOT if snapshot else _BEGIN)

    async def commit(self) -> None:
        """Commit the transaction."""
        with mapped():
            if self._thread is not None:
                self._thread.go_on()
                self._at_once.commit()
            elif self._driver is None:
                await self._whole(self._connection.commit())
            elif (said := await self._driver.execute("COMMIT")) != "COMMIT":
                # That is how PostgreSQL ends one in which a statement has failed.
                raise Contention(f"the database answered COMMIT with {said}")

    async def leave(self, *, interrupted: bool) -> None:
        """Roll back what was not committed; a connection that is in doubt is given up instead. Raises nothing.

        ``interrupted`` is whether a statement may be under way that nobody waits for any more.
        """
        if self._driver is None or self._connection.invalidated or await self._is_over(interrupted=interrupted):
            return
        try:
            with contextlib.suppress(OplataError), mapped():
                await self._connection.invalidate()
        finally:
            self._driver.terminate()

    async def _is_over(self, *, interrupted: bool) -> bool:
        """Whether the connection is in no transaction any more. One that is in doubt must never be lent again."""
        if interrupted or self._driver.is_closed():
            return False
        if not self._driver.is_in_transaction():
            return True
        try:
            with contextlib.suppress(OplataError), mapped():
                await self._driver.execute("ROLLBACK", timeout=ROLLBACK_TIMEOUT_S)
                return True
        except BaseException:
            self._driver.terminate()
            raise
        return False

    @property
    def _at_once(self) -> Connection:
        connection = self._connection.sync_connection
        assert connection is not None  # noqa: S101  It is connected when a session is made of it.
        return connection

    async def _whole(self, step: Awaitable[T]) -> T:
        """Await a step; on SQLite to its end, also when the task is cancelled meanwhile.

        A thread cannot be cancelled: the connection would be given up with its statement half done, and SQLite keeps
        the write lock of such a connection until the garbage collector comes by. Every step there is short.
        """
        if self._dialect == "postgresql":
            return await step
        task = asyncio.ensure_future(step)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # Looked at, or asyncio complains that nobody did.
            raise

    def source(self, columns: Sequence[Column[Any]]) -> FromClause:
        """A batch of rows as a relation."""
        return rows.source(self._dialect, tuple(columns))

    def bind(self, columns: Sequence[Column[Any]], given: Iterable[Sequence[object]]) -> dict[str, object]:
        """The parameters that fill ``source``. Raises ``DataRejected`` for a text that has no UTF-8."""
        with mapped():
            return rows.bind(self._dialect, columns, given)

    def every(self, given: FromClause) -> Select[Any]:
        """All of a relation, to insert from. SQLite needs the WHERE: without it, ON CONFLICT reads as a join's ON."""
        return select(given).where(true()) if self._dialect == "postgresql" else select(given).where(text("true"))

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that knows ON CONFLICT."""
        return postgresql.insert(table) if self._dialect == "postgresql" else sqlite.insert(table)

    def greatest(self, left: ColumnElement[Any], right: ColumnElement[Any]) -> ColumnElement[Any]:
        """The larger of two values."""
        return func.greatest(left, right) if self._dialect == "postgresql" else func.max(left, right)

    def contains(self, whole: ColumnElement[str], part: str) -> ColumnElement[bool]:
        """Whether this text stands in that one, letter by letter. LIKE has its own mind of letters in each database."""
        place = func.strpos(whole, part) if self._dialect == "postgresql" else func.instr(whole, part)
        return place > 0

    def with_change_log(self, given: FromClause) -> Select[Any]:
        """All of a relation, none of which is there before the change log is locked: both in one statement.

        PostgreSQL keeps a function that may wait where it stands, and numbers rows that have come through every join.
        """
        return select(given).join(_HELD.cte("change_log"), true()) if self._dialect == "postgresql" else select(given)

    def clock_ms(self) -> ColumnElement[int]:
        """The database's own clock, which all processes share."""
        if self._dialect == "postgresql":
            return literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)", BigInteger)
        return literal_column("CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)", BigInteger)

    async def lock_change_log(self) -> None:
        """Be the only one to append changes until this transaction ends, and have its commit wake whoever listens.

        SQLite has one writer as it is, and its listeners look at the file.
        """
        if self._dialect == "postgresql":
            await self.execute(_HELD)
