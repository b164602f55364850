"""chancy: jobs in the worker's own event loop at its best, in a pool of processes at its defaults."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import chancy_jobs  # type: ignore[import-not-found]
import psycopg
from chancy import Chancy, Job, Queue, Worker  # type: ignore[import-not-found]
from protocol import Handled, Options, asking, payload, seconds_until, serve, unsupported  # type: ignore[import-not-found]

CONCURRENCY = 100
"""The default of its executor for coroutine functions."""
SETTLED = "select not exists (select from chancy_jobs where state not in ('succeeded', 'failed'))"


def application(url: str) -> Any:
    """Without a line in the log for each job."""
    quiet = logging.getLogger("chancy")
    quiet.setLevel(logging.ERROR)
    return Chancy(url, log=quiet)


def queue(config: str, concurrency: int | None) -> Any:
    """Its default queue, as it is or tuned: polled as soon as a job ends (https://tkte.ch/chancy/chancy.queue.html)."""
    if config == "default" and not concurrency:
        return Queue("default")
    return Queue(
        "default",
        concurrency=concurrency or CONCURRENCY,
        executor=Chancy.Executor.Async,
        polling_interval=1,
        eager_polling=True,
    )


async def setup(url: str, _options: Options) -> None:
    """Make the tables."""
    async with application(url) as app:
        await app.migrate()


async def fill(url: str, options: Options) -> None:
    """Replace all jobs, the documented way for many: `push_many`."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("truncate chancy_jobs, chancy_queues, chancy_workers")
    async with application(url) as app:
        await put(app, options["jobs"], options.get("sleep", 0.0))


async def put(app: Any, jobs: int, sleep: float = 0.0) -> None:
    """Put many in; it commits a thousand at a time."""
    async for _ in app.push_many([job(number, sleep) for number in range(jobs)]):
        pass


def job(number: int, sleep: float = 0.0) -> Any:
    return Job.from_func(chancy_jobs.send_receipt, kwargs=payload(number, sleep))


async def drain(url: str, options: Options) -> dict[str, Any]:
    """One worker until every job has succeeded."""
    chosen = queue(options["config"], options.get("concurrency"))
    # Jobs that run in other processes are not counted here: the database alone says when they are done.
    chancy_jobs.handled = Handled(options["jobs"] if chosen.eager_polling else 0)
    async with asking(url, SETTLED) as settled:
        started = time.perf_counter()
        async with application(url) as app:
            await app.declare(chosen, upsert=True)
            worker = Worker(app)
            if options["config"] == "best":
                # Seconds between two writes of what has ended (https://tkte.ch/chancy/chancy.worker.html).
                worker.send_outgoing_interval = 0.05
            async with worker:
                seconds = await seconds_until(settled, chancy_jobs.handled, started)
    return {"seconds": seconds, "jobs": options["jobs"]}


async def enqueue(url: str, options: Options) -> dict[str, float]:
    """Put jobs in: each with a commit of its own, or a thousand a commit."""
    async with application(url) as app:
        await put(app, 1)
        started = time.perf_counter()
        if options["how"] == "bulk":
            await put(app, options["jobs"])
        else:
            for number in range(options["jobs"]):
                await app.push(job(number))
        return {"seconds": time.perf_counter() - started}


async def idle(url: str, options: Options) -> None:
    """A worker with nothing to do, at its default settings."""
    async with application(url) as app, Worker(app):
        await asyncio.sleep(options["seconds"])


if __name__ == "__main__":
    never = unsupported("its worker never exits by itself")
    serve(asyncio.run, setup=setup, fill=fill, drain=drain, enqueue=enqueue, once=never, idle=idle)
