"""A router with every kind of type, for the TypeScript compiler to judge."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
from collections.abc import AsyncIterator
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar

import msgspec

from oplata.rpc import FormData, Octets, Router, Tracked, tracked

T = TypeVar("T")


class Status(enum.Enum):
    """How far an order is."""

    NEW = "new"
    PAID = "paid"


@dataclasses.dataclass
class Line:
    item_name: str
    unit_price: decimal.Decimal
    amount: int = 1


class Order(msgspec.Struct):
    """What somebody wants. */ is no end of a comment."""

    order_id: int
    status: Status
    made_at: datetime.datetime
    lines: list[Line] = []
    note: Annotated[str | None, msgspec.Meta(description="Whatever the customer wrote.")] = None


class Page(msgspec.Struct, Generic[T]):
    items: list[T]
    next_page: int | None = None


class Filter(TypedDict, total=False):
    status: Status
    needle: str


class Cash(msgspec.Struct, tag="cash", tag_field="kind"):
    notes: int


class Card(msgspec.Struct, tag="card", tag_field="kind"):
    number: str


class Tree(msgspec.Struct):
    name: str
    children: list[Tree] = []


class Config(msgspec.Struct):
    """Its name is taken by the file itself."""

    words: dict[str, list[Literal["a", "b"] | None]]


def shop_router() -> Router:
    orders = Router()
    router = Router(orders=orders)

    @orders.query
    async def by_id(order_id: int, /) -> Order | None:
        """Finds one order.

        It is null where there is none.
        """
        return None

    @orders.query
    async def search(wanted: Filter | None = None, page: int = 1) -> Page[Order]:
        return Page([])

    @orders.mutation
    async def create(lines: list[Line], pays_with: Cash | Card) -> Order:
        return Order(1, Status.NEW, datetime.datetime.now(datetime.UTC))

    @orders.subscription
    async def on_change(last_event_id: str | None = None) -> AsyncIterator[Tracked[Order]]:
        yield tracked("1", Order(1, Status.NEW, datetime.datetime.now(datetime.UTC)))

    @router.query
    async def hello() -> str:
        return "world"

    @router.query
    async def words(prompt: str) -> AsyncIterator[str]:
        yield prompt

    @router.query
    async def tree(root: Tree, /) -> tuple[Tree, int]:
        return root, 1

    @router.query
    async def anything(thing: Any = None, /) -> Config:
        return Config({})

    @router.mutation
    async def nothing() -> None: ...

    @router.mutation
    async def form(data: FormData, /) -> None: ...

    @router.mutation
    async def octets(data: Octets, /) -> None: ...

    @router.subscription
    async def clock() -> AsyncIterator[datetime.datetime]:
        yield datetime.datetime.now(datetime.UTC)

    return router
