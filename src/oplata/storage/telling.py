"""The end of a transaction: payments and orders are stored as they are now, and the change log is told.

Both databases lock the log last. PostgreSQL does all of it in one statement, unless the shop's handlers stand between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from oplata.domain.payment import PaymentKey
from oplata.storage.changes import Change, ChangeLog
from oplata.storage.listener import CHANGE_LOG_CHANNEL
from oplata.storage.orders import OrderRow, Orders
from oplata.storage.payments import PAYMENT_COLUMNS, Held, Payments, as_columns
from oplata.storage.rows import Relation, stated
from oplata.storage.session import CHANGE_LOG_LOCK, Session

_TOLD = "order_id version status previous_status amount_kopecks review traceparent"


# An INSERT that always conflicts is an update that always goes by the key's index.
def _stored(relation: Relation) -> str:
    return f"""
WITH {relation("told", _TOLD, 3)},
{relation("paid", PAYMENT_COLUMNS, 11)},
saved AS (
    INSERT INTO payments (terminal_key, payment_id, order_id, status, amount_kopecks, review, evidence, created_at_ms,
        updated_at_ms)
    SELECT terminal_key, payment_id, order_id, status, amount_kopecks::bigint, review, evidence, $19::bigint, $19
    FROM paid ORDER BY n
    ON CONFLICT (terminal_key, payment_id) DO UPDATE SET order_id = excluded.order_id, status = excluded.status,
        amount_kopecks = excluded.amount_kopecks, review = excluded.review, evidence = excluded.evidence,
        updated_at_ms = excluded.updated_at_ms
    RETURNING 1
),
stored AS (
    INSERT INTO orders (order_id, status, review, version, created_at_ms, updated_at_ms)
    SELECT order_id, status, review, version::bigint, $19, $19
    FROM told WHERE (SELECT count(*) FROM saved) >= 0 ORDER BY n
    ON CONFLICT (order_id) DO UPDATE SET status = excluded.status, review = excluded.review,
        version = excluded.version, updated_at_ms = excluded.updated_at_ms
    RETURNING 1
)
"""  # noqa: S608  Names and places, and all of them are ours.


# The log is locked when everything else is stored: whoever holds it holds up all others.
def _telling(relation: Relation) -> str:
    return f"""{_stored(relation)},
change_log AS (
    SELECT pg_advisory_xact_lock({CHANGE_LOG_LOCK}), pg_notify('{CHANGE_LOG_CHANNEL}', '')
    WHERE (SELECT count(*) FROM stored) > 0
)
INSERT INTO changes (order_id, version, status, previous_status, amount_kopecks, review, changed_at_ms, traceparent)
SELECT told.order_id, told.version::bigint, told.status, told.previous_status, told.amount_kopecks::bigint, told.review,
    $19, told.traceparent
FROM change_log CROSS JOIN told
"""  # noqa: S608  Names and places, and all of them are ours.


_STORING = stated(lambda relation: f"{_stored(relation)} SELECT count(*) FROM stored")  # noqa: S608
_TELLING = stated(_telling)


class Telling:
    """Writes ``payments`` and ``orders`` that are locked, and appends to ``changes``."""

    def __init__(self, session: Session, payments: Payments, orders: Orders, changes: ChangeLog) -> None:
        self._session = session
        self._payments = payments
        self._orders = orders
        self._changes = changes

    async def tell(
        self,
        held: Mapping[str, OrderRow],
        told: Sequence[Change],
        paid: Mapping[PaymentKey, Held],
        at_ms: int,
        *,
        handle: Callable[[Sequence[Change]], Awaitable[None]] | None = None,
    ) -> None:
        """Store the payments in ``paid`` and what became of the orders, and tell it; the transaction commits next.

        ``held`` are the rows of the orders, as they stood. ``handle`` runs the shop's handlers.
        """
        if not told and not paid:
            return
        if self._session.dialect == "postgresql":
            statement = _STORING if handle is not None or not told else _TELLING
            await self._session.ask(*statement.over(self._columns(told), as_columns(paid)), at_ms)
            if statement is _TELLING:
                return
        else:
            await self._payments.save(paid, at_ms)
            await self._orders.save({each.order_id: _changed(held[each.order_id], each) for each in told})
        if handle is not None and told:
            # Before the append: from there to the commit everybody waits for us, and a handler may take its time.
            await handle(told)
        await self._changes.append(told, handled=handle is not None)

    def _columns(self, told: Sequence[Change]) -> list[Sequence[str | None]]:
        """The columns of ``_TOLD``."""
        traces = self._changes.traces
        return [
            [each.order_id for each in told],
            [str(each.version) for each in told],
            [each.status for each in told],
            [each.previous_status for each in told],
            [None if each.amount_kopecks is None else str(each.amount_kopecks) for each in told],
            [each.review for each in told],
            [traces.get(each.order_id) for each in told],
        ]


def _changed(order: OrderRow, change: Change) -> OrderRow:
    return msgspec.structs.replace(
        order,
        status=change.status,
        review=change.review,
        version=change.version,
        updated_at_ms=change.changed_at_ms,
    )
