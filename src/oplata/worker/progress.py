"""Whether a worker works: that its process is up says nothing."""

from __future__ import annotations

import asyncio

STALL_S = 120.0
"""Each wait of a loop is bounded, and the longest is a transaction's minute: one that did not go round for so long is
stuck."""


class Progress:
    """When each of the worker's loops last went round, whether it found anything to do or not."""

    def __init__(self) -> None:
        self._turned_at_s: dict[asyncio.Task[object] | None, float] = {}

    def turn(self) -> None:
        """The loop that runs in the current task went round."""
        self._turned_at_s[asyncio.current_task()] = asyncio.get_running_loop().time()

    def end(self) -> None:
        """The loop in the current task has ended, and is not waited for."""
        self._turned_at_s.pop(asyncio.current_task(), None)

    def stalled_s(self) -> float:
        """How many seconds ago the slowest loop went round; 0 where none runs."""
        now_s = asyncio.get_running_loop().time()
        return now_s - min(self._turned_at_s.values(), default=now_s)
