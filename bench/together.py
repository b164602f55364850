"""Two and four ticks at once on one queue: how much more they do than one, and what they wait for.

    uv run python -m bench.together

Each is a process of its own that has imported all it needs, and starts when it is told to.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import psycopg

from tick import processor
from tick.config import Settings

from .dataset import Bench
from .proxy import SPAWN
from .questions import Answer, Question, Server, Verdict, at_least
from .rounds import Contender, Sample, Series, alternate, line, shown
from .ticks import noops

GOALS = {2: 1.4, 4: 1.2}
BUDGET = 300.0
LOOK = 0.02
"""Seconds between two looks at what the ticks wait for."""
WAITING = """
select wait_event from pg_stat_activity
 where datname = %s and wait_event_type = 'Lock' and pid <> pg_backend_pid()
"""
WAITED = re.compile(r'\[(\d+)\] LOG: .* still waiting(?:.*\n)+?.*\[\1\] CONTEXT: .* in relation "(\w+)"')
WRONG = "select count(*) from tick.jobs where status <> 'done' or attempt <> 1"


class Ticked(NamedTuple):
    """One tick: when it began and ended, by the clock that all processes share, and what it did."""

    began: float
    ended: float
    done: int
    claimed: int
    round_trips: int = 0


def ticks_when_told(url: str, orders: Connection) -> None:
    """The work of a process: a tick for each order."""
    registry = noops()
    settings = Settings(database_url=url, schedules_path=Path("no schedules file"))
    orders.send("ready")
    while orders.recv():
        began = time.monotonic()
        report = asyncio.run(processor.process_tick(settings, registry, budget=BUDGET))
        orders.send(Ticked(began, time.monotonic(), report.done, report.claimed))


@contextmanager
def crew(url: str, size: int) -> Iterator[list[Connection]]:
    """So many processes, ready, each at the other end of a pipe."""
    ends, processes = [], []
    for _ in range(size):
        ours, theirs = SPAWN.Pipe()
        processes.append(SPAWN.Process(target=ticks_when_told, args=[url, theirs], daemon=True))
        processes[-1].start()
        ends.append(ours)
    try:
        for end in ends:
            end.recv()
        yield ends
    finally:
        for process in processes:
            process.kill()
            process.join()


class Waits:
    """What ticks wait for: as the server's log has it, from 10 ms on, and as it is seen by looking."""

    def __init__(self, server: Server, database: str) -> None:
        (folder,) = parse_qs(urlsplit(server.urls).query)["host"]
        self.url, self.database = server.urls.format("postgres"), database
        self.log = Path(folder) / "log"
        self.seen: Counter[str] = Counter()
        self.looks = 0
        self._over = threading.Event()
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("alter system set log_lock_waits = on")
            connection.execute("alter system set deadlock_timeout = '10ms'")
            connection.execute("select pg_reload_conf()")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look, all the while."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        yield
        self._over.set()
        thread.join()

    def _look(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self._over.wait(LOOK):
                self.seen.update(row[0] for row in connection.execute(WAITING, [self.database]))
                self.looks += 1

    def logged(self, text: str) -> int:
        """Lines of the server's log with this in them."""
        return self.log.read_text(errors="replace").count(text)

    def relations(self) -> dict[str, int]:
        """Whose rows were waited for, as the same process says some lines later."""
        return dict(Counter(found[1] for found in WAITED.findall(self.log.read_text(errors="replace"))))

    def figures(self) -> dict[str, Any]:
        """What there is to tell."""
        return {
            "lock waits of 10 ms and more": self.logged("still waiting for"),
            "of them in relations": self.relations(),
            "deadlocks": self.logged("deadlock detected"),
            "looks": self.looks,
            "seen to wait for a lock": dict(self.seen),
        }


def together(bench: Bench, ends: list[Connection], jobs: int) -> Sample:
    """All these processes tick once, on a queue that has just been filled: from the signal to the last report."""
    bench.fill(jobs)
    began = time.monotonic()
    for end in ends:
        end.send(True)
    ticks: list[Ticked] = [end.recv() for end in ends]
    assert sum(tick.done for tick in ticks) == sum(tick.claimed for tick in ticks) == jobs, ticks
    with psycopg.connect(bench.url) as connection:
        (wrong,) = connection.execute(WRONG).fetchone() or (None,)
    assert wrong == 0, f"{wrong} jobs are not done, or were claimed more than once"
    return Sample(jobs / (max(tick.ended for tick in ticks) - began))


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """One tick, two and four, in turn."""
    bench = Bench(server.urls, "together")
    waits = Waits(server, bench.name)
    with crew(bench.url, max(GOALS)) as ends, waits.watched():
        contenders: dict[str, Contender] = {
            str(size): partial(together, bench, ends[:size], args.jobs) for size in (1, *GOALS)
        }
        series = alternate(contenders, args.rounds)
    return _answer(series, waits.figures(), args)


def _answer(series: dict[str, Series], waits: dict[str, Any], args: argparse.Namespace) -> Answer:
    one, verdicts = series["1"], []
    figures: dict[str, Any] = {"waits": waits, "1": one.as_dict()}
    print(line("one tick", one))
    for size, goal in GOALS.items():
        ratio = series[str(size)].ratio(one)
        print(line(f"{size} ticks at once", series[str(size)], f"{shown(ratio)} of one"), flush=True)
        figures[str(size)] = series[str(size)].as_dict() | {"of_one": [round(part, 3) for part in ratio]}
        verdicts.append(at_least(f"{size} ticks at once", goal, "x one", ratio))
    print("  " + ", ".join(f"{name}: {value}" for name, value in waits.items()), flush=True)
    return Answer(figures, [*verdicts, _no_waits(waits), _none_twice(args)])


def _no_waits(waits: dict[str, Any]) -> Verdict:
    logged, seen = waits["lock waits of 10 ms and more"], sum(waits["seen to wait for a lock"].values())
    deadlocks = waits["deadlocks"]
    measured = f"{logged} of 10 ms and more, {seen} seen in {waits['looks']:,} looks; {deadlocks} deadlocks"
    bound = f"rows of {', '.join(waits['of them in relations'])}"
    return Verdict("waits of ticks for each other's locks", "none", measured, logged == deadlocks == seen == 0, bound)


def _none_twice(args: argparse.Namespace) -> Verdict:
    rounds = (args.rounds + 1) * (1 + len(GOALS))
    measured = f"every one of {args.jobs:,} jobs done by its first attempt, in {rounds} runs"
    return Verdict("jobs that several ticks claim at once", "none twice", measured, met=True)


question = Question(
    name="together",
    description="Two and four ticks at once on one queue.",
    ask=ask,
    sizes={"jobs": (40_000, 5_000), "rounds": (7, 2)},
)

if __name__ == "__main__":
    question.main()
