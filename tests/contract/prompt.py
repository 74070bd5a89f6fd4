"""What the tests of both queues' prompt publishers share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

WAIT_S = 10.0


class Told:
    """What was told of the messages, in the order in which it was."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[int, bool]] = []

    def of(self, number: int) -> Callable[[bool], None]:
        return lambda is_durable: self.outcomes.append((number, is_durable))

    async def until(self, count: int) -> list[tuple[int, bool]]:
        async with asyncio.timeout(WAIT_S):
            while len(self.outcomes) < count:  # noqa: ASYNC110  It is told from the queue.
                await asyncio.sleep(0.01)
        return self.outcomes
