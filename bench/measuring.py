"""The rows: each contender has its turn in every round, so that what else the machine does falls on all alike."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, NamedTuple

import asyncpg

from bench.contenders import DRAINERS, ENDPOINTS, PAIRS, Drainer, Endpoint
from bench.corpus import AMOUNT_KOPECKS, order_id
from bench.stage import PYTHON, ROOT, BenchError, Running, Stage, cpu_s, free_port, say

CONNECTIONS = 64
RATE = 100.0
DRAIN_TIMEOUT_S = 120.0


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    drain_rounds: int
    seconds: float
    latency_s: float
    drained: int


FULL = Plan(rounds=5, drain_rounds=3, seconds=3.0, latency_s=10.0, drained=20_000)
QUICK = Plan(rounds=1, drain_rounds=1, seconds=1.5, latency_s=3.0, drained=6_000)

Turns = dict[str, list[dict[str, float]]]
"""For each row, what was measured in each round."""


class Meter:
    """Processor time by process, for so many messages."""

    def __init__(self, stage: Stage, **processes: Running) -> None:
        self._of = {name: process.pid for name, process in processes.items()}
        for name, server in (("broker", stage.rabbit), ("postgres", stage.postgres)):
            self._of[name] = server._record.processes[-1].pid  # type: ignore[attr-defined]
        self._before = self._read()

    def per_message(self, count: int) -> dict[str, float]:
        """Microseconds for each message since the beginning."""
        return {f"cpu_us_{name}": (now - self._before[name]) * 1e6 / count for name, now in self._read().items()}

    def _read(self) -> dict[str, float]:
        return {name: cpu_s(pid) for name, pid in self._of.items()}


def ingest(stage: Stage, plan: Plan, turns: Turns) -> None:
    """Callbacks per second over 64 connections, each answered when it is confirmed."""
    with ExitStack() as stack:
        stands: list[tuple[str, Endpoint, Running, int, str, str]] = []
        for kind in ("quorum", "classic"):
            for endpoint in ENDPOINTS:
                if kind in endpoint.kinds:
                    queue, port = f"ingest.{endpoint.name}.{kind}", free_port()
                    stage.fill(queue, kind, 0)
                    environment = stage.environment(queue, kind)
                    if endpoint.name == "ours" and kind == "quorum":
                        stage.purge(queue, delete=True)  # Ours declares it, with its limits.
                    running = stack.enter_context(stage.running(endpoint.command(port), environment, port))
                    stands.append((f"ingest {kind} {endpoint.name}", endpoint, running, port, queue, kind))
        time.sleep(1.0)
        for _, _, _, port, _, _ in stands:
            generate(stage, port, seconds=1.0)
        for number in range(plan.rounds):
            for row, endpoint, running, port, queue, _ in rotated(stands, number):
                # A connection for each request leaves thousands of them waiting for their end.
                seconds = plan.seconds
                meter = Meter(stage, server=running)
                told = generate(stage, port, seconds=seconds)
                measured = {
                    "rate": told["answered"] / told["seconds"],
                    "p50_ms": told["p50_ms"],
                    "p99_ms": told["p99_ms"],
                }
                measured |= meter.per_message(told["answered"]) | {"peak_mib": running.peak_mib()}
                measured["ready_s"] = running.ready_s
                measured["cpu_us_generator"] = told["generator_cpu_s"] * 1e6 / told["answered"]
                turns.setdefault(row, []).append(measured)
                if endpoint.name != "asgi_only":
                    stage.purge(queue)
                say(f"round {number + 1}/{plan.rounds} {row}: {measured['rate']:.0f}/s")


def drain(stage: Stage, plan: Plan, turns: Turns) -> None:
    """Messages per second out of a full queue, from the first commit to the last, by PostgreSQL's own clock."""
    stage.database("bench_template", plan.drained)
    for number in range(plan.drain_rounds):
        for drainer in rotated(DRAINERS, number):
            for kind in drainer.kinds:
                measured = _drain_once(stage, drainer, kind, max(500, int(plan.drained * drainer.share)))
                turns.setdefault(f"drain {kind} {drainer.name}", []).append(measured)
                say(f"round {number + 1}/{plan.drain_rounds} drain {kind} {drainer.name}: {measured['rate']:.0f}/s")


