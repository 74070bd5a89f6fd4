"""The demonstration's verdict is drawn from what was sent and what was found, and sees every kind of loss."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from oplata.bank.simulator.traffic import Order
from oplata.cli.demonstration.screen import summary_rows
from oplata.cli.demonstration.tally import Found, Tally, percentile, summarize
from oplata.domain.status import OrderStatus

ORDERS = [
    Order(order_id="1", amount_kopecks=100, story="card", ends=OrderStatus.PAID, review=False),
    Order(order_id="2", amount_kopecks=100, story="a wrong amount", ends=OrderStatus.PENDING, review=True),
]
FOUND = Found(digests={"a", "b", "c"}, orders={"1": ("paid", False), "2": ("pending", True)}, dead=0)


def tally() -> Tally:
    return Tally(
        sent=6,
        refused=2,
        accepted=Counter({"a": 2, "b": 1, "c": 1}),
        registered={"1": 1.0, "2": 9.0},
        confirmed={"1": 2.0, "2": 3.0},
        paid={"1": 2.25, "2": 9.5},
    )


def test_rows_add_up_when_nothing_is_lost() -> None:
    rows = dict(summary_rows(summarize(tally(), ORDERS, FOUND)))

    assert rows == {
        "sent": "6",
        "accepted": "4",
        "refused": "2",
        "repeats absorbed": "1",
        "applied": "3",
        "orders": "2",
        "  pending": "1",
        "  paid": "1",
        "lost": "0",
        "callback to paid, median ms": "250.0",
        "callback to paid, p99 ms": "250.0",
    }
    assert summarize(tally(), ORDERS, FOUND).problems == []


@pytest.mark.parametrize(
    ("found", "changed", "problem"),
    [
        ({"digests": {"a", "b"}}, {}, "1 callbacks were answered OK and are not in the database"),
        ({"dead": 3}, {}, "3 messages are dead letters"),
        ({"orders": {"1": ("pending", False), "2": ("pending", True)}}, {}, "1 (card) is pending and must be paid"),
        ({"orders": {"1": ("paid", False)}}, {}, "2 (a wrong amount) is missing and must be pending for review"),
        ({}, {"undelivered": 2}, "2 genuine callbacks were never accepted"),
        ({}, {"forged_accepted": 1}, "1 forged callbacks were accepted"),
    ],
)
def test_every_kind_of_failure_is_a_problem(found: dict[str, object], changed: dict[str, int], problem: str) -> None:
    summary = summarize(msgspec.structs.replace(tally(), **changed), ORDERS, msgspec.structs.replace(FOUND, **found))

    assert problem in summary.problems
    assert summary.accepted == summary.applied + summary.repeats + summary.lost


@pytest.mark.parametrize(("percent", "expected"), [(50, 50.0), (99, 99.0), (1, 1.0), (100, 100.0)])
def test_a_percentile_is_the_nearest_rank(percent: int, expected: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], percent) == expected
    assert percentile([7.0], percent) == 7.0
    assert percentile([], percent) is None
