"""Ours: ``RpcApp`` on uvicorn. The answer is checked against its type, as always."""

from __future__ import annotations

import msgspec

from bench.rpc.servers.lifetime import serve
from oplata.rpc import Router, RpcApp


class Item(msgspec.Struct):
    name: str
    quantity: int


class Order(msgspec.Struct):
    order_id: int
    status: str
    amount_kopecks: int
    items: list[Item]


def make_app() -> RpcApp:
    """The router of one query, at ``/trpc``."""
    router = Router()

    @router.query
    async def order_by_id(order_id: int) -> Order:
        items = [Item("margherita", 2), Item("lemonade", 1)]
        return Order(order_id, "paid", order_id * 100, items)

    return RpcApp(router, prefix="/trpc")


if __name__ == "__main__":
    serve(make_app())
