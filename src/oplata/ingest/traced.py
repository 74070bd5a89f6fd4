"""The endpoint's part of a trace: a span for the request, and one for making it durable, whose context travels on."""

from __future__ import annotations

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer
from starlette.types import ASGIApp, Receive, Scope, Send

from oplata.bank.notification import parse
from oplata.errors import BadNotification
from oplata.observability.tracing import TRACEPARENT_HEADER, traceparent
from oplata.queue.base import Publisher
from oplata.queue.envelope import Envelope


class TracedCallback:
    """Begins the trace of each callback anew, whatever the request says of one."""

    def __init__(self, inner: ASGIApp, tracer: Tracer) -> None:
        self._inner = inner
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        with self._tracer.start_as_current_span(
            "callback", Context(), SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ):
            await self._inner(scope, receive, send)


class TracedPublisher:
    """Hands everything on to ``inner``, with the trace in a header."""

    def __init__(self, inner: Publisher, tracer: Tracer) -> None:
        self._inner = inner
        self._tracer = tracer

    async def publish(self, envelope: Envelope, *, timeout_s: float) -> None:
        """As the inner one does, raising what it raises."""
        with self._tracer.start_as_current_span(
            "publish", kind=SpanKind.PRODUCER, record_exception=False, set_status_on_exception=False
        ) as span:
            if span.is_recording():
                _name(span, envelope)
            headers = {**envelope.headers, TRACEPARENT_HEADER: traceparent(span)}
            await self._inner.publish(msgspec.structs.replace(envelope, headers=headers), timeout_s=timeout_s)


def _name(span: Span, envelope: Envelope) -> None:
    """Say whose callback it is. The body is read once more for it, which only what is traced pays for."""
    try:
        event = parse(envelope.body, envelope.content_type).event()
    except BadNotification:
        return
    span.set_attribute("oplata.order_id", event.order_id or "")
    span.set_attribute("oplata.payment_id", event.payment_id or "")
    span.set_attribute("oplata.status", event.status)
