"""The newest canary that came through: one row, which nothing but the metrics ever reads."""

from __future__ import annotations

from sqlalchemy import select

from oplata.storage.session import Session
from oplata.storage.tables import canaries

_NAME = "callbacks"


class Canaries:
    """Reads and writes ``canaries``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def note(self, sent_at_ms: int) -> None:
        """One that was sent then came through; an older one than is known changes nothing."""
        insert = self._session.insert(canaries)
        newest = self._session.greatest(canaries.c.sent_at_ms, insert.excluded.sent_at_ms)
        statement = insert.on_conflict_do_update(index_elements=[canaries.c.name], set_={"sent_at_ms": newest})
        await self._session.execute(statement, {"name": _NAME, "sent_at_ms": sent_at_ms})

    async def newest_ms(self) -> int | None:
        """When the newest one was sent; None where none ever came through."""
        found = await self._session.execute(select(canaries.c.sent_at_ms).where(canaries.c.name == _NAME))
        newest_ms = found.scalar_one_or_none()
        return None if newest_ms is None else int(newest_ms)
