"""The shop's side: orders are registered while their callbacks come in, and again until it worked.

``python -m tests.chaos.shop SEED CALLBACKS SHARE RATE`` registers the orders of a seed's traffic in the database that
``CHAOS_DATABASE_URL`` names, at about the rate at which their callbacks are sent.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Iterator

from oplata.bank.simulator.traffic import Callback, Order, Registration
from oplata.errors import Retryable
from oplata.orders.commands import Orders
from oplata.storage.engine import Database
from tests.chaos.facts import happenings, registered

AT_ONCE = 4
_PAUSE_S = (0.05, 0.5)


def orders_of(seed: int, callbacks: int, share: float) -> Iterator[tuple[int, Order]]:
    """The orders to register, each with the number of callbacks that are sent before it."""
    before = 0
    for happening in happenings(seed, callbacks):
        before += isinstance(happening, Callback)
        if isinstance(happening, Registration) and registered(happening.order.order_id, share):
            yield before, happening.order


async def register(url: str, orders: AsyncIterator[Order], rng: random.Random) -> int:
    """Register these, some at a time; returns how many tries failed because the database was away."""
    database, failures = Database(url, pool_size=AT_ONCE), 0
    await database.start()

    async def lane() -> None:
        nonlocal failures
        async for order in orders:
            while True:
                try:
                    await Orders(database).register(order.order_id, order.amount_kopecks)
                    break
                except Retryable:
                    failures += 1
                    await asyncio.sleep(rng.uniform(*_PAUSE_S))

    try:
        orders = Shared(orders)
        await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    finally:
        await database.stop()
    return failures


class Shared(AsyncIterator[Order]):
    """Hands each of another iterator's orders to one of several readers."""

    def __init__(self, orders: AsyncIterator[Order]) -> None:
        self._orders = orders
        self._turn = asyncio.Lock()

    async def __anext__(self) -> Order:
        async with self._turn:
            return await anext(self._orders)


async def paced(seed: int, callbacks: int, share: float, rate: float) -> AsyncIterator[Order]:
    """The orders, each about when its callbacks are sent."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for before, order in orders_of(seed, callbacks, share):
        await asyncio.sleep(max(0.0, began_s + before / rate - loop.time()))
        yield order


async def main(seed: int, callbacks: int, share: float, rate: float) -> None:
    """Register all, and say how often the database was away."""
    url = os.environ["CHAOS_DATABASE_URL"]
    failures = await register(url, paced(seed, callbacks, share, rate), random.Random(seed))
    sys.stdout.write(f"all orders are registered; {failures} tries failed\n")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
