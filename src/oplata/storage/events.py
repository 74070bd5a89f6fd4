"""The event store: each fact once, whatever number of times it was told."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import select

from oplata.domain.events import Event, EventKind
from oplata.storage.session import Session
from oplata.storage.tables import events

_COLUMNS = tuple(events.c)


class EventStore:
    """Reads and writes ``events``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def record(self, told: Sequence[Event], at_ms: int) -> frozenset[str]:
        """Claim these events, and return the digests of those nobody had claimed before.

        Each digest stands once in ``told``, in ascending order. An event that another transaction is claiming is
        waited for.
        """
        given = self._session.source(_COLUMNS)
        statement = (
            self._session.insert(events)
            .from_select(list(given.c.keys()), self._session.every(given))
            .on_conflict_do_nothing(index_elements=[events.c.digest])
            .returning(events.c.digest)
        )
        rows = [(*_row(event), at_ms) for event in told]
        return frozenset((await self._session.execute(statement, self._session.bind(_COLUMNS, rows))).scalars())

    async def of_order(self, order_id: str) -> list[Event]:
        """Every event that names this order, in the order of their digests."""
        statement = select(*_COLUMNS).where(events.c.order_id == order_id).order_by(events.c.digest)
        return [_event(dict(row)) for row in (await self._session.execute(statement)).mappings()]

    async def receipts_of(self, order_ids: Sequence[str]) -> dict[str, list[Event]]:
        """The fiscal receipts of each of these orders; an order without any is absent."""
        wanted = self._session.source((events.c.order_id,))
        statement = (
            select(*_COLUMNS)
            .join(wanted, events.c.order_id == wanted.c.order_id)
            .where(events.c.kind == EventKind.RECEIPT.value)
            .order_by(events.c.order_id, events.c.recorded_at_ms, events.c.digest)
        )
        bound = self._session.bind((events.c.order_id,), [(order_id,) for order_id in order_ids])
        found: dict[str, list[Event]] = {}
        for row in (await self._session.execute(statement, bound)).mappings():
            found.setdefault(row["order_id"], []).append(_event(dict(row)))
        return found

    async def known(self, digests: Sequence[str]) -> frozenset[str]:
        """Which of these are recorded."""
        statement = select(events.c.digest).where(events.c.digest.in_(digests))
        return frozenset((await self._session.execute(statement)).scalars())


def _row(event: Event) -> tuple[object, ...]:
    return (
        event.digest,
        event.kind.value,
        event.terminal_key,
        event.payment_id,
        event.order_id,
        event.status,
        event.success,
        event.amount_kopecks,
        msgspec.json.encode(event.details).decode(),
    )


def _event(row: dict[str, object]) -> Event:
    return Event(
        digest=str(row["digest"]),
        kind=EventKind(str(row["kind"])),
        terminal_key=str(row["terminal_key"]),
        payment_id=_text(row["payment_id"]),
        order_id=_text(row["order_id"]),
        status=str(row["status"]),
        success=None if row["success"] is None else bool(row["success"]),
        amount_kopecks=row["amount_kopecks"] if isinstance(row["amount_kopecks"], int) else None,
        details=msgspec.json.decode(str(row["details"]), type=dict[str, str]),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
