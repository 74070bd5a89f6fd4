"""What a further worker process brings: ``python -m bench.workers AMQP_URL DATABASE_URL [CALLBACKS]``.

For each number of processes a queue is filled with distinct callbacks, then ``oplata worker --processes N`` empties it
into an empty database. The time runs from the first event that is recorded to the last.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

from oplata.bank.simulator.payload import as_json, payment, signed
from oplata.queue.envelope import Envelope
from oplata.queue.rabbitmq import RabbitQueue
from oplata.storage.engine import Database

TERMINAL, PASSWORD = "1700000000001", "a password"
PROCESSES = (1, 2, 3, 4)
IN_FLIGHT = 500
TIMEOUT_S = 300


async def fill(url: str, name: str, callbacks: int) -> None:
    """Put the callbacks into the queue."""
    queue = RabbitQueue(url, name)
    await queue.start()
    publisher, free = queue.publisher(), asyncio.Semaphore(IN_FLIGHT)

    async def publish(number: int) -> None:
        body = as_json(signed(payment(TERMINAL, f"shop-{number}", 10**9 + number, "CONFIRMED", 19_900), PASSWORD))
        async with free:
            await publisher.publish(Envelope(body=body, message_id=str(number)), timeout_s=60)

    await asyncio.gather(*map(publish, range(callbacks)))
    await queue.stop()


async def emptied(amqp_url: str, database_url: str, processes: int, callbacks: int) -> float:
    """Callbacks a second that so many processes apply."""
    name = f"bench_{secrets.token_hex(4)}"
    url = f"{database_url.rpartition('/')[0]}/{name}"
    server = await asyncpg.connect(database_url)
    await server.execute(f"CREATE DATABASE {name}")
    database = Database(url)
    await database.start()
    await database.migrate()
    await database.stop()
    await fill(amqp_url, name, callbacks)
    settings = {"OPLATA_QUEUE_URL": amqp_url, "OPLATA_QUEUE_NAME": name, "OPLATA_DATABASE_URL": url}
    settings |= {"OPLATA_TERMINAL_KEY": TERMINAL, "OPLATA_TERMINAL_PASSWORD": PASSWORD, "OPLATA_LOG_LEVEL": "error"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OPLATA_")}
    with tempfile.TemporaryDirectory() as folder:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "oplata", "worker", "--processes", str(processes)),
            env=kept | settings,
            cwd=Path(folder),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            rate = await measured(url, callbacks)
        finally:
            worker.send_signal(signal.SIGTERM)
            await worker.wait()
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()
    return rate


async def measured(url: str, callbacks: int) -> float:
    """Callbacks a second, from when the first are there."""
    connection = await asyncpg.connect(url)
    began_s, had, deadline_s = 0.0, 0, time.monotonic() + TIMEOUT_S
    while True:
        count = int(await connection.fetchval("SELECT count(*) FROM events"))
        now_s = time.monotonic()
        if count and not began_s:
            began_s, had = now_s, count
        if count == callbacks:
            await connection.close()
            return (callbacks - had) / (now_s - began_s)
        assert now_s < deadline_s, f"{count} of {callbacks} in time"
        await asyncio.sleep(0.05)


async def main(amqp_url: str, database_url: str, callbacks: int) -> None:
    """Measure each number of processes in turn."""
    print(f"{os.cpu_count()} processors, {callbacks} callbacks; load before: {os.getloadavg()[0]:.1f}")
    for processes in PROCESSES:
        rate = await emptied(amqp_url, database_url, processes, callbacks)
        print(f"{processes} processes: {rate:7.0f} callbacks/s; load since: {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 20_000))
