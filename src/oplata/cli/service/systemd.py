"""Word to systemd, for a unit with ``Type=notify``. Elsewhere nobody listens, and nothing is said."""

from __future__ import annotations

import contextlib
import socket

from oplata.settings.sources import ServiceManager


class Systemd:
    """Tells the service manager what this process is at. Each message is a datagram, and none is waited for."""

    def __init__(self, manager: ServiceManager) -> None:
        self._address = manager.notify_socket
        self.watchdog_s = manager.watchdog_s

    def say(self, *lines: str) -> None:
        """Send lines such as ``READY=1``. A manager that does not take them is not our trouble."""
        if self._address is None:
            return
        # A name in the abstract namespace begins with a zero byte, which an environment cannot hold: systemd writes @.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)

    def ready(self, status: str) -> None:
        """The service is up."""
        self.say("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self.say(f"STATUS={status}")

    def stopping(self) -> None:
        """The service drains."""
        self.say("STOPPING=1", "STATUS=draining")

    def alive(self) -> None:
        """The service makes progress. systemd restarts one that has not said so for its WatchdogSec."""
        self.say("WATCHDOG=1")
