"""What to do after a failure: a pure decision, so that it can be read and tested as a table."""

from __future__ import annotations

from enum import Enum, auto

from oplata.errors import Contention, DatabaseUnavailable, DataRejected, OplataError, SchemaError

CONTENTION_TRIES = 5
"""How often a batch is tried again at once when another transaction had its rows, before the batch is cut in two."""


class Remedy(Enum):
    """How a batch that failed goes on."""

    AGAIN = auto()  # At once, after a short random wait: another transaction was in the way.
    SPLIT = auto()  # In two halves, so that in the end the culprit stands alone.
    BURY = auto()  # It stands alone: into the dead letters with it.
    PAUSE = auto()  # Nothing is wrong with the messages; wait for the database.


def remedy(error: OplataError, *, size: int, tries: int) -> Remedy:
    """The remedy for a batch of ``size`` messages that failed with ``error`` after ``tries`` tries."""
    if isinstance(error, DataRejected):
        return Remedy.SPLIT if size > 1 else Remedy.BURY
    if isinstance(error, Contention):
        if tries < CONTENTION_TRIES:
            return Remedy.AGAIN
        return Remedy.SPLIT if size > 1 else Remedy.PAUSE
    if isinstance(error, DatabaseUnavailable | SchemaError):
        return Remedy.PAUSE
    raise error
