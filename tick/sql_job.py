"""The type `sql`, which runs a statement in the project's own database."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from . import database
from .errors import ConfigurationError, Permanent
from .handlers import Context, job
from .options import seconds

TIMEOUT = 30.0
MOST_ROWS = 20
MOST_BYTES = 16 * 1024
AFTER_DEADLINE = 1.0
"""Seconds after the tick's deadline at which Postgres stops what this process could not."""
PERMANENT = ("0A", "25001", "2D", "3F", "42")
"""How the SQLSTATEs begin of what is wrong with a statement: unsupported, in no transaction, schema, syntax, access.

Source: PostgreSQL, appendix A, "PostgreSQL Error Codes".
"""

Statement = Annotated[str, msgspec.Meta(min_length=1)]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=3600)] | Annotated[str, msgspec.Meta(pattern=r"^[0-9][0-9dhms]*\Z")]


class StatementFailed(Exception):
    """A statement that failed in a way that another attempt may not."""


@job(type="sql", permanent_on=ConfigurationError)
async def sql(
    ctx: Context,
    *,
    statement: Statement,
    params: list[Any] | dict[str, Any] | None = None,
    timeout: Timeout = TIMEOUT,  # noqa: ASYNC109 - a word of the payload
) -> dict[str, Any]:
    """Run a statement in a transaction of its own, and keep how many rows it touched.

    On a connection of its own too: statements of one tick neither wait for each other nor fail together, and a
    transaction-mode pooler makes connecting cheap. What tick itself writes goes by another connection.

    Args:
        ctx: the attempt.
        statement: the SQL; with `params`, `%s` or `%(name)s` stands for each, and `%%` for a percent sign.
        params: a list for `%s`, an object for `%(name)s`.
        timeout: seconds, or a text such as "2m", after which Postgres stops it.

    Returns the number of rows, the seconds it took, and of the rows it returned the first 20, up to 16 KiB.
    Raises Permanent for a statement that can never work, ConfigurationError without a database, StatementFailed,
    TimeoutError or DatabaseUnavailable for what may work another time.
    """
    limit = min(seconds(timeout), ctx.remaining() + AFTER_DEADLINE)
    started = time.monotonic()
    try:
        rows, returned = await _run(ctx.settings.database_url or "", statement, params, limit)
    except TypeError as error:  # a list for names, or an object for places
        raise Permanent(f"the params do not fit the statement: {error}") from None
    except psycopg.Error as error:
        raise _failure(error, limit) from None
    return {"rows": rows, "seconds": round(time.monotonic() - started, 3), "returned": returned}


async def _run(
    url: str, statement: str, params: list[Any] | dict[str, Any] | None, limit: float
) -> tuple[int | None, list[Any]]:
    async with database.connect(url) as connection, connection.transaction():
        await connection.execute("select set_config('statement_timeout', %s, true)", [f"{max(1, limit * 1000):.0f}ms"])
        cursor = await connection.execute(statement.encode(), _adapted(params))
        while cursor.nextset():
            pass
        count = None if cursor.rowcount < 0 else cursor.rowcount
        if cursor.description is None:
            return count, []
        names = [column.name for column in cursor.description]
        return count, _kept(dict(zip(names, row, strict=True)) for row in await cursor.fetchmany(MOST_ROWS))


def _adapted(params: list[Any] | dict[str, Any] | None) -> list[Any] | dict[str, Any] | None:
    """The parameters as psycopg takes them: an object among them is jsonb."""
    if isinstance(params, dict):
        return {name: Jsonb(value) if isinstance(value, dict) else value for name, value in params.items()}
    return params and [Jsonb(value) if isinstance(value, dict) else value for value in params]


def _kept(rows: Iterable[dict[str, Any]]) -> list[Any]:
    """The first rows, as JSON has them, as far as there is room."""
    kept, room = [], MOST_BYTES
    for row in rows:
        encoded = msgspec.json.encode(row, enc_hook=str)
        room -= len(encoded)
        if room < 0:
            break
        kept.append(msgspec.json.decode(encoded))
    return kept


def _failure(error: psycopg.Error, limit: float) -> Exception:
    """What an error of the database means for the job, without the row's values that its details may show."""
    said = f"{error.sqlstate}: {error.diag.message_primary}" if error.sqlstate else database.one_line(error)
    if isinstance(error, psycopg.errors.QueryCanceled):
        return TimeoutError(f"{said} (it may take {limit:g} s: give it a longer timeout, or less to do)")
    # What psycopg refuses by itself, such as a parameter too few, has no SQLSTATE.
    is_unsendable = error.sqlstate is None and isinstance(error, psycopg.ProgrammingError | psycopg.DataError)
    if is_unsendable or (error.sqlstate or "").startswith(PERMANENT):
        return Permanent(said)
    return StatementFailed(said)
