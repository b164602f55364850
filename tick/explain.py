"""Why a schedule did, or did not, run at an instant: in words, from its rule and from what the database has kept."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from .cron import HORIZON, Cron, zone
from .database import Statement
from .errors import ConfigurationError
from .schedules import LATE_AFTER, Schedule, due, spread_offset
from .verdict import ago, duration, first_line, lasting, times

Row = Mapping[str, Any]
Read = Callable[..., Awaitable[list[list[dict[str, Any]]]]]
"""Asks statements: their rows. `database.read` with its connection and schema."""

LATE = timedelta(seconds=90)
"""A window is made late when that is more after it than two ticks of a minute may take."""
_ON_TIME = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_TINY = timedelta(microseconds=1)
_LOOKS = (timedelta(hours=2), timedelta(days=40), HORIZON)
"""How far back the window before is looked for: it is near, as a rule."""


class Explanation(NamedTuple):
    """What became of a schedule's window at an instant; all instants are UTC."""

    outcome: str
    """ran, cancelled, waits, skipped, to come, no window, not seen, removed, no tick, forgotten."""
    headline: str
    details: tuple[str, ...]
    schedule: str
    at: datetime
    """The instant that was asked for."""
    window: datetime | None
    """The window that it was taken for, if there is one."""
    before: datetime | None
    after: datetime | None
    """The windows around it."""
    job: int | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        values = {**self._asdict(), "details": list(self.details)}
        return {name: iso(value) if isinstance(value, datetime) else value for name, value in values.items()}


class Asked(NamedTuple):
    """An instant as it was asked for, and what the clocks of the zone do with its local time: nothing, gap or twice."""

    instant: datetime
    local: datetime
    """What a clock in the zone shows, or would: without a zone."""
    night: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """All that there is to know of one window, or of an instant that is none."""

    schedule: Schedule
    known: Row
    """What the database knows of the schedule's definition."""
    asked: Asked
    window: datetime | None
    jobs: Sequence[Row] = ()
    skips: Sequence[Row] = ()
    ticks: Mapping[str, Row] | None = None

    @property
    def now(self) -> datetime:
        now: datetime = self.known["now"]
        return now

    def shown(self, instant: datetime) -> str:
        """An instant in the schedule's zone, and in UTC."""
        return shown(instant, self.schedule.timezone)


async def explain(read: Read, name: str, at: str | datetime) -> Explanation:
    """What became of a schedule's window at an instant; `at` is read by `asked`.

    Raises ConfigurationError for an instant that is none, and for a schedule that no tick has seen.
    """
    known, names = await read(_ask("known", schedule=name), _ask("names"))
    if not known or known[0]["body"] is None:
        raise ConfigurationError(_never_seen(name, bool(known), [row["name"] for row in names]))
    meanings = [_case(row, at) for row in _meanings(known)]
    case = meanings[0]
    windows = {each.window or each.asked.instant for each in meanings}
    jobs, skips, ticks = await read(
        _ask("made", schedule=name, windows=sorted(windows), types=sorted({each.schedule.type for each in meanings})),
        _ask("skipped", schedule=name, window=case.window or case.asked.instant),
        _ask("around", at=case.window or case.asked.instant),
    )
    case = replace(case, jobs=jobs, skips=skips, ticks={row["side"]: row for row in ticks})
    return _told(case, _answer(case, meanings[1:]))


def _ask(name: str, **params: Any) -> Statement:
    return Statement(name, params, "explain")


def _never_seen(name: str, remembered: bool, names: Sequence[str]) -> str:
    if remembered:
        return f"the schedule {name!r} is in no file that has ticked for a month: nothing is known of its windows"
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else "the first tick after a deployment makes new ones known"
    return f"there is no schedule {name!r}; {hint}"


def _meanings(known: Sequence[Row]) -> list[Row]:
    """What the name means, or last meant, and what else it has meant: each definition once."""
    seen: dict[datetime, Row] = {}
    for row in known:
        seen.setdefault(row["first_seen"], row)
    return list(seen.values())


