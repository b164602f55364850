"""What commands do: functions of their options that print, and return an exit code; and what all of them share."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import database, embedded, handlers, platforms
from .config import Settings
from .errors import (
    ConfigurationError,
    InvalidPayload,
    InvalidTransition,
    JobNotFound,
    TickError,
)
from .options import Given

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from .schedules import Schedule

OK, NOT_SO, USAGE, NO_DATABASE, BLOCKED = 0, 1, 2, 75, 70


def complain(error: Exception, code: int) -> int:
    print(f"tick: {error}", file=sys.stderr)
    return code


# What the commands share


def settings_with_database() -> Settings:
    """The settings, with the embedded Postgres, migrated, where no DATABASE_URL is set."""
    settings = Settings.load()
    if settings.database_url:
        return settings
    url = embedded.url(settings.root)
    print(f"tick: DATABASE_URL is not set: using the embedded Postgres in {embedded.STATE}/", file=sys.stderr)
    settings = replace(settings, database_url=url)
    asyncio.run(migrate_now(settings))
    return settings


async def migrate_now(settings: Settings) -> list[str]:
    async with database.connect(settings.database_url or "") as connection:
        return await database.migrate(connection, settings.schema)


def ask(settings: Settings, question: Callable[[AsyncConnection], Coroutine[Any, Any, Any]]) -> Any:
    """Run one coroutine function with a connection of its own."""
    from psycopg.errors import UndefinedTable

    async def asking() -> Any:
        async with database.connect(settings.database_url or "") as connection:
            try:
                return await question(connection)
            except UndefinedTable as error:
                raise await database.not_migrated(connection, settings.schema) or error from None

    return asyncio.run(asking())


def query(settings: Settings, name: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of one statement of queue.sql."""
    from .database import Statement
    from .queue import Queue

    async def asking(connection: AsyncConnection) -> list[tuple[Any, ...]]:
        queue = Queue(connection, lambda: database.open_connection(""), settings.schema)
        return (await queue.send(Statement(name, params)))[0].rows

    rows: list[tuple[Any, ...]] = ask(settings, asking)
    return rows


def log_to_stderr() -> None:
    """Show what handlers log through `ctx.logger`, and what tick itself has to say."""
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("tick").setLevel(logging.INFO)


def load_handlers(settings: Settings, budget: float) -> handlers.Registry:
    registry = handlers.load(settings.modules, settings.root)
    registry.check(budget)
    return registry


def show(rows: Iterable[dict[str, Any]], *, as_json: bool, empty: str = "nothing", title: str | None = None) -> None:
    """Print rows: JSON, a table on a terminal, or aligned text in a pipe."""
    rows = list(rows)
    if as_json:
        print(json.dumps(rows, default=str, indent=2))
    elif not rows:
        print(empty)
    elif sys.stdout.isatty():
        _rich_table(rows, title)
    else:
        _plain_table(rows)


def _cells(row: dict[str, Any]) -> list[str]:
    return ["-" if value is None else str(value) for value in row.values()]


