"""A schedule's rule in words: "At 08:30, Monday to Friday (Europe/Paris)". What is said is exactly what fires."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Protocol

from .cron import Cron, DayRule
from .errors import CronError

MOST_TIMES = 4
"""Times of a day that are listed one by one."""
MOST_LISTED = 6
"""Minutes, seconds or days that are listed rather than told by their step, if they have one."""

_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_WEEK = (1, 2, 3, 4, 5, 6, 0)
"""The weekdays as people count them."""
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)  # fmt: skip
_NTH = {0: "last", 1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}
_UNITS = (("day", "days", 86_400), ("h", "h", 3600), ("min", "min", 60), ("s", "s", 1))


class Rule(Protocol):
    """What of a schedule says when it fires."""

    @property
    def cron(self) -> str | None: ...
    @property
    def every(self) -> timedelta | None: ...
    @property
    def timezone(self) -> str: ...


def describe(schedule: Rule) -> str:
    """When a schedule fires, in words; its expression as it is, should that not be readable.

    The zone is named where it matters: when hours or days are.
    """
    if schedule.every:
        return _every(schedule.every)
    if not schedule.cron:
        return "Only by hand"
    try:
        cron = Cron.parse(schedule.cron)
    except CronError:
        return schedule.cron
    return f"{in_words(cron)} ({schedule.timezone})" if _is_local(cron) else in_words(cron)


def _is_local(cron: Cron) -> bool:
    """Whether it matters in which zone it is read: not so for what fires in every hour of every day."""
    hours = {time // 60 for time in _bits(cron.times)}
    return len(hours) < 24 or bool(_days(cron.days) or _months(_bits(cron.months)))


def in_words(cron: Cron) -> str:
    """When an expression fires, in words.

    >>> in_words(Cron.parse("30 8 * * mon-fri")), in_words(Cron.parse("*/10 * * * *"))
    ('At 08:30, Monday to Friday', 'Every 10 min')
    """
    times = _bits(cron.times)
    hours, minutes = sorted({time // 60 for time in times}), sorted({time % 60 for time in times})
    said = _with_seconds(_bits(cron.seconds), hours, minutes)
    dates = [part for part in (_days(cron.days), _months(_bits(cron.months))) if part]
    return ", ".join([said, *(dates or ["every day"] * (len(hours) < 24 and said.startswith("At")))])


def _every(period: timedelta) -> str:
    rest, spelt = int(period.total_seconds()), []
    for one, many, size in _UNITS:
        number, rest = divmod(rest, size)
        if number:
            spelt.append(f"{number} {one if number == 1 else many}")
    alone = {"1 day": "day", "1 h": "hour", "1 min": "minute", "1 s": "second"}
    return f"Every {alone.get(' '.join(spelt), ' '.join(spelt))}"


# The time of the day


def _with_seconds(seconds: Sequence[int], hours: Sequence[int], minutes: Sequence[int]) -> str:
    words = _times(hours, minutes)
    if seconds == [0]:
        return words
    said = _paced(seconds, 60, "second", "s") or f"At second{'s' * (len(seconds) > 1)} {_numbers(seconds)}"
    if words != "Every minute":
        return f"{said} of these minutes: {words[0].lower()}{words[1:]}"
    return f"{said} of every minute" if said.startswith("At") else said


def _times(hours: Sequence[int], minutes: Sequence[int]) -> str:
    if len(hours) == 24:
        return _in_hours(minutes, "every hour")
    if len(hours) * len(minutes) <= MOST_TIMES:
        return f"At {_and(f'{hour:02}:{minute:02}' for hour in hours for minute in minutes)}"
    span = f"from {hours[0]:02}:{minutes[0]:02} to {hours[-1]:02}:{minutes[-1]:02}"
    if len(minutes) == 1 and (step := _step(hours)):
        whole = _paced(hours, 24, "hour", "h") if minutes == [0] else ""
        return whole or f"Every {'hour' if step == 1 else f'{step} h'} {span}"
    if _step(hours) == 1 and (pace := _paced(minutes, 60, "minute", "min")):
        return f"{pace} {span}"
    return _in_hours(minutes, f"the hours {_numbers(hours)}")


def _in_hours(minutes: Sequence[int], hours: str) -> str:
    """When in each of these hours."""
    if pace := _paced(minutes, 60, "minute", "min"):
        return pace if hours == "every hour" else f"{pace} of {hours}"
    if minutes == [0] and hours == "every hour":
        return "Every hour"
    if len(minutes) > MOST_LISTED and (step := _step(minutes)):
        return f"Every {step} min from :{minutes[0]:02} to :{minutes[-1]:02} of {hours}"
    return f"At {_numbers(minutes)} min past {hours}"


def _paced(values: Sequence[int], width: int, one: str, unit: str) -> str:
    """How often, when that is the same all the time: a step from 0 that divides what it goes through."""
    step = _step(values)
    if not step or values[0] or width % step or len(values) != width // step:
        return ""
    return f"Every {one if step == 1 else f'{step} {unit}'}"


def _step(values: Sequence[int]) -> int:
    """The distance between neighbours if it is always the same, else 0."""
    steps = {after - before for before, after in pairwise(values)}
    return steps.pop() if len(steps) == 1 else 0


# The day and the month


def _days(rule: DayRule) -> str:
    """The days; of two fields "too" says that either will do, and "if" that both must match."""
    of_month = "" if _is_all(rule.of_month, 31) else _of_month(rule)
    of_week = "" if rule.of_week & 127 == 127 else _of_week(rule)
    if not rule.either:
        return f"{of_month} if it is {of_week}" if of_month and of_week else of_month or of_week
    # Either of the two: one that is every day leaves nothing for the other to add.
    return f"{of_month} and {of_week} too" if of_month and of_week else ""


def _is_all(mask: int, last: int) -> bool:
    return mask >> 1 == (1 << last) - 1


def _of_month(rule: DayRule) -> str:
    days = _bits(rule.of_month)
    if len(days) > MOST_LISTED and (step := _step(days)) > 1:
        said = [f"every {_ordinal(step)} day of the month from the {_ordinal(days[0])} to the {_ordinal(days[-1])}"]
    else:
        said = [_run(run, lambda day: f"the {_ordinal(day)}") for run in _runs(days)]
    said += ["the last day of the month"] * rule.last
    return f"on {_and(said)}" if not said[0].startswith("every") else _and(said)


def _of_week(rule: DayRule) -> str:
    places = [place for place, day in enumerate(_WEEK) if rule.of_week >> day & 1]
    said = [_run(run, lambda place: _WEEKDAYS[_WEEK[place]]) for run in _runs(places)]
    said += [f"the {_NTH[number]} {_WEEKDAYS[day]} of the month" for day, number in rule.nth]
    return _and(said)


def _months(months: Sequence[int]) -> str:
    if len(months) == 12:
        return ""
    return f"in {_and(_run(run, lambda month: _MONTHS[month - 1]) for run in _runs(months))}"


def _runs(values: Iterable[int]) -> list[list[int]]:
    """The values in rows of neighbours."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return runs


def _run(run: Sequence[int], name: Callable[[int], str]) -> str:
    if len(run) < 3:
        return _and(map(name, run))
    return f"{name(run[0])} to {name(run[-1])}"


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number not in (11, 12, 13) else "th"
    return f"{number}{ending}"


def _numbers(values: Iterable[int]) -> str:
    return _and(map(str, values))


def _and(words: Iterable[str]) -> str:
    """The words with commas, and "and" before the last."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
