"""Where a service comes from: the environment, ``make services``, this machine's programs, or docker."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from tests.services import containers, ledger, postgres, rabbitmq
from tests.services.server import TITLES, Kind, Server, ServiceError, answers

# What this process started for all: its children would complain if nobody held them.
_kept: list[Server] = []

VARIABLES: dict[Kind, str] = {"amqp": "OPLATA_TEST_AMQP_URL", "database": "OPLATA_TEST_DATABASE_URL"}


def given(kind: Kind) -> str | None:
    """The URL in the environment. Raises when nobody answers there, for nothing else may be used in its place."""
    url = os.environ.get(VARIABLES[kind])
    if not url:
        return None
    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or {"amqp": 5672, "database": 5432}[kind]
    if not answers(kind, host, port):
        raise ServiceError(f"{VARIABLES[kind]} names {host}:{port}, but no {TITLES[kind]} answers there.")
    return url


def left_running(kind: Kind) -> str | None:
    """The URL of the one that ``make services`` left running in this checkout."""
    for record in ledger.read():
        if record.kind == kind and record.owner is None and answers(kind, "127.0.0.1", urlsplit(record.url).port or 0):
            return record.url
    return None


def common(kind: Kind) -> str:
    """The URL of the one that all processes of this run share, started if need be; the end of the run stops it."""
    with ledger.locked():
        for record in ledger.of_this_run():
            if record.kind == kind and record.common:
                return record.url
        ledger.sweep()
        server = private(kind)
        _kept.append(server)
        ledger.share(server.url)
        return server.url


def programs_installed(kind: Kind) -> bool:
    """True when the service's programs are on this machine."""
    return rabbitmq.installed() if kind == "amqp" else postgres.installed()


def private(kind: Kind, *, shared: bool = False) -> Server:
    """A server of our own, started. A ``shared`` one outlives this process."""
    server: Server
    if programs_installed(kind):
        server = rabbitmq.RabbitServer(shared=shared) if kind == "amqp" else postgres.PostgresServer(shared=shared)
    elif containers.installed():
        server = containers.ContainerServer(kind, shared=shared)
    else:
        raise ServiceError(how_to_get(kind))
    try:
        server.start()
    except BaseException:
        server.discard()
        raise
    return server


def how_to_get(kind: Kind) -> str:
    """The one sentence for a machine that has nothing."""
    return (
        f"The tests need {TITLES[kind]}: run `make services` as root on Debian or Ubuntu (it installs the package), "
        f"or start docker, or set {VARIABLES[kind]} to one that may be written to."
    )
