"""A bank callback is ingested, queued, worked, stored, and fed to whoever waits for it.

``Oplata`` is the whole program for those who embed it, and ``Handlers`` are a shop's own functions within it;
everything else is named by what it gives back or raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oplata.app import Oplata, Role
    from oplata.domain.status import OrderStatus
    from oplata.errors import OplataError, OrderError, OrderNotFound, Permanent, Retryable, SettingsError
    from oplata.orders.commands import Orders
    from oplata.orders.views import OrderView
    from oplata.settings import Settings
    from oplata.storage.changes import Change
    from oplata.storage.transaction import Transaction
    from oplata.worker.handlers import Handlers

__all__ = [
    "Change",
    "Handlers",
    "Oplata",
    "OplataError",
    "OrderError",
    "OrderNotFound",
    "OrderStatus",
    "OrderView",
    "Orders",
    "Permanent",
    "Retryable",
    "Role",
    "Settings",
    "SettingsError",
    "Transaction",
]

_HOMES = {
    "Change": "storage.changes",
    "Handlers": "worker.handlers",
    "Oplata": "app",
    "Role": "app",
    "OrderStatus": "domain.status",
    "Orders": "orders.commands",
    "OrderView": "orders.views",
    "Settings": "settings",
    "Transaction": "storage.transaction",
}
"""Where the names live that are not in ``errors``."""


if not TYPE_CHECKING:  # A type checker that saw this would take every misspelt name for one of ours.

    def __getattr__(name: str) -> object:
        # Imported when first asked for: `oplata --help` must not wait for a database driver.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
