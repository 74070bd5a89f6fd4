"""The event store: each fact once, whatever number of times it was told."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Executable, and_, exists, select

from oplata.domain.events import Event, EventKind
from oplata.storage.rows import as_json
from oplata.storage.session import Session, built_once
from oplata.storage.tables import callbacks, events, payments

_COLUMNS = tuple(events.c)
_PAYMENT = (events.c.terminal_key, events.c.payment_id)
_KEPT = frozenset({"digest", "recorded_at_ms"})


class EventStore:
    """Reads and writes ``events``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def record(self, told: Sequence[Event], at_ms: int) -> frozenset[str]:
        """Claim these events, and return the digests of those nobody had claimed before.

        Each digest stands once in ``told``, in ascending order. An event that another transaction is claiming is
        waited for.
        """
        rows = [(*_row(event), at_ms) for event in told]
        claimed = await self._session.execute(self._claiming(), self._session.bind(_COLUMNS, rows))
        return frozenset(claimed.scalars())

    @built_once
    def _claiming(self) -> Executable:
        given = self._session.source(_COLUMNS)
        return (
            self._session.insert(events)
            .from_select(list(given.c.keys()), self._session.every(given))
            .on_conflict_do_nothing(index_elements=[events.c.digest])
            .returning(events.c.digest)
        )

    async def restore(self, told: Sequence[Event], at_ms: int) -> None:
        """Write these over what is recorded under their digests, for the archive says that it is wrong.

        Each digest stands once in ``told``, in ascending order.
        """
        given = self._session.source(_COLUMNS)
        statement = self._session.insert(events).from_select(list(given.c.keys()), self._session.every(given))
        statement = statement.on_conflict_do_update(
            index_elements=[events.c.digest],
            set_={col.name: statement.excluded[col.name] for col in _COLUMNS if col.name not in _KEPT},
        )
        rows = [(*_row(event), at_ms) for event in told]
        await self._session.execute(statement, self._session.bind(_COLUMNS, rows))

    async def get(self, digests: Sequence[str]) -> dict[str, Event]:
        """Those of these that are recorded, by digest."""
        wanted = self._session.source((events.c.digest,))
        statement = select(*_COLUMNS).join(wanted, events.c.digest == wanted.c.digest)
        bound = self._session.bind((events.c.digest,), [(digest,) for digest in digests])
        rows = (await self._session.execute(statement, bound)).mappings()
        return {row["digest"]: _event(dict(row)) for row in rows}

    async def of_payments(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Event]]:
        """Every event of each of these payments, by terminal key and payment id; one without any is absent."""
        wanted = self._session.source(_PAYMENT)
        statement = (
            select(*_COLUMNS)
            .join(wanted, and_(*(col == wanted.c[col.name] for col in _PAYMENT)))
            .order_by(*_PAYMENT, events.c.digest)
        )
        found: dict[tuple[str, str], list[Event]] = {}
        for row in (await self._session.execute(statement, self._session.bind(_PAYMENT, keys))).mappings():
            found.setdefault((row["terminal_key"], row["payment_id"]), []).append(_event(dict(row)))
        return found

    async def page(
        self, after: str, *, from_ms: int | None, to_ms: int | None, limit: int
    ) -> list[tuple[Event, bool, bool]]:
        """The next events by digest, of those recorded in a time; whether each has its callback, and its payment."""
        has_callback = exists().where(callbacks.c.digest == events.c.digest)
        has_payment = exists().where(
            payments.c.terminal_key == events.c.terminal_key, payments.c.payment_id == events.c.payment_id
        )
        statement = (
            select(*_COLUMNS, has_callback.label("has_callback"), has_payment.label("has_payment"))
            .where(events.c.digest > after)
            .order_by(events.c.digest)
            .limit(limit)
        )
        if from_ms is not None:
            statement = statement.where(events.c.recorded_at_ms >= from_ms)
        if to_ms is not None:
            statement = statement.where(events.c.recorded_at_ms < to_ms)
        rows = (await self._session.execute(statement)).mappings()
        return [(_event(dict(row)), bool(row["has_callback"]), bool(row["has_payment"])) for row in rows]

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

    async def recorded_at(self, digest: str) -> int | None:
        """When this event was recorded; None for one that is not."""
        statement = select(events.c.recorded_at_ms).where(events.c.digest == digest)
        return (await self._session.execute(statement)).scalar_one_or_none()

    async def known(self, digests: Sequence[str]) -> frozenset[str]:
        """Which of these are recorded."""
        statement = select(events.c.digest).where(events.c.digest.in_(digests))
        return frozenset((await self._session.execute(statement)).scalars())


def written(event: Event) -> tuple[str | None, ...]:
    """An event's columns but for the digest and the time, as texts that a cast makes of it what it was."""
    success, amount = event.success, event.amount_kopecks
    return (
        event.kind.value,
        event.terminal_key,
        event.payment_id,
        event.order_id,
        event.status,
        None if success is None else str(success),
        None if amount is None else str(amount),
        as_json(event.details),
    )


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
        as_json(event.details),
    )


def _event(row: dict[str, object]) -> Event:
    return Event(
        digest=str(row["digest"]),
        kind=_kind(str(row["kind"])),
        terminal_key=str(row["terminal_key"]),
        payment_id=_text(row["payment_id"]),
        order_id=_text(row["order_id"]),
        status=str(row["status"]),
        success=None if row["success"] is None else bool(row["success"]),
        amount_kopecks=row["amount_kopecks"] if isinstance(row["amount_kopecks"], int) else None,
        details=_details(str(row["details"])),
    )


def _kind(word: str) -> EventKind:
    # A row that somebody damaged must be readable, or nothing could compare it with the archive and mend it.
    return EventKind(word) if word in EventKind.__members__.values() else EventKind.OTHER


def _details(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except msgspec.MsgspecError:
        return {"unreadable": text}


def _text(value: object) -> str | None:
    return None if value is None else str(value)
