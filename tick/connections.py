"""The caller's own connection, whatever wraps it: statements go into its transaction, and rows come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import tuple_row


def fetch(connection: Any, statement: str, params: Mapping[str, Any]) -> Any:
    """The rows of a statement, run in the connection's own transaction; awaitable when the connection is."""
    if isinstance(connection, AsyncConnection | AsyncCursor):
        return _fetch_async(connection, statement, params)
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement, params).fetchall()


async def _fetch_async(connection: Any, statement: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statement, params)
        rows: list[tuple[Any, ...]] = await cursor.fetchall()
        return rows
