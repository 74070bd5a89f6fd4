"""What our server writes in one piece are the bytes that uvicorn would have written in two."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.server import ServerState

from oplata.ingest import answer
from oplata.ingest.answer import Answer
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

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default


async def answered(reply: Answer, request: bytes, *, whole: bool, headers: list[tuple[bytes, bytes]]) -> Transport:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await reply.send(send, scope if whole else None)

    config = uvicorn_config(app)
    config.load()
    state, transport = ServerState(), Transport()
    state.default_headers = [(b"date", b"Wed, 25 Nov 2026 12:00:00 GMT"), *headers]
    connection = Connection(config=config, server_state=state, app_state={})
    connection.connection_made(transport)  # type: ignore[arg-type]
    connection.data_received(request)
    await asyncio.wait(state.tasks)
    connection.connection_lost(None)
    return transport


@pytest.mark.parametrize("reply", [answer.OK, answer.NOT_AUTHENTIC, answer.UNCONFIRMED, answer.TOO_LONG])
@pytest.mark.parametrize("request_headers", [b"", CLOSE])
@pytest.mark.parametrize("server_headers", [[], [(b"connection", b"close")]])
async def test_the_bytes_are_the_same(
    reply: Answer, request_headers: bytes, server_headers: list[tuple[bytes, bytes]]
) -> None:
    request = REQUEST % request_headers
    at_once = await answered(reply, request, whole=True, headers=server_headers)
    in_parts = await answered(reply, request, whole=False, headers=server_headers)

    assert (1, 2) == (len(at_once.written), len(in_parts.written))
    assert b"".join(in_parts.written) == at_once.written[0]
    assert in_parts.closed == at_once.closed
