"""Reading a cron expression: what is accepted and, for all else, what should have been written.

The accepted part is the first. Everything below it explains: expressions are copied from other
systems, so a refusal knows their dialects (Quartz, AWS, Jenkins, fugit, Go, pg_cron), and mends
the whole line where that is sure.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import NamedTuple

from .errors import CronError

MAX_LENGTH = 256
MAX_TERMS = 64

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MANUAL = (
    "To keep a schedule that never fires, write `enabled = false`"
    " and run it by hand with `tick schedules run-now NAME`."
)
EXAMPLE = "An expression reads `30 8 * * mon-fri`: minute hour day-of-month month day-of-week."


class Field(NamedTuple):
    """One of the six fields: its inclusive bounds, and its names from `low` up if it has any."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return len(self.names) or self.high - self.low + 1

    @property
    def all(self) -> range:
        return range(self.low, self.low + self.width)

    def value(self, word: str) -> int | None:
        """The number that `word` stands for; None if this field has no such value."""
        if word in self.names:
            return self.low + self.names.index(word)
        number = int(word) if word.isdigit() else -1
        return number if self.low <= number <= self.high else None


SECOND = Field("second", 0, 59)
MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY = Field("day-of-month", 1, 31)
MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = Field("month", 1, 12, names=MONTH_NAMES)
WEEKDAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
WEEKDAY = Field("day-of-week", 0, 7, names=WEEKDAY_NAMES)
FIELDS = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)


class Term(NamedTuple):
    """An accepted term: numbers for croniter to expand, or one of the specials that are ours."""

    plain: str = ""
    last: bool = False
    nth: tuple[int, int] | None = None
    """A weekday (0 is Sunday) and its number in the month; number 0 is the last one."""


class Expression(NamedTuple):
    """Six fields, the seconds first: as they were written, and as accepted terms."""

    fields: list[str]
    terms: list[list[Term]]


def read(text: str) -> Expression:
    """Read five fields, or six with the seconds first; refuse anything else with a hint."""
    if expression := _accepted(text):
        return expression
    raise _error(text)


def never_fires(expression: Expression, text: str) -> CronError:
    """The refusal of days that no month has, which people write to switch a schedule off."""
    _, _, _, day, month, _ = expression.fields
    why = f"day-of-month `{day}` never comes in month `{month}`, so it would never fire"
    return CronError(f'"{_shown(text)}": {why}.', hint=MANUAL)


def _accepted(text: str) -> Expression | None:
    if len(text) > MAX_LENGTH or _strange_character(text):
        return None
    fields = ALIASES.get(text.strip().lower(), text).split()
    fields = fields if len(fields) == len(FIELDS) else ["0", *fields]
    if len(fields) != len(FIELDS) or _too_many_terms(text):
        return None
    terms = [_terms(*each) for each in zip(FIELDS, fields, strict=True)]
    return Expression(fields, terms) if all(terms) else None


def _strange_character(text: str) -> str | None:
    return next((c for c in text if c != "\t" and not " " <= c <= "~"), None)


def _terms(field: Field, text: str) -> list[Term]:
    """Empty if one of them is refused."""
    terms = [_term(field, word) for word in text.lower().split(",")]
    return [term for term in terms if term] if all(terms) else []


_VALUE = r"\d{1,3}|[a-z]{3}"
_PLAIN = re.compile(rf"(?:\*|(?P<low>{_VALUE})(?:-(?P<high>{_VALUE}))?)(?:/(?P<step>\d{{1,3}}))?")
_NTH_WEEKDAY = re.compile(r"(\d|[a-z]{3})(?:l|#([1-5]))")


def _term(field: Field, word: str) -> Term | None:
    if plain := _plain(field, word):
        return Term(plain)
    if field is DAY and word == "l":
        return Term(last=True)
    return _nth_weekday(word) if field is WEEKDAY else None


def _nth_weekday(word: str) -> Term | None:
    match = _NTH_WEEKDAY.fullmatch(word)
    weekday = WEEKDAY.value(match[1]) if match else None
    if match is None or weekday is None:
        return None
    return Term(nth=(weekday % 7, int(match[2] or 0)))


