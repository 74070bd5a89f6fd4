"""What a shop hears of its orders, on both databases."""

from __future__ import annotations

import asyncio

import pytest

from oplata.domain.status import OrderStatus
from oplata.errors import MoneyError, OrderError, OrderNotFound
from oplata.orders.commands import Orders
from oplata.orders.paging import MAX_LISTED
from oplata.orders.views import OrderView
from oplata.storage.engine import Database
from tests.databases import NOW_MS, ORDER_KOPECKS, apply_all, assert_log_is_whole, callback, select_all
from tests.notifications import TERMINAL_KEY, signed_by_hand

pytestmark = pytest.mark.anyio


class _Clock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms


@pytest.fixture
def orders(database: Database) -> Orders:
    return Orders(database, now_ms=_Clock())


async def _after(database: Database, orders: Orders, *bodies: bytes) -> OrderView:
    """The order once it is registered and these came, one transaction each."""
    await orders.register("order-1", ORDER_KOPECKS)
    for body in bodies:
        await apply_all(database, body)
    return await orders.get("order-1")


async def test_a_new_order_is_pending(orders: Orders) -> None:
    view = await orders.register("order-1", ORDER_KOPECKS)
    assert (view.order_id, view.status, view.amount, view.review, view.version) == (
        "order-1",
        "pending",
        ORDER_KOPECKS,
        None,
        1,
    )
    assert (list(view.payments), list(view.receipts), view.registered_at) == ([], [], NOW_MS + 1)
    assert await orders.get("order-1") == view


async def test_registering_twice_is_registering_once(orders: Orders, database_url: str) -> None:
    first = await orders.register("order-1", ORDER_KOPECKS)
    assert await orders.register("order-1", ORDER_KOPECKS) == first
    assert await select_all(database_url, "SELECT order_id, version FROM changes") == [("order-1", 1)]


async def test_many_registrations_at_once_are_one(database: Database, database_url: str) -> None:
    views = await asyncio.gather(*(Orders(database).register("order-1", ORDER_KOPECKS) for _ in range(10)))
    assert len({view.registered_at for view in views}) == 1
    assert await select_all(database_url, "SELECT order_id, version FROM changes") == [("order-1", 1)]


async def test_another_amount_for_a_registered_order_is_refused_and_both_are_named(orders: Orders) -> None:
    await orders.register("order-1", ORDER_KOPECKS)
    with pytest.raises(OrderError, match=r"registered with 19900 kopecks, not 19901"):
        await orders.register("order-1", ORDER_KOPECKS + 1)
    assert (await orders.get("order-1")).amount == ORDER_KOPECKS


@pytest.mark.parametrize("order_id", ["", "x" * 37, "line\nbreak", "nul\x00", "\ud800", "tab\t"])
async def test_an_id_that_the_bank_would_not_take_is_refused(orders: Orders, order_id: str) -> None:
    with pytest.raises(OrderError, match="1 to 36 printable"):
        await orders.register(order_id, ORDER_KOPECKS)


@pytest.mark.parametrize("amount", [0, -1, 10**15 + 1, True, 1.0])
async def test_an_amount_that_is_none_is_refused(orders: Orders, amount: int) -> None:
    with pytest.raises((OrderError, MoneyError)):
        await orders.register("order-1", amount)
    assert await orders.list() == []


async def test_a_confirmed_payment_of_the_orders_amount_pays_it(database: Database, orders: Orders) -> None:
    view = await _after(database, orders, callback("AUTHORIZED"), callback())
    assert (view.status, view.review, view.version) == ("paid", None, 3)
    assert [(each.payment_id, each.terminal_key, each.status, each.amount) for each in view.payments] == [
        ("1", TERMINAL_KEY, "CONFIRMED", ORDER_KOPECKS)
    ]


