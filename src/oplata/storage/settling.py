"""What becomes of dead letters, and what would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from oplata.storage.dead_letters import Buried


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """Who does it and why; both are kept in the audit."""

    who: str
    why: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one letter. ``settled`` is false where it came again, or was settled, while it was in hand."""

    letter: Buried
    settled: bool


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """What an order would become."""

    order_id: str
    before: str
    after: str
    review: str | None


class Prospect(msgspec.Struct, frozen=True, kw_only=True):
    """What a redrive of one letter would do: ``buried_again`` says why it would end here again, if it would.

    ``fresh`` is whether its fact is new. ``order_id`` is a verified one, or None.
    """

    letter: Buried
    buried_again: str | None
    fresh: bool
    order_id: str | None

    @property
    def would(self) -> Literal["apply", "repeat", "bury"]:
        """The same in a word."""
        if self.buried_again is not None:
            return "bury"
        return "apply" if self.fresh else "repeat"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What a redrive of one batch of letters would do."""

    prospects: Sequence[Prospect]
    moves: Sequence[Move]
