"""Register an order, get one, list many. Every door to the orders leads through here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from oplata.domain.money import kopecks
from oplata.domain.status import OrderStatus
from oplata.errors import Contention, OrderError, OrderNotFound
from oplata.orders.clock import wall_clock_ms
from oplata.orders.paging import Page, page_of, place_of, within
from oplata.orders.views import OrderView, PaymentView, views_of
from oplata.orders.words import Speech, say, take_back
from oplata.storage.engine import Database
from oplata.storage.orders import Filter
from oplata.storage.verdicts import reach_verdicts

MAX_ORDER_ID_LENGTH = 36
"""The bank takes no longer one in Init."""

_TRIES = 5

T = TypeVar("T")
Act = Callable[..., Awaitable[None]]


class Orders:
    """The shop's orders in this database."""

    def __init__(self, database: Database, *, now_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._database = database
        self._now_ms = now_ms

    async def register(self, order_id: str, amount_kopecks: int) -> OrderView:
        """Tell of an order that is to be paid; payments that came before it take effect now.

        Doing it twice is doing it once. Raises ``OrderError`` when the id is not one the bank would take or the order
        is registered with another amount, and ``MoneyError``.
        """
        if not 1 <= len(order_id) <= MAX_ORDER_ID_LENGTH or not order_id.isprintable():
            raise OrderError(f"an order id has 1 to {MAX_ORDER_ID_LENGTH} printable characters")
        if kopecks(amount_kopecks) == 0:
            raise OrderError("an order's amount is at least 1 kopeck")
        return await _persist(partial(self._register, order_id, amount_kopecks))

    async def update_status(self, order_id: str, status: OrderStatus, *, who: str, why: str | None = None) -> OrderView:
        """Say what an order is: a person who knows better, or another program that hears of payments.

        It is kept beside the payments, and the audit keeps who said it and why. Saying what is so already changes
        nothing. Raises ``StatusRefused`` where the order would go back, or where the bank's money says otherwise, and
        ``OrderNotFound`` for one that is not registered.
        """
        return await _persist(partial(self._speak, order_id, partial(say, status=status), Speech(who=who, why=why)))

    async def withdraw_status(self, order_id: str, *, who: str, why: str) -> OrderView:
        """Take back what was said of an order, so that it is again what its payments make it. The audit keeps both."""
        return await _persist(partial(self._speak, order_id, take_back, Speech(who=who, why=why)))

    async def get(self, order_id: str) -> OrderView:
        """One registered order. Raises ``OrderNotFound``, which tells of payments that name an unregistered one."""
        async with self._database.unit_of_work(read_only=True) as uow:
            row = await uow.orders.get(order_id)
            if row is None:
                raise OrderNotFound(f"order {order_id} is not registered, and no payment names it")
            view = (await views_of(uow, [row]))[0]
        if row.amount_kopecks is None:
            told = ", ".join(map(_told, view.payments)) or "none yet"
            raise OrderNotFound(
                f"order {order_id} is not registered; payments that name it are kept ({told}) "
                "and take effect when it is registered"
            )
        return view

    async def page(self, wanted: Filter, *, limit: int = 100, cursor: str | None = None) -> Page[OrderView]:
        """The newest of these orders, and the cursor of those after them. Raises ``OrderError`` for a wrong cursor."""
        place = place_of(cursor, tuple[int, str])
        async with self._database.unit_of_work(read_only=True) as uow:
            found = await uow.orders.search(wanted, limit=within(limit), before=place)
            items = await views_of(uow, found.rows)
        return page_of(items, found.behind)

    async def list(
        self, wanted: OrderStatus | Filter | None = None, *, limit: int = 100, after: str | None = None
    ) -> list[OrderView]:
        """Orders, newest first, at most ``limit``. ``after`` is the id of the last one of the page before.

        Orders that only payments name are among them, as ``unregistered``. Unlike ``page`` it goes on until it has as
        many, or has seen every order.
        """
        limit = within(limit)
        async with self._database.unit_of_work(read_only=True) as uow:
            last = None if after is None else await uow.orders.get(after)
            if after is not None and last is None:
                raise OrderNotFound(f"order {after} is not known, so there is no page after it")
            place = None if last is None else (last.created_at_ms, last.order_id)
            if not isinstance(wanted, Filter):
                wanted = Filter(status=None if wanted is None else wanted.value)
            found = await uow.orders.search(wanted, limit=limit, before=place)
            rows = found.rows
            while found.behind is not None and len(rows) < limit:
                found = await uow.orders.search(wanted, limit=limit - len(rows), before=found.behind)
                rows += found.rows
            return await views_of(uow, rows)

    async def _register(self, order_id: str, amount_kopecks: int) -> OrderView:
        at_ms = self._now_ms()
        async with self._database.unit_of_work() as uow:
            row = (await uow.orders.lock([order_id], at_ms))[order_id]
            if row.amount_kopecks is None:
                await uow.orders.register(order_id, amount_kopecks, at_ms)
                await reach_verdicts(uow, [order_id], at_ms)
            elif row.amount_kopecks != amount_kopecks:
                raise OrderError(
                    f"order {order_id} is registered with {row.amount_kopecks} kopecks, not {amount_kopecks}"
                )
            registered = await uow.orders.get(order_id)
            assert registered is not None  # noqa: S101  It is locked by us.
            view = (await views_of(uow, [registered]))[0]
            await uow.commit()
        return view

    async def _speak(self, order_id: str, act: Act, speech: Speech) -> OrderView:
        at_ms = self._now_ms()
        async with self._database.unit_of_work() as uow:
            await act(uow, order_id, speech, at_ms=at_ms)
            row = await uow.orders.get(order_id)
            assert row is not None  # noqa: S101  It is locked by us.
            view = (await views_of(uow, [row]))[0]
            await uow.commit()
        return view


async def _persist(step: Callable[[], Awaitable[T]]) -> T:
    """Do a transaction again when another one had its rows."""
    for attempt in range(_TRIES):
        try:
            return await step()
        except Contention:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _told(payment: PaymentView) -> str:
    amount = "" if payment.amount is None else f" {payment.amount} kopecks"
    return f"{payment.payment_id} {payment.status}{amount}"
