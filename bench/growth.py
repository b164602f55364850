"""How the cost of a tick grows: with the backlog, the schedules, the concurrency, the payloads and the network.

    uv run python -m bench.growth --json growth.json
    uv run python -m bench.charts growth.json

It starts its own Postgres servers and removes them. `docs/benchmarks.md` says what the figures mean.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import psycopg

from tick.handlers import Handler, Registry

from .behind import LATER, Ground
from .dataset import TYPE, create
from .flow import BATCH, claimed
from .proxy import Proxy
from .questions import Answer, Question, Server
from .rounds import Contender, Sample, alternate
from .schedules import DUE, Deployment
from .ticks import timed

DRAINED = 2_000
NAP = 0.005
"""Seconds that a job sleeps, where the concurrency grows."""
NAPS = 40
"""Jobs for each place."""
MOST_NAPS = 20_000
BYTES = 20_000_000
"""Bytes of payload that a tick drains at most."""
LEAST_JOBS = 20
PUT_BACK = """
update tick.jobs set status = 'pending', attempt = 0, started_at = null, finished_at = null, tick_id = null
 where id <= %s and status <> 'pending'
"""
CONCURRENCIES = (1, 3, 10, 30, 100, 300, 1_000)
SIZES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
DELAYS = (0, 1, 2, 5, 10, 20, 50)
FILL = "insert into tick.jobs (type, payload) select %s, jsonb_build_object('text', {}) from generate_series(1, %s)"
NO_TEXT = FILL.format("''")
TEXT = FILL.format("(select left(string_agg(md5(random()::text || n), ''), %s) from generate_series(0, %s) as few (n))")
"""Of so many bytes, which hardly compress; drawn once, so that it takes no time to put in a hundred megabytes."""

Samples = Mapping[int, Contender]


async def noop(text: str) -> None:
    """A job that is all overhead."""


async def nap(**_: Any) -> None:
    """A job that waits for something."""
    await asyncio.sleep(NAP)


class Queue:
    """A database, and what a tick on it takes."""

    def __init__(self, urls: str, name: str, handler: Callable[..., Any] = noop) -> None:
        self.name = name
        self.url = create(urls, name)
        self.registry = Registry()
        self.registry.add(Handler(handler, TYPE))
        asyncio.run(timed(self.url, self.registry))

    def fill(self, jobs: int, size: int = 0) -> None:
        """Nothing but new jobs, of payloads of so many bytes."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("truncate tick.jobs, tick.ticks")
            text = [size, size // 32] if size else []
            connection.execute(TEXT if size else NO_TEXT, [TYPE, *text, jobs])
            connection.execute("vacuum analyze tick.jobs")
            connection.execute("checkpoint")

    def tick(self, jobs: int, size: int = 0, *, url: str = "", **settings: Any) -> Sample:
        """Ticks a second of one that drains so many."""
        self.fill(jobs, size)
        report, took, round_trips = asyncio.run(timed(url or self.url, self.registry, **settings))
        assert report.done == jobs, report
        return Sample(1 / took, round_trips)

    def drained(self, jobs: int, size: int = 0, **settings: Any) -> Sample:
        """Jobs a second of such a tick."""
        ticks, round_trips = self.tick(jobs, size, **settings)
        return Sample(jobs * ticks, round_trips)


class Backlog(Ground):
    """Jobs that are all due; those that a drain has taken beyond the fresh ones are put back."""

    def fill(self, jobs: int) -> None:
        """Fresh ones in front."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(PUT_BACK, [self.count])
        super().fill(jobs)


class Curves:
    """What grows along an axis: for each curve the points, (x, median, least, greatest)."""

    def __init__(self, title: str, x: str, y: str, rounds: int) -> None:
        self.title, self.x, self.y, self.rounds = title, x, y, rounds
        self.curves: dict[str, list[tuple[float, ...]]] = {}
        print(f"  {title}: {y}")

    def measure(self, name: str, samples: Samples, shown: Callable[[float], float] = lambda rate: rate) -> None:
        """Take all points of a curve in turn. `shown` makes a figure of a rate."""
        series = alternate({str(x): sample for x, sample in samples.items()}, self.rounds)
        points = []
        for x, each in zip(samples, series.values(), strict=True):
            low, high = sorted([shown(min(each.rates)), shown(max(each.rates))])
            points.append((x, *(round(figure, 3) for figure in (shown(each.median), low, high))))
            print(f"    {name}, {x:>10,} {self.x}: {points[-1][1]:>12,.1f} ({low:,.1f} to {high:,.1f})", flush=True)
        self.curves[name] = points

    def as_dict(self) -> dict[str, Any]:
        return {"title": self.title, "x": self.x, "y": self.y, "curves": self.curves}


def milliseconds(rate: float) -> float:
    return 1000 / rate


def powers(least: int, most: int) -> Iterator[int]:
    """The powers of ten between two of them."""
    while least <= most:
        yield least
        least *= 10


def points(all_of_them: tuple[int, ...], args: argparse.Namespace) -> tuple[int, ...]:
    """Where on the axis to measure: in a quick run, here and there."""
    return all_of_them[::3] if args.quick else all_of_them


# What grows


def backlog(server: Server, args: argparse.Namespace) -> Curves:
    """So many jobs that are due, and the fresh ones before them."""
    grounds = {count: Backlog(server.urls, f"backlog_{count}", LATER, count) for count in powers(100, args.backlog)}
    curves = Curves("With the backlog", "jobs pending", "milliseconds", args.rounds)
    claims = {count: partial(claimed, ground.url, [TYPE]) for count, ground in grounds.items()}
    curves.measure(f"a claim of {BATCH}", claims, milliseconds)
    drains = {count: partial(ground.drained, DRAINED) for count, ground in grounds.items()}
    curves.measure(f"a tick that drains {DRAINED:,}", drains, lambda rate: DRAINED * milliseconds(rate))
    for ground in grounds.values():
        ground.drop()
    return curves


def schedules(server: Server, args: argparse.Namespace) -> Curves:
    """So many daily schedules, ten of which are due, or none. A file has 20,000 at most."""
    counts = sorted({*powers(10, args.schedules), args.schedules})
    deployments = {count: Deployment(server.urls, count, DUE) for count in counts}
    for each in deployments.values():
        each.tick()
    curves = Curves("With the schedules", "schedules", "milliseconds a tick", args.rounds)
    for name, due in ((f"{DUE} due", DUE), ("none due", 0)):
        for each in deployments.values():
            each.due = due
        curves.measure(name, {count: each.measured for count, each in deployments.items()}, milliseconds)
    return curves


def concurrency(server: Server, args: argparse.Namespace) -> Curves:
    """So many jobs at once that sleep for five milliseconds."""
    queue = Queue(server.urls, "concurrency", nap)
    curves = Curves("With the concurrency", "jobs at once", "jobs a second", args.rounds)
    chosen = points(CONCURRENCIES, args)
    samples = {places: partial(queue.drained, min(MOST_NAPS, NAPS * places), concurrency=places) for places in chosen}
    curves.measure(f"jobs of {1000 * NAP:g} ms", samples)
    curves.curves["if nothing else took time"] = [(places, *[places / NAP] * 3) for places in chosen]
    return curves


def payload(server: Server, args: argparse.Namespace) -> Curves:
    """Payloads of so many bytes."""
    queue = Queue(server.urls, "payload")
    curves = Curves("With the payload", "bytes of payload", "jobs a second", args.rounds)
    counts = {size: max(LEAST_JOBS, min(DRAINED, BYTES // size)) for size in points(SIZES, args)}
    curves.measure("drained", {size: partial(queue.drained, jobs, size) for size, jobs in counts.items()})
    return curves


def network(server: Server, args: argparse.Namespace) -> Curves:
    """A network on which a round trip takes so many milliseconds."""
    queue = Queue(server.urls, "network")
    curves = Curves("With the network", "ms of a round trip", "milliseconds a tick", args.rounds)
    with Proxy(server) as proxy:

        def over(delay: float, jobs: int) -> Sample:
            proxy.delay = delay / 1000
            return queue.tick(jobs, url=proxy.url(queue.name))

        for name, jobs in ((f"{DRAINED:,} due jobs", DRAINED), ("one due job", 1), ("nothing due", 0)):
            curves.measure(name, {delay: partial(over, delay, jobs) for delay in points(DELAYS, args)}, milliseconds)
    return curves


KINDS = {
    "backlog": backlog,
    "schedules": schedules,
    "concurrency": concurrency,
    "payload": payload,
    "network": network,
}


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """Every curve that was asked for."""
    return Answer({name: KINDS[name](server, args).as_dict() for name in args.only}, [])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=list(KINDS), choices=list(KINDS))


question = Question(
    "growth",
    __doc__ or "",
    ask,
    sizes={"rounds": (5, 1), "backlog": (10_000_000, 1_000), "schedules": (20_000, 100)},
    options=options,
)

if __name__ == "__main__":
    question.main()
