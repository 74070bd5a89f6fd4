"""What a process tells of itself to whoever watches it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import click

from oplata.cli.service.lifeline import ALIVE, READY, Lifeline
from oplata.cli.service.post import Post
from oplata.cli.service.systemd import Systemd
from oplata.settings.sources import service_manager

BEAT_S = 5.0


class Watched:
    """Tells whoever watches this process, a parent or systemd, that it is ready and that it makes progress."""

    def __init__(self, command: str, post: Post | None, *, progresses: Callable[[], bool]) -> None:
        self._progresses = progresses
        self.title = f"oplata {command}" if post is None else f"oplata {command} {post.number}"
        self.lifeline = None if post is None else Lifeline(post.lifeline_fd)
        # A process of several is its parent's to watch.
        self._systemd = Systemd(service_manager()) if post is None else None

    def ready(self, told: str) -> None:
        """The command is up."""
        click.echo(f"{self.title} {told}")
        if self.lifeline is not None:
            self.lifeline.say(READY)
        if self._systemd is not None:
            self._systemd.ready(told)

    def stopping(self) -> None:
        """The command drains."""
        if self._systemd is not None:
            self._systemd.stopping()

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Give signs of life meanwhile, as long as there is progress."""
        beating = asyncio.create_task(self._beat(), name="oplata-beat")
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            if self._progresses():
                if self.lifeline is not None:
                    self.lifeline.say(ALIVE)
                if self._systemd is not None:
                    self._systemd.alive()
            await asyncio.sleep(BEAT_S)
