"""What every service of the tests can do, and the errors that say how to get one."""

from __future__ import annotations

import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

Kind = Literal["amqp", "database"]

KINDS: tuple[Kind, ...] = ("amqp", "database")
TITLES: dict[Kind, str] = {"amqp": "RabbitMQ", "database": "PostgreSQL"}

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class ServiceError(Exception):
    """A service of the tests could not be had; the message says how to mend it."""


class Server(ABC):
    """One private server with its own data. Every method returns when its effect is visible, or raises in time."""

    kind: Kind
    port: int

    @property
    @abstractmethod
    def url(self) -> str:
        """Where a client finds it, with name and password; the same after every restart."""

    @abstractmethod
    def start(self) -> None:
        """Run on the data at hand, and return once clients are answered."""

    @abstractmethod
    def kill9(self) -> None:
        """End it with SIGKILL, all its processes included, as a power cut would."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to end in good order; the data stays for the next start."""

    @abstractmethod
    def discard(self) -> None:
        """End it and delete its data."""

    def answers(self) -> bool:
        """True when a client would be answered now."""
        return answers(self.kind, "127.0.0.1", self.port)

    def wait_until_ready(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait for an answer; ``check`` may raise earlier, when waiting has become pointless."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            check()
            if time.monotonic() > deadline:
                raise ServiceError(f"{TITLES[self.kind]} did not answer within {START_TIMEOUT_S:.0f} s.")
            time.sleep(0.05)


def free_port() -> int:
    """A TCP port of the loopback that nobody holds.

    It lies below the range from which the kernel takes ports for outgoing connections, so that no stranger takes it
    while a server that was killed is about to come back to it.
    """
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceError("No free TCP port was found between 20000 and 32000.")


def answers(kind: Kind, host: str, port: int) -> bool:
    """Ask as a client would: the first bytes of a login, and the first byte that a ready server sends back."""
    if kind == "amqp":
        hello, ready = b"AMQP\x00\x00\x09\x01", b"\x01"
    else:
        body = b"\x00\x03\x00\x00" + b"user\x00oplata\x00database\x00postgres\x00\x00"
        hello, ready = (len(body) + 4).to_bytes(4, "big") + body, b"R"
    try:
        with socket.create_connection((host, port), timeout=2) as client:
            client.sendall(hello)
            return client.recv(1) == ready
    except OSError:
        return False
