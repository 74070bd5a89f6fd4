"""Limits on waits, with one timer for all that are under way: ``asyncio.timeout`` makes one for each, and moves it."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Protocol

import structlog

from oplata.observability.faults import describe

_log = structlog.get_logger(__name__)


class Wait(Protocol):
    """What ends at ``at_s`` of the loop's clock, unless it ``is_over`` by then."""

    at_s: float
    is_over: bool

    def expire(self) -> None:
        """End it, if it is not over. Must not raise."""


class Deadlines:
    """Keeps limits that are all ``limit_s`` long. ``with deadlines.limit():`` is what ``asyncio.timeout`` is.

    Most waits end long before their time, so an ended one is only marked, and forgotten when the next one begins.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[Wait] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def limit(self) -> Limit:
        """A limit for the current task; it begins to count now. Raises ``TimeoutError`` from its ``with`` block."""
        loop = asyncio.get_running_loop()
        limit = Limit(loop.time() + self._limit_s, loop)
        self._keep(limit, loop)
        return limit

    def watch(self, wait: Wait, loop: asyncio.AbstractEventLoop) -> None:
        """Limit a wait that is no task's; it begins to count now, on the running loop."""
        wait.at_s = loop.time() + self._limit_s
        self._keep(wait, loop)

    def _keep(self, wait: Wait, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            self._loop, self._timer = loop, None
            self._waiting.clear()
        waiting = self._waiting
        while waiting and waiting[0].is_over:
            waiting.popleft()
        waiting.append(wait)
        if self._timer is None:
            self._timer = loop.call_at(wait.at_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        waiting, now_s = self._waiting, loop.time()
        while waiting and (waiting[0].is_over or waiting[0].at_s <= now_s):
            _end(waiting.popleft())
        if waiting:
            self._timer = loop.call_at(waiting[0].at_s, self._look, loop)


def _end(wait: Wait) -> None:
    try:
        wait.expire()
    except Exception as error:
        # The others have their time too, and nobody looks again for those that are left.
        _log.error("queue.wait_not_ended", traceback=describe(error))


class Limit:
    """One wait of one task."""

    __slots__ = ("_cancels", "_is_late", "_task", "at_s", "is_over")

    def __init__(self, at_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self.at_s = at_s
        self.is_over = False
        self._is_late = False
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a limit is for a task, and none is running")
        self._task = task
        self._cancels = task.cancelling()

    def expire(self) -> None:
        """End the wait, if it is not over."""
        if not self.is_over:
            self._is_late = True
            self._task.cancel()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over = True
        # Somebody else's cancellation at the same moment is theirs, and goes on.
        if self._is_late and self._task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise TimeoutError from error
