"""Schedules against history: what they ask of ticks, and how long their jobs have taken."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from typing import NamedTuple

from tick.cron import Cron, zone
from tick.doctor.findings import Finding, found
from tick.doctor.queue_checks import State
from tick.doctor.subject import Project
from tick.history import percentile
from tick.schedules import LATE_AFTER, Schedule, spread_offset
from tick.verdict import duration, every, lasting

DAY = timedelta(days=1)
MOST_SCHEDULES = 5000
MOST_WINDOWS = 200_000
"""Windows of the next day that are counted."""
MANY_SKIPS = 5
FEWEST_RUNS = 5
_SAMPLE = 60


class Runs(NamedTuple):
    """How long types have taken, in seconds: on average, and nineteen times out of twenty at most."""

    mean: dict[str, float]
    high: dict[str, float]


def runs(state: State) -> Runs:
    """What the statistics say."""
    ended = {row["type"]: sum(row["runs"]) for row in state.totals if row["type"]}
    return Runs(
        {
            row["type"]: row["run_seconds"] / n
            for row in state.totals
            if (n := ended.get(row["type"], 0)) >= FEWEST_RUNS
        },
        {row["type"]: high for row in state.types if (high := percentile(row["durations"])) is not None},
    )


def windows(schedule: Schedule, after: datetime, until: datetime) -> Iterator[datetime]:
    """The windows of a schedule in (after, until]; those before `starts` and from `ends` on among them."""
    if schedule.cron:
        yield from Cron.parse(schedule.cron).windows(zone(schedule.timezone), after, until)
    elif schedule.every:
        window = after - (after - (schedule.starts or _epoch(after))) % schedule.every + schedule.every
        while window <= until:
            yield window
            window += schedule.every


def _epoch(instant: datetime) -> datetime:
    return datetime.fromtimestamp(0, instant.tzinfo)


def interval(schedule: Schedule, now: datetime) -> float | None:
    """The least number of seconds between two of its next windows; None when there are not two within a year."""
    if schedule.every:
        return schedule.every.total_seconds()
    return _interval_of_cron(schedule.cron, schedule.timezone, now.replace(minute=0, second=0, microsecond=0))


@lru_cache(maxsize=MOST_SCHEDULES)
def _interval_of_cron(cron: str | None, timezone: str, now: datetime) -> float | None:
    found = islice(Cron.parse(cron or "").windows(zone(timezone), now, now + 366 * DAY), _SAMPLE)
    return min(((b - a).total_seconds() for a, b in pairwise(found)), default=None)


# One schedule


def overlaps(state: State, project: Project) -> Iterator[Finding]:
    """A schedule's jobs end before the next one comes."""
    high, now = runs(state).high, state.depth[0]["now"]
    for schedule in project.schedules[:MOST_SCHEDULES]:
        takes = high.get(schedule.type)
        if takes and (between := interval(schedule, now)) and takes > between:
            what = f"{schedule.type} takes up to {duration(takes)}, and {schedule.name} comes {every(between)}"
            fix = (
                f'write a longer interval; or overlap = "skip", or key = "{schedule.name}", so that one runs at a time'
            )
            yield found("schedule-overlaps", project.schedule_at(schedule.name), what, fix)


def skips(state: State, project: Project) -> Iterator[Finding]:
    """Few windows are skipped because the last job is still there."""
    for row in state.overlaps:
        if row["count"] >= MANY_SKIPS:
            last = f"{row['last_window']:%Y-%m-%d %H:%M} UTC"
            what = f"{row['count']:,} windows of the last week were skipped, the last one {last}"
            fix = (
                "write a longer interval, or make the handler faster: tick jobs list --schedule shows how long it takes"
            )
            yield found("overlap-skips", project.schedule_at(row["schedule"]), what, fix)


def fineness(state: State, project: Project) -> Iterator[Finding]:
    """Ticks come as often as windows do."""
    now, between_ticks = state.depth[0]["now"], state.interval
    for schedule in project.schedules[:MOST_SCHEDULES] if state.pulse[0]["gap"] else ():
        between = interval(schedule, now)
        if between and schedule.catch_up != "all" and between < 0.9 * between_ticks:
            what = f"it comes {every(between)}, and ticks {every(between_ticks)}"
            fix = f'tick {every(between)}; or write catch_up = "all", or a rule that is not finer than ticks'
            yield found("schedule-too-fine", project.schedule_at(schedule.name), what, fix)
        if schedule.catch_up == "none" and between_ticks > LATE_AFTER.total_seconds():
            what = f'catch_up is "none", and ticks come {every(between_ticks)}'
            fix = 'write catch_up = "latest"; or tick every ten minutes at least'
            yield found("catch-up-lost", project.schedule_at(schedule.name), what, fix)


def paused(state: State, project: Project) -> Iterator[Finding]:
    """No schedule is paused and forgotten."""
    for row in state.paused:
        who = f" by {row['paused_by']}" if row["paused_by"] else ""
        what = f"paused{who} {lasting(row['seconds'])} ago"
        fix = f"tick schedules resume {row['name']}; or remove it from the file"
        yield found("schedule-paused", project.schedule_at(row["name"]), what, fix)


# All of them together


class Crowd(NamedTuple):
    """The jobs of one tick: when, and how many seconds each schedule's of them take together."""

    at: datetime
    jobs: int
    seconds: float
    names: Sequence[str]


def herd(state: State, project: Project) -> Iterator[Finding]:
    """What is due at once fits one budget."""
    budget, concurrency = project.budget, project.settings.concurrency
    crowd = worst(project.schedules[:MOST_SCHEDULES], runs(state).mean, state.depth[0]["now"], state.interval)
    if crowd and crowd.jobs > 1 and crowd.seconds / concurrency > budget:
        what = (
            f"{crowd.jobs:,} windows are due at {crowd.at:%Y-%m-%d %H:%M} UTC, {duration(crowd.seconds)} of work:"
            f" {duration(crowd.seconds / concurrency)} with {concurrency} at once, and the budget is {duration(budget)}"
        )
        names = ", ".join(crowd.names[:5])
        fix = f'add spread = "15m" to [defaults], or to those that take longest ({names}); or move some to other times'
        yield found("herd", project.schedules_path, what, fix)


def worst(schedules: Sequence[Schedule], mean: dict[str, float], now: datetime, gap: float) -> Crowd | None:
    """The most work that one tick of the next 24 hours is given; ticks are so many seconds apart."""
    jobs: Counter[int] = Counter()
    work: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    left = MOST_WINDOWS
    for schedule in schedules:
        offset = spread_offset(schedule)
        for window in islice(windows(schedule, now, now + DAY), left):
            tick = int((window + offset).timestamp() // gap)
            left -= 1
            jobs[tick] += 1
            work[tick][schedule.name] += mean.get(schedule.type, 0.0)
    if not work:
        return None
    tick = max(work, key=lambda each: sum(work[each].values()))
    names = sorted(work[tick], key=lambda name: -work[tick][name])
    return Crowd(datetime.fromtimestamp(tick * gap, now.tzinfo), jobs[tick], sum(work[tick].values()), names)


CHECKS = (overlaps, skips, fineness, paused, herd)
