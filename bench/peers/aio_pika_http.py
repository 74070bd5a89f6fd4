"""uvicorn, Starlette and aio-pika by hand: a robust connection, publisher confirms, mandatory. No token is checked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

QUEUE, KIND = os.environ["BENCH_QUEUE"], os.environ["BENCH_QUEUE_TYPE"]


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    connection = await aio_pika.connect_robust(os.environ["BENCH_AMQP_URL"])
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": KIND})
        app.state.exchange = channel.default_exchange
        yield


async def callback(request: Request) -> PlainTextResponse:
    message = aio_pika.Message(
        await request.body(),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    await request.app.state.exchange.publish(message, routing_key=QUEUE)
    return PlainTextResponse("OK")


app = Starlette(routes=[Route("/api/tinkoff-callback", callback, methods=["POST"])], lifespan=lifespan)
