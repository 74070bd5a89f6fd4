"""Metrics are read when somebody scrapes; what is not known at present is absent."""

from __future__ import annotations

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from oplata.observability.metrics import Metrics
from oplata.observability.timings import Timings
from oplata.queue.envelope import Delivery, Envelope
from oplata.worker.batch import Part
from oplata.worker.measures import Measures
from tests.databases import callback, works


def scraped(metrics: Metrics) -> dict[str, float]:
    text = generate_latest(metrics.registry).decode()
    return {
        sample.name + "".join(f"/{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("oplata_")
    }


def test_a_metric_is_what_is_supplied_at_the_moment() -> None:
    metrics, waiting = Metrics(), {"ready": 1.0}
    metrics.supply("oplata_queue_messages", lambda: waiting)
    waiting["dead"] = 2.0
    assert scraped(metrics) == {"oplata_queue_messages/ready": 1.0, "oplata_queue_messages/dead": 2.0}


def test_what_is_not_known_is_absent_and_a_name_that_is_none_is_refused() -> None:
    metrics = Metrics()
    metrics.supply("oplata_queue_consumers", lambda: None)
    assert scraped(metrics) == {}
    with pytest.raises(KeyError):
        metrics.supply("oplata_made_up", lambda: 1.0)


def test_a_value_is_counted_at_the_smallest_bound_that_it_does_not_exceed() -> None:
    metrics, timings = Metrics(), Timings((0.1, 1.0))
    for value in (0.1, 0.5, 7.0):
        timings.observe(value)
    metrics.supply("oplata_callback_seconds", lambda: timings)
    assert scraped(metrics) == {
        "oplata_callback_seconds_bucket/0.1": 1.0,
        "oplata_callback_seconds_bucket/1.0": 2.0,
        "oplata_callback_seconds_bucket/+Inf": 3.0,
        "oplata_callback_seconds_count": 3.0,
        "oplata_callback_seconds_sum": 7.6,
    }
    assert timings.count == 3


def test_only_words_of_the_bank_that_we_know_become_labels() -> None:
    measures = Measures()
    part = Part(works(callback(), at_ms=1_000), [])
    measures.committed(part, {"CONFIRMED": 2, "x" * 40: 1, "": 3}, took_s=0.2, now_ms=3_000)
    assert measures.events == {"CONFIRMED": 2, "other": 4}
    assert (measures.oldest_s, measures.apply_seconds.total, measures.batch_seconds.total) == (2.0, 2.0, 0.2)
    assert measures.batch_messages.total == 1


def test_a_clock_that_runs_behind_the_endpoints_measures_no_negative_time() -> None:
    measures = Measures()
    measures.committed(Part(works(callback(), at_ms=9_000), []), {}, took_s=0.1, now_ms=3_000)
    assert (measures.oldest_s, measures.apply_seconds.total) == (0.0, 0.0)


def test_a_delivery_without_works_has_no_age() -> None:
    measures = Measures()
    measures.committed(Part((), (), (Delivery(envelope=Envelope(body=b"")),)), {}, took_s=0.1, now_ms=1)
    assert (measures.apply_seconds.count, measures.oldest_s) == (0, 0.0)
