"""The worker's part of a trace: a span for each message, in the trace that it brought, and one for the transaction.

A transaction has many messages, and each of those has a trace of its own; so the transaction's span is in none of them,
and the two link to each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, Tracer

from oplata.observability.tracing import TRACEPARENT_HEADER, below, remote
from oplata.worker.batch import Part, Work

MAX_LINKS = 128


def traces_of(works: Sequence[Work]) -> Mapping[str, str]:
    """The trace that each order's changes will belong to: that of the last message that names it."""
    return {
        work.event.order_id: str(work.delivery.envelope.headers[TRACEPARENT_HEADER])
        for work in works
        if work.event.order_id is not None and remote(work.delivery.envelope.headers) is not None
    }


def trace_part(tracer: Tracer, part: Part, *, began_ns: int, ended_ns: int) -> None:
    """Tell of a part that was committed. Both times are of the wall clock."""
    traced = [(work, context) for work in part.works if (context := _sampled(work)) is not None]
    if not traced:
        return
    batch = tracer.start_span(
        "transaction",
        Context(),
        SpanKind.INTERNAL,
        {"oplata.messages": part.size},
        [Link(context) for _, context in traced[:MAX_LINKS]],
        began_ns,
    )
    for work, context in traced:
        attributes: dict[str, str | int] = {
            "oplata.order_id": work.event.order_id or "",
            "oplata.attempt": work.delivery.attempt,
        }
        links = [Link(batch.get_span_context())]
        span = tracer.start_span("apply", below(context), SpanKind.CONSUMER, attributes, links, began_ns)
        span.end(ended_ns)
    batch.end(ended_ns)


def _sampled(work: Work) -> SpanContext | None:
    context = remote(work.delivery.envelope.headers)
    return context if context is not None and context.trace_flags.sampled else None
