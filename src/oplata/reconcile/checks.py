"""The comparisons, each of them pure: two things that have to agree go in, sentences about what does not come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from oplata.bank.notification import parse
from oplata.domain.events import Event
from oplata.domain.order import judge
from oplata.domain.payment import Evidence, Payment, PaymentKey
from oplata.domain.status import OrderStatus
from oplata.errors import BadNotification
from oplata.storage.archive import ArchivedCallback
from oplata.storage.changes import Change
from oplata.storage.dead_letters import Buried
from oplata.storage.orders import OrderRow
from oplata.storage.projection import Stored, projected
from oplata.storage.rollups import Tally
from oplata.storage.words import Word, status_of

_EVENT_FIELDS = ("kind", "terminal_key", "order_id", "payment_id", "status", "success", "amount_kopecks", "details")
_ROW_FIELDS = ("order_id", "status", "amount_kopecks", "review")
_SHOWN_VERSIONS = 5


def callback_and_event(callback: ArchivedCallback, recorded: Event | None) -> Iterator[str]:
    """The archived bytes are the fact they are kept under, and that fact is recorded as they tell it."""
    name = f"callback {callback.digest}"
    if callback.pruned_at_ms is not None:
        yield from _pruned_and_event(name, callback, recorded)
        return
    try:
        event = parse(callback.body, callback.content_type).event()
    except BadNotification as error:
        yield f"{name} is damaged: {error}"
        return
    if event.digest != callback.digest:
        yield f"{name} is damaged: its body is the fact {event.digest}"
    elif recorded is None:
        yield f"{name} has no event: payment {event.payment_id}, order {event.order_id}, {event.status}"
    else:
        for field in _EVENT_FIELDS:
            stands, ought = getattr(recorded, field), getattr(event, field)
            if stands != ought:
                yield f"event {event.digest} is damaged: {_different(field, stands, ought)}"


def _pruned_and_event(name: str, callback: ArchivedCallback, recorded: Event | None) -> Iterator[str]:
    """A policy took the bytes, which is no gap as long as what they said is recorded."""
    if callback.body:
        yield f"{name} is damaged: it says that it was pruned, and it has a body"
    if recorded is None:
        yield f"{name} was pruned and has no event: nothing here tells of it any more"


def payment_and_events(key: PaymentKey, stored: Stored, evidence: Evidence) -> Iterator[str]:
    """A payment's row is the fold of its events."""
    name, ought = f"payment {key[1]} of terminal {key[0]}", projected(evidence)
    if stored.evidence is None:
        yield f"{name} has evidence that cannot be read"
    elif stored.evidence != ought.evidence:
        yield f"{name} has other evidence than its events: {_evidence(stored.evidence)}, not {_evidence(evidence)}"
    for field in _ROW_FIELDS:
        stands, right = getattr(stored, field), getattr(ought, field)
        if stands != right:
            yield f"{name} is not what its events make it: {_different(field, stands, right)}"


def order_and_payments(
    order: OrderRow, payments: Mapping[PaymentKey, Payment], word: Word | None = None
) -> Iterator[str]:
    """An order's stored status and review are the verdict over its payments and over what was said of it."""
    verdict = judge(order.amount_kopecks, payments, status_of(word))
    if word is not None and status_of(word) is None:
        yield f"order {order.order_id} was said to be {_said(word.status)}, which is no status"
    if order.status != verdict.status.value:
        said = "" if word is None else f", with the word of {word.said_by} that it is {word.status},"
        yield f"order {order.order_id} is stored as {order.status}; its payments{said} make it {verdict.status.value}"
    if order.review != verdict.review:
        yield f"order {order.order_id} is not what its payments make it: " + _different(
            "review", order.review, verdict.review
        )


def paid_by_word(order: OrderRow, payments: Mapping[PaymentKey, Payment], word: Word | None) -> bool:
    """Whether an order is paid because somebody with a key said so, and its payments alone would not make it that."""
    if order.status != OrderStatus.PAID.value or status_of(word) is not OrderStatus.PAID:
        return False
    return judge(order.amount_kopecks, payments).status is not OrderStatus.PAID


