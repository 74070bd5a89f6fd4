"""One long-lived connection: opened, watched, and replaced for ever until it is stopped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import structlog

from oplata.errors import QueueUnavailable
from oplata.queue.backoff import delay_s
from oplata.queue.rabbitmq.endpoint import Endpoint
from oplata.queue.rabbitmq.link import Link, connect
from oplata.queue.rabbitmq.wire import Wire

_BACKOFF_BASE_S = 0.2
_BACKOFF_CAP_S = 5.0
_STEADY_S = 10.0
"""A connection that lived this long was a good one: the next attempt counts as the first again."""

_SILENT_TICKS = 4
_log = structlog.get_logger(__name__)


class Connection:
    """Holds at most one open ``Link``; ``changed`` is pulsed whenever that, or its being blocked, changes.

    ``failure`` is why the latest attempt failed, for those who have to explain a timeout.
    """

    def __init__(self, endpoint: Endpoint, *, role: str, rng: random.Random, wire: Callable[..., Any] = Wire) -> None:
        self._endpoint = endpoint
        self._wire = wire
        self._role = role
        self._rng = rng
        self._task: asyncio.Task[None] | None = None
        self.link: Link | None = None
        self.failure: QueueUnavailable | None = None
        self.times_opened = 0
        self.changed = asyncio.Event()

    def start(self) -> None:
        """Begin to connect; returns at once. Starting twice changes nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"oplata rabbitmq {self._role}")

    async def stop(self) -> None:
        """Close the connection and connect no more. Takes at most a few seconds."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    @property
    def blocked(self) -> bool:
        """Whether the broker has announced that it takes no messages now, because of an alarm."""
        return self.link is not None and self.link.blocked

    async def opened(self) -> Link:
        """Wait, without a limit, until the connection is open."""
        while self.link is None:
            await self.changed.wait()
        return self.link

    def abort(self, reason: str) -> None:
        """Drop the present link, if there is one; a new one will be opened."""
        if self.link is not None:
            self.link.abort(reason)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            attempt += 1
            began_s = loop.time()
            try:
                await self._live_once()
            except QueueUnavailable as error:
                self.failure = error
                _log.warning("queue.connect_failed", role=self._role, attempt=attempt, reason=str(error))
            except Exception:
                # A fault of ours or of pika's in here must not end all connecting for good.
                _log.exception("queue.connection_fault", role=self._role, attempt=attempt)
            if loop.time() - began_s > _STEADY_S:
                attempt = 1
            await asyncio.sleep(delay_s(attempt, self._rng, _BACKOFF_BASE_S, _BACKOFF_CAP_S))

    async def _live_once(self) -> None:
        """Connect and stay until the link is lost; raise ``QueueUnavailable`` if it cannot be opened."""
        link = await connect(self._endpoint, role=self._role, wire=self._wire)
        try:
            self.link, self.failure = link, None
            self.times_opened += 1
            link.on_blocked_change = self._on_blocked_change
            _log.info("queue.connected", role=self._role, host=self._endpoint.host, port=self._endpoint.port)
            self._pulse()
            await _until_lost_or_silent(link)
            reason = link.lost.result() if link.lost.done() else None
            self.failure = QueueUnavailable(f"The connection to RabbitMQ was lost ({_name(reason)}).")
            _log.warning("queue.connection_lost", role=self._role, reason=_name(reason))
        finally:
            self.link = None
            self._pulse()
            await link.close()

    def _on_blocked_change(self) -> None:
        _log.warning("queue.blocked" if self.blocked else "queue.unblocked", role=self._role)
        self._pulse()

    def _pulse(self) -> None:
        """Wake everyone who waits now."""
        self.changed.set()
        self.changed.clear()


async def _until_lost_or_silent(link: Link) -> None:
    """Return once the link is lost, or drop it when the broker was silent for a whole heartbeat timeout.

    The broker sends something every half timeout. pika itself looks in windows of ``timeout + 5 s`` and needs up to
    two of them. Silence is counted in ticks rather than by the clock, so that a process that was stopped and goes on
    reads what has arrived meanwhile before it judges.
    """
    heartbeat_s: float = link.wire.params.heartbeat or 0
    silent_ticks, seen_bytes = 0, -1
    while not link.lost.done():
        await asyncio.wait({link.lost}, timeout=heartbeat_s / _SILENT_TICKS if heartbeat_s else None)
        received_bytes: int = link.wire.bytes_received
        silent_ticks = silent_ticks + 1 if received_bytes == seen_bytes else 0
        seen_bytes = received_bytes
        if heartbeat_s and silent_ticks >= _SILENT_TICKS:
            link.abort(f"the broker was silent for {heartbeat_s:g} s")
            await asyncio.wait({link.lost}, timeout=heartbeat_s)
            return


def _name(reason: BaseException | None) -> str:
    """Name a reason for the log: the broker's words if it had any, else the kind of the error."""
    return str(getattr(reason, "reply_text", "") or (type(reason).__name__ if reason is not None else "silence"))
