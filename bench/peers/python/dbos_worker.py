"""dbos: workflows on a queue."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import sqlalchemy
from dbos import DBOS, DBOSClient, DBOSConfig  # type: ignore[import-not-found]
from protocol import Handled, Options, asking, payload, seconds_until, serve, unsupported  # type: ignore[import-not-found]

QUEUE = "receipts"
WORKFLOW = "send_receipt"
VERSION = "1"
POLLING = {"best": 0.1, "default": 1.0}
"""Seconds between two looks at the queue (https://docs.dbos.dev/python/reference/queues)."""
CLEAR = "truncate dbos.workflow_status cascade"
SETTLED = "select not exists (select from dbos.workflow_status where status in ('ENQUEUED', 'PENDING'))"


def launch(url: str, handled: Handled) -> None:
    """Start dbos in this process."""

    async def handle(about: dict[str, Any]) -> None:
        await handled.handle(**about)

    DBOS(config=configured(url))
    DBOS.workflow(name=WORKFLOW)(handle)
    DBOS.launch()


def configured(url: str) -> Any:
    return DBOSConfig(
        name="bench", system_database_url=url, log_level="CRITICAL", application_version=VERSION, executor_id="bench"
    )


def setup(url: str, _options: Options) -> None:
    """Make the tables."""
    launch(url, Handled(0))
    DBOS.destroy()


def fill(url: str, options: Options) -> None:
    """Replace all jobs; it has no call for many, so one transaction holds the calls for each."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CLEAR)
    in_one_transaction(url, options["jobs"], options.get("sleep", 0.0))


def in_one_transaction(url: str, jobs: int, sleep: float = 0.0) -> float:
    """Put many in: the seconds it took, over an open connection."""
    client = DBOSClient(system_database_url=url)
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        connection.exec_driver_sql("select 1")
        connection.rollback()
        started = time.perf_counter()
        for number in range(jobs):
            client.enqueue_in_transaction(connection, wanted(), payload(number, sleep))
        connection.commit()
        took = time.perf_counter() - started
    engine.dispose()
    client.destroy()
    return took


def wanted() -> dict[str, str]:
    return {"queue_name": QUEUE, "workflow_name": WORKFLOW, "app_version": VERSION}


async def drain(url: str, options: Options) -> dict[str, Any]:
    """One process until no workflow is enqueued or pending."""
    handled = Handled(options["jobs"])
    async with asking(url, SETTLED) as settled:
        started = time.perf_counter()
        launch(url, handled)
        await DBOS.register_queue_async(
            QUEUE, worker_concurrency=options.get("concurrency"), polling_interval_sec=POLLING[options["config"]]
        )
        seconds = await seconds_until(settled, handled, started)
        DBOS.destroy()
    return {"seconds": seconds, "jobs": options["jobs"]}


def enqueue(url: str, options: Options) -> dict[str, float]:
    """Put jobs in: each with a commit of its own, or all in one."""
    if options["how"] == "bulk":
        return {"seconds": in_one_transaction(url, options["jobs"])}
    client = DBOSClient(system_database_url=url)
    client.enqueue(wanted(), payload(0))
    started = time.perf_counter()
    for number in range(options["jobs"]):
        client.enqueue(wanted(), payload(number))
    took = time.perf_counter() - started
    client.destroy()
    return {"seconds": took}


async def idle(url: str, options: Options) -> None:
    """A process with nothing to do, and a queue at its default settings."""
    launch(url, Handled(0))
    await DBOS.register_queue_async(QUEUE)
    await asyncio.sleep(options["seconds"])
    DBOS.destroy()


if __name__ == "__main__":
    never = unsupported("its process never exits by itself")
    serve(asyncio.run, setup=setup, fill=fill, drain=drain, enqueue=enqueue, once=never, idle=idle)
