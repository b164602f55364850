"""Jobs as OpenTelemetry spans: what runs is a child of the span that enqueued it, in whatever process that was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import tick

PROPAGATOR = TraceContextTextMapPropagator()


class OpenTelemetrySpans(tick.Middleware):
    """A span for each enqueue and for each run; between the two the trace travels in the job's `traceparent`."""

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self.tracer = trace.get_tracer("tick", tracer_provider=provider)

    def enqueue(self, job: tick.NewJob) -> tick.NewJob:
        with self.tracer.start_as_current_span(f"enqueue {job.type}", kind=SpanKind.PRODUCER):
            carrier: dict[str, str] = {}
            PROPAGATOR.inject(carrier)
        return job._replace(traceparent=carrier.get("traceparent", job.traceparent))

    async def run(self, ctx: tick.Context, call: Callable[[], Awaitable[Any]]) -> Any:
        parent = PROPAGATOR.extract({"traceparent": ctx.traceparent or ""})
        known = {"job.type": ctx.type, "job.id": ctx.id, "job.attempt": ctx.attempt}
        with self.tracer.start_as_current_span(f"run {ctx.type}", parent, SpanKind.CONSUMER, known):
            return await call()
