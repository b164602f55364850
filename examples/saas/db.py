"""The application's own connections. With more traffic than a side project has, put a psycopg_pool here."""

import os
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

# No prepared statements, so that a transaction-mode pooler (PgBouncer, Neon, Supabase) will do.
OPTIONS: dict[str, Any] = {"row_factory": namedtuple_row, "prepare_threshold": None}


def connect() -> psycopg.Connection[Any]:
    """For a `with`: one transaction, committed at its end, rolled back by an exception."""
    return psycopg.connect(os.environ["DATABASE_URL"], **OPTIONS)


async def connect_async() -> psycopg.AsyncConnection[Any]:
    """The same, for `async with await connect_async()`."""
    return await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], **OPTIONS)
