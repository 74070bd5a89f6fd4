"""Words: the status that somebody with a key said of an order, beside what its payments make of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Executable, delete, select

from oplata.domain.status import OrderStatus
from oplata.storage.session import Session, built_once
from oplata.storage.tables import words

_COLUMNS = tuple(words.c)


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of an order, by whom, why and when. It stands until it is taken back."""

    order_id: str
    status: str
    said_by: str
    said_why: str | None
    said_at_ms: int


class Words:
    """Reads and writes ``words``. Whoever writes holds the order's lock."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def of_orders(self, order_ids: Sequence[str]) -> dict[str, Word]:
        """What was said of each of these orders; one of which nothing was is absent."""
        bound = self._session.bind((words.c.order_id,), [(order_id,) for order_id in order_ids])
        rows = (await self._session.execute(self._of_orders(), bound)).mappings()
        return {row["order_id"]: Word(**row) for row in rows}

    @built_once
    def _of_orders(self) -> Executable:
        wanted = self._session.source((words.c.order_id,))
        return select(*_COLUMNS).join(wanted, words.c.order_id == wanted.c.order_id)

    async def say(self, word: Word) -> None:
        """Have this stand in the place of what was said before."""
        insert = self._session.insert(words)
        statement = insert.on_conflict_do_update(
            index_elements=[words.c.order_id],
            set_={col.name: insert.excluded[col.name] for col in _COLUMNS if col is not words.c.order_id},
        )
        await self._session.execute(statement, msgspec.structs.asdict(word))

    async def take_back(self, order_id: str) -> None:
        """Have nothing said of this order."""
        await self._session.execute(delete(words).where(words.c.order_id == order_id))


def status_of(word: Word | None) -> OrderStatus | None:
    """The status that was said; None for no word, and for one that somebody damaged."""
    return None if word is None else status_said(word.status)


def status_said(status: str) -> OrderStatus | None:
    """The status that a word's column names; None where somebody damaged it."""
    return OrderStatus(status) if status in OrderStatus.__members__.values() else None
