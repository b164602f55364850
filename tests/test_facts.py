"""Facts: what each question answers, that it ends at its bound, and that it does not read what has ended."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

import tick as public
from tests.factories import a_job, jobs, move_clock, tick
from tests.test_flow_at_scale import pages
from tick import database, facts, history

pytestmark = pytest.mark.usefixtures("empty_registry")

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCHEDULES = '[schedules.daily]\ncron = "0 8 * * *"\ntype = "noop"\n[schedules.often]\nevery = "10m"\ntype = "noop"\n'
QUESTIONS = {
    "depth": facts.depth(),
    "recent_ticks": facts.recent_ticks(),
    "pulse": facts.pulse(),
    "triggers": facts.triggers(),
    "chart": facts.chart(600, NOON),
    "by_type": facts.by_type(600, NOON),
    "totals": facts.totals(),
    "counters": facts.counters(),
    "along_indexes": facts.along_indexes(),
    "dead_groups": facts.dead_groups(),
    "unhandled": facts.unhandled(["noop"]),
    "schedules": facts.schedules(),
    "outcomes": facts.outcomes([{"schedule": "daily", "type": "noop"}]),
    "skips": facts.skips("daily"),
    "alerts": facts.alerts(),
    "open_alerts": facts.open_alerts(),
    "schedule_counts": facts.schedule_counts(),
}
OF_JOBS = ("depth", "dead_groups", "unhandled", "outcomes")


@pytest.fixture
def ask(url):
    """The rows of each question, asked as a page would."""

    async def read(questions):
        async with database.connect(url) as connection:
            return await database.read(connection, "tick", *questions)

    def ask(*questions):
        answers = asyncio.run(read(questions))
        return answers[0] if len(questions) == 1 else answers

    return ask


@pytest.fixture
def noon(conn) -> None:
    move_clock(conn, "2026-03-01T12:00Z")


def a_tick(conn, minutes: float, trigger: str = "cli", late: float | None = None, **columns) -> None:
    """A tick of so many minutes ago."""
    conn.execute(
        "insert into tick.ticks (id, trigger, budget, started_at, scheduled_for, error)"
        " select gen_random_uuid(), %s, 50, at, at - make_interval(secs => %s), %s"
        " from (select tick.now() - make_interval(secs => %s) as at) t",
        [trigger, late, columns.get("error"), minutes * 60],
    )


def counted(conn, span: int, at: str, type: str = "", done: int = 1, **columns) -> None:
    empty = [0] * history.BUCKETS
    conn.execute(
        "insert into tick.stats (span, at, type, done, retried, dead, run_seconds, runs, waits)"
        " values (%s, %s, %s, %s, %s, %s, 0.5, %s, %s)",
        [span, at, type, done, columns.get("retried", 0), columns.get("dead", 0), empty, empty],
    )


def test_every_statement_has_its_question_and_every_question_its_statement():
    assert set(database.statements("facts")) == set(QUESTIONS) == {question.name for question in QUESTIONS.values()}
    for name, question in QUESTIONS.items():
        assert set(re.findall(r"%\((\w+)\)s", database.statements("facts")[name])) == set(question.params), name


def test_an_empty_database_answers_all_of_them(conn, ask):
    answers = dict(zip(QUESTIONS, ask(*QUESTIONS.values()), strict=True))
    assert {name: len(rows) for name, rows in answers.items() if rows} == {
        "along_indexes": 1,
        "depth": 1,
        "pulse": 1,
        "schedule_counts": 1,
    }


class TestDepth:
    def test_counts_each_kind(self, conn, ask, noon):
        for status in ("running", "dead", "done", "cancelled"):
            a_job(conn, status=status)
        a_job(conn, status="running", lease_expires_at="-1 second")
        a_job(conn, run_at="-5 minutes")
        a_job(conn, run_at="-1 minute", priority=9)
        a_job(conn, run_at="-2 minutes", key="k")
        a_job(conn, run_at="-90 seconds", key="k")
        a_job(conn, run_at="+1 hour")
        a_job(conn, waits_for="job")
        (row,) = ask(facts.depth())
        assert row == {
            "now": NOON, "due": 4, "oldest_due": NOON - timedelta(minutes=5), "running": 2, "expired": 1, "dead": 1,
            "behind_keys": 1, "later": 1, "next_run": NOON + timedelta(hours=1),
        }  # fmt: skip

    @pytest.mark.parametrize(
        "columns",
        [{"priority": -3}, {"lane": "l"}, {"losses": 1}, {"key": "busy"}],
        ids=lambda columns: next(iter(columns)),
    )
    def test_the_oldest_is_found_wherever_it_is(self, conn, ask, noon, columns):
        conn.execute("insert into tick.limits (lane, type, concurrency) values ('l', 'noop', 1)")
        a_job(conn, status="running", key="busy")
        a_job(conn, run_at="-1 minute")
        a_job(conn, run_at="-10 minutes", **columns)
        (row,) = ask(facts.depth())
        assert (row["due"], row["oldest_due"]) == (2, NOON - timedelta(minutes=10))

    @pytest.mark.parametrize(
        "columns", [{"priority": -3}, {"lane": "l"}, {"losses": 1}], ids=lambda columns: next(iter(columns))
    )
    def test_so_is_the_next(self, conn, ask, noon, columns):
        conn.execute("insert into tick.limits (lane, type, concurrency) values ('l', 'noop', 1)")
        a_job(conn, run_at="+2 hours")
        a_job(conn, run_at="+1 hour", **columns)
        (row,) = ask(facts.depth())
        assert (row["later"], row["next_run"], row["due"], row["oldest_due"]) == (2, NOON + timedelta(hours=1), 0, None)

    def test_ends_at_its_bound(self, conn, ask):
        for kind in ("'pending', now()", "'pending', now() + interval '1 day'"):
            conn.execute(
                f"insert into tick.jobs (type, status, run_at) select 'noop', {kind} from generate_series(1, 30)"
            )
        conn.execute(
            "insert into tick.jobs (type, status, finished_at) select 'noop', 'dead', now() from generate_series(1, 30)"
        )
        (row,) = ask(facts.depth(most=20))
        assert (row["due"], row["later"], row["dead"]) == (21, 21, 21)


class TestTicks:
    def test_the_latest_are_first_with_their_gaps_and_lateness(self, conn, ask, noon):
        for minutes in (9, 5, 3, 1):
            a_tick(conn, minutes, late=2)
        rows = ask(facts.recent_ticks(3))
        assert [(row["gap"], row["late"]) for row in rows] == [(120, 2), (120, 2), (240, 2)]
        (last,) = ask(facts.recent_ticks(3, before=rows[-1]["started_at"]))
        assert (last["gap"], last["started_at"]) == (None, NOON - timedelta(minutes=9))

    def test_of_one_trigger(self, conn, ask, noon):
        for minutes, trigger in ((5, "github"), (4, "vercel"), (2, "github")):
            a_tick(conn, minutes, trigger)
        assert [row["gap"] for row in ask(facts.recent_ticks(trigger="github"))] == [180, None]

    def test_the_pulse(self, conn, ask, noon):
        for minutes in (31, 21, 11, 1.5):
            a_tick(conn, minutes)
        conn.execute("update tick.migrations set applied_at = '2026-02-01'")
        (row,) = ask(facts.pulse())
        installed = (NOON - datetime(2026, 2, 1, tzinfo=UTC)).total_seconds()
        assert row == {"since": 90, "last_tick": NOON - timedelta(seconds=90), "installed": installed, "gap": 600}

    def test_who_ticks(self, conn, ask, noon):
        for minutes in (21, 11, 1):
            a_tick(conn, minutes, "vercel", late=minutes)
        a_tick(conn, 3, "github")
        vercel, github = ask(facts.triggers())
        assert (vercel["trigger"], vercel["ticks"], vercel["since"], vercel["gap"], vercel["late"]) == (
            "vercel",
            3,
            60,
            600,
            20,
        )
        assert (github["trigger"], github["gap"], github["late"]) == ("github", None, None)


class TestStatistics:
    def test_a_chart_is_of_one_type_or_all_from_an_instant(self, conn, ask):
        for minute in (0, 10, 20):
            for type in ("", "a", "b"):
                counted(conn, 600, f"2026-03-01T12:{minute:02}Z", type, done=minute + len(type))
        counted(conn, 3600, "2026-03-01T12:00Z")
        assert [row["done"] for row in ask(facts.chart(600, NOON))] == [0, 10, 20]
        assert [row["done"] for row in ask(facts.chart(600, NOON + timedelta(minutes=10), "a"))] == [11, 21]
        assert len(ask(facts.chart(3600, NOON))) == 1

    def test_the_busiest_types_are_first(self, conn, ask):
        for type, done, retried in (("", 9, 9), ("calm", 1, 0), ("busy", 5, 0), ("failing", 2, 9)):
            counted(conn, 600, "2026-03-01T12:00Z", type, done, retried=retried)
            counted(conn, 600, "2026-03-01T11:00Z", type, done=1000)
        assert [row["type"] for row in ask(facts.by_type(600, NOON))] == ["failing", "busy", "calm"]
        assert [row["done"] for row in ask(facts.by_type(600, NOON, limit=1))] == [2]

    def test_totals_begin_with_all_of_them(self, conn, ask):
        for type, done in (("", 6), ("b", 2), ("a", 4)):
            counted(conn, 0, "-infinity", type, done)
        assert [(row["type"], row["done"]) for row in ask(facts.totals())] == [("", 6), ("a", 4), ("b", 2)]
        assert [row["type"] for row in ask(facts.totals(2))] == ["", "a"]

    def test_counters_are_of_the_first_by_name_and_the_others_together(self, conn, ask):
        for type, done in (("", 15), ("a", 1), ("b", 2), ("c", 4), ("d", 8)):
            counted(conn, 0, "-infinity", type, done)
        assert [(row["type"], row["done"]) for row in ask(facts.counters(2))] == [("a", 1), ("b", 2), ("_other", 12)]
        assert [row["type"] for row in ask(facts.counters(4))] == ["a", "b", "c", "d"]
        assert all(len(row["runs"]) == history.BUCKETS for row in ask(facts.counters(2)))


def walked(plan):
    """A plan's nodes."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from walked(inner)


