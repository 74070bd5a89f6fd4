"""Which published messages of one channel the broker has not confirmed yet."""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog

from oplata.observability.faults import describe

_log = structlog.get_logger(__name__)


class Outcome(enum.Enum):
    """What became of a published message. ``LOST`` is not known to have arrived, and not known not to have."""

    CONFIRMED = "confirmed"
    REFUSED = "refused"
    LOST = "lost"


class _Waiting(NamedTuple):
    tell: Callable[[Outcome], None]
    sent_s: float


class Confirms:
    """Delivery tags, counted from 1 as the broker counts them, to those who wait for the broker's word.

    A message whose publisher went away stays until the broker speaks of it: it is on its way all the same, and counts
    against the limit of what is in flight. All times are of the loop's clock, in seconds.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._last_tag = 0
        self._progress_s = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, now_s: float) -> asyncio.Future[Outcome]:
        """Note that one message was just published; the future tells what became of it and never raises."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.watch(now_s, partial(_resolve, future))
        return future

    def watch(self, now_s: float, tell: Callable[[Outcome], None]) -> None:
        """Note that one message was just published; ``tell`` is called once with what became of it."""
        if not self._waiting:
            self._progress_s = now_s
        self._last_tag += 1
        self._waiting[self._last_tag] = _Waiting(tell, now_s)

    def hear(self, tag: int, is_taken: bool, multiple: bool) -> None:
        """Take the broker's word, as the channel passes it on."""
        outcome = Outcome.CONFIRMED if is_taken else Outcome.REFUSED
        self.settle(tag, outcome, multiple=multiple, now_s=asyncio.get_running_loop().time())

    def settle(self, tag: int, outcome: Outcome, *, multiple: bool, now_s: float) -> None:
        """Note the broker's word on ``tag``, or with ``multiple`` on all up to it. Unknown tags are ignored."""
        self._progress_s = now_s
        if not multiple:
            waiting = self._waiting.pop(tag, None)
            if waiting is not None:
                _tell(waiting, outcome)
            return
        while self._waiting and next(iter(self._waiting)) <= tag:
            _tell(self._waiting.popitem(last=False)[1], outcome)

    def lose_all(self) -> None:
        """Wake every publisher: the channel is gone."""
        while self._waiting:
            _tell(self._waiting.popitem(last=False)[1], Outcome.LOST)

    def touch(self, now_s: float) -> None:
        """Count as progress, after a time in which the broker had said that it would not confirm anything."""
        self._progress_s = now_s

    def silent_s(self, now_s: float) -> float:
        """Return for how long the broker has owed us an answer without giving any."""
        return now_s - self._progress_s if self._waiting else 0.0

    def oldest_s(self, now_s: float) -> float:
        """Return how old the oldest message without an answer is."""
        return now_s - next(iter(self._waiting.values())).sent_s if self._waiting else 0.0


def _tell(waiting: _Waiting, outcome: Outcome) -> None:
    try:
        waiting.tell(outcome)
    except Exception as error:
        # The others wait too, and the connection is not to be lost over it.
        _log.error("queue.confirm_untold", traceback=describe(error))


def _resolve(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
