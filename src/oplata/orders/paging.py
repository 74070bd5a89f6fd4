"""Pages of long lists. A cursor is the place of a page's last row, so what arrives meanwhile moves nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from oplata.errors import OrderError

T = TypeVar("T")

MAX_LISTED = 1000
MAX_CURSOR_LENGTH = 1000


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True, rename="camel"):
    """Some of a list. ``nextCursor`` asks for those after them, and is null at the end.

    A page for which many rows had to be looked through may hold fewer than were asked for, or none, and have others
    behind it.
    """

    items: list[T]
    next_cursor: str | None


def within(limit: int) -> int:
    """As many as were asked for, and no more than one page holds."""
    return min(max(limit, 1), MAX_LISTED)


def page_of(items: list[T], behind: Sequence[int | str] | None) -> Page[T]:
    """A page of these, with others ``behind`` that place."""
    return Page(items=items, next_cursor=None if behind is None else _cursor_at(behind))


def place_of(cursor: str | None, kind: Any) -> Any:
    """The place at which the page before ended, a tuple of this kind; None for no cursor. Raises ``OrderError``."""
    if cursor is None:
        return None
    try:
        if len(cursor) <= MAX_CURSOR_LENGTH:
            padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
            return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=kind)
    except (ValueError, msgspec.MsgspecError):
        pass
    raise OrderError("the cursor is not one that this list gave: begin again without it")


def _cursor_at(place: Sequence[int | str]) -> str:
    """The place as a text that is good for a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(tuple(place))).decode().rstrip("=")
