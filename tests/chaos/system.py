"""Everything that runs: broker, database, two endpoints, three workers, two relays, a subscriber, the wires between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.clock import Clocks
from tests.chaos.cluster import Cluster
from tests.chaos.facts import TERMINALS
from tests.chaos.offspring import Offspring, migrate, oplata
from tests.chaos.schedule import Scenario
from tests.chaos.subscriber import SECRET, Subscriber, subscribed
from tests.services import find
from tests.services.proxy import Proxy
from tests.services.server import Server, free_port

SERVES = 2
WORKERS = 3
RELAYS = 2
RESTART_S = (0.2, 2.0)
QUEUE = "oplata.chaos"
SPOOL_DISK_BYTES = 48 * 2**20
RETRY_DELAYS_MS = "500,1000,2000,5000"


class Wire(Proxy):
    """A wire that may be laid to another server, as a load balancer does when one is gone."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.port_behind = port

    def lay(self, port: int) -> None:
        """New connections go there; broken ones are not mended."""
        self.port_behind = port
        self._target = ("127.0.0.1", port)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await super()._pump(reader, writer)
        except RuntimeError as error:  # uvloop's word for a socket that was closed meanwhile.
            raise ConnectionResetError(str(error)) from error


class System:
    """The parts by name. ``brokers`` holds one, or the nodes of a cluster."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.clocks = Clocks(folder)
        self.brokers: list[Server] = []
        self.wires: dict[str, Wire] = {}
        self.serves: list[Offspring] = []
        self.workers: list[Offspring] = []
        self.relays: list[Offspring] = []
        self.ports = [free_port() for _ in range(SERVES)]
        self.spool_disk = folder / "spool"
        self.small_disk = False
        self.database: Server
        self.subscriber: Subscriber

    @property
    def offspring(self) -> list[Offspring]:
        """Every process of the program."""
        return [*self.serves, *self.workers, *self.relays]

    @property
    def spool_path(self) -> Path:
        """The file of the spool, which the endpoints of a machine share."""
        return self.spool_disk / "spool.db"

    @property
    def rungs(self) -> list[str]:
        """The queues in which messages wait for another try."""
        return [f"{QUEUE}.retry.{delay_ms}" for delay_ms in RETRY_DELAYS_MS.split(",")]

    @property
    def database_url(self) -> str:
        """The database without a wire between, for those who judge."""
        return self.database.url

    @property
    def broker_url(self) -> str:
        """A broker without a wire between."""
        return self.brokers[0].url

    def by_wire(self, name: str, url: str) -> str:
        """The URL by way of a wire."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self.wires[name].port}").geturl()

    def settings(self, name: str, wire: str) -> dict[str, str]:
        """What a process of the program is told."""
        terminals = ",".join(f'{{"key": "{key}", "passwords": ["{word}"]}}' for key, word in TERMINALS.items())
        return {
            "OPLATA_TERMINALS": f"[{terminals}]",
            "OPLATA_QUEUE_URL": self.by_wire(wire, self.broker_url),
            "OPLATA_QUEUE_NAME": QUEUE,
            "OPLATA_QUEUE_RETRY_DELAYS_MS": RETRY_DELAYS_MS,
            "OPLATA_DATABASE_URL": self.by_wire("database", self.database_url),
            "OPLATA_SPOOL_PATH": str(self.spool_path),
            "OPLATA_SPOOL_MAX_BYTES": str(SPOOL_DISK_BYTES),
            "OPLATA_SPOOL_MIN_FREE_BYTES": str(2**20),
            "OPLATA_LOG_FORMAT": "json",
            **self.clocks.environment(name),
        }

    def sink(self) -> dict[str, object]:
        """What the relays are told of the subscriber."""
        return {
            "name": "shop",
            "kind": "webhook",
            "url": f"http://127.0.0.1:{self.wires['subscriber'].port}/changes",
            "secrets": [SECRET],
            "start": "beginning",
            "timeout_s": 3,
            "retry_delays_ms": [200, 500, 1000, 2000],
            "max_attempts": 10_000,
        }

    def restart_s(self) -> float:
        """How long the supervisor takes this time."""
        return self.rng.uniform(*RESTART_S)

    async def start_processes(self, stack: AsyncExitStack) -> None:
        """Make the tables, and run the endpoints and the workers."""
        await migrate(self.folder, {"OPLATA_DATABASE_URL": self.database_url})
        for number, port in enumerate(self.ports, 1):
            name = f"serve-{number}"
            settings = self.settings(name, "serve-broker") | {"OPLATA_PORT": str(port)}
            self.serves.append(oplata(name, "serve", folder=self.folder, settings=settings, restart_s=self.restart_s))
        for number in range(1, WORKERS + 1):
            name = f"worker-{number}"
            settings = self.settings(name, "worker-broker")
            self.workers.append(oplata(name, "worker", folder=self.folder, settings=settings, restart_s=self.restart_s))
        for number in range(1, RELAYS + 1):
            name = f"relay-{number}"
            settings = self.settings(name, "worker-broker") | {"OPLATA_SINKS": json.dumps([self.sink()])}
            self.relays.append(oplata(name, "relay", folder=self.folder, settings=settings, restart_s=self.restart_s))
        for each in self.offspring:
            await each.start()
            stack.push_async_callback(each.stop)
        for each in self.offspring:
            await each.until_said("is ready")
        for each in [*self.serves, *self.workers]:
            await each.until_said("queue.ready")


@asynccontextmanager
async def running(folder: Path, seed: int, scenario: Scenario) -> AsyncIterator[System]:
    """The whole of it, ready to be broken; at the end it is stopped, whatever state it is in."""
    system = System(folder, seed)
    async with AsyncExitStack() as stack:
        system.database = await asyncio.to_thread(find.private, "database")
        stack.callback(system.database.discard)
        if scenario == "cluster":
            cluster = await asyncio.to_thread(Cluster)
            stack.callback(cluster.discard)
            await asyncio.to_thread(cluster.start)
            system.brokers = list(cluster.nodes)
        else:
            broker = await asyncio.to_thread(find.private, "amqp")
            stack.callback(broker.discard)
            system.brokers = [broker]
        system.subscriber = await stack.enter_async_context(subscribed(random.Random(seed)))
        system.small_disk = stack.enter_context(_small_disk(system.spool_disk))
        behind = {
            "serve-broker": system.brokers[0].port,
            "worker-broker": system.brokers[-1].port,
            "database": system.database.port,
            "subscriber": system.subscriber.port,
        }
        for name, port in behind.items():
            system.wires[name] = await stack.enter_async_context(Wire(port))
        await system.start_processes(stack)
        yield system


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """A disk that can be filled, which only root can make; True if it was. Others have the spool's own limit."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SPOOL_DISK_BYTES}", "oplata-chaos", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True, timeout=30)