def _plain(field: Field, word: str) -> str:
    """The term in numbers only; empty if it is refused."""
    match = _PLAIN.fullmatch(word)
    if match is None or not 1 <= int(match["step"] or 1) <= field.width:
        return ""
    if match["low"] is None:
        return f"*/{int(match['step'])}" if match["step"] else "*"
    if match["high"] is None:
        value = field.value(match["low"])
        return "" if value is None or match["step"] else str(value)
    return _plain_range(field, match)


def _plain_range(field: Field, match: re.Match[str]) -> str:
    low, high = field.value(match["low"]), field.value(match["high"])
    if low is None or high is None or low > high:
        return ""
    # croniter takes an equal range for the whole field.
    return str(low) if low == high else f"{low}-{high}/{int(match['step'] or 1)}"


# --- Warnings ------------------------------------------------------------------------------------


def warnings(expression: Expression) -> tuple[str, ...]:
    """What is accepted and yet often means something else than its author thinks."""
    fields = expression.fields
    steps = [_uneven_step(*each) for each in zip(FIELDS, fields, strict=True)]
    found = [_both_days(fields[3], fields[5]), *steps, _many_seconds(fields[0])]
    return tuple(warning for warning in found if warning)


def _both_days(day: str, weekday: str) -> str:
    if "*" in (day, weekday):
        return ""
    how = "both match" if day.startswith("*") or weekday.startswith("*") else "either one matches"
    return f"it has a day-of-month `{day}` and a day-of-week `{weekday}`: it fires when {how}"


def _uneven_step(field: Field, text: str) -> str:
    step = int(text[2:]) if re.fullmatch(r"\*/\d+", text) else 1
    values = range(field.low, field.low + field.width, step)
    if step > 1 and len(values) == 1:
        return f"{field.name} `{text}` has one value: `{field.low}`"
    if step == 1 or (field.width % step == 0 and field is not DAY):
        return ""
    gap = field.width - values[-1] + field.low
    short = " (or more, in a shorter month)" if field is DAY else ""
    uneven = f"is uneven: after {values[-1]} comes {field.low}, {gap} later{short}"
    return f"{field.name} `{text}` {uneven}"


def _many_seconds(text: str) -> str:
    if text.isdigit():
        return ""
    return (
        f"second `{text}` fires more than once a minute: when a tick finds several windows due,"
        ' only the latest becomes a job, unless catch_up is "all"'
    )


# --- Refusing ------------------------------------------------------------------------------------


class Refusal(NamedTuple):
    """Why a text or a term is refused, and what would be accepted."""

    why: str
    instead: str | None = None
    """What replaces it, still to be checked."""
    toml: str = ""
    """What to write beside (or instead of) the expression."""
    advice: str = ""


class Repair(NamedTuple):
    """The first refusal of a text, and all that it takes; `line` may still need repair."""

    why: Refusal
    line: str | None
    toml: dict[str, str]
    """By its key, so that each key is told once."""


def _repair(text: str) -> Repair:
    if refusal := _foreign(text):
        return Repair(refusal, refusal.instead, _toml([refusal]))
    fields = text.split()
    named = list(zip(FIELDS[-len(fields) :], fields, strict=True))
    refusals = [refusal for each in named for refusal in _refusals(*each)]
    sure = all(refusal.instead is not None for refusal in refusals)
    line = " ".join(_mended(*each) for each in named) if sure else None
    return Repair(refusals[0], line, _toml(refusals))


def _refusals(field: Field, text: str) -> list[Refusal]:
    return [_why(field, word) for word in text.split(",") if not _term(field, word.lower())]


def _mended(field: Field, text: str) -> str:
    terms = [word if _term(field, word.lower()) else _why(field, word).instead or "" for word in text.split(",")]
    return "*" if "*" in terms else ",".join(filter(None, terms)) or "*"


def _toml(refusals: list[Refusal]) -> dict[str, str]:
    return {refusal.toml.split()[0]: refusal.toml for refusal in refusals if refusal.toml}


def _error(text: str) -> CronError:
    first = _repair(text)
    line, toml = first.line, first.toml
    for _ in range(4):
        if line is None or _accepted(line):
            break
        again = _repair(line)
        line, toml = again.line, {**again.toml, **toml}
    line = line if line and _accepted(line) else None
    hint = " ".join(filter(None, (_instead(line, toml), first.why.advice)))
    return CronError(f'"{_shown(text)}": {first.why.why}.', hint=hint or EXAMPLE)


