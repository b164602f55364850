"""Whether ticks keep their budget, and use it: thousands of ticks over random mixes of jobs.

    uv run python -m bench.budgets

Jobs take from a millisecond to 20 seconds, in coroutines that heed a cancellation, in some that ignore it for a moment,
and in plain functions that nothing can stop. Many ticks run at once, since most of their time they wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection

from tick import processor
from tick.config import GRACE, Settings
from tick.errors import TickError
from tick.handlers import Handler, Registry

from .dataset import create
from .proxy import SPAWN
from .questions import Answer, Question, Server, Verdict

TYPICAL = {"instant": 0.001, "quick": 0.02, "usual": 0.2, "slow": 1.5, "long": 8.0}
"""Seconds that the jobs of a type take, give or take a factor of two."""
SPREAD = 0.6
LONGEST = 20.0
BUDGETS = (0.5, 5.0)
MOST_JOBS = 300
PLACES = 10
"""Jobs that run at once in a tick, by default."""
MIXES = {"async": 4, "stubborn": 2, "sync": 2, "mixed": 2}
"""What a tick's handlers are, and how often: all heed a cancellation, none does at once, plain functions, any."""
HAVE_TIMEOUTS = 0.3
IGNORES = (0.05, 1.5)
"""Seconds for which a stubborn handler ignores that it is cancelled; after 0.75 of them it is abandoned."""
OVERRUN = 0.05
USED = 0.9
BEAT = 0.01
"""Seconds between two looks at how late the loop of the process is."""

FILL = """
insert into tick.jobs (type, payload, timeout)
select type, payload, make_interval(secs => timeout)
  from jsonb_to_recordset(%s::jsonb) as j (type text, payload jsonb, timeout float8)
"""


# The handlers


async def heed(seconds: float, ignores: float) -> None:  # noqa: ARG001 - all have one payload
    """Work that ends when it is told to."""
    await asyncio.sleep(seconds)


async def ignore(seconds: float, ignores: float) -> None:
    """Work that tidies up before it ends."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(ignores)
        raise


def block(seconds: float, ignores: float) -> None:  # noqa: ARG001 - all have one payload
    """Work in a thread."""
    time.sleep(seconds)


HANDLERS: dict[str, Callable[..., Any]] = {"async": heed, "stubborn": ignore, "sync": block}


def handlers() -> Registry:
    """Every type there is: the same for all ticks, as in one project."""
    registry = Registry()
    for kind, function in HANDLERS.items():
        for size in TYPICAL:
            registry.add(Handler(function, f"{kind} {size}"))
    return registry


# One tick


class Plan(NamedTuple):
    """A tick to be: its number, what its handlers are, its budget in seconds, and its jobs."""

    number: int
    mix: str
    budget: float
    jobs: list[dict[str, Any]]


class Kept(NamedTuple):
    """What a tick did with its budget; all in seconds. `left` jobs were due when it ended."""

    number: int
    mix: str
    budget: float
    took: float
    left: int
    claimed: int
    error: str

    @property
    def overrun(self) -> float:
        return self.took - self.budget


def plan(seed: int, number: int) -> Plan:
    """The tick of this number: the same for the same seed."""
    chance = random.Random(f"{seed} {number}")
    (mix,) = chance.choices([*MIXES], [*MIXES.values()])
    budget = chance.uniform(*BUDGETS)
    sizes = chance.sample([*TYPICAL], chance.randint(1, len(TYPICAL)))
    enough = PLACES * budget * chance.uniform(0.3, 3.0)
    jobs: list[dict[str, Any]] = []
    while enough > 0 and len(jobs) < MOST_JOBS:
        jobs.append(_job(chance, mix, chance.choice(sizes)))
        enough -= jobs[-1]["payload"]["seconds"]
    return Plan(number, mix, budget, jobs)


def _job(chance: random.Random, mix: str, size: str) -> dict[str, Any]:
    kind = chance.choice([*HANDLERS]) if mix == "mixed" else mix
    seconds = min(LONGEST, max(0.001, TYPICAL[size] * chance.lognormvariate(0, SPREAD)))
    timeout = TYPICAL[size] * chance.uniform(1, 4) if chance.random() < HAVE_TIMEOUTS else None
    payload = {"seconds": seconds, "ignores": chance.uniform(*IGNORES)}
    return {"type": f"{kind} {size}", "payload": payload, "timeout": timeout}


async def kept(url: str, registry: Registry, planned: Plan) -> Kept:
    """Put the jobs in, and tick."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("truncate tick.jobs")
        await connection.execute(FILL, [json.dumps(planned.jobs)])
    settings = Settings(database_url=url, schedules_path=Path("no schedules file"), budget=planned.budget)
    started, left, claimed, error = time.monotonic(), 0, 0, ""
    try:
        report = await processor.process_tick(settings, registry)
        left, claimed = report.left, report.claimed
    except TickError as raised:
        error = f"{type(raised).__name__}: {raised}"
    took = time.monotonic() - started
    return Kept(planned.number, planned.mix, planned.budget, took, left, claimed, error)


# Many ticks


