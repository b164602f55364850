"""From a schedules file to windows: what to tell the database of each schedule that is due."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .config import Settings
from .errors import ConfigurationError, UnknownJobType
from .handlers import Registry
from .limits import Limit
from .queue import Configuration, DueEntry, Plans

# What schedules are read and evaluated with is imported where one is: most ticks have none that is due.
if TYPE_CHECKING:
    from .schedules import Due, Schedule
    from .schedules_file import Contents

MOST_WINDOWS = 5000
"""Windows after which no other entry is evaluated for the same exchange; it may hold one entry's more."""


def fingerprint(settings: Settings, registry: Registry) -> str | None:
    """The content hash under which a project is synchronised; None when it has nothing to tell the database.

    The types, their limits and their defaults take part, so that a deployment that changes its handlers checks its
    schedules again; and what pyproject.toml says of alerts and retention.
    """
    path, house = settings.schedules_path, [dict(settings.alerts), dict(settings.retention)]
    if not path.exists() and not (registry.limits or registry.defaults or any(house)):
        return None
    from hashlib import sha256

    said = [registry.types, [limit.row(from_file=False) for limit in registry.limits], registry.defaults, house]
    content = path.read_bytes() if path.exists() else b""
    return sha256(content + json.dumps(said, default=str).encode()).hexdigest()[:32]


def configuration(settings: Settings, registry: Registry, budget: float) -> Configuration:
    """What the project's file, its settings and its handlers say. Raises ConfigurationError for what cannot be run."""
    from .schedules_file import read_project

    path, contents = settings.schedules_path, read_project(settings)
    problems = check(contents.schedules, registry, budget)
    if problems:
        raise ConfigurationError("\n  ".join([f"{path.name}: schedules that cannot run:", *problems]))
    return Configuration(
        fingerprint(settings, registry),
        registry.types,
        path.exists(),
        [{"schedule": s.name, "definition": s.timing_hash(), "body": s.body()} for s in contents.schedules],
        merged(registry.limits, contents.limits),
        registry.defaults,
        _chores(contents, settings),
    )


def _chores(contents: Contents, settings: Settings) -> list[dict[str, Any]]:
    """The chores that the project wants, as rows: to prune always, to watch when there is somebody to tell."""
    kept = {name: each.total_seconds() if name != "count" else each for name, each in contents.retention.items()}
    rows = [{"name": "prune", "settings": kept, "from_file": kept.keys() != settings.retention.keys()}]
    if contents.alerts:
        from .alerts import chore_settings

        told = {"name": "watch", "settings": chore_settings(contents.alerts)}
        rows.append(told | {"from_file": contents.alerts.keys() != settings.alerts.keys()})
    return rows


def merged(handlers: Iterable[Limit], file: Iterable[Limit]) -> list[dict[str, Any]]:
    """The limits as rows: what the file says of a lane goes before what a handler says."""
    rows = [*(limit.row(from_file=False) for limit in handlers), *(limit.row(from_file=True) for limit in file)]
    return list({row["lane"]: row for row in rows}.values())


def check(loaded: Iterable[Schedule], registry: Registry, budget: float) -> list[str]:
    """One line for each schedule without a handler, with a payload that does not fit it, or too long a time-out."""
    problems = []
    for schedule in loaded:
        try:
            registry.get(schedule.type).new_job(schedule.payload)
        except UnknownJobType as error:
            problems.append(f"schedules.{schedule.name}.type: {error}")
        except Exception as error:  # noqa: BLE001 - InvalidPayload, or what a user's type raises when built
            problems.append(f"schedules.{schedule.name}.payload: {error}")
        if schedule.timeout is not None and schedule.timeout.total_seconds() > budget - 1:
            problems.append(
                f"schedules.{schedule.name}.timeout: {schedule.timeout.total_seconds():g} s can never fit "
                f"the budget of {budget:g} s"
            )
    return problems


def plan(file: str, due: Iterable[DueEntry], now: datetime) -> Plans:
    """Evaluate entries that are due: the windows to make, those to skip and why, and when to look again.

    It ends after five thousand windows: a long outage of many schedules is made good exchange by exchange.
    """
    from . import schedules

    plans = Plans(file)
    for entry in due:
        if len(plans.windows) >= MOST_WINDOWS:
            break
        schedule = schedules.Schedule.from_body(entry.schedule, entry.body)
        _add(plans, entry, schedule, schedules.due(schedule, entry.cursor, now, paused=entry.paused))
    return plans


def _add(plans: Plans, entry: DueEntry, schedule: Schedule, due: Due) -> None:
    plans.plans.append({
        "schedule": entry.schedule,
        "definition": entry.definition,
        "cursor": entry.cursor,
        "until": due.until,
        "next_window": due.next_window,
    })  # fmt: skip
    # One window at a time, so of several that are due only the latest; the database looks whether one is live.
    overlapping = due.windows[:-1] if schedule.overlap == "skip" else ()
    plans.windows += [_window(schedule, window) for window in due.windows[len(overlapping) :]]
    plans.skips += [_skip(entry.schedule, skip.first, skip.last, skip.count, skip.reason) for skip in due.skips]
    if overlapping:
        first, last = overlapping[0], overlapping[-1]
        plans.skips.append(_skip(entry.schedule, first, last, len(overlapping), "overlap"))


def _window(schedule: Schedule, window: datetime) -> dict[str, Any]:
    from .schedules import spread_offset

    return {
        "schedule": schedule.name,
        "type": schedule.type,
        "window": window,
        "run_at": window + spread_offset(schedule),
        "payload": schedule.payload,
        "priority": schedule.priority,
        "key": schedule.key,
        "max_attempts": schedule.max_attempts,
        "timeout": schedule.timeout and schedule.timeout.total_seconds(),
        "callback_url": schedule.callback_url,
        "on_dead_url": schedule.on_dead_url,
        "skip_overlap": schedule.overlap == "skip",
    }


def _skip(schedule: str, first: datetime, last: datetime, count: int | None, reason: str) -> dict[str, Any]:
    return {
        "schedule": schedule,
        "first_window": first,
        "last_window": last,
        "count": count,
        "reason": reason,
    }
