"""``payments.*``"""

from __future__ import annotations

from oplata.orders.paging import Page
from oplata.orders.payments import PaymentLine, PaymentPage
from oplata.orders.visitor import GUARDED, Visitor
from oplata.rpc import Router

payments = Router(base=GUARDED)


@payments.query(meta={"scope": "read"})
async def get(ctx: Visitor, payment_id: str, terminal_key: str) -> PaymentPage:
    """One payment with everything that the bank told of it."""
    return await ctx.shop.payments.get(payment_id, terminal_key)


@payments.query(name="list", meta={"scope": "read"})
async def list_(
    ctx: Visitor,
    order_id: str | None = None,
    status: str | None = None,
    review: bool | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[PaymentLine]:
    """Payments, newest first; ``status`` is the bank's word."""
    return await ctx.shop.payments.page(order_id=order_id, status=status, review=review, limit=limit, cursor=cursor)
