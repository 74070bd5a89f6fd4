"""One request that came as a whole, and its answer: what uvicorn's cycle is, without a scope, an event and a task."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import lru_cache
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from oplata.ingest.answer import Answer

if TYPE_CHECKING:
    from oplata.ingest.connection import Connection

Headers = tuple[tuple[bytes, bytes], ...]


class _Nobody:
    """An event that nobody waits for."""

    def set(self) -> None:
        pass


class Exchange:
    """Stands where uvicorn's connection has its cycle, with what it looks at there; and asks for one answer."""

    __slots__ = ("_connection", "default_headers", "disconnected", "keep_alive", "response_complete")

    response_started = False
    message_event = _Nobody()

    def __init__(self, connection: Connection, *, keep_alive: bool) -> None:
        self._connection = connection
        self.default_headers = connection.server_state.default_headers
        self.disconnected = False
        self.keep_alive = keep_alive
        self.response_complete = False

    def answer(self, reply: Answer) -> None:
        """Write the answer in one piece. A client that is gone by now is nobody's fault."""
        if self.response_complete:
            return  # A second one would pass for the answer to the next request.
        connection = self._connection
        self.response_complete = True
        if self.disconnected or connection.transport.is_closing():
            return
        head, closes = _head(reply.status, (*self.default_headers, *reply.headers))
        closes_late = not self.keep_alive and not closes
        end = b"connection: close\r\n\r\n" if closes_late else b"\r\n"
        connection.transport.write(b"".join((head, end, reply.body)))
        if closes or closes_late:
            connection.transport.close()
        connection.on_response_complete()

    def spawn(self, answering: Coroutine[object, object, None]) -> None:
        """Run this in a task of the server's, which waits for it when it stops, and cancels it in the end."""
        tasks = self._connection.tasks
        task = self._connection.loop.create_task(answering)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


@lru_cache(maxsize=64)
def _head(status: int, headers: Headers) -> tuple[bytes, bool]:
    """The response's head but for its end, and whether it closes the connection. The date in it changes each second."""
    lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in headers)]
    return b"".join(lines), (b"connection", b"close") in headers
