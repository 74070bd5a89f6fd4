"""The bank's payment statuses and our order statuses, each set in one order, as one table."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Phase(StrEnum):
    """What a payment's status means for the shop's money."""

    STARTED = "started"  # The buyer is on the way; nothing is decided.
    FAILED = "failed"  # This attempt came to nothing, and another may follow.
    CANCELED = "canceled"  # Given up or expired before any money moved.
    HELD = "held"  # The money is blocked on the card, and is not ours yet.
    RELEASED = "released"  # What was held went back whole.
    CAPTURED = "captured"  # The money is ours.
    PARTLY_REFUNDED = "partly_refunded"
    REFUNDED = "refunded"


class StatusRule(msgspec.Struct, frozen=True):
    """Where a status stands: of two that were seen, the one with the higher rank is the payment's."""

    rank: int
    phase: Phase


def _table(*rows: tuple[str, Phase]) -> dict[str, StatusRule]:
    return {status: StatusRule(rank, phase) for rank, (status, phase) in enumerate(rows, start=1)}


PAYMENT_STATUSES: dict[str, StatusRule] = _table(
    ("NEW", Phase.STARTED),
    ("FORM_SHOWED", Phase.STARTED),
    ("PREAUTHORIZING", Phase.STARTED),
    ("AUTHORIZING", Phase.STARTED),
    ("3DS_CHECKING", Phase.STARTED),
    ("3DS_CHECKED", Phase.STARTED),
    ("PAY_CHECKING", Phase.STARTED),
    # Money that moved outranks a failure: a buyer whose first card was refused may pay with a second one on the same
    # form, and the refusal may be told last.
    ("ATTEMPTS_EXPIRED", Phase.FAILED),
    ("AUTH_FAIL", Phase.FAILED),
    ("REJECTED", Phase.FAILED),
    ("DEADLINE_EXPIRED", Phase.CANCELED),
    ("CANCELED", Phase.CANCELED),
    ("AUTHORIZED", Phase.HELD),
    ("PARTIAL_REVERSED", Phase.HELD),
    # What is only under way stands below every outcome it may have: a Confirm may fail and the hold be reversed.
    ("CONFIRMING", Phase.HELD),
    ("CONFIRM_CHECKING", Phase.HELD),
    ("REVERSING", Phase.HELD),
    ("CANCEL_CHECKING", Phase.HELD),
    ("REVERSED", Phase.RELEASED),
    ("CONFIRMED", Phase.CAPTURED),
    ("REFUNDING", Phase.CAPTURED),
    ("ASYNC_REFUNDING", Phase.CAPTURED),
    ("PARTIAL_REFUNDED", Phase.PARTLY_REFUNDED),
    ("REFUNDED", Phase.REFUNDED),
)
"""Every status that moves a payment, lowest first. A status that is not here is kept as an event and changes nothing.

CANCEL_CHECKING may precede a reversal or a refund. It ranks below CONFIRMED, so for a captured payment it says nothing.
"""

AFTER_CAPTURE = frozenset({"CONFIRMED", "REFUNDING", "ASYNC_REFUNDING", "PARTIAL_REFUNDED", "REFUNDED"})
"""Statuses that only a payment whose money was captured can reach."""

MONEY_MOVED = AFTER_CAPTURE | {"AUTHORIZED", "PARTIAL_REVERSED", "REVERSED"}
"""Statuses that claim a movement of money, and so contradict ``Success: false``."""


class OrderStatus(StrEnum):
    """What an order is to the shop."""

    UNREGISTERED = "unregistered"  # Payments name it; the shop has not told us of it.
    PENDING = "pending"
    AUTHORIZED = "authorized"
    PAID = "paid"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    CANCELED = "canceled"
    FAILED = "failed"


STANDING: dict[OrderStatus, int] = {
    status: place
    for place, status in enumerate(
        (
            OrderStatus.UNREGISTERED,
            OrderStatus.PENDING,
            OrderStatus.FAILED,
            OrderStatus.CANCELED,
            OrderStatus.AUTHORIZED,
            OrderStatus.PAID,
            OrderStatus.PARTIALLY_REFUNDED,
            OrderStatus.REFUNDED,
        )
    )
}
"""The order of the statuses as somebody's word may move an order: up, and never down."""

HOLDING = frozenset({OrderStatus.PAID, OrderStatus.PARTIALLY_REFUNDED, OrderStatus.REFUNDED})
"""Where payments make an order one of these, money moved, and nobody's word counts against the bank's."""
