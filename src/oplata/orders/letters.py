"""Dead letters as an operator sees them, and what becomes of them: redriven, discarded, or tried and left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec

from oplata.bank.masking import shown_body
from oplata.errors import NotFound
from oplata.observability.logging import redact, without_passwords
from oplata.orders.paging import Page, page_of, place_of, within
from oplata.storage.dead_letters import Buried, Wanted
from oplata.storage.engine import Database
from oplata.storage.settling import Act, Move, Outcome, Prospect, Trial

MAX_SETTLED = 1000
"""So many are redriven or discarded by one call; whoever has more calls again."""


class LetterLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line of a list. Times are milliseconds since the Unix epoch."""

    id: int
    state: str
    reason: str
    detail: str
    terminal_key: str | None
    order_id: str | None
    verified: bool
    attempts: int
    times_seen: int
    first_seen_at: int
    last_seen_at: int
    settled_at: int | None
    settled_by: str | None
    settled_why: str | None


class LetterPage(LetterLine, frozen=True, kw_only=True, rename="camel"):
    """All of it. ``body`` is its text, or null for bytes that are none, and then ``body_base64`` holds them."""

    content_type: str
    headers: dict[str, Any]
    body: str | None
    body_base64: str | None


def line(buried: Buried) -> LetterLine:
    """The letter for a list."""
    return LetterLine(**_fields(buried))


def page(buried: Buried) -> LetterPage:
    """The letter with its headers and its body."""
    letter = buried.letter
    text, encoded = shown_body(letter.body)
    headers = dict(redact(None, "", dict(letter.headers)))
    return LetterPage(
        **_fields(buried), content_type=letter.content_type, headers=headers, body=text, body_base64=encoded
    )


class SettledLetter(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What became of one letter. ``outcome`` is redriven, discarded, or left where it came again meanwhile.

    In a dry run ``outcome`` is apply, repeat or bury, for what would happen to it, and ``detail`` says why it would be
    buried again.
    """

    id: int
    outcome: str
    reason: str
    order_id: str | None
    detail: str | None = None


class Movement(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an order would become."""

    order_id: str
    before: str
    after: str
    review: str | None


def movement(move: Move) -> Movement:
    """The move as it is shown."""
    return Movement(order_id=move.order_id, before=move.before, after=move.after, review=move.review)


class Settlement(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one call did to dead letters, or, in a dry run, would do."""

    dry_run: bool
    letters: list[SettledLetter]
    orders: list[Movement]


class Redriver(Protocol):
    """Settles letters; the worker's room does, and these two do not know each other."""

    def redrive(self, wanted: Wanted, act: Act, *, limit: int) -> AsyncIterator[Outcome]: ...
    def discard(self, wanted: Wanted, act: Act, *, limit: int) -> AsyncIterator[Outcome]: ...
    def letters(self, wanted: Wanted, *, limit: int) -> AsyncIterator[Buried]: ...
    def rehearse(self, wanted: Wanted, *, limit: int) -> AsyncIterator[Trial]: ...


class Letters:
    """The dead letters in this database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: Wanted, *, limit: int = 100, cursor: str | None = None) -> Page[LetterLine]:
        """Those seen last first."""
        place = place_of(cursor, tuple[int, int])
        async with self._database.unit_of_work(read_only=True) as uow:
            found = await uow.dead_letters.search(wanted, limit=within(limit), before=place)
        return page_of([line(each) for each in found.rows], found.behind)

    async def get(self, letter_id: int) -> LetterPage:
        """One letter with its body, tokens hidden. Raises ``NotFound``."""
        async with self._database.unit_of_work(read_only=True) as uow:
            buried = await uow.dead_letters.get(letter_id)
        if buried is None:
            raise NotFound(f"there is no dead letter {letter_id}")
        return page(buried)


class Settling:
    """What is done to dead letters, and what would come of it."""

    def __init__(self, redriver: Redriver) -> None:
        self._redriver = redriver

    async def redrive(self, wanted: Wanted, act: Act, *, limit: int = MAX_SETTLED, dry_run: bool = False) -> Settlement:
        """Send these through the queue again, oldest first. Raises the queue's errors; what was sent stays sent."""
        limit = min(max(limit, 1), MAX_SETTLED)
        if not dry_run:
            outcomes = [each async for each in self._redriver.redrive(wanted, act, limit=limit)]
            return _settled(outcomes, "redriven")
        trials = [each async for each in self._redriver.rehearse(wanted, limit=limit)]
        return Settlement(
            dry_run=True,
            letters=[_prospect(each) for trial in trials for each in trial.prospects],
            orders=[movement(each) for trial in trials for each in trial.moves],
        )

    async def discard(self, wanted: Wanted, act: Act, *, limit: int = MAX_SETTLED, dry_run: bool = False) -> Settlement:
        """Put these away, oldest first; their bytes stay."""
        limit = min(max(limit, 1), MAX_SETTLED)
        if not dry_run:
            return _settled([each async for each in self._redriver.discard(wanted, act, limit=limit)], "discarded")
        found = [each async for each in self._redriver.letters(wanted, limit=limit)]
        return Settlement(dry_run=True, letters=[_settled_letter(each, "discard") for each in found], orders=[])


def _settled(outcomes: Sequence[Outcome], done: str) -> Settlement:
    letters = [_settled_letter(each.letter, done if each.settled else "left") for each in outcomes]
    return Settlement(dry_run=False, letters=letters, orders=[])


def _settled_letter(buried: Buried, outcome: str, detail: str | None = None) -> SettledLetter:
    letter = buried.letter
    return SettledLetter(id=buried.id, outcome=outcome, reason=letter.reason, order_id=letter.order_id, detail=detail)


def _prospect(prospect: Prospect) -> SettledLetter:
    return _settled_letter(prospect.letter, prospect.would, prospect.buried_again)


def _fields(buried: Buried) -> dict[str, Any]:
    letter = buried.letter
    return {
        "id": buried.id,
        "state": buried.state.value,
        "reason": letter.reason,
        "detail": without_passwords(letter.detail),
        "terminal_key": letter.terminal_key,
        "order_id": letter.order_id,
        "verified": letter.verified,
        "attempts": letter.attempts,
        "times_seen": buried.times_seen,
        "first_seen_at": buried.first_seen_at_ms,
        "last_seen_at": letter.seen_at_ms,
        "settled_at": buried.settled_at_ms,
        "settled_by": buried.settled_by,
        "settled_why": buried.settled_why,
    }
