"""The least SQL that can do it, on tick's own tables: the ceiling of a drain, and the floor of an enqueue."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import psycopg
from protocol import Options, payload, serve  # type: ignore[import-not-found]
from psycopg import AsyncConnection
from tick_queue import fill, setup  # type: ignore[import-not-found]

from bench import ceiling
from bench.dataset import TYPE

INSERT = "insert into tick.jobs (type, payload) values (%s, %s)"
UNNEST = "insert into tick.jobs (type, payload) select %s, unnest(%s::text[])::jsonb"


def drain(url: str, _options: Options) -> dict[str, Any]:
    """Claim and settle, and nothing else."""

    async def drained() -> tuple[int, int]:
        async with await AsyncConnection.connect(url, autocommit=True) as connection:
            return await ceiling.drain(connection, ceiling.KEEP)

    started = time.perf_counter()
    jobs, round_trips = asyncio.run(drained())
    return {"seconds": time.perf_counter() - started, "jobs": jobs, "round_trips": round_trips}


def enqueue(url: str, options: Options) -> dict[str, float]:
    """Bare inserts: each with a commit of its own, or one of arrays."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(INSERT, [TYPE, json.dumps(payload(0))])
        started = time.perf_counter()
        if options["how"] == "bulk":
            texts = [json.dumps(payload(number)) for number in range(options["jobs"])]
            connection.execute(UNNEST, [TYPE, texts])
        else:
            for number in range(options["jobs"]):
                connection.execute(INSERT, [TYPE, json.dumps(payload(number))])
        return {"seconds": time.perf_counter() - started}


if __name__ == "__main__":
    serve(setup=setup, fill=fill, drain=drain, enqueue=enqueue)
