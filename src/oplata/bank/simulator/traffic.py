"""A seeded stream of what a shop and its bank do: orders are registered, callbacks come, and not in good order.

Callbacks of several orders are interleaved; those of one order may be reordered and repeated, may come before the
shop registers it, and have forgeries among them. One seed makes one stream.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import msgspec

from oplata.bank.simulator import payload
from oplata.bank.simulator.payload import Payload
from oplata.bank.simulator.stories import STORIES, Step, Story
from oplata.bank.token import TOKEN
from oplata.domain.status import OrderStatus

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

_FIRST_PAYMENT_ID = 3_269_844_626
_MAX_ATTEMPTS = 10


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order, and where it must end once everything of it has happened."""

    order_id: str
    amount_kopecks: int
    story: str
    ends: OrderStatus
    review: bool


class Registration(msgspec.Struct, frozen=True):
    """The shop registers an order."""

    order: Order


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """The bank, or a forger, posts a body.

    ``genuine`` says whether the endpoint must accept it; ``confirms`` is the order that it confirms, if it does.
    """

    what: str
    body: bytes
    content_type: str = JSON
    genuine: bool = True
    confirms: str | None = None


Happening = Registration | Callback


class Disorder(msgspec.Struct, frozen=True, kw_only=True):
    """How often, from 0 to 1: per callback ``repeat`` and ``forge``; per order ``reorder`` and ``register_late``."""

    repeat: float = 0.2
    forge: float = 0.08
    reorder: float = 0.3
    register_late: float = 0.15


class Traffic:
    """Iterate over it for what happens next. ``orders`` is how many there will be; None is without end."""

    def __init__(
        self,
        rng: random.Random,
        passwords: Mapping[str, str],
        *,
        orders: int | None = None,
        window: int = 12,
        disorder: Disorder | None = None,
    ) -> None:
        self.orders: list[Order] = []
        self._rng = rng
        self._passwords = dict(passwords)
        self._terminals = sorted(passwords)
        self._remaining = orders
        self._window = window
        self._disorder = disorder or Disorder()
        self._under_way: list[list[Happening]] = []

    def __iter__(self) -> Iterator[Happening]:
        while True:
            while len(self._under_way) < self._window and self._remaining != 0:
                self._under_way.append(self._begin())
            if not self._under_way:
                return
            chosen = self._rng.randrange(len(self._under_way))
            yield self._under_way[chosen].pop(0)
            if not self._under_way[chosen]:
                self._under_way.pop(chosen)

    def finish(self) -> None:
        """Begin no more orders; what has begun is still told to its end."""
        self._remaining = 0

    def _begin(self) -> list[Happening]:
        if self._remaining is not None:
            self._remaining -= 1
        story = self._rng.choices(STORIES, [story.weight for story in STORIES])[0]
        order = Order(
            order_id=f"order-{len(self.orders) + 1:04}",
            amount_kopecks=self._rng.randrange(100, 50_000) * 100,
            story=story.name,
            ends=story.ends,
            review=story.review,
        )
        terminal_key = self._rng.choice(self._terminals)
        callbacks = _Teller(self._rng, terminal_key, self._passwords[terminal_key]).callbacks(
            order, story, _FIRST_PAYMENT_ID + len(self.orders) * _MAX_ATTEMPTS
        )
        self.orders.append(order)
        return self._disordered(order, callbacks)

    def _disordered(self, order: Order, callbacks: list[Callback]) -> list[Happening]:
        rng, disorder = self._rng, self._disorder
        told: list[Happening] = list(callbacks)
        if rng.random() < disorder.reorder:
            rng.shuffle(told)
        for callback in callbacks:
            if rng.random() < disorder.repeat:
                told.insert(rng.randint(told.index(callback) + 1, len(told)), _again(rng, callback))
            if rng.random() < disorder.forge:
                told.insert(rng.randint(0, len(told)), _forged(rng, callback))
        late = rng.random() < disorder.register_late
        told.insert(rng.randint(1, len(told)) if late and told else 0, Registration(order))
        return told


