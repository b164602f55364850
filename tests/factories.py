"""Rows by what they are: `a_job(conn, status="dead")` has all that a dead job has."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from tick.config import Settings
from tick.handlers import registry
from tick.processor import Report, process_tick

NEVER = uuid.UUID(int=0)
"""The id of a tick that is no longer there."""

_IMPLIED: dict[str, dict[str, Any]] = {
    "pending": {},
    "running": {"attempt": 1, "tick_id": NEVER, "lease_expires_at": "+1 minute", "started_at": "+0"},
    "done": {"attempt": 1, "tick_id": NEVER, "finished_at": "+0", "started_at": "+0"},
    "dead": {"attempt": 5, "failures": 5, "tick_id": NEVER, "finished_at": "+0", "last_error": "no"},
    "cancelled": {"finished_at": "+0"},
}


def a_job(conn: psycopg.Connection, type: str = "noop", status: str = "pending", **columns: Any) -> int:
    """Insert one job, and whatever its status implies; times may be given as "+1 minute" from the clock."""
    values = {"type": type, "status": status} | _IMPLIED[status] | columns
    names, literals = zip(*((name, _literal(value)) for name, value in values.items()), strict=True)
    statement = sql.SQL("insert into tick.jobs ({}) values ({}) returning id").format(
        sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(", ").join(literals)
    )
    return conn.execute(statement).fetchone()[0]


def _literal(value: Any) -> sql.Composable:
    if isinstance(value, dict | list):
        return sql.Literal(Jsonb(value))
    if isinstance(value, str) and value[:1] in "+-" and value[1:2].isdigit():
        return sql.SQL("tick.now() + {}::interval").format(sql.Literal(value))
    return sql.Literal(value)


def jobs(conn: psycopg.Connection, type: str = "noop", count: int = 1) -> None:
    conn.execute("insert into tick.jobs (type) select %s from generate_series(1, %s)", [type, count])


def job(conn: psycopg.Connection, id: int) -> dict[str, Any]:
    """One row, as a dict."""
    cursor = conn.cursor(row_factory=psycopg.rows.dict_row)
    return cursor.execute("select * from tick.jobs where id = %s", [id]).fetchone()


def statuses(conn: psycopg.Connection) -> dict[str, int]:
    return dict(conn.execute("select status, count(*) from tick.jobs group by status").fetchall())


def move_clock(conn: psycopg.Connection, to: str) -> None:
    """Make tick.now() answer with `to`: an instant, or "+1 hour" from where the clock is."""
    if to[:1] in "+-":
        (shift,) = conn.execute("select tick.now() + %s::interval - now()", [to]).fetchone()
        body = sql.SQL("select pg_catalog.now() + {}::interval").format(sql.Literal(str(shift.total_seconds()) + "s"))
    else:
        body = sql.SQL("select {}::timestamptz").format(sql.Literal(to))
    conn.execute(
        sql.SQL(
            "create or replace function tick.now() returns timestamptz language sql stable parallel safe as {}"
        ).format(sql.Literal(body.as_string(conn)))
    )


def tick(settings: Settings, *, budget: float = 10.0, **options: Any) -> Report:
    """One tick with the handlers that the test has registered."""
    changed = {name: options.pop(name) for name in list(options) if hasattr(settings, name)}
    return asyncio.run(process_tick(replace(settings, **changed), registry, budget=budget, **options))


def wait_until(condition, timeout: float = 10.0):
    """Wait for a fact, and return it."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if fact := condition():
            return fact
        time.sleep(0.01)
    raise AssertionError(f"it did not come true in {timeout} s")
