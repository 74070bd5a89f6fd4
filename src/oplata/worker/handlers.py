"""The shop's own code: which function hears of which changes of orders."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from oplata.domain.status import OrderStatus
from oplata.errors import SettingsError
from oplata.storage.changes import Change
from oplata.storage.handling import Wanted
from oplata.storage.transaction import Transaction

Handler = Callable[[Change, Transaction], Awaitable[object]]
H = TypeVar("H", bound=Handler)

STATUSES = tuple(status.value for status in OrderStatus if status is not OrderStatus.UNREGISTERED)
"""What an order can become; one that only payments name is not told of."""


class Handlers:
    """Functions of the shop that run in the worker's transaction when an order changes.

    ::

        app = Handlers()

        @app.on("paid")
        async def ship(change: Change, tx: Transaction) -> None:
            await tx.execute("INSERT INTO shipments (order_id) VALUES (:order_id)", order_id=change.order_id)

    ``oplata worker --app shop:app`` runs them. What they write through ``tx`` is committed together with the event, or
    not at all; so it happens once, however often the function has to run.
    """

    def __init__(self) -> None:
        self._handlers: list[tuple[Wanted, Handler]] = []

    def __len__(self) -> int:
        return len(self._handlers)

    def on(self, *statuses: str) -> Callable[[H], H]:
        """Have the decorated function run when an order comes to one of these statuses; without any, at every change.

        Several functions for one status run in the order in which they were registered. Raises ``SettingsError`` for a
        word that is no status of an order, and for a function that cannot be awaited with a change and a transaction.
        """
        for status in statuses:
            if status not in STATUSES:
                raise SettingsError(_no_status(status))
        wanted = Wanted(frozenset(str(status) for status in statuses) if statuses else None)

        def register(handler: H) -> H:
            _refuse_unfit(handler)
            self._handlers.append((wanted, handler))
            return handler

        return register

    def of(self, change: Change) -> list[Handler]:
        """The functions that hear of this change, in the order of their registration."""
        return [handler for wanted, handler in self._handlers if wanted.holds(change)]

    @property
    def wanted(self) -> Wanted:
        """The changes that any of them hears of."""
        statuses: set[str] = set()
        for wanted, _ in self._handlers:
            if wanted.statuses is None:
                return wanted
            statuses |= wanted.statuses
        return Wanted(frozenset(statuses))


def name_of(handler: Handler) -> str:
    """What a person calls it."""
    return str(getattr(handler, "__qualname__", None) or type(handler).__qualname__)


def _no_status(status: object) -> str:
    near: Sequence[str] = difflib.get_close_matches(str(status), STATUSES, n=1)
    mend = f"Did you mean {near[0]!r}?" if near else f"An order can become {', '.join(STATUSES)}."
    return f"{status!r} is not a status that an order can come to. {mend}"


def _refuse_unfit(handler: Handler) -> None:
    name = name_of(handler)
    if not callable(handler):
        raise SettingsError(f"{handler!r} is not a function. Write @app.on('paid'), with the parentheses, above one.")
    if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(type(handler).__call__):
        raise SettingsError(f"{name} is not async, and would stop the worker while it waits: write `async def {name}`.")
    try:
        inspect.signature(handler).bind(None, None)
    except TypeError:
        raise SettingsError(f"{name} has to take two arguments: `async def {name}(change, tx)`.") from None
