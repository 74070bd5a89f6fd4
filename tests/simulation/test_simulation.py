"""Tests: some hundred runs of the whole program in a simulated world, and the world's own promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import report, seeds_of
from tests.simulation.run import simulate

BATCHES = [range(first, first + 10) for first in range(0, 200, 10)]
_DIGESTS = "from tests.simulation.run import simulate; print(*(simulate(seed).digest for seed in ({})))"


@pytest.mark.parametrize("seeds", BATCHES, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_nothing_is_lost_doubled_or_made_up(seeds: range) -> None:
    failed = [report(result, lines=40) for result in map(simulate, seeds) if result.failure is not None]

    assert not failed, "\n\n".join(failed[:3])


def test_a_run_does_what_it_is_meant_to() -> None:
    results = [simulate(seed) for seed in range(40, 60)]

    assert sum(result.promised for result in results) > 200
    assert sum(result.crashes for result in results) > 20
    assert all(result.applied for result in results)
    assert all(result.checks for result in results)


def test_one_seed_is_one_run_whatever_the_hashes_are() -> None:
    seeds = "3, 10, 17, 24, 31"
    runs = [_digests(seeds, hash_seed) for hash_seed in ("0", "1", "4711")]

    assert runs[0].split() == runs[1].split() == runs[2].split()
    assert len(set(runs[0].split())) == 5


def test_a_second_run_in_one_process_is_the_same_run() -> None:
    assert simulate(5).digest == simulate(5).digest


def test_a_range_of_seeds_is_written_with_both_ends() -> None:
    assert (list(seeds_of("3-5")), list(seeds_of("7"))) == ([3, 4, 5], [7])


def _digests(seeds: str, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", _DIGESTS.format(seeds)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    ).stdout
