"""The events of a subscription over HTTP, byte for byte as tRPC's server writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from oplata.rpc.wire import Payload, Wire

PING: Final = b"event: ping\ndata: \n\n\n"
RETURN: Final = b"event: return\ndata: \n\n\n"
# The client ends the subscription on anything but 200, and then it has no error to show.
HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class Events:
    """Writes the events of one connection. ``last_id`` is the id that its client would come back with."""

    def __init__(self, wire: Wire, last_event_id: str | None) -> None:
        self._wire = wire
        self.last_id = last_event_id

    def connected(self, reconnect_after_inactivity_s: float | None) -> bytes:
        options = {}
        if reconnect_after_inactivity_s is not None:
            options["reconnectAfterInactivityMs"] = round(reconnect_after_inactivity_s * 1_000)
        return b"event: connected\ndata: " + self._wire.encode(options) + b"\n\n\n"

    def value(self, event_id: str | None, payload: Payload) -> bytes:
        """An event without an id, after one that had one, would make browsers forget the latter; it is restored."""
        shown = None if payload is msgspec.UNSET and not self._wire.is_superjson else payload
        data = b"data: " + self._wire.encode(self._wire.wrap(shown)) + b"\n"
        if event_id is not None:
            return data + b"id: " + event_id.encode() + b"\n\n\n"
        if self.last_id is None:
            return data + b"\n\n"
        restored = b"event: restore-id\ndata: \nid: " + self.last_id.encode() + b"\n\n\n"
        return data + b"id: \n\n\n" + restored

    def failure(self, shape: Mapping[str, Any]) -> bytes:
        document = self._wire.encode(self._wire.wrap(shape))
        return b"event: serialized-error\ndata: " + document + b"\n\n\n"
