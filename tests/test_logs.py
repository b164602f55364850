"""The log: one line a tick and one an attempt, what is in them, and what never is."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from psycopg import errors

import tick as public
from tests.factories import a_job, job, jobs, move_clock, tick
from tick import logs
from tick.config import Settings
from tick.masking import MASK
from tick.queue import Trigger
from tick.web import Service, create_app

ROOT = Path(__file__).parents[1]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CANARY = "hunter2Xy77"


@pytest.fixture(autouse=True)
def own_handlers(empty_registry):
    """Every test registers its own."""


@pytest.fixture
def lines(caplog):
    """The fields of the records of ticks and of jobs, as far as they have been written."""
    caplog.set_level(logging.INFO, "tick")
    standard = logs._STANDARD

    def written(logger: str) -> list[dict]:
        records = [record for record in caplog.records if record.name == logger]
        return [
            {"level": record.levelname, "message": record.getMessage()}
            | {name: value for name, value in vars(record).items() if name not in standard}
            for record in records
        ]

    return written


def of_job(lines) -> dict:
    (line,) = lines("tick.jobs")
    return line


class TestOfAJob:
    def test_says_which_it_was_how_it_ended_and_what_it_took(self, conn, settings, lines):
        public.job(type="noop")(lambda: None)
        id = a_job(conn, run_at="-90 seconds")
        report = tick(settings, trigger=Trigger("vercel", "delivery-7"))
        line = of_job(lines)
        assert 0 <= line.pop("seconds") < 5
        assert 90 <= line.pop("waited") < 120
        assert line.pop("message").startswith(f"noop {id}: done in 0.")
        assert line == {"level": "INFO", "event": "job.ended", "tick": report.tick, "trigger": "vercel",
                        "delivery": "delivery-7", "job": id, "type": "noop", "attempt": 1, "outcome": "done"}  # fmt: skip

    def test_of_a_schedule_and_a_trace_says_of_which(self, conn, settings, lines):
        public.job(type="noop")(lambda: None)
        a_job(conn, schedule="nightly", window="2026-03-01 03:00+01", traceparent=TRACE)
        tick(settings)
        line = of_job(lines)
        assert (line["schedule"], line["window"]) == ("nightly", "2026-03-01T02:00:00Z")
        assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"

    @pytest.mark.parametrize(
        ("error", "level", "outcome", "told"),
        [
            (ValueError("no"), "WARNING", "retry", "ValueError: no"),
            (public.Retry("busy", after=5), "WARNING", "retry", "Retry: busy"),
            (public.Permanent("gone"), "ERROR", "dead", "Permanent: gone"),
            (public.Snooze(after=5), "INFO", "snoozed", None),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_has_the_level_of_its_outcome_and_its_error(self, conn, settings, lines, error, level, outcome, told):
        @public.job(type="noop")
        async def work() -> None:
            raise error

        a_job(conn)
        tick(settings)
        line = of_job(lines)
        assert (line["level"], line["outcome"], line.get("error")) == (level, outcome, told)
        assert told is None or told in line["message"]
        assert "Traceback" not in str(line)

    def test_that_is_tried_again_says_when(self, conn, settings, lines):
        @public.job(type="noop")
        def work() -> None:
            raise public.Retry("busy", after=30)

        a_job(conn)
        tick(settings)
        assert of_job(lines)["retry_in"] == 30
        assert "again in 30.0 s: Retry: busy" in of_job(lines)["message"]

    def test_that_was_lost_is_an_error(self, conn, settings, lines):
        public.job(type="noop")(lambda: None)
        a_job(conn, status="running", lease_expires_at="-1 minute")
        a_job(conn, "poison", status="running", lease_expires_at="-1 minute", losses=2, attempt=3)
        tick(settings)
        lost = [line for line in lines("tick.jobs") if line["event"] == "job.lost"]
        assert {(line["level"], line["type"], line["outcome"]) for line in lost} == {
            ("ERROR", "noop", "lost"),
            ("ERROR", "poison", "dead"),
        }

    def test_that_did_not_stop_in_time_is_written_too(self, conn, settings, lines):
        release = []

        @public.job(type="noop", timeout=0.1, max_attempts=1)
        def work() -> None:
            import time

            while not release:
                time.sleep(0.01)

        a_job(conn)
        try:
            tick(settings, budget=5)
        finally:
            release.append(True)
        assert (of_job(lines)["outcome"], of_job(lines)["level"]) == ("dead", "ERROR")

    def test_that_was_never_started_has_no_line(self, conn, settings, lines):
        public.job(type="noop", timeout="4s")(lambda: None)
        a_job(conn)
        tick(settings, budget=2)
        assert lines("tick.jobs") == []

    def test_holds_no_payload_no_result_no_key_and_no_secret(self, conn, settings, lines):
        @public.job(type="noop")
        def work(email: str, fails: bool) -> dict:
            if fails:
                raise ValueError(f"Authorization: Bearer {CANARY} in postgres://u:{CANARY}@h and the-{CANARY}-known")
            return {"result": CANARY}

        for fails in (True, False):
            a_job(conn, payload={"email": CANARY, "fails": fails}, key=CANARY + str(fails))
        tick(settings, secrets=(f"the-{CANARY}-known",))
        assert len(lines("tick.jobs")) == 2
        assert CANARY not in str(lines("tick.jobs"))
        assert MASK in str(lines("tick.jobs"))

    def test_of_an_error_of_postgres_has_its_sqlstate_and_not_the_row(self, conn, settings, lines):
        conn.execute("create temporary table people (email text unique); insert into people values ('ada@example.com')")

        @public.job(type="noop")
        def work() -> None:
            conn.execute("insert into people values ('ada@example.com')")

        a_job(conn)
        tick(settings)
        assert "ada@example.com" in job(conn, 1)["last_error"]
        line = of_job(lines)
        assert line["sqlstate"] == errors.UniqueViolation.sqlstate
        assert line["error"].startswith("UniqueViolation: duplicate key value violates unique constraint")
        assert "ada@example.com" not in str(line)

    def test_with_a_statement_in_its_error_shows_none_of_it(self, conn, settings, lines):
        @public.job(type="noop")
        def work() -> None:
            conn.execute(f"selekt '{CANARY}'")

        a_job(conn)
        tick(settings)
        assert (of_job(lines)["sqlstate"], CANARY in str(of_job(lines))) == ("42601", False)

    def test_that_went_well_is_only_counted_after_so_many_and_failures_always(self, conn, settings, lines, monkeypatch):
        monkeypatch.setattr(logs, "MOST_LINES", 5)

        @public.job(type="fails")
        def fails() -> None:
            raise ValueError

        public.job(type="noop")(lambda: None)
        jobs(conn, "noop", 20)
        jobs(conn, "fails", 20)
        report = tick(settings)
        assert (report.done, report.retried) == (20, 20)
        outcomes = [line["outcome"] for line in lines("tick.jobs") if line["event"] == "job.ended"]
        assert (outcomes.count("done"), outcomes.count("retry")) == (5, 20)
        assert [line["event"] for line in lines("tick.jobs")].count("job.lines_left_out") == 1

    def test_is_always_written_at_debug(self, conn, settings, lines, monkeypatch, caplog):
        monkeypatch.setattr(logs, "MOST_LINES", 5)
        caplog.set_level(logging.DEBUG, "tick.jobs")
        public.job(type="noop")(lambda: None)
        jobs(conn, "noop", 20)
        tick(settings)
        assert [line["event"] for line in lines("tick.jobs")].count("job.ended") == 20


class TestOfATick:
    def test_counts_what_it_did(self, conn, settings, lines):
        public.job(type="noop")(lambda: None)
        jobs(conn, count=3)
        report = tick(settings, trigger=Trigger("github", "run-8"))
        (line,) = lines("tick.ticks")
        assert line.pop("message").startswith(f"tick {report.tick[:8]} by github in 0.")
        assert (
            line == {"level": "INFO", "event": "tick.ended", "delivery": "run-8", "outcome": "done"} | report.as_dict()
        )

    def test_with_nothing_to_do_has_one_too(self, settings, lines):
        tick(settings)
        (line,) = lines("tick.ticks")
        assert line["message"].endswith("of 10 s: nothing to do")

    def test_that_failed_is_an_error(self, settings, lines):
        with pytest.raises(public.DatabaseUnavailable):
            tick(settings, database_url=f"postgresql://u:{CANARY}@127.0.0.1:1/d", trigger=Trigger("http"))
        (line,) = lines("tick.ticks")
        assert (line["level"], line["event"], line["outcome"], line["trigger"]) == (
            "ERROR",
            "tick.ended",
            "failed",
            "http",
        )
        assert line["error"].startswith("DatabaseUnavailable: Postgres cannot be reached")
        assert CANARY not in str(line)

    def test_with_a_broken_file_ran_its_jobs_and_failed(self, conn, settings, lines):
        public.job(type="noop")(lambda: None)
        a_job(conn)
        settings.schedules_path.write_text("[schedules.nightly]\n")
        with pytest.raises(public.ConfigurationError):
            tick(settings)
        (line,) = lines("tick.ticks")
        assert (line["outcome"], "schedules.nightly" in line["error"]) == ("failed", True)
        assert of_job(lines)["outcome"] == "done"

    def test_is_not_there_when_nobody_listens(self, conn, settings, caplog):
        caplog.set_level(logging.CRITICAL, "tick")
        public.job(type="noop")(lambda: None)
        a_job(conn)
        assert tick(settings).done == 1
        assert caplog.records == []


# Forms


def record(
    message: object = "hello", *args: object, name: str = "theirs", error: Exception | None = None, **extra: object
):
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.getLogger(name).makeRecord(name, logging.INFO, "f", 1, message, args, exc_info, extra=extra or None)
    made.created = datetime(2026, 3, 1, 2, 30, 0, 123456, UTC).timestamp()
    return made


def written(form: type[logs.Masked], *args: object, settings: Settings | None = None, **options: object) -> str:
    return form(settings).format(record(*args, **options))


def in_json(*args: object, **options: object) -> dict:
    line = written(logs.JsonLines, *args, **options)
    assert len(line.splitlines()) == 1
    return json.loads(line)


class TestJson:
    def test_has_time_level_logger_event_and_message(self):
        assert in_json("hello %s", "Ada") == {
            "time": "2026-03-01T02:30:00.123Z",
            "level": "info",
            "logger": "theirs",
            "event": "log",
            "message": "hello Ada",
        }

    def test_has_the_fields_of_others_masked(self):
        line = in_json(f"password={CANARY}", user=7, token=CANARY, deep={"api_key": [CANARY]}, event="sign-in")
        assert (line["event"], line["user"], line["token"], line["deep"]) == ("sign-in", 7, MASK, {"api_key": MASK})
        assert line["message"] == f"password={MASK}"

    def test_hides_the_secrets_of_this_process(self):
        settings = Settings(secrets=(f"{CANARY}-cron",))
        assert in_json(f"got {CANARY}-cron", settings=settings)["message"] == f"got {MASK}"

    def test_has_tracebacks_in_one_line_and_without_rows(self):
        try:
            raise ValueError(f"first\nDETAIL:  Key (email)=({CANARY}) already exists.\nsecret={CANARY}")  # noqa: TRY301
        except ValueError as error:
            line = in_json("failed", error=error)
        assert line["traceback"].startswith("Traceback (most recent call last)")
        assert "ValueError: first" in line["traceback"]
        assert CANARY not in line["traceback"]

    @pytest.mark.parametrize(
        "evil", ["\n", "\r", "\x1b[31m", "\x9b31m", "\x85", "\u2028", "\u202e", "\x00", "\ud800", "\x0b\x0c"]
    )
    def test_nothing_in_a_value_breaks_a_line_or_moves_a_cursor(self, evil):
        for line in (
            written(logs.JsonLines, f"a{evil}b", user=f"c{evil}d", **{f"e{evil}f": 1}),
            written(logs.JsonLines, f"a{evil}b", name="tick.jobs", user=f"c{evil}d"),
        ):
            assert line.isprintable()
            assert len(line.splitlines()) == 1
            assert json.loads(line)["message"] == f"a{evil}b"

    def test_keeps_what_people_can_read(self):
        assert "grüße 日本 🎉" in written(logs.JsonLines, "grüße 日本 🎉")

    @pytest.mark.parametrize("value", [object(), {1, 2}, 2**80, float("nan"), {("a",): 1}, b"x", Path("/x"), 1j])
    def test_takes_whatever_somebody_logs(self, value):
        assert "theirs" in in_json("hello", value=value)["logger"]

    def test_of_a_field_named_like_one_of_its_own_keeps_its_own(self):
        line = in_json("hello", time="never", level="x", logger="y")
        assert (line["time"], line["level"], line["logger"]) == ("2026-03-01T02:30:00.123Z", "info", "theirs")


class TestText:
    def test_is_time_level_logger_and_message(self):
        assert written(logs.TextLines, "hello %s", "Ada") == "2026-03-01T02:30:00.123Z INFO theirs: hello Ada"

    @pytest.mark.parametrize("evil", ["\n2026 ERROR", "\r", "\x1b[31m", "\x9b31m", "\x85", "\u2028", "\u202e", "\x00"])
    def test_nothing_in_a_value_breaks_a_line_or_moves_a_cursor(self, evil):
        line = written(logs.TextLines, f"a{evil}b")
        assert line.isprintable()

    def test_has_tracebacks_below_it_and_none_of_their_lines_can_be_taken_for_one_of_the_log(self):
        try:
            raise ValueError("first\n2026-03-01T02:30:00.123Z INFO tick.jobs: forged \x1b[2J")  # noqa: TRY301
        except ValueError as error:
            first, *rest = written(logs.TextLines, "failed", error=error).split("\n")
        assert first.endswith("theirs: failed")
        assert "forged" in rest[-1]
        assert all(line.startswith("    ") and line.isprintable() for line in rest)

    def test_is_masked(self):
        assert written(logs.TextLines, f"password={CANARY}").endswith(f"theirs: password={MASK}")


class TestOfHandlers:
    """What handlers log themselves, by whatever logger."""

    @pytest.fixture
    def stream(self, caplog, settings):
        """What a handler with the JSON form writes while jobs run."""
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logs.JsonLines(settings))
        logging.getLogger().addHandler(handler)
        caplog.set_level(logging.INFO)
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
        logging.getLogger().removeHandler(handler)

    @pytest.mark.parametrize("plain", [True, False], ids=["plain", "coroutine"])
    def test_carries_the_job_and_the_tick(self, conn, settings, stream, plain):
        def say(ctx: public.Context) -> None:
            ctx.logger.info("by the context")
            logging.getLogger("theirs").info("by another")

        async def say_async(ctx: public.Context) -> None:
            say(ctx)

        public.job(type="noop")(say if plain else say_async)
        id = a_job(conn)
        report = tick(settings)
        said = [line for line in stream() if line["event"] == "log" and line["logger"] in ("theirs", "tick.job.noop")]
        assert [line["message"] for line in said] == [f"[job {id}, attempt 1] by the context", "by another"]
        for line in said:
            assert (line["tick"], line["job"], line["type"], line["attempt"]) == (report.tick, id, "noop", 1)

    def test_after_the_job_carries_it_no_more(self, conn, settings, stream):
        public.job(type="noop")(lambda: None)
        jobs(conn, count=20)
        tick(settings)
        logging.getLogger("theirs").info("later")
        assert {"tick", "job"} & stream()[-1].keys() == set()
        assert (logs.current_tick.get(), logs.current_job.get()) == (None, None)

    def test_context_variables_do_not_cost_each_job_a_place_of_its_own(self, conn, settings, monkeypatch):
        from tick.places import Places

        made = []
        work = Places._work

        def counted(self, place):
            made.append(place)
            return work(self, place)

        monkeypatch.setattr(Places, "_work", counted)

        @public.job(type="noop")
        async def noop() -> None: ...

        jobs(conn, count=100)
        assert tick(settings, concurrency=1).done == 100
        assert len(made) < 20


# Who sets it up


@pytest.fixture
def run(tmp_path, url):
    """Runs a program in a project of its own, and gives what it wrote to its standard error, line by line."""
    (tmp_path / "pyproject.toml").write_text('[tool.tick]\nmodules = ["their_jobs"]\n')
    (tmp_path / "their_jobs.py").write_text(
        textwrap.dedent(
            """
            import logging, tick

            @tick.job
            async def greet(ctx: tick.Context, name: str = "you") -> None:
                ctx.logger.info("hello")
                logging.getLogger("theirs").warning("careful")
            """
        )
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TICK_", "OTEL_"))}
    env = kept | {"PYTHONPATH": str(ROOT), "DATABASE_URL": url, "CRON_SECRET": "a-secret"}

    def run(*command: str, **more: str) -> list[str]:
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=env | more, capture_output=True, text=True, timeout=60)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr.splitlines()

    run.env, run.folder = env, tmp_path
    return run


class TestConfigure:
    def test_a_command_writes_json_where_no_terminal_is(self, conn, run):
        id = a_job(conn, "greet")
        lines = [json.loads(line) for line in run("-m", "tick.cli", "run-once", "--json")]
        assert [(line["logger"], line["level"]) for line in lines] == [
            ("tick.job.greet", "info"),
            ("theirs", "warning"),
            ("tick.jobs", "info"),
            ("tick.ticks", "info"),
        ]
        assert {line.get("job") for line in lines[:3]} == {id}
        assert len({line["tick"] for line in lines}) == 1

    def test_a_command_writes_text_when_it_is_told_to(self, conn, run):
        a_job(conn, "greet")
        lines = run("-m", "tick.cli", "run-once", TICK_LOG="text")
        assert [line.split()[2] for line in lines[:3]] == ["tick.job.greet:", "theirs:", "tick.jobs:"]

    def test_a_command_writes_text_on_a_terminal(self, conn, run):
        a_job(conn, "greet")
        reader, terminal = os.openpty()
        subprocess.run([sys.executable, "-m", "tick.cli", "run-once", "--json"], cwd=run.folder, env=run.env,
                       stdout=subprocess.PIPE, stderr=terminal, timeout=60, check=True)  # fmt: skip
        os.close(terminal)
        said = os.read(reader, 100_000).decode()
        os.close(reader)
        assert "INFO tick.jobs: greet 1: done in 0." in said
        assert "{" not in said

    PROGRAM = """
        import asyncio, logging, sys
        from dataclasses import replace
        {before}
        from tick.config import Settings
        from tick.processor import process_tick
        from tick.web import Service, create_app
        service = Service()
        service.start()
        service.start()
        asyncio.run(process_tick(service.settings, service.registry))
    """

    def program(self, before: str = "") -> str:
        return textwrap.dedent(self.PROGRAM.replace("{before}", before))

    def test_an_endpoint_writes_json_where_nobody_else_has_set_up_logging(self, conn, run):
        a_job(conn, "greet")
        lines = [json.loads(line) for line in run("-c", self.program())]
        assert [line["logger"] for line in lines] == ["tick.job.greet", "theirs", "tick.jobs", "tick.ticks"]

    def test_an_endpoint_leaves_the_logging_of_an_application_alone(self, conn, run):
        a_job(conn, "greet")
        theirs = 'logging.basicConfig(level="INFO", format="theirs %(name)s %(message)s")'
        lines = run("-c", self.program(theirs))
        assert "theirs theirs careful" in lines
        assert [line for line in lines if line.startswith("theirs tick.jobs greet 1: done")]
        assert all(line.startswith("theirs ") for line in lines)

    def test_the_forms_can_be_used_in_a_configuration_of_ones_own(self, conn, run):
        a_job(conn, "greet")
        theirs = """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "tick.logs.JsonLines"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["out"], "level": "INFO"},
})
"""
        lines = run("-c", textwrap.dedent(self.PROGRAM).replace("{before}", theirs))
        events = [json.loads(line)["event"] for line in lines]
        assert events.count("job.ended") == 1

    def test_a_server_writes_its_lines_in_the_same_form_without_what_was_asked(self, conn, run):
        """A query may hold a search, and the token of a replay link acts by itself."""
        process = subprocess.Popen([sys.executable, "-m", "tick.cli", "serve", "--port", "0"], cwd=run.folder, env=run.env,
                                   stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        try:
            lines = [""]
            while "Uvicorn running on" not in lines[-1]:
                lines.append(process.stderr.readline())
                assert lines[-1], lines
            url = re.search(r"http://[0-9.:]+", lines[-1])[0]
            for path in (f"/health?q={CANARY}", f"/dashboard/replay/{CANARY}.x/{CANARY}", f"/{CANARY[:0]}?{CANARY}"):
                httpx.get(url + path)
        finally:
            process.terminate()
            said, written = process.communicate(timeout=20)
        told = [json.loads(line) for line in [*lines[1:], *written.splitlines()]]
        assert said == ""
        assert CANARY not in written
        assert {line["level"] for line in told if line["logger"].startswith("uvicorn")} == {"info"}
        assert not any("color_message" in line for line in told)
        asked = [line["message"].split('"')[1] for line in told if line["logger"] == "uvicorn.access"]
        assert asked == [f"GET {path} HTTP/1.1" for path in ("/health", "/dashboard/replay/", "/")]

    def test_a_line_that_cannot_be_written_fails_nobody(self, conn, run):
        a_job(conn, "greet")
        closed = """
