"""``python -m bench.backlog --thousands N``: one worker, and a queue in which so many callbacks have gathered.

What it applies a second and what memory it holds are told for each tenth of them: a worker that slows down, or grows,
while a long outage is made good would show it there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg

from bench.rpc.machine import load_averages, machine
from bench.stage import PYTHON, ROOT, BenchError, Running, Stage, say, stage

QUEUE = "backlog"
PARTS = 10
LOOK_S = 0.2
SLOWEST_PER_S = 500
"""Slower than that it has not drained in time."""


def measure(services: Stage, count: int) -> dict[str, Any]:
    """All of it."""
    url = services.database("backlog", count)
    environment = services.environment(QUEUE, "quorum", url)
    services.declare_ours(environment)
    services.fill(QUEUE, "", count)
    say(f"{count} callbacks wait in the queue")
    with services.running([str(PYTHON), "-m", "oplata", "worker"], environment) as worker:
        parts = asyncio.run(_watch(url, count, worker))
        peak_mib = worker.peak_mib()
    return {"callbacks": count, "parts": parts, "peak_mib": round(peak_mib, 1)}


async def _watch(url: str, count: int, worker: Running) -> list[dict[str, float]]:
    """The rate and the memory of each tenth."""
    connection = await asyncpg.connect(url)
    parts: list[dict[str, float]] = []
    had, had_at_s = 0, 0.0
    deadline_s = time.monotonic() + 60 + count / SLOWEST_PER_S
    while len(parts) < PARTS:
        worker.check()
        if time.monotonic() > deadline_s:
            raise BenchError(f"Only {had} of {count} callbacks were applied in time.")
        # Each order has one change from its registration, and one when it is paid.
        done, now_s = await connection.fetchval("SELECT max(id) FROM changes") - count, time.monotonic()
        if done and not had_at_s:
            had, had_at_s = done, now_s
        if done >= (len(parts) + 1) * count // PARTS and now_s > had_at_s:
            parts.append({"rate": round((done - had) / (now_s - had_at_s)), "rss_mib": round(worker.rss_mib(), 1)})
            say(f"{done} are applied: {parts[-1]}")
            had, had_at_s = done, now_s
        await asyncio.sleep(LOOK_S)
    paid = await connection.fetchval("SELECT count(*) FROM orders WHERE status = 'paid'", timeout=60)
    await connection.close()
    if paid != count:
        raise BenchError(f"{paid} of {count} orders are paid.")
    return parts


def main() -> int:
    """Measure, and write the figures down."""
    parser = argparse.ArgumentParser(prog="python -m bench.backlog", description=__doc__)
    parser.add_argument("--thousands", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "backlog.json")
    given = parser.parse_args()
    load_before = load_averages()
    with stage() as services:
        told = measure(services, given.thousands * 1000)
    told |= {"machine": machine(), "load_before": load_before, "load_after": load_averages()}
    given.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
