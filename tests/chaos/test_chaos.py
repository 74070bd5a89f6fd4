"""The chaos in short: another seed of a fault every few seconds, on real processes, on every run of the tests."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.chaos.bank import Sample
from tests.chaos.report import answers_again_s, applies_again_s, lines
from tests.chaos.run import Plan, run
from tests.chaos.schedule import CLUSTER_WEIGHTS, WEIGHTS, Fault, schedule
from tests.chaos.watch import Glance

pytestmark = pytest.mark.anyio

SECONDS = 30.0
RATE = 100.0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [3])
async def test_half_a_minute_of_chaos_loses_nothing_and_does_nothing_twice(seed: int, tmp_path: Path) -> None:
    said: list[str] = []

    outcome = await run(Plan(seed=seed, seconds=SECONDS, rate=RATE), tmp_path, said.append)

    told = [*said, *lines(outcome)]
    assert outcome.good, "\n".join([f"seed {seed}; the logs are in {tmp_path}", *told])
    count = outcome.facts
    assert told[-1] == f"sent {count}, accepted {count}, applied {count}, lost 0, twice 0"
    assert (count > SECONDS * RATE / 2, len(outcome.struck)) == (True, len(schedule(seed, SECONDS)))


def test_a_seed_has_one_schedule() -> None:
    assert schedule(7, 300) == schedule(7, 300)
    assert schedule(7, 300) != schedule(8, 300)


@pytest.mark.parametrize(("scenario", "kinds"), [("single", WEIGHTS), ("cluster", CLUSTER_WEIGHTS)])
def test_five_minutes_have_every_kind_of_fault_and_one_every_few_seconds(scenario: str, kinds: dict[str, int]) -> None:
    faults: list[Fault] = schedule(7, 300, "cluster" if scenario == "cluster" else "single")
    gaps_s = [later.at_s - sooner.at_s for sooner, later in itertools.pairwise(faults)]

    assert {fault.kind for fault in faults} == set(kinds)
    assert max(gaps_s) <= 6.001


def test_recovery_is_the_first_whole_second_without_a_failure() -> None:
    samples = [Sample(at / 5, failed=min(at, 20), accepted=at * 20, oldest_s=0.0) for at in range(100)]
    glances = [Glance(at / 5, changes=max(at, 50), ready=10) for at in range(100)]

    assert answers_again_s(samples, 1.0, rate=100) == pytest.approx(3.0)
    assert answers_again_s(samples, 1.0, rate=300) is None
    assert applies_again_s(glances, 5.0, rate=100) == pytest.approx(4.2)
    assert applies_again_s(glances, 5.0, rate=9) is None
