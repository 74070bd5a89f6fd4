"""One HTTP request from its head to the last byte of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from oplata.rpc.errors import RpcError
from oplata.rpc.http.asgi import Head, Receive, Scope, Send, read_body
from oplata.rpc.http.cors import Cors, Headers
from oplata.rpc.http.disconnect import Disconnect
from oplata.rpc.http.request import Form, Inputs, Request, read_request
from oplata.rpc.procedure import Procedure
from oplata.rpc.service import ContextRequest, Service

JSON_HEADERS: Final = ((b"content-type", b"application/json"), (b"vary", b"trpc-accept, accept"))
NOT_STREAMING: Final = "Cannot use stream-like response in non-streaming request - use httpBatchStreamLink"
# Most calls are over before watching for a disconnect would be worth a task.
WATCH_AFTER_S: Final = 0.01
# A refused stream gets an error for each call; past this many it is answered once, as no client asks for so much.
MAX_REFUSALS: Final = 1_000


@dataclass(slots=True)
class Answer:
    """One call's envelope, already JSON, with the status that it would have alone."""

    status: int
    body: bytes
    allow: str | None = None


@dataclass(slots=True)
class Exchange:
    """A request with everything that answering it takes; ``body_error`` is what its body could not be read for."""

    service: Service
    request: Request
    scope: Scope
    receive: Receive
    send: Send
    cors: Cors
    raw: bytes = b""
    body_error: RpcError | None = None
    context_request: ContextRequest | None = None
    ctx: Any = None
    context_error: Exception | None = None
    inputs: Inputs = field(init=False)

    async def prepare(self) -> None:
        """Reads the body and makes the context. What fails here is told by every call."""
        head, limits = self.request.head, self.service.settings.limits
        if head.method == "GET":
            self.raw = head.query.get("input", "").encode("utf-8", "surrogatepass")
        else:
            try:
                declared = head.headers.get("content-length")
                self.raw = await read_body(self.receive, limits.body_bytes, limits.body_timeout_s, declared)
            except RpcError as error:
                self.body_error = error
        is_sse = self.request.form is Form.SSE
        last_event_id = self.request.last_event_id if is_sse else None
        self.inputs = Inputs(self.service, self.request.content_type, self.raw, self.request.is_batch, last_event_id)

    async def make_context(self) -> None:
        head = self.request.head
        self.context_request = ContextRequest(
            transport="http",
            method=head.method,
            headers=head.headers,
            query=head.query,
            paths=self.request.paths,
            connection_params=self.request.connection_params,
            client=self.scope.get("client"),
            scope=self.scope,
        )
        try:
            self.ctx = await self.service.context(self.context_request)
        except Exception as error:
            self.context_error = error

    def callable(self, index: int) -> Procedure:
        """The procedure at this place if it may be called so; otherwise RpcError says why not."""
        procedure, path, method = self.request.procedures[index], self.request.paths[index], self.request.head.method
        if self.context_error is not None:
            raise self.context_error
        if procedure is None:
            raise RpcError("NOT_FOUND", f'No procedure found on path "{path}"')
        if method not in self.methods(procedure):
            sentence = f'Unsupported {method}-request to {procedure.kind} procedure at path "{path}"'
            raise RpcError("METHOD_NOT_SUPPORTED", sentence)
        if procedure.kind == "subscription" and self.request.form is not Form.SSE:
            raise RpcError("BAD_REQUEST", "Cannot batch subscription calls")
        if self.body_error is not None:
            raise self.body_error
        return procedure

    def methods(self, procedure: Procedure) -> tuple[str, ...]:
        if procedure.kind == "mutation":
            return ("POST",)
        return ("GET", "POST") if self.service.settings.method_override else ("GET",)

    def shape(self, error: Exception, index: int, *, named: bool = True) -> tuple[int, dict[str, Any]]:
        procedure = self.request.procedures[index]
        kind = None if procedure is None else procedure.kind
        return self.service.shape(error, self.request.paths[index] if named else None, kind, self.ctx)

    def headers(self, base: Sequence[tuple[bytes, bytes]]) -> Headers:
        made = [] if self.context_request is None else self.context_request.response_headers
        own = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in made]
        return [*base, *self.cors.answer(self.request.head.headers), *own]