class Closed:
    def write(self, text):
        raise OSError

    def isatty(self):
        return False

real, sys.stderr, logging.raiseExceptions = sys.stderr, Closed(), False
"""
        run("-c", textwrap.dedent(self.PROGRAM).replace("{before}", closed) + "sys.stderr = real")
        assert job(conn, 1)["status"] == "done"

    def test_a_tick_that_is_told_of_in_other_words_is_not_in_the_text(self, monkeypatch, capsys):
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", [])
        level = logging.getLogger("tick").level
        try:
            logs.configure(Settings(log="text"), tells_ticks=True)
            logs.ticks.info("a tick")
            logs.jobs.info("a job")
        finally:
            logging.getLogger("tick").setLevel(level)
        assert capsys.readouterr().err.splitlines()[0].endswith("tick.jobs: a job")

    async def test_what_a_tick_met_that_nobody_waited_for_did_is_in_its_own_line_alone(self, settings, caplog):
        secret = "a-secret-of-some-length"
        transport = httpx.ASGITransport(create_app(replace(settings, secrets=(secret,))))
        caplog.set_level(logging.INFO, "tick")
        async with httpx.AsyncClient(transport=transport, base_url="http://tick") as client:
            answer = await client.get("/tick?wait=0", headers={"authorization": f"Bearer {secret}"})
        assert answer.status_code == 202
        said = [record for record in caplog.records if "called by" not in record.getMessage()]
        assert [record.name for record in said if record.name.startswith("tick")] == ["tick.ticks"]


def test_it_is_configured_before_anything_else_at_start(settings, monkeypatch):
    """A warning of the start itself is in the form that was asked for."""
    order = []
    monkeypatch.setattr("tick.logs.configure", lambda given: order.append("log"))
    monkeypatch.setattr("tick.auth.check", lambda given: order.append("auth"))
    Service(settings).start()
    assert order == ["log", "auth"]


def test_a_clock_that_was_moved_moves_no_line(conn, settings, lines):
    public.job(type="noop")(lambda: None)
    move_clock(conn, "2030-01-01")
    a_job(conn, run_at="-5 seconds")
    tick(settings)
    assert 5 <= of_job(lines)["waited"] < 60


def test_every_field_and_event_is_in_the_guide(conn, settings, lines, monkeypatch):
    guide = (ROOT / "docs" / "logs.md").read_text()
    assert f"{logs.MOST_LINES:,} lines" in guide
    monkeypatch.setattr(logs, "MOST_LINES", 0)

    @public.job(type="fails")
    def fails() -> None:
        conn.execute("selekt")

    public.job(type="noop")(lambda: None)
    a_job(conn, "noop")
    a_job(conn, "fails", schedule="nightly", window="2026-03-01 03:00+01", traceparent=TRACE)
    a_job(conn, status="running", lease_expires_at="-1 minute")
    report = tick(settings, trigger=Trigger("http", "delivery-7"))
    written = [*lines("tick.jobs"), *lines("tick.ticks")]
    for name in {name for line in written for name in line} - (
        report.as_dict().keys() - {"tick", "trigger", "budget", "used"}
    ):
        assert f"`{name}`" in guide, name
    for event in {line["event"] for line in written}:
        assert f"| `{event}` |" in guide, event
