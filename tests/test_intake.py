"""Putting jobs in: what one finds that is there already, whoever enqueues at the same time; and many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel, errors

import tick
from tests.factories import a_job, job, move_clock, statuses, wait_until
from tick import intake
from tick.errors import JobNotFound
from tick.jobs import NewJob

HOUR = timedelta(hours=1)
NOON = datetime(2031, 5, 1, 12, tzinfo=UTC)
ENDED = ("done", "dead", "cancelled")


@pytest.fixture
def greet(empty_registry) -> tick.Handler:
    @tick.job
    def greet(name: str = "you") -> None: ...

    return greet


@pytest.fixture
def noon(conn) -> None:
    move_clock(conn, NOON.isoformat())


def names(conn: psycopg.Connection) -> list[str | None]:
    return [name for (name,) in conn.execute("select payload ->> 'name' from tick.jobs order by id").fetchall()]


def is_blocked(conn: psycopg.Connection, other: psycopg.Connection) -> bool:
    pid = other.info.backend_pid
    return conn.execute("select wait_event_type = 'Lock' from pg_stat_activity where pid = %s", [pid]).fetchone()[0]


class TestJobId:
    def test_is_an_int_that_says_whether_it_was_created(self):
        id = tick.JobId(7, created=False)
        assert (id, id + 1, f"{id}", {7: "a"}[id], id.created) == (7, 8, "7", "a", False)

    def test_is_a_parameter_of_a_query(self, conn, greet):
        id = greet.enqueue(conn)
        assert conn.execute("select status from tick.jobs where id = %s", [id]).fetchone() == ("pending",)


class TestMany:
    def test_may_be_of_any_types_and_options(self, conn, greet):
        tick.job(type="other")(lambda: None)
        jobs = [greet.of("a"), tick.of("other", priority=3), greet.using(idempotency_key="x", delay="1h").of("b")]
        ids = tick.enqueue_many(conn, iter(jobs))
        found = [(job(conn, id)["type"], job(conn, id)["priority"], job(conn, id)["idempotency_key"]) for id in ids]
        assert found == [("greet", 0, None), ("other", 3, None), ("greet", 0, "x")]

    def test_say_of_each_whether_it_is_new(self, conn, greet):
        greet.using(idempotency_key="b").enqueue(conn)
        keyed = [greet.using(idempotency_key=key).of(key) for key in "abcab"]
        ids = tick.enqueue_many(conn, [*keyed, greet.of("none")])
        assert [id.created for id in ids] == [True, False, True, False, False, True]
        assert (ids[0], ids[1]) == (ids[3], ids[4])
        assert names(conn) == [None, "a", "c", "none"]

    def test_ten_thousand_with_keys_come_back_in_order_too(self, conn, greet):
        jobs = [greet.using(idempotency_key=str(n)).of(str(n)) for n in range(10_000)]
        first, second = tick.enqueue_many(conn, jobs), tick.enqueue_many(conn, jobs[::-1])
        assert second == first[::-1]
        assert all(id.created for id in first)
        assert not any(id.created for id in second)
        assert names(conn) == [str(n) for n in range(10_000)]

    def test_are_all_there_or_none(self, conn, greet):
        with pytest.raises(errors.CheckViolation):
            intake.enqueue_many(conn, [greet.of("a"), NewJob("", b"{}")])
        assert statuses(conn) == {}

    def test_a_key_makes_them_wait_for_each_other(self, conn, greet):
        tick.enqueue_many(conn, [greet.using(key="user:7").of(str(n)) for n in range(3)])
        waits = conn.execute("select waits_for from tick.jobs order by id").fetchall()
        assert waits == [(None,), ("key",), ("key",)]


class TestConflicts:
    """A job with its idempotency key is there: `status` and what the second enqueue asks for decide."""

    @pytest.fixture(params=["pending", "running", "done", "dead", "cancelled"])
    def status(self, request) -> str:
        return request.param

    def meet(self, conn, greet, status: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The row before and after a second enqueue found it."""
        columns = {"payload": {"name": "Ada"}, "idempotency_key": "a", "run_at": NOON, "created_at": NOON}
        id = a_job(conn, "greet", status, **columns)
        before = job(conn, id)
        met = greet.using(idempotency_key="a", **options).enqueue(conn, "Grace")
        assert (met, met.created) == (id, False)
        return before, job(conn, id)

    @pytest.mark.usefixtures("noon")
    @pytest.mark.parametrize("options", [{}, {"on_conflict": "keep"}], ids=str)
    def test_keep_changes_nothing(self, conn, greet, status, options):
        before, after = self.meet(conn, greet, status, delay=HOUR, priority=9, **options)
        assert after == before

    @pytest.mark.usefixtures("noon")
    @pytest.mark.parametrize("on_conflict", ["replace", "postpone"])
    def test_what_has_begun_or_ended_is_kept(self, conn, greet, status, on_conflict):
        before, after = self.meet(conn, greet, status, on_conflict=on_conflict, delay=HOUR)
        changed = {name for name in before if before[name] != after[name]}
        assert changed == ({"payload", "run_at"} if status == "pending" else set())

    @pytest.mark.usefixtures("noon")
    @pytest.mark.parametrize(
        ("on_conflict", "delay", "run_at"),
        [
            ("replace", HOUR, NOON + HOUR),
            ("replace", -HOUR, NOON - HOUR),
            ("postpone", HOUR, NOON + HOUR),
            ("postpone", -HOUR, NOON),
            ("postpone", 48 * HOUR, NOON + 24 * HOUR),
        ],
    )
    def test_replace_moves_it_to_any_time_and_postpone_to_a_later_one(self, conn, greet, on_conflict, delay, run_at):
        _, after = self.meet(conn, greet, "pending", on_conflict=on_conflict, delay=delay)
        assert (after["payload"], after["run_at"]) == ({"name": "Grace"}, run_at)

    def test_one_that_was_retried_is_replaced_and_keeps_what_it_has_been_through(self, conn, greet):
        id = a_job(conn, "greet", idempotency_key="a", attempt=2, failures=2, last_error="no", run_at="+1 hour")
        greet.using(idempotency_key="a", on_conflict="replace").enqueue(conn, "Grace")
        row = job(conn, id)
        assert (row["payload"], row["attempt"], row["failures"]) == ({"name": "Grace"}, 2, 2)
        assert row["run_at"] < datetime.now(UTC) + HOUR / 2

    def test_the_last_of_a_batch_decides(self, conn, greet):
        keyed = greet.using(idempotency_key="a", on_conflict="replace")
        ids = tick.enqueue_many(conn, [keyed.of(name) for name in ("Ada", "Grace", "Joan")])
        assert ([id.created for id in ids], names(conn)) == ([True, False, False], ["Joan"])

    def test_when_the_row_is_pruned_the_key_is_free_again(self, conn, greet):
        keyed = greet.using(idempotency_key="a")
        first = keyed.enqueue(conn)
        conn.execute("delete from tick.jobs")
        second = keyed.enqueue(conn)
        assert (second.created, second > first) == (True, True)

    def test_what_comes_after_is_put_in_once(self, conn, greet):
        keyed = greet.using(idempotency_key="a", then=greet.of("after"))
        for _ in range(3):
            keyed.enqueue(conn, "first")
        assert names(conn) == ["first", "after"]

    def test_moving_a_job_lets_the_next_of_its_key_go_first(self, conn, greet):
        first = greet.using(key="k", idempotency_key="a").enqueue(conn)
        second = greet.using(key="k").enqueue(conn)
        assert [job(conn, id)["waits_for"] for id in (first, second)] == [None, "key"]
        greet.using(key="k", idempotency_key="a", on_conflict="replace", delay="1h").enqueue(conn)
        assert [job(conn, id)["waits_for"] for id in (first, second)] == ["key", None]


