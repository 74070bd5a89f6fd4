"""The right to tell one sink, which one process has at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oplata.errors import LeaseLost
from oplata.storage.engine import Database
from oplata.storage.sinks import SinkRow
from oplata.storage.unit_of_work import UnitOfWork

TTL_S = 12.0
RENEWALS = 4
"""So many times it would be prolonged before it ran out."""


class Lease:
    """A lease in the sink's row, on either database: a holder who dies is followed after ``ttl_s``.

    Whoever holds it believes so only until ``ttl_s`` after he last asked, by his own clock; the next one waits as long
    by the database's, from a later moment. So two never send at once, unless one is frozen in the middle of a request.

    It also knows what the database's clock says. Whatever is put off is put off by that one: the next holder may be on
    a machine whose clock is a day behind.
    """

    def __init__(self, database: Database, sink: str, holder: str, *, ttl_s: float = TTL_S) -> None:
        self._database = database
        self._sink = sink
        self._holder = holder
        self._ttl_s = ttl_s
        self._until_s = 0.0
        self._heard = (0, 0.0)

    def now_ms(self) -> int:
        """The database's clock, as it was heard last, and the time since then."""
        heard_ms, at_s = self._heard
        return heard_ms + round((asyncio.get_running_loop().time() - at_s) * 1000)

    @property
    def renew_s(self) -> float:
        """How often to prolong it."""
        return self._ttl_s / RENEWALS

    @property
    def is_ours(self) -> bool:
        """Whether nobody else can have it."""
        return asyncio.get_running_loop().time() < self._until_s

    async def acquire(self) -> SinkRow | None:
        """Take it if it is free and the sink is not paused."""
        asked_s = asyncio.get_running_loop().time()
        async with self._database.unit_of_work() as uow:
            row = await uow.sinks.acquire(self._sink, self._holder, ttl_ms=self._ttl_ms)
            await uow.commit()
        if row is not None:
            self._until_s = asked_s + self._ttl_s
            self._hear(row, asked_s)
        return row

    @asynccontextmanager
    async def writing(
        self, *, cursor_id: int | None = None, told: int = 0
    ) -> AsyncIterator[tuple[UnitOfWork, SinkRow]]:
        """A transaction that notes how far the sink is, prolongs the lease and commits. Raises ``LeaseLost``."""
        if not self.is_ours:
            raise LeaseLost(f"the lease on the sink {self._sink} was not prolonged in time; it is taken up anew")
        asked_s = asyncio.get_running_loop().time()
        async with self._database.unit_of_work() as uow:
            row = await uow.sinks.hold(self._sink, self._holder, ttl_ms=self._ttl_ms, cursor_id=cursor_id, told=told)
            self._hear(row, asked_s)
            yield uow, row
            await uow.commit()
        self._until_s = max(self._until_s, asked_s + self._ttl_s)

    async def release(self) -> None:
        """Leave it to whoever comes."""
        self._until_s = 0.0
        async with self._database.unit_of_work() as uow:
            await uow.sinks.release(self._sink, self._holder)
            await uow.commit()

    def _hear(self, row: SinkRow, asked_s: float) -> None:
        self._heard = row.lease_until_ms - self._ttl_ms, asked_s

    @property
    def _ttl_ms(self) -> int:
        return round(self._ttl_s * 1000)
