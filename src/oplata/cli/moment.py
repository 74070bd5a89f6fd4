"""A moment as a person types it."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import click

_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_AGO = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)


class Moment(click.ParamType[int]):
    """Milliseconds since the Unix epoch, from ISO 8601 (UTC where it names no zone) or from an age such as 2h."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        ago = _AGO.fullmatch(str(value).strip())
        if ago is not None:
            return time.time_ns() // 1_000_000 - int(ago[1]) * _UNIT_MS[ago[2]]
        try:
            moment = datetime.fromisoformat(str(value).strip())
        except ValueError:
            examples = "2026-03-01, 2026-03-01T12:30:00+03:00, 90m, 2h or 3d"
            self.fail(f"{value!r} is no moment such as {examples}", param, ctx)
        zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return round(zoned.timestamp() * 1000)


def said(at_ms: int | None) -> str:
    """The moment in UTC, to the second."""
    if at_ms is None:
        return "-"
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"  # A clock that was far off has written it.
