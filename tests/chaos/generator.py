"""``python -m tests.chaos.generator ORDER.json``: the bank in a process of its own, so that nothing else slows it."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import msgspec
import uvloop

from oplata.bank.simulator.traffic import Callback
from tests.chaos.bank import Bank, Ledger
from tests.chaos.facts import happenings
from tests.chaos.line import Endpoint
from tests.chaos.offspring import raise_file_limit

BEGUN = "the bank begins"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent, where to, and where the ledger is to be written."""

    seed: int
    callbacks: int
    rate: float
    ports: list[int]
    settle_s: float
    ledger: str


async def main(order: Order) -> Ledger:
    """Send all of it, and wait until all was accepted."""
    raise_file_limit()
    bank = Bank([Endpoint(port) for port in order.ports], random.Random(order.seed))
    sampling = asyncio.create_task(bank.sample_forever())
    sys.stdout.write(f"{BEGUN}\n")
    sys.stdout.flush()
    told = (each for each in happenings(order.seed, order.callbacks) if isinstance(each, Callback))
    await bank.pour(told, order.rate)
    ledger = await bank.settle(order.settle_s)
    sampling.cancel()
    return ledger


if __name__ == "__main__":
    given = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)
    known = uvloop.run(main(given))
    Path(given.ledger).write_bytes(msgspec.msgpack.encode(known))
    sys.stdout.write(f"{known.accepted} of {known.sendings} were accepted\n")
