"""Where an RpcApp stands: among the routes of Starlette or FastAPI, or beside another ASGI application."""

from __future__ import annotations

from typing import Any

from starlette.routing import BaseRoute, Mount, WebSocketRoute

from oplata.rpc.http.asgi import Receive, Scope, Send, mounted_at
from oplata.rpc.server import RpcApp


def routes(path: str, rpc: RpcApp) -> list[BaseRoute]:
    """``Starlette(routes=[*routes("/api/trpc", rpc)])``, or ``app.router.routes += routes(...)`` with FastAPI.

    A Mount alone does not match its bare path, and that is the address at which WebSocket clients connect.
    """
    return [WebSocketRoute(path.rstrip("/"), rpc), Mount(path, rpc)]


def beside(rpc: Any, prefix: str, other: Any) -> Any:
    """An ASGI application: ``rpc`` for paths under the prefix, ``other`` for all the rest.

    ``rpc`` needs the same prefix.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        here = mounted_at(scope, prefix) + "/"
        if scope["type"] in ("http", "websocket") and (str(scope["path"]) + "/").startswith(here):
            await rpc(scope, receive, send)
        else:
            await other(scope, receive, send)

    return app
