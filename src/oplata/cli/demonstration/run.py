"""The demonstration from its start to its verdict."""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

from oplata.app import Oplata
from oplata.bank.simulator.traffic import Traffic
from oplata.cli.demonstration.bank import Bank
from oplata.cli.demonstration.evidence import ChangeReader, read_back
from oplata.cli.demonstration.screen import FRAMES_PER_S, Screen
from oplata.cli.demonstration.tally import Summary, Tally, summarize
from oplata.cli.lifetime import listening, signals_heard, until_stopped
from oplata.observability.logging import configure
from oplata.queue.base import Queue
from oplata.settings import Settings

HOST = "127.0.0.1"
TERMINALS = ("OplataDEMO", "1683729350126")
MOST_ORDERS = 100_000
"""Where a demonstration without a number ends, should it be left alone for hours."""

DRAIN_TIMEOUT_S = 30.0
POLL_S = 0.02
LIVE_POLL_S = 0.05


async def demonstrate(*, orders: int | None, seed: int, rate_per_s: float, port: int) -> int:
    """Play, show, hold the database against what was accepted; returns the exit code."""
    # The forgeries are refused on purpose, and unknown statuses kept: neither is news here.
    configure("error")
    passwords = {terminal_key: secrets.token_hex(12) for terminal_key in TERMINALS}
    with tempfile.TemporaryDirectory(prefix="oplata-demo-") as folder, signals_heard() as stopping:
        app = Oplata(_settings(Path(folder), passwords))
        async with app, listening(app, HOST, port) as url:
            traffic = Traffic(random.Random(seed), passwords, orders=orders or MOST_ORDERS)  # noqa: S311  # A played bank.
            session = _Session(app, url + app.settings.callback_path, traffic, orders, rate_per_s)
            session.screen.say(
                f"oplata demo is ready: a played bank calls {session.url} (seed {seed}, SQLite, Ctrl-C stops)"
            )
            summary = await session.play(stopping)
    session.screen.summary(summary)
    return 1 if summary.problems else 0


class _Session:
    """One demonstration under way."""

    def __init__(self, app: Oplata, url: str, traffic: Traffic, total: int | None, rate_per_s: float) -> None:
        self.url = url
        self._app = app
        self._traffic = traffic
        self._tally = Tally()
        self._bank = Bank(traffic, self._tally, app.orders, url, rate_per_s)
        self._changes = ChangeReader(app.database)
        self._poll_s = LIVE_POLL_S if total is None else POLL_S
        self._drawn_s = 0.0
        self.screen = Screen(sys.stdout, traffic.orders, self._tally, total)

    async def play(self, stopping: asyncio.Event) -> Summary:
        """Play to the end, or until the event is set; then wait for the queue to be empty, and read back."""
        played = asyncio.Event()
        with self.screen.live():
            guarded = self._app.watch(), self._follow(), self._hurry_when(stopping), self._play_out(played)
            await until_stopped(played, *guarded)
            await self._catch_up()
            self.screen.refresh()
        return summarize(self._tally, self._traffic.orders, await read_back(self._app, self._tally.accepted))

    async def _play_out(self, played: asyncio.Event) -> None:
        await self._bank.play()
        await _drained(self._app.queue)
        played.set()

    async def _hurry_when(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._bank.hurry()
        await asyncio.Event().wait()

    async def _follow(self) -> None:
        while True:
            await self._catch_up()
            if time.monotonic() - self._drawn_s > 1 / FRAMES_PER_S:
                self._drawn_s = time.monotonic()
                self.screen.refresh()
            await asyncio.sleep(self._poll_s)

    async def _catch_up(self) -> None:
        for change in await self._changes.read():
            if change.status == "paid":
                self._tally.paid.setdefault(change.order_id, time.monotonic())
            self.screen.change(change)


async def _drained(queue: Queue) -> None:
    """Wait until the worker has settled everything. What is not settled in time will be missing, and so be told."""
    deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
    while time.monotonic() < deadline_s:
        depth = await queue.depth()
        if depth.ready + depth.unacked + depth.retry == 0:
            return
        await asyncio.sleep(0.05)


def _settings(folder: Path, passwords: dict[str, str]) -> Settings:
    # Values alone: nothing in the environment or the working directory may change a demonstration.
    return Settings(
        terminals=[{"key": key, "passwords": [password]} for key, password in passwords.items()],
        queue_url=f"sqlite:///{folder / 'queue.db'}",
        database_url=f"sqlite:///{folder / 'orders.db'}",
    )
