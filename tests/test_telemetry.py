"""Spans and metrics of ticks: with the official SDK, and with a collector that reads OTLP over HTTP."""

from __future__ import annotations

import gzip
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import tick as public
from examples.tracing.otel_spans import OpenTelemetrySpans
from tests.factories import a_job, job, jobs, tick
from tick import telemetry
from tick.config import GRACE
from tick.handlers import current_traceparent, registry
from tick.masking import MASK
from tick.queue import Trigger

ROOT = Path(__file__).parents[1]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CANARY = "hunter2Xy77"


@pytest.fixture(autouse=True)
def own_handlers(empty_registry, monkeypatch):
    """Every test registers its own, and sets its own environment."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    telemetry._warn.cache_clear()
    yield
    registry.middleware.clear()


@pytest.fixture
def spans(monkeypatch):
    """The application's own provider of spans: gives those that have ended, by name."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)

    def ended(name: str | None = None) -> list:
        return [span for span in exporter.get_finished_spans() if name in (None, span.name)]

    ended.provider = provider
    return ended


@pytest.fixture
def metrics(monkeypatch):
    """The application's own provider of meters: gives the points of a metric, by their attributes."""
    reader = InMemoryMetricReader()
    monkeypatch.setattr(
        "opentelemetry.metrics._internal._METER_PROVIDER", MeterProvider([reader], shutdown_on_exit=False)
    )

    def points(name: str) -> dict[tuple, object]:
        data = reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data else []:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        found |= {tuple(sorted(p.attributes.items())): p for p in metric.data.data_points}
                        found["unit"] = metric.unit
        return found

    return points


def one(found: list):
    (span,) = found
    return span


