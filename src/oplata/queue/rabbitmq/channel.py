"""A pika channel whose requests can be awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from pika import exceptions

from oplata.errors import QueueUnavailable
from oplata.queue.rabbitmq.link import Link

_ANSWER_LIMIT_S = 15.0
"""Long, because declaring a quorum queue on a busy cluster takes its time."""

_CLOSE_LIMIT_S = 1.5


class ChannelClosed(Exception):  # A state that was met; it never leaves this package.
    """The channel closed before the answer came. ``code`` and ``text`` are the broker's, 0 if the connection went."""

    def __init__(self, reason: BaseException | None) -> None:
        self.code: int = getattr(reason, "reply_code", 0)
        self.text: str = str(getattr(reason, "reply_text", "") or type(reason).__name__)
        super().__init__(self.text)


class Channel:
    """``closed`` is done, with the reason, once the channel is gone, whoever closed it. ``raw`` is pika's own."""

    def __init__(self, raw: Any, link: Link) -> None:
        self.raw = raw
        self.link = link
        self.closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._patience: asyncio.TimerHandle | None = None
        raw.add_on_close_callback(lambda _raw, reason: self._on_closed(reason))

    async def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Send a request and return the ``method`` of the broker's answer.

        Raises ``ChannelClosed`` when the broker closed the channel instead, and ``QueueUnavailable`` when it said
        nothing; the link is dropped then.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            method(*args, **kwargs, callback=lambda frame: _settle(answer, frame.method))
        except exceptions.AMQPError as error:
            raise ChannelClosed(error) from None
        await asyncio.wait({answer, self.closed}, timeout=_ANSWER_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if self.closed.done():
            raise ChannelClosed(self.closed.result())
        self.link.abort("the broker did not answer a request")
        raise QueueUnavailable(f"RabbitMQ did not answer a request within {_ANSWER_LIMIT_S:g} s.")

    def close(self) -> None:
        """Ask the broker to close the channel; what was delivered on it and not settled goes back to its queue."""
        with contextlib.suppress(exceptions.AMQPError):
            if not self.closed.done() and self._patience is None:
                # Whoever waits for the end of this channel must not wait on a broker that forgot it.
                loop = asyncio.get_running_loop()
                self._patience = loop.call_later(_ANSWER_LIMIT_S, self.link.abort, "the broker did not close a channel")
                self.raw.close()

    async def wait_closed(self) -> None:
        """Close, and wait for the broker's word on it within a limit."""
        self.close()
        await asyncio.wait({self.closed}, timeout=_CLOSE_LIMIT_S)

    def _on_closed(self, reason: BaseException | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        _settle(self.closed, reason)


async def open_channel(link: Link) -> Channel:
    """Open a channel on a link. Raises like ``Channel.call``."""
    opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    try:
        raw = link.wire.channel(on_open_callback=lambda _raw: _settle(opened, None))
    except exceptions.AMQPError as error:
        raise ChannelClosed(error) from None
    channel = Channel(raw, link)
    await asyncio.wait({opened, channel.closed}, timeout=_ANSWER_LIMIT_S, return_when=asyncio.FIRST_COMPLETED)
    if channel.closed.done():
        raise ChannelClosed(channel.closed.result())
    if not opened.done():
        link.abort("the broker did not open a channel")
        raise QueueUnavailable(f"RabbitMQ did not open a channel within {_ANSWER_LIMIT_S:g} s.")
    return channel


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
