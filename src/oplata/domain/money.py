"""Money is a whole number of kopecks; rubles exist only where a person types or reads them."""

from __future__ import annotations

import re

from oplata.errors import MoneyError

MAX_KOPECKS = 10**15
"""Ten trillion rubles: more than any payment, and far inside what every database and JSON reader holds exactly."""

_WHOLE = "an amount is a whole number of kopecks, such as 19900"
_RUBLES = re.compile(r"(\d{1,15})(?:[.,](\d{1,2}))?", re.ASCII)
_TOO_MUCH = f"an amount is at most {MAX_KOPECKS} kopecks"
_DIGITS = re.compile(r"(\d++)(?:\.0{1,18})?", re.ASCII)
_MOST_DIGITS = 18


def kopecks(value: int | str) -> int:
    """An amount in kopecks from an integer or its decimal digits; ``"100.0"``, as some JSON writers have it, is 100.

    Raises ``MoneyError`` for a negative, fractional, exponential or absurdly large amount.
    """
    if isinstance(value, str):
        amount = _from_text(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        amount = value
    else:
        raise MoneyError("an amount is an integer or its digits; a truth value or a float is not")
    if amount < 0:
        raise MoneyError(_WHOLE)
    if amount > MAX_KOPECKS:
        raise MoneyError(_TOO_MUCH)
    return amount


def _from_text(text: str) -> int:
    digits = _DIGITS.fullmatch(text)
    if digits is None:
        raise MoneyError(_WHOLE)
    if len(digits[1]) > _MOST_DIGITS:
        raise MoneyError(_TOO_MUCH)
    return int(digits[1])


def parse_rubles(text: str) -> int:
    """Kopecks from what a person typed: ``199``, ``199.5``, ``199,50``. Raises ``MoneyError``."""
    match = _RUBLES.fullmatch(text.strip().replace("\N{NO-BREAK SPACE}", "").replace(" ", ""))
    if match is None:
        raise MoneyError("an amount in rubles looks like 199 or 199.50")
    return kopecks(int(match[1]) * 100 + int((match[2] or "0").ljust(2, "0")))


def format_rubles(amount_kopecks: int) -> str:
    """``1234567`` as ``"12 345.67"``, with a no-break space between the thousands."""
    sign = "-" if amount_kopecks < 0 else ""
    rubles, rest = divmod(abs(amount_kopecks), 100)
    return f"{sign}{rubles:,}.{rest:02}".replace(",", "\N{NO-BREAK SPACE}")
