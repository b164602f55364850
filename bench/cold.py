"""Cold starts: whole processes that start, run one due job and exit, timed from outside.

The floor is what no Python that asks Postgres can be below: import psycopg, connect, one query, exit. What else is
started shows how far the floor itself goes down, by newer Pythons, compiled bytecode, and what psycopg imports.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import psycopg

from . import peers, vercel
from .dataset import INSERT_PENDING, TYPE, create
from .peers import NotMeasured, install
from .questions import Answer, Question, Server, Verdict, at_most
from .rounds import Sample, Series, alternate, shown

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.12", "3.13")
ON_VERCEL = "3.12"
"""The Python of Vercel's runtime, which wants this one at least."""
PATIENCE = 60.0
"""Seconds that one process may take."""

FLOOR = """
import os, psycopg
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("select 1").fetchone()
"""
ASYNCPG = """
import asyncio, os, asyncpg
async def main():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.fetchval("select 1")
    await connection.close()
asyncio.run(main())
"""
# Its version is all that psycopg wants of importlib.metadata, which brings the packages of mail and archives with it.
WITHOUT_METADATA = """
import sys, types
for name in ("psycopg.version", "psycopg_binary.version"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__version__ = "0"
"""
AT_ONCE = "\nos._exit(0)\n"
COLD_TICK = "a cold /tick on Vercel's runtime"
TICK = "from tick.cli import entry; entry()"

HANDLER = """
import tick

@tick.job
async def noop(user_id: int, template: str, audience: str) -> None: ...
"""
NOT_DUE = """
[schedules.new-year]
cron = "0 0 1 1 *"
type = "noop"
payload = { user_id = 1, template = "weekly-report", audience = "team" }
"""


