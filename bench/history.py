"""What a drain, and putting jobs in, cost with millions of finished jobs behind: in the table, or moved out of it.

    uv run python -m bench.history --history 1000000 10000000
    uv run python -m bench.history --only tick

It starts its own Postgres servers and removes them. `docs/benchmarks.md` says what the figures mean.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import psycopg
from psycopg import AsyncConnection

from tick import intake
from tick.handlers import Handler, Registry
from tick.jobs import NewJob

from . import ceiling, dataset
from .dataset import TYPE, Bench
from .questions import Answer, Question, Server
from .rounds import Contender, Sample, Series, alternate, line, shown
from .ticks import noop, timed

SINGLES = 2_000
"""Jobs that are enqueued one by one, each with a commit of its own."""


# What is measured


async def tick(url: str, handler: Callable[..., Any], jobs: int) -> Sample:
    """One tick with the default settings, from its connection to its report."""
    registry = Registry()
    registry.add(Handler(handler, TYPE))
    report, took, round_trips = await timed(url, registry)
    if report.done < jobs:
        print(f"  (the budget ended after {report.done:,} of {jobs:,} jobs)", file=sys.stderr)
    return Sample(report.done / took, round_trips)


async def raw(url: str, settle: str, jobs: int) -> Sample:
    """The ceiling: claim and settle, and nothing else."""
    started = time.perf_counter()
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        done, trips = await ceiling.drain(connection, settle)
    took = time.perf_counter() - started
    assert done == jobs, done
    return Sample(jobs / took, trips)


def drained(bench: Bench, jobs: int, run: Callable[[str], Awaitable[Sample]]) -> Sample:
    """A measurement on a queue that has just been filled."""
    bench.fill(jobs)
    return asyncio.run(run(bench.url))  # type: ignore[arg-type]


def inserted(bench: Bench, jobs: int, statement: str) -> Sample:
    """Rows put in by one statement."""
    bench.clear()
    with psycopg.connect(bench.url, autocommit=True) as connection:
        started = time.perf_counter()
        connection.execute(statement, {"type": TYPE, "jobs": jobs})
        return Sample(jobs / (time.perf_counter() - started))


def enqueued(bench: Bench, jobs: int) -> Sample:
    """tick's enqueue, a round trip and a commit each, every job with an idempotency key."""
    bench.clear()
    new = NewJob(TYPE, b'{"user_id": 1, "template": "weekly-report", "audience": "team"}')
    with psycopg.connect(bench.url, autocommit=True) as connection:
        started = time.perf_counter()
        for _ in range(jobs):
            intake.enqueue(connection, new._replace(idempotency_key=str(uuid.uuid4())))
        return Sample(jobs / (time.perf_counter() - started))


# The question


def beside_history(urls: str, rows: int, jobs: int, rounds: int, only: list[str]) -> dict[str, Any]:
    """Everything twice, or only some of it: on empty tables, and with so many finished jobs behind."""
    started = time.monotonic()
    names = ("empty", "history")
    kept = {name: Bench(urls, f"{name}_{rows}", history=rows * (name == "history")) for name in names}
    moved = {
        name: Bench(urls, f"moved_{name}_{rows}", history=rows * (name == "history"), moved=True) for name in names
    }
    gigabytes = kept["history"].size() / 1e9
    print(f"  loaded in {time.monotonic() - started:.0f} s; {gigabytes:.1f} GB kept in the table")
    asked = {name: _questions(kept[name], moved[name], jobs) for name in names}
    # The two that are compared run one after the other.
    questions = [q for q in asked["empty"] if not only or any(text in q for text in only)]
    series = alternate({f"{q}|{name}": asked[name][q] for q in questions for name in names}, rounds)
    result = {"bytes": kept["history"].size(), "questions": _ratios(series)}
    for bench in (*kept.values(), *moved.values()):
        bench.drop()
    return result


def _questions(kept: Bench, moved: Bench, jobs: int) -> dict[str, Contender]:
    move = ceiling.move_statement(moved.url)
    few = min(jobs, SINGLES)
    return {
        "tick, async def": lambda: drained(kept, jobs, partial(tick, handler=noop, jobs=jobs)),
        "raw SQL, kept": lambda: drained(kept, jobs, partial(raw, settle=ceiling.KEEP, jobs=jobs)),
        "raw SQL, moved": lambda: drained(moved, jobs, partial(raw, settle=move, jobs=jobs)),
        "insert in bulk": lambda: inserted(kept, jobs, dataset.INSERT_PENDING),
        "insert in bulk, random keys": lambda: inserted(kept, jobs, dataset.INSERT_KEYED),
        "enqueue one by one, random keys": lambda: enqueued(kept, few),
    }


def _ratios(series: dict[str, Series]) -> dict[str, Any]:
    result = {}
    for question in dict.fromkeys(name.split("|")[0] for name in series):
        empty, history = series[f"{question}|empty"], series[f"{question}|history"]
        ratio = history.ratio(empty)
        print(line(f"{question}: empty", empty))
        print(line(f"{question}: history", history, f"{shown(ratio)} of empty"), flush=True)
        result[question] = {
            "empty": empty.as_dict(),
            "history": history.as_dict(),
            "ratio": [round(part, 3) for part in ratio],
        }
    return result


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """Everything, with each number of finished jobs behind."""
    result = {}
    for rows in args.history or [20_000 if args.quick else 1_000_000]:
        print(f"\n{args.jobs:,} jobs, {rows:,} finished ones behind", flush=True)
        result[rows] = beside_history(server.urls, rows, args.jobs, args.rounds, args.only)
    return Answer({"history": result}, [])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--history", nargs="+", type=int, metavar="ROWS", help="1,000,000, or 20,000 with --quick")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="tick, raw, insert, …")


question = Question("history", __doc__ or "", ask, sizes={"jobs": (20_000, 5_000), "rounds": (5, 2)}, options=options)

if __name__ == "__main__":
    question.main()