class TestDebounce:
    """Each event postpones the job by a quiet period, until `max_wait` is over."""

    def events(self, conn, greet, count: int, every: timedelta, **options: Any) -> dict[str, Any]:
        quiet = greet.using(idempotency_key="sync", on_conflict="postpone", delay="10m", **options)
        for n in range(count):
            move_clock(conn, (NOON + n * every).isoformat())
            id = quiet.enqueue(conn, str(n))
        return job(conn, id)

    def test_runs_once_after_the_last_with_what_that_one_said(self, conn, greet):
        row = self.events(conn, greet, 5, timedelta(minutes=5))
        assert (row["run_at"], row["payload"]) == (NOON + timedelta(minutes=30), {"name": "4"})
        assert statuses(conn) == {"pending": 1}

    def test_runs_after_max_wait_however_many_come(self, conn, greet):
        row = self.events(conn, greet, 50, timedelta(minutes=5), max_wait="1h")
        assert (row["run_at"], row["payload"]) == (NOON + HOUR, {"name": "49"})

    def test_runs_after_a_day_at_the_latest(self, conn, greet):
        row = self.events(conn, greet, 400, timedelta(minutes=5))
        assert row["run_at"] == NOON + 24 * HOUR

    def test_a_max_wait_below_the_delay_brings_nothing_forward(self, conn, greet):
        row = self.events(conn, greet, 2, timedelta(minutes=5), max_wait="1m")
        assert row["run_at"] == NOON + timedelta(minutes=10)


