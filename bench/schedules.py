"""Whether a tick pays for what is due, or for what is defined: 10 due schedules of 10, and of 10,000.

    uv run python -m bench.schedules

It starts its own Postgres servers and removes them. `docs/benchmarks.md` says what the figures mean.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import psycopg

from tick.handlers import Handler, Registry

from . import clusters
from .dataset import create
from .rounds import Contender, Sample, Series, alternate, shown
from .ticks import Timed, timed

DUE = 10
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


def measure(urls: str, few: int, many: int, due: int, rounds: int) -> dict[str, Any]:
    """Both deployments in turn: the first tick of a new file, then ticks with so many due, then idle ones."""
    result: dict[str, Any] = {}
    deployments = {count: Deployment(urls, count, due) for count in (few, many)}
    for count, deployment in deployments.items():
        took = deployment.tick().seconds
        print(f"  the first tick with a new file of {count:,} schedules: {took * 1000:,.1f} ms")
        result[f"first tick, {count} schedules"] = round(took * 1000, 1)
    for kind, number in ((f"{due} due", due), ("none due", 0)):
        for deployment in deployments.values():
            deployment.due = number
        contenders: dict[str, Contender] = {str(n): d.measured for n, d in deployments.items()}
        series = alternate(contenders, rounds)
        result[kind] = _report(kind, series[str(few)], series[str(many)], few, many)
    return result


def _report(kind: str, small: Series, large: Series, few: int, many: int) -> dict[str, Any]:
    ratio = small.ratio(large)
    for count, series in ((few, small), (many, large)):
        trips = series.as_dict()["round_trips"]
        print(f"  {kind} of {count:>6,}: {1000 / series.median:6.1f} ms a tick, {trips:.0f} round trips")
    print(f"  {kind}: time with {many:,} by time with {few:,}: {shown(ratio)}", flush=True)
    return {
        "milliseconds": [round(1000 / small.median, 2), round(1000 / large.median, 2)],
        "ratio": [round(part, 3) for part in ratio],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.schedules", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--postgres", nargs="+", default=["15", "18"], metavar="MAJOR")
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()

    def measured(programs: Path) -> dict[str, Any]:
        with clusters.cluster(programs) as urls:
            exact = clusters.server_version(urls.format("postgres"))
            print(f"\nPostgres {exact}, {args.rounds} rounds")
            return {"postgres": exact} | measure(urls, args.few, args.many, min(DUE, args.few), args.rounds)

    clusters.measure_each(args.postgres, measured, args.json)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
