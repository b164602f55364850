"""pgqueuer, over asyncpg and on uvloop, as its own command runs it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import asyncpg  # type: ignore[import-not-found]
import uvloop  # type: ignore[import-not-found]
from pgqueuer import PgQueuer  # type: ignore[import-not-found]
from pgqueuer.db import AsyncpgDriver  # type: ignore[import-not-found]
from pgqueuer.queries import Queries  # type: ignore[import-not-found]
from pgqueuer.types import QueueExecutionMode  # type: ignore[import-not-found]
from protocol import Handled, Options, payload, seconds_until, serve  # type: ignore[import-not-found]

NAME = "send_receipt"
BATCHES = {"best": 100, "default": 10}
"""Jobs a fetch: short ones want more (https://janbjorge.github.io/pgqueuer/guides/performance-tuning/)."""
CHUNK = 5_000
"""Jobs that one call of `enqueue` puts in."""


async def setup(url: str, _options: Options) -> None:
    """Make the tables."""
    await Queries(AsyncpgDriver(await asyncpg.connect(url))).install()


async def fill(url: str, options: Options) -> None:
    """Replace all jobs, the documented way for many: `enqueue` with lists."""
    connection = await asyncpg.connect(url)
    await connection.execute("truncate pgqueuer, pgqueuer_log, pgqueuer_statistics")
    await put(Queries(AsyncpgDriver(connection)), options["jobs"], options.get("sleep", 0.0))
    await connection.close()


async def put(queries: Any, jobs: int, sleep: float = 0.0) -> None:
    """Put many in, by the thousands."""
    for first in range(0, jobs, CHUNK):
        texts = [json.dumps(payload(number, sleep)).encode() for number in range(first, min(first + CHUNK, jobs))]
        await queries.enqueue([NAME] * len(texts), texts, [0] * len(texts))


def worker(connection: Any, handled: Handled) -> Any:
    """A worker of one kind of job."""

    async def handle(job: Any) -> None:
        await handled.handle(**json.loads(job.payload))

    queue = PgQueuer(AsyncpgDriver(connection))
    queue.entrypoint(NAME)(handle)
    return queue


async def drain(url: str, options: Options) -> dict[str, Any]:
    """One worker until the table of pending jobs is empty."""
    handled, looking = Handled(options["jobs"]), await asyncpg.connect(url)
    limits: dict[str, int] = {"batch_size": BATCHES[options["config"]]}
    if concurrency := options.get("concurrency"):
        # It wants at least two batches of room.
        limits = {"batch_size": max(1, concurrency // 2), "max_concurrent_tasks": concurrency}

    async def settled() -> bool:
        return bool(await looking.fetchval("select not exists (select from pgqueuer)"))

    started = time.perf_counter()
    queue = worker(await asyncpg.connect(url), handled)
    running = asyncio.create_task(queue.run(**limits))
    seconds = await seconds_until(settled, handled, started)
    queue.shutdown.set()
    await running
    return {"seconds": seconds, "jobs": options["jobs"]}


async def enqueue(url: str, options: Options) -> dict[str, float]:
    """Put jobs in: each with a commit of its own, or lists of them."""
    queries = Queries(AsyncpgDriver(await asyncpg.connect(url)))
    await put(queries, 1)
    started = time.perf_counter()
    if options["how"] == "bulk":
        await put(queries, options["jobs"])
    else:
        for number in range(options["jobs"]):
            await queries.enqueue(NAME, json.dumps(payload(number)).encode())
    return {"seconds": time.perf_counter() - started}


async def once(url: str, _options: Options) -> None:
    """Run what is there and exit, which is its mode `drain`."""
    await worker(await asyncpg.connect(url), Handled(1)).run(mode=QueueExecutionMode.drain)


async def idle(url: str, options: Options) -> None:
    """A worker with nothing to do, at its default settings."""
    queue = worker(await asyncpg.connect(url), Handled(0))
    running = asyncio.create_task(queue.run())
    await asyncio.sleep(options["seconds"])
    queue.shutdown.set()
    await running


if __name__ == "__main__":
    serve(uvloop.run, setup=setup, fill=fill, drain=drain, enqueue=enqueue, once=once, idle=idle)
