"""What commands do: functions of their options that print, and return an exit code; and what all of them share."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import database, embedded, handlers, logs, platforms
from .config import Settings
from .errors import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidPayload,
    InvalidTransition,
    JobNotFound,
    TickError,
)
from .options import Given

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from .dashboard.filters import Filter, Found
    from .database import Statement
    from .schedules import Schedule

OK, NOT_SO, USAGE, NO_DATABASE, BLOCKED = 0, 1, 2, 75, 70
MOST_CHANGED = 10_000
"""Jobs that one command changes."""


def complain(error: Exception, code: int) -> int:
    print(f"tick: {error}", file=sys.stderr)
    return code


# What the commands share


def settings_with_database(*, makes_one: bool = True) -> Settings:
    """The settings, with the embedded Postgres, migrated, where no DATABASE_URL is set: it is said when it is made.

    Raises ConfigurationError outside of a project, and for a command that only reads where there is none yet.
    """
    settings = Settings.load()
    if settings.database_url:
        return settings
    settings = with_embedded(settings, makes_one=makes_one)
    asyncio.run(migrate_now(settings))
    return settings


def with_embedded(settings: Settings, *, makes_one: bool = True) -> Settings:
    """The settings with the URL of the project's embedded Postgres. Raises ConfigurationError, as above."""
    folder = embedded.folder(settings.root)
    is_new = not folder.exists()
    if is_new and not any((settings.root / name).exists() for name in ("pyproject.toml", "schedules.toml")):
        text = f"there is no tick project here or above {settings.root}: cd to it, or set DATABASE_URL"
        raise ConfigurationError(text)
    if is_new and not makes_one:
        raise ConfigurationError(f"no database yet: `tick dev` or `tick run-once` makes one in {folder}")
    url = embedded.url(settings.root)
    if is_new:
        print(f"tick: DATABASE_URL is not set: using the embedded Postgres in {folder}", file=sys.stderr)
    return replace(settings, database_url=url)


async def migrate_now(settings: Settings) -> list[str]:
    async with database.connect(settings.database_url or "") as connection:
        return await database.migrate(connection, settings.schema)


def ask(settings: Settings, question: Callable[[AsyncConnection], Coroutine[Any, Any, Any]]) -> Any:
    """Run one coroutine function with a connection of its own. Raises DatabaseUnavailable where it cannot write."""
    from psycopg.errors import ReadOnlySqlTransaction, UndefinedTable

    async def asking() -> Any:
        async with database.connect(settings.database_url or "") as connection:
            try:
                return await question(connection)
            except UndefinedTable as error:
                raise await database.not_migrated(connection, settings.schema) or error from None
            except ReadOnlySqlTransaction as error:
                text = f"the database cannot be written, as a replica cannot: {error.diag.message_primary}"
                raise DatabaseUnavailable(text) from None

    return asyncio.run(asking())


def query(settings: Settings, name: str, params: dict[str, Any], file: str = "queue") -> list[tuple[Any, ...]]:
    """The rows of one statement, which may write."""
    from .database import Statement
    from .queue import Queue

    async def asking(connection: AsyncConnection) -> list[tuple[Any, ...]]:
        queue = Queue(connection, lambda: database.open_connection(""), settings.schema)
        return (await queue.send(Statement(name, params, file)))[0].rows

    rows: list[tuple[Any, ...]] = ask(settings, asking)
    return rows


def read(settings: Settings, *questions: Statement) -> list[list[dict[str, Any]]]:
    """The rows of each question, in one round trip that cannot write."""
    found: list[list[dict[str, Any]]] = ask(settings, lambda c: database.read(c, settings.schema, *questions))
    return found


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether a person agrees: by --yes, or asked on a terminal. Raises ConfigurationError where there is nobody."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigurationError(
            f"{question} Nobody can be asked here: say --yes, or --dry-run to see what it would do"
        )
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def log_to_stderr(*, tells_ticks: bool = False) -> None:
    """Show what handlers log, and what tick itself has to say; of ticks too, unless the command tells of them.

    Raises ConfigurationError, since a setting says in which form.
    """
    logs.configure(Settings.load(), tells_ticks=tells_ticks)


