"""Events of one payment, as hypothesis draws them: every status, every amount, statuses from the future among them."""

from __future__ import annotations

from hypothesis import strategies as st

from oplata.domain.events import Event, EventKind, digest_of
from oplata.domain.status import PAYMENT_STATUSES

ORDER_KOPECKS = 19_900
AMOUNTS_KOPECKS = st.sampled_from([ORDER_KOPECKS, ORDER_KOPECKS, ORDER_KOPECKS - 1, 1, 0, None])


def paid_event(
    status: str,
    amount_kopecks: int | None = ORDER_KOPECKS,
    *,
    success: bool | None = True,
    order_id: str | None = "order-1",
    payment_id: str | None = "1",
    kind: EventKind = EventKind.PAYMENT,
) -> Event:
    """An event of payment 1 of order-1, with anything else about it as asked."""
    fields = {"Status": status, "Amount": str(amount_kopecks), "Success": str(success), "OrderId": str(order_id)}
    return Event(
        digest=digest_of(fields | {"PaymentId": str(payment_id), "kind": kind}),
        kind=kind,
        terminal_key="T",
        order_id=order_id,
        payment_id=payment_id,
        status=status,
        success=success,
        amount_kopecks=amount_kopecks,
    )


def events() -> st.SearchStrategy[Event]:
    """Any event of one payment."""
    return st.builds(
        paid_event,
        st.sampled_from([*PAYMENT_STATUSES, "CONFIRMED", "CONFIRMED", "NEWS_TO_US", ""]),
        AMOUNTS_KOPECKS,
        success=st.sampled_from([True, True, True, False, None]),
        order_id=st.sampled_from(["order-1", "order-1", "order-1", "order-2", None]),
        kind=st.sampled_from([EventKind.PAYMENT] * 4 + [EventKind.RECEIPT]),
    )


def histories() -> st.SearchStrategy[list[Event]]:
    """All events of one payment, in the order in which they happened to arrive."""
    return st.lists(events(), max_size=8)
