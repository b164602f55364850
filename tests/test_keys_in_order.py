"""Jobs that share a key: never two at once, the oldest first, none left behind, whoever puts in, ends and moves them."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import tick as public
from tests.factories import a_job, job, statuses, tick, wait_until
from tick import queue
from tick.jobs import Cancelled, Dead, Done, Failure, Job, NewJob, Outcome, Released, Retried, Snoozed
from tick.processor import process_tick
from tick.queue import Queue, Wanted, settlements, statements

OOPS = Failure("ValueError: no", "Traceback ...")
LATER = datetime(2037, 1, 1, tzinfo=UTC)
LEAVES = {
    "done": Done(),
    "done with a result": Done(b"1"),
    "done with a follow-up": Done(None, [NewJob("other", b"{}")]),
    "dead": Dead(OOPS),
    "retried": Retried(60.0, OOPS),
    "snoozed": Snoozed(LATER),
    "stopped": Cancelled(),
}
"""What a running job may come to, after which the next of its key runs."""
KEEPS = {"released": Released(), "cut": Released(cut=True)}
"""After which it keeps its place, and runs again before the next."""

STUCK = """
select key from tick.jobs
 where key is not null and status in ('pending', 'running') and coalesce(waits_for, 'key') = 'key'
 group by key
having bool_and(status = 'pending' and waits_for is not null)
"""
"""Keys of which every job waits for another: there must be none."""
FIRST = """
select distinct on (key) id, losses > 0 as suspect, run_at <= tick.now() as due from tick.jobs j
 where key is not null and status = 'pending' and (run_at <= tick.now() or strict_key and attempt > 0)
   and not exists (select from tick.jobs r where r.key = j.key and r.status = 'running')
 order by key, strict_key and attempt > 0 desc, run_at, id
"""
"""The first job of each key that has none running, by the rule itself and not by how it is kept."""


def claim_params(limit: int, types: Iterable[str] = ("noop",), *, fair: bool = False) -> dict[str, Any]:
    """What a tick of its own binds to a claim."""
    wanted = Wanted(limit, list(types), remaining=50.0, lease=1e6, free=limit, fair=fair)
    (claim,) = Queue._claims(SimpleNamespace(tick=uuid.uuid4()), wanted)
    return claim.params


class Hand:
    """What ticks do, by hand: one statement of queue.sql at a time."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn

    def run(self, name: str, **params: Any) -> list[tuple[Any, ...]]:
        cursor = self.conn.execute(statements()[name], params)
        return cursor.fetchall() if cursor.description else []

    def claim(
        self, name: str = "claim", limit: int = 100, types: tuple[str, ...] = ("noop",), *, fair: bool = False
    ) -> list[Job]:
        rows = self.run(name, **claim_params(limit, types, fair=fair))
        return sorted(map(Job._make, rows), key=lambda job: (0 if fair else -job.priority, job.run_at, job.id))

    def claimed(self, **options: Any) -> list[int]:
        return [job.id for job in self.claim(**options)]

    def settle(self, job: Job, outcome: Outcome) -> None:
        for name, params, _ in settlements([(job, outcome)]):
            self.run(name, **params)

    def reclaim(self) -> None:
        self.run("reclaim", message=queue.LOST, most_losses=queue.MOST_LOSSES, keep=5, limit=500)

    def stuck(self) -> list[tuple[Any, ...]]:
        return self.conn.execute(STUCK).fetchall()


@pytest.fixture
def hand(conn) -> Hand:
    return Hand(conn)


@pytest.fixture
def other(url):
    """A second connection, with a transaction of its own."""
    with psycopg.connect(url) as connection:
        yield connection


def keyed(conn: psycopg.Connection, key: str = "k", **options: Any) -> int:
    """A job of a key, put in as every producer does."""
    names = ", ".join(f'"{name}" => %({name})s' for name in options)
    statement = f"select tick.enqueue('noop', key => %(key)s{', ' * bool(names)}{names})"
    return conn.execute(statement, {"key": key} | options).fetchone()[0]


