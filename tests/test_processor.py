"""The tick as a whole: what it runs, how it ends, how often it goes to the database, and that it keeps its time."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import tick as public
from tests.factories import a_job, job, jobs, move_clock, statuses, tick, wait_until
from tick import queue
from tick.config import GRACE
from tick.errors import ConfigurationError, DatabaseUnavailable
from tick.places import Stop
from tick.queue import Queue

pytestmark = pytest.mark.usefixtures("empty_registry")


@pytest.fixture
def trips(monkeypatch) -> list[int]:
    """One entry for each round trip that any queue makes."""
    made: list[int] = []
    once = Queue._send_once

    async def counted(self, batch):
        made.append(len(batch))
        return await once(self, batch)

    monkeypatch.setattr(Queue, "_send_once", counted)
    return made


def noop() -> None:
    @public.job
    async def noop() -> None:
        pass


class TestRoundTrips:
    def test_an_idle_tick_is_one(self, conn, settings, trips):
        noop()
        report = tick(settings)
        assert len(trips) == 1
        row = conn.execute("select trigger, finished_at is not null, claimed from tick.ticks").fetchone()
        assert row == ("cli", True, 0)
        assert report.claimed == 0

    def test_an_idle_tick_with_schedules_is_one(self, conn, settings, trips):
        noop()
        settings.schedules_path.write_text('[schedules.noop]\ncron = "0 0 1 1 *"\n')
        tick(settings)
        trips.clear()
        tick(settings)
        assert len(trips) == 1

    def test_one_due_job_is_two(self, conn, settings, trips):
        noop()
        jobs(conn)
        assert tick(settings).done == 1
        assert len(trips) == 2

    def test_one_due_window_is_three(self, conn, settings, trips):
        noop()
        settings.schedules_path.write_text('[schedules.noop]\nevery = "1h"\n')
        move_clock(conn, "2026-03-01T10:30Z")
        tick(settings)
        move_clock(conn, "2026-03-01T11:00Z")
        trips.clear()
        assert tick(settings).materialised == 1
        assert len(trips) == 3
        assert statuses(conn) == {"done": 1}

    @pytest.mark.parametrize("count", [1, 7, 20, 50, 100, 199, 1000])
    @pytest.mark.parametrize("kind", ["async", "sync"])
    def test_many_jobs_are_a_trip_a_batch_and_two(self, conn, settings, trips, count, kind):
        if kind == "async":
            noop()
        else:
            public.job(type="noop")(lambda: None)
        jobs(conn, count=count)
        assert tick(settings, batch_size=50).done == count
        assert len(trips) <= math.ceil(count / 50) + 2


class TestOutcomes:
    def run(self, conn, settings, function, **options) -> dict[str, Any]:
        """One job of a handler made of this function, after one tick."""
        public.job(type="noop", **options)(function)
        id = a_job(conn)
        tick(settings)
        return job(conn, id)

    def test_what_a_handler_returns_is_kept(self, conn, settings):
        def work():
            return {"at": datetime(2026, 1, 1, tzinfo=UTC), "n": [1, 2]}

        row = self.run(conn, settings, work)
        assert (row["status"], row["result"]) == ("done", {"at": "2026-01-01T00:00:00Z", "n": [1, 2]})

    @pytest.mark.parametrize(
        "value",
        [object(), b"\xff".decode("latin1") * 70_000, "a\0b", {1: {2}}, float("nan")],
        ids=lambda v: type(v).__name__,
    )
    def test_a_result_that_cannot_be_stored_does_not_undo_the_work(self, conn, settings, value):
        assert self.run(conn, settings, lambda: value)["status"] == "done"

    def test_a_failure_is_retried_later_with_its_traceback(self, conn, settings):
        async def work():
            raise ValueError("the CRM said no")

        row = self.run(conn, settings, work)
        assert (row["status"], row["failures"], row["last_error"]) == ("pending", 1, "ValueError: the CRM said no")
        assert 24 <= (row["run_at"] - datetime.now(UTC)).total_seconds() <= 36
        assert 'raise ValueError("the CRM said no")' in row["errors"][0]["traceback"]

    def test_the_last_attempt_buries(self, conn, settings):
        def work():
            raise ValueError

        row = self.run(conn, settings, work, max_attempts=1)
        assert (row["status"], row["failures"], row["last_error"]) == ("dead", 1, "ValueError")

    def test_the_default_is_five_attempts_growing_four_times_to_an_hour(self, conn, settings):
        @public.job(type="noop")
        def work():
            raise ValueError

        id = a_job(conn)
        waits = []
        for _ in range(5):
            tick(settings)
            row = job(conn, id)
            waits.append((row["run_at"] - conn.execute("select tick.now()").fetchone()[0]).total_seconds())
            move_clock(conn, "+2 hours")
        assert row["status"] == "dead"
        for wait, plan in zip(waits, (30, 120, 480, 1920), strict=False):
            assert plan * 0.75 <= wait <= plan * 1.25

    def test_a_handler_may_have_its_own_ladder(self, conn, settings):
        def work():
            raise ValueError

        row = self.run(conn, settings, work, backoff=["10m", "1h"])
        assert 470 <= (row["run_at"] - datetime.now(UTC)).total_seconds() <= 730

    def test_permanent_buries_at_once(self, conn, settings):
        def work():
            raise public.Permanent("no such user")

        row = self.run(conn, settings, work)
        assert (row["status"], row["last_error"]) == ("dead", "Permanent: no such user")

    def test_permanent_on_buries_at_once(self, conn, settings):
        def work():
            return {}["missing"]

        assert self.run(conn, settings, work, permanent_on=LookupError)["status"] == "dead"

    def test_retry_after_waits_just_so_long_and_counts_as_a_failure(self, conn, settings):
        async def work():
            raise public.Retry("busy", after=timedelta(minutes=7))

        row = self.run(conn, settings, work)
        assert row["failures"] == 1
        assert 415 <= (row["run_at"] - datetime.now(UTC)).total_seconds() <= 421

    def test_snooze_waits_and_is_no_failure(self, conn, settings):
        at = datetime(2031, 5, 1, tzinfo=UTC)

        def work():
            raise public.Snooze(until=at)

        row = self.run(conn, settings, work, max_attempts=1)
        assert (row["status"], row["run_at"], row["failures"], row["errors"]) == ("pending", at, 0, [])

    @pytest.mark.parametrize("after", [float("inf"), float("nan"), 1e300, -1, "soon", 1e12, timedelta.max])
    @pytest.mark.parametrize("kind", [public.Retry, public.Snooze])
    def test_a_wait_that_is_none_is_the_failure_of_that_job_alone(self, conn, settings, kind, after):
        noop()

        @public.job
        def ask() -> None:
            raise kind(after=after)

        a_job(conn, "ask")
        jobs(conn, count=10)
        report = tick(settings)
        assert (report.done, report.retried) == (10, 1)
        assert "after" in job(conn, 1)["last_error"] or "duration" in job(conn, 1)["last_error"]

    @pytest.mark.parametrize("count", [0, 30])
    def test_an_outcome_that_postgres_refuses_is_the_death_of_that_job_alone(self, conn, settings, count, monkeypatch):
        monkeypatch.setattr("tick.runner.LAST_YEAR", 9999)
        noop()

        @public.job
        def sleep_for_ever() -> None:
            raise public.Snooze(until=datetime.max.replace(tzinfo=UTC))

        id = a_job(conn, "sleep_for_ever", priority=1)
        jobs(conn, count=count)
        report = tick(settings, concurrency=40)
        assert (report.done, report.dead, report.stale) == (count, 1, 0)
        assert "cannot be written" in job(conn, id)["last_error"]

    def test_a_payload_that_does_not_fit_is_buried_and_names_the_field(self, conn, settings):
        @public.job
        def greet(name: str) -> None:
            raise AssertionError("it must not run")

        id = a_job(conn, "greet", payload={"name": 5})
        tick(settings)
        assert job(conn, id)["status"] == "dead"
        assert "$.name" in job(conn, id)["last_error"]

    @pytest.mark.parametrize(
        "payload", ['{"a": 1e5000}', '{"a": ' + "[" * 3000 + "]" * 3000 + "}"], ids=["number", "nest"]
    )
    def test_a_payload_that_cannot_be_decoded_is_the_death_of_that_job_alone(self, conn, settings, payload):
        noop()
        conn.execute("insert into tick.jobs (type, payload, priority) values ('noop', %s::jsonb, 1)", [payload])
        jobs(conn, count=5)
        report = tick(settings)
        assert (report.done, report.dead) == (5, 1)

    def test_a_plain_function_that_gives_back_a_coroutine_has_it_awaited(self, conn, settings):
        ran = []

        async def work():
            ran.append(1)
            return 7

        row = self.run(conn, settings, lambda: work())
        assert (ran, row["status"], row["result"]) == ([1], "done", 7)

    def test_a_type_without_a_handler_stays_as_it_is(self, conn, settings):
        noop()
        id = a_job(conn, "elsewhere")
        report = tick(settings)
        assert (report.claimed, report.left, job(conn, id)["attempt"]) == (0, 1, 0)


def test_a_fault_in_the_machinery_is_the_death_of_that_job_with_its_error(conn, settings, monkeypatch):
    noop()
    monkeypatch.setattr("tick.runner.run", lambda *args: 1 / 0)
    id = a_job(conn)
    assert tick(settings).dead == 1
    assert "ZeroDivisionError" in job(conn, id)["last_error"]


def zoo() -> list[BaseException]:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    return [
        SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration(1), StopAsyncIteration(), GeneratorExit(),
        RecursionError("deep"), MemoryError(), Mute(), ValueError("a\0b"), ValueError("\ud800"), ValueError("x" * 1_000_000),
        ExceptionGroup("both", [ValueError(1), TypeError(2)]), TimeoutError("mine"), UnicodeDecodeError("utf8", b"\xff", 0, 1, "no"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_whatever_a_handler_raises_is_one_failed_attempt(conn, settings, kind):
    animals = zoo()

    def fail(n: int) -> None:
        raise animals[n]

    async def fail_async(n: int) -> None:
        raise animals[n]

    public.job(type="fail")(fail_async if kind == "async" else fail)
    ids = [a_job(conn, "fail", payload={"n": n}) for n in range(len(animals))]
    assert tick(settings).retried == len(animals)
    for id, animal in zip(ids, animals, strict=True):
        row = job(conn, id)
        assert (row["status"], row["failures"], len(row["errors"])) == ("pending", 1, 1)
        assert type(animal).__name__ in row["last_error"]
        assert len(row["last_error"]) <= 1000 and len(row["errors"][0]["traceback"]) <= 8100


class TestTime:
    """No tick outlives its budget and the grace, whatever its handlers do."""

    def timed(self, settings, budget: float, **options):
        started = time.monotonic()
        report = tick(settings, budget=budget, **options)
        took = time.monotonic() - started
        assert took <= budget + GRACE
        return report, took

    def test_a_time_out_of_its_own_is_a_failure(self, conn, settings):
        @public.job(type="noop", timeout=0.2)
        async def sleep() -> None:
            await asyncio.sleep(30)

        id = a_job(conn)
        _, took = self.timed(settings, 5)
        assert took < 2
        assert (job(conn, id)["failures"], job(conn, id)["last_error"][:12]) == (1, "TimeoutError")

    def test_a_plain_function_past_its_time_out_is_left_behind_and_has_failed(self, conn, settings):
        done = threading.Event()

        @public.job(type="noop", timeout=0.2)
        def sleep() -> None:
            done.wait(30)

        id = a_job(conn)
        _, took = self.timed(settings, 5)
        done.set()
        assert took < 2
        assert job(conn, id)["failures"] == 1

    def test_the_deadline_of_the_tick_releases(self, conn, settings):
        @public.job(type="noop")
        async def sleep() -> None:
            await asyncio.sleep(30)

        id = a_job(conn)
        report, _ = self.timed(settings, 1)
        row = job(conn, id)
        assert (report.released, row["status"], row["failures"], row["cuts"]) == (1, "pending", 0, 1)

    def test_a_key_is_not_free_while_its_handler_has_not_stopped(self, conn, settings):
        at_work, together = [], []
        go = threading.Event()

        @public.job(type="noop", timeout=0.2)
        def slow() -> None:
            together.append(len(at_work))
            at_work.append(1)
            go.wait(5)
            at_work.pop()

        first, second = a_job(conn, key="k"), a_job(conn, key="k")
        tick(settings, budget=3)
        go.set()
        assert together == [0]
        assert (job(conn, first)["failures"], job(conn, second)["attempt"]) == (1, 0)

    def test_a_job_cut_short_again_and_again_has_failed(self, conn, settings):
        @public.job(type="noop")
        async def sleep() -> None:
            await asyncio.sleep(30)

        id = a_job(conn, cuts=2)
        self.timed(settings, 1)
        assert (job(conn, id)["failures"], "cut short" in job(conn, id)["last_error"]) == (1, True)

    def test_a_plain_function_that_sleeps_past_the_budget_keeps_its_lease(self, conn, settings):
        done = threading.Event()

        @public.job(type="noop")
        def sleep() -> None:
            done.wait(30)

        id = a_job(conn)
        self.timed(settings, 1)
        assert job(conn, id)["status"] == "running"
        done.set()
        move_clock(conn, "+1 minute")
        assert tick(settings).reclaimed == 1
        assert job(conn, id)["losses"] == 1

    @pytest.mark.parametrize("budget", [1, 2])
    def test_a_coroutine_that_ignores_its_cancellation_is_left_behind(self, conn, settings, budget):
        stubborn = True

        @public.job(type="noop")
        async def ignore() -> None:
            while stubborn:
                try:
                    await asyncio.sleep(0.3)
                except asyncio.CancelledError:
                    continue

        id = a_job(conn)

        async def main():
            nonlocal stubborn
            started = time.monotonic()
            from tick.handlers import registry
            from tick.processor import process_tick

            await process_tick(settings, registry, budget=budget)
            took = time.monotonic() - started
            stubborn = False
            return took

        assert asyncio.run(main()) <= budget + GRACE
        assert job(conn, id)["status"] == "running"

    def test_nothing_is_started_that_cannot_finish(self, conn, settings):
        started = []

        @public.job(type="noop", timeout=3.0)
        async def slow() -> None:
            started.append(1)

        a_job(conn)
        report, _ = self.timed(settings, 2)
        assert (report.claimed, started) == (0, [])
        assert tick(settings, budget=5).done == 1

    def test_a_type_is_known_by_how_long_it_took(self, conn, settings):
        @public.job
        async def half_a_second() -> None:
            await asyncio.sleep(0.5)

        jobs(conn, "half_a_second", 20)
        tick(settings, concurrency=20)
        jobs(conn, "half_a_second", 40)
        report, took = self.timed(settings, 2, concurrency=4)
        assert (statuses(conn)["pending"], report.stale) == (report.left, 0)
        assert conn.execute("select sum(cuts) from tick.jobs").fetchone() == (0,)
        assert 4 <= report.done < 20

    def test_the_budget_ends_a_deep_queue_with_nothing_left_running(self, conn, settings):
        @public.job(type="noop")
        async def short() -> None:
            await asyncio.sleep(0.02)

        jobs(conn, count=2000)
        report, took = self.timed(settings, 2)
        left = statuses(conn)
        assert took >= 0.8
        assert set(left) == {"done", "pending"}
        assert left["done"] == report.done
        assert report.left == left["pending"]

    def test_a_database_that_hangs_does_not_hold_the_tick(self, conn, settings):
        noop()
        jobs(conn)
        with psycopg.connect(settings.database_url) as other:
            other.execute("lock table tick.jobs")
            started = time.monotonic()
            with pytest.raises(DatabaseUnavailable):
                tick(settings, budget=1)
            assert time.monotonic() - started <= 1 + GRACE


class TestStop:
    def test_releases_what_has_not_started_and_settles_what_ends_in_the_grace(self, conn, settings):
        stop = Stop()

        @public.job(type="noop")
        async def work() -> None:
            await asyncio.sleep(0.05)
            stop()
            await asyncio.sleep(0.3)

        jobs(conn, count=15)
        started = time.monotonic()
        report = tick(settings, budget=30, concurrency=5, stop=stop)
        assert time.monotonic() - started < GRACE + 1
        assert (report.done, statuses(conn)) == (5, {"done": 5, "pending": 10})

    def test_may_be_asked_for_by_another_thread(self, conn, settings):
        stop = Stop()

        @public.job(type="noop")
        async def work() -> None:
            threading.Timer(0.1, stop).start()
            await asyncio.sleep(30)

        a_job(conn)
        started = time.monotonic()
        tick(settings, budget=30, stop=stop)
        assert time.monotonic() - started < GRACE + 1

    def test_releases_uncounted_what_does_not_end_in_the_grace(self, conn, settings):
        stop = Stop()

        @public.job(type="noop")
        async def work() -> None:
            stop()
            await asyncio.sleep(30)

        id = a_job(conn)
        tick(settings, budget=30, stop=stop)
        row = job(conn, id)
        assert (row["status"], row["failures"], row["losses"], row["cuts"]) == ("pending", 0, 0, 0)


class TestContext:
    def test_tells_a_handler_of_its_run(self, conn, settings):
        seen = {}

        @public.job(type="noop", timeout="5s")
        async def look(ctx: public.Context) -> None:
            seen.update(id=ctx.id, type=ctx.type, attempt=ctx.attempt, window=ctx.window, remaining=ctx.remaining())
            seen["deadline"] = ctx.deadline
            ctx.logger.info("seen")

        id = a_job(conn, schedule="daily", window="2026-03-01T00:00Z", attempt=3)
        tick(settings)
        assert (seen["id"], seen["type"], seen["attempt"]) == (id, "noop", 4)
        assert seen["window"] == datetime(2026, 3, 1, tzinfo=UTC)
        assert 4.5 < seen["remaining"] <= 5
        assert abs((seen["deadline"] - datetime.now(UTC)).total_seconds() - 5) < 2

    def test_its_follow_ups_run_in_the_same_tick(self, conn, settings):
        ran = []

        @public.job
        async def second(n: int) -> None:
            ran.append(n)

        @public.job
        async def first(ctx: public.Context) -> None:
            ctx.enqueue(second, n=1)
            ctx.enqueue("second", {"n": 2})

        a_job(conn, "first")
        assert tick(settings).done == 3
        assert sorted(ran) == [1, 2]

    def test_the_follow_ups_of_a_failure_do_not_exist(self, conn, settings):
        @public.job
        async def first(ctx: public.Context) -> None:
            ctx.enqueue("first")
            raise ValueError

        a_job(conn, "first")
        tick(settings)
        assert statuses(conn) == {"pending": 1}

    def test_what_a_handler_leaves_in_context_variables_the_next_does_not_see(self, conn, settings):
        variable: ContextVar[int] = ContextVar("variable", default=0)
        seen = []

        @public.job(type="noop")
        async def work() -> None:
            seen.append(variable.get())
            variable.set(1)

        jobs(conn, count=30)
        tick(settings, concurrency=3)
        assert seen == [0] * 30


class TestTogether:
    def test_a_running_job_is_told_that_it_was_cancelled(self, conn, settings, monkeypatch):
        monkeypatch.setattr("tick.processor.PULSE", 0.1)

        @public.job(type="noop")
        async def work() -> None:
            await asyncio.sleep(30)

        id = a_job(conn)
        with ThreadPoolExecutor() as pool:
            running = pool.submit(tick, settings, budget=20)
            wait_until(lambda: job(conn, id)["status"] == "running")
            conn.execute(queue.statements()["cancel"], {"id": id})
            running.result(timeout=10)
        assert job(conn, id)["status"] == "cancelled"

    def test_a_plain_function_is_told_too_and_its_outcome_is_cancelled(self, conn, settings, monkeypatch):
        monkeypatch.setattr("tick.processor.PULSE", 0.1)
        saw = threading.Event()

        @public.job(type="noop")
        def work(ctx: public.Context) -> None:
            while not ctx.cancelled:
                time.sleep(0.01)
            saw.set()

        id = a_job(conn)
        with ThreadPoolExecutor() as pool:
            running = pool.submit(tick, settings, budget=20)
            wait_until(lambda: job(conn, id)["status"] == "running")
            conn.execute(queue.statements()["cancel"], {"id": id})
            running.result(timeout=10)
        assert (saw.is_set(), job(conn, id)["status"]) == (True, "cancelled")

    def test_new_work_is_seen_while_a_long_job_runs(self, conn, settings, monkeypatch):
        monkeypatch.setattr("tick.processor.PULSE", 0.1)
        noop()
        go = threading.Event()

        @public.job
        def long() -> None:
            go.wait(10)

        a_job(conn, "long")
        with ThreadPoolExecutor() as pool:
            running = pool.submit(tick, settings, budget=20)
            wait_until(lambda: "running" in statuses(conn))
            id = a_job(conn)
            wait_until(lambda: job(conn, id)["status"] == "done")
            go.set()
            running.result(timeout=10)

    def test_jobs_of_a_key_never_overlap_whatever_ticks_do(self, conn, settings):
        lock, running, overlaps = threading.Lock(), set(), []

        @public.job(type="noop")
        async def work(key: str) -> None:
            with lock:
                overlaps.extend({key} & running)
                running.add(key)
            await asyncio.sleep(0.002)
            with lock:
                running.discard(key)

        for n in range(120):
            a_job(conn, payload={"key": f"k{n % 6}"}, key=f"k{n % 6}", priority=n % 3)
        with ThreadPoolExecutor() as pool:
            for _ in range(3):
                list(pool.map(lambda _: tick(settings, budget=10), range(4)))
        assert overlaps == []
        assert statuses(conn) == {"done": 120}

    def test_many_ticks_at_once_run_each_job_once(self, conn, settings):
        ran: list[int] = []

        @public.job(type="noop")
        async def work(ctx: public.Context) -> None:
            ran.append(ctx.id)

        jobs(conn, count=3000)
        with ThreadPoolExecutor(8) as pool:
            reports = list(pool.map(lambda _: tick(settings, budget=20), range(8)))
        assert sorted(ran) == list(range(1, 3001))
        assert sum(report.done for report in reports) == 3000
        assert sum(report.stale for report in reports) == 0

    def test_suspects_run_alone(self, conn, settings):
        at_once, most = 0, []

        @public.job(type="noop")
        async def work(ctx: public.Context) -> None:
            nonlocal at_once
            at_once += 1
            most.append((ctx.id in suspects, at_once))
            await asyncio.sleep(0.01)
            at_once -= 1

        suspects = {a_job(conn, losses=1) for _ in range(5)}
        jobs(conn, count=30)
        assert tick(settings).done == 35
        assert [n for suspect, n in most if suspect] == [1] * 5
        assert [suspect for suspect, _ in most[:5]] == [True] * 5
        assert max(n for _, n in most) > 1

    def test_nothing_runs_beside_a_suspect_that_does_not_stop(self, conn, settings):
        @public.job(timeout=0.2)
        def stuck() -> None:
            time.sleep(4)

        noop()
        a_job(conn, "stuck", losses=1)
        jobs(conn, count=3)
        assert tick(settings, budget=3).done == 0
        assert statuses(conn)["pending"] >= 3

    def test_a_built_in_type_that_cannot_be_imported_is_its_jobs_failure(self, conn, settings, empty_registry):
        noop()
        empty_registry.add_later("ghost", "tick.there_is_no_such_module")
        a_job(conn, "ghost")
        jobs(conn)
        report = tick(settings)
        assert (report.done, report.dead) == (1, 1)
        assert "there_is_no_such_module" in job(conn, 1)["last_error"]

    def test_a_connection_that_is_lost_costs_no_job(self, conn, settings):
        killed = []

        @public.job(type="noop")
        async def work() -> None:
            if len(killed) < 3:
                killed.append(1)
                with psycopg.connect(settings.database_url, autocommit=True) as other:
                    other.execute("select pg_terminate_backend(pid) from pg_stat_activity where query like '%%tick%%' "
                                  "and datname = current_database() and pid not in (pg_backend_pid(), %s)", [conn.info.backend_pid])  # fmt: skip

        jobs(conn, count=300)
        assert tick(settings, batch_size=40).done == 300
        assert statuses(conn) == {"done": 300}


class TestSchedulesFile:
    def test_that_is_broken_is_the_error_of_the_tick_but_jobs_run_all_the_same(self, conn, settings):
        noop()
        settings.schedules_path.write_text('[schedules.noop]\ncron = "nonsense"\n')
        id = a_job(conn)
        with pytest.raises(ConfigurationError, match="schedules.noop.cron"):
            tick(settings)
        assert job(conn, id)["status"] == "done"
        assert "schedules.noop.cron" in conn.execute("select error from tick.ticks").fetchone()[0]

    def test_whose_type_has_no_handler_is_an_error(self, conn, settings):
        noop()
        settings.schedules_path.write_text('[schedules.nightly-noop]\ncron = "0 3 * * *"\n')
        with pytest.raises(ConfigurationError, match="nightly_noop"):
            tick(settings)

    def test_is_measured_by_the_budget_of_the_settings_and_not_by_a_lower_one(self, conn, settings):
        noop()
        settings.schedules_path.write_text('[schedules.noop]\ncron = "0 3 * * *"\ntimeout = "30s"\n')
        tick(settings, budget=5)
        settings.schedules_path.write_text('[schedules.noop]\ncron = "0 3 * * *"\ntimeout = "60s"\n')
        with pytest.raises(ConfigurationError, match="never fit the budget of 50"):
            tick(settings, budget=5)

    def test_whose_payload_does_not_fit_is_an_error(self, conn, settings):
        @public.job
        def greet(name: str) -> None: ...

        settings.schedules_path.write_text('[schedules.greet]\ncron = "0 3 * * *"\npayload = { nam = "x" }\n')
        with pytest.raises(ConfigurationError, match="nam"):
            tick(settings)
