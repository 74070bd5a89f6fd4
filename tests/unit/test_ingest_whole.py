"""A callback that comes as a whole is answered without a task, with the bytes that uvicorn would have written."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from uvicorn.server import ServerState

from oplata.ingest import answer
from oplata.ingest.answer import Answer
from oplata.ingest.callback import Asker, Headers
from oplata.ingest.connection import Connection
from oplata.ingest.server import uvicorn_config

pytestmark = pytest.mark.anyio

REQUEST = b"POST /api/tinkoff-callback HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n%b\r\n{}"
CLOSE = b"Connection: close\r\n"


class Transport:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False
        self.socket: socket.socket | None = None

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.socket if name == "socket" and self.socket is not None else default


class App:
    """Gives the answers in turn, to whole requests when it is told to, and to all others at once."""

    def __init__(self, *replies: Answer, takes_whole: bool = True) -> None:
        self.replies = list(replies)
        self.asked = 0
        self.whole: list[bytes] = []
        self.parts: list[bytes] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.waiting: list[Callable[[], None]] = []
        self.prompt = (b"/api/tinkoff-callback", self) if takes_whole else None

    def take(self, _peer: str, headers: Headers, body: bytes, asker: Asker) -> None:
        self.headers = list(headers)
        self.whole.append(body)
        reply = self.replies.pop(0)
        self.waiting.append(lambda: asker.answer(reply))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.headers = list(scope["headers"])
        self.parts.append(body)
        await self.replies.pop(0).send(send)

    async def answer_all(self) -> None:
        """Answer the whole requests, and let what waited behind them be answered."""
        while self.waiting:
            self.waiting.pop(0)()
            await turns()


class Hasty(App):
    """The same, but for refusals: it gives them at once."""

    def take(self, peer: str, headers: Headers, body: bytes, asker: Asker) -> None:
        refuses = self.replies[0] is not answer.OK
        super().take(peer, headers, body, asker)
        if refuses:
            self.waiting.pop()()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def connected(app: App, *headers: tuple[bytes, bytes]) -> tuple[Connection, Transport, ServerState]:
    config = uvicorn_config(cast(Any, app))
    config.load()
    state, transport = ServerState(), Transport()
    state.default_headers = [(b"date", b"Wed, 25 Nov 2026 12:00:00 GMT"), *headers]
    connection = Connection(config=config, server_state=state, app_state={})
    connection.connection_made(cast(Any, transport))
    return connection, transport, state


async def answered(app: App, request: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> Transport:
    connection, transport, _ = connected(app, *headers)
    connection.data_received(request)
    await turns()
    await app.answer_all()
    connection.connection_lost(None)
    return transport


@pytest.mark.parametrize("reply", [answer.OK, answer.NOT_AUTHENTIC, answer.UNCONFIRMED, answer.TOO_LONG])
@pytest.mark.parametrize("request_headers", [b"", CLOSE])
@pytest.mark.parametrize("server_headers", [[], [(b"connection", b"close")]])
async def test_the_bytes_are_the_same(
    reply: Answer, request_headers: bytes, server_headers: list[tuple[bytes, bytes]]
) -> None:
    request = REQUEST % request_headers
    at_once = await answered(App(reply), request, server_headers)
    in_parts = await answered(App(reply, takes_whole=False), request, server_headers)

    assert (1, 2) == (len(at_once.written), len(in_parts.written))
    assert b"".join(in_parts.written) == at_once.written[0]
    assert in_parts.closed == at_once.closed


async def test_a_whole_request_needs_no_task() -> None:
    app = App(answer.OK)
    connection, transport, state = connected(app)
    connection.data_received(REQUEST % b"")

    assert (app.whole, state.tasks, transport.written) == ([b"{}"], set(), [])
    app.waiting.pop()()
    assert len(transport.written) == 1


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST.replace(b"POST", b"PUT") % b"",
        REQUEST.replace(b"callback", b"callback?a=1") % b"",
        REQUEST.replace(b"/api", b"//api") % b"",
        REQUEST.replace(b"1.1", b"1.0") % b"",
        REQUEST % b"Expect: 100-continue\r\n",
        REQUEST.replace(b"Length: 2", b"Length: 0").replace(b"{}", b"") % b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    ],
)
async def test_what_is_unusual_goes_the_long_way(request_: bytes) -> None:
    app = App(answer.OK)
    await answered(app, request_)
    assert (app.whole, app.parts) == ([], [request_.partition(b"\r\n\r\n")[2]])


@pytest.mark.parametrize("place", range(1, len(REQUEST % b"")))
async def test_a_request_may_come_in_two_pieces_cut_anywhere(place: int) -> None:
    request, app = REQUEST % b"", App(answer.OK)
    connection, transport, _ = connected(app)
    connection.data_received(request[:place])
    await turns()
    connection.data_received(request[place:])
    await turns()
    await app.answer_all()

    assert [b"{}"] == app.whole + app.parts
    assert b"".join(transport.written).endswith(b"\r\n\r\nOK")


async def test_a_chunked_body_that_is_there_is_whole_too() -> None:
    app = App(answer.OK)
    chunks = b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
    await answered(
        app, b"POST /api/tinkoff-callback HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    )
    assert app.whole == [b"{}"]


@pytest.mark.parametrize("takes_whole", [True, False])
async def test_what_follows_a_body_is_no_header(takes_whole: bool) -> None:
    """A proxy writes what it vouches for into the headers, and hands on what a sender writes behind the body."""
    app = App(answer.OK, takes_whole=takes_whole)
    head = b"POST /api/tinkoff-callback HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    await answered(app, head + b"2\r\n{}\r\n0\r\nX-Forwarded-For: 91.194.226.1\r\nContent-Encoding: gzip\r\n\r\n")
    assert app.headers == [(b"transfer-encoding", b"chunked")]
    assert app.whole + app.parts == [b"{}"]


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    app = App(answer.OK, answer.NOT_AUTHENTIC, answer.OK)
    connection, transport, _ = connected(app)
    connection.data_received(REQUEST % b"" * 2)
    await turns()
    assert transport.written == []
    await app.answer_all()
    connection.data_received(REQUEST % b"")
    await app.answer_all()

    statuses = [piece[9:12] for piece in transport.written if piece.startswith(b"HTTP")]
    assert statuses == [b"200", b"403", b"200"]
    assert (len(app.whole), len(app.parts)) == (2, 1)


async def test_whoever_hung_up_is_not_written_to() -> None:
    app = App(answer.OK)
    connection, transport, _ = connected(app)
    connection.data_received(REQUEST % b"")
    connection.connection_lost(ConnectionResetError())
    await app.answer_all()
    assert transport.written == []


async def test_a_connection_that_is_being_closed_is_not_written_to() -> None:
    app = App(answer.OK)
    connection, transport, _ = connected(app)
    connection.data_received(REQUEST % b"")
    connection.data_received(b"nonsense\r\n\r\n")
    refused = list(transport.written)
    await app.answer_all()
    assert (len(refused), transport.closed) == (1, True)
    assert transport.written == refused


async def test_who_does_not_read_the_answers_is_waited_for() -> None:
    app = App(answer.OK)
    connection, transport, _ = connected(app)
    connection.pause_writing()
    connection.data_received(REQUEST % b"")
    await turns()
    assert (app.whole, transport.written) == ([], [])
    connection.resume_writing()
    await turns()
    assert b"".join(transport.written).endswith(b"\r\n\r\nOK")


async def test_beyond_the_limit_of_connections_nothing_is_taken() -> None:
    app = App(answer.OK)
    connection, transport, _ = connected(app)
    connection.limit_concurrency = 1
    connection.data_received(REQUEST % b"")
    await turns()
    assert (app.whole, app.asked) == ([], 0)
    assert transport.written[0].startswith(b"HTTP/1.1 503")


async def test_what_leads_to_an_answer_later_is_a_task_that_the_server_waits_for() -> None:
    class Waiting(App):
        def take(self, _peer: str, _headers: Headers, _body: bytes, asker: Asker) -> None:
            asker.spawn(self.later(asker))

        async def later(self, asker: Asker) -> None:
            await asyncio.sleep(0)
            asker.answer(answer.UNCONFIRMED)

    connection, transport, state = connected(Waiting())
    connection.data_received(REQUEST % b"")
    assert len(state.tasks) == 1
    await turns()
    assert (len(transport.written), state.tasks) == (1, set())


async def test_a_drain_that_begins_meanwhile_makes_the_answer_the_last_one() -> None:
    app = App(answer.OK)
    connection, transport, state = connected(app)
    connection.data_received(REQUEST % b"")
    state.default_headers = [*state.default_headers, (b"connection", b"close")]
    connection.announce_the_end()
    await app.answer_all()
    assert b"connection: close" in transport.written[0]
    assert transport.closed


async def test_a_body_that_breaks_off_wrongly_is_taken_by_nobody() -> None:
    app = App(answer.OK)
    head = b"POST /api/tinkoff-callback HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n"
    transport = await answered(app, head + b"1\r\n{\r\nzz\r\n")
    assert (app.whole, app.asked) == ([], 0)
    assert b"400" in transport.written[0]


async def test_a_request_is_answered_once() -> None:
    app = App(answer.OK)
    connection, transport, state = connected(app)
    connection.data_received(REQUEST % b"")
    tell = app.waiting.pop()
    tell()
    app.replies.append(answer.FAILED)
    tell()
    assert len(transport.written) == 1
    assert state.total_requests == 1


async def test_a_connection_stays_while_a_request_waits_that_was_sent_behind_one_that_was_refused() -> None:
    """The refusal begins the time that the connection may idle, and the next request ends it."""
    app = Hasty(answer.NOT_AUTHENTIC, answer.OK)
    connection, transport, _ = connected(app)
    connection.timeout_keep_alive = cast(Any, 0.05)
    transport.socket, other = socket.socketpair()
    with transport.socket, other:
        connection.data_received(REQUEST % b"" * 2)
        await asyncio.sleep(0.15)
        assert (len(transport.written), transport.closed) == (1, False)
        await app.answer_all()
        assert transport.written[1].endswith(b"OK")
        await asyncio.sleep(0.15)
        assert transport.closed


async def test_nothing_of_a_request_is_kept_when_it_was_answered() -> None:
    app = App(answer.OK)
    connection, _, _ = connected(app)
    connection.data_received(REQUEST % b"")
    await app.answer_all()
    assert sys.getrefcount(app.whole[0]) == sys.getrefcount(app.parts)  # Held by the list, as that is by the app.
    assert connection.transport is not None


async def test_a_connection_that_is_gone_leaves_nothing_to_the_collector() -> None:
    """It is told to look seldom, since requests leave no cycles behind them."""
    app = App(answer.OK)
    connection, transport, state = connected(app)
    connection.data_received(REQUEST % b"")
    await app.answer_all()
    connection.connection_lost(None)
    gone = weakref.ref(connection)
    gc.disable()
    try:
        del connection, transport, state
        await turns()
        assert gone() is None
    finally:
        gc.enable()
