"""While a batch is with the database the next one is read: one ahead, only a full one, each settled after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import pytest

from oplata.bank.canary import canary
from oplata.queue.base import Queue
from oplata.queue.envelope import RECEIVED_AT_HEADER, Delivery, Envelope
from oplata.storage.engine import Database
from oplata.worker.batch import Part
from oplata.worker.loop import Worker
from tests.databases import KEYRING, NOW_MS, callback

pytestmark = pytest.mark.anyio

BATCH = 4
TURNS = 50
"""How many turns of the event loop a transaction takes: far more than it takes to read all that may be read."""


class Hand:
    """A consumer that has these messages at hand and waits for no more."""

    def __init__(self, count: int) -> None:
        self.waiting = deque(
            Delivery(envelope=Envelope(body=callback(payment_id=str(number + 1))), tag=number + 1)
            for number in range(count)
        )
        self.taken: list[int] = []

    @property
    def at_hand(self) -> int:
        return len(self.waiting)

    async def receive(self, *, limit: int, timeout_s: float) -> list[Delivery]:
        if not self.waiting:
            await asyncio.sleep(timeout_s)
        deliveries = [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]
        self.taken.append(len(deliveries))
        return deliveries


class Settling:
    """A settlement that takes its time, and says whether it could; ``before`` is what was taken when each ended."""

    def __init__(self, hand: Hand, *outcomes: bool) -> None:
        self.hand = hand
        self.outcomes = deque(outcomes)
        self.parts: list[Part] = []
        self.begun: list[list[int]] = []
        self.has_begun = asyncio.Event()
        self.ended: list[list[int]] = []
        self.taken_at_end: list[int] = []

    async def settle(self, _consumer: object, part: Part) -> bool:
        assert len(self.begun) == len(self.ended), "two transactions at the same time"
        tags = [delivery.tag for delivery in part.deliveries]
        self.begun.append(tags)
        self.parts.append(part)
        self.has_begun.set()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        self.ended.append(tags)
        self.taken_at_end.append(sum(self.hand.taken))
        return self.outcomes.popleft() if self.outcomes else True


async def work(hand: Hand, settling: Settling, *, within_s: float = 5.0) -> tuple[Worker, bool]:
    """Let a worker consume until all is settled, or until it gives up; whether it gave up."""
    worker = Worker(queue=cast(Queue, None), database=cast(Database, None), keyring=KEYRING, batch_size=BATCH)
    worker._settlement = cast(Any, settling)
    consuming = asyncio.create_task(worker._consume(cast(Any, hand), worker._read))
    async with asyncio.timeout(within_s):
        while not consuming.done() and (hand.waiting or len(settling.ended) < len(hand.taken)):
            await asyncio.wait({consuming}, timeout=0.005)
        gave_up = consuming.done()
        worker.stop()
        await consuming
    return worker, gave_up


def ranges(*pairs: tuple[int, int]) -> Sequence[list[int]]:
    return [list(range(first, last)) for first, last in pairs]


async def test_one_full_batch_is_read_ahead_and_no_more() -> None:
    hand = Hand(3 * BATCH)
    settling = Settling(hand)

    worker, _ = await work(hand, settling)

    assert ranges((1, 5), (5, 9), (9, 13)) == settling.ended
    assert [2 * BATCH, 3 * BATCH, 3 * BATCH] == settling.taken_at_end
    assert 3 * BATCH == worker.stats.received


async def test_a_batch_that_is_not_full_is_left_to_grow() -> None:
    hand = Hand(BATCH + 1)
    settling = Settling(hand)

    await work(hand, settling)

    assert ranges((1, 5), (5, 6)) == settling.ended
    assert BATCH == settling.taken_at_end[0]


def of_every_kind() -> Hand:
    """A full batch, and one that has each kind of message that there is."""
    hand = Hand(2 * BATCH)
    unknown = callback(payment_id="6").replace(b'"Token":"', b'"Token":"0')
    for place, envelope in enumerate(
        (
            Envelope(body=canary(KEYRING, NOW_MS)),
            Envelope(body=unknown, headers={RECEIVED_AT_HEADER: NOW_MS}),
            Envelope(body=b"no notification"),
        ),
        start=BATCH,
    ):
        hand.waiting[place] = Delivery(envelope=envelope, tag=place + 1)
    return hand


async def test_whatever_was_read_ahead_is_settled() -> None:
    hand = of_every_kind()
    settling = Settling(hand)

    await work(hand, settling)

    _, ahead = settling.parts
    canaries, puzzling, poison, works = (
        [delivery.tag for delivery in kind]
        for kind in (
            [delivery for delivery, _ in ahead.canaries],
            ahead.puzzling,
            [delivery for delivery, _ in ahead.poison],
            [work.delivery for work in ahead.works],
        )
    )
    assert ([5], [6], [7], [8]) == (canaries, puzzling, poison, works)


async def test_whatever_was_read_ahead_goes_back_with_the_batch_before_it() -> None:
    hand = of_every_kind()

    worker, gave_up = await work(hand, Settling(hand, False))

    assert (True, BATCH) == (gave_up, worker.stats.released)


async def test_what_was_read_ahead_is_not_settled_when_the_batch_before_it_goes_back() -> None:
    hand = Hand(2 * BATCH)
    settling = Settling(hand, False)

    worker, gave_up = await work(hand, settling)

    assert gave_up
    assert ranges((1, 5)) == settling.begun
    assert BATCH == worker.stats.released


async def test_a_worker_that_is_ended_ends_its_transaction_first() -> None:
    hand = Hand(2 * BATCH)
    settling = Settling(hand)
    worker = Worker(queue=cast(Queue, None), database=cast(Database, None), keyring=KEYRING, batch_size=BATCH)
    worker._settlement = cast(Any, settling)
    consuming = asyncio.create_task(worker._consume(cast(Any, hand), worker._read))
    await settling.has_begun.wait()
    consuming.cancel()

    with pytest.raises(asyncio.CancelledError):
        await consuming

    assert ([], 1) == (settling.ended, len(settling.begun))
