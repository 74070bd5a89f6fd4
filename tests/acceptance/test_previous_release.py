"""A worker of an earlier version works on while the tables become those of this one, and may be started anew on them.

``tests/data/releases/0003.tar.xz`` is that program as it was at version 0003 of the tables: `git archive` of its
source, without the room `rpc`, which a worker does not use. It runs as a process of its own with the packages of today.
"""

from __future__ import annotations

import asyncio
import sys
import tarfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from oplata.queue.envelope import Envelope
from oplata.queue.sqlite import SqliteQueue
from tests.acceptance.command import Running, environment, following, oplata, running
from tests.databases import callback, select_all
from tests.notifications import PASSWORD, TERMINAL_KEY

pytestmark = pytest.mark.anyio

RELEASES = Path(__file__).resolve().parents[1] / "data" / "releases"
EARLIER = "0003"


class Earlier:
    """The program of that version."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        with tarfile.open(RELEASES / f"{EARLIER}.tar.xz") as archive:
            archive.extractall(folder / "earlier", filter="data")
        self._folder = folder
        self._env = environment(settings) | {"PYTHONPATH": str(folder / "earlier" / "src")}
        del self._env["OPLATA_INSECURE"]  # It did not know of a door that has to be locked.

    def running(self, *arguments: str) -> AbstractContextManager[Running]:
        """Start a command of it; at the end it is killed if it still runs."""
        return following([sys.executable, "-m", "oplata", *arguments], cwd=self._folder, env=self._env)


async def test_a_worker_of_an_earlier_version_works_on_and_starts_anew(postgres_url: str, tmp_path: Path) -> None:
    settings = {
        "OPLATA_DATABASE_URL": postgres_url,
        "OPLATA_QUEUE_URL": f"sqlite:///{tmp_path / 'queue.db'}",
        "OPLATA_TERMINAL_KEY": TERMINAL_KEY,
        "OPLATA_TERMINAL_PASSWORD": PASSWORD,
    }
    earlier = Earlier(tmp_path, settings)
    queue = SqliteQueue(tmp_path / "queue.db")
    await queue.start()
    with earlier.running("migrate") as migrating:
        assert migrating.line("The tables went from version none") == f"The tables went from version none to {EARLIER}."
        assert migrating.wait() == 0
    with earlier.running("worker") as worker:
        await asyncio.to_thread(worker.line, "oplata worker is ready")
        await send(queue, 0)
        await until_applied(postgres_url, 1)

        now = oplata("migrate", cwd=tmp_path, **settings)
        assert now.stdout.startswith(f"The tables went from version {EARLIER} to "), now.stderr
        await send(queue, 1)
        await until_applied(postgres_url, 2)

        worker.process.kill()
    with earlier.running("worker") as worker_anew:
        await asyncio.to_thread(worker_anew.line, "oplata worker is ready")
        await send(queue, 2)
        await until_applied(postgres_url, 3)
    with running("worker", cwd=tmp_path, **settings) as worker_of_today:
        await asyncio.to_thread(worker_of_today.line, "oplata worker is ready")
        await send(queue, 3)
        await until_applied(postgres_url, 4)
    await queue.stop()

    verified = oplata("verify", cwd=tmp_path, **settings)
    assert verified.returncode == 0, verified.stdout + verified.stderr


async def send(queue: SqliteQueue, number: int) -> None:
    body = callback(order_id=f"order-{number}", payment_id=str(number))
    await queue.publisher().publish(Envelope(body=body), timeout_s=5)


async def until_applied(url: str, count: int) -> None:
    deadline_s = time.monotonic() + 30
    while await select_all(url, "SELECT count(*) FROM events") != [(count,)]:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)
