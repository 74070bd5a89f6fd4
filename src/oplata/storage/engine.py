"""The database: connections that are set up as the promises need them, and transactions over them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import ArgumentError, DisconnectionError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from oplata.errors import Contention, DatabaseUnavailable, SettingsError
from oplata.storage import version
from oplata.storage.faults import mapped
from oplata.storage.listener import hear_notifications, watch_file
from oplata.storage.session import Session, driver_of
from oplata.storage.thread import Connection as Thread
from oplata.storage.thread import set_up
from oplata.storage.unit_of_work import UnitOfWork

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 30
LOCK_TIMEOUT_S = 10
STOP_TIMEOUT_S = 3
MIGRATION_TIMEOUT_S = 3600
"""How long one step of a migration may take: tables may be large."""
MIGRATION_TRIES = 120
MIGRATION_PAUSE_S = 0.5
"""A step whose lock was not granted is tried again so often, with pauses of up to ten times this."""

_POSTGRES_PARAMETERS = frozenset({"host", "port", "ssl", "sslmode", "target_session_attrs"})
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
_POSTGRES_SETTINGS = {
    "application_name": "oplata",
    # A commit that was answered must be on the disk, whatever the server's own default is.
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    # A worker that is stopped in the middle of a transaction may not hold its locks for ever.
    "idle_in_transaction_session_timeout": f"{STATEMENT_TIMEOUT_S}s",
    "timezone": "UTC",
    # Our statements are about some rows of large tables. A plan is kept while a table grows from nothing, and one that
    # reads the whole table was right for its first minute only.
    "enable_seqscan": "off",
    # A table that has to be read whole, for want of an index, is no reason to compile anything.
    "jit": "off",
}


class Database:
    """PostgreSQL (``postgresql://user:password@host/name``) or SQLite (``sqlite:///path``).

    Connections are made when they are first needed, and made anew after they were lost. ``pool_size`` bounds how many
    there are; whoever needs one more waits, at most ``CONNECT_TIMEOUT_S``. ``connect`` makes SQLite's connections in
    place of a thread for each, for a simulation that owns every step.
    """

    def __init__(self, url: str, *, pool_size: int = 5, connect: Callable[..., Awaitable[Any]] | None = None) -> None:
        self._url = parse_url(url)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._pool_size = pool_size
        self._connect = connect
        self._engine: AsyncEngine | None = None
        # SQLite has one writer. Within a process the writers queue here in turn, not in SQLite's sleeping retries.
        self._writer = asyncio.Lock() if self._is_sqlite else contextlib.nullcontext()

    def __repr__(self) -> str:
        return f"Database({self.name})"

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self._url.set(drivername=self._url.get_backend_name()).render_as_string(hide_password=True)

    async def start(self) -> None:
        """Make ready to connect; nothing is connected yet."""
        if self._engine is None:
            with mapped():
                self._engine = (
                    _sqlite_engine(self._url, self._connect)
                    if self._is_sqlite
                    else _postgres_engine(self._url, self._pool_size, isolation_level="AUTOCOMMIT")
                )

    async def stop(self) -> None:
        """Close every connection."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await _dispose(engine)

    @contextlib.asynccontextmanager
    async def unit_of_work(self, *, read_only: bool = False, snapshot: bool = False) -> AsyncIterator[UnitOfWork]:
        """A transaction that is rolled back unless ``commit`` is called on it.

        Raises ``DatabaseUnavailable``. On SQLite a transaction that writes takes the write lock at its start, since
        one that asks for it later can only fail; ``read_only`` leaves it. A ``snapshot`` is read only, and all its
        statements see the tables as they were at the first one; SQLite's readers always do.
        """
        async with (
            self._prepared(read_only=read_only or snapshot) as connection,
            _begun(Session(connection), snapshot=snapshot) as uow,
        ):
            yield uow

    async def transact(self, work: Callable[[UnitOfWork], Coroutine[Any, Any, T]]) -> T:
        """Do some work in a transaction, commit it, and return what it returned. Raises as ``unit_of_work`` does.

        The work waits for nothing but its statements: on SQLite all of it, from the beginning to the commit, is done
        in the thread of the connection, which is cheaper than to hand over each of them.
        """
        async with self._prepared(read_only=False) as connection:
            thread = driver_of(connection)
            if isinstance(thread, Thread):
                return await thread.whole(_transaction(Session(connection, thread), work))
            return await _transaction(Session(connection), work)

    @contextlib.asynccontextmanager
    async def _prepared(self, *, read_only: bool) -> AsyncIterator[AsyncConnection]:
        """A connection on which such a transaction may begin."""
        async with contextlib.AsyncExitStack() as stack:
            if not read_only:
                await stack.enter_async_context(self._writer)
            with mapped():
                connection = await stack.enter_async_context(self._connected())
                if self._is_sqlite:
                    await connection.execution_options(oplata_begin="BEGIN" if read_only else "BEGIN IMMEDIATE")
            yield connection

    async def migrate(self) -> str:
        """Bring the tables to this version; says in a sentence what it did. Safe to run from several places at once."""
        with mapped():
            async with self._connected() as connection:
                found = await connection.run_sync(version.ours)
        if found is not None:
            return version.unchanged(found)
        # Alembic takes a tenth of a second and eight megabytes to import, and there is seldom something to do for it.
        from oplata.storage import schema

        if self._is_sqlite:
            async with self._writer:
                with mapped():
                    async with self._connected() as connection:
                        await connection.execution_options(oplata_begin="BEGIN IMMEDIATE")
                        async with connection.begin():
                            return await connection.run_sync(schema.upgrade)
        return await self._migrate_postgres()

    async def check(self) -> str:
        """Say in a sentence that the database works. Raises ``DatabaseUnavailable`` or ``SchemaError``."""
        with mapped():
            async with self._connected() as connection:
                asked = "sqlite_version()" if self._is_sqlite else "current_setting('server_version')"
                server = (await connection.execute(text(f"SELECT {asked}"))).scalar_one()
                revision = await connection.run_sync(version.ours)
                if revision is None:
                    from oplata.storage import schema  # As in ``migrate``.

                    revision = await connection.run_sync(schema.check)
        return f"{'SQLite' if self._is_sqlite else 'PostgreSQL'} {server} at {self.name}, tables at version {revision}"

    async def probe(self) -> None:
        """Write and commit something that changes nothing. Raises the errors of storage.

        A database may answer and take no writes: a standby, a full disk.
        """
        async with self.unit_of_work() as uow:
            await uow.touch()
            await uow.commit()

    async def listen(self, heard: Callable[[], None]) -> None:
        """Call ``heard`` whenever changes may have been appended, by any process; until cancelled.

        It is called once at the beginning as well, and may be called for nothing. Raises ``DatabaseUnavailable`` when
        it can hear no more. The connection is one of its own, beside the pool.
        """
        if self._is_sqlite:
            await watch_file(str(self._url.database), heard)
            return
        engine = _postgres_engine(self._url, 1)
        try:
            await hear_notifications(engine, heard)
        finally:
            await _dispose(engine)

    async def now_ms(self) -> int:
        """The database server's own clock."""
        asked = (
            "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
            if self._is_sqlite
            else "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
        )
        with mapped():
            async with self._connected() as connection:
                return int((await connection.execute(text(asked))).scalar_one())

    async def _migrate_postgres(self) -> str:
        """One transaction a step, so that no lock is held longer than its step needs it."""
        from oplata.storage import schema  # As in ``migrate``.

        # A step may take far longer than a worker's statement, so it has a connection with a limit of its own.
        engine = _postgres_engine(self._url, 1, command_timeout_s=MIGRATION_TIMEOUT_S)
        try:
            with mapped():
                async with engine.connect() as connection:
                    before = await connection.run_sync(schema.begin)
                    await connection.commit()
                    while await self._step(connection):
                        pass
                    return await connection.run_sync(schema.end, before)
        finally:
            await engine.dispose()

    async def _step(self, connection: AsyncConnection) -> bool:
        """Take one step; True if there may be another. A table that somebody holds is asked for again and again."""
        from oplata.storage import schema  # As in ``migrate``.

        for attempt in range(1, MIGRATION_TRIES + 1):
            try:
                with mapped():
                    return await self._step_once(connection, schema.step)
            except Contention:
                if attempt == MIGRATION_TRIES:
                    raise
                await connection.rollback()
                # Whoever waits behind our request for a lock has its turn now.
                await asyncio.sleep(min(attempt, 10) * MIGRATION_PAUSE_S)
        return False

    @staticmethod
    async def _step_once(connection: AsyncConnection, step: Callable[[Connection], bool]) -> bool:
        more = await connection.run_sync(step)
        await connection.commit()
        return more

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        if self._engine is None:
            raise DatabaseUnavailable("the database was not started, or was stopped")
        opening = self._engine.connect()
        connection = await opening.__aenter__()
        try:
            yield connection
        finally:
            # What was not committed is rolled back, with the connection or without it: a farewell that fails says
            # nothing more, and must not stand in the place of the error that led here.
            with contextlib.suppress(SQLAlchemyError, OSError):
                await opening.__aexit__(None, None, None)


async def _transaction(session: Session, work: Callable[[UnitOfWork], Coroutine[Any, Any, T]]) -> T:
    async with _begun(session) as uow:
        result = await work(uow)
        await uow.commit()
        return result


@contextlib.asynccontextmanager
async def _begun(session: Session, *, snapshot: bool = False) -> AsyncIterator[UnitOfWork]:
    interrupted = False
    try:
        await session.begin(snapshot=snapshot)
        yield UnitOfWork(session)
    except BaseException as error:
        interrupted = not isinstance(error, Exception)
        raise
    finally:
        await session.leave(interrupted=interrupted)


def parse_url(url: str) -> URL:
    """The URL as our drivers want it. Raises ``SettingsError``, which does not repeat the URL: it has a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError("the database URL is not a URL such as postgresql://user:password@host/name") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise SettingsError("the database URL names no file; use sqlite:///oplata.db")
        _refuse_others(parsed, frozenset())
        return parsed.set(drivername="sqlite+aiosqlite")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+asyncpg", query=_postgres_query(parsed))
    raise SettingsError(f"the database URL begins with {backend!r}; use sqlite:/// or postgresql://")


def _postgres_query(url: URL) -> dict[str, str | tuple[str, ...]]:
    """The URL's parameters as asyncpg knows them."""
    _refuse_others(url, _POSTGRES_PARAMETERS)
    query = dict(url.query)
    if "sslmode" in query:  # libpq's name for what asyncpg calls ssl
        query["ssl"] = query.pop("sslmode")
    if query.get("ssl", "prefer") not in _SSL_MODES:
        raise SettingsError(f"the database URL's sslmode is none of {', '.join(sorted(_SSL_MODES))}")
    return query


def _refuse_others(url: URL, known: frozenset[str]) -> None:
    """A driver meets a parameter that it does not know only when it connects, and then with a TypeError."""
    if others := sorted(set(url.query) - known):
        allowed = f"leave it out; known are {', '.join(sorted(known))}" if known else "leave it out"
        raise SettingsError(f"the database URL has the parameter {others[0]!r}, which is not known here: {allowed}")


def _postgres_engine(
    url: URL,
    pool_size: int,
    *,
    command_timeout_s: float = STATEMENT_TIMEOUT_S + 5,
    isolation_level: Literal["READ COMMITTED", "AUTOCOMMIT"] = "READ COMMITTED",
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,  # They are payments, and the text of an exception ends in logs.
        isolation_level=isolation_level,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": command_timeout_s,
            "server_settings": _POSTGRES_SETTINGS,
        },
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def look(connection: Any, _record: object, _proxy: object) -> None:
        driver = connection.driver_connection
        # The driver hears when the server hangs up; whoever takes such a connection next gets a new one.
        if driver.is_closed():
            raise InvalidatePoolError("the server has closed the connection")
        # What was done on it would be committed with whatever comes next. Sessions see to it that there is none.
        if driver.is_in_transaction():
            raise DisconnectionError("the connection is in somebody's transaction")

    return engine


async def _dispose(engine: AsyncEngine) -> None:
    try:
        # A connection that hears nothing is said goodbye to in vain.
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await engine.dispose()
    except TimeoutError:
        await engine.dispose(close=False)


def _sqlite_engine(url: URL, connect: Callable[..., Awaitable[Any]] | None) -> AsyncEngine:
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=4,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        # Called with the driver's arguments, such as the path.
        connect_args={"async_creator_fn": connect or Thread},
        # The one used last has its pages in its cache.
        pool_use_lifo=True,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        set_up(connection, lock_timeout_s=LOCK_TIMEOUT_S)

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("oplata_begin", "BEGIN"))

    return engine