def back(minutes: float) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)


def waits(conn: psycopg.Connection, id: int) -> bool:
    return job(conn, id)["waits_for"] == "key"


def is_blocked(conn: psycopg.Connection, other: psycopg.Connection) -> bool:
    """Whether the other connection waits for a lock."""
    statement = "select from pg_locks where pid = %s and not granted"
    return bool(conn.execute(statement, [other.info.backend_pid]).fetchall())


class TestOneAtATime:
    def test_the_oldest_runs_and_the_others_are_in_no_index_that_a_claim_walks(self, conn, hand):
        first, second, third = (keyed(conn) for _ in range(3))
        assert [waits(conn, id) for id in (first, second, third)] == [False, True, True]
        assert hand.claimed() == [first]
        assert hand.claimed() == []

    @pytest.mark.parametrize("outcome", LEAVES.values(), ids=LEAVES)
    def test_what_ends_or_goes_back_to_a_later_time_frees_the_next(self, conn, hand, outcome):
        keyed(conn)
        second, third = keyed(conn), keyed(conn)
        hand.settle(hand.claim()[0], outcome)
        assert hand.claimed() == [second]
        assert waits(conn, third)

    @pytest.mark.parametrize("outcome", KEEPS.values(), ids=KEEPS)
    def test_what_was_released_keeps_its_place(self, conn, hand, outcome):
        first, _ = keyed(conn), keyed(conn)
        hand.settle(hand.claim()[0], outcome)
        assert hand.claimed() == [first]

    def test_a_retry_does_not_block_its_key_and_comes_back_when_its_time_has_come(self, conn, hand):
        first, second = keyed(conn), keyed(conn)
        hand.settle(hand.claim()[0], Retried(0.0, OOPS))
        assert waits(conn, first)
        hand.settle(hand.claim()[0], Done())
        assert job(conn, second)["status"] == "done"
        assert hand.claimed() == [first]

    def test_a_lost_job_goes_behind_those_that_are_due(self, conn, hand):
        lost, second = keyed(conn), keyed(conn)
        hand.claim()
        conn.execute("update tick.jobs set lease_expires_at = now() where status = 'running'")
        hand.reclaim()
        assert hand.claimed(name="claim_suspect") == []
        hand.settle(hand.claim()[0], Done())
        assert job(conn, second)["status"] == "done"
        assert hand.claimed(name="claim_suspect") == [lost]

    def test_delayed_jobs_do_not_block_those_that_are_due(self, conn, hand):
        delayed = keyed(conn, delay=timedelta(hours=1))
        much_later = keyed(conn, delay=timedelta(hours=2))
        due = keyed(conn)
        assert hand.claimed() == [due]
        assert not waits(conn, delayed)
        assert waits(conn, much_later)

    @pytest.mark.parametrize(
        "column", ["status = 'cancelled', finished_at = now()", "run_at = '2037-01-01'", "key = 'l'"]
    )
    def test_the_first_is_cancelled_or_put_off_or_given_another_key_by_whoever_does_it(self, conn, hand, column):
        first, second = keyed(conn), keyed(conn)
        conn.execute(f"update tick.jobs set {column} where id = %s", [first])
        assert second in hand.claimed()

    def test_the_first_is_deleted(self, conn, hand):
        first, second = keyed(conn), keyed(conn)
        conn.execute("delete from tick.jobs where id = %s", [first])
        assert hand.claimed() == [second]

    def test_the_first_is_postponed_by_its_idempotency_key(self, conn, hand):
        keyed(conn, idempotency_key="a")
        second = keyed(conn)
        keyed(conn, idempotency_key="a", on_conflict="postpone", delay=timedelta(hours=1))
        assert hand.claimed() == [second]

    def test_one_that_waits_is_moved_before_the_first(self, conn, hand):
        keyed(conn, run_at=back(1))
        second, third = keyed(conn), keyed(conn, idempotency_key="a")
        keyed(conn, idempotency_key="a", on_conflict="replace", run_at=back(2))
        assert hand.claimed() == [third]
        assert waits(conn, second)

    def test_one_that_waits_is_given_another_key(self, conn, hand):
        first, second = keyed(conn), keyed(conn)
        third = keyed(conn)
        conn.execute("update tick.jobs set key = 'l' where id = %s", [second])
        conn.execute("update tick.jobs set key = null where id = %s", [third])
        assert set(hand.claimed()) == {first, second, third}

    def test_a_cancelled_job_that_waited_comes_back(self, conn, hand):
        first, second = keyed(conn), keyed(conn)
        hand.run("cancel", id=second, ids=[second])
        hand.settle(hand.claim()[0], Done())
        hand.run("replay", id=second, ids=[second])
        assert hand.claimed() == [second]
        assert job(conn, first)["status"] == "done"

    def test_a_cancelled_job_that_waited_comes_back_by_hand(self, conn, hand):
        keyed(conn)
        second = keyed(conn)
        hand.run("cancel", id=second, ids=[second])
        hand.settle(hand.claim()[0], Done())
        conn.execute("update tick.jobs set status = 'pending', finished_at = null where id = %s", [second])
        assert hand.claimed() == [second]

    def test_a_dead_job_is_replayed_while_another_of_its_key_runs(self, conn, hand):
        first, second = keyed(conn), keyed(conn)
        hand.settle(hand.claim()[0], Dead(OOPS))
        running = hand.claim()[0]
        hand.run("replay", id=first, ids=[first])
        assert hand.claimed() == []
        hand.settle(running, Done())
        assert hand.claimed() == [first]
        assert running.id == second

    def test_an_older_job_that_comes_late_goes_before_the_one_that_is_free(self, conn, hand):
        first, second = keyed(conn, run_at=back(1)), keyed(conn)
        older = keyed(conn, run_at=back(2))
        order = []
        while claimed := hand.claim():
            order += [each.id for each in claimed]
            hand.settle(claimed[0], Done())
        assert order == [older, first, second]

    def test_jobs_put_in_from_the_latest_to_the_oldest_are_in_line_again_after_the_first_of_them(self, conn, hand):
        ids = [keyed(conn, run_at=back(minutes)) for minutes in range(20)]
        hand.settle(hand.claim()[0], Done())
        assert sum(not waits(conn, id) for id in ids[:-1]) == 1
        assert hand.claimed() == [ids[-2]]

    def test_priority_is_for_jobs_of_different_keys(self, conn, hand):
        first, _ = keyed(conn), keyed(conn, priority=9)
        elsewhere = keyed(conn, "l", priority=5)
        assert set(hand.claimed()) == {first, elsewhere}

    def test_many_jobs_of_one_key_in_one_statement(self, conn, hand):
        conn.execute("insert into tick.jobs (type, key) select 'noop', 'k' from generate_series(1, 500)")
        (free,) = conn.execute("select count(*) from tick.jobs where waits_for is null").fetchone()
        assert free == 1
        order = []
        while claimed := hand.claim():
            order += [each.id for each in claimed]
            hand.settle(claimed[0], Done())
        assert order == list(range(1, 501))

    def test_jobs_of_a_schedule_that_share_a_key_run_one_after_the_other(self, conn, settings, empty_registry):
        record = Record()
        record.handler()
        settings.schedules_path.write_text(
            '[schedules.a]\ntype = "noop"\nevery = "1h"\nkey = "k"\ncatch_up = "all"\n'
            '[schedules.b]\ntype = "noop"\nevery = "30m"\nkey = "k"\ncatch_up = "all"\n'
        )
        tick(settings)
        conn.execute("update tick.definitions set cursor = tick.now() - interval '5 hours'")
        conn.execute("update tick.entries set next_window = tick.now()")
        tick(settings)
        assert statuses(conn) == {"done": len(record.runs)}
        assert 15 <= len(record.runs) <= 16
        record.check_that_none_overlap()

    def test_a_job_that_waits_for_its_parent_does_not_block_its_key(self, conn, hand):
        child = '[{"type": "noop", "key": "k"}]'
        conn.execute("select tick.enqueue('parent', \"then\" => %s::jsonb)", [child])
        independent = keyed(conn)
        assert hand.claimed() == [independent]
        (parent,) = hand.claim(types=("parent",))
        hand.settle(parent, Done())
        assert hand.claimed() == []
        assert hand.stuck() == []