def _drain_once(stage: Stage, drainer: Drainer, kind: str, count: int) -> dict[str, float]:
    queue = f"drain.{drainer.name}.{kind}"
    url = stage.copy("bench_template", f"bench_{drainer.name}")
    environment = stage.environment(queue, kind, url)
    if drainer.fill is not None:
        command = [drainer.command[0], "-m", drainer.fill, "fill", str(count)]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=120, capture_output=True)
    else:
        if drainer.name == "ours" and kind == "quorum":
            stage.declare_ours(environment)
            stage.fill(queue, "", count)
        else:
            stage.fill(queue, kind, count)
    with stage.running(drainer.command, environment) as running:
        # What a process needs to start is not what a message costs: time is taken from the first commits on.
        seen = _until_paid(url, drainer.table, 1, running, pause_s=0.02)
        meter = Meter(stage, worker=running)
        if seen < count:
            _until_paid(url, drainer.table, count, running, pause_s=0.2)
        measured = meter.per_message(max(1, count - seen)) | {"peak_mib": running.peak_mib()}
    stage.purge(queue, delete=True)
    return measured | {"rate": asyncio.run(_rate(url, drainer.table))}


def _until_paid(url: str, table: str, count: int, running: Running, *, pause_s: float) -> int:
    deadline = time.monotonic() + DRAIN_TIMEOUT_S

    async def wait() -> int:
        connection = await asyncpg.connect(url)
        asked = f"SELECT count(*) FROM {table} WHERE status = 'paid'"
        while (paid := int(await connection.fetchval(asked))) < count:
            running.check()
            if time.monotonic() > deadline:
                raise BenchError(f"{count} messages were not drained within {DRAIN_TIMEOUT_S:.0f} s.")
            await asyncio.sleep(pause_s)
        await connection.close()
        return paid

    return asyncio.run(wait())


async def _rate(url: str, table: str) -> float:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        f"SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at FROM {table} WHERE status = 'paid'"
    )
    await connection.close()
    stamps = [row["at"] for row in rows]
    first, last = min(stamps), max(stamps)
    return sum(stamp > first for stamp in stamps) / (last - first)