def _instead(line: str | None, toml: dict[str, str]) -> str:
    if "every" in toml:
        toml, line = {key: toml[key] for key in toml if key != "spread"}, None
    written = ([f"`{line}`"] if line else []) + [f"`{each}`" for each in toml.values()]
    return f"Write {' with '.join(written)}." if line or "every" in toml else ""


def _shown(text: str) -> str:
    shown = text.encode("ascii", "backslashreplace").decode()
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown[:80])
    return shown + "..." * (len(text) > 80)


def _foreign(text: str) -> Refusal | None:
    """Why the whole text is not even an attempt at five or six fields; None if it is one."""
    for reads in _DIALECTS:
        if refusal := reads(text):
            return refusal
    return None


def _why(field: Field, term: str) -> Refusal:
    """Why this term, which is not accepted in this field, is refused."""
    for reads in _TERMS:
        if refusal := reads(field, term.lower()):
            return refusal if _sound(field, refusal) else refusal._replace(instead=None)
    why = f"{field.name} `{term}` is not a value, a list, a range or a step"
    return Refusal(why, advice=EXAMPLE)


def _sound(field: Field, refusal: Refusal) -> bool:
    """Whether what it offers instead is itself accepted."""
    offered = refusal.instead.lower().split(",") if refusal.instead else []
    return all(_term(field, word) for word in offered)


# --- Whole texts ---------------------------------------------------------------------------------
# From here on patterns are texts, compiled when something is refused: compiling all costs 8 ms.

_LOOKALIKES = str.maketrans({"\u00a0": " ", "\u2013": "-", "\u2014": "-", "\u2217": "*"})
_TEMPLATE = r"\$[\w{(]|\{\{|<%|%\(|%[sd]"
_ZONE = r"[A-Za-z_]+/[A-Za-z_/+-]+[0-9]{0,2}|[Uu][Tt][Cc]|[Gg][Mm][Tt]"
_ZONE_PREFIX = r"(?i)(?:CRON_)?TZ=(\S+)\s+(.+)"
_ZONE_SUFFIX = rf"(.+?)\s+({_ZONE})"
_GO_DURATION = r"(?:@every\s+)?((?:\d{1,6}[smhd]){1,4})"
_AWS_RATE = r"(?i)rate\(\s*(\d{1,6})\s+(minute|hour|day)s?\s*\)"
_AWS_CRON = r"(?i)cron\((.*)\)"


def _unreadable(text: str) -> Refusal | None:
    if len(text) > MAX_LENGTH:
        return Refusal(f"it has {len(text):,} characters, and {MAX_LENGTH} is the most")
    if not text.strip():
        return Refusal("it is empty", advice=EXAMPLE)
    if not (strange := _strange_character(text)):
        return None
    plain = text.translate(_LOOKALIKES)
    why = f"it has the character U+{ord(strange):04X}, which is not plain ASCII"
    return Refusal(why, instead=plain if plain.isascii() and plain.isprintable() else None)


def _template(text: str) -> Refusal | None:
    if not re.search(_TEMPLATE, text):
        return None
    return Refusal("it is a template whose value was never filled in", advice=EXAMPLE)


def _zone_in_text(text: str) -> Refusal | None:
    if prefix := re.fullmatch(_ZONE_PREFIX, text):
        zone, line = prefix.groups()
    elif (suffix := re.fullmatch(_ZONE_SUFFIX, text)) and text[0] in "0123456789*@":
        line, zone = suffix.groups()
    else:
        return None
    return Refusal("a time zone has its own key", instead=line, toml=f'timezone = "{zone}"')


def _period(text: str) -> Refusal | None:
    match = re.fullmatch(_GO_DURATION, text.lower())
    if match is None or not match[1].strip("0smhd"):
        return None
    return Refusal("a period has its own key", toml=f'every = "{match[1]}"')


def _alias(text: str) -> Refusal | None:
    word = text.lower()
    if not word.startswith("@") or word in ALIASES:
        return None
    if word in ("@reboot", "@once"):
        return Refusal(f"`{word}` has no meaning here: nothing boots", advice=MANUAL)
    near = get_close_matches(word, ALIASES, 1)
    known = "The known ones are " + ", ".join(f"`{alias}`" for alias in ALIASES) + "."
    return Refusal(f"`{text}` is not known", instead=near[0] if near else None, advice=known)


