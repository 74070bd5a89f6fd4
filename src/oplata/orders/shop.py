"""All that is behind the door, as one value: what the procedures and the commands call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oplata.orders.audit import AuditTrail
from oplata.orders.buyer import BuyerTokens
from oplata.orders.callbacks import Callbacks
from oplata.orders.commands import Orders
from oplata.orders.letters import Letters, Redriver, Settling
from oplata.orders.payments import Payments
from oplata.orders.stats import Stats
from oplata.orders.watching import Feed, Watching
from oplata.storage.engine import Database


@dataclass(frozen=True, slots=True)
class Shop:
    """The nouns of this shop."""

    orders: Orders
    payments: Payments
    callbacks: Callbacks
    letters: Letters
    settling: Settling
    audit: AuditTrail
    stats: Stats
    tokens: BuyerTokens
    watching: Watching


def shop_of(database: Database, redriver: Redriver, feed: Feed, token_keys: Sequence[bytes]) -> Shop:
    """All of them over one database; ``token_keys`` sign buyers' tokens."""
    return Shop(
        orders=Orders(database),
        payments=Payments(database),
        callbacks=Callbacks(database),
        letters=Letters(database),
        settling=Settling(redriver),
        audit=AuditTrail(database),
        stats=Stats(database),
        tokens=BuyerTokens(token_keys),
        watching=Watching(database, feed),
    )