class TestSpans:
    def test_of_a_tick_says_what_it_did(self, conn, settings, spans):
        public.job(type="noop")(lambda: None)
        jobs(conn, count=3)
        report = tick(settings, trigger=Trigger("vercel"))
        span = one(spans("tick"))
        assert (span.kind, span.parent, span.status.status_code) == (SpanKind.INTERNAL, None, StatusCode.UNSET)
        told = span.attributes
        assert (told["tick.id"], told["tick.trigger"], told["tick.budget"]) == (report.tick, "vercel", 10.0)
        assert (told["tick.claimed"], told["tick.done"], told["tick.dead"], told["tick.left"]) == (3, 3, 0, 0)
        assert 0 < told["tick.used"] < 10

    def test_of_a_job_is_a_child_of_the_ticks_and_linked_to_the_one_that_enqueued_it(self, conn, settings, spans):
        public.job(type="noop")(lambda: None)
        id = a_job(conn, traceparent=TRACE, schedule="nightly")
        tick(settings)
        span, parent = one(spans("process noop")), one(spans("tick"))
        assert (span.kind, span.parent.span_id) == (SpanKind.CONSUMER, parent.context.span_id)
        assert dict(span.attributes) == {
            "messaging.system": "tick",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "noop",
            "messaging.message.id": str(id),
            "tick.attempt": 1,
            "tick.schedule": "nightly",
            "tick.outcome": "done",
        }
        link = one(span.links).context
        assert (f"{link.trace_id:032x}", f"{link.span_id:016x}") == tuple(TRACE.split("-")[1:3])

    def test_of_a_job_that_nobody_traced_has_no_link(self, conn, settings, spans):
        public.job(type="noop")(lambda: None)
        a_job(conn)
        a_job(conn, traceparent="00-00000000000000000000000000000000-0000000000000000-01")
        tick(settings)
        assert [list(span.links) for span in spans("process noop")] == [[], []]

    @pytest.mark.parametrize("plain", [True, False], ids=["plain", "coroutine"])
    def test_is_the_current_one_in_the_handler(self, conn, settings, spans, plain):
        def work() -> None:
            with trace.get_tracer("theirs").start_as_current_span("inner"):
                pass

        async def work_async() -> None:
            work()

        public.job(type="noop")(work if plain else work_async)
        jobs(conn, count=5)
        tick(settings, concurrency=2)
        outer = {span.context.span_id: span for span in spans("process noop")}
        inner = spans("inner")
        assert {span.parent.span_id for span in inner} == set(outer)
        assert len(outer) == len(inner) == 5

    def test_is_where_what_is_enqueued_in_it_comes_from(self, conn, settings, spans, url):
        @public.job(type="child")
        def child() -> None: ...

        @public.job(type="parent")
        def parent(ctx: public.Context) -> str | None:
            with psycopg.connect(url) as connection:
                child.enqueue(connection)
            ctx.enqueue(child)
            assert current_traceparent.get() == ctx.traceparent
            return ctx.traceparent

        id = a_job(conn, "parent", traceparent=TRACE)
        tick(settings)
        origin = one(spans("process parent")).context
        told = f"00-{origin.trace_id:032x}-{origin.span_id:016x}-{origin.trace_flags:02x}"
        assert job(conn, id)["result"] == told
        # The row keeps where it came from: another attempt is linked to it again.
        assert job(conn, id)["traceparent"] == TRACE
        rows = conn.execute("select traceparent from tick.jobs where type = 'child'").fetchall()
        assert rows == [(told,), (told,)]
        linked = [one(span.links).context.span_id for span in spans("process child")]
        assert linked == [origin.span_id] * 2

    def test_of_a_job_does_not_stay_the_current_one(self, conn, settings, spans):
        seen = []

        @public.job(type="noop")
        async def work() -> None:
            seen.append(trace.get_current_span().get_span_context().span_id)

        jobs(conn, count=20)
        tick(settings, concurrency=1)
        assert len(set(seen)) == 20
        assert {span.parent.span_id for span in spans("process noop")} == {one(spans("tick")).context.span_id}
        assert not trace.get_current_span().get_span_context().is_valid

    @pytest.mark.parametrize(
        ("error", "outcome", "kind"),
        [
            (ValueError(f"password={CANARY}\nDETAIL: Key (a)=({CANARY})"), "retry", "ValueError"),
            (public.Permanent(f"the {CANARY}-known"), "dead", "Permanent"),
        ],
    )
    def test_of_a_failure_has_its_error_without_secrets(self, conn, settings, spans, error, outcome, kind):
        @public.job(type="noop")
        async def work(email: str) -> None:
            raise error

        a_job(conn, payload={"email": CANARY})
        tick(settings, secrets=(f"{CANARY}-known",))
        span = one(spans("process noop"))
        assert (span.attributes["tick.outcome"], span.attributes["error.type"]) == (outcome, kind)
        assert span.status.status_code == StatusCode.ERROR
        event = one(span.events)
        assert (event.name, event.attributes["exception.type"]) == ("exception", kind)
        assert "in work" in event.attributes["exception.stacktrace"]
        assert MASK in event.attributes["exception.message"]
        assert CANARY not in span.to_json()

    def test_of_what_is_no_failure_is_no_error(self, conn, settings, spans):
        @public.job(type="noop")
        def work() -> None:
            raise public.Snooze(after=60)

        a_job(conn)
        tick(settings)
        span = one(spans("process noop"))
        assert (span.attributes["tick.outcome"], span.status.status_code, span.events) == (
            "snoozed",
            StatusCode.UNSET,
            (),
        )

    def test_of_a_handler_that_does_not_stop_ends_with_its_tick(self, conn, settings, spans):
        go = threading.Event()
        public.job(type="noop")(lambda: go.wait(30))
        a_job(conn)
        try:
            tick(settings, budget=1)
        finally:
            go.set()
        span = one(spans("process noop"))
        assert (span.status.status_code, "Abandoned" in span.status.description) == (StatusCode.ERROR, True)

    def test_of_a_tick_that_fails_says_why(self, settings, spans):
        with pytest.raises(public.DatabaseUnavailable):
            tick(settings, database_url=f"postgresql://u:{CANARY}@127.0.0.1:1/d")
        span = one(spans("tick"))
        assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "DatabaseUnavailable")
        assert CANARY not in span.to_json()

    def test_is_a_child_of_what_called_the_tick(self, settings, spans):
        with trace.get_tracer("theirs").start_as_current_span("request") as request:
            tick(settings)
        assert one(spans("tick")).parent.span_id == request.get_span_context().span_id

    def test_that_is_not_sampled_changes_nothing(self, conn, settings, monkeypatch):
        monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", TracerProvider(ALWAYS_OFF, shutdown_on_exit=False))
        public.job(type="noop")(lambda ctx: ctx.traceparent)
        a_job(conn)
        assert tick(settings).done == 1

    def test_of_the_example_are_children_of_the_enqueuers_as_they_were(self, conn, settings, spans):
        @public.job(type="noop")
        def work() -> None: ...

        public.use(OpenTelemetrySpans(spans.provider))
        work.enqueue(conn)
        tick(settings)
        assert one(spans("enqueue noop")).context.span_id == one(one(spans("process noop")).links).context.span_id
        assert one(spans("run noop")).parent.span_id == one(spans("process noop")).context.span_id

    def test_of_the_application_are_flushed_with_the_tick(self, conn, settings, monkeypatch):
        exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
        monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
        public.job(type="noop")(lambda: None)
        a_job(conn)
        tick(settings)
        assert {span.name for span in exporter.get_finished_spans()} == {"tick", "process noop"}
        provider.shutdown()

    def test_of_a_provider_that_cannot_be_flushed_are_made_all_the_same(self, conn, settings, monkeypatch):
        class Plain(trace.TracerProvider):
            made = []

            def get_tracer(self, *args, **kwargs):
                self.made.append(args)
                return trace.NoOpTracer()

        monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", Plain())
        public.job(type="noop")(lambda: None)
        a_job(conn, traceparent=TRACE)
        assert tick(settings).done == 1
        assert Plain.made == [("tick",)]


