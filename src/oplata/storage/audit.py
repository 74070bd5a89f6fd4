"""The audit: who did what to which thing, when and why. Rows are added and never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import insert

from oplata.storage.pages import Found, newest
from oplata.storage.session import Session
from oplata.storage.tables import audit

_COLUMNS = tuple(col for col in audit.c if col is not audit.c.id)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One act. ``subject`` is such as ``dead_letter:12``; ``reason`` is in the actor's own words."""

    at_ms: int
    actor: str
    action: str
    subject: str
    reason: str
    details: Mapping[str, object] = {}


class Noted(Entry, frozen=True, kw_only=True):
    """An entry with its number; later ones have higher numbers."""

    id: int


class Audit:
    """Reads and writes ``audit``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def note(self, entries: Sequence[Entry]) -> None:
        """Add these, in the transaction that does what they tell of."""
        if not entries:
            return
        given = self._session.source(_COLUMNS)
        statement = insert(audit).from_select(list(given.c.keys()), self._session.every(given))
        rows = [
            (each.at_ms, each.actor, each.action, each.subject, each.reason, msgspec.json.encode(each.details).decode())
            for each in entries
        ]
        await self._session.execute(statement, self._session.bind(_COLUMNS, rows))

    async def newest(self, *, subject: str | None = None, limit: int) -> list[Entry]:
        """The latest entries, newest first; of one subject, or of all."""
        noted = await self.search(subject=subject, actor=None, action=None, limit=limit, before=None)
        names = Entry.__struct_fields__
        return [Entry(**{name: getattr(each, name) for name in names}) for each in noted.rows]

    async def search(
        self, *, subject: str | None, actor: str | None, action: str | None, limit: int, before: tuple[int] | None
    ) -> Found[Noted]:
        """The latest of these, newest first; ``before`` is the id of the last one of the page before."""
        found = await newest(
            self._session,
            tuple(audit.c),
            (audit.c.id,),
            along=() if subject is None else (audit.c.subject == subject,),
            besides=[
                col == value for col, value in ((audit.c.actor, actor), (audit.c.action, action)) if value is not None
            ],
            before=before,
            limit=limit,
        )
        return found.each(lambda row: Noted(**{**row, "details": msgspec.json.decode(row["details"])}))
