"""A change as it is told to the shop's own systems."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import msgspec

from oplata.storage.changes import Change

_DIGEST_LENGTH = 12


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A change, and the id by which a receiver knows a repeat: the same at every attempt and from every process."""

    id: str
    change_id: int
    change: Change

    @property
    def type(self) -> str:
        """Such as ``order.paid``."""
        return f"order.{self.change.status}"

    def fields(self) -> dict[str, object]:
        """All that there is to tell, by our names. Amounts are kopecks, times milliseconds since the Unix epoch."""
        return {"event_id": self.id, "change_id": self.change_id, **msgspec.structs.asdict(self.change)}

    def document(self) -> bytes:
        """The event as JSON: type, timestamp and data, as Standard Webhooks suggest."""
        change = self.change
        data = {
            "changeId": self.change_id,
            "orderId": change.order_id,
            "version": change.version,
            "status": change.status,
            "previousStatus": change.previous_status,
            "amount": change.amount_kopecks,
            "review": change.review,
            "changedAt": change.changed_at_ms,
        }
        moment = datetime.fromtimestamp(change.changed_at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return msgspec.json.encode({"type": self.type, "timestamp": moment.replace("+00:00", "Z"), "data": data})


def event_of(change_id: int, change: Change) -> Event:
    """The event of a change.

    The digest tells apart the changes of two databases, of which one took the other's place and counts anew.
    """
    told = msgspec.json.encode([change_id, change])
    return Event(
        id=f"change_{change_id}_{hashlib.sha256(told).hexdigest()[:_DIGEST_LENGTH]}",
        change_id=change_id,
        change=change,
    )
