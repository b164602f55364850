"""Chains and groups: what waits for a job or a group, and what happens to it however that ends."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.types.json import Jsonb

import tick as public
from tests.factories import NEVER, job, move_clock, statuses, tick, wait_until
from tick import database, processor, queue
from tick.errors import InvalidPayload
from tick.jobs import Dead, Done, Failure, Job, Outcome
from tick.queue import Queue, Wanted, statements

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Run(NamedTuple):
    """What one run of the handler was told."""

    name: str
    parent: dict[str, Any] | None
    members: list[dict[str, Any]]
    trace: str | None


class Runs(list[Run]):
    def names(self) -> list[str]:
        return [run.name for run in self]


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def work(empty_registry, runs):
    """A handler that does as its payload says."""

    @public.job(max_attempts=2)
    async def work(ctx: public.Context, name: str = "", how: str = "done", size: int = 0) -> dict[str, Any]:
        runs.append(Run(name, ctx.parent, ctx.members, ctx.traceparent))
        if how == "permanent":
            raise public.Permanent(f"{name} is broken")
        if how == "once" and ctx.attempt == 1:
            raise public.Retry("not yet", after=60)
        return {"name": name, "filler": "x" * size}

    return work


def drain(settings) -> int:
    """Tick until nothing is left to do; the ticks that took."""
    for ticks in range(1, 50):
        if not tick(settings).claimed:
            return ticks
    raise AssertionError("it does not end")


def change(conn, name: str, id: int) -> list[Any]:
    """A person cancels or replays a job."""
    return conn.execute(statements()[name], {"id": id, "ids": [id]}).fetchall()


def all_jobs(conn) -> list[tuple[str, str, str | None]]:
    """Every job by its name, in order: its status, and what it waits for."""
    rows = conn.execute("select payload ->> 'name', status, waits_for from tick.jobs order by id")
    return rows.fetchall()


def enqueue_chain(conn, work, *names: str, **first: Any) -> int:
    """A chain of jobs, each after the one before; the id of the first."""
    *before, last = names
    chain = work.of(name=last)
    for name in reversed(before[1:]):
        chain = work.using(then=chain).of(name=name)
    return work.using(then=chain).enqueue(conn, name=names[0], **first)


def lose(conn, id: int, times: int) -> None:
    """A process takes the job and is killed, so often; each time the next tick finds that its lease has run out."""
    for _ in range(times):
        conn.execute(
            "update tick.jobs set status = 'running', attempt = attempt + 1, tick_id = %s,"
            " lease_expires_at = tick.now() where id = %s and status = 'pending'",
            [NEVER, id],
        )
        reclaim = {"message": queue.LOST, "most_losses": queue.MOST_LOSSES, "keep": 5, "limit": 500}
        conn.execute(statements()["reclaim"], reclaim)


def with_queue(url: str, use):
    """Run `use(queue)` with a queue of its own connection."""

    async def main():
        q = Queue(await database.open_connection(url), lambda: database.open_connection(url))
        try:
            return await use(q)
        finally:
            q.leave()

    return asyncio.run(main())


def claim(url: str, limit: int) -> list[Job]:
    return with_queue(url, lambda q: q.exchange((), Wanted(limit, ["work"], 50, 60))).jobs


def settle(url: str, claimed: Job, outcome: Outcome) -> None:
    settle_each(url, [claimed], outcome)


def settle_each(url: str, claimed: list[Job], outcome: Outcome) -> None:
    """Each in a transaction of its own."""

    async def use(q: Queue):
        for each in claimed:
            await q.exchange([(each, outcome)])

    with_queue(url, use)


def change_elsewhere(url: str, name: str, id: int) -> None:
    with psycopg.connect(url) as other:
        assert change(other, name, id)


def at_once(*calls) -> list[Any]:
    """All of them at the same moment, as near as threads come."""
    barrier = threading.Barrier(len(calls))

    def call(function):
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call, function) for function in calls]]


def end(id: int, status: str = "done"):
    """What ends a running job, as a transaction of its own."""
    return lambda connection: connection.execute(
        "update tick.jobs set status = %s, finished_at = tick.now(), lease_expires_at = null where id = %s",
        [status, id],
    )


def overlap(url: str, first, second) -> None:
    """The second transaction begins while the first is not committed, and gets as far as that lets it."""

    def run_second():
        with psycopg.connect(url) as connection:
            second(connection)

    def is_stuck() -> bool:
        waiting = (
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        with psycopg.connect(url) as third:
            return third.execute(waiting).fetchone() == (1,)

    with psycopg.connect(url) as connection, ThreadPoolExecutor(1) as pool:
        first(connection)
        other = pool.submit(run_second)
        wait_until(lambda: other.done() or is_stuck())
        connection.commit()
        other.result()


class TestChains:
    def test_a_child_waits_for_its_parent_and_is_told_how_it_ended(self, conn, settings, work, runs):
        id = enqueue_chain(conn, work, "parent", "child")
        assert all_jobs(conn) == [("parent", "pending", None), ("child", "pending", "job")]
        drain(settings)
        assert runs.names() == ["parent", "child"]
        parent, child = runs
        assert parent.parent is None
        assert datetime.fromisoformat(child.parent.pop("finished_at")) == job(conn, id)["finished_at"]
        assert child.parent == {
            "id": id,
            "type": "work",
            "status": "done",
            "attempt": 1,
            "result": {"name": "parent", "filler": ""},
        }

    def test_a_chain_of_five_runs_in_order_and_in_one_tick(self, conn, settings, work, runs):
        enqueue_chain(conn, work, *"abcde")
        assert tick(settings).done == 5
        assert runs.names() == list("abcde")
        assert [run.parent and run.parent["result"]["name"] for run in runs] == [None, *"abcd"]
        assert statuses(conn) == {"done": 5}

    def test_a_job_can_have_several_children(self, conn, settings, work, runs):
        work.using(then=[work.of(name="a"), work.of(name="b")]).enqueue(conn, name="parent")
        drain(settings)
        assert runs.names() == ["parent", "a", "b"]

    def test_the_same_chain_from_sql(self, conn, settings, work, runs):
        conn.execute("""
            select tick.enqueue('work', '{"name": "a"}', "then" =>
                '{"type": "work", "payload": {"name": "b"}, "priority": 3, "key_order": "strict", "delay": 0,
                  "then": [{"type": "work", "payload": {"name": "c"}}, {"type": "work", "payload": {"name": "d"}}]}')""")
        assert conn.execute("select priority, strict_key from tick.jobs where id = 2").fetchone() == (3, True)
        drain(settings)
        assert runs.names() == ["a", "b", "c", "d"]
        assert runs[3].parent["result"]["name"] == "b"

    @pytest.mark.parametrize("none", ["null", "[]"])
    def test_nothing_may_come_after_a_job(self, conn, settings, work, none):
        conn.execute(f"""select tick.enqueue_many('[{{"type": "work", "then": {none}}}]')""")
        assert conn.execute("select count(*) from tick.jobs").fetchone() == (1,)
        drain(settings)
        assert statuses(conn) == {"done": 1}

    @pytest.mark.parametrize(
        ("then", "message"),
        [
            ({"type": "work", "paylod": {}}, "a job has no option 'paylod'"),
            ([{"type": "work", "then": {"type": "work", "parent_id": 1}}], "a job has no option 'parent_id'"),
            ({"type": "work", "key_order": "striped"}, 'key_order is "striped", and can be strict or loose'),
            ([1], "jobs is not an array of objects"),
        ],
    )
    def test_what_comes_after_a_job_is_checked_as_the_job_is(self, conn, then, message):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=message.replace("[", r"\[")):
            conn.execute("""select tick.enqueue('work', "then" => %s)""", [Jsonb(then)])
        assert statuses(conn) == {}

    def test_then_is_a_job_to_be_and_nothing_else(self, conn, work):
        with pytest.raises(InvalidPayload, match="then='work' is not a job to be, or a list of them: write handler.of"):
            work.using(then="work").enqueue(conn)

    def test_it_waits_while_its_parent_is_retried(self, conn, settings, work, runs):
        id = enqueue_chain(conn, work, "parent", "child", how="once")
        drain(settings)
        assert job(conn, id)["failures"] == 1
        assert all_jobs(conn) == [("parent", "pending", None), ("child", "pending", "job")]
        move_clock(conn, "+61 s")
        drain(settings)
        assert runs.names() == ["parent", "parent", "child"]
        assert runs[2].parent["attempt"] == 2

    def test_it_waits_while_its_parent_is_dead_and_runs_when_that_is_replayed_and_done(
        self, conn, settings, work, runs
    ):
        id = enqueue_chain(conn, work, "parent", "child", "grandchild", how="permanent")
        drain(settings)
        assert all_jobs(conn) == [
            ("parent", "dead", None), ("child", "pending", "job"), ("grandchild", "pending", "job"),
        ]  # fmt: skip
        conn.execute('update tick.jobs set payload = \'{"name": "parent"}\' where id = %s', [id])
        assert change(conn, "replay", id)
        drain(settings)
        assert runs.names() == ["parent", "parent", "child", "grandchild"]
        assert runs[2].parent["status"] == "done"

    def test_a_lost_parent_is_waited_for_until_the_third_loss_and_after(self, conn, settings, work, runs):
        id = enqueue_chain(conn, work, "parent", "child")
        lose(conn, id, times=3)
        assert all_jobs(conn) == [("parent", "dead", None), ("child", "pending", "job")]
        change(conn, "replay", id)
        drain(settings)
        assert runs.names() == ["parent", "child"]

    def test_the_cancellation_of_a_parent_cancels_what_waits_for_it_and_its_replay_brings_that_back(
        self, conn, settings, work, runs
    ):
        id = enqueue_chain(conn, work, "parent", "child", "grandchild")
        change(conn, "cancel", id)
        assert statuses(conn) == {"cancelled": 3}
        assert drain(settings) == 1
        change(conn, "replay", id)
        assert all_jobs(conn) == [
            ("parent", "pending", None), ("child", "pending", "job"), ("grandchild", "pending", "job"),
        ]  # fmt: skip
        drain(settings)
        assert runs.names() == ["parent", "child", "grandchild"]

    def test_what_a_person_has_cancelled_does_not_come_back_with_its_parent(self, conn, settings, work, runs):
        id = enqueue_chain(conn, work, "parent", "child", "grandchild")
        change(conn, "cancel", id + 1)
        assert statuses(conn) == {"pending": 1, "cancelled": 2}
        change(conn, "cancel", id)
        change(conn, "replay", id)
        drain(settings)
        assert statuses(conn) == {"done": 1, "cancelled": 2}
        change(conn, "replay", id + 1)
        drain(settings)
        assert runs.names() == ["parent", "child", "grandchild"]

    def test_the_cancellation_of_a_running_parent_cancels_its_children(self, conn, settings, work, monkeypatch):
        @public.job
        async def cancelled_meanwhile(ctx: public.Context) -> None:
            await asyncio.to_thread(change_elsewhere, settings.database_url, "cancel", ctx.id)
            await asyncio.sleep(60)

        monkeypatch.setattr(processor, "PULSE", 0.05)
        cancelled_meanwhile.using(then=work.of(name="child")).enqueue(conn)
        tick(settings)
        assert statuses(conn) == {"cancelled": 2}

    def test_a_child_that_is_replayed_waits_for_a_parent_that_can_still_be_done(self, conn, settings, work, runs):
        id = enqueue_chain(conn, work, "parent", "child")
        change(conn, "cancel", id + 1)
        change(conn, "replay", id + 1)
        assert all_jobs(conn)[1] == ("child", "pending", "job")
        drain(settings)
        assert runs[1].parent["status"] == "done"

    def test_a_child_that_is_replayed_after_its_parent_was_done_is_told_of_it(self, conn, settings, work, runs):
        id = enqueue_chain(conn, work, "parent", "child")
        change(conn, "cancel", id + 1)
        drain(settings)
        assert statuses(conn) == {"done": 1, "cancelled": 1}
        change(conn, "replay", id + 1)
        drain(settings)
        assert runs[1].parent["result"]["name"] == "parent"

    def test_a_child_that_is_replayed_by_itself_runs_without_its_cancelled_parent(self, conn, settings, work, runs):
        id = enqueue_chain(conn, work, "parent", "child")
        change(conn, "cancel", id)
        change(conn, "replay", id + 1)
        drain(settings)
        assert runs.names() == ["child"]
        assert runs[0].parent["status"] == "cancelled"
        change(conn, "replay", id)
        drain(settings)
        assert runs.names() == ["child", "parent"]

    def test_a_child_whose_parent_is_gone_runs_when_it_is_replayed(self, conn, settings, work, runs):
        id = enqueue_chain(conn, work, "parent", "child")
        change(conn, "cancel", id)
        conn.execute("delete from tick.jobs where id = %s", [id])
        change(conn, "replay", id + 1)
        drain(settings)
        assert [(run.name, run.parent) for run in runs] == [("child", None)]

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_child_that_is_replayed_while_its_parent_ends_is_let_go(self, conn, url, work, order):
        """Neither may think that the other does it: the child would wait for ever."""
        id = enqueue_chain(conn, work, "parent", "child")
        change(conn, "cancel", id + 1)
        claim(url, 1)
        overlap(url, *[end(id), lambda connection: change(connection, "replay", id + 1)][::order])
        assert all_jobs(conn)[1] == ("child", "pending", None)
        assert job(conn, id + 1)["inputs"]["parent"]["status"] == "done"

    def test_a_child_keeps_its_own_time(self, conn, settings, work, runs):
        work.using(then=work.using(delay="1h").of(name="child")).enqueue(conn, name="parent")
        drain(settings)
        assert runs.names() == ["parent"]
        assert all_jobs(conn)[1] == ("child", "pending", None)
        move_clock(conn, "+61 minutes")
        drain(settings)
        assert runs.names() == ["parent", "child"]

    def test_a_child_that_was_due_long_ago_is_due_when_its_parent_is_done(self, conn, settings, work):
        enqueue_chain(conn, work, "parent", "child")
        move_clock(conn, "+1 hour")
        tick(settings)
        assert job(conn, 2)["run_at"] == job(conn, 1)["finished_at"]

    def test_a_child_with_a_key_runs_after_the_one_that_has_it(self, conn, settings, work, runs):
        work.using(then=work.using(key="k").of(name="child")).enqueue(conn, name="parent")
        work.using(key="k").enqueue(conn, name="other")
        drain(settings)
        assert sorted(runs.names()) == ["child", "other", "parent"]
        assert statuses(conn) == {"done": 3}

    def test_parent_and_child_may_share_a_key(self, conn, settings, work, runs):
        work.using(key="k", then=work.using(key="k").of(name="child")).enqueue(conn, name="parent")
        drain(settings)
        assert runs.names() == ["parent", "child"]

    def test_a_child_calls_back_for_itself(self, conn, settings, work):
        work.using(then=work.using(callback_url="https://example.com/").of(name="child")).enqueue(conn, name="parent")
        drain(settings)
        ((payload,),) = conn.execute("select payload from tick.jobs where type = 'tick.callback'").fetchall()
        assert (payload["data"]["id"], payload["type"]) == (2, "job.done")

    def test_the_second_enqueue_with_an_idempotency_key_adds_no_children(self, conn, settings, work, runs):
        keyed = work.using(idempotency_key="once", then=work.of(name="child"))
        first, second = keyed.enqueue(conn, name="parent"), keyed.enqueue(conn, name="parent")
        assert (first, first.created, second.created) == (second, True, False)
        drain(settings)
        assert runs.names() == ["parent", "child"]
        assert not keyed.enqueue(conn, name="parent").created
        assert drain(settings) == 1

    def test_a_child_whose_idempotency_key_is_taken_stays_what_it_is(self, conn, settings, work, runs):
        child = work.using(idempotency_key="child")
        child.enqueue(conn, name="first")
        work.using(then=child.of(name="second")).enqueue(conn, name="parent")
        drain(settings)
        assert runs.names() == ["first", "parent"]

    def test_a_chain_that_is_rolled_back_was_never_there(self, conn, work):
        with conn.transaction(force_rollback=True):
            enqueue_chain(conn, work, "parent", "child")
        assert statuses(conn) == {}

    def test_the_arguments_of_a_child_are_checked_when_it_is_made(self, work):
        with pytest.raises(InvalidPayload, match="nmae"):
            work.of(nmae="child")

    def test_a_result_above_64_kib_is_omitted_for_the_child(self, conn, settings, work, runs):
        work.using(then=work.of(name="child")).enqueue(conn, name="parent")
        conn.execute(
            "update tick.jobs set status = 'done', finished_at = now(), result = to_jsonb(repeat('x', 70000)) where id = 1"
        )
        drain(settings)
        (child,) = runs
        assert child.parent["result_omitted"]
        assert "result" not in child.parent

    def test_children_belong_to_the_trace_of_their_parent(self, conn, settings, work, runs):
        conn.execute(
            """select tick.enqueue('work', '{"name": "a"}', traceparent => %s,
                "then" => '{"type": "work", "payload": {"name": "b"}, "then": {"type": "work", "payload": {"name": "c"}}}')""",
            [TRACE],
        )
        drain(settings)
        assert [run.trace for run in runs] == [TRACE] * 3


