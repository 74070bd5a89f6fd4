"""One HTTP request of the bank to an endpoint, over a network that delays, cuts and loses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.simulation.programs import Ingest

if TYPE_CHECKING:
    from tests.simulation.world import World

BANK_TIMEOUT_S = 10.0
PEER = "192.0.2.1"


class Exchange:
    """``perform`` returns whether the bank heard exactly OK."""

    def __init__(self, world: World, body: bytes, content_type: str, *, genuine: bool) -> None:
        self._world = world
        self._body = body
        self._content_type = content_type
        self._genuine = genuine
        self._status = 0
        self._heard: asyncio.Future[tuple[int, bytes] | None] = world.loop.create_future()
        self._chunks: list[bytes] = []

    async def perform(self) -> bool:
        """Send, and wait for the answer as long as the bank does."""
        world = self._world
        await asyncio.sleep(self._latency_s())
        serving = [each for each in world.ingests if each.is_serving]
        if not serving:
            return False
        ingest = world.rng.choice(serving)
        middle = world.rng.choice((0, len(self._body) // 2))
        self._chunks = [self._body[:middle], self._body[middle:]] if middle else [self._body]
        ingest.process.later(self._latency_s(), self._arrive, ingest)
        try:
            async with asyncio.timeout(BANK_TIMEOUT_S):
                answer = await self._heard
        except TimeoutError:
            return False
        return answer == (200, b"OK")

    def _arrive(self, ingest: Ingest) -> None:
        if not ingest.is_serving:
            self._answer(None)
            return
        headers = [(b"content-type", self._content_type.encode())]
        if len(self._chunks) == 1:
            ingest.take_whole(PEER, headers, self._body, self._tell, lambda: self._answer(None))
            return
        scope = {"type": "http", "method": "POST", "path": "/", "client": (PEER, 4242), "headers": headers}
        ingest.handle(scope, self._receive, self._send, lambda: self._answer(None))

    async def _receive(self) -> dict[str, Any]:
        if len(self._chunks) > 1:
            await asyncio.sleep(self._latency_s())
        if not self._chunks:
            return {"type": "http.disconnect"}
        chunk = self._chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self._chunks)}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        else:
            self._tell(self._status, bytes(message["body"]))

    def _tell(self, status: int, body: bytes) -> None:
        if (status, body) == (200, b"OK"):
            self._world.promise(self._body, self._content_type, genuine=self._genuine)
        if self._world.rng.random() >= self._world.answer_loss:
            self._answer((status, body))

    def _answer(self, answer: tuple[int, bytes] | None) -> None:
        self._world.bank.later(self._latency_s(), self._hear, answer)

    def _hear(self, answer: tuple[int, bytes] | None) -> None:
        if not self._heard.done():
            self._heard.set_result(answer)

    def _latency_s(self) -> float:
        return self._world.rng.expovariate(1 / 0.004)
