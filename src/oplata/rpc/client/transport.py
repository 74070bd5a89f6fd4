"""Calls over HTTP: one by one, in batches, and in batches that stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec

from oplata.rpc.client.document import Documents
from oplata.rpc.client.lines import Hydrator, envelope_of, plain
from oplata.rpc.errors import BadAnswer, RpcError, Unreachable
from oplata.rpc.forms import File, FormData, Octets
from oplata.rpc.middleware import Kind

JSON: Final = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that somebody waits for. ``input`` is UNSET where there is none."""

    kind: Kind
    path: str
    input: Any
    headers: Mapping[str, str]
    timeout_s: float


class Transport:
    """Sends requests and reads answers. Raises RpcError, BadAnswer and Unreachable, and nothing of httpx."""

    def __init__(self, url: str, http: httpx.AsyncClient, documents: Documents) -> None:
        self._url = url.rstrip("/")
        self._http = http
        self._documents = documents

    def batch_url(self, calls: Sequence[Wanted]) -> str:
        """The URL of a batch, so that its length can be looked at before it is sent."""
        paths = ",".join(quote(call.path, safe="") for call in calls)
        url = f"{self._url}/{paths}?batch=1"
        return url if calls[0].kind == "mutation" else f"{url}&input={quote(self._inputs(calls).decode(), safe='')}"

    def _inputs(self, calls: Sequence[Wanted]) -> bytes:
        inputs = {str(index): self._documents.input(call.input) for index, call in enumerate(calls)}
        return self._documents.encode({key: value for key, value in inputs.items() if value is not msgspec.UNSET})

    async def single(self, call: Wanted) -> Any:
        """The result of one call."""
        url = f"{self._url}/{quote(call.path, safe='')}"
        document = self._documents.input(call.input) if not isinstance(call.input, FormData | Octets) else None
        if call.kind == "mutation":
            sent = self._body(call, document)
        else:
            sent = {}
            if document is not msgspec.UNSET:
                url += f"?input={quote(self._documents.encode(document).decode(), safe='')}"
        async with self._exchange(call.kind, url, call, sent) as response:
            return self._documents.answer(self._documents.parse(await response.aread()))

    def _body(self, call: Wanted, document: Any) -> dict[str, Any]:
        if isinstance(call.input, Octets):
            return {"content": bytes(call.input), "headers": {"content-type": "application/octet-stream"}}
        if isinstance(call.input, FormData):
            return {"files": [(name, _part(value)) for name, value in call.input]}
        return {"content": b"" if document is msgspec.UNSET else self._documents.encode(document), "headers": JSON}

    async def batch(self, calls: Sequence[Wanted], results: Sequence[asyncio.Future[Any]]) -> None:
        """Fills the results of all calls, or fails them with what went wrong."""
        async with self._exchange(calls[0].kind, self.batch_url(calls), calls[0], self._batch_body(calls)) as response:
            raw = await response.aread()
        try:
            envelopes = self._envelopes(raw, len(calls))
        except (RpcError, BadAnswer) as error:
            error.of_batch = True
            raise
        for envelope, result in zip(envelopes, results, strict=True):
            if not result.done():
                try:
                    result.set_result(self._documents.answer(envelope))
                except Exception as error:
                    result.set_exception(error)

    def _envelopes(self, raw: bytes, count: int) -> list[Any]:
        document = self._documents.parse(raw)
        if not isinstance(document, list) or len(document) != count:
            # A refused request is one object; anything else that is not a list for all is no answer.
            self._documents.answer(document)
            raise BadAnswer("The server did not answer every call of the batch.")
        return document

    async def stream(self, calls: Sequence[Wanted], results: Sequence[asyncio.Future[Any]]) -> None:
        """As ``batch``, each result as soon as its line is there."""
        sent = self._batch_body(calls)
        sent["headers"] = {**sent.get("headers", {}), "trpc-accept": "application/jsonl"}
        hydrator, waiting = Hydrator(self._documents, len(calls)), []
        error: BaseException | None = None
        try:
            async with self._exchange(calls[0].kind, self.batch_url(calls), calls[0], sent) as response:
                if response.status_code != 200:
                    self._documents.answer(self._documents.parse(await response.aread()))
                async for line in response.aiter_lines():
                    is_head = hydrator.envelopes is None
                    await hydrator.line(line)
                    if is_head and hydrator.envelopes is not None:
                        pairs = zip(hydrator.envelopes, results, strict=True)
                        waiting = [asyncio.create_task(_deliver(promise, result)) for promise, result in pairs]
        except BaseException as caught:
            error = caught
            raise
        finally:
            hydrator.end(error)
            await asyncio.gather(*waiting, return_exceptions=True)

    def _batch_body(self, calls: Sequence[Wanted]) -> dict[str, Any]:
        return {"content": self._inputs(calls), "headers": JSON} if calls[0].kind == "mutation" else {}

    @contextlib.asynccontextmanager
    async def _exchange(
        self, kind: Kind, url: str, call: Wanted, sent: dict[str, Any]
    ) -> AsyncIterator[httpx.Response]:
        headers = {**sent.pop("headers", {}), **call.headers}
        method = "POST" if kind == "mutation" else "GET"
        try:
            # Reading may take as long as the slowest call of a stream; the callers' own timeouts end it.
            timeout = httpx.Timeout(call.timeout_s, read=None)
            async with self._http.stream(method, url, headers=headers, timeout=timeout, **sent) as response:
                yield response
        except httpx.HTTPError as error:
            raise Unreachable(f"The server could not be asked for {call.path}: {type(error).__name__}.") from error


async def _deliver(promise: asyncio.Future[Any], result: asyncio.Future[Any]) -> None:
    try:
        data = plain(await envelope_of(promise))
    except Exception as error:
        if not result.done():
            result.set_exception(error)
    else:
        if not result.done():
            result.set_result(data)


def _part(value: str | File) -> tuple[str | None, bytes, str] | tuple[None, bytes]:
    if isinstance(value, File):
        return value.name, value.content, value.content_type
    return None, value.encode()