class TestGroups:
    def group(self, conn, work, *members: Any, **final: Any) -> list[int]:
        return public.group(conn, list(members), then=work.using(**final).of(name="final"))

    def test_the_last_job_runs_when_the_others_have_ended_and_is_told_how(self, conn, settings, work, runs):
        final, a, b, c = self.group(
            conn, work, work.of(name="a"), work.of(name="b", how="permanent"), work.using(delay="1h").of(name="c")
        )
        assert all_jobs(conn)[0] == ("final", "pending", "group")
        drain(settings)
        assert sorted(runs.names()) == ["a", "b"]
        change(conn, "cancel", c)
        drain(settings)
        assert runs[-1].name == "final"
        assert runs[-1].members == [
            {"id": a, "type": "work", "status": "done", "result": {"name": "a", "filler": ""}},
            {"id": b, "type": "work", "status": "dead", "error": "Permanent: b is broken"},
            {"id": c, "type": "work", "status": "cancelled"},
        ]
        assert final == 1

    def test_two_hundred_fan_out_and_one_fans_in_in_one_tick(self, conn, settings, work, runs):
        ids = self.group(conn, work, *(work.of(name=str(n)) for n in range(200)))
        assert tick(settings).done == 201
        final = runs[-1]
        assert [member["id"] for member in final.members] == ids[1:]
        assert [member["result"]["name"] for member in final.members] == [str(n) for n in range(200)]
        assert runs.names().count("final") == 1

    def test_the_results_are_there_as_long_as_they_fit_256_kib(self, conn, settings, work, runs):
        self.group(conn, work, *(work.of(name=str(n), size=60_000) for n in range(6)))
        drain(settings)
        members = runs[-1].members
        assert ["result" in member for member in members] == [True] * 4 + [False] * 2
        assert [member.get("result_omitted", False) for member in members] == [False] * 4 + [True] * 2
        assert {member["status"] for member in members} == {"done"}

    def test_the_last_job_of_an_empty_group_runs_at_once(self, conn, settings, work, runs):
        assert len(self.group(conn, work)) == 1
        assert all_jobs(conn) == [("final", "pending", None)]
        drain(settings)
        assert runs[0].members == []

    def test_a_chain_goes_on_after_a_group(self, conn, settings, work, runs):
        self.group(conn, work, work.of(name="a"), work.of(name="b"), then=work.of(name="after"))
        drain(settings)
        assert runs.names()[2:] == ["final", "after"]
        assert runs[3].parent["type"] == "work"

    def test_a_group_can_come_after_a_job_that_makes_it(self, conn, settings, work, runs):
        @public.job
        def fan_out() -> None:
            with psycopg.connect(settings.database_url) as own:
                public.group(own, [work.of(name="a"), work.of(name="b")], then=work.of(name="final"))

        work.using(then=fan_out.of()).enqueue(conn, name="before")
        drain(settings)
        assert runs.names()[0] == "before"
        assert runs.names()[-1] == "final"
        assert statuses(conn) == {"done": 5}

    def test_what_comes_after_a_member_is_no_member(self, conn, settings, work, runs):
        self.group(conn, work, work.using(then=work.using(delay="1h").of(name="after a")).of(name="a"))
        drain(settings)
        assert runs.names() == ["a", "final"]

    def test_a_member_is_waited_for_while_it_is_retried(self, conn, settings, work, runs):
        final, a, _ = self.group(conn, work, work.of(name="a", how="once"), work.of(name="b"))
        drain(settings)
        assert job(conn, a)["failures"] == 1
        assert (job(conn, final)["waits"], job(conn, final)["waits_for"]) == (1, "group")
        move_clock(conn, "+61 s")
        drain(settings)
        assert runs.names().count("final") == 1
        assert [member["status"] for member in runs[-1].members] == ["done", "done"]

    def test_a_member_lost_for_the_third_time_counts_as_dead(self, conn, settings, work, runs):
        final, lost = self.group(conn, work, work.of(name="lost"))
        lose(conn, lost, times=2)
        assert job(conn, lost)["status"] == "pending"
        assert job(conn, final)["waits_for"] == "group"
        lose(conn, lost, times=1)
        assert job(conn, final)["waits_for"] is None
        drain(settings)
        (member,) = runs[0].members
        assert member["status"] == "dead"
        assert member["error"].startswith("lost: the lease ran out")

    def test_a_member_that_is_replayed_before_the_others_have_ended_is_waited_for_again(
        self, conn, settings, work, runs
    ):
        final, a, b = self.group(conn, work, work.of(name="a", how="permanent"), work.using(delay="1h").of(name="b"))
        drain(settings)
        assert job(conn, final)["waits"] == 1
        conn.execute('update tick.jobs set payload = \'{"name": "a"}\' where id = %s', [a])
        change(conn, "replay", a)
        assert job(conn, final)["waits"] == 2
        change(conn, "cancel", b)
        assert job(conn, final)["waits_for"] == "group"
        drain(settings)
        assert [member["status"] for member in runs[-1].members] == ["done", "cancelled"]

    def test_a_member_that_is_replayed_after_the_end_does_not_run_the_last_job_again(self, conn, settings, work, runs):
        _, a = self.group(conn, work, work.of(name="a", how="permanent"))
        drain(settings)
        change(conn, "replay", a)
        drain(settings)
        assert runs.names() == ["a", "final", "a"]

    def test_the_last_job_can_fail_and_be_replayed_with_what_it_was_told(self, conn, settings, work, runs):
        public.group(conn, [work.of(name="a")], then=work.of(name="final", how="permanent"))
        drain(settings)
        change(conn, "replay", 1)
        drain(settings)
        assert runs.names() == ["a", "final", "final"]
        assert runs[1].members == runs[2].members != []

    def test_the_cancellation_of_the_last_job_cancels_the_members_that_are_pending(self, conn, settings, work):
        final, a, b = self.group(conn, work, work.of(name="a"), work.using(delay="1h").of(name="b"))
        drain(settings)
        change(conn, "cancel", final)
        assert [status for _, status, _ in all_jobs(conn)] == ["cancelled", "done", "cancelled"]

    def test_the_replay_of_the_last_job_brings_its_group_back(self, conn, settings, work, runs):
        final, a, b, c = self.group(conn, work, work.of(name="a"), work.of(name="b"), work.of(name="c"))
        change(conn, "cancel", b)
        (running,) = claim(settings.database_url, 1)
        change(conn, "cancel", final)
        assert statuses(conn) == {"cancelled": 3, "running": 1}
        change(conn, "replay", final)
        assert all_jobs(conn) == [
            ("final", "pending", "group"), ("a", "running", None), ("b", "cancelled", None), ("c", "pending", None),
        ]  # fmt: skip
        settle(settings.database_url, running, Done())
        drain(settings)
        assert runs.names() == ["c", "final"]
        assert [member["status"] for member in runs[-1].members] == ["done", "cancelled", "done"]

    def test_the_replay_of_the_last_job_runs_it_when_its_members_have_ended_meanwhile(self, conn, settings, work, runs):
        final, _ = self.group(conn, work, work.of(name="a"))
        (running,) = claim(settings.database_url, 1)
        change(conn, "cancel", final)
        settle(settings.database_url, running, Done())
        change(conn, "replay", final)
        drain(settings)
        assert [(run.name, run.members[0]["status"]) for run in runs] == [("final", "done")]

    def test_what_was_cancelled_with_the_last_job_comes_back_though_the_others_have_ended(
        self, conn, settings, work, runs
    ):
        final, *_ = self.group(conn, work, work.of(name="a"), work.of(name="b"))
        (running,) = claim(settings.database_url, 1)
        change(conn, "cancel", final)
        settle(settings.database_url, running, Done())
        change(conn, "replay", final)
        assert all_jobs(conn)[::2] == [("final", "pending", "group"), ("b", "pending", None)]
        drain(settings)
        assert [member["status"] for member in runs[-1].members] == ["done", "done"]

    def test_a_group_from_sql(self, conn, settings, work, runs):
        ids = conn.execute(
            """select tick.enqueue_group('[{"type": "work", "payload": {"name": "a"}, "key_order": "strict"},
                {"type": "work", "payload": {"name": "b"}}]', '{"type": "work", "payload": {"name": "final"}}')"""
        ).fetchall()
        assert ids == [(1,), (2,), (3,)]
        assert job(conn, 2)["strict_key"]
        drain(settings)
        assert runs.names()[-1] == "final"

    @pytest.mark.parametrize(
        ("jobs", "finally_", "message"),
        [
            ('[{"type": "a", "waits": 1}]', '{"type": "b"}', "a job has no option 'waits'"),
            ("[]", '{"type": "b", "group_id": 1}', "a job has no option 'group_id'"),
            ('{"type": "a"}', '{"type": "b"}', "jobs is not an array of objects"),
            (
                '[{"type": "a", "idempotency_key": "k"}]',
                '{"type": "b"}',
                "cannot have an idempotency key or a throttle",
            ),
            ('[{"type": "a", "throttle": 60}]', '{"type": "b"}', "cannot have an idempotency key or a throttle"),
        ],
    )
    def test_a_group_that_cannot_be_is_refused(self, conn, jobs, finally_, message):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
            conn.execute("select tick.enqueue_group(%s, %s)", [jobs, finally_])
        assert statuses(conn) == {}

    def test_a_group_is_put_in_once_when_its_last_job_has_an_idempotency_key(self, conn, work):
        self.group(conn, work, work.of(name="a"), idempotency_key="nightly")
        with pytest.raises(psycopg.errors.UniqueViolation, match="the job at the end of the group is there already"):
            self.group(conn, work, work.of(name="a"), idempotency_key="nightly")
        assert statuses(conn) == {"pending": 2}

    async def test_a_group_on_an_async_connection(self, url, conn, work):
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            ids = await public.group(connection, [work.of(name="a")], then=work.of(name="final"))
        assert [int(id) for id in ids] == [1, 2]
        assert all(id.created for id in ids)


