"""Whether a tick pays for what is due, or for what is defined: 10 due schedules of 10, and of 10,000.

    uv run python -m bench.schedules

It starts its own Postgres servers and removes them. `docs/benchmarks.md` says what the figures mean.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from tick.handlers import Handler, Registry

from .dataset import create
from .questions import Answer, Question, Server, at_most
from .rounds import Contender, Sample, Series, alternate, shown
from .ticks import Timed, timed

DUE = 10
OVERHEAD = 25
"""Milliseconds that a tick may take longer with many schedules than with few."""
FILE = "schedules.toml"
ENTRY = """[schedules.noop-{number}]
type = "noop"
cron = "{minute} {hour} * * *"
payload = {{ user_id = {number} }}

"""
# Their cursors a day back, so that each has one window to make or, at most, one more to skip.
MAKE_DUE = """
with due as (select schedule, definition from tick.entries order by schedule limit %(due)s),
     moved as (update tick.definitions d set cursor = tick.now() - interval '25 hours'
                 from due where d.schedule = due.schedule and d.hash = due.definition)
update tick.entries e set next_window = tick.now() - interval '1 minute'
  from due where e.schedule = due.schedule
"""


async def noop(user_id: int) -> None:
    """A job that is all overhead."""


class Deployment:
    """A database and a schedules file of so many daily schedules."""

    def __init__(self, urls: str, schedules: int, due: int) -> None:
        self.url = create(urls, f"schedules_{schedules}")
        self.due = due
        folder = Path(self.url.split("host=")[1]) / str(schedules)
        folder.mkdir()
        self.path = folder / FILE
        self.path.write_text("".join(
            ENTRY.format(number=n, minute=n % 60, hour=n // 60 % 24) for n in range(schedules)
        ))  # fmt: skip
        self.registry = Registry()
        self.registry.add(Handler(noop, "noop"))

    def tick(self) -> Timed:
        """One tick."""
        return asyncio.run(timed(self.url, self.registry, self.path))

    def settle_down(self) -> None:
        """Clear what the last round made, make the chosen schedules due, and let the server come to rest."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("truncate tick.jobs, tick.skips, tick.ticks")
            connection.execute(
                "update tick.entries set next_window = tick.now() + interval '1 day'"
                " where next_window <= tick.now() + interval '5 minutes'"
            )
            if self.due:
                connection.execute(MAKE_DUE, {"due": self.due})
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")

    def measured(self) -> Sample:
        """One tick with that many schedules due, as ticks a second."""
        self.settle_down()
        report, took, round_trips = self.tick()
        assert report.materialised == report.done == self.due, report
        return Sample(1 / took, round_trips)


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """Both deployments in turn: the first tick of a new file, then ticks with so many due, then idle ones."""
    due = min(DUE, args.few)
    figures: dict[str, Any] = {}
    deployments = {count: Deployment(server.urls, count, due) for count in (args.few, args.many)}
    for count, deployment in deployments.items():
        took = deployment.tick().seconds
        print(f"  the first tick with a new file of {count:,} schedules: {took * 1000:,.1f} ms")
        figures[f"first tick, {count} schedules"] = round(took * 1000, 1)
    verdicts = []
    for kind, number in ((f"{due} due", due), ("none due", 0)):
        small, large = in_turn(deployments, number, args.rounds)
        figures[kind] = _report(kind, small, large, args)
        against = f"ms above {args.few:,} schedules"
        verdicts.append(at_most(f"{args.many:,} schedules, {kind}", OVERHEAD, against, above(small, large)))
    return Answer(figures, verdicts)


def in_turn(deployments: dict[int, Deployment], due: int, rounds: int) -> list[Series]:
    """Ticks of each deployment with so many due."""
    for deployment in deployments.values():
        deployment.due = due
    contenders: dict[str, Contender] = {str(count): each.measured for count, each in deployments.items()}
    return list(alternate(contenders, rounds).values())


def above(small: Series, large: Series) -> tuple[float, float, float]:
    """How many milliseconds more a tick of the second takes: the median, the least and the greatest."""
    more = [1000 / theirs - 1000 / mine for mine, theirs in zip(small.rates, large.rates, strict=True)]
    return median(more), min(more), max(more)


def _report(kind: str, small: Series, large: Series, args: argparse.Namespace) -> dict[str, Any]:
    ratio = small.ratio(large)
    for count, series in ((args.few, small), (args.many, large)):
        trips = series.as_dict()["round_trips"]
        print(f"  {kind} of {count:>6,}: {1000 / series.median:6.1f} ms a tick, {trips:.0f} round trips")
    print(f"  {kind}: time with {args.many:,} by time with {args.few:,}: {shown(ratio)}", flush=True)
    return {
        "milliseconds": [round(1000 / small.median, 2), round(1000 / large.median, 2)],
        "above": [round(part, 2) for part in above(small, large)],
        "ratio": [round(part, 3) for part in ratio],
    }


question = Question(
    "schedules", __doc__ or "", ask, sizes={"few": (10, 10), "many": (10_000, 1_000), "rounds": (15, 2)}
)

if __name__ == "__main__":
    question.main()