class TestMetrics:
    def test_count_attempts_by_type_and_outcome_and_measure_them(self, conn, settings, metrics):
        @public.job(type="fails")
        def fails() -> None:
            raise ValueError

        public.job(type="noop")(lambda: time.sleep(0.02))
        jobs(conn, count=3)
        a_job(conn, "fails")
        conn.execute("update tick.jobs set run_at = tick.now() - interval '100 seconds' where type = 'fails'")
        tick(settings)
        counts = metrics("tick.jobs")
        assert counts[("outcome", "done"), ("type", "noop")].value == 3
        assert counts[("outcome", "retry"), ("type", "fails")].value == 1
        took = metrics("tick.job.duration")
        assert took["unit"] == "s"
        assert 0.06 <= took[("type", "noop"),].sum < 30
        assert 0.005 in took[("type", "noop"),].explicit_bounds
        assert 100 <= metrics("tick.job.wait")[("type", "fails"),].sum < 130

    def test_count_ticks_and_what_they_use_of_their_budget(self, settings, metrics):
        tick(settings, budget=10, trigger=Trigger("github"))
        with pytest.raises(public.DatabaseUnavailable):
            tick(settings, database_url="postgresql://u@127.0.0.1:1/d", trigger=Trigger("github"))
        counts = metrics("tick.ticks")
        assert counts[("outcome", "done"), ("trigger", "github")].value == 1
        assert counts[("outcome", "failed"), ("trigger", "github")].value == 1
        used = metrics("tick.budget.used")[("trigger", "github"),]
        assert (used.count, 0 < used.sum < 1, used.explicit_bounds[-1]) == (2, True, 1.0)

    def test_count_what_was_lost(self, conn, settings, metrics):
        public.job(type="noop")(lambda: None)
        a_job(conn, status="running", lease_expires_at="-1 minute")
        tick(settings)
        assert metrics("tick.jobs")[("outcome", "lost"), ("type", "noop")].value == 1

    def test_have_so_many_labels_and_no_more(self, settings, metrics, monkeypatch):
        monkeypatch.setattr(telemetry, "MOST_LABELS", 3)
        for number in range(6):
            tick(settings, trigger=Trigger(f"trigger-{number}"))
        counts = metrics("tick.ticks")
        assert counts[("outcome", "done"), ("trigger", "other")].value == 3
        assert len(counts) == 5