class TestTwoAtOnce:
    """The count of a group is exact, and its last job is let go exactly once."""

    @pytest.fixture
    def group(self, conn, url, work) -> list[int]:
        """A last job and two members that run."""
        ids = public.group(conn, [work.of(), work.of()], then=work.of(name="final"))
        assert len(claim(url, 2)) == 2
        return ids

    def test_the_last_two_members_end_one_within_the_other(self, conn, url, group):
        final, a, b = group
        overlap(url, end(a), end(b, "dead"))
        row = job(conn, final)
        assert (row["waits"], row["waits_for"]) == (0, None)
        assert [member["status"] for member in row["inputs"]["jobs"]] == ["done", "dead"]

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_member_is_replayed_while_the_last_one_ends(self, conn, url, group, order):
        final, a, b = group
        end(a, "dead")(conn)
        overlap(url, *[end(b), lambda connection: change(connection, "replay", a)][::order])
        # Replayed in time it is waited for; too late, it is not.
        assert (job(conn, final)["waits_for"], job(conn, final)["waits"]) == [None, (None, 0), ("group", 1)][order]

    @pytest.mark.parametrize("order", [1, -1])
    def test_the_last_job_is_replayed_while_the_last_member_ends(self, conn, url, group, order):
        final, a, b = group
        change(conn, "cancel", final)
        end(a)(conn)
        overlap(url, *[end(b), lambda connection: change(connection, "replay", final)][::order])
        row = job(conn, final)
        assert (row["status"], row["waits_for"], row["waits"]) == ("pending", None, 0)
        assert [member["status"] for member in row["inputs"]["jobs"]] == ["done", "done"]

    @pytest.mark.parametrize("order", [1, -1])
    def test_the_last_job_is_cancelled_while_the_last_member_ends(self, conn, url, group, order):
        final, a, b = group
        end(a)(conn)
        overlap(url, *[end(b), lambda connection: change(connection, "cancel", final)][::order])
        assert [status for _, status, _ in all_jobs(conn)] == ["cancelled", "done", "done"]
        assert claim(url, 5) == []

    def test_the_last_two_members_end_at_the_same_moment_a_hundred_times(self, conn, url, work):
        for _ in range(10):
            finals = [public.group(conn, [work.of(), work.of()], then=work.of(name="final"))[0] for _ in range(10)]
            claimed = claim(url, 20)
            at_once(
                lambda: settle_each(url, claimed[::2], Done(b"1")),  # noqa: B023
                lambda: settle_each(url, claimed[1::2], Dead(Failure("no"))),  # noqa: B023
            )
            assert sorted(freed.id for freed in claim(url, 20)) == finals
            for final in finals:
                assert [member["status"] for member in job(conn, final)["inputs"]["jobs"]] == ["done", "dead"]
            conn.execute("truncate tick.jobs restart identity")

    def test_three_ticks_end_the_members_of_many_groups(self, conn, settings, work, runs):
        for n in range(20):
            public.group(conn, [work.of(name=str(n)) for _ in range(10)], then=work.of(name=f"final {n}"))

        def ticks():
            # Each in its own loop, as three processes would be.
            return sum(tick(settings, concurrency=3, batch_size=4).done for _ in range(6))

        at_once(ticks, ticks, ticks)
        drain(settings)
        assert statuses(conn) == {"done": 220}
        finals = [run for run in runs if run.name.startswith("final")]
        assert sorted(run.name for run in finals) == sorted(f"final {n}" for n in range(20))
        assert {len(run.members) for run in finals} == {10}


