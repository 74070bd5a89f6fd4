"""A private PostgreSQL cluster, synced to disk as in production."""

from __future__ import annotations

import os
import signal
from typing import ClassVar

from tests.services.program import ProgramServer, give, program
from tests.services.server import Kind, ServiceError

FOLDER = "/usr/lib/postgresql/*/bin"


def installed() -> bool:
    """True when this machine can run it."""
    return program("initdb", FOLDER) is not None and program("postgres", FOLDER) is not None


class PostgresServer(ProgramServer):
    """PostgreSQL, initialised in about a second and started in less."""

    kind: Kind = "database"
    # SIGINT is its fast shutdown: sessions are ended, a checkpoint is written.
    polite: ClassVar[signal.Signals] = signal.SIGINT

    @property
    def url(self) -> str:
        return f"postgresql://oplata:{self.password}@127.0.0.1:{self.port}/postgres"

    def prepare(self) -> None:
        data, password = self.directory / "data", self.directory / "password"
        data.mkdir(mode=0o700)
        password.touch(mode=0o600)
        password.write_text(self.password, encoding="utf-8")
        if (user := _user()) is not None:
            give(data, user)
            give(password, user)
        options = ["--pgdata", str(data), "--username", "oplata", "--pwfile", str(password), "--auth", "scram-sha-256"]
        options += ["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        self.run(
            [_path("initdb"), *options],
            env=_environment(),
            user=user,
        )
        password.unlink()

    def launch(self) -> None:
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.spawn(
            [_path("postgres"), "-D", str(self.directory / "data"), "-p", str(self.port), *options],
            env=_environment(),
            user=_user(),
        )


def _user() -> str | None:
    return "postgres" if os.geteuid() == 0 else None


def _path(name: str) -> str:
    found = program(name, FOLDER)
    if found is None:
        raise ServiceError(f"{name} is not installed.")
    return found


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