class TestStrict:
    """What was started and is strict goes before everything of its key, whatever became of it but an end."""

    @pytest.mark.parametrize(
        "outcome",
        [Retried(60.0, OOPS), Snoozed(LATER), Released(), Released(cut=True)],
        ids=["retry", "snooze", "release", "cut"],
    )
    def test_nothing_passes_it_until_it_has_ended(self, conn, hand, outcome):
        first, second = keyed(conn, key_order="strict"), keyed(conn)
        hand.settle(hand.claim()[0], outcome)
        older = keyed(conn, run_at=back(5))
        due = job(conn, first)["run_at"] <= datetime.now(UTC)
        assert hand.claimed() == [first] * due
        conn.execute("update tick.jobs set run_at = now() - interval '1 hour' where id = %s", [first])
        running = [] if due else hand.claim()
        assert [each.id for each in running] == [first] * (not due)
        conn.execute(
            "update tick.jobs set status = 'done', lease_expires_at = null, finished_at = now() where id = %s", [first]
        )
        assert hand.claimed() == [older]
        assert waits(conn, second)

    def test_nor_after_it_was_lost(self, conn, hand):
        lost, second = keyed(conn, key_order="strict"), keyed(conn)
        hand.claim()
        conn.execute("update tick.jobs set lease_expires_at = now() where status = 'running'")
        hand.reclaim()
        assert hand.claimed() == []
        (again,) = hand.claim("claim_suspect")
        assert again.id == lost
        hand.settle(again, Done())
        assert hand.claimed() == [second]

    def test_a_suspect_does_not_pass_it_either(self, conn, hand):
        strict = keyed(conn, key_order="strict")
        hand.settle(hand.claim()[0], Retried(60.0, OOPS))
        a_job(conn, key="k", losses=1, run_at="-1 hour")
        assert hand.claimed(name="claim_suspect") == []
        assert hand.claimed() == []
        hand.run("cancel", id=strict, ids=[strict])
        assert len(hand.claim("claim_suspect")) == 1

    @pytest.mark.parametrize("end", ["cancel", "delete"])
    def test_it_is_cancelled_or_deleted_while_it_waits_for_its_retry(self, conn, hand, end):
        first, second = keyed(conn, key_order="strict"), keyed(conn)
        hand.settle(hand.claim()[0], Retried(60.0, OOPS))
        if end == "cancel":
            hand.run("cancel", id=first, ids=[first])
        else:
            conn.execute("delete from tick.jobs where id = %s", [first])
        assert hand.claimed() == [second]

    def test_one_that_has_not_started_holds_nothing(self, conn, hand):
        keyed(conn, key_order="strict", delay=timedelta(hours=1))
        due = keyed(conn, key_order="strict")
        assert hand.claimed() == [due]

    def test_it_is_replayed_before_the_others(self, conn, hand):
        first, second, third = keyed(conn, key_order="strict"), keyed(conn), keyed(conn)
        hand.settle(hand.claim()[0], Dead(OOPS))
        running = hand.claim()[0]
        hand.run("replay", id=first, ids=[first])
        hand.settle(running, Done())
        hand.settle(hand.claim()[0], Done())
        assert (job(conn, first)["status"], job(conn, second)["status"]) == ("done", "done")
        assert hand.claimed() == [third]

    def test_it_is_an_option_of_the_handler_for_all_producers(self, conn, hand, settings, empty_registry):
        @public.job(key_order="strict")
        async def noop() -> None:
            raise public.Retry("not yet", after=3600)

        tick(settings)
        keyed(conn)
        noop.using(key="k").enqueue(conn)
        keyed(conn, key_order="loose")
        rows = conn.execute("select strict_key from tick.jobs order by id").fetchall()
        assert rows == [(True,), (True,), (False,)]
        assert tick(settings).claimed == 1


