"""``audit.*``"""

from __future__ import annotations

from oplata.orders.audit import AuditLine
from oplata.orders.paging import Page
from oplata.orders.visitor import GUARDED, Visitor
from oplata.rpc import Router

audit = Router(base=GUARDED)


@audit.query(name="list", meta={"scope": "read"})
async def list_(
    ctx: Visitor,
    subject: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> Page[AuditLine]:
    """Who did what, the latest first; ``subject`` is such as order:7 or dead_letter:12."""
    return await ctx.shop.audit.page(subject=subject, actor=actor, action=action, limit=limit, cursor=cursor)