async def test_another_amount_does_not_pay_and_the_review_names_both(
    database: Database, orders: Orders, database_url: str
) -> None:
    view = await _after(database, orders, callback(amount_kopecks=100))
    assert (view.status, view.review) == (
        "pending",
        "payment 1: confirmed 100 kopecks where the order is 19900 kopecks",
    )
    told = await select_all(database_url, "SELECT version, status, previous_status, review FROM changes ORDER BY id")
    assert told == [(1, "pending", None, None), (2, "pending", "pending", view.review)]


async def test_two_confirmed_payments_pay_it_and_a_person_must_look(database: Database, orders: Orders) -> None:
    view = await _after(database, orders, callback(), callback(payment_id="2"))
    assert (view.status, view.review) == ("paid", "paid 2 times, by payments 1, 2")
    assert [each.payment_id for each in view.payments] == ["1", "2"]


@pytest.mark.parametrize(
    ("told", "status", "amount"),
    [
        (["AUTHORIZED"], "authorized", ORDER_KOPECKS),
        (["AUTHORIZED", "REVERSED"], "canceled", ORDER_KOPECKS),
        (["CONFIRMED", "REFUNDING"], "paid", ORDER_KOPECKS),
        (["CONFIRMED", "REFUNDED"], "refunded", 0),
        (["REFUNDED", "CONFIRMED"], "refunded", 0),
        (["CONFIRMED", "PARTIAL_REFUNDED"], "partially_refunded", 5_000),
        (["REJECTED"], "failed", ORDER_KOPECKS),
        (["REJECTED", "CONFIRMED"], "paid", ORDER_KOPECKS),
        (["CONFIRMED", "REJECTED"], "paid", ORDER_KOPECKS),
        (["DEADLINE_EXPIRED"], "canceled", ORDER_KOPECKS),
        (["CONFIRMED", "AUTHORIZED"], "paid", ORDER_KOPECKS),
    ],
)
async def test_money_that_comes_and_goes_is_the_orders_status(
    database: Database, orders: Orders, told: list[str], status: str, amount: int
) -> None:
    left = {"REFUNDED": 0, "PARTIAL_REFUNDED": 5_000}
    view = await _after(database, orders, *(callback(each, left.get(each, ORDER_KOPECKS)) for each in told))
    assert (view.status, view.review) == (status, None)
    assert [each.amount for each in view.payments] == [amount]


async def test_a_smaller_second_partial_refund_is_seen_in_the_payments_amount(
    database: Database, orders: Orders
) -> None:
    refunds = [callback("PARTIAL_REFUNDED", left) for left in (3_000, 9_000)]
    view = await _after(database, orders, callback(), *refunds)
    assert (view.status, view.payments[0].amount) == ("partially_refunded", 3_000)


async def test_reversed_and_confirmed_contradict_and_pay_nothing(database: Database, orders: Orders) -> None:
    view = await _after(database, orders, callback(), callback("REVERSED"))
    assert (view.status, view.review) == ("pending", "payment 1: the bank reported both REVERSED and CONFIRMED")


async def test_a_confirmation_without_success_pays_nothing(database: Database, orders: Orders) -> None:
    view = await _after(database, orders, callback(success=False))
    assert view.status == "pending"
    assert "Success: false" in str(view.review)


async def test_a_payment_that_names_two_orders_pays_neither(database: Database, orders: Orders) -> None:
    await orders.register("order-2", ORDER_KOPECKS)
    view = await _after(database, orders, callback(order_id="order-2"), callback(order_id="order-1"))
    assert view.status == "pending"
    assert "several orders for one payment: order-1, order-2" in str(view.review)
    assert (await orders.get("order-2")).status == "pending"


async def test_payments_before_the_registration_take_effect_with_it(
    database: Database, orders: Orders, database_url: str
) -> None:
    await apply_all(database, callback("AUTHORIZED"), callback())
    with pytest.raises(OrderNotFound, match="1 CONFIRMED 19900 kopecks"):
        await orders.get("order-1")
    assert [(each.order_id, each.status) for each in await orders.list()] == [("order-1", "unregistered")]
    view = await orders.register("order-1", ORDER_KOPECKS)
    assert (view.status, view.version) == ("paid", 1)
    await assert_log_is_whole(database_url)