class TestTransactionsThatMeet:
    """Each pair of transactions that could leave a key with nobody to free it."""

    def test_a_producer_commits_after_the_one_it_saw_has_ended(self, conn, hand, other):
        keyed(conn)
        running = hand.claim()[0]
        late = keyed(other)
        hand.settle(running, Done())
        other.commit()
        assert not waits(conn, late)
        assert hand.claimed() == [late]

    def test_a_producer_of_several_commits_after_the_one_they_saw_has_ended(self, conn, hand, other):
        keyed(conn)
        running = hand.claim()[0]
        late, later, _ = (keyed(other) for _ in range(3))
        hand.settle(running, Done())
        other.commit()
        assert hand.claimed() == [late]
        assert waits(conn, later)

    def test_a_producer_commits_while_the_one_it_saw_is_being_settled(self, conn, hand, other):
        keyed(conn)
        running = hand.claim()[0]
        late = keyed(other)
        with conn.transaction():
            hand.settle(running, Done())
            other.commit()
        assert hand.claimed() == [late]

    def test_a_settle_waits_for_a_producer_that_has_looked_and_is_about_to_commit(self, conn, hand, other, url):
        keyed(conn)
        running = hand.claim()[0]
        late = keyed(other)
        other.execute("set constraints all immediate")
        assert other.execute("select waits_for from tick.jobs where id = %s", [late]).fetchone() == ("key",)
        with psycopg.connect(url, autocommit=True) as settling, ThreadPoolExecutor(1) as pool:
            done = pool.submit(Hand(settling).settle, running, Done())
            wait_until(lambda: is_blocked(conn, settling))
            other.commit()
            done.result(10)
        assert hand.claimed() == [late]

    def test_a_producer_rolls_back(self, conn, hand, other):
        keyed(conn)
        running = hand.claim()[0]
        keyed(other)
        kept = keyed(conn)
        hand.settle(running, Done())
        other.rollback()
        assert hand.claimed() == [kept]
        assert hand.stuck() == []

    def test_the_first_is_put_in_by_a_transaction_that_rolls_back(self, conn, hand, other):
        keyed(other, run_at=back(5))
        second = keyed(conn)
        assert hand.claimed() == [second]
        other.rollback()
        assert hand.stuck() == []

    def test_a_savepoint_is_rolled_back(self, conn, hand, other):
        with other.transaction(force_rollback=True):
            keyed(other)
        kept = keyed(other)
        other.commit()
        assert hand.claimed() == [kept]

    @pytest.mark.parametrize("level", list(psycopg.IsolationLevel), ids=lambda level: level.name)
    def test_a_producer_that_does_not_see_what_is_committed_meanwhile(self, conn, hand, other, level):
        keyed(conn)
        running = hand.claim()[0]
        other.isolation_level = level
        late = keyed(other)
        hand.settle(running, Done())
        other.commit()
        assert hand.claimed() == [late]

    def test_what_a_transaction_leaves_standing_that_does_not_see_it_the_next_tick_frees(self, conn, hand, other):
        first = keyed(conn)
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("select from tick.jobs")
        second = keyed(conn)
        Hand(other).run("cancel", id=first, ids=[first])
        other.commit()
        assert hand.stuck() == [("k",)]
        hand.run("heal_keys")
        assert hand.claimed() == [second]

    def test_the_next_is_cancelled_while_it_is_being_freed(self, conn, hand, other, url):
        keyed(conn)
        second, third = keyed(conn), keyed(conn)
        running = hand.claim()[0]
        Hand(other).run("cancel", id=second, ids=[second])
        hand.settle(running, Done())
        other.commit()
        assert hand.claimed() == [third]

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_the_only_one_that_waits_is_being_cancelled_while_it_should_be_freed(self, conn, hand, other, url, end):
        keyed(conn)
        second = keyed(conn)
        running = hand.claim()[0]
        Hand(other).run("cancel", id=second, ids=[second])
        with psycopg.connect(url, autocommit=True) as settling, ThreadPoolExecutor(1) as pool:
            done = pool.submit(Hand(settling).settle, running, Done())
            wait_until(lambda: is_blocked(conn, settling))
            getattr(other, end)()
            done.result(10)
        assert hand.claimed() == [second] * (end == "rollback")
        assert hand.stuck() == []

    def test_two_that_are_free_end_at_the_same_time(self, conn, hand, other):
        """Neither transaction may rely on the other's job, which is free as far as it can see."""
        younger, older = keyed(conn, run_at=back(1)), keyed(conn, run_at=back(2))
        third = keyed(conn)
        other.execute("select from tick.jobs where id = %s for update", [younger])
        with ThreadPoolExecutor(1) as pool, conn.transaction():
            hand.run("cancel", id=older, ids=[older])
            cancelled = pool.submit(Hand(other).run, "cancel", id=younger, ids=[younger])
            wait_until(lambda: is_blocked(conn, other))
        cancelled.result(10)
        other.commit()
        assert hand.claimed() == [third]

    def test_the_only_other_that_is_free_ends_after_one_that_relied_on_it(self, conn, hand, other):
        younger, older = keyed(conn, run_at=back(1)), keyed(conn, run_at=back(2))
        third = keyed(conn)
        with ThreadPoolExecutor(1) as pool, conn.transaction():
            hand.run("cancel", id=older, ids=[older])
            cancelled = pool.submit(Hand(other).run, "cancel", id=younger, ids=[younger])
            wait_until(lambda: is_blocked(conn, other))
        cancelled.result(10)
        other.commit()
        assert hand.claimed() == [third]


