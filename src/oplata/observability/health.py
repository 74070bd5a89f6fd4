"""Whether this process is alive, and whether it can do its work; and the addresses that tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from oplata.errors import OplataError

ANSWER_TIMEOUT_S = 3.0
ASKED_EVERY_S = 1.0


class Health(msgspec.Struct, frozen=True):
    """What is said to whoever asks: all is well, or a sentence about each thing that is not."""

    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is none."""
        return not self.faults


Ask = Callable[[], Awaitable[Health]]


class DatabaseHealth:
    """Whether the database can be worked with. ``check`` raises where it cannot.

    It is asked once a second at most: anybody may ask an endpoint whether it is ready, as often as they like.
    """

    def __init__(
        self, check: Callable[[], Awaitable[object]], *, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._check = check
        self._monotonic_s = monotonic_s
        self._asking = asyncio.Lock()
        self._asked_at_s: float | None = None
        self._faults: tuple[str, ...] = ()

    async def faults(self) -> tuple[str, ...]:
        """What keeps it from that; one that does not answer in time cannot be worked with."""
        async with self._asking:
            if self._asked_at_s is None or self._monotonic_s() - self._asked_at_s >= ASKED_EVERY_S:
                self._faults = await self._ask()
                self._asked_at_s = self._monotonic_s()
            return self._faults

    async def _ask(self) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._check()
        except OplataError as error:
            return (f"the database is not as it should be: {error}",)
        except TimeoutError:
            return (f"the database did not answer within {ANSWER_TIMEOUT_S:.0f} s",)
        return ()


def health_routes(alive: Ask, ready: Ask) -> list[BaseRoute]:
    """``/healthz``: does this process make progress; ``/readyz``: can it do its work. 200 or 503, and why."""
    return [Route("/healthz", _answering(alive)), Route("/readyz", _answering(ready))]


def exposition(registry: CollectorRegistry, alive: Ask, ready: Ask) -> Starlette:
    """The application of the metrics port: ``/metrics`` beside the two."""

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/metrics", metrics), *health_routes(alive, ready)])


def _answering(ask: Ask) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        health = await ask()
        said: dict[str, object] = {"status": "ok"} if health.ok else {"status": "failing", "faults": health.faults}
        return JSONResponse(said, 200 if health.ok else 503, headers={"cache-control": "no-store"})

    return answer
