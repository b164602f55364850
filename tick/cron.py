"""Cron expressions: from five (or six) fields and a time zone to windows, which are UTC instants.

The rule for the two nights on which clocks change is Debian cron's, without its running clock:

- An expression whose minute or hour starts with `*` follows elapsed time. It fires at every minute
  whose local time matches: what a gap skips is lost, what a fold repeats is repeated.
- Any other expression is *fixed*. Local times that a gap skips fire at the end of the gap, once;
  a local time that a fold repeats fires the first time only.
- A change of more than three hours corrects the clock: nothing is made up for or held back.

So a zone is a row of *stretches*, in which local minutes are UTC minutes plus an offset, and the
minutes of an expression are bits of integers. In here, instants are whole minutes or seconds since
the Unix epoch.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from .cron_hints import EXAMPLE, FIELDS, Expression, Field, Term, never_fires, read, warnings
from .errors import ConfigurationError, CronError

T = TypeVar("T")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HORIZON = timedelta(days=9 * 366)
"""How far `Cron.next` looks: past any 29 February, even over the year 2100."""


MOST_WINDOWS = 1_000_000


def windows(cron: str, timezone: str = "UTC", *, after: datetime, until: datetime) -> list[datetime]:
    """The windows of an expression in (after, until], in UTC.

    >>> windows("30 2 * * *", "Europe/Paris", after=datetime(2029, 3, 24, 12, tzinfo=UTC),
    ...         until=datetime(2029, 3, 25, 12, tzinfo=UTC))       # 02:30 does not exist that night
    [datetime.datetime(2029, 3, 25, 1, 0, tzinfo=datetime.timezone.utc)]
    """
    found = list(islice(Cron.parse(cron).windows(zone(timezone), after, until), MOST_WINDOWS + 1))
    if len(found) > MOST_WINDOWS:
        raise CronError(f"{cron!r} has more than {MOST_WINDOWS:,} windows in this time.", hint="Ask for a shorter one.")
    return found


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression: for each field a bit mask of its values."""

    text: str
    seconds: int
    times: int
    """The minutes of a matching day: bit 90 is 01:30."""
    days: DayRule
    months: int
    fixed: bool
    warnings: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Read five fields, or six with the seconds first; CronError says what to write instead."""
        if not isinstance(text, str):
            raise CronError(f"A cron expression is a text, not {text!r:.40}.", hint=EXAMPLE)
        return _parsed(text)

    def windows(self, zone: tzinfo, after: datetime, until: datetime) -> Iterator[datetime]:
        """The windows in (after, until], in UTC, strictly increasing."""
        return map(_instant, self._fired(zone, _second(after), _second(until)))

    def next(self, zone: tzinfo, after: datetime) -> datetime | None:
        """The first window after `after`; None if there is none within nine years."""
        start = _second(after)
        until = min(start + HORIZON // _SECOND, _LAST)
        return next(map(_instant, self._fired(zone, start, until)), None)

    def last(self, zone: tzinfo, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """The latest `limit` windows in (after, until], in order; what is older costs nothing."""
        fired = self._fired(zone, _second(after), _second(until), backwards=True)
        return [_instant(second) for second in islice(fired, limit)][::-1]

    def moved(self, zone: tzinfo, after: datetime, until: datetime) -> list[datetime]:
        """The windows in (after, until] at the end of a gap, for local times that it skips."""
        return [
            _instant(second)
            for stretch in _between(zone, self.fixed, _second(after), _second(until))
            if stretch.skipped and self._any(stretch.first, stretch.last - 1)
            for second in self._fired_in(stretch, _second(after), _second(until))
        ]

    def _fired(self, zone: tzinfo, after: int, until: int, backwards: bool = False) -> Iterator[int]:
        for stretch in _between(zone, self.fixed, after, until, backwards):
            yield from self._fired_in(stretch, after, until, backwards)

    def _fired_in(self, stretch: Stretch, after: int, until: int, backwards: bool = False) -> Iterator[int]:
        if stretch.skipped:
            return self._fired_after_gap(stretch, after, until, backwards)
        return self._fired_within(stretch, after, until, backwards)

    def _fired_within(self, stretch: Stretch, after: int, until: int, backwards: bool) -> Iterator[int]:
        first = max(stretch.first, after // 60 + stretch.offset)
        last = min(stretch.last, until // 60 + stretch.offset)
        seconds = _bits(self.seconds, backwards)
        for minute in self._minutes(first, last, backwards):
            start = (minute - stretch.offset) * 60
            for second in seconds:
                if after < start + second <= until:
                    yield start + second

    def _fired_after_gap(self, stretch: Stretch, after: int, until: int, backwards: bool) -> Iterator[int]:
        """The end of the gap fires as itself if it matches, else one second for what it skips."""
        start = (stretch.last - stretch.offset) * 60
        if self._any(stretch.last, stretch.last):
            seconds = _bits(self.seconds, backwards)
        elif self._any(stretch.first, stretch.last):
            seconds = _bits(self.seconds)[:1]
        else:
            seconds = ()
        return (start + second for second in seconds if after < start + second <= until)

    def _any(self, first: int, last: int) -> bool:
        return next(self._minutes(first, last), None) is not None

    def _minutes(self, first: int, last: int, backwards: bool = False) -> Iterator[int]:
        """The matching local minutes in [first, last]."""
        for day in self._matching_days(first // 1440, last // 1440, backwards):
            midnight = day * 1440
            times = _clipped(self.times, first - midnight, last - midnight)
            for time in _bits(times, backwards):
                yield midnight + time

    def _matching_days(self, first: int, last: int, backwards: bool) -> Iterator[int]:
        """The matching days in [first, last], counted from 1970-01-01."""
        for month in _ordered(range(_month(first), _month(last) + 1), backwards):
            if self.months >> (month % 12 + 1) & 1:
                start = date(month // 12, month % 12 + 1, 1).toordinal() - _EPOCH_DAY - 1
                days = self.days.in_month(month // 12, month % 12 + 1)
                for day in _bits(_clipped(days, first - start, last - start), backwards):
                    yield start + day


@dataclass(frozen=True, slots=True)
class DayRule:
    """Which days of a month match; bit 1 is the first, and bit 0 of the week is Sunday."""

    of_month: int
    of_week: int
    last: bool
    nth: tuple[tuple[int, int], ...]
    """Pairs of a weekday and its number in the month; number 0 is the last one."""
    either: bool

    def in_month(self, year: int, month: int) -> int:
        """The matching days of a month, as bits."""
        weekday, length = monthrange(year, month)
        sunday_first = (weekday + 1) % 7
        of_month = self.of_month | (self.last << length)
        of_week = (self.of_week * _EVERY_WEEK >> sunday_first) << 1
        for wanted, number in self.nth:
            of_week |= 1 << _nth_weekday((wanted - sunday_first) % 7 + 1, number, length)
        both = of_month | of_week if self.either else of_month & of_week
        return _clipped(both, 1, length)


def _nth_weekday(first: int, number: int, length: int) -> int:
    """The day of a weekday that is first on day `first`; past `length` if there is no such day."""
    if number:
        return first + 7 * (number - 1)
    return first + 28 if first + 28 <= length else first + 21


# --- Bits and days -------------------------------------------------------------------------------

_EVERY_WEEK = sum(1 << 7 * week for week in range(6))
_EPOCH_DAY = EPOCH.toordinal()


@lru_cache(maxsize=512)
def _bits(mask: int, backwards: bool = False) -> tuple[int, ...]:
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return tuple(found[::-1] if backwards else found)


def _clipped(mask: int, first: int, last: int) -> int:
    """Only the bits in [first, last]; the bounds may lie outside the mask."""
    if first > 0:
        mask = mask >> first << first
    return mask & ((2 << last) - 1) if last < 1440 else mask


def _ordered(items: Sequence[T], backwards: bool) -> Iterable[T]:
    return reversed(items) if backwards else items


def _month(day: int) -> int:
    when = date.fromordinal(day + _EPOCH_DAY)
    return when.year * 12 + when.month - 1


def _second(instant: datetime) -> int:
    """Whole seconds since the epoch, kept where a calendar and every zone still work."""
    if instant.tzinfo is None:
        raise ConfigurationError(f"{instant!r} has no time zone: pass an aware datetime, such as datetime.now(UTC).")
    return max(_FIRST, min((instant - EPOCH) // _SECOND, _LAST))


def _instant(second: int) -> datetime:
    return EPOCH + timedelta(seconds=second)


_SECOND = timedelta(seconds=1)
_FIRST = (datetime(2, 1, 1, tzinfo=UTC) - EPOCH) // _SECOND
_LAST = (datetime(9999, 1, 1, tzinfo=UTC) - EPOCH) // _SECOND

# --- Zones ---------------------------------------------------------------------------------------

_HOUR = 60
_DAY = 24 * _HOUR
_ERA = 64 * _DAY
"""Stretches are found, and remembered, for eras of this many minutes."""
_CORRECTION = 3 * _HOUR


class Stretch(NamedTuple):
    """Local minutes [first, last], `offset` ahead of UTC; `skipped` ones all stand at the last."""

    first: int
    last: int
    offset: int
    skipped: bool = False


class Shift(NamedTuple):
    """A change of a zone's offset: the first UTC minute that has the new one, and both."""

    at: int
    before: int
    after: int