def _case(row: Row, at: str | datetime) -> Case:
    schedule = Schedule.from_body(row["name"], row["body"])
    when = asked(at, schedule.timezone, row["now"])
    return Case(schedule, row, when, _window(schedule, when))


# The instant


def asked(at: str | datetime, timezone: str, now: datetime) -> Asked:
    """The instant of a text: ISO 8601, local to the zone without an offset; or HH:MM, the last time it was that.

    HH:MMZ is a time of day in UTC.

    Raises ConfigurationError, with what to write.
    """
    where = zone(timezone)
    if isinstance(at, str) and (of_day := re.fullmatch(r"(\d{1,2}:\d\d)([Zz]?)", at.strip(), re.ASCII)):
        last = _last_time(of_day[1], zone("UTC") if of_day[2] else where, now)
        return _asked_at(last.instant, where) if of_day[2] else last
    try:
        instant = datetime.fromisoformat(at.strip()) if isinstance(at, str) else at
        return _asked_local(instant, where) if instant.tzinfo is None else _asked_at(instant.astimezone(UTC), where)
    except (ValueError, OverflowError):
        hint = (
            f"write 2026-03-29T02:30 for that time in {timezone}, 2026-03-29T00:30Z, or 02:30 (00:30Z) for the last one"
        )
        raise ConfigurationError(f"{str(at)[:60]!r} is not an instant: {hint}") from None


def _last_time(text: str, where: ZoneInfo, now: datetime) -> Asked:
    hour, minute = map(int, text.split(":"))
    if hour > 23 or minute > 59:
        raise ConfigurationError(f"{text!r} is not a time of day: hours end at 23 and minutes at 59")
    local = now.astimezone(where).replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None)
    today = _asked_local(local, where)
    return today if today.instant <= now else _asked_local(local - timedelta(days=1), where)


def _asked_local(local: datetime, where: ZoneInfo) -> Asked:
    first, second = (local.replace(tzinfo=where, fold=fold).astimezone(UTC) for fold in (0, 1))
    night = "" if first == second else "twice" if first < second else "gap"
    return Asked(first, local, night)


def _asked_at(instant: datetime, where: ZoneInfo) -> Asked:
    local = instant.astimezone(where).replace(tzinfo=None, fold=0)
    return Asked(instant, local, _asked_local(local, where).night)


# The windows


def _window(schedule: Schedule, asked: Asked) -> datetime | None:
    """The window in the minute that was asked for; or the one that a time the clocks skip was moved to."""
    if asked.night == "gap":
        return _moved(schedule, asked) if _names(schedule, asked.local) else None
    found = _next(schedule, asked.instant - _TINY)
    length = _MINUTE if not asked.instant.second else timedelta(seconds=1)
    return found if found and found < asked.instant + length else None


def _moved(schedule: Schedule, asked: Asked) -> datetime | None:
    near = timedelta(hours=4)
    rule = Cron.parse(schedule.cron or "")
    return next(iter(rule.moved(zone(schedule.timezone), asked.instant - near, asked.instant + near)), None)


def _names(schedule: Schedule, local: datetime) -> bool:
    """Whether the fields of its expression name this local time, whatever the clocks do."""
    if not schedule.cron:
        return False
    at = local.replace(tzinfo=UTC)
    return bool(Cron.parse(schedule.cron).last(zone("UTC"), at - _TINY, at + _MINUTE - _TINY, 1))


def _next(schedule: Schedule, after: datetime) -> datetime | None:
    return due(replace(schedule, enabled=True), after, after).next_window


def _before(schedule: Schedule, at: datetime) -> datetime | None:
    rule = replace(schedule, enabled=True, catch_up="latest")
    found = (due(rule, at - look, at - _TINY).windows for look in _LOOKS)
    return next((windows[-1] for windows in found if windows), None)


# What became of it: an outcome and sentences, the first of which is the headline

Answer = tuple[str, list[str]]


