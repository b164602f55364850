"""Pruning: what goes and what stays, a page at a time, beside everybody else, and never at a tick's expense."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

import psycopg
import pytest

import tick as public
from tests.factories import NEVER, a_job, job, jobs, move_clock, statuses, tick, wait_until
from tests.test_processor import trips  # noqa: F401 - a fixture
from tick import database, history, retention
from tick.errors import DatabaseUnavailable
from tick.queue import Queue, to_json
from tick.retention import DAY, Policy, Pruned

pytestmark = pytest.mark.usefixtures("empty_registry")

EMPTY = [0] * history.BUCKETS
NOW = Policy(done=0, cancelled=0, dead=0)


@pytest.fixture
def prune(url) -> Callable[..., Pruned]:
    """Prune once, over a connection of its own."""

    def prune(policy: Policy = Policy(), pruned: Pruned | None = None, **options) -> Pruned:  # noqa: B008 - frozen
        return asyncio.run(prune_at(options.pop("url", url), policy, pruned or Pruned(), **options))

    return prune


async def prune_at(url: str, policy: Policy, pruned: Pruned, *, schema: str = "tick", **options) -> Pruned:
    async with database.connect(url) as connection:
        queue = Queue(connection, lambda: database.open_connection(url), schema)
        await retention.prune_for(queue, policy, pruned, options.pop("seconds", 60), **options)
    return pruned


def ended(conn: psycopg.Connection, status: str, days: float, type: str = "noop", **columns) -> int:
    """A job that ended so many days ago, the day after it was put in."""
    times = {"finished_at": f"-{days} days", "created_at": f"-{days + 1} days", "run_at": f"-{days + 1} days"}
    return a_job(conn, type, status, **times | columns)


def left(conn: psycopg.Connection) -> list[int]:
    return [id for (id,) in conn.execute("select id from tick.jobs order by id").fetchall()]


def set_chore(conn: psycopg.Connection, **settings) -> None:
    conn.execute("insert into tick.chores (name, settings) values ('prune', %s::jsonb)", [to_json(settings)])


def chore(conn: psycopg.Connection) -> tuple[dict, float]:
    """The chore's state, and in how many seconds it is due."""
    return conn.execute("select state, extract(epoch from due_at - tick.now())::float8 from tick.chores").fetchone()


class TestAge:
    @pytest.mark.parametrize(("status", "days"), [("done", 30), ("cancelled", 30), ("dead", 90)])
    def test_each_status_has_its_own(self, conn, prune, status, days):
        ended(conn, status, days + 0.1)
        stays = ended(conn, status, days - 0.1)
        pruned = prune()
        assert left(conn) == [stays]
        assert (pruned.jobs, pruned.complete) == (1, True)

    @pytest.mark.parametrize("status", ["done", "cancelled", "dead"])
    def test_each_can_be_set_by_itself(self, conn, prune, status):
        ids = {each: ended(conn, each, 2) for each in ("done", "cancelled", "dead")}
        prune(Policy(**{status: 1 * DAY}))
        assert left(conn) == sorted(id for each, id in ids.items() if each != status)

    @pytest.mark.parametrize("status", ["pending", "running"])
    def test_what_has_not_ended_stays_however_old_it_is(self, conn, prune, status):
        id = a_job(conn, status=status, created_at="-999 days", run_at="-999 days")
        assert prune(NOW).jobs == 0
        assert left(conn) == [id]

    def test_it_counts_from_the_end_and_not_from_the_beginning(self, conn, prune):
        id = ended(conn, "done", 1, created_at="-200 days")
        prune()
        assert left(conn) == [id]

    def test_settings_of_another_version_are_left_out(self):
        assert Policy.of({"done": 5.0, "colour": "blue"}) == Policy(done=5.0)


