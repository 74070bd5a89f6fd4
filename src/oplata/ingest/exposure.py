"""What of the endpoint can be measured."""

from __future__ import annotations

import msgspec

from oplata.ingest.callback import Callback
from oplata.ingest.canary import CanarySender
from oplata.ingest.watched import WatchedPublisher
from oplata.observability.metrics import Metrics
from oplata.queue.spool import SpoolingPublisher


def expose(
    metrics: Metrics,
    callback: Callback,
    publisher: WatchedPublisher,
    spool: SpoolingPublisher | None,
    canaries: CanarySender | None,
) -> None:
    """Supply these."""
    metrics.supply("oplata_callbacks_total", lambda: msgspec.structs.asdict(callback.outcomes))
    metrics.supply("oplata_callbacks_in_flight", lambda: float(callback.begun - callback.outcomes.total))
    metrics.supply("oplata_callback_seconds", lambda: callback.seconds)
    metrics.supply("oplata_publish_seconds", lambda: publisher.seconds)
    metrics.supply("oplata_publish_failures_total", lambda: float(publisher.failures))
    if spool is not None:
        metrics.supply("oplata_spooled_total", lambda: float(spool.spooled))
        metrics.supply("oplata_spool_forwarded_total", lambda: float(spool.forwarded))
    if canaries is not None:
        metrics.supply("oplata_canaries_total", lambda: canaries.outcomes)
