"""Commands for people who look after it: how things are, what is dead, what a change would do, what is old."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import select
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import alerts as alert_rules
from . import database, explain, facts, platforms, schedules_file, verdict
from .commands import (
    MOST_CHANGED,
    NOT_SO,
    OK,
    Change,
    ask,
    cells,
    change_found,
    complain,
    confirmed,
    load_handlers,
    plain,
    problems_told,
    read,
    settings_with_database,
    show,
)
from .config import GRACE, Settings
from .database import Statement
from .errors import ConfigurationError, DatabaseUnavailable
from .logs import one_line
from .schedules import Schedule
from .verdict import ago, count, duration, first_line, lasting, listed

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from rich.console import RenderableType

    from .retention import Policy, Pruned

Row = dict[str, Any]

TICKS = 5
STRIP = 60
HOUR = 3600
PAGE = 500
MOST_GROUPS = 100
RUNNING = 10
PIPE_WIDTH = 160
PRUNE_STEP = 1.0
"""Seconds after which a prune says how far it is."""
_COLOURS = {verdict.OK: "bold green", verdict.WARNING: "bold yellow", verdict.CRITICAL: "bold red"}


# tick status


class Picture(NamedTuple):
    """How things are: the verdict, and the rows from which it comes."""

    verdict: verdict.Verdict
    depth: Row
    pulse: Row
    ticks: list[Row]
    running: list[Row]
    groups: list[Row]


def questions(types: Iterable[str]) -> list[Statement]:
    """What a picture is made of, to be answered in one round trip."""
    return [
        *verdict.questions(types),
        facts.recent_ticks(STRIP),
        Statement("running", {"limit": RUNNING, "most": facts.MOST}, "dashboard_now"),
        facts.along_indexes(),
        facts.dead_groups(RUNNING),
    ]


def picture(answers: Sequence[list[Row]], *, knows_types: bool) -> Picture:
    """The picture that the answers give; where handlers could not be loaded, none is missed."""
    *judged, ticks, running, _, groups = answers
    if not knows_types:
        judged[6] = []
    return Picture(verdict.judge(*judged), judged[0][0], judged[1][0], ticks, running, groups)


def status(options: argparse.Namespace) -> int:
    """How things are, in words and in numbers; exit code 0 when nobody has to do anything."""
    settings = settings_with_database(makes_one=False)
    types, problem = _types(settings)
    try:
        answers = read(settings, *questions(types or []))
    except DatabaseUnavailable as error:
        if options.json:
            print(json.dumps({"state": "unreachable", "healthy": False, "headline": str(error)}, indent=2))
        raise
    seen = picture(answers, knows_types=types is not None)
    if problem:
        seen = seen._replace(verdict=_with_problem(seen.verdict, problem))
    if options.json:
        print(json.dumps(_as_json(seen), indent=2, default=plain))
    else:
        _print_status(seen)
    return OK if seen.verdict.healthy else NOT_SO


def _types(settings: Settings) -> tuple[list[str] | None, str | None]:
    """The types that have a handler here; None, and what is wrong, where the project's handlers cannot be loaded."""
    try:
        return load_handlers(settings, platforms.budget(settings)).types, None
    except Exception as error:  # noqa: BLE001 - a signature of the user's may raise anything, and how things are is still to be told
        return None, f"The handlers cannot be loaded: {error}"


def _with_problem(given: verdict.Verdict, problem: str) -> verdict.Verdict:
    """The verdict, with what is wrong with the project before everything else."""
    problem = " ".join(problem.split())
    return verdict.Verdict(verdict.CRITICAL, problem, (given.headline, *given.details))


def _as_json(seen: Picture) -> dict[str, Any]:
    pulse = {name: seen.pulse[name] for name in ("since", "last_tick", "gap")}
    return {**seen.verdict.as_dict(), "queue": seen.depth, "pulse": pulse, "ticks": seen.ticks[:TICKS]}