async def test_an_order_that_nobody_knows_is_not_found(orders: Orders) -> None:
    with pytest.raises(OrderNotFound, match="order-9 is not registered, and no payment names it"):
        await orders.get("order-9")


async def test_a_receipt_is_seen_with_its_order_and_moves_nothing(database: Database, orders: Orders) -> None:
    await _after(database, orders, callback())
    fields = {"TerminalKey": TERMINAL_KEY, "OrderId": "order-1", "PaymentId": 1, "Status": "RECEIPT", "Success": True}
    receipt = fields | {
        "Type": "Income",
        "Amount": ORDER_KOPECKS,
        "Url": "https://r.example/1",
        "Receipt": {"Items": []},
    }
    applied = await apply_all(database, signed_by_hand(receipt))
    assert (applied.fresh, list(applied.changes)) == (1, [])
    view = await orders.get("order-1")
    assert view.status == "paid"
    assert [(each.payment_id, each.type, each.url, each.amount) for each in view.receipts] == [
        ("1", "Income", "https://r.example/1", ORDER_KOPECKS)
    ]
    assert view.version == 2


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_pages_hold_every_order_once_newest_first(database: Database, orders: Orders, size: int) -> None:
    same_moment = Orders(database, now_ms=lambda: NOW_MS + 1_000)
    for number in range(4):
        await orders.register(f"b-{number}", ORDER_KOPECKS)
    for order_id in ("a", "A", "я", "_", "z"):
        await same_moment.register(order_id, ORDER_KOPECKS)
    listed: list[str] = []
    while page := await orders.list(limit=size, after=listed[-1] if listed else None):
        assert len(page) <= size
        listed += [view.order_id for view in page]
    assert listed == ["я", "z", "a", "_", "A", "b-3", "b-2", "b-1", "b-0"]


async def test_a_new_order_between_two_pages_shifts_nothing(orders: Orders) -> None:
    for number in range(6):
        await orders.register(f"order-{number}", ORDER_KOPECKS)
    first = await orders.list(limit=3)
    await orders.register("order-new", ORDER_KOPECKS)
    second = await orders.list(limit=3, after=first[-1].order_id)
    assert [view.order_id for view in [*first, *second]] == [f"order-{number}" for number in reversed(range(6))]


async def test_orders_are_listed_by_status(database: Database, orders: Orders) -> None:
    for number in range(3):
        await orders.register(f"order-{number}", ORDER_KOPECKS)
    await apply_all(database, callback(order_id="order-1"))
    assert [view.order_id for view in await orders.list(OrderStatus.PAID)] == ["order-1"]
    assert [view.order_id for view in await orders.list(OrderStatus.PENDING)] == ["order-2", "order-0"]
    assert [view.order_id for view in await orders.list(OrderStatus.PENDING, limit=1, after="order-2")] == ["order-0"]
    assert await orders.list(OrderStatus.REFUNDED) == []


async def test_a_page_after_an_unknown_order_is_refused_and_limits_are_bounded(orders: Orders) -> None:
    await orders.register("order-1", ORDER_KOPECKS)
    with pytest.raises(OrderNotFound, match="no page after it"):
        await orders.list(after="order-9")
    for limit in (-5, 0, 1, MAX_LISTED * 1000):
        assert len(await orders.list(limit=limit)) == 1


async def test_a_view_never_shows_another_orders_payments(database: Database, orders: Orders) -> None:
    for number in range(3):
        await orders.register(f"order-{number}", ORDER_KOPECKS)
        await apply_all(database, callback(order_id=f"order-{number}", payment_id=f"p-{number}"))
    views = await orders.list()
    assert [(view.order_id, [each.payment_id for each in view.payments]) for view in views] == [
        (f"order-{number}", [f"p-{number}"]) for number in (2, 1, 0)
    ]