def _aws(text: str) -> Refusal | None:
    if rate := re.fullmatch(_AWS_RATE, text):
        period = f'every = "{int(rate[1])}{rate[2][0].lower()}"'
        return Refusal("`rate(...)` is AWS's form", toml=period) if int(rate[1]) else None
    if not (wrapped := re.fullmatch(_AWS_CRON, text)):
        return None
    fields = wrapped[1].split()
    return Refusal("`cron(...)` is AWS's form", instead=_without_year(fields, weekday=4))


def _quartz_year(text: str) -> Refusal | None:
    fields = text.split()
    if len(fields) != 7 or re.search(r"[A-Za-z]{4}|,\s", text):
        return None
    why = "it has seven fields: a year is not known here"
    advice = "" if fields[6] in "*?" else "Write `starts` and `ends` for the year."
    return Refusal(why, instead=_without_year(fields, weekday=5), advice=advice)


def _question_mark(text: str) -> Refusal | None:
    fields = text.split()
    if "?" not in fields:
        return None
    line = " ".join("*" if field == "?" else field for field in fields)
    counted = "Quartz and AWS count Sunday as 1, so name the weekdays."
    advice = counted if fields[-1][0].isdigit() else ""
    return Refusal("`?` is Quartz's way to write `*`", instead=line, advice=advice)


def _without_year(fields: list[str], weekday: int) -> str | None:
    """AWS and Quartz end with a year, and count Sunday as 1; names of weekdays are safe."""
    if len(fields) != weekday + 2:
        return " ".join(fields)
    fields[weekday] = re.sub(r"(?<![#/\d])[1-7](?!\d)", _quartz_weekday, fields[weekday])
    return " ".join(fields[: weekday + 1])


def _quartz_weekday(match: re.Match[str]) -> str:
    return WEEKDAY.names[int(match[0]) - 1]


def _blank_after_comma(text: str) -> Refusal | None:
    joined = re.sub(r"\s*,\s*", ",", text)
    if joined == text:
        return None
    return Refusal("a list has no blanks", instead=joined)


def _wrong_count(text: str) -> Refusal | None:
    count = len(text.split())
    if text.strip().lower() in ALIASES or count in (5, 6):
        return None
    fields = "1 field" if count == 1 else f"{count} fields"
    why = f"it has {fields}, not five (or six, with the seconds first)"
    return Refusal(why, advice=EXAMPLE)


def _too_many_terms(text: str) -> Refusal | None:
    for field in text.split():
        if field.count(",") >= MAX_TERMS:
            return Refusal(f"a field has more than {MAX_TERMS} terms", advice=EXAMPLE)
    return None


# --- Natural language ----------------------------------------------------------------------------

_DAYS = r"day|weekday|weekend|(?:sun|mon|tue|tues|wed|wednes|thu|thur|thurs|fri|sat|satur)(?:day)?"
_CLOCK = r"(\d{1,2})(?::(\d\d))?(?::00)? ?([ap]m)?|noon|midnight"
_SPOKEN_ZONE = rf" (?:(?:in|on) )?({_ZONE})$"
_SPOKEN_PERIOD = r"(?i)every (?:(\d{1,5}) )?(second|minute|hour|day|week|month|year)s?"
_SPOKEN_MINUTE = r"(?i)every hour at (?:minute )?:?(\d{1,2})"
_SPOKEN_TIME = rf"(?i)(?:every )?({_DAYS}) (?:at )?({_CLOCK})"
_SPOKEN_UNITS = {
    "second": "* * * * * *",
    "minute": "* * * * *",
    "hour": "0 * * * *",
    "day": "0 0 * * *",
    "week": "0 0 * * 0",
    "month": "0 0 1 * *",
    "year": "0 0 1 1 *",
}


def _spoken(text: str) -> Refusal | None:
    words = " ".join(text.split())
    if not re.search(r"[A-Za-z]{4}", words) or words[0] in "@*0123456789":
        return None
    zone = re.search(_SPOKEN_ZONE, words)
    line, period = _translated(words[: zone.start()] if zone else words)
    toml = [period] if period else []
    toml += [f'timezone = "{zone[1]}"'] if zone and (line or period) else []
    why = "it is natural language, which is not read here"
    advice = "" if line or period else EXAMPLE
    return Refusal(why, instead=line, toml=" and ".join(toml), advice=advice)