@dataclass
class Share:
    """What one process does: the databases it has, a tick at a time in each, and the numbers of its ticks."""

    urls: list[str]
    seed: int
    numbers: list[int]
    done: list[Kept] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)

    async def run(self) -> None:
        """All of them."""
        beat = asyncio.create_task(self.look())
        await asyncio.gather(*(self.tick_on(url) for url in self.urls))
        beat.cancel()

    async def tick_on(self, url: str) -> None:
        """One tick after the other on one database, as long as there are any left."""
        registry = handlers()
        while self.numbers:
            self.done.append(await kept(url, registry, plan(self.seed, self.numbers.pop())))

    async def look(self) -> None:
        """How late this loop is: what is not a tick's fault."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(BEAT)
            self.lags.append(time.monotonic() - before - BEAT)


def run_share(share: Share) -> Share:
    """The work of a process."""
    logging.getLogger("tick").addHandler(logging.NullHandler())  # What is written is not shown.
    asyncio.run(share.run())
    return share


def databases(server: Server, count: int) -> list[str]:
    """So many, alike, which know the handlers already."""
    first = create(server.urls, "budgets_0")
    asyncio.run(kept(first, handlers(), Plan(0, "async", 5.0, [])))
    with psycopg.connect(server.urls.format("postgres"), autocommit=True) as admin:
        for number in range(1, count):
            admin.execute(f"create database budgets_{number} template budgets_0")
    return [server.urls.format(f"budgets_{number}") for number in range(count)]


def run_all(server: Server, args: argparse.Namespace) -> list[Share]:
    """All ticks, by some processes."""
    urls = databases(server, args.at_once)
    parts = range(args.processes)
    shares = [
        Share(urls[part :: args.processes], args.seed, list(range(part, args.ticks, args.processes))) for part in parts
    ]
    with ProcessPoolExecutor(args.processes, mp_context=SPAWN) as pool:
        return list(pool.map(run_share, shares))


# What came of it


def percentile(values: list[float], share: int) -> float:
    """The value that so many of a hundred do not exceed."""
    return quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else values[0]


def told(values: list[float], unit: float = 1000) -> dict[str, float]:
    """Some values in short; in milliseconds when they are seconds."""
    short = {"median": median(values), "p90": percentile(values, 90), "p99": percentile(values, 99)}
    return {name: round(value * unit, 1) for name, value in (short | {"max": max(values)}).items()}


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """Run them, and look at how long each took beside what it had."""
    started = time.monotonic()
    print(f"  {args.ticks:,} ticks, {args.at_once} at once in {args.processes} processes, seed {args.seed}", flush=True)
    shares = run_all(server, args)
    ticks = [tick for share in shares for tick in share.done]
    lags = told([lag for share in shares for lag in share.lags])
    figures: dict[str, Any] = {
        "seed": args.seed,
        "seconds": round(time.monotonic() - started),
        "lag of the loops": lags,
    }
    print(f"  {figures['seconds']} s; how late the loops of the processes were, ms: {lags}")
    for mix in MIXES:
        overruns = [max(0.0, tick.overrun) for tick in ticks if tick.mix == mix]
        figures[f"overrun, {mix}"] = told(overruns) | {"ticks": len(overruns)}
        print(f"  overrun of the budget, {mix}, ms: {figures[f'overrun, {mix}']}")
    figures["worst"] = [tick._asdict() for tick in sorted(ticks, key=lambda tick: -tick.overrun)[:10]]
    return Answer(figures, [_none_late(ticks), _async_in_time(ticks, lags), _budget_used(ticks, figures)])


def _none_late(ticks: list[Kept]) -> Verdict:
    late = [tick for tick in ticks if tick.overrun > GRACE]
    failed = [tick for tick in ticks if tick.error]
    worst = max(tick.overrun for tick in ticks)
    measured = f"{len(late)} of {len(ticks):,}; the worst {worst:.2f} s over its budget; {len(failed)} ticks failed"
    bound = "; ".join(sorted({tick.error for tick in failed}))
    return Verdict("ticks over budget and grace", "0, and none fails", measured, not late and not failed, bound)


def _async_in_time(ticks: list[Kept], lags: dict[str, float]) -> Verdict:
    overruns = [max(0.0, tick.overrun) for tick in ticks if tick.mix == "async"]
    last = percentile(overruns, 99)
    bound = f"the loops of the benchmark itself were {lags['p99']} ms late in 1 of 100 looks, {lags['max']} at most"
    question = "overrun, 99th percentile, of ticks with handlers that heed a cancellation"
    measured = f"{last * 1000:.0f} ms, the median {median(overruns) * 1000:.0f}"
    return Verdict(question, f"< {OVERRUN * 1000:.0f} ms", measured, last < OVERRUN, bound)


def _budget_used(ticks: list[Kept], figures: dict[str, Any]) -> Verdict:
    used = [min(1.0, tick.took / tick.budget) for tick in ticks if tick.left]
    figures["used of the budget, %"] = {"median": 100 * median(used), "p10": 100 * percentile(used, 10)}
    figures["ticks that left work"] = len(used)
    measured = f"{100 * median(used):.0f} % in the median, {100 * percentile(used, 10):.0f} % in the 10th percentile"
    question = f"share of the budget used by {len(used)} ticks that left work"
    return Verdict(question, f">= {100 * USED:.0f} % in the median", measured, median(used) >= USED)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="for the same ticks again")


question = Question(
    name="budgets",
    description="Whether ticks keep their budget, and use it.",
    ask=ask,
    sizes={"ticks": (2_000, 60), "at_once": (12, 12), "processes": (4, 2)},
    options=_options,
)

if __name__ == "__main__":
    question.main()