class TestWhetherItIsOn:
    def test_is_off_by_default(self, settings):
        assert telemetry.begin(settings, "T", "http") is None

    @pytest.mark.parametrize("signal", ["", "_TRACES", "_METRICS"])
    def test_is_off_where_the_sdk_is_disabled_or_nothing_is_exported(self, settings, spans, monkeypatch, signal):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP{signal}_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setenv("OTEL_SDK_DISABLED", "TRUE")
        assert telemetry.begin(settings, "T", "http") is None

    def test_is_off_where_the_exporters_are(self, settings, monkeypatch):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        assert telemetry.begin(settings, "T", "http") is None

    def test_says_once_what_to_install(self, conn, settings, monkeypatch, caplog):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setitem(sys.modules, "opentelemetry", None)
        public.job(type="noop")(lambda: None)
        jobs(conn)
        caplog.set_level(logging.WARNING, "tick")
        assert tick(settings).done == 1
        tick(settings)
        (said,) = caplog.messages
        assert "pip install 'tick-jobs[otel]'" in said

    def test_settings_that_cannot_be_used_fail_no_tick(self, settings, monkeypatch, caplog):
        def broken(signals):
            raise ValueError("headers: no")

        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        monkeypatch.setattr(telemetry, "_provide", broken)
        tick(settings)
        assert "nothing is sent to OpenTelemetry: ValueError headers: no" in caplog.text


# A collector


