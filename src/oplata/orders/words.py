"""What somebody with a key says of an order: kept as a word beside the payments, and judged with them."""

from __future__ import annotations

import msgspec

from oplata.domain.order import judge
from oplata.domain.status import HOLDING, STANDING, OrderStatus
from oplata.errors import OrderError, OrderNotFound, StatusRefused
from oplata.storage.audit import Entry
from oplata.storage.orders import OrderRow
from oplata.storage.unit_of_work import UnitOfWork
from oplata.storage.verdicts import reach_verdicts
from oplata.storage.words import Word

MAX_REASON_LENGTH = 1000


class Speech(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks, and why; both are kept in the audit."""

    who: str
    why: str | None


async def say(uow: UnitOfWork, order_id: str, speech: Speech, *, at_ms: int, status: OrderStatus) -> None:
    """Have the order be ``status``, in the caller's transaction. Raises ``OrderError``."""
    order = await _held(uow, order_id, speech, at_ms)
    if status.value == order.status:
        return  # A program that hears of one payment twice says it twice.
    payments = (await uow.payments.of_orders([order_id])).get(order_id, {})
    refuse(order, judge(order.amount_kopecks, payments).status, status)
    word = Word(order_id=order_id, status=status.value, said_by=speech.who, said_why=speech.why, said_at_ms=at_ms)
    await uow.words.say(word)
    details: dict[str, object] = {"status": status.value, "before": order.status}
    await _tell(uow, order_id, "order.status", speech, details, at_ms)


async def take_back(uow: UnitOfWork, order_id: str, speech: Speech, *, at_ms: int) -> None:
    """Have nothing said of the order, in the caller's transaction. Raises ``OrderError``."""
    await _held(uow, order_id, speech, at_ms)
    word = (await uow.words.of_orders([order_id])).get(order_id)
    if word is None:
        raise OrderError(f"nothing was said of order {order_id}: it is what its payments make it")
    await uow.words.take_back(order_id)
    await _tell(uow, order_id, "order.status_withdrawn", speech, msgspec.structs.asdict(word), at_ms)


def refuse(order: OrderRow, by_payments: OrderStatus, status: OrderStatus) -> None:
    """Raise ``StatusRefused`` where this may not be said of the order, which its payments make ``by_payments``."""
    name = f"order {order.order_id}"
    if status is OrderStatus.UNREGISTERED:
        raise StatusRefused(f"{name} is registered, and that cannot be undone by a word")
    if by_payments in HOLDING:
        raise StatusRefused(
            f"{name} is {by_payments.value} by the bank's own word, and cannot be said to be {status.value}: "
            "refund or cancel the payment at the bank, and its callback changes the order"
        )
    if STANDING[status] < STANDING[OrderStatus(order.status)]:
        raise StatusRefused(
            f"{name} is {order.status} and does not go back to {status.value}"
            + ("" if by_payments.value == order.status else "; if that was said by mistake, take it back first")
        )


async def _held(uow: UnitOfWork, order_id: str, speech: Speech, at_ms: int) -> OrderRow:
    """The registered order, locked."""
    if len(speech.why or "") > MAX_REASON_LENGTH:
        raise OrderError(f"a reason has at most {MAX_REASON_LENGTH} characters")
    known = await uow.orders.get(order_id)
    if known is None or known.amount_kopecks is None:
        # Before the lock, which would make a row of an order that nobody knows.
        raise OrderNotFound(f"order {order_id} is not registered, so nothing can be said of it")
    return (await uow.orders.lock([order_id], at_ms))[order_id]


async def _tell(
    uow: UnitOfWork, order_id: str, action: str, speech: Speech, details: dict[str, object], at_ms: int
) -> None:
    changes = await reach_verdicts(uow, [order_id], at_ms)
    details = {**details, "after": [change.status for change in changes]}
    entry = Entry(
        at_ms=at_ms,
        actor=speech.who,
        action=action,
        subject=f"order:{order_id}",
        reason=speech.why or "",
        details=details,
    )
    await uow.audit.note([entry])
