"""One frozen value per fact that the bank told us; its identity is a digest of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum

import msgspec


class EventKind(StrEnum):
    """What a notification is about."""

    PAYMENT = "payment"
    RECEIPT = "receipt"
    CARD_LINK = "card_link"
    ACCOUNT_LINK = "account_link"
    OTHER = "other"  # Signed by the bank, and of a kind that we do not know: kept, and without effect.


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A fact. The bank sends no event id and no time, so two notifications of equal content are one fact.

    ``status`` is the bank's word, empty where there was none. ``amount_kopecks`` is the transaction's amount at the
    time of the event: after a partial refund, what is left. ``details`` holds every other scalar field that arrived,
    as text, but for the token.
    """

    digest: str
    kind: EventKind
    terminal_key: str
    order_id: str | None = None
    payment_id: str | None = None
    status: str = ""
    success: bool | None = None
    amount_kopecks: int | None = None
    details: Mapping[str, str] = {}


def digest_of(fields: Mapping[str, str]) -> str:
    """The identity of a fact: SHA-256, in lower-case hex, over its signed fields in the order of their names.

    Each part is preceded by its length, so that no two different sets of fields share one input. The token is left
    out: it changes with the password, and the fact does not.
    """
    told = [(name, fields[name]) for name in sorted(fields)]
    joined = "".join([f"{len(name)}:{name}{len(text)}:{text}" for name, text in told])
    if joined.isascii():
        # Each character is one byte, so the lengths above are right already.
        return hashlib.sha256(joined.encode()).hexdigest()
    parts: list[bytes] = []
    for pair in told:
        for text in pair:
            encoded = text.encode()
            parts.append(b"%d:" % len(encoded))
            parts.append(encoded)
    return hashlib.sha256(b"".join(parts)).hexdigest()
