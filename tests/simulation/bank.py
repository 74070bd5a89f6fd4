"""The bank, the shop and a stranger: what they send, when, and how stubbornly.

The bank repeats a callback until it hears exactly OK; now and then it repeats it all the same. Answers get lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import msgspec

from oplata.bank.simulator import payload
from oplata.bank.simulator.traffic import Callback, Disorder, Order, Registration, Traffic
from oplata.domain.status import OrderStatus
from tests.simulation.database import CURSED

PASSWORDS = {"1700000000001DEMO": "a password of the simulation", "1700000000002": "пароль второго терминала"}
STATUSES = (
    *("AUTHORIZED", "CONFIRMED", "CONFIRMED", "REVERSED", "CANCELED", "REJECTED", "PARTIAL_REVERSED", "REFUNDED"),
    *("PARTIAL_REFUNDED", "ASYNC_REFUNDING", "DEADLINE_EXPIRED", "FORM_SHOWED", "CANCEL_CHECKING", "NEWS_OF_2027"),
)


class Post(msgspec.Struct, frozen=True, kw_only=True):
    """A body, when it is first sent, and whether the endpoint may say OK to it."""

    at_s: float
    callback: Callback


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that bank and shop are going to do. ``told`` are orders whose ending was written down by hand."""

    posts: Sequence[Post]
    registrations: Sequence[tuple[float, Order]]
    told: Sequence[Order]
    strangers: Sequence[Post]


def plan(rng: random.Random, *, orders: int, span_s: float) -> Plan:
    """Stories as they happen in shops, and a few orders of which the bank tells wild things."""
    disorder = Disorder(
        repeat=rng.choice((0.1, 0.5)), forge=0.15, reorder=rng.choice((0.0, 0.5, 1.0)), register_late=rng.random()
    )
    traffic = Traffic(rng, PASSWORDS, orders=orders, window=rng.choice((2, 12)), disorder=disorder)
    happenings = list(traffic)
    wild: list[Registration | Callback] = []
    for number in range(rng.choice((0, 1, 2, 3))):
        wild += _wild(rng, f"wild-{number}", f"wild-{rng.randrange(number + 1)}")
    for number in range(rng.choice((0, 0, 1, 3))):
        wild += _cursed(rng, number)
    for each in wild:
        happenings.insert(rng.randint(0, len(happenings)), each)
    times = sorted(rng.uniform(0.0, span_s) for _ in happenings)
    if rng.random() < 0.3:
        times = [round(at_s / 8) * 8.0 + rng.random() * 0.01 for at_s in times]  # All at once, and then a pause.
    posts, registrations, strangers = [], [], []
    for at_s, happening in zip(times, happenings, strict=True):
        if isinstance(happening, Registration):
            registrations.append((at_s, happening.order))
        else:
            posts.append(Post(at_s=at_s, callback=happening))
            if (not happening.genuine and rng.random() < 0.5) or (happening.genuine and rng.random() < 0.03):
                strangers.append(Post(at_s=at_s, callback=happening))
    strangers += _company(rng, posts)
    strangers.sort(key=lambda post: post.at_s)
    return Plan(posts=posts, registrations=registrations, told=traffic.orders, strangers=strangers)


def _company(rng: random.Random, posts: Sequence[Post]) -> list[Post]:
    """What no database takes comes in the company of what is no callback: a batch is cut where both lie in it."""
    garbage = Callback(what="garbage", body=b"\x00 no callback", genuine=False)
    return [
        Post(at_s=max(0.0, post.at_s + rng.uniform(-0.005, 0.005)), callback=garbage)
        for post in posts
        if CURSED.encode() in post.callback.body
    ]


def _wild(rng: random.Random, order_id: str, other_id: str) -> list[Registration | Callback]:
    """An order with payments that say anything at all."""
    amount = rng.randrange(1, 1_000_000)
    order = Order(order_id=order_id, amount_kopecks=amount, story="wild", ends=OrderStatus.PENDING, review=False)
    told: list[Registration | Callback] = [Registration(order)] if rng.random() < 0.9 else []
    terminal = rng.choice(sorted(PASSWORDS))
    for number in range(rng.choice((1, 1, 2, 3))):
        payment_id = payload.payment_id_for(order_id) + number
        for status in rng.sample(STATUSES, rng.randint(1, 5)):
            fields = payload.payment(
                terminal,
                other_id if rng.random() < 0.05 else order_id,
                payment_id,
                status,
                rng.choice((amount, amount, amount, amount, amount // 2, amount + 1, 0)),
                success=rng.random() > 0.04 if status not in ("REJECTED", "DEADLINE_EXPIRED") else False,
            )
            if rng.random() < 0.04:
                del fields["Amount"]
            told.append(_callback(f"wild {status} of {order_id}", fields))
            if rng.random() < 0.3:
                told.append(told[-1])
    rng.shuffle(told)
    return told


def _cursed(rng: random.Random, number: int) -> list[Registration | Callback]:
    """A genuine callback whose values the database will not take."""
    fields = payload.payment(
        sorted(PASSWORDS)[0], f"{CURSED}-{number}", 77 + number, "CONFIRMED", rng.randrange(1, 10_000)
    )
    return [_callback("a callback that no database takes", fields)]


def _callback(what: str, fields: payload.Payload) -> Callback:
    password = PASSWORDS[str(fields["TerminalKey"])]
    return Callback(what=what, body=payload.as_json(payload.signed(fields, password)))


async def until(loop: asyncio.AbstractEventLoop, at_s: float) -> None:
    """Sleep until a time of the loop's clock."""
    await asyncio.sleep(max(0.0, at_s - loop.time()))
