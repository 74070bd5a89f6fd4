"""The bank's side: callbacks at a rate of their own, sent again until each was answered exactly ``200`` and ``OK``."""

from __future__ import annotations

import asyncio
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from oplata.bank.simulator.traffic import Callback
from tests.chaos.facts import fact_of
from tests.chaos.line import Answer, Endpoint

TIMEOUT_S = 10.0
SAMPLE_S = 0.2
TICK_S = 0.005
MOST_UNSETTLED = 20_000
MOST_REFUSALS = 5
FORGED = "forged"


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """Where things stood: on the monotonic clock, attempts that failed, accepted sendings, age of the oldest one."""

    at_s: float
    failed: int
    accepted: int
    oldest_s: float


class Ledger(msgspec.Struct):
    """What the bank knows at the end. ``oks`` counts the OKs of each fact, and ``last_ok_s`` says how long after the
    beginning the last of them came; ``outcomes`` counts every attempt by its answer.
    """

    sendings: int = 0
    accepted: int = 0
    oks: dict[str, int] = {}
    last_ok_s: dict[str, float] = {}
    pending: list[str] = []
    outcomes: dict[str, int] = {}
    forged_sent: int = 0
    forged_accepted: int = 0
    genuine_refused: int = 0
    held_back: int = 0
    ack_ms: list[float] = []
    resets: list[tuple[float, int, str]] = []
    samples: list[Sample] = []


class Bank:
    """Sends callbacks to the endpoints in turn. ``resend_s`` is the range of pauses before one is sent again."""

    def __init__(
        self, endpoints: Sequence[Endpoint], rng: random.Random, *, resend_s: tuple[float, float] = (0.5, 1.5)
    ) -> None:
        self.ledger = Ledger()
        self._endpoints = list(endpoints)
        self._rng = rng
        self._resend_s = resend_s
        self._turn = 0
        self._outcomes: Counter[str] = Counter()
        self._failed = 0
        self._began_s = asyncio.get_running_loop().time()
        self._errors: list[BaseException] = []
        self._ack_ms = array("f")
        self._unsettled: dict[asyncio.Task[None], float] = {}
        self._facts: dict[asyncio.Task[None], str] = {}

    @property
    def unsettled(self) -> int:
        """Callbacks that are in flight, or wait to be sent again."""
        return len(self._unsettled)

    def send(self, callback: Callback) -> None:
        """Begin to send one callback; it is sent again until it is settled."""
        due_s = asyncio.get_running_loop().time()
        key = fact_of(callback.body, callback.content_type).key if callback.genuine else FORGED
        task = asyncio.create_task(self._deliver(callback, key, due_s))
        self._unsettled[task] = due_s
        self._facts[task] = key
        task.add_done_callback(self._settled)

    async def pour(self, callbacks: Iterable[Callback], rate: float) -> None:
        """Send at a fixed rate, whatever the answers are; returns when the last one has been sent once."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number, callback in enumerate(callbacks):
            # A tick is for several callbacks, so the loop wakes up two hundred times a second at any rate.
            if number >= (loop.time() - began_s) * rate:
                await asyncio.sleep(max(TICK_S, number / rate - (loop.time() - began_s)))
            if len(self._unsettled) >= MOST_UNSETTLED:
                self.ledger.held_back += 1
                await asyncio.wait(list(self._unsettled), return_when=asyncio.FIRST_COMPLETED)
            self.send(callback)

    async def settle(self, timeout_s: float) -> Ledger:
        """Wait until everything was accepted; what was not by then is ``pending`` in the ledger."""
        if self._unsettled:
            await asyncio.wait(list(self._unsettled), timeout=timeout_s)
        if self._errors:
            raise self._errors[0]
        late = list(self._unsettled)
        self.ledger.pending = [self._facts[task] for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for endpoint in self._endpoints:
            endpoint.close()
        self.ledger.outcomes = dict(sorted(self._outcomes.items()))
        self.ledger.ack_ms = list(self._ack_ms)
        return self.ledger

    async def sample_forever(self) -> None:
        """Note every moment how things stand."""
        loop = asyncio.get_running_loop()
        while True:
            now_s = loop.time()
            oldest_s = now_s - next(iter(self._unsettled.values()), now_s)
            self.ledger.samples.append(Sample(now_s, self._failed, self.ledger.accepted, round(oldest_s, 3)))
            await asyncio.sleep(SAMPLE_S)

    async def _deliver(self, callback: Callback, key: str, due_s: float) -> None:
        loop, ledger = asyncio.get_running_loop(), self.ledger
        ledger.sendings += callback.genuine
        ledger.forged_sent += not callback.genuine
        refusals = 0
        while True:
            endpoint = self._next_endpoint()
            answer = await endpoint.post(callback.body, callback.content_type, timeout_s=TIMEOUT_S)
            self._note(answer, endpoint, callback.genuine)
            if answer.accepted:
                self._ack_ms.append((loop.time() - due_s) * 1000)
                self._accept(key)
                return
            if answer.status in (400, 403):
                if not callback.genuine:
                    return
                refusals += 1
                ledger.genuine_refused += 1
                if refusals == MOST_REFUSALS:
                    return
            await asyncio.sleep(self._rng.uniform(*self._resend_s))
            due_s = loop.time()

    def _accept(self, key: str) -> None:
        ledger = self.ledger
        if key == FORGED:
            ledger.forged_accepted += 1
            return
        ledger.accepted += 1
        ledger.oks[key] = ledger.oks.get(key, 0) + 1
        ledger.last_ok_s[key] = round(asyncio.get_running_loop().time() - self._began_s, 1)

    def _note(self, answer: Answer, endpoint: Endpoint, genuine: bool) -> None:
        outcome = answer.fault or f"{answer.status}"
        if answer.status == 200 and not answer.accepted:
            outcome = "200 without OK"
        self._outcomes[outcome if genuine else f"{outcome} ({FORGED})"] += 1
        if answer.status not in (200, 400, 403):
            self._failed += 1
        if answer.fault in ("reset", "stale"):
            self.ledger.resets.append((asyncio.get_running_loop().time(), endpoint.port, answer.fault))

    def _next_endpoint(self) -> Endpoint:
        self._turn = (self._turn + 1) % len(self._endpoints)
        return self._endpoints[self._turn]

    def _settled(self, task: asyncio.Task[None]) -> None:
        del self._unsettled[task], self._facts[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)
