"""The table of statuses: complete, and never going back along an edge that the bank documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oplata.domain.status import AFTER_CAPTURE, MONEY_MOVED, PAYMENT_STATUSES, Phase

FACTS = json.loads((Path(__file__).parent.parent / "data" / "status_edges.json").read_text())


@pytest.mark.parametrize("status", FACTS["statuses"])
def test_every_status_of_the_bank_has_a_place(status: str) -> None:
    assert status in PAYMENT_STATUSES


def test_no_two_statuses_share_a_rank() -> None:
    ranks = [rule.rank for rule in PAYMENT_STATUSES.values()]

    assert ranks == sorted(set(ranks))


@pytest.mark.parametrize(("before", "after"), FACTS["forward"])
def test_a_documented_step_never_lowers_the_rank(before: str, after: str) -> None:
    assert PAYMENT_STATUSES[before].rank <= PAYMENT_STATUSES[after].rank


@pytest.mark.parametrize(("before", "after"), FACTS["back_within_one_phase"])
def test_where_a_step_goes_back_the_phase_stays(before: str, after: str) -> None:
    assert PAYMENT_STATUSES[before].phase == PAYMENT_STATUSES[after].phase


def test_whatever_moved_money_stands_above_every_failure() -> None:
    failures = [rule.rank for rule in PAYMENT_STATUSES.values() if rule.phase in (Phase.FAILED, Phase.CANCELED)]
    moved = [PAYMENT_STATUSES[status].rank for status in MONEY_MOVED]

    assert max(failures) < min(moved)


def test_the_phases_of_captured_money_are_those_after_capture() -> None:
    phases = (Phase.CAPTURED, Phase.PARTLY_REFUNDED, Phase.REFUNDED)
    captured = {status for status, rule in PAYMENT_STATUSES.items() if rule.phase in phases}

    assert captured == set(AFTER_CAPTURE)
