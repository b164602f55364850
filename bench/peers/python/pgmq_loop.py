"""pgmq, which has no worker: a loop that reads some messages, handles them and deletes them.

100 at once are its best; one at once is what its own examples do (https://pgmq.github.io/pgmq/api/sql/functions/).
"""

from __future__ import annotations

import time
from importlib.resources import files
from typing import Any

import psycopg
from protocol import Options, payload, serve  # type: ignore[import-not-found]
from psycopg.types.json import Jsonb

QUEUE = "noop"
BATCHES = {"best": 100, "default": 1}
VISIBILITY = 30
"""Seconds for which a message that was read is hidden."""
CHUNK = 10_000
"""Messages that one call of send_batch puts in."""

READ = f"select msg_id, message from pgmq.read('{QUEUE}', {VISIBILITY}, %s)"
WAIT = f"select msg_id, message from pgmq.read_with_poll('{QUEUE}', {VISIBILITY}, 1)"
DELETE = f"select pgmq.delete('{QUEUE}', %s::bigint[])"
SEND = f"select pgmq.send('{QUEUE}', %s)"
SEND_MANY = f"select pgmq.send_batch('{QUEUE}', %s)"


def connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True)


def setup(url: str, _options: Options) -> None:
    """Make the tables, from the SQL that its Python package carries."""
    with connect(url) as connection:
        connection.execute((files("pgmq") / "sql" / "pgmq.sql").read_bytes())
        connection.execute("select pgmq.create(%s)", [QUEUE])


def fill(url: str, options: Options) -> None:
    """Replace all messages."""
    with connect(url) as connection:
        connection.execute("select pgmq.purge_queue(%s)", [QUEUE])
        put(connection, options["jobs"], options.get("sleep", 0.0))
        connection.execute("vacuum analyze pgmq.q_noop")


def put(connection: psycopg.Connection[Any], jobs: int, sleep: float = 0.0) -> None:
    """Put many in, by the thousands."""
    for first in range(0, jobs, CHUNK):
        messages = [Jsonb(payload(number, sleep)) for number in range(first, min(first + CHUNK, jobs))]
        connection.execute(SEND_MANY, [messages])


def handle_all(messages: list[Any]) -> None:
    """What the handlers do: nothing, or all of them sleep at once."""
    if sleep := max(message.get("sleep", 0.0) for _, message in messages):
        time.sleep(sleep)


def loop(connection: psycopg.Connection[Any], at_once: int) -> None:
    """Until there is nothing left."""
    while messages := connection.execute(READ, [at_once]).fetchall():
        handle_all(messages)
        connection.execute(DELETE, [[id for id, _ in messages]])


def drain(url: str, options: Options) -> dict[str, Any]:
    """One loop until the queue is empty."""
    at_once = options.get("concurrency") or BATCHES[options["config"]]
    with connect(url) as looking:
        started = time.perf_counter()
        with connect(url) as connection:
            loop(connection, at_once)
        row = looking.execute("select count(*) from pgmq.q_noop").fetchone()
        seconds = time.perf_counter() - started
    assert row == (0,), f"{row} messages are left"
    return {"seconds": seconds, "jobs": options["jobs"]}


def enqueue(url: str, options: Options) -> dict[str, float]:
    """Put messages in: each with a commit of its own, or many with one call."""
    with connect(url) as connection:
        put(connection, 1)
        started = time.perf_counter()
        if options["how"] == "bulk":
            put(connection, options["jobs"])
        else:
            for number in range(options["jobs"]):
                connection.execute(SEND, [Jsonb(payload(number))])
        return {"seconds": time.perf_counter() - started}


def once(url: str, _options: Options) -> None:
    """Handle what is there and exit."""
    with connect(url) as connection:
        loop(connection, 1)


def idle(url: str, options: Options) -> None:
    """A loop that waits in the database, for 5 seconds at a time, as `read_with_poll` does unless it is told."""
    ends = time.monotonic() + options["seconds"]
    with connect(url) as connection:
        while time.monotonic() < ends:
            connection.execute(WAIT)


if __name__ == "__main__":
    serve(setup=setup, fill=fill, drain=drain, enqueue=enqueue, once=once, idle=idle)
