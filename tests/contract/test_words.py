"""What somebody with a key says of an order stands beside its payments, and all that checks and mends knows of it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from oplata.domain.status import OrderStatus
from oplata.errors import OrderError, OrderNotFound, StatusRefused
from oplata.orders.commands import Orders
from oplata.reconcile.verify import Range, Verification
from oplata.storage.engine import Database
from oplata.storage.rollups import Tally
from oplata.worker.archived import Span
from oplata.worker.forecast import Forecast
from oplata.worker.replay import Replay
from tests.databases import NOW_MS, ORDER_KOPECKS, apply_all, assert_log_is_whole, callback, execute, select_all

pytestmark = pytest.mark.anyio


@pytest.fixture
async def orders(database: Database) -> Orders:
    made = Orders(database, now_ms=lambda: NOW_MS)
    await made.register("order-1", ORDER_KOPECKS)
    return made


async def gaps(database: Database) -> list[str]:
    verification = Verification(database, None, Range())
    await verification.run()
    return [gap.sentence for gap in verification.gaps]


async def test_a_word_makes_an_order_paid_and_is_told_and_audited_once(orders: Orders, database: Database) -> None:
    first = await orders.update_status("order-1", OrderStatus.PAID, who="olga", why="in cash")
    again = await orders.update_status("order-1", OrderStatus.PAID, who="ivan")
    async with database.unit_of_work(read_only=True) as uow:
        [entry] = await uow.audit.newest(limit=10)
        told = [change.status for _, change in (await uow.changes.of_orders(["order-1"]))["order-1"]]
    assert (first, first.status, first.version) == (again, "paid", 2)
    assert first.word is not None
    assert (first.word.status, first.word.said_by, first.word.said_why) == ("paid", "olga", "in cash")
    assert (entry.actor, entry.action, entry.subject, entry.reason) == (
        "olga",
        "order.status",
        "order:order-1",
        "in cash",
    )
    assert told == ["pending", "paid"]


async def test_what_is_stored_stays_so_under_callbacks_replay_and_verify(
    orders: Orders, database: Database, database_url: str
) -> None:
    await orders.update_status("order-1", OrderStatus.PAID, who="olga")
    await apply_all(database, callback("NEW"), callback("REJECTED"))
    assert (await orders.get("order-1")).status == "paid"
    assert await gaps(database) == []
    assert (await Forecast(database).run(Span())).orders_changed == 0
    totals = await Replay(database).run(Span(), who="test")
    assert (totals.orders_changed, totals.orders_restored, totals.rollups_mended) == (0, 0, 0)
    await execute(database_url, "DELETE FROM orders")
    await Replay(database).run(Span(), who="test")
    mended = await orders.get("order-1")
    assert (mended.status, mended.word is not None) == ("paid", True)
    assert await gaps(database) == []
    await assert_log_is_whole(database_url)


@pytest.mark.parametrize("status", [each for each in OrderStatus if each is not OrderStatus.PAID])
async def test_what_the_bank_holds_paid_is_not_unpaid_by_a_word(
    orders: Orders, database: Database, database_url: str, status: OrderStatus
) -> None:
    await apply_all(database, callback("CONFIRMED"))
    before = await select_all(database_url, "SELECT * FROM orders")
    with pytest.raises(StatusRefused, match=r"order-1 is (paid by the bank's own word|registered)"):
        await orders.update_status("order-1", status, who="olga")
    assert await select_all(database_url, "SELECT * FROM orders") == before
    assert await select_all(database_url, "SELECT * FROM words") == []
    assert await select_all(database_url, "SELECT * FROM audit") == []


async def test_a_status_does_not_go_back_by_a_word_so_a_late_program_does_no_harm(orders: Orders) -> None:
    await orders.update_status("order-1", OrderStatus.PAID, who="their worker")
    for late in (OrderStatus.PENDING, OrderStatus.FAILED, OrderStatus.AUTHORIZED):
        with pytest.raises(StatusRefused, match="does not go back"):
            await orders.update_status("order-1", late, who="their worker")
    assert (await orders.update_status("order-1", OrderStatus.REFUNDED, who="olga")).status == "refunded"


async def test_money_that_comes_after_the_order_was_given_up_is_for_a_person_to_look_at(
    orders: Orders, database: Database
) -> None:
    await orders.update_status("order-1", OrderStatus.CANCELED, who="olga")
    await apply_all(database, callback("CONFIRMED"))
    view = await orders.get("order-1")
    assert (view.status, view.review) == ("paid", "said to be canceled, and the bank holds it paid")
    assert await gaps(database) == []


async def test_a_word_that_is_taken_back_leaves_what_the_payments_say(orders: Orders, database: Database) -> None:
    await apply_all(database, callback("REJECTED"))
    await orders.update_status("order-1", OrderStatus.PAID, who="olga")
    view = await orders.withdraw_status("order-1", who="ivan", why="the wrong order")
    assert (view.status, view.word) == ("failed", None)
    with pytest.raises(OrderError, match="nothing was said of order order-1"):
        await orders.withdraw_status("order-1", who="ivan", why="once more")
    async with database.unit_of_work(read_only=True) as uow:
        assert [each.action for each in await uow.audit.newest(limit=9)] == ["order.status_withdrawn", "order.status"]
    assert await gaps(database) == []


async def test_nothing_is_said_of_an_order_that_is_not_registered(
    orders: Orders, database: Database, database_url: str
) -> None:
    await apply_all(database, callback(order_id="order-2"))
    for order_id in ("order-2", "order-3"):
        with pytest.raises(OrderNotFound, match="is not registered"):
            await orders.update_status(order_id, OrderStatus.PAID, who="olga")
    assert await select_all(database_url, "SELECT order_id FROM orders ORDER BY 1") == [("order-1",), ("order-2",)]


async def test_words_and_callbacks_that_meet_end_in_one_state(orders: Orders, database: Database) -> None:
    async def speak(status: OrderStatus) -> None:
        with contextlib.suppress(StatusRefused):
            await orders.update_status("order-1", status, who="olga")

    said = [speak(each) for each in (OrderStatus.CANCELED, OrderStatus.AUTHORIZED, OrderStatus.PAID)]
    await asyncio.gather(*said, *(apply_all(database, callback(each)) for each in ("AUTHORIZED", "CONFIRMED")))
    assert (await orders.get("order-1")).status == "paid"
    assert await gaps(database) == []


async def test_the_rollup_follows_every_change_and_verify_and_replay_see_to_it(
    orders: Orders, database: Database, database_url: str
) -> None:
    await orders.register("order-2", 100)
    await orders.update_status("order-2", OrderStatus.CANCELED, who="olga")
    await apply_all(database, callback("CONFIRMED"), callback("CONFIRMED", 5, order_id="order-2", payment_id="2"))
    expected = {"paid": Tally(1, ORDER_KOPECKS), "canceled": Tally(1, 100), "review": Tally(1, 0)}
    hour = NOW_MS - NOW_MS % 3_600_000
    async with database.unit_of_work(read_only=True) as uow:
        assert await uow.rollups.standing() == expected
        entered = (await uow.rollups.hours(hour, hour))[hour]
    assert entered == {
        "pending": Tally(2, ORDER_KOPECKS + 100),
        "canceled": Tally(1, 100),
        "paid": Tally(1, ORDER_KOPECKS),
    }
    await execute(database_url, "UPDATE rollups SET orders = 7 WHERE hour_ms = 0 AND name = 'paid'")
    assert await gaps(database) == [
        f"the rollup has 7 orders in paid with {ORDER_KOPECKS} kopecks, and there are 1 with {ORDER_KOPECKS} kopecks"
    ]
    assert (await Replay(database).run(Span(), who="test")).rollups_mended == 1
    assert await gaps(database) == []
