"""The wire that a test may break: what passes, what does not, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.services.proxy import Proxy

pytestmark = pytest.mark.anyio
WAIT_S = 5


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that gives back what it hears. Yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1000):
                writer.write(chunk)
                await writer.drain()
        except OSError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def heard(reader: asyncio.StreamReader) -> bytes:
    """What comes next, or nothing when the wire is broken."""
    try:
        return await asyncio.wait_for(reader.read(1000), WAIT_S)
    except ConnectionError:
        return b""


async def test_what_is_stalled_arrives_after_the_wire_resumes() -> None:
    async with echo() as port, Proxy(port) as wire, client(wire.port) as (reader, writer):
        wire.stall()
        writer.write(b"late")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1000), 0.2)

        wire.resume()

        assert await heard(reader) == b"late"


async def test_a_cut_breaks_what_is_open_and_lets_in_the_next() -> None:
    async with echo() as port, Proxy(port) as wire, client(wire.port) as (reader, writer):
        writer.write(b"one")
        assert await heard(reader) == b"one"

        await wire.cut()

        assert await heard(reader) == b""
        async with client(wire.port) as (again, again_writer):
            again_writer.write(b"two")
            assert await heard(again) == b"two"


async def test_a_refusing_wire_closes_every_new_connection_until_it_resumes() -> None:
    async with echo() as port, Proxy(port) as wire:
        await wire.refuse()
        async with client(wire.port) as (reader, _):
            assert await heard(reader) == b""

        wire.resume()

        async with client(wire.port) as (reader, writer):
            writer.write(b"back")
            assert await heard(reader) == b"back"


async def test_the_last_words_of_a_side_that_closes_in_good_order_arrive() -> None:
    async with echo() as port, Proxy(port) as wire, client(wire.port) as (reader, writer):
        writer.write(b"x" * 500_000)
        received = b"".join([await reader.readexactly(1000) for _ in range(500)])

        assert len(received) == 500_000
