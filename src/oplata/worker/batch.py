"""From deliveries to work: parse, verify again, and tell the genuine from the poison. Pure but for the hashing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from oplata.bank.keyring import Keyring
from oplata.bank.notification import parse
from oplata.domain.events import Event
from oplata.errors import BadNotification, NotAuthentic
from oplata.queue.envelope import RECEIVED_AT_HEADER, SOURCE_HEADER, Delivery
from oplata.storage.dead_letters import DeadLetter

UNREADABLE = "unreadable"
NOT_AUTHENTIC = "not_authentic"
REJECTED = "rejected_by_database"
GIVEN_UP_BY_QUEUE = "given_up_by_queue"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One genuine callback and the delivery that brought it. ``received_at_ms`` is the endpoint's clock, or ours."""

    delivery: Delivery
    event: Event
    source: str | None
    received_at_ms: int


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at the deliveries made of them; every delivery is in exactly one of the two."""

    works: Sequence[Work]
    poison: Sequence[tuple[Delivery, DeadLetter]]


def read(deliveries: Iterable[Delivery], keyring: Keyring, now_ms: int) -> Batch:
    """Parse and verify. The endpoint did so too, but the queue may have other writers than our endpoint."""
    works: list[Work] = []
    poison: list[tuple[Delivery, DeadLetter]] = []
    for delivery in deliveries:
        try:
            works.append(_work(delivery, keyring, now_ms))
        except BadNotification as error:
            poison.append((delivery, dead_letter(delivery, UNREADABLE, str(error), now_ms)))
        except NotAuthentic as error:
            poison.append((delivery, dead_letter(delivery, NOT_AUTHENTIC, str(error), now_ms)))
    return Batch(works=works, poison=poison)


def dead_letter(delivery: Delivery, reason: str, detail: str, now_ms: int, event: Event | None = None) -> DeadLetter:
    """The delivery as a dead letter; the event, where there is one, says whose it was."""
    return DeadLetter(
        reason=reason,
        detail=detail,
        body=delivery.envelope.body,
        content_type=_printable(delivery.envelope.content_type),
        headers=dict(delivery.envelope.headers),
        terminal_key=event.terminal_key if event else None,
        order_id=event.order_id if event else None,
        seen_at_ms=now_ms,
    )


def _work(delivery: Delivery, keyring: Keyring, now_ms: int) -> Work:
    envelope = delivery.envelope
    notification = parse(envelope.body, envelope.content_type)
    keyring.verify(notification)
    received_at_ms = envelope.headers.get(RECEIVED_AT_HEADER)
    source = envelope.headers.get(SOURCE_HEADER)
    return Work(
        delivery=delivery,
        event=notification.event(),
        source=source if isinstance(source, str) else None,
        received_at_ms=_plausible(received_at_ms, now_ms),
    )


def _plausible(received_at_ms: object, now_ms: int) -> int:
    # Headers may come from anybody who can write to the queue; a time outside these years is not one.
    if isinstance(received_at_ms, int) and 0 < received_at_ms < 2 * now_ms:
        return received_at_ms
    return now_ms


def _printable(text: str) -> str:
    """A text that every database takes, from one that anybody may have written."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:200])