def _print_status(seen: Picture) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(one_line(seen.verdict.headline), _COLOURS[seen.verdict.state] if console.is_terminal else ""))
    for detail in seen.verdict.details:
        console.print(Text(f"- {one_line(detail)}"))
    console.print(Text(f"\n{_numbers(seen.depth)}\n"))
    show((_tick_line(row, seen.depth["now"]) for row in seen.ticks[:TICKS]), as_json=False, empty="no ticks")


def _numbers(depth: Row) -> str:
    """The queue in one line."""
    oldest = f", the oldest for {lasting(_age(depth['now'], depth['oldest_due']))}" if depth["oldest_due"] else ""
    soon = f", the next {ago(_age(depth['now'], depth['next_run']))}" if depth["next_run"] else ""
    parts = [f"{count(depth['due'])} due{oldest}", f"{count(depth['running'])} running"]
    parts += [f"{count(depth['later'])} later{soon}", f"{count(depth['dead'])} dead"]
    return " · ".join(parts)


def _age(now: datetime, then: datetime) -> float:
    return (now - then).total_seconds()


def _tick_line(row: Row, now: datetime) -> Row:
    return {
        "tick": ago(_age(now, row["started_at"])),
        "trigger": row["trigger"],
        "late": None if row["late"] is None else duration(row["late"]),
        "used": f"{row['used']:.1f} of {row['budget']:g} s" if row["finished_at"] else None,
        "did": _did(row, now),
    }


_COUNTS = ("materialised", "done", "retried", "dead", "released", "reclaimed", "stale", "left")


def _did(row: Row, now: datetime) -> str:
    if row["error"]:
        return f"failed: {first_line(row['error'], 80)}"
    if not row["finished_at"]:
        return "killed" if _is_killed(row, now) else f"running for {lasting(_age(now, row['started_at']))}"
    return ", ".join(f"{row[name]:,} {name}" for name in _COUNTS if row[name]) or "nothing to do"


def _is_killed(row: Row, now: datetime) -> bool:
    """Whether a tick has not ended though its time is over."""
    return not row["finished_at"] and _age(now, row["started_at"]) > row["budget"] + GRACE


# tick top


def top(options: argparse.Namespace) -> int:
    """How things are, again and again until q or Ctrl-C; in a pipe once."""
    settings = settings_with_database(makes_one=False)
    types, problem = _types(settings)
    if problem:
        print(f"tick: {problem}", file=sys.stderr)
    try:
        if sys.stdout.isatty():
            asyncio.run(_look_again(settings, types, options.interval))
        else:
            print(asyncio.run(_look_once(settings, types)))
    except KeyboardInterrupt:
        return OK
    return OK


