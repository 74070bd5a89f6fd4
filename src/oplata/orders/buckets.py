"""Token buckets: how often somebody may call, and for how long a burst may go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

MAX_BUCKETS = 10_000
"""Beyond these the one that was used longest ago is forgotten, and with it that it was ever empty."""


class Buckets:
    """A bucket for each name: it holds ``burst`` calls and is filled with ``rate_per_s``."""

    def __init__(
        self,
        rate_per_s: float,
        burst: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_buckets: int = MAX_BUCKETS,
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._max_buckets = max_buckets
        self._levels: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._levels)

    def has(self, name: str, calls: int = 1) -> bool:
        """Whether so many calls would be granted now. A request of more than a whole bucket needs a full one."""
        return self._level(name) >= min(calls, self._burst)

    def take(self, name: str, calls: int = 1) -> bool:
        """Take so many calls, or none and return False."""
        level = self._level(name)
        granted = level >= min(calls, self._burst)
        # Taken out and put in again, it stands last: the first one is the one that was used longest ago.
        self._levels.pop(name, None)
        self._levels[name] = (level - calls if granted else level, self._clock())
        if len(self._levels) > self._max_buckets:
            del self._levels[next(iter(self._levels))]
        return granted

    def _level(self, name: str) -> float:
        level, at_s = self._levels.get(name, (self._burst, 0.0))
        return min(self._burst, level + (self._clock() - at_s) * self._rate_per_s)


def neighbourhood(address: str) -> str:
    """Who is counted as one: an IPv4 address, or the network of IPv6 that one household has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        # A socket of both families shows every IPv4 peer so, and they are no household.
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))
