"""From deliveries to work: parse, verify again, and tell the genuine from the poison. Pure but for the hashing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec

from oplata.bank import canary
from oplata.bank.keyring import Keyring
from oplata.bank.notification import parse
from oplata.domain.events import Event
from oplata.errors import BadNotification, NotAuthentic
from oplata.queue.envelope import RECEIVED_AT_HEADER, SOURCE_HEADER, Delivery
from oplata.storage.dead_letters import DeadLetter
from oplata.worker.claims import claimed

UNREADABLE = "unreadable"
NOT_AUTHENTIC = "not_authentic"
REJECTED = "rejected_by_database"
EXHAUSTED = "attempts_exhausted"
GIVEN_UP_BY_QUEUE = "given_up_by_queue"
HANDLER_FAILED = "handler_failed"

MAX_DETAIL_LENGTH = 4000


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One genuine callback and the delivery that brought it. ``received_at_ms`` is the endpoint's clock, or ours."""

    delivery: Delivery
    event: Event
    content_type: str
    source: str | None
    received_at_ms: int


class Part(msgspec.Struct, frozen=True):
    """What one transaction is to do: apply some callbacks, bury some messages.

    ``puzzling`` are those that it does not touch: they have to be put off. ``canaries`` are no callbacks at all: each
    is a delivery and when it was sent, to be noted by itself.
    """

    works: Sequence[Work]
    poison: Sequence[tuple[Delivery, DeadLetter]]
    puzzling: Sequence[Delivery] = ()
    canaries: Sequence[tuple[Delivery, int]] = ()

    @property
    def deliveries(self) -> list[Delivery]:
        """All that the transaction settles."""
        return [work.delivery for work in self.works] + [delivery for delivery, _ in self.poison]

    @property
    def size(self) -> int:
        """How many deliveries that are."""
        return len(self.works) + len(self.poison)

    def halves(self) -> tuple[Part, Part]:
        """Two smaller parts; the poison is kept from the works first."""
        if self.works and self.poison:
            return Part(self.works, ()), Part((), self.poison)
        if self.works:
            middle = len(self.works) // 2
            return Part(self.works[:middle], ()), Part(self.works[middle:], ())
        middle = len(self.poison) // 2
        return Part((), self.poison[:middle]), Part((), self.poison[middle:])

    def apart(self, order_id: str | None) -> tuple[Part, Part]:
        """All but the works of this order, and those by themselves; halves where that parts nothing."""
        culprits = [work for work in self.works if order_id is not None and work.event.order_id == order_id]
        rest = [work for work in self.works if order_id is None or work.event.order_id != order_id]
        if not culprits or not (rest or self.poison):
            return self.halves()
        return Part(rest, self.poison), Part(culprits, ())


def joined(parts: Sequence[Part]) -> Part:
    """All that these parts hold, as one."""
    return Part(*(list(chain.from_iterable(getattr(part, name) for part in parts)) for name in Part.__struct_fields__))


def read(deliveries: Iterable[Delivery], keyring: Keyring, now_ms: int, *, patience: int = 0) -> Part:
    """Parse and verify. The endpoint did so too, but the queue may have other writers than our endpoint.

    A message with our endpoint's header was verified there: when its token is not known here, a password may have been
    changed there first. It is put off for ``patience`` attempts before it is poison. The header buys it that time, and
    never an effect.
    """
    works: list[Work] = []
    puzzling: list[Delivery] = []
    canaries: list[tuple[Delivery, int]] = []
    poison: list[tuple[Delivery, DeadLetter]] = []
    for delivery in deliveries:
        try:
            works.append(_work(delivery, keyring, now_ms))
        except BadNotification as error:
            sent_at_ms = canary.sent_at_ms(keyring, delivery.envelope.body)
            if sent_at_ms is not None:
                canaries.append((delivery, sent_at_ms))
                continue
            poison.append((delivery, dead_letter(delivery, UNREADABLE, str(error), now_ms)))
        except NotAuthentic as error:
            if RECEIVED_AT_HEADER in delivery.envelope.headers and delivery.attempt <= patience:
                puzzling.append(delivery)
            else:
                poison.append((delivery, dead_letter(delivery, NOT_AUTHENTIC, str(error), now_ms)))
    return Part(works, poison, puzzling, canaries)


def read_dead(deliveries: Iterable[Delivery], now_ms: int) -> Part:
    """What the queue itself gave up; in the database it can be seen and redriven."""
    return Part(
        (),
        [
            (each, dead_letter(each, GIVEN_UP_BY_QUEUE, each.dead_reason or "the queue gave no reason", now_ms))
            for each in deliveries
        ],
    )


def dead_letter(delivery: Delivery, reason: str, detail: str, now_ms: int, event: Event | None = None) -> DeadLetter:
    """The delivery as a dead letter; the event, where there is one, says whose it was, and else the body claims it."""
    terminal_key, order_id = (event.terminal_key, event.order_id) if event else claimed(delivery.envelope.body)
    return DeadLetter(
        reason=reason,
        # The end of a traceback says the most.
        detail=_printable(detail[-MAX_DETAIL_LENGTH:], MAX_DETAIL_LENGTH),
        body=delivery.envelope.body,
        content_type=_printable(delivery.envelope.content_type),
        headers=dict(delivery.envelope.headers),
        terminal_key=terminal_key,
        order_id=order_id,
        verified=event is not None,
        attempts=delivery.attempt,
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
        content_type=_printable(envelope.content_type),
        source=_printable(source) if isinstance(source, str) else None,
        received_at_ms=_plausible(received_at_ms, now_ms),
    )


def _plausible(received_at_ms: object, now_ms: int) -> int:
    # Headers may come from anybody who can write to the queue; a time outside these years is not one.
    if isinstance(received_at_ms, int) and not isinstance(received_at_ms, bool) and 0 < received_at_ms < 2 * now_ms:
        return received_at_ms
    return now_ms


def _printable(text: str, limit: int = 200) -> str:
    """A text that every database takes, from one that anybody may have written."""
    if len(text) <= limit and text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text[:limit]
    )
