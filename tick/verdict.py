"""The verdict: what the rows of facts mean, in plain words, what hurts most first. And the words for times and counts.

No I/O: `questions` says what to ask, and `judge` takes the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from . import alerts, facts
from .config import GRACE
from .database import Statement

# The rule by which alerts are told, and /health answers.
SHORTEST_INTERVAL, LATE_AFTER, BY_HAND = alerts.SHORTEST_INTERVAL, alerts.LATE_AFTER, alerts.BY_HAND
LATELY = 900.0
"""Seconds over which failures are counted."""
DAY = 86_400.0
BEHIND, FAR_BEHIND = 5, 30
"""Intervals for which a job may have been due before ticks are behind, or hopelessly so."""
FEWEST_FAILURES, MANY, MOST_OF_THEM = 3, 0.25, 0.5
FEWEST_TICKS = 3
"""Ticks from which it can be said how often they come; REGULAR of them when it may be somebody's hand."""
HANDS = BY_HAND | {"dashboard"}
REMAINDERS = 10
"""Below so many of a unit, the next smaller one is told too."""

TICKS, PENDING = "/dashboard/ticks", "/dashboard/jobs?status=pending"

Row = Mapping[str, Any]

OK, WARNING, CRITICAL = "ok", "warning", "critical"
_GRAVITY = {OK: 0, WARNING: 1, CRITICAL: 2}


class Verdict(NamedTuple):
    """How things are: `ok`, `warning` or `critical`; the one sentence that matters most, and the others."""

    state: str
    headline: str
    details: tuple[str, ...] = ()
    links: tuple[tuple[str, str | None], ...] = ()
    """The headline and the details for the dashboard: without a command, and with the path that shows more."""
    every: str = ""
    """How often ticks come; empty while nobody can say."""

    @property
    def healthy(self) -> bool:
        """Whether nobody has to do anything."""
        return self.state == OK

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "state": self.state,
            "headline": self.headline,
            "details": list(self.details),
            "healthy": self.healthy,
        }


class Finding(NamedTuple):
    """One thing that is so; `ok` ones are worth a word and nobody's trouble."""

    state: str
    text: str
    path: str | None = None
    """The dashboard's page that shows more of it."""
    command: str | None = None
    """The command that says why."""

    @property
    def said(self) -> str:
        """As a terminal has it."""
        return f"{self.text.removesuffix('.')}; `{self.command}` shows why." if self.command else self.text


class Beat(NamedTuple):
    """Whether ticks come: `waiting` for the first one, `ok`, or `stopped`; the seconds that they have kept."""

    status: str
    interval: float


def beat(since: float | None, installed: float | None, gap: float | None) -> Beat:
    """Ticks have stopped after three intervals without one; the interval is what they have kept, a minute at least.

    From the seconds since the last tick and since the installation, and the median of those between the last twenty.
    """
    interval = max(SHORTEST_INTERVAL, gap or 0.0)
    quiet = since if since is not None else installed or 0.0
    status = "stopped" if quiet > LATE_AFTER * interval else "ok" if since is not None else "waiting"
    return Beat(status, interval)


def questions(types: Iterable[str]) -> tuple[Statement, ...]:
    """What `judge` has to know, in the order of its arguments; `types` have a handler here."""
    return (
        facts.depth(),
        facts.pulse(),
        facts.triggers(),
        facts.recent_ticks(10),
        Statement("lately", {"seconds": LATELY}),
        Statement("last_dead", {"seconds": DAY, "most": facts.MOST}),
        facts.unhandled(types),
        Statement("paused_schedules", {"limit": facts.MOST}),
    )


def judge(  # noqa: PLR0917 - the answers, as `questions` has them
    depth: Sequence[Row],
    pulse: Sequence[Row],
    triggers: Sequence[Row],
    ticks: Sequence[Row],
    rates: Sequence[Row],
    dead: Sequence[Row],
    unhandled: Sequence[Row],
    paused: Sequence[Row],
) -> Verdict:
    """The verdict on the answers to `questions`: the worst first, then in the order of this function."""
    beating = beat(pulse[0]["since"], pulse[0]["installed"], pulse[0]["gap"])
    rhythm = every(beating.interval) if _is_regular(triggers) else ""
    findings = [
        *_ticking(pulse[0], beating, triggers, depth[0]),
        *_failed_ticks(ticks, depth[0]),
        *_behind(depth[0], beating, unhandled, rhythm),
        *_failing(rates),
        *_dead(dead, depth[0]),
        *_without_handler(unhandled, depth[0]),
        *_silent_triggers(triggers, beating),
        *_paused(paused),
    ]
    first = [] if rhythm or beating.status != "ok" else [_first_ticks(triggers, depth[0])]
    if all(finding.state == OK for finding in [*findings, *first]):
        return _verdict([*(first or [_all_is_well(depth[0], rhythm)]), *findings], rhythm)
    return _verdict([*findings, *first], rhythm)


