"""How the tests are spread over several processes: by module, the long ones first, the longest in pieces."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

IN_PIECES = (
    "tests/simulation/test_mutants.py",
    "tests/simulation/test_simulation.py",
    "tests/chaos/test_chaos.py",
    "tests/contract/test_crash_points.py",
    "tests/acceptance/test_kill9.py",
    "tests/acceptance/test_drain.py",
)
"""Modules whose tests are long and share nothing that is costly to make; these come first."""


class Spread(LoadScopeScheduling):  # type: ignore[misc]  # xdist has types for its hooks alone.
    """A process that is idle takes the next module, or the next of the tests that stand for themselves."""

    def _split_scope(self, nodeid: str) -> str:
        module, _, _ = nodeid.partition("::")
        return nodeid if module in IN_PIECES else module


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests as they are best begun: what takes long must not be alone at the end."""

    def rank(item: pytest.Item) -> int:
        module, _, _ = item.nodeid.partition("::")
        return IN_PIECES.index(module) if module in IN_PIECES else len(IN_PIECES)

    return sorted(items, key=rank)