class TestDeleted:
    def test_what_was_to_follow_a_deleted_job_is_cancelled_and_says_why(self, conn):
        conn.execute("""select tick.enqueue('a', "then" => '{"type": "b", "then": {"type": "c"}}')""")
        conn.execute("delete from tick.jobs where type = 'a'")
        assert statuses(conn) == {"cancelled": 2}
        assert "was deleted" in conn.execute("select last_error from tick.jobs where type = 'b'").fetchone()[0]

    def test_a_deleted_job_of_a_group_is_not_waited_for(self, conn):
        conn.execute("""select tick.enqueue_group('[{"type": "a"}, {"type": "b"}]', '{"type": "last"}')""")
        conn.execute("delete from tick.jobs where type = 'a'")
        assert conn.execute("select waits, waits_for from tick.jobs where type = 'last'").fetchone() == (1, "group")
        conn.execute("delete from tick.jobs where type = 'b'")
        assert conn.execute("select waits, waits_for from tick.jobs where type = 'last'").fetchone() == (0, None)

    def test_a_done_job_may_be_pruned(self, conn):
        conn.execute("""select tick.enqueue('a', "then" => '{"type": "b"}')""")
        conn.execute("update tick.jobs set status = 'done', finished_at = tick.now() where type = 'a'")
        conn.execute("delete from tick.jobs where type = 'a'")
        assert conn.execute("select status, waits_for from tick.jobs").fetchall() == [("pending", None)]


def test_the_guide_does_what_it_says(conn, url, settings, empty_registry, monkeypatch):
    guide = Path(__file__).parents[1] / "docs" / "chains.md"
    module = types.ModuleType("guide")
    module.DATABASE_URL = url
    monkeypatch.setitem(sys.modules, "guide", module)
    for language, code in re.findall(r"^```(python|sql)\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL):
        if language == "sql":
            conn.execute(code)
        else:
            exec(compile(code, str(guide), "exec"), module.__dict__)
    module.import_file.enqueue(conn, path="a.csv")
    drain(settings)
    rows = conn.execute("select type, result from tick.jobs where type in ('write_report', 'publish') order by id")
    assert rows.fetchall() == [
        ("write_report", "42 orders"), ("write_report", "42 orders"),
        ("publish", {"published": 199, "failed": 1}), ("publish", {"published": 2, "failed": 0}),
    ]  # fmt: skip
    # The callback is of a type that the handlers of this test leave alone.
    assert statuses(conn) == {"done": 212, "dead": 1, "pending": 1}
