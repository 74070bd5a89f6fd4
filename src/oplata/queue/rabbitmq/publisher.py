"""Publishes with confirms: a publish returns when the broker has the message on disk, and not before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import structlog
from pika import exceptions

from oplata.errors import NotConfirmed, Overloaded, QueueUnavailable
from oplata.queue.backoff import delay_s
from oplata.queue.deadlines import Deadlines
from oplata.queue.envelope import Envelope
from oplata.queue.rabbitmq.channel import Channel
from oplata.queue.rabbitmq.confirms import Confirms, Outcome
from oplata.queue.rabbitmq.connection import Connection
from oplata.queue.rabbitmq.message import to_properties
from oplata.queue.rabbitmq.session import Session
from oplata.queue.rabbitmq.topology import Topology, ensure

_TICK_S = 0.5
_SILENCE_LIMIT_S = 3.0
"""No confirm at all for this long, with messages in flight: the connection is taken for dead. An endpoint has eight
seconds to answer the bank; what is left is enough to connect and to publish again."""

_STUCK_LIMIT_S = 60.0
"""One message without an answer for this long while others are confirmed: its place among those in flight is freed."""

_RETURN_PAUSE_S = 0.4
"""RabbitMQ 3.10 forgets to tell some consumers of a deleted queue when one of its name is declared within about 50 ms,
and then hands them messages that never arrive. Measured: 9 of 80 without a pause, none of 80 after 0.1 s."""

_DIFFERENT_TIMEOUTS = 16
_REFUSALS = 3
_REFUSAL_PAUSE_S = 0.2

_log = structlog.get_logger(__name__)


class _Attempt:
    """One message that was sent and waits for the broker's word, for so long."""

    __slots__ = ("_told", "at_s", "is_over")

    def __init__(self, told: Callable[[bool], None]) -> None:
        self.at_s = 0.0
        self.is_over = False
        self._told = told

    def end(self, outcome: Outcome) -> None:
        self.is_over = True
        # It is told once. It may lie among the deadlines for a while; the message and its sender need not.
        told, self._told = self._told, _nobody
        told(outcome is Outcome.CONFIRMED)

    def expire(self) -> None:
        self.end(Outcome.LOST)


def _nobody(_is_durable: bool) -> None:
    pass


