"""Sends a canary through the queue on a schedule: the worker that takes it notes in the database that it came."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from uuid import uuid4

import structlog

from oplata.bank.canary import CONTENT_TYPE, canary
from oplata.bank.keyring import Keyring
from oplata.errors import OplataError
from oplata.observability.faults import describe
from oplata.queue.base import Publisher
from oplata.queue.envelope import Envelope

CONFIRM_S = 5.0

_log = structlog.get_logger("oplata.canary")


class CanarySender:
    """Publishes to the queue itself, never to the spool: what does not come through is what it is there to show."""

    def __init__(
        self,
        publisher: Publisher,
        keyring: Keyring,
        *,
        interval_s: float,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._publisher = publisher
        self._keyring = keyring
        self._interval_s = interval_s
        self._now_ms = now_ms
        self.outcomes: Counter[str] = Counter(confirmed=0, failed=0)

    async def run(self) -> None:
        """Send one after another until cancelled."""
        while True:
            await self.send()
            await asyncio.sleep(self._interval_s)

    async def send(self) -> None:
        """Send one. A queue that does not take it is no error here: its age will tell."""
        body = canary(self._keyring, self._now_ms())
        try:
            await self._publisher.publish(
                Envelope(body=body, message_id=uuid4().hex, content_type=CONTENT_TYPE), timeout_s=CONFIRM_S
            )
        except OplataError as error:
            self.outcomes["failed"] += 1
            _log.debug("the queue did not take a canary", action="canary.send", reason=describe(error))
        else:
            self.outcomes["confirmed"] += 1
