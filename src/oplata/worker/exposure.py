"""What of a worker can be measured."""

from __future__ import annotations

from collections.abc import Callable

from oplata.observability.metrics import Metrics
from oplata.worker.loop import Worker
from oplata.worker.stats import Stats


def expose(metrics: Metrics, worker: Callable[[], Worker]) -> None:
    """Supply these; the worker is asked for anew each time, since a restart makes another one."""

    def count(name: str, read: Callable[[Stats], int]) -> None:
        metrics.supply(name, lambda: float(read(worker().stats)))

    count("oplata_worker_received_total", lambda stats: stats.received)
    count("oplata_worker_batches_total", lambda stats: stats.batches)
    count("oplata_worker_pauses_total", lambda stats: stats.pauses)
    count("oplata_repeats_total", lambda stats: stats.repeats)
    count("oplata_changes_total", lambda stats: stats.changes)
    count("oplata_retried_total", lambda stats: stats.retried)
    count("oplata_released_total", lambda stats: stats.released)
    count("oplata_buried_total", lambda stats: stats.buried)
    metrics.supply("oplata_worker_stalled_seconds", lambda: worker().progress.stalled_s())
    metrics.supply("oplata_worker_oldest_seconds", lambda: worker().measures.oldest_s)
    metrics.supply("oplata_batch_messages", lambda: worker().measures.batch_messages)
    metrics.supply("oplata_batch_seconds", lambda: worker().measures.batch_seconds)
    metrics.supply("oplata_apply_seconds", lambda: worker().measures.apply_seconds)
    metrics.supply("oplata_events_total", lambda: worker().measures.events)
