"""Calls made within one turn of the event loop leave together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from oplata.rpc.client.transport import Transport, Wanted
from oplata.rpc.errors import Unreachable


@dataclass(slots=True)
class _Waiting:
    call: Wanted
    result: asyncio.Future[Any]


class Batcher:
    """Collects calls until the loop turns, then sends them in as few requests as limits allow."""

    def __init__(
        self, transport: Transport, *, streams: bool, max_calls: int, max_url_bytes: int, batches_of_one: bool = True
    ) -> None:
        self._transport = transport
        self._batches_of_one = batches_of_one
        self._streams = streams
        self._max_calls = max_calls
        self._max_url_bytes = max_url_bytes
        self._waiting: list[_Waiting] = []
        self._requests: set[asyncio.Task[None]] = set()

    async def call(self, call: Wanted) -> Any:
        """The result of the call. If nobody waits for a request's calls any more, the request is given up."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(call, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append(waiting)
        return await waiting.result

    def _send(self) -> None:
        collected, self._waiting = self._waiting, []
        for group in self._groups(waiting for waiting in collected if not waiting.result.done()):
            task = asyncio.create_task(self._request(group))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    def _groups(self, waiting: Iterable[_Waiting]) -> Iterator[list[_Waiting]]:
        def kind(each: _Waiting) -> tuple[str, list[tuple[str, str]], float]:
            return each.call.kind, sorted(each.call.headers.items()), each.call.timeout_s

        for _, alike in groupby(sorted(waiting, key=kind), kind):
            group: list[_Waiting] = []
            for each in alike:
                calls = [member.call for member in group] + [each.call]
                is_too_long = len(self._transport.batch_url(calls)) > self._max_url_bytes
                if group and (len(calls) > self._max_calls or is_too_long):
                    yield group
                    group = []
                group.append(each)
            if group:
                yield group

    async def _request(self, group: list[_Waiting]) -> None:
        calls, results = [each.call for each in group], [each.result for each in group]
        task = asyncio.current_task()

        def given_up(_: asyncio.Future[Any]) -> None:
            if task is not None and all(result.cancelled() for result in results):
                task.cancel()

        for result in results:
            result.add_done_callback(given_up)
        send = self._transport.stream if self._streams else self._transport.batch
        try:
            if len(calls) == 1 and not self._batches_of_one:
                answer = await self._transport.single(calls[0])
                if not results[0].done():
                    results[0].set_result(answer)
            else:
                await send(calls, results)
        except Exception as error:
            for result in results:
                if not result.done():
                    result.set_exception(error)
        finally:
            for result in results:
                if not result.done():
                    result.set_exception(Unreachable("The client was closed."))

    async def close(self) -> None:
        for request in list(self._requests):
            request.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
