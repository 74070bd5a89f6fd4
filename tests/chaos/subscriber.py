"""The shop's own system, which is told of each change by the relay, and sometimes is not well."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from oplata.feed.sinks.signing import signatures

SECRET = "whsec_" + base64.b64encode(b"a secret of the chaos run").decode()
_KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEADER = re.compile(rb"\r\n(webhook-(?:id|timestamp|signature)): *([^\r]*)", re.IGNORECASE)


class Told(NamedTuple):
    """A change as it was told."""

    change_id: int
    order_id: str
    version: int
    status: str


class Subscriber:
    """A receiver of webhooks. ``told`` holds what it has answered with 200, in the order of the answers.

    ``ill_chance`` is how often it answers 500, or takes a change and does not get to say so.
    """

    def __init__(self, rng: random.Random, *, ill_chance: float = 0.02) -> None:
        self.told: list[Told] = []
        self.repeats = 0
        self.forged = 0
        self.is_away = False
        self.port = 0
        self._rng = rng
        self._ill_chance = ill_chance
        self._seen: set[int] = set()

    @property
    def distinct(self) -> int:
        """How many changes it knows of."""
        return len(self._seen)

    def out_of_order(self) -> list[str]:
        """Where an order's change was heard of for the first time after a later one."""
        last: dict[str, int] = {}
        seen: set[int] = set()
        wrong: list[str] = []
        for told in self.told:
            if told.change_id in seen:
                continue
            seen.add(told.change_id)
            if last.get(told.order_id, 0) >= told.version:
                wrong.append(f"order {told.order_id}: version {told.version} was told after {last[told.order_id]}")
            last[told.order_id] = max(last.get(told.order_id, 0), told.version)
        return wrong

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the relay."""
        try:
            while not self.is_away:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if self.is_away:
                    break
                status = self._take(head, body)
                if status is None:
                    break
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.transport.abort()

    def _take(self, head: bytes, body: bytes) -> int | None:
        """The status to answer with; None where the answer is lost, though the change was taken."""
        if not self._is_signed(head, body):
            self.forged += 1
            return 401
        chance = self._rng.random()
        if chance < self._ill_chance / 2:
            return 500
        data = json.loads(body)["data"]
        told = Told(data["changeId"], data["orderId"], data["version"], data["status"])
        self.repeats += told.change_id in self._seen
        self._seen.add(told.change_id)
        self.told.append(told)
        return 200 if chance > self._ill_chance else None

    def _is_signed(self, head: bytes, body: bytes) -> bool:
        given = {name.lower(): value.decode() for name, value in _HEADER.findall(head)}
        event_id, timestamp = given.get(b"webhook-id", ""), given.get(b"webhook-timestamp", "0")
        return signatures([_KEY], event_id, int(timestamp), body) == given.get(b"webhook-signature")


@asynccontextmanager
async def subscribed(rng: random.Random) -> AsyncIterator[Subscriber]:
    """Listen while this lasts."""
    subscriber = Subscriber(rng)
    server = await asyncio.start_server(subscriber.serve, "127.0.0.1", 0)
    subscriber.port = server.sockets[0].getsockname()[1]
    try:
        yield subscriber
    finally:
        server.close()