def _plain_table(rows: list[dict[str, Any]]) -> None:
    lines = [[name.upper() for name in rows[0]], *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(rows: list[dict[str, Any]], title: str | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*rows[0], title=title, title_justify="left", header_style="bold")
    for row in rows:
        table.add_row(*map(Text, _cells(row)))
    Console().print(table)


# tick migrate


def migrate(options: argparse.Namespace) -> int:
    """Apply pending migrations, or say or print what would be applied."""
    if options.sql:
        print(database.export(Settings.load().schema))
        return OK
    settings = Settings.load()
    if not settings.database_url:
        settings = replace(settings, database_url=embedded.url(settings.root))
    if options.dry_run:
        names = [m.name for m in ask(settings, lambda c: database.pending(c, settings.schema))]
        print("\n".join(f"would apply {name}" for name in names) or "nothing to apply")
        return OK
    names = asyncio.run(migrate_now(settings))
    print("\n".join(f"applied {name}" for name in names) or "nothing to apply")
    return OK


# tick schedules, tick windows


def schedules(options: argparse.Namespace) -> int:
    """Every schedule with its next windows; or, with --check, whether the file can be deployed."""
    from . import schedules_file as module
    from .schedules import warnings

    if options.json_schema:
        print(json.dumps(module.json_schema(), indent=2))
        return OK
    settings = Settings.load()
    path = Path(options.file) if options.file else settings.schedules_path
    loaded = _load(path)
    for warning in warnings(loaded):
        print(f"warning: {warning}", file=sys.stderr)
    if options.check:
        return _check(settings, loaded, path)
    rows = [row for schedule in loaded for row in _next_windows(schedule, options.next)]
    show(rows, as_json=options.json, empty=f"{path.name} has no schedules", title=path.name)
    return OK


def _load(path: Path) -> Sequence[Schedule]:
    from .schedules_file import load

    if not path.exists():
        raise ConfigurationError(f"{path}: there is no such file")
    return load(path)


def _check(settings: Settings, loaded: Sequence[Schedule], path: Path) -> int:
    from .materialise import check

    budget = platforms.budget(settings)
    problems = check(loaded, load_handlers(settings, budget), budget)
    for problem in problems:
        print(f"{path.name}: {problem}", file=sys.stderr)
    print(f"{path.name}: {len(loaded)} schedules, {len(problems) or 'no'} problems")
    return NOT_SO if problems else OK


def _period(every: timedelta | None) -> str | None:
    """A period as it is written in the file: "every 1h30m"."""
    if every is None:
        return None
    rest, spelt = int(every.total_seconds()), ""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        spelt += f"{count}{unit}" if count else ""
    return f"every {spelt}"


def _next_windows(schedule: Schedule, count: int) -> Iterable[dict[str, Any]]:
    from .cron import zone
    from .schedules import due

    base = {"schedule": schedule.name, "rule": schedule.cron or _period(schedule.every), "timezone": schedule.timezone}
    if not schedule.enabled:
        return [base | {"local": "disabled", "utc": None}]
    at = datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    while len(rows) < count and (window := due(schedule, at, at).next_window):
        local = window.astimezone(zone(schedule.timezone))
        rows.append(base | {"local": f"{local:%a %Y-%m-%d %H:%M:%S %Z}", "utc": f"{window:%Y-%m-%dT%H:%M:%SZ}"})
        at = window
    return rows or [base | {"local": "never again", "utc": None}]


def run_now(options: argparse.Namespace) -> int:
    """Enqueue a schedule's job at once, for no window; a disabled schedule too."""
    from .materialise import check

    settings = settings_with_database()
    loaded = {schedule.name: schedule for schedule in _load(settings.schedules_path)}
    if options.name not in loaded:
        raise ConfigurationError(f"{settings.schedules_path.name} has no schedule {options.name!r}")
    schedule = loaded[options.name]
    registry = load_handlers(settings, platforms.budget(settings))
    if problems := check([schedule], registry, platforms.budget(settings)):
        raise ConfigurationError("\n".join(problems))
    new = (
        registry.get(schedule.type)
        .new_job(schedule.payload)
        ._replace(
            priority=schedule.priority,
            key=schedule.key,
            max_attempts=schedule.max_attempts,
            timeout=schedule.timeout.total_seconds() if schedule.timeout else None,
            schedule=schedule.name,
        )
    )
    return _enqueued(settings, new, options.json)


def windows(options: argparse.Namespace) -> int:
    """When a cron expression fires, to try it out."""
    from .cron import windows, zone

    found = windows(options.cron, options.timezone, after=_instant(options.after), until=_instant(options.until))
    if options.json:
        print(json.dumps([f"{window:%Y-%m-%dT%H:%M:%SZ}" for window in found]))
        return OK
    local = zone(options.timezone)
    show(
        ({"utc": f"{w:%Y-%m-%dT%H:%M:%SZ}", "local": f"{w.astimezone(local):%a %Y-%m-%d %H:%M:%S %Z}"} for w in found),
        as_json=False,
        empty="no windows",
    )
    return OK


def _instant(text: str) -> Any:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not an instant: write 2026-10-25T00:00Z") from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


# tick jobs, tick enqueue


def jobs_list(options: argparse.Namespace) -> int:
    """The latest jobs, filtered."""
    settings = settings_with_database()
    names = ("id", "type", "status", "priority", "attempt", "failures", "losses", "run_at", "finished_at",
             "key", "schedule", "window", "last_error", "waits_for", "lane")  # fmt: skip
    params = {"status": options.status, "type": options.type, "schedule": options.schedule, "limit": options.limit}
    rows = [dict(zip(names, row, strict=True)) for row in query(settings, "list_jobs", params)]
    if not options.json:
        rows = [_brief(row) for row in rows]
    show(rows, as_json=options.json, empty="no jobs")
    return OK


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    due = row["finished_at"] or row["run_at"]
    kept = ("id", "type", "status", "attempt", "failures", "key", "schedule")
    waits = row["waits_for"] or (f"limit: {row['lane']}" if row["lane"] else None)
    return {name: row[name] for name in kept} | {
        "waits for": waits if row["status"] == "pending" else None,
        "at (utc)": f"{due:%Y-%m-%d %H:%M:%S}",
        "last error": (row["last_error"] or "")[:70] or None,
    }


_ORDER = {
    name: place
    for place, name in enumerate(
        ("id", "type", "status", "payload", "result", "last_error", "schedule", "window", "key", "idempotency_key",
         "priority", "run_at", "attempt", "failures", "losses", "cuts", "max_attempts", "timeout", "created_at",
         "started_at", "finished_at")
    )
}  # fmt: skip
"""The columns of a job as a person looks for them; the others after."""


def jobs_show(options: argparse.Namespace) -> int:
    """All there is to know of a job, its errors with their tracebacks."""
    rows = query(settings_with_database(), "show_job", {"id": options.id})
    if not rows:
        raise JobNotFound(options.id)
    job = rows[0][0]
    if options.json:
        print(json.dumps(job, indent=2))
        return OK
    errors = job.pop("errors")
    for name, value in sorted(job.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))):
        if value is not None:
            print(f"{name:20} {value if isinstance(value, str | int) else json.dumps(value)}")
    for error in errors:
        print(f"\nattempt {error['attempt']}, {error['at']}: {error['error']}\n{error['traceback']}")
    return OK


