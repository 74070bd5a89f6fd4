"""A payment is a fold over the set of events seen: in any order, with any repeats, split in any way, the same result.

What is kept of the events is *evidence*: for each status the lowest and the highest amount it was seen with, and the
orders that were named. Joining two pieces of evidence is a union of keys with minima and maxima, so it is commutative,
associative and idempotent by construction; everything else is a pure function of the joined evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import msgspec

from oplata.domain.events import Event, EventKind
from oplata.domain.status import AFTER_CAPTURE, MONEY_MOVED, PAYMENT_STATUSES, Phase

PaymentKey = tuple[str, str]
"""Terminal key and payment id."""


class Amounts(msgspec.Struct, frozen=True, array_like=True):
    """The lowest and highest amount, in kopecks, that one status was seen with; -1 stands for an amount not stated."""

    low: int
    high: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that the events say, in a form that joins. ``failed`` holds claims that came with ``Success: false``."""

    seen: dict[str, Amounts] = {}
    failed: dict[str, Amounts] = {}
    orders: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.seen or self.failed)


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence amounts to.

    ``captured_kopecks`` is the amount that was CONFIRMED, or None while that is not known for certain. ``review`` says
    why a person must look, or is None. A payment that is ``disputed`` contradicts itself: it says nothing of its order.
    """

    order_id: str | None
    status: str
    phase: Phase
    amount_kopecks: int | None
    captured_kopecks: int | None
    review: str | None
    disputed: bool


def moves_payment(event: Event) -> bool:
    """Whether this event is evidence about a payment at all."""
    return event.kind is EventKind.PAYMENT and event.payment_id is not None and event.status in PAYMENT_STATUSES


def evidence_of(event: Event) -> Evidence:
    """The evidence in one event that moves a payment."""
    amount = -1 if event.amount_kopecks is None else event.amount_kopecks
    entry = {event.status: Amounts(amount, amount)}
    orders = () if event.order_id is None else (event.order_id,)
    if event.success is False and event.status in MONEY_MOVED:
        return Evidence(failed=entry, orders=orders)
    return Evidence(seen=entry, orders=orders)


def join(left: Evidence, right: Evidence) -> Evidence:
    """Both together."""
    if not left.orders and not left:
        return right  # Nothing was known: so it is with the first event of every payment.
    return Evidence(
        seen=_join_amounts(left.seen, right.seen),
        failed=_join_amounts(left.failed, right.failed),
        orders=tuple(sorted({*left.orders, *right.orders})),
    )


def fold(events: Iterable[Event]) -> Evidence:
    """The joined evidence of all events that move a payment; others are passed over."""
    return reduce(join, (evidence_of(event) for event in events if moves_payment(event)), Evidence())


def conclude(evidence: Evidence) -> Payment:
    """What the payment is. The evidence holds at least one status."""
    contradiction = _contradiction(evidence)
    statuses = evidence.seen or {"NEW": Amounts(-1, -1)}
    status = max(statuses, key=_rank)
    # Every refund leaves less, so of several amounts with one status the lowest is the latest.
    known = statuses[status].low if statuses[status].low >= 0 else statuses[status].high
    return Payment(
        order_id=evidence.orders[0] if evidence.orders else None,
        status=status,
        phase=PAYMENT_STATUSES[status].phase,
        amount_kopecks=known if known >= 0 else None,
        captured_kopecks=_captured(evidence),
        review=contradiction or _failed_claims(evidence),
        disputed=contradiction is not None,
    )


def _join_amounts(left: dict[str, Amounts], right: dict[str, Amounts]) -> dict[str, Amounts]:
    joined = dict(left)
    for status, amounts in right.items():
        mine = joined.get(status, amounts)
        joined[status] = Amounts(min(mine.low, amounts.low), max(mine.high, amounts.high))
    return dict(sorted(joined.items()))


def _captured(evidence: Evidence) -> int | None:
    confirmed = evidence.seen.get("CONFIRMED")
    if confirmed is None or confirmed.low < 0 or _differs(confirmed, evidence):
        return None
    return confirmed.high


def _differs(confirmed: Amounts, evidence: Evidence) -> bool:
    """Whether CONFIRMED came with amounts that do not fit together.

    The amount is the transaction's at the moment of telling. One that was told again after a partial refund carries
    what was left, so a lower amount that a refund left is no contradiction.
    """
    if confirmed.low == confirmed.high:
        return False
    refunded = evidence.seen.get("PARTIAL_REFUNDED")
    return refunded is None or confirmed.low not in (refunded.low, refunded.high)


def _failed_claims(evidence: Evidence) -> str | None:
    """A movement of money that the bank says has failed moved nothing, and a person should know of it."""
    if not evidence.failed:
        return None
    return f"the bank reported {', '.join(sorted(evidence.failed))} with Success: false"


def _rank(status: str) -> int:
    return PAYMENT_STATUSES[status].rank


def _contradiction(evidence: Evidence) -> str | None:
    if "REVERSED" in evidence.seen and (captured := AFTER_CAPTURE.intersection(evidence.seen)):
        return f"the bank reported both REVERSED and {min(captured, key=_rank)}"
    if len(evidence.orders) > 1:
        return f"the bank named several orders for one payment: {', '.join(evidence.orders[:5])}"
    confirmed = evidence.seen.get("CONFIRMED")
    if confirmed is not None and _differs(confirmed, evidence):
        return f"CONFIRMED came with different amounts, {_said(confirmed.low)} and {_said(confirmed.high)}"
    if confirmed is not None and confirmed.low < 0:
        return "CONFIRMED came without an amount"
    return None


def _said(amount_kopecks: int) -> str:
    return "none" if amount_kopecks < 0 else f"{amount_kopecks} kopecks"
