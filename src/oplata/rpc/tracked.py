"""A value with an id, so that a subscriber who comes back is told only what it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tracked(Generic[T]):
    """One event of a subscription. A client that reconnects sends the last ``id`` as the input ``lastEventId``.

    An id is never empty: an empty one is how the wire says that there is none.
    """

    id: str
    data: T

    def __post_init__(self) -> None:
        if not self.id or any(sign in self.id for sign in "\r\n\0"):
            raise ValueError("The id of a tracked event is a text of one line and is not empty.")


def tracked(event_id: str, data: T) -> Tracked[T]:
    """``yield tracked(str(change.number), change)``."""
    return Tracked(event_id, data)