async def handle(
    service: Service, cors: Cors, head: Head, scope: Scope, receive: Receive, send: Send
) -> Exchange | None:
    """Answers everything but streams; for a stream the exchange is handed back, prepared."""
    if head.method == "HEAD":
        await respond(send, 204, cors.answer(head.headers), b"")
        return None
    if head.method == "OPTIONS" and cors.origins:
        await respond(send, 204, cors.preflight(head.headers), b"")
        return None
    request = read_request(head, service)
    exchange = Exchange(service, request, scope, receive, send, cors)
    if request.form in (Form.JSONL, Form.OLD_STREAM) and request.is_batch:
        if request.refusal is None or len(request.paths) <= MAX_REFUSALS:
            return exchange
    elif request.form is Form.SSE and request.refusal is None:
        return exchange
    if request.refusal is not None:
        await _refuse(exchange, request.refusal)
        return None
    await exchange.prepare()
    async with Disconnect(receive, WATCH_AFTER_S) as disconnect:
        await exchange.make_context()
        answers = await _answers(exchange)
    if not disconnect.happened:
        await _send_answers(exchange, answers)
    return None


async def _answers(exchange: Exchange) -> list[Answer]:
    if not exchange.request.is_batch:
        return [await _call(exchange, 0)]
    if len(exchange.request.paths) == 1:
        return [await _call(exchange, 0)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_call(exchange, index)) for index in range(len(exchange.request.paths))]
    return [task.result() for task in tasks]


async def _call(exchange: Exchange, index: int) -> Answer:
    service = exchange.service
    named = True
    try:
        procedure = exchange.callable(index)
        if procedure.signature.streams:
            named = exchange.request.is_batch
            raise RpcError("UNSUPPORTED_MEDIA_TYPE", NOT_STREAMING)
        payload = await service.value(
            procedure,
            exchange.request.paths[index],
            exchange.ctx,
            lambda codec: exchange.inputs.value(index, procedure, codec),
        )
        return Answer(200, service.wire.encode(service.wire.result(payload)))
    except Exception as error:
        status, shape = exchange.shape(error, index, named=named)
        refused = exchange.request.procedures[index]
        allow = None if refused is None or status != 405 else exchange.methods(refused)[-1]
        return Answer(status, service.wire.encode(service.wire.error(shape)), allow)


async def _send_answers(exchange: Exchange, answers: list[Answer]) -> None:
    statuses = {answer.status for answer in answers}
    status = statuses.pop() if len(statuses) == 1 else 207
    headers = exchange.headers(JSON_HEADERS)
    if (allow := next((answer.allow for answer in answers if answer.allow), None)) is not None:
        headers.append((b"allow", allow.encode()))
    if status == 200 and (cache := _cache_control(exchange)) is not None:
        headers.append((b"cache-control", cache.encode("latin-1")))
    body = b",".join(answer.body for answer in answers)
    await respond(exchange.send, status, headers, b"[" + body + b"]" if exchange.request.is_batch else body)


def _cache_control(exchange: Exchange) -> str | None:
    """A batch may be kept only if all that is in it may be, and for as long as all agree on."""
    procedures = exchange.request.procedures
    given = {None if procedure is None else procedure.options.cache_control for procedure in procedures}
    return given.pop() if len(given) == 1 else None


async def _refuse(exchange: Exchange, refusal: RpcError) -> None:
    status, shape = exchange.service.shape(refusal, None)
    wire = exchange.service.wire
    await respond(exchange.send, status, exchange.headers(JSON_HEADERS), wire.encode(wire.error(shape)))


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    if status != 204:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