class Collector:
    """Reads OTLP over HTTP, as protobuf; it may be slow."""

    def __init__(self) -> None:
        self.spans: list = []
        self.resources: list[dict] = []
        self.metrics: dict[str, object] = {}
        self.go = threading.Event()
        self.go.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.go.wait(60)
                collector.take(self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                """What it has got, for a program that asks."""
                body = json.dumps(sorted(span.name for span in collector.spans)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None: ...

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append({each.key: each.value.string_value for each in resource.resource.attributes})
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
        else:
            raise AssertionError(path)

    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans)

    def end(self) -> None:
        self.go.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.end()


@pytest.fixture
def run(tmp_path, url, collector):
    """Runs a program in a project of its own that sends to the collector."""
    (tmp_path / "pyproject.toml").write_text('[tool.tick]\nmodules = ["their_jobs"]\n')
    (tmp_path / "their_jobs.py").write_text(
        textwrap.dedent(
            """
            import tick
            from opentelemetry import trace

            @tick.job
            async def greet(name: str = "you") -> None:
                with trace.get_tracer("theirs").start_as_current_span("inner"):
                    pass
            """
        )
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TICK_", "OTEL_"))}
    env = kept | {"PYTHONPATH": str(ROOT), "DATABASE_URL": url, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}

    def run(*command: str, **more: str) -> subprocess.CompletedProcess:
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=env | more, capture_output=True, text=True, timeout=60)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    return run


PROGRAM = """
import asyncio, json, time, urllib.request, os
from tick.config import Settings
from tick.handlers import load
from tick.processor import process_tick

settings = Settings.load()
registry = load(settings.modules, settings.root)

async def main():
    started = time.monotonic()
    report = await process_tick(settings, registry, budget=float(os.environ.get("BUDGET", 20)))
    took = time.monotonic() - started
    seen = json.load(urllib.request.urlopen(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]))
    print(json.dumps({"report": report.as_dict(), "took": took, "seen": seen}))

asyncio.run(main())
"""


class TestCollector:
    def test_has_everything_when_run_once_has_ended(self, conn, run, collector):
        a_job(conn, "greet", traceparent=TRACE)
        report = json.loads(run("-m", "tick.cli", "run-once", "--json").stdout)
        assert report["done"] == 1
        assert collector.names() == ["inner", "process greet", "tick"]
        spans = {span.name: span for span in collector.spans}
        assert spans["inner"].parent_span_id == spans["process greet"].span_id
        assert spans["process greet"].parent_span_id == spans["tick"].span_id
        assert spans["process greet"].links[0].trace_id.hex() == TRACE.split("-")[1]
        assert collector.resources[0]["service.name"] == "tick"
        assert set(collector.metrics) == {
            "tick.jobs",
            "tick.job.duration",
            "tick.job.wait",
            "tick.ticks",
            "tick.budget.used",
        }

    def test_has_everything_before_process_tick_returns(self, conn, run):
        jobs(conn, "greet", 3)
        told = json.loads(run("-c", PROGRAM).stdout)
        assert told["seen"] == ["inner"] * 3 + ["process greet"] * 3 + ["tick"]

    def test_is_told_whose_ticks_they_are(self, run, collector):
        run(
            "-m",
            "tick.cli",
            "run-once",
            OTEL_SERVICE_NAME="shop",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
        )
        assert collector.resources[0]["service.name"] == "shop"
        assert collector.resources[0]["deployment.environment"] == "test"

    @pytest.mark.parametrize(("only", "spans", "metrics"), [("TRACES", True, False), ("METRICS", False, True)])
    def test_gets_only_what_it_is_for(self, run, collector, only, spans, metrics):
        where = {
            f"OTEL_EXPORTER_OTLP_{only}_ENDPOINT": f"{collector.url}/v1/{only.lower()}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "",
        }
        run("-m", "tick.cli", "run-once", **where)
        assert (bool(collector.spans), bool(collector.metrics)) == (spans, metrics)

    def test_gets_what_every_tick_of_a_process_did(self, conn, run, collector):
        again = PROGRAM.replace("asyncio.run(main())", "asyncio.run(main())\nasyncio.run(main())")
        run("-c", again)
        assert collector.names() == ["tick", "tick"]
        assert collector.metrics["tick.ticks"].sum.data_points[0].as_int == 2

    def test_gets_what_a_tick_that_failed_has_to_say(self, run, collector):
        done = """
import asyncio
from tick.config import Settings
from tick.errors import DatabaseUnavailable
from tick.handlers import registry
from tick.processor import process_tick

try:
    asyncio.run(process_tick(Settings(database_url="postgresql://u@127.0.0.1:1/d"), registry))
except DatabaseUnavailable:
    print("failed")
"""
        assert run("-c", done).stdout == "failed\n"
        assert collector.names() == ["tick"]
        assert collector.spans[0].status.code == 2

    def test_that_hangs_holds_up_neither_a_tick_nor_its_process(self, conn, run, collector):
        a_job(conn, "greet")
        collector.go.clear()
        started = time.monotonic()
        done = run(
            "-c",
            PROGRAM.replace('json.load(urllib.request.urlopen(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]))', "None"),
        )
        took = time.monotonic() - started
        told = json.loads(done.stdout)
        assert told["report"]["done"] == 1
        # 2 seconds for the collector; the rest is what a loaded machine adds, and less than a time-out of the exporter's.
        assert told["took"] - told["report"]["used"] < 2 + 3
        assert took < 25
        assert job(conn, 1)["status"] == "done"
        assert "did not take everything within" in done.stderr

    def test_that_hangs_never_takes_a_tick_beyond_its_grace(self, conn, run, collector):
        a_job(conn, "greet", payload={"name": "x"})
        collector.go.clear()
        # The first tick pays for the import of the SDK, which a loaded machine may need seconds for.
        warm = "settings = Settings.load()\nfrom tick import telemetry\ntelemetry.begin(settings, 'T', 'cli')"
        slow = PROGRAM.replace("settings = Settings.load()", warm)
        slow = slow.replace("registry = load", "import tick\nregistry = load").replace(
            "async def main", "@tick.job\ndef blocks() -> None:\n    time.sleep(30)\n\nasync def main"
        )
        slow = slow.replace('json.load(urllib.request.urlopen(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]))', "None")
        a_job(conn, "blocks")
        slow = slow.replace("asyncio.run(main())", "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())")
        told = json.loads(run("-c", slow, BUDGET="3").stdout)
        assert told["took"] < 3 + GRACE

    def test_that_is_not_there_is_a_line_in_the_log(self, conn, run):
        a_job(conn, "greet")
        done = run("-m", "tick.cli", "run-once", "--json", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
        assert json.loads(done.stdout)["done"] == 1
        assert "opentelemetry" in done.stderr


def test_what_is_off_is_not_imported(conn, run):
    a_job(conn, "greet")
    program = "import sys, tick.cli; sys.modules['their_jobs'] = sys; tick.cli.main(['run-once']); print('opentelemetry' in sys.modules)"
    assert run("-c", program, OTEL_EXPORTER_OTLP_ENDPOINT="").stdout.splitlines()[-1] == "False"


def test_every_attribute_and_metric_is_in_the_guide(conn, settings, spans, metrics):
    guide = (ROOT / "docs" / "telemetry.md").read_text()
    public.job(type="noop")(lambda: None)
    a_job(conn, schedule="nightly")
    tick(settings)
    for name in one(spans("process noop")).attributes:
        assert f"`{name}`" in guide, name
    for name in ("tick.jobs", "tick.job.duration", "tick.job.wait", "tick.ticks", "tick.budget.used"):
        assert len(metrics(name)) == 2
        assert f"| `{name}` |" in guide
    assert f"first {telemetry.MOST_LABELS} of a process" in guide
