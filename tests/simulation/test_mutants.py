"""Tests: the simulation finds every known way of breaking the program."""

from __future__ import annotations

import re

import pytest

from tests.simulation.mutants import MUTANTS

SEEDS = range(2_000, 2_200)
"""Most mutants die at the first seed or two that concern them at all."""


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mutant_is_found_out(name: str) -> None:
    found = MUTANTS[name].dies_at(SEEDS)

    assert found is not None
    # One that no longer fits the program's functions would die of that, and prove nothing.
    assert not re.search(r"ended by itself: (Type|Attribute|Name)Error", found[1])