def _translated(words: str) -> tuple[str | None, str]:
    """The cron line, or the TOML of the period, that simple English stands for."""
    if minute := re.fullmatch(_SPOKEN_MINUTE, words):
        return f"{int(minute[1])} * * * *", ""
    if period := re.fullmatch(_SPOKEN_PERIOD, words):
        return _translated_period(int(period[1] or 1), period[2].lower())
    if time := re.fullmatch(_SPOKEN_TIME, words):
        return _translated_time(time), ""
    return None, ""


def _translated_period(number: int, unit: str) -> tuple[str | None, str]:
    if number == 1:
        return _SPOKEN_UNITS[unit], ""
    if unit in ("month", "year") or not number:
        return None, ""
    return None, f'every = "{number * 7}d"' if unit == "week" else f'every = "{number}{unit[0]}"'


def _translated_time(time: re.Match[str]) -> str:
    day = {"day": "*", "weekday": "mon-fri", "weekend": "sat,sun"}.get(time[1].lower())
    hour = int(time[3] or (12 if time[2].lower() == "noon" else 0))
    half = (time[5] or "").lower()
    if half:
        hour = hour % 12 + 12 * (half == "pm")
    return f"{int(time[4] or 0)} {hour} * * {day or time[1][:3].lower()}"


_DIALECTS = (
    _unreadable,
    _template,
    _aws,
    _zone_in_text,
    _period,
    _alias,
    _too_many_terms,
    _quartz_year,
    _question_mark,
    _spoken,
    _blank_after_comma,
    _wrong_count,
)

# --- Terms ---------------------------------------------------------------------------------------

_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day-of-month": 86_400}
_SPREADS = {"second": "59s", "minute": "1h"}
_HASH = r"([hr])(?:\((\d{1,2})-(\d{1,2})\))?(?:/(\d{1,3}))?"
_START_STEP = r"(\d{1,3}|[a-z]{3})?/(\d{1,3})"
_STEP = r"[^/]*/(\d{1,6})"
_RANGE = r"(\d{1,3}|[a-z]{3})-(\d{1,3}|[a-z]{3})(?:/(\d{1,3}))?"
_FROM_THE_END = r"l-\d{1,2}|-\d{1,2}"
_NEAREST_WEEKDAY = r"(\d{1,2})w|w(\d{1,2})|lw|wl"


def _empty_term(field: Field, term: str) -> Refusal | None:
    return Refusal(f"{field.name} has an empty term", instead="") if not term else None


def _hashed(field: Field, term: str) -> Refusal | None:
    if not (match := re.fullmatch(_HASH, term)):
        return None
    letter, low, _, step = match.groups()
    instead = f"*/{step}" if step else str(int(low or field.low))
    random = "a value that Jenkins picks" if letter == "h" else "a new value at every reading"
    spread = f"{step}{field.name[0]}" if step and field.name in _SECONDS else ""
    why = f"{field.name} `{term.upper()}` is {random}; a stable spread has its own key"
    toml = f'spread = "{spread or _SPREADS.get(field.name, "1d")}"'
    return Refusal(why, instead=instead, toml=toml)


def _nearest_weekday(field: Field, term: str) -> Refusal | None:
    if not (match := re.fullmatch(_NEAREST_WEEKDAY, term)):
        return None
    why = f"{field.name} `{term.upper()}`: the nearest weekday is not known here"
    advice = "That is the nearest there is: let the job itself look at the weekday."
    return Refusal(why, instead=match[1] or match[2] or "L", advice=advice)


def _last(field: Field, term: str) -> Refusal | None:
    if field is DAY and term == "$":
        return Refusal(f"{field.name} `$` is pg_cron's way to write `L`", instead="L")
    if field is DAY and re.fullmatch(_FROM_THE_END, term):
        why = f"{field.name} `{term.upper()}`: days are not counted from the end of the month"
        return Refusal(why, instead="L", advice="`L`, the last day itself, is the nearest.")
    if field is WEEKDAY and term == "l":
        return Refusal(f"{field.name} `L` is Quartz's way to write Saturday", instead="sat")
    if field is WEEKDAY and re.fullmatch(r"l[0-7]", term):
        return Refusal(f"{field.name} `{term.upper()}` has its letter last", instead=f"{term[1]}L")
    return None