class TestCount:
    def run(self, conn, settings, count: int, at: str) -> None:
        move_clock(conn, at)
        jobs(conn, count=count)
        assert tick(settings).done == count

    def noop(self) -> None:
        @public.job
        async def noop() -> None: ...

    def test_of_a_type_so_many_stay_to_the_hour(self, conn, settings, prune):
        self.noop()
        for hour in ("2026-03-01T10:30Z", "2026-03-01T11:30Z", "2026-03-01T12:30Z"):
            self.run(conn, settings, 4, hour)
        assert prune(Policy(count=13)).jobs == 0
        assert prune(Policy(count=5)).jobs == 4
        assert left(conn) == list(range(5, 13))
        assert prune(Policy(count=4)).jobs == 4
        assert left(conn) == list(range(9, 13))

    def test_other_types_and_dead_jobs_stay(self, conn, settings, prune):
        self.noop()
        move_clock(conn, "2026-03-01T10:30Z")
        dead, other = ended(conn, "dead", 1), ended(conn, "done", 1, "other")
        cancelled = ended(conn, "cancelled", 1)
        self.run(conn, settings, 3, "2026-03-01T11:30Z")
        prune(Policy(count=2))
        assert {dead, other} < set(left(conn))
        assert cancelled not in left(conn)
        assert len(left(conn)) == 5

    def test_it_looks_back_over_days_that_hours_were_folded_into(self, conn, settings, prune):
        self.noop()
        self.run(conn, settings, 3, "2026-03-01T10:30Z")
        self.run(conn, settings, 3, "2026-03-02T10:30Z")
        move_clock(conn, "2026-06-01T10:00Z")
        policy = Policy(done=365 * DAY, count=3)
        assert prune(policy).jobs == 3
        assert conn.execute("select count(*) from tick.stats where span = 3600").fetchone() == (0,)
        assert prune(policy).jobs == 0
        assert left(conn) == [4, 5, 6]


