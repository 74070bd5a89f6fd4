"""The archive: the bytes of every verified callback, as they first arrived."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import func, select, tuple_

from oplata.storage.session import Session
from oplata.storage.tables import callbacks

_COLUMNS = (
    callbacks.c.digest,
    callbacks.c.body,
    callbacks.c.content_type,
    callbacks.c.source,
    callbacks.c.first_seen_at_ms,
    callbacks.c.last_seen_at_ms,
    callbacks.c.times_seen,
)


class ArchivedCallback(msgspec.Struct, frozen=True, kw_only=True):
    """One distinct callback; ``source`` is the network address it first came from, where that is known."""

    digest: str
    body: bytes
    content_type: str
    source: str | None
    first_seen_at_ms: int
    last_seen_at_ms: int
    times_seen: int


class Archive:
    """Reads and writes ``callbacks``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def keep(self, seen: Sequence[ArchivedCallback]) -> None:
        """Store what is new and count what is not. Each digest stands once in ``seen``, in ascending order."""
        given = self._session.source(_COLUMNS)
        statement = self._session.insert(callbacks).from_select(list(given.c.keys()), self._session.every(given))
        statement = statement.on_conflict_do_update(
            index_elements=[callbacks.c.digest],
            set_={
                "times_seen": callbacks.c.times_seen + statement.excluded.times_seen,
                # Clocks differ between endpoints and jump; the later reading is the better guess.
                "last_seen_at_ms": self._session.greatest(
                    callbacks.c.last_seen_at_ms, statement.excluded.last_seen_at_ms
                ),
            },
        )
        await self._session.execute(statement, self._session.bind(_COLUMNS, map(msgspec.structs.astuple, seen)))

    async def get(self, digest: str) -> ArchivedCallback | None:
        """The callback of this event, or None."""
        rows = await self._session.execute(select(*_COLUMNS).where(callbacks.c.digest == digest))
        return next((ArchivedCallback(**row) for row in rows.mappings()), None)

    async def page(
        self, after: tuple[int, str] | None, *, from_ms: int | None, to_ms: int | None, limit: int
    ) -> list[ArchivedCallback]:
        """The next callbacks by the time they were first seen, of those first seen from one time up to another.

        ``after`` is the time and the digest of the last one of the page before.
        """
        place = (callbacks.c.first_seen_at_ms, callbacks.c.digest)
        statement = select(*_COLUMNS).order_by(*place).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*place) > after)
        if from_ms is not None:
            statement = statement.where(callbacks.c.first_seen_at_ms >= from_ms)
        if to_ms is not None:
            statement = statement.where(callbacks.c.first_seen_at_ms < to_ms)
        return [ArchivedCallback(**row) for row in (await self._session.execute(statement)).mappings()]

    async def count(self) -> int:
        """How many distinct callbacks are kept. Reads the whole table: for checks and tests."""
        return int((await self._session.execute(select(func.count()).select_from(callbacks))).scalar_one())
