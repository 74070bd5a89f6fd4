"""A process that is told to stop answers whatever was sent to it before it closed its door."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from oplata.ingest.connection import AGAIN_S
from oplata.ingest.server import MARGIN_S
from tests.acceptance.command import Running, running
from tests.notifications import PASSWORD, TERMINAL_KEY, signed_by_hand

pytestmark = pytest.mark.anyio

CLIENTS = 20
PATH = "/api/tinkoff-callback"
SETTINGS = {"OPLATA_TERMINAL_KEY": TERMINAL_KEY, "OPLATA_TERMINAL_PASSWORD": PASSWORD}


def request(number: int, *, keep: bool) -> bytes:
    body = signed_by_hand(
        {"TerminalKey": TERMINAL_KEY, "OrderId": f"o{number}", "PaymentId": number, "Status": "NEW", "Success": True}
    )
    head = f"POST {PATH} HTTP/1.1\r\nHost: shop\r\nContent-Length: {len(body)}\r\n"
    return (head + ("" if keep else "Connection: close\r\n") + "\r\n").encode() + body


async def client(first: int, port: int, *, keep: bool, seen: Counter[str]) -> None:
    """Send one callback after another until nobody is there; a browser's or a bank's client would do the same."""
    for number in range(first, first + 100_000):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        with contextlib.closing(writer):
            last = False
            while not last:
                try:
                    writer.write(request(number, keep=keep))
                    await writer.drain()
                    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
                except (OSError, asyncio.IncompleteReadError) as error:
                    seen[type(error).__name__] += 1
                    return
                await reader.readexactly(2)
                seen[head.split(b"\r\n", 1)[0].decode()] += 1
                last = not keep or b"connection: close" in head.lower()
                number += 1


@pytest.mark.parametrize("keep", [True, False], ids=["on one connection", "on a new connection each"])
async def test_a_stop_under_load_resets_no_request(tmp_path: Path, keep: bool) -> None:
    with running("up", "--port", "0", cwd=tmp_path, **SETTINGS) as up:
        line = await asyncio.to_thread(up.line, "oplata up is ready at ")
        port = urlsplit(line.split()[5]).port
        assert port is not None
        seen: Counter[str] = Counter()
        clients = [
            asyncio.create_task(client(1 + each * 1_000_000, port, keep=keep, seen=seen)) for each in range(CLIENTS)
        ]
        await asyncio.sleep(1)
        up.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        code = await asyncio.to_thread(up.wait)
    assert 0 == code
    assert ["HTTP/1.1 200 OK"] == list(seen)
    assert seen.total() > CLIENTS


KEEP_ALIVE_S = 1
LONG_S = 25


@contextlib.contextmanager
def up(folder: Path, keep_alive_s: int = KEEP_ALIVE_S) -> Iterator[tuple[Running, int]]:
    with running("up", "--port", "0", cwd=folder, OPLATA_KEEP_ALIVE_S=str(keep_alive_s), **SETTINGS) as running_up:
        port = urlsplit(running_up.line("oplata up is ready at ").split()[5]).port
        assert port is not None
        yield running_up, port


class Client:
    """One connection, and what is asked over it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, number: int) -> None:
        self._writer.write(request(number, keep=True))

    async def answer(self) -> tuple[str, bool]:
        """The first line of the answer, and whether the connection may be used again."""
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 20)).decode().lower()
        await self._reader.readexactly(2)
        kept = "\r\nkeep-alive: timeout=" in head
        assert kept != ("\r\nconnection: close\r\n" in head)
        return head.partition("\r\n")[0], kept

    async def is_closed(self) -> bool:
        """Wait until the other side has closed; False when it broke the connection instead."""
        try:
            return await asyncio.wait_for(self._reader.read(), 20) == b""
        except ConnectionError:
            return False

    async def ask(self, number: int) -> tuple[str, bool]:
        self.send(number)
        return await self.answer()

    def close(self) -> None:
        self._writer.close()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield client
    finally:
        client.close()


KEPT, LAST = ("http/1.1 200 ok", True), ("http/1.1 200 ok", False)


async def test_a_connection_that_idles_through_a_stop_may_be_used_as_long_as_it_was_promised(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        process, port = stack.enter_context(up(tmp_path))
        used, left, silent = [await stack.enter_async_context(connected(port)) for _ in range(3)]
        assert [KEPT, KEPT] == [await used.ask(1), await left.ask(2)]
        told_s = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(KEEP_ALIVE_S - 0.1)
        newcomer = await stack.enter_async_context(connected(port))

        answers = [await used.ask(3), await newcomer.ask(4)]
        closed = await asyncio.gather(*(client.is_closed() for client in (used, newcomer, left, silent)))
        code = await asyncio.to_thread(process.wait)
        took_s = time.monotonic() - told_s
    assert [LAST, LAST] == answers
    assert [True] * 4 == closed
    assert (0, True) == (code, took_s > KEEP_ALIVE_S + MARGIN_S)


async def test_a_stop_with_nobody_there_is_short(tmp_path: Path) -> None:
    with up(tmp_path, LONG_S) as (process, port):
        async with connected(port) as client:
            await client.ask(1)
        told_s = time.monotonic()
        code = await asyncio.to_thread(process.stop)
        took_s = time.monotonic() - told_s
    assert (0, True) == (code, took_s < LONG_S)


async def test_a_request_that_came_while_the_process_was_frozen_is_answered(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        process, port = stack.enter_context(up(tmp_path))
        client = await stack.enter_async_context(connected(port))
        await client.ask(1)
        process.process.send_signal(signal.SIGSTOP)
        client.send(2)
        await asyncio.sleep(KEEP_ALIVE_S + MARGIN_S + 0.2)
        process.process.send_signal(signal.SIGCONT)
        answers = [await client.answer()]
        # Whoever left the connection open for that request looks at it again by now.
        await asyncio.sleep(3 * AGAIN_S)
        answers.append(await client.ask(3))
    assert [KEPT, KEPT] == answers


async def test_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        process, port = stack.enter_context(up(tmp_path, LONG_S))
        client = await stack.enter_async_context(connected(port))
        await client.ask(1)
        process.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.line, "oplata up is stopping")
        told_s = time.monotonic()
        code = await asyncio.to_thread(process.stop)
        took_s = time.monotonic() - told_s
    assert (128 + signal.SIGTERM, True) == (code, took_s < LONG_S)
    assert "oplata: left at once, as asked twice." in process.lines
