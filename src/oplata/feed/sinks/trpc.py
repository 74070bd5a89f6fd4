"""Calls a procedure of the shop's tRPC server for each change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

import httpx

from oplata.errors import DeliveryFailed, DeliveryRefused
from oplata.feed.event import Event
from oplata.feed.sinks.capped import beginning, http_client
from oplata.rpc.client import Client
from oplata.rpc.errors import BadAnswer, RpcError, Unreachable
from oplata.rpc.wire import Transformer

DEFAULT_PROCEDURE = "orders.updateStatus"
DEFAULT_FIELDS: Mapping[str, str] = {"orderId": "order_id", "status": "status"}

DEFAULT_BATCH = 16
SINGLY_S = 60.0
"""How long calls go one by one after a server has refused them together; it may have been set up anew meanwhile."""

MAX_SUSPECTS = 1000
"""So many orders are remembered whose batch came to nothing."""

REFUSALS = frozenset({"BAD_REQUEST", "PARSE_ERROR", "CONFLICT", "UNPROCESSABLE_CONTENT", "PAYLOAD_TOO_LARGE"})
"""Answers about this one change. NOT_FOUND is not among them: it also means that the procedure is not there yet."""


class TrpcSink:
    """Calls ``procedure`` as a mutation, at a URL such as ``http://shop.example/api/trpc``.

    ``fields`` names the input's fields and what each holds, by our names (``Event.fields``). ``statuses`` gives our
    statuses the shop's names; one whose name is empty is not told, and one that is absent keeps its own.

    What is to be told at the same moment goes in one request, up to ``batch`` calls, each answered by itself. A server
    that takes no batches is told of the same orders one by one. An order whose batch was not answered is told by itself
    next time: it may be the one that the shop hangs on, and must not take others with it again.
    """

    def __init__(
        self,
        url: str,
        *,
        procedure: str = DEFAULT_PROCEDURE,
        fields: Mapping[str, str] = DEFAULT_FIELDS,
        statuses: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        transformer: Transformer = "none",
        batch: int = DEFAULT_BATCH,
        timeout_s: float,
    ) -> None:
        self._url = url
        self._procedure = procedure
        self._fields = dict(fields)
        self._statuses = dict(statuses or {})
        self._headers = dict(headers or {})
        self._transformer: Transformer = transformer
        self._timeout_s = timeout_s
        self._http: httpx.AsyncClient | None = None
        self._batch = batch
        self._together: Client | None = None
        self._singly: Client | None = None
        self._singly_until_s = 0.0
        self._suspects: dict[str, None] = {}

    async def start(self) -> None:
        self._http = http_client(self._timeout_s)
        self._together, self._singly = self._client("batch"), self._client("single")

    def _client(self, mode: Literal["batch", "single"]) -> Client:
        return Client(
            self._url,
            http=self._http,
            mode=mode,
            max_calls=self._batch,
            batches_of_one=False,
            transformer=self._transformer,
            headers=self._headers,
            timeout_s=self._timeout_s,
        )

    async def stop(self) -> None:
        clients, self._together, self._singly = (self._together, self._singly), None, None
        http, self._http = self._http, None
        for client in clients:
            if client is not None:
                await client.aclose()
        if http is not None:
            await http.aclose()

    def wants(self, event: Event) -> bool:
        return self._statuses.get(event.change.status, event.change.status) != ""

    def input(self, event: Event) -> dict[str, object]:
        """What the procedure is called with."""
        told = event.fields()
        for name in ("status", "previous_status"):
            # What the shop is not told of was no status to it before either.
            told[name] = self._statuses.get(str(told[name]), told[name]) or None
        return {name: told[ours] for name, ours in self._fields.items()}

    async def deliver(self, event: Event) -> None:
        if self._together is None or self._singly is None:
            raise DeliveryFailed("the sink is not started")
        try:
            if self._goes_alone(event):
                await self._singly[self._procedure].mutate(self.input(event))
            else:
                await self._with_others(event, self._together, self._singly)
        except RpcError as error:
            told = f"the shop answered {error.code}: {beginning(str(error))}"
            raise (DeliveryRefused if error.code in REFUSALS else DeliveryFailed)(told) from None
        except (Unreachable, BadAnswer) as error:
            raise DeliveryFailed(beginning(str(error))) from None
        except httpx.InvalidURL:
            raise DeliveryFailed("the sink's URL is not one that can be asked") from None
        self._suspects.pop(event.change.order_id, None)

    def _goes_alone(self, event: Event) -> bool:
        is_refused = asyncio.get_running_loop().time() < self._singly_until_s
        return self._batch == 1 or is_refused or event.change.order_id in self._suspects

    async def _with_others(self, event: Event, together: Client, singly: Client) -> None:
        try:
            await together[self._procedure].mutate(self.input(event))
        except (RpcError, BadAnswer) as error:
            if not error.of_batch:
                raise
            # What was said of all says nothing of this one, and so could not be judged.
            self._singly_until_s = asyncio.get_running_loop().time() + SINGLY_S
            await singly[self._procedure].mutate(self.input(event))
        except (Unreachable, asyncio.CancelledError):
            self._suspects[event.change.order_id] = None
            if len(self._suspects) > MAX_SUSPECTS:
                del self._suspects[next(iter(self._suspects))]
            raise
