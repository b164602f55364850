"""What a tick costs, counted and not timed: round trips, statements, commits, connections, plans, memory."""

from __future__ import annotations

import math
import re
import tracemalloc
import uuid
from typing import Any

import psycopg
import pytest
from psycopg import pq

import tick as public
from tests.factories import jobs, statuses, tick, wait_until
from tick import database
from tick.places import Places
from tick.processor import Tick
from tick.queue import Queue, statements

pytestmark = pytest.mark.usefixtures("empty_registry")

PLACES = 50
"""Jobs at once: so many that a process that is held up for a moment still holds as much as it may."""
OPEN = 9
CLOSE = 5
EXCHANGE = 6
"""Statements of a tick's parts, with the one that sets up the transaction; an exchange may carry two kinds of outcomes."""

CONNECTED = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


class Wire:
    """All that went over a tick's connections, as libpq writes it down."""

    def __init__(self, path) -> None:
        self.path = path
        self.file = path.open("w")
        self.connections = 0

    def listen(self, connection: psycopg.AsyncConnection) -> None:
        self.connections += 1
        connection.pgconn.trace(self.file.fileno())
        connection.pgconn.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)

    @property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def messages(self) -> list[str]:
        """Such as `F Execute` for what went out and `B DataRow` for what came in, in their order."""
        return [" ".join(found) for found in re.findall(r"^([FB])\t\d+\t(\w+)", self.text, flags=re.MULTILINE)]

    @property
    def round_trips(self) -> int:
        """As often as the server was ready again: after each Sync, which ends a transaction that nobody has begun."""
        assert not re.search(r'"(begin|commit|start transaction)', self.text, flags=re.IGNORECASE)
        return self.messages.count("B ReadyForQuery")

    @property
    def executed(self) -> int:
        return self.messages.count("F Execute") + self.messages.count("F Query")


@pytest.fixture
def wire(monkeypatch, tmp_path):
    """What ticks send from here on."""
    opened = database.open_connection

    async def listened(url: str) -> psycopg.AsyncConnection:
        connection = await opened(url)
        seen.listen(connection)
        return connection

    seen = Wire(tmp_path / "wire")
    monkeypatch.setattr(database, "open_connection", listened)
    yield seen
    seen.file.close()


def handlers() -> None:
    """One for each way that a job can end by itself."""

    @public.job
    async def noop() -> None:
        pass

    @public.job
    async def fails() -> None:
        raise ValueError

    @public.job
    async def dies() -> None:
        raise public.Permanent

    @public.job
    async def returns() -> dict[str, int]:
        return {"n": 1}

    @public.job
    async def snoozes() -> None:
        raise public.Snooze(after="1h")

    @public.job
    async def enqueues(ctx: public.Context) -> None:
        ctx.enqueue("noop")

    @public.job
    def in_a_thread() -> None:
        pass


class TestRoundTrips:
    @pytest.mark.parametrize(("count", "batch"), [(1, 50), (7, 2), (20, 10), (60, 1), (199, 50), (1000, 100)])
    @pytest.mark.parametrize("type", ["noop", "fails"])
    def test_a_trip_a_batch_and_two(self, conn, settings, wire, type, count, batch):
        handlers()
        jobs(conn, type, count)
        report = tick(settings, batch_size=batch, concurrency=PLACES)
        assert report.done + report.retried == count
        assert wire.round_trips <= math.ceil(count / batch) + 2

    @pytest.mark.parametrize("type", ["dies", "returns", "snoozes"])
    def test_however_jobs_end(self, conn, settings, wire, type):
        handlers()
        jobs(conn, type, 300)
        tick(settings, batch_size=50, concurrency=PLACES)
        assert conn.execute("select count(*) from tick.jobs where attempt <> 1").fetchone() == (0,)
        assert wire.round_trips <= 300 / 50 + 2

    def test_also_when_they_end_in_different_ways(self, conn, settings, wire):
        handlers()
        for type in ("noop", "fails", "dies", "returns", "snoozes"):
            jobs(conn, type, 60)
        tick(settings, batch_size=50, concurrency=PLACES)
        assert wire.round_trips <= 300 / 50 + 2

    def test_with_a_key_each_and_one_more_to_see_whether_another_is_free(self, conn, settings, wire):
        handlers()
        conn.execute("insert into tick.jobs (type, key) select 'noop', 'k' || n from generate_series(1, 300) n")
        assert tick(settings, batch_size=50, concurrency=PLACES).done == 300
        assert wire.round_trips <= 300 / 50 + 3

    def test_follow_ups_are_claimed_as_they_are_enqueued(self, conn, settings, wire):
        handlers()
        jobs(conn, "enqueues", 300)
        assert tick(settings, batch_size=50, concurrency=PLACES).done == 600
        assert wire.round_trips <= 600 / 50 + 3

    def test_the_queue_counts_them_as_they_are(self, conn, settings, wire, monkeypatch):
        handlers()
        queues = []
        monkeypatch.setattr("tick.processor.Queue", lambda *args: queues.append(Queue(*args)) or queues[-1])
        jobs(conn, "noop", 100)
        tick(settings, batch_size=10)
        assert [queue.round_trips for queue in queues] == [wire.round_trips]


