"""Transactions that meet at the same payments and orders wait for one another: none deadlocks, none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oplata.errors import Contention
from oplata.orders.commands import Orders
from oplata.storage.engine import Database
from oplata.worker.apply import apply
from tests.databases import (
    NOW_MS,
    ORDER_KOPECKS,
    Gate,
    apply_all,
    assert_log_is_whole,
    callback,
    execute,
    opened,
    select_all,
    stored,
    works,
)

pytestmark = pytest.mark.anyio

STEPS = ["intake.take", "orders.lock", "grounds.of_orders", "telling.tell", "commit"]
REGISTRATION_STEPS = ["orders.lock", "orders.register", "grounds.of_orders", "telling.tell", "commit"]
BLOCKED_S = 0.15


def _callbacks() -> list[bytes]:
    """Thirty payments of ten orders, three callbacks each; some orders end in review."""
    told = itertools.product(["AUTHORIZED", "CONFIRMED", "REFUNDED"], range(30))
    return [
        callback(status, ORDER_KOPECKS + number // 25, payment_id=str(number), order_id=f"order-{number % 10}")
        for status, number in told
        if status != "REFUNDED" or number % 3 == 0
    ]


async def _apply_until_done(database: Database, bodies: list[bytes]) -> int:
    """Apply as a worker does; returns how often another transaction was in the way."""
    for contentions in range(50):
        with contextlib.suppress(Contention):
            await apply_all(database, *bodies)
            return contentions
    raise AssertionError("50 times in a row another transaction was in the way")


async def _work(url: str, seed: int) -> int:
    """Apply every callback, in an order and in batches of its own, and register every order on the way."""
    rng = random.Random(seed)
    bodies = [*_callbacks(), *rng.sample(_callbacks(), 20)]
    rng.shuffle(bodies)
    numbers = rng.sample(range(10), 10)
    contentions = 0
    async with opened(url) as database:
        orders = Orders(database)
        for start in range(0, len(bodies), 12):
            contentions += await _apply_until_done(database, bodies[start : start + 12])
            if numbers:
                await orders.register(f"order-{numbers.pop()}", ORDER_KOPECKS)
        for number in numbers:
            await orders.register(f"order-{number}", ORDER_KOPECKS)
    return contentions


async def _in_sequence(url: str) -> dict[str, list[tuple[object, ...]]]:
    async with opened(url) as database:
        await database.migrate()
        for number in range(10):
            await Orders(database).register(f"order-{number}", ORDER_KOPECKS)
        await apply_all(database, *_callbacks())
    return await stored(url)


async def test_workers_with_overlapping_batches_end_where_one_alone_would(database_url: str, tmp_path: Path) -> None:
    alone = await _in_sequence(database_url)
    await execute(database_url, *(f"DELETE FROM {table}" for table in [*alone, "changes"]))  # noqa: S608
    contentions = await asyncio.gather(*(_work(database_url, seed) for seed in range(5)))
    assert await stored(database_url) == alone
    await assert_log_is_whole(database_url)
    # SQLite's writers of other connections wait as well; neither database may give one of them up.
    assert sum(contentions) == 0
    assert await select_all(database_url, "SELECT sum(times_seen) FROM callbacks") == [(5 * (len(_callbacks()) + 20),)]


_PROGRAM = """
import asyncio, json, sys
from tests.contract.test_storage_concurrency import _work
print(json.dumps(asyncio.run(_work(sys.argv[1], int(sys.argv[2])))))
"""


async def test_two_processes_with_overlapping_batches_end_where_one_alone_would(database_url: str) -> None:
    alone = await _in_sequence(database_url)
    await execute(database_url, *(f"DELETE FROM {table}" for table in [*alone, "changes"]))  # noqa: S608

    def run(seed: int) -> int:
        command = [sys.executable, "-c", _PROGRAM, database_url, str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout))

    contentions = await asyncio.gather(*(asyncio.to_thread(run, seed) for seed in (11, 12)))
    assert await stored(database_url) == alone
    await assert_log_is_whole(database_url)
    assert contentions == [0, 0]


async def _settled_or_blocked(task: asyncio.Task[object]) -> None:
    await asyncio.wait({task}, timeout=BLOCKED_S)


async def _callback_that_stands_before(url: str, step: str, gate: Gate) -> None:
    async with opened(url) as database, database.unit_of_work() as uow:
        gate.stand_before(uow, step)
        await apply(uow, works(callback()), NOW_MS)
        await uow.commit()


async def _register(url: str) -> None:
    async with opened(url) as database:
        await Orders(database).register("order-1", ORDER_KOPECKS)


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_registration_at_any_moment_of_a_callback_ends_in_a_paid_order(
    database: Database, database_url: str, step: str, known: bool
) -> None:
    if known:  # Then its row is there, and nothing but the lock on it makes one wait for the other.
        await apply_all(database, callback("AUTHORIZED"))
    gate = Gate()
    callback_task = asyncio.create_task(_callback_that_stands_before(database_url, step, gate))
    reached = asyncio.create_task(gate.reached.wait())
    # A callback of an unregistered order changes nothing, so it has no change to save or tell.
    await asyncio.wait({callback_task, reached}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    reached.cancel()
    registration = asyncio.create_task(_register(database_url))
    await _settled_or_blocked(registration)
    gate.opened.set()
    await asyncio.gather(callback_task, registration)
    assert await select_all(database_url, "SELECT status, amount_kopecks FROM orders") == [("paid", ORDER_KOPECKS)]
    await assert_log_is_whole(database_url)


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
@pytest.mark.parametrize("step", REGISTRATION_STEPS)
async def test_a_callback_at_any_moment_of_a_registration_ends_in_a_paid_order(
    database_url: str, step: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    async with opened(database_url) as database, opened(database_url) as other:
        await database.migrate()
        if known:
            await apply_all(database, callback("AUTHORIZED"))
        begin = other.unit_of_work

        @contextlib.asynccontextmanager
        async def gated_unit_of_work():  # type: ignore[no-untyped-def]  # It stands in for a typed one.
            async with begin() as uow:
                gate.stand_before(uow, step)
                yield uow

        monkeypatch.setattr(other, "unit_of_work", gated_unit_of_work)
        registration = asyncio.create_task(Orders(other).register("order-1", ORDER_KOPECKS))
        await asyncio.wait_for(gate.reached.wait(), 30)
        callback_task = asyncio.create_task(apply_all(database, callback()))
        await _settled_or_blocked(callback_task)
        gate.opened.set()
        await asyncio.gather(callback_task, registration)
    assert await select_all(database_url, "SELECT status, amount_kopecks FROM orders") == [("paid", ORDER_KOPECKS)]
    await assert_log_is_whole(database_url)


async def test_two_callbacks_of_one_payment_held_at_each_step_join_their_evidence(database_url: str) -> None:
    async with opened(database_url) as database:
        await database.migrate()
        await Orders(database).register("order-1", ORDER_KOPECKS)
        for number, step in enumerate(STEPS):
            gate, order_id = Gate(), "order-1"
            await apply_all(database, callback("NEW", payment_id=f"p{number}"))
            async with opened(database_url) as first:

                async def hold(
                    first: Database = first, gate: Gate = gate, step: str = step, number: int = number
                ) -> None:
                    async with first.unit_of_work() as uow:
                        gate.stand_before(uow, step)
                        await apply(uow, works(callback("AUTHORIZED", payment_id=f"p{number}")), NOW_MS)
                        await uow.commit()

                holding = asyncio.create_task(hold())
                reached = asyncio.create_task(gate.reached.wait())
                await asyncio.wait({holding, reached}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
                reached.cancel()
                body = callback("REVERSED", payment_id=f"p{number}", order_id=order_id)
                second = asyncio.create_task(apply_all(database, body))
                await asyncio.wait({second}, timeout=BLOCKED_S)
                gate.opened.set()
                await asyncio.gather(holding, second)
    rows = await select_all(database_url, "SELECT status, evidence FROM payments")
    assert [row[0] for row in rows] == ["REVERSED"] * len(STEPS)
    assert all("AUTHORIZED" in str(row[1]) for row in rows)
    await assert_log_is_whole(database_url)


async def test_changes_are_numbered_in_the_order_of_their_commits(postgres_url: str) -> None:
    """A reader that remembers the last number it saw may not skip a transaction that committed late."""
    async with opened(postgres_url) as database, opened(postgres_url) as other:
        await database.migrate()
        for order_id in ("order-1", "order-2"):
            await Orders(database).register(order_id, ORDER_KOPECKS)
        async with database.unit_of_work() as uow:
            await apply(uow, works(callback(payment_id="1", order_id="order-1")), NOW_MS)
            late = asyncio.create_task(apply_all(other, callback(payment_id="2", order_id="order-2")))
            await asyncio.wait({late}, timeout=0.5)
            assert not late.done()
            assert await select_all(postgres_url, "SELECT id, order_id, status FROM changes WHERE id > 2") == []
            await uow.commit()
        await late
    rows = await select_all(postgres_url, "SELECT order_id, status FROM changes WHERE id > 2 ORDER BY id")
    assert rows == [("order-1", "paid"), ("order-2", "paid")]


async def test_a_transaction_that_rolls_back_after_telling_lets_the_next_one_tell(postgres_url: str) -> None:
    async with opened(postgres_url) as database, opened(postgres_url) as other:
        await database.migrate()
        await Orders(database).register("order-1", ORDER_KOPECKS)
        async with database.unit_of_work() as uow:
            await apply(uow, works(callback()), NOW_MS)
            waiting = asyncio.create_task(apply_all(other, callback()))
            await asyncio.wait({waiting}, timeout=0.3)
            assert not waiting.done()
        applied = await asyncio.wait_for(waiting, 10)
    assert applied.fresh == 1
    await assert_log_is_whole(postgres_url)


async def test_a_stalled_session_of_ours_is_ended_by_the_server(postgres_url: str) -> None:
    from sqlalchemy import text  # Only this sentence asks in SQL through the program's own connection.

    async with opened(postgres_url) as database, database.unit_of_work() as uow:
        shown = {
            name: (await uow._session.execute(text(f"SHOW {name}"))).scalar_one()
            for name in (
                "idle_in_transaction_session_timeout",
                "statement_timeout",
                "lock_timeout",
                "synchronous_commit",
                "transaction_isolation",
            )
        }
    assert shown == {
        "idle_in_transaction_session_timeout": "30s",
        "statement_timeout": "30s",
        "lock_timeout": "10s",
        "synchronous_commit": "on",
        "transaction_isolation": "read committed",
    }


async def test_sqlite_syncs_every_commit(tmp_path: Path) -> None:
    from sqlalchemy import text

    async with opened(f"sqlite:///{tmp_path / 'oplata.db'}") as database, database.unit_of_work() as uow:
        shown = [
            (await uow._session.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous")
        ]
    assert shown == ["wal", 2]


async def test_a_reader_of_sqlite_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path / 'oplata.db'}") as database:
        await database.migrate()
        await Orders(database).register("order-1", ORDER_KOPECKS)
        async with database.unit_of_work() as uow:
            await apply(uow, works(callback()), NOW_MS)
            started_s = time.monotonic()
            view = await Orders(database).get("order-1")
            assert time.monotonic() - started_s < 5
            assert view.status == "pending"
            await uow.commit()
        assert (await Orders(database).get("order-1")).status == "paid"
