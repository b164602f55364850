"""What a network between a tick and its database costs: round trips, counted, and what a delay does to a tick.

    uv run python -m bench.network

A proxy stands between the two. A TCP handshake counts as a round trip and is delayed as one.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import psycopg

from .dataset import Bench
from .proxy import Proxy, self_signed
from .questions import Answer, Question, Server, Verdict, at_most
from .rounds import Contender, Sample, Series, alternate, shown
from .ticks import noops, timed

DELAYS = (0.0, 0.001, 0.005, 0.02)
"""Round trips, in seconds: the same machine, the same zone, the same region, the next region."""
JUDGED = 0.005
MIXES = ((0, 500), (1, 500), (7, 2), (20, 10), (100, 50), (199, 50), (1_000, 500), (5_000, 500))
"""Jobs and batch sizes whose round trips are counted."""
KEEPER, PASSWORD = "keeper", "of-the-benchmark"
MOST_TRIPS = 6
BUDGET = 600.0


class Counted(NamedTuple):
    """A tick's round trips: as it counts its own, and all that the network saw, those of connecting too."""

    jobs: int
    own: int
    seen: int
    seconds: float


class Road(NamedTuple):
    """A way to connect: a proxy, and a URL on this side of it that wants the name of a database."""

    proxy: Proxy
    url: Callable[[str], str]


def ticked(road: Road, database: str, jobs: int, **settings: Any) -> Counted:
    """One tick over the network, with these settings."""
    registry = noops()
    before = road.proxy.round_trips
    tick = asyncio.run(timed(road.url(database), registry, budget=BUDGET, **settings))
    assert tick.report.done == jobs, tick
    return Counted(jobs, tick.round_trips, road.proxy.round_trips - before, tick.seconds)


# Ways to connect


@contextmanager
def roads(server: Server) -> Iterator[dict[str, Road]]:
    """Without anything, with a password, and with TLS as well."""
    _ask_for_a_password(server)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain = stack.enter_context(Proxy(server))
        tls = stack.enter_context(Proxy(server, self_signed(folder)))
        yield {
            "no password, no TLS": Road(plain, plain.url),
            "a password (SCRAM)": Road(plain, partial(plain.url, user=KEEPER, password=PASSWORD)),
            "TLS and a password": Road(tls, partial(tls.url, user=KEEPER, password=PASSWORD)),
        }


def _ask_for_a_password(server: Server) -> None:
    """Have one role that needs one; the server lets everybody else in, since nobody but the benchmark can reach it."""
    (folder,) = parse_qs(urlsplit(server.urls).query)["host"]
    rules = Path(folder) / "data" / "pg_hba.conf"
    rules.write_text(f"local all {KEEPER} scram-sha-256\n{rules.read_text()}")
    with psycopg.connect(server.urls.format("postgres"), autocommit=True) as connection:
        connection.execute(f"create role {KEEPER} superuser login password '{PASSWORD}'")
        connection.execute("select pg_reload_conf()")


# The questions


def trips(bench: Bench, road: Road) -> tuple[dict[str, Any], Verdict]:
    """Round trips for so many jobs at such batch sizes, as the tick counts them and as the network does."""
    road.proxy.delay = 0.0
    ticked(road, bench.name, 0)  # The first tick of a deployment tells the database of its limits.
    counted = {}
    for jobs, batch in MIXES:
        bench.fill(jobs)
        counted[jobs, batch] = ticked(road, bench.name, jobs, batch_size=batch)
    idle = counted[0, 500]
    connecting = idle.seen - idle.own
    over = {mix: tick.seen - connecting - math.ceil(mix[0] / mix[1]) - 2 for mix, tick in counted.items()}
    for (jobs, batch), tick in counted.items():
        most = math.ceil(jobs / batch) + 2
        told = f"{tick.own:>3} round trips, {tick.seen:>3} with connecting; at most {most}"
        print(f"  {jobs:>6,} jobs at {batch:>3}: {told}")
    figures = {f"{jobs} at {batch}": tick._asdict() for (jobs, batch), tick in counted.items()}
    told = (
        f"at most {max(over.values()):+d} beside that in {len(MIXES)} mixes; idle {idle.own}, connecting {connecting}"
    )
    goal = "<= jobs / batch size, rounded up, + 2"
    return figures, Verdict("round trips for J jobs at batch size N", goal, told, max(over.values()) <= 0)