class TestPages:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch) -> None:
        monkeypatch.setattr(retention, "PAGE", 10)

    @pytest.fixture
    def pages(self, monkeypatch) -> Callable[[int], None]:
        """Give each prune the time for so many pages."""

        def give(count: int) -> None:
            given: WeakKeyDictionary[retention._Work, int] = WeakKeyDictionary()

            def has_time(work: retention._Work) -> bool:
                given[work] = given.get(work, 0) + 1
                return given[work] <= count

            monkeypatch.setattr(retention._Work, "has_time", has_time)

        return give

    def old(self, conn, count: int, status: str = "done") -> None:
        for _ in range(count):
            ended(conn, status, 100)

    @pytest.mark.parametrize("status", ["done", "cancelled", "dead"])
    @pytest.mark.parametrize("count", [9, 10, 11, 35])
    def test_all_of_them_are_seen(self, conn, prune, status, count):
        self.old(conn, count, status)
        stays = ended(conn, status, 1)
        pruned = prune()
        assert (pruned.jobs, pruned.complete, left(conn)) == (count, True, [stays])

    def test_none_takes_more_than_its_page(self, conn, prune, trips):  # noqa: F811 - the fixture
        self.old(conn, 25)
        seen = []
        conn.execute("create table if not exists public.seen (jobs integer)")
        conn.execute(
            "create or replace function public.see() returns trigger language plpgsql as"
            " $$begin insert into public.seen select count(*) from gone; return null; end$$"
        )
        conn.execute(
            "create trigger see after delete on tick.jobs referencing old table as gone"
            " for each statement execute function public.see()"
        )
        try:
            prune()
            seen = [jobs for (jobs,) in conn.execute("select jobs from public.seen where jobs > 0").fetchall()]
        finally:
            conn.execute("drop trigger see on tick.jobs; drop function public.see; drop table public.seen")
        assert seen == [10, 10, 5]

    def test_ticks_go_on_where_the_last_one_ended(self, conn, settings, pages):
        self.old(conn, 35)
        set_chore(conn)
        pages(3)  # Of which one is for dead jobs, and one for cancelled ones.
        seen = []
        for _ in range(5):
            tick(settings)
            state, due_in = chore(conn)
            seen.append((len(left(conn)), state["after"], due_in > 0))
        assert seen[:3] == [(25, 10, False), (15, 20, False), (5, 30, False)]
        assert seen[3][0] == 0
        assert seen[3][2]

    def test_what_was_seen_too_early_is_found_a_lap_later(self, conn, settings, monkeypatch):
        monkeypatch.setattr(retention, "LAP", 3)
        move_clock(conn, "2026-03-01T12:00Z")
        late = ended(conn, "done", 29, created_at="-100 days")
        for _ in range(5):
            ended(conn, "done", 100)
        set_chore(conn)
        tick(settings)
        state, _ = chore(conn)
        assert (left(conn), state) == ([late], {"after": 6, "rounds": 1})
        move_clock(conn, "2026-03-03T12:00Z")
        tick(settings)
        assert (left(conn), chore(conn)[0]) == ([late], {"after": 6, "rounds": 2})
        move_clock(conn, "2026-03-03T12:10Z")
        tick(settings)
        assert chore(conn)[0] == {"after": 0, "rounds": 0}
        move_clock(conn, "2026-03-03T12:20Z")
        tick(settings)
        assert left(conn) == []

    def test_it_ends_where_no_job_is_old_enough(self, conn, prune, trips):  # noqa: F811 - the fixture
        self.old(conn, 5)
        for _ in range(40):
            ended(conn, "done", 1)
        pruned = prune()
        assert (pruned.jobs, pruned.looked_at, pruned.after, pruned.complete) == (5, 5, 5, True)

    def test_a_shorter_policy_goes_on_from_there(self, conn, prune):
        self.old(conn, 5)
        for _ in range(12):
            ended(conn, "done", 10)
        first = prune()
        again = prune(Policy(done=5 * DAY), Pruned(after=first.after))
        assert (first.jobs, again.jobs, left(conn)) == (5, 12, [])

    def test_many_old_ticks_are_another_prune_at_once(self, conn, settings):
        conn.execute(
            "insert into tick.ticks (id, trigger, budget, started_at)"
            " select gen_random_uuid(), 'cli', 50, tick.now() - interval '100 days' from generate_series(1, 15)"
        )
        set_chore(conn)
        tick(settings)
        assert chore(conn)[1] <= 0
        tick(settings)
        assert chore(conn)[1] > 0
        assert conn.execute("select count(*) from tick.ticks").fetchone() == (2,)


class TestDryRun:
    @pytest.mark.parametrize("status", ["done", "cancelled", "dead"])
    def test_counts_what_would_go_and_changes_nothing(self, conn, prune, monkeypatch, status):
        monkeypatch.setattr(retention, "PAGE", 10)
        for _ in range(25):
            ended(conn, status, 100)
        ended(conn, status, 1)
        conn.execute(
            "insert into tick.ticks (id, trigger, budget, started_at) values (%s, 'cli', 50, '2020-01-01')", [NEVER]
        )
        pruned = prune(dry_run=True)
        assert (pruned.jobs, pruned.ticks, pruned.complete) == (25, 0, True)
        assert len(left(conn)) == 26
        assert conn.execute("select count(*) from tick.jobs where xmax <> 0").fetchone() == (0,)
        assert prune().jobs == 25

    @pytest.mark.parametrize("status", ["done", "cancelled", "dead"])
    def test_in_steps_it_counts_each_job_once(self, conn, prune, monkeypatch, status):
        monkeypatch.setattr(retention, "PAGE", 10)
        for _ in range(35):
            ended(conn, status, 100)
        turns = iter(range(1000))
        monkeypatch.setattr(retention._Work, "has_time", lambda work: next(turns) % 2 == 0)
        pruned = Pruned()
        for _ in range(12):
            prune(pruned=pruned, dry_run=True)
        assert (pruned.jobs, pruned.complete) == (35, True)


