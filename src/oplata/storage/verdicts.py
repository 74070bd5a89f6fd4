"""The one place where an order's status is decided and told: by a callback, a registration, a word, or a replay."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from oplata.domain.order import judge
from oplata.domain.payment import Payment, PaymentKey
from oplata.domain.status import OrderStatus
from oplata.storage.changes import Change
from oplata.storage.grounds import Basis
from oplata.storage.orders import OrderRow
from oplata.storage.payments import Held
from oplata.storage.unit_of_work import UnitOfWork

Handle = Callable[[UnitOfWork, Sequence[Change]], Awaitable[None]]
"""Runs the shop's handlers for changes that are about to be told, in the transaction that makes them."""


async def reach_verdicts(
    uow: UnitOfWork,
    order_ids: Iterable[str],
    at_ms: int,
    *,
    handle: Handle | None = None,
    mine: Mapping[PaymentKey, Payment] | None = None,
    unsaved: Mapping[PaymentKey, Held] | None = None,
) -> list[Change]:
    """Lock these orders, judge each by its payments and by what was said of it, store and tell what changed.

    Call it after the payments are locked: two transactions that touch payments of one order meet at the order's lock,
    and the second one sees what the first one committed. ``mine`` are the payments that this transaction holds, as they
    will be; those of them that are ``unsaved`` are stored here.
    """
    wanted = sorted(set(order_ids))
    if not wanted:
        await uow.telling.tell({}, [], unsaved or {}, at_ms)
        return []
    held = await uow.orders.lock(wanted, at_ms)
    # Nothing changes an order that nobody has registered, so that what it rests on need not be read.
    registered = [order_id for order_id in wanted if held[order_id].amount_kopecks is not None]
    basis = await uow.grounds.of_orders(registered, mine or {}) if registered else Basis({}, {})
    told = [
        change
        for order_id in wanted
        if (change := _change(held[order_id], basis.payments.get(order_id, {}), basis.words.get(order_id), at_ms))
        is not None
    ]
    await uow.telling.tell(
        held, told, unsaved or {}, at_ms, handle=None if handle is None else functools.partial(handle, uow)
    )
    return told


def _change(
    order: OrderRow, payments: Mapping[PaymentKey, Payment], word: OrderStatus | None, at_ms: int
) -> Change | None:
    verdict = judge(order.amount_kopecks, payments, word)
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


async def restore_told(uow: UnitOfWork, order_ids: Iterable[str], at_ms: int) -> list[tuple[OrderRow, OrderRow]]:
    """Lock these orders, and make each one's row what the change log says of it; returns each row as it was and is.

    The log is what subscribers know. A row that says something else has been damaged, and mending it is no change to
    them; whether payments and words say otherwise is for ``reach_verdicts`` to tell after this.
    """
    wanted = sorted(set(order_ids))
    if not wanted:
        return []
    held = await uow.orders.lock(wanted, at_ms)
    told = await uow.changes.of_orders(wanted)
    mended: list[tuple[OrderRow, OrderRow]] = []
    for order_id in wanted:
        last = told[order_id][-1][1] if order_id in told else None
        restored = as_told(held[order_id], last)
        if restored == held[order_id]:
            continue
        mended.append((held[order_id], restored))
        if last is not None and last.amount_kopecks is not None and held[order_id].amount_kopecks is None:
            await uow.orders.register(order_id, last.amount_kopecks, told[order_id][0][1].changed_at_ms)
    await uow.orders.save({row.order_id: row for _, row in mended})
    return mended


def as_told(order: OrderRow, last: Change | None) -> OrderRow:
    """The row that belongs to the last change that was told of an order. An amount that stands is left."""
    if last is None:
        return msgspec.structs.replace(order, status=OrderStatus.UNREGISTERED.value, review=None, version=0)
    return msgspec.structs.replace(
        order,
        amount_kopecks=last.amount_kopecks if order.amount_kopecks is None else order.amount_kopecks,
        status=last.status,
        review=last.review,
        version=last.version,
    )
