"""Run ``serve`` and ``worker`` on RabbitMQ and PostgreSQL under a real Prometheus that has our alerts.

Every query of the dashboard has to be understood and to show something; then the worker is killed, and within a minute
the alert has to fire, and to end when a worker is back. Takes about three minutes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg

from tests.acceptance.command import oplata, running
from tests.monitoring.files import ALERTS, queries
from tests.services import find
from tests.services.prometheus import Prometheus, scraping
from tests.services.server import free_port

SCRAPE_S = 2
SHOWN_TIMEOUT_S = 60.0
FIRES_TIMEOUT_S = 90.0
ENDS_TIMEOUT_S = 60.0

QUIET = frozenset(
    {
        "Callbacks by outcome",
        "Open dead letters by reason",
        "Not yet read for subscribers",
        "Sinks: not yet told",
        "Sinks: told",
        "Sinks: failing for",
        "Orders that wait for handlers",
        "Handlers are late by",
    }
)
"""Panels that show nothing where there is nothing to show."""


def main() -> int:
    """Run it; 1 when something did not come about."""
    name = f"alarm_{os.getpid()}"
    amqp = find.given("amqp") or find.left_running("amqp") or find.private("amqp").url
    server = find.given("database") or find.left_running("database") or find.private("database").url
    asyncio.run(_execute(server, f'CREATE DATABASE "{name}"'))
    try:
        return _run(amqp, f"{server.rpartition('/')[0]}/{name}", name)
    finally:
        asyncio.run(_execute(server, f'DROP DATABASE "{name}" WITH (FORCE)'))


def _run(amqp: str, database: str, queue_name: str) -> int:
    settings = {
        "OPLATA_TERMINAL_KEY": "TestDEMO",
        "OPLATA_TERMINAL_PASSWORD": "open-sesame",
        "OPLATA_QUEUE_URL": amqp,
        "OPLATA_QUEUE_NAME": queue_name,
        "OPLATA_DATABASE_URL": database,
        "OPLATA_SURVEY_INTERVAL_S": "5",
        "OPLATA_CANARY_INTERVAL_S": "2",
    }
    ports = (free_port(), free_port())
    serving, working = (settings | {"OPLATA_METRICS_PORT": str(port)} for port in ports)
    with tempfile.TemporaryDirectory(prefix="oplata-alarm-") as directory:
        cwd = Path(directory)
        _demand(oplata("migrate", cwd=cwd, **settings).returncode == 0, "the tables are there")
        oplata("orders", "register", "--order-id", "A-1", "--amount", "500", cwd=cwd, **settings)
        targets = [f"127.0.0.1:{port}" for port in ports]
        with (
            scraping(targets, ALERTS, interval_s=SCRAPE_S) as prometheus,
            running("serve", "--port", "0", cwd=cwd, **serving) as serve,
        ):
            url = next(word for word in serve.line("oplata serve is ready").split() if word.startswith("http://"))
            with running("worker", cwd=cwd, **working) as worker:
                worker.line("oplata worker is ready")
                for status in ("AUTHORIZED", "CONFIRMED", "CONFIRMED"):
                    order = ("--order-id", "A-1", "--status", status, "--amount", "500", "--url", url)
                    oplata("trigger", *order, cwd=cwd, **settings)
                _show(prometheus)
                _demand(prometheus.firing() == set(), "no alert fires")
                worker.process.kill()
            began_s = time.monotonic()
            _until(lambda: "OplataNoWorkers" in prometheus.firing(), FIRES_TIMEOUT_S, "OplataNoWorkers fires")
            _say(f"the worker was killed, and OplataNoWorkers fired after {time.monotonic() - began_s:.0f} s")
            _until(lambda: "OplataCanaryLost" in prometheus.firing(), FIRES_TIMEOUT_S, "OplataCanaryLost fires")
            _say(f"and OplataCanaryLost after {time.monotonic() - began_s:.0f} s")
            with running("worker", cwd=cwd, **working) as worker:
                worker.line("oplata worker is ready")
                critical = {"OplataNoWorkers", "OplataCanaryLost"}
                _until(lambda: not prometheus.firing() & critical, ENDS_TIMEOUT_S, "the alerts end with a new worker")
                worker.stop()
            serve.stop()
    _say("all came about")
    return 0


def _show(prometheus: Prometheus) -> None:
    """Each query is understood, and each one shows something before long."""
    left = {(title, each) for title, exprs in queries().items() for each in exprs if title not in QUIET}
    # A file as a queue is what this run does not have.
    left = {(title, each) for title, each in left if each != "max(oplata_queue_oldest_seconds)"}
    asked = len(left)

    def all_shown() -> bool:
        left.difference_update([one for one in left if prometheus.query(one[1])])
        return not left

    _until(all_shown, SHOWN_TIMEOUT_S, lambda: f"every query shows something; still none: {sorted(left)}")
    _say(f"{asked} queries of the dashboard were understood, and each shows something")


def _until(condition: Callable[[], bool], timeout_s: float, what: str | Callable[[], str]) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        _demand(time.monotonic() < deadline_s, what if isinstance(what, str) else what())
        time.sleep(0.5)


def _demand(true: bool, what: str) -> None:
    if not true:
        raise SystemExit(f"It did not come about that {what}.")


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement, timeout=30)
    finally:
        await connection.close()


if __name__ == "__main__":
    sys.exit(main())
