"""What is so, read from the database in bounded statements: for people, metrics, alerts and the doctor.

Each function makes a question of facts.sql, whose rows `database.read` gives as dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from .database import Statement

MOST = 10_000
"""Where counts end: one more means "more than that"."""


OTHERS = "_other"
"""Under what name `counters` adds up the types that it does not show."""


def ask(question: str, /, **params: Any) -> Statement:
    """The question of that name."""
    return Statement(question, params, "facts")


def depth(most: int = MOST) -> Statement:
    """One row: how many jobs are due, running, dead, later; since when the oldest has been due (UTC)."""
    return ask("depth", most=most)


def recent_ticks(limit: int = 60, *, before: datetime | None = None, trigger: str | None = None) -> Statement:
    """The ticks before an instant, the latest first; `late` and `gap` are seconds."""
    return ask("recent_ticks", limit=limit, before=before, trigger=trigger)


def pulse() -> Statement:
    """One row: seconds `since` the last tick and since it was `installed`, and the median `gap` of the last twenty."""
    return ask("pulse")


def triggers() -> Statement:
    """Who ticks: how often, at what median distance, how late at the 95th percentile, and when last, in seconds."""
    return ask("triggers")


def chart(span: int, since: datetime, type: str = "") -> Statement:
    """What ran in each period of 60, 600 or 3600 seconds, of one type or of all; `runs` and `waits` as in `history`."""
    return ask("chart", span=span, since=since, type=type)


def by_type(span: int, since: datetime, limit: int = 20) -> Statement:
    """What each type has done since then, the busiest first."""
    return ask("by_type", span=span, since=since, limit=limit)


def totals(limit: int = 100) -> Statement:
    """What each type has done since ever; the first row, of the type '', is all of them together."""
    return ask("totals", limit=limit)


def counters(limit: int = 100) -> Statement:
    """What so many types have done since ever, and under OTHERS all others together; none of the figures goes down."""
    return ask("counters", limit=limit, others=OTHERS)


def along_indexes() -> Statement:
    """Asked just before what looks along indexes, as `dead_groups` does, and after what else the transaction asks.

    A planner that has no statistics yet would sort all of the dead for each group.
    """
    return ask("along_indexes")


def dead_groups(limit: int = 100, most: int = 1000) -> Statement:
    """Dead jobs by type and kind of error, the latest first; counts end at `most`. Ask `along_indexes` before it."""
    return ask("dead_groups", limit=limit, most=most)


def unhandled(types: Iterable[str]) -> Statement:
    """The types of due jobs that none of these handlers takes; each row also has how many others are `handled`."""
    return ask("unhandled", types=list(types))


def schedules(*, name: str | None = None, after: str | None = None, limit: int = 200) -> Statement:
    """The schedules of the file that last ticked, by name, from after a name."""
    return ask("schedules", name=name, after=after, limit=limit)


def outcomes(schedules: Iterable[Mapping[str, str]], each: int = 20) -> Statement:
    """How the last windows of schedules have ended; a schedule is given by its name and type."""
    return ask("outcomes", schedules=msgspec.json.encode(list(schedules)).decode(), each=each)


def skips(schedule: str, *, at: datetime | None = None, limit: int = 20) -> Statement:
    """What was not made of a schedule, and why."""
    return ask("skips", schedule=schedule, at=at, limit=limit)


def alerts(limit: int = 50) -> Statement:
    """What alerts are about, and were lately."""
    return ask("alerts", limit=limit)


def open_alerts() -> Statement:
    """How many alerts of each rule last now."""
    return ask("open_alerts")


def schedule_counts() -> Statement:
    """One row: how many schedules there are, and how many of them are paused."""
    return ask("schedule_counts")