async def _look_once(settings: Settings, types: list[str] | None) -> str:
    """One picture as text."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=PIPE_WIDTH, highlight=False)
    async with database.connect(settings.database_url or "") as connection:
        console.print(await _frame(connection, settings, types))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


async def _look_again(settings: Settings, types: list[str] | None, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    async with database.connect(settings.database_url or "") as connection:
        frame = await _frame(connection, settings, types)
        with _keys() as pressed, Live(frame, console=console, screen=True, auto_refresh=False) as live:
            while not await asyncio.to_thread(pressed, interval):
                live.update(await _frame(connection, settings, types), refresh=True)


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds, and says whether q was pressed; without a keyboard it only waits."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield _is_q_pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _is_q_pressed(seconds: float) -> bool:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0] and sys.stdin.read(1) in ("q", "Q", ""):
            return True
    return False


async def _frame(connection: AsyncConnection, settings: Settings, types: list[str] | None) -> RenderableType:
    """One picture, for a terminal."""
    answers = await database.read(connection, settings.schema, *questions(types or []))
    seen = picture(answers, knows_types=types is not None)
    seen = seen._replace(groups=_masked(settings, seen.groups))
    since = seen.depth["now"] - timedelta(seconds=HOUR)
    (busiest,) = await database.read(connection, settings.schema, facts.by_type(60, since, RUNNING))
    return drawn(seen, busiest)


def drawn(seen: Picture, busiest: Iterable[Row]) -> RenderableType:
    """The picture of `tick top`."""
    from rich.console import Group
    from rich.text import Text

    now = seen.depth["now"]
    return Group(
        Text(one_line(seen.verdict.headline), _COLOURS[seen.verdict.state]),
        *(Text(f"- {one_line(detail)}") for detail in seen.verdict.details),
        Text(f"\n{_numbers(seen.depth)}\n"),
        _strip(seen),
        _table("RUNNING", (_running_line(row, now) for row in seen.running), "nothing runs"),
        _table("LAST HOUR", map(_busy_line, busiest), "nothing has run"),
        _table("DEAD", (_group_line(row, now) for row in seen.groups), "nothing is dead"),
    )


_MARKS = (("error", "x", "red"), ("dead", "#", "red"), ("retried", "#", "yellow"), ("claimed", "#", "green"))


def _strip(seen: Picture) -> RenderableType:
    """The last ticks, the latest at the right: # ran jobs, . had nothing to do, > runs, x failed or was killed.

    A blank is a missing one.
    """
    from rich.text import Text

    strip = Text("ticks  ")
    interval = verdict.beat(seen.pulse["since"], None, seen.pulse["gap"]).interval
    for row in reversed(seen.ticks):
        if (row["gap"] or 0) > verdict.LATE_AFTER * interval:
            strip.append("  ")
        strip.append(*_mark(row, seen.depth["now"]))
    return strip


def _mark(row: Row, now: datetime) -> tuple[str, str]:
    if not row["finished_at"] and not row["error"]:
        return ("x", "red") if _is_killed(row, now) else (">", "cyan")
    return next(((mark, colour) for name, mark, colour in _MARKS if row[name]), (".", "dim"))


def _running_line(row: Row, now: datetime) -> Row:
    return {
        "job": row["id"],
        "type": row["type"],
        "for": lasting(_age(now, row["started_at"])),
        "attempt": row["attempt"],
        "progress": _progress(row["progress"]),
    }


def _progress(said: Mapping[str, Any] | None) -> str | None:
    if not said:
        return None
    of = f" of {said['total']:,}" if said.get("total") else ""
    return f"{said['done']:,}{of} {first_line(said.get('note') or '', 60)}".strip()


_RAN = ("done", "retried", "dead", "released")
"""How attempts end whose seconds are known."""


def _busy_line(row: Row) -> Row:
    return {name: row[name] for name in ("type", "done", "retried", "dead")} | {
        "mean": duration(row["run_seconds"] / max(1, sum(row[name] for name in _RAN)))
    }


def _table(title: str, lines: Iterable[Row], empty: str) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    rows = list(lines)
    if not rows:
        return Text(f"\n{title}\n{empty}", "dim")
    table = Table(
        *rows[0], title=f"\n{title}", title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0)
    )
    for row in rows:
        table.add_row(*map(Text, cells(row)))
    return table


# tick dead


def dead(options: argparse.Namespace) -> int:
    """Dead jobs by type and kind of error, the latest first."""
    settings = settings_with_database(makes_one=False)
    groups, depth = _groups(settings, options)
    if options.json:
        show(map(_group_json, groups), as_json=True)
        return OK
    lines = [_group_line(row, depth["now"]) for row in groups]
    whole = ("group", "type", "jobs")
    show(lines, as_json=False, empty="nothing is dead", title=f"{count(depth['dead'], 'job')} dead", whole=whole)
    if len(groups) == MOST_GROUPS:
        print(f"tick: these are {MOST_GROUPS} groups, and there may be more: see --type", file=sys.stderr)
    return OK


def _groups(settings: Settings, options: argparse.Namespace) -> tuple[list[Row], Row]:
    asked = (facts.depth(), facts.along_indexes(), facts.dead_groups(MOST_GROUPS, most=MOST_CHANGED))
    (depth,), _, groups = read(settings, *asked)
    return [row for row in _masked(settings, groups) if _is_meant(row, options)], depth


def _masked(settings: Settings, groups: Iterable[Row]) -> list[Row]:
    """The groups, their errors without what looks like a secret."""
    from .masking import known_secrets, mask_text

    known = known_secrets(settings)
    told = [(row, mask_text(row["last_error"] or "", known)) for row in groups]
    return [row | {"last_error": error, "is_clean": error == (row["last_error"] or "")} for row, error in told]


def _is_meant(row: Row, options: argparse.Namespace) -> bool:
    wanted = getattr(options, "group", None)
    text = (getattr(options, "error", None) or "").lower()
    is_of_type = options.type is None or row["type"] == options.type
    return is_of_type and (wanted is None or group_id(row) == wanted) and text in row["last_error"].lower()


def group_id(row: Mapping[str, Any]) -> str:
    """What a group of dead jobs is called: the same as long as its type and kind of error are."""
    return hashlib.sha256(f"{row['type']}\0{row['fingerprint']}".encode()).hexdigest()[:6]


def _group_json(row: Row) -> Row:
    """A group for a script: `group` and `error` are what replays it.

    Where its error tells a secret its fingerprint is left out: without its digits a secret can no longer be told.
    """
    from .dashboard.filters import digest
    from .masking import mask_text

    fingerprint = row["fingerprint"] or ""
    told = {name: value for name, value in row.items() if name != "is_clean"}
    shown = mask_text(fingerprint) if row["is_clean"] else None
    return {"group": group_id(row), **told, "fingerprint": shown, "error": digest(fingerprint)}


def _group_line(row: Row, now: datetime) -> Row:
    return {
        "group": group_id(row),
        "type": row["type"],
        "jobs": count(row["count"], most=MOST_CHANGED),
        "first": ago(_age(now, row["first_at"])),
        "last": ago(_age(now, row["last_at"])),
        "error": first_line(row["last_error"] or "", 70),
    }


REPLAY = Change("replay", "replayed", ("dead",), "replay", "queue")


def dead_replay(options: argparse.Namespace) -> int:
    """Make dead jobs pending again: all of them, or those of a type, an error or a group."""
    settings = settings_with_database(makes_one=False)
    groups, _ = _groups(settings, options)
    if options.group and not groups:
        return complain(ConfigurationError(f"there is no group {options.group} of dead jobs: see `tick dead`"), NOT_SO)
    jobs, more = _jobs_of(settings, groups)
    return change_found(settings, jobs, REPLAY, options, more=more or len(groups) == MOST_GROUPS)


def _jobs_of(settings: Settings, groups: Iterable[Row]) -> tuple[list[Row], bool]:
    """The jobs of these groups, as many as one command changes; whether there are more."""
    jobs: list[Row] = []
    for group in groups:
        room = MOST_CHANGED - len(jobs)
        params = {"type": group["type"], "fingerprint": group["fingerprint"], "limit": room + 1}
        (found,) = read(settings, Statement("group_to_replay", params, "dashboard_now"))
        jobs += [{**row, "status": "dead"} for row in found[:room]]
        if len(found) > room:
            return jobs, True
    return jobs, False


# tick schedules --status, tick schedules explain


def schedules_status(options: argparse.Namespace) -> int:
    """The schedules of the file that last ticked, with how their last windows ended and when the next is."""
    from .cron_words import describe

    settings = settings_with_database(makes_one=False)
    rows = _deployed(settings)
    named = [{"schedule": row["schedule"], "type": row["body"]["type"]} for row in rows]
    outcomes, (depth,) = read(settings, facts.outcomes(named, each=1), facts.depth())
    last = {row["schedule"]: row for row in outcomes}
    lines = [
        {"schedule": row["schedule"], "when": describe(Schedule.from_body(row["schedule"], row["body"]))}
        | _state(row, last.get(row["schedule"]), depth["now"], as_json=options.json)
        for row in rows
    ]
    show(lines, as_json=options.json, empty="no tick has seen a schedule")
    return OK


def _deployed(settings: Settings) -> list[Row]:
    """Every schedule of the file that last ticked."""
    rows: list[Row] = []
    while True:
        (page,) = read(settings, facts.schedules(after=rows[-1]["schedule"] if rows else None, limit=PAGE))
        rows += page
        if len(page) < PAGE:
            return rows


def _state(row: Row, last: Row | None, now: datetime, *, as_json: bool) -> Row:
    is_on = row["body"].get("enabled", True)
    state = "disabled" if not is_on else "paused" if row["paused"] else "on"
    upcoming = row["next_window"] if state == "on" else None
    if as_json:
        outcome = last and {name: last[name] for name in ("id", "status", "window", "last_error")}
        return {"state": state, "next_window": upcoming, "last": outcome, "paused_by": row["paused_by"]}
    ended = last and f"{last['status']} (job {last['id']}), {ago(_age(now, last['window']))}"
    return {"state": state, "last": ended, "next": upcoming and ago(_age(now, upcoming))}


def schedules_explain(options: argparse.Namespace) -> int:
    """Why a schedule did, or did not, run at an instant."""
    settings = settings_with_database(makes_one=False)

    async def asking(connection: AsyncConnection) -> explain.Explanation:
        async def reading(*questions: Statement) -> list[list[Row]]:
            return await database.read(connection, settings.schema, *questions)

        return await explain.explain(reading, options.name, options.at)

    why: explain.Explanation = ask(settings, asking)
    if options.json:
        print(json.dumps(why.as_dict(), indent=2))
        return OK
    print("\n".join(map(one_line, [why.headline, *why.details])))
    return OK


# tick plan


class Plan(NamedTuple):
    """What a file would change, by the names of schedules."""

    added: list[Row]
    changed: list[Row]
    removed: list[Row]
    unchanged: int
    others: list[Row]
    """Limits, alerts and retention."""
    problems: list[str]
    warnings: list[str]


def plan(options: argparse.Namespace) -> int:
    """What the schedules file would change in the database, before it is deployed; exit code 1 when it cannot be."""
    settings = settings_with_database(makes_one=False)
    if options.file:
        settings = replace(settings, schedules_path=Path(options.file).absolute(), schedules_named=True)
    made = _planned(settings)
    if options.json:
        print(json.dumps(made._asdict(), indent=2, default=plain))
    else:
        _print_plan(made, settings.schedules_path.name)
    return NOT_SO if made.problems else OK


def _planned(settings: Settings) -> Plan:
    from . import materialise, schedules

    if not settings.schedules_path.exists() and settings.schedules_named:
        raise ConfigurationError(f"{settings.schedules_path}: there is no such file")
    contents = schedules_file.read_project(settings)
    budget = platforms.budget(settings)
    registry = load_handlers(settings, budget)
    problems = materialise.check(contents.schedules, registry, budget)
    rows = _deployed(settings)
    before = {row["schedule"]: Schedule.from_body(row["schedule"], row["body"]) for row in rows}
    after = {schedule.name: schedule for schedule in contents.schedules}
    changed = [_changed(before[name], after[name]) for name in after if name in before and before[name] != after[name]]
    (depth,), live, limits, chores = read(settings, facts.depth(), *_also(sorted(before.keys() - after.keys())))
    told = None if problems else materialise.configuration(settings, registry, budget)
    now = depth["now"]
    return Plan(
        [_fires(after[name], now) for name in after if name not in before],
        [row | (_fires(after[row["schedule"]], now) if row["starts_anew"] else {}) for row in changed],
        [{"schedule": row["schedule"], "pending": row["count"]} for row in live],
        len(after.keys() & before.keys()) - len(changed),
        [*_changes("limits", _by(limits, "lane"), _by(told.limits, "lane")), *_changed_chores(chores, told.chores)]
        if told
        else [],
        problems,
        schedules.warnings(contents.schedules, now=now),
    )


def _also(removed: Sequence[str]) -> list[Statement]:
    of_removed = {"schedules": list(removed), "most": facts.MOST}
    return [Statement("pending_of_schedules", of_removed), Statement("limits", {}), Statement("chores", {})]


def _changed(before: Schedule, after: Schedule) -> Row:
    """What of a schedule has changed, and whether that makes it a new definition."""
    anew = before.timing_hash() != after.timing_hash()
    return {"schedule": after.name, "starts_anew": anew, "keys": _differing(before.body(), after.body())}


def _fires(schedule: Schedule, now: datetime) -> Row:
    """When it fires, in words, and its next three windows."""
    from .cron_words import describe
    from .schedules import due

    at, windows = now, list[datetime]()
    while len(windows) < 3 and (window := due(schedule, at, at).next_window) and schedule.enabled:
        windows.append(window)
        at = window
    zone = schedule.timezone
    when = describe(schedule) if schedule.enabled else f"disabled ({describe(schedule)})"
    return {
        "schedule": schedule.name,
        "when": when,
        "next": windows,
        "next_local": [explain.shown(w, zone) for w in windows],
    }


def _by(rows: Iterable[Mapping[str, Any]], name: str) -> dict[str, Row]:
    told = ({key: value for key, value in row.items() if value is not None and key != "from_file"} for row in rows)
    return {row[name]: row for row in told}


def _changes(what: str, before: Mapping[str, Row], after: Mapping[str, Row]) -> list[Row]:
    """What is added, removed or changed among named things."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [
        {"what": what, "name": name, "keys": _differing(before.get(name, {}), after.get(name, {}))} for name in names
    ]


