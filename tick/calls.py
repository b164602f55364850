"""One call of the API in the database: who calls is let in and counted in the transaction of what the call does."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import dict_row

from . import database, intake, keys
from .config import Settings
from .database import Seat
from .errors import DatabaseError, DatabaseUnavailable
from .jobs import NewJob
from .keys import Caller
from .refusals import Refused

KEPT_SECONDS = 24 * 3600
"""How long the answer to a request with an Idempotency-Key is kept."""
MOST_CONNECTIONS = 8
"""Calls of one process that are at the database at once."""
PATIENCE = 10.0
"""Seconds that a statement may take."""
RESENDS = 3
PAUSE = 0.1
"""Seconds, at most, before a request that lost a race is sent again; each time it may be twice as long."""
POLICY = "calls"

_PASSING = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
_UNWRITABLE = (psycopg.DataError, psycopg.errors.CheckViolation)

logger = logging.getLogger("tick")
T = TypeVar("T")
Row = dict[str, Any]


@cache
def statements(schema: str = "tick") -> dict[str, str]:
    """The named statements of queue.sql and of api.sql, in the given schema."""
    return database.statements("queue", schema) | database.statements("api", schema)


async def rows(connection: AsyncConnection[Any], schema: str, name: str, params: Row) -> list[Row]:
    """The rows of one named statement."""
    return await (await _execute(connection, schema, name, params)).fetchall()


async def _execute(connection: AsyncConnection[Any], schema: str, name: str, params: Row) -> AsyncCursor[Row]:
    return await connection.cursor(row_factory=dict_row).execute(statements(schema)[name], params)


class Answer(NamedTuple):
    """What a request is answered with, and is once more when it comes again; `body` is JSON."""

    status: int
    body: bytes
    location: str | None = None


class Quota(NamedTuple):
    """What a caller has left: calls, and the seconds until it has all of them again."""

    limit: int
    period: int
    remaining: int
    reset: float

    def headers(self) -> dict[str, str]:
        """As "RateLimit header fields for HTTP" has it (draft-ietf-httpapi-ratelimit-headers-10)."""
        return {
            "ratelimit-policy": f'"{POLICY}";q={self.limit};w={self.period}',
            "ratelimit": f'"{POLICY}";r={self.remaining};t={math.ceil(self.reset)}',
        }


class Call:
    """A request in the database: one connection, opened when something is asked of it, and closed by `close`."""

    def __init__(self, settings: Settings, caller: Caller, scope: str, room: asyncio.Semaphore | None = None) -> None:
        self._seat = Seat(settings.database_url or "", room or asyncio.Semaphore(), "too many calls at once")
        self.settings = settings
        self.caller = caller
        self.scope = scope
        self.quota: Quota | None = None
        self._judged = caller.hash is None
        self._admission: AsyncCursor[Row] | None = None
        self._granted: list[str] | None = None
        """The scopes that the database says a key of its own has, once it has been asked."""

    async def close(self) -> None:
        await self._seat.leave()

    def need(self, scope: str) -> None:
        """Have the call need another scope than its operation does. Raises Refused when it is known to be missing."""
        self.caller.need(scope)
        if self._granted is not None and not {scope, "admin"} & set(self._granted):
            raise keys.lacks(scope)
        self.scope = scope

    async def prove(self) -> None:
        """Have the database vouch for the caller, unless somebody has. Raises Refused.

        Only then may a caller be told what is wrong with its request: that says what there is.
        """
        if not self._judged:
            await self.run()
            if self._admission:
                self._granted = next(iter((await self._admission.fetchall())[0].values()))

    async def run(self, *batch: tuple[str, Row]) -> list[list[Row]]:
        """Enter, and run the named statements, in one round trip and one transaction: the rows of each.

        Raises Refused when the caller is not let in, and DatabaseError.
        """
        return await self._surely(lambda connection: self._run(connection, batch))

    async def enqueue(self, news: Sequence[NewJob]) -> list[intake.JobId]:
        """Enter, and put jobs in, in one transaction."""

        async def work(connection: AsyncConnection[Any]) -> list[intake.JobId]:
            async with self._entering(connection):
                await self._admit(connection)
                ids: list[intake.JobId] = await intake.enqueue_many(connection, news, self.settings.schema)
                return ids

        return await self._surely(work)

    async def enqueue_once(
        self, news: Sequence[NewJob], key: str, fingerprint: bytes, answer: Callable[[list[intake.JobId]], Answer]
    ) -> tuple[Answer, bool]:
        """Enter, put jobs in and keep the answer, in one transaction; or give the answer that is kept, and True.

        Raises Refused when the key came with another request, or with one that is not committed yet.
        """
        name = {"caller": self.caller.id, "key": key}

        async def work(connection: AsyncConnection[Any]) -> tuple[Answer, bool]:
            async with self._entering(connection):
                if kept := await self._recall(connection, name, fingerprint):
                    return kept, True
                new = answer(await intake.enqueue_many(connection, news, self.settings.schema))
                row = {**name, **new._asdict(), "body": new.body.decode(), "fingerprint": fingerprint}
                await self._execute(connection, "keep", row | {"seconds": KEPT_SECONDS})
                return new, False

        return await self._surely(work)

    async def _recall(self, connection: AsyncConnection[Any], name: Row, fingerprint: bytes) -> Answer | None:
        locking = await self._execute(connection, "lock_answer", name)
        recalling = await self._execute(connection, "recall", name)
        await self._admit(connection)
        if not next(iter((await locking.fetchall())[0].values())):
            raise Refused("request-in-flight", "ask again when the first one has been answered", {"retry-after": "1"})
        kept = await recalling.fetchone()
        if kept and kept.pop("fingerprint") != fingerprint:
            raise Refused(
                "idempotency-key-reused", f"the key {name['key']!r} belongs to another request: take a new one"
            )
        return Answer(**kept | {"body": kept["body"].encode()}) if kept else None

    async def _run(self, connection: AsyncConnection[Any], batch: Sequence[tuple[str, Row]]) -> list[list[Row]]:
        async with self._entering(connection):
            await self._admit(connection)
            cursors = [await self._execute(connection, *statement) for statement in batch]
        return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]

    @asynccontextmanager
    async def _entering(self, connection: AsyncConnection[Any]) -> AsyncIterator[None]:
        """A transaction that is counted at its end, unless the call has been; its statements go out together."""
        counting = None
        async with connection.pipeline(), connection.transaction():
            await self._execute(connection, "patience", {"milliseconds": f"{PATIENCE * 1000:.0f}"})
            yield
            if not self.quota:
                counting = await self._execute(connection, "count_call", self._params)
        if counting:
            (row,) = await counting.fetchall()
            self.quota = Quota(*keys.rate(self.settings.api_rate), **row)

    async def _admit(self, connection: AsyncConnection[Any]) -> None:
        self._judged = True
        if not self.quota:
            self._admission = await self._execute(connection, "admit", self._params)

    @property
    def _params(self) -> Row:
        calls, period = keys.rate(self.settings.api_rate)
        return {
            "caller": self.caller.id,
            "hash": self.caller.hash,
            "scope": self.scope,
            "calls": calls,
            "period": float(period),
        }

    async def _execute(self, connection: AsyncConnection[Any], name: str, params: Row) -> AsyncCursor[Row]:
        return await _execute(connection, self.settings.schema, name, params)

    async def _surely(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """What the work comes to; a lost race is run again, three times at most."""
        for resend in range(RESENDS + 1):
            try:
                return await work(await self._seat.connection())
            except _PASSING as error:
                if resend == RESENDS:
                    raise DatabaseUnavailable(f"others were in the way: {database.one_line(error)}") from error
                # Not the same for both, or they would meet again.
                await asyncio.sleep(random.uniform(0, PAUSE) * 2**resend)  # noqa: S311 - no secret
            except psycopg.Error as error:
                raise await self._told(error) from error
        raise AssertionError("unreachable: the last resend returns or raises")

    async def _told(self, error: psycopg.Error) -> Exception:
        """What an error of the database is for the caller."""
        if error.sqlstate == "TK401":
            return keys.invalid()
        if error.sqlstate == "TK403":
            return keys.lacks(self.scope)
        if error.sqlstate == "TK429":
            return self._too_many(float(error.diag.message_detail or 1))
        if isinstance(error, psycopg.errors.QueryCanceled):
            return Refused(
                "too-slow", f"it took more than {PATIENCE:g} s: ask for less at a time", {"retry-after": "5"}
            )
        if isinstance(error, database.NOT_THERE):
            return await database.not_migrated(await self._seat.connection(), self.settings.schema) or error
        if isinstance(error, _UNWRITABLE):
            return Refused("invalid-request", f"the database refuses it: {error.diag.message_primary or error}")
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return DatabaseError(f"the database's role lacks a right: {database.one_line(error)}")
        if isinstance(error, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction):
            return DatabaseUnavailable(f"the database went away: {database.one_line(error)}")
        return error

    def _too_many(self, wait: float) -> Refused:
        rate = keys.rate(self.settings.api_rate)
        self.quota = Quota(*rate, remaining=0, reset=wait)
        return Refused(
            "quota-exceeded",
            f"a key may send {rate.starts} calls in {rate.seconds} s; wait {math.ceil(wait)} s",
            {"retry-after": str(max(1, math.ceil(wait)))},
            **{"violated-policies": [POLICY]},
        )