def _between(zone: tzinfo, fixed: bool, after: int, until: int, backwards: bool = False) -> Iterator[Stretch]:
    """The stretches that may hold an instant of (after, until], each cut to its own era."""
    eras = range(after // 60 // _ERA, until // 60 // _ERA + 1)
    for era in _ordered(eras, backwards):
        yield from _ordered(_stretches(zone, era, fixed), backwards)


@lru_cache(maxsize=8192)
def _stretches(zone: tzinfo, era: int, fixed: bool) -> tuple[Stretch, ...]:
    start, end = era * _ERA, (era + 1) * _ERA
    # A fold before the era may still hold back fixed times inside it.
    shifts = list(_shifts(zone, start - _CORRECTION, end))
    offset = shifts[0].before if shifts else _offset(zone, start)
    found, first = [], start + offset
    for shift in shifts:
        found.append(Stretch(first, shift.at - 1 + shift.before, shift.before))
        if fixed and _is_gap(shift) and shift.at >= start:
            found.append(Stretch(shift.at + shift.before, shift.at + shift.after, shift.after, True))
        offset = shift.after
        first = max(_resumes(shift, fixed), start + offset)
    found.append(Stretch(first, end - 1 + offset, offset))
    return tuple(stretch for stretch in found if stretch.first <= stretch.last)


def _is_gap(shift: Shift) -> bool:
    return 0 < shift.after - shift.before < _CORRECTION


def _resumes(shift: Shift, fixed: bool) -> int:
    """The first local minute after a shift that stands for itself alone."""
    if not fixed or not -_CORRECTION - 1 <= shift.after - shift.before < _CORRECTION:
        return shift.at + shift.after
    return max(shift.at + shift.before, shift.at + shift.after + 1)


def _shifts(zone: tzinfo, start: int, end: int) -> Iterator[Shift]:
    """The changes of offset in (start, end).

    One look a day finds them all: in the IANA database no two changes of a zone are closer than
    four days.
    """
    before = _offset(zone, start)
    for low in range(start, end - 1, _DAY):
        high = min(low + _DAY, end - 1)
        if (after := _offset(zone, high)) != before:
            at = bisect_left(range(low, high), True, key=lambda minute: _offset(zone, minute) != before)
            yield Shift(low + at, before, after)
            before = after


def _offset(zone: tzinfo, minute: int) -> int:
    """Local less UTC minutes; if it has seconds (before 1972), as a clock shows the minute."""
    local = (EPOCH + timedelta(minutes=minute)).astimezone(zone)
    return (local.utcoffset() or timedelta()) // timedelta(minutes=1)


def zone(name: str) -> ZoneInfo:
    """The IANA time zone of this name, from the system or from the tzdata package."""
    try:
        if name.startswith(_NOT_ZONES):
            raise ValueError(name)  # noqa: TRY301 - one refusal for every way in which it is no zone
        return ZoneInfo(name)
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        raise ConfigurationError(_no_zone(str(name)[:60])) from None


_NOT_ZONES = ("localtime", "posix", "right/", "Factory")
"""Names that a system may know, and that differ from one to the next (or count leap seconds)."""
_ABBREVIATIONS = {
    "pst": "America/Los_Angeles",
    "pdt": "America/Los_Angeles",
    "mdt": "America/Denver",
    "cst": "America/Chicago",
    "cdt": "America/Chicago",
    "edt": "America/New_York",
    "bst": "Europe/London",
    "cest": "Europe/Paris",
    "ist": "Asia/Kolkata",
    "jst": "Asia/Tokyo",
    "aest": "Australia/Sydney",
}


def _no_zone(name: str) -> str:
    near = _near_zones(name.lower().replace(" ", "_"))
    hint = f"did you mean {' or '.join(near)}?" if near else 'write a place, such as "Europe/Paris".'
    return f'"{name}" is not a known time zone; {hint}'


def _near_zones(name: str) -> list[str]:
    if name in _ABBREVIATIONS:
        return [f'"{_ABBREVIATIONS[name]}"']
    known = {each.lower(): each for each in sorted(available_timezones())}
    same_place = [each for each in known if name and each.rpartition("/")[2] == name.rpartition("/")[2]]
    near = same_place[:3] or get_close_matches(name, known, 3, 0.75)
    return [f'"{known[each]}"' for each in near]


# --- Parsing -------------------------------------------------------------------------------------


@lru_cache(maxsize=16_384)
def _parsed(text: str) -> Cron:
    expression = read(text)
    second, minute, hour, day, month, weekday = map(_mask, FIELDS, expression.terms, _values(expression))
    cron = Cron(
        text=" ".join(text.split()),
        seconds=second,
        times=sum(minute << 60 * each for each in _bits(hour)),
        days=_day_rule(expression, day, weekday),
        months=month,
        fixed=not _starred(expression, 1, 2),
        warnings=warnings(expression),
    )
    if not _ever_fires(cron):
        raise never_fires(expression, text)
    return cron


def _day_rule(expression: Expression, days: int, weekdays: int) -> DayRule:
    return DayRule(
        of_month=days,
        of_week=weekdays,
        last=any(term.last for term in expression.terms[3]),
        nth=tuple(term.nth for term in expression.terms[5] if term.nth),
        either=not _starred(expression, 3, 5),
    )


def _starred(expression: Expression, *fields: int) -> bool:
    return any(expression.fields[each].startswith("*") for each in fields)


def _values(expression: Expression) -> Sequence[Sequence[int | str]]:
    """The values of each field, expanded by croniter; `*` stands in for no plain terms."""
    from croniter import croniter  # imported late: it takes 0.1 s, and many a tick parses nothing

    plain = [[term.plain for term in terms if term.plain] or ["*"] for terms in expression.terms]
    *others, seconds = croniter.expand(" ".join(map(",".join, plain)), second_at_beginning=True)[0]
    return [seconds, *others]


def _mask(field: Field, terms: list[Term], values: Sequence[int | str]) -> int:
    if not any(term.plain for term in terms):
        return 0
    return sum(1 << int(value) for value in (field.all if "*" in values else set(values)))


def _ever_fires(cron: Cron) -> bool:
    """Asks 28 years, after which weekdays and leap years repeat; mostly the first month answers."""
    months = ((year, month) for year in range(2000, 2028) for month in _bits(cron.months))
    return any(cron.days.in_month(year, month) for year, month in months)
