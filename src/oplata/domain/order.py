"""An order's status is a function of its registered amount and of all its payments, in no particular order."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

import msgspec

from oplata.domain.payment import Payment, PaymentKey
from oplata.domain.status import HOLDING, STANDING, OrderStatus, Phase


class Verdict(msgspec.Struct, frozen=True):
    """What an order is, and why a person must look at it, or None."""

    status: OrderStatus
    review: str | None


_PRECEDENCE = (
    # The first of these that some payment supports is the order's status. Money that we hold outranks money that is
    # blocked, that outranks money that went back, and an attempt still under way outranks one that failed.
    (Phase.CAPTURED, OrderStatus.PAID),
    (Phase.PARTLY_REFUNDED, OrderStatus.PARTIALLY_REFUNDED),
    (Phase.HELD, OrderStatus.AUTHORIZED),
    (Phase.REFUNDED, OrderStatus.REFUNDED),
    (Phase.STARTED, OrderStatus.PENDING),
    (Phase.RELEASED, OrderStatus.CANCELED),
    (Phase.CANCELED, OrderStatus.CANCELED),
    (Phase.FAILED, OrderStatus.FAILED),
)


_GIVEN_UP = frozenset({OrderStatus.CANCELED, OrderStatus.REFUNDED})
_MONEY_IS_HERE = frozenset({OrderStatus.AUTHORIZED, OrderStatus.PAID, OrderStatus.PARTIALLY_REFUNDED})


def judge(
    amount_kopecks: int | None, payments: Mapping[PaymentKey, Payment], word: OrderStatus | None = None
) -> Verdict:
    """The verdict over an order of ``amount_kopecks`` (None while it is not registered) and its payments by their keys.

    Of the payments, only a CONFIRMED one whose amount equals the order's makes it paid. A payment that contradicts
    itself or the order is named in the review and supports no status. ``word`` is what somebody with a key said of the
    order: it may raise the status, and counts for nothing once money moved at the bank.
    """
    if amount_kopecks is None:
        return Verdict(OrderStatus.UNREGISTERED, None)
    complaints: list[str] = []
    phases: set[Phase] = set()
    paid_by: list[str] = []
    for key in sorted(payments):
        (_, payment_id), payment = key, payments[key]
        mismatch = _mismatch(amount_kopecks, payment)
        for complaint in (payment.review, mismatch):
            if complaint is not None:
                complaints.append(f"payment {payment_id}: {complaint}")
        if payment.disputed or mismatch is not None:
            continue
        if payment.phase is Phase.CAPTURED and payment.captured_kopecks is None:
            # A refund under way tells that money was captured, and not how much: CONFIRMED is still to come.
            phases.add(Phase.STARTED)
        else:
            phases.add(payment.phase)
            if payment.phase is Phase.CAPTURED:
                paid_by.append(payment_id)
    if len(paid_by) > 1:
        complaints.append(f"paid {len(paid_by)} times, by payments {', '.join(paid_by[:5])}")
    status = _highest(phases)
    if word is not None:
        complaints.extend(_against(word, status))
        status = raised(status, word)
    return Verdict(status, _bounded("; ".join(complaints)) or None)


def _highest(phases: Container[Phase]) -> OrderStatus:
    for phase, status in _PRECEDENCE:
        if phase in phases:
            return status
    return OrderStatus.PENDING


def raised(status: OrderStatus, word: OrderStatus) -> OrderStatus:
    """What an order is that its payments make ``status`` and somebody's word makes ``word``."""
    return word if status not in HOLDING and STANDING[word] > STANDING[status] else status


def _against(word: OrderStatus, status: OrderStatus) -> Iterator[str]:
    """The word gave the order up, and money came all the same: a person has to send it back, or the goods out."""
    if word in _GIVEN_UP and status in _MONEY_IS_HERE:
        yield f"said to be {word.value}, and the bank holds it {status.value}"


def _mismatch(amount_kopecks: int, payment: Payment) -> str | None:
    captured = payment.captured_kopecks
    if captured is None or captured == amount_kopecks or payment.phase is Phase.REFUNDED:
        return None  # A wrong amount that went back whole needs nobody any more.
    return f"confirmed {captured} kopecks where the order is {amount_kopecks} kopecks"


def _bounded(text: str, limit: int = 500) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
