"""``kill -9`` of any part while 2,000 callbacks are under way: what was answered OK is applied, and nothing twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from oplata.bank.simulator.traffic import Callback
from tests.chaos.bank import Bank, Ledger
from tests.chaos.examine import deliveries, examine
from tests.chaos.facts import TERMINALS, Oracle, happenings
from tests.chaos.line import Endpoint
from tests.chaos.offspring import Offspring, migrate, oplata, raise_file_limit
from tests.chaos.shop import paced, register
from tests.databases import execute
from tests.services.breakable import NEW_QUEUE_S, Breakable
from tests.services.server import free_port

pytestmark = pytest.mark.anyio

CALLBACKS = 2_000
UNDER_WAY = 500
SETTLE_S = 50.0

SMALL_BATCHES = {"OPLATA_BATCH_SIZE": "25", "OPLATA_PREFETCH": "50"}
"""So that the worker is in the midst of one, with most still to come, whenever it or its database is killed."""

TERMINAL_LIST = ",".join(f'{{"key": "{key}", "passwords": ["{word}"]}}' for key, word in TERMINALS.items())


@dataclass
class House:
    """The program's processes, and where they keep what they know."""

    database_url: str
    serve: Offspring
    worker: Offspring
    port: int
    failures: list[str] = field(default_factory=list)


@asynccontextmanager
async def house(folder: Path, shape: str, settings: Mapping[str, str]) -> AsyncIterator[House]:
    """Run ``up``, or ``serve`` and ``worker``; what is killed is started again 0.3 s later."""
    port = free_port()
    settings = {
        "OPLATA_TERMINALS": f"[{TERMINAL_LIST}]",
        "OPLATA_PORT": str(port),
        "OPLATA_QUEUE_RETRY_DELAYS_MS": "200,1000",
        "OPLATA_DATABASE_URL": f"sqlite:///{folder / 'orders.db'}",
        "OPLATA_QUEUE_URL": f"sqlite:///{folder / 'queue.db'}",
        **settings,
    }
    commands = ["up"] if shape == "embedded" else ["worker", "serve"]
    async with AsyncExitStack() as stack:
        offspring = [oplata(name, name, folder=folder, settings=settings, restart_s=lambda: 0.3) for name in commands]
        for each in offspring:
            await each.start()
            stack.push_async_callback(each.stop)
        for each in offspring:
            await each.until_said("is ready")
        yield House(settings["OPLATA_DATABASE_URL"], offspring[-1], offspring[0], port)


