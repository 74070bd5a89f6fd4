"""Fixtures that every test may ask for. A service starts when the first test needs it, and stops with the run."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import Iterator

import asyncpg
import pytest

from tests.services import find, ledger, server
from tests.services import node as node_packages
from tests.services.breakable import Breakable
from tests.services.node import Node
from tests.services.server import Kind, Server
from tests.spreading import Spread, in_order


def pytest_configure(config: pytest.Config) -> None:
    """A polite kill ends the run as Ctrl-C does, with its fixtures, so that no server is left behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The processes that the tests start would compile all that they import, each of them.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if not _is_worker(config):
        ledger.own_this_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what the processes of this run shared."""
    if not _is_worker(config):
        for record in ledger.of_this_run():
            ledger.erase(record)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests where several processes share them; by themselves they run as they stand."""
    if _is_worker(config):
        items[:] = in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Spread:
    """``-n`` spreads the tests our way."""
    config.option.loadscopereorder = False
    return Spread(config, log)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The project runs on asyncio alone."""
    return "asyncio"


@pytest.fixture
def free_port() -> int:
    """A TCP port of the loopback that nobody holds."""
    return server.free_port()


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    """A RabbitMQ that all tests share; the names within it keep them apart."""
    yield from _shared("amqp")


@pytest.fixture
def queue_name() -> str:
    """A name that no other test uses, for a queue and what belongs to it."""
    return f"test_{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def _postgres_server_url() -> Iterator[str]:
    yield from _shared("database")


@pytest.fixture
def postgres_url(_postgres_server_url: str) -> Iterator[str]:
    """An empty PostgreSQL database of this test's own, dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    _execute(_postgres_server_url, f'CREATE DATABASE "{name}"')
    yield f"{_postgres_server_url.rpartition('/')[0]}/{name}"
    _execute(_postgres_server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def _private_broker() -> Iterator[Server]:
    yield from _private("amqp")


@pytest.fixture(scope="session")
def _private_database_server() -> Iterator[Server]:
    yield from _private("database")


@pytest.fixture
def broker(_private_broker: Server) -> Breakable:
    """A RabbitMQ that this test may kill. Queues of earlier tests are still in it."""
    _private_broker.start()
    return Breakable(_private_broker)


@pytest.fixture
def database_server(_private_database_server: Server) -> Breakable:
    """A PostgreSQL that this test may kill. Its URL names a database of its own, in which tables may lie already."""
    _private_database_server.start()
    return Breakable(_private_database_server)


@pytest.fixture(scope="session")
def node() -> Node:
    """Node with the packages of ``examples/node-shop``; the test fails, and says how to get it, where there is none."""
    return node_packages.ready()


def _shared(kind: Kind) -> Iterator[str]:
    url = find.given(kind) or find.left_running(kind)
    if url is not None:
        yield url
        return
    yield find.common(kind)


def _private(kind: Kind) -> Iterator[Server]:
    ledger.sweep()
    private = find.private(kind)
    try:
        yield private
    finally:
        private.discard()


def _execute(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            await connection.execute(statement, timeout=30)
        finally:
            await connection.close()

    asyncio.run(run())
