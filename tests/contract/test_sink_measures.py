"""What is told of the feed: how far the sinks are behind, since when one fails, and the trace that a delivery is in."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from oplata.errors import DeliveryFailed
from oplata.feed.lane import Options
from oplata.feed.schedule import Schedule
from oplata.observability.metrics import Metrics
from oplata.observability.tracing import tracing_through
from oplata.reconcile.survey import Survey
from oplata.storage.engine import Database
from tests.changes import append, change
from tests.sinks import MemorySink, relaying
from tests.unit.test_metrics import scraped

pytestmark = pytest.mark.anyio

PATIENT = Options(concurrency=4, timeout_s=1, schedule=Schedule(delays_ms=(20,), max_attempts=10_000))
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_sinks_are_measured_and_a_delivery_is_in_the_trace_of_its_change(database: Database) -> None:
    exporter = InMemorySpanExporter()
    tracing = tracing_through(SimpleSpanProcessor(exporter), sample=1, environment="test", release="1", role="relay")
    async with database.unit_of_work() as uow:
        uow.changes.traces = {"order-1": f"00-{TRACE}-00f067aa0ba902b7-01"}
        await uow.changes.append([change("order-1", 1)])
        await uow.commit()
    await append(database, change("order-2", 1))
    shop, down = MemorySink(), MemorySink(lambda _event: DeliveryFailed("down"))
    metrics = Metrics()
    found: dict[str, float] = {}
    sinks = ("shop", shop), ("down", down)
    async with relaying(database, *sinks, options=PATIENT, tracing=tracing) as (_, hub), asyncio.timeout(30):
        survey = Survey(queue=None, spool=None, database=database, hub=hub, interval_s=1)
        survey.expose(metrics)
        while not (found.get("oplata_sink_told_total/shop") == 2.0 and found.get("oplata_sink_failing_seconds/down")):
            await asyncio.sleep(0.05)
            await survey.once()
            found = scraped(metrics)
    assert (found["oplata_sink_lag_changes/shop"], found["oplata_sink_lag_changes/down"]) == (0.0, 2.0)
    assert (found["oplata_sink_told_total/shop"], found["oplata_sink_told_total/down"]) == (2.0, 0.0)
    assert found["oplata_sink_failing_seconds/shop"] == 0.0
    assert (found["oplata_feed_subscribers"], found["oplata_feed_lag_changes"]) == (2.0, 0.0)
    spans = [span for span in exporter.get_finished_spans() if (span.attributes or {})["oplata.sink"] == "shop"]
    assert [(span.name, span.context.trace_id) for span in spans if span.context] == [("sink", int(TRACE, 16))]
    assert (spans[0].attributes or {})["oplata.order_id"] == "order-1"