def load_handlers(settings: Settings, budget: float) -> handlers.Registry:
    registry = handlers.load(settings.modules, settings.root)
    registry.check(budget)
    return registry


def show(
    rows: Iterable[dict[str, Any]],
    *,
    as_json: bool,
    empty: str = "nothing",
    title: str | None = None,
    whole: Sequence[str] = (),
) -> None:
    """Print rows: JSON, a table on a terminal, or aligned text in a pipe.

    A table that names columns to be shown `whole` has one line a row: its other columns are cut to the width there is.
    """
    rows = list(rows)
    if as_json:
        print(json.dumps(rows, default=plain, indent=2))
    elif not rows:
        print(empty)
    elif sys.stdout.isatty():
        _rich_table(rows, title, whole)
    else:
        _plain_table(rows)


def plain(value: Any) -> str:
    """What JSON does not have, as a text: instants as ISO 8601."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def cells(row: dict[str, Any]) -> list[str]:
    """A row as a table shows it: no control character of what jobs say gets to the terminal."""
    return ["-" if value is None else logs.one_line(str(value)) for value in row.values()]


def _plain_table(rows: list[dict[str, Any]]) -> None:
    lines = [[name.upper() for name in rows[0]], *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(rows: list[dict[str, Any]], title: str | None, whole: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    look: Any = {"box": None, "padding": (0, 2, 0, 0)} if whole else {}
    table = Table(title=title, title_justify="left", header_style="bold", **look)
    for name in rows[0]:
        table.add_column(name, no_wrap=name in whole)
    cut: Any = {"no_wrap": True, "overflow": "ellipsis"} if whole else {}
    for row in rows:
        table.add_row(*(Text(cell, **cut) for cell in cells(row)))
    Console().print(table)


# tick migrate


def migrate(options: argparse.Namespace) -> int:
    """Apply pending migrations, or say or print what would be applied."""
    if options.sql:
        print(database.export(Settings.load().schema))
        return OK
    settings = Settings.load()
    if not settings.database_url:
        settings = with_embedded(settings, makes_one=not options.dry_run)
    if options.dry_run:
        names = [m.name for m in ask(settings, lambda c: database.pending(c, settings.schema))]
        print("\n".join(f"would apply {name}" for name in names) or "nothing to apply")
        return OK
    names = ask(settings, lambda connection: database.migrate(connection, settings.schema))
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
        if not options.file:
            module.read_project(settings)
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
    print(f"{path.name}: {len(loaded)} schedules, {problems_told(len(problems))}")
    return NOT_SO if problems else OK


def problems_told(number: int) -> str:
    """How many problems there are, in words."""
    return f"{number or 'no'} problem{'s' * (number != 1)}"


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
            callback_url=schedule.callback_url,
            on_dead_url=schedule.on_dead_url,
            schedule=schedule.name,
        )
    )
    return _enqueued(settings, new, options.json)


def pause(options: argparse.Namespace) -> int:
    """Skip the windows of schedules, each recorded as such, until they are resumed."""
    import getpass

    return _set_paused(options.name, "pause_schedule", "paused", by=f"cli ({getpass.getuser()})")


def resume(options: argparse.Namespace) -> int:
    """Make the windows of schedules again, from now on."""
    return _set_paused(options.name, "resume_schedule", "resumed")


def _set_paused(names: Iterable[str], statement: str, done: str, **params: str) -> int:
    settings, code = settings_with_database(), OK
    for name in names:
        if query(settings, statement, {"name": name, **params}):
            print(f"{name} {done}")
        else:
            text = f"no tick has seen a schedule {name!r}; the first tick after a deployment makes schedules known"
            code = complain(ConfigurationError(text), NOT_SO)
    return code


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


_LISTED = ("id", "type", "status", "priority", "attempt", "failures", "losses", "run_at", "finished_at", "key",
           "schedule", "window", "last_error", "waits_for", "lane")  # fmt: skip


def jobs_list(options: argparse.Namespace) -> int:
    """The latest jobs, filtered; dead and cancelled ones by when they ended, pending ones as they would run."""
    settings = settings_with_database(makes_one=False)
    filter = _filter(options)
    found = _find(settings, filter, options.limit, options.before)
    rows = [{name: row[name] for name in _LISTED} for row in _without_secrets(settings, found.jobs)]
    lines = rows if options.json else _briefly(rows, _now(settings))
    show(lines, as_json=options.json, empty="no jobs", whole=("id", "type", "status"))
    # That a page is full is no news in a pipe; that a look ended before the jobs did is.
    if found.next and (found.since or sys.stderr.isatty()):
        print(_how_to_go_on(found), file=sys.stderr)
    return OK


def _filter(options: argparse.Namespace, status: str | None = None) -> Filter:
    """What the options ask about; a kind of error, by fingerprint or its digest, is one of dead jobs of a type."""
    from .dashboard.filters import Filter, digest

    error = getattr(options, "error", None)
    if error is not None and options.type is None:
        raise ConfigurationError("--error is one of a type's: say --type too; `tick dead --json` shows both")
    if error is not None:
        status = "dead"
        error = error if re.fullmatch(r"[0-9a-f]{16}", error) else digest(error)
    status = options.status or status
    return Filter(status, options.type, options.key, options.schedule, options.search, error)


def _find(settings: Settings, filter: Filter, limit: int, before: int | None = None, farther: int = 1) -> Found:
    """The jobs that match, as far as one look goes."""
    from .dashboard.filters import Place, find

    place = _place_of(settings, filter, before, Place)
    desk: Any = _Reader(settings)
    found: Found = asyncio.run(find(desk, filter, place, limit, farther))
    return found


class _Reader:
    """Reads as a page of the dashboard does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def read(self, *questions: Statement) -> list[list[dict[str, Any]]]:
        async with database.connect(self._settings.database_url or "") as connection:
            return await database.read(connection, self._settings.schema, *questions)


