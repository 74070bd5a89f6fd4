"""The shop's own handler in a simulated worker, moody while there is trouble, and what must be true of its effects."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from oplata import Change, Handlers, Transaction

TABLE = "CREATE TABLE shipments (order_id TEXT NOT NULL, version INTEGER NOT NULL)"
EVERY = 2
"""One seed in so many has handlers, which costs the others nothing."""


class Shopkeeper:
    """``handlers`` are None in the runs that have none."""

    def __init__(self, seed: int, is_calm: Callable[[], bool]) -> None:
        self.handlers: Handlers | None = None
        self._rng = random.Random(seed ^ 0x5409)
        self._is_calm = is_calm
        if seed % EVERY == 0:
            self.handlers = Handlers()
            self.handlers.on("paid")(self._ship)

    async def _ship(self, change: Change, tx: Transaction) -> None:
        mood = 1.0 if self._is_calm() else self._rng.random()
        if mood < 0.05:
            raise LookupError("the warehouse does not answer")
        await tx.execute(
            "INSERT INTO shipments (order_id, version) VALUES (:order_id, :version)",
            order_id=change.order_id,
            version=change.version,
        )
        if mood < 0.1:
            raise LookupError("the warehouse does not answer any more")
        if mood < 0.15:
            await asyncio.sleep(self._rng.random() * 10)


def wrong(rows: Callable[[str], list[Any]]) -> str | None:
    """What is wrong with the effects: each change by which an order became paid has one, from when it is handled."""
    shipped: dict[tuple[str, int], int] = {}
    for order_id, version in rows("SELECT order_id, version FROM shipments"):
        shipped[order_id, version] = shipped.get((order_id, version), 0) + 1
    paid = "status = 'paid' AND (previous_status IS NULL OR previous_status <> status)"
    for order_id, version, handled in rows(f"SELECT order_id, version, handled FROM changes WHERE {paid}"):  # noqa: S608
        count = shipped.pop((order_id, version), 0)
        if count != (1 if handled else 0):
            return f"change {version} of order {order_id} was shipped {count} times, and handled is {handled}"
    return f"something was shipped that was not paid: {sorted(shipped)}" if shipped else None


def outstanding(rows: Callable[[str], list[Any]]) -> int:
    """How many changes wait for the handler still."""
    waiting = (
        "SELECT count(*) FROM changes WHERE handled IS NULL AND id > (SELECT begun_after_id FROM handler_state) "
        "AND status = 'paid' AND (previous_status IS NULL OR previous_status <> status)"
    )
    return int(rows(waiting)[0][0])
