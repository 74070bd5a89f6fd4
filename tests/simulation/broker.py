"""RabbitMQ, played: quorum queues with confirms, prefetch, redelivery, a delivery limit, rungs and dead letters.

What the broker has confirmed survives its restart. What a lost connection left unsettled goes back to its queue.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pika import exceptions, spec

from tests.simulation.loop import Loop, Process
from tests.simulation.trace import Trace

if TYPE_CHECKING:
    from tests.simulation.cable import Cable
    from tests.simulation.wire import Channel, Wire

GHOST_S = 20.0
"""How long the broker takes to notice that a connection went silent."""

NO_QUEUE_S = 5.0
"""How soon the broker tries again to pass on what had no queue to go to."""


class Message:
    """A message in a queue; ``returns`` counts against the delivery limit."""

    def __init__(self, number: int, body: bytes, properties: Any, headers: dict[str, Any]) -> None:
        self.number = number
        self.body = body
        self.properties = properties
        self.headers = headers
        self.returns = 0
        self.was_delivered = False
        self.expires_s: float | None = None


class Queue:
    """A quorum queue."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.name = name
        self.arguments = arguments
        self.ready: deque[Message] = deque()
        self.consumers: deque[ServerChannel] = deque()


class Broker:
    """The server. ``on_change`` is called when something has left it."""

    def __init__(self, loop: Loop, rng: random.Random, trace: Trace, *, nack_counts: bool) -> None:
        self.process = Process(loop, "broker")
        self.loop = loop
        self.rng = rng
        self.trace = trace
        self.nack_counts = nack_counts
        self.is_up = True
        self.has_alarm = False
        self.refusal_chance = 0.0
        self.slowness = 1.0
        self.epoch = 0
        self.queues: dict[str, Queue] = {}
        self.held: Counter[bytes] = Counter()
        self.cables: list[Cable] = []
        self.connections: list[ServerConnection] = []
        self.on_change: Callable[[], None] = lambda: None
        self._numbers = itertools.count(1)
        self.redelivered = 0

    def latency_s(self) -> float:
        """How long anything takes."""
        return self.rng.expovariate(1 / 0.001) * self.slowness

    def crash(self) -> None:
        """Stop. What was not yet written is gone, and so are all connections."""
        self.trace.note("broker", "crash")
        self.is_up = False
        self.epoch += 1
        for cable in self.cables:
            cable.cut(flush=False)
        self.cables.clear()
        for connection in list(self.connections):
            connection.lost()

    def begin(self) -> None:
        """Start again with all that was written."""
        self.trace.note("broker", "start")
        self.is_up = True
        for queue in self.queues.values():
            self._watch_expiry(queue)

    def set_alarm(self, on: bool) -> None:
        """Take no messages, and tell publishers so; or take them again."""
        self.has_alarm = on
        for connection in list(self.connections):
            if connection.publishes:
                connection.tell_blocked(on)

    def declare(self, name: str, arguments: dict[str, Any]) -> Queue:
        """The queue, made if there is none."""
        if name not in self.queues:
            self.queues[name] = Queue(name, arguments)
        return self.queues[name]

    def delete(self, name: str) -> list[bytes]:
        """Somebody deletes a queue, with all that is in it and all that its consumers hold; returns those bodies."""
        if name not in self.queues or not self.is_up:
            return []
        queue = self.queues.pop(name)
        messages = list(queue.ready)
        for channel in list(queue.consumers):
            messages += channel.cancel()
        bodies = [message.body for message in messages]
        for message in messages:
            self.forget(message)
        return bodies

    def count(self, *, ready_of: str | None = None) -> int:
        """How many messages there are at all, or how many are ready in one queue."""
        if ready_of is not None:
            return len(self.queues[ready_of].ready) if ready_of in self.queues else 0
        return self.held.total()

    def commit(self, queue: Queue, body: bytes, properties: Any) -> None:
        """A message becomes durable."""
        headers = dict(properties.headers or {})
        message = Message(next(self._numbers), body, properties, headers)
        ttls = [queue.arguments.get("x-message-ttl"), int(properties.expiration) if properties.expiration else None]
        known = [ttl for ttl in ttls if ttl is not None]
        if known:
            message.expires_s = self.loop.time() + min(known) / 1000
        self.held[body] += 1
        queue.ready.append(message)
        self.pump(queue)
        self._watch_expiry(queue)

    def forget(self, message: Message) -> None:
        """An acknowledged message is gone."""
        self.held[message.body] -= 1
        if not self.held[message.body]:
            del self.held[message.body]
        self.on_change()

    def put_back(self, queue: Queue, messages: list[Message], *, counts: bool) -> None:
        """Unsettled messages return to the head of their queue, or are dead when they did so too often."""
        limit = queue.arguments.get("x-delivery-limit")
        for message in sorted(messages, key=lambda each: -each.number):
            message.returns += counts
            if limit is not None and message.returns > limit:
                self._dead_letter(queue, message, "delivery_limit")
            else:
                queue.ready.appendleft(message)
        self.pump(queue)

    def pump(self, queue: Queue) -> None:
        """Deliver what is ready to whoever has room."""
        while self.is_up and queue.ready and any(each.has_room for each in queue.consumers):
            queue.consumers.rotate(-1)
            if queue.consumers[0].has_room:
                queue.consumers[0].deliver(queue.ready.popleft())

    def _watch_expiry(self, queue: Queue) -> None:
        if queue.ready and queue.ready[0].expires_s is not None:
            delay_s = max(0.0, queue.ready[0].expires_s - self.loop.time())
            self.process.later(delay_s + self.latency_s(), self._expire, queue, self.epoch)

    def _expire(self, queue: Queue, epoch: int) -> None:
        """Only the head of a queue expires."""
        if epoch != self.epoch or not self.is_up:
            return
        while queue.ready and (queue.ready[0].expires_s or self.loop.time() + 1) <= self.loop.time():
            if queue.arguments.get("x-dead-letter-routing-key") not in self.queues:
                # At least once: it stays, and is tried again, until there is a queue for it.
                self.process.later(NO_QUEUE_S, self._expire, queue, epoch)
                return
            self._dead_letter(queue, queue.ready.popleft(), "expired")
        self._watch_expiry(queue)

    def _dead_letter(self, queue: Queue, message: Message, reason: str) -> None:
        target = self.queues.get(queue.arguments.get("x-dead-letter-routing-key", ""))
        if target is None:
            self.trace.note("broker", f"dropped a message of {queue.name}: {reason}")
            self.forget(message)
            return
        self.trace.note("broker", f"{reason}: {queue.name} -> {target.name}")
        # At least once: the copy is there before the original is gone, and now and then twice.
        for _ in range(2 if self.rng.random() < 0.03 else 1):
            headers = {**message.headers, "x-last-death-reason": reason, "x-last-death-queue": queue.name}
            copied = spec.BasicProperties(
                content_type=message.properties.content_type, message_id=message.properties.message_id, headers=headers
            )
            self.commit(target, message.body, copied)
        self.forget(message)