def _differing(old: Row, new: Row) -> Row:
    names = [*new, *(name for name in old if name not in new)]
    return {name: {"from": old.get(name), "to": new.get(name)} for name in names if old.get(name) != new.get(name)}


def _changed_chores(chores: Iterable[Row], told: Iterable[Mapping[str, Any]]) -> list[Row]:
    """What is said of alerts and of retention; where it was read from changes nothing."""
    words = {"prune": "retention", "watch": "alerts"}
    before = {words[row["name"]]: _without(row["settings"]) for row in chores if row["name"] in words}
    after = {words[row["name"]]: _without(row["settings"]) for row in told if row["name"] in words}
    if "retention" not in before:
        # Somebody has switched pruning off, and a deployment leaves that as it is.
        del after["retention"]
    return _changes("settings", before, json.loads(json.dumps(after, default=str)))


def _without(settings: Mapping[str, Any]) -> Row:
    return {name: value for name, value in settings.items() if name != "from_file"}


def _print_plan(made: Plan, name: str) -> None:
    for row in made.added:
        print(f"+ {row['schedule']}: {row['when']}{_first_of(row)}")
    for row in made.changed:
        effect = "it starts anew from the first tick that sees it" if row["starts_anew"] else "from the next window on"
        print(f"~ {row['schedule']}: {_keys_of(row)}: {effect}{_first_of(row)}")
    for row in made.removed:
        live = f"; {count(row['pending'], 'job')} of it will still run" if row["pending"] else ""
        print(f"- {row['schedule']}: no more windows{live}")
    for row in made.others:
        print(f"~ {row['what']} {row['name']}: {_keys_of(row)}")
    for text in [*(f"warning: {each}" for each in made.warnings), *made.problems]:
        print(f"{name}: {text}", file=sys.stderr)
    numbers = f"{len(made.added)} added, {len(made.changed)} changed, {len(made.removed)} removed"
    print(f"{name}: {numbers}, {made.unchanged} unchanged, {problems_told(len(made.problems))}")


