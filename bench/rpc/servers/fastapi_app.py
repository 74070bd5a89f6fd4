"""FastAPI on uvicorn, with a pydantic model as its response. It knows no batches."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from bench.rpc.servers.lifetime import serve


class Wire(BaseModel):
    """camelCase outside, snake_case inside."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Item(Wire):
    name: str
    quantity: int


class Order(Wire):
    order_id: int
    status: str
    amount_kopecks: int
    items: list[Item]


app = FastAPI()


@app.get("/orders/{order_id}")
async def order_by_id(order_id: int) -> Order:
    items = [Item(name="margherita", quantity=2), Item(name="lemonade", quantity=1)]
    return Order(order_id=order_id, status="paid", amount_kopecks=order_id * 100, items=items)


if __name__ == "__main__":
    serve(app)
