"""Other queues on Postgres, each driven by a small program of ours, and tick and raw SQL driven the same way.

A program is called as `PROGRAM ACTION URL OPTIONS`, with JSON for options, and its last line on stdout is JSON too:

    setup    {}                                         make the tables, in a database of its own
    fill     {"jobs": N, "sleep": S}                    remove all jobs, put N in; each sleeps S seconds
    drain    {"jobs": N, "config": C, "concurrency": K} one worker until all are settled: {"seconds", "jobs"}
    enqueue  {"jobs": N, "how": "single" or "bulk"}     over an open connection: {"seconds"}
    once     {}                                         run the one due job and exit
    idle     {"seconds": S}                             a worker at its defaults with nothing to do

`config` is "best" or "default"; `concurrency` may be null. What a peer cannot do answers {"unsupported": "why"}.
Seconds are counted in the program, from just before the worker starts (its imports are done) to the moment the
database says that all is settled.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import install

HERE = Path(__file__).parent
PATIENCE = 180.0
"""Seconds that one action may take, and after which a peer counts as not measured."""


class NotMeasured(Exception):
    """A peer could not be installed or started, failed, or has no such action; says which and why."""


@dataclass(frozen=True)
class Peer:
    """A queue.

    Attributes:
        name: as it is called here, and on the command line.
        runs: on what: Python or Node in an environment of its own, or tick's own Python.
        program: the file that drives it.
        requires: exactly what is installed.
        source: the page that recommends the settings that count as its best.
        best: those settings, in words.
        jobs: as many as it drains in a few seconds, at its best.
        default_jobs: likewise, at its default settings.
    """

    name: str
    runs: Literal["python", "node", "tick"]
    program: str
    requires: tuple[str, ...] = ()
    source: str = ""
    best: str = ""
    jobs: int = 20_000
    default_jobs: int = 20_000

    def command(self) -> list[str]:
        """What to put before ACTION; installs the peer on first use. Raises NotMeasured."""
        try:
            return self._command()
        except (install.NotInstalled, OSError) as error:
            raise NotMeasured(f"not installed: {error}") from None

    def _command(self) -> list[str]:
        if self.runs == "node":
            return ["node", str(_beside(install.node(self.name, self.requires)) / self.program)]
        interpreter = install.python(self.name, self.requires) if self.runs == "python" else sys.executable
        return [str(interpreter), str(HERE / "python" / self.program)]

    def ask(self, action: str, url: str, **options: Any) -> dict[str, Any]:
        """The answer to an action. Raises NotMeasured."""
        command = [*self.command(), action, url, json.dumps(options)]
        try:
            done = subprocess.run(
                command, env=environment(), capture_output=True, text=True, check=False, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"{action} took longer than {PATIENCE:g} s") from None
        except OSError as error:
            raise NotMeasured(f"{command[0]} cannot be run: {error.strerror}") from None
        if done.returncode:
            raise NotMeasured(f"{action} failed: {install.last_line(done.stderr or done.stdout)}")
        return self._read(action, done.stdout)

    def _read(self, action: str, said: str) -> dict[str, Any]:
        try:
            answer = json.loads(install.last_line(said))
        except json.JSONDecodeError:
            raise NotMeasured(f"{action} answered {install.last_line(said)!r}, which is not JSON") from None
        if "unsupported" in answer:
            raise NotMeasured(f"has no {action}: {answer['unsupported']}")
        return dict(answer)


def environment() -> dict[str, str]:
    """What programs see: where tick and these benchmarks are, and nothing of the settings of whoever runs them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TICK_", "PG", "DATABASE_URL"))}
    return kept | {"PYTHONPATH": str(HERE.parent.parent)}


def _beside(folder: Path) -> Path:
    """The folder, with copies of the programs in it: Node looks for packages from a module's own folder upwards."""
    for path in (HERE / "node").glob("*.mjs"):
        shutil.copy(path, folder)
    return folder


TICK = Peer("tick", "tick", "tick_queue.py")
RAW = Peer("raw SQL", "tick", "raw_sql.py")
PEERS = (
    Peer(
        "graphile-worker",
        "node",
        "graphile_worker.mjs",
        ("graphile-worker@0.18.0", "pg@8.23.1"),
        "https://worker.graphile.org/docs/performance",
        "concurrency 24, local queue of 500, completions in batches",
        default_jobs=3_000,
    ),
    Peer(
        "pg-boss",
        "node",
        "pg_boss.mjs",
        ("pg-boss@12.35.0", "pg@8.23.1"),
        "https://timgit.github.io/pg-boss/api/workers",
        "batches of 500",
        default_jobs=4,
    ),
    Peer(
        "bullmq",
        "node",
        "bullmq.mjs",
        ("bullmq@6.7.0", "pg@8.23.1"),
        "https://docs.bullmq.io/guide/postgresql",
        "concurrency 32 over 32 connections, finished jobs removed",
        jobs=2_000,
        default_jobs=500,
    ),
    Peer(
        "pgmq",
        "python",
        "pgmq_loop.py",
        ("pgmq==1.1.4", "psycopg[binary]==3.3.9"),
        "https://pgmq.github.io/pgmq/api/sql/functions/",
        "100 read, 100 deleted",
        default_jobs=1_000,
    ),
    Peer(
        "pgqueuer",
        "python",
        "pgqueuer_worker.py",
        ("pgqueuer[asyncpg]==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"),
        "https://janbjorge.github.io/pgqueuer/guides/performance-tuning/",
        "batches of 100, asyncpg, uvloop",
        default_jobs=5_000,
    ),
    Peer(
        "procrastinate",
        "python",
        "procrastinate_worker.py",
        ("procrastinate==3.10.0", "psycopg[binary]==3.3.9"),
        "https://procrastinate.readthedocs.io/en/stable/howto/production/concurrency.html",
        "concurrency 30",
        jobs=1_000,
        default_jobs=600,
    ),
    Peer(
        "chancy",
        "python",
        "chancy_worker.py",
        ("chancy==0.26.0", "psycopg[binary]==3.3.9"),
        "https://tkte.ch/chancy/chancy.executors.html",
        "the executor for coroutine functions, 100 at once, eager polling, ended jobs written every 50 ms",
        jobs=4_000,
        default_jobs=4,
    ),
    Peer(
        "dbos",
        "python",
        "dbos_worker.py",
        ("dbos==3.4.0", "psycopg[binary]==3.3.9"),
        "https://docs.dbos.dev/python/reference/queues",
        "a queue without limits, polled every 0.1 s",
        jobs=2_000,
        default_jobs=2_000,
    ),
)


def options(parser: argparse.ArgumentParser) -> None:
    """`--peers`, for the command line of a question."""
    names = ", ".join(peer.name for peer in PEERS)
    parser.add_argument("--peers", nargs="+", metavar="NAME", help=f"all, unless named; none; or of {names}")


def chosen(names: list[str] | None) -> list[Peer]:
    """The peers that `--peers` names: all of them when it was not given, none for "none"."""
    if names is None:
        return list(PEERS)
    known = {peer.name: peer for peer in PEERS}
    if unknown := [name for name in names if name not in known and name != "none"]:
        sys.exit(f"--peers: there is no {unknown[0]}; there are {', '.join(known)}, and none")
    return [known[name] for name in names if name != "none"]
