"""Middleware around every enqueue and every run; traces; the examples for Sentry and OpenTelemetry."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import types
import uuid
from contextvars import ContextVar
from pathlib import Path

import psycopg
import pytest
import sentry_sdk
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sentry_sdk.transport import Transport

import tick as public
from examples.tracing.otel_spans import OpenTelemetrySpans
from examples.tracing.sentry_errors import install
from tests.factories import a_job, job, move_clock, statuses, tick
from tick import runner
from tick.handlers import current_traceparent, registry

ROOT = Path(__file__).parents[1]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest.fixture(autouse=True)
def no_other_middleware(empty_registry):
    """Every test registers its own; afterwards there is none."""
    assert registry.middleware == []
    yield
    registry.middleware.clear()


@pytest.fixture
def log() -> list:
    return []


class Logged(public.Middleware):
    """Writes down when it is entered and left, and by what."""

    def __init__(self, name: str, log: list) -> None:
        self.name, self.log = name, log

    async def run(self, ctx, call):
        self.log.append(f"into {self.name}")
        try:
            return await call()
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        finally:
            self.log.append(f"out of {self.name}")


class TestRun:
    def test_the_first_registered_is_the_outermost(self, conn, settings, log):
        @public.job
        async def work() -> None:
            log.append("work")

        public.use(Logged("outer", log))
        public.use(Logged("inner", log))
        work.enqueue(conn)
        tick(settings)
        assert log == ["into outer", "into inner", "work", "out of inner", "out of outer"]

    def test_without_one_nothing_is_between_the_job_and_its_handler(self, conn, settings, monkeypatch):
        monkeypatch.setattr(runner, "_inside", None)
        public.job(type="noop")(lambda: None)
        a_job(conn)
        assert tick(settings).done == 1

    def test_one_that_overrides_nothing_changes_nothing(self, conn, settings):
        @public.job
        async def work(n: int) -> int:
            return n + 1

        public.use(public.Middleware())
        id = work.enqueue(conn, n=1)
        tick(settings)
        assert job(conn, id)["result"] == 2

    @pytest.mark.parametrize(
        ("error", "status", "failures", "last_error"),
        [
            (ValueError("no"), "pending", 1, "ValueError: no"),
            (public.Retry("busy", after=5), "pending", 1, "Retry: busy"),
            (public.Snooze(after=5), "pending", 0, None),
            (public.Permanent("gone"), "dead", 1, "Permanent: gone"),
            (SystemExit(1), "pending", 1, "SystemExit: 1"),
        ],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.parametrize("kind", ["coroutine", "plain"])
    def test_what_the_handler_raises_passes_through_and_means_what_it_means(
        self, conn, settings, log, error, status, failures, last_error, kind
    ):
        async def coroutine() -> None:
            raise error

        def plain() -> None:
            raise error

        public.job(type="noop")(locals()[kind])
        public.use(Logged("it", log))
        id = a_job(conn)
        tick(settings)
        row = job(conn, id)
        assert (row["status"], row["failures"], row["last_error"]) == (status, failures, last_error)
        # What a future cannot carry out of a thread is wrapped on its way.
        assert log[1] in (type(error).__name__, "_Raised")

    def test_what_it_raises_is_the_outcome_of_the_job(self, conn, settings):
        class Refuses(public.Middleware):
            async def run(self, ctx, call):
                raise public.Permanent("not in this house")

        public.job(type="noop")(lambda: None)
        public.use(Refuses())
        id = a_job(conn)
        tick(settings)
        assert (job(conn, id)["status"], job(conn, id)["last_error"]) == ("dead", "Permanent: not in this house")

    def test_what_it_returns_is_the_result(self, conn, settings):
        class Wraps(public.Middleware):
            async def run(self, ctx, call):
                try:
                    return {"returned": await call()}
                except KeyError:
                    return "caught"

        @public.job
        async def work(fails: bool) -> int:
            if fails:
                raise KeyError
            return 7

        public.use(Wraps())
        ids = [work.enqueue(conn, fails=fails) for fails in (False, True)]
        tick(settings)
        assert [job(conn, id)["result"] for id in ids] == [{"returned": 7}, "caught"]
        assert statuses(conn) == {"done": 2}

    def test_one_that_does_not_call_the_handler_leaves_the_job_done(self, conn, settings, log):
        class Skips(public.Middleware):
            async def run(self, ctx, call):
                return "skipped"

        public.job(type="noop")(lambda: log.append("work"))
        public.use(Skips())
        id = a_job(conn)
        tick(settings)
        assert (job(conn, id)["status"], job(conn, id)["result"], log) == ("done", "skipped", [])

    def test_it_may_call_the_handler_again(self, conn, settings):
        class Twice(public.Middleware):
            async def run(self, ctx, call):
                try:
                    return await call()
                except ConnectionError:
                    return await call()

        calls = []

        @public.job
        async def work() -> int:
            calls.append(1)
            if len(calls) == 1:
                raise ConnectionError
            return len(calls)

        public.use(Twice())
        public.use(public.Middleware())
        id = work.enqueue(conn)
        tick(settings)
        assert (job(conn, id)["result"], job(conn, id)["failures"]) == (2, 0)

    def test_a_payload_that_does_not_fit_is_seen_by_it(self, conn, settings, log):
        @public.job(type="noop")
        async def work(n: int) -> None: ...

        public.use(Logged("it", log))
        id = a_job(conn, payload={"n": "seven"})
        tick(settings)
        assert log == ["into it", "InvalidPayload", "out of it"]
        assert job(conn, id)["status"] == "dead"

    @pytest.mark.parametrize("kind", ["coroutine", "plain"])
    def test_a_time_out_cancels_it(self, conn, settings, log, kind):
        released = asyncio.Event()

        async def coroutine() -> None:
            await released.wait()

        def plain() -> None:
            import time

            time.sleep(1.5)

        public.job(type="noop", timeout=0.2)(locals()[kind])
        public.use(Logged("outer", log))
        public.use(Logged("inner", log))
        id = a_job(conn)
        tick(settings)
        assert log == ["into outer", "into inner", "CancelledError", "out of inner", "CancelledError", "out of outer"]
        assert job(conn, id)["last_error"].startswith("TimeoutError: timed out")

    @pytest.mark.parametrize("kind", ["coroutine", "plain"])
    def test_the_handler_sees_the_context_variables_that_it_sets_and_the_next_job_does_not(self, conn, settings, kind):
        class Tenant(public.Middleware):
            async def run(self, ctx, call):
                if ctx.key:
                    tenant.set(ctx.key)
                return await call()

        async def coroutine() -> str:
            return tenant.get()

        def plain() -> str:
            return tenant.get()

        public.job(type="noop")(locals()[kind])
        public.use(Tenant())
        ids = [a_job(conn, key=key, run_at=f"-{9 - n} s") for n, key in enumerate(["a", None, "b", None])]
        tick(settings, concurrency=1)
        assert [job(conn, id)["result"] for id in ids] == ["a", "nobody", "b", "nobody"]

    def test_it_knows_the_job(self, conn, settings, log):
        class Looks(public.Middleware):
            async def run(self, ctx, call):
                log.append((ctx.id, ctx.type, ctx.attempt, ctx.key, ctx.traceparent))
                return await call()

        public.job(type="noop")(lambda: None)
        public.use(Looks())
        id = a_job(conn, key="k", traceparent=TRACE)
        tick(settings)
        assert log == [(id, "noop", 1, "k", TRACE)]


class Prioritised(public.Middleware):
    """Puts every job at another priority."""

    def enqueue(self, job: public.NewJob) -> public.NewJob:
        return job._replace(priority=(job.priority or 0) * 10 + 7)


class TestEnqueue:
    def priorities(self, conn) -> list[int]:
        return [priority for (priority,) in conn.execute("select priority from tick.jobs order by id").fetchall()]

    def test_every_way_to_enqueue_from_python_passes_through_it_once(self, conn, settings):
        @public.job
        async def work(ctx: public.Context, follow: bool = False) -> None:
            if follow:
                ctx.enqueue(work)
                ctx.enqueue("work", {})
                ctx.enqueue(work.of())

        public.use(Prioritised())
        work.enqueue(conn)
        public.enqueue(conn, "work")
        public.enqueue_many(conn, [work.of(), public.of("work")])
        public.group(conn, [work.of()], then=work.using(then=work.of()).of())
        work.enqueue(conn, follow=True)
        tick(settings)
        assert self.priorities(conn) == [7] * 11

    async def test_on_an_async_connection_too(self, conn, url):
        public.job(type="noop")(lambda: None)
        public.use(Prioritised())
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await public.enqueue(connection, "noop")
        assert self.priorities(conn) == [7]

    def test_they_follow_one_another_in_the_order_of_their_registration(self, conn):
        public.job(type="noop")(lambda: None)
        public.use(Prioritised())
        public.use(Prioritised())
        public.enqueue(conn, "noop", priority=1)
        assert self.priorities(conn) == [177]

    def test_one_that_raises_has_nothing_written(self, conn):
        class Refuses(public.Middleware):
            def enqueue(self, job):
                raise PermissionError("read-only")

        public.job(type="noop")(lambda: None)
        public.use(Refuses())
        with pytest.raises(PermissionError, match="read-only"):
            public.enqueue(conn, "noop")
        assert statuses(conn) == {}


class TestTraces:
    @pytest.fixture
    def traced(self):
        """A request that is being traced."""
        token = current_traceparent.set(TRACE)
        yield
        current_traceparent.reset(token)

    def traces(self, conn) -> list[str | None]:
        return [row[0] for row in conn.execute("select traceparent from tick.jobs order by id").fetchall()]

    @pytest.fixture
    def work(self):
        @public.job
        async def work() -> str | None:
            return current_traceparent.get()

        return work

    def test_a_job_belongs_to_the_trace_in_which_it_is_enqueued(self, conn, work, traced):
        work.enqueue(conn)
        other = TRACE.replace("b7", "c7")
        work.using(traceparent=other).enqueue(conn)
        assert self.traces(conn) == [TRACE, other]

    def test_outside_of_a_trace_it_belongs_to_none(self, conn, settings, work):
        id = work.enqueue(conn)
        tick(settings)
        assert self.traces(conn) == [None]
        assert job(conn, id)["result"] is None

    @pytest.mark.parametrize("given", ["", "00-zz", TRACE.upper(), f"{TRACE}-", 7])
    def test_what_is_no_traceparent_is_refused(self, conn, work, given):
        with pytest.raises(public.InvalidPayload, match="is not a traceparent of W3C Trace Context"):
            work.using(traceparent=given).enqueue(conn)

    @pytest.mark.parametrize("kind", ["coroutine", "plain"])
    def test_it_is_the_running_one_around_the_handler_and_not_after_it(self, conn, settings, kind):
        async def coroutine(ctx: public.Context) -> list[str | None]:
            return [ctx.traceparent, current_traceparent.get()]

        def plain(ctx: public.Context) -> list[str | None]:
            return [ctx.traceparent, current_traceparent.get()]

        public.job(type="noop")(locals()[kind])
        ids = [a_job(conn, traceparent=given, run_at=f"-{9 - n} s") for n, given in enumerate([TRACE, None])]
        tick(settings, concurrency=1)
        assert [job(conn, id)["result"] for id in ids] == [[TRACE, TRACE], [None, None]]

    def test_what_a_job_enqueues_belongs_to_its_trace(self, conn, url, settings, work):
        @public.job
        async def asynchronous(ctx: public.Context) -> None:
            ctx.enqueue(work)
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                await work.enqueue(connection)

        @public.job
        def plain(ctx: public.Context) -> None:
            ctx.enqueue(work)
            with psycopg.connect(url, autocommit=True) as connection:
                work.enqueue(connection)

        for handler in (asynchronous, plain):
            handler.using(traceparent=TRACE, then=work.of()).enqueue(conn)
        tick(settings)
        assert self.traces(conn) == [TRACE] * 8

    def test_a_window_belongs_to_no_trace(self, conn, settings, work):
        settings.schedules_path.write_text('[schedules.work]\nevery = "1h"\n')
        move_clock(conn, "2026-03-01T10:30Z")
        tick(settings)
        move_clock(conn, "2026-03-01T11:00Z")
        tick(settings)
        assert self.traces(conn) == [None]


class Kept(Transport):
    """Keeps what would be sent to Sentry."""

    def __init__(self, options=None) -> None:
        super().__init__(options)
        self.events: list[dict] = []

    def capture_envelope(self, envelope) -> None:
        self.events += [item.payload.json for item in envelope.items if item.type == "event"]


@pytest.fixture
def sentry():
    """Sentry as the example installs it, in memory."""
    transport = Kept()
    install(dsn="https://key@sentry.example.com/1", transport=transport, default_integrations=False)
    yield transport
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


class TestSentry:
    @pytest.mark.parametrize("kind", ["coroutine", "plain"])
    def test_the_event_of_a_failure_has_the_job_and_not_its_payload(self, conn, settings, sentry, kind):
        async def coroutine(card: str) -> None:
            raise ValueError("it was refused")

        def plain(card: str) -> None:
            raise ValueError("it was refused")

        public.job(type="charge")(locals()[kind])
        # Not written in this file, whose lines are in the event.
        card = str(uuid.uuid4())
        id = a_job(conn, "charge", payload={"card": card}, attempt=3)
        tick(settings)
        (event,) = sentry.events
        assert event["tags"] == {"job.type": "charge", "job.id": id, "job.attempt": 4}
        (value,) = event["exception"]["values"]
        assert (value["type"], value["value"]) == ("ValueError", "it was refused")
        assert value["stacktrace"]["frames"][-1]["function"] == kind
        assert card not in json.dumps(event)
        assert job(conn, id)["last_error"] == "ValueError: it was refused"

    def test_what_a_handler_asks_for_is_no_error(self, conn, settings, sentry):
        @public.job
        async def work(after: int) -> None:
            raise (public.Snooze if after else public.Retry)(after=60)

        for after in (0, 1):
            work.enqueue(conn, after=after)
        tick(settings)
        assert sentry.events == []

    def test_jobs_at_the_same_time_keep_their_tags_apart(self, conn, settings, sentry):
        together = []

        @public.job
        async def work(n: int) -> None:
            together.append(n)
            while len(together) < 5:  # noqa: ASYNC110 - the others count too
                await asyncio.sleep(0.001)
            raise ValueError(str(n))

        ids = {str(n): work.enqueue(conn, n=n) for n in range(5)}
        tick(settings)
        told = {event["exception"]["values"][0]["value"]: event["tags"]["job.id"] for event in sentry.events}
        assert told == ids


ENQUEUE = """
import json, os, psycopg, tick
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from examples.tracing.otel_spans import OpenTelemetrySpans

