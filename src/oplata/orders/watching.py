"""An order's changes as they come, each with the id to go on from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

import msgspec

from oplata.domain.status import OrderStatus
from oplata.errors import OrderError
from oplata.rpc import Tracked, tracked
from oplata.storage.changes import Change
from oplata.storage.engine import Database

MAX_ID_DIGITS = 18
MAX_SHARED = 256
"""How many changes are held to be told to many: they come at nearly the same moment to each."""


class StatusChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an order became. ``version`` counts the order's changes from 1; times are milliseconds since the epoch."""

    order_id: str
    version: int
    status: OrderStatus
    previous_status: OrderStatus | None
    amount: int | None
    review: str | None
    changed_at: int


class Feed(Protocol):
    """Where changes come from as they are committed; without a gap, and without end."""

    def pages(
        self, *, after: int | None = None, order_id: str | None = None
    ) -> AsyncGenerator[Sequence[tuple[int, Change]], None]: ...


class Watching:
    """Follows the change log of this database."""

    def __init__(self, database: Database, feed: Feed) -> None:
        self._database = database
        self._feed = feed
        self._told: dict[tuple[int, bool], Tracked[StatusChange]] = {}

    async def changes(
        self, order_id: str | None, last_event_id: str | None, *, for_buyer: bool = False
    ) -> AsyncGenerator[Tracked[StatusChange], None]:
        """As ``orders.onStatusChange`` tells it. Raises ``OrderError`` for an id that is none of ours."""
        after = _number(last_event_id)
        if after is None and order_id is not None:
            # What was told last comes first: it is what a page may have missed between loading and subscribing.
            last = await self._last(order_id)
            after = 0 if last is None else last[0]
            if last is not None:
                yield self._tracked(*last, for_buyer=for_buyer)
        async with aclosing(self._feed.pages(after=after, order_id=order_id)) as pages:
            async for page in pages:
                for change_id, change in page:
                    yield self._tracked(change_id, change, for_buyer=for_buyer)

    def _tracked(self, change_id: int, change: Change, *, for_buyer: bool) -> Tracked[StatusChange]:
        """The same value for all who are told of one change, so that it is checked and written down once for all."""
        known = self._told.get((change_id, for_buyer))
        if known is None:
            known = self._told[change_id, for_buyer] = _told(change_id, change, for_buyer=for_buyer)
            if len(self._told) > MAX_SHARED:
                del self._told[next(iter(self._told))]
        return known

    async def _last(self, order_id: str) -> tuple[int, Change] | None:
        async with self._database.unit_of_work(read_only=True) as uow:
            told = (await uow.changes.of_orders([order_id])).get(order_id)
        return told[-1] if told else None


def _number(last_event_id: str | None) -> int | None:
    if last_event_id is None:
        return None
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > MAX_ID_DIGITS:
        raise OrderError("the last event id is not one that this subscription gave: begin again without it")
    return int(last_event_id)


def _told(change_id: int, change: Change, *, for_buyer: bool) -> Tracked[StatusChange]:
    return tracked(
        str(change_id),
        StatusChange(
            order_id=change.order_id,
            version=change.version,
            status=OrderStatus(change.status),
            previous_status=None if change.previous_status is None else OrderStatus(change.previous_status),
            amount=change.amount_kopecks,
            review=None if for_buyer else change.review,
            changed_at=change.changed_at_ms,
        ),
    )
