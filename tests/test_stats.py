"""What ticks add to the statistics: how attempts ended, how long they waited and ran, in every period, once each."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as some

import tick as public
from tests.factories import a_job, jobs, move_clock, statuses, tick
from tick import history
from tick.handlers import registry
from tick.history import BUCKETS, Tally, bucket, percentile
from tick.processor import Report, process_tick
from tick.queue import Queue

pytestmark = pytest.mark.usefixtures("empty_registry")

SPANS = (0, 60, 600, 3600)
COUNTS = ("done", "retried", "dead", "released", "lost")


def stats(conn: psycopg.Connection, span: int = 0) -> dict[str, dict[str, Any]]:
    """The rows of a span by type, added up over its periods."""
    cursor = conn.cursor(row_factory=psycopg.rows.dict_row)
    cursor.execute(
        "select type, sum(done)::int as done, sum(retried)::int as retried, sum(dead)::int as dead,"
        " sum(released)::int as released, sum(lost)::int as lost, sum(run_seconds) as run_seconds,"
        " sum(wait_seconds) as wait_seconds, tick.total(runs) as runs, tick.total(waits) as waits"
        " from tick.stats where span = %s group by type",
        [span],
    )
    return {row["type"]: row for row in cursor.fetchall()}


def counts(conn: psycopg.Connection, type: str, span: int = 0) -> dict[str, int]:
    """What a type has of each outcome, where it has some."""
    row = stats(conn, span).get(type, dict.fromkeys(COUNTS, 0))
    return {name: row[name] for name in COUNTS if row[name]}


def handlers() -> None:
    @public.job
    async def fine() -> None: ...

    @public.job(backoff=[3600])
    async def shaky() -> None:
        raise RuntimeError("not today")

    @public.job
    async def hopeless() -> None:
        raise public.Permanent("never")

    @public.job
    async def sleepy() -> None:
        raise public.Snooze(after="1h")

    @public.job
    def threaded() -> None: ...


class TestOutcomes:
    @pytest.mark.parametrize(
        ("type", "how"),
        [("fine", "done"), ("threaded", "done"), ("shaky", "retried"), ("hopeless", "dead"), ("sleepy", "released")],
    )
    def test_each_is_counted_as_what_it_is(self, conn, settings, type, how):
        handlers()
        jobs(conn, type, 3)
        tick(settings)
        for span in SPANS:
            assert counts(conn, type, span) == counts(conn, "", span) == {how: 3}
        row = stats(conn)[type]
        assert sum(row["runs"]) == sum(row["waits"]) == 3
        assert len(row["runs"]) == len(row["waits"]) == BUCKETS

    def test_a_lost_attempt_has_no_run(self, conn, settings):
        handlers()
        a_job(conn, "fine", "running", lease_expires_at="-1 second")
        tick(settings)
        assert counts(conn, "fine") == {"lost": 1, "done": 1}
        assert sum(stats(conn)["fine"]["runs"]) == 1

    def test_the_last_loss_makes_a_job_dead(self, conn, settings):
        a_job(conn, "gone", "running", lease_expires_at="-1 second", losses=2)
        a_job(conn, "gone", "running", lease_expires_at="-1 second", losses=1)
        tick(settings)
        assert counts(conn, "gone") == counts(conn, "") == {"lost": 1, "dead": 1}
        assert statuses(conn) == {"dead": 1, "pending": 1}

    def test_a_job_that_the_deadline_cut_short_is_released(self, conn, settings):
        @public.job
        async def endless() -> None:
            await asyncio.sleep(60)

        jobs(conn, "endless")
        tick(settings, budget=1.2)
        assert counts(conn, "endless") == {"released": 1}
        assert stats(conn)["endless"]["run_seconds"] >= 0.5

    def test_what_was_never_started_is_no_attempt(self, conn, settings):
        @public.job
        async def slow() -> None:
            await asyncio.sleep(60)

        jobs(conn, "slow", 5)
        tick(settings, budget=1.2, concurrency=2)
        assert counts(conn, "slow") == {"released": 2}

    def test_a_tick_that_did_nothing_adds_nothing(self, conn, settings):
        handlers()
        for _ in range(2):
            tick(settings)
        assert conn.execute("select count(*) from tick.stats").fetchone() == (0,)

    def test_a_type_that_no_tick_ran_is_not_there(self, conn, settings):
        handlers()
        jobs(conn, "fine")
        a_job(conn, "shaky", run_at="+1 hour")
        a_job(conn, "unknown")
        tick(settings)
        assert set(stats(conn)) == {"", "fine"}

    def test_a_batch_that_postgres_refuses_is_counted_once(self, conn, settings):
        @public.job
        async def bad(n: int) -> str:
            return "\0" if n == 2 else "fine"

        for n in range(4):
            a_job(conn, "bad", payload={"n": n})
        tick(settings)
        assert sum(counts(conn, "bad").values()) == 4
        assert stats(conn)[""]["done"] + stats(conn)[""]["dead"] == 4


class TestTimes:
    def test_runs_are_as_long_as_they_were(self, conn, settings):
        @public.job
        async def nap() -> None:
            await asyncio.sleep(0.1)

        jobs(conn, "nap", 4)
        tick(settings)
        row = stats(conn)["nap"]
        assert row["run_seconds"] >= 0.4
        assert sum(row["runs"][: bucket(0.1)]) == 0
        assert history.percentile(row["runs"], 0.5) is None

    def test_a_wait_is_from_when_a_job_is_due_to_its_start(self, conn, settings):
        handlers()
        a_job(conn, "fine", run_at="-100 seconds", created_at="-1 day")
        a_job(conn, "fine", run_at="-200 seconds")
        tick(settings)
        row = stats(conn)["fine"]
        assert 300 <= row["wait_seconds"] < 360
        assert row["waits"][bucket(100)] + row["waits"][bucket(110)] >= 1
        assert sum(row["waits"][: bucket(100)]) == 0

    def test_a_retry_waits_from_its_own_time(self, conn, settings):
        handlers()
        a_job(conn, "shaky", run_at="-50 seconds")
        tick(settings)
        before = stats(conn)["shaky"]["wait_seconds"]
        move_clock(conn, "+90 minutes")
        tick(settings)
        assert counts(conn, "shaky") == {"retried": 2}
        # Put off for an hour within a fifth of it, and done half an hour after: not from when it was put in.
        assert 600 < stats(conn)["shaky"]["wait_seconds"] - before < 5400


class TestPeriods:
    def test_each_begins_where_the_clock_says(self, conn, settings):
        handlers()
        move_clock(conn, "2026-03-01T12:34:56Z")
        jobs(conn, "fine")
        tick(settings)
        found = conn.execute("select span, at::text from tick.stats where type = 'fine' order by span").fetchall()
        assert found == [
            (0, "-infinity"),
            (60, "2026-03-01 12:34:00+00"),
            (600, "2026-03-01 12:30:00+00"),
            (3600, "2026-03-01 12:00:00+00"),
        ]

    def test_they_add_up_to_the_same(self, conn, settings):
        handlers()
        for minute in (0, 1, 9, 10, 59, 60, 61, 125):
            move_clock(conn, f"2026-03-01T{12 + minute // 60}:{minute % 60:02}:30Z")
            jobs(conn, "fine", 2)
            jobs(conn, "hopeless")
            tick(settings)
        whole = stats(conn)
        assert (counts(conn, "fine"), counts(conn, "hopeless")) == ({"done": 16}, {"dead": 8})
        for span in SPANS:
            assert {type: row["runs"] for type, row in stats(conn, span).items()} == {
                type: row["runs"] for type, row in whole.items()
            }
            assert stats(conn, span)[""]["run_seconds"] == pytest.approx(whole[""]["run_seconds"])
        periods = dict(conn.execute("select span, count(*) from tick.stats where type = '' group by span").fetchall())
        assert periods == {0: 1, 60: 8, 600: 5, 3600: 3}

    def test_all_together_is_the_sum_of_all_types(self, conn, settings):
        handlers()
        for type in ("fine", "shaky", "hopeless", "sleepy", "threaded"):
            jobs(conn, type, 3)
        tick(settings)
        rows = stats(conn)
        whole = rows.pop("")
        for name in COUNTS:
            assert whole[name] == sum(row[name] for row in rows.values())
        assert whole["runs"] == [sum(numbers) for numbers in zip(*(row["runs"] for row in rows.values()), strict=True)]
        assert whole["wait_seconds"] == pytest.approx(sum(row["wait_seconds"] for row in rows.values()))


class TestTogether:
    def test_ticks_that_end_at_once_lose_no_count(self, conn, settings):
        types = [f"type_{number}" for number in range(20)]
        for type in types:
            public.job(type=type)(lambda: None)
            jobs(conn, type, 10)

        async def at_once() -> None:
            small = replace(settings, batch_size=5, concurrency=2)
            await asyncio.gather(*(process_tick(small, registry, budget=20.0) for _ in range(4)))

        asyncio.run(at_once())
        assert statuses(conn) == {"done": 200}
        assert {type: counts(conn, type) for type in types} == dict.fromkeys(types, {"done": 10})
        assert sum(stats(conn)[""]["runs"]) == 200

    def test_processes_that_write_in_any_order_do_not_deadlock(self, url, conn):
        from tick import database
        from tick.queue import to_json

        def rows(start: int) -> list[dict[str, object]]:
            tally = Tally()
            for number in range(30):
                tally.add(f"type_{(start + number) % 30}", "done", 0.1, 0.1)
            return tally.take()

        async def record(start: int) -> None:
            async with database.connect(url) as connection:
                queue = Queue(connection, lambda: database.open_connection(url))
                await connection.execute(
                    "insert into tick.ticks (id, trigger, budget) values (%s, 'test', 1)", [queue.tick]
                )
                await connection.commit()
                for number in range(1, 11):
                    told = {"tick": queue.tick, "number": number, "stats": to_json(rows(start))}
                    await queue.send(database.Statement("record_stats", told))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda start: asyncio.run(record(start)), range(0, 28, 7)))
        assert {row["done"] for type, row in stats(conn).items() if type} == {40}
        assert counts(conn, "") == {"done": 1200}

    def test_a_closing_tick_whose_answer_is_lost_is_counted_once(self, url, conn):
        from tick import database

        async def close_twice() -> None:
            async with database.connect(url) as connection:
                queue = Queue(connection, lambda: database.open_connection(url))
                await connection.execute(
                    "insert into tick.ticks (id, trigger, budget) values (%s, 'test', 1)", [queue.tick]
                )
                tally = Tally()
                tally.add("fine", "done", 0.1, 0.1)
                totals = Report("", "", claimed=1).as_dict() | {"used": 0.1, "error": None}
                rows = tally.take()
                for _ in range(2):
                    queue.tallies = 0
                    await queue.close((), totals, [], stats=rows)

        asyncio.run(close_twice())
        assert counts(conn, "fine") == {"done": 1}

    def test_what_the_table_says_is_what_the_statistics_say(self, conn, settings):
        handlers()
        for round in range(3):
            for type in ("fine", "hopeless", "threaded"):
                jobs(conn, type, round + 1)
            tick(settings, concurrency=3)
        ended = {
            (type, status): count
            for type, status, count in conn.execute(
                "select type, status, count(*) from tick.jobs group by 1, 2"
            ).fetchall()
        }
        assert ended == {("fine", "done"): 6, ("threaded", "done"): 6, ("hopeless", "dead"): 6}
        assert [counts(conn, type) for type in ("fine", "threaded", "hopeless")] == [
            {"done": 6},
            {"done": 6},
            {"dead": 6},
        ]


numbers = some.lists(some.integers(0, 50), min_size=BUCKETS, max_size=BUCKETS)


class TestSql:
    def test_a_percentile_is_the_one_of_python(self, conn):
        @given(numbers, some.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 1.0]))
        def check(histogram, share):
            (found,) = conn.execute("select tick.percentile(%s::bigint[], %s)", [histogram, share]).fetchone()
            assert found == pytest.approx(percentile(histogram, share))

        check()

    def test_of_too_few_runs_it_says_nothing(self, conn):
        assert conn.execute("select tick.percentile('{4}', 0.5), tick.percentile('{}', 0.5)").fetchone() == (None, None)
        assert conn.execute("select tick.percentile('{5}', 0.5)").fetchone() == (0.001,)

    def test_histograms_add_up_whatever_their_lengths(self, conn):
        query = "select tick.total(h::bigint[]) from unnest(%s::text[]) h"
        assert conn.execute(query, [["{1,2,3}", "{10}", "{0,0,0,7}"]]).fetchone() == ([11, 2, 3, 7],)
        assert conn.execute("select tick.total(h::bigint[]) from unnest('{}'::text[]) h").fetchone() == ([],)

    def test_throughput_shows_periods_and_not_what_is_since_ever(self, conn, settings):
        handlers()
        move_clock(conn, "2026-03-01T12:34:56Z")
        jobs(conn, "fine", 6)
        jobs(conn, "hopeless", 2)
        tick(settings)
        cursor = conn.cursor(row_factory=psycopg.rows.dict_row)
        rows = cursor.execute("select * from tick.throughput where span = 600 order by type").fetchall()
        assert [(row["type"], row["done"], row["dead"], row["failure_rate"]) for row in rows] == [
            ("", 6, 2, 0.25), ("fine", 6, 0, 0), ("hopeless", 0, 2, 1)]  # fmt: skip
        assert rows[0]["run_p50"] <= rows[0]["run_p95"]
        assert rows[2]["run_p50"] is None
        assert conn.execute("select count(*) from tick.throughput where span = 0").fetchone() == (0,)

    def test_the_log_shows_gaps_and_lateness(self, conn, settings):
        for at, planned in (("12:00:00", None), ("12:01:03", "12:01:00"), ("12:07:00", "12:06:30")):
            move_clock(conn, f"2026-03-01T{at}Z")
            tick(settings)
            conn.execute(
                "update tick.ticks set scheduled_for = %s where started_at = tick.now()",
                [planned and f"2026-03-01T{planned}Z"],
            )
        found = conn.execute(
            "select gap_seconds, late_seconds, trigger from tick.tick_log order by started_at"
        ).fetchall()
        assert found == [(None, None, "cli"), (63, 3, "cli"), (357, 30, "cli")]

    def test_a_filter_of_the_log_reads_no_more_than_it_shows(self, conn):
        conn.execute(
            "insert into tick.ticks (id, trigger, budget, started_at) select gen_random_uuid(), 'cli', 50,"
            " now() - n * interval '1 minute' from generate_series(1, 20000) n"
        )
        conn.execute("analyze tick.ticks")
        query = "explain (analyze, format json) select * from tick.tick_log where started_at > now() - interval '10 minutes'"
        ((plan,),) = conn.execute(query).fetchone()
        assert plan["Plan"]["Node Type"] == "Index Scan"


def test_a_tally_keeps_what_it_was_told():
    tally = Tally()
    tally.add("a", "done", 1.0, 2.0)
    tally.add("b", "retried", 3.0, 4.0)
    tally.lose("a", dead=True)
    tally.lose("c", dead=False)
    rows = {row["type"]: row for row in tally.take()}
    assert list(rows) == ["", "a", "b", "c"]
    assert [rows[type]["lost"] for type in rows] == [1, 0, 0, 1]
    assert [rows[type]["dead"] for type in rows][0] >= 1
    assert (rows[""]["run_seconds"], rows[""]["wait_seconds"], rows[""]["dead"]) == (4.0, 6.0, 1)
    assert rows["b"]["runs"][bucket(3.0)] == rows["b"]["waits"][bucket(4.0)] == 1
    assert Tally().take() == []
