"""The street in which a Node shop stands: its programs, ours, the bank's calls, and who was told of what."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from oplata.bank.simulator import payload
from oplata.orders.commands import Orders
from tests.chaos.offspring import Offspring, migrate, oplata
from tests.contract.amqp import delete
from tests.databases import opened
from tests.services.node import Node
from tests.services.server import free_port

PATH = "/api/tinkoff-callback"
TERMINAL = {"OPLATA_TERMINAL_KEY": "TestDEMO", "OPLATA_TERMINAL_PASSWORD": "open-sesame"}
WAIT_S = 40.0


@pytest.fixture
async def settings(amqp_url: str, postgres_url: str, queue_name: str) -> AsyncIterator[dict[str, str]]:
    """The program beside a queue of this test's own, as the shop declares it; it is not there afterwards."""
    yield {
        **TERMINAL,
        "OPLATA_QUEUE_URL": amqp_url,
        "OPLATA_QUEUE_NAME": queue_name,
        "OPLATA_QUEUE_DECLARE": "passive",
        "OPLATA_QUEUE_RETRY_DELAYS_MS": "200",
        "OPLATA_DATABASE_URL": postgres_url,
        "RABBITMQ_URL": amqp_url,
        "QUEUE": queue_name,
    }
    await delete(amqp_url, queue_name, f"{queue_name}.dead", f"{queue_name}.retry.200")


@pytest.fixture
async def orders(settings: dict[str, str], tmp_path: Path) -> AsyncIterator[Orders]:
    """Our tables, and the orders in them."""
    await migrate(tmp_path, settings)
    async with opened(settings["OPLATA_DATABASE_URL"]) as database:
        yield Orders(database)


class Street:
    """Starts the programs of a test, theirs and ours, and ends whatever of them still runs."""

    def __init__(self, node: Node, folder: Path, settings: Mapping[str, str]) -> None:
        self._node = node
        self._folder = folder
        self._settings = dict(settings)
        self._running: list[Offspring] = []

    async def theirs(self, name: str, **more: str) -> tuple[Offspring, str]:
        """One of ``examples/node-shop``, and the URL at which it listens if it does."""
        port = free_port()
        command = [self._node.program, str(self._node.folder / f"{name}.mjs")]
        settings = self._settings | {"PORT": str(port)} | more
        return await self.begin(Offspring(name, command, folder=self._folder, settings=settings)), _url(port)

    async def ours(self, name: str, *arguments: str, **more: str) -> tuple[Offspring, str]:
        """One of our commands, and the URL at which it listens if it does."""
        port = free_port()
        settings = self._settings | {"OPLATA_PORT": str(port)} | more
        return await self.begin(oplata(name, name, *arguments, folder=self._folder, settings=settings)), _url(port)

    async def python(self, path: Path, **more: str) -> tuple[Offspring, str]:
        """A Starlette application called ``app`` in this file, and the URL at which it listens."""
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            f"{path.stem}:app",
            "--app-dir",
            str(path.parent),
            "--no-access-log",
        ]
        command += ["--port", str(port)]
        program = Offspring(path.stem, command, folder=self._folder, settings=self._settings | more)
        return await self.begin(program, "startup complete"), _url(port)

    async def run(self, *arguments: str) -> str:
        """Run one of our commands to its end, and return what it printed."""
        once = oplata("once", *arguments, folder=self._folder, settings=self._settings)
        await once.start()
        assert await once.ended() == 0, once.tail()
        return once.said()

    async def begin(self, program: Offspring, ready: str = "is ready") -> Offspring:
        """Start it, and wait until it says so."""
        self._running.append(program)
        await program.start()
        await program.until_said(ready)
        return program

    async def clear(self) -> None:
        """End all of them."""
        for program in reversed(self._running):
            await program.stop()


@pytest.fixture
async def street(node: Node, settings: dict[str, str], tmp_path: Path) -> AsyncIterator[Street]:
    street = Street(node, tmp_path, settings)
    yield street
    await street.clear()


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def notification(order_id: str, payment_id: int, status: str = "CONFIRMED") -> dict[str, object]:
    """What the bank says of a payment of 199 rubles."""
    fields = payload.payment("TestDEMO", order_id, payment_id, status, 0 if status == "REFUNDED" else 19_900)
    more = {"CardId": 7, "Pan": "430000******0777", "DATA": {"Имя": "Покупатель № 1"}}
    return payload.signed(fields | more, TERMINAL["OPLATA_TERMINAL_PASSWORD"])


async def tell(endpoint: str, body: Mapping[str, object]) -> str:
    """As the bank does; returns what it hears."""
    async with httpx.AsyncClient(timeout=WAIT_S) as bank:
        answer = await bank.post(endpoint + PATH, json=body)
    assert answer.status_code == 200, answer.text
    return answer.text


async def known_to(shop: str) -> dict[str, list[str]]:
    """What the shop's own router was told of each order, first to last."""
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        answer: dict[str, Any] = (await client.get(f"{shop}/api/trpc/orders.all")).json()
    told: dict[str, list[str]] = answer["result"]["data"]
    return told


async def until(condition: Callable[[], Awaitable[object]], told: Callable[[], str]) -> None:
    """Wait until it holds; else fail, with what is told."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not await condition():  # noqa: ASYNC110  What is waited for happens in other processes.
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(told()) from None


async def paid(orders: Orders) -> set[str]:
    """The orders that are paid with us."""
    return {order.order_id for order in await orders.list() if order.status == "paid"}


async def is_(found: Awaitable[object], expected: object) -> bool:
    """Whether what is found is what is expected."""
    return await found == expected
