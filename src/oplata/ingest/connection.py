"""One HTTP connection, with the limits that uvicorn leaves to a proxy in front of it."""

from __future__ import annotations

import asyncio
import fcntl
import termios
from typing import Any

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from oplata.ingest import answer
from oplata.ingest.callback import Callback
from oplata.ingest.exchange import Exchange

MAX_AROUND_BYTES = 64 * 1024
"""The most that one request may have beside its body: its line, headers, chunk sizes and trailers."""

MAX_PIPELINED = 64
"""How many requests may wait behind one that is being answered. More come only from someone who wishes us ill."""

HEAD_TIMEOUT_S = 10.0
"""How long a new connection, or the headers of a further request on it, may take."""

FIRST_BYTE_S = 2.0
"""How long a shutdown waits for the first byte on a connection that has said nothing yet."""

SHED_PART = 16
"""When there are too many connections, one of so many is closed, those that idle for the longest time."""

AGAIN_S = 0.05
"""How soon a connection is looked at again on which something lay that nobody had read."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection, which by itself waits for ever for headers, and keeps any number of bytes of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._around_bytes = 0
        self._head_complete = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_since_s: float | None = None
        self._made_at_s = 0.0
        prompt: tuple[bytes, Callback] | None = getattr(self.app, "prompt", None)
        self._prompt = prompt
        self._taker: Callback | None = None
        self._head: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._keeps_alive = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._made_at_s = self.loop.time()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._make_room(self.limit_concurrency)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)
        # The two know each other. Whoever ends connections by the thousand leaves the collector nothing of them.
        self.cycle = None  # type: ignore[assignment]  # As it was at first, in uvicorn too.

    def data_received(self, data: bytes) -> None:
        self._around_bytes += len(data)
        super().data_received(data)
        if self._taker is not None and not self.transport.is_closing():
            self._begin_the_long_way()
        if self._head_complete:
            self._disarm()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)
        if self._around_bytes > MAX_AROUND_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise OverflowError("too many pipelined requests")
        self._around_bytes = 0
        self._head_complete = False
        self._taker = None
        self._idle_since_s = None  # The one before may have been answered in the midst of what was read.
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        self._head_complete = True
        # What stands behind a body is the sender's word, also where a proxy vouches for the headers: nobody reads it.
        self._head, self.headers = self.headers, []
        if self._prompt is not None and self._may_be_prompt(self._prompt[0]):
            self._taker, self._keeps_alive = self._prompt[1], self.parser.should_keep_alive()
        else:
            self._begin()

    def on_body(self, body: bytes) -> None:
        self._around_bytes -= len(body)
        if self._taker is None:
            super().on_body(body)
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        taker, self._taker = self._taker, None
        if taker is None:
            super().on_message_complete()
            return
        pieces, self._pieces = self._pieces, []
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        exchange = Exchange(self, keep_alive=self._keeps_alive)
        self.cycle = exchange  # type: ignore[assignment]  # It is as much of uvicorn's as a connection looks at.
        taker.take(self.client[0] if self.client else "", self._head, body, exchange)

    def announce_the_end(self) -> None:
        """Let the answer under way be the last one, if its head has not been sent."""
        if self._answering() and not self.cycle.response_started:
            self.cycle.default_headers = self.server_state.default_headers
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Serve one more request at most: by now every answer says that it is the last on its connection."""
        if self._answering():
            super().shutdown()
        else:
            self.loop.call_later(FIRST_BYTE_S, self._leave)

    def on_response_complete(self) -> None:
        """As uvicorn's, with one timer for the connection's whole life in place of one for each of its pauses."""
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._look_whether_idle)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since_s = None

    def _look_whether_idle(self) -> None:
        """Close what has idled for too long; but after a pause of this process a request may lie there unread."""
        self.timeout_keep_alive_task = None
        if self._idle_since_s is None:
            return  # The answer under way sets the timer again.
        left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0 or self._has_unread():
            self.timeout_keep_alive_task = self.loop.call_later(max(left_s, AGAIN_S), self._look_whether_idle)
        else:
            self.timeout_keep_alive_handler()

    def _may_be_prompt(self, path: bytes) -> bool:
        """Whether this is the head of an ordinary callback, and nothing before it is still to be answered."""
        limit = self.limit_concurrency
        return (
            self.url == path
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self._answering()
            and not self.flow.write_paused
            and (limit is None or (len(self.connections) < limit and len(self.tasks) < limit))
        )

    def _begin(self) -> None:
        """Hand the request to the application, by a task, as uvicorn does."""
        url, expects = self.url, self.expect_100_continue
        super().on_message_begin()  # It makes the scope, and has not read anything yet.
        self.url, self.expect_100_continue = url, expects
        self.scope["headers"] = self._head
        super().on_headers_complete()

    def _begin_the_long_way(self) -> None:
        """The rest of this body is still on its way, and somebody has to wait for it."""
        self._taker = None
        self._begin()
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            super().on_body(piece)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # uvicorn's own answer beyond its limit on connections does not say when to come again.
        super()._start_asgi_task(cycle, _overloaded if app is service_unavailable else app)

    def _make_room(self, limit: int) -> None:
        """Close those that have asked for nothing for the longest time, so that nobody shuts others out by idling.

        Many at once, since looking for them costs the more the more there are.
        """
        idle = [
            each
            for each in self.connections
            if isinstance(each, Connection) and each is not self and not each._answering()
        ]
        # One in the midst of its headers is as old as its connection.
        idle.sort(key=lambda each: each._idle_since_s or each._made_at_s)
        for each in idle[: 1 + limit // SHED_PART]:
            # It hears of its end a turn later, and would count against the request that it makes room for until then.
            self.connections.discard(each)
            each.transport.abort()

    def _refuse_head(self) -> None:
        if self._answering():
            # An answer in the midst of another one would be neither.
            self.transport.abort()
        else:
            self.send_400_response("The headers are too long.")

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._answering():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)
        elif self._has_unread():
            self._head_timer = self.loop.call_later(AGAIN_S, self._head_is_late)
        else:
            self.transport.close()

    def _leave(self) -> None:
        if self._answering() or self.transport.is_closing():
            return
        if self._has_unread():
            self.loop.call_later(AGAIN_S, self._leave)
        else:
            self.transport.close()

    def _has_unread(self) -> bool:
        """True when bytes have come that the event loop has not delivered."""
        if self.transport.is_closing():
            return False
        count = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
        return any(count)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


async def _overloaded(_: Scope, __: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await answer.CROWDED.send(send)  # type: ignore[arg-type]  # Starlette and uvicorn name the same callable twice
