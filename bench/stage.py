"""The services of one run, its databases and queues, and the processes in between, each stopped by its own number."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from bench.corpus import AMOUNT_KOPECKS, PASSWORD, TERMINAL_KEY, bodies
from bench.peers.amqp import BareClient
from tests.services import find
from tests.services.postgres import PostgresServer
from tests.services.processes import ProcessId, descendants, identify
from tests.services.server import Server, answers, free_port

ROOT = Path(__file__).resolve().parents[1]
PYTHON, BENCH_PYTHON = ROOT / ".venv" / "bin" / "python", ROOT / ".venv-bench" / "bin" / "python"
TICKS = os.sysconf("SC_CLK_TCK")
READY_TIMEOUT_S, STOP_TIMEOUT_S = 30.0, 15.0

SHOP_TABLES = """
CREATE TABLE shop_orders (order_id text PRIMARY KEY, status text NOT NULL);
CREATE TABLE bare_archive (digest text PRIMARY KEY, body text NOT NULL, seen_at bigint NOT NULL);
CREATE TABLE bare_events (digest text PRIMARY KEY, payment_id text, order_id text, status text, amount bigint);
CREATE INDEX ON bare_events (order_id);
CREATE TABLE bare_payments (payment_id text PRIMARY KEY, order_id text, status text, amount bigint);
CREATE INDEX ON bare_payments (order_id);
CREATE TABLE bare_changes (id bigserial PRIMARY KEY, order_id text NOT NULL, status text NOT NULL);
"""


class BenchError(Exception):
    """The measurement cannot go on; the message says why."""


class Stamping(PostgresServer):
    """PostgreSQL that remembers when each transaction was committed, by its own clock."""

    def launch(self) -> None:
        configuration = self.directory / "data" / "postgresql.conf"
        line = "track_commit_timestamp = on\nmax_wal_size = 4GB\n"
        text = configuration.read_text(encoding="utf-8")
        if line not in text:
            configuration.write_text(text + line, encoding="utf-8")
        super().launch()


class Stage:
    """RabbitMQ and PostgreSQL of our own, and what every peer is told of them."""

    def __init__(self, rabbit: Server, postgres: Server, folder: Path) -> None:
        self.rabbit, self.postgres, self.folder = rabbit, postgres, folder

    def environment(self, queue: str, kind: str, database_url: str = "") -> dict[str, str]:
        """For every process: ours reads the OPLATA_ variables, the peers the BENCH_ ones."""
        # Where it is set, every process would compile all that it imports, and its start say nothing.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))),
            "NODE_ENV": "production",
            "BENCH_AMQP_URL": self.rabbit.url,
            "BENCH_QUEUE": queue,
            "BENCH_QUEUE_TYPE": kind,
            "BENCH_DATABASE_URL": database_url,
            "BENCH_PASSWORD": PASSWORD,
            "OPLATA_TERMINAL_KEY": TERMINAL_KEY,
            "OPLATA_TERMINAL_PASSWORD": PASSWORD,
            "OPLATA_QUEUE_URL": self.rabbit.url,
            "OPLATA_QUEUE_NAME": queue,
            "OPLATA_QUEUE_DECLARE": "active" if kind == "quorum" else "passive",
            "OPLATA_DATABASE_URL": database_url or f"sqlite:///{self.folder}/unused.db",
            "OPLATA_RPC": "off",
            "OPLATA_SPOOL_PATH": str(self.folder / f"spool-{queue}.db"),
        }

    def database(self, name: str, orders: int) -> str:
        """A new database with both schemas and so many registered orders; its URL."""
        parts = urlsplit(self.postgres.url)
        url = urlunsplit(parts._replace(path=f"/{name}"))
        asyncio.run(_create(self.postgres.url, name))
        self.oplata("migrate", environment=self.environment("unused", "quorum", url))
        asyncio.run(_register(url, orders))
        return url

    def oplata(self, *arguments: str, environment: dict[str, str]) -> None:
        """Run a command of ours to its end."""
        command = [str(PYTHON), "-m", "oplata", *arguments]
        done = subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise BenchError(f"oplata {arguments[0]} failed: {done.stderr[-1000:]}")

    def fill(self, queue: str, kind: str, count: int) -> None:
        """Put the bank's callbacks into a queue of this kind."""
        asyncio.run(_fill(self.rabbit.url, queue, kind, count))

    def copy(self, template: str, name: str) -> str:
        """A database as the template is; its URL."""
        asyncio.run(_create(self.postgres.url, name, template))
        return urlunsplit(urlsplit(self.postgres.url)._replace(path=f"/{name}"))

    def purge(self, queue: str, *, delete: bool = False) -> None:
        """Empty a queue, or delete it."""
        asyncio.run(_purge(self.rabbit.url, queue, delete))

    def declare_ours(self, environment: dict[str, str]) -> None:
        """Our queues, with the arguments that ours gives them."""
        self.oplata("doctor", environment=environment)

    @contextmanager
    def running(self, command: list[str], environment: dict[str, str], port: int | None = None) -> Iterator[Running]:
        """A process, listening if it has a port; stopped at the end with all that it started."""
        with (self.folder / "processes.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        running = Running(process, " ".join(command[-2:]))
        try:
            if port is not None:
                running.wait_until_it_listens(port)
            yield running
        finally:
            running.stop()


class Running:
    """A process and its offspring."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self._process, self._name = process, name
        self.began_s = time.monotonic()
        self.ready_s = 0.0

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_it_listens(self, port: int) -> None:
        """Raises BenchError if it ends, or does not listen in time."""
        while time.monotonic() < self.began_s + READY_TIMEOUT_S:
            self.check()
            if _listens(port):
                self.ready_s = time.monotonic() - self.began_s
                return
            time.sleep(0.01)
        raise BenchError(f"{self._name} did not listen within {READY_TIMEOUT_S:.0f} s.")

    def check(self) -> None:
        """Raises BenchError when it has ended."""
        if self._process.poll() is not None:
            raise BenchError(f"{self._name} ended with {self._process.returncode}.")

    def cpu_s(self) -> float:
        """Processor time of all of it."""
        return cpu_s(self.pid)

    def peak_mib(self) -> float:
        """The most memory that it held, its children's added up."""
        return self._memory_mib("VmHWM:")

    def rss_mib(self) -> float:
        """The memory that it holds now, its children's added up."""
        return self._memory_mib("VmRSS:")

    def _memory_mib(self, field: str) -> float:
        members = [self.pid, *(child.pid for child in descendants(_id(self.pid)))]
        return sum(_kib(member, field) for member in members) / 1024

    def stop(self) -> None:
        """Ends it, in kindness first."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(STOP_TIMEOUT_S)


def cpu_s(pid: int) -> float:
    """Processor time of a process, of those it has buried, and of those that live."""
    return sum(_ticks(member) for member in [pid, *(child.pid for child in descendants(_id(pid)))]) / TICKS


def _id(pid: int) -> ProcessId:
    found = identify(pid)
    if found is None:
        raise BenchError(f"The process {pid} has ended.")
    return found


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))


def _kib(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


def _listens(port: int) -> bool:
    # A connection would be work for the server; the kernel knows as well.
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    return wanted in Path("/proc/net/tcp").read_text()


@contextmanager
def stage() -> Iterator[Stage]:
    """Both services, private and gone at the end."""
    with tempfile.TemporaryDirectory(prefix="oplata-bench-") as folder:
        Path(folder).chmod(0o711)
        rabbit = find.private("amqp")
        try:
            postgres = Stamping()
            try:
                postgres.start()
                yield Stage(rabbit, postgres, Path(folder))
            finally:
                postgres.discard()
        finally:
            rabbit.discard()


async def _create(url: str, name: str, template: str = "template1") -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
    await connection.close()


async def _register(url: str, count: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(SHOP_TABLES)
    numbers = "SELECT 'order-' || lpad(n::text, 10, '0') AS order_id FROM generate_series(0, $1::int - 1) AS n"
    await connection.execute(f"INSERT INTO shop_orders SELECT order_id, 'pending' FROM ({numbers}) AS o", count)
    await connection.execute(
        "INSERT INTO orders (order_id, amount_kopecks, status, version, registered_at_ms, created_at_ms, updated_at_ms)"
        f" SELECT order_id, {AMOUNT_KOPECKS}, 'pending', 1, 1, 1, 1 FROM ({numbers}) AS o",
        count,
    )
    await connection.execute(
        "INSERT INTO changes (order_id, version, status, amount_kopecks, changed_at_ms)"
        f" SELECT order_id, 1, 'pending', {AMOUNT_KOPECKS}, 1 FROM ({numbers}) AS o",
        count,
    )
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def _fill(url: str, queue: str, kind: str, count: int) -> None:
    client = BareClient(url)
    await client.open()
    if kind:
        await client.declare(queue, kind)
    await client.confirm()
    for start in range(0, count, 1000):
        await asyncio.gather(*(client.publish(queue, body) for body in bodies(start, min(1000, count - start))))
    client.close()


async def _purge(url: str, queue: str, delete: bool) -> None:
    client = BareClient(url)
    await client.open()
    await (client.delete(queue) if delete else client.purge(queue))
    client.close()


def say(text: str) -> None:
    """Progress, on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


__all__ = ["BENCH_PYTHON", "PYTHON", "ROOT", "BenchError", "Running", "Stage", "answers", "free_port", "say", "stage"]
