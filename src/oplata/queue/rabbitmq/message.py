"""Envelopes to AMQP messages and back. Pure, and forgiving to what other programs send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oplata.queue.envelope import ATTEMPT_HEADER, JSON, Delivery, Envelope, HeaderValue
from oplata.queue.rabbitmq.frames import Properties

_PERSISTENT = 2
_LARGEST_ATTEMPT = 2**31
_LONGEST_SHORT_STRING_BYTES = 255

_BROKERS_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
"""Headers that the broker writes. They are not passed on: it keeps an old first death in place of a new one."""


def to_properties(envelope: Envelope, *, now_ms: int, expiration_ms: int | None = None) -> Properties:
    """Return the AMQP properties of a message; its body is ``envelope.body`` as it is.

    Raises ``ValueError`` for a message id that does not fit into AMQP's 255 bytes.
    """
    if len(envelope.message_id.encode()) > _LONGEST_SHORT_STRING_BYTES:
        raise ValueError(f"message_id is longer than {_LONGEST_SHORT_STRING_BYTES} bytes")
    return Properties(
        content_type=envelope.content_type,
        delivery_mode=_PERSISTENT,
        message_id=envelope.message_id or None,
        timestamp=now_ms // 1000,
        headers=dict(envelope.headers) or None,
        expiration=None if expiration_ms is None else str(expiration_ms),
    )


def to_delivery(method: Any, properties: Any, body: bytes, *, generation: int, dead: bool) -> Delivery:
    """Return what a worker gets to see of a message, whoever sent it."""
    raw_headers = properties.headers if isinstance(properties.headers, dict) else {}
    envelope = Envelope(
        body=body,
        message_id=_text(properties.message_id),
        content_type=_text(properties.content_type) or JSON,
        headers=to_headers(raw_headers),
    )
    return Delivery(
        envelope=envelope,
        attempt=to_attempt(raw_headers.get(ATTEMPT_HEADER)),
        redelivered=bool(method.redelivered),
        tag=method.delivery_tag,
        generation=generation,
        dead_reason=to_dead_reason(raw_headers) if dead else "",
    )


def to_headers(raw: Mapping[Any, Any]) -> dict[str, HeaderValue]:
    """Keep texts and whole numbers (truth values as 0 and 1); drop everything else, and what the broker wrote."""
    kept: dict[str, HeaderValue] = {}
    for key, value in raw.items():
        if not isinstance(key, str) or key.startswith(_BROKERS_OWN):
            continue
        if isinstance(value, str):
            kept[key] = value
        elif isinstance(value, int):
            kept[key] = int(value)
    return kept


def to_attempt(value: object) -> int:
    """Return which attempt this is, counted from 1, given how many there were before; nonsense counts as none."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_ATTEMPT:
        return int(value) + 1
    return 1


def to_dead_reason(raw: Mapping[Any, Any]) -> str:
    """Return why the broker gave a message up, such as ``delivery_limit from oplata.callbacks``; empty if it didn't."""
    deaths = raw.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    # Brokers since 3.13 name the latest death. Before that x-death lists it first; the first death may be a retry's.
    reason = _text(raw.get("x-last-death-reason") or latest.get("reason") or raw.get("x-first-death-reason"))
    queue = _text(raw.get("x-last-death-queue") or latest.get("queue") or raw.get("x-first-death-queue"))
    return f"{reason} from {queue}" if reason and queue else reason


def with_attempt(delivery: Delivery) -> Envelope:
    """Return the envelope as it is published for the next attempt."""
    envelope = delivery.envelope
    return Envelope(
        body=envelope.body,
        message_id=envelope.message_id,
        content_type=envelope.content_type,
        headers={**envelope.headers, ATTEMPT_HEADER: delivery.attempt},
    )


def _text(value: object) -> str:
    """pika hands over bytes where a string was not UTF-8. What stands in for those may not outgrow AMQP's 255 bytes."""
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").replace("\N{REPLACEMENT CHARACTER}", "?")
    return value if isinstance(value, str) else ""
