"""A client for any tRPC server.

async with Client("https://shop.example/api/trpc") as shop:
    post = await shop.post.by_id.query("7")
    order = await shop.orders.update_status(returns=Order).mutate(order_id=7, status="paid")
    async for change in shop.orders.on_change.subscribe():
        ...
"""

from oplata.rpc.client.backoff import Backoff
from oplata.rpc.client.client import Client, Remote

__all__ = ["Backoff", "Client", "Remote"]