async def until(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = SETTLE_S) -> None:
    """Wait for it."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await condition():  # noqa: ASYNC110  It comes about in other processes.
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"this did not come about in {timeout_s} s: {what}") from None


async def storm(here: House, seed: int, kill: Callable[[Bank], Awaitable[None]]) -> Ledger:
    """Send all callbacks at once, kill in the midst of them, and send again what had no answer, until all is in."""
    raise_file_limit()
    rng = random.Random(seed)
    bank = Bank([Endpoint(here.port)], rng, resend_s=(0.1, 0.4))
    registering = asyncio.create_task(
        register(here.database_url, paced(seed, CALLBACKS, 1.0, rate=CALLBACKS), random.Random(seed))
    )
    for happening in happenings(seed, CALLBACKS):
        if isinstance(happening, Callback):
            bank.send(happening)
    await kill(bank)
    ledger = await bank.settle(SETTLE_S)
    await registering

    async def applied() -> bool:
        return await deliveries(here.database_url) >= ledger.accepted

    await until(applied, f"{ledger.accepted} accepted callbacks are applied")
    return ledger


async def verify(here: House, seed: int, ledger: Ledger) -> None:
    """Nothing was lost, nothing had its effect twice, and nobody unknown had any."""
    oracle = Oracle(seed, CALLBACKS)
    findings = await examine(here.database_url, oracle, ledger)
    assert (ledger.pending, findings.sentences()) == ([], [])
    assert findings.applied == len(oracle.tokens) == len(ledger.oks)


async def accepted(bank: Bank, wanted: int) -> int:
    """Wait until so many were accepted; returns how many callbacks are then under way."""

    async def enough() -> bool:
        return bank.ledger.accepted >= wanted

    await until(enough, f"{wanted} callbacks are accepted")
    return bank.unsettled


async def to_be_applied(here: House, bank: Bank) -> int:
    """Wait until the worker applies more than it has; returns how many of the callbacks are then still to come."""
    applied = before = await deliveries(here.database_url)

    async def applying() -> bool:
        nonlocal applied
        applied = await deliveries(here.database_url)
        return applied > before

    await until(applying, "the worker applies")
    return bank.ledger.sendings - applied


async def test_a_killed_endpoint_loses_nothing(
    tmp_path: Path, amqp_url: str, postgres_url: str, queue_name: str
) -> None:
    settings = distributed(amqp_url, queue_name, postgres_url)
    await migrate(tmp_path, settings)
    async with house(tmp_path, "distributed", settings) as here:
        ledger = await storm(here, 11, lambda bank: killed_thrice(here.serve, bank))
        await verify(here, 11, ledger)
        assert here.serve.codes == [-9, -9, -9]


async def test_a_killed_worker_loses_nothing(tmp_path: Path, amqp_url: str, postgres_url: str, queue_name: str) -> None:
    settings = {**distributed(amqp_url, queue_name, postgres_url), **SMALL_BATCHES}
    await migrate(tmp_path, settings)
    async with house(tmp_path, "distributed", settings) as here:

        async def kill(bank: Bank) -> None:
            for times in range(1, 4):
                assert await to_be_applied(here, bank) >= UNDER_WAY
                await killed(here.worker, times)

        ledger = await storm(here, 15, kill)
        await verify(here, 15, ledger)
        assert here.worker.codes == [-9, -9, -9]


async def test_a_killed_embedded_process_loses_nothing(tmp_path: Path) -> None:
    async with house(tmp_path, "embedded", {}) as here:
        ledger = await storm(here, 12, lambda bank: killed_thrice(here.serve, bank))
        await verify(here, 12, ledger)
        assert here.serve.codes == [-9, -9, -9]


@pytest.mark.parametrize("spool", ["on", "off"])
async def test_a_killed_broker_loses_nothing(
    spool: str, tmp_path: Path, broker: Breakable, postgres_url: str, queue_name: str
) -> None:
    settings = {**distributed(broker.url, queue_name, postgres_url), "OPLATA_SPOOL": spool}
    await migrate(tmp_path, settings)
    async with house(tmp_path, "distributed", settings) as here:
        await here.serve.until_said("queue.ready")
        await here.worker.until_said("queue.ready")
        await asyncio.sleep(NEW_QUEUE_S)

        async def kill(bank: Bank) -> None:
            assert await accepted(bank, 300) >= UNDER_WAY
            await broker.kill9()
            await broker.start()

        ledger = await storm(here, 13, kill)
        await verify(here, 13, ledger)


async def test_a_killed_database_loses_nothing(
    tmp_path: Path, amqp_url: str, database_server: Breakable, queue_name: str
) -> None:
    await execute(database_server.url, f'CREATE DATABASE "{queue_name}"')
    database_url = f"{database_server.url.rpartition('/')[0]}/{queue_name}"
    settings = {**distributed(amqp_url, queue_name, database_url), **SMALL_BATCHES}
    await migrate(tmp_path, settings)
    async with house(tmp_path, "distributed", settings) as here:

        async def kill(bank: Bank) -> None:
            # The endpoint needs no database: what is in its midst is the worker, and not the bank.
            assert await to_be_applied(here, bank) >= UNDER_WAY
            await database_server.kill9()
            await database_server.start()

        ledger = await storm(here, 14, kill)
        await verify(here, 14, ledger)


def distributed(queue_url: str, queue_name: str, database_url: str) -> dict[str, str]:
    """The settings of two processes that share a broker and a database."""
    return {
        "OPLATA_QUEUE_URL": queue_url,
        "OPLATA_QUEUE_NAME": queue_name,
        "OPLATA_DATABASE_URL": database_url,
    }


async def killed_thrice(offspring: Offspring, bank: Bank) -> None:
    """Kill it each time that some more callbacks were accepted."""
    for times, wanted in enumerate((200, 600, 1_000), start=1):
        assert await accepted(bank, wanted) >= UNDER_WAY
        await killed(offspring, times)


async def killed(offspring: Offspring, times: int) -> None:
    """Kill it for the ``times``-th time, and wait until it is ready again."""
    assert offspring.kill9()

    async def ready() -> bool:
        return offspring.restarts == times and "is ready" in offspring.said()

    await until(ready, f"{offspring.name} runs again")
