"""Both databases for the contract, callbacks to apply to them, and what lies in their tables, read past our code."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import asyncpg
import pytest
from sqlalchemy import event

from oplata.bank.keyring import Keyring
from oplata.queue.envelope import Delivery, Envelope, HeaderValue
from oplata.storage.engine import Database
from oplata.storage.session import Session
from oplata.storage.unit_of_work import UnitOfWork
from oplata.worker.apply import Applied, apply
from oplata.worker.batch import Work, read
from tests.notifications import PASSWORD, TERMINAL_KEY, signed_by_hand

KEYRING = Keyring({TERMINAL_KEY: [PASSWORD]})
NOW_MS = 1_760_000_000_000
ORDER_KOPECKS = 19_900
TABLES = ("callbacks", "events", "payments", "orders", "changes", "dead_letters", "words", "rollups", "canaries")

Row = tuple[object, ...]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'oplata.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with our tables."""
    async with opened(database_url) as database:
        await database.migrate()
        yield database


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A ``Database`` of its own, with connections of its own."""
    database = Database(url)
    await database.start()
    try:
        yield database
    finally:
        await database.stop()


def callback(
    status: str = "CONFIRMED",
    amount_kopecks: int | None = ORDER_KOPECKS,
    *,
    order_id: str = "order-1",
    payment_id: str = "1",
    success: bool = True,
    **more: object,
) -> bytes:
    """The body of a signed notification about a payment."""
    fields: dict[str, object] = {"TerminalKey": TERMINAL_KEY, "OrderId": order_id, "PaymentId": payment_id}
    fields |= {"Status": status, "Success": success, "Amount": amount_kopecks, "ErrorCode": "0"}
    return signed_by_hand(fields | more)


def works(*bodies: bytes, headers: dict[str, HeaderValue] | None = None, at_ms: int = NOW_MS) -> Sequence[Work]:
    """These bodies as the worker's batch has them. All of them are genuine."""
    batch = read([Delivery(envelope=Envelope(body=body, headers=headers or {})) for body in bodies], KEYRING, at_ms)
    assert not batch.poison
    return batch.works


async def apply_all(
    database: Database, *bodies: bytes, headers: dict[str, HeaderValue] | None = None, at_ms: int = NOW_MS
) -> Applied:
    """Apply these callbacks in one transaction."""
    async with database.unit_of_work() as uow:
        applied = await apply(uow, works(*bodies, headers=headers, at_ms=at_ms), at_ms)
        await uow.commit()
    return applied


@contextlib.contextmanager
def counted(database: Database, look: Callable[[list[str]], None] = lambda _statements: None) -> Iterator[list[str]]:
    """The statements that go to the database meanwhile; ``look`` is called with them before each goes."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        statements.append(statement)
        look(statements)

    ask = Session.ask

    async def noted(session: Session, *statement: object) -> Sequence[object]:
        note(None, None, str(statement[0]))
        return await ask(session, *statement)

    assert database._engine is not None
    event.listen(database._engine.sync_engine, "before_cursor_execute", note)
    try:
        with patch.object(Session, "ask", noted):  # These go past SQLAlchemy and its events.
            yield statements
    finally:
        event.remove(database._engine.sync_engine, "before_cursor_execute", note)


def scheme_of(url: str) -> str:
    """Which database it is."""
    return url.partition(":")[0]


def without_begin(statements: Sequence[str]) -> list[str]:
    """These statements, but for BEGIN, which SQLite is told in so many words and PostgreSQL is not."""
    return [statement for statement in statements if not statement.startswith("BEGIN")]


async def select_all(url: str, query: str) -> list[Row]:
    """The rows of a query, through a connection that has nothing to do with the program's."""
    if url.startswith("sqlite"):
        return await asyncio.to_thread(_select_from_sqlite, url, query)
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return [tuple(row) for row in await connection.fetch(query, timeout=30)]
    finally:
        await connection.close()


async def execute(url: str, *statements: str) -> None:
    """Change a database behind the program's back."""
    if url.startswith("sqlite"):
        await asyncio.to_thread(_execute_in_sqlite, url, statements)
        return
    connection = await asyncpg.connect(url, timeout=10)
    try:
        for statement in statements:
            await connection.execute(statement, timeout=30)
    finally:
        await connection.close()


async def empty(url: str) -> None:
    """Delete every row, for the next example of a property."""
    await execute(url, *(f"DELETE FROM {table}" for table in TABLES))  # noqa: S608


async def stored(url: str) -> dict[str, list[Row]]:
    """What the tables say, but for times and for what depends on the way there: the counts of repeats and changes."""
    queries = {
        "callbacks": "SELECT digest, body FROM callbacks ORDER BY digest",
        "events": "SELECT digest, kind, terminal_key, payment_id, order_id, status, success, amount_kopecks, details "
        "FROM events ORDER BY digest",
        "payments": "SELECT terminal_key, payment_id, order_id, status, amount_kopecks, review, evidence "
        "FROM payments ORDER BY terminal_key, payment_id",
        "orders": "SELECT order_id, amount_kopecks, status, review FROM orders ORDER BY order_id",
    }
    return {table: await select_all(url, query) for table, query in queries.items()}


async def assert_log_is_whole(url: str) -> None:
    """Each order's changes are numbered 1, 2, 3…, chain from status to status, and end in what the order is now."""
    told = await select_all(
        url, "SELECT order_id, version, previous_status, status, review, amount_kopecks FROM changes ORDER BY id"
    )
    last: dict[object, Row] = {}
    for order_id, version, previous, status, review, amount in told:
        before = last.get(order_id, (0, None))
        assert (version, previous) == (int(str(before[0])) + 1, before[1])
        last[order_id] = (version, status, review, amount)
    orders = await select_all(url, "SELECT order_id, version, status, review, amount_kopecks FROM orders")
    assert last == {order_id: tuple(state) for order_id, *state in orders if state[0] != 0}
    assert all(state[1:] == ["unregistered", None, None] for _, *state in orders if state[0] == 0)


class Gate:
    """Stops a transaction before one of its steps, until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    def stand_before(self, uow: UnitOfWork, step: str) -> None:
        """``step`` is such as ``orders.lock``, or ``commit``."""
        part, _, name = step.rpartition(".")
        owner = getattr(uow, part) if part else uow
        whole = getattr(owner, name)

        async def gated(*args: object, **kwargs: object) -> object:
            self.reached.set()
            await self.opened.wait()
            return await whole(*args, **kwargs)

        setattr(owner, name, gated)


@contextlib.contextmanager
def _sqlite(url: str) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)) as connection:
        yield connection


def _select_from_sqlite(url: str, query: str) -> list[Row]:
    with _sqlite(url) as connection:
        return [tuple(row) for row in connection.execute(query)]


def _execute_in_sqlite(url: str, statements: Sequence[str]) -> None:
    with _sqlite(url) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
