"""Debian's packages of the services, installed when they are wanted and absent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.server import Kind, ServiceError

PACKAGES: dict[Kind, str] = {"amqp": "rabbitmq-server", "database": "postgresql"}
NODE = ("nodejs", "npm")
SYSTEMD = "systemd"
"""For ``systemd-analyze``, which looks at units without running any."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""What a browser may be called on PATH; Debian's package is the first."""

POLICY = Path("/usr/sbin/policy-rc.d")


def installable() -> bool:
    """True for root on a machine with apt."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(names: list[str]) -> None:
    """Install the packages without starting the system's own services. Takes a minute or two, at most ten."""
    sys.stdout.write(f"Installing {' and '.join(names)} with apt-get.\n")
    sys.stdout.flush()
    with _nothing_started():
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", *names)


def _apt(*arguments: str) -> None:
    command = ["apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120", *arguments]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise ServiceError(f"apt-get {arguments[0]} failed: {done.stderr.strip()[-1000:]}")


@contextmanager
def _nothing_started() -> Iterator[None]:
    """Debian starts a service when it is installed, on its usual port; this is the documented way to forbid it."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
