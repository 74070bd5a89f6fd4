"""The changes that were read last, held once for every subscriber."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from oplata.feed.changes import Told


class Recent:
    """At most ``limit`` changes without a gap between them, oldest first.

    ``floor_id`` says from where on: every change after it is here, up to ``last_id``. Subscribers keep no changes of
    their own, only the id of the last one they were given; so one that is slow costs nothing, and finds what has gone
    from here in the log.
    """

    def __init__(self, floor_id: int, *, limit: int) -> None:
        self.floor_id = floor_id
        self.last_id = floor_id
        self._limit = limit
        self._ids: list[int] = []
        self._told: list[Told] = []
        self._asked: tuple[int, int] | None = None
        self._answered: Sequence[Told] = ()

    def __len__(self) -> int:
        return len(self._told)

    def add(self, page: Sequence[Told]) -> None:
        """Take the changes that follow ``last_id``; the oldest go when there are too many."""
        if not page:
            return
        self._asked = None
        self._ids.extend(change_id for change_id, _ in page)
        self._told.extend(page)
        self.last_id = self._ids[-1]
        surplus = len(self._ids) - self._limit
        if surplus > 0:
            self.floor_id = self._ids[surplus - 1]
            del self._ids[:surplus], self._told[:surplus]

    def after(self, last_id: int, *, limit: int) -> Sequence[Told] | None:
        """The changes after this id, at most so many; None when some of them are no longer here."""
        if last_id >= self.last_id:
            return ()
        if last_id < self.floor_id:
            return None
        # All who have heard everything ask the same, one after another.
        if self._asked != (last_id, limit):
            start = bisect_right(self._ids, last_id)
            self._asked, self._answered = (last_id, limit), self._told[start : start + limit]
        return self._answered
