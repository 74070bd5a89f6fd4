"""`oplata relay` and a real tRPC server of Node: either is killed under load, and every order is told, in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from oplata.feed.steering import Steering
from oplata.storage.engine import Database
from tests.changes import append, change
from tests.chaos.offspring import Offspring, migrate, oplata
from tests.databases import opened
from tests.rpc_conformance.processes import HERE, node_packages
from tests.services.server import free_port
from tests.sinks import assert_in_order

pytestmark = pytest.mark.anyio

VERSION = "11.25"
AUTHORIZATION = "Bearer of-the-shop"
RATE = 500
ORDERS = 50
WAIT_S = 60.0


class Shop:
    """The Node server, and what it has noted."""

    def __init__(self, folder: Path) -> None:
        node_packages()
        self.port = free_port()
        self.notes = folder / "notes.jsonl"
        script = str(HERE / "shop.mjs")
        self.process = Offspring(
            "shop",
            ["node", script, VERSION, str(self.port), str(self.notes), AUTHORIZATION],
            folder=folder,
            settings={},
            restart_s=lambda: 0.7,
        )

    def toml(self, **more: object) -> str:
        """The settings of a relay that tells it."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in more.items()]
        return "\n".join(
            [
                "[[sinks]]",
                'name = "shop"',
                'kind = "trpc"',
                f'url = "http://127.0.0.1:{self.port}/api/trpc"',
                'start = "beginning"',
                f'headers = {{ authorization = "{AUTHORIZATION}" }}',
                'fields = { orderId = "order_id", status = "status", version = "version" }',
                'statuses = { refunded = "cancelled", pending = "" }',
                "retry_delays_ms = [100, 300]",
                *lines,
                "",
            ]
        )

    def told(self) -> dict[str, list[tuple[int, str]]]:
        """What it was told of each order, in the order in which it was."""
        orders: dict[str, list[tuple[int, str]]] = {}
        text = self.notes.read_text(encoding="utf-8") if self.notes.exists() else ""
        for line in text.splitlines():
            call = json.loads(line)
            orders.setdefault(call["orderId"], []).append((call["version"], call["status"]))
        return orders

    async def until_told(self, count: int) -> None:
        """Wait until so many different changes were told."""
        ends_s = time.monotonic() + WAIT_S
        while (told := sum(len(set(calls)) for calls in self.told().values())) < count:
            assert time.monotonic() < ends_s, f"{told} of {count} were told"
            await asyncio.sleep(0.1)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(tmp_path)
    await shop.process.start()
    try:
        yield shop
    finally:
        await shop.process.stop()


@contextlib.asynccontextmanager
async def _relays(count: int, folder: Path, settings: dict[str, str]) -> AsyncIterator[Sequence[Offspring]]:
    relays = [oplata(f"relay-{number}", "relay", folder=folder, settings=settings) for number in range(count)]
    try:
        for relay in relays:
            await relay.start()
        for relay in relays:
            await relay.until_said("is ready")
        yield relays
    finally:
        for relay in relays:
            await relay.stop()


async def _load(database: Database, versions: range, *, meanwhile: Mapping[int, Callable[[], object]]) -> None:
    """All orders take these versions one after another, at the rate; some things happen on the way."""
    for version in versions:
        began_s = time.monotonic()
        await append(database, *(change(f"order-{number}", version, _status(version)) for number in range(ORDERS)))
        meanwhile.get(version, lambda: None)()
        await asyncio.sleep(max(0.0, ORDERS / RATE - (time.monotonic() - began_s)))


def _status(version: int) -> str:
    return ("pending", "paid", "refunded")[min(version, 3) - 1] if version < 4 else "paid"


def _settings(folder: Path, shop: Shop, url: str) -> dict[str, str]:
    (folder / "oplata.toml").write_text(shop.toml(), encoding="utf-8")
    return {"OPLATA_DATABASE_URL": url}


def _assert_all_told(shop: Shop, last: int) -> None:
    told = shop.told()
    assert len(told) == ORDERS
    for order_id in told:
        # Version 1 is pending, which the shop does not want to hear of.
        assert_in_order([version for version, _ in told[order_id]], last, without=[1])
        assert {status for version, status in told[order_id] if version == 3} == {"cancelled"}


async def test_a_shop_that_is_killed_under_load_is_told_all_in_order(
    shop: Shop, tmp_path: Path, database_url: str
) -> None:
    settings = _settings(tmp_path, shop, database_url)
    await migrate(tmp_path, settings)
    async with opened(database_url) as database, _relays(1, tmp_path, settings):
        kill = {4: shop.process.kill9, 9: shop.process.kill9}
        await _load(database, range(1, 15), meanwhile=kill)
        await shop.until_told(13 * ORDERS)
        await _until_noted(database)
    _assert_all_told(shop, 14)


async def test_of_two_relays_the_one_that_tells_is_killed_and_the_other_goes_on(
    shop: Shop, tmp_path: Path, postgres_url: str
) -> None:
    settings = _settings(tmp_path, shop, postgres_url)
    await migrate(tmp_path, settings)
    async with opened(postgres_url) as database, _relays(2, tmp_path, settings) as relays:
        await _load(database, range(1, 6), meanwhile={})
        (teller,) = [relay for relay in relays if "relay.take" in relay.said()]
        await _load(database, range(6, 13), meanwhile={8: teller.kill9})
        await shop.until_told(11 * ORDERS)
    _assert_all_told(shop, 12)


async def test_what_the_shop_refuses_is_dead_and_a_person_has_it_told_again(
    shop: Shop, tmp_path: Path, database_url: str
) -> None:
    settings = _settings(tmp_path, shop, database_url)
    await migrate(tmp_path, settings)
    async with opened(database_url) as database, _relays(1, tmp_path, settings):
        await append(database, change("order-1", 1, "refused"), change("order-1", 2), change("order-2", 1))
        await shop.until_told(2)
        await _until_noted(database, dead=1)
        dead = await _said(tmp_path, settings, "sinks", "deliveries", "shop", "--state", "dead")
        assert "order-1" in dead
        assert "BAD_REQUEST: no such status" in dead
        assert [version for version, _ in shop.told()["order-1"]] == [2]
        await _said(tmp_path, settings, "sinks", "replay", "shop", "--dead", "--why", "the shop was mended")
        async with asyncio.timeout(WAIT_S):
            while [version for version, _ in shop.told()["order-1"]] != [2, 2]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        listed = await _said(tmp_path, settings, "sinks", "list")
        assert "shop: told by a relay; told " in listed
        await _said(tmp_path, settings, "sinks", "pause", "shop", "--why", "the shop moves")
        assert "shop: paused" in await _said(tmp_path, settings, "sinks", "list")
        await _said(tmp_path, settings, "sinks", "resume", "shop", "--why", "it has moved")


async def _until_noted(database: Database, *, dead: int = 0) -> None:
    """Wait until the relay has noted what the shop answered, which it does after the shop was told."""
    ends_s = time.monotonic() + WAIT_S
    while True:
        views = await Steering(database).every()
        noted = [(view.name, view.waiting, view.dead, view.behind) for view in views]
        if noted == [("shop", 0, dead, 0)]:
            return
        assert time.monotonic() < ends_s, noted
        await asyncio.sleep(0.1)


async def _said(folder: Path, settings: dict[str, str], *arguments: str) -> str:
    once = oplata("-".join(arguments[:2]), *arguments, folder=folder, settings=settings)
    await once.start()
    assert await once.ended() == 0, once.tail()
    return once.said()
