"""tick, driven as its peers are. `drain` also takes `handler` ("async" or "def") and any setting of a tick."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from protocol import Options, payload, serve  # type: ignore[import-not-found]

import tick
from bench.dataset import TYPE
from bench.ticks import timed
from tick import database
from tick.handlers import Handler, Registry

CLEAR = "truncate tick.jobs, tick.ticks, tick.types"
CHUNK = 5_000
"""Jobs put in by one statement: their JSON is a few hundred kB."""


async def handle(user_id: int, template: str, audience: str, sleep: float = 0.0) -> None:  # noqa: ARG001 - what it is about
    """A job that is all overhead, unless it sleeps."""
    if sleep:
        await asyncio.sleep(sleep)


def handle_in_thread(user_id: int, template: str, audience: str, sleep: float = 0.0) -> None:  # noqa: ARG001 - likewise
    """The same, as a plain function."""
    if sleep:
        time.sleep(sleep)


send: Handler[..., ..., Any] = Handler(handle, TYPE)
FUNCTIONS: dict[str, Handler[..., ..., Any]] = {"async": send, "def": Handler(handle_in_thread, TYPE)}


def setup(url: str, _options: Options) -> None:
    """Make the tables, and run the first tick, which does what a day's first tick does beside its jobs."""

    async def migrate() -> None:
        async with database.connect(url) as connection:
            await database.migrate(connection)

    asyncio.run(migrate())
    drain(url, {})


def fill(url: str, options: Options) -> None:
    """Replace all jobs, the documented way: `tick.enqueue_many`."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CLEAR)
        for numbers in chunks(options["jobs"]):
            jobs = [send.of(**payload(n, options.get("sleep", 0.0))) for n in numbers]
            tick.enqueue_many(connection, jobs)


def chunks(jobs: int) -> Iterator[range]:
    """The numbers of the jobs, so many at once."""
    return (range(first, min(first + CHUNK, jobs)) for first in range(0, jobs, CHUNK))


def drain(url: str, options: Options) -> dict[str, Any]:
    """One tick with the default settings, or with those that are given."""
    given = {name: options[name] for name in ("concurrency", "batch_size") if options.get(name)}
    registry = Registry()
    registry.add(FUNCTIONS[options.get("handler", "async")])
    report, seconds, round_trips = asyncio.run(timed(url, registry, **given))
    return {"seconds": seconds, "jobs": report.done, "round_trips": round_trips}


def enqueue(url: str, options: Options) -> dict[str, float]:
    """Put jobs in: each with a commit of its own, from Python or by SQL, or many with a statement."""
    ways = {"single": one_by_one, "sql": by_sql, "bulk": in_bulk}
    with psycopg.connect(url, autocommit=True) as connection:
        send.enqueue(connection, **payload(0))
        started = time.perf_counter()
        ways[options["how"]](connection, options["jobs"])
        return {"seconds": time.perf_counter() - started}


def one_by_one(connection: psycopg.Connection, jobs: int) -> None:
    for number in range(jobs):
        send.enqueue(connection, **payload(number))


def by_sql(connection: psycopg.Connection, jobs: int) -> None:
    for number in range(jobs):
        connection.execute("select tick.enqueue(%s, %s)", [TYPE, json.dumps(payload(number))])


def in_bulk(connection: psycopg.Connection, jobs: int) -> None:
    for numbers in chunks(jobs):
        tick.enqueue_many(connection, [send.of(**payload(number)) for number in numbers])


if __name__ == "__main__":
    serve(setup=setup, fill=fill, drain=drain, enqueue=enqueue)
