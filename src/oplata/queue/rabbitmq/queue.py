"""The queue on RabbitMQ: one connection to publish on, another one to consume on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from oplata.errors import QueueUnavailable, SettingsError
from oplata.queue.base import DEFAULT_RETRY_DELAYS_MS, Depth
from oplata.queue.rabbitmq.channel import Channel, ChannelClosed, open_channel
from oplata.queue.rabbitmq.connection import Connection
from oplata.queue.rabbitmq.consumer import RabbitConsumer
from oplata.queue.rabbitmq.endpoint import Endpoint
from oplata.queue.rabbitmq.link import connect
from oplata.queue.rabbitmq.publisher import RabbitPublisher
from oplata.queue.rabbitmq.topology import Declare, Topology, count, ensure, look
from oplata.queue.rabbitmq.wire import Wire

_DEPTH_LIMIT_S = 5.0


class RabbitQueue:
    """A durable queue on RabbitMQ 3.10 or later.

    ``url`` is ``amqp://user:password@host:port/vhost`` or ``amqps://``; ``name`` names the main queue. With
    ``declare="passive"`` that queue is someone else's and used as it stands. ``max_in_flight`` bounds the messages
    that wait for a confirm; ``wire`` makes pika's connections, or for a simulation what behaves like them. Raises
    ``SettingsError`` for values that cannot work; connects to nothing until started.
    """

    def __init__(
        self,
        url: str,
        name: str = "oplata.callbacks",
        *,
        declare: Declare = "active",
        retry_delays_ms: Sequence[int] = DEFAULT_RETRY_DELAYS_MS,
        delivery_limit: int = 20,
        max_in_flight: int = 2000,
        heartbeat_s: int = 10,
        rng: random.Random | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        wire: Callable[..., Any] = Wire,
    ) -> None:
        if max_in_flight < 1 or heartbeat_s < 1:
            raise SettingsError("The number of messages in flight and the heartbeat must be positive.")
        self._endpoint = Endpoint(url, heartbeat_s=heartbeat_s)
        self._topology = Topology(
            name=name, declare=declare, retry_delays_ms=tuple(retry_delays_ms), delivery_limit=delivery_limit
        )
        self._rng = rng or random.Random()  # noqa: S311  # Jitter is no secret.
        self._now_ms = now_ms
        self._wire = wire
        self._publishing = Connection(self._endpoint, role="publisher", rng=self._rng, wire=wire)
        self._consuming = Connection(self._endpoint, role="consumer", rng=self._rng, wire=wire)
        self._publisher = RabbitPublisher(
            self._publishing, self._topology, max_in_flight=max_in_flight, rng=self._rng, now_ms=now_ms
        )
        self._consumers: list[RabbitConsumer] = []
        self._started = False
        self.consumers_seen = 0
        """How many consumers the broker told of when the messages were counted last, those of others included."""

    def __repr__(self) -> str:
        return f"RabbitQueue({self._endpoint!r}, {self._topology.name!r})"

    @property
    def available(self) -> bool:
        """Whether a message that is offered now is likely to be taken."""
        return self._publisher.available

    @property
    def connects(self) -> int:
        """How many connections were opened, the first ones included."""
        return self._publishing.times_opened + self._consuming.times_opened

    async def start(self) -> None:
        """Begin to connect; returns at once. The consuming connection is opened for the first consumer."""
        self._started = True
        self._publishing.start()
        self._publisher.start()
        if self._consumers:
            self._consuming.start()
        for consumer in self._consumers:
            consumer.start()

    async def stop(self) -> None:
        """Close everything, within a limit of some seconds, whether or not the broker answers."""
        self._started = False
        consumers, self._consumers = self._consumers, []
        await asyncio.gather(self._publisher.stop(), *(consumer.close() for consumer in consumers))
        await asyncio.gather(self._publishing.stop(), self._consuming.stop())

    def publisher(self) -> RabbitPublisher:
        """The publisher of this queue; all callers share one."""
        return self._publisher

    def consumer(self, *, prefetch: int, dead: bool = False) -> RabbitConsumer:
        """A new consumer that holds at most ``prefetch`` (1 to 2000) unsettled messages."""
        consumer = RabbitConsumer(
            self._consuming,
            self._topology,
            self._publisher,
            prefetch=prefetch,
            dead=dead,
            rng=self._rng,
            now_ms=self._now_ms,
        )
        self._consumers = [*(one for one in self._consumers if not one.closed), consumer]
        if self._started:
            self._consuming.start()
            consumer.start()
        return consumer

    async def depth(self) -> Depth:
        """Count the messages. Raises ``QueueUnavailable``, or ``TopologyError`` when a queue is missing.

        AMQP does not tell how many messages other consumers hold, so ``unacked`` counts those of this process only.
        """
        topology = self._topology
        try:
            # A connection of its own: under an alarm the broker reads nothing from one that has published.
            async with asyncio.timeout(_DEPTH_LIMIT_S), self._visit("depth") as (channel, _):
                await self._publisher.ready()
                rungs = [topology.rung_name(rung_ms) for rung_ms in topology.retry_delays_ms]
                ready, self.consumers_seen = await look(channel, topology.name, topology)
                return Depth(
                    ready=ready,
                    unacked=sum(consumer.unsettled for consumer in self._consumers if not consumer.dead),
                    retry=sum([await count(channel, rung, topology) for rung in rungs]),
                    dead=await count(channel, topology.dead_name, topology),
                )
        except TimeoutError:
            failure = self._publishing.failure
            raise QueueUnavailable(str(failure) if failure else None) from None

    async def check(self) -> str:
        """Connect anew, declare what is ours, and say in a sentence what is there; start() is not needed for it.

        Raises ``QueueUnavailable`` or ``TopologyError``, whose sentence says what to mend.
        """
        async with self._visit("check") as (channel, server):
            await ensure(channel, self._topology)
            ready = await count(channel, self._topology.name, self._topology)
        return (
            f"{server.get('product', 'AMQP broker')} {server.get('version', 'of unknown version')} "
            f"({server.get('cluster_name', 'unnamed node')}) at {self._endpoint.host}:{self._endpoint.port}, "
            f'queue "{self._topology.name}" ({self._topology.declare}), {ready} messages ready.'
        )

    @asynccontextmanager
    async def _visit(self, role: str) -> AsyncIterator[tuple[Channel, dict[str, Any]]]:
        """A channel on a short-lived connection, whose mistakes disturb nobody, and what the broker says it is."""
        link = await connect(self._endpoint, role=role, wire=self._wire)
        try:
            yield await open_channel(link), link.wire.server_properties or {}
        except ChannelClosed as closed:
            raise QueueUnavailable(f"RabbitMQ closed the channel ({closed.text}).") from None
        finally:
            await link.close()
