"""The ways in which a shop's own system is told of an order, each with the program that the guide shows."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oplata.feed.sinks.signing import SECRET_PREFIX
from oplata.orders.commands import Orders
from tests.acceptance.street import TERMINAL, Street, is_, known_to, notification, orders, settings, street, tell, until
from tests.contract.amqp import stranger
from tests.services.node import Node

__all__ = ["orders", "settings", "street"]

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "examples"


def sinks(*listed: dict[str, object]) -> dict[str, str]:
    return {"OPLATA_SINKS": json.dumps([{"retry_delays_ms": [100, 300], **each} for each in listed])}


async def test_our_worker_behind_their_endpoint_tells_their_trpc(street: Street, orders: Orders) -> None:
    """A Nuxt shop whose queue's worker is ours: its route before it, its router behind it."""
    await orders.register("A-1", 19_900)
    shop, shop_url = await street.theirs("trpc")
    _, endpoint = await street.theirs("endpoint")
    # The router has no word for what is only under way, and one for all that went back.
    statuses = {"pending": "", "authorized": "", "partially_refunded": "refunded"}
    told = sinks({"name": "shop", "kind": "trpc", "url": f"{shop_url}/api/trpc", "statuses": statuses})
    worker, _ = await street.ours("worker")
    relay, _ = await street.ours("relay", **told)

    for status in ("AUTHORIZED", "CONFIRMED", "CONFIRMED"):
        await tell(endpoint, notification("A-1", 1, status))
    await until(lambda: is_(known_to(shop_url), {"A-1": ["paid"]}), relay.tail)
    # It is away when an order is paid, and hears of it when it is back.
    await shop.stop()
    await orders.register("A-2", 19_900)
    await tell(endpoint, notification("A-2", 2))
    await relay.until_said("a delivery failed")
    await street.theirs("trpc", PORT=shop_url.rpartition(":")[2])
    await until(lambda: is_(known_to(shop_url), {"A-2": ["paid"]}), relay.tail)

    assert [await relay.stop(), await worker.stop()] == [0, 0]


@pytest.fixture
async def alone(node: Node, amqp_url: str, tmp_path: Path, queue_name: str) -> AsyncIterator[Street]:
    """One process on SQLite, and a broker that only the events need."""
    environment = {**TERMINAL, "RABBITMQ_URL": amqp_url, "EXCHANGE": queue_name, "QUEUE": queue_name}
    alone = Street(node, tmp_path, environment)
    yield alone
    await alone.clear()
    async with stranger(amqp_url) as channel:
        await channel.call(channel.raw.queue_delete, queue_name)
        await channel.call(channel.raw.exchange_delete, queue_name)


async def test_signed_webhooks_and_events_reach_the_receivers_of_the_guide(
    alone: Street, amqp_url: str, queue_name: str
) -> None:
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    another = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    hook, hook_url = await alone.theirs("webhook-receiver", WEBHOOK_SECRET=secret)
    consumer, _ = await alone.theirs("topic-consumer")
    python, python_url = await alone.python(EXAMPLES / "webhooks" / "receiver.py", WEBHOOK_SECRET=secret)
    path, paid = "/webhooks/oplata", {"statuses": ["paid", "refunded"]}
    told = sinks(
        {"name": "node", "kind": "webhook", "url": hook_url + path, "secrets": [secret], **paid},
        {"name": "python", "kind": "webhook", "url": python_url + path, "secrets": [another, secret]},
        {"name": "stranger", "kind": "webhook", "url": python_url + path, "secrets": [another]},
        {"name": "events", "kind": "amqp", "url": amqp_url, "exchange": queue_name, "mandatory": True, **paid},
    )
    up, endpoint = await alone.ours("up", **told)
    await alone.run("orders", "register", "--order-id", "A-1", "--amount", "19900")
    for status in ("CONFIRMED", "CONFIRMED", "REFUNDED"):
        await tell(endpoint, notification("A-1", 1, status))

    for receiver in (hook, python, consumer):
        await receiver.until_said("order.paid A-1 2\norder.refunded A-1 3\n")
    assert "order.pending A-1 1\n" in python.said()
    assert python.said().count("A-1") == 3
    await up.until_said("the receiver answered 401")
    assert await up.stop() == 0, up.tail()
