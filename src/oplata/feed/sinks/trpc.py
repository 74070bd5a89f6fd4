"""Calls a procedure of the shop's tRPC server for each change."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from oplata.errors import DeliveryFailed, DeliveryRefused
from oplata.feed.event import Event
from oplata.feed.sinks.capped import beginning, http_client
from oplata.rpc.client import Client
from oplata.rpc.errors import BadAnswer, RpcError, Unreachable
from oplata.rpc.wire import Transformer

DEFAULT_PROCEDURE = "orders.updateStatus"
DEFAULT_FIELDS: Mapping[str, str] = {"orderId": "order_id", "status": "status"}

REFUSALS = frozenset({"BAD_REQUEST", "PARSE_ERROR", "CONFLICT", "UNPROCESSABLE_CONTENT", "PAYLOAD_TOO_LARGE"})
"""Answers about this one change. NOT_FOUND is not among them: it also means that the procedure is not there yet."""


class TrpcSink:
    """Calls ``procedure`` as a mutation, at a URL such as ``http://shop.example/api/trpc``.

    ``fields`` names the input's fields and what each holds, by our names (``Event.fields``). ``statuses`` gives our
    statuses the shop's names; one whose name is empty is not told, and one that is absent keeps its own.
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
        self._client: Client | None = None

    async def start(self) -> None:
        self._http = http_client(self._timeout_s)
        self._client = Client(
            self._url,
            http=self._http,
            mode="single",
            transformer=self._transformer,
            headers=self._headers,
            timeout_s=self._timeout_s,
        )

    async def stop(self) -> None:
        client, http, self._client, self._http = self._client, self._http, None, None
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
            told[name] = self._statuses.get(str(told[name]), told[name])
        return {name: told[ours] for name, ours in self._fields.items()}

    async def deliver(self, event: Event) -> None:
        if self._client is None:
            raise DeliveryFailed("the sink is not started")
        try:
            await self._client[self._procedure].mutate(self.input(event))
        except RpcError as error:
            told = f"the shop answered {error.code}: {beginning(str(error))}"
            raise (DeliveryRefused if error.code in REFUSALS else DeliveryFailed)(told) from None
        except (Unreachable, BadAnswer) as error:
            raise DeliveryFailed(beginning(str(error))) from None
        except httpx.InvalidURL:
            raise DeliveryFailed("the sink's URL is not one that can be asked") from None
