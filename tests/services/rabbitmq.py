"""A private RabbitMQ node with its own Erlang port mapper; nothing of it listens beyond the loopback."""

from __future__ import annotations

import os
import signal
from typing import ClassVar

from tests.services.program import ProgramServer, program
from tests.services.server import Kind, ServiceError, free_port

# The wrapper in /usr/sbin changes the user and the directory, so Debian's own script behind it is preferred.
FOLDERS = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq*/sbin")


def installed() -> bool:
    """True when this machine can run it."""
    return _server() is not None and program("epmd") is not None


class RabbitServer(ProgramServer):
    """RabbitMQ, started within about four seconds."""

    kind: Kind = "amqp"
    polite: ClassVar[signal.Signals] = signal.SIGTERM

    @property
    def url(self) -> str:
        return f"amqp://oplata:{self.password}@127.0.0.1:{self.port}/%2F"

    def prepare(self) -> None:
        self._mapper_port = free_port()
        self._distribution_port = free_port()
        (self.directory / "rabbitmq.conf").write_text(
            f"default_user = oplata\n"
            f"default_pass = {self.password}\n"
            f"disk_free_limit.absolute = 50MB\n"
            # A small journal of the quorum queues is read faster after a kill.
            f"raft.wal_max_size_bytes = 64000000\n"
            f"log.console = true\n"
            f"log.console.level = warning\n",
            encoding="utf-8",
        )
        (self.directory / "plugins").write_text("[].\n", encoding="utf-8")
        (self.directory / "environment").touch()

    def launch(self) -> None:
        server, mapper = _server(), program("epmd")
        if server is None or mapper is None:
            raise ServiceError("rabbitmq-server and epmd are not installed.")
        env = self._environment()
        self.spawn([mapper, "-port", str(self._mapper_port), "-address", "127.0.0.1"], env=env)
        # With input "allowed" the script replaces itself by the Erlang machine, whose id is then the one we hold.
        self.spawn([server, "-noinput"], env=env | {"RABBITMQ_ALLOW_INPUT": "1"})

    def _environment(self) -> dict[str, str]:
        here = str(self.directory)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": here,
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_CONF_ENV_FILE": f"{here}/environment",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{here}/advanced",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{here}/generated",
            "RABBITMQ_MNESIA_BASE": f"{here}/data",
            "RABBITMQ_LOG_BASE": f"{here}/logs",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{here}/pid",
            "RABBITMQ_NODENAME": f"oplata{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
        }


def _server() -> str | None:
    return program("rabbitmq-server", *FOLDERS)