def _answer(case: Case, others: Sequence[Case]) -> Answer:
    if case.jobs:
        return _made(case, case.jobs[0])
    if case.skips:
        return _skipped(case, case.skips[0])
    if case.window is None:
        return _no_window(case, others)
    if case.window > case.now:
        return _to_come(case)
    return _missing(case, case.window)


def _told(case: Case, answer: Answer) -> Explanation:
    outcome, (headline, *details) = answer
    at = case.window or case.asked.instant
    return Explanation(
        outcome,
        headline,
        (*_of_the_clocks(case), *details),
        case.schedule.name,
        case.asked.instant,
        case.window,
        _before(case.schedule, at),
        _next(case.schedule, at),
        case.jobs[0]["id"] if case.jobs else None,
    )


def _made(case: Case, job: Row) -> Answer:
    outcome, said = _state(case, job)
    return outcome, [f"{said}.", *_timing(case, job), *_other_meaning(case, job)]


def _state(case: Case, job: Row) -> tuple[str, str]:
    name, ended = f"job {job['id']} ({job['type']})", job["finished_at"]
    match job["status"]:
        case "done":
            return "ran", f"It ran: {name} was done at {case.shown(ended)}"
        case "dead":
            return (
                "ran",
                f"It ran and failed: {name} died at {case.shown(ended)}: {first_line(job['last_error'])}",
            )
        case "cancelled":
            outcome, before = ("ran", "") if job["attempt"] else ("cancelled", " before it ran")
            return outcome, f"It was made, and cancelled{before}: {name}, {ago(_seconds(case.now - ended))}"
        case "running":
            return "ran", f"It runs now: {name} started {ago(_seconds(case.now - job['started_at']))}"
        case _:
            return "waits", f"It was made and waits: {name} {_waiting(case, job)}"


def _waiting(case: Case, job: Row) -> str:
    failed = f"failed {times(job['failures'])}, and " if job["failures"] else ""
    if job["run_at"] > case.now:
        return f"{failed}is due {ago(-_seconds(job['run_at'] - case.now))}"
    behind = {"key": " behind another job of its key", "job": " for its parent", "group": " for its group"}
    waits = behind.get(job["waits_for"]) or (f" within the limit of {job['lane']}" if job["lane"] else "")
    return f"{failed}has been due for {lasting(_seconds(case.now - job['run_at']))}{waits}"


def _timing(case: Case, job: Row) -> list[str]:
    """When it was made and started, and what made it late."""
    late = job["created_at"] - job["window"]
    said = [f"It was made {'on time' if late < _ON_TIME else f'{duration(_seconds(late))} after its window'}."]
    if late > LATE and (silence := _silence(case)):
        said.append(silence)
    if offset := spread_offset(case.schedule):
        said.append(f"Its spread lets it run {duration(_seconds(offset))} after its window.")
    if job["started_at"]:
        by = f" in a tick of {job['trigger']}" if job["trigger"] else ""
        said.append(f"Attempt {job['attempt']} started at {case.shown(job['started_at'])}{by}{_took(job)}.")
    if job["failures"] and job["status"] != "dead":
        said.append(f"It failed {times(job['failures'])}, the last time with: {first_line(job['last_error'])}")
    return said


def _took(job: Row) -> str:
    return f" and took {duration(_seconds(job['finished_at'] - job['started_at']))}" if job["finished_at"] else ""


def _silence(case: Case) -> str:
    """That no tick came between the one before the window and the one after it."""
    before, after = ((case.ticks or {}).get(side) for side in ("before", "after"))
    if not before or not after or after["started_at"] - before["started_at"] <= LATE:
        return ""
    times = f"from {case.shown(before['started_at'])} to {case.shown(after['started_at'])}"
    return f"No tick came {times}: {duration(_seconds(after['started_at'] - before['started_at']))}."


def _other_meaning(case: Case, job: Row) -> list[str]:
    """That it is of what the name meant before."""
    if job["window"] == case.window and job["type"] == case.schedule.type:
        return []
    return [f"It is of an earlier definition: today's was first seen {case.shown(case.known['first_seen'])}."]


