"""What the questions of the benchmark have in common: a command line, a private server, an answer with its goals."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from . import clusters
from .rounds import shown

VERSIONS = ["15", "18"]


@dataclass(frozen=True)
class Server:
    """A private Postgres: `urls` wants the name of a database, `version` is exact, such as 18.4."""

    urls: str
    version: str
    major: str


class Verdict(NamedTuple):
    """What came of one goal. `met` is None for what is reported and has no goal, or could not be measured."""

    question: str
    goal: str
    measured: str
    met: bool | None
    bound: str = ""
    """What bounds it, where it is not met."""


class Answer(NamedTuple):
    """The JSON-able figures of one question on one server, and its goals."""

    figures: dict[str, Any]
    verdicts: list[Verdict]


@dataclass(frozen=True)
class Question:
    """One command, `python -m bench.<name>`; `ask` is called once for each version of Postgres.

    `sizes` are its numbers, each an option: as they are, and with `--quick`.
    """

    name: str
    description: str
    ask: Callable[[Server, argparse.Namespace], Answer]
    sizes: dict[str, tuple[float, float]] = field(default_factory=dict)
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None

    def arguments(self, given: list[str] | None = None) -> argparse.Namespace:
        """The options, from the command line when none are given."""
        parser = argparse.ArgumentParser(prog=f"bench.{self.name}", description=self.description.splitlines()[0])
        parser.add_argument("--postgres", nargs="+", default=VERSIONS, metavar="MAJOR")
        parser.add_argument("--quick", action="store_true", help="does it run? Small, and not to be quoted")
        parser.add_argument("--json", type=Path, metavar="FILE", help="keep every sample")
        for name, (usual, quick) in self.sizes.items():
            text = f"{usual:,}, or {quick:,} with --quick"
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(usual), metavar="N", help=text)
        self.options(parser)
        args = parser.parse_args(given)
        for name, sizes in self.sizes.items():
            if getattr(args, name) is None:
                setattr(args, name, sizes[args.quick])
        return args

    def main(self) -> None:
        """The command."""
        clusters.stop_on_sigterm()
        args = self.arguments()
        print(" · ".join(f"{name} {value}" for name, value in clusters.facts().items()))
        try:
            self.run(args)
        except KeyboardInterrupt:
            sys.exit(130)

    def run(self, args: argparse.Namespace) -> None:
        """Ask on each server, and keep what came of it in the file of `--json`."""
        with closing(servers(args.postgres)) as started_ones:
            answers = [self.answer(server, args) for server in started_ones]
        if args.json:
            args.json.write_text(json.dumps(self._report(answers, args), indent=1) + "\n")

    def _report(self, answers: list[Answer], args: argparse.Namespace) -> dict[str, Any]:
        goals = [
            {"postgres": answer.figures["postgres"]} | verdict._asdict()
            for answer in answers
            for verdict in answer.verdicts
        ]
        sizes = {name: getattr(args, name) for name in self.sizes}
        figures = [answer.figures for answer in answers]
        return clusters.facts() | {"sizes": sizes, "quick": args.quick, "goals": goals, self.name: figures}

    def answer(self, server: Server, args: argparse.Namespace) -> Answer:
        """Ask, on one server, and print what came of the goals."""
        print(f"\n{self.name}, on Postgres {server.version}", flush=True)
        answer = self.ask(server, args)
        for verdict in answer.verdicts:
            print(f"  {_MARKS[verdict.met]} {verdict.question}: {verdict.measured}  (goal: {verdict.goal})", flush=True)
        return answer._replace(figures={"postgres": server.version} | answer.figures)


_MARKS = {True: "met    ", False: "NOT MET", None: "told   "}


def servers(versions: list[str]) -> Generator[Server]:
    """A server of each version that is installed, one after the other."""
    for version in versions:
        programs = clusters.binaries(version)
        if programs is None:
            print(f"\nPostgres {version}: not installed, left out", file=sys.stderr)
            continue
        with started(programs, version) as server:
            yield server


@contextmanager
def started(programs: Path, major: str) -> Iterator[Server]:
    """A server of its own, gone afterwards."""
    with clusters.cluster(programs) as urls:
        yield Server(urls, clusters.server_version(urls.format("postgres")), major)


Ratio = tuple[float, float, float]
"""Of rounds: the median, the least and the greatest."""


def at_least(question: str, goal: float, against: str, ratio: Ratio, bound: str = "") -> Verdict:
    """A ratio that should be at least so much."""
    return _judged(question, f">= {goal:g}", against, ratio, ratio[0] >= goal, bound)


def at_most(question: str, goal: float, against: str, ratio: Ratio, bound: str = "") -> Verdict:
    """A ratio that should be at most so much."""
    return _judged(question, f"<= {goal:g}", against, ratio, ratio[0] <= goal, bound)


def _judged(question: str, goal: str, against: str, ratio: Ratio, met: bool, bound: str) -> Verdict:
    return Verdict(question, f"{goal} {against}", f"{shown(ratio)} {against}", met, "" if met else bound)