class TestDeadGroups:
    def die(self, conn, type: str, error: str, minutes: int) -> int:
        id = a_job(conn, type, "dead", last_error=error, finished_at=f"-{minutes} minutes")
        conn.execute("update tick.jobs set fingerprint = tick.fingerprint(last_error) where id = %s", [id])
        return id

    def test_jobs_with_errors_that_differ_in_numbers_are_one(self, conn, ask, noon):
        self.die(conn, "mail", "no route to 10.0.0.1 for user 7", 30)
        last = self.die(conn, "mail", "no route to 10.0.0.2 for user 9", 10)
        self.die(conn, "mail", "quota", 20)
        self.die(conn, "sync", "no route to 10.0.0.1 for user 7", 5)
        found = [(row["type"], row["count"], row["last_error"]) for row in ask(facts.dead_groups())]
        assert found == [
            ("sync", 1, "no route to 10.0.0.1 for user 7"),
            ("mail", 2, "no route to 10.0.0.2 for user 9"),
            ("mail", 1, "quota"),
        ]
        row = ask(facts.dead_groups())[1]
        assert (row["first_at"], row["last_at"], row["last_id"]) == (
            NOON - timedelta(minutes=30), NOON - timedelta(minutes=10), last)  # fmt: skip

    def test_counts_and_groups_end_at_their_bounds(self, conn, ask):
        for number in range(5):
            for _ in range(4):
                self.die(conn, f"type_{number}", "no", 1)
        rows = ask(facts.dead_groups(limit=3, most=2))
        assert [row["count"] for row in rows] == [3, 3, 3]

    def test_a_dead_job_without_an_error_is_in_a_group_too(self, conn, ask):
        a_job(conn, "mail", "dead", last_error=None, fingerprint="")
        assert [row["count"] for row in ask(facts.dead_groups())] == [1]

    def test_dead_jobs_without_a_kind_of_error_are_told_too(self, conn, ask):
        for type, error in (("a", "no"), ("a", None), ("a", None), ("b", None), ("c", "no")):
            a_job(conn, type, "dead", last_error=error)
        with conn.transaction():
            conn.execute("set local session_replication_role = replica")
            conn.execute("update tick.jobs set fingerprint = case when last_error = 'no' then 'no' end")
        rows = ask(facts.dead_groups())
        assert sorted((row["type"], row["fingerprint"], row["count"]) for row in rows) == [
            ("a", "", 2), ("a", "no", 1), ("b", "", 1), ("c", "no", 1),
        ]  # fmt: skip
        assert len(ask(facts.dead_groups(limit=2))) == 2

    def test_no_statistics_are_no_reason_to_sort_all_of_the_dead(self, conn, url):
        conn.execute(
            "insert into tick.jobs (type, status, finished_at, last_error, fingerprint) select 'type ' || n % 40, 'dead',"
            " tick.now() - n * interval '1 second', 'no', 'kind ' || n % 3 from generate_series(1, 20000) n"
        )
        asked = facts.dead_groups()

        async def planned():
            async with database.connect(url) as connection, connection.transaction():
                along = facts.along_indexes()
                await connection.execute(database.statements(along.file, "tick")[along.name])
                explain = await connection.execute(
                    "explain (analyze, format json, timing off) " + database.statements("facts", "tick")[asked.name],
                    asked.params,
                )
                return (await explain.fetchone())[0][0]["Plan"]

        nodes = list(walked(asyncio.run(planned())))
        probes = [node for node in nodes if node.get("Relation Name") == "jobs"]
        assert {node["Node Type"] for node in probes} <= {"Index Scan", "Index Only Scan"}
        assert max(node["Actual Rows"] for node in probes) <= 1001


