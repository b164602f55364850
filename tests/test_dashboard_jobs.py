"""The dashboard's pages of jobs and dead letters, over real HTTP: what is found, how far is looked, what buttons do."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tick
from tests.factories import NEVER, a_job, job, statuses
from tests.factories import tick as run_tick
from tests.visitor import PASSWORD, visiting
from tick import database, masking
from tick.config import Settings
from tick.dashboard import editing, filters, shown, story, waiting
from tick.dashboard.filters import Filter, Place
from tick.database import statements

pytestmark = pytest.mark.usefixtures("empty_registry")

HOSTILE = [
    line
    for line in (Path(__file__).parent / "data" / "hostile_html.txt").read_text(encoding="utf-8").split("\n")
    if line
]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, dashboard_password=PASSWORD, secrets=("another-long-secret",))


@pytest.fixture
def visitor(settings):
    with visiting(settings) as visitor:
        yield visitor


def a_dead_job(conn, type="noop", error="ValueError: no", **columns) -> int:
    """A dead job as a tick leaves it, with the fingerprint of its error."""
    id = a_job(conn, type, "dead", last_error=error, **columns)
    conn.execute("update tick.jobs set fingerprint = tick.fingerprint(last_error) where id = %s", [id])
    return id


def many(conn, count, *, type="noop", status="done", error=None, minutes=0):
    """So many jobs that have ended, put in a second apart, the last of them so many minutes ago."""
    conn.execute(
        "insert into tick.jobs (type, status, created_at, run_at, finished_at, last_error, fingerprint)"
        " select %(type)s, %(status)s, at, at, at + interval '1 s', %(error)s, tick.fingerprint(%(error)s)"
        "   from (select now() - make_interval(mins => %(minutes)s, secs => %(count)s - n) as at"
        "           from generate_series(1, %(count)s) n) jobs",
        {"count": count, "type": type, "status": status, "error": error, "minutes": minutes},
    )


# What a filter finds


def test_every_filter_finds_what_it_says_and_nothing_else(conn, visitor):
    wanted = {
        "dead": a_dead_job(conn, "charge", "Lost the card: 4711", key="user:1"),
        "pending": a_job(conn, "greet", key="user:2", payload={"name": "Ada Lovelace"}),
        "running": a_job(conn, "charge", "running", key="user:3"),
        "done": a_job(conn, "report", "done", schedule="nightly"),
        "cancelled": a_job(conn, "greet", "cancelled", payload={"name": "100 %_\\"}),
    }
    for status, id in wanted.items():
        assert visitor.get("/dashboard/jobs", status=status).ids == [id]
    assert visitor.get("/dashboard/jobs").ids == sorted(wanted.values(), reverse=True)
    for query, found in [
        ({"type": "charge"}, ["running", "dead"]),
        ({"type": "charge", "status": "dead"}, ["dead"]),
        ({"type": "greet", "status": "dead"}, []),
        ({"key": "user:2"}, ["pending"]),
        ({"key": "user:2", "status": "pending"}, ["pending"]),
        ({"key": "user:2", "status": "dead"}, []),
        ({"key": "user:3", "status": "running"}, ["running"]),
        ({"schedule": "nightly"}, ["done"]),
        ({"schedule": "nightly", "status": "pending"}, []),
        ({"schedule": "nightly", "status": "cancelled"}, []),
        ({"schedule": "nightly", "type": "report", "text": "{}"}, ["done"]),
        ({"text": "lovelace"}, ["pending"]),
        ({"text": "lost the card"}, ["dead"]),
        ({"text": "lost the card", "status": "dead"}, ["dead"]),
        ({"text": "lovelace", "status": "pending"}, ["pending"]),
        ({"text": "lovelace", "status": "running"}, []),
        ({"text": "100 %_"}, ["cancelled"]),
        ({"text": "100 %_\\", "status": "cancelled"}, ["cancelled"]),
        ({"text": "%"}, ["cancelled"]),
        ({"type": " charge ", "status": "running"}, ["running"]),
    ]:
        assert visitor.get("/dashboard/jobs", **query).ids == [wanted[name] for name in found], query


def test_dead_jobs_of_one_kind_are_found_by_the_fingerprint_of_their_error(conn, visitor):
    alike = [a_dead_job(conn, "charge", f"Declined: {n}") for n in (4711, 12)]
    a_dead_job(conn, "charge", "Timeout")
    a_dead_job(conn, "other", "Declined: 9")
    page = visitor.get("/dashboard/jobs", type="charge", error=filters.digest("Declined: #"))
    assert sorted(page.ids) == alike
    assert "whose error is like Declined: #" in page.said
    assert visitor.get("/dashboard/jobs", type="charge", error="no digest").ids == []
    # Without its type a fingerprint says nothing, and of what is not dead neither.
    assert Filter.of({"error": "x"}).error is None
    assert Filter.of({"error": "x", "type": "charge", "status": "done"}).error is None
    assert Filter.of({"error": "x", "type": "charge"}) == Filter("dead", "charge", error="x")


def test_kinds_of_errors_are_found_whatever_they_say_and_no_url_says_it(conn, visitor):
    errors = ["", " x", "password=geheim", "🔥", "a\nb", *HOSTILE]
    ids = {a_dead_job(conn, error=error): error for error in errors}
    page = visitor.get("/dashboard/dead")
    links = [link.attributes["href"] for link in page.main.all("a") if link.text == "Show the jobs"]
    assert len(links) == len(set(links))
    assert sorted(id for link in links for id in visitor.get(link).ids) == sorted(ids)
    assert "geheim" not in page.response.text


def test_the_filters_stay_in_the_url_of_every_link_and_form(conn, visitor):
    for _ in range(filters.PAGE + 1):
        a_job(conn, "greet", "done", key="user:2")
    page = visitor.get("/dashboard/jobs", type="greet", key="user:2")
    assert "type=greet&key=user%3A2" in page.follow("Older").path
    assert page.follow("dead").path == "/dashboard/jobs?status=dead&type=greet&key=user%3A2"
    search = page.main.all("form")[0]
    assert {field.attributes["name"]: field.attributes["value"] for field in search.all("input")} == {
        "type": "greet", "key": "user:2", "schedule": "", "text": "",
    }  # fmt: skip
    assert (
        page.press("Search", text="nothing like it").path
        == "/dashboard/jobs?type=greet&key=user%3A2&schedule=&text=nothing+like+it"
    )


@pytest.mark.parametrize(
    "query",
    [{}, {"status": "dead"}, {"status": "cancelled"}, {"status": "running"}, {"status": "pending"}, {"schedule": "nightly"},
     {"status": "pending", "schedule": "nightly"}, {"status": "dead", "type": "noop", "error": filters.digest("ValueError: no")}],
)  # fmt: skip
def test_pages_follow_one_another_without_a_gap_or_a_double(conn, visitor, query):
    status = query.get("status", "done")
    for _ in range(2 * filters.PAGE + 3):
        id = a_job(conn, "noop", status, schedule="nightly", last_error="ValueError: no")
    conn.execute(
        "update tick.jobs set fingerprint = tick.fingerprint(last_error), finished_at = case when finished_at is not null then now() end"
    )
    page = visitor.get("/dashboard/jobs", **query)
    seen = list(page.ids)
    while any(link.text.startswith(("Older", "More", "Look further")) for link in page.main.all("a")):
        page = page.follow("→")
        seen += page.ids
    assert len(seen) == len(set(seen)) == 2 * filters.PAGE + 3
    if status not in ("running", "pending"):
        assert seen == sorted(seen, reverse=True)
        assert seen[0] == id
    assert page.follow("Newest").ids == seen[: filters.PAGE]


def test_pending_jobs_are_in_the_order_in_which_they_would_run(conn, visitor):
    conn.execute("insert into tick.limits (lane, type, concurrency) values ('type:slow', 'slow', 1)")
    parent = a_job(conn, "noop", "running")
    group = a_job(conn, run_at="-9 minutes", waits_for="group", waits=1)
    expected = [
        a_job(conn, run_at="-1 minute", priority=5),
        a_job(conn, run_at="-3 minutes"),
        a_job(conn, "slow", run_at="-2 minutes", lane="type:slow"),
        a_job(conn, run_at="-1 minute", losses=1),
        a_job(conn, run_at="+1 hour", priority=9),
        a_job(conn, run_at="+2 hours"),
        group,
        a_job(conn, run_at="-1 minute", parent_id=parent, waits_for="job"),
    ]
    a_job(conn, "noop", "running", group_id=group)
    assert visitor.get("/dashboard/jobs", status="pending").ids == expected


def test_a_list_says_since_when_it_has_looked_and_goes_on_from_there(conn, visitor):
    first = a_job(conn, "rare", "done", created_at="-2 days", finished_at="-2 days")
    many(conn, 45_000, minutes=60)
    page = visitor.get("/dashboard/jobs", type="rare")
    assert page.ids == []
    assert re.search(r"Looked at jobs since 6 h ago, the 20,000 newest from there", page.said)
    assert page.follow("Look further back").ids == []
    page = page.follow("Look further back").follow("Look further back")
    assert page.ids == [first]
    assert "further back" not in page.said
    # A text is looked for in fewer of them, since payloads are read for it.
    assert "the 5,000 newest" in visitor.get("/dashboard/jobs", text="rare").said


def test_a_look_back_among_the_dead_and_within_a_schedule_ends_too(conn, visitor):
    oldest = a_dead_job(conn, "rare", finished_at="-2 days", schedule="busy")
    many(conn, 8_000, status="dead", error="KeyError: 1")
    conn.execute("update tick.jobs set schedule = 'busy'")
    page = visitor.get("/dashboard/jobs", status="dead", type="rare")
    assert page.ids == []
    assert page.follow("Look further back").ids == [oldest]
    page = visitor.get("/dashboard/jobs", schedule="busy", type="rare")
    assert "the 5,000 newest" in page.said
    assert page.follow("Look further back").ids == [oldest]


@pytest.fixture
def big(conn):
    """A hundred thousand jobs of every kind, with keys, lanes, schedules and errors."""
    conn.execute("insert into tick.limits (lane, type, concurrency) values ('type:t3', 't3', 1)")
    conn.execute(
        """
        insert into tick.jobs (type, status, created_at, run_at, started_at, finished_at, key, schedule, last_error, lane, priority,
                               tick_id, lease_expires_at, parent_id, losses, payload)
        select 't' || n % 7, status, at, at + case when n % 3 = 0 then interval '2 days' else interval '0' end, at,
               case when status in ('done', 'dead', 'cancelled') then at end, case when n % 5 = 0 then 'k' || n % 900 end,
               case when n % 4 = 0 then 's' || n % 3 end, case when status = 'dead' then 'E' || n % 4 || chr(97 + n % 26) end,
               case when n % 7 = 3 and n % 11 <> 0 then 'type:t3' end, n % 3,
               case when status = 'running' then gen_random_uuid() end, case when status = 'running' then now() + interval '1 hour' end,
               case when n % 13 = 0 then n - 1 end, (n % 11 = 0)::int, jsonb_build_object('n', n, 'note', repeat('x', 200))
          from (select n, now() - interval '1 day' + n * interval '0.5 s' as at,
                       case when n % 997 = 0 then 'running' else (array['done', 'dead', 'cancelled', 'pending'])[1 + n % 4] end as status
                  from generate_series(1, 100000) n) jobs
         where status <> 'running' or n % 5 <> 0
        """
    )
    conn.execute("update tick.jobs set fingerprint = tick.fingerprint(last_error) where status = 'dead'")
    conn.execute("vacuum analyze tick.jobs")
    return conn


NOTHING = dict.fromkeys((*Filter._fields, "before", "before_at")) | {"skip": 0, "limit": 51, "look": 2_000}
LOOKS = [
    ("newest_jobs", {"type": "none"}, 1),
    ("newest_jobs", {"type": "none", "before": 50_000}, 1),
    ("newest_jobs", {"text": "%none%"}, 1),
    ("newest_jobs", {"key": "none"}, 1),
    ("newest_jobs", {"look": 51}, 1),
    ("oldest_looked_at", {}, 1),
    ("oldest_looked_at", {"before": 50_000}, 1),
    ("jobs_of_schedule", {"schedule": "s1", "type": "none"}, 1),
    ("oldest_looked_at_of_schedule", {"schedule": "s1"}, 1),
    ("ended_jobs", {"status": "dead", "type": "none"}, 1),
    ("ended_jobs", {"status": "cancelled", "text": "%none%"}, 1),
    ("ended_jobs", {"status": "dead", "type": "t1", "error": "E#b", "look": 51}, 1),
    ("kind_of_error", {"type": "t1", "digest": "none"}, 1),
    ("ended_jobs", {"status": "dead", "type": "none", "before_at": "2100-01-01T00:00:00+00:00", "before": 5}, 1),
    ("oldest_looked_at_of_ended", {"status": "dead"}, 1),
    ("running_jobs", {"type": "none"}, 1),
    ("pending_jobs", {"type": "none"}, 16),
    ("pending_jobs_of", {"key": "k5"}, 3),
    ("pending_jobs_of", {"schedule": "s1", "text": "%none%"}, 3),
    ("obstacles", {"ids": list(range(1, 51))}, 1),
    ("kin", {"id": 12, "limit": 100}, 1),
    ("callbacks", {"id": 1, "type": "tick.callback"}, 2),
    ("job", {"id": 1, "most": 1000}, 1),
]


def test_no_statement_reads_more_jobs_than_it_says(big):
    for believes in ("what is so", "nothing"):
        if believes == "nothing":
            big.execute("delete from pg_statistic where starelid = 'tick.jobs'::regclass")
            big.execute("update pg_class set reltuples = -1 where oid = 'tick.jobs'::regclass")
        for name, params, kinds in LOOKS:
            bound = NOTHING | params
            with big.transaction():
                big.execute(statements("facts")["along_indexes"])
                (plan,) = big.execute(
                    f"explain (analyze, format json) {statements('dashboard')[name]}", bound
                ).fetchone()
            read = sum(_read(plan[0]["Plan"]))
            assert read <= kinds * bound["look"] + 2_000, (believes, name, params, read, json.dumps(plan)[:4000])


def _read(node) -> list[int]:
    """The rows that each scan of jobs has read, those included that a filter took away."""
    rows = [each for child in node.get("Plans", ()) for each in _read(child)]
    if node.get("Relation Name") == "jobs" and node["Node Type"] != "Bitmap Index Scan":
        away = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        rows.append(int((node["Actual Rows"] + away) * node["Actual Loops"]))
    return rows


def test_lists_do_not_read_payloads(conn):
    for name in (
        "newest_jobs",
        "jobs_of_schedule",
        "ended_jobs",
        "running_jobs",
        "pending_jobs",
        "pending_jobs_of",
        "jobs_by_id",
    ):
        cursor = conn.execute(statements("dashboard")[name], NOTHING | {"ids": [1], "status": "dead", "schedule": "s1"})
        assert not {"payload", "result", "errors"} & {column.name for column in cursor.description}, name


def test_an_unknown_status_an_odd_place_and_a_nul_are_told_and_are_no_errors_of_ours(conn, visitor):
    id = a_job(conn)
    assert visitor.get("/dashboard/jobs", status="lost").status == 422
    for place in (
        {"before": "x"},
        {"before": "9" * 30},
        {"skip": "-1"},
        {"before_at": "yesterday"},
        {"before": "", "before_at": "2026-01-01T00:00Z"},
    ):
        assert visitor.get("/dashboard/jobs", **place).ids == [id]
    assert visitor.get("/dashboard/jobs", type="a\0b").status == 422
    assert visitor.get("/dashboard/jobs?type=%FF%FE").status == 200
    assert Place.of({"before": "7", "before_at": "2026-01-01T00:00:00"}) == Place(7)


def test_an_empty_list_says_what_to_do(conn, visitor):
    assert "There are no jobs yet" in visitor.get("/dashboard/jobs").said
    assert "No jobs match" in visitor.get("/dashboard/jobs", type="x").said


# Why a job waits


def test_a_list_says_why_each_job_waits(conn, visitor):
    @tick.job
    def noop(): ...

    @tick.job
    def slow(): ...

    conn.execute("insert into tick.limits (lane, type, concurrency) values ('type:slow', 'slow', 1)")
    conn.execute(
        "insert into tick.limits (lane, key_prefix, key_rate, key_period) values ('key:t:', 't:', 1, '1 hour')"
    )
    conn.execute("insert into tick.starts (lane, key, at) values ('key:t:', 't:1', now())")
    holder = a_job(conn, "noop", "running", key="user:1")
    dead, live = a_dead_job(conn), a_job(conn, "noop", "running")
    a_job(conn, "slow", "running", lane="type:slow")
    first = a_job(conn, key="user:2", run_at="-1 hour")
    strict = a_job(conn, key="user:3", strict_key=True, attempt=1, failures=1, run_at="+1 hour")
    group = a_job(conn, waits_for="group", waits=2)
    a_job(conn, "noop", "running", group_id=group)
    expected = {
        a_job(conn): "due: the next tick takes it",
        a_job(conn, "unknown"): "no handler here has its type",
        a_job(conn, run_at="+2 hours"): "not due yet",
        a_job(conn, run_at="+2 hours", failures=1): "to be tried again",
        a_job(conn, key="user:1", waits_for="key"): f"behind the job that has its key and runs ({holder})",
        a_job(conn, key="user:2", waits_for="key"): f"behind the job that has its key and goes first ({first})",
        a_job(conn, key="user:3"): f"behind the job that has its key and goes first ({strict})",
        strict: "to be tried again",
        a_job(conn, "slow", lane="type:slow"): "the limit type:slow is full",
        a_job(conn, key="t:1", lane="key:t:"): "the limit key:t: is full for its key",
        a_job(conn, parent_id=live, waits_for="job"): f"for a job to be done, which is running ({live})",
        a_job(conn, parent_id=dead, waits_for="job"): f"for a job that is dead: replay that one ({dead})",
        group: "for 2 jobs of its group to end",
        a_job(conn, losses=1): "due, as a suspect: its lease ran out, so it runs alone when a tick has nothing else in flight",
    }  # fmt: skip
    for query in ({}, {"status": "pending"}):
        page = visitor.get("/dashboard/jobs", **query)
        said = dict(zip(page.ids, (row[-1] for row in page.rows), strict=True))
        for id, why in expected.items():
            assert why in said[id], (query, why, said[id])
    for id, why in expected.items():
        assert why.split(" (")[0] in visitor.get(f"/dashboard/jobs/{id}").said


def test_a_strict_job_that_has_started_goes_before_one_that_is_free(conn, visitor):
    first = a_job(conn, "other", key="user:1", run_at="-1 minute")
    strict = a_job(conn, "other", key="user:1", strict_key=True, attempt=1)
    conn.execute("update tick.jobs set waits_for = null")
    rows = conn.execute(statements("dashboard")["obstacles"], {"ids": [first, strict]}).fetchall()
    assert {row[0]: row[1] for row in rows} == {first: strict, strict: None}


def test_what_stood_in_the_way_may_be_gone_by_the_time_it_is_looked_for():
    row = {"type": "noop", "waits_for": None, "run_at": datetime.now(UTC), "failures": 0, "losses": 0, "lane": None}
    later = row["run_at"] + timedelta(seconds=1)
    for waits_for, why in {
        "key": "behind another job of its key",
        "job": "for a job that is no longer there",
        "group": "for 0 jobs of its group to end",
    }.items():
        assert waiting.reason(row | {"waits_for": waits_for}, None, later, {"noop"}).text == why
    assert waiting.reason(row, None, later, {"noop"}).text == "due: the next tick takes it"


# One job


def test_the_page_of_a_dead_job_tells_its_whole_story(conn, visitor, settings):
    @tick.job(max_attempts=2, backoff=["1s"])
    def charge(invoice: int, card_token: str):
        raise ValueError(f"no invoice {invoice}")

    with conn.transaction():
        id = charge.using(
            key="user:1", idempotency_key="invoice-7", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        ).enqueue(conn, invoice=7, card_token="tok_secret")
    while job(conn, id)["status"] != "dead":
        conn.execute("update tick.jobs set run_at = now() where id = %s", [id])
        run_tick(settings)
    page = visitor.get(f"/dashboard/jobs/{id}")
    for part in ("charge job", "dead", "Attempt 1 failed", "Attempt 2 failed", "ValueError: no invoice 7", 'raise ValueError(f"no invoice {invoice}")',
                 "Idempotency key invoice-7", "a" * 32, "Dead: it is not tried again by itself", "user:1", "in a tick of",
                 '"invoice": 7', masking.MASK):  # fmt: skip
        assert part in page.said, part
    assert "tok_secret" not in page.response.text
    assert [event.text for event in story.events(_job_row(conn, id))].count("ValueError: no invoice 7") == 2
    assert page.follow("All dead jobs like this one").ids == [id]


def _job_row(conn, id):
    from psycopg.rows import dict_row

    return (
        conn.cursor(row_factory=dict_row).execute(statements("dashboard")["job"], {"id": id, "most": 1000}).fetchone()
    )


def test_the_page_of_a_done_job_has_its_result_and_what_came_of_it(conn, visitor, settings):
    @tick.job
    def first() -> dict[str, str]:
        return {"sent": "yes", "api_key": "sk-1234"}

    @tick.job
    def second(): ...

    id = first.using(then=second.of()).enqueue(conn)
    run_tick(settings)
    child = conn.execute("select id from tick.jobs where parent_id = %s", [id]).fetchone()[0]
    page = visitor.get(f"/dashboard/jobs/{id}")
    assert '"sent": "yes"' in page.said
    assert "sk-1234" not in page.response.text
    assert f"Followed by {child} second done" in page.said
    assert f"Follows {id} first done" in page.follow(str(child)).said


def test_the_page_of_a_groups_last_job_has_its_members_and_theirs_has_it(conn, visitor):
    @tick.job
    def part(n: int): ...

    @tick.job
    def whole(): ...

    last, *members = tick.group(conn, [part.of(n=n) for n in range(3)], then=whole.of())
    page = visitor.get(f"/dashboard/jobs/{last}")
    assert "3 of them have not ended" in page.said
    assert all(f"{member} part pending" in page.said for member in members)
    assert f"Of the group that ends with {last} whole pending" in page.follow(str(members[1])).said


def test_a_group_of_thousands_is_cut_short(conn, visitor):
    last = a_job(conn, waits_for="group", waits=story.MOST_KIN + 1)
    conn.execute(
        "insert into tick.jobs (type, group_id) select 'part', %s from generate_series(1, %s)",
        [last, story.MOST_KIN + 1],
    )
    assert "and more" in visitor.get(f"/dashboard/jobs/{last}").said


@pytest.mark.parametrize(("before", "after"), [(0, 0), (3_000, 3_000), (0, 30_000), (20_000, 0)])
def test_the_callbacks_of_an_end_are_found_among_the_jobs_of_that_time(conn, visitor, before, after):
    id = a_job(
        conn,
        "noop",
        "running",
        callback_url="https://example.com/hook",
        on_dead_url="https://example.com/dead?token=geheim",
    )
    many(conn, before, minutes=30)
    conn.execute(
        "update tick.jobs set status = 'dead', finished_at = now(), lease_expires_at = null where id = %s", [id]
    )
    deliveries = [
        row[0] for row in conn.execute("select id from tick.jobs where type = 'tick.callback' order by id").fetchall()
    ]
    conn.execute(
        "insert into tick.jobs (type, created_at) select 'noop', now() + n * interval '1 s' from generate_series(1, %s) n",
        [after],
    )
    page = visitor.get(f"/dashboard/jobs/{id}")
    assert len(deliveries) == 2
    for delivery in deliveries:
        assert f"{delivery} pending job.dead to" in page.said
    assert "geheim" not in page.response.text


def test_callbacks_that_are_not_there_are_said_to_be_missing(conn, visitor):
    waits = a_job(conn, callback_url="https://example.com/hook")
    assert "They are sent when it has ended" in visitor.get(f"/dashboard/jobs/{waits}").said
    lost = a_job(conn, "noop", "done", callback_url="https://example.com/hook")
    assert "cannot be found" in visitor.get(f"/dashboard/jobs/{lost}").said


def test_the_page_of_a_running_job_has_its_progress_and_its_lease(conn, visitor):
    id = a_job(
        conn,
        "noop",
        "running",
        progress={"done": 40, "total": 100, "note": "page 4", "at": "2026-11-21T00:00:00+00:00"},
    )
    page = visitor.get(f"/dashboard/jobs/{id}")
    assert "40 of 100 · page 4" in page.said
    assert page.one("progress").attributes["value"] == "40"
    assert "Its lease ends in" in page.said
    for odd in (
        {"done": "x", "total": None, "note": 7},
        {"done": 5, "total": 0, "note": ""},
        {"done": None, "total": {}, "note": None},
        {"note": 7},
        {"done": 1, "note": 7},
        [1, 2],
        "half",
        7,
    ):
        conn.execute("update tick.jobs set progress = %s where id = %s", [json.dumps(odd), id])
        assert visitor.get(f"/dashboard/jobs/{id}").status == 200
        assert visitor.get("/dashboard").status == 200


def test_a_progress_or_errors_of_another_make_do_not_break_the_page(conn, visitor):
    id = a_dead_job(
        conn,
        errors=[
            "text",
            7,
            None,
            {"error": "only"},
            {"at": "never", "attempt": "one", "error": "e", "traceback": None},
            [1],
        ],
    )
    conn.execute("update tick.jobs set progress = '{}' where id = %s", [id])
    page = visitor.get(f"/dashboard/jobs/{id}")
    assert page.status == 200
    assert "only" in page.said


@pytest.mark.parametrize("id", ["0", "999999", "9" * 30, "-1", "x", "1e3", "%31%00"])
def test_an_id_that_no_job_has_is_not_found(visitor, id):
    page = visitor.get(f"/dashboard/jobs/{id}")
    assert page.status == 404
    token = visitor.csrf()
    for action in ("replay", "cancel", "run-now", "edit"):
        assert visitor.send("post", f"/dashboard/jobs/{id}/{action}", {"csrf": token}).status == 404


def test_an_error_of_a_megabyte_and_an_emoji_for_a_type_are_readable(conn, visitor):
    error = "Boom: " + "🔥" * 1_000_000
    id = a_dead_job(
        conn,
        "🦄 émoji",
        error,
        errors=[{"attempt": 1, "at": "2026-11-21T00:00:00+00:00", "error": error, "traceback": error}],
    )
    page = visitor.get(f"/dashboard/jobs/{id}")
    assert page.status == 200
    assert len(page.response.content) < 3_000_000
    assert "🦄 émoji" in page.said
    assert "of 1,000,006 characters" in page.said
    assert visitor.get("/dashboard/jobs").ids == [id]
    assert visitor.get("/dashboard/jobs", type="🦄 émoji").ids == [id]
    assert len(visitor.get("/dashboard/dead").response.content) < 100_000


# The buttons


def test_a_dead_job_is_replayed(conn, visitor):
    id = a_dead_job(conn)
    page = visitor.get(f"/dashboard/jobs/{id}").press("Replay")
    assert page.path == f"/dashboard/jobs/{id}"
    assert "It was replayed: it is pending now." in page.said
    row = job(conn, id)
    assert (row["status"], row["failures"], row["attempt"], row["finished_at"]) == ("pending", 0, 5, None)
    assert "It was replayed" not in visitor.get(f"/dashboard/jobs/{id}").said


def test_a_pending_job_is_run_now_or_cancelled(conn, visitor):
    now, never = a_job(conn, run_at="+1 hour"), a_job(conn)
    assert "It was made due" in visitor.get(f"/dashboard/jobs/{now}").press("Run now").said
    assert conn.execute("select run_at <= now() from tick.jobs where id = %s", [now]).fetchone() == (True,)
    assert "It was cancelled: it is cancelled now." in visitor.get(f"/dashboard/jobs/{never}").press("Cancel it").said
    assert job(conn, never)["status"] == "cancelled"


def test_a_running_job_is_told_to_stop(conn, visitor):
    id = a_job(conn, "noop", "running")
    page = visitor.get(f"/dashboard/jobs/{id}").press("Cancel it")
    assert "told to stop" in page.said
    assert (job(conn, id)["status"], job(conn, id)["cancel_requested_at"] is not None) == ("running", True)


@pytest.mark.parametrize(
    ("status", "buttons"),
    [
        ("pending", ["Run now", "Cancel it"]),
        ("running", ["Cancel it"]),
        ("done", []),
        ("dead", ["Replay"]),
        ("cancelled", ["Replay"]),
    ],
)
def test_a_job_has_the_buttons_that_its_status_allows(conn, visitor, status, buttons):
    page = visitor.get(f"/dashboard/jobs/{a_job(conn, 'noop', status)}")
    assert page.buttons == buttons
    assert any("Edit" in link.text for link in page.main.all("a")) == (status in ("dead", "cancelled"))


@pytest.mark.parametrize(
    ("button", "status", "meanwhile"),
    [("Replay", "dead", "done"), ("Run now", "pending", "running"), ("Cancel it", "running", "done")],
)
def test_a_button_says_that_somebody_was_faster(conn, visitor, button, status, meanwhile):
    id, other = a_job(conn, "noop", status), a_job(conn, "noop", meanwhile)
    page = visitor.get(f"/dashboard/jobs/{id}")
    row = job(conn, other)
    conn.execute("delete from tick.jobs where id = any(%s)", [[id, other]])
    conn.execute(
        "insert into tick.jobs (id, type, status, tick_id, lease_expires_at, finished_at) overriding system value values (%s, 'noop', %s, %s, %s, %s)",
        [id, meanwhile, NEVER, row["lease_expires_at"], row["finished_at"]],
    )
    page = page.press(button)
    assert f"Nothing was changed: job {id} is {meanwhile}: only a job that is" in page.said
    assert job(conn, id)["status"] == meanwhile


def test_a_change_by_get_does_nothing(conn, visitor):
    id = a_dead_job(conn)
    assert visitor.get(f"/dashboard/jobs/{id}/replay").status == 405
    assert job(conn, id)["status"] == "dead"


# Many at once


def test_the_chosen_jobs_are_changed_after_a_page_that_shows_them(conn, visitor):
    ids = [a_dead_job(conn, f"type{n}") for n in range(3)]
    done = a_job(conn, "noop", "done")
    page = visitor.get("/dashboard/jobs").press("Replay…", id=[ids[0], ids[2], done])
    assert "Replay 2 jobs?" in page.said
    assert "1 of the chosen ones is left out: only dead or cancelled jobs can be replayed" in page.said
    assert page.ids == [ids[0], ids[2]]
    assert statuses(conn) == {"dead": 3, "done": 1}
    page = page.press("Replay 2 jobs")
    assert "2 jobs were replayed." in page.said
    assert [job(conn, id)["status"] for id in ids] == ["pending", "dead", "pending"]


def test_all_that_match_are_changed_after_a_page_that_counts_them(conn, visitor):
    for n in range(60):
        a_dead_job(conn, "charge", f"Declined: {n}")
    other = a_dead_job(conn, "charge", "Timeout")
    page = visitor.get("/dashboard/dead")
    group = next(each for each in page.main.all("article") if "Declined" in each.text)
    assert "60 dead" in " ".join(group.text.split())
    page = visitor.get(next(link.attributes["href"] for link in group.all("a") if "Retry all" in link.text))
    assert "Replay 60 jobs?" in page.said
    assert "60 charge" in page.said
    assert len(page.ids) == 10
    page = page.press("Replay 60 jobs")
    assert "60 jobs were replayed." in page.said
    assert statuses(conn) == {"pending": 60, "dead": 1}
    assert job(conn, other)["status"] == "dead"


def test_all_that_match_without_a_status_are_those_that_it_can_be_done_to(conn, visitor):
    a_job(conn, "greet", "done")
    dead, pending = a_dead_job(conn, "greet"), a_job(conn, "greet", run_at="+1 hour")
    page = visitor.get("/dashboard/jobs", type="greet")
    assert page.press("Replay…", all=1).press("Replay 1 job").status == 200
    assert job(conn, dead)["status"] == "pending"
    assert "Run now 2 jobs?" in (found := page.press("Run now…", all=1)).said
    found.press("Run now 2 jobs")
    assert conn.execute("select run_at <= now() from tick.jobs where id = %s", [pending]).fetchone() == (True,)
    page.press("Cancel…", all=1).press("Cancel 2 jobs")
    assert statuses(conn) == {"done": 1, "cancelled": 2}


def test_ten_thousand_at_a_time_and_the_rest_is_said_to_be_there(conn, visitor):
    many(conn, 10_050, status="dead", error="Boom")
    page = visitor.get("/dashboard/dead")
    assert "1,000+ dead" in page.said
    page = page.follow("Retry all of these")
    assert "Replay 10,000 jobs?" in page.said
    assert "There are more" in page.said
    assert "10,000 jobs were replayed." in page.press("Replay 10,000 jobs").said
    assert statuses(conn) == {"pending": 10_000, "dead": 50}


def test_many_running_jobs_are_told_to_stop(conn, visitor):
    ids = [a_job(conn, "noop", "running") for _ in range(3)]
    visitor.get("/dashboard/jobs", status="running").press("Cancel…", id=ids[:2]).press("Cancel 2 jobs")
    assert [job(conn, id)["cancel_requested_at"] is not None for id in ids] == [True, True, False]


def test_a_bulk_change_says_when_somebody_was_faster(conn, visitor):
    ids = [a_dead_job(conn) for _ in range(3)]
    page = visitor.get("/dashboard/jobs/bulk", do="replay", id=ids)
    conn.execute("update tick.jobs set status = 'pending', finished_at = null where id = %s", [ids[1]])
    assert (
        "2 jobs were replayed. 1 had another status by then: somebody, or a tick, was faster."
        in page.press("Replay 3 jobs").said
    )
    page = visitor.get("/dashboard/jobs/bulk", do="replay", id=ids)
    assert "Nothing to replay" in page.said
    assert page.buttons == []


@pytest.mark.parametrize(
    ("query", "told"),
    [({}, "No such action"), ({"do": "delete", "id": 1}, "No such action"), ({"do": "replay"}, "No jobs were chosen"),
     ({"do": "replay", "id": ["x", "9" * 40]}, "No jobs were chosen"), ({"do": "replay", "all": 1, "status": "pending"}, "Only dead or cancelled jobs"),
     ({"do": "cancel", "all": 1, "status": "lost"}, "No such status")],
)  # fmt: skip
def test_a_bulk_change_that_cannot_be_is_refused(visitor, query, told):
    page = visitor.get("/dashboard/jobs/bulk", **query)
    assert page.status == 422
    assert told in page.said
    assert visitor.send("post", "/dashboard/jobs/bulk", query | {"csrf": visitor.csrf()}).status == 422


# Edit and replay


@dataclass
class Even:
    n: int

    def __post_init__(self):
        if self.n % 2:
            raise ValueError("it is odd")


@pytest.fixture
def charge(empty_registry):
    @tick.job
    def charge(invoice: int, amount: float, card_token: str = ""): ...

    return charge


def test_a_payload_is_mended_and_replayed_and_its_secret_stays_what_it_is(conn, visitor, charge):
    id = a_dead_job(conn, "charge", payload={"invoice": 7, "amount": "12,50", "card_token": "tok_4711"})
    page = visitor.get(f"/dashboard/jobs/{id}").follow("Edit")
    shown = json.loads(page.one("textarea").text)
    assert shown == {"invoice": 7, "amount": "12,50", "card_token": masking.MASK}
    assert "tok_4711" not in page.response.text
    assert "(invoice: int, amount: float, card_token: str = '')" in page.said
    page = page.press("Save and replay", payload=json.dumps(shown | {"amount": 12.5}))
    assert "replayed with the new payload" in page.said
    row = job(conn, id)
    assert (row["status"], row["payload"]) == ("pending", {"invoice": 7, "amount": 12.5, "card_token": "tok_4711"})
    assert (row["attempt"], row["failures"]) == (5, 0)


def test_all_that_is_wrong_with_a_payload_is_told_and_nothing_of_it_is_lost(conn, visitor, charge):
    id = a_dead_job(conn, "charge", payload={"invoice": 7, "amount": 1})
    page = visitor.get(f"/dashboard/jobs/{id}/edit")
    text = '{"invoice": "seven", "amount": [], "cardtoken": "</textarea><script>"}'
    page = page.press("Save and replay", payload=text)
    problems = [item.text.strip() for item in page.one("div", id="problems").all("li")]
    assert problems == [
        "invoice: Expected `int`, got `str`",
        "amount: Expected `float`, got `array`",
        "cardtoken: unknown field; did you mean `card_token`?",
    ]
    assert page.one("textarea").text.removeprefix("\n") == text
    assert job(conn, id)["status"] == "dead"
    assert (
        page.press("Save and replay", payload='{"invoice": 7}').one("div", id="problems").one("li").text.strip()
        == "amount: it is missing"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "it is not JSON"), ("{", "it is not JSON"), ("[1]", "it is not a JSON object"), ('"x"', "it is not a JSON object"),
     ('{"invoice": NaN}', "NaN is no number"), ('{"a": 1e999}', "not a JSON number"), ('{"a": "\\u0000"}', "NUL"), ('{"a": "\\ud800"}', "JSON"),
     ("[" * 50_000, "it is not JSON"), ('{"a": ' * 40 + "1" + "}" * 40, "nested"), ('{"a": "' + "x" * 70_000 + '"}', "bytes of JSON")],
)  # fmt: skip
def test_a_payload_that_postgres_could_not_hold_is_refused(conn, visitor, text, told):
    id = a_dead_job(conn, payload={"a": 1})
    page = visitor.get(f"/dashboard/jobs/{id}/edit").press("Save and replay", payload=text)
    assert told in page.one("div", id="problems").text
    assert (job(conn, id)["status"], job(conn, id)["payload"]) == ("dead", {"a": 1})


def test_without_a_handler_here_a_payload_is_not_checked_against_one(conn, visitor):
    id = a_dead_job(conn, "elsewhere", payload={"a": 1})
    page = visitor.get(f"/dashboard/jobs/{id}/edit")
    assert "not checked" in page.said
    page.press("Save and replay", payload='{"b": "ä🦄"}')
    assert (job(conn, id)["status"], job(conn, id)["payload"]) == ("pending", {"b": "ä🦄"})


def test_an_annotation_that_raises_when_it_is_built_is_told(conn, visitor):
    @tick.job
    def only_even(even: Even): ...

    id = a_dead_job(conn, "only_even", payload={"even": {"n": 1}})
    page = visitor.get(f"/dashboard/jobs/{id}/edit").press("Save and replay")
    assert "it is odd" in page.one("div", id="problems").text


def test_an_edit_says_that_somebody_was_faster_and_keeps_what_was_written(conn, visitor):
    id = a_dead_job(conn, payload={"a": 1})
    page = visitor.get(f"/dashboard/jobs/{id}/edit")
    conn.execute("""update tick.jobs set payload = '{"a": 2}' where id = %s""", [id])
    again = page.press("Save and replay", payload='{"a": 3}')
    assert "somebody has changed the payload since you began" in again.said
    assert '{"a": 3}' in again.one("textarea").text
    assert (job(conn, id)["status"], job(conn, id)["payload"]) == ("dead", {"a": 2})
    assert "replayed with the new payload" in again.press("Save and replay").said
    late = page.press("Save and replay", payload='{"a": 5}')
    assert "only a job that is dead or cancelled can be edited" in late.said
    assert late.one("textarea").text.removeprefix("\n") == '{"a": 5}'
    assert (again.status, late.status) == (409, 409)
    assert job(conn, id)["payload"] == {"a": 3}


def test_of_two_edits_at_once_one_is_written(conn):
    id = a_dead_job(conn, payload={"a": 1})
    (row,) = conn.execute("select md5(payload::text) from tick.jobs where id = %s", [id]).fetchone()
    edits = [
        conn.execute(statements("dashboard")["replay_with"], {"id": id, "payload": f'{{"a": {n}}}', "digest": row})
        for n in (2, 3)
    ]
    assert [edit.rowcount for edit in edits] == [1, 0]
    conn.execute("update tick.jobs set status = 'dead', finished_at = now() where id = %s", [id])
    assert (
        conn.execute(statements("dashboard")["replay_with"], {"id": id, "payload": '{"a": 4}', "digest": row}).rowcount
        == 0
    )
    assert job(conn, id)["payload"] == {"a": 2}


@pytest.mark.parametrize("status", ["pending", "running", "done"])
def test_only_a_job_that_will_not_run_by_itself_is_edited(conn, visitor, status):
    page = visitor.get(f"/dashboard/jobs/{a_job(conn, 'noop', status)}/edit")
    assert page.status == 409
    assert "only a job that is dead or cancelled can be edited and replayed" in page.said


SECRETS = {
    "name": "Ada",
    "password": "p1",
    "cards": [{"label": "a", "card_token": "t1"}, {"label": "b", "card_token": "t2"}],
    "url": "postgres://ada:geheim@db/x",
    "nested": {"api_key": {"deep": 1}, "empty_token": ""},
}


def _restored(change):
    shown = masking.mask(SECRETS)
    given = json.loads(json.dumps(shown))
    change(given)
    return editing.restored(given, shown, SECRETS)


def test_what_was_masked_stays_what_it_is_wherever_the_rest_is_changed():
    assert _restored(lambda given: None) == SECRETS
    assert _restored(lambda given: given.update(name="Bo")) == SECRETS | {"name": "Bo"}
    assert _restored(lambda given: given.update(password="new")) == SECRETS | {"password": "new"}
    assert _restored(lambda given: given.pop("password")) == {k: v for k, v in SECRETS.items() if k != "password"}
    assert _restored(lambda given: given["nested"].update(more=1))["nested"] == SECRETS["nested"] | {"more": 1}
    # Items of a list are found where they are now; one that was changed itself cannot be told from another.
    assert _restored(lambda given: given["cards"].reverse())["cards"] == SECRETS["cards"][::-1]
    assert _restored(lambda given: given["cards"].pop(0))["cards"] == SECRETS["cards"][1:]
    changed = _restored(lambda given: given["cards"][0].update(label="c"))
    assert editing.masked(changed) == ["cards[0].card_token"]
    assert editing.masked(_restored(lambda given: given.update(another=masking.MASK))) == ["another"]


def test_an_edit_from_one_to_true_is_one():
    for new, old in (({"a": True}, {"a": 1}), ({"a": [1.0]}, {"a": [1]}), ({"a": {"b": 0}}, {"a": {"b": False}})):
        assert json.dumps(editing.restored(new, old, old)) == json.dumps(new)


def test_members_whose_names_look_alike_are_told_and_never_mixed_up():
    real = {"api_key=aaaaaa": 1, "api_key=bbbbbb": 2, "password": "p", "more": 3}
    shown = masking.mask(real)
    assert len(shown) == 3
    assert editing.restored(dict(shown), shown, real) == real
    changed = editing.restored(shown | {"more": 4}, shown, real)
    assert editing.masked(changed) == [f"api_key={masking.MASK}", "password"]


def test_items_that_look_alike_are_told_once_one_has_gone():
    real = {"users": [{"password": "a"}, {"password": "b"}, {"password": "c"}]}
    shown = masking.mask(real)
    assert editing.masked(editing.restored({"users": shown["users"][:2]}, shown, real)) == [
        "users[0].password",
        "users[1].password",
    ]
    replaced = editing.restored({"users": [shown["users"][0], {"password": "new"}, shown["users"][2]]}, shown, real)
    assert replaced == {"users": [{"password": "a"}, {"password": "new"}, {"password": "c"}]}
    alike = {"users": [{"password": "a"}] * 3}
    assert editing.restored({"users": shown["users"][:2]}, shown, alike) == {"users": [{"password": "a"}] * 2}


def test_a_payload_of_many_small_numbers_is_saved_as_it_is(conn, visitor):
    payload = {"a": [[list(range(100))] for _ in range(200)]}
    id = a_dead_job(conn, payload=payload)
    page = visitor.get(f"/dashboard/jobs/{id}/edit")
    indented = json.dumps(payload, indent=2)
    assert len(page.one("textarea").text) < len(indented)
    assert "replayed with the new payload" in page.press("Save and replay", payload=indented).said
    assert job(conn, id)["payload"] == payload


def test_this_deployments_own_secrets_are_masked_too(conn, visitor):
    own = "another-long-secret"
    id = a_dead_job(
        conn,
        payload={"note": f"sent with {own}", "n": 1},
        error=f"ValueError: refused {own}",
        errors=[{"attempt": 1, "at": "2026-11-21T00:00:00+00:00", "error": "E", "traceback": "x" * 262_100 + own}],
        result={"said": own},
    )
    for path in (f"jobs/{id}", "jobs", "dead", f"jobs/{id}/edit"):
        page = visitor.get(f"/dashboard/{path}")
        assert masking.MASK in page.response.text
        assert "another-long" not in page.response.text
    page = page.press("Save and replay", payload=page.one("textarea").text.replace('"n": 1', '"n": 2'))
    assert job(conn, id)["payload"] == {"note": f"sent with {own}", "n": 2}


def test_a_secret_is_masked_before_a_text_is_cut():
    for length in range(shown.LONGEST_TEXT - 30, shown.LONGEST_TEXT + 1):
        assert "long" not in shown.mask_text("x" * length + " another-long-secret", ["another-long-secret"])
    assert "long" not in shown.first_line("x" * 190 + " another-long-secret", ["another-long-secret"])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from(["x", "", "tok_1", "Bearer abcdefgh", "password=geheim"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "token", "password", "api_key=zzzzzz", "card_id"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "token", "b", "secret_key", "password=x"]), json_values, max_size=4))
def test_a_payload_that_is_left_alone_is_the_same_afterwards(payload):
    shown = masking.mask(payload)
    assert editing.restored(json.loads(json.dumps(shown)), shown, payload) == payload
    more = editing.restored({**json.loads(json.dumps(shown)), "new": 1}, shown, payload)
    assert more == {**payload, "new": 1}


def test_a_mask_that_stands_for_nothing_is_refused_and_one_that_was_always_there_is_not(conn, visitor):
    id = a_dead_job(conn, payload={"note": masking.MASK, "a": 1})
    page = visitor.get(f"/dashboard/jobs/{id}/edit").press(
        "Save and replay", payload=json.dumps({"note": masking.MASK, "b": masking.MASK})
    )
    assert [item.text.strip() for item in page.one("div", id="problems").all("li")] == [f"b: {editing.LOST}"]
    page.press("Save and replay", payload=json.dumps({"note": masking.MASK, "a": 2}))
    assert job(conn, id)["payload"] == {"note": masking.MASK, "a": 2}


# Dead letters


def test_dead_jobs_are_grouped_by_type_and_kind_of_error(conn, visitor):
    for n in range(5):
        a_dead_job(conn, "charge", f"Refused: no. {n} of token=geheim{n}", finished_at=f"-{n + 1} hours")
    a_dead_job(conn, "sync", "Timeout", finished_at="-1 minute")
    page = visitor.get("/dashboard/dead")
    groups = [" ".join(group.text.split()) for group in page.main.all("article")]
    assert len(groups) == 2
    assert groups[0].startswith("sync 1 dead Timeout 1 min ago")
    assert groups[1].startswith("charge 5 dead Refused: no. 0 of token=")
    assert "first 5 h ago, last 1 h ago" in groups[1]
    assert "geheim" not in page.response.text
    assert (
        len(
            visitor.get(
                next(a.attributes["href"] for a in page.main.all("article")[1].all("a") if a.text == "Show the jobs")
            ).ids
        )
        == 5
    )


def test_the_pages_are_there_whatever_the_schema_is_called(fresh_url, settings):
    async def migrate():
        async with database.connect(fresh_url) as connection:
            await database.migrate(connection, "other")

    asyncio.run(migrate())
    with psycopg.connect(fresh_url, autocommit=True) as connection:
        (id,) = connection.execute(
            "insert into other.jobs (type, status, finished_at, last_error, fingerprint, callback_url)"
            " values ('noop', 'dead', now(), 'Boom', 'Boom', 'https://example.com/hook') returning id"
        ).fetchone()
        connection.execute(
            "insert into other.jobs (type, payload) values ('tick.callback', jsonb_build_object('data', jsonb_build_object('id', %s::int)))",
            [id],
        )
    with visiting(replace(settings, database_url=fresh_url, schema="other")) as visitor:
        page = visitor.get("/dashboard/dead").follow("Show the jobs")
        assert page.ids == [id]
        page = page.follow(str(id))
        assert "cannot be found" not in page.said
        assert "it is pending now" in page.press("Replay").said
        assert sorted(visitor.get("/dashboard/jobs", status="pending").ids) == [id, id + 1]
        assert visitor.get("/dashboard/schedules").status == 200


def test_no_dead_jobs_are_said_to_be_none_and_ones_without_a_kind_are_not_hidden(conn, visitor):
    assert "Nothing is dead" in visitor.get("/dashboard/dead").said
    id = a_job(conn, "noop", "dead")
    page = visitor.get("/dashboard/dead")
    assert id in page.follow("how").ids if "Show them" in page.said else "noop" in page.said


# What is hostile


def test_nothing_of_what_jobs_hold_becomes_markup(conn, visitor):
    assert len(HOSTILE) >= 60
    for text in HOSTILE:
        a_dead_job(conn, text[:100], text, key=text, schedule=text, idempotency_key=text, payload={text: text}, callback_url="https://example.com/",
                   result={text: [text]}, traceparent=text[:60], progress={"done": text, "total": text, "note": text},
                   errors=[{"attempt": 1, "at": text, "error": text, "traceback": f"{text}\n{text}"}])  # fmt: skip
    ids = [row[0] for row in conn.execute("select id from tick.jobs order by id").fetchall()]
    tags = Counter()
    pages = [
        visitor.get("/dashboard/dead"),
        visitor.get("/dashboard/jobs"),
        visitor.get("/dashboard/jobs/bulk", do="replay", id=ids),
    ]
    pages += [
        visitor.get("/dashboard/jobs", status="dead", text=text, key=text, type=text, schedule=text) for text in HOSTILE
    ]
    pages += [visitor.get(f"/dashboard/jobs/{id}{more}") for id in ids for more in ("", "/edit")]
    pages += [
        visitor.get(f"/dashboard/jobs/{ids[0]}/edit").press("Save and replay", payload=text) for text in HOSTILE[:5]
    ]
    for page in pages:
        assert page.status in (200, 422), page.said
        for element in page:
            tags[element.tag] += 1
            assert not [
                name
                for name in element.attributes
                if name.startswith("on") or name in ("style", "srcdoc", "formaction")
            ]
            for name in ("href", "src", "action"):
                assert (element.attributes.get(name) or "/").startswith(("/", "?", "#")), element.attributes
                assert not (element.attributes.get(name) or "/").startswith("//")
    assert not {"iframe", "object", "embed", "svg", "math", "style", "base"} & set(tags)
    assert all(
        script.attributes.get("src", "").startswith("/dashboard/static/") and not script.text.strip()
        for page in pages
        for script in page.all("script")
    )
    assert all(image.attributes["src"].startswith("/dashboard/static/") for page in pages for image in page.all("img"))
