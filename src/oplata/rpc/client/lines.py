"""The answer of a streamed batch, read line by line as its results come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from oplata.rpc.client.document import Documents, failure
from oplata.rpc.errors import BadAnswer, Unreachable
from oplata.rpc.jsonl import Chunk, Status

# Values of one iterable that wait for their reader; then the whole answer waits.
MAX_WAITING: Final = 1_000
_CUT: Final = "The stream was cut off before its end."


class Hydrator:
    """Gives each call its promise, and fills promises and iterables as their chunks arrive."""

    def __init__(self, documents: Documents, calls: int) -> None:
        self._documents = documents
        self._calls = calls
        self._promises: dict[int, asyncio.Future[Any]] = {}
        self._queues: dict[int, asyncio.Queue[tuple[int, Any]]] = {}
        self.envelopes: list[asyncio.Future[Any]] | None = None

    async def line(self, raw: str) -> None:
        """Takes one line; pings are blank. Raises BadAnswer for what is no part of such a stream."""
        if not raw.strip():
            return
        document = self._documents.unwrap(self._documents.parse(raw))
        if self.envelopes is None:
            self._head(document)
        elif isinstance(document, list) and len(document) >= 2:
            await self._chunk(document)
        else:
            raise BadAnswer

    def _head(self, head: Any) -> None:
        if not isinstance(head, dict) or not all(str(index) in head for index in range(self._calls)):
            raise BadAnswer("The stream does not begin with a promise for every call.")
        self.envelopes = []
        for index in range(self._calls):
            value = self._hydrate(head[str(index)])
            if not isinstance(value, asyncio.Future):
                ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                ready.set_result(value)
                value = ready
            self.envelopes.append(value)

    async def _chunk(self, document: list[Any]) -> None:
        number, status, *rest = document
        content = rest[0] if rest else None
        if (queue := self._queues.get(number)) is not None:
            value = failure(content) if status == Status.FAILED else self._hydrate(content)
            await queue.put((status, value))
            if status != Status.YIELD:
                del self._queues[number]
        elif (promise := self._promises.pop(number, None)) is not None and not promise.done():
            if status == Status.DONE:
                promise.set_result(self._hydrate(content))
            else:
                promise.set_exception(failure(content))

    def _hydrate(self, parts: Any) -> Any:
        """``[[value], [key, kind, number], ...]``: a value in which some members are promised."""
        if not isinstance(parts, list) or not parts or not isinstance(parts[0], list):
            raise BadAnswer
        value: Any = parts[0][0] if parts[0] else None
        for key, kind, number in parts[1:]:
            promised = self._promise(number) if kind == Chunk.PROMISE else self._iterable(number)
            if key is None:
                value = promised
            else:
                value[key] = promised
        return value

    def _promise(self, number: int) -> asyncio.Future[Any]:
        promise: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Nobody may ever ask for a promise inside a value; its failure is then nobody's business.
        promise.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._promises[number] = promise
        return promise

    def _iterable(self, number: int) -> AsyncIterator[Any]:
        queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(MAX_WAITING)
        self._queues[number] = queue
        return _values(queue)

    def end(self, error: BaseException | None) -> None:
        """Fails whatever is still promised."""
        cause = error if isinstance(error, Exception) else Unreachable(_CUT)
        for promise in self._promises.values():
            if not promise.done():
                promise.set_exception(cause)
        for queue in self._queues.values():
            if queue.full():
                queue.get_nowait()
            queue.put_nowait((Status.FAILED, cause))
        self._promises.clear()
        self._queues.clear()


async def _values(queue: asyncio.Queue[tuple[int, Any]]) -> AsyncIterator[Any]:
    while True:
        status, value = await queue.get()
        if status == Status.FAILED:
            raise value
        if status == Status.DONE:
            return
        yield await settled(value)


async def settled(value: Any) -> Any:
    """A promise's value; any other value as it is."""
    while isinstance(value, asyncio.Future):
        value = await value
    return value


async def envelope_of(promise: asyncio.Future[Any]) -> Any:
    """The envelope with its result and its data, both of which may come later than the envelope itself."""
    envelope = await settled(promise)
    if isinstance(envelope, dict) and "result" in envelope:
        result = await settled(envelope["result"])
        if isinstance(result, dict) and "data" in result:
            return {"result": {"data": await settled(result["data"])}}
        return {"result": {}}
    return envelope


def plain(envelope: Any) -> Any:
    """The data of an envelope whose line was unwrapped as a whole. Raises the error that it holds."""
    if isinstance(envelope, dict) and "error" in envelope:
        raise failure(envelope["error"])
    if isinstance(envelope, dict) and isinstance(envelope.get("result"), dict):
        data = envelope["result"].get("data")
        return None if data is msgspec.UNSET else data
    raise BadAnswer
