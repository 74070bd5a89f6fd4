"""Which queues and exchanges there are on the broker, and how they are declared: the same way by everyone."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from oplata.errors import QueueUnavailable, SettingsError, TopologyError
from oplata.queue.rabbitmq.channel import Channel, ChannelClosed

Declare = Literal["active", "passive"]

_LONGEST_NAME_BYTES = 230
_NO_DELIVERY_LIMIT = 1_000_000_000
"""Dead letters are never given up. RabbitMQ 4.0 drops after 20 returns by default, and 3.10 takes -1 for zero."""

_GONE, _REFUSED, _LOCKED, _DIFFERS = 404, 403, 405, 406


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """The main queue ``name``, its rungs ``<name>.retry.<delay>``, and ``<name>.dead`` behind ``<name>.dlx``.

    With ``declare="passive"`` the main queue belongs to someone else: it has to exist and is used as it stands.
    Rungs and dead letters are ours in any case.
    """

    name: str
    declare: Declare
    retry_delays_ms: tuple[int, ...]
    delivery_limit: int

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("amq.") or len(self.name.encode()) > _LONGEST_NAME_BYTES:
            raise SettingsError(
                f"The queue's name must not be empty, begin with amq. or be longer than {_LONGEST_NAME_BYTES} bytes."
            )
        if self.declare not in ("active", "passive"):
            raise SettingsError('The queue\'s declare must be "active" or "passive".')
        if not self.retry_delays_ms or list(self.retry_delays_ms) != sorted({*self.retry_delays_ms}):
            raise SettingsError("The retry delays must be at least one, each longer than the one before.")
        if self.retry_delays_ms[0] < 1 or self.delivery_limit < 1:
            raise SettingsError("The retry delays and the delivery limit must be positive.")

    @property
    def dead_name(self) -> str:
        """The queue of dead letters."""
        return f"{self.name}.dead"

    @property
    def exchange_name(self) -> str:
        """The exchange through which the broker's dead letters go."""
        return f"{self.name}.dlx"

    def rung_name(self, rung_ms: int) -> str:
        """The queue in which messages wait for ``rung_ms``."""
        return f"{self.name}.retry.{rung_ms}"

    def rung_for(self, delay_ms: int) -> int:
        """Return the shortest rung that is no shorter than ``delay_ms``, or else the longest."""
        return next((rung_ms for rung_ms in self.retry_delays_ms if rung_ms >= delay_ms), self.retry_delays_ms[-1])

    def queue_arguments(self) -> list[tuple[str, dict[str, Any]]]:
        """Return every queue that is ours to declare, with its arguments."""
        queues: list[tuple[str, dict[str, Any]]] = [(self.dead_name, _quorum(_NO_DELIVERY_LIMIT))]
        if self.declare == "active":
            # Without at-least-once the broker may lose a dead letter on its way; at-least-once needs reject-publish.
            queues.append((self.name, _quorum(self.delivery_limit) | _forward(self.exchange_name, self.dead_name)))
        for rung_ms in self.retry_delays_ms:
            ladder = {"x-queue-type": "quorum", "x-message-ttl": rung_ms} | _forward("", self.name)
            queues.append((self.rung_name(rung_ms), ladder))
        return queues


def _quorum(delivery_limit: int) -> dict[str, Any]:
    return {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}


def _forward(exchange: str, routing_key: str) -> dict[str, Any]:
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": routing_key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


async def ensure(channel: Channel, topology: Topology) -> None:
    """Declare all that is ours and check what is not. Repeating it changes nothing.

    Raises ``TopologyError`` when the broker holds something else under one of the names or refuses us, and
    ``QueueUnavailable`` when the connection went meanwhile. The channel is closed after either.
    """
    raw = channel.raw
    if topology.declare == "passive":
        await count(channel, topology.name, topology)
    exchange = topology.exchange_name
    await _declare(channel, "exchange", exchange, raw.exchange_declare, exchange, "direct", durable=True)
    for name, arguments in topology.queue_arguments():
        await _declare(channel, "queue", name, raw.queue_declare, name, durable=True, arguments=arguments)
    dead = topology.dead_name
    await _declare(channel, "queue", dead, raw.queue_bind, dead, exchange, routing_key=dead)


async def count(channel: Channel, name: str, topology: Topology) -> int:
    """Return how many messages of a queue are ready. Raises like ``look``."""
    return (await look(channel, name, topology))[0]


async def look(channel: Channel, name: str, topology: Topology) -> tuple[int, int]:
    """Return how many messages of a queue are ready and how many consumers it has, without touching any of them.

    Raises ``TopologyError`` when the queue is missing or not ours to see, else like ``ensure``.
    """
    try:
        declared = await channel.call(channel.raw.queue_declare, name, passive=True)
    except ChannelClosed as closed:
        if closed.code == _GONE:
            raise TopologyError(_missing(name, topology)) from None
        raise _mapped(closed, "queue", name) from None
    return int(declared.message_count), int(declared.consumer_count)


async def _declare(channel: Channel, kind: str, name: str, method: Any, *args: Any, **kwargs: Any) -> None:
    try:
        await channel.call(method, *args, **kwargs)
    except ChannelClosed as closed:
        raise _mapped(closed, kind, name) from None


def _missing(name: str, topology: Topology) -> str:
    if topology.declare == "passive" and name == topology.name:
        return (
            f'The queue "{name}" does not exist, and declare = "passive" leaves it to another program to declare it: '
            'start that program first, or set declare = "active".'
        )
    return f'The queue "{name}" does not exist; it is declared again when a publisher or a consumer connects.'


def _mapped(closed: ChannelClosed, kind: str, name: str) -> TopologyError | QueueUnavailable:
    """Turn the broker's reply into a sentence that says what differs and how to mend it."""
    text = closed.text.partition(" - ")[2] or closed.text
    if closed.code == _DIFFERS:
        mend = ', set declare = "passive" to use it as it stands,' if kind == "queue" else ""
        return TopologyError(
            f'The {kind} "{name}" exists on the broker with other arguments ({text}): '
            f"delete or rename it{mend} or give the queue another name in the settings."
        )
    if closed.code == _REFUSED:
        return TopologyError(
            f'The broker refuses to declare the {kind} "{name}" ({text}): '
            "grant the user configure, write and read on it (rabbitmqctl set_permissions)."
        )
    if closed.code in (_GONE, _LOCKED):
        return TopologyError(f'The {kind} "{name}" cannot be used ({text}): delete it, or close its exclusive owner.')
    return QueueUnavailable(f'RabbitMQ closed the channel while the {kind} "{name}" was declared ({closed.text}).')