def jobs_cancel(options: argparse.Namespace) -> int:
    """Cancel pending jobs; a running one is told at its tick's next exchange."""
    return _transition(options, "cancel", "cancelled", "pending or running")


def jobs_replay(options: argparse.Namespace) -> int:
    """Make dead or cancelled jobs pending again, with all their attempts before them."""
    return _transition(options, "replay", "replayed", "dead or cancelled")


def _transition(options: argparse.Namespace, name: str, done: str, allowed: str) -> int:
    settings = settings_with_database()
    code = OK
    for id in options.id:
        rows = query(settings, name, {"id": id, "ids": [id]})
        if rows:
            print(f"job {id} {'is told to stop' if rows[0][0] == 'running' else done}")
        else:
            code = complain(_refusal(settings, id, done, allowed), NOT_SO)
    return code


def _refusal(settings: Settings, id: int, wanted: str, allowed: str) -> TickError:
    rows = query(settings, "job_status", {"id": id})
    return InvalidTransition(id, rows[0][0], wanted, allowed) if rows else JobNotFound(id)


def enqueue(options: argparse.Namespace) -> int:
    """Enqueue one job of a type that has a handler."""
    settings = settings_with_database()
    registry = load_handlers(settings, platforms.budget(settings))
    try:
        payload = json.loads(options.payload)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload(options.type, f"it is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise InvalidPayload(options.type, 'it is not a JSON object, such as {"user_id": 42}')
    given: Given = {name: value for name, value in vars(options).items() if name in Given.__annotations__}  # type: ignore[assignment]
    if options.run_at:
        given["run_at"] = _instant(options.run_at)
    return _enqueued(settings, registry.get(options.type).using(**given).prepared(payload), options.json)


def _enqueued(settings: Settings, new: Any, as_json: bool) -> int:
    from .intake import enqueue

    id = ask(settings, lambda connection: enqueue(connection, new))
    if as_json:
        print(json.dumps({"id": id, "type": new.type, "created": id.created}))
    else:
        print(f"job {id} ({new.type}) {'enqueued' if id.created else 'was there already'}")
    return OK


# tick api-keys


def _ask_api(settings: Settings, name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one statement of api.sql."""
    from .calls import rows

    found: list[dict[str, Any]] = ask(settings, lambda connection: rows(connection, settings.schema, name, params))
    return found


def api_keys_create(options: argparse.Namespace) -> int:
    """Make an API key, and print it: once, since only its hash is kept."""
    from . import keys
    from .options import seconds

    id, key = keys.create()
    params = {
        "id": id,
        "name": keys.check_name(options.name),
        "scopes": keys.check_scopes(options.scope, "--scope"),
        "hash": keys.digest(key),
        "seconds": None if options.expires is None else seconds(options.expires),
    }
    made = _ask_api(settings_with_database(), "add_key", params)[0]
    if options.json:
        print(json.dumps({"id": id, "key": key} | made, default=str))
    else:
        print(f"tick: {id} ({options.name}) is made; keep it, it is not shown again:", file=sys.stderr)
        print(key)
    return OK


def api_keys_list(options: argparse.Namespace) -> int:
    """The API keys of the database, with when each was last used."""
    show(_ask_api(settings_with_database(), "list_keys", {}), as_json=options.json, empty="no API keys")
    return OK


def api_keys_revoke(options: argparse.Namespace) -> int:
    """Revoke an API key at once, and for good."""
    revoked = _ask_api(settings_with_database(), "revoke_key", {"id": options.id})
    if not revoked:
        return complain(ConfigurationError(f"there is no API key {options.id}: see tick api-keys list"), NOT_SO)
    print(f"{options.id} ({revoked[0]['name']}) is revoked")
    return OK
