"""An attempt to connect that is given up, at whichever step it has come to, ends there: once, quietly, and for good."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvloop

from oplata.queue.rabbitmq.endpoint import Endpoint
from oplata.queue.rabbitmq.link import Link
from tests.services.server import free_port

TURNS = range(12)
"""Turns of the event loop, of which an attempt that is refused takes eight or so."""

LIMIT_S = 5.0
A_MOMENT_S = 0.02


class Nameless(uvloop.Loop):
    """An event loop for which no host has an address."""

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class Listener:
    """Takes connections and says nothing; ``held`` are those that are open."""

    def __init__(self) -> None:
        self.held = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.held += 1
        while await reader.read(100):
            pass
        self.held -= 1
        writer.close()


async def given_up(port: int) -> list[str]:
    """Give up one attempt at each turn of the loop; what the loop had to say of exceptions in its callbacks."""
    loop, said = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _loop, context: said.append(repr(context.get("exception"))))
    for turns in TURNS:
        link = Link(Endpoint(f"amqp://guest:guest@127.0.0.1:{port}/", heartbeat_s=5), role="test")
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT_S):
            await link.close()
        assert link.lost.done()
        await asyncio.sleep(A_MOMENT_S)
    return said


def test_an_attempt_that_is_refused() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert [] == runner.run(given_up(free_port()))


def test_an_attempt_whose_host_has_no_address() -> None:
    with asyncio.Runner(loop_factory=Nameless) as runner:
        assert [] == runner.run(given_up(free_port()))


def test_an_attempt_that_is_accepted_leaves_no_connection() -> None:
    async def accepted() -> tuple[list[str], int]:
        listener = Listener()
        async with await asyncio.start_server(listener.take, "127.0.0.1", 0) as server:
            said = await given_up(server.sockets[0].getsockname()[1])
            return said, listener.held

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert ([], 0) == runner.run(accepted())
