"""A process that is told to stop answers whatever was sent to it before it closed its door."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.command import running
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
