"""``python -m bench.growth --millions N``: a database that holds so many events beside an empty one, on PostgreSQL.

Batches of 500 are applied to both in turn, news and repeats, and orders are listed. The server makes the rows, with
digests as random as real ones, so that the indexes are as wide and as scattered as they will be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from bench.corpus import AMOUNT_KOPECKS, PASSWORD, TERMINAL_KEY, bodies, body
from bench.rpc.machine import machine
from bench.stage import ROOT, Stage, say, stage
from oplata.bank.keyring import Keyring
from oplata.orders.commands import Orders
from oplata.queue.envelope import Delivery, Envelope
from oplata.storage.engine import Database
from oplata.worker.apply import apply
from oplata.worker.batch import read

BATCH, BATCHES, PAGES = 500, 12, 200
FIRST_NEW = 900_000_000
STEP = 250_000

NUMBERS = "generate_series($1::bigint, $2::bigint) AS n"
DIGEST = "encode(sha256(n::text::bytea), 'hex')"
ORDER = "'order-' || lpad(n::text, 10, '0')"
DETAILS = '{"CardId":"322264","ErrorCode":"0","ExpDate":"1230","Pan":"430000******0777","RebillId":"145919"}'
EVIDENCE = f'{{"seen":{{"CONFIRMED":[{AMOUNT_KOPECKS},{AMOUNT_KOPECKS}]}},"failed":{{}},"orders":["'
LOADS = (
    (
        "INSERT INTO callbacks (digest, body, content_type, source, first_seen_at_ms, last_seen_at_ms, times_seen) "
        f"SELECT {DIGEST}, $3::bytea, 'application/json', '91.194.226.1', 1780000000000 + n, 1780000000000 + n, 1 "
        f"FROM {NUMBERS}"
    ),
    (
        "INSERT INTO events (digest, kind, terminal_key, payment_id, order_id, status, success, amount_kopecks, "
        f"details, recorded_at_ms) SELECT {DIGEST}, 'payment', '{TERMINAL_KEY}', (2000000000 + n)::text, {ORDER}, "
        f"'CONFIRMED', true, {AMOUNT_KOPECKS}, '{DETAILS}', 1780000000000 + n FROM {NUMBERS}"
    ),
    (
        "INSERT INTO payments (terminal_key, payment_id, order_id, status, amount_kopecks, evidence, created_at_ms, "
        f"updated_at_ms) SELECT '{TERMINAL_KEY}', (2000000000 + n)::text, {ORDER}, 'CONFIRMED', {AMOUNT_KOPECKS}, "
        f"'{EVIDENCE}' || {ORDER} || '\"]}}', 1780000000000 + n, 1780000000000 + n FROM {NUMBERS}"
    ),
    (
        "INSERT INTO orders (order_id, amount_kopecks, status, version, registered_at_ms, created_at_ms, "
        f"updated_at_ms) SELECT {ORDER}, {AMOUNT_KOPECKS}, 'paid', 2, 1780000000000 + n, 1780000000000 + n, "
        f"1780000000000 + n FROM {NUMBERS}"
    ),
    (
        "INSERT INTO changes (order_id, version, status, previous_status, amount_kopecks, changed_at_ms) "
        f"SELECT {ORDER}, v, CASE v WHEN 1 THEN 'pending' ELSE 'paid' END, CASE v WHEN 2 THEN 'pending' END, "
        f"{AMOUNT_KOPECKS}, 1780000000000 + n FROM {NUMBERS}, generate_series(1, 2) AS v"
    ),
)
SIZES = (
    "SELECT relname, pg_relation_size(oid) AS rows, pg_indexes_size(oid) AS indexes, "
    "pg_total_relation_size(oid) AS whole "
    "FROM pg_class WHERE relkind = 'r' AND relname IN ('callbacks', 'events', 'payments', 'orders', 'changes')"
)
PAGE = (
    "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM orders WHERE (created_at_ms, order_id) < (1780000500000, 'order-1') "
    "ORDER BY created_at_ms DESC, order_id DESC LIMIT 100"
)


async def load(url: str, count: int) -> dict[str, Any]:
    """Put so many events there; what they take on the disk, for each million."""
    connection = await asyncpg.connect(url)
    for first in range(0, count, STEP):
        end = min(count, first + STEP)
        for statement in LOADS:
            given = [body(first)] if "$3" in statement else []
            await connection.execute(statement, first, end - 1, *given, timeout=600)
        say(f"{end} events are stored")
    await connection.execute("VACUUM ANALYZE", timeout=600)
    rows = await connection.fetch(SIZES)
    await connection.close()
    million = count / 1e6
    sizes = {
        row["relname"]: {name: round(row[name] / 2**20 / million, 1) for name in ("rows", "indexes", "whole")}
        for row in rows
    }
    return sizes | {"whole": round(sum(size["whole"] for size in sizes.values()), 1)}


async def batch_ms(database: Database, told: list[bytes]) -> float:
    """How long one transaction takes, without reading the callbacks."""
    deliveries = [Delivery(envelope=Envelope(body=each)) for each in told]
    works = read(deliveries, Keyring({TERMINAL_KEY: [PASSWORD]}), time.time_ns() // 1_000_000).works
    begun_s = time.perf_counter()
    async with database.unit_of_work() as uow:
        await apply(uow, works, time.time_ns() // 1_000_000)
        await uow.commit()
    return (time.perf_counter() - begun_s) * 1000


async def compare(urls: dict[str, str]) -> dict[str, Any]:
    """The same batches to each database, in turn."""
    databases = {name: Database(url) for name, url in urls.items()}
    for database in databases.values():
        await database.start()
    waits: dict[str, dict[str, list[float]]] = {name: {"news": [], "repeats": [], "list": []} for name in urls}
    for number in range(BATCHES):
        told = bodies(FIRST_NEW + number * BATCH, BATCH)
        for kind in ("news", "repeats"):
            for name, database in databases.items():
                waits[name][kind].append(await batch_ms(database, told))
    for name, database in databases.items():
        orders, after = Orders(database), None
        for _ in range(PAGES):
            begun_s = time.perf_counter()
            page = await orders.list(limit=100, after=after)
            waits[name]["list"].append((time.perf_counter() - begun_s) * 1000)
            after = page[-1].order_id if len(page) == 100 else None
        await database.stop()
    # The first ones warm up what is cached.
    return {name: {kind: round(median(each[2:]), 2) for kind, each in kinds.items()} for name, kinds in waits.items()}


async def explain(url: str) -> dict[str, Any]:
    """How PostgreSQL finds a page in the midst of all orders."""
    connection = await asyncpg.connect(url)
    plan = json.loads(await connection.fetchval(PAGE))[0]
    await connection.close()
    return {"node": plan["Plan"]["Plans"][0]["Node Type"], "ms": plan["Execution Time"]}


def measure(services: Stage, millions: float) -> dict[str, Any]:
    """All of it."""
    urls = {"empty": services.database("growth_empty", 0), "full": services.database("growth_full", 0)}
    count = int(millions * 1_000_000)
    sizes = asyncio.run(load(urls["full"], count))
    return {
        "events": count,
        "mib_per_million": sizes,
        "median_ms": asyncio.run(compare(urls)),
        "page_by_keyset": asyncio.run(explain(urls["full"])),
        "machine": machine(),
    }


def main() -> int:
    """Measure, and write the figures down."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--millions", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "growth.json")
    given = parser.parse_args()
    with stage() as services:
        told = measure(services, given.millions)
    given.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
