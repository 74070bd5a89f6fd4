"""The one protocol that RabbitMQ and SQLite both implement; ``tests/contract/test_queue.py`` is its meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from oplata.queue.envelope import Delivery, Envelope

DEFAULT_RETRY_DELAYS_MS = (1_000, 5_000, 30_000, 120_000, 600_000, 3_600_000)
"""The rungs of the retry ladder."""


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages lie where: ``ready`` for a worker, held ``unacked`` by one, in ``retry``, ``dead``."""

    ready: int
    unacked: int
    retry: int
    dead: int


class Publisher(Protocol):
    """Puts messages into the queue."""

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        """Return once the message is durable: confirmed by the broker, or committed and synced to disk.

        Raises ``Overloaded`` when nothing was sent, and ``NotConfirmed`` when the message may or may not be in the
        queue. Within ``timeout_s`` it survives a lost connection by publishing again, so a message may arrive twice.
        """


@runtime_checkable
class PromptPublisher(Publisher, Protocol):
    """A publisher that mostly has nothing to wait for but the confirm, and so needs no task for it."""

    def begin(self, envelope: Envelope, told: Callable[[bool], None], *, timeout_s: float) -> bool:
        """Send a message now. Returns False if that would have to wait, or is refused; then nothing was sent.

        ``told`` is called once, within ``timeout_s`` and never from inside this call: with True when the message is
        durable, with False when nobody knows. Then it is to be published, as after any other doubt, and may arrive
        twice. ``told`` must not raise.
        """


class Consumer(Protocol):
    """Takes messages out of the queue. Used by one task at a time."""

    async def receive(self, *, limit: int, timeout_s: float) -> list[Delivery]:
        """Wait for a message, at most ``timeout_s``, then return all that are at hand, at most ``limit``.

        Never waits for a fuller batch. Empty when nothing came, also while the queue cannot be reached.
        """

    @property
    def at_hand(self) -> int:
        """How many messages ``receive`` would return without waiting for anything; fewer when that is not known."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these messages. One whose connection was lost meanwhile is skipped: it will be delivered again."""

    async def retry(self, delivery: Delivery, *, delay_ms: int) -> None:
        """Deliver this message again, with its attempt raised by one, no sooner than about ``delay_ms`` from now.

        The delay lives in the queue and survives a restart of every part. It is rounded to what the queue offers.
        Returns once the message is durable in its new place; raises ``NotConfirmed`` and leaves it unsettled if not.
        """

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand these back unworked, for any consumer to take at once; their attempt stays as it was."""

    async def close(self) -> None:
        """Stop consuming; what was received and not settled goes back to the queue."""


class Queue(Protocol):
    """A durable queue with its retry rungs and its dead letters."""

    @property
    def available(self) -> bool:
        """Whether a message that is offered now is likely to be taken."""

    async def start(self) -> None:
        """Begin to connect. Returns at once; what is called before the queue can be reached waits for it."""

    async def stop(self) -> None:
        """Close every publisher and consumer and let go of the connections."""

    def publisher(self) -> Publisher:
        """The publisher of this queue; all callers share one."""

    def consumer(self, *, prefetch: int, dead: bool = False) -> Consumer:
        """A new consumer that holds at most ``prefetch`` unsettled messages, of the queue or of its dead letters."""

    async def depth(self) -> Depth:
        """Count the messages. Raises ``QueueUnavailable``."""

    async def check(self) -> str:
        """Say in a sentence what the queue is and that it works, or raise the error that says what to mend."""
