"""When a delivery that failed is tried again, and when it is given up. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from oplata.errors import DeliveryFailed, DeliveryRefused
from oplata.observability.faults import describe
from oplata.storage.deliveries import Due, Settled, State

DEFAULT_RETRY_DELAYS_MS = (1_000, 5_000, 30_000, 120_000, 600_000, 3_600_000)
MAX_ATTEMPTS = 30
"""With the default delays, a day."""

MAX_ERROR_LENGTH = 500
LONGEST_WISH_MS = 3_600_000
"""A receiver may ask for time with Retry-After, but not for more than this."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """The delays after each failure, of which the last serves all further ones, and how many failures are the end."""

    delays_ms: Sequence[int] = DEFAULT_RETRY_DELAYS_MS
    max_attempts: int = MAX_ATTEMPTS

    @property
    def longest_ms(self) -> int:
        """The most by which a delivery is ever put off."""
        return max(LONGEST_WISH_MS, *self.delays_ms)


def told(due: Due, now_ms: int, *, state: State = State.TOLD) -> Settled:
    """A delivery that came to its end well."""
    return _settled(due, state, due.attempts, now_ms, now_ms, None)


def missed(
    due: Due, error: BaseException, now_ms: int, schedule: Schedule, *, probe: bool, rng: random.Random
) -> Settled:
    """A delivery that failed: dead when it is refused or has failed too often, else due again later.

    A probe says something of the sink and nothing of the delivery, so it costs no attempt: a sink that is down for a
    week makes no dead letters.
    """
    text = describe(error)[:MAX_ERROR_LENGTH]
    if isinstance(error, DeliveryRefused):
        return _settled(due, State.DEAD, due.attempts + 1, now_ms, now_ms, text)
    attempts = due.attempts if probe else due.attempts + 1
    if attempts >= schedule.max_attempts:
        return _settled(due, State.DEAD, attempts, now_ms, now_ms, text)
    delay_ms = schedule.delays_ms[min(max(attempts, 1), len(schedule.delays_ms)) - 1]
    delay_ms = round(delay_ms * (0.5 + rng.random() / 2))
    if isinstance(error, DeliveryFailed) and error.retry_after_s is not None:
        delay_ms = max(delay_ms, min(round(error.retry_after_s * 1000), LONGEST_WISH_MS))
    return _settled(due, State.WAITING, attempts, now_ms + delay_ms, None, text)


def _settled(due: Due, state: State, attempts: int, due_at_ms: int, at_ms: int | None, error: str | None) -> Settled:
    return Settled(
        change_id=due.change_id,
        round=due.round,
        state=state,
        attempts=attempts,
        due_at_ms=due_at_ms,
        settled_at_ms=at_ms,
        last_error=error,
    )
