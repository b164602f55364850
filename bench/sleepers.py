"""How close to ideal jobs run that only wait: 50 ms each, so many at once, and nothing else to do.

    uv run python -m bench.sleepers

Ideal is jobs / concurrency x 50 ms, without connecting, claiming or settling anything. It starts its own Postgres
servers and removes them. `docs/benchmarks.md` says what the figures mean.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from . import peers
from .peers import TICK
from .peers.contest import Arena, Contender, Result
from .questions import Answer, Question, Server, Verdict, at_most
from .rounds import shown

SLEEP = 0.05
GOALS = {50: 1.03, 500: 1.15}
"""Times the ideal, by how many run at once."""
ASKED = "graphile-worker"
"""The nearest peer takes part in every round, the others in one."""


def contenders(concurrency: int, args: argparse.Namespace) -> list[Contender]:
    """tick and the peers, all with so many jobs at once."""
    options = {"concurrency": concurrency, "config": "best"}
    return [
        Contender("tick", TICK, args.jobs, options=options, sleep=SLEEP),
        *(
            Contender(p.name, p, args.jobs, options=options, sleep=SLEEP, rounds=None if p.name == ASKED else 1)
            for p in peers.chosen(args.peers)
        ),
    ]


def over_ideal(result: Result, concurrency: int) -> tuple[float, float, float]:
    """Times the ideal that it took: the median, the least and the greatest."""
    ideal = result.contender.jobs / concurrency * SLEEP
    taken = [seconds / ideal for seconds in result.seconds]
    return median(taken), min(taken), max(taken)


def at_once(arena: Arena, concurrency: int, args: argparse.Namespace) -> tuple[dict[str, Any], Verdict]:
    """The question with so many at once."""
    print(f"  {args.jobs:,} jobs of 50 ms, {concurrency} at once: ideally {args.jobs / concurrency * SLEEP:g} s")
    results = arena.compare(contenders(concurrency, args), args.rounds, warm_up=not args.quick)
    figures = {name: _told(result, concurrency) for name, result in results.items()}
    question = f"jobs that sleep, {concurrency} at once"
    if missing := results["tick"].missing:
        return figures, Verdict(question, f"<= {GOALS[concurrency]:g} x ideal", f"not measured: {missing}", None)
    return figures, at_most(question, GOALS[concurrency], "x ideal", over_ideal(results["tick"], concurrency))


def _told(result: Result, concurrency: int) -> dict[str, Any]:
    name = result.contender.name
    if result.missing:
        print(f"    {name:<18} not measured: {result.missing}", flush=True)
        return result.as_dict()
    ratio = over_ideal(result, concurrency)
    print(f"    {name:<18} {median(result.seconds):6.3f} s  {shown(ratio)} x ideal", flush=True)
    return result.as_dict() | {"over_ideal": [round(part, 3) for part in ratio]}


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """With each concurrency that has a goal."""
    arena = Arena(server.urls)
    answers = {concurrency: at_once(arena, concurrency, args) for concurrency in GOALS}
    return Answer({str(each): figures for each, (figures, _) in answers.items()}, [v for _, v in answers.values()])


question = Question(
    "sleepers", __doc__ or "", ask, sizes={"jobs": (2_000, 1_000), "rounds": (5, 1)}, options=peers.options
)

if __name__ == "__main__":
    question.main()
