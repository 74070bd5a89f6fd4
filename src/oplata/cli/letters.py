"""A dead letter as it is shown: nothing that a terminal would obey, no token, and no card number but a masked one."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from oplata.cli.moment import said
from oplata.observability.logging import redact, without_passwords
from oplata.storage.dead_letters import Buried

HIDDEN = b"***"

_SECRETS = rb"Token|Password|AccountToken|RebillId|CardData|CVV|CVC|EncryptedPaymentData"
_JSON_VALUE = rb'("(?:[^"\\]|\\.)*+"?|[^\s",}\]]+)'
_JSON_SECRET = re.compile(rb'("(?:' + _SECRETS + rb')"\s{0,100}:\s{0,100})' + _JSON_VALUE, re.I | re.S)
_FORM_SECRET = re.compile(rb"((?:\A|&)(?:" + _SECRETS + rb")=)[^&]*", re.I)
_DIGITS = re.compile(rb"(?<![\d*])\d(?:[ -]?\d){12,18}(?!\d)")


class LetterLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line of a list. Times are milliseconds since the Unix epoch."""

    id: int
    state: str
    reason: str
    detail: str
    terminal_key: str | None
    order_id: str | None
    verified: bool
    attempts: int
    times_seen: int
    first_seen_at: int
    last_seen_at: int
    settled_at: int | None
    settled_by: str | None
    settled_why: str | None


class LetterPage(LetterLine, frozen=True, kw_only=True, rename="camel"):
    """All of it. ``body`` is its text, or null for bytes that are none, and then ``body_base64`` holds them."""

    content_type: str
    headers: Mapping[str, object]
    body: str | None
    body_base64: str | None


def line(buried: Buried) -> LetterLine:
    """The letter for a list."""
    return LetterLine(**_fields(buried))


def page(buried: Buried) -> LetterPage:
    """The letter with its headers and its body."""
    letter = buried.letter
    masked = masked_body(letter.body)
    try:
        text, encoded = masked.decode("utf-8"), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(masked).decode()
    headers = redact(None, "", dict(letter.headers))
    return LetterPage(
        **_fields(buried), content_type=letter.content_type, headers=headers, body=text, body_base64=encoded
    )


def masked_body(body: bytes) -> bytes:
    """The body without what signs, and with card numbers as the bank masks them."""
    without_secrets = _FORM_SECRET.sub(rb"\1" + HIDDEN, _JSON_SECRET.sub(rb'\1"' + HIDDEN + rb'"', body))
    return _DIGITS.sub(_masked_card, without_secrets)


def as_line(shown: LetterLine) -> str:
    """One line of text."""
    whose = f"order {shown.order_id or '-'}{'' if shown.verified or shown.order_id is None else ' (unverified)'}"
    times = f"{said(shown.last_seen_at)}  x{shown.times_seen}"
    return printable(f"{shown.id:>6}  {shown.state:<9}  {times}  {shown.reason}  {whose}  {_first_line(shown.detail)}")


def as_page(shown: LetterPage) -> str:
    """Many lines of text."""
    claim = "" if shown.verified else "  (claimed by the body, not verified)"
    settled = f"{shown.state} by {shown.settled_by} at {said(shown.settled_at)}: {shown.settled_why}"
    body = shown.body if shown.body is not None else f"(base64) {shown.body_base64}"
    lines = [
        f"dead letter {shown.id}: {shown.state if shown.settled_by is None else settled}",
        f"reason      {shown.reason}",
        f"terminal    {shown.terminal_key or '-'}{claim if shown.terminal_key else ''}",
        f"order       {shown.order_id or '-'}{claim if shown.order_id else ''}",
        f"first seen  {said(shown.first_seen_at)}",
        f"last seen   {said(shown.last_seen_at)}, {shown.times_seen} times, {shown.attempts} attempts",
        f"content     {shown.content_type}",
        *(f"header      {name}: {value}" for name, value in sorted(shown.headers.items())),
        "",
        shown.detail,
        "",
        body,
    ]
    return printable("\n".join(lines))


def printable(text: str) -> str:
    """The text without anything that a terminal takes for an order; anybody may have written it."""
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape", "replace").decode()
        for each in text
    )


def _fields(buried: Buried) -> dict[str, Any]:
    letter = buried.letter
    return {
        "id": buried.id,
        "state": buried.state.value,
        "reason": letter.reason,
        "detail": without_passwords(letter.detail),
        "terminal_key": letter.terminal_key,
        "order_id": letter.order_id,
        "verified": letter.verified,
        "attempts": letter.attempts,
        "times_seen": buried.times_seen,
        "first_seen_at": buried.first_seen_at_ms,
        "last_seen_at": letter.seen_at_ms,
        "settled_at": buried.settled_at_ms,
        "settled_by": buried.settled_by,
        "settled_why": buried.settled_why,
    }


def _masked_card(match: re.Match[bytes]) -> bytes:
    digits = re.sub(rb"[ -]", b"", match[0])
    if not _is_card_number(digits):
        return match[0]
    return digits[:6] + b"*" * (len(digits) - 10) + digits[-4:]


def _is_card_number(digits: bytes) -> bool:
    """Whether the last digit checks the others, as on every card."""
    values = [digit - ord("0") for digit in reversed(digits)]
    doubled = [2 * each - 9 * (each > 4) if place % 2 else each for place, each in enumerate(values)]
    return sum(doubled) % 10 == 0


def _first_line(detail: str) -> str:
    lines = [each for each in detail.splitlines() if each.strip()]
    # The last line of a traceback names the exception.
    text = lines[-1] if lines and lines[0].startswith("Traceback") else next(iter(lines), "")
    return text if len(text) <= 100 else f"{text[:99]}…"