def _skipped(case: Case, skip: Row) -> Answer:
    by = f" by a tick of {skip['trigger']}" if skip["trigger"] else ""
    recorded = f"That was recorded at {case.shown(skip['recorded_at'])}{by}"
    others = skip["count"] is None or skip["count"] > 1
    span = f", for all windows from {case.shown(skip['first_window'])} to {case.shown(skip['last_window'])}"
    silence = _silence(case) if skip["reason"] in ("late", "cap") else ""
    reason = f"It was skipped: {_late(case, skip) if skip['reason'] == 'late' else _REASONS[skip['reason']]}."
    return "skipped", [reason, f"{recorded}{span if others else ''}.", *filter(None, [silence])]


# What held when it was recorded; the keys of the file may have been changed since, so no value of theirs is told.
_REASONS = {
    "cap": "more windows were due at once than max_catch_up let be made",
    "overlap": 'a job of the schedule was still pending or running (overlap = "skip")',
    "paused": "the schedule was paused",
    "disabled": "the schedule was disabled (enabled = false)",
}


def _late(case: Case, skip: Row) -> str:
    """That another window was made instead of it; or that none was, since all of them were too old."""
    recorded, following = skip["recorded_at"], _next(case.schedule, skip["last_window"])
    instead = bool(following and following <= recorded)
    late = recorded - (case.window or case.asked.instant)
    if instead or recorded - skip["last_window"] <= LATE_AFTER:
        return "several windows were due at once, and the latest of them was made"
    return f"it had been due for {lasting(_seconds(late))} when a tick came, which was too late"


def _no_window(case: Case, others: Sequence[Case]) -> Answer:
    schedule, at = case.schedule, case.asked.instant
    rule = f"`{schedule.cron}`" if schedule.cron else f"every {duration(_seconds(schedule.every or timedelta()))}"
    said = [f"{_local(case.asked, schedule.timezone)} is no window of {schedule.name}: {rule} does not name it."]
    if schedule.starts and at < schedule.starts:
        said = [f"{schedule.name} starts only at {case.shown(schedule.starts)}."]
    if schedule.ends and at >= schedule.ends:
        said = [f"{schedule.name} has ended at {case.shown(schedule.ends)}."]
    around = (("The window before is", _before(schedule, at)), ("The next window is", _next(schedule, at)))
    said += [f"{word} {case.shown(window)}." for word, window in around if window]
    return "no window", [*said, *_was_one(others)]


def _was_one(others: Sequence[Case]) -> list[str]:
    """That it was a window of another definition, of which no job is left."""
    return [
        f"It is one of another definition ({each.schedule.cron or each.schedule.every}), last seen "
        f"{each.shown(each.known['last_seen'])}."
        for each in others
        if each.window
    ]


def _to_come(case: Case) -> Answer:
    window = case.window or case.asked.instant
    said = [f"It has not come yet: {case.shown(window)} is {ago(-_seconds(window - case.now))}."]
    if not case.known["current"]:
        said.append(f"It will not: {_gone(case)}")
    elif not case.schedule.enabled:
        said.append("It will be skipped: the schedule is disabled (enabled = false).")
    elif case.known["paused"]:
        said.append(f"It will be skipped while the schedule is paused: `tick schedules resume {case.schedule.name}`.")
    return "to come", said


def _missing(case: Case, window: datetime) -> Answer:
    """No job and no record of a skip, though the window has been."""
    if case.known["first_seen"] >= window:
        seen = case.shown(case.known["first_seen"])
        why = "A new or edited schedule counts from there, and nothing is made for the time before."
        return "not seen", [f"It was not made: the schedule, as it is now, was first seen at {seen}.", why]
    if case.known["cursor"] >= window:
        why = "its job, or the record of why it was skipped, has been pruned since"
        return "forgotten", [f"A tick has dealt with it, and {why}: `[retention]` says how long they are kept."]
    if not case.known["current"]:
        return "removed", [f"It was not made: {_gone(case)}"]
    return _no_tick(case, window)


