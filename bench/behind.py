"""What stands behind a drain costs it: a million jobs that wait, ten million that are done, dead rows that cannot go.

    uv run python -m bench.behind
    uv run python -m bench.behind --only pending dead --history 1000000

One tick drains some thousand jobs from a table with much behind them and from one with nothing, in turn. It starts
its own Postgres servers and removes them. `docs/benchmarks.md` says what the figures mean.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from tick import processor
from tick.config import Settings
from tick.places import Stop

from .dataset import INSERT_FINISHED, TYPE, create
from .questions import Answer, Question, Server, Verdict, at_least
from .rounds import Contender, Sample, Series, alternate, line, shown
from .ticks import noops

CHUNK = 1_000_000
PAYLOAD = "jsonb_build_object('user_id', n, 'template', 'weekly-report', 'audience', 'team')"
INSERT = f"""
insert into tick.jobs (type, payload, priority, run_at)
select '{TYPE}', {PAYLOAD}, {{priority}}, now() {{when}} + n * interval '1 ms'
  from generate_series(%(first)s::bigint, %(last)s::bigint) n
"""
FRESH = INSERT.format(priority=0, when="- interval '1 day'")
"""Due before everything else that is alive, and after what is dead."""
LATER = INSERT.format(priority=0, when="- interval '12 hours'")
DEAD = INSERT.format(priority=0, when="- interval '2 days'")
CLAIM_DEAD = """
update tick.jobs set status = 'running', attempt = 1, tick_id = gen_random_uuid(), started_at = now(),
       lease_expires_at = now() + interval '54 s'
"""
SETTLE_DEAD = "update tick.jobs set status = 'done', finished_at = now(), lease_expires_at = null"


class Behind(NamedTuple):
    """Something behind a drain: the statement that makes it, and the share of an empty table's rate it should leave."""

    told: str
    insert: str
    goal: float


BEHIND = {
    "pending": Behind("pending, due after them", LATER, 0.95),
    "history": Behind("done", INSERT_FINISHED.format(table="tick.jobs"), 0.95),
    "delayed": Behind("delayed at the top priority", INSERT.format(priority=9, when="+ interval '7 days'"), 0.95),
    "dead": Behind("settled under another's snapshot", "", 0.9),
}