# Everything at once


class Run(NamedTuple):
    id: int
    key: str
    payload: dict[str, Any]
    started: float
    ended: float


class Record:
    """What handlers say of their own runs."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def handler(self) -> Any:
        @public.job
        async def noop(ctx: public.Context, **payload: Any) -> None:
            started = time.monotonic()
            await asyncio.sleep(0)
            self.runs.append(Run(ctx.id, ctx.key or "", payload, started, time.monotonic()))

        return noop

    def of_key(self, key: str) -> list[Run]:
        return sorted((run for run in self.runs if run.key == key), key=lambda run: run.started)

    def check_that_none_overlap(self) -> None:
        for key in {run.key for run in self.runs}:
            for before, after in pairwise(self.of_key(key)):
                assert before.ended <= after.started, (before, after)


def overlapping_ticks(settings, done: Callable[[], bool], ticks: int = 8) -> None:
    """So many ticks beside each other, each followed by the next, until it is done."""
    over = threading.Event()

    def keep_ticking() -> None:
        while not over.is_set() and not done():
            report = asyncio.run(process_tick(settings, public.handlers.registry, budget=10))
            over.wait(0 if report.claimed else 0.05)

    giving_up = threading.Timer(60, over.set)
    giving_up.start()

    with ThreadPoolExecutor(ticks) as pool:
        for each in [pool.submit(keep_ticking) for _ in range(ticks)]:
            each.result()
    giving_up.cancel()
    assert done()


CONNECTIONS = threading.Semaphore(30)
"""Producers' connections that are open at once: the server has a hundred for everybody."""


