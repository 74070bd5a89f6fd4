"""A transaction whose work waits for nothing but its statements: done in one go where SQLite has a thread for it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from oplata.errors import DatabaseUnavailable, DataRejected
from oplata.orders.commands import Orders
from oplata.storage.engine import Database
from oplata.storage.unit_of_work import UnitOfWork
from oplata.worker.apply import Applied, apply
from tests.databases import NOW_MS, ORDER_KOPECKS, TABLES, Row, callback, counted, opened, select_all, works

pytestmark = pytest.mark.anyio


async def _apply_one(uow: UnitOfWork) -> Applied:
    return await apply(uow, works(callback()), NOW_MS)


async def _everything(url: str) -> dict[str, list[Row]]:
    return {name: sorted(await select_all(url, f"SELECT * FROM {name}"), key=repr) for name in TABLES}  # noqa: S608


async def test_what_was_done_is_committed_and_told(database: Database, database_url: str) -> None:
    await Orders(database).register("order-1", ORDER_KOPECKS)

    applied = await database.transact(_apply_one)

    assert (applied.fresh, [change.status for change in applied.changes]) == (1, ["paid"])
    assert await select_all(database_url, "SELECT status, version FROM orders") == [("paid", 2)]


async def test_what_fails_is_undone_and_raised(database: Database, database_url: str) -> None:
    async def fail(uow: UnitOfWork) -> None:
        await _apply_one(uow)
        raise ZeroDivisionError

    async def refused(uow: UnitOfWork) -> None:
        await _apply_one(uow)
        await uow.keys.used({"\ud800": NOW_MS})

    untouched = await _everything(database_url)
    with pytest.raises(ZeroDivisionError):
        await database.transact(fail)
    with pytest.raises(DataRejected):
        await database.transact(refused)
    assert await _everything(database_url) == untouched

    assert (await database.transact(_apply_one)).fresh == 1


async def test_one_that_is_cancelled_in_any_statement_leaves_nothing_and_blocks_nobody(
    database: Database, database_url: str
) -> None:
    await Orders(database).register("order-1", ORDER_KOPECKS)
    untouched = await _everything(database_url)
    number = 1
    while True:
        task, statements = await asyncio.wait_for(_cancelled_in(database, number), 5)
        if not task.cancelled():
            break
        assert (len(statements), await _everything(database_url)) == (number, untouched)
        number += 1
    assert len(statements) == number - 1
    assert await select_all(database_url, "SELECT status, version FROM orders") == [("paid", 2)]


async def _cancelled_in(database: Database, number: int) -> tuple[asyncio.Task[Applied], list[str]]:
    loop, here = asyncio.get_running_loop(), threading.get_ident()
    task = asyncio.create_task(database.transact(_apply_one))

    def cancel(statements: list[str]) -> None:
        if len(statements) != number:
            return
        if threading.get_ident() == here:
            task.cancel()
        else:
            _called_in(loop, task.cancel)

    with counted(database, cancel) as statements:
        await asyncio.wait({task})
    return task, statements


def _called_in(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Call it in the loop's thread, and return when all that it woke has run."""
    called = threading.Event()
    loop.call_soon_threadsafe(function)
    loop.call_soon_threadsafe(lambda: loop.call_soon(lambda: loop.call_soon(called.set)))
    assert called.wait(5)


async def test_cancelled_twice_it_is_still_waited_for(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/oplata.db") as database:
        await database.migrate()
        begun, goes_on = threading.Event(), threading.Event()

        async def slow(uow: UnitOfWork) -> None:
            begun.set()
            assert goes_on.wait(5)
            await _apply_one(uow)

        task = asyncio.create_task(database.transact(slow))
        assert await asyncio.to_thread(begun.wait, 5)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.05)
            assert not task.done()
        goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await database.transact(_apply_one)).fresh == 1


async def test_on_sqlite_the_event_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "oplata.db"
    async with opened(f"sqlite:///{path}") as database:
        await database.migrate()
        stranger = sqlite3.connect(path, isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")

        task = asyncio.create_task(database.transact(_apply_one))
        await asyncio.sleep(0.2)
        assert not task.done()
        stranger.execute("ROLLBACK")
        stranger.close()

        assert (await task).fresh == 1


async def test_on_sqlite_work_that_waits_for_something_else_is_refused(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/oplata.db") as database:
        await database.migrate()

        async def dawdle(uow: UnitOfWork) -> None:
            await _apply_one(uow)
            await asyncio.sleep(0)

        with pytest.raises(RuntimeError, match="in one go"):
            await database.transact(dawdle)
        assert (await database.transact(_apply_one)).fresh == 1


async def test_a_database_that_was_not_started_is_away() -> None:
    with pytest.raises(DatabaseUnavailable):
        await Database("sqlite:///nowhere.db").transact(_apply_one)
