"""What a worker has done, counted."""

from __future__ import annotations

import msgspec


class Stats(msgspec.Struct):
    """What this worker has done since it started. ``received`` is what the five after it and ``canaries`` add up to.

    ``handled`` are changes made elsewhere that the shop's handlers have seen, or were given up for.
    """

    received: int = 0
    applied: int = 0
    repeats: int = 0
    buried: int = 0
    retried: int = 0
    released: int = 0
    changes: int = 0
    batches: int = 0
    pauses: int = 0
    handled: int = 0
    handlers_given_up: int = 0
    canaries: int = 0
