"""Hears of each change as a signed webhook, and checks it with the published verifier, ``standardwebhooks``.

Run it with ``WEBHOOK_SECRET=whsec_... uvicorn receiver:app``; the verifier is ``pip install standardwebhooks``.
"""

from __future__ import annotations

import os

from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
seen: set[str] = set()
"""In a shop: a table with the id as its key, written with whatever the event causes."""


async def receive(request: Request) -> JSONResponse:
    """Take an event, once: what was told before is told again after a lost answer."""
    try:
        # The bytes as they came: a body that was parsed and written anew has another signature.
        told = webhook.verify(await request.body(), dict(request.headers))
    except WebhookVerificationError as error:
        return JSONResponse({"error": str(error)}, status_code=401)
    if request.headers["webhook-id"] not in seen:
        seen.add(request.headers["webhook-id"])
        print(told["type"], told["data"]["orderId"], told["data"]["version"], flush=True)  # noqa: T201
    return JSONResponse({"received": True})


app = Starlette(routes=[Route("/webhooks/oplata", receive, methods=["POST"])])
