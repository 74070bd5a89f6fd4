"""Node and the processes that the conformance tests talk to; a missing one fails the run and says what to do."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
START_S = 20.0
RUN_S = 100.0


def node_packages() -> None:
    """Brings the packages of package-lock.json, once."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.fail("The conformance tests need Node 20 or newer with npm on the PATH: apt-get install nodejs npm.")
    installed = HERE / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= (HERE / "package-lock.json").stat().st_mtime:
        return
    outcome = subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=HERE, capture_output=True, text=True, check=False)
    if outcome.returncode:
        pytest.fail(f"npm ci could not bring the packages of {HERE}: {outcome.stderr[-2_000:]}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens on the port; it is ended with the context."""
    process = subprocess.Popen(command, cwd=HERE)
    try:
        _wait_for(port, process, command)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], command: Sequence[str]) -> None:
    ends_at = time.monotonic() + START_S
    while time.monotonic() < ends_at:
        if process.poll() is not None:
            pytest.fail(f"{' '.join(command)} ended with {process.returncode} before it listened.")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    pytest.fail(f"{' '.join(command)} does not listen on {port} after {START_S} s.")


def our_server(port: int) -> Sequence[str]:
    return [sys.executable, "-m", "oplata.rpc.conformance", "--port", str(port)]


def their_server(version: str, port: int) -> Sequence[str]:
    return ["node", "control.mjs", version, str(port)]


def check(version: str, targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each check of that client's version came to, against each target."""
    order = json.dumps({"version": version, "targets": targets})
    outcome = subprocess.run(
        ["node", "check.mjs", order], cwd=HERE, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    if outcome.returncode:
        pytest.fail(f"The checks of client {version} ended with {outcome.returncode}: {outcome.stderr[-2_000:]}")
    return [json.loads(line) for line in outcome.stdout.splitlines()]
