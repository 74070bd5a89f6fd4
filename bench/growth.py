"""How a PostgreSQL database grows: ``python -m bench.growth URL [CALLBACKS]``, into an empty one that is thrown away.

Each order is registered and gets two callbacks, AUTHORIZED and CONFIRMED. At the end all bodies are pruned, for the
difference.
"""

from __future__ import annotations

import asyncio
import sys
import time

import asyncpg

from oplata.bank.keyring import Keyring
from oplata.bank.simulator.payload import as_json, payment, signed
from oplata.orders.commands import Orders
from oplata.queue.envelope import RECEIVED_AT_HEADER, SOURCE_HEADER, Delivery, Envelope
from oplata.storage.engine import Database
from oplata.worker.apply import apply
from oplata.worker.batch import read
from oplata.worker.retention import DAY_MS, Retention

TERMINAL, PASSWORD = "1700000000001", "a password"
BATCH = 500
AT_ONCE = 5
SIZES = (
    "SELECT relname, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class "
    "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY pg_total_relation_size(oid) DESC"
)


def bodies(order_id: str, number: int, at_ms: int) -> list[Delivery]:
    """The two callbacks of an order, with what the bank says of a card."""
    card = {"CardId": 500_000_000 + number, "Pan": "430000******0777", "ExpDate": "1230", "RebillId": str(number * 7)}
    return [
        Delivery(
            envelope=Envelope(
                body=as_json(signed(payment(TERMINAL, order_id, 10**9 + number, status, 19_900) | card, PASSWORD)),
                headers={RECEIVED_AT_HEADER: at_ms, SOURCE_HEADER: "91.194.226.10"},
            )
        )
        for status in ("AUTHORIZED", "CONFIRMED")
    ]


async def fill(database: Database, callbacks: int) -> None:
    """Register the orders and apply their callbacks."""
    keyring, now_ms = Keyring({TERMINAL: [PASSWORD]}), time.time_ns() // 1_000_000 - 2 * DAY_MS
    orders = Orders(database)
    for start in range(0, callbacks // 2, BATCH // 2):
        deliveries: list[Delivery] = []
        numbers = range(start, min(start + BATCH // 2, callbacks // 2))
        for few in range(numbers.start, numbers.stop, AT_ONCE):
            some = range(few, min(few + AT_ONCE, numbers.stop))
            await asyncio.gather(*(orders.register(f"shop-{number}", 19_900) for number in some))
        for number in numbers:
            deliveries += bodies(f"shop-{number}", number, now_ms + number)
        async with database.unit_of_work() as uow:
            await apply(uow, read(deliveries, keyring, now_ms).works, now_ms)
            await uow.commit()


async def told(url: str, title: str, callbacks: int) -> None:
    """Print the sizes of the tables, per million callbacks."""
    connection = await asyncpg.connect(url)
    await connection.execute("VACUUM FULL ANALYZE")
    rows = [(name, table, indexes) for name, table, indexes in await connection.fetch(SIZES) if table + indexes > 10**5]
    await connection.close()
    print(f"\n{title}, MB per million callbacks:")
    for name, table, indexes in [*rows, ("all", sum(row[1] for row in rows), sum(row[2] for row in rows))]:
        print(f"  {name:<14} rows {table / callbacks:7.0f}  indexes {indexes / callbacks:7.0f}")


async def main(url: str, callbacks: int) -> None:
    """Fill, tell, prune, tell."""
    database = Database(url)
    await database.start()
    await database.migrate()
    await fill(database, callbacks)
    await told(url, f"{callbacks} callbacks of {callbacks // 2} orders", callbacks)
    begun_s = time.monotonic()
    pruned = await Retention(database).run(1, who="bench")
    took_s = time.monotonic() - begun_s
    print(f"\n{pruned.pruned} bodies pruned in {took_s:.1f} s")
    await told(url, "the same, pruned", callbacks)
    await database.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100_000))
