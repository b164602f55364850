"""OpenTelemetry: a span a tick, a span an attempt, and what both took, sent before the tick returns.

On where OTEL_EXPORTER_OTLP_ENDPOINT says where to, or the application has set a provider of its own; needs the extra
`otel`. Where it is off nothing of it is imported.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
from collections.abc import Coroutine, Mapping
from contextlib import AbstractContextManager
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from .config import Settings
from .jobs import Cancelled, Dead, Done, Job, Outcome, Released, Retried, Snoozed
from .logs import Redaction
from .runner import Threads

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Link, Span, TracerProvider

T = TypeVar("T")

LONGEST = 2.0
"""Seconds that a collector has for a tick's spans and metrics."""
MOST_LABELS = 200
"""Types and triggers that metrics tell apart; what comes after them is `other`."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
WAITS = (0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

_OUTCOMES: dict[type[Outcome], str] = {
    Done: "done",
    Snoozed: "snoozed",
    Cancelled: "cancelled",
    Released: "released",
    Retried: "retry",
    Dead: "dead",
}
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

logger = logging.getLogger("tick")
_threads = Threads()


def begin(settings: Settings, tick: str, trigger: str) -> Tracing | None:
    """The tracing of a tick that begins now; None where nobody wants it, or it cannot be had."""
    wanted = [signal for signal in ("TRACES", "METRICS") if _is_wanted(signal)]
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or not (wanted or _application_traces()):
        return None
    try:
        from opentelemetry import metrics, trace

        _provide(tuple(wanted))
    except ImportError:
        _warn(f"{_ENDPOINT} is set, and OpenTelemetry is not installed: pip install 'tick-jobs[otel]'")
        return None
    except Exception as error:  # noqa: BLE001 - its settings are many, and none of them may fail a tick
        _warn(f"nothing is sent to OpenTelemetry: {type(error).__name__} {error}")
        return None
    instruments = _instruments(trace.get_tracer_provider(), metrics.get_meter_provider())
    return Tracing(instruments, Redaction(settings), tick, trigger)


def _is_wanted(signal: str) -> bool:
    """Whether the environment says where to send this signal, and not that it is not to be sent."""
    endpoint = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or os.environ.get(_ENDPOINT)
    return bool(endpoint) and os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp").strip().lower() != "none"


def _application_traces() -> bool:
    """Whether the application has set a provider: it has imported the API then."""
    trace, metrics = (sys.modules.get(f"opentelemetry.{name}") for name in ("trace", "metrics"))
    return bool((trace and not _is_proxy(trace.get_tracer_provider())) or
                (metrics and not _is_proxy(metrics.get_meter_provider())))  # fmt: skip


def _is_proxy(provider: object) -> bool:
    """Whether it stands for a provider that has not been set; the API has no public name for that of meters."""
    return type(provider).__name__ in ("ProxyTracerProvider", "_ProxyMeterProvider")


@cache
def _warn(text: str) -> None:
    """Say it once in this process."""
    logger.warning("%s", text)


@cache
def _provide(signals: tuple[str, ...]) -> None:
    """Set a provider for each of the signals, unless the application has; handlers' own spans go through it too."""
    from opentelemetry import metrics, trace

    if "TRACES" in signals and _is_proxy(trace.get_tracer_provider()):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # Flushed by every tick, so not once more at exit, where a collector that hangs would hold up the process.
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=LONGEST)))
        trace.set_tracer_provider(provider)
    if "METRICS" in signals and _is_proxy(metrics.get_meter_provider()):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        reader = PeriodicExportingMetricReader(OTLPMetricExporter(timeout=LONGEST), export_interval_millis=math.inf)
        metrics.set_meter_provider(MeterProvider([reader], resource=_resource(), shutdown_on_exit=False))


