"""A dead letter as text: nothing in it that a terminal would obey."""

from __future__ import annotations

from oplata.cli.moment import said
from oplata.orders.letters import LetterLine, LetterPage

_HARMLESS = "\n\t\N{NO-BREAK SPACE}"
"""What a terminal may be given although it is not printable in Python's sense: the last stands in amounts."""


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
        each if each.isprintable() or each in _HARMLESS else each.encode("unicode_escape", "replace").decode()
        for each in text
    )


def _first_line(detail: str) -> str:
    lines = [each for each in detail.splitlines() if each.strip()]
    # The last line of a traceback names the exception.
    text = lines[-1] if lines and lines[0].startswith("Traceback") else next(iter(lines), "")
    return text if len(text) <= 100 else f"{text[:99]}…"
