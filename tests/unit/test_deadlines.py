"""Many waits, one timer: each ends at its own time, and nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from oplata.queue.deadlines import Deadlines

pytestmark = pytest.mark.anyio


async def wait(deadlines: Deadlines, wait_s: float) -> str:
    try:
        with deadlines.limit():
            await asyncio.sleep(wait_s)
    except TimeoutError:
        return "late"
    return "in time"


async def test_each_wait_has_its_own_end() -> None:
    deadlines, loop = Deadlines(0.05), asyncio.get_running_loop()
    began_s = loop.time()
    first = asyncio.create_task(wait(deadlines, 10))
    await asyncio.sleep(0.03)
    second, third = asyncio.create_task(wait(deadlines, 10)), asyncio.create_task(wait(deadlines, 0.01))

    assert ("late", "in time") == (await first, await third)
    assert loop.time() - began_s < 0.075
    assert "late" == await second
    assert loop.time() - began_s > 0.07


async def test_a_limit_that_is_over_ends_nothing() -> None:
    deadlines = Deadlines(0.02)
    with deadlines.limit():
        await asyncio.sleep(0)

    await asyncio.sleep(0.05)

    assert "in time" == await wait(deadlines, 0)


async def test_a_cancellation_from_elsewhere_goes_on() -> None:
    waiting = asyncio.create_task(wait(Deadlines(10), 10))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_another_loop_begins_anew() -> None:
    deadlines = Deadlines(0.02)

    assert ["late", "late"] == [asyncio.run(wait(deadlines, 5)) for _ in range(2)]


async def test_what_has_ended_is_forgotten() -> None:
    deadlines = Deadlines(60)
    for _ in range(1000):
        with deadlines.limit():
            pass

    assert len(deadlines._waiting) == 1