class TestOthers:
    def test_what_somebody_has_locked_is_left_until_another_time(self, conn, url, prune):
        ids = [ended(conn, status, 100) for status in ("done", "dead", "cancelled") for _ in range(3)]
        with psycopg.connect(url) as other:
            other.execute("select from tick.jobs where id = any(%s) for update", [ids[::3]])
            assert prune().jobs == 6
            assert left(conn) == ids[::3]
        assert prune().jobs == 3
        assert left(conn) == []

    def test_two_at_once_delete_each_job_once(self, conn, url, monkeypatch):
        monkeypatch.setattr(retention, "PAGE", 50)
        for status in ("done", "dead"):
            conn.execute(
                "insert into tick.jobs (type, status, finished_at, created_at) select 'noop', %s,"
                " now() - interval '100 days', now() - interval '101 days' from generate_series(1, 2000)",
                [status],
            )
        with ThreadPoolExecutor(3) as pool:
            all_of_them = list(pool.map(lambda _: asyncio.run(prune_at(url, Policy(), Pruned())), range(3)))
        left_over = prune_at(url, Policy(), Pruned())
        assert sum(each.jobs for each in all_of_them) + asyncio.run(left_over).jobs == 4000
        assert left(conn) == []

    @pytest.mark.parametrize("status", ["dead", "cancelled"])
    def test_a_job_that_is_replayed_while_it_is_looked_at_stays(self, conn, prune, gate, status):
        ids = [ended(conn, status, 100) for _ in range(3)]
        done = ended(conn, "done", 100)
        with gate() as passed, ThreadPoolExecutor(1) as pool:
            pruning = pool.submit(prune)
            wait_until(passed)
            conn.execute("update tick.jobs set status = 'pending', finished_at = null where id = %s", [ids[1]])
            conn.execute("insert into public.gate values (true)")
            assert pruning.result(30).jobs == 3
        assert left(conn) == [ids[1]]
        assert done not in left(conn)

    def test_a_job_that_is_edited_while_its_page_is_looked_at_goes_once_it_is_free(self, conn, prune, gate):
        id = ended(conn, "done", 100)
        with gate() as passed, ThreadPoolExecutor(1) as pool:
            pruning = pool.submit(prune)
            wait_until(passed)
            conn.execute("update tick.jobs set result = '1' where id = %s", [id])
            conn.execute("insert into public.gate values (true)")
            pruning.result(30)
        assert left(conn) == []

    @pytest.fixture
    def gate(self, conn, url) -> Callable[[], Iterator]:
        """Let whoever reads the clock wait at a gate, so that something can happen after it has its snapshot."""
        from contextlib import contextmanager

        @contextmanager
        def gate():
            conn.execute("create table if not exists public.gate (open boolean)")
            conn.execute(
                "create or replace function tick.now() returns timestamptz language plpgsql volatile as $$ begin"
                " while not exists (select from public.gate) loop perform pg_sleep(0.01); end loop;"
                " return pg_catalog.now(); end $$"
            )
            waiting = (
                "select true from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
                " and query like '%%finished_at%%'"
            )
            try:
                yield lambda: conn.execute(waiting).fetchone()
            finally:
                conn.execute("insert into public.gate values (true)")
                conn.execute(
                    "create or replace function tick.now() returns timestamptz language sql stable parallel safe"
                    " as 'select pg_catalog.now()'"
                )
                conn.execute("drop table public.gate")

        return gate

    def test_what_waits_for_a_dead_job_is_cancelled_with_it(self, conn, prune):
        (parent,) = conn.execute('select tick.enqueue(\'noop\', "then" => \'{"type": "after"}\')').fetchone()
        conn.execute(
            "update tick.jobs set status = 'dead', finished_at = now() - interval '100 days', created_at = '2020-01-01'"
            " where id = %s",
            [parent],
        )
        assert prune().jobs == 1
        (child,) = left(conn)
        row = job(conn, child)
        assert (row["status"], row["last_error"]) == ("cancelled", "the job it was to follow was deleted")

    def test_a_lock_in_the_way_of_what_follows_is_not_waited_for(self, conn, url, prune):
        (parent,) = conn.execute('select tick.enqueue(\'noop\', "then" => \'{"type": "after"}\')').fetchone()
        conn.execute(
            "update tick.jobs set status = 'dead', finished_at = now() - interval '100 days' where id = %s", [parent]
        )
        with psycopg.connect(url) as other:
            other.execute("select from tick.jobs where parent_id = %s for update", [parent])
            with pytest.raises(DatabaseUnavailable, match="somebody else is in the way"):
                prune()
        assert prune().jobs == 1

    def test_a_statement_is_stopped_when_patience_is_over(self, conn, prune):
        ended(conn, "done", 100)
        conn.execute(
            "create or replace function public.slow() returns trigger language plpgsql as"
            " $$begin perform pg_sleep(60); return null; end$$"
        )
        conn.execute("create trigger slow after delete on tick.jobs for each row execute function public.slow()")
        try:
            with pytest.raises(DatabaseUnavailable, match="statement timeout"):
                prune(patience=0.5)
        finally:
            conn.execute("drop trigger slow on tick.jobs; drop function public.slow")
        assert len(left(conn)) == 1

    def test_under_another_schema(self, fresh_url, prune):
        async def migrate() -> None:
            async with database.connect(fresh_url) as connection:
                await database.migrate(connection, "theirs")

        asyncio.run(migrate())
        with psycopg.connect(fresh_url, autocommit=True) as conn:
            conn.execute(
                "insert into theirs.jobs (type, status, finished_at, created_at)"
                " select 'noop', s, now() - interval '100 days', now() - interval '101 days'"
                " from unnest('{done,dead,cancelled}'::text[]) s"
            )
            conn.execute(
                "insert into theirs.stats (span, at, type, done, runs, waits)"
                " values (3600, now() - interval '50 days', 'noop', 1, '{1}', '{1}')"
            )
            assert prune(url=fresh_url, schema="theirs").jobs == 3
            assert conn.execute("select span from theirs.stats").fetchall() == [(86400,)]


