"""What keys and limits cost: a claim with many such jobs behind it, ticks that drain them, and putting them in.

    uv run python -m bench.flow
    uv run python -m bench.flow --quick

It starts its own Postgres servers and removes them. `docs/benchmarks.md` says what the figures mean.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any

import psycopg

from tick.handlers import Handler, Registry
from tick.limits import Rate
from tick.queue import Queue, Wanted, statements

from .dataset import TYPE, create
from .questions import Answer, Question, Server
from .rounds import Contender, Sample, Series, alternate, line, shown
from .ticks import timed

FEW = 1_000
BATCH = 100
CLAIMS = 10
"""Claims of a sample, each taken back; the median counts."""
NEXT_WEEK = "now() + interval '7 days'"
FILL = "insert into tick.jobs (type, {}) select {} from generate_series(1, %s) n"
ORDINARY = FILL.format("priority", "'noop', 0")

BEHIND: dict[str, tuple[str, float]] = {
    "jobs of a key each": (FILL.format("key", "'noop', 'k' || n"), 0.1),
    "jobs of a key each, delayed": (FILL.format("key, run_at", f"'noop', 'k' || n, {NEXT_WEEK}"), 0.1),
    "jobs of one key": (FILL.format("key", "'noop', 'k'"), 0.1),
    "jobs under a limit without room, at the top": (FILL.format("lane, priority", "'limited', 'full', 9"), 1),
}
"""What is put behind a few ordinary jobs, and how much of it, by the size of the benchmark."""
FULL_LIMIT = """
insert into tick.limits (lane, type, concurrency) values ('full', 'limited', 1);
insert into tick.jobs (type, lane, status, tick_id, lease_expires_at)
values ('limited', 'full', 'running', gen_random_uuid(), now() + interval '1 day');
"""


async def noop() -> None:
    """A job that is all overhead."""


def claim_params(wanted: Wanted) -> dict[str, Any]:
    """What a tick of its own binds to a claim."""
    (claim,) = Queue._claims(SimpleNamespace(tick=uuid.uuid4()), wanted)  # type: ignore[arg-type]  # noqa: SLF001 - nobody else binds it
    return claim.params


def claimed(url: str, types: list[str]) -> Sample:
    """Claims of a hundred, each taken back, over one connection."""
    wanted = Wanted(BATCH, types, remaining=50.0, lease=54.0, free=BATCH)
    took = []
    with psycopg.connect(url) as connection:
        for _ in range(CLAIMS):
            connection.execute(statements()["without_jit"])
            started = time.perf_counter()
            count = connection.execute(statements()["claim"], claim_params(wanted)).rowcount
            took.append(time.perf_counter() - started)
            connection.rollback()
            assert count == BATCH, count
    return Sample(1 / median(took))


class Flow:
    """A database with a few jobs that can run, and many of some kind behind them."""

    def __init__(self, urls: str, name: str, statement: str = "", count: int = 0, limits: str = "") -> None:
        self.url = create(urls, name)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(limits)
            connection.execute(ORDINARY, [FEW])
            if count:
                connection.execute(statement, [count])
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")

    def claims(self, types: list[str]) -> Sample:
        """Claims of a hundred; what they leave behind is vacuumed."""
        sample = claimed(self.url, types)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("vacuum tick.jobs")
        return sample


def of_claims(urls: str, size: int, rounds: int) -> dict[str, Any]:
    """A claim of a hundred from each queue, in turn."""
    flows = {f"{FEW:,} jobs and no more": Flow(urls, "few", limits=FULL_LIMIT)}
    for number, (name, (statement, part)) in enumerate(BEHIND.items()):
        count = int(size * part)
        flows[f"{count:,} {name}"] = Flow(urls, f"behind_{number}", statement, count, FULL_LIMIT)
    contenders: dict[str, Contender] = {name: partial(f.claims, [TYPE, "limited"]) for name, f in flows.items()}
    series = alternate(contenders, rounds)
    few, *_ = series.values()
    result = {}
    for name, each in series.items():
        ratio = few.ratio(each)
        print(f"  {name:<58} {1000 / each.median:6.2f} ms  {shown(ratio)} times as long", flush=True)
        result[name] = {"milliseconds": round(1000 / each.median, 3), "ratio": [round(part, 3) for part in ratio]}
    return result


class Drain:
    """A tick that drains jobs of one kind, with the handler's limits."""

    def __init__(self, urls: str, name: str, columns: str, values: str, jobs: int, **limits: Any) -> None:
        self.url, self.jobs = create(urls, name), jobs
        self.statement = FILL.format(columns, values)
        self.registry = Registry()
        self.registry.add(Handler(noop, TYPE, **limits))
        asyncio.run(timed(self.url, self.registry))

    def sample(self) -> Sample:
        """Jobs a second of one tick, on a queue that has just been filled."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("truncate tick.jobs, tick.ticks, tick.types, tick.starts")
            connection.execute(self.statement, [self.jobs])
            connection.execute("update tick.jobs set lane = (select lane from tick.limits)")
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")
        report, took, round_trips = asyncio.run(timed(self.url, self.registry))
        return Sample(report.done / took, round_trips)


def of_ticks(urls: str, jobs: int, rounds: int) -> dict[str, Any]:
    """What it costs a tick that its jobs have keys, or are under a limit that has room for them."""
    few = max(100, jobs // 10)
    drains = {
        "no key, no limit": Drain(urls, "plain", "priority", "'noop', 0", jobs),
        "a key each": Drain(urls, "keys", "key", "'noop', 'k' || n", jobs),
        "under a concurrency of 1,000": Drain(urls, "at_once", "priority", "'noop', 0", few, concurrency=1000),
        "under a rate of 1,000,000/hour": Drain(
            urls, "rated", "priority", "'noop', 0", few, rate=Rate(1_000_000, 3600)
        ),
        "one key": Drain(urls, "line", "key", "'noop', 'k'", few),
    }
    series = alternate({name: drain.sample for name, drain in drains.items()}, rounds)
    plain = series["no key, no limit"]
    return {name: _told(name, each, plain) for name, each in series.items()}


def _told(name: str, series: Series, plain: Series) -> dict[str, Any]:
    ratio = series.ratio(plain)
    print(line(name, series, f"{shown(ratio)} of that without"), flush=True)
    return series.as_dict() | {"ratio": [round(part, 3) for part in ratio]}


def of_producers(urls: str, jobs: int, rounds: int) -> dict[str, Any]:
    """What it costs to put jobs in, by one statement, that they have keys."""
    url = create(urls, "producers")
    kinds = {
        "no key": FILL.format("priority", "'noop', 0"),
        "a key each": FILL.format("key", "'noop', 'k' || n"),
        "one key": FILL.format("key", "'noop', 'k'"),
    }

    def inserted(statement: str) -> Sample:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("truncate tick.jobs")
            started = time.perf_counter()
            connection.execute(statement, [jobs])
            return Sample(jobs / (time.perf_counter() - started))

    series = alternate({name: partial(inserted, statement) for name, statement in kinds.items()}, rounds)
    return {name: _told(f"put in: {name}", each, series["no key"]) for name, each in series.items()}


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """Claims, ticks and producers."""
    print(f"a claim of {BATCH} from {FEW:,} jobs, with so many behind")
    figures: dict[str, Any] = {"claims": of_claims(server.urls, args.size, args.rounds)}
    print(f"\na tick that drains {args.jobs:,} jobs; the last three, a tenth of it")
    figures["ticks"] = of_ticks(server.urls, args.jobs, args.rounds)
    print(f"\n{args.jobs:,} jobs in one statement")
    figures["producers"] = of_producers(server.urls, args.jobs, args.rounds)
    return Answer(figures, [])


question = Question(
    "flow", __doc__ or "", ask, sizes={"size": (1_000_000, 20_000), "jobs": (20_000, 2_000), "rounds": (9, 2)}
)

if __name__ == "__main__":
    question.main()