def _start_step(field: Field, term: str) -> Refusal | None:
    if not (match := re.fullmatch(_START_STEP, term)):
        return None
    low = field.value(match[1]) if match[1] else field.low
    if low is None or not int(match[2]):
        return None
    why = f"{field.name} `{term}` is a step without a range"
    return Refusal(why, instead=_stepped(field, low, int(match[2])))


def _stepped(field: Field, low: int, step: int) -> str:
    if low == field.low:
        return f"*/{step}" if step > 1 else "*"
    return f"{low}-{field.all[-1]}/{step}" if low in field.all else str(low)


def _every(seconds: int) -> str:
    """The TOML for a period, in its largest whole unit below weeks; 90 minutes stay minutes."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % length == 0:
            return f'every = "{seconds // length}{unit}"'
    return f'every = "{seconds}s"'


def _bad_step(field: Field, term: str) -> Refusal | None:
    if not (match := re.fullmatch(_STEP, term)):
        return None
    step = int(match[1])
    if step == 0:
        why = f"{field.name} `{term}`: a step is at least 1"
        return Refusal(why, instead=term.partition("/")[0] or None)
    if step <= field.width:
        return None
    why = f"{field.name} `{term}` steps over the whole field, which has {field.width} values"
    period = _every(step * _SECONDS[field.name]) if field.name in _SECONDS else ""
    return Refusal(why, toml=period, advice="" if period else EXAMPLE)


def _reversed(field: Field, term: str) -> Refusal | None:
    if not (match := re.fullmatch(_RANGE, term)):
        return None
    low, high = field.value(match[1]), field.value(match[2])
    if low is None or high is None or low <= high:
        return None
    why = f"{field.name} `{term}` runs backwards: {field.name} starts at {_start(field)}"
    return Refusal(why, instead=_unwrapped(field, match))


def _start(field: Field) -> str:
    return f"{field.names[0]} ({field.low})" if field.names else str(field.low)


def _unwrapped(field: Field, match: re.Match[str]) -> str:
    """A range that passes the end of its field, as the list or the ranges it was meant to be."""
    low, high = (field.value(word) or 0 for word in (match[1], match[2]))
    if low not in field.all:
        return f"0{match[0][1:]}"
    values = [*range(low, field.all[-1] + 1), *range(field.low, high + 1)][:: int(match[3] or 1)]
    if len(values) == field.width:
        return "*"
    if match[1] in field.names:
        return ",".join(field.names[value - field.low] for value in values)
    if match[3]:
        return ",".join(map(str, values))
    if field is WEEKDAY and high == 0:
        return f"{low}-7"
    return f"{_span(low, field.all[-1])},{_span(field.low, high)}"


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _unknown_value(field: Field, term: str) -> Refusal | None:
    """The first word of the term that this field has no value for."""
    for word in re.findall(r"[a-z]+|\d+", term.partition("/")[0].partition("#")[0]):
        if field.value(word) is None:
            explain = _unknown_number if word.isdigit() else _unknown_name
            return explain(field, term, word)
    return None


def _unknown_number(field: Field, term: str, word: str) -> Refusal | None:
    why = f"{field.name} `{term}`: {word[:9]} is not within {field.low}-{field.high}"
    if word != str(field.high + 1) or field not in (SECOND, MINUTE, HOUR):
        return Refusal(why, advice=EXAMPLE)
    return Refusal(why, instead=re.sub(f"^{word}$", "0", term).replace(word, str(field.high)))


def _unknown_name(field: Field, term: str, word: str) -> Refusal | None:
    if not field.names or len(word) < 3:
        return None
    near = get_close_matches(word, field.names, 1)
    near = [word[:3]] if word[:3] in field.names else near
    why = f"{field.name} `{term}`: `{word}` is not one of {', '.join(field.names)}"
    return Refusal(why, instead=term.replace(word, near[0]) if near else None)


_TERMS = (
    _empty_term,
    _hashed,
    _nearest_weekday,
    _last,
    _bad_step,
    _start_step,
    _reversed,
    _unknown_value,
)