class ServerConnection:
    """The broker's end of a connection."""

    def __init__(self, broker: Broker, wire: Wire) -> None:
        self.broker = broker
        self.wire = wire
        self.publishes = False
        self.stalled: list[Callable[[], None]] = []
        self._channels: list[ServerChannel] = []
        self._told_blocked = False
        self.is_gone = False
        wire.cable.on_server_lost = self.lost
        broker.connections.append(self)

    def channel(self, client: Channel) -> ServerChannel:
        channel = ServerChannel(self, client)
        self._channels.append(channel)
        return channel

    def tell_blocked(self, on: bool) -> None:
        if on != self._told_blocked and not self.is_gone:
            self._told_blocked = on
            self.wire.cable.to_client(lambda: self.wire.block(on))
        if not on:
            stalled, self.stalled = self.stalled, []
            for call in stalled:
                call()

    def close(self, answer: Callable[[], None]) -> None:
        """The client says goodbye."""
        self.wire.cable.to_client(answer)
        self.lost()

    def fall_silent(self) -> None:
        """The cable is dead and nobody knows; the broker finds out in its own time."""
        self.wire.cable.fall_silent()
        self.broker.process.later(GHOST_S * self.broker.rng.random(), self.lost)

    def lost(self) -> None:
        if self.is_gone:
            return
        self.is_gone = True
        self.stalled.clear()
        self.broker.connections.remove(self)
        for channel in self._channels:
            channel.close(counts=True)


