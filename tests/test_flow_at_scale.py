"""What stands behind a claim costs it nothing: pages are counted, since they do not depend on how busy the machine is."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.test_keys_in_order import Hand, claim_params
from tick.jobs import Done
from tick.queue import statements

FEW = 1_000
MANY = 100_000
FACTOR = 2
"""By how much more pages may be touched: an index of many jobs is a level or two deeper."""
TYPES = ("noop", "limited", "open")

FILL = "insert into tick.jobs (type, {}) select {} from generate_series(1, %s) n"
NEXT_WEEK = "now() + interval '7 days'"
BEHIND = {
    "due jobs": FILL.format("priority", "'noop', 0"),
    "jobs of other priorities": FILL.format("priority", "'noop', -n %% 4"),
    "delayed jobs of the highest priority": FILL.format("priority, run_at", f"'noop', 9, {NEXT_WEEK}"),
    "jobs of one key": FILL.format("key, run_at", "'noop', 'k', now() - interval '1 hour'"),
    "jobs of a key that runs": FILL.format("key, run_at", "'noop', 'busy', now() - interval '1 hour'"),
    "delayed jobs of one key": FILL.format("key, run_at", f"'noop', 'k', {NEXT_WEEK}"),
    "jobs that wait for others": FILL.format("waits_for, run_at", "'noop', 'job', now() - interval '1 hour'"),
    "jobs of a lane without room": FILL.format("lane, priority", "'limited', 'type limited', 9"),
    "delayed jobs of a lane with room": FILL.format("lane, priority, run_at", f"'open', 'type open', 9, {NEXT_WEEK}"),
    "finished jobs": FILL.format("key, status, finished_at", "'noop', 'k', 'done', now()"),
}
RUNNING = """
insert into tick.jobs (type, key, lane, status, tick_id, attempt, lease_expires_at)
select type, key, lane, 'running', %s, 1, now() + interval '1 hour'
  from (values ('limited', null, 'type limited'), ('noop', 'busy', null)) as r (type, key, lane)
