"""What is measured: every metric by name, and the collector that reads them when somebody scrapes.

The rooms keep plain counters of their own and pay for an addition; nothing here is called while a callback is on its
way. ``docs/monitoring.md`` has a row for each of these, and a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, TypeAlias

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from oplata.observability.timings import Timings

Value: TypeAlias = "float | Mapping[str, float] | Timings | None"
"""A number; or one for each word of the metric's label; or a histogram; or None where it is not known at present."""


class Measure(msgspec.Struct, frozen=True):
    """One metric. ``label`` is the name of its one label, whose values are words of ours and few."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    label: str | None = None


def _listed(*measures: Measure) -> dict[str, Measure]:
    return {measure.name: measure for measure in measures}


ALL = _listed(
    Measure("oplata_callbacks_total", "counter", "Requests to the callback's address, by how they ended", "outcome"),
    Measure("oplata_callbacks_in_flight", "gauge", "Callbacks that are being read, verified or made durable"),
    Measure("oplata_callback_seconds", "histogram", "From request to OK: the time added to the buyer's redirect"),
    Measure("oplata_publish_seconds", "histogram", "From the endpoint's hands until the queue or the spool was sure"),
    Measure("oplata_publish_failures_total", "counter", "Callbacks that neither the queue nor the spool has taken"),
    Measure("oplata_spooled_total", "counter", "Callbacks that went to the spool because the broker was away"),
    Measure("oplata_spool_forwarded_total", "counter", "Spooled callbacks that the broker has confirmed since"),
    Measure("oplata_spool_messages", "gauge", "Callbacks that wait in the spool of this machine"),
    Measure("oplata_spool_bytes", "gauge", "Bytes of the spool's file that are in use"),
    Measure("oplata_spool_oldest_seconds", "gauge", "How long the oldest callback has been in the spool; 0 if none"),
    Measure("oplata_queue_up", "gauge", "1 if the queue could be asked for its depth the last time, else 0"),
    Measure("oplata_queue_messages", "gauge", "Messages of the queue, by place: ready, unacked, retry, dead", "place"),
    Measure("oplata_queue_consumers", "gauge", "Consumers that the broker sees on the queue: one for each worker"),
    Measure("oplata_queue_oldest_seconds", "gauge", "How long the oldest message has been in a queue that is a file"),
    Measure("oplata_queue_connects_total", "counter", "Connections to the broker that were opened, the first included"),
    Measure("oplata_worker_received_total", "counter", "Messages that the worker took from the queue"),
    Measure("oplata_worker_batches_total", "counter", "Transactions that the worker committed"),
    Measure("oplata_worker_pauses_total", "counter", "Times that the worker waited for the queue or the database"),
    Measure("oplata_worker_stalled_seconds", "gauge", "Since when the slowest loop of the worker has not gone round"),
    Measure("oplata_worker_oldest_seconds", "gauge", "Age of the oldest message in the batch that came last"),
    Measure("oplata_batch_messages", "histogram", "Messages in a committed transaction"),
    Measure("oplata_batch_seconds", "histogram", "From the beginning of a worker's transaction to its commit"),
    Measure("oplata_apply_seconds", "histogram", "From the callback's arrival at the endpoint to the commit"),
    Measure(
        "oplata_events_total", "counter", "Facts that were new, by the bank's status; other words are other", "status"
    ),
    Measure("oplata_repeats_total", "counter", "Callbacks that told a known fact once more"),
    Measure("oplata_changes_total", "counter", "Changes of orders that this worker told in the change log"),
    Measure("oplata_retried_total", "counter", "Messages put on the retry ladder"),
    Measure("oplata_released_total", "counter", "Messages handed back to the queue unworked"),
    Measure("oplata_buried_total", "counter", "Messages that became dead letters"),
    Measure("oplata_database_up", "gauge", "1 if the database answered the last survey, else 0"),
    Measure("oplata_orders", "gauge", "Orders by status; unregistered are counted up to 10000", "status"),
    Measure("oplata_orders_review", "gauge", "Orders that wait for a person's review"),
    Measure("oplata_dead_letters", "gauge", "Open dead letters by reason, counted up to 10000", "reason"),
    Measure("oplata_handlers_waiting_orders", "gauge", "Orders that wait for the shop's handlers, counted up to 10000"),
    Measure(
        "oplata_handlers_late_seconds", "gauge", "How long a change has waited for handlers beyond its time; 0 if none"
    ),
    Measure("oplata_canaries_total", "counter", "Canaries sent, by whether the queue confirmed them", "outcome"),
    Measure("oplata_canary_age_seconds", "gauge", "Age of the newest canary that came through to the database"),
    Measure("oplata_feed_subscribers", "gauge", "Subscribers to changes in this process, over tRPC and of sinks"),
    Measure("oplata_feed_lag_changes", "gauge", "Changes that are committed and not yet read for the subscribers"),
    Measure("oplata_sink_lag_changes", "gauge", "Changes that a sink has not been told, counted up to 10000", "sink"),
    Measure("oplata_sink_told_total", "counter", "Changes that a sink has been told, by any process", "sink"),
    Measure("oplata_sink_failing_seconds", "gauge", "How long a sink has taken nothing; 0 if it does", "sink"),
    Measure("oplata_survey_seconds", "gauge", "How long ago the last survey of queue and database ended"),
    Measure("oplata_build_info", "gauge", "Always 1; the label is the version", "version"),
)
"""In the order of a callback's way."""


class Metrics(Collector):
    """The metrics of one program, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._reads: dict[str, Callable[[], Value]] = {}
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def supply(self, name: str, read: Callable[[], Value]) -> None:
        """Read this metric so from now on. Raises ``KeyError`` for a name that is not in the list."""
        self._reads[ALL[name].name] = read

    def describe(self) -> list[Metric]:
        """Nothing: what is not known at present is not there."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric that is known at present."""
        for name, measure in ALL.items():
            read = self._reads.get(name)
            value = None if read is None else read()
            if value is not None:
                yield _family(measure, value)


def _family(measure: Measure, value: float | Mapping[str, float] | Timings) -> Metric:
    if isinstance(value, Timings):
        return HistogramMetricFamily(measure.name, measure.help, buckets=list(value.buckets()), sum_value=value.total)
    labels = [measure.label] if measure.label else []
    kind = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
    family = kind(measure.name, measure.help, labels=labels)
    if isinstance(value, Mapping):
        for word, number in value.items():
            family.add_metric([word], number)
    else:
        family.add_metric([], value)
    return family