def _gone(case: Case) -> str:
    seen = case.shown(case.known["last_seen"])
    return f"the file that ticks now does not have {case.schedule.name}; the one that has it last ticked at {seen}."


def _no_tick(case: Case, window: datetime) -> Answer:
    last, after = ((case.ticks or {}).get(side) for side in ("last", "after"))
    if last is None:
        return "no tick", ["It is due, and no tick has come yet: run `tick run-once`, or point a cron at /tick."]
    if after is None:
        last_tick = f"the last was at {case.shown(last['started_at'])} ({last['trigger']})"
        return "no tick", [f"It is due, and no tick has come since: {last_tick}; the next one makes it."]
    said = [f"It has been due for {lasting(_seconds(case.now - window))}, and the ticks since have not made it."]
    if after["error"]:
        said.append(f"The first of them failed: {first_line(after['error'])}")
    elif last["schedules_file"] != case.known["file"]:
        said.append("The last of them had another schedules file, or none: two deployments tick in turn.")
    return "no tick", said


def _of_the_clocks(case: Case) -> list[str]:
    """What a change of clocks did to the local time that was asked for."""
    asked, schedule = case.asked, case.schedule
    if not asked.night:
        return []
    names = _names(schedule, asked.local)
    fixed = bool(schedule.cron) and Cron.parse(schedule.cron or "").fixed
    if asked.night == "gap":
        return [_gap(asked, schedule.timezone), *([_after_gap(case, fixed)] if names else [])]
    return [_fold(asked, schedule.timezone), *([_in_fold(fixed)] if names else [])]


def _gap(asked: Asked, timezone: str) -> str:
    before, after = (asked.local.replace(tzinfo=zone(timezone), fold=fold).utcoffset() for fold in (0, 1))
    by = duration(_seconds((after or timedelta()) - (before or timedelta())))
    return f"{asked.local:%H:%M} does not exist on {asked.local:%Y-%m-%d} in {timezone}: the clocks go forward by {by}."


def _after_gap(case: Case, fixed: bool) -> str:
    if fixed and case.window:
        return f"So it is for the end of the gap, once: {case.shown(case.window)}."
    return f"`{case.schedule.cron}` follows the time that passes, so what the clocks skip is left out."


def _fold(asked: Asked, timezone: str) -> str:
    first, second = (asked.local.replace(tzinfo=zone(timezone), fold=fold) for fold in (0, 1))
    twice = f"first as {first:%Z} ({iso(first)}) and then as {second:%Z} ({iso(second)})"
    return f"{asked.local:%H:%M} comes twice on {asked.local:%Y-%m-%d} in {timezone}: {twice}."


def _in_fold(fixed: bool) -> str:
    if fixed:
        return "A fixed time is for the first of the two only."
    return "A rule that follows the time that passes is for both; this is about the one that was asked for."


# Times in words


def iso(instant: datetime) -> str:
    """An instant as it is written: UTC, to the second, and to the minute where that is all."""
    utc = instant.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%MZ}" if not utc.second else f"{utc:%Y-%m-%dT%H:%M:%SZ}"


def shown(instant: datetime, timezone: str) -> str:
    """An instant in a zone and, beside it, in UTC.

    >>> shown(datetime(2026, 3, 29, 1, tzinfo=UTC), "Europe/Paris")
    'Sun 2026-03-29 03:00 CEST (2026-03-29T01:00Z)'
    """
    local = instant.astimezone(zone(timezone))
    time = f"{local:%a %Y-%m-%d %H:%M}" if not local.second else f"{local:%a %Y-%m-%d %H:%M:%S}"
    return f"{time} UTC" if timezone == "UTC" else f"{time} {local:%Z} ({iso(instant)})"


def _local(asked: Asked, timezone: str) -> str:
    if asked.night == "gap":
        return f"{asked.local:%Y-%m-%d %H:%M} in {timezone}"
    return shown(asked.instant, timezone)


def _seconds(time: timedelta) -> float:
    return time.total_seconds()