def _place_of(settings: Settings, filter: Filter, before: int | None, place: Callable[..., Any]) -> Any:
    """The place after a job: jobs that have ended are in the order in which they did."""
    from .database import Statement

    if before is None:
        return place()
    if filter.status in ("pending", "running"):
        raise ConfigurationError(f"--before is for what has ended; for more {filter.status} jobs raise --limit")
    if filter.status not in ("dead", "cancelled"):
        return place(before)
    (jobs,) = read(settings, Statement("jobs_by_id", {"ids": [before]}, "dashboard"))
    if not jobs or not jobs[0]["finished_at"]:
        raise JobNotFound(before)
    return place(before, jobs[0]["finished_at"].isoformat())


def _how_to_go_on(found: Found) -> str:
    on = f"go on with --before {found.next.before}" if found.next and found.next.before else "raise --limit to see more"
    if found.since is None:
        return f"tick: there are more: {on}"
    return f"tick: these are those since {found.since:%Y-%m-%d %H:%M:%S} (utc); {on} to look further back"


def _without_secrets(settings: Settings, rows: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """The rows, their errors without what looks like a secret."""
    from .masking import known_secrets, mask_text

    known = known_secrets(settings)
    for row in rows:
        yield row | {"last_error": row["last_error"] and mask_text(row["last_error"], known)}


def _now(settings: Settings) -> datetime:
    """The time of the database's clock."""
    from . import facts

    ((depth,),) = read(settings, facts.depth())
    now: datetime = depth["now"]
    return now


def _briefly(rows: Iterable[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """A line for each job, without the columns that are empty in all of them."""
    lines = [_brief(row, now) for row in rows]
    told = {name for line in lines for name, value in line.items() if value is not None}
    return [{name: value for name, value in line.items() if name in told} for line in lines]


def _brief(row: dict[str, Any], now: datetime) -> dict[str, Any]:
    from .verdict import ago

    waits = row["waits_for"] or (f"limit: {row['lane']}" if row["lane"] else None)
    return {
        "id": row["id"],
        "type": row["type"],
        "status": row["status"],
        "attempts": _attempts(row),
        "when": ago((now - (row["finished_at"] or row["run_at"])).total_seconds()),
        "key": row["key"],
        "schedule": row["schedule"],
        "waits for": waits if row["status"] == "pending" else None,
        "last error": " ".join((row["last_error"] or "").split())[:70] or None,
    }


def _attempts(row: dict[str, Any]) -> str | None:
    """How many attempts there were, and how many of them failed or were lost."""
    if not row["attempt"]:
        return None
    bad = [f"{row[name]} {word}" for name, word in (("failures", "failed"), ("losses", "lost")) if row[name]]
    return ", ".join([str(row["attempt"]), *bad])


_ORDER = {
    name: place
    for place, name in enumerate(
        ("id", "type", "status", "payload", "result", "last_error", "schedule", "window", "key", "idempotency_key",
         "priority", "run_at", "attempt", "failures", "losses", "cuts", "max_attempts", "timeout", "created_at",
         "started_at", "finished_at")
    )
}  # fmt: skip
"""The columns of a job as a person looks for them; the others after."""
_SAYS_NOTHING = {"waits": 0, "awaited": False, "strict_key": False, "losses": 0, "cuts": 0, "priority": 0}
"""What most jobs have, and nobody asks about."""


def jobs_show(options: argparse.Namespace) -> int:
    """All there is to know of a job, its errors with their tracebacks; secrets are masked."""
    settings = settings_with_database(makes_one=False)
    rows = query(settings, "show_job", {"id": options.id})
    if not rows:
        raise JobNotFound(options.id)
    job = rows[0][0] if options.show_secrets else _masked(settings, rows[0][0])
    if options.json:
        print(json.dumps(job, indent=2))
        return OK
    errors = job.pop("errors")
    for name, value in sorted(job.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))):
        if value is not None and _SAYS_NOTHING.get(name) != value:
            said = value if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)
            print(f"{name:20} {_lines(str(said), indent=21)}")
    for error in errors:
        said = logs.one_line(str(error["error"]))
        print(f"\nattempt {error['attempt']}, {error['at']}: {said}\n{_lines(str(error['traceback']))}")
    return OK