"""


def clear(conn: psycopg.Connection) -> None:
    """No jobs but two that run: one for a limit that has no room for more, one of a key."""
    conn.execute("truncate tick.jobs, tick.limits, tick.starts restart identity")
    conn.execute(
        "insert into tick.limits (lane, type, concurrency)"
        " values ('type limited', 'limited', 1), ('type open', 'open', 1000)"
    )
    conn.execute(RUNNING, [uuid.UUID(int=0)])


def fill(conn: psycopg.Connection, statement: str, count: int) -> None:
    conn.execute(statement, [count])
    conn.execute("vacuum analyze tick.jobs, tick.starts")


def pages(conn: psycopg.Connection, statement: str, params: dict[str, Any]) -> int:
    """The pages that a statement touches, with its functions and triggers; whatever it does is taken back."""
    with conn.transaction(force_rollback=True):
        conn.execute("select set_config('jit', 'off', true)")
        cursor = psycopg.ClientCursor(conn)
        ((explained,),) = cursor.execute(f"explain (analyze, buffers, format json) {statement}", params).fetchone()
    (plan,) = explained if isinstance(explained, list) else [explained]
    return plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]


def of_a_claim(conn: psycopg.Connection, *, fair: bool = False) -> int:
    return pages(conn, statements()["claim"], claim_params(100, TYPES, fair=fair))


def of_the_count(conn: psycopg.Connection) -> int:
    """What it takes to count what is due, which ends after ten thousand."""
    return pages(conn, "select count(*) from (select from tick.due_jobs limit 10001) counted", {})


def grow(conn: psycopg.Connection, statement: str, *measures: Callable[[], int]) -> list[float]:
    """How many times as many pages each takes with many rows as with few."""
    counts = []
    for count in (FEW, MANY):
        clear(conn)
        fill(conn, statement, count)
        counts.append([measure() for measure in measures])
    return [many / few for few, many in zip(*counts, strict=True)]


class Alone(NamedTuple):
    """What is touched on a small table: by a claim by priority, by one by age, and by a count that is full."""

    claim: int
    fair_claim: int
    count: int


@pytest.fixture(scope="module")
def measured() -> list[Alone]:
    """Measured once."""
    return []


@pytest.fixture
def alone(conn, measured) -> Alone:
    if not measured:
        clear(conn)
        fill(conn, BEHIND["due jobs"], FEW)
        claims = of_a_claim(conn), of_a_claim(conn, fair=True)
        fill(conn, BEHIND["due jobs"], 10_001)
        measured.append(Alone(*claims, of_the_count(conn)))
    return measured[0]


@pytest.mark.parametrize("statement", BEHIND.values(), ids=BEHIND)
def test_a_claim_and_a_count_touch_no_more_than_on_a_small_table(conn, alone, statement):
    clear(conn)
    conn.execute(BEHIND["due jobs"], [FEW])
    fill(conn, statement, MANY)
    assert of_a_claim(conn) <= FACTOR * alone.claim
    assert of_a_claim(conn, fair=True) <= FACTOR * alone.fair_claim
    assert of_the_count(conn) <= FACTOR * alone.count


@pytest.mark.parametrize(
    "statement",
    [
        FILL.format("key", "'noop', 'k' || n"),
        FILL.format("key, strict_key", "'noop', 'k' || n %% 500, true"),
        FILL.format("lane, priority", "'open', 'type open', 9"),
        FILL.format("lane, key, priority", "'open', 'type open', 'k' || n, n %% 3"),
    ],
    ids=["every job its own key", "many jobs of each key", "a lane with room", "keys in a lane with room"],
)
def test_a_claim_of_such_jobs_touches_as_much_of_many_as_of_few(conn, statement):
    assert grow(conn, statement, lambda: of_a_claim(conn))[0] <= FACTOR


def test_a_long_line_is_joined_and_its_first_ended_at_the_price_of_a_short_one(conn):
    def of_joining() -> int:
        return pages(conn, "insert into tick.jobs (type, key) select 'noop', 'k' from generate_series(1, 100)", {})

    def of_ending() -> int:
        (id,) = conn.execute(
            "update tick.jobs set status = 'running', attempt = 1, tick_id = %s, lease_expires_at = now() + interval '1 hour'"
            " where key = 'k' and waits_for is null returning id",
            [uuid.uuid4()],
        ).fetchone()
        return pages(conn, statements()["complete"], {"ids": [id], "fences": [id << 20 | 1]})

    assert max(grow(conn, BEHIND["jobs of one key"], of_joining, of_ending)) <= FACTOR


def test_jobs_put_in_from_the_latest_to_the_oldest_are_in_line_after_some_claims(conn):
    """All of them are free at first, and each claim walks over those that may not run; whoever ends one clears some away."""
    statement = FILL.format("key, run_at", "'noop', 'k', now() - n * interval '1 ms'")
    clear(conn)
    fill(conn, statement, 5_000)
    hand = Hand(conn)
    for _ in range(8):
        hand.settle(hand.claim()[0], Done())
    assert conn.execute(
        "select count(*) from tick.jobs where key = 'k' and waits_for is null and status = 'pending'"
    ).fetchone() == (1,)


def test_when_a_rate_has_room_again_is_found_among_few_rows(conn):
    def of_the_question() -> int:
        conn.execute("update tick.limits set rate = 5, period = '1 minute', key_rate = 1, key_period = '1 minute'")
        conn.execute(
            "insert into tick.starts (lane, key, at) select 'type open', 'k' || n, now() from generate_series(1, 20) n"
        )
        return pages(conn, statements()["room_in"], {"types": list(TYPES)})

    (factor,) = grow(conn, FILL.format("lane, key", "'open', 'type open', 'k' || n"), of_the_question)
    assert factor <= FACTOR