def _verdict(findings: Iterable[Finding], rhythm: str) -> Verdict:
    headline, *others = sorted(findings, key=lambda finding: -_GRAVITY[finding.state])
    links = tuple((finding.text, finding.path) for finding in (headline, *others))
    return Verdict(headline.state, headline.said, tuple(each.said for each in others), links, rhythm)


# What is so


def _ticking(pulse: Row, beating: Beat, triggers: Sequence[Row], depth: Row) -> list[Finding]:
    """That there was no tick yet, or that there is none any more."""
    due = _due(depth)
    if pulse["since"] is None:
        text = f"Never ticked: no tick has come since tick was set up{_ago_of(pulse['installed'])}.{due} "
        state = CRITICAL if beating.status == "stopped" else WARNING
        return [Finding(state, f"{text}Run `tick run-once`, or point a cron at /tick.", TICKS)]
    if beating.status != "stopped":
        return []
    last = f"the last was {ago(pulse['since'])} ({triggers[0]['trigger']})" if triggers else "there is none left"
    usual = f", they used to come {every(beating.interval)}; check your cron."
    return [
        Finding(
            CRITICAL, f"Ticks have stopped: {last}{usual if _is_regular(triggers) else _advice(triggers)}{due}", TICKS
        )
    ]


def _due(depth: Row) -> str:
    return f" {count(depth['due'], 'job')} {'is' if depth['due'] == 1 else 'are'} due." if depth["due"] else ""


def _is_regular(triggers: Sequence[Row]) -> bool:
    """Whether something ticks that will go on: a crontab's `tick run-once` too, and no finger."""
    clocks = [row for row in triggers if row["trigger"] not in HANDS]
    beats = any(row["ticks"] >= alerts.REGULAR and (row["gap"] or 0.0) >= alerts.BURST for row in triggers)
    return beats or (bool(clocks) and sum(row["ticks"] for row in triggers) >= FEWEST_TICKS)


def _first_ticks(triggers: Sequence[Row], depth: Row) -> Finding:
    """That ticks have come, and nobody can say whether they will go on: trouble when there is something to do."""
    return Finding(WARNING if depth["due"] else OK, f"{_so_far(triggers)}{_advice(triggers)}{_due(depth)}", TICKS)


def _so_far(triggers: Sequence[Row]) -> str:
    ticks = sum(row["ticks"] for row in triggers)
    names = [row["trigger"] for row in triggers]
    by = "hand" if HANDS.issuperset(names) else listed(names)
    return f"{'One tick' if ticks == 1 else f'{ticks:,} ticks'} so far, by {by}"


def _advice(triggers: Sequence[Row]) -> str:
    by_hand = HANDS.issuperset(row["trigger"] for row in triggers)
    return "; nothing triggers ticks yet: point a cron at /tick." if by_hand else "."


def _ago_of(seconds: float | None) -> str:
    return "" if seconds is None else f" {ago(seconds)}"


def _failed_ticks(ticks: Sequence[Row], depth: Row) -> list[Finding]:
    """That the last tick ended in an error; or that several never ended."""
    ended = [tick for tick in ticks if tick["finished_at"]]
    if ended and ended[0]["error"]:
        return [Finding(CRITICAL, f"The last tick failed: {first_line(ended[0]['error'])}", TICKS)]
    lost = [tick for tick in ticks if _is_lost(tick, depth)]
    if len(lost) < LATE_AFTER:
        return []
    text = f"{len(lost)} of the last {len(ticks)} ticks never ended: their process was killed"
    return [Finding(WARNING, f"{text}; is TICK_BUDGET within what the host allows?", TICKS)]


def _is_lost(tick: Row, depth: Row) -> bool:
    """Whether it has not ended, and runs no more: several may run at once."""
    if tick["finished_at"]:
        return False
    return bool((depth["now"] - tick["started_at"]).total_seconds() > tick["budget"] + GRACE)


