"""How fast jobs are put in, each with a commit of its own and many at once, beside bare inserts and other queues.

    uv run python -m bench.enqueue
    uv run python -m bench.enqueue --peers pgqueuer pgmq

It starts its own Postgres servers and removes them. `docs/benchmarks.md` says what the figures mean.
"""

from __future__ import annotations

import argparse

from . import peers
from .peers import RAW, TICK, Peer
from .peers.contest import Arena, Contender, Results, goal, tell
from .questions import Answer, Question, Server

ASKED = ("pgqueuer", "pgmq")
"""The peers that a goal names take part in every round, the others in few."""
FEW_ROUNDS = 2


def one_by_one(args: argparse.Namespace) -> list[Contender]:
    """Each with a commit of its own."""
    return [
        _way("tick, from Python", TICK, args.singles, "single"),
        _way("tick, by SQL", TICK, args.singles, "sql"),
        _way("a bare insert", RAW, args.singles, "single"),
        *(_of(peer, args.singles, "single") for peer in peers.chosen(args.peers)),
    ]


def in_bulk(args: argparse.Namespace) -> list[Contender]:
    """Many at once, the way that each documents."""
    return [
        _way("tick.enqueue_many", TICK, args.bulk, "bulk"),
        _way("a bare insert of arrays", RAW, args.bulk, "bulk"),
        *(_of(peer, min(args.bulk, peer.jobs), "bulk") for peer in peers.chosen(args.peers)),
    ]


def _way(name: str, peer: Peer, jobs: int, how: str) -> Contender:
    return Contender(name, peer, jobs, "enqueue", {"how": how})


def _of(peer: Peer, jobs: int, how: str) -> Contender:
    rounds = None if peer.name in ASKED else FEW_ROUNDS
    return Contender(peer.name, peer, jobs, "enqueue", {"how": how}, rounds=rounds)


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """Both ways."""
    arena = Arena(server.urls)

    def compared(contenders: list[Contender]) -> Results:
        return arena.compare(contenders, args.rounds, warm_up=not args.quick)

    print(f"  one by one: {args.singles:,} jobs, {args.rounds} rounds", flush=True)
    single = compared(one_by_one(args))
    figures = {"single": tell(single, single["tick, from Python"], "of tick")}
    print(f"  in bulk: {args.bulk:,} jobs, {args.rounds} rounds", flush=True)
    bulk = compared(in_bulk(args))
    figures["bulk"] = tell(bulk, bulk["tick.enqueue_many"], "of tick")
    verdicts = [
        goal("enqueue one by one", 2.0, single["tick, from Python"], single.get("pgqueuer"), "x pgqueuer"),
        goal("enqueue in bulk", 1.0, bulk["tick.enqueue_many"], bulk.get("pgmq"), "x pgmq"),
    ]
    return Answer(figures, verdicts)


question = Question(
    "enqueue",
    __doc__ or "",
    ask,
    sizes={"singles": (1_000, 200), "bulk": (20_000, 5_000), "rounds": (5, 1)},
    options=peers.options,
)

if __name__ == "__main__":
    question.main()
