"""How callbacks ended, counted; and how often that may be written to the log."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from time import monotonic

import msgspec


class Outcome(StrEnum):
    """How a callback ended; each is also the name of its counter."""

    ACCEPTED = "accepted"
    MALFORMED = "malformed"
    NOT_AUTHENTIC = "not_authentic"
    WRONG_NETWORK = "wrong_network"
    WRONG_METHOD = "wrong_method"
    TOO_LONG = "too_long"
    TOO_SLOW = "too_slow"
    OVERLOADED = "overloaded"
    UNCONFIRMED = "unconfirmed"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    STOPPED = "stopped"
    DISCONNECTED = "disconnected"


class Outcomes(msgspec.Struct, kw_only=True):
    """How many callbacks ended in which way, since the process started. ``msgspec.structs.asdict`` makes a dictionary.

    ``accepted`` were answered OK. ``malformed`` to ``too_slow`` are the sender's doing, ``overloaded`` to ``failed``
    ours: the sender was asked to come again. ``stopped`` were cut short by a shutdown that could not wait for them,
    and the sender of a ``disconnected`` one hung up before its body was complete.
    """

    accepted: int = 0
    malformed: int = 0
    not_authentic: int = 0
    wrong_network: int = 0
    wrong_method: int = 0
    too_long: int = 0
    too_slow: int = 0
    overloaded: int = 0
    unconfirmed: int = 0
    unavailable: int = 0
    failed: int = 0
    stopped: int = 0
    disconnected: int = 0

    def count(self, outcome: Outcome) -> None:
        """One more callback ended so."""
        setattr(self, outcome, getattr(self, outcome) + 1)

    @property
    def total(self) -> int:
        """All callbacks that have ended."""
        return sum(msgspec.structs.astuple(self))

    @property
    def refused(self) -> int:
        """Those that were the sender's doing and were answered."""
        return (
            self.malformed + self.not_authentic + self.wrong_network + self.wrong_method + self.too_long + self.too_slow
        )


class LineLimit:
    """Lets at most ``most`` lines through in any one second of the clock, and counts the others.

    A flood of bad callbacks must not fill a disk; the counters still know of every one.
    """

    def __init__(self, most: int = 10, monotonic_s: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._monotonic_s = monotonic_s
        self._second = -1
        self._written = 0
        self._suppressed = 0

    def admit(self) -> int | None:
        """How many lines were suppressed since the last one, or ``None`` when this one is suppressed too."""
        second = int(self._monotonic_s())
        if second != self._second:
            self._second, self._written = second, 0
        if self._written >= self._most:
            self._suppressed += 1
            return None
        self._written += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