def _behind(depth: Row, beating: Beat, unhandled: Sequence[Row], rhythm: str) -> list[Finding]:
    """That due jobs wait although ticks come: not those that no tick of this deployment would take."""
    due, oldest = _handled(depth, unhandled)
    if not oldest or beating.status != "ok":
        return []
    waited = (depth["now"] - oldest).total_seconds()
    if waited <= BEHIND * beating.interval:
        return []
    state = CRITICAL if waited > FAR_BEHIND * beating.interval else WARNING
    comes = f", and ticks come {rhythm}" if rhythm else ""
    waits = "waits" if depth["behind_keys"] == 1 else "wait"
    behind = f"; {count(depth['behind_keys'])} {waits} behind others of their key" if depth["behind_keys"] else ""
    return [Finding(state, f"Falling behind: {due} due, the oldest for {lasting(waited)}{comes}{behind}.", PENDING)]


def _handled(depth: Row, unhandled: Sequence[Row]) -> tuple[str, datetime | None]:
    """How many due jobs have a handler here, and since when the oldest of them has been due."""
    if not unhandled:
        return count(depth["due"]), depth["oldest_due"]
    handled = unhandled[0]["handled"]
    more = "+" if depth["due"] > facts.MOST else ""
    return f"{handled:,}{more}", unhandled[0]["oldest_handled"]


def _failing(rates: Sequence[Row]) -> list[Finding]:
    """That many attempts fail; the row of the type '' is all types together."""
    total = next((row for row in rates if row["type"] == ""), None)
    if total is None or total["failed"] < FEWEST_FAILURES:
        return []
    share = total["failed"] / (total["failed"] + total["done"])
    if share < MANY:
        return []
    worst = max((row for row in rates if row["type"]), key=lambda row: int(row["failed"]), default=None)
    whose = f", {_whose(worst, total['failed'])}" if worst else ""
    path = f"/dashboard/jobs?type={quote(worst['type'], safe='')}" if worst else None
    text = f"Failing: {share * 100:.0f} % of the last {lasting(LATELY)}'s attempts failed{whose}."
    return [Finding(CRITICAL if share >= MOST_OF_THEM else WARNING, text, path)]


def _whose(worst: Row, failed: int) -> str:
    """Whose attempts fail: all of them, at least half, or merely more than any other's."""
    if worst["failed"] == failed:
        return str(worst["type"])
    if worst["failed"] * 2 >= failed:
        return f"mostly {worst['type']}"
    return f"most often {worst['type']} ({worst['failed']:,} of {failed:,})"


def _dead(dead: Sequence[Row], depth: Row) -> list[Finding]:
    """How many jobs are dead: trouble on the day that they died, a word later."""
    if not dead or not depth["dead"]:
        return []
    are = "job is" if depth["dead"] == 1 else "jobs are"
    text = f"{count(depth['dead'])} {are} dead, the last one {ago(dead[0]['since'])}: {dead[0]['type']}."
    return [Finding(WARNING if dead[0]["recent"] else OK, text, "/dashboard/dead", "tick dead")]


def _without_handler(unhandled: Sequence[Row], depth: Row) -> list[Finding]:
    if not unhandled:
        return []
    types = listed(f"{row['type']} ({row['count']:,})" for row in unhandled)
    waited = lasting((depth["now"] - min(row["oldest"] for row in unhandled)).total_seconds())
    text = f"Some due jobs have no handler here: {types}, the oldest for {waited}; deploy one, or check TICK_MODULES."
    return [Finding(WARNING, text, PENDING)]


def _silent_triggers(triggers: Sequence[Row], beating: Beat) -> list[Finding]:
    """That one of several triggers has stopped; one that has been silent for long was switched off."""
    if beating.status == "stopped":
        return []  # That has been said, of all of them.
    regular = [row for row in triggers if row["ticks"] > LATE_AFTER and row["trigger"] not in BY_HAND and row["gap"]]
    if len(regular) < 2:
        return []
    return [
        Finding(WARNING, f"One trigger of {len(regular)} has stopped: {_silence(row)}.", TICKS)
        for row in regular
        if _is_silent(row)
    ]


def _is_silent(row: Row) -> bool:
    interval = max(SHORTEST_INTERVAL, row["gap"])
    return bool(LATE_AFTER * interval < row["since"] < max(DAY, 10 * interval))


