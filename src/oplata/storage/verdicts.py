"""The one place where an order's status is decided and told: by a callback, a registration, or a replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from oplata.domain.order import judge
from oplata.domain.payment import Payment
from oplata.storage.changes import Change
from oplata.storage.orders import OrderRow
from oplata.storage.payments import PaymentKey
from oplata.storage.unit_of_work import UnitOfWork


async def reach_verdicts(uow: UnitOfWork, order_ids: Iterable[str], at_ms: int) -> list[Change]:
    """Lock these orders, judge each by all its payments, store what changed and tell it in the change log.

    Call it after the payments are saved: two transactions that touch payments of one order meet at the order's lock,
    and the second one sees what the first one committed.
    """
    wanted = sorted(set(order_ids))
    if not wanted:
        return []
    held = await uow.orders.lock(wanted, at_ms)
    payments = await uow.payments.of_orders(wanted)
    told = [
        change
        for order_id in wanted
        if (change := _change(held[order_id], payments.get(order_id, {}), at_ms)) is not None
    ]
    await uow.orders.save({change.order_id: _changed(held[change.order_id], change) for change in told})
    await uow.changes.append(told)
    return told


def _change(order: OrderRow, payments: Mapping[PaymentKey, Payment], at_ms: int) -> Change | None:
    verdict = judge(order.amount_kopecks, {payment_id: payment for (_, payment_id), payment in payments.items()})
    if verdict.status.value == order.status and verdict.review == order.review:
        return None
    return Change(
        order_id=order.order_id,
        version=order.version + 1,
        status=verdict.status.value,
        # The shop's first word of an order is its registration; what stood before is not a status to the shop.
        previous_status=order.status if order.version else None,
        amount_kopecks=order.amount_kopecks,
        review=verdict.review,
        changed_at_ms=at_ms,
    )


def _changed(order: OrderRow, change: Change) -> OrderRow:
    return msgspec.structs.replace(
        order,
        status=change.status,
        review=change.review,
        version=change.version,
        updated_at_ms=change.changed_at_ms,
    )
