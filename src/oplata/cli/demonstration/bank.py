"""The bank's and the shop's side of the demonstration: register, post, hear the answer, and come again after a 503."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import httpx

from oplata.bank.notification import parse
from oplata.bank.simulator.traffic import Callback, Happening, Registration, Traffic
from oplata.cli.demonstration.tally import Tally
from oplata.orders.commands import Orders

LANES = 6
"""How many things happen at a time."""

TRIES = 6
FIRST_WAIT_S = 0.2
ANSWER_TIMEOUT_S = 10.0


class Bank:
    """Plays the traffic against the endpoint at ``url`` at ``rate_per_s`` things a second, and counts."""

    def __init__(self, traffic: Traffic, tally: Tally, orders: Orders, url: str, rate_per_s: float) -> None:
        self._traffic = traffic
        self._tally = tally
        self._orders = orders
        self._url = url
        self._rate_per_s = rate_per_s
        self._next_s = 0.0
        self._hurried = asyncio.Event()
        self._turn = asyncio.Lock()

    async def play(self) -> None:
        """Play until the traffic ends."""
        happenings = iter(self._traffic)
        limits = httpx.Limits(max_connections=LANES, max_keepalive_connections=LANES)
        # The environment may name a proxy, which has no business on the loopback.
        client = httpx.AsyncClient(timeout=ANSWER_TIMEOUT_S, limits=limits, trust_env=False)
        async with client, asyncio.TaskGroup() as lanes:
            for _ in range(LANES):
                lanes.create_task(self._lane(happenings, client))

    def hurry(self) -> None:
        """Begin no more orders, and play what has begun to its end without pauses."""
        self._traffic.finish()
        self._hurried.set()

    async def _lane(self, happenings: Iterator[Happening], client: httpx.AsyncClient) -> None:
        while True:
            async with self._turn:
                await self._pace()
                happening = next(happenings, None)
            if happening is None:
                return
            if isinstance(happening, Registration):
                await self._register(happening)
            else:
                await self._deliver(happening, client)

    async def _pace(self) -> None:
        wait_s = self._next_s - time.monotonic()
        if wait_s > 0 and not self._hurried.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), wait_s)
        # A pause of the machine is made up for during a second at most.
        self._next_s = max(self._next_s, time.monotonic() - 1.0) + 1.0 / self._rate_per_s

    async def _register(self, registration: Registration) -> None:
        order = registration.order
        await self._orders.register(order.order_id, order.amount_kopecks)
        self._tally.registered[order.order_id] = time.monotonic()

    async def _deliver(self, callback: Callback, client: httpx.AsyncClient) -> None:
        for attempt in range(TRIES):
            if callback.confirms is not None:
                self._tally.confirmed.setdefault(callback.confirms, time.monotonic())
            if await self._post(callback, client) or not callback.genuine:
                return
            await asyncio.sleep(FIRST_WAIT_S * 2**attempt)
        self._tally.undelivered += 1

    async def _post(self, callback: Callback, client: httpx.AsyncClient) -> bool:
        tally = self._tally
        tally.sent += 1
        try:
            answer = await client.post(
                self._url, content=callback.body, headers={"content-type": callback.content_type}
            )
        except httpx.HTTPError:
            tally.refused += 1
            return False
        if answer.status_code != 200 or answer.content != b"OK":
            tally.refused += 1
            return False
        if callback.genuine:
            tally.accepted[parse(callback.body, callback.content_type).event().digest] += 1
        else:
            # It has no digest that must be found; it is counted apart and fails the demonstration.
            tally.forged_accepted += 1
            tally.accepted[f"forged {tally.forged_accepted}"] += 1
        return True
