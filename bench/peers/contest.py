"""Contenders that take turns, each in a process and a database of its own, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from bench.questions import Verdict, at_least
from bench.rounds import Sample, Series, line, shown

from . import NotMeasured, Peer

WARM_UP = 10
"""The part of the jobs that a round which does not count has: one by so many."""

SHORT = 1.0
"""Seconds: a shorter run is mostly its start, and says nothing beside one of another number of jobs."""


@dataclass(frozen=True)
class Contender:
    """Something that is measured.

    Attributes:
        name: as it is printed.
        peer: the queue.
        jobs: how many in a round.
        action: drain or enqueue.
        options: of the action, beside jobs.
        sleep: seconds that each job takes.
        rounds: fewer than the others take part in; None means all.
    """

    name: str
    peer: Peer
    jobs: int
    action: str = "drain"
    options: dict[str, Any] = field(default_factory=dict)
    sleep: float = 0.0
    rounds: int | None = None


@dataclass
class Result:
    """What one contender did, by the number of the round; `missing` says why there is nothing."""

    contender: Contender
    samples: dict[int, Sample] = field(default_factory=dict)
    missing: str = ""

    @property
    def series(self) -> Series:
        return Series(list(self.samples.values()))

    @property
    def seconds(self) -> list[float]:
        return [self.contender.jobs / rate for rate in self.series.rates]

    def ratio(self, other: Result) -> tuple[float, float, float]:
        """This by the other in the rounds that both took part in: the median, the least and the greatest."""
        both = sorted(self.samples.keys() & other.samples.keys())
        return Series([self.samples[n] for n in both]).ratio(Series([other.samples[n] for n in both]))

    def as_dict(self) -> dict[str, Any]:
        known = {"jobs": self.contender.jobs, "requires": self.contender.peer.requires}
        if self.missing:
            return known | {"not measured": self.missing}
        return known | self.series.as_dict()


Results = dict[str, Result]


class Arena:
    """The databases of one server, one for each queue."""

    def __init__(self, urls: str) -> None:
        self.urls = urls
        self.refused: dict[str, str] = {}
        self.ready: dict[str, str] = {}

    def url(self, peer: Peer) -> str:
        """The peer's database, made when it is first asked for. Raises NotMeasured, also for what failed before."""
        if peer.name in self.refused:
            raise NotMeasured(self.refused[peer.name])
        if peer.name not in self.ready:
            try:
                self.ready[peer.name] = self._made(peer)
            except NotMeasured as error:
                self.refused[peer.name] = str(error)
                raise
        return self.ready[peer.name]

    def _made(self, peer: Peer) -> str:
        peer.command()
        name = "bench_" + re.sub(r"\W", "_", peer.name.lower())
        with psycopg.connect(self.urls.format("postgres"), autocommit=True) as admin:
            admin.execute(f"create database {name}")
        peer.ask("setup", self.urls.format(name))
        return self.urls.format(name)

    def sample(self, contender: Contender, jobs: int) -> Sample:
        """One turn, on a queue that was just filled, or emptied. Raises NotMeasured."""
        url, draining = self.url(contender.peer), contender.action == "drain"
        contender.peer.ask("fill", url, jobs=jobs if draining else 0, sleep=contender.sleep)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("vacuum (truncate off, analyze)")
            connection.execute("checkpoint")
        answer = contender.peer.ask(contender.action, url, jobs=jobs, **contender.options)
        if answer.get("jobs", jobs) != jobs:
            raise NotMeasured(f"{contender.action} did {answer['jobs']:,} of {jobs:,} jobs")
        return Sample(jobs / answer["seconds"], answer.get("round_trips", 0))

    def compare(self, contenders: list[Contender], rounds: int, *, warm_up: bool) -> Results:
        """All in turn, forwards and backwards; who fails is left out of the rounds that follow."""
        results = {each.name: Result(each) for each in contenders}
        for number in range(0 if warm_up else 1, rounds + 1):
            for result in _turns(results.values(), number):
                self._take_turn(result, number)
        return results

    def _take_turn(self, result: Result, number: int) -> None:
        jobs = result.contender.jobs
        try:
            sample = self.sample(result.contender, jobs if number else max(1, jobs // WARM_UP))
        except NotMeasured as error:
            result.missing = str(error)
            return
        if number:
            result.samples[number] = sample


def _turns(results: Iterable[Result], number: int) -> list[Result]:
    taking = [r for r in results if not r.missing and number <= (r.contender.rounds or number)]
    return taking[::-1] if number % 2 else taking


def tell(results: Results, against: Result, unit: str) -> dict[str, Any]:
    """Print a line for each contender, with its ratio to one of them; the same as figures."""
    figures = {}
    for name, result in results.items():
        figures[name] = result.as_dict()
        if result.missing:
            print(f"  {name:<34} not measured: {result.missing}", flush=True)
            continue
        told = _amount(result, against)
        if result is not against and not against.missing:
            ratio = result.ratio(against)
            figures[name]["ratio"] = [round(part, 4) for part in ratio]
            told = f"{shown(ratio)} {unit}{told and ', '}{told}"
        print(line(name, result.series, told), flush=True)
    return figures


def _amount(result: Result, against: Result) -> str:
    """How many jobs and rounds, where they are not those of the others."""
    mine, theirs = result.contender, against.contender
    jobs = f"{mine.jobs:,} jobs" if mine.jobs != theirs.jobs else ""
    rounds = f"rounds: {len(result.samples)}" if len(result.samples) != len(against.samples) else ""
    return ", ".join(filter(None, (jobs, rounds)))


def goal(question: str, least: float, mine: Result, theirs: Result | None, against: str) -> Verdict:
    """Whether one is at least so many times as fast as another; told only, where one of them was not measured."""
    wanted = f">= {least:g} {against}"
    if theirs is None:
        return Verdict(question, wanted, "not asked for", None)
    if missing := mine.missing or theirs.missing:
        return Verdict(question, wanted, f"not measured: {missing}", None)
    fewer, more = sorted((mine, theirs), key=lambda result: result.contender.jobs)
    if fewer.contender.jobs < more.contender.jobs and min(fewer.seconds) < SHORT:
        return Verdict(question, wanted, f"not judged: {fewer.contender.jobs:,} jobs are too few beside more", None)
    return at_least(question, least, against, mine.ratio(theirs))
