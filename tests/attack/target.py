"""The process under attack, and the bank that goes on calling it meanwhile."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from oplata.bank.simulator.payload import as_json, payment, signed
from tests.acceptance.command import oplata, running

TERMINAL, PASSWORD = "TestDEMO", "open-sesame"
ORDER = "A-1"
SETTINGS = {
    "OPLATA_TERMINAL_KEY": TERMINAL,
    "OPLATA_TERMINAL_PASSWORD": PASSWORD,
    "OPLATA_INSECURE": "false",
    "OPLATA_BUYER_TOKEN_KEYS": "0123456789abcdef" * 2,
    "OPLATA_LOG_FORMAT": "json",
}


@dataclass
class Target:
    """Where it listens, one key that is good, and where its tables lie."""

    port: int
    folder: Path
    key: str
    token: str
    lines: list[str] = field(default_factory=list)

    @property
    def door(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/trpc"

    @property
    def callback(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/tinkoff-callback"

    def order(self) -> tuple[str, int]:
        """The status and the version of the order, read past the program."""
        with closing(sqlite3.connect(self.folder / "oplata.db", timeout=10)) as connection:
            status, version = connection.execute("SELECT status, version FROM orders WHERE order_id = 'A-1'").fetchone()
        return str(status), int(version)

    def words_of_strangers(self) -> int:
        """What was written by calls: words, keys beyond ours, acts in the audit beyond the making of keys."""
        with closing(sqlite3.connect(self.folder / "oplata.db", timeout=10)) as connection:
            [row] = connection.execute(
                "SELECT (SELECT count(*) FROM words) + (SELECT count(*) - 1 FROM api_keys) + "
                "(SELECT count(*) FROM audit WHERE action <> 'key.created')"
            )
        return int(row[0])


@contextmanager
def target(folder: Path) -> Iterator[Target]:
    """``oplata up`` with one order and one key."""
    oplata("migrate", cwd=folder)
    key = oplata("keys", "create", "shop", "--scope", "operate", cwd=folder).stdout.strip()
    oplata("orders", "register", "--order-id", ORDER, "--amount", "500", cwd=folder)
    token = oplata("orders", "buyer-token", ORDER, cwd=folder, **SETTINGS).stdout.strip()
    with running("up", "--port", "0", cwd=folder, **SETTINGS) as up:
        url = up.line("oplata up is ready").split()[5]
        yield Target(port=int(url.split(":")[2].split("/")[0]), folder=folder, key=key, token=token, lines=up.lines)
        up.stop()


def a_callback(number: int, status: str = "NEW", order_id: str = "bank") -> bytes:
    """A genuine notification."""
    return as_json(signed(payment(TERMINAL, order_id, number, status, 500), PASSWORD))


class Bank:
    """Calls every 20 ms on connections of its own, as the bank does, and notes how it fares."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: list[tuple[str, float]] = []

    async def run(self) -> None:
        """Until it is cancelled."""
        number = 1_000_000
        while True:
            number += 1
            began = time.perf_counter()
            try:
                async with httpx.AsyncClient(timeout=10, headers={"connection": "close"}) as client:
                    answer = await client.post(self._url, content=a_callback(number), headers=JSON)
                said = answer.text if answer.status_code == 200 else str(answer.status_code)
            except httpx.HTTPError as error:
                said = type(error).__name__
            self.answers.append((said, time.perf_counter() - began))
            await asyncio.sleep(0.02)

    def summary(self) -> str:
        """How many were answered OK, and how fast."""
        fine = sorted(took for said, took in self.answers if said == "OK")
        if not fine:
            return f"0 of {len(self.answers)} callbacks OK"
        median, worst = fine[len(fine) // 2] * 1000, fine[-1] * 1000
        return (
            f"{len(fine)} of {len(self.answers)} callbacks OK meanwhile, median {median:.0f} ms, worst {worst:.0f} ms"
        )


JSON: Mapping[str, str] = {"content-type": "application/json"}


def shown(counts: Mapping[object, int]) -> str:
    """Such as ``401 x 21, 429 x 479``."""
    return json.dumps({str(key): count for key, count in sorted(counts.items(), key=str)})
