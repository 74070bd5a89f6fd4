"""A parent of several processes of one kind: it heals them, passes signals on, and ends with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import click
import structlog

from oplata.cli.service.crashes import CRASH_LIMIT
from oplata.cli.service.offspring import SILENCE_S, Offspring
from oplata.cli.service.systemd import Systemd
from oplata.errors import OplataError, SettingsError

TICK_S = 1.0
USAGE = 2
DRAIN_FACTOR, DRAIN_EXTRA_S = 2.0, 15.0
"""How long a process may drain before it is killed: its own limit counts for its clients and then for its worker."""

_log = structlog.get_logger("oplata.service")


class Supervisor:
    """Runs a command as ``processes`` until SIGTERM or SIGINT. ``changes`` yields whenever all should start anew."""

    def __init__(
        self,
        title: str,
        command: list[str],
        *,
        processes: int,
        drain_s: float,
        systemd: Systemd,
        port: int | None = None,
        changes: Callable[[], AsyncIterator[str]] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._title = title
        self._systemd = systemd
        self._changes = changes
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()
        self._given_up: OplataError | None = None
        self._said_ready = False
        self._offspring = [
            Offspring(
                number,
                command,
                port=port,
                patience_s=drain_s * DRAIN_FACTOR + DRAIN_EXTRA_S,
                changed=self._news.set,
                rng=rng or random.Random(),  # noqa: S311  Jitter is no secret.
            )
            for number in range(1, processes + 1)
        ]

    async def run(self) -> int:
        """Keep all running; 0 when all of them drained, 1 when one had to be killed. Raises why it gave up."""
        keeping = [asyncio.create_task(each.run()) for each in self._offspring]
        tending = [asyncio.create_task(self._tend())]
        if self._changes is not None:
            tending.append(asyncio.create_task(self._start_anew(self._changes)))
        with self._signals():
            try:
                await asyncio.wait([*keeping, *tending], return_when=asyncio.FIRST_EXCEPTION)
            finally:
                self._stop()
                await asyncio.gather(*keeping, return_exceptions=True)
                for task in tending:
                    task.cancel()
                await asyncio.gather(*tending, return_exceptions=True)
        for task in (*keeping, *tending):
            if not task.cancelled():
                task.result()
        if self._given_up is not None:
            raise self._given_up
        return 0 if all(each.clean for each in self._offspring) else 1

    async def _tend(self) -> None:
        """Say how things stand, and give up when nothing is left that works."""
        while not self._stopping.is_set():
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), TICK_S)
            self._say_how_it_stands()
            self._given_up = self._reason_to_give_up()
            if self._given_up is not None:
                self._stop()

    def _say_how_it_stands(self) -> None:
        ready = sum(each.ready for each in self._offspring)
        if ready == len(self._offspring) and not self._said_ready:
            self._said_ready = True
            click.echo(f"oplata {self._title} is ready: {ready} {'process' if ready == 1 else 'processes'}")
            self._systemd.ready(f"{ready} running")
        elif self._said_ready:
            self._systemd.status(f"{ready} of {len(self._offspring)} running")
        if any(each.silent_s < SILENCE_S for each in self._offspring):
            self._systemd.alive()

    def _reason_to_give_up(self) -> OplataError | None:
        """Nothing was ever ready and a setting is wrong, or one ended too often in a row and no other one works."""
        if self._changes is not None:
            return None  # Whoever edits the files mends them too.
        if any(each.code == USAGE for each in self._offspring) and not any(each.was_ready for each in self._offspring):
            return SettingsError(f"oplata {self._title} did not start: what its processes said above has to be mended.")
        if any(each.ready for each in self._offspring) or not any(each.crashes.hopeless for each in self._offspring):
            return None
        codes = ", ".join(sorted({str(each.code) for each in self._offspring}))
        _log.error("Processes end as often as they are started.", action="process.crash_loop", exit_codes=codes)
        return OplataError(
            f"oplata {self._title} gives up: its processes ended {CRASH_LIMIT} times in a row (exit codes: {codes}). "
            "What they said above has to be mended."
        )

    async def _start_anew(self, changes: Callable[[], AsyncIterator[str]]) -> None:
        async for what in changes():
            click.echo(f"oplata {self._title} starts anew: {what} changed", err=True)
            for each in self._offspring:
                each.start_anew()

    def _stop(self) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self._news.set()
            self._systemd.stopping()
        for each in self._offspring:
            each.stop()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def heard(number: signal.Signals) -> None:
            if self._stopping.is_set():
                for each in self._offspring:
                    each.tell(signal.SIGKILL)
                sys.stderr.write("oplata: left at once, as asked twice.\n")
                sys.stderr.flush()
                os._exit(128 + number)
            click.echo(f"oplata {self._title} is stopping: a second signal leaves at once", err=True)
            self._stop()

        def reread() -> None:
            for each in self._offspring:
                each.tell(signal.SIGHUP)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, heard, number)
        loop.add_signal_handler(signal.SIGHUP, reread)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)