class TestTheRest:
    def test_due_jobs_that_nobody_takes(self, conn, ask, noon):
        for type, run_at in (
            ("mine", "-1 minute"),
            ("theirs", "-2 minutes"),
            ("theirs", "-5 minutes"),
            ("later", "+1 hour"),
        ):
            a_job(conn, type, run_at=run_at)
        a_job(conn, "suspect", losses=1)
        found = [(row["type"], row["count"], row["oldest"]) for row in ask(facts.unhandled(["mine"]))]
        assert found == [("suspect", 1, NOON), ("theirs", 2, NOON - timedelta(minutes=5))]

    def test_schedules_their_outcomes_and_skips(self, conn, ask, settings, noon):
        @public.job
        async def noop() -> None: ...

        settings.schedules_path.write_text(SCHEDULES)
        tick(settings)
        for minute in (10, 20, 30):
            move_clock(conn, f"2026-03-01T12:{minute}:00Z")
            tick(settings)
        rows = ask(facts.schedules())
        assert [row["schedule"] for row in rows] == ["daily", "often"]
        assert rows[1]["cursor"] == NOON + timedelta(minutes=30)
        assert [row["schedule"] for row in ask(facts.schedules(after="daily"))] == ["often"]
        assert [row["schedule"] for row in ask(facts.schedules(name="daily"))] == ["daily"]
        assert len(ask(facts.schedules(limit=1))) == 1
        given = [{"schedule": name, "type": "noop"} for name in ("daily", "often")]
        assert [(row["schedule"], row["status"]) for row in ask(facts.outcomes(given, each=2))] == [
            ("often", "done")
        ] * 2
        conn.execute("update tick.schedules set paused = true where name = 'often'")
        move_clock(conn, "2026-03-01T12:40:00Z")
        tick(settings)
        (skip,) = ask(facts.skips("often"))
        assert (skip["reason"], skip["first_window"]) == ("paused", NOON + timedelta(minutes=40))
        assert ask(facts.skips("often", at=skip["last_window"])) == [skip]
        assert ask(facts.skips("often", at=NOON)) == []
        assert ask(facts.schedule_counts()) == [{"schedules": 2, "paused": 1}]

    def test_a_file_that_ticked_before_is_not_counted(self, conn, ask, settings, noon):
        @public.job
        async def noop() -> None: ...

        settings.schedules_path.write_text(SCHEDULES)
        tick(settings)
        move_clock(conn, "2026-03-01T12:30Z")
        settings.schedules_path.write_text('[schedules.noop]\nevery = "10m"\n')
        tick(settings)
        assert [row["schedule"] for row in ask(facts.schedules())] == ["noop"]
        assert ask(facts.schedule_counts()) == [{"schedules": 1, "paused": 0}]

    def test_alerts_that_last_are_first(self, conn, ask):
        conn.execute(
            "insert into tick.alerts (rule, subject, since, seen_at, ended_at) values"
            " ('dead', 'ended', '2026-03-03', '2026-03-03', '2026-03-04'), ('dead', 'old', '2026-03-01', '2026-03-01', null),"
            " ('stopped', '', '2026-03-02', '2026-03-02', null)"
        )
        assert [row["subject"] for row in ask(facts.alerts())] == ["", "old", "ended"]
        assert ask(facts.open_alerts()) == [{"rule": "dead", "count": 1}, {"rule": "stopped", "count": 1}]


