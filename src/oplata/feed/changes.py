"""A reader of the change log, page by page.

Change ids rise in the order of the commits: whoever appends holds one lock from before its first id until its commit
(``storage/changes.py``). So no change can ever appear below an id that somebody has seen, and ``id > last`` is all that
a reader needs to miss nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from oplata.storage.changes import Change
from oplata.storage.engine import Database

Told: TypeAlias = tuple[int, Change]
"""A change with its id."""

PAGE = 500


class ChangeReader:
    """Each call is a short transaction of its own. Raises the errors of storage."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def after(self, last_id: int, *, order_id: str | None = None, limit: int = PAGE) -> Sequence[Told]:
        """The changes after this id, oldest first; of one order, or of all."""
        async with self._database.unit_of_work(read_only=True) as uow:
            return await uow.changes.after(last_id, limit=limit, order_id=order_id)

    async def newest(self, *, limit: int) -> Sequence[Told]:
        """The last changes, oldest first."""
        async with self._database.unit_of_work(read_only=True) as uow:
            return await uow.changes.newest(limit=limit)

    async def last_id(self) -> int:
        """The id of the last change; 0 before the first one."""
        async with self._database.unit_of_work(read_only=True) as uow:
            return await uow.changes.last_id()
