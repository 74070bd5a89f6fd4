"""uvicorn, a bare ASGI function and the bare client: no token, no limits, no answer but OK."""

from __future__ import annotations

import os
from typing import Any

from bench.peers.amqp import BareClient

QUEUE, KIND = os.environ["BENCH_QUEUE"], os.environ["BENCH_QUEUE_TYPE"]
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
_clients: list[BareClient] = []


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            break
    await _clients[0].publish(QUEUE, body)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"OK"})


async def _lifespan(receive: Any, send: Any) -> None:
    await receive()
    client = BareClient(os.environ["BENCH_AMQP_URL"])
    await client.open()
    await client.declare(QUEUE, KIND)
    await client.confirm()
    _clients.append(client)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
