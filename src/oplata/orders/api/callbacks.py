"""``callbacks.*``"""

from __future__ import annotations

from oplata.orders.callbacks import CallbackLine, CallbackPage
from oplata.orders.paging import Page
from oplata.orders.visitor import GUARDED, Visitor
from oplata.rpc import Router

callbacks = Router(base=GUARDED)


@callbacks.query(meta={"scope": "read"})
async def get(ctx: Visitor, id: str) -> CallbackPage:  # noqa: A002  It is the name on the wire.
    """One callback: its body with tokens hidden, where it came from, how often, and what it changed."""
    return await ctx.shop.callbacks.get(id)


@callbacks.query(name="list", meta={"scope": "read"})
async def list_(
    ctx: Visitor,
    order_id: str | None = None,
    source: str | None = None,
    since: int | None = None,
    until: int | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[CallbackLine]:
    """Distinct callbacks, those first seen last at the top."""
    return await ctx.shop.callbacks.page(
        order_id=order_id, source=source, since_ms=since, until_ms=until, limit=limit, cursor=cursor
    )
