"""``stats.*``"""

from __future__ import annotations

from oplata.orders.stats import Overview
from oplata.orders.visitor import GUARDED, Visitor
from oplata.rpc import Router

stats = Router(base=GUARDED)


@stats.query(meta={"scope": "read"})
async def overview(ctx: Visitor, hours: int = 24) -> Overview:
    """How many orders stand in each status, what wants a person's eye, and what happened in each of the last hours."""
    return await ctx.shop.stats.overview(hours=hours)