class TestThrottle:
    def at(self, conn, handler: Any, *times: str) -> list[bool]:
        made = []
        for time in times:
            move_clock(conn, f"2031-05-01T{time}Z")
            made.append(handler.enqueue(conn, time).created)
        return made

    def test_takes_one_in_each_period_of_the_clock(self, conn, greet):
        times = ("12:00:00", "12:30:00", "12:59:59.999999", "13:00:00", "13:59:59")
        assert self.at(conn, greet.using(throttle="1h"), *times) == [True, False, False, True, False]
        assert names(conn) == ["12:00:00", "13:00:00"]

    def test_what_is_turned_away_is_told_the_one_that_is_there(self, conn, greet, noon):
        first, second = (greet.using(throttle="1h").enqueue(conn) for _ in range(2))
        assert (second, second.created, first.created) == (first, False, True)

    def test_counts_for_each_key_and_for_none(self, conn, greet, noon):
        made = [greet.using(throttle="1h", key=key).enqueue(conn).created for key in ("a", "b", None, "a", "b", None)]
        assert made == [True, True, True, False, False, False]

    def test_counts_for_each_type(self, conn, greet, noon):
        other = tick.job(type="other")(lambda: None)
        assert greet.using(throttle="1h").enqueue(conn).created
        assert other.using(throttle="1h").enqueue(conn).created

    @pytest.mark.parametrize("status", ENDED)
    def test_counts_one_that_has_ended(self, conn, greet, noon, status):
        id = greet.using(throttle="1h").enqueue(conn)
        conn.execute("update tick.jobs set status = %s, finished_at = tick.now()", [status])
        again = greet.using(throttle="1h").enqueue(conn)
        assert (again, again.created) == (id, False)

    def test_counts_the_time_it_is_for(self, conn, greet, noon):
        made = [greet.using(throttle="1h", delay=delay).enqueue(conn).created for delay in ("10m", "50m", "1h", "119m")]
        assert made == [True, False, True, False]

    def test_those_that_are_not_throttled_do_not_count(self, conn, greet, noon):
        assert [greet.enqueue(conn).created for _ in range(2)] == [True, True]
        assert greet.using(throttle="1h").enqueue(conn).created
        assert greet.enqueue(conn).created

    def test_a_window_of_a_schedule_is_another_matter(self, conn, greet, noon):
        a_job(conn, "greet", schedule="greet", window=NOON)
        assert greet.using(throttle="1h").enqueue(conn).created

    def test_of_a_batch_the_first_is_taken(self, conn, greet, noon):
        ids = tick.enqueue_many(conn, [greet.using(throttle="1h").of(name) for name in ("Ada", "Grace")])
        assert ([id.created for id in ids], names(conn)) == ([True, False], ["Ada"])

    def test_a_day_is_a_day_of_utc(self, conn, greet):
        handler = greet.using(throttle="24h")
        made = []
        for instant in ("2031-05-01T23:59:59Z", "2031-05-02T00:00:00Z", "2031-05-02T23:59:59Z"):
            move_clock(conn, instant)
            made.append(handler.enqueue(conn).created)
        assert made == [True, True, False]


ONCE: dict[str, dict[str, Any]] = {
    "idempotency_key": {"idempotency_key": "order 7"},
    "replace": {"idempotency_key": "order 7", "on_conflict": "replace"},
    "postpone": {"idempotency_key": "order 7", "on_conflict": "postpone", "delay": "1m"},
    "throttle": {"throttle": "365d"},
    "throttle by key": {"throttle": "365d", "key": "user:7"},
}


@pytest.fixture(params=ONCE.values(), ids=ONCE)
def once(request, greet) -> tick.Handler:
    return greet.using(**request.param)


