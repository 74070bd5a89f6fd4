"""What is watched of a callback on its way into the queue: its time, whether it failed, and a line for some."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import structlog

from oplata.errors import NotConfirmed
from oplata.ingest import watched
from oplata.ingest.watched import WatchedPublisher
from oplata.queue.envelope import Envelope
from tests.unit.test_ingest_callback import BODY, Prompt

pytestmark = pytest.mark.anyio

ENVELOPE = Envelope(body=BODY, message_id="m")


class Failing(Prompt):
    """Begins, and publishes nothing."""

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        raise NotConfirmed


def begun(inner: Prompt, outer: WatchedPublisher, timeout_s: float = 5) -> tuple[list[bool], Callable[[bool], None]]:
    """What is told of a message that was begun, and how to tell it."""
    told: list[bool] = []
    assert outer.begin(ENVELOPE, told.append, timeout_s=timeout_s)
    return told, inner.begun.pop()[1]


async def test_what_is_told_durable_is_measured_and_may_get_its_line() -> None:
    inner = Prompt()
    outer = WatchedPublisher(inner, sample=0.5)
    with structlog.testing.capture_logs() as lines:
        for _ in range(4):
            told, tell = begun(inner, outer)
            tell(True)
            assert told == [True]
    assert (outer.seconds.count, outer.failures, len(lines)) == (4, 0, 2)


async def test_what_was_in_doubt_and_published_then_is_no_failure_and_took_all_that_time() -> None:
    inner = Prompt()
    outer = WatchedPublisher(inner)
    told, tell = begun(inner, outer)
    await asyncio.sleep(0.15)
    tell(False)
    await outer.publish(ENVELOPE, timeout_s=4)
    assert (told, outer.seconds.count, outer.failures) == ([False], 1, 0)
    assert outer.seconds.total >= 0.15
    await outer.publish(ENVELOPE, timeout_s=4)
    assert outer.seconds.total < 0.3


async def test_what_was_in_doubt_and_nobody_took_then_is_one_failure() -> None:
    inner = Failing()
    outer = WatchedPublisher(inner)
    _, tell = begun(inner, outer)
    tell(False)
    with pytest.raises(NotConfirmed):
        await outer.publish(ENVELOPE, timeout_s=4)
    assert (outer.seconds.count, outer.failures) == (0, 1)


async def test_what_is_in_doubt_when_the_time_is_over_is_a_failure() -> None:
    inner = Prompt()
    outer = WatchedPublisher(inner)
    _, tell = begun(inner, outer, 0.05)
    await asyncio.sleep(0.06)
    tell(False)
    assert (outer.seconds.count, outer.failures) == (0, 1)


async def test_a_line_that_cannot_be_written_keeps_nobody_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_envelope: Envelope) -> None:
        raise OSError("no space left on the device")

    monkeypatch.setattr(watched, "_tell", broken)
    inner = Prompt()
    told, tell = begun(inner, WatchedPublisher(inner, sample=1))
    with pytest.raises(OSError, match="no space"):
        tell(True)
    assert told == [True]
