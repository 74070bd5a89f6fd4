"""Alive is who makes progress, ready is who can do its work now; the two are told apart, with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from oplata.app import Oplata, Role
from oplata.errors import DatabaseUnavailable
from oplata.feed.relay import Relay, Target
from oplata.observability.health import DatabaseHealth
from oplata.settings import Settings
from tests.acceptance.command import running
from tests.services.server import free_port
from tests.sinks import MemorySink

pytestmark = pytest.mark.anyio

NO_BROKER = "amqp://nobody:hidden@127.0.0.1:1/"
NO_DATABASE = "postgresql://nobody:hidden@127.0.0.1:1/none"


@asynccontextmanager
async def program(folder: Path, role: Role, **values: Any) -> AsyncIterator[Oplata]:
    settings = Settings(
        **{
            "terminal_key": "T",
            "terminal_password": "open-sesame",
            "queue_url": f"sqlite:///{folder / 'queue.db'}",
            "database_url": f"sqlite:///{folder / 'oplata.db'}",
            "spool_path": str(folder / "spool.db"),
            **values,
        }
    )
    async with Oplata(settings, role=role) as app:
        yield app


async def asked(app: Oplata) -> tuple[int, int, str]:
    """What both pages answer, and the faults of the second."""
    transport = httpx.ASGITransport(app.exposition)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        alive, ready = await client.get("/healthz"), await client.get("/readyz")
    return alive.status_code, ready.status_code, "; ".join(ready.json().get("faults", []))


async def test_who_does_everything_and_can_is_alive_and_ready(tmp_path: Path) -> None:
    async with program(tmp_path, Role.UP) as app:
        assert await asked(app) == (200, 200, "")
        await app.drain()
        assert await asked(app) == (200, 503, "it is draining")


async def test_an_endpoint_without_its_broker_is_ready_while_the_spool_takes_callbacks(tmp_path: Path) -> None:
    async with program(tmp_path, Role.SERVE, queue_url=NO_BROKER) as app:
        assert await asked(app) == (200, 200, "")
    async with program(tmp_path, Role.SERVE, queue_url=NO_BROKER, spool_min_free_bytes=2**50) as app:
        assert await asked(app) == (200, 503, "neither the queue nor the spool takes a callback")
    async with program(tmp_path, Role.SERVE, queue_url=NO_BROKER, spool="off") as app:
        assert await asked(app) == (200, 503, "neither the queue nor the spool takes a callback")


async def test_a_worker_without_its_database_is_alive_and_not_ready(tmp_path: Path) -> None:
    async with program(tmp_path, Role.WORKER, database_url=NO_DATABASE) as app:
        alive, ready, faults = await asked(app)
    assert (alive, ready) == (200, 503)
    assert "the database is not as it should be" in faults
    assert "hidden" not in faults


async def test_a_database_is_asked_once_a_second_however_many_want_to_know() -> None:
    asked, now_s = 0, 0.0

    async def check() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)
        if asked == 1:
            raise DatabaseUnavailable("it is away")

    health = DatabaseHealth(check, monotonic_s=lambda: now_s)
    answers = await asyncio.gather(*(health.faults() for _ in range(50)))
    assert (asked, set(answers)) == (1, {("the database is not as it should be: it is away",)})
    now_s = 1.0
    assert (await health.faults(), asked) == ((), 2)


async def test_who_does_everything_does_not_outlive_its_relay(tmp_path: Path) -> None:
    class Broken(MemorySink):
        async def start(self) -> None:
            raise LookupError("a bug")

    settings = Settings(
        terminal_key="T",
        terminal_password="open-sesame",
        queue_url=f"sqlite:///{tmp_path / 'queue.db'}",
        database_url=f"sqlite:///{tmp_path / 'oplata.db'}",
    )
    app = Oplata(settings)
    app.relay = Relay(app.database, app.hub, [Target(name="shop", sink=Broken())])
    async with app:
        with pytest.raises(ExceptionGroup) as ended:
            await asyncio.wait_for(app.watch(), 20)
    assert ended.group_contains(LookupError)


async def test_a_worker_that_makes_no_progress_is_not_alive(tmp_path: Path) -> None:
    async with program(tmp_path, Role.UP) as app:
        turned_at_s = app.worker.progress._turned_at_s
        async with asyncio.timeout(20):
            while len(turned_at_s) < 2:  # noqa: ASYNC110  Nothing tells of a first turn.
                await asyncio.sleep(0.01)
        for task in turned_at_s:
            turned_at_s[task] -= 500
        assert (await asked(app))[0] == 503


def test_each_process_of_a_command_has_a_port_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    settings = {
        "OPLATA_TERMINAL_KEY": "T",
        "OPLATA_TERMINAL_PASSWORD": "open-sesame",
        "OPLATA_METRICS_PORT": str(port),
        "OPLATA_DATABASE_URL": NO_DATABASE,
    }
    with running("worker", "--processes", "2", cwd=tmp_path, **settings) as workers:
        workers.line("oplata worker is ready: 2 processes")
        pages = [httpx.get(f"http://127.0.0.1:{port + further}/metrics").text for further in (0, 1)]
        answers = [httpx.get(f"http://127.0.0.1:{port}{path}").status_code for path in ("/healthz", "/readyz")]
        assert workers.stop() == 0
    assert all("oplata_worker_batches_total 0.0" in page for page in pages)
    assert answers == [200, 503]
