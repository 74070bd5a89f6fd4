"""Keeps a sink that is down from being asked for every order, and tells that from one order that it cannot take."""

from __future__ import annotations

import asyncio
import random

from oplata.feed.patience import wait_for

FAILURES_TO_OPEN = 5
"""So many orders in a row must fail: one order that the sink chokes on is no reason to stop the others."""

SILENCE_S = 300.0
"""So long may what is asked fail without anything taken in between: a shop with two orders an hour is down as well."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class Breaker:
    """Closed, it lets everyone through. Open, one at a time after a pause: a probe, which closes it or not."""

    def __init__(
        self,
        *,
        rng: random.Random,
        failures_to_open: int = FAILURES_TO_OPEN,
        silence_s: float = SILENCE_S,
        first_pause_s: float = FIRST_PAUSE_S,
        longest_pause_s: float = LONGEST_PAUSE_S,
    ) -> None:
        self._rng = rng
        self._failures_to_open = failures_to_open
        self._silence_s = silence_s
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._failed: set[str] = set()
        self._failing_since_s = 0.0
        self._pauses = 0
        self._open_until_s = 0.0
        self._probing = False
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether the sink is held to be down."""
        if len(self._failed) >= self._failures_to_open:
            return True
        return bool(self._failed) and asyncio.get_running_loop().time() - self._failing_since_s >= self._silence_s

    async def enter(self) -> bool:
        """Wait until an attempt may be made; True when it is a probe. One of the three below must follow."""
        now_s = asyncio.get_running_loop().time
        while self.is_open:
            left_s = self._open_until_s - now_s()
            if not self._probing and left_s <= 0:
                self._probing = True
                return True
            await wait_for(self._changed, self._longest_pause_s if self._probing else left_s)
        return False

    def succeeded(self) -> None:
        """The sink answered, be it with a refusal."""
        self._failed.clear()
        self._pauses = 0
        self._end_probe()

    def failed(self, order_id: str, *, probe: bool) -> None:
        """The sink did not take this order's change."""
        was_open, now_s = self.is_open, asyncio.get_running_loop().time()
        if not self._failed:
            self._failing_since_s = now_s
        self._failed.add(order_id)
        if self.is_open and (probe or not was_open):
            self._pauses += 1
            whole_s = min(self._longest_pause_s, self._first_pause_s * 2.0 ** min(self._pauses - 1, 30))
            self._open_until_s = now_s + whole_s * (0.5 + self._rng.random() / 2)
        if probe:
            self._end_probe()

    def abandoned(self, *, probe: bool) -> None:
        """The attempt was given up before anything was known."""
        if probe:
            self._end_probe()

    def _end_probe(self) -> None:
        self._probing = False
        self._changed.set()
        self._changed = asyncio.Event()
