"""``deadLetters.*``"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from oplata.orders.letters import MAX_SETTLED, LetterLine, LetterPage, Settlement
from oplata.orders.paging import Page
from oplata.orders.visitor import GUARDED, Visitor
from oplata.rpc import Router, RpcError
from oplata.storage.dead_letters import State, Wanted
from oplata.storage.settling import Act

letters = Router(base=GUARDED)

Why = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
Ids = Annotated[list[int], msgspec.Meta(max_length=MAX_SETTLED)]
Asked = Literal["open", "redriven", "discarded", "all"]


class Choice(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which dead letters: all that is given must hold. Times bound when they were last seen."""

    ids: Ids | None = None
    reason: str | None = None
    since: int | None = None
    until: int | None = None
    terminal_key: str | None = None
    order_id: str | None = None
    state: Asked = "open"
    everything: bool = False


@letters.query(name="list", meta={"scope": "read"})
async def list_(
    ctx: Visitor, choice: Choice | None = None, limit: int = 100, cursor: str | None = None
) -> Page[LetterLine]:
    """Dead letters, last seen first; the open ones where nothing else is asked."""
    return await ctx.shop.letters.page(_wanted(choice or Choice()), limit=limit, cursor=cursor)


@letters.query(meta={"scope": "read"})
async def get(ctx: Visitor, id: int) -> LetterPage:  # noqa: A002  It is the name on the wire.
    """One dead letter: reason, traceback, headers and body, tokens hidden."""
    return await ctx.shop.letters.get(id)


@letters.mutation(meta={"scope": "operate"})
async def redrive(
    ctx: Visitor, choice: Choice, why: Why, dry_run: bool = False, limit: int = MAX_SETTLED
) -> Settlement:
    """Send dead letters through the queue again, oldest first; or say what would come of it."""
    act = Act(who=ctx.name, why=why)
    return await ctx.shop.settling.redrive(_narrowed(choice), act, limit=limit, dry_run=dry_run)


@letters.mutation(meta={"scope": "operate"})
async def discard(
    ctx: Visitor, choice: Choice, why: Why, dry_run: bool = False, limit: int = MAX_SETTLED
) -> Settlement:
    """Put dead letters away, oldest first; or say which. Their bytes stay."""
    act = Act(who=ctx.name, why=why)
    return await ctx.shop.settling.discard(_narrowed(choice), act, limit=limit, dry_run=dry_run)


def _narrowed(choice: Choice) -> Wanted:
    if choice == Choice(state=choice.state):
        raise RpcError("BAD_REQUEST", "Say which dead letters: ids, filters, or everything: true.")
    return _wanted(choice)


def _wanted(choice: Choice) -> Wanted:
    return Wanted(
        ids=choice.ids,
        reason=choice.reason,
        since_ms=choice.since,
        until_ms=choice.until,
        terminal_key=choice.terminal_key,
        order_id=choice.order_id,
        state=None if choice.state == "all" else State(choice.state),
    )
