"""A payment is a fold over the set of its events: order, repeats and the way they are split change nothing."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oplata.domain.events import Event, EventKind
from oplata.domain.payment import Evidence, conclude, fold, join, moves_payment
from oplata.domain.status import MONEY_MOVED, PAYMENT_STATUSES, Phase
from tests.payments import ORDER_KOPECKS, events, histories, paid_event

EVIDENCE = histories().map(fold)


@given(histories().flatmap(lambda history: st.tuples(st.just(history), st.permutations(history * 2))), st.data())
def test_any_order_repetition_and_split_of_the_events_gives_the_same_evidence(
    drawn: tuple[list[Event], list[Event]], data: st.DataObject
) -> None:
    history, shuffled = drawn
    cut = data.draw(st.integers(0, len(shuffled)))

    assert join(fold(shuffled[:cut]), fold(shuffled[cut:])) == fold(history)


@given(EVIDENCE, EVIDENCE, EVIDENCE)
def test_joining_is_commutative_associative_and_idempotent(a: Evidence, b: Evidence, c: Evidence) -> None:
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) == a == join(a, Evidence()) == join(Evidence(), a)


@given(histories().flatmap(lambda history: st.tuples(st.just(history), st.permutations(history))))
def test_equal_evidence_is_stored_as_equal_bytes_and_reads_back(drawn: tuple[list[Event], list[Event]]) -> None:
    stored = [msgspec.json.encode(fold(history)) for history in drawn]

    assert stored[0] == stored[1]
    assert msgspec.json.decode(stored[0], type=Evidence) == fold(drawn[0])


def test_every_order_of_a_whole_life_ends_in_the_same_payment() -> None:
    life = [
        paid_event("AUTHORIZED"),
        paid_event("CONFIRMED"),
        paid_event("PARTIAL_REFUNDED", 10_000),
        paid_event("PARTIAL_REFUNDED", 5_000),
        paid_event("REFUNDED", 0),
    ]
    ends = {conclude(fold(order)) for order in itertools.permutations(life)}

    assert [(end.status, end.phase, end.amount_kopecks, end.captured_kopecks, end.review) for end in ends] == [
        ("REFUNDED", Phase.REFUNDED, 0, ORDER_KOPECKS, None)
    ]


@given(histories(), st.sampled_from(["NEWS_TO_US", "", "confirmed", "RECEIPT", "COMPLETED"]))
def test_an_unknown_status_changes_nothing(history: list[Event], status: str) -> None:
    assert fold([*history, paid_event(status, 1, order_id="order-9")]) == fold(history)


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind is not EventKind.PAYMENT])
def test_what_is_not_about_a_payment_changes_nothing(kind: EventKind) -> None:
    assert not fold([paid_event("CONFIRMED", kind=kind)])


def test_an_event_that_names_no_payment_changes_nothing() -> None:
    assert not moves_payment(paid_event("CONFIRMED", payment_id=None))


@given(histories())
def test_the_status_is_the_highest_that_was_seen(history: list[Event]) -> None:
    evidence = fold(history)
    if not evidence.seen:
        return
    highest = max(PAYMENT_STATUSES[status].rank for status in evidence.seen)

    assert PAYMENT_STATUSES[conclude(evidence).status].rank == highest


@given(st.permutations(["REJECTED", "AUTH_FAIL", "CANCELED", "DEADLINE_EXPIRED", "ATTEMPTS_EXPIRED", "AUTHORIZED"]))
def test_money_that_moved_outranks_every_failure(arrival: list[str]) -> None:
    payment = conclude(fold(paid_event(status) for status in arrival))

    assert (payment.status, payment.phase, payment.review) == ("AUTHORIZED", Phase.HELD, None)


@given(histories())
def test_an_authorization_after_the_confirmation_changes_nothing(history: list[Event]) -> None:
    before = fold([*history, paid_event("CONFIRMED")])

    assert conclude(join(before, fold([paid_event("AUTHORIZED")]))) == conclude(before)


@pytest.mark.parametrize("captured", ["CONFIRMED", "REFUNDING", "ASYNC_REFUNDING", "PARTIAL_REFUNDED", "REFUNDED"])
def test_a_reversal_of_captured_money_is_for_a_person(captured: str) -> None:
    payment = conclude(fold([paid_event(captured), paid_event("REVERSED", 0)]))

    assert payment.review == f"the bank reported both REVERSED and {captured}"


@given(histories())
def test_a_contradiction_never_goes_away_by_itself(history: list[Event]) -> None:
    evidence = fold([*history, paid_event("REVERSED", 0), paid_event("CONFIRMED")])

    assert conclude(evidence).review is not None


@pytest.mark.parametrize("status", sorted(MONEY_MOVED))
def test_money_that_moved_without_success_is_for_a_person_and_supports_nothing(status: str) -> None:
    payment = conclude(fold([paid_event(status, success=False)]))

    assert (payment.phase, payment.captured_kopecks) == (Phase.STARTED, None)
    assert payment.review == f"the bank reported {status} with Success: false"


def test_a_refused_card_without_success_is_a_plain_failure() -> None:
    payment = conclude(fold([paid_event("REJECTED", success=False)]))

    assert (payment.phase, payment.review) == (Phase.FAILED, None)


@pytest.mark.parametrize(
    ("amounts", "review"),
    [
        ((100, 200), "CONFIRMED came with different amounts, 100 kopecks and 200 kopecks"),
        ((None, 200), "CONFIRMED came with different amounts, none and 200 kopecks"),
        ((None,), "CONFIRMED came without an amount"),
    ],
)
def test_a_confirmation_of_an_uncertain_amount_is_for_a_person(amounts: tuple[int | None, ...], review: str) -> None:
    payment = conclude(fold(paid_event("CONFIRMED", amount) for amount in amounts))

    assert (payment.captured_kopecks, payment.review) == (None, review)


def test_a_payment_that_names_two_orders_is_for_a_person() -> None:
    payment = conclude(fold([paid_event("CONFIRMED", order_id="a"), paid_event("AUTHORIZED", order_id="b")]))

    assert payment.review == "the bank named several orders for one payment: a, b"


def test_of_several_partial_refunds_the_lowest_amount_is_what_is_left() -> None:
    payment = conclude(fold(paid_event("PARTIAL_REFUNDED", left) for left in (700, 300, 500)))

    assert (payment.amount_kopecks, payment.phase) == (300, Phase.PARTLY_REFUNDED)


@given(st.lists(events(), min_size=1))
def test_a_conclusion_never_fails_and_never_invents_an_amount(history: list[Event]) -> None:
    evidence = fold(history)
    if not evidence:
        return
    payment = conclude(evidence)

    assert payment.amount_kopecks in {event.amount_kopecks for event in history} | {None}
    assert payment.captured_kopecks in {e.amount_kopecks for e in history if e.status == "CONFIRMED"} | {None}
