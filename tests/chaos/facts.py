"""What a run must end in, from its seed alone: each fact that the bank tells, and what becomes of each order.

A fact is told apart by an identity of our own, so that the program's is under test and not in use.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from oplata.bank.simulator.traffic import FORM, Callback, Disorder, Happening, Registration, Traffic

TERMINALS = {"ChaosOneDEMO": "open-sesame-1", "ChaosTwoDEMO": "open-sesame-2"}
DISORDER = Disorder(repeat=0.35, forge=0.08, reorder=0.3, register_late=0.15)
WINDOW = 40
UNKNOWN_STATUSES = frozenset({"AWAITING_BONUS"})


class Fact(NamedTuple):
    """One callback's content. ``key`` is the same for every spelling of it, whoever signed it."""

    key: str
    token: str
    fields: dict[str, str]

    @property
    def moves(self) -> tuple[str, str] | None:
        """The payment that it moves, as terminal and id."""
        fields = self.fields
        of_payment = "OrderId" in fields and "PaymentId" in fields and "NotificationType" not in fields
        if not of_payment or fields["Status"] in UNKNOWN_STATUSES | {"RECEIPT"}:
            return None
        return fields["TerminalKey"], fields["PaymentId"]


def fact_of(body: bytes, content_type: str) -> Fact:
    """The fact in a body. Raises ``ValueError`` for what is none."""
    if content_type.startswith(FORM):
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
    else:
        root = json.loads(body, parse_int=str, parse_float=str)
        fields = {name: _text(value) for name, value in root.items() if isinstance(value, str | bool)}
    token = fields.pop("Token")
    return Fact(hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest(), token, fields)


def _text(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()


def happenings(seed: int, callbacks: int) -> Iterator[Happening]:
    """What happens: about this many callbacks, until every order that began has come to its end."""
    traffic = Traffic(random.Random(seed), TERMINALS, window=WINDOW, disorder=DISORDER)
    told = 0
    for happening in traffic:
        yield happening
        told += isinstance(happening, Callback)
        if told == callbacks:
            traffic.finish()


def registered(order_id: str, share: float) -> bool:
    """Whether the shop registers this order; the others are what payments come for and nobody claims."""
    return int.from_bytes(hashlib.sha256(order_id.encode()).digest()[:4], "big") < share * 2**32


class ExpectedOrder(msgspec.Struct, frozen=True):
    """Where an order must end. ``review`` says whether a person has to look at it."""

    amount_kopecks: int | None
    status: str
    review: bool


class Oracle:
    """All that a seed's traffic must end in, once each callback of it has been accepted."""

    def __init__(self, seed: int, callbacks: int, *, share: float = 1.0) -> None:
        self.tokens: dict[str, str] = {}
        self.orders: dict[str, ExpectedOrder] = {}
        self.evidence: dict[tuple[str, str], dict[str, list[int]]] = {}
        for happening in happenings(seed, callbacks):
            if isinstance(happening, Registration):
                order = happening.order
                if registered(order.order_id, share):
                    self.orders[order.order_id] = ExpectedOrder(order.amount_kopecks, order.ends.value, order.review)
            elif happening.genuine:
                self._tell(fact_of(happening.body, happening.content_type))

    def _tell(self, fact: Fact) -> None:
        self.tokens[fact.key] = fact.token
        payment = fact.moves
        if payment is None:
            return
        amount = int(fact.fields["Amount"])
        seen = self.evidence.setdefault(payment, {})
        low, high = seen.get(fact.fields["Status"], (amount, amount))
        seen[fact.fields["Status"]] = [min(low, amount), max(high, amount)]
        self.orders.setdefault(fact.fields["OrderId"], ExpectedOrder(None, "unregistered", False))