def order_and_money(order: OrderRow, payments: Mapping[PaymentKey, Payment], word: Word | None = None) -> Iterator[str]:
    """An order that is paid has been paid in full by confirmed payments, or somebody with a key said so."""
    held = sum(captured(payment) for payment in payments.values())
    if paid_by_word(order, payments, word):
        return
    if order.status == OrderStatus.PAID.value and held < (order.amount_kopecks or 0):
        yield (
            f"order {order.order_id} is paid with {order.amount_kopecks} kopecks, and the bank confirmed {held} kopecks"
        )


def order_and_log(order: OrderRow, told: Sequence[tuple[int, Change]]) -> Iterator[str]:
    """The changes of an order are numbered 1, 2, 3… in the order of their ids, chain, and end in what the order is."""
    name = f"order {order.order_id}"
    versions = [change.version for _, change in told]
    absent = sorted(set(range(1, max([order.version, *versions], default=0) + 1)) - set(versions))
    if absent:
        listed = ", ".join(map(str, absent[:_SHOWN_VERSIONS]))
        more = f" and {len(absent) - _SHOWN_VERSIONS} more" if len(absent) > _SHOWN_VERSIONS else ""
        yield f"{name} has no change {listed}{more} in the log"
    if versions and versions[-1] > order.version:
        yield f"{name} is at version {order.version}, and the log at {versions[-1]}"
    for (earlier, before), (later, after) in pairwise(told):
        if earlier > later:
            yield f"{name} has change {after.version} before change {before.version} in the log"
        if after.version == before.version + 1 and after.previous_status != before.status:
            yield (
                f"{name}: change {after.version} goes from {after.previous_status}, "
                f"and change {before.version} ended in {before.status}"
            )
    yield from _last_change(order, told[-1][1] if told else None)


def _last_change(order: OrderRow, last: Change | None) -> Iterator[str]:
    if last is None:
        if order.version == 0 and order.status != OrderStatus.UNREGISTERED.value:
            yield f"order {order.order_id} is {order.status}, and nothing was ever told of it"
        return
    for field in ("status", "review", "amount_kopecks"):
        stands, told = getattr(order, field), getattr(last, field)
        if stands != told:
            yield f"order {order.order_id} is not what its last change told: {_different(field, stands, told)}"


def letter(buried: Buried) -> Iterator[str]:
    """A dead letter's bytes are those it was counted by, and what was settled was settled by somebody."""
    if buried.letter.fingerprint != buried.fingerprint:
        yield f"dead letter {buried.id} is damaged: its reason or its body is not the one it came with"
    if buried.state.value != "open" and not (buried.settled_by and buried.settled_why and buried.settled_at_ms):
        yield f"dead letter {buried.id} is {buried.state.value}, and nobody says who did it, when or why"


def rollup(told: Mapping[str, Tally], counted: Mapping[str, Tally]) -> Iterator[str]:
    """What is counted from change to change is what there is."""
    nothing = Tally(0, 0)
    for name in sorted(told.keys() | counted.keys()):
        kept, real = told.get(name, nothing), counted.get(name, nothing)
        if kept != real:
            yield (
                f"the rollup has {kept.orders} orders in {name} with {kept.kopecks} kopecks, and there are "
                f"{real.orders} with {real.kopecks} kopecks"
            )


def captured(payment: Payment) -> int:
    """The kopecks that the bank confirmed in this payment, whatever became of them later."""
    return payment.captured_kopecks or 0


def _different(field: str, stands: object, ought: object) -> str:
    return f"{field.removesuffix('_kopecks')} is {_said(stands)}, not {_said(ought)}"


def _said(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _evidence(evidence: Evidence) -> str:
    seen = [f"{status} {amounts.low}..{amounts.high}" for status, amounts in evidence.seen.items()]
    failed = [f"failed {status} {amounts.low}..{amounts.high}" for status, amounts in evidence.failed.items()]
    return _said(", ".join([*seen, *failed, *(f"order {order_id}" for order_id in evidence.orders)]) or None)
