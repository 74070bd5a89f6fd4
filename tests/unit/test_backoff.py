"""The delay before a repetition: bounded, growing, and spread out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oplata.queue.backoff import delay_s

DURATIONS_S = st.floats(min_value=0, max_value=1e6)


class _Highest(random.Random):
    """Always draws the upper end, so that the ceiling itself can be seen."""

    def uniform(self, a: float, b: float) -> float:
        return b


@given(attempt=st.integers(-10, 10**9), seed=st.integers(), base_s=DURATIONS_S, cap_s=DURATIONS_S)
def test_a_delay_is_never_negative_and_never_above_the_cap(
    attempt: int, seed: int, base_s: float, cap_s: float
) -> None:
    assert 0 <= delay_s(attempt, random.Random(seed), base_s, cap_s) <= cap_s


def test_the_ceiling_doubles_with_each_attempt_until_the_cap() -> None:
    ceilings_s = [delay_s(attempt, _Highest(), 0.5, 5.0) for attempt in range(1, 7)]

    assert ceilings_s == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_an_attempt_below_one_waits_like_the_first() -> None:
    assert [delay_s(attempt, _Highest(), 0.5, 5.0) for attempt in (-3, 0, 1)] == [0.5, 0.5, 0.5]


def test_delays_are_spread_over_the_whole_range_rather_than_close_to_the_ceiling() -> None:
    rng = random.Random(1)
    delays_s = sorted(delay_s(1, rng, 1.0, 10.0) for _ in range(1000))

    assert delays_s[100] < 0.2
    assert 0.4 < delays_s[500] < 0.6
    assert delays_s[900] > 0.8


def test_the_same_seed_gives_the_same_delays() -> None:
    first, second = random.Random(7), random.Random(7)

    assert [delay_s(n, first, 0.1, 9.0) for n in range(20)] == [delay_s(n, second, 0.1, 9.0) for n in range(20)]


@pytest.mark.parametrize(("base_s", "cap_s"), [(-1.0, 1.0), (1.0, -1.0)])
def test_a_negative_duration_is_refused(base_s: float, cap_s: float) -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        delay_s(1, random.Random(0), base_s, cap_s)
