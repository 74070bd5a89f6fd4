"""Node and its packages, for the tests that run a shop's own code against ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.services.server import ServiceError

_PROJECT = Path(__file__).resolve().parents[2]
FOLDER = _PROJECT / "examples" / "node-shop"
DEPLOY = _PROJECT / "tests" / "deploy"
OLDEST = 18
HOW_TO_GET = (
    f"These tests run Node's own packages and need Node.js {OLDEST} or newer with npm on PATH: install `nodejs npm`."
)


class Node(NamedTuple):
    """``[program, script]`` run with ``cwd=folder`` finds the packages."""

    program: str
    folder: Path


def on_path() -> bool:
    """True when there is a Node and its npm, of whatever age."""
    return shutil.which("node") is not None and shutil.which("npm") is not None


def ready(folder: Path = FOLDER) -> Node:
    """Node, with the folder's packages installed as its lock says. Raises ``ServiceError`` where that cannot be."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        raise ServiceError(HOW_TO_GET)
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    version = re.match(r"v(\d+)\.", answer)
    if version is None or int(version[1]) < OLDEST:
        raise ServiceError(f"{HOW_TO_GET} This one is {answer.strip()}.")
    if not _installed(folder):
        _install(npm, folder)
    return Node(program, folder)


def _installed(folder: Path) -> bool:
    """npm leaves a copy of the lock within; when ours is younger, the packages are of yesterday."""
    stamp, lock = folder / "node_modules" / ".package-lock.json", folder / "package-lock.json"
    return stamp.exists() and stamp.stat().st_mtime >= lock.stat().st_mtime


def _install(npm: str, folder: Path) -> None:
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise ServiceError(f"npm ci failed: {done.stderr.strip()[-1000:]}")
