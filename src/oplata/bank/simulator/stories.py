"""What may become of an order: the notifications that the bank sends, and where the order must end.

The endings are written down here by hand and are not computed by the rules under test.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from oplata.domain.status import OrderStatus

Method = Literal["card", "sbp", "tpay", "old", "form"]
Link = Literal["card", "account"]


class Step(msgspec.Struct, frozen=True):
    """One notification. ``percent`` is its amount, in hundredths of the order's; ``attempt`` tells payments apart."""

    status: str
    percent: int = 100
    success: bool = True
    attempt: int = 1


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """``weight`` says how often it is told; ``review`` whether a person is to look at the order in the end."""

    name: str
    weight: int
    steps: tuple[Step, ...]
    ends: OrderStatus
    method: Method = "card"
    review: bool = False
    receipt: bool = False
    link: Link | None = None


_HELD = Step("AUTHORIZED")
_PAID = Step("CONFIRMED")
_REJECTED = Step("REJECTED", success=False)

STORIES: tuple[Story, ...] = (
    Story(name="card", weight=22, steps=(_HELD, _PAID), ends=OrderStatus.PAID, receipt=True),
    Story(name="card, saved", weight=6, steps=(_HELD, _PAID), ends=OrderStatus.PAID, link="card"),
    Story(name="SBP", weight=12, steps=(_HELD, _PAID), ends=OrderStatus.PAID, method="sbp"),
    Story(name="SBP, account bound", weight=4, steps=(_PAID,), ends=OrderStatus.PAID, method="sbp", link="account"),
    Story(name="T-Pay", weight=8, steps=(_HELD, _PAID), ends=OrderStatus.PAID, method="tpay"),
    Story(name="old protocol", weight=5, steps=(_HELD, _PAID), ends=OrderStatus.PAID, method="old"),
    Story(name="form-encoded", weight=2, steps=(_HELD, _PAID), ends=OrderStatus.PAID, method="form"),
    Story(name="two stages, held", weight=4, steps=(_HELD,), ends=OrderStatus.AUTHORIZED),
    Story(
        name="two stages, partly released",
        weight=2,
        steps=(_HELD, Step("PARTIAL_REVERSED", 60)),
        ends=OrderStatus.AUTHORIZED,
    ),
    Story(name="two stages, reversed", weight=3, steps=(_HELD, Step("REVERSED", 0)), ends=OrderStatus.CANCELED),
    Story(
        name="card, refunded",
        weight=5,
        steps=(_HELD, _PAID, Step("REFUNDED", 0)),
        ends=OrderStatus.REFUNDED,
        receipt=True,
    ),
    Story(
        name="card, refunded twice in part",
        weight=4,
        steps=(_HELD, _PAID, Step("PARTIAL_REFUNDED", 70), Step("PARTIAL_REFUNDED", 30)),
        ends=OrderStatus.PARTIALLY_REFUNDED,
    ),
    Story(
        name="SBP, refunded",
        weight=3,
        steps=(_PAID, Step("ASYNC_REFUNDING"), Step("REFUNDED", 0)),
        ends=OrderStatus.REFUNDED,
        method="sbp",
    ),
    Story(name="rejected", weight=5, steps=(_REJECTED,), ends=OrderStatus.FAILED),
    Story(
        name="rejected, then paid",
        weight=4,
        steps=(_REJECTED, Step("AUTHORIZED", attempt=2), Step("CONFIRMED", attempt=2)),
        ends=OrderStatus.PAID,
    ),
    Story(name="canceled", weight=2, steps=(Step("CANCELED"),), ends=OrderStatus.CANCELED),
    Story(name="expired", weight=2, steps=(Step("DEADLINE_EXPIRED", success=False),), ends=OrderStatus.CANCELED),
    Story(name="an unknown status", weight=3, steps=(_HELD, Step("AWAITING_BONUS"), _PAID), ends=OrderStatus.PAID),
    Story(name="a wrong amount", weight=2, steps=(_HELD, Step("CONFIRMED", 50)), ends=OrderStatus.PENDING, review=True),
    Story(name="abandoned", weight=2, steps=(), ends=OrderStatus.PENDING),
)
