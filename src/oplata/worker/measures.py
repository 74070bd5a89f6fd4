"""What a worker's transactions come to, measured where they are committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from oplata.domain.status import PAYMENT_STATUSES
from oplata.observability.timings import LONG_SECONDS, SIZES, Timings
from oplata.worker.batch import Part

OTHER = "other"
"""Stands in the metrics for every word that is not one of the bank's that we know: they could be any number."""


class Measures:
    """Filled by the settlement after each commit, read by a scrape."""

    def __init__(self) -> None:
        self.batch_messages = Timings(SIZES)
        self.batch_seconds = Timings()
        self.apply_seconds = Timings(LONG_SECONDS)
        self.events: Counter[str] = Counter()
        self.oldest_s = 0.0

    def committed(self, part: Part, statuses: Mapping[str, int], *, took_s: float, now_ms: int) -> None:
        """A part was committed. ``statuses`` are those of the facts that were new."""
        self.batch_messages.observe(part.size)
        self.batch_seconds.observe(took_s)
        oldest_s = 0.0
        for work in part.works:
            age_s = max(0.0, (now_ms - work.received_at_ms) / 1000)
            self.apply_seconds.observe(age_s)
            oldest_s = max(oldest_s, age_s)
        self.oldest_s = oldest_s
        for status, count in statuses.items():
            self.events[status if status in PAYMENT_STATUSES else OTHER] += count
