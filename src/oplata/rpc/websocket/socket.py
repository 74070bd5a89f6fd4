"""One WebSocket: its context, its calls under way, and its end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import msgspec

from oplata.rpc.caller import close
from oplata.rpc.errors import ConnectionDropped, RpcError
from oplata.rpc.http.asgi import Head, Message, Receive, Scope, Send
from oplata.rpc.http.request import checked_params
from oplata.rpc.procedure import Procedure
from oplata.rpc.service import ContextRequest, Service
from oplata.rpc.websocket.message import Ask, RequestId, Stop, read, read_params, split

TOO_BIG: Final = 1009
FAILED: Final = 1011
RESTART: Final = 1012
TRY_LATER: Final = 1013
RECONNECT: Final = '{"id":null,"method":"reconnect"}'


class Socket:
    """Reads messages until the client leaves; every call is a task, and no more than the limit are under way."""

    def __init__(self, service: Service, head: Head, scope: Scope, receive: Receive, send: Send) -> None:
        self._service = service
        self._head = head
        self._scope = scope
        self._receive = receive
        self._send = send
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: dict[RequestId, asyncio.Task[None]] = {}
        self._heard = asyncio.Event()
        self._ctx: Any = None
        self._closed = False

    async def run(self) -> None:
        """Serves the connection from its handshake to its end. Never raises for what the client did."""
        await self._receive()
        await self._send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        with contextlib.suppress(_Left):
            if await self._open():
                keeper = self._keep_alive()
                try:
                    while True:
                        await self._heed(await self._text())
                finally:
                    for task in [*self._tasks, *keeper]:
                        task.cancel()
                    await asyncio.gather(*self._tasks, *keeper, return_exceptions=True)

    async def notify_reconnect(self) -> None:
        """Asks the client to open another connection, which will take over its subscriptions."""
        await self._say(RECONNECT)

    async def _open(self) -> bool:
        limits = self._service.settings.limits
        try:
            params = None
            if self._head.query.get("connectionParams") == "1":
                async with asyncio.timeout(limits.connection_params_timeout_s):
                    params = checked_params(read_params(await self._text()))
            request = ContextRequest(
                transport="websocket",
                method="GET",
                headers=self._head.headers,
                query=self._head.query,
                paths=(),
                connection_params=params,
                client=self._scope.get("client"),
                scope=self._scope,
            )
            self._ctx = await self._service.context(request)
        except TimeoutError:
            await self._close(FAILED)
            return False
        except Exception as error:
            await self._fail(None, error, None)
            await self._close(FAILED)
            return False
        return True

    def _keep_alive(self) -> list[asyncio.Task[None]]:
        if self._service.settings.keep_alive is None:
            return []
        return [asyncio.create_task(self._ask_for_life())]

    async def _ask_for_life(self) -> None:
        keep_alive = self._service.settings.keep_alive
        while keep_alive is not None and not self._closed:
            await asyncio.sleep(keep_alive.ping_s)
            self._heard.clear()
            try:
                async with asyncio.timeout(keep_alive.pong_s):
                    await self._say("PING")
                    await self._heard.wait()
            except TimeoutError:
                await self._close(FAILED)

    async def _text(self) -> str:
        while True:
            message: Message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._closed = True
                raise _Left
            text = message.get("text")
            if text is None:
                text = bytes(message.get("bytes") or b"").decode("utf-8", "replace")
            if len(text) > self._service.settings.limits.socket_message_bytes:
                await self._close(TOO_BIG)
                raise _Left
            self._heard.set()
            if text == "PING":
                await self._say("PONG")
            elif text != "PONG":
                return str(text)

    async def _heed(self, text: str) -> None:
        try:
            messages = split(text)
            if len(messages) > self._service.settings.limits.batch_calls:
                raise RpcError("BAD_REQUEST", "Batch call exceeds maximum size")
            for raw in messages:
                try:
                    await self._start(read(raw))
                except RpcError as error:
                    await self._fail(None, error, None)
        except RpcError as error:
            await self._fail(None, error, None)

    async def _start(self, message: Ask | Stop) -> None:
        if isinstance(message, Stop):
            if (running := self._subscriptions.get(message.id)) is not None:
                running.cancel()
            return
        if message.id in self._subscriptions:
            await self._fail(message, RpcError("BAD_REQUEST", f"Duplicate id {message.id}"), message.path)
            return
        if len(self._tasks) >= self._service.settings.limits.socket_calls:
            sentence = "Too many calls are under way on this connection"
            await self._fail(message, RpcError("TOO_MANY_REQUESTS", sentence), message.path)
            return
        task = asyncio.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if message.kind == "subscription":
            self._subscriptions[message.id] = task

    async def _answer(self, ask: Ask) -> None:
        try:
            procedure = self._procedure(ask)
            if ask.kind == "subscription":
                await self._subscribe(ask, procedure)
                return
            payload = await self._service.value(procedure, ask.path, self._ctx, lambda _: self._input(ask, procedure))
            result = {"type": "data"} | self._service.wire.result(payload)["result"]
            await self._reply(ask, {"result": result})
        except Exception as error:
            await self._fail(ask, error, ask.path)
        finally:
            # The id may have been given to a newer subscription by now.
            if self._subscriptions.get(ask.id) is asyncio.current_task():
                del self._subscriptions[ask.id]

    def _procedure(self, ask: Ask) -> Procedure:
        procedure = self._service.procedures.get(ask.path)
        if procedure is None or procedure.kind != ask.kind:
            raise RpcError("NOT_FOUND", f'No "{ask.kind}"-procedure on path "{ask.path}"')
        if procedure.signature.streams and ask.kind != "subscription":
            sentence = f"Cannot return an async iterable or observable from a {ask.kind} procedure with WebSockets"
            raise RpcError("UNSUPPORTED_MEDIA_TYPE", sentence)
        return procedure

    def _input(self, ask: Ask, procedure: Procedure) -> Any:
        return self._service.input(procedure, ask.raw, ask.last_event_id)

    async def _subscribe(self, ask: Ask, procedure: Procedure) -> None:
        items: Any = await procedure.invoke(self._ctx, ask.path, lambda _: self._input(ask, procedure))
        try:
            await self._reply(ask, {"result": {"type": "started"}})
            try:
                async for item in items:
                    await self._reply(ask, {"result": self._event(procedure, item)})
            except Exception as error:
                await self._fail(ask, error, ask.path)
            except ConnectionDropped:
                await self._close(FAILED)
                return
        except asyncio.CancelledError:
            # Stopped by its client, which is told so, or ended together with the connection, which hears nothing.
            if self._closed:
                raise
        finally:
            await close(items)
        await self._reply(ask, {"result": {"type": "stopped"}})

    def _event(self, procedure: Procedure, item: Any) -> dict[str, Any]:
        event_id, payload = self._service.item(procedure, item)
        wire = self._service.wire
        if event_id is None:
            return {"type": "data", **wire.result(payload)["result"]}
        tracked = {"id": event_id} | ({} if payload is msgspec.UNSET else {"data": payload})
        return {"type": "data", "data": wire.wrap(tracked), "id": event_id}

    async def _fail(self, ask: Ask | None, error: Exception, path: str | None) -> None:
        kind = None if ask is None else ask.kind
        shape = self._service.shape(error, path, kind, self._ctx)[1]
        await self._reply(ask, self._service.wire.error(shape))

    async def _reply(self, ask: Ask | None, answer: dict[str, Any]) -> None:
        named: dict[str, Any] = {"id": None if ask is None else ask.id}
        if ask is not None and ask.jsonrpc:
            named["jsonrpc"] = "2.0"
        await self._say(self._service.wire.encode(named | answer).decode())

    async def _say(self, text: str) -> None:
        """One message at a time; a client that does not read makes its own calls wait. The connection may be gone."""
        async with self._sending:
            if self._closed:
                return
            try:
                await self._send({"type": "websocket.send", "text": text})
            except (OSError, RuntimeError):
                self._closed = True

    async def _close(self, code: int) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError, RuntimeError):
            await self._send({"type": "websocket.close", "code": code})


class _Left(Exception):
    """The client is gone."""


async def turn_away(receive: Receive, send: Send) -> None:
    """Says that there are too many connections, in the way that makes clients come again later."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    await send({"type": "websocket.close", "code": TRY_LATER})
