"""The projection can be dropped and built again from the archive, and equals what it was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oplata.domain.payment import PaymentKey
from oplata.orders.commands import Orders
from oplata.storage.engine import Database
from oplata.storage.payments import Held, Payments
from oplata.worker.archived import Span
from oplata.worker.difference import Difference, Replayed
from oplata.worker.forecast import Forecast
from oplata.worker.replay import Replay
from tests.databases import (
    NOW_MS,
    ORDER_KOPECKS,
    apply_all,
    assert_log_is_whole,
    callback,
    empty,
    execute,
    opened,
    select_all,
    stored,
)
from tests.notifications import TERMINAL_KEY, signed_by_hand

pytestmark = pytest.mark.anyio

T = TypeVar("T")

ALL = Span()


async def replayed(
    database: Database, span: Span = ALL, *, batch_size: int = 500, max_touched_orders: int = 50_000
) -> tuple[Replayed, list[Difference]]:
    told: list[Difference] = []
    replay = Replay(
        database,
        tell=told.append,
        now_ms=lambda: NOW_MS + 9,
        rng=random.Random(1),
        batch_size=batch_size,
        max_touched_orders=max_touched_orders,
    )
    return await replay.run(span, who="olga"), told


async def forecast(database: Database, span: Span = ALL, *, batch_size: int = 500) -> tuple[Replayed, list[Difference]]:
    told: list[Difference] = []
    return await Forecast(database, tell=told.append, batch_size=batch_size).run(span), told


async def lived(database: Database) -> None:
    """Some orders with all kinds of histories."""
    orders = Orders(database, now_ms=lambda: NOW_MS)
    for number in range(4):
        await orders.register(f"order-{number}", ORDER_KOPECKS)
    for number in range(5):  # The last one is not registered.
        for status in ("AUTHORIZED", "CONFIRMED"):
            await apply_all(database, callback(status, order_id=f"order-{number}", payment_id=f"{number}"))
    await apply_all(database, callback("PARTIAL_REFUNDED", 5_000, order_id="order-1", payment_id="1"))
    await apply_all(database, callback("REVERSED", order_id="order-2", payment_id="2"))
    await apply_all(database, callback("REJECTED", order_id="order-3", payment_id="33", success=False))
    await apply_all(database, callback("NEWS_TO_US", order_id="order-3", payment_id="34"))
    receipt = {"TerminalKey": TERMINAL_KEY, "OrderId": "order-1", "PaymentId": 1, "Status": "RECEIPT", "Success": True}
    await apply_all(database, signed_by_hand(receipt | {"Amount": ORDER_KOPECKS}))


async def changes(url: str) -> list[tuple[object, ...]]:
    return await select_all(url, "SELECT * FROM changes ORDER BY id")


async def versions(url: str) -> list[tuple[object, ...]]:
    return await select_all(url, "SELECT order_id, version FROM orders ORDER BY order_id")


async def test_where_all_is_well_a_replay_changes_and_tells_nothing(database: Database, database_url: str) -> None:
    await lived(database)
    before, told, counted = await stored(database_url), await changes(database_url), await versions(database_url)
    times = await select_all(database_url, "SELECT * FROM payments ORDER BY payment_id")

    totals, differences = await replayed(database)

    assert (await stored(database_url), await changes(database_url)) == (before, told)
    assert await versions(database_url) == counted
    assert await select_all(database_url, "SELECT * FROM payments ORDER BY payment_id") == times
    assert (differences, totals.callbacks, totals.payments_mended, totals.orders_changed) == ([], 15, 0, 0)
    assert (totals.orders, totals.events_recorded, totals.unreadable) == (5, 0, 0)


DAMAGE = {
    "all payments dropped": ["DELETE FROM payments"],
    "all events dropped": ["DELETE FROM events"],
    "events and payments dropped": ["DELETE FROM events", "DELETE FROM payments"],
    "orders forgot their status": ["UPDATE orders SET status = 'pending', review = NULL"],
    "orders forgot their version": ["UPDATE orders SET version = 0"],
    "orders dropped": ["DELETE FROM orders WHERE order_id <> 'order-4'"],
    "evidence is nonsense": ["UPDATE payments SET evidence = 'nonsense'"],
    "evidence is empty": ["UPDATE payments SET evidence = '{}', status = 'NEW'"],
    "evidence says too much": [
        """UPDATE payments SET evidence = '{"seen":{"REFUNDED":[1,1]},"failed":{},"orders":["order-0"]}'"""
    ],
    "a status that is none": ["""UPDATE payments SET evidence = '{"seen":{"NONE":[1,1]},"orders":["order-0"]}'"""],
    "another order": ["UPDATE payments SET order_id = 'order-0'"],
    "another status and amount": ["UPDATE payments SET status = 'REFUNDED', amount_kopecks = 7, review = 'why'"],
    "events of another status": ["UPDATE events SET status = 'REFUNDED'"],
    "events of another payment": ["UPDATE events SET payment_id = '0', order_id = 'order-0'"],
    "events of a kind that is none": ["UPDATE events SET kind = 'none', details = 'nonsense'"],
    "all at once": [
        "DELETE FROM events WHERE payment_id = '1'",
        "UPDATE payments SET evidence = 'nonsense'",
        "UPDATE orders SET status = 'refunded'",
    ],
}

ONLY_EVENTS = (
    "all events dropped",
    "events of another status",
    "events of another payment",
    "events of a kind that is none",
)
"""Damage that is mended before it could do harm: it is counted, and no payment differs."""


@pytest.mark.parametrize("damage", DAMAGE)
async def test_whatever_is_damaged_is_what_it_was_and_nothing_is_told(
    database: Database, database_url: str, damage: str
) -> None:
    await lived(database)
    before, told, counted = await stored(database_url), await changes(database_url), await versions(database_url)
    await execute(database_url, *DAMAGE[damage])
    assert await stored(database_url) != before or await versions(database_url) != counted

    _, differences = await replayed(database, batch_size=4)
    _, left = await replayed(database)

    assert await stored(database_url) == before
    assert (await changes(database_url), await versions(database_url)) == (told, counted)
    assert (differences == [], left) == (damage in ONLY_EVENTS, [])


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_dry_run_says_what_the_replay_then_does_and_changes_nothing(
    database: Database, database_url: str, damage: str
) -> None:
    await lived(database)
    await execute(database_url, *DAMAGE[damage])
    before = await stored(database_url)
    told_before = await changes(database_url)

    expected, foretold = await forecast(database, batch_size=3)
    assert (await stored(database_url), await changes(database_url)) == (before, told_before)
    totals, told = await replayed(database, batch_size=3)

    assert (expected.events_recorded, expected.events_restored) == (totals.events_recorded, totals.events_restored)
    assert {(each.kind, each.key) for each in foretold} == {(each.kind, each.key) for each in told}
    assert {(each.key, each.after) for each in foretold if each.kind == "order"} == {
        (each.key, each.after) for each in told if each.kind == "order"
    }
    assert expected.orders_changed == totals.orders_changed == 0


async def test_an_order_that_was_told_wrong_is_told_right_and_once(database: Database, database_url: str) -> None:
    """A payment was lost before it was ever judged: the shop has not heard of it, and hears of it now."""
    await Orders(database).register("order-1", ORDER_KOPECKS)
    await apply_all(database, callback())
    await execute(
        database_url,
        "DELETE FROM changes WHERE version = 2",
        "UPDATE orders SET status = 'pending', version = 1",
        "DELETE FROM payments",
    )

    expected, _ = await forecast(database)
    totals, differences = await replayed(database)

    assert expected.orders_changed == totals.orders_changed == 1
    assert [(each.kind, each.after) for each in differences if each.kind == "order"] == [("order", "paid")]
    assert await select_all(database_url, "SELECT version, previous_status, status FROM changes ORDER BY id") == [
        (1, None, "pending"),
        (2, "pending", "paid"),
    ]
    await assert_log_is_whole(database_url)


async def test_a_half_built_order_is_never_told(database: Database, database_url: str) -> None:
    """Two payments pay one order, and each is mended in a batch of its own; half of that would be another status."""
    await Orders(database).register("order-1", ORDER_KOPECKS)
    await apply_all(database, callback("REJECTED", payment_id="1", success=False), callback(payment_id="2"))
    told = await changes(database_url)
    await execute(database_url, "DELETE FROM payments", "DELETE FROM events")

    await replayed(database, batch_size=1)

    assert await changes(database_url) == told
    assert await select_all(database_url, "SELECT status FROM orders") == [("paid",)]


async def test_above_the_limit_of_memory_every_order_is_judged(database: Database, database_url: str) -> None:
    await lived(database)
    before, told = await stored(database_url), await changes(database_url)
    await execute(database_url, "DELETE FROM payments", "UPDATE orders SET status = 'refunded'")

    totals, _ = await replayed(database, batch_size=2, max_touched_orders=2)

    assert (await stored(database_url), await changes(database_url), totals.orders) == (before, told, 5)


async def test_above_the_limit_of_memory_orders_without_a_row_are_judged_too(
    database: Database, database_url: str
) -> None:
    await lived(database)
    before, told = await stored(database_url), await changes(database_url)
    await execute(database_url, "DELETE FROM payments", "DELETE FROM events", "DELETE FROM orders")

    await replayed(database, batch_size=2, max_touched_orders=2)

    assert (await stored(database_url), await changes(database_url)) == (before, told)


async def test_a_payment_is_never_less_than_it_was_while_its_events_come_back(
    database: Database, database_url: str
) -> None:
    """Its row must not go through half of its history, or a worker that judges the order meanwhile tells that half."""
    await lived(database)
    before = (await stored(database_url))["payments"]
    await execute(database_url, "DELETE FROM events")
    seen: list[object] = []

    class Watching(Replay):
        async def _persist(self, step: Callable[[], Awaitable[T]]) -> T:
            done = await super()._persist(step)
            seen.append((await stored(database_url))["payments"])
            return done

    await Watching(database, batch_size=1).run(ALL, who="olga")

    assert len(seen) > 15
    assert all(payments == before for payments in seen)


@pytest.mark.parametrize(
    ("span", "mended"),
    [
        (Span(order_id="order-1"), {"1"}),
        (Span(terminal_key=TERMINAL_KEY, order_id="order-3"), {"3", "33"}),
        (Span(terminal_key="another"), set()),
        (Span(from_ms=NOW_MS + 1), set()),
        (Span(to_ms=NOW_MS), set()),
        (Span(from_ms=NOW_MS, to_ms=NOW_MS + 1), {"0", "1", "2", "3", "33", "4"}),
    ],
)
async def test_only_what_the_span_holds_is_replayed(
    database: Database, database_url: str, span: Span, mended: set[str]
) -> None:
    await lived(database)
    await execute(database_url, "DELETE FROM payments")
    _, foretold = await forecast(database, span)
    await replayed(database, span)
    assert {str(row[0]) for row in await select_all(database_url, "SELECT payment_id FROM payments")} == mended
    assert {each.key for each in foretold if each.kind == "payment"} == mended


async def test_a_damaged_body_is_named_and_moves_nothing(database: Database, database_url: str) -> None:
    await lived(database)
    before = await stored(database_url)
    cut = "substr(body, 1, 20)" if database_url.startswith("sqlite") else "substring(body from 1 for 20)"
    await execute(database_url, f"UPDATE callbacks SET body = {cut}")  # noqa: S608

    totals, differences = await replayed(database)
    expected, foretold = await forecast(database)

    after = await stored(database_url)
    assert {**after, "callbacks": before["callbacks"]} == before
    assert (totals.unreadable, totals.callbacks, len(differences)) == (15, 0, 15)
    assert (expected.unreadable, len(foretold)) == (15, 15)


async def test_it_is_kept_in_the_audit(database: Database) -> None:
    await lived(database)
    await replayed(database, Span(order_id="order-1"))
    async with database.unit_of_work(read_only=True) as uow:
        [entry] = await uow.audit.newest(limit=10)
    assert (entry.action, entry.actor, entry.details["order_id"]) == ("replay", "olga", "order-1")


async def test_a_callback_that_comes_while_its_payment_is_folded_is_not_lost(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay has read the events and is about to store the fold, when a worker brings one more."""
    await apply_all(database, callback("AUTHORIZED"))
    await execute(database_url, "UPDATE payments SET evidence = '{}', status = 'NEW'")
    whole, late = Payments.save, list[asyncio.Task[object]]()

    async with opened(database_url) as other:

        async def save(self: Payments, changed: Mapping[PaymentKey, Held], at_ms: int) -> None:
            if not late:
                late.append(asyncio.create_task(apply_all(other, callback("CONFIRMED"))))
                await asyncio.wait(late, timeout=1)  # It waits for our lock, and would be done by now without one.
            await whole(self, changed, at_ms)

        monkeypatch.setattr(Payments, "save", save)
        await replayed(database)
        await asyncio.gather(*late)

    assert await select_all(database_url, "SELECT status FROM payments") == [("CONFIRMED",)]
    assert (await replayed(database))[1] == []


