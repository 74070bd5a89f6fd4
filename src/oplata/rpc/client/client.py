"""The client as its users see it: attributes for paths, and three verbs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal

import httpx
import msgspec

from oplata.rpc.client.backoff import Backoff
from oplata.rpc.client.batching import Batcher
from oplata.rpc.client.document import Documents, returned
from oplata.rpc.client.events import Subscription, subscription_url
from oplata.rpc.client.transport import Transport, Wanted
from oplata.rpc.errors import Unreachable
from oplata.rpc.forms import FormData, Octets
from oplata.rpc.middleware import Kind
from oplata.rpc.naming import camel
from oplata.rpc.tracked import Tracked
from oplata.rpc.wire import Transformer

Mode = Literal["single", "batch", "stream"]
MAX_CALLS = 50
MAX_URL_BYTES = 4_000


@dataclass(frozen=True, slots=True)
class _Options:
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0
    returns: Any | None = None


class Client:
    """A tRPC server by its URL, the part before the procedures' names.

    ``mode`` says how queries and mutations travel: "batch" sends what is called within one turn of the event loop
    together, "stream" does too and has each result as soon as it is there, "single" sends each by itself. Without
    ``batches_of_one`` a call that is by itself in a batch is sent as "single" would. ``http``
    may be given and is then not closed here. ``headers`` may be a function, asked for each call.
    ``connection_params`` go with subscriptions. Every failure is an RpcError, an Unreachable or a BadAnswer.
    """

    def __init__(
        self,
        url: str,
        *,
        http: httpx.AsyncClient | None = None,
        mode: Mode = "batch",
        transformer: Transformer = "none",
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        timeout_s: float = 30.0,
        max_calls: int = MAX_CALLS,
        max_url_bytes: int = MAX_URL_BYTES,
        batches_of_one: bool = True,
        connection_params: Mapping[str, str] | None = None,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._owns_http = http is None
        self._http = http or httpx.AsyncClient()
        self._documents = Documents(transformer)
        self._transport = Transport(url, self._http, self._documents)
        self._mode: Mode = mode
        self._batcher = Batcher(
            self._transport,
            streams=mode == "stream",
            max_calls=max_calls,
            max_url_bytes=max_url_bytes,
            batches_of_one=batches_of_one,
        )
        self._headers = headers or {}
        self._options = _Options(timeout_s=timeout_s)
        self._connection_params = connection_params
        self._backoff = backoff or Backoff()
        self._rng = rng or random.Random()  # noqa: S311  # it spreads clients over time and guards nothing
        self._sleep = sleep

    def __getattr__(self, name: str) -> Remote:
        if name.startswith("_"):
            raise AttributeError(name)
        return Remote(self, camel(name), self._options)

    def __getitem__(self, path: str) -> Remote:
        """A procedure by its exact path, for names that Python cannot write."""
        return Remote(self, path, self._options)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Gives up what is under way. Call it, or use ``async with``."""
        await self._batcher.close()
        if self._owns_http:
            await self._http.aclose()

    async def _call(self, kind: Kind, path: str, value: Any, options: _Options) -> Any:
        call = Wanted(kind, path, value, self._all_headers(options), options.timeout_s)
        is_alone = self._mode == "single" or isinstance(value, FormData | Octets)
        try:
            async with asyncio.timeout(options.timeout_s):
                answer = await (self._transport.single(call) if is_alone else self._batcher.call(call))
        except TimeoutError:
            raise Unreachable(f"{path} was not answered within {options.timeout_s} s.") from None
        return returned(answer, options.returns)

    async def _subscribe(self, path: str, value: Any, options: _Options) -> AsyncGenerator[Any, None]:
        document = self._documents.input(value)
        subscription = Subscription(
            subscription_url(self._url, path, document, self._connection_params, self._documents),
            self._http,
            self._documents,
            headers=self._all_headers(options),
            timeout_s=options.timeout_s,
            backoff=self._backoff,
            rng=self._rng,
            sleep=self._sleep,
        )
        async with aclosing(subscription.values()) as events:
            async for event in events:
                if isinstance(event, Tracked):
                    yield Tracked(event.id, returned(event.data, options.returns))
                else:
                    yield returned(event, options.returns)

    def _all_headers(self, options: _Options) -> Mapping[str, str]:
        given = self._headers() if callable(self._headers) else self._headers
        return {**given, **options.headers}


class Remote:
    """A path on the server. Attributes go deeper, calling sets options, the verbs call.

    The input is one positional value, or keywords, which become an object's fields in camelCase.
    """

    def __init__(self, client: Client, path: str, options: _Options) -> None:
        self._client = client
        self._path = path
        self._options = options

    def __getattr__(self, name: str) -> Remote:
        if name.startswith("__"):
            raise AttributeError(name)
        return Remote(self._client, f"{self._path}.{camel(name)}", self._options)

    def __call__(
        self, *, returns: Any | None = None, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Remote:
        """The same path with options: the type of the result, further headers, another timeout."""
        options = replace(
            self._options,
            returns=self._options.returns if returns is None else returns,
            headers={**self._options.headers, **(headers or {})},
            timeout_s=self._options.timeout_s if timeout_s is None else timeout_s,
        )
        return Remote(self._client, self._path, options)

    async def query(self, value: Any = msgspec.UNSET, /, **fields: Any) -> Any:
        return await self._client._call("query", self._path, _input(value, fields), self._options)

    async def mutate(self, value: Any = msgspec.UNSET, /, **fields: Any) -> Any:
        return await self._client._call("mutation", self._path, _input(value, fields), self._options)

    def subscribe(self, value: Any = msgspec.UNSET, /, **fields: Any) -> AsyncGenerator[Any, None]:
        """Events until the server ends them; connections that break are made anew, from the last id on."""
        return self._client._subscribe(self._path, _input(value, fields), self._options)


def _input(value: Any, fields: dict[str, Any]) -> Any:
    if not fields:
        return value
    if value is not msgspec.UNSET:
        raise TypeError("An input is either one value or keywords.")
    return {camel(name): each for name, each in fields.items()}