@tick.job
def work(): ...

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tick.use(OpenTelemetrySpans(provider))
with provider.get_tracer("web").start_as_current_span("POST /orders"):
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        work.enqueue(connection)
spans = {s.name: [s.context.trace_id, s.context.span_id, s.parent and s.parent.span_id] for s in exporter.get_finished_spans()}
print(json.dumps(spans))
"""


@pytest.fixture
def spans():
    """OpenTelemetry as the example has it, in memory."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    public.use(OpenTelemetrySpans(provider))
    yield exporter
    provider.shutdown()


class TestOpenTelemetry:
    def test_a_run_is_a_child_of_the_span_that_enqueued_it_in_another_process(self, conn, url, settings, spans):
        done = subprocess.run(
            [sys.executable, "-c", ENQUEUE], cwd=ROOT, env=os.environ | {"DATABASE_URL": url},
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        there = json.loads(done.stdout)

        @public.job
        async def work() -> None: ...

        assert tick(settings).done == 1
        (run,) = spans.get_finished_spans()
        trace_id, span_id, parent = there["enqueue work"]
        assert parent == there["POST /orders"][1]
        assert (run.name, run.kind) == ("run work", SpanKind.CONSUMER)
        assert (run.context.trace_id, run.parent.span_id) == (trace_id, span_id)
        assert dict(run.attributes) == {"job.type": "work", "job.id": 1, "job.attempt": 1}

    @pytest.mark.parametrize("kind", ["coroutine", "plain"])
    def test_what_follows_is_a_child_of_the_run(self, conn, settings, spans, kind):
        @public.job
        async def second() -> None: ...

        async def coroutine(ctx: public.Context) -> None:
            ctx.enqueue(second)

        def plain(ctx: public.Context) -> None:
            ctx.enqueue(second)

        public.job(type="first")(locals()[kind])
        public.enqueue(conn, "first")
        tick(settings)
        by_name = {span.name: span for span in spans.get_finished_spans()}
        chain = [by_name[name] for name in ("enqueue first", "run first", "enqueue second", "run second")]
        assert [span.parent and span.parent.span_id for span in chain] == [
            None,
            *(s.context.span_id for s in chain[:-1]),
        ]
        assert len({span.context.trace_id for span in chain}) == 1

    def test_a_failure_is_on_its_span(self, conn, settings, spans):
        @public.job
        async def work() -> None:
            raise ValueError("no")

        a_job(conn, "work")
        tick(settings)
        (run,) = spans.get_finished_spans()
        assert run.parent is None
        assert run.status.status_code == StatusCode.ERROR
        assert run.events[0].attributes["exception.message"] == "no"

    def test_without_an_sdk_nothing_is_traced_and_everything_works(self, conn, settings):
        @public.job
        async def work() -> None: ...

        public.use(OpenTelemetrySpans(trace.NoOpTracerProvider()))
        work.using(traceparent=TRACE).enqueue(conn)
        work.enqueue(conn)
        assert tick(settings).done == 2
        rows = conn.execute("select traceparent from tick.jobs order by id").fetchall()
        assert rows == [(TRACE,), (None,)]


def test_the_guide_does_what_it_says(conn, url, settings, monkeypatch):
    guide = ROOT / "docs" / "middleware.md"
    module = types.ModuleType("guide")
    module.DATABASE_URL = url
    monkeypatch.setitem(sys.modules, "guide", module)
    monkeypatch.delenv("SENTRY_DSN", raising=False)
    for code in re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(code, str(guide), "exec"), module.__dict__)
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)
    assert [type(middleware).__name__ for middleware in registry.middleware] == [
        "Timing", "OpenTelemetrySpans", "SentryErrors",
    ]  # fmt: skip
    assert tick(settings).done == 1
    assert job(conn, 1)["priority"] == 5
    assert job(conn, 1)["result"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
