"""What a body says of itself when nobody has verified it: good to search dead letters by, and for nothing else."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote_plus

_LOOKED_AT_BYTES = 64 * 1024
_LONGEST = 128


def claimed(body: bytes) -> tuple[str | None, str | None]:
    """The terminal and the order that any bytes claim, or None where they claim none that can be shown."""
    # Patterns, not a parser: what lies among the dead letters may be cut off, nested a thousand deep or no JSON at all.
    text = body[:_LOOKED_AT_BYTES].decode("utf-8", "replace")
    return _field(text, "TerminalKey"), _field(text, "OrderId")


def _field(text: str, name: str) -> str | None:
    in_json = re.search(rf'"{name}"\s{{0,100}}:\s{{0,100}}("(?:[^"\\]|\\.){{1,{_LONGEST}}}"|\d{{1,{_LONGEST}}})', text)
    if in_json is not None:
        return _shown(_unquoted(in_json[1]))
    in_form = re.search(rf"(?:\A|&){name}=([^&]{{1,{3 * _LONGEST}}})", text)
    return None if in_form is None else _shown(unquote_plus(in_form[1]))


def _unquoted(literal: str) -> str:
    if not literal.startswith('"'):
        return literal
    try:
        return str(json.loads(literal))
    except ValueError:
        return ""


def _shown(text: str) -> str | None:
    return text if 0 < len(text) <= _LONGEST and text.isprintable() else None