class RabbitPublisher:
    """The queue's one publisher; any number of tasks may call it at once. Makes no task per message."""

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        *,
        max_in_flight: int,
        rng: random.Random,
        now_ms: Callable[[], int],
    ) -> None:
        self._connection = connection
        self._topology = topology
        self._max_in_flight = max_in_flight
        self._now_ms = now_ms
        self._rng = rng
        self._callers = 0
        self._confirms = Confirms()
        self._deadlines: dict[float, Deadlines] = {}
        self._session = Session(connection, self._prepare, self._lose, name="publisher", rng=rng)
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._watch is None:
            self._session.start()
            self._watch = asyncio.create_task(self._watch_silence(), name="oplata rabbitmq confirms")

    async def stop(self) -> None:
        """Let go of the channel. Whoever still waits gets ``NotConfirmed``."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.wait({watch})
        await self._session.stop()

    @property
    def available(self) -> bool:
        """Whether there is a channel, on a connection that takes messages."""
        return self._session.channel is not None and not self._connection.blocked

    async def ready(self) -> Channel:
        """Wait until the topology is there, also while an alarm keeps messages out. Raises like ``Session.ready``."""
        return await self._session.ready(even_if_blocked=True)

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        """Put a message into the queue. Raises as the protocol says, and ``TopologyError`` if it cannot be used."""
        properties = to_properties(envelope, now_ms=self._now_ms())
        await self.send(self._topology.name, properties, envelope.body, timeout_s=timeout_s)

    def begin(self, envelope: Envelope, told: Callable[[bool], None], *, timeout_s: float) -> bool:
        """As the protocol says: when there is a channel that takes messages, and room for one more of them."""
        loop, channel = asyncio.get_running_loop(), self._session.channel
        if channel is None or self._connection.blocked or self._is_full():
            return False
        properties = to_properties(envelope, now_ms=self._now_ms())
        if not self._sent(channel, self._topology.name, properties, envelope.body):
            return False
        attempt = _Attempt(told)
        self._confirms.watch(loop.time(), attempt.end)
        self._limits(timeout_s).watch(attempt, loop)
        return True

    async def send(self, routing_key: str, properties: Any, body: bytes, *, timeout_s: float) -> None:
        """Publish to one of our queues and return once it is confirmed, publishing again after a lost connection.

        Raises ``Overloaded`` at once, ``NotConfirmed`` after ``timeout_s`` or the broker's refusal, ``TopologyError``.
        """
        if self._is_full():
            raise Overloaded
        self._callers += 1
        try:
            with self._limits(timeout_s).limit():
                await self._send_until_confirmed(routing_key, properties, body)
        except TimeoutError:
            raise NotConfirmed(self._late(timeout_s)) from None
        except QueueUnavailable as error:
            raise NotConfirmed(str(error)) from None
        finally:
            self._callers -= 1

    async def _send_until_confirmed(self, routing_key: str, properties: Any, body: bytes) -> None:
        refusals = 0
        while (outcome := await self._send_once(routing_key, properties, body)) is not Outcome.CONFIRMED:
            if outcome is Outcome.REFUSED:
                # The broker refuses what it cannot place: the queue is full, or was deleted a moment ago. The latter
                # mends itself as soon as the next attempt is returned and the queue is declared again.
                refusals += 1
                if refusals > _REFUSALS:
                    raise NotConfirmed(f'RabbitMQ refused a message for the queue "{routing_key}": is it full?')
                await asyncio.sleep(delay_s(refusals, self._rng, _REFUSAL_PAUSE_S, _REFUSAL_PAUSE_S))

    async def _send_once(self, routing_key: str, properties: Any, body: bytes) -> Outcome:
        channel = await self._session.ready()
        if not self._sent(channel, routing_key, properties, body):
            return Outcome.LOST
        return await self._confirms.expect(asyncio.get_running_loop().time())

    def _sent(self, channel: Channel, routing_key: str, properties: Any, body: bytes) -> bool:
        try:
            channel.raw.basic_publish("", routing_key, body, properties, mandatory=True)
        except (exceptions.ConnectionWrongStateError, exceptions.ChannelWrongStateError):
            self._session.renew()
            return False
        return True

    def _is_full(self) -> bool:
        return max(self._callers, len(self._confirms)) >= self._max_in_flight

    async def _prepare(self, channel: Channel) -> None:
        """Make a channel ready to publish on: the topology is there, and confirms are counted from 1."""
        await ensure(channel, self._topology)
        channel.raw.add_on_return_callback(
            lambda _raw, returned, _properties, _body: self._on_return(channel, returned)
        )
        confirms = Confirms()
        await channel.call(channel.raw.confirm_delivery, confirms.hear)
        self._confirms = confirms

    def _on_return(self, channel: Channel, returned: Any) -> None:
        """A message found no queue, so the queue is gone and everything in flight is in doubt.

        The broker confirms a returned message right after; so all are taken for lost here, before that can be read.
        They are published again on a new channel, once the topology has been declared anew. What had arrived arrives
        twice, which is harmless; telling the returned ones by their message id would fail when two carry the same.
        """
        if channel is self._session.channel:
            _log.warning("queue.returned", queue=returned.routing_key, reason=returned.reply_text)
            self._session.renew(pause_s=_RETURN_PAUSE_S)

    def _lose(self) -> None:
        self._confirms.lose_all()

    async def _watch_silence(self) -> None:
        """Drop a connection that looks open and confirms nothing, unless the broker said that it would not."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            now_s, confirms = loop.time(), self._confirms
            if self._connection.blocked:
                confirms.touch(now_s)
            elif confirms.silent_s(now_s) > _SILENCE_LIMIT_S:
                _log.warning("queue.confirms_silent", in_flight=len(confirms), limit_s=_SILENCE_LIMIT_S)
                self._connection.abort("nothing was confirmed")
                self._session.renew()
            elif confirms.oldest_s(now_s) > _STUCK_LIMIT_S:
                _log.warning("queue.confirm_stuck", in_flight=len(confirms), limit_s=_STUCK_LIMIT_S)
                self._session.renew()

    def _limits(self, timeout_s: float) -> Deadlines:
        """The limits of this length. Callers have a few lengths between them, and each length has one timer."""
        deadlines = self._deadlines.get(timeout_s)
        if deadlines is None:
            if len(self._deadlines) >= _DIFFERENT_TIMEOUTS:
                self._deadlines.pop(next(iter(self._deadlines)))
            deadlines = self._deadlines[timeout_s] = Deadlines(timeout_s)
        return deadlines

    def _late(self, timeout_s: float) -> str:
        """Say why a publish took too long, as far as that is known."""
        if self._connection.blocked:
            return "RabbitMQ takes no messages now: it has a memory or disk alarm (rabbitmqctl status says which)."
        reason = f" {self._connection.failure}" if self._connection.failure is not None else ""
        return f"RabbitMQ did not confirm the message within {timeout_s:g} s.{reason}"