def _first_of(row: Row) -> str:
    return f"; next {row['next_local'][0]}" if row.get("next_local") else ""


def _keys_of(row: Row) -> str:
    return ", ".join(f"{key} {_shown(each['from'])} -> {_shown(each['to'])}" for key, each in row["keys"].items())


def _shown(value: Any) -> str:
    return "none" if value is None else first_line(json.dumps(value, ensure_ascii=False, default=str), 100)


# tick prune


def prune(options: argparse.Namespace) -> int:
    """Delete jobs that have ended long enough ago, and old ticks, now and not bit by bit in ticks."""
    settings = settings_with_database(makes_one=False)
    policy = _policy(settings, options)
    if options.dry_run or not options.yes:
        would = _pruned(settings, policy, dry_run=True)
        if options.dry_run:
            return _tell_pruned(would, options, "would be deleted")
        if not confirmed(
            f"Delete {would.jobs:,} jobs and old ticks? What waits for a dead one is cancelled.", yes=False
        ):
            return NOT_SO
    return _tell_pruned(_pruned(settings, policy, dry_run=False), options, "deleted")


def _policy(settings: Settings, options: argparse.Namespace) -> Policy:
    """What ticks keep, with what the options say otherwise."""
    from .options import seconds
    from .retention import Policy

    (chores,) = read(settings, Statement("chores", {}))
    policy = Policy.of(next((row["settings"] for row in chores if row["name"] == "prune"), {}))
    given = {name: seconds(text) for name in ("done", "dead") if (text := getattr(options, name)) is not None}
    # Jobs that were cancelled are kept like those that are done, unless the file says how long.
    if "done" in given:
        given["cancelled"] = given["done"]
    return Policy.of(asdict(policy) | given | ({"count": options.count} if options.count else {}))


