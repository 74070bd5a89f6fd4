"""One process of a parent, and those that take its place when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
from collections.abc import Callable

import structlog

from oplata.cli.service.arguments import with_post
from oplata.cli.service.crashes import Crashes
from oplata.cli.service.lifeline import READY
from oplata.cli.service.post import Post
from oplata.observability.faults import describe

SILENCE_S = 60.0
"""A process that gave no sign of life for so long is killed, and another one takes its place."""

TICK_S = 1.0
"""Time is counted in these and not by the clock. Who was frozen with its processes hears them before it judges."""

_log = structlog.get_logger("oplata.service")


class Offspring:
    """Runs a command as a process, again and again until ``stop``. ``changed`` is called when its state has."""

    def __init__(
        self,
        number: int,
        command: list[str],
        *,
        port: int | None,
        patience_s: float,
        changed: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self.number = number
        self.ready = False
        self.was_ready = False
        self.code: int | None = None
        self.crashes = Crashes(rng)
        self.silent_s = 0.0
        self._command = command
        self._port = port
        self._patience_s = patience_s
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._awake = asyncio.Event()
        self._asked = False
        self.clean = True

    async def run(self) -> None:
        """Keep one running until ``stop``, and return when the last one has ended."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            born_at_s = loop.time()
            try:
                self.code, reason = await self._live(), None
            except OSError as error:
                # Memory or descriptors are short for a moment; those that run go on meanwhile.
                self.code, reason = None, describe(error)
            self.ready = False
            if self._stopping.is_set():
                return
            if self._asked:
                self._asked = False
                continue
            pause_s = self.crashes.ended(loop.time() - born_at_s)
            _log.error(
                "A process ended that nobody told to; another one takes its place.",
                action="process.ended",
                number=self.number,
                exit_code=self.code,
                reason=reason,
                in_a_row=self.crashes.in_a_row,
                again_in_s=round(pause_s, 2),
            )
            self._changed()
            self._awake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), pause_s)

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the process that runs at present."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def stop(self) -> None:
        """Let it drain; it is killed when it does not end in time."""
        self._stopping.set()
        self._awake.set()
        self.tell(signal.SIGTERM)

    def start_anew(self) -> None:
        """Let it drain, and another one take its place at once."""
        self._asked = self._process is not None and self._process.returncode is None
        self._awake.set()
        self.tell(signal.SIGTERM)

    async def _live(self) -> int:
        """The life of one process; returns its exit code, which is minus the signal that ended it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            post = Post(number=self.number, lifeline_fd=theirs.fileno(), port=self._port)
            self._process = await asyncio.create_subprocess_exec(
                *with_post(self._command, post),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in a terminal is for the parent, which passes it on once.
                start_new_session=True,
            )
            theirs.close()
            if self._stopping.is_set():
                self.tell(signal.SIGTERM)
            ending = asyncio.create_task(self._process.wait())
            listening = asyncio.create_task(self._listen(ours))
            try:
                await self._until_gone(ending)
            finally:
                if not ending.done():
                    self.tell(signal.SIGKILL)
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
            return await ending

    async def _until_gone(self, ending: asyncio.Task[int]) -> None:
        self.silent_s = 0.0
        draining_s: float | None = None
        while not ending.done():
            await asyncio.wait({ending}, timeout=TICK_S)
            self.silent_s += TICK_S
            if self._stopping.is_set() or self._asked:
                draining_s = 0.0 if draining_s is None else draining_s + TICK_S
            late = draining_s is not None and draining_s > self._patience_s
            silent = draining_s is None and self.silent_s > SILENCE_S
            if not ending.done() and (late or silent):
                why = "did not drain in time" if late else "made no progress"
                _log.error(f"A process {why} and is killed.", action="process.killed", number=self.number)
                self.clean = False
                self.tell(signal.SIGKILL)
                await ending

    async def _listen(self, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while signs := await loop.sock_recv(ours, 64):
            self.silent_s = 0.0
            if READY in signs:
                self.ready = self.was_ready = True
                self._changed()
