"""The caller's own connection, whatever wraps it: statements go into its transaction, and rows come back."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

from psycopg import AsyncConnection, AsyncCursor, AsyncRawCursor, Connection, Cursor, RawCursor
from psycopg.rows import tuple_row

from .config import Settings
from .database import one_line
from .errors import NotMigrated

UNDEFINED = {"3F000", "42P01", "42703", "42883"}
"""What Postgres says of a schema, a table, a column or a function that is not there: SQLSTATE, appendix A."""


class Session(Protocol):
    """For type checkers: SQLAlchemy's Session and Connection, without importing it."""

    def begin_nested(self) -> Any: ...
    def commit(self) -> None: ...


class AsyncSession(Protocol):
    """For type checkers: SQLAlchemy's AsyncSession and AsyncConnection, without importing it."""

    def begin_nested(self) -> Any: ...
    def commit(self) -> Awaitable[None]: ...


class DjangoConnection(Protocol):
    """For type checkers: Django's connections, without importing it."""

    def on_commit(self, func: Any, robust: bool = False) -> Any: ...


class DjangoCursor(Protocol):
    """For type checkers: Django's cursors, without importing it."""

    @property
    def db(self) -> DjangoConnection: ...


Blocking = Connection[Any] | Cursor[Any] | Session | DjangoConnection | DjangoCursor
Awaited = AsyncConnection[Any] | AsyncCursor[Any] | AsyncSession


def fetch(connection: Any, statement: str, params: Mapping[str, Any]) -> Any:
    """The rows of a statement as tuples, run in the connection's own transaction; to be awaited when that is async.

    Raises TypeError for what is no connection that tick knows, and NotMigrated when the statement names what the
    database does not have. Other errors of the database pass through as the connection's library raises them.
    """
    for base in type(connection).__mro__:
        if run := _RUNNERS.get(f"{base.__module__}.{base.__qualname__}"):
            return run(connection, statement, params)
    raise TypeError(_refusal(connection))


def _psycopg(connection: Any, statement: str, params: Mapping[str, Any]) -> list[Any]:
    with _missing_is_not_migrated(), _cursor(connection, RawCursor, Cursor) as cursor:
        return cursor.execute(statement, params).fetchall()  # type: ignore[no-any-return]


async def _async_psycopg(connection: Any, statement: str, params: Mapping[str, Any]) -> list[Any]:
    with _missing_is_not_migrated():
        async with _cursor(connection, AsyncRawCursor, AsyncCursor) as cursor:
            await cursor.execute(statement, params)
            return await cursor.fetchall()  # type: ignore[no-any-return]


def _cursor(connection: Any, raw: type, plain: type) -> Any:
    """A cursor of the connection's own kind. A raw one would not take parameters by name."""
    if issubclass(connection.cursor_factory, raw):
        return plain(connection, row_factory=tuple_row)
    return connection.cursor(row_factory=tuple_row)


def _sqlalchemy(session: Any, statement: str, params: Mapping[str, Any]) -> list[Any]:
    with _missing_is_not_migrated():
        return [tuple(row) for row in session.execute(_as_text(statement), params)]


async def _async_sqlalchemy(session: Any, statement: str, params: Mapping[str, Any]) -> list[Any]:
    with _missing_is_not_migrated():
        return [tuple(row) for row in await session.execute(_as_text(statement), params)]


@cache
def _as_text(statement: str) -> Any:
    """The statement with SQLAlchemy's `:name` for `%(name)s`, whatever driver it is for."""
    from sqlalchemy import text

    return text(re.sub(r"%\((\w+)\)s", r":\1", statement.replace(":", r"\:")))


def _django(connection: Any, statement: str, params: Mapping[str, Any]) -> list[Any]:
    # Django's caches are behind the same proxy as its connections, and not every connection is to Postgres.
    if getattr(connection, "vendor", None) != "postgresql":
        raise TypeError(_refusal(connection))
    with _missing_is_not_migrated(), connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall()  # type: ignore[no-any-return]


_RUNNERS: dict[str, Callable[[Any, str, Mapping[str, Any]], Any]] = {
    "psycopg.Connection": _psycopg,
    "psycopg.Cursor": lambda cursor, *of: _psycopg(cursor.connection, *of),
    "psycopg.AsyncConnection": _async_psycopg,
    "psycopg.AsyncCursor": lambda cursor, *of: _async_psycopg(cursor.connection, *of),
    "sqlalchemy.engine.base.Connection": _sqlalchemy,
    "sqlalchemy.orm.session.Session": _sqlalchemy,
    "sqlalchemy.orm.scoping.scoped_session": _sqlalchemy,
    "sqlalchemy.ext.asyncio.engine.AsyncConnection": _async_sqlalchemy,
    "sqlalchemy.ext.asyncio.session.AsyncSession": _async_sqlalchemy,
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session": _async_sqlalchemy,
    "django.db.backends.base.base.BaseDatabaseWrapper": _django,
    "django.utils.connection.ConnectionProxy": _django,
    "django.db.backends.utils.CursorWrapper": lambda cursor, *of: _django(cursor.db, *of),
}
"""By the name of a class or of one that it inherits from, so that nothing is imported that the caller has not."""


@contextmanager
def _missing_is_not_migrated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if UNDEFINED.isdisjoint(map(_sqlstate, _with_causes(error))):
            raise
        raise NotMigrated(Settings.load().schema, [f"what this version of tick needs ({_gist(error)})"]) from error


def _with_causes(error: Any) -> Iterator[Any]:
    """The error and the driver's own: SQLAlchemy has it as `orig`, Django as the cause."""
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__


def _sqlstate(error: Any) -> Any:
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def _gist(error: BaseException) -> str:
    """The first line of what Postgres said, wherever it is wrapped."""
    *_, innermost = _with_causes(error)
    return one_line(innermost).partition(" LINE ")[0]


def _refusal(connection: Any) -> str:
    kind = type(connection)
    return (
        f"{kind.__module__}.{kind.__qualname__} is no connection that tick can use: "
        f"{_hint(connection)}pass a connection or cursor of psycopg 3, a Session, AsyncSession, Connection or "
        "AsyncConnection of SQLAlchemy 2, or Django's connection to Postgres. With any other driver, run "
        "`select tick.enqueue('type', '{\"argument\": 1}')`"
    )


def _hint(connection: Any) -> str:
    if isinstance(connection, str):
        return "a URL has no transaction that a job could be part of. Connect, and "
    if type(connection).__name__ in ("Engine", "AsyncEngine"):
        return "an engine has no transaction of its own. Write `with engine.begin() as connection:`, or "
    return ""
