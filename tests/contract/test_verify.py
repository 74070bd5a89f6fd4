"""Verify names whatever does not fit, and nothing where all fits, also while workers run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oplata.errors import QueueUnavailable
from oplata.orders.commands import Orders
from oplata.queue.base import Depth, Queue
from oplata.queue.envelope import Envelope
from oplata.queue.rabbitmq import RabbitQueue
from oplata.queue.sqlite import SqliteQueue
from oplata.reconcile.gaps import Gaps
from oplata.reconcile.verify import Range, Verification
from oplata.storage.dead_letters import DeadLetter, Wanted
from oplata.storage.engine import Database
from oplata.storage.settling import Act
from oplata.worker.redrive import Redrive
from tests.databases import NOW_MS, ORDER_KOPECKS, apply_all, callback, execute, opened, select_all
from tests.notifications import TERMINAL_KEY

pytestmark = pytest.mark.anyio

ALL = Range()


async def verified(
    database: Database, span: Range = ALL, *, queue: Queue | None = None, page_size: int = 3, max_gaps: int = 20
) -> Verification:
    verification = Verification(database, queue, span, page_size=page_size, max_gaps=max_gaps)
    await verification.run()
    return verification


async def gaps(database: Database, span: Range = ALL) -> list[str]:
    return [gap.sentence for gap in (await verified(database, span)).gaps]


async def lived(database: Database) -> None:
    """Order 1 is paid, 2 partly refunded, 3 for review, 4 known from payments alone; dead letters lie there."""
    orders = Orders(database, now_ms=lambda: NOW_MS)
    for number in range(1, 4):
        await orders.register(f"order-{number}", ORDER_KOPECKS)
    for number in range(1, 5):
        for status in ("AUTHORIZED", "CONFIRMED"):
            await apply_all(database, callback(status, order_id=f"order-{number}", payment_id=f"{number}"))
    await apply_all(database, callback("PARTIAL_REFUNDED", 5_000, order_id="order-2", payment_id="2"))
    await apply_all(database, callback("REVERSED", order_id="order-3", payment_id="3"))
    await apply_all(database, callback("NEWS_TO_US", order_id="order-3", payment_id="34"))
    async with database.unit_of_work() as uow:
        letters = [
            DeadLetter(reason="unreadable", detail="", body=body, content_type="", headers={}, seen_at_ms=NOW_MS)
            for body in (b"a", b"b\xff")
        ]
        await uow.dead_letters.bury(letters)
        await uow.commit()
    act = Act(who="olga", why="nothing in it")
    assert [each async for each in Redrive(database).discard(Wanted(ids=[1]), act, limit=1)]


async def test_where_all_fits_there_is_no_gap_and_the_account_is_right(database: Database) -> None:
    await lived(database)
    verification = await verified(database)
    account = verification.account
    assert list(verification.gaps) == []
    assert (account.callbacks, account.events, account.payments, account.orders, account.changes) == (11, 11, 4, 4, 11)
    assert (account.captured_payments, account.captured_kopecks) == (4, 4 * ORDER_KOPECKS)
    assert (account.paid_orders, account.paid_kopecks, account.orders_for_review) == (1, ORDER_KOPECKS, 1)
    assert (account.dead_letters, account.depth) == ({"open": 1, "discarded": 1}, None)


async def test_nothing_at_all_has_no_gap(database: Database) -> None:
    assert await gaps(database) == []


CORRUPTIONS = {
    "callback lost": (
        "DELETE FROM callbacks WHERE digest = (SELECT digest FROM events WHERE payment_id = '34')",
        ["has no callback in the archive"],
    ),
    "callback is no notification": (
        "UPDATE callbacks SET body = {bytes} WHERE digest = (SELECT digest FROM events WHERE payment_id = '34')",
        ["is damaged: the body is not JSON"],
    ),
    "callback under another key": (
        "UPDATE callbacks SET digest = 'abc' WHERE digest = (SELECT digest FROM events WHERE payment_id = '34')",
        ["callback abc is damaged: its body is the fact", "has no callback in the archive"],
    ),
    "event lost": (
        "DELETE FROM events WHERE payment_id = '34'",
        ["has no event: payment 34, order order-3, NEWS_TO_US"],
    ),
    "event of another status": (
        "UPDATE events SET status = 'REFUNDED' WHERE payment_id = '34'",
        ["is damaged: status is REFUNDED, not NEWS_TO_US", "payment 34 of terminal {terminal} has no row"],
    ),
    "event of another amount": (
        "UPDATE events SET amount_kopecks = 1 WHERE payment_id = '4' AND status = 'CONFIRMED'",
        [
            "is damaged: amount is 1, not 19900",
            "payment 4 of terminal {terminal} has other evidence than its events",
            "payment 4 of terminal {terminal} is not what its events make it: amount is 19900, not 1",
            "by the events the bank confirmed 59701 kopecks, and the orders' payments hold 79600 kopecks",
        ],
    ),
    "event of another kind": (
        "UPDATE events SET kind = 'receipt' WHERE payment_id = '34'",
        ["is damaged: kind is receipt, not payment"],
    ),
    "event with other details": (
        "UPDATE events SET details = 'x' WHERE payment_id = '34'",
        ["is damaged: details is {{'unreadable': 'x'}}, not {{'ErrorCode': '0'}}"],
    ),
    "event without success": (
        "UPDATE events SET success = NULL WHERE payment_id = '34'",
        ["is damaged: success is none, not True"],
    ),
    "payment lost": (
        "DELETE FROM payments WHERE payment_id = '1'",
        [
            "payment 1 of terminal {terminal} has no row, and has the event",
            "payment 1 of terminal {terminal} has no row, and has the event",
            "order order-1 is stored as paid; its payments make it pending",
            "order order-1 is paid with 19900 kopecks, and the bank confirmed 0 kopecks",
        ],
    ),
    "payment of nobody": (
        """INSERT INTO payments (terminal_key, payment_id, order_id, status, evidence, created_at_ms, updated_at_ms)
        VALUES ('T', '9', 'order-9', 'CONFIRMED', '{{"seen":{{"CONFIRMED":[5,5]}},"orders":["order-9"]}}', 1, 1)""",
        [
            "payment 9 of terminal T has other evidence than its events: CONFIRMED 5..5, order order-9, not none",
            "payment 9 of terminal T is not what its events make it: order_id is order-9, not none",
            "payment 9 of terminal T is not what its events make it: status is CONFIRMED, not NEW",
            "payment 9 is of order order-9, which has no row",
        ],
    ),
    "payment with unreadable evidence": (
        "UPDATE payments SET evidence = 'x' WHERE payment_id = '4'",
        [
            "payment 4 of terminal {terminal} has evidence that cannot be read",
            "by the events the bank confirmed 79600 kopecks, and the orders' payments hold 59700 kopecks",
        ],
    ),
    "payment of another status": (
        "UPDATE payments SET status = 'NEW' WHERE payment_id = '1'",
        ["payment 1 of terminal {terminal} is not what its events make it: status is NEW, not CONFIRMED"],
    ),
    "payment of another amount": (
        "UPDATE payments SET amount_kopecks = NULL WHERE payment_id = '1'",
        ["payment 1 of terminal {terminal} is not what its events make it: amount is none, not 19900"],
    ),
    "payment without its review": (
        "UPDATE payments SET review = NULL WHERE payment_id = '3'",
        ["review is none, not the bank reported both REVERSED and CONFIRMED"],
    ),
    "payment of another order": (
        "UPDATE payments SET order_id = 'order-4' WHERE payment_id = '1'",
        [
            "payment 1 of terminal {terminal} is not what its events make it: order_id is order-4, not order-1",
            "order order-1 is stored as paid; its payments make it pending",
            "order order-1 is paid with 19900 kopecks, and the bank confirmed 0 kopecks",
        ],
    ),
    "order lost": (
        "DELETE FROM orders WHERE order_id = 'order-1'",
        [
            "payment 1 is of order order-1, which has no row",
            "order order-1 has changes in the log and no row",
            "order order-1 has changes in the log and no row",
            "order order-1 has changes in the log and no row",
            "by the events the bank confirmed 79600 kopecks, and the orders' payments hold 59700 kopecks",
        ],
    ),
    "order of another status": (
        "UPDATE orders SET status = 'paid' WHERE order_id = 'order-2'",
        [
            "order order-2 is stored as paid; its payments make it partially_refunded",
            "order order-2 is not what its last change told: status is paid, not partially_refunded",
        ],
    ),
    "order without its review": (
        "UPDATE orders SET review = NULL WHERE order_id = 'order-3'",
        [
            "order order-3 is not what its payments make it: review is none, not payment 3",
            "order order-3 is not what its last change told: review is none, not payment 3",
        ],
    ),
    "order of another amount": (
        "UPDATE orders SET amount_kopecks = 20000 WHERE order_id = 'order-1'",
        [
            "order order-1 is stored as paid; its payments make it pending",
            "order order-1 is not what its payments make it: review is none, not payment 1: confirmed 19900",
            "order order-1 is paid with 20000 kopecks, and the bank confirmed 19900 kopecks",
            "order order-1 is not what its last change told: amount is 20000, not 19900",
        ],
    ),
    "order of a version to come": (
        "UPDATE orders SET version = 9 WHERE order_id = 'order-1'",
        ["order order-1 has no change 4, 5, 6, 7, 8 and 1 more in the log"],
    ),
    "order of a version before": (
        "UPDATE orders SET version = 2 WHERE order_id = 'order-1'",
        ["order order-1 is at version 2, and the log at 3"],
    ),
    "change lost": (
        "DELETE FROM changes WHERE order_id = 'order-1' AND version = 2",
        ["order order-1 has no change 2 in the log"],
    ),
    "last change lost": (
        "DELETE FROM changes WHERE order_id = 'order-1' AND version = 3",
        [
            "order order-1 has no change 3 in the log",
            "is not what its last change told: status is paid, not authorized",
        ],
    ),
    "every change of an order lost": (
        "DELETE FROM changes WHERE order_id = 'order-1'",
        ["order order-1 has no change 1, 2, 3 in the log"],
    ),
    "change of another status": (
        "UPDATE changes SET status = 'failed' WHERE order_id = 'order-1' AND version = 2",
        ["order order-1: change 3 goes from authorized, and change 2 ended in failed"],
    ),
    "change out of order": (
        "UPDATE changes SET id = 1000 WHERE order_id = 'order-1' AND version = 2",
        ["order order-1 has change 3 before change 2 in the log"],
    ),
    "dead letter of another body": (
        "UPDATE dead_letters SET body = {bytes} WHERE id = 2",
        ["dead letter 2 is damaged: its reason or its body is not the one it came with"],
    ),
    "dead letter of another reason": (
        "UPDATE dead_letters SET reason = 'x' WHERE id = 2",
        ["dead letter 2 is damaged: its reason or its body is not the one it came with"],
    ),
    "dead letter that nobody discarded": (
        "UPDATE dead_letters SET settled_by = NULL WHERE id = 1",
        ["dead letter 1 is discarded, and nobody says who did it, when or why"],
    ),
    "dead letter in an unknown state": (
        "UPDATE dead_letters SET state = 'gone' WHERE id = 2",
        ["there are dead letters in the unknown state 'gone'"],
    ),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
async def test_every_corruption_is_named_with_what_it_is_about(
    database: Database, database_url: str, corruption: str
) -> None:
    await lived(database)
    statement, expected = CORRUPTIONS[corruption]
    some_bytes = "x'78'" if database_url.startswith("sqlite") else "'\\x78'::bytea"
    await execute(database_url, statement.format(bytes=some_bytes))

    found = await gaps(database)

    unexplained = list(found)
    for part in expected:
        explained = next((each for each in unexplained if part.format(terminal=TERMINAL_KEY) in each), None)
        assert explained is not None, (part, found)
        unexplained.remove(explained)
    assert unexplained == []


async def test_more_gaps_than_can_be_read_are_counted(database: Database, database_url: str) -> None:
    await lived(database)
    await execute(database_url, "DELETE FROM callbacks")
    verification = await verified(database, max_gaps=4)
    sentences = [gap.sentence for gap in verification.gaps]
    assert (len(sentences), sentences[-1], verification.gaps.count) == (5, "and 7 more", 11)


def test_each_check_keeps_gaps_of_its_own() -> None:
    kept = Gaps(1)
    kept.add("a", ["1", "2", "3"])
    kept.add("b", ["4"])
    assert [(gap.check, gap.sentence) for gap in kept] == [("a", "1"), ("a", "and 2 more"), ("b", "4")]


async def test_a_range_leaves_out_what_came_at_other_times(database: Database, database_url: str) -> None:
    await apply_all(database, callback(), at_ms=NOW_MS)
    await apply_all(database, callback(order_id="order-2", payment_id="2"), at_ms=NOW_MS + 100)
    await execute(database_url, "DELETE FROM events")

    early = await verified(database, Range(to_ms=NOW_MS + 100))
    late = await verified(database, Range(from_ms=NOW_MS + 100))
    between = await verified(database, Range(from_ms=NOW_MS + 1, to_ms=NOW_MS + 100))

    def callbacks(verification: Verification) -> list[str]:
        return [gap.sentence[-35:] for gap in verification.gaps if gap.check == "archive-events"]

    assert callbacks(early) == ["payment 1, order order-1, CONFIRMED"]
    assert callbacks(late) == ["payment 2, order order-2, CONFIRMED"]
    assert (early.account.callbacks, late.account.callbacks, between.account.callbacks) == (1, 1, 0)
    assert (late.account.payments, late.account.orders) == (1, 1)


async def test_workers_that_run_meanwhile_cause_no_gap(database_url: str) -> None:
    async with opened(database_url) as database, opened(database_url) as other:
        await database.migrate()
        await Orders(database).register("order-1", ORDER_KOPECKS)
        stopping = asyncio.Event()

        async def work() -> None:
            number = 0
            while not stopping.is_set():
                number += 1
                statuses = ("NEW", "AUTHORIZED", "CONFIRMED")
                await apply_all(database, callback(statuses[number % 3], payment_id=f"{number % 50}", n=str(number)))
                await Orders(database).register(f"order-{number}", ORDER_KOPECKS)

        working = asyncio.create_task(work())
        try:
            found = [gap for _ in range(15) for gap in (await verified(other, page_size=20)).gaps]
        finally:
            stopping.set()
            await working
    assert found == []


async def test_a_snapshot_can_write_nothing_on_postgresql_and_sees_one_moment_everywhere(
    database: Database, database_url: str
) -> None:
    async with database.unit_of_work(snapshot=True) as uow:
        assert await uow.archive.count() == 0
        async with opened(database_url) as other:
            await apply_all(other, callback())
        assert await uow.archive.count() == 0
    assert await select_all(database_url, "SELECT count(*) FROM callbacks") == [(1,)]


@pytest.mark.parametrize("kind", ["sqlite", "rabbitmq"])
async def test_the_queue_is_counted(
    database: Database, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    queue: Queue = (
        SqliteQueue(tmp_path / "queue.db")
        if kind == "sqlite"
        else RabbitQueue(request.getfixturevalue("amqp_url"), request.getfixturevalue("queue_name"))
    )
    await queue.start()
    try:
        await queue.publisher().publish(Envelope(body=b"{}"), timeout_s=10)
        for _ in range(50):  # A broker counts a moment late.
            verification = await verified(database, queue=queue)
            if verification.account.depth == (expected := Depth(ready=1, unacked=0, retry=0, dead=0)):
                break
            await asyncio.sleep(0.1)
    finally:
        await queue.stop()
    assert (verification.account.depth, list(verification.gaps)) == (expected, [])


async def test_a_queue_that_cannot_be_counted_is_a_gap(database: Database, tmp_path: Path) -> None:
    class Away(SqliteQueue):
        async def depth(self) -> Depth:
            raise QueueUnavailable("nobody answers")

    verification = await verified(database, queue=Away(tmp_path / "queue.db"))
    assert [gap.sentence for gap in verification.gaps] == ["the queue could not be counted: nobody answers"]
