"""The bank's bodies without what signs or pays: no token, no password, card numbers as the bank masks them."""

from __future__ import annotations

import base64
import re

HIDDEN = b"***"

_SECRETS = rb"Token|Password|AccountToken|RebillId|CardId|ExpDate|CardData|CVV|CVC|EncryptedPaymentData"
_JSON_VALUE = rb'("(?:[^"\\]|\\.)*+"?|[^\s",}\]]+)'
_JSON_SECRET = re.compile(rb'("(?:' + _SECRETS + rb')"\s{0,100}:\s{0,100})' + _JSON_VALUE, re.I | re.S)
_FORM_SECRET = re.compile(rb"((?:\A|&)(?:" + _SECRETS + rb")=)[^&]*", re.I)
_DIGITS = re.compile(rb"(?<![\d*])\d(?:[ -]?\d){12,18}(?!\d)")


def masked_body(body: bytes) -> bytes:
    """The body without what signs, and with card numbers as the bank masks them."""
    without_secrets = _FORM_SECRET.sub(rb"\1" + HIDDEN, _JSON_SECRET.sub(rb'\1"' + HIDDEN + rb'"', body))
    return _DIGITS.sub(_masked_card, without_secrets)


def shown_body(body: bytes) -> tuple[str | None, str | None]:
    """The masked body as text, or, for bytes that are none, as base64 in the second place."""
    masked = masked_body(body)
    try:
        return masked.decode("utf-8"), None
    except UnicodeDecodeError:
        return None, base64.b64encode(masked).decode()


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