def _silence(row: Row) -> str:
    return f"{row['trigger']} came {every(row['gap'])}, and last {ago(row['since'])}"


def _paused(paused: Sequence[Row]) -> list[Finding]:
    if not paused:
        return []
    are = "schedule is" if len(paused) == 1 else "schedules are"
    text = f"{len(paused):,} {are} paused: {listed(row['name'] for row in paused)}."
    return [Finding(OK, text, "/dashboard/schedules")]


def _all_is_well(depth: Row, rhythm: str) -> Finding:
    due = f"{count(depth['due'])} due" if depth["due"] else "nothing is due"
    return Finding(OK, f"All is well: ticks come {rhythm}, {due}.")


# Words for times and counts

_UNITS = (("day", "days", DAY), ("h", "h", 3600.0), ("min", "min", 60.0), ("s", "s", 1.0))


def duration(seconds: float) -> str:
    """How long something took: two units at most, and parts of a second where they count.

    >>> [duration(each) for each in (0.0042, 0.25, 4.21, 75, 5400, 100_000, 5_000_000)]
    ['4 ms', '250 ms', '4.2 s', '1 min 15 s', '1 h 30 min', '1 day 3 h', '57 days']
    """
    if round(seconds, 3) < 1:
        return f"{max(seconds, 0.0) * 1000:.0f} ms"
    if round(seconds, 1) < REMAINDERS and round(seconds, 1) % 1:
        return f"{seconds:.1f} s"
    return _spelt(round(seconds), REMAINDERS)


def lasting(seconds: float) -> str:
    """How long something has been so: in one unit, as people say it.

    >>> [lasting(each) for each in (0, 12.7, 75, 5400, 100_000)]
    ['0 s', '12 s', '1 min', '1 h', '1 day']
    """
    return _spelt(seconds, 0)


def _spelt(seconds: float, remainders: int) -> str:
    rest = max(seconds, 0.0)
    for place, (one, many, size) in enumerate(_UNITS):
        number, rest = int(rest // size), rest % size
        if number or size == 1:
            smaller = _UNITS[place + 1] if place + 1 < len(_UNITS) and number < remainders else None
            more = f" {rest // smaller[2]:.0f} {smaller[1]}" if smaller and rest >= smaller[2] else ""
            return f"{number} {one if number == 1 else many}{more.replace('1 days', '1 day')}"
    raise AssertionError("unreachable: seconds are the last unit")


def ago(seconds: float) -> str:
    """A time that has been, or is to come when the seconds are below zero.

    >>> [ago(each) for each in (0.4, 50, 840, -10_900)]
    ['just now', '50 s ago', '14 min ago', 'in 3 h']
    """
    if abs(seconds) < 1:
        return "just now"
    return f"{lasting(seconds)} ago" if seconds > 0 else f"in {lasting(-seconds)}"


def every(seconds: float) -> str:
    """How often something comes.

    >>> [every(each) for each in (60, 61.5, 299, 3600, 86_400)]
    ['every minute', 'every minute', 'every 5 min', 'every hour', 'every day']
    """
    single = {1.0: "second", 60.0: "minute", 3600.0: "hour", DAY: "day"}
    seconds = max(seconds, 1.0)
    unit = next(size for _, _, size in _UNITS if seconds >= 0.95 * size or size == 1)
    rounded = round(seconds / unit) * unit
    return f"every {single.get(rounded) or lasting(rounded)}"


def count(number: int, noun: str = "", *, most: int = facts.MOST) -> str:
    """A number that was counted up to `most`.

    >>> count(1240), count(1, "job"), count(10_001, "job")
    ('1,240', '1 job', '10,000+ jobs')
    """
    shown = f"{most:,}+" if number > most else f"{number:,}"
    return f"{shown} {noun}{'s' * (number != 1)}" if noun else shown


def times(number: int) -> str:
    """How often something was so.

    >>> times(1), times(2), times(5000)
    ('once', 'twice', '5,000 times')
    """
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def listed(words: Iterable[str], most: int = 3) -> str:
    """Some words and how many more there are.

    >>> listed("abcde")
    'a, b, c and 2 more'
    """
    words = list(words)
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def first_line(text: str, most: int = 200) -> str:
    """The beginning of a text that may be long."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= most else f"{line[: most - 1]}…"
