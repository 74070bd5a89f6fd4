"""HTTP as the sinks speak it: no redirects, no proxies of the surroundings, and answers read up to a limit."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

MAX_ANSWER_BYTES = 64 * 1024
MAX_CONNECTIONS = 100
KEEPALIVE_S = 15.0
SHOWN_CHARACTERS = 200


class _CappedStream(httpx.AsyncByteStream):
    """Ends once so much has come. What an answer means is said by its status; what is cut is no document any more."""

    def __init__(self, inner: httpx.AsyncByteStream, limit: int) -> None:
        self._inner = inner
        self._left = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            yield chunk[: self._left]
            self._left -= len(chunk)
            if self._left <= 0:
                return

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Capped(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport, limit: int) -> None:
        self._inner = inner
        self._limit = limit

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        # What is compressed could be small here and large when it is unpacked.
        request.headers["accept-encoding"] = "identity"
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101  The inner one is asynchronous.
        response.stream = _CappedStream(response.stream, self._limit)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def http_client(timeout_s: float, *, max_answer_bytes: int = MAX_ANSWER_BYTES) -> httpx.AsyncClient:
    """A client for one sink. A redirect is an answer like any other: whoever follows it takes a secret elsewhere."""
    limits = httpx.Limits(
        max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_S
    )
    transport = _Capped(httpx.AsyncHTTPTransport(limits=limits, trust_env=False), max_answer_bytes)
    return httpx.AsyncClient(transport=transport, timeout=timeout_s, follow_redirects=False, trust_env=False)


def beginning(answer: str) -> str:
    """The beginning of an answer, on one line, to show what came."""
    return " ".join(answer[:SHOWN_CHARACTERS].split())
