"""One connection from its opening to its loss. It is never reopened: ``connection.py`` makes a new one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from pika import exceptions

from oplata.queue.rabbitmq.endpoint import Endpoint
from oplata.queue.rabbitmq.wire import Wire

_OPEN_LIMIT_S = 10.0
_CLOSE_LIMIT_S = 1.5

# pika logs each failed attempt several times over, with tracebacks, at level ERROR. What matters is logged by us, once.
# Whoever debugs pika sets a level of his own.
if logging.getLogger("pika").level == logging.NOTSET:
    logging.getLogger("pika").setLevel(logging.CRITICAL)


class Link:
    """A connection. ``lost`` is done, with the reason, once it is gone; ``blocked`` while the broker has an alarm.

    ``wire`` makes pika's connection, or for a simulation something that behaves like one.
    """

    def __init__(self, endpoint: Endpoint, *, role: str, wire: Callable[..., Any] = Wire) -> None:
        loop = asyncio.get_running_loop()
        self.blocked = False
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()
        self._opened: asyncio.Future[BaseException | None] = loop.create_future()
        self.wire = wire(
            endpoint.parameters(role),
            on_open_callback=lambda _wire: _settle(self._opened, None),
            on_open_error_callback=lambda _wire, error: self._on_gone(error),
            on_close_callback=lambda _wire, error: self._on_gone(error),
            custom_ioloop=loop,
        )
        self.wire.add_on_connection_blocked_callback(lambda _wire, _frame: self._on_blocked(True))
        self.wire.add_on_connection_unblocked_callback(lambda _wire, _frame: self._on_blocked(False))
        self.on_blocked_change = _nothing

    async def opened(self) -> BaseException | None:
        """Wait until the connection is open and return ``None``, or return what went wrong."""
        await asyncio.wait({self._opened}, timeout=_OPEN_LIMIT_S)
        return self._opened.result() if self._opened.done() else TimeoutError("the connection did not open in time")

    def abort(self, reason: str) -> None:
        """Drop the connection without asking the other side, who may be gone without a word."""
        if self.lost.done() or self.wire.is_closed:
            return
        # pika has no public way to do this; its own heartbeat checker does the same.
        with contextlib.suppress(exceptions.AMQPError, AssertionError):
            self.wire._terminate_stream(exceptions.AMQPHeartbeatTimeout(reason))

    async def close(self) -> None:
        """Say goodbye within a limit, then let go."""
        with contextlib.suppress(exceptions.AMQPError):
            if not self.lost.done():
                self.wire.close()
        await asyncio.wait({self.lost}, timeout=_CLOSE_LIMIT_S)
        self.abort("the broker did not answer the goodbye")
        await asyncio.wait({self.lost}, timeout=_CLOSE_LIMIT_S)

    def _on_gone(self, error: BaseException | None) -> None:
        _settle(self._opened, error or ConnectionError("closed while opening"))
        _settle(self.lost, error)

    def _on_blocked(self, blocked: bool) -> None:
        self.blocked = blocked
        self.on_blocked_change()


async def connect(endpoint: Endpoint, *, role: str, wire: Callable[..., Any] = Wire) -> Link:
    """Open a connection, or raise ``QueueUnavailable`` with a sentence that says what to mend."""
    link = Link(endpoint, role=role, wire=wire)
    try:
        error = await link.opened()
    except BaseException:
        await link.close()
        raise
    if error is not None:
        await link.close()
        raise endpoint.explain(error)
    return link


def _settle(future: asyncio.Future[BaseException | None], result: BaseException | None) -> None:
    if not future.done():
        future.set_result(result)


def _nothing() -> None:
    return None
