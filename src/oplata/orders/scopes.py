"""What a key opens."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """Each of these holds the ones before it."""

    READ = "read"  # Look at everything.
    WRITE = "write"  # Register orders, say what they are, mint buyers' tokens.
    OPERATE = "operate"  # Redrive and discard dead letters, take words back.

    def holds(self, other: Scope) -> bool:
        """Whether whoever has this one may do what the other one is asked for."""
        ladder = list(Scope)
        return ladder.index(self) >= ladder.index(other)
