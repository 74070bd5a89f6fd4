"""Takes messages from a queue with a bounded prefetch, and settles them on the channel that delivered them."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import structlog
from pika import exceptions

from oplata.errors import NotConfirmed, TopologyError
from oplata.queue.envelope import Delivery
from oplata.queue.rabbitmq.channel import Channel
from oplata.queue.rabbitmq.connection import Connection
from oplata.queue.rabbitmq.message import to_delivery, to_properties, with_attempt
from oplata.queue.rabbitmq.publisher import RabbitPublisher
from oplata.queue.rabbitmq.session import Session
from oplata.queue.rabbitmq.topology import Topology, ensure

_RETRY_TIMEOUT_S = 10.0
_LARGEST_PREFETCH = 2000
"""What RabbitMQ allows per consumer of a quorum queue."""

_IDLE_LIMIT_S = 30.0
"""A broker may forget a consumer whose queue was deleted and declared again by someone else in a moment: it looks
subscribed and is told nothing. From here that cannot be told from an empty queue, so a long silence is not believed."""

_log = structlog.get_logger(__name__)


class RabbitConsumer:
    """One channel of the consuming connection. Used by one task at a time.

    A new channel is a new generation: what an older one delivered has gone back to the queue, and settling it is
    silently skipped.
    """

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        publisher: RabbitPublisher,
        *,
        prefetch: int,
        dead: bool,
        rng: random.Random,
        now_ms: Callable[[], int],
    ) -> None:
        if not 1 <= prefetch <= _LARGEST_PREFETCH:
            raise ValueError(f"prefetch must be between 1 and {_LARGEST_PREFETCH}")
        self._topology = topology
        self._publisher = publisher
        self._prefetch = prefetch
        self._dead = dead
        self._now_ms = now_ms
        self._rng = rng
        self._idle_limit_s = _IDLE_LIMIT_S
        self._last_arrival_s = 0.0
        self._buffer: deque[Delivery] = deque()
        self._unsettled: OrderedDict[int, None] = OrderedDict()
        self._generation = 0
        self._channel: Channel | None = None
        self._failures_told = 0
        self._session = Session(connection, self._prepare, self._forget_all, name="consumer", rng=rng)

    @property
    def dead(self) -> bool:
        """Whether these are the dead letters."""
        return self._dead

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called; a closed consumer is never opened again."""
        return self._session.stopped

    @property
    def unsettled(self) -> int:
        """How many messages the broker has handed to us that we have not settled."""
        return len(self._unsettled)

    @property
    def at_hand(self) -> int:
        """How many messages have come that nobody has received yet."""
        return len(self._buffer)

    def start(self) -> None:
        """Begin to consume; returns at once."""
        self._session.start()

    async def receive(self, *, limit: int, timeout_s: float) -> list[Delivery]:
        """Wait for a message, then return all that are at hand, at most ``limit``.

        Raises ``TopologyError`` when the queue turns out to be unusable: once for each time that was found out, which
        happens with growing pauses, so that a loop around it neither spins nor stays in the dark.
        """
        if not self._buffer:
            self._renew_if_idle()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._something()
            except TimeoutError:
                return []
        return [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these messages. Those of an older generation, and those settled before, are skipped."""
        upto, singles = plan(self._unsettled, self._current_tags(deliveries))
        if upto:
            self._settle("basic_ack", upto, multiple=True)
        for tag in singles:
            self._settle("basic_ack", tag, multiple=False)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand these back unworked; on brokers before 4.3 that counts against the queue's delivery limit."""
        for tag in self._current_tags(deliveries):
            self._settle("basic_nack", tag, multiple=False)

    async def retry(self, delivery: Delivery, *, delay_ms: int) -> None:
        """Publish into the rung for ``delay_ms``, wait for the confirm, and only then ack.

        A delivery of an older generation is skipped: it is in the queue again by itself. Raises ``NotConfirmed``,
        ``TopologyError``; the message is then unsettled.
        """
        if not self._current_tags([delivery]):
            return
        rung_ms = self._topology.rung_for(delay_ms)
        # A little less than the rung, at random, so that what was put off together does not come back together.
        expiration_ms = self._rng.randint(max(1, min(delay_ms, rung_ms) * 9 // 10), max(1, min(delay_ms, rung_ms)))
        properties = to_properties(with_attempt(delivery), now_ms=self._now_ms(), expiration_ms=expiration_ms)
        try:
            await self._publisher.send(
                self._topology.rung_name(rung_ms), properties, delivery.envelope.body, timeout_s=_RETRY_TIMEOUT_S
            )
        except NotConfirmed as error:
            raise NotConfirmed(f"A message could not be put aside for a retry. {error}") from None
        await self.ack([delivery])

    async def close(self) -> None:
        """Stop consuming. The broker takes back what was not settled."""
        await self._session.stop()
        self._forget_all()

    def _renew_if_idle(self) -> None:
        """Subscribe anew after a long silence, while nothing is held that this could disturb."""
        silent_s = asyncio.get_running_loop().time() - self._last_arrival_s
        if self._channel is not None and not self._unsettled and silent_s > self._idle_limit_s:
            _log.debug("queue.resubscribed", silent_s=round(silent_s, 1))
            self._session.renew()

    async def _something(self) -> None:
        """Wait for a message, for a new failure (raised), or for the end."""
        session = self._session
        while not self._buffer:
            if session.failures > self._failures_told and session.failure is not None:
                self._failures_told = session.failures
                raise TopologyError(str(session.failure))
            await session.changed.wait()

    async def _prepare(self, channel: Channel) -> None:
        raw = channel.raw
        await ensure(channel, self._topology)
        self._generation += 1
        generation = self._generation
        # Messages come before this returns, and may be settled before the session calls the channel ready.
        self._channel = channel
        self._last_arrival_s = asyncio.get_running_loop().time()

        def on_message(_raw: Any, method: Any, properties: Any, body: bytes) -> None:
            if generation == self._generation and not channel.closed.done():
                self._on_message(to_delivery(method, properties, body, generation=generation, dead=self._dead))

        await channel.call(raw.basic_qos, prefetch_count=self._prefetch, global_qos=False)
        # The broker cancels a consumer whose queue was deleted. The next channel declares the queue again.
        raw.add_on_cancel_callback(lambda _frame: channel.close())
        queue = self._topology.dead_name if self._dead else self._topology.name
        await channel.call(raw.basic_consume, queue, on_message)

    def _on_message(self, delivery: Delivery) -> None:
        self._unsettled[delivery.tag] = None
        self._buffer.append(delivery)
        self._last_arrival_s = asyncio.get_running_loop().time()
        if len(self._buffer) == 1:
            self._session.pulse()

    def _forget_all(self) -> None:
        """The channel is gone, and with it the right to settle what it delivered."""
        self._generation += 1
        self._channel = None
        self._buffer.clear()
        self._unsettled.clear()

    def _current_tags(self, deliveries: Iterable[Delivery]) -> list[int]:
        return [
            delivery.tag
            for delivery in deliveries
            if delivery.generation == self._generation and delivery.tag in self._unsettled
        ]

    def _settle(self, method: str, tag: int, *, multiple: bool) -> None:
        """Send an ack or nack, if the channel is still there: else the message is delivered again, which is right."""
        channel = self._channel
        while multiple and self._unsettled and next(iter(self._unsettled)) <= tag:
            self._unsettled.popitem(last=False)
        self._unsettled.pop(tag, None)
        if channel is None:
            return
        try:
            getattr(channel.raw, method)(tag, multiple=multiple)
        except (exceptions.ConnectionWrongStateError, exceptions.ChannelWrongStateError):
            _log.debug("queue.settle_skipped", tag=tag)


def plan(unsettled: Iterable[int], tags: Collection[int]) -> tuple[int, list[int]]:
    """Return the tag up to which all may be settled at once (0 for none), and the rest, to be settled one by one.

    ``unsettled`` holds every tag the channel has delivered, oldest first. Those at its beginning that are all among
    ``tags`` go together: "all up to this one" would else include messages that are still being worked.
    """
    wanted = set(tags)
    upto = 0
    for tag in unsettled:
        if tag not in wanted:
            break
        upto = tag
        wanted.discard(tag)
    return upto, sorted(wanted)