class _Teller:
    """Turns a story into the signed callbacks of one order."""

    def __init__(self, rng: random.Random, terminal_key: str, password: str) -> None:
        self._rng = rng
        self._terminal_key = terminal_key
        self._password = password

    def callbacks(self, order: Order, story: Story, first_payment_id: int) -> list[Callback]:
        told = [self._step(order, story, step, first_payment_id + step.attempt - 1) for step in story.steps]
        if story.receipt:
            fields = payload.receipt(self._terminal_key, order.order_id, first_payment_id, order.amount_kopecks)
            told.append(self._callback("receipt", fields))
        if story.link == "card":
            customer = f"customer-{order.order_id}"
            told.append(self._callback("LINKCARD", payload.card_link(self._terminal_key, first_payment_id, customer)))
        if story.link == "account":
            fields = payload.account_link(self._terminal_key, f"customer-{order.order_id}")
            told.append(self._callback("LINKACCOUNT", fields))
        return told

    def _step(self, order: Order, story: Story, step: Step, payment_id: int) -> Callback:
        amount_kopecks = order.amount_kopecks * step.percent // 100
        fields = payload.payment(
            self._terminal_key, order.order_id, payment_id, step.status, amount_kopecks, success=step.success
        )
        fields |= self._method_fields(story, payment_id)
        what = f"{step.status} of {order.order_id}"
        pays = step.status == "CONFIRMED" and story.ends is OrderStatus.PAID
        confirms = order.order_id if pays else None
        if story.method == "form":
            body = payload.as_form(payload.signed(payload.all_strings(fields), self._password))
            return Callback(what=what, body=body, content_type=FORM, confirms=confirms)
        if story.method == "old":
            fields = payload.all_strings(fields)
        return self._callback(what, fields, confirms)

    def _callback(self, what: str, fields: Payload, confirms: str | None = None) -> Callback:
        return Callback(what=what, body=payload.as_json(payload.signed(fields, self._password)), confirms=confirms)

    def _method_fields(self, story: Story, payment_id: int) -> Payload:
        match story.method:
            case "sbp":
                return {"Pan": "+7 (916) ***-**-21"}
            case "tpay":
                return {
                    "CardId": payment_id % 10**9,
                    "Pan": "T-Pay_account",
                    "SpAccumulationId": str(payment_id % 10**8),
                }
            case _:
                card: Payload = {"CardId": payment_id % 10**9, "Pan": "430000******0777", "ExpDate": "1230"}
                # RebillId and DATA wander between types in what the bank really sends.
                rebill: list[Payload] = [{}, {"RebillId": payment_id * 7}, {"RebillId": ""}, {"RebillId": 0}]
                data: list[Payload] = [
                    {},
                    {"DATA": None},
                    {"Data": {"Route": "TCB"}},
                    {"DATA": '{"Phone":"+70000000000"}'},
                ]
                return {**card, **self._rng.choice(rebill), **self._rng.choice(data)}


def _again(rng: random.Random, callback: Callback) -> Callback:
    """The same fact once more, now and then in other bytes."""
    if callback.content_type == JSON and rng.random() < 0.3:
        respelled = dict(sorted(msgspec.json.decode(callback.body, type=dict[str, object]).items(), reverse=True))
        return msgspec.structs.replace(
            callback, body=payload.as_json(respelled, indent=1), what=f"{callback.what} again"
        )
    return msgspec.structs.replace(callback, what=f"{callback.what} again")


def _forged(rng: random.Random, callback: Callback) -> Callback:
    """A body that must be refused: a wrong token, a changed amount, a strange terminal, or no notification at all."""
    if callback.content_type != JSON or rng.random() < 0.15:
        return Callback(
            what="a body that is no notification", body=callback.body[: len(callback.body) // 2], genuine=False
        )
    fields = msgspec.json.decode(callback.body, type=dict[str, object])
    forgeries: list[tuple[str, Payload]] = [
        ("a wrong token", {TOKEN: f"{rng.getrandbits(256):064x}"}),
        ("a changed amount", {"Amount": 100}),
        ("a strange terminal", {"TerminalKey": "SomebodyElse"}),
    ]
    what, change = rng.choice(forgeries)
    return Callback(what=what, body=payload.as_json(fields | change), genuine=False)
