"""``python -m oplata.rpc.conformance --port 4000`` serves at /trpc, and with superjson at /superjson."""

from __future__ import annotations

import argparse
from typing import Any

from oplata.rpc.conformance.router import conformance_router
from oplata.rpc.http.cors import Cors
from oplata.rpc.mounting import beside
from oplata.rpc.panel import Panel
from oplata.rpc.server import RpcApp
from oplata.rpc.service import Settings
from oplata.rpc.serving import server


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Everything that is not tRPC."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m oplata.rpc.conformance", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--panel", action="store_true", help="also serve the page with all procedures at /panel")
    arguments = parser.parse_args()
    cors = Cors(("*",))
    plain = RpcApp(conformance_router(), Settings(), prefix="/trpc", cors=cors)
    typed = RpcApp(conformance_router(), Settings(transformer="superjson"), prefix="/superjson", cors=cors)
    app = beside(plain, "/trpc", beside(typed, "/superjson", nothing))
    if arguments.panel:
        app = beside(Panel(plain, "/trpc", prefix="/panel"), "/panel", app)
    server(app, (plain, typed), arguments.port).run()


if __name__ == "__main__":
    main()
