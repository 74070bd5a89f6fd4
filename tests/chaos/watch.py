"""Looks on from outside, past every wire: how far the workers are, and how much waits for them."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import msgspec

from tests.chaos.faults import ready_messages
from tests.chaos.system import System

PERIOD_S = 0.25
PATIENCE_S = 1.0


class Glance(msgspec.Struct, frozen=True, array_like=True):
    """At one moment: how many changes were told so far, and how many messages are ready; None where nobody answers."""

    at_s: float
    changes: int | None
    ready: int | None


class Watcher:
    """Collects glances until it is cancelled."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._connection: asyncpg.Connection | None = None
        self.glances: list[Glance] = []

    async def run(self) -> None:
        """Look again and again."""
        try:
            while True:
                changes, ready = await asyncio.gather(self._changes(), ready_messages(self._system.broker_url))
                self.glances.append(Glance(time.monotonic(), changes, ready))
                await asyncio.sleep(PERIOD_S)
        finally:
            if self._connection is not None:
                self._connection.terminate()

    async def _changes(self) -> int | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._connection is None:
                    self._connection = await asyncpg.connect(self._system.database_url, timeout=PATIENCE_S)
                return int(await self._connection.fetchval("SELECT last_value FROM changes_id_seq"))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.terminate()
            return None