def produce(url: str, producer: int, jobs: int, key: Callable[[int], str]) -> None:
    """Put jobs in, some alone and some with others in a transaction; and take back one in five."""
    with CONNECTIONS, psycopg.connect(url) as connection:
        for number in range(jobs):
            keyed(connection, key(number), payload=f'{{"producer": {producer}, "number": {number}}}')
            if number % 3 == producer % 3:
                connection.commit()
            if number % 5 == 4:
                connection.commit()
                keyed(connection, key(number))
                connection.rollback()
        connection.commit()


@pytest.mark.parametrize("keys", [1, 50])
def test_fifty_producers_and_eight_overlapping_ticks(conn, url, settings, empty_registry, keys):
    record = Record()
    record.handler()
    with ThreadPoolExecutor(50) as pool:
        producers = [
            pool.submit(produce, url, number, 10, lambda n, number=number: f"key {(number + n) % keys}")
            for number in range(50)
        ]
        overlapping_ticks(settings, lambda: all(p.done() for p in producers) and statuses(conn) == {"done": 500})
        for each in producers:
            each.result()
    assert Counter(run.id for run in record.runs).most_common(1)[0][1] == 1
    assert len(record.runs) == 500
    record.check_that_none_overlap()
    for key in {run.key for run in record.runs}:
        for producer in range(50):
            numbers = [run.payload["number"] for run in record.of_key(key) if run.payload["producer"] == producer]
            assert numbers == sorted(numbers)


