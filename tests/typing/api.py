"""What type checkers say of tick's API. Never run: `test_typing.py` has mypy and pyright read it.

A line with `type: ignore` must be an error: both checkers complain of an ignore that nothing needs.
"""
# pyright: basic, reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, assert_type

import psycopg
from psycopg.rows import DictRow

import tick


@tick.job
def plain(user_id: int, note: str = "") -> str:
    return f"{user_id}{note}"


@tick.job
async def coroutine(user_id: int) -> None: ...


@tick.job(type="other", max_attempts=3, timeout="30s", priority=5, backoff=["5s", 60, timedelta(hours=1)])
async def with_options(user_id: int) -> None: ...


@tick.job(backoff=tick.Backoff(base=5), permanent_on=(KeyError, ValueError), timeout=timedelta(seconds=5))
def with_context(ctx: tick.Context, user_id: int) -> None:
    assert_type(ctx.id, int)
    assert_type(ctx.window, datetime | None)
    assert_type(ctx.remaining(), float)
    ctx.enqueue(plain, user_id=1)
    ctx.enqueue("plain", {"user_id": 1})
    ctx.enqueue(5)  # type: ignore[arg-type]


@tick.job
def only_context(ctx: tick.Context) -> None: ...


def calling_calls(ctx: tick.Context) -> None:
    assert_type(plain(1), str)
    assert_type(plain(user_id=1, note="x"), str)
    running: Coroutine[Any, Any, None] = coroutine(1)
    running.close()
    assert_type(with_context(ctx, 1), None)
    plain("1")  # type: ignore[arg-type]
    plain()  # type: ignore[call-arg]
    with_context(1)  # type: ignore[call-arg, arg-type]


def enqueuing(connection: psycopg.Connection, dicts: psycopg.Connection[DictRow]) -> None:
    assert_type(plain.enqueue(connection, 1), tick.JobId)
    assert_type(plain.enqueue(dicts, user_id=1, note="x"), tick.JobId)
    assert_type(plain.enqueue(connection, 1).created, bool)
    assert_type(coroutine.enqueue(connection, user_id=1), tick.JobId)
    assert_type(with_options.enqueue(connection, user_id=1), tick.JobId)
    assert_type(with_context.enqueue(connection, user_id=1), tick.JobId)
    assert_type(only_context.enqueue(connection), tick.JobId)
    number: int = plain.enqueue(connection, 1)
    print(number)

    plain.enqueue(connection, "1")  # type: ignore[call-overload]
    plain.enqueue(connection, user=1)  # type: ignore[call-overload]
    plain.enqueue(connection, 1, nota="x")  # type: ignore[call-overload]
    plain.enqueue(connection)  # type: ignore[call-overload]
    plain.enqueue(1)  # type: ignore[call-overload]
    plain.enqueue(user_id=1)  # type: ignore[call-overload]
    plain.enqueue("postgresql://", 1)  # type: ignore[call-overload]
    with_options.enqueue(connection, user_id="1")  # type: ignore[call-overload]
    with_context.enqueue(connection, ctx=None, user_id=1)  # type: ignore[call-overload]


async def enqueuing_asynchronously(connection: psycopg.AsyncConnection) -> None:
    assert_type(await plain.enqueue(connection, 1), tick.JobId)
    assert_type((await coroutine.enqueue(connection, user_id=1)).created, bool)
    assert_type(await with_context.using(delay="1h").enqueue(connection, user_id=1), tick.JobId)
    print(plain.enqueue(connection, 1) + 1)  # type: ignore[operator]
    await plain.enqueue(connection, "1")  # type: ignore[call-overload]


def using(connection: psycopg.Connection) -> None:
    later = plain.using(
        run_at=datetime.max, delay=timedelta(hours=1), priority=5, key="user:1", idempotency_key="order:7"
    )
    assert_type(later.enqueue(connection, user_id=1), tick.JobId)
    later.enqueue(connection, user=1)  # type: ignore[call-overload]
    plain.using(run_at="tomorrow")  # type: ignore[arg-type]
    plain.using(dely="1h")  # type: ignore[call-arg]
    plain.using(key=42)  # type: ignore[arg-type]


def by_name(connection: psycopg.Connection) -> None:
    tick.enqueue(connection, "plain", {"user_id": 1}, delay="1h", key="user:1", max_attempts=2)
    tick.enqueue(connection, "plain", user_id=1)  # type: ignore[call-arg]
    tick.enqueue(connection, 5)  # type: ignore[arg-type]
    tick.enqueue("plain", {"user_id": 1})  # type: ignore[arg-type]


def registering() -> None:
    tick.job(max_attempt=3)  # type: ignore[call-overload]
    tick.job(timeout=[1])  # type: ignore[call-overload]
    tick.job(permanent_on="ValueError")  # type: ignore[arg-type]
    tick.job(5)  # type: ignore[call-overload]


def ending() -> None:
    tick.Retry("busy", after=timedelta(minutes=1))
    tick.Snooze(until=datetime.max)
    tick.Permanent("no such user")
    tick.Retry("busy")  # type: ignore[call-arg]
    tick.Snooze(until="tomorrow")  # type: ignore[arg-type]
