"""One trace from the endpoint through the queue to the commit and the change, and nothing of it where it is off."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracer, SpanContext

from oplata.ingest.app import create_app
from oplata.ingest.callback import Callback
from oplata.ingest.traced import TracedCallback, TracedPublisher
from oplata.observability.tracing import TRACEPARENT_HEADER, Tracing, parsed, remote, tracing_through
from oplata.orders.commands import Orders
from oplata.queue.envelope import Envelope
from oplata.queue.sqlite import SqliteQueue
from oplata.storage.engine import Database
from oplata.worker.loop import Worker
from tests.databases import KEYRING, NOW_MS, ORDER_KOPECKS, callback, select_all

pytestmark = pytest.mark.anyio

STRANGERS = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Traced:
    """The program in one process, with its spans in memory."""

    def __init__(self, queue: SqliteQueue, database: Database, *, sample: float) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracing: Tracing = tracing_through(
            SimpleSpanProcessor(self.exporter), sample=sample, environment="test", release="1", role="up"
        )
        self.queue, self.database = queue, database
        tracer = self.tracing.tracer
        inner = Callback(TracedPublisher(queue.publisher(), tracer), KEYRING, now_ms=lambda: NOW_MS)
        self.asgi = create_app(TracedCallback(inner, tracer))

    async def post(self, *bodies: bytes) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.asgi), base_url="http://shop") as client:
            for body in bodies:
                answer = await client.post(
                    "/api/tinkoff-callback", content=body, headers={TRACEPARENT_HEADER: STRANGERS}
                )
                assert answer.text == "OK"

    async def work(self, *, count: int) -> None:
        worker = Worker(queue=self.queue, database=self.database, keyring=KEYRING, tracer=self.tracing.tracer)
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(20):
            while worker.stats.applied + worker.stats.repeats < count:  # noqa: ASYNC110  A count has no event.
                await asyncio.sleep(0.01)
        worker.stop()
        await running

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@asynccontextmanager
async def traced(tmp_path: Path, database: Database, *, sample: float = 1.0) -> AsyncIterator[Traced]:
    queue = SqliteQueue(tmp_path / "queue.db")
    await queue.start()
    try:
        yield Traced(queue, database, sample=sample)
    finally:
        await queue.stop()


def context(span: ReadableSpan) -> SpanContext:
    found = span.context
    assert isinstance(found, SpanContext)
    return found


def trace_ids(spans: Sequence[ReadableSpan]) -> set[int]:
    return {context(span).trace_id for span in spans}


async def test_a_callback_is_one_trace_from_the_request_to_the_commit_and_the_change(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    await Orders(database).register("order-1", ORDER_KOPECKS)
    async with traced(tmp_path, database) as program:
        await program.post(callback())
        await program.work(count=1)
        (request,), (publish,), (applied,), (transaction,) = map(
            program.spans, ("callback", "publish", "apply", "transaction")
        )
        assert trace_ids([request, publish, applied]) == {context(request).trace_id}
        assert request.parent is None
        assert publish.parent is not None
        assert applied.parent is not None
        assert publish.parent.span_id == context(request).span_id
        assert applied.parent.span_id == context(publish).span_id
        assert context(request).trace_id != int("a" * 32, 16)
        assert [link.context.span_id for link in transaction.links] == [context(publish).span_id]
        assert [link.context.span_id for link in applied.links] == [context(transaction).span_id]
        assert (publish.attributes or {})["oplata.order_id"] == "order-1"
        assert (applied.start_time or 0) <= (applied.end_time or 0)

        stored = await select_all(database_url, "SELECT id, traceparent FROM changes ORDER BY id")
        assert [written for _, written in stored][:-1] == [None]
        told = parsed(stored[-1][1])
        assert told is not None
        assert (told.trace_id, told.span_id) == (context(request).trace_id, context(publish).span_id)
        async with database.unit_of_work(read_only=True) as uow:
            ids = [int(str(row[0])) for row in stored]
            assert await uow.changes.traceparents(ids) == {ids[-1]: stored[-1][1]}

        with program.tracing.sinking(str(stored[-1][1]), sink="shop", order_id="order-1") as passed_on:
            assert parsed(passed_on) is not None
        (sink,) = program.spans("sink")
        assert trace_ids([sink]) == {context(request).trace_id}


async def test_messages_of_one_transaction_keep_their_own_traces(tmp_path: Path, database: Database) -> None:
    async with traced(tmp_path, database) as program:
        await program.post(*(callback(order_id=f"order-{n}", payment_id=f"{n}") for n in range(3)))
        await program.queue.publisher().publish(
            Envelope(body=callback(order_id="order-9", payment_id="9"), headers={TRACEPARENT_HEADER: "nonsense"}),
            timeout_s=5,
        )
        await program.work(count=4)
        assert len(trace_ids(program.spans("callback"))) == 3
        assert trace_ids(program.spans("apply")) == trace_ids(program.spans("callback"))
        assert sum(len(span.links) for span in program.spans("transaction")) == 3


async def test_what_is_not_sampled_leaves_no_span(tmp_path: Path, database: Database) -> None:
    async with traced(tmp_path, database, sample=0.0) as program:
        await program.post(callback())
        await program.work(count=1)
        assert program.exporter.get_finished_spans() == ()


def test_a_collector_that_hangs_keeps_no_process_from_its_end() -> None:
    hangs = threading.Event()

    class Hanging:
        def shutdown(self) -> None:
            hangs.wait(20)

    began_s = time.monotonic()
    asyncio.run(Tracing(NoOpTracer(), Hanging()).stop(timeout_s=0.1))
    took_s = time.monotonic() - began_s
    hangs.set()
    assert 0.1 <= took_s < 10


def test_a_context_is_believed_only_in_its_exact_form() -> None:
    assert parsed(STRANGERS) is not None
    for wrong in (None, 1, "", STRANGERS + "-00", STRANGERS.upper(), "00-" + "0" * 32 + "-" + "b" * 16 + "-01"):
        assert parsed(wrong) is None
    assert remote({}) is None
