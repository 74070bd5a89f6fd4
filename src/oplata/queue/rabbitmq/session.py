"""A channel that is kept: opened and prepared anew, with backoff, whenever it or its connection is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from oplata.errors import OplataError, QueueUnavailable, TopologyError
from oplata.queue.backoff import delay_s
from oplata.queue.rabbitmq.channel import Channel, ChannelClosed, open_channel
from oplata.queue.rabbitmq.connection import Connection

_BACKOFF_BASE_S = 0.1
_BACKOFF_CAP_S = 5.0
_STEADY_S = 10.0
_log = structlog.get_logger(__name__)


class Session:
    """Runs ``prepare`` on each new channel and ``lost`` when it is gone.

    ``channel`` is the prepared channel, or ``None`` between two. ``failure`` is the ``TopologyError`` that keeps it
    from being prepared, if one does, and ``failures`` counts how often; an operator may mend the broker meanwhile, so
    the session goes on trying. ``changed`` is pulsed on every change.
    """

    def __init__(
        self,
        connection: Connection,
        prepare: Callable[[Channel], Awaitable[None]],
        lost: Callable[[], None],
        *,
        name: str,
        rng: random.Random,
    ) -> None:
        self.connection = connection
        self._prepare = prepare
        self._lost = lost
        self._name = name
        self._rng = rng
        self._task: asyncio.Task[None] | None = None
        self._pause_s = 0.0
        self.stopped = False
        self.channel: Channel | None = None
        self.failure: TopologyError | None = None
        self.failures = 0
        self.changed = connection.changed

    def start(self) -> None:
        """Begin, or begin again after a stop; returns at once."""
        self.stopped = False
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"oplata rabbitmq {self._name}")

    async def stop(self) -> None:
        """Close the channel within a limit and wake everyone who waits for one."""
        self.stopped = True
        task, self._task = self._task, None
        channel = self.channel
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self.pulse()
        if channel is not None:
            await channel.wait_closed()

    def renew(self, *, pause_s: float = 0.0) -> None:
        """Give the present channel up; a new one is opened and prepared, no sooner than after ``pause_s``."""
        channel = self.channel
        self._pause_s = pause_s
        self._go_down()
        if channel is not None:
            channel.close()

    async def ready(self, *, even_if_blocked: bool = False) -> Channel:
        """Wait for a prepared channel, on a connection that takes messages or ``even_if_blocked`` by an alarm.

        Raises ``TopologyError`` while one stands in the way, and ``QueueUnavailable`` once the session is stopped.
        """
        while True:
            if self.stopped:
                raise QueueUnavailable("The queue was stopped.")
            if self.channel is not None and (not self.connection.blocked or even_if_blocked):
                return self.channel
            if self.failure is not None:
                raise TopologyError(str(self.failure))
            await self.changed.wait()

    def pulse(self) -> None:
        """Wake everyone who waits now."""
        self.changed.set()
        self.changed.clear()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            link = await self.connection.opened()
            attempt += 1
            began_s = loop.time()
            try:
                channel = await open_channel(link)
                await self._live(channel)
            except TopologyError as error:
                self._fail(error, attempt)
            except (ChannelClosed, OplataError) as error:
                _log.warning("queue.channel_failed", session=self._name, attempt=attempt, reason=str(error))
            except Exception:
                # A fault of ours or of pika's in here must not end this session for good.
                _log.exception("queue.channel_fault", session=self._name, attempt=attempt)
            if loop.time() - began_s > _STEADY_S:
                attempt = 1
            pause_s, self._pause_s = self._pause_s, 0.0
            await asyncio.sleep(pause_s + delay_s(attempt, self._rng, _BACKOFF_BASE_S, _BACKOFF_CAP_S))

    async def _live(self, channel: Channel) -> None:
        """Prepare a channel and stay until it is closed."""
        try:
            await self._prepare(channel)
            self.channel, self.failure = channel, None
            _log.info("queue.ready", session=self._name)
            self.pulse()
            await asyncio.wait({channel.closed})
            if self.channel is channel:  # Else it was given up by us, and whoever did so has said why.
                reason = ChannelClosed(channel.closed.result())
                _log.warning("queue.channel_closed", session=self._name, reason=reason.text)
        finally:
            self._go_down()
            channel.close()

    def _fail(self, error: TopologyError, attempt: int) -> None:
        self.failure = error
        self.failures += 1
        _log.error("queue.topology_refused", session=self._name, attempt=attempt, reason=str(error))
        self.pulse()

    def _go_down(self) -> None:
        self.channel = None
        self._lost()
        self.pulse()
