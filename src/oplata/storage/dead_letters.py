"""Dead letters: what could not be applied, with its raw bytes and the reason. Nothing here expires."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import func, select

from oplata.storage.session import Session
from oplata.storage.tables import dead_letters

_COLUMNS = tuple(col for col in dead_letters.c if col is not dead_letters.c.id)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was given up. ``reason`` is one word from a short list, ``detail`` a sentence or a traceback."""

    reason: str
    detail: str
    body: bytes
    content_type: str
    headers: Mapping[str, str | int]
    terminal_key: str | None = None
    order_id: str | None = None
    seen_at_ms: int

    @property
    def fingerprint(self) -> str:
        """Tells one poison from another: the same bytes for the same reason are one dead letter."""
        return hashlib.sha256(self.reason.encode() + b"\0" + self.body).hexdigest()


class DeadLetters:
    """Reads and writes ``dead_letters``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep these. One that lies there already is counted again."""
        insert = self._session.insert(dead_letters)
        statement = insert.on_conflict_do_update(
            index_elements=[dead_letters.c.fingerprint],
            set_={
                "times_seen": dead_letters.c.times_seen + 1,
                "last_seen_at_ms": self._session.greatest(
                    dead_letters.c.last_seen_at_ms, insert.excluded.last_seen_at_ms
                ),
            },
        )
        # Bodies here may be any bytes, which a batch of rows cannot carry; and they are few.
        for letter in sorted(letters, key=lambda each: each.fingerprint):
            await self._session.execute(statement, _row(letter))

    async def newest(self, *, limit: int) -> list[tuple[int, DeadLetter]]:
        """The most recently seen, with their ids."""
        statement = select(dead_letters).order_by(dead_letters.c.last_seen_at_ms.desc()).limit(limit)
        return [(row["id"], _letter(dict(row))) for row in (await self._session.execute(statement)).mappings()]

    async def count(self) -> int:
        """How many there are."""
        return int((await self._session.execute(select(func.count()).select_from(dead_letters))).scalar_one())


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
        "first_seen_at_ms": letter.seen_at_ms,
        "last_seen_at_ms": letter.seen_at_ms,
        "times_seen": 1,
    }


def _letter(row: dict[str, object]) -> DeadLetter:
    fields = {name: row[name] for name in ("reason", "detail", "body", "content_type", "terminal_key", "order_id")}
    headers = msgspec.json.decode(str(row["headers"]), type=dict[str, str | int])
    return msgspec.convert({**fields, "headers": headers, "seen_at_ms": row["last_seen_at_ms"]}, type=DeadLetter)
