"""What must come of it, worked out a second time: reading, signature, fold and verdict, with no code of the program.

It is meant to be dull: it looks at all facts of an order at once, and says in a few ifs what the order has to be.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl

FORM = "application/x-www-form-urlencoded"

_CLIMB = [
    "NEW",
    "FORM_SHOWED",
    "PREAUTHORIZING",
    "AUTHORIZING",
    "3DS_CHECKING",
    "3DS_CHECKED",
    "PAY_CHECKING",
    "ATTEMPTS_EXPIRED",
    "AUTH_FAIL",
    "REJECTED",
    "DEADLINE_EXPIRED",
    "CANCELED",
    "AUTHORIZED",
    "PARTIAL_REVERSED",
    "CANCEL_CHECKING",
    "REVERSING",
    "REVERSED",
    "CONFIRMED",
    "REFUNDING",
    "ASYNC_REFUNDING",
    "PARTIAL_REFUNDED",
    "REFUNDED",
]
_OURS = {"CONFIRMED", "REFUNDING", "ASYNC_REFUNDING", "PARTIAL_REFUNDED", "REFUNDED"}
_HELD = {"AUTHORIZED", "PARTIAL_REVERSED", "CONFIRMING", "CONFIRM_CHECKING", "REVERSING", "CANCEL_CHECKING"}
_MOVED = _OURS | {"AUTHORIZED", "PARTIAL_REVERSED", "REVERSED"}
_BEST_FIRST = ("paid", "partially_refunded", "authorized", "refunded", "pending", "canceled", "failed")


class Fact(NamedTuple):
    """One payment notification."""

    terminal: str
    payment: str
    order: str
    status: str
    amount: int | None
    success: bool | None


class Ending(NamedTuple):
    """What an order is, and whether a person has to look at it."""

    status: str
    review: bool


def signed_texts(body: bytes, content_type: str) -> dict[str, str]:
    """The root scalars of a body as text, the token among them. Raises ``ValueError`` for what is no notification."""
    if content_type == FORM:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))
    root = json.loads(body, parse_int=str, parse_float=str)
    if not isinstance(root, dict):
        raise ValueError("not an object")
    return {
        name: ("true" if value else "false") if isinstance(value, bool) else value
        for name, value in root.items()
        if isinstance(value, str | bool)
    }


def is_genuine(body: bytes, content_type: str, passwords: dict[str, str]) -> bool:
    """Whether one of our terminals signed it."""
    try:
        texts = signed_texts(body, content_type)
    except ValueError:
        return False
    password = passwords.get(texts.get("TerminalKey", ""))
    if password is None:
        return False
    token = texts.pop("Token", "")
    texts["Password"] = password
    joined = "".join(value for _, value in sorted(texts.items()))
    return hashlib.sha256(joined.encode()).hexdigest() == token


def identity(body: bytes, content_type: str) -> str:
    """Equal for two bodies that tell the same."""
    texts = signed_texts(body, content_type)
    texts.pop("Token", None)
    return json.dumps(sorted(texts.items()))


def fact(body: bytes, content_type: str) -> Fact | None:
    """The fact about a payment in a body, if there is one that the table of statuses knows."""
    texts = signed_texts(body, content_type)
    if texts.get("NotificationType") or texts.get("Status") not in _CLIMB:
        return None
    if not texts.get("OrderId") or not texts.get("PaymentId"):
        return None
    amount = int(texts["Amount"]) if texts.get("Amount") else None
    success = {"true": True, "false": False}.get(texts.get("Success", "").lower())
    return Fact(texts["TerminalKey"], texts["PaymentId"], texts["OrderId"], texts["Status"], amount, success)


def endings(amounts: dict[str, int | None], facts: Iterable[Fact]) -> dict[str, Ending]:
    """Every order that is registered (with its amount) or named, and what it must be."""
    payments: dict[tuple[str, str], set[Fact]] = defaultdict(set)
    for each in facts:
        payments[each.terminal, each.payment].add(each)
    claims: dict[str, list[str]] = defaultdict(list)
    doubts: dict[str, int] = defaultdict(int)
    named = set(amounts)
    for told in payments.values():
        orders = sorted({each.order for each in told})
        named.update(orders)
        failed = {each for each in told if each.success is False and each.status in _MOVED}
        word = "doubt" if len(orders) > 1 else _word(told - failed, amounts.get(orders[0]))
        doubts[orders[0]] += bool(failed) or word == "doubt"
        claims[orders[0]].append(word)
    return {order: _ending(amounts.get(order), claims[order], doubts[order]) for order in sorted(named)}


def _ending(amount: int | None, claims: list[str], doubts: int) -> Ending:
    if amount is None:
        return Ending("unregistered", False)
    status = next((word for word in _BEST_FIRST if word in claims), "pending")
    return Ending(status, doubts > 0 or claims.count("paid") > 1)


def _word(told: set[Fact], order_amount: int | None) -> str:
    """What one payment says of its order, by all that did not fail."""
    statuses = {each.status for each in told} or {"NEW"}
    confirmed = {each.amount for each in told if each.status == "CONFIRMED"}
    left = {each.amount for each in told if each.status == "PARTIAL_REFUNDED"}
    if (statuses & _OURS and "REVERSED" in statuses) or None in confirmed:
        return "doubt"
    whole = max(confirmed, default=None, key=lambda amount: amount or 0)
    if len(confirmed) > 1 and min(amount or 0 for amount in confirmed) not in _ends(left):
        return "doubt"
    top = max(statuses, key=_CLIMB.index)
    if confirmed and whole != order_amount and top != "REFUNDED":
        return "doubt"
    if top in ("CONFIRMED", "REFUNDING", "ASYNC_REFUNDING"):
        return "paid" if confirmed else "pending"
    if top in _HELD:
        return "authorized"
    if top in ("REVERSED", "CANCELED", "DEADLINE_EXPIRED"):
        return "canceled"
    if top in ("REJECTED", "AUTH_FAIL", "ATTEMPTS_EXPIRED"):
        return "failed"
    return {"PARTIAL_REFUNDED": "partially_refunded", "REFUNDED": "refunded"}.get(top, "pending")


def _ends(amounts: set[int | None]) -> set[int]:
    """The lowest and the highest; one that was not stated counts as below all others."""
    known = [-1 if amount is None else amount for amount in amounts]
    return {min(known), max(known)} if known else set()