class TestCost:
    """Pages are counted, since they do not depend on how busy the machine is."""

    def fill(self, conn: psycopg.Connection, finished: int) -> None:
        conn.execute("truncate tick.jobs restart identity")
        conn.execute(
            "insert into tick.jobs (type, status, finished_at, schedule, \"window\") select 'noop', 'done', now(), 'daily',"
            " now() - n * interval '1 minute' from generate_series(1, %s) n",
            [finished],
        )
        jobs(conn, "theirs", 500)
        jobs(conn, "noop", 500)
        for _ in range(20):
            a_job(conn, status="dead", last_error="no", fingerprint="no")
        conn.execute("vacuum analyze tick.jobs")

    def pages(self, conn: psycopg.Connection, name: str) -> int:
        conn.execute("set synchronize_seqscans = off")
        question = QUESTIONS[name]
        return pages(conn, database.statements("facts")[name], question.params)

    @pytest.mark.parametrize("name", OF_JOBS)
    def test_jobs_that_have_ended_cost_a_question_nothing(self, conn, name):
        self.fill(conn, 1_000)
        few = self.pages(conn, name)
        self.fill(conn, 100_000)
        assert self.pages(conn, name) <= 2 * few + 50

    def test_only_those_questions_read_jobs(self):
        reading = {name for name, text in database.statements("facts").items() if re.search(r"tick\.\w*jobs", text)}
        assert reading == set(OF_JOBS)

    @pytest.mark.parametrize("name", ["recent_ticks", "pulse", "triggers"])
    def test_nor_do_ticks_of_long_ago(self, conn, name):
        def fill(count: int) -> None:
            conn.execute("truncate tick.ticks")
            conn.execute(
                "insert into tick.ticks (id, trigger, budget, started_at) select gen_random_uuid(), 'cli', 50,"
                " now() - n * interval '1 minute' from generate_series(1, %s) n",
                [count],
            )
            conn.execute("vacuum analyze tick.ticks")

        fill(3_000)
        few = self.pages(conn, name)
        fill(30_000)
        assert self.pages(conn, name) <= 2 * few + 50

    def test_a_chart_of_one_type_reads_no_other(self, conn):
        empty = [0] * history.BUCKETS
        conn.execute(
            "insert into tick.stats (span, at, type, runs, waits) select 60, %s + n * interval '1 minute', 'type_' || t, %s, %s"
            " from generate_series(0, 59) n, generate_series(1, 100) t",
            [NOON, empty, empty],
        )
        conn.execute("vacuum analyze tick.stats")
        params = {"span": 60, "since": NOON, "type": "type_7"}
        assert pages(conn, database.statements("facts")["chart"], params) <= 80
