"""The ``oplata`` command as a subprocess, in an environment that holds no setting but those given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from queue import Empty, Queue

SCRIPT = Path(sys.executable).parent / "oplata"
RUN_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without oplata's settings, and with these."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("OPLATA_")}
    # Without a key nothing starts that serves orders, unless it is told so; the tests of the door say otherwise.
    return {**kept, "PYTHONUNBUFFERED": "1", "OPLATA_INSECURE": "true", **settings}


def oplata(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [str(SCRIPT), *arguments],
        cwd=cwd,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


class Running:
    """A command that runs until it is told to stop; its output is read while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._arriving: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def line(self, beginning: str) -> str:
        """Wait for a line of standard output that begins so."""
        while True:
            try:
                arrived = self._arriving.get(timeout=READY_TIMEOUT_S)
            except Empty:
                raise AssertionError(f"no line began with {beginning!r} in time: {self.lines}") from None
            if arrived is None:
                raise AssertionError(f"it ended without a line that begins with {beginning!r}: {self.lines}")
            if arrived.startswith(beginning):
                return arrived

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, and return the exit code."""
        self.process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait(timeout=STOP_TIMEOUT_S)
        self._reader.join(timeout=STOP_TIMEOUT_S)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._arriving.put(line.rstrip("\n"))
        self._arriving.put(None)


def running(*arguments: str, cwd: Path, **settings: str) -> AbstractContextManager[Running]:
    """Start a command of ours; at the end it is killed if it still runs."""
    return following([str(SCRIPT), *arguments], cwd=cwd, env=environment(settings))


@contextmanager
def following(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: int = subprocess.DEVNULL
) -> Iterator[Running]:
    """Start any program; at the end it is killed if it still runs."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started = Running(process)
    try:
        yield started
    finally:
        if process.poll() is None:
            process.kill()
        started.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
