"""procrastinate, over its asynchronous connector for psycopg."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import procrastinate  # type: ignore[import-not-found]
import psycopg
from protocol import Handled, Options, asking, payload, seconds_until, serve  # type: ignore[import-not-found]

CONCURRENCY = {"best": 30, "default": 1}
"""As in https://procrastinate.readthedocs.io/en/stable/howto/production/concurrency.html."""
CLEAR = "truncate procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers cascade"
SETTLED = "select not exists (select from procrastinate_jobs where status in ('todo', 'doing'))"
CHUNK = 1_000
"""Jobs that one call of `batch_defer_async` puts in."""


def queue(url: str, handled: Handled) -> tuple[Any, Any]:
    """An app and its only task."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
    return app, app.task(name="send_receipt")(handled.handle)


async def setup(url: str, _options: Options) -> None:
    """Make the tables."""
    app, _ = queue(url, Handled(0))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def fill(url: str, options: Options) -> None:
    """Replace all jobs, the documented way for many: `batch_defer_async`."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(CLEAR)
    app, task = queue(url, Handled(0))
    async with app.open_async():
        await put(task, options["jobs"], options.get("sleep", 0.0))


async def put(task: Any, jobs: int, sleep: float = 0.0) -> None:
    """Put many in, by the thousand."""
    for first in range(0, jobs, CHUNK):
        await task.batch_defer_async(*(payload(number, sleep) for number in range(first, min(first + CHUNK, jobs))))


async def drain(url: str, options: Options) -> dict[str, Any]:
    """One worker until no job is to do or being done."""
    handled = Handled(options["jobs"])
    async with asking(url, SETTLED) as settled:
        started = time.perf_counter()
        app, _ = queue(url, handled)
        async with app.open_async():
            concurrency = options.get("concurrency") or CONCURRENCY[options["config"]]
            running = asyncio.create_task(app.run_worker_async(concurrency=concurrency))
            seconds = await seconds_until(settled, handled, started)
            running.cancel()
            await asyncio.wait([running])
    return {"seconds": seconds, "jobs": options["jobs"]}


async def enqueue(url: str, options: Options) -> dict[str, float]:
    """Put jobs in: each with a commit of its own, or many with a statement."""
    app, task = queue(url, Handled(0))
    async with app.open_async():
        await put(task, 1)
        started = time.perf_counter()
        if options["how"] == "bulk":
            await put(task, options["jobs"])
        else:
            for number in range(options["jobs"]):
                await task.defer_async(**payload(number))
        return {"seconds": time.perf_counter() - started}


async def once(url: str, _options: Options) -> None:
    """Run what is there and exit: a worker that does not wait."""
    app, _ = queue(url, Handled(1))
    async with app.open_async():
        await app.run_worker_async(wait=False)


async def idle(url: str, options: Options) -> None:
    """A worker with nothing to do, at its default settings."""
    app, _ = queue(url, Handled(0))
    async with app.open_async():
        running = asyncio.create_task(app.run_worker_async())
        await asyncio.sleep(options["seconds"])
        running.cancel()
        await asyncio.wait([running])


if __name__ == "__main__":
    serve(asyncio.run, setup=setup, fill=fill, drain=drain, enqueue=enqueue, once=once, idle=idle)
