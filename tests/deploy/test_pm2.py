"""PM2 really runs the processes of the ecosystem file, and what is killed comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oplata.orders.commands import Orders
from tests.acceptance.command import SCRIPT, environment
from tests.databases import callback, opened, select_all
from tests.notifications import PASSWORD, TERMINAL_KEY
from tests.services import node
from tests.services.processes import descendants, identify, wait_until_gone

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).resolve().parent
ECOSYSTEM = FOLDER.parents[1] / "deploy" / "pm2" / "ecosystem.config.cjs"
APPS = ["oplata-serve", "oplata-worker-1", "oplata-worker-2"]
TIMEOUT_S = 60.0


class Pm2:
    """A PM2 of this test's own: its daemon, its directory."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        ready = node.ready(FOLDER)
        self._command = [ready.program, str(ready.folder / "node_modules" / "pm2" / "bin" / "pm2")]
        self._folder = folder
        self._env = environment(settings) | {"PM2_HOME": str(folder / "pm2")}

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def apps(self) -> dict[str, dict[str, Any]]:
        """What runs, by name."""
        text = self("jlist")
        return {each["name"]: each for each in json.loads(text[text.index("[{") :])}

    def daemon(self) -> int:
        return int((self._folder / "pm2" / "pm2.pid").read_text(encoding="utf-8"))


@pytest.fixture
def settings(amqp_url: str, postgres_url: str, queue_name: str, free_port: int) -> dict[str, str]:
    return {
        "OPLATA_QUEUE_URL": amqp_url,
        "OPLATA_QUEUE_NAME": queue_name,
        "OPLATA_DATABASE_URL": postgres_url,
        "OPLATA_TERMINAL_KEY": TERMINAL_KEY,
        "OPLATA_TERMINAL_PASSWORD": PASSWORD,
        "OPLATA_PORT": str(free_port),
        "OPLATA_METRICS_PORT": str(free_port + 1),
    }


@pytest.fixture
def pm2(settings: dict[str, str], tmp_path: Path) -> Iterator[Pm2]:
    ours = {"OPLATA_BIN": str(SCRIPT), "OPLATA_CWD": str(tmp_path), "OPLATA_WORKERS": "2"}
    started = Pm2(tmp_path, settings | ours)
    try:
        yield started
    finally:
        daemon = identify(started.daemon())
        family = [] if daemon is None else [daemon, *descendants(daemon)]
        started("kill")
        left = [each for each in family if not wait_until_gone(each, TIMEOUT_S)]
        assert left == []


async def test_killed_processes_come_back_and_the_order_is_paid(pm2: Pm2, settings: dict[str, str]) -> None:
    async with opened(settings["OPLATA_DATABASE_URL"]) as database:
        await database.migrate()
        await Orders(database).register("A-1", 500)
    await asyncio.to_thread(pm2, "start", str(ECOSYSTEM), "--only", ",".join(APPS))
    await until_answered(settings)
    before = {name: app["pid"] for name, app in pm2.apps().items()}

    for name in ("oplata-serve", "oplata-worker-1"):
        os.kill(before[name], signal.SIGKILL)
    await until_back(pm2, before)
    await until_answered(settings)
    await until_paid(settings["OPLATA_DATABASE_URL"])

    after = pm2.apps()
    assert sorted(after) == APPS
    assert [after[name]["pm2_env"]["status"] for name in APPS] == ["online"] * 3
    assert [after[name]["pid"] != before[name] for name in APPS] == [True, True, False]


async def until_back(pm2: Pm2, before: dict[str, int]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        apps = pm2.apps()
        if all(apps[name]["pid"] not in (0, before[name]) for name in ("oplata-serve", "oplata-worker-1")):
            return
        assert time.monotonic() < deadline_s, apps
        await asyncio.sleep(0.2)


async def until_answered(settings: dict[str, str]) -> None:
    """Send the callback until somebody answers it."""
    deadline_s = time.monotonic() + TIMEOUT_S
    url = f"http://127.0.0.1:{settings['OPLATA_PORT']}/api/tinkoff-callback"
    async with httpx.AsyncClient(timeout=10) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.post(url, content=callback(amount_kopecks=500, order_id="A-1"))).text == "OK":
                    return
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.2)


async def until_paid(url: str) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while await select_all(url, "SELECT status FROM orders WHERE order_id = 'A-1'") != [("paid",)]:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.1)
