"""From commit to browser: many subscriptions over HTTP on one `oplata serve`, and a writer that is another process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from bench.feed.browsers import Seen
from oplata.storage.changes import Change
from oplata.storage.engine import Database

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
SETTLE_S = 3.0
LATE_S = 20.0


@contextlib.asynccontextmanager
async def serving(url: str, folder: Path, subscribers: int) -> AsyncIterator[tuple[int, int]]:
    """`oplata serve` on a free port, open to all; yields the port and the process."""
    env = os.environ | {
        "OPLATA_TERMINAL_KEY": "bench",
        "OPLATA_TERMINAL_PASSWORD": secrets.token_hex(8),
        "OPLATA_DATABASE_URL": url,
        "OPLATA_INSECURE": "true",
        "OPLATA_MAX_SUBSCRIBERS": str(subscribers + 100),
        "OPLATA_RPC_ADDRESS_RATE": "100000",
        "OPLATA_LOG_LEVEL": "warning",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oplata", "serve", "--port", "0"), cwd=folder, env=env, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            said = (await process.stdout.readline()).decode()
        port = said.partition("://127.0.0.1:")[2].partition("/")[0]
        if not port.isdigit():
            raise RuntimeError("`oplata serve` did not begin to listen; what it said stands above")
        yield int(port), process.pid
    finally:
        process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def browsing(port: int, subscribers: int, changes: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """The browsers, once all of them are open."""
    arguments = (str(port), str(subscribers), str(subscribers * changes))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.feed.browsers", *arguments), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            if await process.stdout.readline() != b"opened\n":
                raise RuntimeError("the browsers did not open all their subscriptions")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Measured(msgspec.Struct):
    """Latencies in seconds, of each change to each subscriber, and what a delivered event cost of CPU time."""

    latencies_s: list[float]
    server_us: float
    browsers_us: float


def cpu_s(pid: int) -> float:
    """The CPU time of a process so far, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(url: str, subscribers: int, changes: int, pause_s: float) -> Measured:
    """Commit changes and see when they come. The clock starts when the commit has returned."""
    with tempfile.TemporaryDirectory() as folder:
        url = url or f"sqlite:///{folder}/oplata.db"
        database = Database(url)
        await database.start()
        await database.migrate()
        async with (
            serving(url, Path(folder), subscribers) as (port, pid),
            browsing(port, subscribers, changes) as browsers,
        ):
            await asyncio.sleep(SETTLE_S)
            began_s, committed = cpu_s(pid), {}
            for _ in range(changes):
                name = f"bench-{secrets.token_hex(4)}"
                await append(database, name)
                committed[name] = time.monotonic()
                await asyncio.sleep(pause_s)
            assert browsers.stdout is not None
            async with asyncio.timeout(LATE_S):
                seen = msgspec.json.decode(await browsers.stdout.read(), type=Seen)
            server_s = cpu_s(pid) - began_s
        await database.stop()
    latencies_s = [at_s - committed[name] for name, times in seen.came.items() for at_s in times]
    events = subscribers * changes
    if len(latencies_s) != events:
        raise RuntimeError(f"{len(latencies_s)} events came, and not {events}")
    return Measured(latencies_s, server_s / events * 1e6, seen.cpu_s / events * 1e6)


async def append(database: Database, order_id: str) -> None:
    """Commit a change of a new order, as a worker does."""
    told = Change(
        order_id=order_id,
        version=1,
        status="paid",
        previous_status=None,
        amount_kopecks=19_900,
        review=None,
        changed_at_ms=time.time_ns() // 1_000_000,
    )
    async with database.unit_of_work() as uow:
        await uow.changes.append([told])
        await uow.commit()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.feed", description=__doc__)
    parser.add_argument("--subscribers", type=int, default=2_000)
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--pause-s", type=float, default=0.5, help="between two changes")
    parser.add_argument("--database-url", default="", help="an empty database; SQLite in a temporary folder without it")
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, given.subscribers + 500), hard), hard))
    measured = asyncio.run(measure(given.database_url, given.subscribers, given.changes, given.pause_s))
    at = statistics.quantiles(measured.latencies_s, n=100)
    print(
        f"{given.subscribers} subscribers, {given.changes} changes, each told to all.\n"
        f"commit to browser: median {at[49] * 1000:.1f} ms, 90 % {at[89] * 1000:.1f} ms, 99 % {at[98] * 1000:.1f} ms; "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n"
        f"CPU time for each event that came: {measured.server_us:.1f} us of the server, "
        f"{measured.browsers_us:.1f} us of the browsers"
    )


if __name__ == "__main__":
    main()
