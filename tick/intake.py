"""Putting jobs in, in the caller's own transaction, and waiting for how they end."""

from __future__ import annotations

import asyncio
import inspect
import operator
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, Self

from . import connections
from .config import Settings
from .errors import JobNotFound
from .jobs import NewJob
from .queue import statements, to_json

SHORTEST_LOOK, LONGEST_LOOK = 0.02, 0.5
"""Seconds between two looks at a job that somebody waits for."""


class Ended(NamedTuple):
    """How a job ended: its status (done, dead or cancelled), its result, its last error."""

    status: str
    result: Any
    error: str | None


class JobId(int):
    """The id of a job; `created` says whether this enqueue made it, or found it by its idempotency key."""

    created: bool

    def __new__(cls, id: int, *, created: bool = True) -> Self:
        self = super().__new__(cls, id)
        self.created = created
        return self


@cache
def _default_schema() -> str:
    return Settings.load().schema


def enqueue(connection: Any, new: NewJob) -> Any:
    """Insert one job in the connection's own transaction: a JobId, or an awaitable of it on an async connection.

    Of two enqueues with the same type and idempotency key the second finds the first's job; the database decides.
    """
    return _then(enqueue_many(connection, [new]), operator.itemgetter(0))


def enqueue_many(connection: Any, news: Sequence[NewJob], schema: str | None = None) -> Any:
    """Insert jobs with one statement: their JobIds in the order given, awaitable on an async connection.

    The schema is that of this process's settings, unless it is given.
    """
    params = {"jobs": to_json([new.fields() for new in news])}
    rows = connections.fetch(connection, statements(schema or _default_schema())["enqueue"], params)
    return _then(rows, lambda rows: [JobId(id, created=created) for id, created in rows])


def enqueue_group(connection: Any, news: Sequence[NewJob], finally_: NewJob) -> Any:
    """Insert jobs and the one that runs when all of them have ended: its JobId, then theirs."""
    params = {"jobs": to_json([new.fields() for new in news]), "finally": to_json(finally_.fields())}
    rows = connections.fetch(connection, statements(_default_schema())["enqueue_group"], params)
    return _then(rows, lambda rows: [JobId(id, created=True) for (id,) in rows])


def _then(value: Any, function: Callable[[Any], Any]) -> Any:
    """The function of the value, or an awaitable of that when the value is one."""
    if not inspect.isawaitable(value):
        return function(value)

    async def awaited() -> Any:
        return function(await value)

    return awaited()


async def wait(connection: Any, id: int, timeout: float = 60.0) -> Ended:  # noqa: ASYNC109 - it polls: an enclosing timeout would cancel a query
    """Look at a job until it has ended, `timeout` seconds at most: how it ended.

    Raises TimeoutError when it has not, and JobNotFound when there is none. On a connection whose transaction is
    repeatable read nothing changes while it waits.
    """
    deadline, pause = time.monotonic() + timeout, SHORTEST_LOOK
    while True:
        rows = connections.fetch(connection, statements(_default_schema())["ended"], {"id": id})
        found = await rows if inspect.isawaitable(rows) else rows
        if not found:
            raise JobNotFound(id)
        if (ended := Ended._make(found[0])).status in ("done", "dead", "cancelled"):
            return ended
        if time.monotonic() + pause > deadline:
            raise TimeoutError(f"job {id} is still {ended.status} after {timeout:g} s")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_LOOK)
