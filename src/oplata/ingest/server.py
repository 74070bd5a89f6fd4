"""How uvicorn is set up for callbacks: every limit in one place."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

from oplata.ingest.connection import Connection

BACKLOG = 2048
"""Connections that the kernel keeps for us while we are busy."""

MAX_CONNECTIONS = 2000
"""Beyond these a request is answered 503 at once. Each holds at most a body of 64 KiB and one read of the socket."""

KEEP_ALIVE_S = 15
"""How long a connection may idle between two requests."""

DRAIN_S = 15
"""How long a shutdown waits for requests in flight: longer than a body and a confirmation may take together."""


def uvicorn_config(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    max_connections: int = MAX_CONNECTIONS,
    drain_s: int = DRAIN_S,
) -> uvicorn.Config:
    """The configuration of ``uvicorn.Server(...)``; its ``run()`` brings uvloop along.

    On SIGTERM or SIGINT the server stops accepting, answers what is in flight within ``drain_s``, and runs the
    application's shutdown. The rest is cancelled and answered 503. ``X-Forwarded-*`` is left alone: the callback's
    own gate decides whom to believe. uvicorn says only errors, since every line below is one that a stranger can
    have written as often as they like.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        limit_concurrency=max_connections,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_s,
    )
