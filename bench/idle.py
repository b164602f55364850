"""What nothing to do costs: an idle tick, the time between ticks, and the workers of peers that wait.

Statements and what they take are counted by pg_stat_statements: what a function does inside is part of its caller.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psycopg

from tick import database

from . import clusters, peers
from .dataset import create
from .peers import NotMeasured
from .questions import Answer, Question, Server, Verdict
from .ticks import Timed, noops, timed

COUNTED = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_planning": "on"}
STARTED = 4.0
"""Seconds after which a worker has started, and waits."""
LOOK_EVERY = 0.25
"""Seconds between two looks at a worker's connections."""
SCHEDULES = """
[schedules.night]
cron = "0 0 1 1 *"
type = "noop"
payload = { user_id = 1, template = "weekly-report", audience = "team" }
"""

AVAILABLE = "select exists (select from pg_available_extensions where name = 'pg_stat_statements')"
FORGET = "select pg_stat_statements_reset(0, (select oid from pg_database where datname = %s), 0)"
COST = """
select query, calls, total_plan_time, total_exec_time, calls * (min_plan_time + min_exec_time) from pg_stat_statements
  join pg_database on pg_database.oid = dbid where datname = %s order by total_plan_time + total_exec_time desc
"""
CALLS = """
select coalesce(sum(calls), 0) from pg_stat_statements
  join pg_database on pg_database.oid = dbid where datname = %s
"""
CONNECTIONS = "select count(*) from pg_stat_activity where datname = %s"


REGISTRY = noops()


class Cost(NamedTuple):
    """One statement: how often a tick sends it, and milliseconds of the database for one tick.

    `least` is what it took when it was not held up: the least planning and the least execution of all ticks.
    """

    name: str
    calls: float
    planning: float
    execution: float
    least: float


class Look:
    """The database's own record of what goes on in the other ones."""

    def __init__(self, urls: str) -> None:
        self.connection = psycopg.connect(urls.format("postgres"), autocommit=True)
        self.connection.execute("create extension if not exists pg_stat_statements")

    def ask(self, statement: str, name: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement, [name]).fetchall()

    def forget(self, name: str) -> None:
        self.ask(FORGET, name)

    def calls(self, name: str) -> int:
        return int(self.ask(CALLS, name)[0][0])

    def connections(self, name: str) -> int:
        return int(self.ask(CONNECTIONS, name)[0][0])

    def costs(self, name: str, ticks: int) -> list[Cost]:
        """What a tick sent, the dearest first."""
        rows = self.ask(COST, name)
        return [Cost(named(query), *(value / ticks for value in values)) for query, *values in rows]


def named(query: str) -> str:
    """What this package calls a statement: the name of the one with the most words in common."""
    words = _words(query)
    known = {name: _words(text) for name, text in database.statements("queue").items()}
    best = max(known, key=lambda name: (known[name] & words).total() / (known[name] | words).total())
    alike = (known[best] & words).total() / (known[best] | words).total()
    return best if alike > 0.7 else " ".join(query.split())[:40]


def _words(text: str) -> Counter[str]:
    # Constants are parameters in what Postgres keeps.
    return Counter(re.findall(r"[a-z_]{2,}", re.sub(r"'[^']*'|%\(\w+\)s|\$\d+", "", text.lower())))


# An idle tick


def idle_ticks(look: Look, url: str, name: str, schedules: Path, ticks: int) -> dict[str, Any]:
    """So many ticks with nothing to do, after some that were the first."""

    async def run() -> list[Timed]:
        return [await timed(url, REGISTRY, schedules) for _ in range(ticks)]

    asyncio.run(run())
    look.forget(name)
    done = asyncio.run(run())
    costs = look.costs(name, ticks)
    return {
        "round_trips": max(each.round_trips for each in done),
        "statements": sum(cost.calls for cost in costs),
        "database_ms": sum(cost.planning + cost.execution for cost in costs),
        "planning_ms": sum(cost.planning for cost in costs),
        "least_ms": sum(cost.least for cost in costs),
        "ms": median(1000 * each.seconds for each in done),
        "costs": [cost._asdict() for cost in costs],
    }


def between(look: Look, name: str, seconds: float) -> dict[str, Any]:
    """After the ticks: who is connected, and what is asked."""
    look.forget(name)
    ends, most = time.monotonic() + seconds, 0
    while time.monotonic() < ends:
        most = max(most, look.connections(name))
        time.sleep(LOOK_EVERY)
    return {"connections": most, "statements": look.calls(name)}


# Workers of peers


