"""Subscriptions over server-sent events that go on where they were when a connection breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec

from oplata.rpc.client.backoff import Backoff
from oplata.rpc.client.document import Documents, failure
from oplata.rpc.errors import BadAnswer, RpcError, Unreachable
from oplata.rpc.tracked import Tracked

MAX_EVENT_LINES: Final = 10_000
_RETRIED: Final = -32603


@dataclass(frozen=True, slots=True)
class Event:
    """``id`` is None where the event names none, and empty where it names the empty one."""

    name: str
    data: str
    id: str | None


async def events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """Lines of an event stream put together; what is not ended by a blank line is dropped, as the standard says."""
    name, event_id, count = "", None, 0
    data: list[str] = []
    async for line in lines:
        count += 1
        if not line:
            if name or data or event_id is not None:
                yield Event(name or "message", "\n".join(data), event_id)
            name, data, event_id, count = "", [], None, 0
            continue
        if count > MAX_EVENT_LINES:
            raise BadAnswer(f"An event has more than {MAX_EVENT_LINES} lines.")
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data.append(value)
        elif key == "id" and "\0" not in value:
            event_id = value


class Returned(Exception):  # it is how a subscription ends well
    """The server ended the subscription."""


class Subscription:
    """One subscription over as many connections as it takes."""

    def __init__(
        self,
        url: str,
        http: httpx.AsyncClient,
        documents: Documents,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        backoff: Backoff,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._url = url
        self._http = http
        self._documents = documents
        self._headers = headers
        self._timeout_s = timeout_s
        self._backoff = backoff
        self._rng = rng
        self._sleep = sleep
        self._last_id: str | None = None
        self._silence_s: float | None = None
        self._failures = 0

    async def values(self) -> AsyncGenerator[Any, None]:
        """``Tracked`` for events with an id, else the bare data.

        Raises RpcError, BadAnswer, or Unreachable in the end.
        """
        while True:
            try:
                async with aclosing(self._connection()) as connection:
                    async for value in connection:
                        self._failures = 0
                        yield value
                lost: Exception = Unreachable("The connection ended before the subscription did.")
            except Returned:
                return
            except RpcError as error:
                if error.number != _RETRIED:
                    raise
                lost = error
            except (httpx.HTTPError, TimeoutError) as error:
                lost = Unreachable(f"The subscription's connection broke: {type(error).__name__}.")
                lost.__cause__ = error
            self._failures += 1
            if self._failures > self._backoff.attempts:
                raise lost
            await self._sleep(self._backoff.wait_s(self._failures, self._rng))

    async def _connection(self) -> AsyncGenerator[Any, None]:
        headers = {**self._headers, "accept": "text/event-stream"}
        if self._last_id is not None:
            headers["last-event-id"] = self._last_id
        timeout = httpx.Timeout(self._timeout_s, read=None)
        async with self._http.stream("GET", self._url, headers=headers, timeout=timeout) as response:
            await self._refuse(response)
            stream = events(response.aiter_lines())
            while True:
                async with asyncio.timeout(self._silence_s):
                    event = await anext(stream, None)
                if event is None:
                    return
                async for value in self._read(event):
                    yield value

    async def _refuse(self, response: httpx.Response) -> None:
        if response.status_code == 200 and response.headers.get("content-type", "").startswith("text/event-stream"):
            return
        body = await response.aread()
        if response.status_code >= 500:
            raise RpcError("INTERNAL_SERVER_ERROR", f"The server answered {response.status_code}.")
        self._documents.answer(self._documents.parse(body))
        raise BadAnswer("The server did not answer with an event stream.")

    async def _read(self, event: Event) -> AsyncIterator[Any]:
        if event.id:
            self._last_id = event.id
        match event.name:
            case "message":
                data = None if event.data == "undefined" else self._documents.parse(event.data)
                value = self._documents.unwrap(data)
                yield Tracked(event.id, value) if event.id else value
            case "connected":
                options = self._documents.parse(event.data or "{}")
                given = options.get("reconnectAfterInactivityMs") if isinstance(options, dict) else None
                self._silence_s = given / 1_000 if isinstance(given, int | float) and given > 0 else None
            case "serialized-error":
                raise failure(self._documents.unwrap(self._documents.parse(event.data)))
            case "return":
                raise Returned


def subscription_url(url: str, path: str, document: Any, params: Mapping[str, str] | None, documents: Documents) -> str:
    """``document`` is the input as it travels, UNSET where there is none."""
    query = []
    if params is not None:
        query.append(f"connectionParams={quote(documents.encode(params).decode(), safe='')}")
    if document is not msgspec.UNSET:
        query.append(f"input={quote(documents.encode(document).decode(), safe='')}")
    return f"{url.rstrip('/')}/{quote(path, safe='')}" + ("?" + "&".join(query) if query else "")
