"""Callbacks as they came, and what each of them changed."""

from __future__ import annotations

import msgspec

from oplata.bank.masking import shown_body
from oplata.errors import NotFound
from oplata.orders.paging import Page, page_of, place_of, within
from oplata.storage.archive import ArchivedCallback
from oplata.storage.engine import Database
from oplata.storage.unit_of_work import UnitOfWork


class CallbackLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One distinct callback; ``source`` is the address it first came from. Times are milliseconds since the epoch."""

    id: str
    kind: str | None
    order_id: str | None
    payment_id: str | None
    terminal_key: str | None
    status: str | None
    amount: int | None
    source: str | None
    times_seen: int
    first_seen_at: int
    last_seen_at: int


class Changed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change of an order that was made in the transaction that took this callback up."""

    id: int
    order_id: str
    version: int
    status: str
    previous_status: str | None
    review: str | None


class CallbackPage(CallbackLine, frozen=True, kw_only=True, rename="camel"):
    """A callback with its body, tokens hidden and card numbers masked; ``bodyBase64`` holds bytes that are no text.

    A pruned one has no body any more. ``changes`` are empty for one that told nothing new. Callbacks of one order that
    are taken up together change it together, and each shows the same change.
    """

    content_type: str
    body: str | None
    body_base64: str | None
    pruned_at: int | None
    recorded_at: int | None
    changes: list[Changed]


class Callbacks:
    """The archive of this database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        *,
        order_id: str | None = None,
        source: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[CallbackLine]:
        """Those first seen last. Raises ``OrderError`` for a wrong cursor."""
        place = place_of(cursor, tuple[int, str])
        async with self._database.unit_of_work(read_only=True) as uow:
            found = await uow.archive.search(
                order_id=order_id,
                source=source,
                since_ms=since_ms,
                until_ms=until_ms,
                limit=within(limit),
                before=place,
            )
            items = await _lines(uow, found.rows)
        return page_of(items, found.behind)

    async def get(self, callback_id: str) -> CallbackPage:
        """One callback. Raises ``NotFound``."""
        async with self._database.unit_of_work(read_only=True) as uow:
            found = await uow.archive.get(callback_id)
            if found is None:
                raise NotFound(f"there is no callback {callback_id}")
            [line] = await _lines(uow, [found])
            recorded_at_ms = await uow.events.recorded_at(callback_id)
            told = await _changes(uow, line.order_id, recorded_at_ms)
        text, encoded = shown_body(found.body)
        return CallbackPage(
            **msgspec.structs.asdict(line),
            content_type=found.content_type,
            body=text,
            body_base64=encoded,
            pruned_at=found.pruned_at_ms,
            recorded_at=recorded_at_ms,
            changes=told,
        )


async def _lines(uow: UnitOfWork, found: list[ArchivedCallback]) -> list[CallbackLine]:
    told = await uow.events.get([each.digest for each in found]) if found else {}
    lines: list[CallbackLine] = []
    for each in found:
        event = told.get(each.digest)
        lines.append(
            CallbackLine(
                id=each.digest,
                kind=None if event is None else event.kind.value,
                order_id=None if event is None else event.order_id,
                payment_id=None if event is None else event.payment_id,
                terminal_key=None if event is None else event.terminal_key,
                status=None if event is None else event.status,
                amount=None if event is None else event.amount_kopecks,
                source=each.source,
                times_seen=each.times_seen,
                first_seen_at=each.first_seen_at_ms,
                last_seen_at=each.last_seen_at_ms,
            )
        )
    return lines


async def _changes(uow: UnitOfWork, order_id: str | None, recorded_at_ms: int | None) -> list[Changed]:
    """An event is recorded, and what comes of it told, in one transaction and with one reading of the clock."""
    if order_id is None or recorded_at_ms is None:
        return []
    told = (await uow.changes.of_orders([order_id])).get(order_id, [])
    return [
        Changed(
            id=change_id,
            order_id=change.order_id,
            version=change.version,
            status=change.status,
            previous_status=change.previous_status,
            review=change.review,
        )
        for change_id, change in told
        if change.changed_at_ms == recorded_at_ms
    ]
