"""``orders.*``"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from oplata.domain.status import OrderStatus
from oplata.orders.buyer import DEFAULT_LIFETIME_S
from oplata.orders.paging import Page
from oplata.orders.views import OrderView, for_buyer
from oplata.orders.visitor import GUARDED, Visitor
from oplata.orders.watching import StatusChange
from oplata.rpc import Router, Tracked
from oplata.storage.orders import Filter

orders = Router(base=GUARDED)

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class BuyerToken(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a browser is given to watch its own order. ``expiresAt`` is in milliseconds since the Unix epoch."""

    token: str
    expires_at: int


@orders.mutation(meta={"scope": "write"})
async def register(ctx: Visitor, order_id: str, amount: int) -> OrderView:
    """Tell of an order that is to be paid, its amount in kopecks. Doing it twice is doing it once."""
    return await ctx.shop.orders.register(order_id, amount)


@orders.query(meta={"scope": "read", "buyers": True})
async def get(ctx: Visitor, order_id: str) -> OrderView:
    """One registered order with its payments and receipts. A buyer sees neither reviews nor who said what."""
    ctx.refuse_others(order_id)
    view = await ctx.shop.orders.get(order_id)
    return for_buyer(view) if ctx.is_buyer else view


@orders.query(name="list", meta={"scope": "read"})
async def list_(
    ctx: Visitor,
    status: OrderStatus | None = None,
    since: int | None = None,
    until: int | None = None,
    review: bool | None = None,
    text: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[OrderView]:
    """Orders, newest first. Times bound when we first heard of them; ``text`` stands in an id, anywhere."""
    wanted = Filter(
        status=None if status is None else status.value,
        since_ms=since,
        until_ms=until,
        review=review,
        text=text,
    )
    return await ctx.shop.orders.page(wanted, limit=limit, cursor=cursor)


@orders.mutation(meta={"scope": "write"})
async def update_status(ctx: Visitor, order_id: str, status: OrderStatus, reason: Reason | None = None) -> OrderView:
    """Say what an order is. It does not go back, and what the bank holds paid stays paid: CONFLICT then."""
    return await ctx.shop.orders.update_status(order_id, status, who=ctx.name, why=reason)


@orders.mutation(meta={"scope": "operate"})
async def withdraw_status(ctx: Visitor, order_id: str, reason: Reason) -> OrderView:
    """Take back what was said of an order: it is again what its payments make it."""
    return await ctx.shop.orders.withdraw_status(order_id, who=ctx.name, why=reason)


@orders.mutation(meta={"scope": "write"})
async def buyer_token(ctx: Visitor, order_id: str, lifetime_s: int = DEFAULT_LIFETIME_S) -> BuyerToken:
    """A token with which a browser may get and watch this order, and nothing else, for a while."""
    await ctx.shop.orders.get(order_id)
    token, claim = ctx.shop.tokens.mint(order_id, lifetime_s)
    return BuyerToken(token=token, expires_at=claim.expires_at_ms)


@orders.subscription(meta={"scope": "read", "buyers": True})
async def on_status_change(
    ctx: Visitor, order_id: str | None = None, last_event_id: str | None = None
) -> AsyncIterator[Tracked[StatusChange]]:
    """Every change of one order, or of all, from the last id on: no gap and no repeat.

    Without an id one order begins with what was told of it last, so that nothing slips between a page that was loaded
    and the subscription; all orders begin now.
    """
    ctx.refuse_others(order_id)
    with ctx.hold():
        async for each in ctx.shop.watching.changes(order_id, last_event_id, for_buyer=ctx.is_buyer):
            yield each
