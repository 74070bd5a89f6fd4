"""Every procedure behind the door, under the name that a client calls."""

from __future__ import annotations

from oplata.orders.api.audit import audit
from oplata.orders.api.callbacks import callbacks
from oplata.orders.api.letters import letters
from oplata.orders.api.orders import orders
from oplata.orders.api.payments import payments
from oplata.orders.api.stats import stats
from oplata.rpc import Router

router = Router(
    orders=orders,
    payments=payments,
    callbacks=callbacks,
    dead_letters=letters,
    audit=audit,
    stats=stats,
)
