"""A topic exchange for others to bind their queues to, and a publisher on it that waits for confirms."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Literal

import structlog
from pika import exceptions, spec

from oplata.errors import NotConfirmed, QueueUnavailable, SettingsError, TopologyError
from oplata.queue.rabbitmq.channel import Channel, ChannelClosed
from oplata.queue.rabbitmq.confirms import Confirms, Outcome
from oplata.queue.rabbitmq.connection import Connection
from oplata.queue.rabbitmq.endpoint import Endpoint
from oplata.queue.rabbitmq.session import Session
from oplata.queue.rabbitmq.wire import Wire

_LONGEST_NAME_BYTES = 200
_PERSISTENT = 2
_HEARTBEAT_S = 10
_log = structlog.get_logger(__name__)


class Topic:
    """Publishes to an exchange of the type topic.

    With ``declare="active"`` the exchange is declared durable; with ``passive`` it must be there. ``mandatory`` makes a
    message that no queue is bound for a failure; else it goes where nobody listens. Raises ``SettingsError``.
    """

    def __init__(
        self,
        url: str,
        exchange: str,
        *,
        declare: Literal["active", "passive"] = "active",
        mandatory: bool = False,
        rng: random.Random,
        wire: Callable[..., Any] = Wire,
    ) -> None:
        if not exchange or exchange.startswith("amq.") or len(exchange.encode()) > _LONGEST_NAME_BYTES:
            raise SettingsError(
                f"An exchange's name must not be empty, begin with amq. or be longer than {_LONGEST_NAME_BYTES} bytes."
            )
        self._exchange = exchange
        self._declare = declare
        self._mandatory = mandatory
        self._connection = Connection(Endpoint(url, heartbeat_s=_HEARTBEAT_S), role="events", rng=rng, wire=wire)
        self._session = Session(self._connection, self._prepare, self._lose, name="events", rng=rng)
        self._confirms = Confirms()
        self._returned: set[str] = set()

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._connection.start()
        self._session.start()

    async def stop(self) -> None:
        """Close the connection, within a limit of some seconds."""
        await self._session.stop()
        await self._connection.stop()

    async def publish(
        self, routing_key: str, body: bytes, *, message_id: str, kind: str, at_ms: int, timeout_s: float
    ) -> None:
        """Return once the broker has confirmed the message; no two with one id may be under way at once.

        Raises ``NotConfirmed``, also for a mandatory message that no queue took, and ``TopologyError``.
        """
        properties = spec.BasicProperties(
            content_type="application/json",
            delivery_mode=_PERSISTENT,
            message_id=message_id,
            type=kind,
            timestamp=at_ms // 1000,
            app_id="oplata",
        )
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await self._send(routing_key, properties, body)
        except TimeoutError:
            reason = self._connection.failure
            raise NotConfirmed(
                f"RabbitMQ did not confirm an event within {timeout_s:g} s.{f' {reason}' if reason else ''}"
            ) from None
        finally:
            was_returned = message_id in self._returned
            self._returned.discard(message_id)
        if was_returned:
            raise NotConfirmed(f'No queue is bound to "{self._exchange}" for {routing_key}, and the sink is mandatory.')
        if outcome is not Outcome.CONFIRMED:
            raise NotConfirmed(f'RabbitMQ did not take an event for "{self._exchange}" ({outcome.value}).')

    async def _send(self, routing_key: str, properties: Any, body: bytes) -> Outcome:
        channel = await self._session.ready()
        try:
            channel.raw.basic_publish(self._exchange, routing_key, body, properties, mandatory=self._mandatory)
        except (exceptions.ConnectionWrongStateError, exceptions.ChannelWrongStateError):
            self._session.renew()
            return Outcome.LOST
        return await self._confirms.expect(asyncio.get_running_loop().time())

    async def _prepare(self, channel: Channel) -> None:
        passive = self._declare == "passive"
        try:
            await channel.call(
                channel.raw.exchange_declare, self._exchange, "topic", durable=not passive, passive=passive
            )
        except ChannelClosed as closed:
            if not 400 <= closed.code < 500:
                raise QueueUnavailable(f"RabbitMQ closed the channel ({closed.text}).") from None
            raise TopologyError(
                f'The exchange "{self._exchange}" cannot be used ({closed.text}): declare it as a durable topic, '
                "or give the sink another exchange."
            ) from None
        channel.raw.add_on_return_callback(
            # The broker returns a message before it confirms it.
            lambda _raw, _returned, properties, _body: self._returned.add(properties.message_id)
        )
        confirms = Confirms()
        await channel.call(channel.raw.confirm_delivery, confirms.hear)
        self._confirms = confirms

    def _lose(self) -> None:
        self._confirms.lose_all()
        self._returned.clear()