class TestManyProducersAtOnce:
    @pytest.fixture
    def room_for_fifty(self, server_url) -> Iterator[None]:
        """So that no other process of this run opens fifty connections to the same server meanwhile."""
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute("select pg_advisory_lock(50)")
            yield

    def together(self, url: str, count: int, work: Callable[[psycopg.Connection], Any]) -> list[Any]:
        """What each of so many connections got, all of them beginning at the same moment."""
        start = threading.Barrier(count)

        def run(_: int) -> Any:
            with psycopg.connect(url) as connection:
                start.wait(60)
                return work(connection)

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))

    @pytest.mark.usefixtures("room_for_fifty")
    def test_of_fifty_one_makes_it(self, conn, url, once):
        ids = self.together(url, 50, once.enqueue)
        assert len(set(ids)) == 1
        assert sum(id.created for id in ids) == 1
        assert statuses(conn) == {"pending": 1}

    def test_batches_that_overlap_make_each_once(self, conn, url, greet):
        jobs = [greet.using(idempotency_key=str(n)).of(str(n)) for n in range(200)]
        batches = self.together(url, 8, lambda connection: tick.enqueue_many(connection, jobs))
        assert all(batch == batches[0] for batch in batches)
        assert [sum(batch[n].created for batch in batches) for n in range(200)] == [1] * 200
        assert statuses(conn) == {"pending": 200}

    @pytest.mark.parametrize("ends", ["commit", "rollback"])
    def test_the_second_waits_for_what_becomes_of_the_first(self, conn, url, once, ends):
        with psycopg.connect(url) as one, psycopg.connect(url) as other, ThreadPoolExecutor(1) as pool:
            first = once.enqueue(one)
            waiting = pool.submit(once.enqueue, other)
            wait_until(lambda: is_blocked(conn, other))
            getattr(one, ends)()
            second = waiting.result(timeout=30)
            other.commit()
        assert (second == first, second.created) == ((True, False) if ends == "commit" else (False, True))
        assert statuses(conn) == {"pending": 1}

    def test_of_its_own_transaction_a_producer_finds_its_own_job(self, conn, url, once):
        with psycopg.connect(url) as connection:
            first, second = once.enqueue(connection), once.enqueue(connection)
            assert (first, first.created, second.created) == (second, True, False)
            connection.rollback()
        assert statuses(conn) == {}

    @pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
    def test_a_snapshot_that_cannot_see_the_job_is_a_serialization_error(self, conn, url, once, level):
        with psycopg.connect(url) as connection:
            connection.isolation_level = level
            connection.execute("select count(*) from tick.jobs")
            first = once.enqueue(conn)
            with pytest.raises(errors.SerializationFailure):
                once.enqueue(connection)
            connection.rollback()
            assert once.enqueue(connection) == first

    def test_a_key_is_free_as_soon_as_the_row_that_held_it_is_gone(self, conn, url, greet):
        keyed = greet.using(idempotency_key="a", on_conflict="replace")
        keyed.enqueue(conn)
        with psycopg.connect(url) as pruner, psycopg.connect(url) as other, ThreadPoolExecutor(1) as pool:
            pruner.execute("delete from tick.jobs")
            waiting = pool.submit(keyed.enqueue, other)
            wait_until(lambda: is_blocked(conn, other))
            pruner.commit()
            assert waiting.result(timeout=30).created
            other.commit()
        assert statuses(conn) == {"pending": 1}


class TestWaiting:
    @pytest.mark.parametrize("status", ENDED)
    def test_tells_how_it_ended(self, conn, url, status):
        id = a_job(conn, status=status, result={"sent": 1} if status == "done" else None)

        async def main() -> tick.Ended:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                return await tick.wait(connection, id, "5s")

        expected = (status, {"sent": 1} if status == "done" else None, "no" if status == "dead" else None)
        assert asyncio.run(main()) == expected == asyncio.run(tick.wait(conn, id))

    def test_waits_until_it_has_ended(self, conn, url):
        id = a_job(conn)

        async def main() -> str:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                waiting = asyncio.create_task(tick.wait(connection, id, 30))
                await asyncio.sleep(0)
                assert not waiting.done()
                conn.execute("update tick.jobs set status = 'done', finished_at = tick.now()")
                return (await waiting).status

        assert asyncio.run(main()) == "done"

    def test_gives_up_in_time(self, conn):
        id = a_job(conn)
        with pytest.raises(TimeoutError, match=f"job {id} is still pending after 0.05 s"):
            asyncio.run(tick.wait(conn, id, 0.05))

    def test_a_job_that_is_not_there_is_an_error(self, conn):
        with pytest.raises(JobNotFound, match="there is no job 7"):
            asyncio.run(tick.wait(conn, 7))