class TestWhatIsNoJob:
    def ticked(self, conn, days: float, **columns) -> str:
        id = uuid.uuid4()
        values = {"finished_at": "+0", "claimed": 0} | columns
        conn.execute(
            "insert into tick.ticks (id, trigger, budget, started_at, finished_at, claimed, materialised, reclaimed, error)"
            " values (%s, 'cli', 50, tick.now() - make_interval(secs => %s), %s, %s, %s, %s, %s)",
            [id, days * DAY, None if values["finished_at"] is None else "2026-01-01", values["claimed"],
             columns.get("materialised", 0), columns.get("reclaimed", 0), columns.get("error")],
        )  # fmt: skip
        return id

    @pytest.mark.parametrize(
        "columns", [{"claimed": 1}, {"materialised": 1}, {"reclaimed": 1}, {"error": "no"}, {"finished_at": None}]
    )
    def test_ticks_that_did_nothing_go_first(self, conn, prune, columns):
        stays = [self.ticked(conn, 6), self.ticked(conn, 6, **columns), self.ticked(conn, 89, **columns)]
        self.ticked(conn, 8), self.ticked(conn, 89), self.ticked(conn, 91), self.ticked(conn, 91, **columns)
        assert prune().ticks == 4
        assert {id for (id,) in conn.execute("select id from tick.ticks").fetchall()} == set(stays)

    def test_those_of_the_last_day_are_enough_but_once_in_a_lap(self, conn, prune):
        recent, older = self.ticked(conn, 7.5), self.ticked(conn, 20)
        assert prune(pruned=Pruned(after=1)).ticks == 1
        assert conn.execute("select id from tick.ticks").fetchall() == [(older,)]
        assert prune().ticks == 1
        assert recent != older

    def test_skips_are_kept_as_long_as_ticks(self, conn, prune):
        for days in (89, 91):
            conn.execute(
                "insert into tick.skips (schedule, first_window, last_window, count, reason, tick_id, recorded_at)"
                " select 's', at, at, 1, 'late', %s, at from (select now() - make_interval(days => %s) as at) t",
                [NEVER, days],
            )
        prune()
        assert conn.execute(
            "select count(*), min(recorded_at) > now() - interval '90 days' from tick.skips"
        ).fetchone() == (1, True)

    def test_alerts_are_kept_while_they_last_and_as_long_as_ticks(self, conn, prune):
        conn.execute(
            "insert into tick.alerts (rule, subject, since, seen_at, ended_at) select 'dead', subject, '2020-01-01', '2020-01-01',"
            " ended_at from (values ('lasts', null), ('old', now() - interval '91 days'), ('new', now() - interval '89 days'))"
            " as a (subject, ended_at)"
        )
        prune()
        assert conn.execute("select subject from tick.alerts order by 1").fetchall() == [("lasts",), ("new",)]

    def counted(
        self, conn, span: int, age: str, type: str = "noop", done: int = 1, runs: list[int] | None = None
    ) -> None:
        conn.execute(
            "insert into tick.stats (span, at, type, done, dead, run_seconds, runs, waits) values"
            " (%s, date_trunc('hour', tick.now() - %s::interval, 'UTC'), %s, %s, 1, 0.5, %s, %s)",
            [span, age, type, done, runs or EMPTY, EMPTY],
        )

    def test_the_finer_statistics_are_kept_the_shorter(self, conn, prune):
        move_clock(conn, "2026-03-15T12:00Z")
        for span, stays, goes in [
            (60, "23 hours", "25 hours"),
            (600, "7 days", "9 days"),
            (86400, "399 days", "401 days"),
        ]:
            self.counted(conn, span, stays)
            self.counted(conn, span, goes, done=99)
        conn.execute(
            "insert into tick.stats (span, at, type, runs, waits) values (0, '-infinity', 'noop', %s, %s)",
            [EMPTY, EMPTY],
        )
        prune()
        assert conn.execute("select span, done from tick.stats order by 1").fetchall() == [
            (0, 0),
            (60, 1),
            (600, 1),
            (86400, 1),
        ]

    def test_old_hours_become_days_and_nothing_is_lost(self, conn, prune):
        move_clock(conn, "2026-03-15T12:00Z")
        one, two = [1, *EMPTY[1:]], [0, 2, *EMPTY[2:]]
        for hours in (0, 5, 10, 30):
            self.counted(conn, 3600, f"{40 * 24 + hours} hours", done=2, runs=one)
            self.counted(conn, 3600, f"{40 * 24 + hours} hours", type="", done=2, runs=two)
        self.counted(conn, 3600, "34 days", done=7)
        prune()
        rows = conn.execute(
            "select at::text, type, done, dead, run_seconds, runs[1:2] from tick.stats where span = 86400 order by 1, 2"
        ).fetchall()
        assert rows == [
            ("2026-02-02 00:00:00+00", "", 2, 1, 0.5, [0, 2]),
            ("2026-02-02 00:00:00+00", "noop", 2, 1, 0.5, [1, 0]),
            ("2026-02-03 00:00:00+00", "", 6, 3, 1.5, [0, 6]),
            ("2026-02-03 00:00:00+00", "noop", 6, 3, 1.5, [3, 0]),
        ]
        assert conn.execute("select done from tick.stats where span = 3600").fetchall() == [(7,)]

    def test_hours_that_come_of_age_are_added_to_their_day(self, conn, prune):
        move_clock(conn, "2026-03-15T12:00Z")
        self.counted(conn, 3600, "35 days 1 hour", done=2, runs=[1, *EMPTY[1:]])
        self.counted(conn, 3600, "34 days 23 hours", done=5, runs=[2, *EMPTY[1:]])
        prune()
        move_clock(conn, "2026-03-15T20:00Z")
        prune()
        assert conn.execute("select span, done, runs[1], cardinality(runs) from tick.stats").fetchall() == [
            (86400, 7, 3, 44)
        ]


