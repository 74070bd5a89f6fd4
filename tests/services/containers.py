"""A server in a container, for machines that have docker and not the programs."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.services import ledger
from tests.services.server import STOP_TIMEOUT_S, Kind, Server, ServiceError, free_port

COMPOSE = Path(__file__).with_name("compose.yaml")
# The first start may have to fetch an image.
UP_TIMEOUT_S = 600


def installed() -> bool:
    """True when a docker daemon answers and knows compose."""
    if shutil.which("docker") is None:
        return False
    try:
        for command in (["docker", "info"], ["docker", "compose", "version"]):
            subprocess.run(command, capture_output=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError):
        return False
    return True


class ContainerServer(Server):
    """RabbitMQ or PostgreSQL as a compose project with one container."""

    def __init__(self, kind: Kind, *, shared: bool = False) -> None:
        self.kind = kind
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.project = f"oplata-{kind}-{secrets.token_hex(4)}"
        self._record = ledger.Record(
            name=self.project,
            kind=kind,
            url=self.url,
            directory=tempfile.mkdtemp(prefix=f"{self.project}-"),
            owner=None if shared else ledger.owner_of_this_run(),
            compose_project=self.project,
        )
        ledger.write(self._record)

    @property
    def url(self) -> str:
        if self.kind == "amqp":
            return f"amqp://oplata:{self.password}@127.0.0.1:{self.port}/%2F"
        return f"postgresql://oplata:{self.password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self._compose("up", "--detach", "--no-recreate", self.kind, timeout_s=UP_TIMEOUT_S)
        self.wait_until_ready()

    def kill9(self) -> None:
        self._compose("kill", "--signal", "SIGKILL", self.kind)

    def stop(self) -> None:
        self._compose("stop", "--timeout", str(int(STOP_TIMEOUT_S)), self.kind)

    def discard(self) -> None:
        ledger.erase(self._record)

    def _compose(self, *arguments: str, timeout_s: float = 60) -> None:
        env = {"OPLATA_PORT": str(self.port), "OPLATA_PASSWORD": self.password}
        run_compose(self.project, *arguments, env=env, timeout_s=timeout_s)


def remove_project(project: str) -> None:
    """Remove a project's containers, networks and volumes."""
    env = {"OPLATA_PORT": "0", "OPLATA_PASSWORD": "-"}
    run_compose(project, "down", "--volumes", "--timeout", "0", env=env, timeout_s=60)


def run_compose(project: str, *arguments: str, env: dict[str, str], timeout_s: float) -> None:
    """Run docker compose on our file; its complaint is in the error."""
    command = ["docker", "compose", "--project-name", project, "--file", str(COMPOSE), *arguments]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise ServiceError(f"docker compose {arguments[0]} failed: {done.stderr.strip()[-1000:]}")
