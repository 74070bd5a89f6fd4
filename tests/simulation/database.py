"""The database's connections, run in the event loop itself, with a place for a fault around every statement."""

from __future__ import annotations

import asyncio
import functools
import random
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import aiosqlite

from oplata.storage.engine import Database
from tests.simulation.loop import Loop, Process
from tests.simulation.power import Platter
from tests.simulation.shopkeeper import TABLE
from tests.simulation.trace import Trace

CURSED = "cursed"
"""In an order's id: no statement that carries it is ever accepted, as when a value breaks a limit of the server."""

_LOCK_PAUSE_S = 0.02


class Server:
    """The database as its clients see it: away, slow, dropping connections, locked by a stranger.

    ``locked_ids`` are orders whose rows somebody else holds, and ``moody_ids`` those with which the driver fails in a
    way that nobody foresaw. ``patience_s`` is for how long a lock is waited for.
    """

    def __init__(self, loop: Loop, rng: random.Random, trace: Trace, path: Path, patience_s: float) -> None:
        self.loop = loop
        self.rng = rng
        self.trace = trace
        self.path = path
        self.patience_s = patience_s
        self.is_away = False
        self.drop_chance = 0.0
        self.slowness = 1.0
        self.locked_ids: set[str] = set()
        self.moody_ids: set[str] = set()
        self.connections: list[Connection] = []
        self.platter = Platter(path)
        self.on_commit: Callable[[], None] = lambda: None
        self.drops = 0
        self.lost_answers = 0
        self.contentions = 0

    def connector(self, process: Process) -> Callable[..., Awaitable[Any]]:
        """What ``Database`` makes its connections with, inside this process."""

        async def connect(path: str, **_: Any) -> Connection:
            await asyncio.sleep(self.latency_s())
            self.refuse_if_away()
            connection = Connection(self, process, sqlite3.connect(path, timeout=0, check_same_thread=False))
            self.connections.append(connection)
            return connection

        return connect

    def latency_s(self) -> float:
        """How long a statement is on its way."""
        return self.rng.expovariate(1 / 0.0008) * self.slowness

    def refuse_if_away(self) -> None:
        """As a server that is not there."""
        if self.is_away or self.loop.is_over:
            raise sqlite3.OperationalError("unable to open database file")

    def drop_all(self) -> None:
        """Every connection is lost, and with it what was not committed."""
        for connection in list(self.connections):
            connection.drop()

    def drop_of(self, process: Process) -> None:
        """The connections of a process that died."""
        for connection in list(self.connections):
            if connection.process is process:
                connection.drop()


class Connection(aiosqlite.Connection):
    """As aiosqlite's, which is what SQLAlchemy expects, but without its thread."""

    def __init__(self, server: Server, process: Process, raw: sqlite3.Connection) -> None:
        # Not the parent's: that one makes a thread.
        self._running = True
        self._connection = raw
        self._iter_chunk_size = 64
        self._tx = _Now()  # type: ignore[assignment]  # All that SQLAlchemy does with it is to put a call into it.
        self.server = server
        self.process = process

    def __del__(self) -> None:
        """Nothing: the parent warns of connections that were not closed, and those of the dead are not."""

    def __await__(self) -> Any:
        return self._itself().__await__()

    async def _itself(self) -> Connection:
        return self

    def stop(self) -> asyncio.Future[Any] | None:
        self.drop()
        return None

    async def close(self) -> None:
        self.drop()

    def drop(self) -> None:
        """Gone; SQLite rolls back what was not committed."""
        raw, self._connection = self._connection, None
        self._running = False
        if raw is not None:
            # A cursor that somebody still holds would keep the transaction alive beyond the close.
            raw.rollback()
            raw.close()
            self.server.connections.remove(self)

    async def _execute(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        name = fn.__name__
        if self._connection is None:
            if name == "close":
                return None
            raise sqlite3.OperationalError("connection closed")
        if name not in ("execute", "commit", "rollback"):
            return fn(*args, **kwargs)
        sql = str(args[0]) if args else name.upper()
        if sql.startswith("PRAGMA busy_timeout"):
            return fn("PRAGMA busy_timeout=0")
        return await self._statement(sql, functools.partial(fn, *args, **kwargs), args[1:])

    async def _statement(self, sql: str, run: Callable[[], Any], parameters: tuple[Any, ...]) -> Any:
        server, is_commit = self.server, sql == "COMMIT"
        await asyncio.sleep(server.latency_s())
        self._lose_maybe("before " + _short(sql))
        _refuse(server, sql, parameters)
        began_s = server.loop.time()
        while True:
            try:
                result = run()
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or server.loop.time() - began_s >= server.patience_s:
                    server.contentions += 1
                    raise
            await asyncio.sleep(_LOCK_PAUSE_S * (1 + server.rng.random()))
            self._lose_maybe("while waiting for the lock")
        if is_commit:
            server.platter.note(self._connection)
            server.trace.note(self.process, "commit")
            server.on_commit()
        if is_commit or server.rng.random() < 0.3:
            await asyncio.sleep(server.latency_s())
        self._lose_maybe("after " + _short(sql), answer=is_commit)
        return result

    def _lose_maybe(self, when: str, *, answer: bool = False) -> None:
        server = self.server
        if self._connection is not None and (server.is_away or server.loop.is_over or self._is_unlucky()):
            server.trace.note(self.process, f"database connection lost {when}")
            server.drops += 1
            server.lost_answers += answer
            self.drop()
        if self._connection is None:
            raise sqlite3.OperationalError("connection closed by the simulation")

    def _is_unlucky(self) -> bool:
        return bool(self.server.drop_chance) and self.server.rng.random() < self.server.drop_chance


class _Now:
    """A queue of calls for a thread that is not there."""

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        future, function = item
        result = function()
        if future is not None:
            future.set_result(result)


def _refuse(server: Server, sql: str, parameters: tuple[Any, ...]) -> None:
    if not parameters:
        return
    if sql.startswith("INSERT INTO events") and CURSED in str(parameters[0]):
        raise sqlite3.IntegrityError("a value breaks a limit of the server")
    text = str(parameters[0])
    if sql.startswith("UPDATE payments") and any(order_id in text for order_id in sorted(server.moody_ids)):
        raise LookupError("a mistake of the driver")
    if sql.startswith("INSERT INTO orders") and any(order_id in text for order_id in sorted(server.locked_ids)):
        server.contentions += 1
        raise sqlite3.OperationalError("database is locked")


def _short(sql: str) -> str:
    return " ".join(sql.split()[:3])


@functools.cache
def template() -> bytes:
    """An empty database with our tables, made once and copied for every run."""

    async def migrate(path: Path) -> None:
        database = Database(f"sqlite:///{path}")
        await database.start()
        await database.migrate()
        await database.stop()

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "template.db"
        asyncio.run(migrate(path))
        with sqlite3.connect(path) as connection:
            connection.execute(TABLE)
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return path.read_bytes()


def rows(connection: sqlite3.Connection, query: str) -> Iterable[Any]:
    """The rows of a query, through a connection that has nothing to do with the program's."""
    return connection.execute(query).fetchall()
