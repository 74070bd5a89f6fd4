"""Many browsers' worth of subscribers on bare sockets: each comes back with its last id, as an EventSource does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from urllib.parse import quote


class Subscriber:
    """One stream of changes, and the ids that came on it."""

    def __init__(self, port: int, key: str, order_id: str | None, rng: random.Random) -> None:
        self._port = port
        self._key = key
        self._input = quote(json.dumps({} if order_id is None else {"orderId": order_id}))
        self._rng = rng
        self.ids: list[int] = []
        self.connected = 0
        self.refusals: Counter[str] = Counter()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, EOFError):
                await self._once()
            await asyncio.sleep(self._rng.uniform(0.1, 0.4))

    async def _once(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            last = f"Last-Event-ID: {self.ids[-1]}\r\n" if self.ids else ""
            head = f"GET /api/trpc/orders.onStatusChange?input={self._input} HTTP/1.1\r\nHost: shop\r\n{last}"
            writer.write(f"{head}Accept: text/event-stream\r\nAuthorization: Bearer {self._key}\r\n\r\n".encode())
            status = await reader.readline()
            if b" 200 " not in status:
                self.refusals[status.decode()] += 1
                return
            event = ""
            while line := await reader.readline():
                text = line.decode().strip()
                if text.startswith("event: "):
                    event = text.removeprefix("event: ")
                    self.connected += event == "connected"
                elif text.startswith("id: ") and text != "id: ":
                    self.ids.append(int(text.removeprefix("id: ")))
                elif text.startswith("data: ") and event == "serialized-error":
                    self.refusals[text] += 1
                elif text == "0":
                    return  # The last chunk. The connection may be used again for a while, and nobody wants to.
                elif not text:
                    event = ""
        finally:
            writer.close()
