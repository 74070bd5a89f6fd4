"""A batch is taken in: the archive keeps it, its events are claimed, and the payments that they move are held.

Both databases lock the archive first, then the events, then the payments, each by ascending key. SQLite does it in a
statement for each. PostgreSQL does it in one, which saves the way there and back; the parts of one statement see the
tables as they were when it began, and the rows that they lock as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate

import msgspec

from oplata.domain.events import Event
from oplata.domain.payment import Evidence, PaymentKey, moves_payment
from oplata.storage.archive import Archive, ArchivedCallback
from oplata.storage.events import EventStore, written
from oplata.storage.payments import PAYMENT_COLUMNS, Held, Payments, as_columns, decoded
from oplata.storage.rows import Relation, stated
from oplata.storage.session import Session

_TOLD = (
    "digest start size content_type source first_seen_at_ms last_seen_at_ms times_seen "
    "kind terminal_key payment_id order_id status success amount_kopecks details payment"
)


# What a part counts it has to wait for: that is what holds the order of the locks. The last sub-select reads rows that
# ``held`` has locked, and follows each to its newest version; it does not see one that was committed since the
# statement began.
def _taking(relation: Relation) -> str:
    return f"""
WITH {relation("told", _TOLD, 3)},
{relation("paid", PAYMENT_COLUMNS, 21)},
archived AS (
    INSERT INTO callbacks (digest, body, content_type, source, first_seen_at_ms, last_seen_at_ms, times_seen)
    SELECT digest, substring($29::bytea, start::integer, size::integer), content_type, source,
        first_seen_at_ms::bigint, last_seen_at_ms::bigint, times_seen::bigint
    FROM told ORDER BY n
    ON CONFLICT (digest) DO UPDATE SET times_seen = callbacks.times_seen + excluded.times_seen,
        last_seen_at_ms = greatest(callbacks.last_seen_at_ms, excluded.last_seen_at_ms)
    RETURNING 1
),
claimed AS (
    INSERT INTO events (digest, kind, terminal_key, payment_id, order_id, status, success, amount_kopecks, details,
        recorded_at_ms)
    SELECT digest, kind, terminal_key, payment_id, order_id, status, success::boolean, amount_kopecks::bigint, details,
        $30::bigint
    FROM told WHERE (SELECT count(*) FROM archived) > 0 ORDER BY n
    ON CONFLICT (digest) DO NOTHING
    RETURNING digest
),
moved AS (
    SELECT paid.* FROM paid
    WHERE n IN (SELECT payment::bigint FROM told JOIN claimed USING (digest) WHERE payment IS NOT NULL)
),
held AS (
    INSERT INTO payments (terminal_key, payment_id, order_id, status, amount_kopecks, review, evidence, created_at_ms,
        updated_at_ms)
    SELECT terminal_key, payment_id, order_id, status, amount_kopecks::bigint, review, evidence, $30, $30
    FROM moved ORDER BY n
    ON CONFLICT (terminal_key, payment_id) DO UPDATE SET status = payments.status WHERE false
    RETURNING terminal_key, payment_id
)
SELECT n AS event, NULL::bigint AS payment, NULL AS evidence
FROM told WHERE NOT EXISTS (SELECT FROM claimed WHERE claimed.digest = told.digest)
UNION ALL
SELECT NULL, known.n, stood.evidence
FROM (
    SELECT n, terminal_key, payment_id FROM moved
    WHERE NOT EXISTS (
        SELECT FROM held WHERE held.terminal_key = moved.terminal_key AND held.payment_id = moved.payment_id
    )
) AS known
LEFT JOIN LATERAL (
    SELECT payments.evidence FROM payments
    WHERE payments.terminal_key = known.terminal_key AND payments.payment_id = known.payment_id
    FOR NO KEY UPDATE OFFSET 0
) AS stood ON true
"""  # noqa: S608  Names and places, and all of them are ours.


_TAKING = stated(_taking)


class Taken(msgspec.Struct, frozen=True):
    """The digests of the events that are ``fresh``, and the evidence of those payments that were known, as it stood.

    ``moved`` are all payments that a fresh event moves. Those that were not known are stored with what was told.
    """

    fresh: frozenset[str]
    moved: Collection[PaymentKey]
    stood: Mapping[PaymentKey, Evidence]


class Intake:
    """Writes ``callbacks`` and ``events``, and locks ``payments``."""

    def __init__(self, session: Session, archive: Archive, events: EventStore, payments: Payments) -> None:
        self._session = session
        self._archive = archive
        self._events = events
        self._payments = payments

    async def take(
        self,
        seen: Sequence[ArchivedCallback],
        told: Sequence[Event],
        paid: Mapping[PaymentKey, Held],
        at_ms: int,
    ) -> Taken:
        """Take in these callbacks; ``told`` are their events, and ``paid`` the payments that those would move.

        ``seen`` and ``told`` are in ascending order of the same digests, ``paid`` in that of its keys. An event that
        another transaction is claiming is waited for.
        """
        if self._session.dialect == "postgresql":
            return await self._take_at_once(seen, told, paid, at_ms)
        await self._archive.keep(seen)
        fresh = await self._events.record(told, at_ms)
        moved = _moved(told, fresh)
        stood = await self._payments.lock({key: held for key, held in paid.items() if key in moved}, at_ms)
        return Taken(fresh, moved, stood)

    async def _take_at_once(
        self, seen: Sequence[ArchivedCallback], told: Sequence[Event], paid: Mapping[PaymentKey, Held], at_ms: int
    ) -> Taken:
        keys = list(paid)
        rows = await self._session.ask(
            *_TAKING.over(_columns(seen, told, keys), as_columns(paid)),
            b"".join([each.body for each in seen]),
            at_ms,
        )
        repeats = {told[row[0] - 1].digest for row in rows if row[0] is not None}
        known = {keys[row[1] - 1]: row[2] for row in rows if row[1] is not None}
        unseen = [key for key, evidence in known.items() if evidence is None]
        stood = {key: decoded(text) for key, text in known.items() if text is not None}
        if unseen:
            # They were made by a transaction that was committed after this statement had begun.
            stood |= await self._payments.read(unseen)
        if not repeats:
            return Taken(frozenset([event.digest for event in told]), keys, stood)
        fresh = frozenset([event.digest for event in told if event.digest not in repeats])
        return Taken(fresh, _moved(told, fresh), stood)


def _moved(told: Sequence[Event], fresh: frozenset[str]) -> Collection[PaymentKey]:
    return {
        (event.terminal_key, event.payment_id or "") for event in told if event.digest in fresh and moves_payment(event)
    }


def _columns(
    seen: Sequence[ArchivedCallback], told: Sequence[Event], keys: Sequence[PaymentKey]
) -> list[Sequence[str | None]]:
    """The columns of ``_TOLD``. A body is where it begins among all of them, counted from 1, and its size."""
    sizes = [len(each.body) for each in seen]
    places = {key: str(place) for place, key in enumerate(keys, 1)}
    return [
        [event.digest for event in told],
        list(map(str, accumulate(sizes[:-1], initial=1))),
        list(map(str, sizes)),
        [each.content_type for each in seen],
        [each.source for each in seen],
        [str(each.first_seen_at_ms) for each in seen],
        [str(each.last_seen_at_ms) for each in seen],
        [str(each.times_seen) for each in seen],
        *zip(*map(written, told), strict=True),
        [places[event.terminal_key, event.payment_id or ""] if moves_payment(event) else None for event in told],
    ]
