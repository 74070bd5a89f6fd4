"""What Sentry is told of an error: its kind, its place and its order, and nothing that anybody else has said."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from oplata.errors import QueueUnavailable, SettingsError
from oplata.observability.logging import configure
from oplata.observability.reports import MOST_PER_MINUTE, Reports
from tests.services.recorder import Recorder, recorder
from tests.unit.test_logging import logging_as_it_was

__all__ = ["logging_as_it_was"]


@pytest.fixture
def sentry() -> Iterator[Recorder]:
    with recorder() as recording:
        yield recording


def reports_to(sentry: Recorder) -> Reports:
    dsn = sentry.url.replace("http://", "http://thekey@") + "/7"
    return Reports(dsn, environment="test", release="1.2.3", monotonic_s=lambda: 0.0)


def events(sentry: Recorder) -> list[dict[str, Any]]:
    """The events of the envelopes: after the line of the envelope and that of the item comes the event."""
    return [json.loads(body.split(b"\n")[2]) for body in sentry.bodies("/api/7/envelope")]


def test_a_dead_letter_is_reported_with_its_order_and_reason(sentry: Recorder) -> None:
    reports = reports_to(sentry)
    configure("info", "json", io.StringIO(), reports=reports)
    log = structlog.get_logger("oplata.worker")
    log.error("message buried", action="worker.bury", reason="unreadable", order_id="A-1", body=b"4300000000000777")
    log.warning("cannot ack", action="worker.ack")
    reports.close()
    (event,) = events(sentry)
    assert event["tags"] == {
        "action": "worker.bury",
        "reason": "unreadable",
        "order_id": "A-1",
        "logger": "oplata.worker",
    }
    assert (event["logentry"]["formatted"], event["level"], event["release"], event["environment"]) == (
        "message buried",
        "error",
        "oplata@1.2.3",
        "test",
    )
    assert "0000777" not in json.dumps(event)  # An id of the event may well hold 777.


def test_an_error_is_reported_by_its_kind_and_place_and_never_by_what_it_says(sentry: Recorder) -> None:
    reports = reports_to(sentry)
    configure("info", "json", io.StringIO(), reports=reports)
    card = "4300000000000777"
    try:
        try:
            raise KeyError(card)
        except KeyError:
            raise QueueUnavailable("the broker is away") from None
    except QueueUnavailable:
        structlog.get_logger("oplata.queue").exception("queue.channel_fault", password="hidden")
    reports.close()
    (event,) = events(sentry)
    told = event["exception"]["values"]
    assert [(each["type"], each["value"]) for each in told] == [
        ("KeyError", ""),
        ("QueueUnavailable", "the broker is away"),
    ]
    function = told[-1]["stacktrace"]["frames"][-1]["function"]
    assert function == "test_an_error_is_reported_by_its_kind_and_place_and_never_by_what_it_says"
    assert set(told[-1]["stacktrace"]["frames"][-1]) <= {"filename", "function", "lineno", "in_app"}
    assert event["tags"]["action"] == "queue.channel_fault"
    assert [secret for secret in (card, "hidden") if secret in json.dumps(event)] == []


def test_a_flood_of_errors_is_reported_up_to_a_limit(sentry: Recorder) -> None:
    reports = reports_to(sentry)
    for number in range(MOST_PER_MINUTE + 20):
        reports.report("error", {"event": f"failure {number}"}, None)
    reports.close()
    assert len(events(sentry)) == MOST_PER_MINUTE


def test_a_dsn_that_is_none_is_a_setting_that_is_wrong() -> None:
    with pytest.raises(SettingsError, match="must be a DSN such as"):
        Reports("https://sentry.example/1", environment="test", release="1")
