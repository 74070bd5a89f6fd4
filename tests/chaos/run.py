"""One run from its beginning to its verdict."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from oplata.queue.sqlite import SqliteQueue
from tests.chaos.bank import Ledger
from tests.chaos.examine import changes_told, deliveries, examine, examine_told
from tests.chaos.facts import Oracle
from tests.chaos.faults import Breaker, ready_messages
from tests.chaos.generator import BEGUN, Order
from tests.chaos.offspring import Offspring
from tests.chaos.report import Outcome
from tests.chaos.schedule import Scenario, schedule
from tests.chaos.system import QUEUE, System, running
from tests.chaos.watch import Watcher

SETTLE_S = 120.0
DRAIN_S = 180.0
CALM_S = 3.0
MOST_REGISTRATIONS_PER_S = 30.0
ORDERS_PER_CALLBACK = 0.25


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. The same plan has the same callbacks and the same faults."""

    seed: int
    seconds: float
    rate: float
    scenario: Scenario = "single"

    @property
    def callbacks(self) -> int:
        """How many are sent before the last orders come to their end."""
        return int(self.seconds * self.rate)

    @property
    def share(self) -> float:
        """How many of the orders the shop registers: registering is no part of the load, and costs more than it."""
        return min(1.0, MOST_REGISTRATIONS_PER_S / (self.rate * ORDERS_PER_CALLBACK))


async def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Run it; the logs of all processes are in ``folder``."""
    async with running(folder, plan.seed, plan.scenario) as system:
        began_s = time.monotonic()
        breaker = Breaker(system, lambda text: say(f"{time.monotonic() - began_s:6.1f} s  {text}"))
        watcher = Watcher(system)
        watching = asyncio.create_task(watcher.run())
        bank, shop = _bank(plan, system), _shop(plan, system)
        try:
            await shop.start()
            await bank.start()
            await bank.until_said(BEGUN)
            began_s = time.monotonic()
            await breaker.follow(schedule(plan.seed, plan.seconds, plan.scenario), began_s)
            calm_s = time.monotonic()
            for outsider in (bank, shop):
                if await outsider.ended(plan.seconds + SETTLE_S) != 0:
                    raise AssertionError(f"{outsider.name} failed: {outsider.tail()}")
            ledger = msgspec.msgpack.decode(_ledger_file(system).read_bytes(), type=Ledger)
            oracle = await asyncio.to_thread(Oracle, plan.seed, plan.callbacks, share=plan.share)
            undrained = await _drain(system, ledger)
            drained_s = time.monotonic() - calm_s
            say(f"{time.monotonic() - began_s:6.1f} s  nothing moves any more; now each fact is looked for")
        finally:
            watching.cancel()
            for outsider in (bank, shop):
                await outsider.stop()
        findings = await examine(system.database_url, oracle, ledger)
        await examine_told(system.database_url, system.subscriber, findings)
        if findings.lost:
            say(f"{len(findings.lost)} facts are missing; queues: {await _lying(system)}")
    return Outcome(
        seed=plan.seed,
        rate=plan.rate,
        facts=len(oracle.tokens),
        ledger=ledger,
        findings=findings,
        struck=breaker.struck,
        drains=breaker.drains,
        glances=watcher.glances,
        exits=_exits(system),
        destroyed=breaker.destroyed,
        told=system.subscriber.distinct,
        told_again=system.subscriber.repeats,
        drained_s=drained_s,
        undrained=undrained,
    )


async def _drain(system: System, ledger: Ledger) -> str:
    """Wait until everything that was accepted is applied and nothing moves any more; else say what is missing."""
    deadline_s, applied, calm_since_s, untold = time.monotonic() + DRAIN_S, -1, time.monotonic(), 0
    while time.monotonic() < deadline_s:
        before, applied = applied, await deliveries(system.database_url)
        waiting = await ready_messages(system.broker_url, QUEUE, *system.rungs)
        untold = await changes_told(system.database_url) - system.subscriber.distinct
        if applied != before or applied < ledger.accepted or waiting != 0 or untold or await _spooled(system):
            calm_since_s = time.monotonic()
        if time.monotonic() - calm_since_s > CALM_S:
            return ""
        await asyncio.sleep(0.5)
    lying = await _lying(system)
    return (
        f"after {DRAIN_S:.0f} s {applied} deliveries of {ledger.accepted} sendings are applied, {untold} changes are "
        f"not told; queues: {lying}"
    )


async def _lying(system: System) -> dict[str, int | None]:
    """How many messages lie where, for people who look for some."""
    names = [QUEUE, f"{QUEUE}.dead", *system.rungs]
    return {"spool": await _spooled(system)} | {name: await ready_messages(system.broker_url, name) for name in names}


async def _spooled(system: System) -> int:
    """How many callbacks lie in the spool of this machine."""
    spool = SqliteQueue(system.spool_path)
    await spool.start()
    try:
        depth = await spool.depth()
    finally:
        await spool.stop()
    return depth.ready + depth.unacked + depth.retry + depth.dead


def _bank(plan: Plan, system: System) -> Offspring:
    order = Order(
        seed=plan.seed,
        callbacks=plan.callbacks,
        rate=plan.rate,
        ports=system.ports,
        settle_s=SETTLE_S,
        ledger=str(_ledger_file(system)),
    )
    path = system.folder / "bank.json"
    path.write_bytes(msgspec.json.encode(order))
    return _python("bank", system, ["tests.chaos.generator", str(path)], {})


def _shop(plan: Plan, system: System) -> Offspring:
    arguments = [str(each) for each in (plan.seed, plan.callbacks, plan.share, plan.rate)]
    url = {"CHAOS_DATABASE_URL": system.by_wire("database", system.database_url)}
    return _python("shop", system, ["tests.chaos.shop", *arguments], url)


def _python(name: str, system: System, module: list[str], variables: dict[str, str]) -> Offspring:
    root = str(Path(__file__).resolve().parents[2])
    return Offspring(
        name, [sys.executable, "-m", *module], folder=system.folder, settings={"PYTHONPATH": root, **variables}
    )


def _ledger_file(system: System) -> Path:
    return system.folder / "ledger"


def _exits(system: System) -> list[str]:
    """Our own kills are -9, an end in good order is 0, and -15 was asked to end before it had begun to listen; anything
    else is a fault of the program.
    """
    return [f"{each.name} with {code}" for each in system.offspring for code in each.codes if code not in (0, -9, -15)]
