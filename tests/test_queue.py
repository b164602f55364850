"""Every transition on a real Postgres: what it changes, and what it refuses to."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.factories import NEVER, a_job, job, jobs, statuses
from tick import database, queue
from tick.jobs import Cancelled, Dead, Done, Failure, NewJob, Released, Retried, Snoozed
from tick.queue import Queue, Statement, Wanted

OOPS = Failure("ValueError: no", "Traceback ...")


def wanting(
    limit: int = 100, *, types: tuple[str, ...] = ("noop",), alone: bool = False, remaining: float = 50.0
) -> Wanted:
    return Wanted(limit, list(types), remaining, remaining + 4, alone)


def with_queue(url: str, use):
    """Run `use(queue)` with a queue of its own connection."""

    async def main():
        q = Queue(await database.open_connection(url), lambda: database.open_connection(url))
        try:
            return await use(q)
        finally:
            q.leave()

    return asyncio.run(main())


def claim(url: str, **options):
    return with_queue(url, lambda q: _claimed(q, wanting(**options)))


async def _claimed(q: Queue, wanted: Wanted):
    return (await q.exchange((), wanted)).jobs


def settle(url: str, outcome, **options):
    """Claim one job and settle it with this outcome; the exchange."""

    async def use(q: Queue):
        (claimed,) = await _claimed(q, wanting(1, **options))
        return await q.exchange([(claimed, outcome)])

    return with_queue(url, use)


@pytest.mark.parametrize("name", queue.statements())
def test_every_statement_can_be_prepared(conn, name):
    numbered: dict[str, str] = {}

    def number(match):
        return numbered.setdefault(match[1], f"${len(numbered) + 1}")

    text = re.sub(r"%\((\w+)\)s", number, queue.statements()[name])
    uuids = [f"{'uuid' if n == 'tick' else 'unknown'}" for n in numbered]
    conn.execute(f"prepare p ({', '.join(uuids)}) as {text}" if numbered else f"prepare p as {text}")


def test_the_diagram_of_the_states_is_what_the_statements_say():
    text = Path(queue.__file__).with_name("queue.sql").read_text()
    named = dict(re.findall(r"^-- name: (\w+)(?:  \((.*)\))?$", text, flags=re.MULTILINE))
    edges = {edge for said in named.values() for edge in re.findall(r"(\w+) -> (\w+)", said)}
    assert edges == {
        ("nothing", "pending"), ("pending", "running"), ("pending", "cancelled"), ("running", "done"),
        ("running", "pending"), ("running", "dead"), ("running", "cancelled"), ("dead", "pending"),
        ("cancelled", "pending"),
    }  # fmt: skip
    diagram = text[: text.index("-- name: enqueue")]
    for name, said in named.items():
        assert "->" not in said or name in diagram, f"{name} is not in the diagram"


class TestClaim:
    def test_takes_the_highest_priority_first_then_the_oldest(self, conn, url):
        late = a_job(conn, run_at="-1 minute")
        early = a_job(conn, run_at="-1 hour")
        urgent = a_job(conn, priority=5)
        unhurried = a_job(conn, priority=-5, run_at="-1 day")
        assert [c.id for c in claim(url)] == [urgent, early, late, unhurried]

    def test_gives_a_lease_a_tick_and_a_higher_attempt(self, conn, url):
        id = a_job(conn, attempt=7)
        (claimed,) = claim(url)
        row = job(conn, id)
        assert (claimed.attempt, row["attempt"], row["status"]) == (8, 8, "running")
        assert row["lease_expires_at"] - row["started_at"] == timedelta(seconds=54)
        assert row["tick_id"]

    def test_leaves_what_is_not_due_not_known_or_too_long_for_the_time_left(self, conn, url):
        a_job(conn, run_at="+1 second")
        a_job(conn, "unknown")
        a_job(conn, timeout=timedelta(seconds=50))
        fits = a_job(conn, timeout=timedelta(seconds=49))
        assert [c.id for c in claim(url)] == [fits]

    def test_never_takes_more_than_the_limit_over_all_priorities(self, conn, url):
        for priority in (3, 2, 1):
            for _ in range(4):
                a_job(conn, priority=priority)
        assert [c.priority for c in claim(url, limit=6)] == [3, 3, 3, 3, 2, 2]

    def test_takes_one_job_of_a_key_the_first_that_is_due(self, conn, url):
        first = a_job(conn, key="a", run_at="-2 minutes")
        a_job(conn, key="a", run_at="-1 minute")
        other = a_job(conn, key="b")
        assert {c.id for c in claim(url)} == {first, other}
        assert claim(url) == []

    def test_a_key_that_waits_for_a_retry_does_not_block_the_next(self, conn, url):
        a_job(conn, key="a", run_at="+1 hour", failures=1)
        ready = a_job(conn, key="a")
        assert [c.id for c in claim(url)] == [ready]

    def test_two_running_jobs_of_a_key_are_refused_by_the_table(self, conn):
        a_job(conn, status="running", key="a")
        with pytest.raises(psycopg.errors.UniqueViolation):
            a_job(conn, status="running", key="a")

    def test_skips_what_another_transaction_holds(self, conn, url):
        held, free = a_job(conn), a_job(conn)
        with conn.transaction():
            conn.execute("select from tick.jobs where id = %s for update", [held])
            assert [c.id for c in claim(url)] == [free]

    def test_a_suspect_is_claimed_by_itself_and_only_when_nothing_is_in_flight(self, conn, url):
        suspect = a_job(conn, losses=1)
        ordinary = a_job(conn)
        assert [c.id for c in claim(url, alone=False)] == [ordinary]
        a_job(conn)
        assert [c.id for c in claim(url, alone=True)] == [suspect]

    def test_a_suspect_that_another_tick_runs_does_not_stop_the_rest(self, conn, url):
        a_job(conn, losses=1, status="running")
        ordinary = a_job(conn)
        assert [c.id for c in claim(url, alone=True)] == [ordinary]

    def test_uses_its_index_and_not_the_table(self, conn, url):
        jobs(conn, count=3000)
        conn.execute(
            "insert into tick.jobs (type, status, finished_at) select 'noop', 'done', now() from generate_series(1, 3000)"
        )
        conn.execute("analyze tick.jobs")
        text = queue.statements()["claim"]
        params = {
            "tick": NEVER,
            "types": ["noop"],
            "remaining": 50.0,
            "lease": 54.0,
            "alone": False,
            "limit": 500,
            "fair": False,
            "free": 10,
            "longest": 49.0,
            "level": None,
            "seen_run_at": None,
            "seen_id": None,
        }
        plan = "\n".join(row[0] for row in psycopg.ClientCursor(conn).execute(f"explain {text}", params))
        assert "Seq Scan on jobs" not in plan, plan
        assert "jobs_due" in plan


class TestSettle:
    def test_done_keeps_its_result(self, conn, url):
        plain, rich = a_job(conn, priority=2), a_job(conn, priority=1)
        settle(url, Done())
        settle(url, Done(b'{"sent": true}'))
        assert (job(conn, plain)["status"], job(conn, plain)["result"]) == ("done", None)
        assert job(conn, rich)["result"] == {"sent": True}

    def test_a_follow_up_commits_with_its_parent(self, conn, url):
        a_job(conn)
        settle(url, Done(None, [NewJob("next", b'{"n": 1}', delay=60.0, key="k", max_attempts=2)]))
        row = conn.execute(
            "select payload, key, max_attempts, run_at - created_at from tick.jobs where type = 'next'"
        ).fetchone()
        assert row == ({"n": 1}, "k", 2, timedelta(seconds=60))

    def test_a_follow_up_of_a_lost_claim_does_not_exist(self, conn, url):
        id = a_job(conn)

        async def use(q: Queue):
            (claimed,) = await _claimed(q, wanting(1))
            conn.execute("update tick.jobs set attempt = attempt + 1 where id = %s", [id])
            return await q.exchange([(claimed, Done(None, [NewJob("next", b"{}")]))])

        assert with_queue(url, use).settled == {"done": 0}
        assert conn.execute("select count(*) from tick.jobs where type = 'next'").fetchone() == (0,)

    def test_retry_waits_counts_and_remembers(self, conn, url):
        id = a_job(conn)
        settle(url, Retried(30.0, OOPS))
        row = job(conn, id)
        assert (row["status"], row["failures"], row["losses"], row["attempt"]) == ("pending", 1, 0, 1)
        assert row["last_error"] == "ValueError: no"
        assert row["errors"][0] | {"at": 0} == {
            "attempt": 1,
            "at": 0,
            "error": "ValueError: no",
            "traceback": "Traceback ...",
        }
        assert timedelta(seconds=29) < row["run_at"] - datetime.now(UTC) < timedelta(seconds=31)

    def test_only_the_last_errors_are_kept(self, conn, url):
        id = a_job(conn)
        for n in range(7):
            settle(url, Retried(0.0, Failure(f"no {n}")))
        assert [e["error"] for e in job(conn, id)["errors"]] == [f"no {n}" for n in range(2, 7)]

    def test_bury_snooze_release_and_cancel(self, conn, url):
        dead, later, soon, cut, stopped = (a_job(conn, priority=p) for p in (5, 4, 3, 2, 1))
        at = datetime(2031, 1, 1, tzinfo=UTC)
        settle(url, Dead(OOPS))
        settle(url, Snoozed(at))
        settle(url, Snoozed(None, 90.0))
        settle(url, Released(cut=True))
        conn.execute("update tick.jobs set run_at = now() + interval '1 day' where id = %s", [cut])
        settle(url, Cancelled())
        assert (job(conn, dead)["status"], job(conn, dead)["failures"]) == ("dead", 1)
        assert (job(conn, later)["run_at"], job(conn, later)["failures"]) == (at, 0)
        assert timedelta(seconds=85) < job(conn, soon)["run_at"] - datetime.now(UTC) < timedelta(seconds=91)
        assert (job(conn, cut)["status"], job(conn, cut)["cuts"], job(conn, cut)["attempt"]) == ("pending", 1, 1)
        assert job(conn, stopped)["status"] == "cancelled"

    @pytest.mark.parametrize("outcome", [Done(), Done(b"1"), Done(None, [NewJob("x", b"{}")]), Retried(1.0, OOPS),
                                         Dead(OOPS), Snoozed(None, 1.0), Released(), Released(cut=True), Cancelled()],
                             ids=str)  # fmt: skip
    def test_a_late_write_of_a_lost_claim_changes_nothing(self, conn, url, outcome):
        id = a_job(conn)

        async def use(q: Queue):
            (zombie,) = await _claimed(q, wanting(1))
            conn.execute("update tick.jobs set lease_expires_at = now() - interval '1 second' where id = %s", [id])
            await q.send(Statement("reclaim", {"message": "lost", "most_losses": 3, "keep": 5, "limit": 10}))
            (heir,) = await _claimed(q, wanting(1, alone=True))
            assert heir.attempt == zombie.attempt + 1
            before = job(conn, id)
            late = await q.exchange([(zombie, outcome)])
            assert sum(late.settled.values()) == 0
            assert job(conn, id) == before
            return await q.exchange([(heir, Done())])

        assert with_queue(url, use).settled == {"done": 1}

    def test_a_job_released_and_claimed_anew_by_the_same_tick_refuses_the_older_claim(self, conn, url):
        a_job(conn)

        async def use(q: Queue):
            (first,) = await _claimed(q, wanting(1))
            await q.exchange([(first, Released())])
            (second,) = await _claimed(q, wanting(1))
            assert (await q.exchange([(first, Done())])).settled == {"done": 0}
            assert (await q.exchange([(second, Done())])).settled == {"done": 1}

        with_queue(url, use)

    def test_cancelling_a_running_job_wins_over_its_retry(self, conn, url):
        id = a_job(conn)

        async def use(q: Queue):
            (claimed,) = await _claimed(q, wanting(1))
            conn.execute(queue.statements()["cancel"], {"id": id})
            exchange = await q.exchange((), None, held=[id], listen=True)
            assert exchange.cancel == [id]
            await q.exchange([(claimed, Retried(0.0, OOPS))])

        with_queue(url, use)
        assert job(conn, id)["status"] == "cancelled"

    def test_settling_a_batch_goes_by_the_primary_key(self, conn):
        conn.execute("insert into tick.jobs (type, status, attempt, tick_id, lease_expires_at) "
                     "select 'noop', 'running', 1, %s, now() from generate_series(1, 3000)", [NEVER])  # fmt: skip
        conn.execute("analyze tick.jobs")
        ids = list(range(1, 501))
        params = {"ids": ids, "fences": [i << 20 | 1 for i in ids]}
        plan = "\n".join(
            row[0] for row in psycopg.ClientCursor(conn).execute("explain " + queue.statements()["complete"], params)
        )
        assert "jobs_pkey" in plan and "jobs_leases" not in plan, plan


class TestReclaim:
    def reclaim(self, url: str):
        params = {"message": queue.LOST, "most_losses": queue.MOST_LOSSES, "keep": 5, "limit": 500}
        with_queue(url, lambda q: q.send(Statement("reclaim", params)))

    def test_takes_back_what_has_no_lease_left_and_charges_a_loss(self, conn, url):
        lost = a_job(conn, status="running", lease_expires_at="-1 second")
        held = a_job(conn, status="running")
        self.reclaim(url)
        row = job(conn, lost)
        assert (row["status"], row["losses"], row["failures"], row["attempt"]) == ("pending", 1, 0, 1)
        assert job(conn, held)["status"] == "running"

    def test_buries_the_third_loss_with_its_reason(self, conn, url):
        id = a_job(conn, status="running", lease_expires_at="-1 second", losses=2)
        self.reclaim(url)
        assert job(conn, id)["status"] == "dead"
        assert "lease ran out" in job(conn, id)["last_error"]

    def test_a_lost_job_that_was_cancelled_is_cancelled(self, conn, url):
        id = a_job(conn, status="running", lease_expires_at="-1 second", cancel_requested_at="-1 second")
        self.reclaim(url)
        assert job(conn, id)["status"] == "cancelled"


class TestByHand:
    def test_replay_gives_every_chance_anew_but_never_lowers_the_attempt(self, conn):
        id = a_job(conn, status="dead", attempt=9, failures=5, losses=2)
        conn.execute(queue.statements()["replay"], {"ids": [id]})
        row = job(conn, id)
        assert (row["status"], row["attempt"], row["failures"], row["losses"]) == ("pending", 9, 0, 0)

    @pytest.mark.parametrize("status", ["pending", "running", "done"])
    def test_replay_refuses_what_is_not_over(self, conn, status):
        id = a_job(conn, status=status)
        assert conn.execute(queue.statements()["replay"], {"ids": [id]}).fetchall() == []

    def test_cancel(self, conn):
        waiting, done = a_job(conn), a_job(conn, status="done")
        for id in (waiting, done):
            conn.execute(queue.statements()["cancel"], {"id": id})
        assert (job(conn, waiting)["status"], job(conn, done)["status"]) == ("cancelled", "done")


class TestTheTableRefuses:
    @pytest.mark.parametrize(
        "columns",
        [
            {"status": "running", "lease_expires_at": None},
            {"status": "running", "tick_id": None},
            {"status": "done", "finished_at": None},
            {"status": "pending", "finished_at": "+0"},
            {"status": "pending", "lease_expires_at": "+0"},
            {"payload": [1]},
            {"type": ""},
            {"max_attempts": 0},
            {"key": ""},
            {"run_at": "infinity"},
            {"run_at": "10000-01-01"},
        ],
        ids=str,
    )
    def test_nonsense(self, conn, columns):
        with pytest.raises(psycopg.errors.CheckViolation):
            a_job(conn, **columns)

    def test_a_status_that_is_none(self, conn):
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute("insert into tick.jobs (type, status) values ('noop', 'scheduled')")

    def test_two_jobs_of_one_window(self, conn):
        window = datetime(2026, 3, 1, tzinfo=UTC)
        a_job(conn, schedule="daily", window=window)
        a_job(conn, schedule="other", window=window)
        with pytest.raises(psycopg.errors.UniqueViolation):
            a_job(conn, schedule="daily", window=window)


def test_a_lost_connection_in_an_exchange_is_made_anew_and_nothing_is_settled_twice_or_forgotten(conn, url):
    jobs(conn, count=20)

    async def use(q: Queue):
        claimed = await _claimed(q, wanting(10))
        conn.execute("select pg_terminate_backend(%s)", [q.connection.info.backend_pid])
        exchange = await q.exchange([(c, Done()) for c in claimed], wanting(10))
        assert exchange.settled == {"done": 10}
        assert len(exchange.jobs) == 10

    with_queue(url, use)
    assert statuses(conn) == {"done": 10, "running": 10}


def test_nothing_is_compiled_just_in_time_and_no_session_keeps_that(conn, url, monkeypatch):
    monkeypatch.setitem(database.statements("queue", "tick"), "show_jit", "show jit")

    async def use(q: Queue):
        (inside,) = await q.send(Statement("show_jit", {}))
        outside = await (await q.connection.execute("show jit")).fetchone()
        return inside.rows[0][0], outside[0]

    assert with_queue(url, use) == ("off", conn.execute("show jit").fetchone()[0])


def test_a_deadlock_of_settles_is_not_possible_since_rows_are_locked_in_order(conn, url):
    jobs(conn, count=200)

    async def use(q: Queue):
        claimed = await _claimed(q, wanting(200))

        async def write(order):
            async with database.connect(url) as connection:
                other = Queue(connection, lambda: database.open_connection(url))
                return (await other.exchange([(c, Released()) for c in order])).settled["released"]

        counts = await asyncio.gather(*(write(o) for o in (claimed, claimed[::-1]) * 4))
        assert sum(counts) == 200

    with_queue(url, use)
