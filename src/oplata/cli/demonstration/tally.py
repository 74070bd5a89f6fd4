"""What the demonstration sent, what it was answered, and what must therefore be found in the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec

from oplata.bank.simulator.traffic import Order

_SHOWN = 5


class Tally(msgspec.Struct):
    """Counted on the bank's side of the wire. Times are seconds of one monotonic clock."""

    sent: int = 0
    refused: int = 0
    accepted: Counter[str] = msgspec.field(default_factory=Counter)
    """How often each fact, by its digest, was answered OK."""
    forged_accepted: int = 0
    undelivered: int = 0
    """Genuine callbacks that were never answered OK, however often they were sent."""
    registered: dict[str, float] = msgspec.field(default_factory=dict)
    confirmed: dict[str, float] = msgspec.field(default_factory=dict)
    """When the first CONFIRMED of an order left the bank."""
    paid: dict[str, float] = msgspec.field(default_factory=dict)

    def latencies_ms(self) -> list[float]:
        """From callback to paid, for the orders that were registered before their callback; ascending."""
        return sorted(
            (self.paid[order_id] - sent_s) * 1000
            for order_id, sent_s in self.confirmed.items()
            if order_id in self.paid and self.registered.get(order_id, sent_s) < sent_s
        )


class Found(msgspec.Struct, frozen=True):
    """What was read back from the database: the known digests, and each order's status and whether it is for review."""

    digests: Collection[str]
    orders: Mapping[str, tuple[str, bool]]
    dead: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """sent = accepted + refused; accepted = applied + repeats absorbed + lost; the orders by status sum to all."""

    sent: int
    accepted: int
    refused: int
    repeats: int
    applied: int
    lost: int
    orders: int
    by_status: Mapping[str, int]
    median_ms: float | None
    p99_ms: float | None
    problems: Sequence[str]


def summarize(tally: Tally, expected: Sequence[Order], found: Found) -> Summary:
    """Hold what was found against what was sent. Pure; nothing that the program itself counted is used."""
    accepted, distinct = tally.accepted.total(), len(tally.accepted)
    missing = [digest for digest in tally.accepted if digest not in found.digests]
    latencies_ms = tally.latencies_ms()
    return Summary(
        sent=tally.sent,
        accepted=accepted,
        refused=tally.refused,
        repeats=accepted - distinct,
        applied=distinct - len(missing),
        lost=len(missing),
        orders=len(expected),
        by_status=Counter(found.orders.get(order.order_id, ("missing", False))[0] for order in expected),
        median_ms=percentile(latencies_ms, 50),
        p99_ms=percentile(latencies_ms, 99),
        problems=_problems(tally, expected, found, len(missing)),
    )


def percentile(ascending: Sequence[float], percent: int) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    return ascending[max(0, -(-len(ascending) * percent // 100) - 1)] if ascending else None


def _problems(tally: Tally, expected: Sequence[Order], found: Found, lost: int) -> list[str]:
    wrong = [_difference(order, found) for order in expected]
    differences = [difference for difference in wrong if difference]
    counted = (
        (lost, "callbacks were answered OK and are not in the database"),
        (tally.undelivered, "genuine callbacks were never accepted"),
        (tally.forged_accepted, "forged callbacks were accepted"),
        (found.dead, "messages are dead letters"),
        (len(differences), "orders ended differently than they had to"),
    )
    return [f"{number} {what}" for number, what in counted if number] + differences[:_SHOWN]


def _difference(order: Order, found: Found) -> str | None:
    status, review = found.orders.get(order.order_id, ("missing", False))
    if (status, review) == (order.ends.value, order.review):
        return None
    must = f"{order.ends.value}{' for review' if order.review else ''}"
    return f"{order.order_id} ({order.story}) is {status}{' for review' if review else ''} and must be {must}"