class ServerChannel:
    """The broker's end of a channel."""

    def __init__(self, connection: ServerConnection, client: Channel) -> None:
        self.broker = connection.broker
        self.connection = connection
        self._client = client
        self._is_closed = False
        self._published = 0
        self._confirmed = 0
        self._committed: set[int] = set()
        self._flushing = False
        self._prefetch = 0
        self._delivered = 0
        self._queue: Queue | None = None
        self._unacked: OrderedDict[int, Message] = OrderedDict()

    @property
    def has_room(self) -> bool:
        return not self._is_closed and len(self._unacked) < self._prefetch

    def declare(self, name: str, arguments: dict[str, Any]) -> int:
        return len(self.broker.declare(name, arguments).ready)

    def select_confirms(self) -> None:
        self.connection.publishes = True
        if self.broker.has_alarm:
            self.connection.tell_blocked(True)

    def qos(self, prefetch: int) -> None:
        self._prefetch = prefetch

    def consume(self, name: str) -> None:
        if name not in self.broker.queues:
            gone = exceptions.ChannelClosedByBroker(404, "NOT_FOUND")
            self.connection.wire.cable.to_client(lambda: self._client.closed_by_broker(gone))
            return
        self._queue = self.broker.queues[name]
        self._queue.consumers.append(self)
        self.broker.pump(self._queue)

    def publish(self, routing_key: str, body: bytes, properties: Any) -> None:
        if self.broker.has_alarm or self.connection.stalled:
            self.connection.stalled.append(lambda: self._publish(routing_key, body, properties))
        else:
            self._publish(routing_key, body, properties)

    def ack(self, tag: int, *, multiple: bool) -> None:
        for settled in self._upto(tag, multiple):
            self.broker.forget(self._unacked.pop(settled))
        self._refill()

    def nack(self, tag: int, *, multiple: bool) -> None:
        messages = [self._unacked.pop(settled) for settled in self._upto(tag, multiple)]
        if self._queue is not None:
            self.broker.put_back(self._queue, messages, counts=self.broker.nack_counts)

    def deliver(self, message: Message) -> None:
        self._delivered += 1
        tag, redelivered = self._delivered, message.was_delivered
        self.broker.redelivered += redelivered
        message.was_delivered = True
        self._unacked[tag] = message
        properties = spec.BasicProperties(
            content_type=message.properties.content_type,
            message_id=message.properties.message_id,
            headers=dict(message.headers),
        )
        self.connection.wire.cable.to_client(
            lambda: self._client.on_message(tag, redelivered, properties, message.body)
        )

    def close(self, *, counts: bool = False) -> None:
        """What was not settled goes back."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._queue is not None:
            self._queue.consumers.remove(self)
            messages, self._unacked = list(self._unacked.values()), OrderedDict()
            self.broker.put_back(self._queue, messages, counts=counts)

    def cancel(self) -> list[Message]:
        """The queue of this consumer is gone; returns what was delivered here and not settled."""
        self._queue = None
        messages, self._unacked = list(self._unacked.values()), OrderedDict()
        self.connection.wire.cable.to_client(self._client.on_cancel)
        return messages

    def _publish(self, routing_key: str, body: bytes, properties: Any) -> None:
        if self._is_closed:
            return
        broker = self.broker
        self._published += 1
        if broker.rng.random() < broker.refusal_chance:
            tag = self._published
            self.connection.wire.cable.to_client(lambda: self._client.on_confirm(tag, multiple=False, refused=True))
            self._committed.add(tag)
            return
        broker.process.later(
            broker.latency_s(), self._commit, broker.epoch, self._published, routing_key, body, properties
        )

    def _commit(self, epoch: int, tag: int, routing_key: str, body: bytes, properties: Any) -> None:
        if epoch != self.broker.epoch or not self.broker.is_up:
            return  # It was not written when the broker died.
        queue = self.broker.queues.get(routing_key)
        if queue is None:
            self.connection.wire.cable.to_client(lambda: self._client.on_return(routing_key))
        else:
            self.broker.commit(queue, body, properties)
        self._committed.add(tag)
        if not self._flushing:
            self._flushing = True
            self.broker.process.later(self.broker.latency_s(), self._flush)

    def _flush(self) -> None:
        """Confirm what is written: all up to a tag in one word where that can be said, the others singly."""
        self._flushing = False
        upto = self._confirmed
        while upto + 1 in self._committed:
            upto += 1
        if upto > self._confirmed:
            self._confirmed = upto
            self._tell(upto, multiple=True)
        self._committed = {tag for tag in self._committed if tag > upto}
        for tag in sorted(self._committed):
            self._tell(tag, multiple=False)

    def _tell(self, tag: int, *, multiple: bool) -> None:
        self.connection.wire.cable.to_client(lambda: self._client.on_confirm(tag, multiple=multiple, refused=False))

    def _upto(self, tag: int, multiple: bool) -> list[int]:
        if multiple:
            return [each for each in self._unacked if each <= tag]
        return [tag] if tag in self._unacked else []

    def _refill(self) -> None:
        if self._queue is not None:
            self.broker.pump(self._queue)