async def test_workers_and_replays_at_once_end_where_workers_alone_do(database_url: str) -> None:
    """Callbacks of few payments come in small transactions while the whole archive is replayed over and over."""
    bodies = [
        callback(status, order_id=f"order-{number % 6}", payment_id=f"{number}")
        for number in range(12)
        for status in ("NEW", "AUTHORIZED", "CONFIRMED", "REVERSED")
    ]
    random.Random(5).shuffle(bodies)
    async with opened(database_url) as database, opened(database_url) as other:
        await database.migrate()
        for number in range(6):
            await Orders(database).register(f"order-{number}", ORDER_KOPECKS)

        async def work() -> None:
            for start in range(0, len(bodies), 3):
                await apply_all(database, *bodies[start : start + 3])

        working = asyncio.create_task(work())
        while not working.done():
            await replayed(other, batch_size=5)
        await working
        left = await replayed(other)
        after = await stored(database_url)
        await assert_log_is_whole(database_url)

        await empty(database_url)
        for number in range(6):
            await Orders(database).register(f"order-{number}", ORDER_KOPECKS)
        await apply_all(database, *bodies)
    assert left[1] == []
    assert await stored(database_url) == after


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["NEW", "AUTHORIZED", "CONFIRMED", "REVERSED", "REFUNDED", "REJECTED", "UNHEARD_OF"]),
            st.sampled_from([ORDER_KOPECKS, 1]),
            st.sampled_from(["order-1", "order-2"]),
            st.sampled_from(["1", "2", "3"]),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.sampled_from([1, 3, 500]),
)
async def test_any_history_is_built_again_as_it_was(
    database: Database, database_url: str, history: list[tuple[str, int, str, str, bool]], batch_size: int
) -> None:
    await empty(database_url)
    await Orders(database).register("order-1", ORDER_KOPECKS)
    for status, amount, order_id, payment_id, success in history:
        await apply_all(database, callback(status, amount, order_id=order_id, payment_id=payment_id, success=success))
    before, told = await stored(database_url), await changes(database_url)
    await execute(database_url, "DELETE FROM payments", "DELETE FROM events", "UPDATE orders SET review = 'why'")

    await replayed(database, batch_size=batch_size)

    after = await stored(database_url)
    if not history:  # No callback touches the order, so nothing mends it.
        after["orders"] = before["orders"]
    assert ({**after, "orders": []}, await changes(database_url)) == ({**before, "orders": []}, told)
    named = {order_id for _, _, order_id, _, _ in history}
    assert [row for row in after["orders"] if row[0] in named] == [row for row in before["orders"] if row[0] in named]
