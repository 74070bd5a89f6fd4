"""One server process: started, waited for, asked for its time and memory, and stopped by its number."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.rpc.contender import ROOT, Name, command

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """The measurement cannot go on; the message says why."""


class Server:
    """A running server of one contender."""

    def __init__(self, name: Name, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name: Name = name
        self.port = port
        self._process = process

    def cpu_s(self) -> float:
        """Processor time of all its threads since it started."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_kib(self) -> int:
        """The most memory that it held at a time."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    def wait_until_ready(self) -> None:
        """Raises BenchError if it ends, or does not listen in time."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BenchError(f"The server of {self.name} ended with {self._process.returncode}.")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        raise BenchError(f"The server of {self.name} did not listen within {START_TIMEOUT_S:.0f} s.")

    def stop(self) -> None:
        """Ends the process, in kindness first."""
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=STOP_TIMEOUT_S)


@contextmanager
def running(name: Name, node: str, lifetime_s: float) -> Iterator[Server]:
    """A server that listens; it is stopped at the end, and ends by itself if nobody is left to stop it."""
    port = _free_port()
    process = subprocess.Popen(
        command(name, port, lifetime_s, node), cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL
    )
    server = Server(name, port, process)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def environment() -> dict[str, str]:
    """The checkout's own code for every Python, and Node as it runs in production."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NODE_ENV": "production"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
