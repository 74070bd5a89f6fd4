"""What shops run today, with the amqplib from npm: their endpoint before our worker, and our endpoint before theirs."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from oplata.bank.simulator import payload
from oplata.orders.commands import Orders
from oplata.orders.views import OrderView
from oplata.storage.engine import Database
from tests.chaos.offspring import migrate, oplata
from tests.contract.amqp import delete
from tests.services.node import Node
from tests.services.server import free_port

pytestmark = pytest.mark.anyio

QUEUE = "tinkoff_payments"
TERMINAL = {"OPLATA_TERMINAL_KEY": "TestDEMO", "OPLATA_TERMINAL_PASSWORD": "open-sesame"}
WAIT_S = 30.0

ENDPOINT = """
const amqp = require('amqplib')
// As the shop's route does it, with a connection for each request.
async function callback(body) {
  const connection = await amqp.connect(process.argv[1])
  const channel = await connection.createChannel()
  await channel.assertQueue('tinkoff_payments', { durable: true })
  channel.sendToQueue('tinkoff_payments', Buffer.from(JSON.stringify(body)), { persistent: true })
  await channel.close()
  await connection.close()
}
async function main() {
  for (const body of JSON.parse(process.argv[2])) await callback(body)
}
main()
"""

WORKER = """
const amqp = require('amqplib')
async function main() {
  const connection = await amqp.connect(process.argv[1])
  const channel = await connection.createChannel()
  await channel.assertQueue('tinkoff_payments', { durable: true })
  await channel.prefetch(1)
  let left = Number(process.argv[2])
  await new Promise(done => channel.consume('tinkoff_payments', message => {
    console.log(message.content.toString('base64'))
    channel.ack(message)
    left -= 1
    if (left === 0) done()
  }))
  await channel.close()
  await connection.close()
}
main()
"""


@pytest.fixture
async def settings(amqp_url: str, postgres_url: str) -> AsyncIterator[dict[str, str]]:
    """The program beside a queue of the shop's name, which is not there before and not after."""
    names = [QUEUE, f"{QUEUE}.dead", f"{QUEUE}.retry.200"]
    await delete(amqp_url, *names)
    yield {
        **TERMINAL,
        "OPLATA_QUEUE_URL": amqp_url,
        "OPLATA_QUEUE_NAME": QUEUE,
        "OPLATA_QUEUE_DECLARE": "passive",
        "OPLATA_QUEUE_RETRY_DELAYS_MS": "200",
        "OPLATA_DATABASE_URL": postgres_url,
    }
    await delete(amqp_url, *names)


async def run(node: Node, script: str, *arguments: str) -> str:
    """Run a script with node to its end, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        node.program,
        "-e",
        script,
        *arguments,
        cwd=node.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, complaint = await asyncio.wait_for(process.communicate(), WAIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaint.decode()
    return printed.decode()


def notification(order_id: str, payment_id: int, status: str) -> dict[str, object]:
    fields = payload.payment("TestDEMO", order_id, payment_id, status, 19_900)
    more = {"CardId": 7, "Pan": "430000******0777", "DATA": {"Имя": "Покупатель № 1"}}
    return payload.signed(fields | more, TERMINAL["OPLATA_TERMINAL_PASSWORD"])


@asynccontextmanager
async def orders_in(url: str) -> AsyncIterator[Orders]:
    database = Database(url)
    await database.start()
    try:
        yield Orders(database)
    finally:
        await database.stop()


async def all_paid(orders: Orders, count: int) -> list[OrderView]:
    async with asyncio.timeout(WAIT_S):
        while True:
            listed = await orders.list()
            if [order.status for order in listed] == ["paid"] * count:
                return listed
            await asyncio.sleep(0.05)


async def test_their_endpoint_feeds_our_worker(node: Node, settings: dict[str, str], tmp_path: Path) -> None:
    """A plain durable classic queue that they declared, no header of ours, and a body as JSON.stringify writes it."""
    bodies = [
        notification(f"A-{number}", number, status) for number in (1, 2, 3) for status in ("AUTHORIZED", "CONFIRMED")
    ]
    await migrate(tmp_path, settings)
    async with orders_in(settings["OPLATA_DATABASE_URL"]) as orders:
        for number in (1, 2, 3):
            await orders.register(f"A-{number}", 19_900)
        await run(node, ENDPOINT, settings["OPLATA_QUEUE_URL"], json.dumps(bodies))
        worker = oplata("worker", "worker", folder=tmp_path, settings=settings)
        await worker.start()
        try:
            # Of what comes while the worker runs, and repeats what it has, nothing changes.
            await run(node, ENDPOINT, settings["OPLATA_QUEUE_URL"], json.dumps(bodies[:2]))
            listed = await all_paid(orders, 3)
        finally:
            code = await worker.stop()

    assert code == 0, worker.tail()
    paid = sorted((order.order_id, order.amount, len(order.payments)) for order in listed)
    assert paid == [("A-1", 19_900, 1), ("A-2", 19_900, 1), ("A-3", 19_900, 1)]
    assert [order.review for order in listed] == [None] * 3


async def test_our_endpoint_feeds_their_worker(node: Node, settings: dict[str, str], tmp_path: Path) -> None:
    """Their worker declares the queue as it always has, and reads the bank's bytes as the bank wrote them."""
    spelled = [json.dumps(notification(f"A-{number}", number, "CONFIRMED"), indent=number) for number in (1, 2, 3)]
    bodies = [text.encode() for text in spelled]
    reading = asyncio.create_task(run(node, WORKER, settings["OPLATA_QUEUE_URL"], str(len(bodies))))
    port = free_port()
    serve = oplata("serve", "serve", "--port", str(port), folder=tmp_path, settings=settings)
    await serve.start()
    try:
        await serve.until_said("is ready")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as bank:
            answers = [(await bank.post("/api/tinkoff-callback", content=body)).text for body in bodies]
        printed = await reading
    finally:
        reading.cancel()
        code = await serve.stop()

    assert (answers, code) == (["OK"] * 3, 0), serve.tail()
    assert [base64.b64decode(line) for line in printed.split()] == bodies
