"""When a process that ended is started again, and when that has become pointless. Pure."""

from __future__ import annotations

import random

from oplata.queue.backoff import delay_s

STABLE_S = 60.0
"""A process that lived so long was well: whatever ended it begins a new count."""

CRASH_LIMIT = 8
"""After so many ends in a row there is something that starting again does not mend."""

SHORTEST_S = 0.1
BASE_S = 0.5
CAP_S = 15.0


class Crashes:
    """The ends of one process and of those that took its place, counted while none lived for long."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.in_a_row = 0

    def ended(self, lived_s: float) -> float:
        """Count one more end after a life of ``lived_s``; returns how many seconds to wait before the next start."""
        self.in_a_row = 1 if lived_s >= STABLE_S else self.in_a_row + 1
        return SHORTEST_S + delay_s(self.in_a_row, self._rng, BASE_S, CAP_S)

    @property
    def hopeless(self) -> bool:
        """Whether it ended too often in a row."""
        return self.in_a_row >= CRASH_LIMIT