def _pruned(settings: Settings, policy: Policy, *, dry_run: bool) -> Pruned:
    from .queue import Queue
    from .retention import Pruned, prune_for

    async def pruning(connection: AsyncConnection) -> Pruned:
        queue, pruned = Queue(connection, lambda: database.open_connection(""), settings.schema), Pruned()
        while not pruned.complete:
            await prune_for(queue, policy, pruned, PRUNE_STEP, dry_run=dry_run)
            if sys.stderr.isatty():
                print(f"\r{pruned.looked_at:,} looked at, {pruned.jobs:,} old", end="", file=sys.stderr, flush=True)
        return pruned

    found: Pruned = ask(settings, pruning)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return found


def _tell_pruned(pruned: Pruned, options: argparse.Namespace, done: str) -> int:
    if options.json:
        print(
            json.dumps(
                {"looked_at": pruned.looked_at, "jobs": pruned.jobs, "ticks": pruned.ticks, "dry_run": options.dry_run}
            )
        )
    else:
        ticks = "" if options.dry_run else f" and {pruned.ticks:,} ticks"
        print(f"{pruned.jobs:,} jobs{ticks} {done}, of {pruned.looked_at:,} jobs looked at")
    return OK


# tick alerts


def alerts(options: argparse.Namespace) -> int:
    """The alerts that last, and the latest that are over; or, with --test, a message to everybody who would be told."""
    settings = settings_with_database(makes_one=False)
    if options.test:
        return _test_alerts(settings, options)
    rows, (depth,) = read(settings, facts.alerts(), facts.depth())
    lines = rows if options.json else [_alert_line(row, depth["now"]) for row in rows]
    show(lines, as_json=options.json, empty="no alerts")
    return OK