@dataclass
class Start:
    """A process to start.

    Attributes:
        command: what to start.
        env: all of its environment.
        folder: where.
        before: what to do first, which is not timed.
        cpu: milliseconds of a processor that each start took.
    """

    command: list[str]
    env: dict[str, str]
    folder: Path
    before: Callable[[], object] = lambda: None
    cpu: list[float] = field(default_factory=list)

    def __call__(self) -> Sample:
        """Milliseconds from its start to its end. Raises NotMeasured when it fails."""
        self.before()
        started = time.perf_counter()
        process = subprocess.Popen(
            self.command, env=self.env, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        said = process.communicate()[1].decode(errors="replace")
        if process.returncode:
            raise NotMeasured(install.last_line(said))
        self.cpu.append(1000 * (usage.ru_utime + usage.ru_stime))
        return Sample(1000 * took)


class Project:
    """A project with one handler, and a database of its own."""

    def __init__(self, urls: str, name: str, folder: Path, schedules: str = "") -> None:
        self.url, self.folder = create(urls, name), folder / name
        self.folder.mkdir()
        (self.folder / "pyproject.toml").write_text('[tool.tick]\nmodules = ["cold_jobs"]\n')
        (self.folder / "cold_jobs.py").write_text(HANDLER)
        if schedules:
            (self.folder / "schedules.toml").write_text(schedules)
        self.made = 0

    def enqueue(self) -> None:
        """Put one job in, which is due."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(INSERT_PENDING, {"type": TYPE, "jobs": 1})
        self.made += 1

    def start(self, python: str, program: str, env: dict[str, str] | None = None, *, due: bool = False) -> Start:
        """A start of Python with this program in this project; of tick's, `due` has it find a job."""
        command = [python, "-c", program, "run-once"] if program == TICK else [python, "-c", program]
        return Start(command, environment(self.url) | (env or {}), self.folder, self.enqueue if due else lambda: None)

    def check(self) -> None:
        """Every job that was put in has been done."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("select count(*) from tick.jobs where status = 'done'").fetchone()
        assert row == (self.made,), f"{row} of {self.made} jobs are done"


def environment(url: str) -> dict[str, str]:
    """That of every process here: bytecode is written on the first, which does not count."""
    kept = {name: value for name, value in peers.environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"DATABASE_URL": url}


# Who is started


def ours(project: Project, scheduled: Project) -> dict[str, Start]:
    """tick and the floor, on this Python."""
    python = sys.executable
    return {
        "the floor": project.start(python, FLOOR),
        "tick run-once, one due job": project.start(python, TICK, due=True),
        "tick run-once, schedules and a job": scheduled.start(python, TICK, due=True),
        "tick run-once, nothing due": project.start(python, TICK),
    }


def lower_floors(project: Project, folder: Path) -> dict[str, Start]:
    """The floor with this and that left out."""
    python, site = sys.executable, sysconfig.get_path("purelib")
    isolated = project.start(python, FLOOR)
    isolated.command.insert(1, "-I")
    unsited = project.start(python, FLOOR, {"PYTHONPATH": site})
    unsited.command.insert(1, "-S")
    fresh = uncompiled(project, folder)
    return {
        "an interpreter": project.start(python, "pass"),
        "the floor, exit at once": project.start(python, FLOOR + AT_ONCE),
        "the floor, no metadata": project.start(python, WITHOUT_METADATA + FLOOR),
        "the floor, both": project.start(python, WITHOUT_METADATA + FLOOR + AT_ONCE),
        "the floor, python -I": isolated,
        "the floor, python -S": unsited,
        "the floor, no bytecode": project.start(python, FLOOR, fresh),
        "tick run-once, no bytecode": project.start(python, TICK, fresh, due=True),
    }


def uncompiled(project: Project, folder: Path) -> dict[str, str]:
    """What makes a fresh deployment: Python's own library is compiled, and nothing else is, nor gets so."""
    prefix = folder / "bytecode"
    for program in (FLOOR, TICK):
        project.start(sys.executable, program, {"PYTHONPYCACHEPREFIX": str(prefix)}, due=program == TICK)()
    for path in (sysconfig.get_path("purelib"), str(ROOT), str(project.folder)):
        shutil.rmtree(prefix / path.lstrip("/"), ignore_errors=True)
    return {"PYTHONPYCACHEPREFIX": str(prefix), "PYTHONDONTWRITEBYTECODE": "1"}


def other_pythons(project: Project) -> dict[str, Start]:
    """The floor and tick on newer Pythons, and the floor of asyncpg."""
    starts = {}
    for number in PYTHONS:
        try:
            python = str(newer_python(number))
        except NotMeasured as error:
            print(f"  Python {number}: not measured: {error}")
            continue
        starts[f"the floor, Python {number}"] = project.start(python, FLOOR)
        starts[f"tick run-once, Python {number}"] = project.start(python, TICK, due=True)
    return starts


def newer_python(number: str, *also: str) -> Path:
    """The interpreter of an environment with what tick requires. Raises NotMeasured."""
    try:
        return install.python(f"tick-{number}", (*requirements(), *also), interpreter(number))
    except install.NotInstalled as error:
        raise NotMeasured(str(error)) from None


def interpreter(number: str) -> str:
    """A Python of this version: pyenv's, or the one on the path. Raises NotMeasured."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    known = [*map(str, root.glob(f"versions/{number}.*/bin/python")), shutil.which(f"python{number}")]
    for each in filter(None, known):
        if subprocess.run([each, "-c", "pass"], check=False, capture_output=True).returncode == 0:
            return str(each)
    raise NotMeasured("it is not installed")


def requirements() -> tuple[str, ...]:
    """What tick requires, in the versions that are installed here."""
    asked = [
        text.partition(";")[0].partition(">")[0].strip() for text in requires("tick-jobs") or [] if "extra" not in text
    ]
    return tuple(f"{name}=={version(name.partition('[')[0])}" for name in asked)


def of_peers(server: Server, chosen: list[peers.Peer], folder: Path) -> dict[str, Start]:
    """Their `once`, each with one due job in a database of its own."""
    starts = {}
    for peer in chosen:
        try:
            starts[peer.name] = peer_start(server, peer, folder)
        except NotMeasured as error:
            print(f"  {peer.name}: not measured: {error}")
    return starts


def peer_start(server: Server, peer: peers.Peer, folder: Path) -> Start:
    """One peer, set up and tried once. Raises NotMeasured."""
    name = "cold_" + peer.name.replace("-", "_")
    with psycopg.connect(server.urls.format("postgres"), autocommit=True) as admin:
        admin.execute(f"create database {name}")
    url = server.urls.format(name)
    peer.ask("setup", url)

    def fill() -> None:
        peer.ask("fill", url, jobs=1, sleep=0.0)

    fill()
    peer.ask("once", url)
    return Start([*peer.command(), "once", url, "{}"], peers.environment(), folder, fill)


def asyncpg_floor(project: Project) -> dict[str, Start]:
    """The floor of the other driver, in the environment of a peer that uses it."""
    try:
        python = next(peer for peer in peers.PEERS if peer.name == "pgqueuer").command()[0]
    except NotMeasured as error:
        print(f"  asyncpg: not measured: {error}")
        return {}
    return {"the floor of asyncpg": project.start(python, ASYNCPG)}


# Asking


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """All of them, in turn."""
    with tempfile.TemporaryDirectory(prefix="tick-cold-") as name:
        folder = Path(name)
        project = Project(server.urls, "cold", folder)
        scheduled = Project(server.urls, "cold_scheduled", folder, NOT_DUE)
        starts = ours(project, scheduled) | lower_floors(project, folder)
        if not args.quick:
            starts |= other_pythons(project) | asyncpg_floor(project)
        starts |= of_peers(server, [] if args.quick and args.peers is None else peers.chosen(args.peers), folder)
        series = alternate(dict(starts), args.rounds)
        project.check()
        scheduled.check()
        figures = told(starts, series)
        ratio = series["tick run-once, one due job"].ratio(series["the floor"])
        goal = at_most("a process with one due job", 1.15, "x the floor", ratio)
        served, verdict = on_vercel(project, args)
    return Answer(figures | served, [goal, *verdict])


def told(starts: dict[str, Start], series: dict[str, Series]) -> dict[str, Any]:
    """Each for the terminal and the report, in milliseconds and by the floor."""
    floor, figures = series["the floor"], {}
    print(f"  {'':<36} {'ms':>6}  {'least to most':>16}  {'by the floor':<24} by the floor, processor")
    for name, each in series.items():
        cpu, floors = (Series([Sample(ms) for ms in starts[key].cpu[1:]]) for key in (name, "the floor"))
        spread = f"({min(each.rates):,.0f} to {max(each.rates):,.0f})"
        ratios = f"{shown(each.ratio(floor)):<24} {shown(cpu.ratio(floors))}"
        print(f"  {name:<36} {each.median:>6,.0f}  {spread:>16}  {ratios}")
        figures[name] = {"ms": each.rates, "cpu_ms": cpu.rates, "by_floor": each.ratio(floor)}
    return figures


def on_vercel(project: Project, args: argparse.Namespace) -> tuple[dict[str, Any], list[Verdict]]:
    """A cold call of /tick in Vercel's own runtime, beside an empty Starlette app that connects and queries once."""
    try:
        if args.quick:
            raise NotMeasured("left out with --quick")
        python = str(newer_python(ON_VERCEL, vercel.REQUIRES))
        calls = vercel.calls(python, project.folder, environment(project.url), project.enqueue)
        series = alternate(calls, args.rounds)
        project.check()
    except NotMeasured as error:
        return {}, [
            Verdict("a cold /tick on Vercel's runtime", "<= 1.3 x an empty app", f"not measured: {error}", None)
        ]
    for name, each in series.items():
        print(f"  {name:<36} {each.median:>6,.0f}  ({min(each.rates):,.0f} to {max(each.rates):,.0f})")
    ratio = series[vercel.TICK].ratio(series[vercel.EMPTY])
    goal = at_most(COLD_TICK, 1.3, "x an empty Starlette app that connects and queries", ratio)
    return {name: {"ms": each.rates} for name, each in series.items()}, [goal]


def options(parser: argparse.ArgumentParser) -> None:
    """`--peers`."""
    peers.options(parser)


question = Question("cold", __doc__, ask, sizes={"rounds": (9, 2)}, options=options)

if __name__ == "__main__":
    question.main()
