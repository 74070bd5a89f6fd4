"""A router on a port of this machine, for trying it out and for tests. In production, mount the application."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import uvicorn

from oplata.rpc.server import RpcApp

GRACE_S = 3


class _Server(uvicorn.Server):
    """Tells the open connections before uvicorn waits for them."""

    def __init__(self, config: uvicorn.Config, apps: Iterable[RpcApp]) -> None:
        super().__init__(config)
        self._apps = tuple(apps)

    async def shutdown(self, *args: Any, **kwargs: Any) -> None:
        for app in self._apps:
            await app.shutdown()
        await super().shutdown(*args, **kwargs)


def server(app: Any, apps: Iterable[RpcApp], port: int, host: str = "127.0.0.1") -> uvicorn.Server:
    """``app`` is what is served, ``apps`` the routers within it that are told to end."""
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", lifespan="off", timeout_graceful_shutdown=GRACE_S, ws="auto"
    )
    return _Server(config, apps)