def delayed(bench: Bench, road: Road, jobs: int, rounds: int) -> dict[float, Series]:
    """A tick with so many due jobs over each delay, in turn."""

    def run(delay: float) -> Sample:
        bench.fill(jobs)
        road.proxy.delay = delay
        tick = ticked(road, bench.name, jobs)
        return Sample(1 / tick.seconds, tick.seen)

    contenders: dict[str, Contender] = {str(delay): partial(run, delay) for delay in DELAYS}
    return {float(delay): series for delay, series in alternate(contenders, rounds).items()}


def costs(series: dict[float, Series]) -> dict[float, tuple[float, float, float]]:
    """What each delay adds to the tick without any, in delays: the median, the least and the greatest."""
    without = series[0.0].rates
    result = {}
    for delay in DELAYS[1:]:
        added = [(1 / mine - 1 / none) / delay for mine, none in zip(series[delay].rates, without, strict=True)]
        result[delay] = median(added), min(added), max(added)
    return result


def one_job(bench: Bench, name: str, road: Road, rounds: int) -> tuple[dict[str, Any], Verdict]:
    """A tick with one due job over each delay."""
    series = delayed(bench, road, 1, rounds)
    cost = costs(series)
    seen = median(sample.round_trips for sample in series[JUDGED].samples)
    told = ", ".join(f"{shown(each)} x {delay * 1000:g} ms" for delay, each in cost.items())
    print(f"  one due job, {name}: {seen:.0f} round trips; {1000 / series[0.0].median:.1f} ms, and {told}", flush=True)
    figures = {
        "round_trips": seen,
        "milliseconds": {str(d): round(1000 / each.median, 2) for d, each in series.items()},
        "added_in_delays": {str(delay): [round(part, 2) for part in each] for delay, each in cost.items()},
    }
    bound = f"{seen:.0f} round trips, of which connecting has {seen - 2:.0f}; the rest are timers"
    question = f"what {JUDGED * 1000:g} ms of network add to a tick with one due job, {name}"
    return figures, at_most(question, MOST_TRIPS, f"x {JUDGED * 1000:g} ms", cost[JUDGED], bound)


def drains(bench: Bench, road: Road, jobs: int, rounds: int) -> dict[str, Any]:
    """Many jobs over each delay, at the default settings."""
    series = delayed(bench, road, jobs, rounds)
    figures = {}
    for delay, each in series.items():
        ratio = each.ratio(series[0.0])
        rate = jobs * each.median
        print(f"  {jobs:,} jobs over {delay * 1000:4.0f} ms: {rate:>8,.0f}/s, {shown(ratio)} of none", flush=True)
        figures[str(delay)] = {"jobs_per_second": round(rate), "of_none": [round(part, 3) for part in ratio]}
    return figures


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """Count the round trips, delay one job, delay many."""
    bench = Bench(server.urls, "network")
    with roads(server) as ways:
        usual = next(iter(ways.values()))
        counted, verdict = trips(bench, usual)
        singles = {name: one_job(bench, name, road, args.rounds) for name, road in ways.items()}
        many = drains(bench, usual, args.jobs, args.drains)
    figures = {"round_trips": counted, "one_job": {name: each[0] for name, each in singles.items()}, "drains": many}
    return Answer(figures, [verdict, *(_told_of_tls(name, each[1]) for name, each in singles.items())])


def _told_of_tls(name: str, verdict: Verdict) -> Verdict:
    """The goal is for a connection without TLS; what TLS adds is told."""
    return verdict._replace(goal=f"none; {verdict.goal} without TLS", met=None) if "TLS and" in name else verdict


question = Question(
    name="network",
    description="Round trips of a tick, and what a delay of the network does to it.",
    ask=ask,
    sizes={"rounds": (25, 2), "jobs": (20_000, 2_000), "drains": (5, 1)},
)

if __name__ == "__main__":
    question.main()
