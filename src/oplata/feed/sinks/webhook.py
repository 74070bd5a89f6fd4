"""Signed webhooks as Standard Webhooks describe them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import httpx

from oplata.errors import DeliveryFailed, DeliveryRefused
from oplata.feed.event import Event
from oplata.feed.sinks.capped import beginning, http_client
from oplata.feed.sinks.signing import secret_key, signatures

REFUSALS = frozenset({400, 409, 413, 422})
"""Answers about this one event. All others are about the receiver (404, 401, 500…), who may be mended."""


class WebhookSink:
    """POSTs each event to a URL. Any 2xx answer means taken.

    ``statuses`` are the only ones that are told, or all when it is empty. Each secret makes a signature of its own.
    """

    def __init__(
        self,
        url: str,
        secrets: Sequence[str],
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        statuses: Collection[str] = (),
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._keys = [secret_key(secret) for secret in secrets]
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._statuses = frozenset(statuses)
        self._clock_s = clock_s
        self._http: httpx.AsyncClient | None = None

    async def start(self) -> None:
        self._http = http_client(self._timeout_s)

    async def stop(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    def wants(self, event: Event) -> bool:
        return not self._statuses or event.change.status in self._statuses

    async def deliver(self, event: Event) -> None:
        if self._http is None:
            raise DeliveryFailed("the sink is not started")
        body, timestamp = event.document(), int(self._clock_s())
        headers = {
            **self._headers,
            "content-type": "application/json",
            "user-agent": "oplata",
            "webhook-id": event.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(self._keys, event.id, timestamp, body),
        }
        try:
            response = await self._http.post(self._url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Its text may quote the URL, which may hold a token.
            raise DeliveryFailed(f"the receiver could not be asked: {type(error).__name__}") from None
        _judge(response)


def _judge(response: httpx.Response) -> None:
    if response.is_success:
        return
    told = f"the receiver answered {response.status_code}"
    if response.is_redirect:
        raise DeliveryFailed(f"{told}: a redirect is not followed; set the URL to where it leads")
    told = f"{told}: {beginning(response.text)}"
    if response.status_code in REFUSALS:
        raise DeliveryRefused(told)
    raise DeliveryFailed(told, retry_after_s=_seconds(response.headers.get("retry-after")))


def _seconds(header: str | None) -> float | None:
    """The wish of Retry-After, where it is a number; a date is left to the schedule."""
    return float(header) if header is not None and header.isascii() and header.isdigit() and len(header) < 8 else None
