"""Pages of long lists. A cursor is the place of a page's last row, so what arrives meanwhile moves nothing."""

from __future__ import annotations

import base64
from typing import Any, Generic, TypeVar

import msgspec

from oplata.errors import OrderError

T = TypeVar("T")

MAX_CURSOR_LENGTH = 1000


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True, rename="camel"):
    """Some of a list. ``nextCursor`` asks for those after them, and is null at the end."""

    items: list[T]
    next_cursor: str | None


def cursor_at(*place: int | str) -> str:
    """The place as a text that is good for a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_of(cursor: str, kind: Any) -> Any:
    """The place that ``cursor_at`` wrote, a tuple of this kind. Raises ``OrderError``."""
    try:
        if len(cursor) <= MAX_CURSOR_LENGTH:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=kind)
    except (ValueError, msgspec.MsgspecError):
        pass
    raise OrderError("the cursor is not one that this list gave: begin again without it")
