"""What a replay finds other than it ought to be, in words that a person reads."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from oplata.domain.events import Event
from oplata.domain.payment import PaymentKey, moves_payment
from oplata.storage.projection import Stored


class Replayed(msgspec.Struct, rename="camel"):
    """What was done so far. ``unreadable`` are callbacks whose bytes are not the fact they are kept under.

    ``pruned`` are those whose bytes a policy took away; their events are taken as they are recorded.
    """

    callbacks: int = 0
    pruned: int = 0
    unreadable: int = 0
    events_recorded: int = 0
    events_restored: int = 0
    payments: int = 0
    payments_mended: int = 0
    orders: int = 0
    orders_restored: int = 0
    orders_changed: int = 0
    rollups_mended: int = 0


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was, or would be, other than it stood. ``kind`` is callback, event, payment or order."""

    kind: str
    key: str
    before: str
    after: str


def payment_keys(events: Iterable[Event]) -> set[PaymentKey]:
    """The payments that these events move."""
    return {(event.terminal_key, event.payment_id or "") for event in events if moves_payment(event)}


def named_orders(events: Iterable[Event]) -> set[str]:
    """The orders that these events name."""
    return {event.order_id for event in events if event.order_id is not None}


def orders_of(*rows: Stored) -> set[str]:
    """Every order that these rows name, or whose payment they say they are."""
    named = {row.order_id for row in rows if row.order_id is not None}
    return named.union(*(row.evidence.orders for row in rows if row.evidence is not None))


def unreadable(digest: str) -> Difference:
    """A callback whose bytes are not the fact it is kept under; nothing can be built from it."""
    return Difference(kind="callback", key=digest, before="bytes of another fact, or of none", after="left as it is")


def forgotten(digest: str) -> Difference:
    """A callback that was pruned and whose event is gone too; nothing here tells of it any more."""
    return Difference(kind="callback", key=digest, before="pruned, and its event is gone", after="left as it is")


def difference(key: PaymentKey, before: Stored, after: Stored) -> Difference:
    """A payment that is not the fold of its events."""
    return Difference(kind="payment", key=key[1], before=_payment_said(before), after=_payment_said(after))


def said(status: str, review: str | None) -> str:
    """A status, and that a person must look."""
    return status if review is None else f"{status}, for review: {review}"


def _payment_said(row: Stored) -> str:
    if row.evidence is None:
        return "unreadable evidence"
    if not row.evidence:
        return "no evidence"
    seen = ", ".join(f"{status} {amounts.low}..{amounts.high}" for status, amounts in row.evidence.seen.items())
    return f"{said(row.status, row.review)} ({seen or 'nothing with success'}; order {row.order_id})"
