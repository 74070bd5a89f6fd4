"""What the tests of the RabbitMQ queue share: a queue that runs, another program beside it, a wire that fails."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from oplata.errors import TopologyError
from oplata.queue.envelope import Delivery, Envelope
from oplata.queue.rabbitmq import RabbitQueue
from oplata.queue.rabbitmq.channel import Channel, open_channel
from oplata.queue.rabbitmq.consumer import RabbitConsumer
from oplata.queue.rabbitmq.endpoint import Endpoint
from oplata.queue.rabbitmq.link import connect
from tests.services.proxy import Proxy

TIMEOUT_S = 8.0
BLOCKED = struct.pack(">BHLHHB", 1, 0, 8, 10, 60, 3) + b"low\xce"
UNBLOCKED = struct.pack(">BHLHH", 1, 0, 4, 10, 61) + b"\xce"
RUNGS_MS = (200, 1_000)


@asynccontextmanager
async def running(url: str, name: str, **options: Any) -> AsyncIterator[RabbitQueue]:
    """A started queue, which leaves no task behind when it is stopped."""
    before = asyncio.all_tasks()
    queue = RabbitQueue(url, name, **{"retry_delays_ms": RUNGS_MS, **options})
    await queue.start()
    try:
        yield queue
    finally:
        began_s = time.monotonic()
        await queue.stop()
        assert time.monotonic() - began_s < 10
        await asyncio.sleep(0)
        assert {task for task in asyncio.all_tasks() - before if task.get_name().startswith("oplata")} == set()


@asynccontextmanager
async def stranger(url: str) -> AsyncIterator[Channel]:
    """A channel of another program, or of an operator."""
    link = await connect(Endpoint(url, heartbeat_s=10), role="stranger")
    try:
        yield await open_channel(link)
    finally:
        await link.close()


async def delete(url: str, *names: str) -> None:
    async with stranger(url) as channel:
        for name in names:
            await channel.call(channel.raw.queue_delete, name)


async def declare_classic(url: str, name: str, **arguments: Any) -> None:
    async with stranger(url) as channel:
        await channel.call(channel.raw.queue_declare, name, durable=True, arguments=arguments)


async def publish_once_mended(queue: RabbitQueue, body: bytes) -> None:
    """Publish, as a caller does who is told of a ``TopologyError`` until an operator has mended the broker."""
    for _ in range(150):
        try:
            return await queue.publisher().publish(Envelope(body=body), timeout_s=TIMEOUT_S)
        except TopologyError:
            await asyncio.sleep(0.1)
    raise AssertionError("The topology error stayed although its cause had gone.")


async def collect(consumer: RabbitConsumer, count: int, *, within_s: float = 20.0) -> list[Delivery]:
    """Receive and ack until ``count`` messages with different bodies have come."""
    found: dict[bytes, Delivery] = {}
    deadline_s = time.monotonic() + within_s
    while len(found) < count and time.monotonic() < deadline_s:
        deliveries = await consumer.receive(limit=500, timeout_s=1)
        found.update({delivery.envelope.body: delivery for delivery in deliveries})
        await consumer.ack(deliveries)
    return list(found.values())


async def received(consumer: RabbitConsumer, count: int) -> list[Delivery]:
    """Receive, without settling anything, until ``count`` messages are held."""
    held: list[Delivery] = []
    for _ in range(20):
        held += await consumer.receive(limit=count - len(held), timeout_s=1)
        if len(held) == count:
            break
    return held


class Wire(Proxy):
    """A proxy before a broker that can also swallow, and speak in the broker's place."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        super().__init__(self._url.port or 5672, self._url.hostname or "127.0.0.1")
        self.accepted = 0
        self._clients: list[asyncio.StreamWriter] = []
        self._ends: list[asyncio.StreamWriter] = []
        self._swallowed: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The broker's URL by way of this wire."""
        credentials = self._url.netloc.rpartition("@")[0]
        return self._url._replace(netloc=f"{credentials}@127.0.0.1:{self.port}").geturl()

    def swallow(self) -> None:
        """Lose for ever what goes over the connections that exist now, and close none; new ones are let through."""
        self._swallowed.update(self._ends)

    def say(self, data: bytes) -> None:
        """Send bytes to every client, as if the broker had said them."""
        for client in self._clients:
            client.write(data)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._clients.append(writer)
        super()._accept(reader, writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.append(writer)
        while chunk := await reader.read(65_536):
            if writer not in self._swallowed:
                writer.write(chunk)
                await writer.drain()
