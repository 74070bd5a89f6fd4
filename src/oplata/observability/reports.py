"""Errors and dead letters, told to Sentry: whatever the log says at the level of an error, after it was redacted.

A report is built here from what may be told, and from nothing else: no body, no variable, no message of an error that
is not ours, no line of source. The SDK gathers nothing by itself.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from oplata.errors import OplataError, SettingsError
from oplata.observability.faults import causes

MOST_PER_MINUTE = 30
"""A thousand dead letters are one matter; the log and the metrics have them all."""

FLUSH_S = 2.0
_LONGEST = 400
_TAGS = ("action", "reason", "order_id", "trace_id", "logger")
_LEVELS = {"error": "error", "critical": "fatal"}


class Reports:
    """Sends reports to the project that ``dsn`` names. Raises ``SettingsError`` when that cannot be."""

    def __init__(
        self, dsn: str, *, environment: str, release: str, monotonic_s: Callable[[], float] = monotonic
    ) -> None:
        try:
            import sentry_sdk  # An extra: whoever reports nothing need not have it.
            from sentry_sdk.utils import BadDsn
        except ImportError:
            raise SettingsError(
                'OPLATA_SENTRY_DSN is set, and sentry-sdk is not installed: pip install "oplata[sentry]".'
            ) from None
        try:
            self._client = sentry_sdk.Client(
                dsn=dsn,
                environment=environment,
                release=f"oplata@{release}",
                default_integrations=False,
                auto_enabling_integrations=False,
                include_local_variables=False,
                include_source_context=False,
                max_breadcrumbs=0,
                auto_session_tracking=False,
                send_client_reports=False,
            )
        except BadDsn:
            raise SettingsError("OPLATA_SENTRY_DSN must be a DSN such as https://key@sentry.example/1.") from None
        self._monotonic_s = monotonic_s
        self._minute = -1
        self._sent = 0

    def report(self, level: str, line: Mapping[str, Any], error: BaseException | None) -> None:
        """Report a redacted line of the log, if it is an error's; ``error`` is what it is about."""
        if level not in _LEVELS or not self._admits():
            return
        self._client.capture_event(_event(_LEVELS[level], line, error))

    def close(self) -> None:
        """Send what is left, within a limit. It blocks, and is for a program that ends."""
        self._client.close(FLUSH_S)

    def _admits(self) -> bool:
        minute = int(self._monotonic_s() // 60)
        if minute != self._minute:
            self._minute, self._sent = minute, 0
        self._sent += 1
        return self._sent <= MOST_PER_MINUTE


def _event(level: str, line: Mapping[str, Any], error: BaseException | None) -> Any:
    said = {name: _short(value) for name, value in line.items() if name not in ("exception", "timestamp", "level")}
    tags = {name: said[name] for name in _TAGS if said.get(name) not in (None, "None")}
    event: dict[str, Any] = {
        "level": level,
        "platform": "python",
        "logger": said.get("logger", "oplata"),
        "logentry": {"formatted": said.get("event", "")},
        "tags": tags,
        "extra": {name: value for name, value in said.items() if name not in (*_TAGS, "event")},
        "fingerprint": [said.get("action", said.get("event", "")), tags.get("reason", "")[:60]],
    }
    if error is not None:
        told = list(causes(error))
        event["exception"] = {"values": [_exception(each) for each in reversed(told)]}
        event["fingerprint"].append(type(error).__qualname__)
    return event


def _exception(error: BaseException) -> dict[str, Any]:
    frames = [
        {"filename": frame.filename, "function": frame.name, "lineno": frame.lineno}
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    described: dict[str, Any] = {
        "type": type(error).__qualname__,
        "module": type(error).__module__,
        "value": str(error)[:_LONGEST] if isinstance(error, OplataError) else "",
    }
    return described | ({"stacktrace": {"frames": frames}} if frames else {})


def _short(value: object) -> str:
    return str(value)[:_LONGEST]
