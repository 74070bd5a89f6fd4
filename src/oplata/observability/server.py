"""The small HTTP server of the metrics port, in the same event loop as the work, so that one that hangs is silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from oplata.errors import OplataError, SettingsError

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 2
MAX_CONNECTIONS = 50


class _Server(uvicorn.Server):
    """Signals are the program's to hear."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def exposed(app: ASGIApp, host: str, port: int) -> AsyncIterator[str]:
    """Serve this, and yield the URL of its root. Raises ``SettingsError`` when the address cannot be had."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {host} port {port} for metrics: {(error.strerror or str(error)).lower()}. "
            "Set OPLATA_METRICS_HOST and OPLATA_METRICS_PORT to an address of this machine and a free port."
        ) from None
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="oplata-metrics")
    try:
        await until_started(server, serving, timeout_s=START_TIMEOUT_S)
        shown_host, shown_port = listener.getsockname()[:2]
        yield f"http://[{shown_host}]:{shown_port}" if ":" in shown_host else f"http://{shown_host}:{shown_port}"
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()


async def until_started(server: uvicorn.Server, serving: asyncio.Task[None], *, timeout_s: float) -> None:
    """Wait until it listens. Raises what ended it before, or ``OplataError`` where that did not say why."""
    async with asyncio.timeout(timeout_s):
        while not server.started:
            if serving.done():
                serving.result()
                raise OplataError("The HTTP server ended while it started; the log above says why.")
            await asyncio.sleep(0.01)
