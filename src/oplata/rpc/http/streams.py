"""Answers that come piece by piece: lines of a streamed batch, and events of a subscription."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final, TypeAlias

from oplata.rpc import sse
from oplata.rpc.caller import close
from oplata.rpc.errors import RpcError
from oplata.rpc.http.disconnect import Disconnect
from oplata.rpc.http.handler import JSON_HEADERS, Exchange
from oplata.rpc.http.request import Form
from oplata.rpc.jsonl import PING, Lines, OldLines
from oplata.rpc.procedure import Procedure
from oplata.rpc.pump import SILENCE, Producer, Pump, Put
from oplata.rpc.spout import Spout
from oplata.rpc.tracked import Tracked

# Entered for as long as the stream is open, so that the server can end it when it shuts down.
Register: TypeAlias = Callable[[Spout], AbstractContextManager[None]]

OLD_HEADERS: Final = ((b"content-type", b"application/json"), (b"vary", b"trpc-batch-mode"))


async def stream(exchange: Exchange, register: Register, *, is_full: bool) -> None:
    """Answers with a stream until it ends, its client leaves or the server shuts down."""
    if exchange.request.refusal is None:
        await exchange.prepare()
    async with Disconnect(exchange.receive, 0.0):
        if exchange.request.refusal is None:
            await exchange.make_context()
        match exchange.request.form:
            case Form.SSE:
                await _subscription(exchange, register, is_full)
            case Form.OLD_STREAM:
                await _old_batch(exchange)
            case _:
                await _batch(exchange)


async def _start(exchange: Exchange, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    await exchange.send({"type": "http.response.start", "status": 200, "headers": exchange.headers(headers)})


def _chunk(exchange: Exchange, body: bytes, *, more: bool = True) -> Awaitable[None]:
    return exchange.send({"type": "http.response.body", "body": body, "more_body": more})


async def _pour(exchange: Exchange, producers: list[Producer], ping: bytes) -> None:
    """Sends what the producers make, a ping after silence."""
    settings = exchange.service.settings
    async with Pump(producers, settings.limits.stream_chunks) as pump:
        while (chunk := await pump.next(settings.jsonl_ping_s)) is not None:
            await _chunk(exchange, ping if chunk is SILENCE else chunk)


def _callable(exchange: Exchange, index: int) -> Procedure:
    if exchange.request.refusal is not None:
        raise exchange.request.refusal
    return exchange.callable(index)


async def _invoke(exchange: Exchange, index: int, procedure: Procedure) -> Any:
    path = exchange.request.paths[index]
    return await procedure.invoke(exchange.ctx, path, lambda codec: exchange.inputs.value(index, procedure, codec))


async def _batch(exchange: Exchange) -> None:
    count = len(exchange.request.paths)
    lines = Lines(exchange.service.wire, count)
    await _start(exchange, JSON_HEADERS)
    await _chunk(exchange, lines.head())
    producers: list[Producer] = [_line_producer(exchange, lines, index) for index in range(count)]
    await _pour(exchange, producers, PING)
    await _chunk(exchange, b"", more=False)


def _line_producer(exchange: Exchange, lines: Lines, index: int) -> Producer:
    async def produce(put: Put) -> None:
        try:
            procedure = _callable(exchange, index)
            outcome = await _invoke(exchange, index, procedure)
            if not procedure.signature.streams:
                await put(lines.result(index, exchange.service.wire.payload(procedure, outcome)))
                return
        except Exception as error:
            await put(lines.error(index, exchange.shape(error, index)[1]))
            return
        number, promised = lines.stream(index)
        await put(promised)
        await _values(exchange, lines, index, procedure, number, outcome, put)

    return produce


async def _values(
    exchange: Exchange, lines: Lines, index: int, procedure: Procedure, number: int, items: Any, put: Put
) -> None:
    try:
        async for item in items:
            await put(lines.value(number, exchange.service.item(procedure, item)[1]))
        await put(lines.end(number))
    except Exception as error:
        await put(lines.failure(number, exchange.shape(error, index)[1]))
    finally:
        await close(items)


async def _old_batch(exchange: Exchange) -> None:
    service = exchange.service
    lines = OldLines(service.wire)

    def producer(index: int) -> Producer:
        async def produce(put: Put) -> None:
            try:
                procedure = _callable(exchange, index)
                if procedure.signature.streams:
                    raise RpcError("UNSUPPORTED_MEDIA_TYPE", "Clients of v10 cannot read streamed values")
                outcome = await _invoke(exchange, index, procedure)
                envelope = service.wire.result(service.wire.payload(procedure, outcome))
            except Exception as error:
                envelope = service.wire.error(exchange.shape(error, index)[1])
            await put(lines.answer(index, envelope))

        return produce

    await _start(exchange, OLD_HEADERS)
    producers = [producer(index) for index in range(len(exchange.request.paths))]
    await _pour(exchange, producers, PING)
    await _chunk(exchange, lines.end(), more=False)


async def _subscription(exchange: Exchange, register: Register, is_full: bool) -> None:
    settings = exchange.service.settings.sse
    events = sse.Events(exchange.service.wire, exchange.request.last_event_id)
    await _start(exchange, (*sse.HEADERS, (b"vary", b"trpc-accept, accept")))
    await _chunk(exchange, events.connected(settings.reconnect_after_inactivity_s))
    produce = _event_producer(exchange, events, is_full)
    async with Spout(produce, partial(_chunk, exchange), exchange.service.settings.limits.stream_chunks) as spout:
        with register(spout):
            await spout.until_ended(settings.ping_s, sse.PING, settings.max_duration_s)
    await _chunk(exchange, b"", more=False)


def _event_producer(exchange: Exchange, events: sse.Events, is_full: bool) -> Producer:
    async def produce(put: Put) -> None:
        items: Any = None
        try:
            if is_full:
                # Its number makes the client come again; a status other than 200 would make it give up.
                raise RpcError("SERVICE_UNAVAILABLE", "Too many connections")
            procedure = exchange.callable(0)
            if not exchange.service.settings.sse.enabled:
                raise RpcError("METHOD_NOT_SUPPORTED", "Subscriptions over HTTP are not enabled on the server")
            items = await _invoke(exchange, 0, procedure)
            service, ends_after_first = exchange.service, exchange.service.settings.sse.end_after_first
            async for item in items:
                event = service.event(procedure, item, events.value)
                if isinstance(item, Tracked):
                    events.last_id = item.id
                await put(event)
                if ends_after_first:
                    return
            await put(sse.RETURN)
        except Exception as error:
            await put(events.failure(exchange.shape(error, 0)[1]))
        finally:
            if items is not None:
                await close(items)

    return produce
