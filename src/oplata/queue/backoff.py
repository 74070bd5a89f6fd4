"""How long to wait before trying once more."""

from __future__ import annotations

import random

_LARGEST_EXPONENT = 63
"""Keeps ``2 ** attempt`` a small number after a week of failures; every sensible cap is reached long before."""


def delay_s(attempt: int, rng: random.Random, base_s: float, cap_s: float) -> float:
    """Return a delay in seconds for the ``attempt``-th repetition in a row, counted from 1.

    Exponential with full jitter: uniform between zero and ``base_s * 2 ** (attempt - 1)``, of which ``cap_s`` is the
    ceiling. The jitter is full, so that a thousand clients that lost one server together don't come back together.
    Raises ``ValueError`` for a negative ``base_s`` or ``cap_s``. An ``attempt`` below 1 counts as 1.
    """
    if base_s < 0 or cap_s < 0:
        raise ValueError("base_s and cap_s are durations in seconds and cannot be negative")
    exponent = min(max(attempt, 1) - 1, _LARGEST_EXPONENT)
    return rng.uniform(0.0, min(cap_s, base_s * 2.0**exponent))
