"""Who calls, and what that opens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from oplata.errors import OplataError
from oplata.orders.refusals import translated
from oplata.orders.scopes import Scope
from oplata.orders.shop import Shop
from oplata.rpc import Base, Call, Proceed, RpcError

Hold = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Visitor:
    """``name`` is what the audit keeps. ``scope`` is None for one without a key; ``order_id`` is a buyer's own order.

    ``hold`` is entered for as long as a stream lasts, which ends when what it was opened with opens nothing any more.
    """

    shop: Shop
    name: str
    scope: Scope | None
    order_id: str | None = None
    hold: Hold = contextlib.nullcontext

    @property
    def is_buyer(self) -> bool:
        """Whether this is a buyer, who sees one order alone."""
        return self.order_id is not None

    def refuse_others(self, order_id: str | None) -> None:
        """Raise ``RpcError`` for a buyer who asks for anything but that order; whether there is one is not said."""
        if self.order_id is not None and order_id != self.order_id:
            raise RpcError("FORBIDDEN", "This token is for another order.")


def owner(shop: Shop, name: str) -> Visitor:
    """Somebody who has the machine anyway: for commands and for programs that embed this one."""
    return Visitor(shop, name, Scope.OPERATE)


async def _allowed(call: Call[Visitor], proceed: Proceed[Visitor]) -> Any:
    visitor, scope = call.ctx, Scope(call.meta["scope"])
    if visitor.is_buyer:
        if not call.meta.get("buyers"):
            raise RpcError("FORBIDDEN", "A buyer's token opens the buyer's own order, and nothing else.")
    elif visitor.scope is None:
        raise RpcError("UNAUTHORIZED", "An API key is needed: send the header `Authorization: Bearer KEY`.")
    elif not visitor.scope.holds(scope):
        raise RpcError("FORBIDDEN", f"This key's scope is {visitor.scope.value}; the call needs {scope.value}.")
    try:
        return await proceed(visitor)
    except OplataError as error:
        # Here, so that a direct call is told the same as one over HTTP.
        known = translated(error)
        if known is None:
            raise
        raise known from error


GUARDED = Base(Visitor).use(_allowed)
"""What every procedure stands on. One that does not say its scope can be called by nobody."""


@contextlib.contextmanager
def ended_at(expires_in_s: float) -> Iterator[None]:
    """End the current task, and the stream that it is, after so long."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  A stream is produced by a task.
    timer = asyncio.get_running_loop().call_later(max(0.0, expires_in_s), task.cancel)
    try:
        yield
    finally:
        timer.cancel()
