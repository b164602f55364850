"""What the programs have in common: actions by name, the payload, and waiting until the database says it is done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

LOOK_EVERY = 0.003
"""Seconds between two looks at whether all is settled."""

Options = dict[str, Any]
Action = Callable[[str, Options], Any]


def serve(run: Callable[[Any], Any] | None = None, /, **actions: Action) -> None:
    """Carry out the action of the command line, and print its answer; `run` runs those that are coroutine functions."""
    name, url, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    answer = actions.get(name, unsupported("no such action"))(url, options)
    if run and hasattr(answer, "__await__"):
        answer = run(answer)
    print(json.dumps(answer or {}))


def unsupported(why: str) -> Action:
    """An action that a peer does not have."""
    return lambda url, options: {"unsupported": why}


def payload(number: int, sleep: float = 0.0) -> dict[str, Any]:
    """What a job is about; `sleep` seconds are what its handler takes."""
    about = {"user_id": number, "template": "weekly-report", "audience": "team"}
    return about | {"sleep": sleep} if sleep else about


class Handled:
    """Counts the jobs that handlers have run, and is waited for until there were so many."""

    def __init__(self, jobs: int) -> None:
        import asyncio

        self.left = jobs
        self.all = asyncio.Event()
        if not jobs:
            self.all.set()

    async def handle(self, sleep: float = 0.0, **_about: Any) -> None:
        """A job that is all overhead, unless it sleeps."""
        if sleep:
            import asyncio

            await asyncio.sleep(sleep)
        self.left -= 1
        if not self.left:
            self.all.set()


@asynccontextmanager
async def asking(url: str, question: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """What asks the database whether all is settled, over a connection of its own; for peers that come with psycopg."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as looking:

        async def settled() -> bool:
            row = await (await looking.execute(question)).fetchone()
            return bool(row and row[0])

        yield settled


async def seconds_until(settled: Callable[[], Awaitable[bool]], handled: Handled, started: float) -> float:
    """Seconds since `started` when handlers have run all jobs, and the database has settled them."""
    import asyncio

    await handled.all.wait()
    while not await settled():  # noqa: ASYNC110 - what it waits for is in the database
        await asyncio.sleep(LOOK_EVERY)
    return time.perf_counter() - started
