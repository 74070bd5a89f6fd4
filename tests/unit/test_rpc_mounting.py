"""Where the application stands, and how it ends: under Starlette, and with a server that is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
import websockets
from starlette.applications import Starlette

from oplata.rpc import Router, RpcApp, Settings, routes
from oplata.rpc.conformance.router import conformance_router
from oplata.rpc.serving import server
from tests.rpc_conformance.processes import free_port

pytestmark = pytest.mark.anyio


def inner() -> RpcApp:
    return RpcApp(conformance_router(), Settings())


@contextlib.asynccontextmanager
async def served(rpc: RpcApp) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """A real server on a port, with the application mounted at /api/trpc."""
    port = free_port()
    app = Starlette(routes=routes("/api/trpc", rpc))
    running = server(app, [rpc], port)
    with contextlib.suppress(asyncio.CancelledError):
        task = asyncio.create_task(running._serve())
        while not running.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.01)
        try:
            yield running, port
        finally:
            running.should_exit = True
            async with asyncio.timeout(10):
                await task


async def test_it_is_mounted_in_starlette() -> None:
    async with served(inner()) as (_, port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/trpc") as client:
        assert (await client.get("/post.byId", params={"input": '"7"'})).json() == {"result": {"data": {"id": "7"}}}
        assert (await client.get("/nope")).status_code == 404
        async with websockets.connect(f"ws://127.0.0.1:{port}/api/trpc") as socket:
            await socket.send('{"id":1,"method":"query","params":{"path":"hello"}}')
            assert await socket.recv() == '{"id":1,"result":{"type":"data","data":"world"}}'


async def test_open_connections_are_told_and_do_not_hold_up_the_end() -> None:
    router, ended = Router(), asyncio.Event()

    @router.subscription
    async def wait() -> AsyncIterator[int]:
        try:
            yield 0
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with (
        served(RpcApp(router)) as (running, port),
        httpx.AsyncClient(timeout=10) as client,
        websockets.connect(f"ws://127.0.0.1:{port}/api/trpc") as socket,
    ):
        async with client.stream("GET", f"http://127.0.0.1:{port}/api/trpc/wait") as response:
            lines = response.aiter_lines()
            while await anext(lines) != "data: 0":
                pass
            running.should_exit = True
            assert [line async for line in lines if line] == []
        assert ended.is_set()
        assert await socket.recv() == '{"id":null,"method":"reconnect"}'


async def test_a_real_disconnect_ends_the_procedure() -> None:
    router, ended = Router(), asyncio.Event()

    @router.query
    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with served(RpcApp(router)) as (_, port):
        async with httpx.AsyncClient(timeout=0.2) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(f"http://127.0.0.1:{port}/api/trpc/wait")
        async with asyncio.timeout(5):
            await ended.wait()