def test_a_line_that_stands_is_worked_off_in_its_order_by_overlapping_ticks(conn, settings, empty_registry):
    record = Record()
    record.handler()
    conn.execute(
        "insert into tick.jobs (type, key, run_at) select 'noop', 'k', now() - n * interval '1 s'"
        " from generate_series(1, 300) n order by n % 7, n"
    )
    overlapping_ticks(settings, lambda: statuses(conn) == {"done": 300})
    in_order = conn.execute("select id from tick.jobs order by run_at, id").fetchall()
    assert [(run.id,) for run in record.of_key("k")] == in_order
    record.check_that_none_overlap()


def test_producers_in_long_transactions_that_commit_late_or_not_at_all(conn, url, settings, empty_registry):
    record = Record()
    record.handler()
    start = threading.Barrier(11)

    def hold(number: int) -> None:
        with psycopg.connect(url) as connection:
            keyed(connection, "k", payload=f'{{"producer": {number}, "number": 0}}')
            start.wait(30)
            wait_until(lambda: len(record.runs) >= 10 + 3 * number, 60)
            connection.rollback() if number % 2 else connection.commit()

    for _ in range(60):
        keyed(conn)
    with ThreadPoolExecutor(10) as pool:
        producers = [pool.submit(hold, number) for number in range(10)]
        start.wait(30)
        overlapping_ticks(
            settings, lambda: all(p.done() for p in producers) and statuses(conn) == {"done": 65}, ticks=4
        )
        for each in producers:
            each.result()
    assert len(record.runs) == 65
    record.check_that_none_overlap()


# Any sequence of what can happen

KEYS = st.sampled_from(["a", "b", "c"])
MINUTES = st.integers(-5, 5)
PICK = st.integers(0, 1000)