class TestStatements:
    def test_an_idle_tick(self, conn, settings, wire):
        handlers()
        tick(settings)
        assert wire.round_trips == 1
        assert wire.executed <= OPEN

    @pytest.mark.parametrize("type", ["noop", "fails", "in_a_thread"])
    def test_one_job(self, conn, settings, wire, type):
        handlers()
        jobs(conn, type)
        tick(settings)
        assert wire.round_trips == 2
        assert wire.executed <= OPEN + CLOSE

    def test_many_jobs_are_a_few_for_each_batch(self, conn, settings, wire):
        handlers()
        jobs(conn, "noop", 500)
        jobs(conn, "fails", 500)
        tick(settings, batch_size=100, concurrency=PLACES)
        assert wire.executed <= OPEN + CLOSE + 1 + EXCHANGE * (wire.round_trips - 2)


class TestCommits:
    @pytest.mark.parametrize("type", ["noop", "fails", "returns"])
    def test_a_batch_is_settled_by_one(self, conn, settings, type):
        handlers()
        jobs(conn, type, 500)
        tick(settings, batch_size=50, concurrency=PLACES)
        (commits,) = conn.execute("select count(distinct xmin::text) from tick.jobs").fetchone()
        assert commits <= 500 / 50 + 1


class TestConnections:
    def test_a_tick_has_one_and_leaves_none(self, conn, settings, wire):
        handlers()
        wait_until(lambda: conn.execute(CONNECTED).fetchone() == (0,))
        during = []

        @public.job
        async def looks() -> None:
            during.append(conn.execute(CONNECTED).fetchone()[0])

        jobs(conn, "looks", 20)
        assert tick(settings, batch_size=5).done == 20
        assert (wire.connections, set(during)) == (1, {1})
        wait_until(lambda: conn.execute(CONNECTED).fetchone() == (0,))


# Plans

MANY = 30_000
FEW = 300
MINE = uuid.UUID(int=7)
PUT = {
    "finished": "insert into tick.jobs (type, status, finished_at, key)"
    " select 'noop', 'done', now(), 'k' || n % 100 from generate_series(1, {}) n",
    "delayed": "insert into tick.jobs (type, run_at, priority)"
    " select 'noop', now() + interval '7 days', n % 3 from generate_series(1, {}) n",
    "due": "insert into tick.jobs (type, run_at) select 'noop', now() - n * interval '1 ms' from generate_series(1, {}) n",
    "running": "insert into tick.jobs (type, status, attempt, tick_id, lease_expires_at)"
    f" select 'noop', 'running', 1, '{MINE}', now() + interval '1 hour' from generate_series(1, {{}}) n",
}
PUT_ASIDE = "update tick.jobs set status = 'done', finished_at = now() where status = 'pending'"

OF_THE_QUEUE = [
    "reclaim", "heal_keys", "claim_suspect", "claim", "open_tick", "cancel_requests", "complete", "complete_with",
    "complete_and_enqueue", "retry", "bury", "snooze", "release", "stop_cancelled", "release_unknown", "already_settled",
    "record_progress", "close_tick", "replay",
]  # fmt: skip
"""What a tick asks of the table of jobs."""


def fill(conn: psycopg.Connection, *what: str, count: int = MANY) -> None:
    for name in what:
        conn.execute(PUT[name].format(count))


def fresh(conn: psycopg.Connection) -> None:
    """Many are finished and many delayed, and the planner knows it."""
    fill(conn, "finished", "delayed")
    fill(conn, "due", "running", count=FEW)
    conn.execute("analyze tick.jobs")


def never_analysed(conn: psycopg.Connection) -> None:
    """The planner has to guess, as on the first day, or after an upgrade that lost what it knew."""
    conn.execute("delete from pg_statistic where starelid = 'tick.jobs'::regclass")
    fill(conn, "finished", "delayed")
    fill(conn, "due", "running", count=FEW)


def of_when_all_was_due(conn: psycopg.Connection) -> None:
    """The planner knows the table as it was before a burst was worked off."""
    fill(conn, "due")
    conn.execute("analyze tick.jobs")
    conn.execute(PUT_ASIDE)
    fill(conn, "due", "running", count=FEW)