@contextmanager
def indexed_afterwards(connection: psycopg.Connection) -> Iterator[None]:
    """Do without the indexes that no constraint needs while much is loaded."""
    indexes = connection.execute(
        "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index"
        " where indrelid = 'tick.jobs'::regclass and not indisprimary"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(sql.SQL("drop index {}").format(sql.SQL(name)))
    yield
    connection.execute("set maintenance_work_mem = '1GB'")
    for _, definition in indexes:
        connection.execute(definition)


class Ground:
    """A table with so much of something behind, and room in front for what is drained."""

    def __init__(self, urls: str, name: str, insert: str = "", count: int = 0) -> None:
        self.url, self.count = create(urls, name), count
        self.registry = noops()
        # The first tick of a project makes it known.
        asyncio.run(self.until(1))
        with psycopg.connect(self.url, autocommit=True) as connection:
            with indexed_afterwards(connection):
                self.load(connection, insert)
            connection.execute("vacuum (freeze, analyze) tick.jobs")

    def load(self, connection: psycopg.Connection, insert: str) -> None:
        """Put in what stands behind."""
        for first in range(1, self.count + 1, CHUNK):
            last = min(first + CHUNK - 1, self.count)
            connection.execute(insert, {"first": first, "last": last, "rows": self.count})
        connection.execute("select setval(pg_get_serial_sequence('tick.jobs', 'id'), %s)", [max(self.count, 1)])

    def fill(self, jobs: int) -> None:
        """Replace what the last round left in front, and let the server come to rest."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("truncate tick.ticks, tick.types")
            connection.execute("delete from tick.jobs where id > %s", [self.count])
            connection.execute(FRESH, {"first": 1, "last": jobs})
            connection.execute("vacuum (index_cleanup on, truncate off, analyze) tick.jobs")
            connection.execute("checkpoint")

    async def until(self, jobs: int) -> Sample:
        """Jobs a second of a tick that is stopped once so many are done, from its connection until then."""
        stop, ended = Stop(), dict[int, float]()

        def look(report: processor.Report) -> None:
            if report.done >= jobs and not ended:
                ended[report.done] = time.perf_counter()
                stop()

        started = time.perf_counter()
        settings = Settings(database_url=self.url, schedules_path=Path("no schedules file"))
        await processor.process_tick(settings, self.registry, stop=stop, progress=look)
        return next((Sample(done / (at - started)) for done, at in ended.items()), Sample(0))

    def drained(self, jobs: int) -> Sample:
        """The same, of jobs that have just been put in."""
        self.fill(jobs)
        return asyncio.run(self.until(jobs))

    def drop(self) -> None:
        """Give the disk back."""
        database = psycopg.conninfo.conninfo_to_dict(self.url)["dbname"]
        with psycopg.connect(self.url, dbname="postgres", autocommit=True) as admin:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(str(database))))


class Pinned(Ground):
    """A table whose dead rows stay, and their index entries: a transaction elsewhere might look at them."""

    def load(self, connection: psycopg.Connection, insert: str) -> None:
        """Nothing: it is made anew for each round."""

    def fill(self, jobs: int) -> None:
        """So many jobs claimed and settled since that transaction began, and fresh ones after them."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("truncate tick.jobs, tick.ticks, tick.types")
            self.holder.execute("select 1")
            connection.execute(DEAD, {"first": 1, "last": self.count})
            connection.execute(CLAIM_DEAD)
            connection.execute(SETTLE_DEAD)
            connection.execute(FRESH, {"first": 1, "last": jobs})
            connection.execute("vacuum (index_cleanup on, truncate off, analyze) tick.jobs")
            connection.execute("checkpoint")

    def drained(self, jobs: int) -> Sample:
        """A drain while the other transaction is open."""
        with psycopg.connect(self.url) as self.holder:
            self.holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            return super().drained(jobs)


def beside(empty: Ground, urls: str, name: str, args: argparse.Namespace) -> tuple[dict[str, Any], Verdict]:
    """A drain with so much behind, and on an empty table."""
    behind, count = BEHIND[name], getattr(args, name)
    ground = (Pinned if name == "dead" else Ground)(urls, name, behind.insert, count)
    contenders: dict[str, Contender] = {
        "empty": partial(empty.drained, args.jobs),
        name: partial(ground.drained, args.jobs),
    }
    series = alternate(contenders, args.rounds)
    ground.drop()
    return told(f"{count:,} {behind.told}", behind.goal, series["empty"], series[name])


def told(name: str, goal: float, empty: Series, series: Series) -> tuple[dict[str, Any], Verdict]:
    ratio = series.ratio(empty)
    print(line("on an empty table", empty))
    print(line(name, series, f"{shown(ratio)} of that"), flush=True)
    figures = {"empty": empty.as_dict(), "behind": series.as_dict(), "ratio": [round(part, 3) for part in ratio]}
    return figures, at_least(name, goal, "of the rate on an empty table", ratio)


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """A drain with each of them behind."""
    empty = Ground(server.urls, "empty")
    answers = {name: beside(empty, server.urls, name, args) for name in BEHIND if name in args.only}
    return Answer({name: figures for name, (figures, _) in answers.items()}, [goal for _, goal in answers.values()])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=list(BEHIND), choices=list(BEHIND))


question = Question(
    "behind",
    __doc__ or "",
    ask,
    sizes={
        "jobs": (20_000, 2_000),
        "rounds": (5, 1),
        "pending": (1_000_000, 20_000),
        "history": (10_000_000, 20_000),
        "delayed": (1_000_000, 20_000),
        "dead": (200_000, 20_000),
    },
    options=options,
)

if __name__ == "__main__":
    question.main()
