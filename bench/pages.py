"""What pages, metrics and alerts cost the database, with a million jobs in the table: each statement that they ask.

    uv run python -m bench.pages
    uv run python -m bench.pages --quick

It starts its own Postgres servers and removes them. `docs/benchmarks.md` says what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psycopg

import tick
from tick.database import statements
from tick.history import BUCKETS

from .dataset import create
from .questions import Answer, Question, Server, Verdict

BUDGET = 50.0
"""Milliseconds of database time that a page may take."""
FILES = ("facts", "dashboard", "dashboard_now", "verdict", "explain", "retention")
"""The .sql files whose statements are asked, as far as they are there."""
UNASKED = ("facts.by_type a week", "retention.")
"""How the names of statements begin that no page asks for: these may take longer."""
TYPES = 300
GROUPS = 200
TICKS = 130_000

# What there is of each status, by the size of the benchmark; the rest is done.
SHARES = {"due": 0.06, "later": 0.02, "dead": 0.015, "cancelled": 0.004, "running": 0.001}

# The past 60 days in the order they happened; a tenth is of a schedule, and has a window each.
FINISHED = """
insert into tick.jobs (type, payload, run_at, created_at, started_at, finished_at, tick_id, attempt, failures, status,
                       schedule, "window", last_error, fingerprint, errors)
select 'type_' || n %% %(types)s, jsonb_build_object('user_id', n, 'template', 'weekly-report', 'audience', 'team'),
       at, at, at + interval '1 s', at + interval '2 s', md5((n / 10)::text)::uuid, 1 + (status = 'dead')::int,
       (status = 'dead')::int, status, case when n / %(types)s %% 10 = 7 then 'schedule-' || n %% %(types)s end,
       case when n / %(types)s %% 10 = 7 then at end, error, tick.fingerprint(error),
       case when status = 'dead' then jsonb_build_array(jsonb_build_object(
            'attempt', 1, 'at', at, 'error', error,
            'traceback', repeat('  File "jobs.py", line 7, in send' || chr(10), 20)))
            else '[]' end
  from (select n, at, status, case when status = 'dead'
               then 'ConnectionError: the server ' || chr(97 + n %% %(groups)s %% 26)
                    || repeat('x', n %% %(groups)s / 26) || ' closed after ' || n || ' bytes' end as error
          from (select n, now() - interval '60 days' * (1 - n / %(rows)s::float8) as at,
                       case when random() < %(dead)s then 'dead' when random() < %(cancelled)s then 'cancelled'
                            else 'done' end as status
                  from generate_series(1, %(rows)s) n) timed) numbered
"""
# Some have keys, some have been tried before, some a priority; and some have no handler.
PENDING = """
insert into tick.jobs (type, payload, run_at, priority, failures, attempt, key)
select 'type_' || n %% %(types)s, jsonb_build_object('user_id', n), now() + {when} * n / %(rows)s, n %% 4,
       (n %% 9 = 0)::int, (n %% 9 = 0)::int, case when n %% 20 = 0 then 'user:' || n %% 100 end
  from generate_series(1, %(rows)s) n
"""
RUNNING = """
insert into tick.jobs (type, status, attempt, tick_id, started_at, lease_expires_at)
select 'type_' || n %% %(types)s, 'running', 1, gen_random_uuid(), now(), now() + interval '1 minute' * (n %% 50)
  from generate_series(1, %(rows)s) n
"""
TICKED = """
insert into tick.ticks (id, trigger, scheduled_for, started_at, finished_at, budget, used, claimed, done, materialised,
                        error)
select md5((n)::text)::uuid, (array['vercel', 'github', 'http'])[1 + n %% 7 / 3], at - interval '2 s', at,
       at + interval '1 s', 50, 1, n %% 3, n %% 3, n %% 2, case when n %% 1000 = 0 then 'no schedules file' end
  from (select n, now() - interval '1 minute' * (%(rows)s - n) as at from generate_series(1, %(rows)s) n) timed
"""
# Every type has run in every hour of a month, in every other ten minutes of a week, and in each tenth minute of a day.
COUNTED = """
insert into tick.stats (span, at, type, done, retried, dead, run_seconds, wait_seconds, runs, waits)
select span, at, type, 9, 1, n %% 50 / 49, 3, 4, %(runs)s, %(runs)s
  from (select n, '' as type from generate_series(0, 0) n union all
        select n, 'type_' || n from generate_series(0, %(types)s - 1) n) types
 cross join lateral (
       select 60 as span, to_timestamp(floor(extract(epoch from now()) / 60) * 60) - interval '1 minute' * i as at
         from generate_series(0, 1439) i where type = '' or i %% 10 = n %% 10
       union all
       select 600, to_timestamp(floor(extract(epoch from now()) / 600) * 600) - interval '10 minutes' * i
         from generate_series(0, 1151) i where type = '' or i %% 2 = n %% 2
       union all
       select 3600, date_trunc('hour', now()) - interval '1 hour' * i from generate_series(0, 839) i
       union all
       select 0, '-infinity') spans