def _lines(text: str, indent: int = 0) -> str:
    """A text whose lines hold nothing that a terminal would obey; those after the first are indented."""
    return f"\n{' ' * indent}".join(map(logs.one_line, text.split("\n")))


_TOLD = (
    "payload",
    "result",
    "last_error",
    "errors",
    "fingerprint",
    "progress",
    "inputs",
    "callback_url",
    "on_dead_url",
)
"""The columns of a job that hold what users and their handlers say."""


def _masked(settings: Settings, job: dict[str, Any]) -> dict[str, Any]:
    """The job without what looks like a secret."""
    from .masking import known_secrets, mask

    known = known_secrets(settings)
    masked = job | {name: mask(job[name], known) for name in _TOLD if name in job}
    # A fingerprint has lost its digits, and a secret in it can no longer be told.
    return masked if masked["last_error"] == job["last_error"] else masked | {"fingerprint": None}


def jobs_cancel(options: argparse.Namespace) -> int:
    """Cancel pending jobs, by their ids or all that match; a running one is told at its tick's next exchange."""
    return _change_jobs(options, Change("cancel", "cancelled", ("pending", "running"), "cancel_jobs"))


def jobs_replay(options: argparse.Namespace) -> int:
    """Make dead or cancelled jobs pending again, by their ids or all that match; their attempts are kept."""
    if options.payload is not None:
        return _replay_with(options)
    return _change_jobs(options, Change("replay", "replayed", ("dead", "cancelled"), "replay", "queue"))


def jobs_run_now(options: argparse.Namespace) -> int:
    """Make pending jobs due at once; what they wait for still goes before them."""
    return _change_each(options.id, Change("run_now", "due now", ("pending",), "run_jobs_now"))


class Change(NamedTuple):
    """What is done to jobs: its name, what they are then, which statuses allow it, and the statement that does it."""

    name: str
    done: str
    statuses: tuple[str, ...]
    statement: str
    file: str = "dashboard"


_FILTERS = ("status", "type", "key", "schedule", "search", "error")


