"""What to do after a failure: pure decisions, so that they can be read and tested as a table."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from oplata.errors import Contention, DatabaseUnavailable, DataRejected, SchemaError

CONTENTION_TRIES = 5
"""How often a batch is tried again at once when another transaction had its rows, before the batch is cut in two."""

MAX_ATTEMPTS = 20
"""How often one message goes up the ladder before it is given up: with the default rungs, more than half a day."""


class Remedy(Enum):
    """How a batch that failed goes on."""

    AGAIN = auto()  # At once, after a short random wait: another transaction was in the way.
    SPLIT = auto()  # In two halves, so that in the end the culprit stands alone.
    LATER = auto()  # It stands alone and may succeed another time: back to the queue, on a rung of the ladder.
    BURY = auto()  # It stands alone and never will succeed, or did not in many attempts: into the dead letters.
    PAUSE = auto()  # Nothing is wrong with the messages; wait for the database.


def remedy(error: Exception, *, size: int, tries: int, attempt: int, max_attempts: int = MAX_ATTEMPTS) -> Remedy:
    """The remedy for a batch of ``size`` messages that failed with ``error`` after ``tries`` tries in a row.

    ``attempt`` counts how often the queue has brought the message, from 1; it matters where the message stands alone.
    """
    if isinstance(error, DataRejected):
        return Remedy.SPLIT if size > 1 else Remedy.BURY
    if isinstance(error, Contention):
        if tries < CONTENTION_TRIES:
            return Remedy.AGAIN
        return _alone(attempt, max_attempts) if size == 1 else Remedy.SPLIT
    if isinstance(error, DatabaseUnavailable | SchemaError):
        return Remedy.PAUSE
    # What nobody foresaw is a fault of one message as far as we can tell: it may not hold up the others.
    return _alone(attempt, max_attempts) if size == 1 else Remedy.SPLIT


def _alone(attempt: int, max_attempts: int) -> Remedy:
    return Remedy.LATER if attempt < max_attempts else Remedy.BURY


def rung_delay_ms(attempt: int, delays_ms: Sequence[int]) -> int:
    """How long a message waits after its ``attempt``-th failure, from 1; the last delay serves all further ones."""
    return delays_ms[min(max(attempt, 1), len(delays_ms)) - 1]
