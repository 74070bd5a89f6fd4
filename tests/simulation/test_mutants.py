"""Tests: the simulation finds every known way of breaking the program."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS

SEEDS = range(2_000, 2_200)
"""Most mutants die at the first seed or two that concern them at all."""


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mutant_is_found_out(name: str) -> None:
    assert MUTANTS[name].dies_at(SEEDS) is not None
