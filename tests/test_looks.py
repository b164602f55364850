"""Claims go on from where the last one ended, over nothing that has died before; and none is overlooked for that."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import tick as public
from tests.factories import a_job
from tests.test_flow_at_scale import pages
from tests.test_keys_in_order import claim_params
from tick.processor import process_tick
from tick.queue import Seen, statements

DEAD = 20_000


def claim(conn: psycopg.Connection, limit: int, seen: Seen | None = None, *, fair: bool = False) -> list[int]:
    params = params_after(limit, seen, fair=fair)
    return sorted(row[0] for row in conn.execute(statements()["claim"], params))


def params_after(limit: int, seen: Seen | None, *, fair: bool = False) -> dict[str, Any]:
    told = dict(zip(("level", "seen_run_at", "seen_id"), seen or (None, None, None), strict=True))
    return claim_params(limit, fair=fair) | told


def seen(conn: psycopg.Connection, id: int) -> Seen:
    return Seen(*conn.execute("select priority, run_at, id from tick.jobs where id = %s", [id]).fetchone())


@pytest.mark.parametrize("fair", [False, True], ids=["by priority", "by age"])
class TestAClaimThatGoesOn:
    def test_takes_what_is_after_the_last_one(self, conn, fair):
        before, last, after = (a_job(conn, run_at=f"-{n} minutes") for n in (3, 2, 1))
        assert claim(conn, 1, seen(conn, last), fair=fair) == [after]
        assert claim(conn, 1, None, fair=fair) == [before]

    def test_takes_everything_when_that_is_not_enough(self, conn, fair):
        last = a_job(conn, run_at="-2 minutes")
        others = [a_job(conn, run_at="-3 minutes"), a_job(conn, priority=5), a_job(conn, priority=-5)]
        others.append(a_job(conn, run_at="-1 minutes"))
        assert claim(conn, 10, seen(conn, last), fair=fair) == sorted([last, *others])
        assert claim(conn, 10, None, fair=fair) == []

    def test_takes_no_more_than_it_is_asked_for(self, conn, fair):
        last = a_job(conn, run_at="-2 minutes")
        for priority in (0, 0, 5, 5, -5, -5):
            a_job(conn, priority=priority, run_at="-3 minutes")
        assert len(claim(conn, 4, seen(conn, last), fair=fair)) == 4

    def test_leaves_what_is_not_due(self, conn, fair):
        last = a_job(conn, run_at="-2 minutes")
        a_job(conn, run_at="+1 minute")
        a_job(conn, run_at="+1 minute", priority=9)
        assert claim(conn, 10, seen(conn, last), fair=fair) == [last]

    def test_touches_little_of_what_cannot_be_removed(self, conn, url, fair):
        with psycopg.connect(url) as holder:
            holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            holder.execute("select 1")
            conn.execute(
                "insert into tick.jobs (type, run_at) select 'noop', now() - interval '1 day' from generate_series(1, %s)",
                [DEAD],
            )
            conn.execute("update tick.jobs set status = 'cancelled', finished_at = now()")
            last = a_job(conn, run_at="-1 hour")
            conn.execute("insert into tick.jobs (type) select 'noop' from generate_series(1, 50)")
            conn.execute("vacuum analyze tick.jobs")
            params = params_after(10, seen(conn, last), fair=fair)
            on, look = (pages(conn, statements()["claim"], params | more) for more in ({}, {"level": None}))
            assert on < look / 2


def test_an_older_version_is_served_while_a_new_one_is_rolled_out(conn):
    id = a_job(conn)
    claim = "select id from tick.fair_share(array['noop'], 50.0, 49.0, 10)"
    assert conn.execute(claim).fetchall() == [(id,)]
    assert conn.execute("select priority from tick.free_priorities").fetchall() == [(0,)]


async def test_a_tick_sees_what_comes_before_where_it_is(conn, settings, empty_registry):
    """Jobs of a higher priority, and older ones, that are put in while it runs."""
    ran: list[str] = []

    @public.job(type="noop")
    def noop(name: str = "") -> None:
        ran.append(name)
        if len(ran) == 1:
            for more in ({"priority": 9}, {"run_at": "-1 day"}):
                a_job(conn, payload={"name": str(more)}, **more)

    for _ in range(200):
        a_job(conn)
    report = await process_tick(settings, empty_registry)
    assert report.done == 202
    assert report.left == 0
