"""Store and forward: when the queue does not confirm in time, a local file does, and passes it on later."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import structlog

from oplata.errors import NotConfirmed, Overloaded, QueueUnavailable, TopologyError
from oplata.observability.faults import describe
from oplata.queue.backoff import delay_s
from oplata.queue.base import Consumer, PromptPublisher, Publisher, Queue
from oplata.queue.envelope import Delivery, Envelope
from oplata.queue.sqlite import SqliteQueue

FORWARD_BATCH = 200
RECEIVE_TIMEOUT_S = 5.0
AWAY_S = 5.0
"""After a publish that failed, how long the spool is taken at once; then one publish tries the queue again."""

_BACKOFF_BASE_S = 0.2
_BACKOFF_CAP_S = 5.0

_log = structlog.get_logger("oplata.spool")


class SpoolingPublisher:
    """A publisher in front of a broker that may be away.

    Each message is offered to ``primary`` for at most ``patience_s``, and then to ``spool``, a queue in a local file
    that has limits of its own: of its bytes, of the free disk, and of what is in flight. While the primary is known
    to be away nobody waits for it. What lies in the spool is forwarded in the order of its arrival, and forgotten
    only when the primary has confirmed it; so a message may arrive twice, and none is lost while the disk lives.

    The spool may be shared by several processes of one machine. It is started and stopped with this object; the
    primary is not.
    """

    def __init__(
        self,
        primary: Publisher,
        spool: Queue,
        *,
        patience_s: float = 2.0,
        forward_timeout_s: float = 10.0,
        rng: random.Random | None = None,
    ) -> None:
        self._primary = primary
        self._prompt = primary if isinstance(primary, PromptPublisher) else None
        self._spool = spool
        self._patience_s = patience_s
        self._forward_timeout_s = forward_timeout_s
        self._rng = rng or random.Random()  # noqa: S311  Jitter is no secret.
        self._away_until_s = 0.0
        self._forwarding: asyncio.Task[None] | None = None
        self.spooled = 0
        self.forwarded = 0

    @property
    def available(self) -> bool:
        """Whether the file is open and has a place for one more publish."""
        return self._forwarding is not None and self._spool.available

    async def has_room(self) -> bool:
        """Whether the limits of bytes and of the disk leave room for more. Raises ``QueueUnavailable``."""
        return await self._spool.has_space() if isinstance(self._spool, SqliteQueue) else True

    async def start(self) -> None:
        """Open the spool and forward what is left in it. Raises ``Permanent`` for a file that cannot be one."""
        if self._forwarding is None:
            await self._spool.start()
            self._forwarding = asyncio.create_task(self._forward_forever(), name="oplata spool")

    async def stop(self) -> None:
        """Stop forwarding; the rest stays on the disk for the next start, or for another process."""
        forwarding, self._forwarding = self._forwarding, None
        if forwarding is not None:
            forwarding.cancel()
            await asyncio.wait({forwarding})
            await self._spool.stop()

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        """Return once the primary or the spool has made it durable. Raises what the spool raises when neither has."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        if self._may_try_primary(began_s):
            try:
                await self._primary.publish(envelope, timeout_s=min(self._patience_s, timeout_s))
            except Overloaded:
                # It is there, and has enough to do. The bank would come again in an hour; the disk takes it now.
                _log.debug("the queue is overloaded", action="spool.overflow")
            except (QueueUnavailable, TopologyError) as error:
                self._note_away(loop.time(), error)
            else:
                self._away_until_s = 0.0
                return
        left_s = timeout_s - (loop.time() - began_s)
        if left_s <= 0:
            raise NotConfirmed
        await self._spool.publisher().publish(envelope, timeout_s=left_s)
        self.spooled += 1

    def begin(self, envelope: Envelope, told: Callable[[bool], None], *, timeout_s: float) -> bool:
        """As the protocol says, while the primary is there. What it does not confirm in time goes to the spool."""
        if self._prompt is None or self._away_until_s:
            return False
        loop = asyncio.get_running_loop()
        most_s = min(self._patience_s, timeout_s)
        until_s = loop.time() + most_s

        def ended(is_durable: bool) -> None:
            if not is_durable and loop.time() >= until_s:
                self._note_away(loop.time(), NotConfirmed(f"nothing was confirmed within {most_s:g} s"))
            told(is_durable)

        return self._prompt.begin(envelope, ended, timeout_s=most_s)

    def _may_try_primary(self, now_s: float) -> bool:
        if not self._away_until_s:
            return True
        if now_s < self._away_until_s:
            return False
        # This one message tries the primary; those that come while it waits go to the spool.
        self._away_until_s = now_s + AWAY_S
        return True

    def _note_away(self, now_s: float, error: Exception) -> None:
        if not self._away_until_s:
            _log.warning("the queue is away; callbacks go to the spool", action="spool.begin", reason=str(error))
        self._away_until_s = now_s + AWAY_S

    async def _forward_forever(self) -> None:
        consumer = self._spool.consumer(prefetch=FORWARD_BATCH)
        failures = 0
        try:
            while True:
                try:
                    deliveries = await consumer.receive(limit=FORWARD_BATCH, timeout_s=RECEIVE_TIMEOUT_S)
                    failures = failures + 1 if deliveries and not await self._forward(consumer, deliveries) else 0
                except (QueueUnavailable, TopologyError) as error:
                    failures += 1
                    _log.warning("cannot read the spool", action="spool.forward", reason=str(error))
                except Exception as error:
                    # Callbacks go on being spooled, so whatever it is may not end the forwarding for good.
                    failures += 1
                    _log.error("the spool's forwarding failed", action="spool.forward", reason=describe(error))
                if failures:
                    await self._pause(failures)
        finally:
            await consumer.close()

    async def _forward(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> bool:
        """Pass these on, forget each that was confirmed, and put the others back; whether there was any progress."""
        # They are sent in their order, all before the first confirm is waited for.
        outcomes = await asyncio.gather(
            *(self._primary.publish(each.envelope, timeout_s=self._forward_timeout_s) for each in deliveries),
            return_exceptions=True,
        )
        confirmed = [each for each, outcome in zip(deliveries, outcomes, strict=True) if outcome is None]
        others = [each for each, outcome in zip(deliveries, outcomes, strict=True) if outcome is not None]
        await consumer.ack(confirmed)
        await consumer.release(others)
        self.forwarded += len(confirmed)
        if confirmed:
            self._away_until_s = 0.0
            _log.info("spooled callbacks passed on", action="spool.forward", count=len(confirmed))
        if others:
            reasons = sorted({str(outcome) for outcome in outcomes if isinstance(outcome, Exception)})
            _log.info(
                "the queue is still away", action="spool.forward", count=len(others), reason="; ".join(reasons[:3])
            )
        return bool(confirmed)

    async def _pause(self, failures: int) -> None:
        await asyncio.sleep(0.05 + delay_s(failures, self._rng, _BACKOFF_BASE_S, _BACKOFF_CAP_S))
