"""The memory of a tick that drains a million jobs: `tick run-once`, in a process of its own, as anybody runs it.

uv run python -m bench.memory
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from .dataset import Bench
from .questions import Answer, Question, Server, Verdict, at_most

ROOT = Path(__file__).parents[1]
BUDGET = 1800
PARTS = 10
MEGABYTES = 120
FLAT = 1.1
"""By how much it may grow from the first tenth to the last: a page or two of the allocator's, and no job's."""

HANDLERS = """
import os, pathlib, tick

PART, PAGE = {part}, os.sysconf("SC_PAGE_SIZE")
count = 0

@tick.job
async def noop(user_id: int, template: str, audience: str) -> None:
    global count
    count += 1
    if count % PART == 0:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        with open("samples", "a") as file:
            print(pages * PAGE, file=file)
"""
"""A job that is all overhead, but that it writes down now and then how many bytes are resident."""


class Drained(NamedTuple):
    """What a process came to: bytes resident after each part of the jobs, and at most; the seconds of its tick."""

    samples: list[int]
    peak: int
    seconds: float


def drained(url: str, jobs: int) -> Drained:
    """Run `tick run-once` on a queue of so many jobs."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        (at / "watched_jobs.py").write_text(HANDLERS.format(part=jobs // PARTS))
        env = os.environ | {"DATABASE_URL": url, "TICK_MODULES": "watched_jobs", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tick.cli", "run-once", "--json", "--budget", str(BUDGET)]
        with (at / "report").open("w") as report:
            process = subprocess.Popen(command, cwd=at, env=env, stdout=report, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, f"tick run-once ended with {process.returncode}"
        told: dict[str, Any] = json.loads((at / "report").read_text().splitlines()[-1])
        assert told["done"] == jobs, told
        samples = [int(line) for line in (at / "samples").read_text().splitlines()]
        return Drained(samples, usage.ru_maxrss * 1024, told["used"])


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """Drain them, and look at what was resident after each tenth, and at most."""
    bench = Bench(server.urls, "memory")
    bench.fill(args.jobs)
    came = drained(bench.url, args.jobs)
    megabytes = [round(each / 1e6, 1) for each in came.samples]
    print(f"  {args.jobs:,} jobs in {came.seconds:.1f} s: {args.jobs / came.seconds:,.0f}/s", flush=True)
    print("  resident after each tenth, MB: " + ", ".join(map(str, megabytes)), flush=True)
    growth = came.samples[-1] / came.samples[0]
    figures = {"jobs": args.jobs, "seconds": came.seconds, "megabytes": megabytes, "peak": came.peak}
    peak = came.peak / 1e6
    question = f"memory of a tick that drains {args.jobs:,} jobs"
    most = Verdict(question, f"< {MEGABYTES} MB", f"{peak:.0f} MB at most", peak < MEGABYTES)
    flat = at_most(f"{question}, the last tenth", FLAT, "x the first tenth", (growth, growth, growth))
    return Answer(figures, [most, flat])


question = Question(
    name="memory",
    description="The memory of a tick that drains a million jobs.",
    ask=ask,
    sizes={"jobs": (1_000_000, 50_000)},
)

if __name__ == "__main__":
    question.main()
