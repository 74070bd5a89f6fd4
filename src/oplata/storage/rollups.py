"""Rollups: how many orders stand in each status, and how many entered it in each hour; counted by the database itself.

A trigger on the change log keeps them, in the transaction that changes an order, whichever version of the program does
it. So reading them costs the same for ten orders and for ten million.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sqlalchemy import delete, func, insert, literal, select

from oplata.domain.status import OrderStatus
from oplata.storage.session import Session
from oplata.storage.tables import orders, rollups

NOW = 0
"""Stands in the place of an hour for what is so at present."""

HOUR_MS = 3_600_000
REVIEW = "review"


class Tally(msgspec.Struct, frozen=True):
    """So many orders, with so many kopecks together."""

    orders: int
    kopecks: int


class Rollups:
    """Reads ``rollups``, and writes them only to mend them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def standing(self) -> dict[str, Tally]:
        """The registered orders by their status, and those for review; what there is none of is absent."""
        return (await self.hours(NOW, NOW)).get(NOW, {})

    async def hours(self, from_ms: int, to_ms: int) -> dict[int, dict[str, Tally]]:
        """What entered each status in each hour between these two, both included; quiet hours are absent."""
        statement = select(rollups).where(rollups.c.hour_ms >= from_ms, rollups.c.hour_ms <= to_ms)
        found: dict[int, dict[str, Tally]] = {}
        for row in (await self._session.execute(statement)).mappings():
            if row["orders"] or row["kopecks"]:
                found.setdefault(row["hour_ms"], {})[row["name"]] = Tally(row["orders"], row["kopecks"])
        return found

    async def count_again(self) -> bool:
        """Count the orders that stand, and put right what the rollup says; returns whether it was wrong.

        Reads every order, with the change log held: for somebody who mends.
        """
        await self._session.lock_change_log()
        counted = await self._counted()
        if counted == await self.standing():
            return False
        await self._session.execute(delete(rollups).where(rollups.c.hour_ms == NOW))
        for name, tally in counted.items():
            row = {"hour_ms": NOW, "name": name, "orders": tally.orders, "kopecks": tally.kopecks}
            await self._session.execute(insert(rollups), row)
        return True

    async def _counted(self) -> Mapping[str, Tally]:
        registered = orders.c.status != OrderStatus.UNREGISTERED.value
        by_status = (
            select(orders.c.status, func.count(), func.sum(orders.c.amount_kopecks))
            .where(registered)
            .group_by(orders.c.status)
        )
        reviews = select(literal(REVIEW), func.count(), literal(0)).where(orders.c.review.is_not(None))
        rows = [*(await self._session.execute(by_status)), *(await self._session.execute(reviews))]
        return {str(name): Tally(int(count), int(kopecks or 0)) for name, count, kopecks in rows if count}
