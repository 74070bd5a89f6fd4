"""Publishes each change as an event on a topic exchange of RabbitMQ."""

from __future__ import annotations

from collections.abc import Collection

from oplata.errors import DeliveryFailed, QueueUnavailable, TopologyError
from oplata.feed.event import Event
from oplata.queue.rabbitmq.topic import Topic


class AmqpSink:
    """Publishes with confirms; the routing key is such as ``order.paid``.

    ``statuses`` are the only ones that are told, or all when it is empty.
    """

    def __init__(self, topic: Topic, *, timeout_s: float, statuses: Collection[str] = ()) -> None:
        self._topic = topic
        self._timeout_s = timeout_s
        self._statuses = frozenset(statuses)

    async def start(self) -> None:
        self._topic.start()

    async def stop(self) -> None:
        await self._topic.stop()

    def wants(self, event: Event) -> bool:
        return not self._statuses or event.change.status in self._statuses

    async def deliver(self, event: Event) -> None:
        try:
            await self._topic.publish(
                event.type,
                event.document(),
                message_id=event.id,
                kind=event.type,
                at_ms=event.change.changed_at_ms,
                timeout_s=self._timeout_s,
            )
        except (QueueUnavailable, TopologyError) as error:
            raise DeliveryFailed(str(error)) from None