def _alert_line(row: Row, now: datetime) -> Row:
    return {
        "alert": row["rule"],
        "of": row["subject"] or None,
        "since": ago(_age(now, row["since"])),
        "over": row["ended_at"] and ago(_age(now, row["ended_at"])),
        "count": row["count"],
        "told": row["told_at"] and ago(_age(now, row["told_at"])),
    }


def _test_alerts(settings: Settings, options: argparse.Namespace) -> int:
    from .alert_job import test_message
    from .intake import enqueue_many

    news = test_message(settings)
    for variable in _not_set(settings):
        print(f"tick: {variable} is not set here; where ticks run it has to be", file=sys.stderr)
    ids: list[int] = ask(settings, lambda connection: enqueue_many(connection, news, settings.schema))
    if options.json:
        print(json.dumps({"ids": [int(id) for id in ids]}))
    else:
        print(f"the next tick tells everybody: {listed(f'job {id}' for id in ids)}")
        print("`tick jobs list --type tick.alert` shows what became of that")
    return OK


def _not_set(settings: Settings) -> list[str]:
    """The variables that the messages need, and that this process does not have."""
    targets = alert_rules.targets(schedules_file.read_project(settings).alerts)
    secrets = (to.removeprefix("secret:") for _, to in targets if to.startswith("secret:"))
    missing = [f"TICK_SECRET_{name.upper()}" for name in secrets if name not in settings.named_secrets]
    mail = {"TICK_SMTP_URL": settings.smtp_url, "TICK_MAIL_FROM": settings.mail_from}
    mailed = any(channel == "email" for channel, _ in targets)
    return [*missing, *(name for name, value in mail.items() if mailed and not value)]
