"""What a verification found: an account of what was looked at, and the gaps, each a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from oplata.queue.base import Depth


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that does not fit; ``check`` is the pair that was compared, such as ``events-payments``."""

    check: str
    sentence: str


class Account(msgspec.Struct, kw_only=True, rename="camel"):
    """What was looked at. Money is in kopecks; ``depth`` is None where the queue could not be counted."""

    callbacks: int = 0
    pruned: int = 0
    events: int = 0
    payments: int = 0
    orders: int = 0
    changes: int = 0
    captured_payments: int = 0
    captured_kopecks: int = 0
    accounted_kopecks: int = 0
    paid_orders: int = 0
    paid_kopecks: int = 0
    paid_by_word: int = 0
    orders_for_review: int = 0
    dead_letters: dict[str, int] = {}
    depth: Depth | None = None


class Gaps:
    """Collects gaps: counts all of them and keeps the first ``limit`` of each check."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, check: str, sentences: Iterable[str]) -> None:
        """Note these of one check."""
        for sentence in sentences:
            self._counts[check] = self._counts.get(check, 0) + 1
            kept = self._kept.setdefault(check, [])
            if len(kept) < self._limit:
                kept.append(sentence)

    def of(self, check: str) -> int:
        """How many there are of one check."""
        return self._counts.get(check, 0)

    @property
    def count(self) -> int:
        """How many there are, kept or not."""
        return sum(self._counts.values())

    def __iter__(self) -> Iterator[Gap]:
        """What was kept, check by check; where there were more, a last sentence says how many."""
        for check, sentences in self._kept.items():
            for sentence in sentences:
                yield Gap(check=check, sentence=sentence)
            if (more := self._counts[check] - len(sentences)) > 0:
                yield Gap(check=check, sentence=f"and {more} more")
