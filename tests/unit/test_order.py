"""An order is paid by a confirmed payment of exactly its amount, and by nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oplata.domain.events import Event
from oplata.domain.order import Verdict, judge
from oplata.domain.payment import Payment, PaymentKey, conclude, fold
from oplata.domain.status import HOLDING, STANDING, OrderStatus
from tests.payments import ORDER_KOPECKS, histories, paid_event

HISTORIES = st.dictionaries(st.sampled_from(["1", "2", "3"]), histories(), max_size=3)


def _payments(histories: dict[str, list[Event]]) -> dict[PaymentKey, Payment]:
    folded = {payment_id: fold(history) for payment_id, history in histories.items()}
    return {("terminal", payment_id): conclude(evidence) for payment_id, evidence in folded.items() if evidence}


def _judged(*statuses: str | tuple[str, int | None], amount_kopecks: int | None = ORDER_KOPECKS) -> Verdict:
    """The verdict over an order whose single payment went through these statuses."""
    pairs = [status if isinstance(status, tuple) else (status, ORDER_KOPECKS) for status in statuses]
    return judge(amount_kopecks, _payments({"1": [paid_event(status, amount) for status, amount in pairs]}))


@given(HISTORIES)
def test_an_order_is_paid_only_by_a_confirmation_of_its_whole_amount(histories: dict[str, list[Event]]) -> None:
    paying = [
        event
        for history in histories.values()
        for event in history
        if event.status == "CONFIRMED" and event.success is not False and event.amount_kopecks == ORDER_KOPECKS
    ]
    if judge(ORDER_KOPECKS, _payments(histories)).status is OrderStatus.PAID:
        assert paying


@given(HISTORIES.flatmap(lambda drawn: st.tuples(st.just(drawn), st.permutations(list(drawn.items())))))
def test_the_order_of_the_payments_is_nothing(
    drawn: tuple[dict[str, list[Event]], list[tuple[str, list[Event]]]],
) -> None:
    histories, shuffled = drawn

    assert judge(ORDER_KOPECKS, _payments(histories)) == judge(ORDER_KOPECKS, _payments(dict(shuffled)))


@given(HISTORIES, st.sampled_from(OrderStatus))
def test_a_word_raises_an_order_and_counts_for_nothing_where_money_moved(
    histories: dict[str, list[Event]], word: OrderStatus
) -> None:
    payments = _payments(histories)
    alone, spoken = judge(ORDER_KOPECKS, payments).status, judge(ORDER_KOPECKS, payments, word).status

    assert spoken is (alone if alone in HOLDING else max(alone, word, key=STANDING.__getitem__))


def test_money_for_an_order_that_was_given_up_is_told_in_the_review() -> None:
    payments = _payments({"1": [paid_event("CONFIRMED")]})
    complaint = "said to be canceled, and the bank holds it paid"

    assert judge(ORDER_KOPECKS, payments, OrderStatus.CANCELED) == Verdict(OrderStatus.PAID, complaint)
    assert judge(ORDER_KOPECKS, payments, OrderStatus.FAILED) == Verdict(OrderStatus.PAID, None)


@given(HISTORIES)
def test_a_review_is_a_bounded_text_or_nothing(histories: dict[str, list[Event]]) -> None:
    review = judge(ORDER_KOPECKS, _payments(histories)).review

    assert review is None or 0 < len(review) <= 500


@given(HISTORIES)
def test_an_order_that_is_not_registered_is_never_judged(histories: dict[str, list[Event]]) -> None:
    assert judge(None, _payments(histories)) == Verdict(OrderStatus.UNREGISTERED, None)


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([], OrderStatus.PENDING),
        (["NEW"], OrderStatus.PENDING),
        (["FORM_SHOWED", "3DS_CHECKING"], OrderStatus.PENDING),
        (["REJECTED"], OrderStatus.FAILED),
        (["REJECTED", "AUTHORIZED"], OrderStatus.AUTHORIZED),
        (["CANCELED"], OrderStatus.CANCELED),
        (["DEADLINE_EXPIRED"], OrderStatus.CANCELED),
        (["AUTHORIZED"], OrderStatus.AUTHORIZED),
        (["AUTHORIZED", ("REVERSED", 0)], OrderStatus.CANCELED),
        (["CONFIRMED"], OrderStatus.PAID),
        (["CONFIRMED", "AUTHORIZED"], OrderStatus.PAID),
        (["CONFIRMED", "REJECTED"], OrderStatus.PAID),
        (["CONFIRMED", "REFUNDING"], OrderStatus.PAID),
        (["REFUNDING"], OrderStatus.PENDING),
        (["CONFIRMED", ("PARTIAL_REFUNDED", 100)], OrderStatus.PARTIALLY_REFUNDED),
        (["CONFIRMED", ("REFUNDED", 0)], OrderStatus.REFUNDED),
        ([("REFUNDED", 0)], OrderStatus.REFUNDED),
    ],
)
def test_one_payment_makes_an_order(statuses: list[str | tuple[str, int | None]], status: OrderStatus) -> None:
    assert _judged(*statuses) == Verdict(status, None)


@pytest.mark.parametrize(
    ("statuses", "review"),
    [
        ([("CONFIRMED", 1)], "payment 1: confirmed 1 kopecks where the order is 19900 kopecks"),
        ([("CONFIRMED", ORDER_KOPECKS + 1)], "payment 1: confirmed 19901 kopecks where the order is 19900 kopecks"),
        ([("CONFIRMED", None)], "payment 1: CONFIRMED came without an amount"),
        (["CONFIRMED", ("REVERSED", 0)], "payment 1: the bank reported both REVERSED and CONFIRMED"),
    ],
)
def test_a_payment_under_review_makes_no_order_paid(statuses: list[str | tuple[str, int | None]], review: str) -> None:
    assert _judged(*statuses) == Verdict(OrderStatus.PENDING, review)


def test_a_wrong_amount_that_went_back_whole_needs_nobody() -> None:
    assert _judged(("CONFIRMED", 1), ("REFUNDED", 0)) == Verdict(OrderStatus.REFUNDED, None)


def test_a_second_attempt_pays_an_order_whose_first_attempt_failed() -> None:
    payments = _payments({"1": [paid_event("REJECTED", success=False)], "2": [paid_event("CONFIRMED")]})

    assert judge(ORDER_KOPECKS, payments) == Verdict(OrderStatus.PAID, None)


def test_an_order_paid_twice_is_paid_and_is_for_a_person() -> None:
    payments = _payments({"8": [paid_event("CONFIRMED")], "7": [paid_event("CONFIRMED")]})

    assert judge(ORDER_KOPECKS, payments) == Verdict(OrderStatus.PAID, "paid 2 times, by payments 7, 8")


def test_a_review_of_one_payment_leaves_the_other_payment_its_effect() -> None:
    payments = _payments({"1": [paid_event("CONFIRMED", 1)], "2": [paid_event("CONFIRMED")]})
    verdict = judge(ORDER_KOPECKS, payments)

    assert verdict.status is OrderStatus.PAID
    assert verdict.review == "payment 1: confirmed 1 kopecks where the order is 19900 kopecks"


def test_a_payment_that_went_back_never_hides_one_that_holds_money() -> None:
    payments = _payments({"1": [paid_event("REFUNDED", 0)], "2": [paid_event("AUTHORIZED")], "3": [paid_event("NEW")]})

    assert judge(ORDER_KOPECKS, payments).status is OrderStatus.AUTHORIZED


def test_a_refund_that_failed_leaves_the_order_paid_and_is_for_a_person() -> None:
    history = [paid_event("CONFIRMED"), paid_event("REFUNDED", success=False)]

    verdict = judge(ORDER_KOPECKS, _payments({"1": history}))

    assert (OrderStatus.PAID, True) == (verdict.status, "REFUNDED with Success: false" in str(verdict.review))


def test_a_confirmation_that_failed_pays_nothing() -> None:
    verdict = judge(ORDER_KOPECKS, _payments({"1": [paid_event("CONFIRMED", success=False)]}))

    assert (OrderStatus.PENDING, True) == (verdict.status, verdict.review is not None)


def test_a_confirmation_told_again_after_a_partial_refund_contradicts_nothing() -> None:
    told = [("CONFIRMED", ORDER_KOPECKS), ("PARTIAL_REFUNDED", 600), ("CONFIRMED", 600)]

    assert Verdict(OrderStatus.PARTIALLY_REFUNDED, None) == _judged(*told)


def test_confirmations_of_amounts_that_no_refund_explains_are_for_a_person() -> None:
    verdict = _judged(("CONFIRMED", ORDER_KOPECKS), ("PARTIAL_REFUNDED", 600), ("CONFIRMED", 500))

    assert (OrderStatus.PENDING, True) == (verdict.status, "different amounts" in str(verdict.review))


def test_payments_of_two_terminals_with_one_id_are_two_payments() -> None:
    first, second = (conclude(fold([paid_event(status)])) for status in ("CONFIRMED", "REJECTED"))

    assert OrderStatus.PAID is judge(ORDER_KOPECKS, {("A", "1"): first, ("B", "1"): second}).status
    assert OrderStatus.PAID is judge(ORDER_KOPECKS, {("A", "1"): second, ("B", "1"): first}).status
