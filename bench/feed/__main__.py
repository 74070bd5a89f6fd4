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

from oplata.storage.changes import Change
from oplata.storage.engine import Database

START_TIMEOUT_S = 60.0
SETTLE_S = 3.0
LATE_S = 20.0
CONNECTING_AT_ONCE = 100


class Browser(asyncio.Protocol):
    """One subscription; notes when each change came."""

    def __init__(self, came: dict[str, list[float]]) -> None:
        self._came = came
        self._rest = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"event: connected") and not self.opened.done():
                self.opened.set_result(None)
            at = line.find(b'"bench-')
            if at >= 0:
                self._came.setdefault(line[at + 1 : line.index(b'"', at + 1)].decode(), []).append(now_s)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionError("the subscription was closed before it began"))


@contextlib.asynccontextmanager
async def serving(url: str, folder: Path, subscribers: int) -> AsyncIterator[int]:
    """`oplata serve` on a free port, open to all."""
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
        yield int(said.split("://127.0.0.1:")[1].split("/")[0])
    finally:
        process.terminate()
        await process.wait()


async def browsers(port: int, count: int, came: dict[str, list[float]]) -> list[asyncio.Transport]:
    """So many subscriptions to every change, once all of them are open."""
    loop, room = asyncio.get_running_loop(), asyncio.Semaphore(CONNECTING_AT_ONCE)
    asked = b"GET /api/trpc/orders.onStatusChange?input=%7B%7D HTTP/1.1\r\nhost: bench\r\n"
    asked += b"accept: text/event-stream\r\n\r\n"

    async def one() -> asyncio.Transport:
        async with room, asyncio.timeout(START_TIMEOUT_S):
            transport, browser = await loop.create_connection(lambda: Browser(came), "127.0.0.1", port)
            transport.write(asked)
            await browser.opened
            return transport

    return await asyncio.gather(*(one() for _ in range(count)))


async def measure(url: str, subscribers: int, changes: int, pause_s: float) -> list[float]:
    """The latencies in seconds, of each change to each subscriber. The clock starts when the commit has returned."""
    came: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        database = Database(url or f"sqlite:///{folder}/oplata.db")
        await database.start()
        await database.migrate()
        async with serving(url or f"sqlite:///{folder}/oplata.db", Path(folder), subscribers) as port:
            transports = await browsers(port, subscribers, came)
            await asyncio.sleep(SETTLE_S)
            committed = {}
            for number in range(changes):
                name = f"bench-{secrets.token_hex(4)}"
                await append(database, name)
                committed[name] = time.monotonic()
                await asyncio.sleep(pause_s)
                if number % 10 == 0:
                    sys.stderr.write(".")
                    sys.stderr.flush()
            async with asyncio.timeout(LATE_S):
                while sum(map(len, came.values())) < subscribers * changes:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            for transport in transports:
                transport.close()
        await database.stop()
    return [at_s - committed[name] for name, times in came.items() for at_s in times]


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
    latencies = asyncio.run(measure(given.database_url, given.subscribers, given.changes, given.pause_s))
    at = statistics.quantiles(latencies, n=100)
    print(
        f"\n{given.subscribers} subscribers, {given.changes} changes, each told to all: {len(latencies)} events.\n"
        f"commit to browser: median {at[49] * 1000:.1f} ms, 90 % {at[89] * 1000:.1f} ms, 99 % {at[98] * 1000:.1f} ms; "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
