"""How fast one tick drains a queue, beside the least SQL that could, other settings of its own, and other queues.

    uv run python -m bench.drain
    uv run python -m bench.drain --peers graphile-worker pgqueuer --defaults

It starts its own Postgres servers and removes them. `docs/benchmarks.md` says what the figures mean.
"""

from __future__ import annotations

import argparse
from typing import Any

from . import peers
from .peers import RAW, TICK, Peer
from .peers.contest import Arena, Contender, Result, Results, goal, tell
from .questions import Answer, Question, Server

SWEEP = [(10, 2_000), (50, 500), (50, 1_000), (200, 500), (200, 2_000)]
"""Other settings than the defaults: concurrency and batch size."""
QUICK_SWEEP = SWEEP[2:3]
SLOW = 20_000
"""A peer that is given fewer jobs than so many takes part in few rounds."""
FEW_ROUNDS = 3
QUICK_PART = 20
"""One by so many of a slow peer's jobs are enough to see that it runs."""
GOALS = {"graphile-worker": 1.0, "pgqueuer": 3.5, "procrastinate": 60.0}
"""Times a peer at its best."""


def ours(args: argparse.Namespace) -> list[Contender]:
    """tick as it is, with plain functions and with other settings, and the ceiling."""
    jobs = args.jobs
    return [
        Contender("tick", TICK, jobs),
        Contender("tick, def", TICK, jobs, options={"handler": "def"}),
        Contender("raw SQL", RAW, jobs),
        *(
            Contender(f"tick, concurrency {at_once}, batch {batch}", TICK, jobs, options=_settings(at_once, batch))
            for at_once, batch in (QUICK_SWEEP if args.quick else SWEEP)
        ),
    ]


def _settings(concurrency: int, batch_size: int) -> dict[str, Any]:
    return {"concurrency": concurrency, "batch_size": batch_size}


def theirs(peer: Peer, config: str, args: argparse.Namespace) -> Contender:
    """A peer with so many jobs as it does in a few seconds."""
    usual = min(args.jobs, peer.jobs if config == "best" else peer.default_jobs)
    jobs = max(1, usual // QUICK_PART) if args.quick and usual < min(SLOW, args.jobs) else usual
    rounds = 1 if args.quick else FEW_ROUNDS if usual < SLOW else None
    name = peer.name if config == "best" else f"{peer.name}, defaults"
    return Contender(name, peer, jobs, options={"config": config}, rounds=rounds)


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """All in turn."""
    chosen = peers.chosen(args.peers)
    configs = ["best", "default"] if args.defaults else ["best"]
    contenders = ours(args) + [theirs(peer, config, args) for peer in chosen for config in configs]
    print(f"  {args.jobs:,} jobs, {args.rounds} rounds; peers: their best settings")
    results = Arena(server.urls).compare(contenders, args.rounds, warm_up=not args.quick)
    figures = tell(results, results["tick"], "of tick")
    settings = {peer.name: {"best": peer.best, "source": peer.source} for peer in chosen}
    return Answer({"drain": figures, "peers": settings}, [*beside_peers(results), *beside_ourselves(results)])


def beside_peers(results: Results) -> list[Any]:
    """The goals against other queues."""
    return [goal("drain", least, results["tick"], results.get(name), f"x {name}") for name, least in GOALS.items()]


def beside_ourselves(results: Results) -> list[Any]:
    """The goals against the ceiling and other settings of tick."""
    tick = results["tick"]
    return [
        goal("drain", 0.6, tick, results["raw SQL"], "of the ceiling"),
        goal("drain at the default settings", 0.9, tick, best(results), f"of {best(results).contender.name}"),
        goal("drain with plain functions", 0.5, results["tick, def"], tick, "of coroutine functions"),
    ]


def best(results: Results) -> Result:
    """The settings of tick that were fastest."""
    sets = [r for r in results.values() if r.contender.peer is TICK and "handler" not in r.contender.options]
    return max(sets, key=lambda result: result.series.median if result.samples else 0.0)


def options(parser: argparse.ArgumentParser) -> None:
    peers.options(parser)
    parser.add_argument("--defaults", action="store_true", help="peers at their default settings, too")


question = Question("drain", __doc__ or "", ask, sizes={"jobs": (20_000, 5_000), "rounds": (5, 2)}, options=options)

if __name__ == "__main__":
    question.main()
