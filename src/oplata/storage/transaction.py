"""The transaction as a handler of the shop sees it: statements go in and rows come out, and nothing here ends it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from oplata.errors import Contention, DataRejected, OplataError
from oplata.storage.session import Session

MAX_ROWS = 10_000
"""A statement that returns more fails: a handler is about one order."""

_STATEMENTS = frozenset(
    {"select", "insert", "update", "delete", "with", "merge", "replace", "values", "call", "notify"}
)
_LEADING = re.compile(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)
_AGAIN = frozenset({"40001", "40P01"})
"""A serialization failure and a deadlock: the same batch, tried again at once, is likely to go through."""


class Transaction:
    """The worker's transaction, for the time that a handler runs. What is written here is committed with the event.

    There is no commit, rollback or savepoint: a handler that returns agrees, and one that raises refuses. A statement
    that fails has spoiled the transaction, so the handler fails with it, also when it catches the error.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn = asyncio.Lock()  # One connection runs one statement at a time.
        self._failure: OplataError | None = None
        self._over = False

    async def execute(self, sql: str, /, **parameters: object) -> list[dict[str, Any]]:
        """Run one statement, its values given by name, and return its rows, each by the names of its columns.

        ``await tx.execute("INSERT INTO shipments (order_id) VALUES (:order_id)", order_id=change.order_id)``. What the
        database refuses raises; the sentence says of which kind the fault is, and never repeats a value.
        """
        async with self._turn:
            if self._over:
                raise DataRejected(
                    "the handler is over, and with it its transaction: await every execute in the handler"
                )
            if self._failure is not None:
                raise self._failure
            try:
                return await self._execute(sql, parameters)
            except OplataError as error:
                self._failure = error
                raise
            except asyncio.CancelledError:
                self._failure = DataRejected("a handler's statement was cancelled before it was answered")
                raise

    async def _execute(self, sql: str, parameters: dict[str, object]) -> list[dict[str, Any]]:
        if _first_word(sql) not in _STATEMENTS:
            raise DataRejected(
                "a handler may run SELECT, INSERT, UPDATE, DELETE and the like; tables are made beforehand, and the "
                "worker begins and ends the transaction"
            )
        try:
            result = await self._session.run(text(sql), parameters)
            rows = result.mappings().fetchmany(MAX_ROWS + 1) if result.returns_rows else []
        except (SQLAlchemyError, OSError, ValueError, OverflowError) as error:
            raise _told(error) from error
        if len(rows) > MAX_ROWS:
            raise DataRejected(f"a handler's statement returned more than {MAX_ROWS} rows: ask for fewer")
        return [dict(row) for row in rows]


@asynccontextmanager
async def lent(session: Session) -> AsyncIterator[Transaction]:
    """A ``Transaction`` that works until the block ends. Raises what a statement failed with, even if it was caught."""
    transaction = Transaction(session)
    try:
        yield transaction
        async with transaction._turn:  # A statement that nobody awaited is on the connection still.
            transaction._over = True
        if transaction._failure is not None:
            raise transaction._failure
    finally:
        transaction._over = True


def _first_word(sql: str) -> str:
    leading = _LEADING.match(sql)
    word = re.match(r"\w+", sql[leading.end() if leading else 0 :])
    return word[0].lower() if word else ""


def _told(error: Exception) -> OplataError:
    """The fault as one of ours. Its kind and its state are told; the database's own words may repeat a value."""
    original = getattr(error, "orig", None) or error
    inner = original.__cause__ or original
    state = getattr(original, "sqlstate", None) or getattr(inner, "sqlstate", None)
    shown = f"{type(inner).__name__} ({state})" if state else type(inner).__name__
    if state in _AGAIN:
        return Contention(f"a handler's statement gave way to another transaction: {shown}")
    return DataRejected(f"a handler's statement failed: {shown}")
