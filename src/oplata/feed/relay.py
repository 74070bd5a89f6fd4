"""Tells the shop's own systems of every change: a lane for each sink, and none waits for another."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec
import structlog

from oplata.errors import LeaseLost, OplataError
from oplata.feed.hub import Hub
from oplata.feed.lane import Lane, Options
from oplata.feed.lease import RENEWALS, TTL_S, Lease
from oplata.feed.patience import wait_for
from oplata.feed.sinks.base import Sink
from oplata.observability.faults import describe
from oplata.observability.tracing import Tracing
from oplata.queue.backoff import delay_s
from oplata.storage.engine import Database

Start: TypeAlias = int | Literal["now", "beginning"]
"""Where a sink that was never told anything begins; a number is a time in milliseconds since the Unix epoch."""

_LONGEST_PAUSE_S = 10.0
_RELEASE_TIMEOUT_S = 2.0

log = structlog.get_logger("oplata.relay")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A sink with its name, how it is told, and where it begins."""

    name: str
    sink: Sink
    options: Options = Options()
    start: Start = "now"


class Relay:
    """Any number of processes may run one: each sink is told by one of them at a time, and another takes over."""

    def __init__(
        self,
        database: Database,
        hub: Hub,
        targets: Sequence[Target],
        *,
        lease_ttl_s: float = TTL_S,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        rng: random.Random | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._database = database
        self._hub = hub
        self._targets = targets
        self._lease_ttl_s = lease_ttl_s
        self._now_ms = now_ms
        self._rng = rng or random.Random()  # noqa: S311  Jitter is no secret.
        self._tracing = tracing
        self._holder = secrets.token_hex(8)
        self._stopping = asyncio.Event()
        self._lanes: dict[str, Lane] = {}
        self.running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Run it beside whatever else this process does; not at all where there are no sinks."""
        if self._targets and self.running is None:
            self._stopping = asyncio.Event()
            self.running = asyncio.create_task(self.run(), name="oplata-relay")

    async def watch(self) -> None:
        """Raise what ends it, should anything end it before ``drain``."""
        if self.running is not None:
            await asyncio.shield(self.running)

    async def drain(self, timeout_s: float) -> None:
        """End what ``start`` began: finish what is under way, within a limit."""
        running, self.running = self.running, None
        if running is None:
            return
        self.stop()
        _, late = await asyncio.wait({running}, timeout=timeout_s)
        if late:
            log.warning(
                "the relay did not finish in time; what was under way is told once more", action="relay.drain_late"
            )
            running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def run(self) -> None:
        """Tell every sink until ``stop`` is called; then finish what is under way and leave the sinks to others."""
        async with asyncio.TaskGroup() as group:
            for target in self._targets:
                group.create_task(self._serve(target), name=f"oplata-sink-{target.name}")

    def stop(self) -> None:
        """Begin to drain."""
        self._stopping.set()
        for lane in self._lanes.values():
            lane.stop()

    async def _serve(self, target: Target) -> None:
        """Be the one who tells this sink whenever nobody else is."""
        await target.sink.start()
        failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    await self._hold(target)
                    failures = 0
                    await wait_for(self._stopping, self._lease_ttl_s / RENEWALS)
                except LeaseLost as error:
                    log.warning("the sink was lost", action="relay.lost", sink=target.name, error=describe(error))
                except OplataError as error:
                    failures += 1
                    log.warning("the relay waits", action="relay.wait", sink=target.name, error=describe(error))
                    await wait_for(self._stopping, delay_s(failures, self._rng, 0.2, _LONGEST_PAUSE_S))
                except Exception:
                    # A fault of ours with one sink must not end the others.
                    failures += 1
                    log.exception("the relay stumbled", action="relay.fault", sink=target.name)
                    await wait_for(self._stopping, 1.0 + delay_s(failures, self._rng, 0.2, _LONGEST_PAUSE_S))
        finally:
            await target.sink.stop()

    async def _hold(self, target: Target) -> None:
        """Take the sink if it is free, and tell it until it is lost, paused or we are told to stop."""
        await begin(self._database, target.name, target.start, self._now_ms())
        lease = Lease(self._database, target.name, self._holder, ttl_s=self._lease_ttl_s)
        row = await lease.acquire()
        if row is None:
            return
        log.info("the sink is told from here", action="relay.take", sink=target.name, cursor_id=row.cursor_id)
        lane = self._lanes[target.name] = Lane(
            name=target.name,
            sink=target.sink,
            options=target.options,
            database=self._database,
            hub=self._hub,
            lease=lease,
            row=row,
            rng=self._rng,
            tracing=self._tracing,
        )
        if self._stopping.is_set():
            lane.stop()
        try:
            await lane.run()
        finally:
            del self._lanes[target.name]
            await self._release(lease, target.name)

    async def _release(self, lease: Lease, name: str) -> None:
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT_S):
                await lease.release()
        except (OplataError, TimeoutError) as error:
            log.warning("the lease runs out by itself", action="relay.release", sink=name, error=describe(error))


async def begin(database: Database, name: str, start: Start, now_ms: int) -> None:
    """See that the sink has a row; one that is new begins where it is told to."""
    async with database.unit_of_work(read_only=True) as uow:
        if await uow.sinks.get(name) is not None:
            return
    async with database.unit_of_work() as uow:
        if start == "beginning":
            cursor_id = 0
        elif start == "now":
            cursor_id = await uow.changes.last_id()
        else:
            cursor_id = await uow.changes.last_id_before(start)
        await uow.sinks.add(name, cursor_id, now_ms)
        await uow.commit()
    log.info("a new sink", action="relay.begin", sink=name, start=start, cursor_id=cursor_id)
