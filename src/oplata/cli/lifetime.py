"""How a process of ours begins and ends: its event loop, its signals, and its listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
import uvloop

from oplata.errors import SettingsError
from oplata.ingest.descriptors import room_for
from oplata.ingest.server import BACKLOG, MAX_CONNECTIONS, Server, uvicorn_config
from oplata.observability.server import until_started

if TYPE_CHECKING:
    from oplata.app import Oplata

T = TypeVar("T")

_log = structlog.get_logger("oplata.cli")

START_TIMEOUT_S = 60.0
_COLLECT_AFTER = (20_000, 20, 20)


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run this to its end on uvloop."""
    # What is imported lives as long as the process. The collector need not walk it again and again, and looks less
    # often: requests leave no cycles behind them.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@contextlib.contextmanager
def signals_heard(*, on_hangup: Callable[[], None] | None = None, twice_leaves: bool = True) -> Iterator[asyncio.Event]:
    """An event that SIGINT or SIGTERM sets. A second signal leaves at once: whatever was answered OK is on the disk.

    SIGHUP calls ``on_hangup``, and without one ends the process as ever.
    """
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def heard(number: signal.Signals) -> None:
        if stopping.is_set():
            if not twice_leaves:
                return
            sys.stderr.write("oplata: left at once, as asked twice.\n")
            sys.stderr.flush()
            os._exit(128 + number)
        stopping.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, heard, number)
    if on_hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup)
    try:
        yield stopping
    finally:
        for number in numbers if on_hangup is None else (*numbers, signal.SIGHUP):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def listening(app: Oplata, host: str, port: int, *, shared: bool = False) -> AsyncIterator[str]:
    """Serve the application, and yield the URL of its root. At the end, what is in flight is answered.

    A ``shared`` port is one on which several processes listen, each with a socket of its own, so that each drains by
    itself. Raises ``SettingsError`` when the address cannot be had.
    """
    listener = _bind(host, port, shared=shared)
    url = _url(listener)
    settings = app.settings
    # Whoever watches orders keeps a connection, and none of those that callbacks may have.
    wanted = MAX_CONNECTIONS + (settings.max_subscribers if settings.rpc == "on" else 0)
    room = room_for(wanted)
    if room < wanted:
        app.door.max_subscribers = min(app.door.max_subscribers, room // 2)
        _log.warning("The system allows few open files.", action="process.descriptors", connections=room, wanted=wanted)
    config = uvicorn_config(
        app.asgi,
        host,
        port,
        max_connections=room,
        keep_alive_s=settings.keep_alive_s,
        drain_s=settings.drain_timeout_s,
    )
    server = Server(config, on_drain=[app.drain])
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="oplata-http")
    try:
        await until_started(server, serving, timeout_s=START_TIMEOUT_S)
        yield url
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()


async def until_stopped(stopping: asyncio.Event, *watched: Coroutine[Any, Any, None]) -> None:
    """Wait for the event; raise what any of the watched raises before it."""
    waiting = asyncio.create_task(stopping.wait())
    tasks = [asyncio.create_task(each) for each in watched]
    try:
        done, _ = await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (waiting, *tasks):
            task.cancel()
        await asyncio.gather(waiting, *tasks, return_exceptions=True)


@contextlib.contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """A port that our processes may share, held for them meanwhile; any free one for 0. Raises ``SettingsError``."""
    with _bind(host, port, shared=True, listen=False) as holder:
        yield int(holder.getsockname()[1])


def _bind(host: str, port: int, *, shared: bool = False, listen: bool = True) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if listen:
            return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=shared)
        # Connections come only to sockets that listen; this one merely keeps the port.
        holder = socket.socket(family)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, port))
        return holder
    except OSError as error:
        raise SettingsError(
            f"Cannot listen on {host} port {port}: {(error.strerror or str(error)).lower()}. "
            "Set OPLATA_HOST and OPLATA_PORT to an address of this machine and a free port."
        ) from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # Shown as an address to connect to.
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