def latency(stage: Stage, plan: Plan, turns: Turns) -> None:
    """At 100 callbacks a second: from the time each is due to its answer, and to its commit."""
    count = int(RATE * plan.latency_s)
    rounds = max(1, plan.rounds // 2)
    endpoints, drainers = {each.name: each for each in ENDPOINTS}, {each.name: each for each in DRAINERS}
    stage.database("bench_latency", (count + 100) * rounds)
    with ExitStack() as stack:
        stands = []
        for name, worker in PAIRS:
            queue, port = f"latency.{name}", free_port()
            url = stage.copy("bench_latency", f"bench_latency_{name}")
            environment = stage.environment(queue, "quorum", url)
            if name == "ours":
                stage.declare_ours(environment)
            running = stack.enter_context(stage.running(endpoints[name].command(port), environment, port))
            stack.enter_context(stage.running(drainers[worker].command, environment))
            stands.append((name, drainers[worker].table, port, url, running))
        time.sleep(3.0)
        for number in range(rounds):
            first = number * (count + 100)
            for name, table, port, url, running in rotated(stands, number):
                generate(stage, port, first=first + count, count=100, rate=RATE)
                told = generate(stage, port, first=first, count=count, rate=RATE)
                time.sleep(1.0)
                committed = sorted(asyncio.run(_waits_ms(url, table, first, told["due_at"])))
                measured = {"p50_ms": told["p50_ms"], "p99_ms": told["p99_ms"]}
                measured |= {"committed_p50_ms": at(committed, 0.5), "committed_p99_ms": at(committed, 0.99)}
                turns.setdefault(f"latency quorum {name}", []).append(measured | {"ready_s": running.ready_s})
                say(f"round {number + 1}/{rounds} latency {name}: {measured}")


async def _waits_ms(url: str, table: str, first: int, due_at: Sequence[float]) -> list[float]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(
        f"SELECT order_id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at FROM {table}"
        " WHERE status = 'paid'"
    )
    await connection.close()
    stamps = {row["order_id"]: row["at"] for row in rows}
    return [(stamps[order_id(first + number)] - due_s) * 1000 for number, due_s in enumerate(due_at)]


def embedded(stage: Stage, plan: Plan, turns: Turns) -> None:
    """One process on SQLite: how many it accepts and applies, and how long one takes at 100 a second."""
    for number in range(max(1, plan.rounds // 2)):
        folder = stage.folder / f"embedded-{number}"
        folder.mkdir()
        environment = stage.environment("unused", "quorum", f"sqlite:///{folder}/orders.db")
        environment["OPLATA_QUEUE_URL"] = f"sqlite:///{folder}/queue.db"
        count, slow = plan.drained, int(RATE * plan.latency_s)
        stage.oplata("migrate", environment=environment)
        port = free_port()
        with closing(sqlite3.connect(folder / "orders.db", timeout=30)) as database:
            _register(database, count + slow)
            command = [str(PYTHON), "-m", "oplata", "up", "--port", str(port)]
            with stage.running(command, environment, port) as running:
                time.sleep(1.0)
                waits = _watched(database, partial(generate, stage, port, first=count, count=slow, rate=RATE))
                before_s = running.cpu_s()
                told = generate(stage, port, count=count)
                while _paid(database) < count + slow:
                    running.check()
                    time.sleep(0.02)
                applied_s = time.time() - told["begun_at"]
                measured = {"rate": told["answered"] / told["seconds"], "applied_rate": count / applied_s}
                measured |= {
                    "cpu_us_server": (running.cpu_s() - before_s) * 1e6 / count,
                    "peak_mib": running.peak_mib(),
                }
                measured |= waits
        turns.setdefault("embedded ours", []).append(measured)
        say(f"embedded: {measured}")


def _watched(database: sqlite3.Connection, load: Callable[[], dict[str, Any]]) -> dict[str, float]:
    """Run the load, and see when each commit becomes visible; looked for every half millisecond."""
    from concurrent.futures import ThreadPoolExecutor

    seen: dict[str, float] = {}
    last = database.execute("SELECT coalesce(max(id), 0) FROM changes").fetchone()[0]
    version = database.execute("PRAGMA data_version").fetchone()[0]
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        idle_since_s = time.monotonic()
        while not loading.done() or time.monotonic() - idle_since_s < 1.0:
            time.sleep(0.0005)
            now = database.execute("PRAGMA data_version").fetchone()[0]
            if now == version:
                continue
            version, idle_since_s = now, time.monotonic()
            for number, order in database.execute("SELECT id, order_id FROM changes WHERE id > ?", (last,)).fetchall():
                seen[order], last = time.time(), number
        told = loading.result()
    first = min(seen)
    begin = int(first.removeprefix("order-"))
    waits = sorted((seen[order_id(begin + n)] - due_s) * 1000 for n, due_s in enumerate(told["due_at"]))
    return {"p50_ms": told["p50_ms"], "p99_ms": told["p99_ms"]} | {
        "committed_p50_ms": at(waits, 0.5),
        "committed_p99_ms": at(waits, 0.99),
    }


def _register(database: sqlite3.Connection, count: int) -> None:
    rows = [(order_id(number), AMOUNT_KOPECKS) for number in range(count)]
    database.executemany(
        "INSERT INTO orders (order_id, amount_kopecks, status, version, registered_at_ms, created_at_ms, updated_at_ms)"
        " VALUES (?, ?, 'pending', 1, 1, 1, 1)",
        rows,
    )
    database.executemany(
        "INSERT INTO changes (order_id, version, status, amount_kopecks, changed_at_ms) VALUES (?, 1, 'pending', ?, 1)",
        rows,
    )
    database.commit()


def _paid(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT count(*) FROM orders WHERE status = 'paid'").fetchone()[0])


def limits(stage: Stage, plan: Plan, turns: Turns) -> None:
    """What RabbitMQ and PostgreSQL do by themselves."""
    for _ in range(max(1, plan.rounds // 2)):
        for kind in ("quorum", "classic"):
            environment = stage.environment(f"limit.{kind}", kind, "unused")
            for what in ("confirms", "consume"):
                rate = _limit(environment, what, plan.drained)
                turns.setdefault(f"limit {kind} {what}", []).append({"rate": rate})
            stage.purge(f"limit.{kind}", delete=True)
        environment = stage.environment("unused", "quorum", stage.copy("bench_template", "bench_limit"))
        turns.setdefault("limit store", []).append({"rate": _limit(environment, "store", plan.drained)})
    say("limits measured")


def _limit(environment: dict[str, str], what: str, count: int) -> float:
    command = [str(PYTHON), "-m", "bench.limits", what, str(count)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise BenchError(done.stderr[-1000:])
    return float(json.loads(done.stdout)["rate"])


def generate(
    stage: Stage,
    port: int,
    *,
    first: int = 0,
    count: int = 3000,
    seconds: float | None = None,
    rate: float | None = None,
) -> dict[str, Any]:
    """Load this port in a process of its own; ``count`` callbacks, or as many as go into ``seconds``."""
    plan = {"port": port, "connections": CONNECTIONS, "first": first, "count": count, "seconds": seconds, "rate": rate}
    done = subprocess.run(
        [str(PYTHON), "-m", "bench.generator"],
        env=stage.environment("unused", "quorum"),
        cwd=ROOT,
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=(seconds or count / (rate or 100)) + 120,
        check=False,
    )
    if done.returncode:
        raise BenchError(done.stderr.strip()[-1000:])
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def rotated(items: Sequence[Any], by: int) -> list[Any]:
    """Another one begins each time, so that nobody always follows the same neighbour."""
    split = by % len(items)
    return [*items[split:], *items[:split]]


def at(ordered: Sequence[float], share: float) -> float:
    """The value below which this share lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