def _resource() -> Any:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    own = Resource.create()
    is_named = not str(own.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service")
    return own if is_named else own.merge(Resource({SERVICE_NAME: "tick"}))


class _Instruments:
    """What is measured by, and what made the spans; the same for every tick of a process."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self.providers = (tracers, meters)
        self.tracer = tracers.get_tracer("tick")
        meter = meters.get_meter("tick")
        self.jobs = meter.create_counter("tick.jobs", "{job}", "Attempts that have ended")
        self.ticks = meter.create_counter("tick.ticks", "{tick}", "Ticks that have ended")
        self.duration = meter.create_histogram(
            "tick.job.duration", "s", "How long attempts took", explicit_bucket_boundaries_advisory=SECONDS
        )
        self.wait = meter.create_histogram(
            "tick.job.wait",
            "s",
            "How long jobs were due before they started",
            explicit_bucket_boundaries_advisory=WAITS,
        )
        self.used = meter.create_histogram(
            "tick.budget.used",
            "1",
            "The share of its budget that a tick used",
            explicit_bucket_boundaries_advisory=SHARES,
        )
        self._labels: set[str] = set()

    def label(self, name: str) -> str:
        """The name, as long as there are not too many of them."""
        if len(self._labels) < MOST_LABELS:
            self._labels.add(name)
        return name if name in self._labels else "other"


@lru_cache(maxsize=4)
def _instruments(tracers: TracerProvider, meters: MeterProvider) -> _Instruments:
    return _Instruments(tracers, meters)


class Tracing:
    """The spans and measurements of one tick."""

    def __init__(self, instruments: _Instruments, redaction: Redaction, tick: str, trigger: str) -> None:
        self._instruments = instruments
        self._redaction = redaction
        self._trigger = trigger
        known = {"tick.id": tick, "tick.trigger": trigger}
        self._span = instruments.tracer.start_span("tick", attributes=known)

    def current(self) -> AbstractContextManager[Any]:
        """The tick's span, as the current one."""
        return _current(self._span)

    def begin(self, job: Job) -> tuple[Span, Job]:
        """The span of an attempt, and the job as a part of its trace: so is what it enqueues and calls.

        It is a child of the tick's, and linked to the one in which the job was enqueued. Source of its attributes:
        https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
        """
        from opentelemetry.trace import SpanKind, set_span_in_context

        span = self._instruments.tracer.start_span(
            f"process {job.type}",
            set_span_in_context(self._span),
            SpanKind.CONSUMER,
            _attributes(job),
            _links(job),
        )
        own = span.get_span_context()
        if not own.is_valid:
            return span, job
        return span, job._replace(traceparent=f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}")

    async def inside(self, span: Span, work: Coroutine[Any, Any, T]) -> T:
        """Do the work with the span as the current one, so that the handler's own are its children."""
        with _current(span):
            return await work

    def job_ended(self, span: Span, job: Job, outcome: Outcome, seconds: float, waited: float) -> None:
        """End the span of an attempt, and measure it."""
        name = _OUTCOMES[type(outcome)]
        span.set_attribute("tick.outcome", name)
        if isinstance(outcome, Retried | Dead):
            self._fail(span, outcome.failure.message, outcome.failure.traceback)
        span.end()
        labels = {"type": self._instruments.label(job.type)}
        self._instruments.jobs.add(1, labels | {"outcome": name})
        self._instruments.duration.record(seconds, labels)
        self._instruments.wait.record(waited, labels)

    def job_abandoned(self, span: Span) -> None:
        """End the span of an attempt that did not stop when it was told to; how it ends, nobody will know."""
        self._fail(span, "Abandoned: it did not stop when its tick ended")
        span.end()

    def job_lost(self, type: str) -> None:
        self._instruments.jobs.add(1, {"type": self._instruments.label(type), "outcome": "lost"})

    def tick_ended(self, report: Mapping[str, Any], error: str | None, used: float, budget: float) -> None:
        """End the tick's span: with what it did, and with the error that it met."""
        counts = {f"tick.{name}": value for name, value in report.items() if isinstance(value, int)}
        self._span.set_attributes({**counts, "tick.budget": budget, "tick.used": used})
        if error:
            self._fail(self._span, error)
        self._span.end()
        labels = {"trigger": self._instruments.label(self._trigger), "outcome": "failed" if error else "done"}
        self._instruments.ticks.add(1, labels)
        self._instruments.used.record(used / budget, {"trigger": labels["trigger"]})

    def _fail(self, span: Span, message: str, traceback: str = "") -> None:
        from opentelemetry.trace import StatusCode

        told = self._redaction.text(message)
        name, _, rest = told.partition(": ")
        known = {"exception.type": name, "exception.message": rest or told}
        if traceback:
            known["exception.stacktrace"] = self._redaction.text(traceback)
        span.set_attribute("error.type", name)
        span.add_event("exception", known)
        span.set_status(StatusCode.ERROR, told)

    async def flush(self, seconds: float) -> None:
        """Send what has gathered, and wait for that so many seconds: a serverless host freezes what comes later."""
        flushes = [getattr(provider, "force_flush", None) for provider in self._instruments.providers]
        calls = [partial(_flush, flush, seconds) for flush in flushes if flush]
        work = {asyncio.ensure_future(_threads.run(call)) for call in calls}
        if work:
            _, late = await asyncio.wait(work, timeout=seconds)
            for each in late:
                each.cancel()
                logger.warning("the collector of OpenTelemetry did not take everything within %.1f s", seconds)


def _flush(flush: Any, seconds: float) -> None:
    try:
        flush(int(seconds * 1000))
    except Exception as error:  # noqa: BLE001 - a collector's trouble, whatever it is, is not the tick's
        logger.warning("the collector of OpenTelemetry did not take everything: %s", type(error).__name__)


def _current(span: Span) -> AbstractContextManager[Any]:
    from opentelemetry.trace import use_span

    return use_span(span, record_exception=False, set_status_on_exception=False)


def _attributes(job: Job) -> dict[str, str | int]:
    known: dict[str, str | int] = {
        "messaging.system": "tick",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": job.type,
        "messaging.message.id": str(job.id),
        "tick.attempt": job.attempt,
    }
    return known | ({"tick.schedule": job.schedule} if job.schedule else {})


def _links(job: Job) -> list[Link]:
    """A link to the span in which the job was enqueued, if it was in one."""
    if not job.traceparent:
        return []
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    enqueued_in = TraceContextTextMapPropagator().extract({"traceparent": job.traceparent}, Context())
    origin = get_current_span(enqueued_in).get_span_context()
    return [Link(origin)] if origin.is_valid else []
