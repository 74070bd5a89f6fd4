"""A sink that is down is asked now and then, and its failures say nothing of what it was to be told."""

from __future__ import annotations

import asyncio
import random

import pytest

from oplata.feed.breaker import Breaker

pytestmark = pytest.mark.anyio


def _breaker(*, silence_s: float = 300.0) -> Breaker:
    return Breaker(rng=random.Random(1), silence_s=silence_s, first_pause_s=0.0)


async def test_a_sink_at_which_several_orders_failed_in_a_row_is_down() -> None:
    breaker = _breaker()
    for order_id in ("1", "2", "2", "3", "4"):
        assert await breaker.enter() is False
        breaker.failed(order_id, probe=False)
    assert not breaker.is_open
    breaker.failed("5", probe=False)
    assert await breaker.enter() is True
    breaker.succeeded()
    assert await breaker.enter() is False


async def test_a_sink_that_took_nothing_for_long_is_down_however_few_orders_there_are() -> None:
    breaker = _breaker(silence_s=0.05)
    assert await breaker.enter() is False
    breaker.failed("1", probe=False)
    assert await breaker.enter() is False
    await asyncio.sleep(0.06)
    breaker.failed("1", probe=False)
    for _ in range(3):
        assert await breaker.enter() is True
        breaker.failed("1", probe=True)
    assert await breaker.enter() is True
    breaker.succeeded()
    # Whoever answered is not down because it did not for long before that.
    assert await breaker.enter() is False
    breaker.failed("1", probe=False)
    assert await breaker.enter() is False
