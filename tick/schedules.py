"""A schedule, and the windows of it that are due. Plain values: the clock and the cursor are passed in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from .cron import EPOCH, Cron, zone

LATE_AFTER = timedelta(minutes=10)
"""`catch_up = "none"` still makes a window that is no older: no tick is quite on time."""
MOST_COUNTED = 10_000
"""Skipped windows are counted up to here; a longer row of them is recorded without its count."""

_TINY = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_YEAR = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Schedule:
    """An entry of schedules.toml. Its instants are UTC."""

    name: str
    type: str
    cron: str | None = None
    every: timedelta | None = None
    timezone: str = "UTC"
    payload: dict[str, Any] = field(default_factory=dict)
    catch_up: str = "latest"
    max_catch_up: int = 1000
    overlap: str = "allow"
    spread: timedelta | None = None
    enabled: bool = True
    starts: datetime | None = None
    ends: datetime | None = None
    max_attempts: int | None = None
    timeout: timedelta | None = None
    priority: int = 0
    key: str | None = None
    callback_url: str | None = None
    on_dead_url: str | None = None
    description: str = ""

    def body(self) -> dict[str, Any]:
        """All but the name, as JSON can hold it: durations in seconds, instants as ISO 8601."""
        return {name: _plain(getattr(self, name)) for name in _MEMBERS}

    @classmethod
    def from_body(cls, name: str, body: Mapping[str, Any]) -> Schedule:
        """The schedule whose `body` this is, without keys that only another version knows."""
        values = {name: body[name] for name in _MEMBERS if name in body}
        for each in ("every", "spread", "timeout"):
            if values.get(each) is not None:
                values[each] = timedelta(seconds=values[each])
        for each in ("starts", "ends"):
            if values.get(each) is not None:
                values[each] = datetime.fromisoformat(values[each])
        return cls(name, **values)

    def timing_hash(self) -> str:
        """A hash of when it fires and what it is: an edit of anything else is no new definition."""
        timing = (self.cron, self.every, self.timezone, self.type, self.starts, self.ends)
        return sha256(json.dumps([_plain(value) for value in timing]).encode()).hexdigest()[:32]


_MEMBERS = tuple(each.name for each in fields(Schedule) if each.name != "name")


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return int(value.total_seconds())
    return value.isoformat() if isinstance(value, datetime) else value


# --- Windows -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Skip:
    """Windows that are not made, and why: late, cap, paused or disabled."""

    first: datetime
    last: datetime
    count: int | None
    """None if there are more than MOST_COUNTED, which are not counted."""
    reason: str


@dataclass(frozen=True, slots=True)
class Due:
    """What a schedule has to show for the time since its cursor."""

    windows: tuple[datetime, ...]
    skips: tuple[Skip, ...]
    until: datetime
    """The last window that was due, made or skipped: the new cursor. The old one if none was."""
    next_window: datetime | None
    """The first window after now; None if there is nothing to come."""


def due(schedule: Schedule, after: datetime, now: datetime, *, paused: bool = False) -> Due:
    """The windows in (after, now], as the schedule's catch_up wants them."""
    reason = "disabled" if not schedule.enabled else "paused" if paused else ""
    most = 0 if reason else schedule.max_catch_up if schedule.catch_up == "all" else 1
    found = _last(schedule, after, now, most + MOST_COUNTED + 1)
    made = found[max(0, len(found) - most) :]
    if schedule.catch_up == "none" and made and now - made[-1] > LATE_AFTER:
        made = []
    older = found[: len(found) - len(made)]
    reason = reason or ("cap" if schedule.catch_up == "all" else "late")
    return Due(
        windows=tuple(made),
        skips=(_skip(schedule, after, older, reason),) if older else (),
        until=found[-1] if found else after,
        next_window=_next(schedule, max(after, now)),
    )


def _skip(schedule: Schedule, after: datetime, windows: list[datetime], reason: str) -> Skip:
    if len(windows) <= MOST_COUNTED:
        return Skip(windows[0], windows[-1], len(windows), reason)
    return Skip(_next(schedule, after) or windows[0], windows[-1], None, reason)


def _last(schedule: Schedule, after: datetime, until: datetime, limit: int) -> list[datetime]:
    """The latest windows in (after, until], from `starts` on and before `ends`."""
    if schedule.starts:
        after = max(after, schedule.starts - _TINY)
    if schedule.ends:
        until = min(until, schedule.ends - _TINY)
    if schedule.cron:
        return Cron.parse(schedule.cron).last(zone(schedule.timezone), after, until, limit)
    return _last_multiples(schedule, after, until, limit) if schedule.every else []


def _last_multiples(schedule: Schedule, after: datetime, until: datetime, limit: int) -> list[datetime]:
    origin, period = schedule.starts or EPOCH, schedule.every or _DAY
    newest = (until - origin) // period
    oldest = max((after - origin) // period + 1, newest - limit + 1)
    return [origin + number * period for number in range(oldest, newest + 1)]


def _next(schedule: Schedule, after: datetime) -> datetime | None:
    if schedule.starts:
        after = max(after, schedule.starts - _TINY)
    window = None
    if schedule.cron:
        window = Cron.parse(schedule.cron).next(zone(schedule.timezone), after)
    elif schedule.every:
        origin = schedule.starts or EPOCH
        window = origin + ((after - origin) // schedule.every + 1) * schedule.every
    return window if window and (not schedule.ends or window < schedule.ends) else None


def spread_offset(schedule: Schedule) -> timedelta:
    """How much later than its windows a schedule's jobs run: seconds, the same ones for a name."""
    if not schedule.spread:
        return timedelta()
    number = int.from_bytes(sha256(schedule.name.encode()).digest()[:8], "big")
    return timedelta(seconds=number % int(schedule.spread.total_seconds()))


def warnings(schedules: Iterable[Schedule], *, now: datetime | None = None) -> list[str]:
    """What a file says and may not mean; with `now`, also what a coming change of clocks moves."""
    return [
        f"{schedule.name}: {warning}"
        for schedule in schedules
        if schedule.cron
        for warning in (*Cron.parse(schedule.cron).warnings, *_moved(schedule, now))
    ]


def _moved(schedule: Schedule, now: datetime | None) -> list[str]:
    if not schedule.cron or not now:
        return []
    where = zone(schedule.timezone)
    return [
        f"`{schedule.cron}` names a local time that {schedule.timezone} skips on {local:%Y-%m-%d}:"
        f" that day it fires at {local:%H:%M}"
        for window in Cron.parse(schedule.cron).moved(where, now, now + _YEAR)
        for local in [window.astimezone(where)]
    ]