"""
SCHEDULED = """
insert into tick.files (hash, last_seen) values ('file', now());
insert into tick.schedules (name) select 'schedule-' || n from generate_series(0, {types} - 1) n;
insert into tick.definitions (schedule, hash, first_seen, cursor)
select 'schedule-' || n, 'definition', now() - interval '60 days', now() from generate_series(0, {types} - 1) n;
insert into tick.entries (file, schedule, definition, body, next_window)
select 'file', 'schedule-' || n, 'definition', jsonb_build_object('cron', '0 8 * * *', 'type', 'type_' || n),
       now() + interval '1 hour' from generate_series(0, {types} - 1) n;
insert into tick.skips (schedule, first_window, last_window, count, reason, tick_id, recorded_at)
select 'schedule-' || n % {types}, at, at, 1, 'overlap', gen_random_uuid(), at
  from (select n, now() - interval '1 hour' * n as at from generate_series(1, 10000) n) timed;
"""

DAY_AGO = datetime.now(UTC) - timedelta(days=1)
UUID = "c4ca4238-a0b9-2382-0dcc-509a6f75849b"
NAMES = [f"type_{number}" for number in range(0, TYPES, 2)]
VALUES: dict[str, Any] = {
    "age": 60 * 86400.0,
    "at": DAY_AGO,
    "back": 86400.0,
    "calls": 10,
    "count": 1_000_000,
    "dead": 90 * 86400.0,
    "dry_run": True,
    "each": 20,
    "full": "{}",
    "fingerprint": None,
    "id": 500_000,
    "ids": [500_000, 500_001],
    "limit": 60,
    "look": 20_000,
    "most": 10_000,
    "others": "_other",
    "period": 60.0,
    "schedule": "schedule-7",
    "schedules": json.dumps([{"schedule": f"schedule-{n}", "type": f"type_{n}"} for n in range(60)]),
    "seconds": 3600.0,
    "skip": 0,
    "text": "%no such text%",
    "since": DAY_AGO,
    "span": 600,
    "status": "dead",
    "milliseconds": "10000",
    "tick": UUID,
    "ticks": 90 * 86400.0,
    "idle_ticks": 7 * 86400.0,
    "type": "type_7",
    "types": NAMES,
    "window": DAY_AGO,
    "windows": [DAY_AGO],
}
"""What is bound to a parameter of this name; null to any other."""
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "facts.recent_ticks": {"the latest": {}, "of one trigger, long ago": {"trigger": "http", "before": DAY_AGO}},
    "facts.chart": {
        "an hour, of all": {"span": 60, "type": ""},
        "a day": {},
        "a week": {"span": 3600, "since": DAY_AGO - timedelta(days=6)},
    },
    "facts.by_type": {
        "an hour": {"span": 60, "since": DAY_AGO + timedelta(hours=23)},
        "a day": {},
        "a week": {"span": 3600, "since": DAY_AGO - timedelta(days=6)},
    },
    "facts.counters": {"": {"limit": 100}},
    "facts.dead_groups": {"": {"limit": 100, "most": 1000}},
    "dashboard.ended_jobs": {"dead": {"text": None}, "by text": {"look": 5000}},
    "dashboard.jobs_of_schedule": {"": {"look": 5000}},
    "dashboard.newest_jobs": {
        "": {"status": None, "type": None, "schedule": None, "text": None},
        "of a rare status": {"type": None, "schedule": None, "text": None},
        "by text": {"status": None, "type": None, "schedule": None, "look": 5000},
    },
    "dashboard.pending_jobs": {"": {"look": 2000, "type": None, "text": None}, "by text": {"look": 500}},
    "dashboard.running_jobs": {"": {"look": 2000, "text": None}},
    "dashboard.skips_of": {"": {"schedules": [f"schedule-{n}" for n in range(60)]}},
    "dashboard_now.count_try": {"": {"caller": "127.0.0.1"}},
    "dashboard_now.jobs_of_tick": {"": {"id": UUID}},
    "dashboard_now.tick": {"": {"id": UUID}},
    "dashboard_now.ticks": {"": {"kind": "all", "look": 52}, "with trouble": {"kind": "trouble", "look": 5000}},
    "retention.full_types": {"of a full type": {"count": 100}},
}
"""Parameters of the cases of a statement that has more than one."""


class Cost(NamedTuple):
    """What a statement takes: milliseconds to plan and run, the median and the most; pages touched, rows returned."""

    milliseconds: float
    most: float
    pages: int
    rows: int


def seed(url: str, rows: int) -> None:
    """Fill all tables, as if the past 60 days had made them."""
    ticks = TICKS * rows // 1_000_000
    counts = {name: int(rows * share) for name, share in SHARES.items()}
    finished = rows - counts["due"] - counts["later"] - counts["running"]
    params = {"types": TYPES, "groups": GROUPS, "dead": SHARES["dead"], "cancelled": SHARES["cancelled"]}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FINISHED, params | {"rows": finished})
        connection.execute(PENDING.format(when="interval '-1 hour'"), params | {"rows": counts["due"]})
        connection.execute(PENDING.format(when="interval '30 days'"), params | {"rows": counts["later"]})
        connection.execute(RUNNING, params | {"rows": counts["running"]})
        connection.execute(TICKED, {"rows": ticks})
        runs = [number % 7 if 5 < number < 25 else 0 for number in range(BUCKETS)]
        connection.execute(COUNTED, {"types": TYPES, "runs": runs})
        connection.execute(SCHEDULED.format(types=TYPES))
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")


def asked() -> list[tuple[str, str, dict[str, Any]]]:
    """Each statement by what it is called, with its parameters."""
    folder = Path(tick.__file__).parent
    found = []
    for file in FILES:
        if (folder / f"{file}.sql").exists():
            for name, statement in statements(file).items():
                cases = CASES.get(f"{file}.{name}", {"": {}})
                found += [(f"{file}.{name} {case}".strip(), statement, given) for case, given in cases.items()]
    return found


def bound(statement: str, given: dict[str, Any]) -> dict[str, Any]:
    """A value for each parameter of the statement."""
    return {name: given.get(name, VALUES.get(name)) for name in re.findall(r"%\((\w+)\)s", statement)}


def cost(connection: psycopg.Connection, statement: str, params: dict[str, Any], rounds: int) -> Cost:
    """Measured by the server; what the statement writes is taken back. The first round does not count."""
    took, plan = [], {}
    for _ in range(rounds + 1):
        with connection.transaction(force_rollback=True):
            # A sequential scan that begins where the last one ended may find at once what it would look for all over.
            connection.execute("select set_config('jit', 'off', true), set_config('synchronize_seqscans', 'off', true)")
            explained = psycopg.ClientCursor(connection).execute(
                f"explain (analyze, buffers, timing off, format json) {statement}", params
            )
            ((plans,),) = explained.fetchall()
        (plan,) = plans
        took.append(plan["Planning Time"] + plan["Execution Time"])
    top = plan["Plan"]
    pages = top["Shared Hit Blocks"] + top["Shared Read Blocks"]
    return Cost(round(median(took[1:]), 2), round(max(took[1:]), 2), pages, int(top["Actual Rows"]))


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """Every statement, with so many jobs in the table."""
    url = create(server.urls, "pages")
    print(f"  {args.size:,} jobs, {args.rounds} rounds", flush=True)
    seed(url, args.size)
    costs: dict[str, Cost] = {}
    with psycopg.connect(url, autocommit=True) as connection:
        for name, statement, given in asked():
            try:
                costs[name] = cost(connection, statement, bound(statement, given), args.rounds)
            except psycopg.Error as error:
                print(f"  {name:<44} left out: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            print(line(name, costs[name]), flush=True)
    figures = {"jobs": args.size, "statements": {name: each._asdict() for name, each in costs.items()}}
    return Answer(figures, [within_the_budget(costs)])


def line(name: str, each: Cost) -> str:
    """One statement for the terminal."""
    over = "  over the budget" if each.milliseconds > BUDGET else ""
    return (
        f"  {name:<44} {each.milliseconds:8.2f} ms  ({each.most:8.2f} at most)"
        f" {each.pages:>8,} pages {each.rows:>6,} rows{over}"
    )


def within_the_budget(costs: dict[str, Cost]) -> Verdict:
    """Whether any statement of a page takes too long."""
    of_pages = {name: each.milliseconds for name, each in costs.items() if not name.startswith(UNASKED)}
    slowest = max(of_pages, key=lambda name: of_pages[name])
    measured = f"{of_pages[slowest]:.1f} ms at most, {slowest}"
    return Verdict("a statement of a page", f"<= {BUDGET:g} ms", measured, of_pages[slowest] <= BUDGET)


question = Question("pages", __doc__ or "", ask, sizes={"size": (1_000_000, 20_000), "rounds": (9, 2)})

if __name__ == "__main__":
    question.main()