def params(ids: list[int]) -> dict[str, Any]:
    """What all these statements bind, together."""
    every = {name: [None] * len(ids) for name in ("results", "untils", "messages", "tracebacks", "progress")}
    return every | {
        "ids": ids, "fences": [id << 20 | 1 for id in ids], "held": ids, "delays": [1.0] * len(ids), "follow_ups": "[]",
        "cut": 0, "tick": MINE, "types": ["noop"], "remaining": 50.0, "longest": 49.0, "lease": 54.0, "limit": 500,
        "free": 10, "fair": False, "level": None, "seen_run_at": None, "seen_id": None, "alone": True,
        "message": "lost", "most_losses": 3, "keep": 5, "file": None,
        "trigger": "cli", "delivery_id": None, "scheduled_for": None, "budget": 50.0, "used": 1.0, "error": None,
        **dict.fromkeys(("materialised", "claimed", "done", "retried", "dead", "released", "reclaimed", "stale"), 0),
    }  # fmt: skip


def plan(conn: psycopg.Connection, statement: str, given: dict[str, Any]) -> str:
    rows = psycopg.ClientCursor(conn).execute(f"explain {statement}", given).fetchall()
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("known", [fresh, never_analysed, of_when_all_was_due], ids=lambda known: known.__name__)
def test_no_statement_of_a_tick_is_planned_through_the_whole_table(conn, known):
    known(conn)
    ids = [id for (id,) in conn.execute("select id from tick.jobs where status = 'running' order by id")]
    for name in OF_THE_QUEUE:
        told = plan(conn, statements()[name], params(ids))
        # The one exception is sent after a connection was lost, and to a table without statistics.
        rare = (name, known) == ("release_unknown", never_analysed)
        assert rare or "Seq Scan on jobs" not in told, f"{name}\n{told}"


@pytest.mark.parametrize("known", [fresh, never_analysed, of_when_all_was_due], ids=lambda known: known.__name__)
def test_a_claim_that_goes_on_is_not_planned_through_the_whole_table(conn, known):
    known(conn)
    (seen_run_at, seen_id) = conn.execute(
        "select run_at, id from tick.jobs where status = 'running' limit 1"
    ).fetchone()
    on = {"level": 0, "seen_run_at": seen_run_at, "seen_id": seen_id}
    told = plan(conn, statements()["claim"], params([]) | on)
    assert "Seq Scan on jobs" not in told, told


# Memory


@pytest.fixture
def in_flight(conn, monkeypatch):
    """After each claim: the jobs that the table says are running, and those that are held and not started."""
    seen: list[tuple[int, int]] = []
    take = Tick.take

    def taken(self, *claimed) -> None:
        take(self, *claimed)
        (running,) = conn.execute("select count(*) from tick.jobs where status = 'running'").fetchone()
        seen.append((running, len(self.places.buffer)))

    monkeypatch.setattr(Tick, "take", taken)
    return seen


@pytest.mark.parametrize("type", ["noop", "in_a_thread"])
@pytest.mark.parametrize(("batch", "places"), [(50, 10), (10, 30), (100, 100)])
def test_what_is_claimed_and_not_settled_is_two_batches_and_the_places_at_most(
    conn, settings, in_flight, type, batch, places
):
    handlers()
    jobs(conn, type, 1000)
    assert tick(settings, batch_size=batch, concurrency=places).done == 1000
    assert max(running for running, _ in in_flight) <= 2 * batch + places
    assert max(held for _, held in in_flight) <= 2 * batch + places


def test_outcomes_do_not_gather_for_long(conn, settings, monkeypatch):
    handlers()
    sizes = []
    take = Places.take_outcomes
    monkeypatch.setattr(Places, "take_outcomes", lambda self: sizes.append(len(self.outcomes)) or take(self))
    jobs(conn, "noop", 2000)
    assert tick(settings, batch_size=50, concurrency=10).done == 2000
    assert max(sizes) <= 2 * 50 + 10


def peak(settings, conn, count: int) -> int:
    """Bytes that Python had allocated at most while a tick drained so many jobs."""
    jobs(conn, "noop", count)
    tracemalloc.start()
    try:
        assert tick(settings, batch_size=50, concurrency=10).done == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_queue_takes_no_more_memory_than_a_short_one(conn, settings):
    handlers()
    tick(settings)
    few, many = peak(settings, conn, 500), peak(settings, conn, 5_000)
    assert many <= 1.3 * few + 200_000
    assert statuses(conn) == {"done": 5_500}
