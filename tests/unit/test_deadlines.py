"""Many waits, one timer: each ends at its own time, and nobody else's. The time is invented, and exact."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from oplata.queue.deadlines import Deadlines
from tests.simulation.loop import Loop

T = TypeVar("T")


def lived(story: Coroutine[Any, Any, T]) -> T:
    """What comes of it on a loop of its own, whose time goes on only when there is nothing to do."""
    loop = Loop(random.Random(1), most_steps=100_000)
    try:
        return loop.run_until_complete(story)
    finally:
        loop.finish()


async def wait(deadlines: Deadlines, wait_s: float) -> tuple[str, int]:
    """Whether a wait was in time, and how many seconds it took."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        with deadlines.limit():
            await asyncio.sleep(wait_s)
    except TimeoutError:
        return "late", round(loop.time() - began_s)
    return "in time", round(loop.time() - began_s)


def test_each_wait_has_its_own_end() -> None:
    async def three() -> tuple[tuple[str, int], ...]:
        deadlines = Deadlines(50)
        first = asyncio.create_task(wait(deadlines, 1000))
        await asyncio.sleep(30)
        return await asyncio.gather(first, wait(deadlines, 1000), wait(deadlines, 10))

    assert (("late", 50), ("late", 50), ("in time", 10)) == tuple(lived(three()))


def test_a_limit_that_is_over_ends_nothing() -> None:
    async def later() -> tuple[str, int]:
        deadlines = Deadlines(20)
        with deadlines.limit():
            await asyncio.sleep(0)
        # The timer of that one comes up in the midst of this.
        await asyncio.sleep(10)
        return await wait(deadlines, 19)

    assert ("in time", 19) == lived(later())


def test_a_cancellation_from_elsewhere_goes_on() -> None:
    async def cancelled() -> None:
        waiting = asyncio.create_task(wait(Deadlines(10), 10))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    lived(cancelled())


def test_another_loop_begins_anew() -> None:
    deadlines = Deadlines(20)

    assert [("late", 20), ("late", 20)] == [lived(wait(deadlines, 50)) for _ in range(2)]


def test_what_has_ended_is_forgotten() -> None:
    async def many() -> int:
        deadlines = Deadlines(60)
        for _ in range(1000):
            with deadlines.limit():
                pass
        return len(deadlines._waiting)

    assert 1 == lived(many())


class Unheard:
    """A wait whose end raises where it should not, or is noted."""

    def __init__(self, ended: list[int], number: int) -> None:
        self.at_s = 0.0
        self.is_over = False
        self._ended = ended
        self._number = number

    def expire(self) -> None:
        if self._number == 0:
            raise RuntimeError("nobody there")
        self._ended.append(self._number)


def test_one_that_raises_at_its_end_keeps_no_other_from_its_own() -> None:
    async def four() -> list[int]:
        loop, deadlines, ended = asyncio.get_running_loop(), Deadlines(10), list[int]()
        for number in range(3):
            deadlines.watch(Unheard(ended, number), loop)
        await asyncio.sleep(5)
        deadlines.watch(Unheard(ended, 3), loop)
        await asyncio.sleep(7)
        assert ended == [1, 2]
        await asyncio.sleep(5)
        return ended

    assert [1, 2, 3] == lived(four())
