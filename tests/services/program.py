"""A server that runs as programs of this machine, in a directory of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from tests.services import ledger, release
from tests.services.processes import ProcessId, alive, ask_to_end, identify, kill9
from tests.services.server import STOP_TIMEOUT_S, TITLES, Server, ServiceError, free_port


class ProgramServer(Server):
    """The processes, directory, port and password of one server; what is started first is ended last."""

    polite: ClassVar[signal.Signals]

    def __init__(self, *, shared: bool = False) -> None:
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.directory = Path(tempfile.mkdtemp(prefix=f"oplata-{self.kind}-"))
        # PostgreSQL refuses to run as root and becomes another user, who has to pass through here to its data.
        self.directory.chmod(0o711)
        self._children: list[subprocess.Popen[bytes]] = []
        self._record = ledger.Record(
            name=self.directory.name,
            kind=self.kind,
            url=self.url,
            directory=str(self.directory),
            owner=None if shared else ledger.owner_of_this_run(),
        )
        ledger.write(self._record)
        try:
            self.prepare()
        except BaseException:
            self.discard()
            raise

    @abstractmethod
    def prepare(self) -> None:
        """Write what the first start needs."""

    @abstractmethod
    def launch(self) -> None:
        """Run the programs, with ``spawn``; readiness is waited for by ``start``."""

    def start(self) -> None:
        if not self._running():
            self._bury()
            self.launch()
        self.wait_until_ready(self._raise_if_ended)

    def kill9(self) -> None:
        for process in reversed(self._record.processes):
            kill9(process)
        self._bury()

    def stop(self) -> None:
        for process in reversed(self._record.processes):
            if not ask_to_end(process, self.polite, STOP_TIMEOUT_S):
                kill9(process)
                raise ServiceError(f"{TITLES[self.kind]} did not stop within {STOP_TIMEOUT_S:.0f} s and was killed.")
        self._bury()

    def discard(self) -> None:
        self.kill9()
        ledger.erase(self._record)

    def spawn(self, command: list[str], *, env: dict[str, str], user: str | None = None) -> None:
        """Start one long-lived program, in its own session so that Ctrl-C at the terminal does not reach it."""
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                _entered(command, user),
                env=env,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_becoming(user),
            )
        self._children.append(child)
        identity = identify(child.pid)
        if identity is not None:
            self._record.processes.append(identity)
        ledger.write(self._record)

    def run(self, command: list[str], *, env: dict[str, str], user: str | None = None) -> None:
        """Run one short-lived program to its end; its output is in the error when it fails."""
        done = subprocess.run(
            _entered(command, user),
            env=env,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **_becoming(user),
        )
        if done.returncode != 0:
            raise ServiceError(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-2000:]}")

    @property
    def log(self) -> Path:
        """Where the programs write what they have to say."""
        return self.directory / "log"

    def _running(self) -> bool:
        return bool(self._record.processes) and all(map(alive, self._record.processes))

    def _raise_if_ended(self) -> None:
        if not self._running():
            text = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            self.kill9()
            raise ServiceError(f"{TITLES[self.kind]} ended while it started. Its last words:\n{text}")

    def _bury(self) -> None:
        for process in self._record.processes:
            kill9(process)
        for child in self._children:
            child.wait(timeout=STOP_TIMEOUT_S)
        self._children.clear()
        self._record.processes = list[ProcessId]()
        ledger.write(self._record)


def program(name: str, *folders: str) -> str | None:
    """The path of a program: in the folders, whose names may hold ``*`` (the newest wins), or else on PATH.

    In a release of its own the path is the one that holds there.
    """
    root = release.root() or Path("/")
    for folder in folders if release.root() is None else (*folders, "/usr/sbin", "/usr/bin"):
        matches = [path for path in root.glob(f"{folder.lstrip('/')}/{name}") if os.access(path, os.X_OK)]
        if matches:
            newest = max(matches, key=lambda path: [int(part) for part in path.parts if part.isdigit()])
            return f"/{newest.relative_to(root)}"
    return shutil.which(name) if release.root() is None else None


def give(path: Path, user: str) -> None:
    """Let this user, as the program will know it, own the path."""
    folder = release.root()
    if folder is None:
        shutil.chown(path, user, user)
    else:
        os.chown(path, *release.ids_of(folder, user))


def _entered(command: list[str], user: str | None) -> list[str]:
    folder = release.root()
    return command if folder is None else release.entering(folder, command, user)


def _becoming(user: str | None) -> dict[str, Any]:
    if user is None or release.root() is not None:
        return {}
    return {"user": user, "group": user, "extra_groups": []}
