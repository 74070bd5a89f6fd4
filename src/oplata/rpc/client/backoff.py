"""How long to wait before a subscription is begun anew."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from ``first_s`` up to ``longest_s``, each wait somewhere in its upper half, so that clients spread out.

    After ``attempts`` failures with no event between them, the subscription ends with the last failure.
    """

    first_s: float = 0.25
    longest_s: float = 30.0
    attempts: int = 20

    def wait_s(self, failures: int, rng: random.Random) -> float:
        """The wait after that many failures in a row, counted from 1."""
        whole_s = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return whole_s * (0.5 + rng.random() / 2)
