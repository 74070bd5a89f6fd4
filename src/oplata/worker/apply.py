"""One unit of work: a batch of genuine callbacks becomes events, payments, orders and changes, all or nothing.

Only this file advances a payment. Whatever is locked is locked in one order: archive, event, payment, order, change
log, each by ascending key; so workers that meet wait for one another, and never in a circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from oplata.domain.events import Event
from oplata.domain.payment import Evidence, PaymentKey, evidence_of, join, moves_payment
from oplata.domain.status import PAYMENT_STATUSES
from oplata.storage.archive import ArchivedCallback
from oplata.storage.changes import Change
from oplata.storage.payments import Held, held
from oplata.storage.unit_of_work import UnitOfWork
from oplata.storage.verdicts import Handle, reach_verdicts
from oplata.worker.batch import Work


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch came to: ``fresh`` events, ``repeats`` of known ones, and the orders that changed.

    ``statuses`` counts the fresh ones by the bank's word. ``unknown_statuses`` are words that the table of statuses
    does not have; they were kept, and moved nothing.
    """

    fresh: int
    repeats: int
    changes: Sequence[Change]
    unknown_statuses: frozenset[str]
    statuses: Mapping[str, int] = {}


async def apply(uow: UnitOfWork, works: Sequence[Work], at_ms: int, *, handle: Handle | None = None) -> Applied:
    """Apply a batch inside the caller's transaction, which the caller commits. Raises the errors of storage."""
    archived, by_digest = _archived(works), {work.event.digest: work.event for work in works}
    told = [by_digest[digest] for digest in sorted(by_digest)]
    paid = _paid(told)
    taken = await uow.intake.take(archived, told, paid, at_ms)
    # To join what was told before adds nothing, so it does not matter which of a payment's events are fresh.
    unsaved = {key: held(join(stood, paid[key].evidence)) for key, stood in sorted(taken.stood.items())}
    moved = {key: unsaved.get(key) or paid[key] for key in taken.moved}
    changes = await reach_verdicts(
        uow,
        {order_id for each in moved.values() for order_id in each.evidence.orders},
        at_ms,
        handle=handle,
        mine={key: each.payment for key, each in moved.items()},
        unsaved=unsaved,
    )
    news = [event for event in told if event.digest in taken.fresh]
    return Applied(
        fresh=len(news),
        repeats=len(works) - len(news),
        changes=changes,
        unknown_statuses=frozenset(_unknown_statuses(news)),
        statuses=Counter(event.status for event in news),
    )


def _paid(told: Iterable[Event]) -> dict[PaymentKey, Held]:
    """The payments that these events move, in ascending order of their keys, with what these events say of them."""
    evidence: dict[PaymentKey, Evidence] = {}
    for event in told:
        if moves_payment(event):
            key, said = (event.terminal_key, event.payment_id or ""), evidence_of(event)
            evidence[key] = join(evidence[key], said) if key in evidence else said
    return {key: held(evidence[key]) for key in sorted(evidence)}


def _archived(works: Sequence[Work]) -> list[ArchivedCallback]:
    """One row per distinct callback, in ascending order of the digests."""
    rows: dict[str, ArchivedCallback] = {}
    for work in works:
        digest, at_ms = work.event.digest, work.received_at_ms
        row = rows.get(digest)
        if row is None:
            rows[digest] = ArchivedCallback(
                digest=digest,
                body=work.delivery.envelope.body,
                content_type=work.content_type,
                source=work.source,
                first_seen_at_ms=at_ms,
                last_seen_at_ms=at_ms,
                times_seen=1,
            )
            continue
        rows[digest] = msgspec.structs.replace(
            row,
            first_seen_at_ms=min(row.first_seen_at_ms, at_ms),
            last_seen_at_ms=max(row.last_seen_at_ms, at_ms),
            times_seen=row.times_seen + 1,
        )
    return [rows[digest] for digest in sorted(rows)]


def _unknown_statuses(news: Iterable[Event]) -> Iterable[str]:
    return (event.status for event in news if event.kind == "payment" and event.status not in PAYMENT_STATUSES)