def workers(look: Look, urls: str, chosen: list[peers.Peer], seconds: float) -> dict[str, Any]:
    """All of them wait at the same time, each in a database of its own: they have nothing to do."""
    commands, figures = {}, {}
    for peer in chosen:
        try:
            commands[peer.name] = prepared(urls, peer, 2 * STARTED + seconds)
        except NotMeasured as error:
            figures[peer.name] = {"not measured": str(error)}
    running = {name: start(command) for name, command in commands.items()}
    try:
        time.sleep(STARTED if running else 0)
        return figures | watched(look, running, seconds)
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def prepared(urls: str, peer: peers.Peer, seconds: float) -> list[str]:
    """How to start a worker with nothing to do. Raises NotMeasured."""
    url = urls.format(database_of(peer.name))
    with psycopg.connect(urls.format("postgres"), autocommit=True) as admin:
        admin.execute(f"create database {database_of(peer.name)}")
    peer.ask("setup", url)
    peer.ask("fill", url, jobs=0, sleep=0.0)
    return [*peer.command(), "idle", url, json.dumps({"seconds": seconds})]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=peers.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def watched(look: Look, running: dict[str, subprocess.Popen[bytes]], seconds: float) -> dict[str, Any]:
    """Statements a minute, and connections, of those that run."""
    for name in running:
        look.forget(database_of(name))
    started, most = time.monotonic(), dict.fromkeys(running, 0)
    while running and time.monotonic() < started + seconds:
        most = {name: max(count, look.connections(database_of(name))) for name, count in most.items()}
        time.sleep(LOOK_EVERY)
    minutes = (time.monotonic() - started) / 60
    return {name: waited(look, name, process, most[name], minutes) for name, process in running.items()}


def waited(look: Look, name: str, process: subprocess.Popen[bytes], connections: int, minutes: float) -> dict[str, Any]:
    """What one worker did while it waited, if it did."""
    if process.poll() is not None:
        return {"not measured": f"its worker ended by itself, with code {process.returncode}"}
    return {"statements_a_minute": look.calls(database_of(name)) / minutes, "connections": connections}


def database_of(peer: str) -> str:
    return "idle_" + peer.replace("-", "_")


# Asking


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """On a server of its own, which counts statements."""
    with psycopg.connect(server.urls.format("postgres")) as connection:
        row = connection.execute(AVAILABLE).fetchone()
    if row != (True,):
        told = Verdict("an idle tick", "1 round trip, < 1 ms", "not measured: no pg_stat_statements", None)
        return Answer({"not measured": told.measured}, [told])
    with clusters.cluster(clusters.binaries(server.major) or Path(), COUNTED) as urls:
        return counted(Look(urls), urls, args)


def counted(look: Look, urls: str, args: argparse.Namespace) -> Answer:
    """Ticks, then nothing, then peers."""
    url = create(urls, "idle")
    with tempfile.TemporaryDirectory(prefix="tick-idle-") as folder:
        path = Path(folder) / "schedules.toml"
        path.write_text(SCHEDULES)
        bare = idle_ticks(look, url, "idle", Path(folder) / "none.toml", args.ticks)
        scheduled = idle_ticks(look, url, "idle", path, args.ticks)
    rest = between(look, "idle", args.seconds / 10)
    waits = workers(look, urls, [] if args.quick and args.peers is None else peers.chosen(args.peers), args.seconds)
    show({"nothing to do": bare, "schedules, none due": scheduled}, rest, waits)
    figures = {"idle tick": bare, "with schedules": scheduled, "between ticks": rest, "peers": waits}
    return Answer(figures, verdicts(scheduled, rest))


def verdicts(tick: dict[str, Any], rest: dict[str, Any]) -> list[Verdict]:
    """The goals, for a tick with schedules of which none is due."""
    trips, took = tick["round_trips"], tick["database_ms"]
    dearest = ", ".join(f"{each['name']} {each['planning'] + each['execution']:.2f} ms" for each in tick["costs"][:3])
    said = (f"{took:.2f} ms in {tick['statements']:.0f} statements, {tick['planning_ms']:.2f} ms of it planning;"
            f" {tick['least_ms']:.2f} ms when nothing else ran")  # fmt: skip
    still = f"{rest['connections']} connections, {rest['statements']} statements"
    return [
        Verdict("round trips of an idle tick", "1", str(trips), trips == 1),
        Verdict("database time of an idle tick", "< 1 ms", said, took < 1, "" if took < 1 else dearest),
        Verdict("between ticks", "no connection, no statement", still, still == "0 connections, 0 statements"),
    ]


def show(ticks: dict[str, dict[str, Any]], rest: dict[str, Any], waits: dict[str, Any]) -> None:
    """All of it for the terminal."""
    for name, tick in ticks.items():
        print(f"  an idle tick, {name}: {tick['round_trips']} round trip, {tick['statements']:.0f} statements,"
              f" {tick['database_ms']:.2f} ms of the database, {tick['ms']:.1f} ms in all")  # fmt: skip
        for cost in (Cost(**each) for each in tick["costs"]):
            print(f"    {cost.name:<42} planning {cost.planning:>6.3f} ms, execution {cost.execution:>6.3f} ms,"
                  f" least of both {cost.least:>6.3f} ms")  # fmt: skip
    print(f"  between ticks: {rest['connections']} connections, {rest['statements']} statements")
    for name, found in waits.items():
        said = f"not measured: {found['not measured']}" if "not measured" in found else (
            f"{found['statements_a_minute']:,.0f} statements a minute, {found['connections']} connections")  # fmt: skip
        print(f"  {name + ', waiting':<34} {said}")


question = Question("idle", __doc__, ask, sizes={"ticks": (50, 10), "seconds": (60.0, 3.0)}, options=peers.options)

if __name__ == "__main__":
    question.main()
