"""A publisher that is watched: how long each callback took to become durable, and a line in the log for some."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import structlog

from oplata.bank.notification import parse
from oplata.errors import BadNotification
from oplata.observability.timings import Timings
from oplata.queue.base import PromptPublisher, Publisher
from oplata.queue.envelope import Envelope

_TOO_LITTLE_S = 0.05
"""With less of its time left than this nobody publishes a message again."""

_log = structlog.get_logger("oplata.ingest")


class WatchedPublisher:
    """Hands everything on to ``inner``. ``sample`` is the share of the accepted callbacks that get a line, 0 to 1."""

    def __init__(self, inner: Publisher, *, sample: float = 0.0) -> None:
        self._inner = inner
        self._prompt = inner if isinstance(inner, PromptPublisher) else None
        self._sample = sample
        self._due = 0.0
        self._in_doubt: dict[str, float] = {}
        self.seconds = Timings()
        self.failures = 0

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        """As the inner one does, raising what it raises."""
        began_s = self._in_doubt.pop(envelope.message_id, None) or perf_counter()
        try:
            await self._inner.publish(envelope, timeout_s=timeout_s)
        except Exception:
            self.failures += 1
            raise
        self._note(envelope, began_s)

    def begin(self, envelope: Envelope, told: Callable[[bool], None], *, timeout_s: float) -> bool:
        """As the inner one does, if it can. What is in doubt is published then, and has not failed before that has."""
        if self._prompt is None:
            return False
        began_s = perf_counter()

        def ended(is_durable: bool) -> None:
            try:
                if is_durable:
                    self._note(envelope, began_s)
                elif perf_counter() - began_s < timeout_s - _TOO_LITTLE_S:
                    self._in_doubt[envelope.message_id] = began_s
                else:
                    self.failures += 1
            finally:
                told(is_durable)

        return self._prompt.begin(envelope, ended, timeout_s=timeout_s)

    def _note(self, envelope: Envelope, began_s: float) -> None:
        self.seconds.observe(perf_counter() - began_s)
        if self._sample:
            self._due += self._sample
            if self._due >= 1:
                self._due -= 1
                _tell(envelope)


def _tell(envelope: Envelope) -> None:
    """One line. The body is read once more for it, which only the few that are told of pay for."""
    try:
        event = parse(envelope.body, envelope.content_type).event()
    except BadNotification:
        return
    _log.info(
        "A callback was accepted.",
        action="callback.accepted",
        order_id=event.order_id,
        payment_id=event.payment_id,
        status=event.status,
        message_id=envelope.message_id,
    )
