"""A process of ours that may be killed and frozen, and is started again as systemd would."""

from __future__ import annotations

import asyncio
import ctypes
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.acceptance.command import SCRIPT, environment

READY_TIMEOUT_S = 45.0
STOP_TIMEOUT_S = 40.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """Runs in the child: should this harness be killed, no process of it stays behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Offspring:
    """``command`` in ``folder``, its output in ``folder/name.log``. ``restart_s`` draws how soon it is started again
    when it has ended by itself or was killed; without it, it stays down.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        settings: Mapping[str, str],
        restart_s: Callable[[], float] | None = None,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.codes: list[int] = []
        self.log = folder / f"{name}.log"
        self._command = list(command)
        self._folder = folder
        self._env = environment(settings)
        self._restart_s = restart_s
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._wanted = False
        self._begins = 0

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Run it; returns at once."""
        self._wanted = True
        await self._spawn()

    def kill9(self) -> bool:
        """End it now, as the kernel would; False when it was down."""
        return self.tell(signal.SIGKILL)

    def tell(self, number: signal.Signals) -> bool:
        """Send a signal; False when it was down."""
        if self._process is None or self._process.returncode is not None:
            return False
        self._process.send_signal(number)
        return True

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end and wait; returns its exit code. One that does not end in time is killed (and says -9)."""
        self._wanted = False
        watching, process = self._watching, self._process
        if process is None or watching is None:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
            return self.codes[-1] if self.codes else 0
        self.tell(signal.SIGCONT)
        self.tell(number)
        _, late = await asyncio.wait({watching}, timeout=STOP_TIMEOUT_S)
        if late:
            self.kill9()
            await watching
        return self.codes[-1]

    async def ended(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the end of one that ends by itself; returns its exit code."""
        if self._watching is not None:
            await asyncio.wait({self._watching}, timeout=timeout_s)
        return self.codes[-1] if self.codes else await self.stop()

    async def until_said(self, words: str) -> None:
        """Wait until its log holds these words since it was last started."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while words not in self.said():
            if time.monotonic() > deadline_s or (self._process is None and self._restart_s is None):
                raise AssertionError(f"{self.name} did not say {words!r}: {self.tail()}")
            await asyncio.sleep(0.02)

    def said(self) -> str:
        """Its log since it was last started."""
        return self.log.read_bytes()[self._begins :].decode(errors="replace")

    def tail(self, characters: int = 3000) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]

    async def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self._begins = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._folder,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        self._watching = asyncio.create_task(self._watch(self._process))

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        self.codes.append(await process.wait())
        self._process = None
        if not self._wanted or self._restart_s is None:
            return
        await asyncio.sleep(self._restart_s())
        if self._wanted:
            self.restarts += 1
            await self._spawn()


def oplata(
    name: str, *arguments: str, folder: Path, settings: Mapping[str, str], restart_s: Callable[[], float] | None = None
) -> Offspring:
    """The ``oplata`` command as such a process."""
    return Offspring(name, [str(SCRIPT), *arguments], folder=folder, settings=settings, restart_s=restart_s)


async def migrate(folder: Path, settings: Mapping[str, str]) -> None:
    """Make the tables, as one does before the first worker."""
    once = oplata("migrate", "migrate", folder=folder, settings=settings)
    await once.start()
    if await once.ended() != 0:
        raise AssertionError(f"the tables could not be made: {once.tail()}")


def raise_file_limit(wanted: int = 8192) -> None:
    """Thousands of connections need more files than some systems give by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