class TestTheChore:
    def noop(self) -> None:
        @public.job
        async def noop() -> None: ...

    def test_a_tick_prunes_after_its_jobs(self, conn, settings):
        self.noop()
        ended(conn, "done", 31)
        jobs(conn, count=3)
        set_chore(conn)
        report = tick(settings)
        assert report.done == 3
        assert statuses(conn) == {"done": 3}
        state, due_in = chore(conn)
        assert state["rounds"] == 1
        assert 500 < due_in <= 600

    def test_an_idle_tick_prunes_when_it_is_due_and_is_one_trip_when_it_is_not(self, conn, settings, trips):  # noqa: F811 - the fixture
        self.noop()
        ended(conn, "done", 31)
        set_chore(conn)
        tick(settings)
        assert left(conn) == []
        trips.clear()
        ended(conn, "done", 31)
        tick(settings)
        assert len(trips) == 1
        move_clock(conn, "+11 minutes")
        tick(settings)
        assert left(conn) == []

    def test_the_policy_is_the_one_that_is_set(self, conn, settings):
        ended(conn, "done", 2)
        stays = ended(conn, "dead", 2)
        set_chore(conn, done=1 * DAY)
        tick(settings)
        assert left(conn) == [stays]

    def test_of_two_ticks_one_prunes(self, conn, settings):
        for _ in range(20):
            ended(conn, "done", 31)
        set_chore(conn)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: tick(settings), range(2)))
        assert (left(conn), chore(conn)[0]["rounds"]) == ([], 1)

    def test_a_tick_whose_time_is_nearly_up_leaves_it_to_the_next(self, conn, settings):
        ended(conn, "done", 31)
        set_chore(conn)
        tick(settings, budget=1.5)
        assert (len(left(conn)), chore(conn)[0]) == (1, {})
        assert chore(conn)[1] <= 0

    def test_it_does_not_go_on_for_longer_than_a_tick_gives_it(self, conn, settings, monkeypatch):
        given = []

        async def prune_for(queue, policy, pruned, seconds, *, patience):
            given.append((seconds, patience))

        monkeypatch.setattr(retention, "prune_for", prune_for)
        set_chore(conn)
        tick(settings, budget=2.5)
        tick(settings, budget=10)
        assert given[0][0] == given[0][1] < 1.5
        assert given[1][0] == retention.LONGEST_PRUNE
        assert 5 < given[1][1] < 9

    def test_no_tick_fails_by_it(self, conn, url, settings, caplog):
        self.noop()
        (parent,) = conn.execute('select tick.enqueue(\'gone\', "then" => \'{"type": "after"}\')').fetchone()
        conn.execute(
            "update tick.jobs set status = 'dead', finished_at = now() - interval '100 days' where id = %s", [parent]
        )
        jobs(conn)
        set_chore(conn)
        with psycopg.connect(url) as other, caplog.at_level(logging.WARNING, "tick"):
            other.execute("select from tick.jobs where parent_id = %s for update", [parent])
            assert tick(settings).done == 1
        assert "prune could not be done" in caplog.text
        assert chore(conn)[1] <= 0
        tick(settings)
        assert statuses(conn) == {"done": 1, "cancelled": 1}

    def test_a_prune_that_fails_keeps_how_far_it_came(self, conn, settings, monkeypatch):
        monkeypatch.setattr(retention, "PAGE", 5)
        for _ in range(12):
            ended(conn, "done", 31)
        page = retention._Work.page
        pages = iter(range(9))

        async def failing(work) -> None:
            if next(pages) == 2:
                raise DatabaseUnavailable("gone")
            await page(work)

        monkeypatch.setattr(retention._Work, "page", failing)
        set_chore(conn)
        tick(settings)
        assert (len(left(conn)), chore(conn)[0]["after"]) == (2, 10)
        assert chore(conn)[1] <= 0