def _change_jobs(options: argparse.Namespace, change: Change) -> int:
    has_filter = any(getattr(options, name, None) is not None for name in _FILTERS)
    if has_filter == bool(options.id):
        raise ConfigurationError(f"say which jobs to {change.name}: their ids, or a filter such as --type, not both")
    if options.id:
        return _change_each(options.id, change)
    if options.status and options.status not in change.statuses:
        raise ConfigurationError(f"only {' or '.join(change.statuses)} jobs can be {change.done}")
    settings = settings_with_database()
    filter = _filter(options, change.statuses[0])
    found = _find(settings, filter, MOST_CHANGED, farther=_FARTHER)
    return change_found(settings, found.jobs, change, options, more=found.next is not None)


_FARTHER = 5
"""How many times as far a change of all that match looks as a list does."""


def change_found(
    settings: Settings, jobs: Sequence[dict[str, Any]], change: Change, options: argparse.Namespace, *, more: bool
) -> int:
    """Change these jobs, after saying how many of what they are, when that is agreed to; `more` match beside them."""
    if not jobs:
        print(f"no jobs match: nothing to {change.name}")
        return OK
    print(f"{_by_type(jobs)}{'; and there are more' if more else ''}")
    if options.dry_run:
        return OK
    if not confirmed(f"{change.name.capitalize()} {len(jobs):,} job{'s' * (len(jobs) > 1)}?", yes=options.yes):
        return NOT_SO
    ids = sorted(job["id"] for job in jobs)
    changed = len(query(settings, change.statement, {"ids": ids}, change.file))
    late = len(ids) - changed
    print(f"{changed:,} {change.done}{f'; {late:,} had changed by then' if late else ''}")
    if more:
        print(f"tick: there are more: run it again to {change.name} the next", file=sys.stderr)
    return OK


def _by_type(jobs: Iterable[dict[str, Any]]) -> str:
    from collections import Counter

    counts = Counter((job["status"], job["type"]) for job in jobs)
    return "\n".join(f"{count:,} {status}: {type}" for (status, type), count in counts.most_common())


def _change_each(ids: Iterable[int], change: Change) -> int:
    settings = settings_with_database()
    code = OK
    for id in ids:
        rows = query(settings, change.statement, {"ids": [id]}, change.file)
        if rows:
            print(f"job {id} {'is told to stop' if rows[0][1:] == ('running',) else change.done}")
        else:
            code = complain(_refusal(settings, id, change), NOT_SO)
    return code


def _refusal(settings: Settings, id: int, change: Change) -> TickError:
    rows = query(settings, "job_status", {"id": id})
    done = "made due" if change.name == "run_now" else change.done
    return InvalidTransition(id, rows[0][0], done, " or ".join(change.statuses)) if rows else JobNotFound(id)


def _replay_with(options: argparse.Namespace) -> int:
    """Replay one job with another payload, if its handler takes it and nobody has changed the job meanwhile."""
    if len(options.id) != 1:
        raise ConfigurationError("--payload is for one job: say its id")
    settings, (id,) = settings_with_database(), options.id
    rows = query(settings, "payload", {"id": id}, "dashboard")
    if not rows:
        raise JobNotFound(id)
    _, type, status, _, _, digest, *_ = rows[0]
    if status not in ("dead", "cancelled"):
        raise InvalidTransition(id, status, "replayed", "dead or cancelled")
    registry = load_handlers(settings, platforms.budget(settings))
    new = registry.get(type).new_job(_payload(type, options.payload))
    changed = query(settings, "replay_with", {"id": id, "payload": new.payload.decode(), "digest": digest}, "dashboard")
    if not changed:
        return complain(ConfigurationError(f"somebody has changed job {id} meanwhile: look at it again"), NOT_SO)
    print(f"job {id} replayed with another payload")
    return OK


def _payload(type: str, text: str) -> dict[str, Any]:
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload(type, f"it is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise InvalidPayload(type, 'it is not a JSON object, such as {"user_id": 42}')
    return payload


def enqueue(options: argparse.Namespace) -> int:
    """Enqueue one job of a type that has a handler."""
    settings = settings_with_database()
    registry = load_handlers(settings, platforms.budget(settings))
    payload = _payload(options.type, options.payload)
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
        print(json.dumps({"id": id, "key": key} | made, default=plain))
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
