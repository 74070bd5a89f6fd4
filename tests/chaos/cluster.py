"""Three RabbitMQ nodes on this one machine, each of which may be killed."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from tests.services.program import program
from tests.services.rabbitmq import RabbitServer
from tests.services.server import START_TIMEOUT_S, ServiceError

NODES = 3


class Mapper(RabbitServer):
    """Erlang's port mapper by itself: the nodes that share it may die, and it stays."""

    def prepare(self) -> None:
        super().prepare()
        self.mapper_port = self._mapper_port

    def launch(self) -> None:
        mapper = program("epmd")
        if mapper is None:
            raise ServiceError("epmd is not installed.")
        self.spawn([mapper, "-port", str(self._mapper_port), "-address", "127.0.0.1"], env=self._environment())

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._mapper_port), timeout=2).close()
        except OSError:
            return False
        return True


class Node(RabbitServer):
    """One node; ``join`` says with whom before it is started."""

    def join(self, mapper: Mapper, cookie: str, password: str, members: list[str]) -> None:
        """Make it a member of a cluster."""
        self._mapper_port = mapper.mapper_port
        secret = self.directory / ".erlang.cookie"
        secret.touch(mode=0o600)
        secret.write_text(cookie, encoding="utf-8")
        secret.chmod(0o400)
        settings = (self.directory / "rabbitmq.conf").read_text(encoding="utf-8").replace(self.password, password)
        self.password = password
        listed = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {name}\n" for number, name in enumerate(members, 1)
        )
        (self.directory / "rabbitmq.conf").write_text(
            f"{settings}cluster_formation.peer_discovery_backend = classic_config\n"
            f"cluster_partition_handling = pause_minority\n{listed}",
            encoding="utf-8",
        )

    @property
    def node_name(self) -> str:
        """Its name among the others."""
        return f"oplata{self.port}@localhost"

    def ask(self, command: list[str]) -> str:
        """Run one of its tools; what it prints, complaint included."""
        done = subprocess.run(
            command,
            env=self._environment(),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout or done.stderr

    def launch(self) -> None:
        server = program("rabbitmq-server", "/usr/lib/rabbitmq/bin", "/opt/rabbitmq*/sbin")
        if server is None:
            raise ServiceError("rabbitmq-server is not installed.")
        self.spawn([server, "-noinput"], env=self._environment() | {"RABBITMQ_ALLOW_INPUT": "1"})


class Cluster:
    """The mapper and the nodes, started."""

    def __init__(self) -> None:
        self.mapper = Mapper()
        self.nodes = [Node() for _ in range(NODES)]
        names = [node.node_name for node in self.nodes]
        cookie, password = secrets.token_hex(16), secrets.token_hex(16)
        for node in self.nodes:
            node.join(self.mapper, cookie, password, names)

    def start(self) -> None:
        """Start all; returns when they answer and know each other."""
        self.mapper.start()
        with ThreadPoolExecutor(NODES) as threads:
            list(threads.map(Node.start, self.nodes))
        self._until_whole()

    def discard(self) -> None:
        """End all and delete what they stored."""
        for server in [*self.nodes, self.mapper]:
            server.discard()

    def _until_whole(self) -> None:
        """A node that answers may still be joining; wait until the first one counts them all."""
        ctl = program("rabbitmqctl", "/usr/lib/rabbitmq/bin", "/opt/rabbitmq*/sbin")
        if ctl is None:
            raise ServiceError("rabbitmqctl is not installed.")
        node = self.nodes[0]
        deadline_s = time.monotonic() + START_TIMEOUT_S
        asked = "length(rabbit_nodes:all_running())"
        while True:
            told = node.ask([ctl, "-q", "-n", node.node_name, "eval", f"{asked}."])
            if told.strip() == str(NODES):
                return
            if time.monotonic() > deadline_s:
                raise ServiceError(f"Three nodes of RabbitMQ did not find each other in time: {told}")
