"""What is stored depends on which callbacks came, not on their order, their repeats, or how they fell into batches."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oplata.domain.status import PAYMENT_STATUSES
from oplata.orders.commands import Orders
from oplata.storage.engine import Database
from tests.databases import NOW_MS, ORDER_KOPECKS, apply_all, assert_log_is_whole, callback, empty, select_all, stored
from tests.notifications import signed_by_hand

pytestmark = pytest.mark.anyio

REGISTER = b"the order is registered here"

_PAYMENTS = st.builds(
    callback,
    st.sampled_from([*PAYMENT_STATUSES, *["CONFIRMED"] * 12, *["AUTHORIZED"] * 4, "NEWS_TO_US", "RECEIPT"]),
    st.sampled_from([ORDER_KOPECKS] * 6 + [ORDER_KOPECKS - 1, 0, None]),
    order_id=st.sampled_from(["order-1"] * 4 + ["order-2"]),
    payment_id=st.sampled_from(["1", "1", "2", "3"]),
    success=st.sampled_from([True] * 9 + [False]),
)
_LINKS = st.sampled_from(
    [
        signed_by_hand(
            {"TerminalKey": "1700000000001DEMO", "RequestKey": "r", "CustomerKey": "c", "NotificationType": "LINKCARD"}
        )
    ]
)


@st.composite
def _histories(draw: st.DrawFn) -> tuple[list[bytes], list[list[bytes]]]:
    """Distinct callbacks, and the same once more: repeated, shuffled, in batches, with a registration among them."""
    told = draw(st.lists(st.one_of(_PAYMENTS, _PAYMENTS, _PAYMENTS, _LINKS), min_size=1, max_size=7, unique=True))
    repeats = draw(st.lists(st.sampled_from(told), max_size=5))
    line = draw(st.permutations([*told, *repeats, REGISTER]))
    batches: list[list[bytes]] = [[]]
    for body in line:
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append(body)
    return told, batches


async def _play(database: Database, batches: list[list[bytes]]) -> None:
    at_ms = NOW_MS
    for batch in batches:
        at_ms += 1
        bodies = [body for body in batch if body is not REGISTER]
        if bodies:
            await apply_all(database, *bodies, at_ms=at_ms)
        if REGISTER in batch:
            await Orders(database, now_ms=lambda: NOW_MS).register("order-1", ORDER_KOPECKS)


async def _compare(database: Database, url: str, history: tuple[list[bytes], list[list[bytes]]]) -> None:
    told, batches = history
    await empty(url)
    await _play(database, [[REGISTER], *([body] for body in told)])
    in_order = await stored(url)
    await assert_log_is_whole(url)
    await empty(url)
    await _play(database, batches)
    assert await stored(url) == in_order
    await assert_log_is_whole(url)
    seen = sum(len([body for body in batch if body is not REGISTER]) for batch in batches)
    assert await select_all(url, "SELECT sum(times_seen) FROM callbacks") == [(seen,)]


@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(history=_histories())
async def test_any_order_any_repeats_and_any_batches_end_in_the_same_rows(
    database: Database, database_url: str, history: tuple[list[bytes], list[list[bytes]]]
) -> None:
    await _compare(database, database_url, history)


async def test_a_repeated_callback_changes_nothing_but_its_count(database: Database, database_url: str) -> None:
    await Orders(database).register("order-1", ORDER_KOPECKS)
    first = await apply_all(database, callback())
    before = await stored(database_url), await select_all(database_url, "SELECT * FROM changes")
    again = await apply_all(database, callback(), callback())
    assert (first.fresh, first.repeats, len(first.changes)) == (1, 0, 1)
    assert (again.fresh, again.repeats, list(again.changes)) == (0, 2, [])
    assert (await stored(database_url), await select_all(database_url, "SELECT * FROM changes")) == before
    assert await select_all(database_url, "SELECT times_seen FROM callbacks") == [(3,)]


async def test_an_unknown_status_is_kept_and_changes_nothing(database: Database, database_url: str) -> None:
    await Orders(database).register("order-1", ORDER_KOPECKS)
    applied = await apply_all(database, callback("NEWS_TO_US"))
    assert (applied.fresh, list(applied.changes)) == (1, [])
    assert applied.unknown_statuses == frozenset({"NEWS_TO_US"})
    assert await select_all(database_url, "SELECT status FROM events") == [("NEWS_TO_US",)]
    assert await select_all(database_url, "SELECT * FROM payments") == []
    assert await select_all(database_url, "SELECT status, version FROM orders") == [("pending", 1)]


async def test_links_of_cards_and_accounts_are_recorded_and_move_no_order(
    database: Database, database_url: str
) -> None:
    common = {"TerminalKey": "1700000000001DEMO", "RequestKey": "r-1", "Success": True}
    card = common | {"NotificationType": "LINKCARD", "CustomerKey": "c", "Status": "COMPLETED", "PaymentId": 7}
    account = common | {"NotificationType": "LINKACCOUNT", "AccountToken": "a", "Status": "ACTIVE"}
    applied = await apply_all(database, signed_by_hand(card), signed_by_hand(account))
    assert (applied.fresh, list(applied.changes)) == (2, [])
    assert await select_all(database_url, "SELECT kind FROM events ORDER BY kind") == [
        ("account_link",),
        ("card_link",),
    ]
    assert await select_all(database_url, "SELECT * FROM payments") == []
    assert await select_all(database_url, "SELECT * FROM orders") == []


async def test_the_archive_keeps_the_bytes_that_came_first(database: Database, database_url: str) -> None:
    body = callback(Message="Оплата — «чай», 100% 😀")
    spaced = body.replace(b'","', b'" , "')
    assert spaced != body
    await apply_all(database, body)
    await apply_all(database, spaced)
    rows = await select_all(database_url, "SELECT body, times_seen FROM callbacks")
    assert rows == [(body, 2)]


async def test_a_clock_that_jumps_back_never_turns_last_seen_back(database: Database, database_url: str) -> None:
    await apply_all(database, callback(), at_ms=NOW_MS)
    await apply_all(database, callback(), at_ms=NOW_MS - 86_400_000)
    assert await select_all(database_url, "SELECT last_seen_at_ms, times_seen FROM callbacks") == [(NOW_MS, 2)]
    await Orders(database, now_ms=lambda: NOW_MS - 1_000_000).register("order-1", ORDER_KOPECKS)
    assert await select_all(database_url, "SELECT status, version FROM orders") == [("paid", 1)]
    await assert_log_is_whole(database_url)
