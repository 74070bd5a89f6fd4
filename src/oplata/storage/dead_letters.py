"""Dead letters: what could not be applied, with its raw bytes and the reason. Nothing here expires."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec
from sqlalchemy import RowMapping, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from oplata.storage.pages import Found, newest
from oplata.storage.session import Session
from oplata.storage.tables import dead_letters

_SEEN = (dead_letters.c.id, dead_letters.c.state, dead_letters.c.times_seen)
_ALL = tuple(dead_letters.c)


class State(StrEnum):
    """What became of a dead letter. One that comes again is open again."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was given up. ``reason`` is one word from a short list, ``detail`` a sentence or a traceback.

    ``attempts`` is how often it was taken up. Terminal and order are what a verified body says if ``verified``; else
    they are what the body claims, good to search by and for nothing else.
    """

    reason: str
    detail: str
    body: bytes
    content_type: str
    headers: Mapping[str, str | int]
    terminal_key: str | None = None
    order_id: str | None = None
    verified: bool = False
    attempts: int = 1
    seen_at_ms: int

    @property
    def fingerprint(self) -> str:
        """Tells one poison from another: the same bytes for the same reason are one dead letter."""
        return hashlib.sha256(self.reason.encode() + b"\0" + self.body).hexdigest()


class Buried(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as it lies in the table. ``settled_*`` say who redrove or discarded it, and are None while open."""

    id: int
    letter: DeadLetter
    fingerprint: str
    first_seen_at_ms: int
    times_seen: int
    state: State
    settled_at_ms: int | None
    settled_by: str | None
    settled_why: str | None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters: all of what is given must hold. Times bound ``last seen``, from the first up to the second.

    ``ids`` of None is any, and an empty one is none. ``state`` of None is any.
    """

    ids: Sequence[int] | None = None
    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    terminal_key: str | None = None
    order_id: str | None = None
    state: State | None = State.OPEN


class DeadLetters:
    """Reads and writes ``dead_letters``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep these. One that lies there already is counted again, and is open again."""
        if not letters:
            return
        insert = self._session.insert(dead_letters)
        statement = insert.on_conflict_do_update(
            index_elements=[dead_letters.c.fingerprint],
            set_={
                "times_seen": dead_letters.c.times_seen + 1,
                "last_seen_at_ms": self._session.greatest(
                    dead_letters.c.last_seen_at_ms, insert.excluded.last_seen_at_ms
                ),
                "detail": insert.excluded.detail,
                "attempts": insert.excluded.attempts,
                "state": State.OPEN.value,
                "settled_at_ms": None,
                "settled_by": None,
                "settled_why": None,
            },
        )
        # Bodies here may be any bytes, which a batch of rows cannot carry; and they are few.
        for letter in sorted(letters, key=lambda each: each.fingerprint):
            await self._session.execute(statement, _row(letter))

    async def search(self, wanted: Wanted, *, limit: int, before: tuple[int, int] | None = None) -> Found[Buried]:
        """The most recently seen of these, newest first; ``before`` is when the last of a page was seen, and its id."""
        place = (dead_letters.c.last_seen_at_ms, dead_letters.c.id)
        found = await newest(
            self._session, _ALL, place, along=_along(wanted), besides=_besides(wanted), before=before, limit=limit
        )
        return found.each(_buried)

    async def page(self, wanted: Wanted, *, after_id: int, limit: int) -> list[Buried]:
        """The next of these by id: what arrives meanwhile comes last, and nothing comes twice."""
        statement = select(*_ALL).where(*_along(wanted), *_besides(wanted), dead_letters.c.id > after_id)
        rows = (await self._session.execute(statement.order_by(dead_letters.c.id).limit(limit))).mappings()
        return [_buried(row) for row in rows]

    async def get(self, letter_id: int) -> Buried | None:
        """One of them, or None."""
        return next(iter((await self.search(Wanted(ids=[letter_id], state=None), limit=1)).rows), None)

    async def settle(self, letters: Sequence[Buried], state: State, *, at_ms: int, by: str, why: str) -> frozenset[int]:
        """Set the state of those that are still as they were read, and return their ids.

        One that came again since then, or that somebody else has settled, stays as it is: it is news.
        """
        given = self._session.source(_SEEN)
        statement = (
            update(dead_letters)
            .values(state=state.value, settled_at_ms=at_ms, settled_by=by, settled_why=why)
            .where(*(col == given.c[col.name] for col in _SEEN))
            .returning(dead_letters.c.id)
        )
        rows = [(each.id, each.state.value, each.times_seen) for each in sorted(letters, key=lambda each: each.id)]
        return frozenset((await self._session.execute(statement, self._session.bind(_SEEN, rows))).scalars())

    async def newest(self, *, limit: int) -> list[tuple[int, DeadLetter]]:
        """The most recently seen of any state, with their ids."""
        return [(each.id, each.letter) for each in (await self.search(Wanted(state=None), limit=limit)).rows]

    async def count(self) -> int:
        """How many there are, of any state."""
        return sum((await self.count_by_state()).values())

    async def count_by_state(self) -> dict[str, int]:
        """How many there are of each state; a state without any is absent."""
        statement = select(dead_letters.c.state, func.count().label("count")).group_by(dead_letters.c.state)
        return {row["state"]: int(row["count"]) for row in (await self._session.execute(statement)).mappings()}

    async def open_by_reason(self, *, limit: int) -> dict[str, int]:
        """How many open ones there are of each reason; no more than ``limit`` rows are looked at."""
        letters = select(dead_letters.c.reason).where(dead_letters.c.state == State.OPEN.value).limit(limit).subquery()
        statement = select(letters.c.reason, func.count().label("count")).group_by(letters.c.reason)
        return {row["reason"]: int(row["count"]) for row in (await self._session.execute(statement)).mappings()}


def _along(wanted: Wanted) -> list[ColumnElement[bool]]:
    """What an index leads to."""
    table = dead_letters.c
    conditions: list[ColumnElement[bool]] = []
    if wanted.ids is not None:
        conditions.append(table.id.in_(wanted.ids))
    if wanted.since_ms is not None:
        conditions.append(table.last_seen_at_ms >= wanted.since_ms)
    if wanted.until_ms is not None:
        conditions.append(table.last_seen_at_ms < wanted.until_ms)
    if wanted.order_id is not None:
        conditions.append(table.order_id == wanted.order_id)
    if wanted.state is not None:
        conditions.append(table.state == wanted.state.value)
    return conditions


def _besides(wanted: Wanted) -> list[ColumnElement[bool]]:
    """What has to be looked at row by row."""
    equal = ((dead_letters.c.reason, wanted.reason), (dead_letters.c.terminal_key, wanted.terminal_key))
    return [col == value for col, value in equal if value is not None]


def _row(letter: DeadLetter) -> dict[str, object]:
    return {
        "fingerprint": letter.fingerprint,
        "reason": letter.reason,
        "detail": letter.detail,
        "body": letter.body,
        "content_type": letter.content_type,
        "headers": msgspec.json.encode(letter.headers).decode(),
        "terminal_key": letter.terminal_key,
        "order_id": letter.order_id,
        "verified": letter.verified,
        "attempts": letter.attempts,
        "first_seen_at_ms": letter.seen_at_ms,
        "last_seen_at_ms": letter.seen_at_ms,
        "times_seen": 1,
    }


def _buried(row: RowMapping) -> Buried:
    # msgspec wants plain str names, and SQLAlchemy's are of a class of their own.
    fields = {str(name): value for name, value in row.items()}
    fields |= {
        "headers": _headers(str(row["headers"])),
        "seen_at_ms": row["last_seen_at_ms"],
        "verified": bool(row["verified"]),
    }
    # Both take what they know of the row and leave the rest.
    return msgspec.convert({**fields, "letter": msgspec.convert(fields, type=DeadLetter)}, type=Buried)


def _headers(text: str) -> dict[str, str | int]:
    try:
        return msgspec.json.decode(text, type=dict[str, str | int])
    except msgspec.MsgspecError:
        return {}  # Whoever reads a message works without any of its headers; its bytes are what counts.
