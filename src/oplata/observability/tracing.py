"""Traces: one for each callback, from the endpoint through the queue to the commit and to whoever is told of it.

The context travels in a header of ours, as W3C writes it. It begins at the endpoint: a ``traceparent`` that a request
brings is not believed, since anybody may send one, and the bank does not. Where tracing is off none of this is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, Tracer, set_span_in_context

from oplata.errors import SettingsError

TRACEPARENT_HEADER = "traceparent"
EXPORT_TIMEOUT_S = 5
STOP_TIMEOUT_S = 6.0

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def traceparent(span: Span) -> str:
    """A span's context, as it travels."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def remote(headers: Mapping[str, object]) -> SpanContext | None:
    """The context that a message brought; None where it brought none, or something else under that name."""
    return parsed(headers.get(TRACEPARENT_HEADER))


def parsed(written: object) -> SpanContext | None:
    """The context that was written so, or None."""
    found = _TRACEPARENT.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None


def trace_id_of(headers: Mapping[str, object]) -> str | None:
    """The trace that a message belongs to, for the log."""
    context = remote(headers)
    return None if context is None else f"{context.trace_id:032x}"


def below(context: SpanContext) -> Context:
    """Where a span has to be begun to be a child of that one."""
    return set_span_in_context(NonRecordingSpan(context), Context())


class Tracing:
    """A tracer and what sends its spans away."""

    def __init__(self, tracer: Tracer, provider: Any) -> None:
        self.tracer = tracer
        self._provider = provider

    @contextmanager
    def sinking(self, written: str | None, *, sink: str, order_id: str) -> Iterator[str | None]:
        """A span around one delivery to a sink, in the trace of the change; yields the context to pass on to it."""
        context = parsed(written)
        if context is None:
            yield None
            return
        with self.tracer.start_as_current_span(
            "sink",
            below(context),
            SpanKind.PRODUCER,
            {"oplata.sink": sink, "oplata.order_id": order_id},
            record_exception=False,
        ) as span:
            yield traceparent(span)

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Send what is left, within a limit; a collector that is away keeps nobody from stopping."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            try:
                self._provider.shutdown()
            finally:
                with contextlib.suppress(RuntimeError):  # The loop did not wait for us, and is closed.
                    loop.call_soon_threadsafe(sent.set)

        # A thread of the loop's own pool would be waited for when the loop is closed, however long it takes.
        threading.Thread(target=send, name="oplata-traces", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await sent.wait()


def tracing_to(url: str, *, sample: float, environment: str, release: str, role: str) -> Tracing:
    """Tracing that sends to an OpenTelemetry collector. Raises ``SettingsError`` when the SDK is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise SettingsError(
            'OPLATA_TRACING is on, and the OpenTelemetry SDK is not installed: pip install "oplata[tracing]".'
        ) from None
    exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
    return tracing_through(
        BatchSpanProcessor(exporter), sample=sample, environment=environment, release=release, role=role
    )


def tracing_through(processor: Any, *, sample: float, environment: str, release: str, role: str) -> Tracing:
    """Tracing whose spans go to this processor. Nothing global is set: we may be a guest in another program."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    resource = Resource(
        {
            "service.name": f"oplata-{role}",
            "service.version": release,
            "deployment.environment.name": environment,
        }
    )
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(sample)), resource=resource)
    provider.add_span_processor(processor)
    return Tracing(provider.get_tracer("oplata", release), provider)