class Line(RuleBasedStateMachine):
    """Jobs of a few keys, to which anything happens; what a claim takes is compared with the rule."""

    conn: psycopg.Connection

    def __init__(self) -> None:
        super().__init__()
        self.hand = Hand(self.conn)
        self.conn.execute("truncate tick.jobs restart identity")
        self.conn.execute("select set_config('test.passed', '0', false)")
        self.running: list[Job] = []

    def ids(self, *status: str) -> list[int]:
        rows = self.conn.execute(
            "select id from tick.jobs where type = 'noop' and status = any(%s) order by id", [list(status)]
        )
        return [id for (id,) in rows]

    def shift(self, minutes: int) -> str:
        return f"tick.now() + interval '{minutes} minutes'"

    @rule(key=KEYS, minutes=MINUTES, strict=st.booleans(), count=st.integers(1, 3))
    def enqueue(self, key: str, minutes: int, strict: bool, count: int) -> None:
        order = "strict" if strict else "loose"
        self.conn.execute(
            f"select tick.enqueue('noop', key => %s, run_at => {self.shift(minutes)}, key_order => %s)"
            " from generate_series(1, %s)",
            [key, order, count],
        )

    def take(self, name: str, suspects: bool, limit: int) -> None:
        firsts = self.conn.execute(FIRST).fetchall()
        expected = {id for id, suspect, due in firsts if due and suspect == suspects}
        claimed = self.hand.claim(name, limit)
        assert {job.id for job in claimed} <= expected, (claimed, expected)
        assert len(claimed) == min(limit, len(expected), 1 if suspects else limit), (claimed, expected)
        self.running += claimed

    @rule(limit=st.sampled_from([1, 100]))
    def claim(self, limit: int) -> None:
        self.take("claim", suspects=False, limit=limit)

    @rule()
    def claim_suspect(self) -> None:
        self.take("claim_suspect", suspects=True, limit=100)

    @precondition(lambda self: self.running)
    @rule(
        pick=PICK,
        outcome=st.sampled_from([*LEAVES.values(), *KEEPS.values(), Retried(0.0, OOPS), Snoozed(None, 120.0)]),
    )
    def settle(self, pick: int, outcome: Outcome) -> None:
        self.hand.settle(self.running.pop(pick % len(self.running)), outcome)

    @precondition(lambda self: self.running)
    @rule(pick=PICK)
    def lose(self, pick: int) -> None:
        lost = self.running.pop(pick % len(self.running))
        self.conn.execute("update tick.jobs set lease_expires_at = tick.now() where id = %s", [lost.id])
        self.hand.reclaim()

    @rule(
        pick=PICK,
        name=st.sampled_from(["cancel", "run_now", "delete", "another key", "another time"]),
        key=KEYS,
        minutes=MINUTES,
    )
    def meddle(self, pick: int, name: str, key: str, minutes: int) -> None:
        if not (pending := self.ids("pending")):
            return
        id = pending[pick % len(pending)]
        match name:
            case "delete":
                self.conn.execute("delete from tick.jobs where id = %s", [id])
            case "another key":
                self.conn.execute("update tick.jobs set key = %s where id = %s", [key, id])
            case "another time":
                self.conn.execute(f"update tick.jobs set run_at = {self.shift(minutes)} where id = %s", [id])
            case _:
                self.hand.run(name, id=id, ids=[id])

    @rule(pick=PICK)
    def replay(self, pick: int) -> None:
        if ended := self.ids("dead", "cancelled"):
            id = ended[pick % len(ended)]
            self.hand.run("replay", id=id, ids=[id])

    @rule(minutes=st.integers(1, 6))
    def time_passes(self, minutes: int) -> None:
        self.conn.execute(
            "select set_config('test.passed', (current_setting('test.passed')::int + %s)::text, false)", [minutes]
        )

    @invariant()
    def no_key_is_stuck(self) -> None:
        assert self.hand.stuck() == []

    @invariant()
    def none_waits_twice(self) -> None:
        running = self.conn.execute("select key from tick.jobs where status = 'running'").fetchall()
        assert len(set(running)) == len(running) == len(self.running)

    def teardown(self) -> None:
        """Whatever has happened, everything can be claimed in the end."""
        for each in self.running:
            self.hand.settle(each, Done())
        self.conn.execute("select set_config('test.passed', '10000000', false)")
        for _ in self.ids("pending"):
            for name in ("claim", "claim_suspect"):
                for each in self.hand.claim(name):
                    self.hand.settle(each, Done())
        assert self.ids("pending") == []


def test_whatever_happens_no_key_is_stuck_and_its_jobs_run_in_their_order(conn):
    conn.execute(
        "create or replace function tick.now() returns timestamptz language sql stable parallel safe as"
        " $$ select pg_catalog.now() + current_setting('test.passed')::int * interval '1 minute' $$"
    )
    Line.conn = conn
    run_state_machine_as_test(
        Line,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
