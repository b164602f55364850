"""Schedules: from schedules.toml to values, and from a schedule to the windows that are due.

Everything here is plain values: the clock and the cursor are passed in, and only `load` touches a
file. `KEYS` is the one table of what a schedule may say; reading, the JSON Schema that editors use
and the table of the guide come from it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from .cron import EPOCH, Cron, zone
from .errors import ConfigurationError, SchedulesFileError

LATE_AFTER = timedelta(minutes=10)
"""`catch_up = "none"` still makes a window that is no older: no tick is quite on time."""
MOST_COUNTED = 10_000
"""Skipped windows are counted up to here; a longer row of them is recorded without its count."""
MOST_BYTES = 4 * 1024 * 1024
MOST_SCHEDULES = 20_000
MOST_PAYLOAD_BYTES = 64 * 1024
MOST_PAYLOAD_DEPTH = 32

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
    description: str = ""

    def body(self) -> dict[str, Any]:
        """All but the name, as JSON can hold it: durations in seconds, instants as ISO 8601."""
        return {key.name: _plain(getattr(self, key.name)) for key in KEYS}

    @classmethod
    def from_body(cls, name: str, body: Mapping[str, Any]) -> Schedule:
        """The schedule whose `body` this is, without keys that only another version knows."""
        values = {key.name: body[key.name] for key in KEYS if key.name in body}
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


# --- Values --------------------------------------------------------------------------------------

_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


class _Problem(ValueError):
    """A value that is refused; the message follows the key's path and a colon."""


def parse_duration(value: str | int) -> timedelta:
    """A positive duration: "90s", "10m", "1h30m", "2d", or a whole number of seconds.

    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)
    """
    seconds = value if type(value) is int else 0
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if not 0 < seconds <= 3650 * 86_400:
        raise ConfigurationError(
            f'{_shown(value)} is not a duration: write "90s", "10m", "1h30m", "2d"'
            " or a positive whole number of seconds"
        )
    return timedelta(seconds=seconds)


def _shown(value: Any) -> str:
    """A TOML value as its author wrote it, or nearly."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, date | time):
        return value.isoformat()
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= 80 else f"{shown[:76]}..."


def _nearest(word: object, words: Iterable[str]) -> str:
    near = get_close_matches(str(word)[:100], list(words), 1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _text(value: Any, most: int = 1000) -> str:
    if not isinstance(value, str):
        raise _Problem(f"{_shown(value)} is not a text in quotes")
    if "\0" in value:
        raise _Problem("it has a NUL character, which Postgres cannot store")
    if len(value.encode()) > most:
        raise _Problem(f"it has {len(value.encode()):,} bytes, and {most:,} is the most")
    return value


def _nonempty(value: Any, most: int) -> str:
    if value == "":
        raise _Problem("it is empty; leave the key out instead")
    return _text(value, most)


def _choice(value: Any, choices: tuple[str, ...]) -> str:
    if value in choices:
        return str(value)
    listed = ", ".join(f'"{choice}"' for choice in choices)
    raise _Problem(f"{_shown(value)} is not one of {listed}{_nearest(value, choices)}")


def _whole(value: Any, low: int, high: int) -> int:
    if type(value) is not int:
        raise _Problem(f"{_shown(value)} is not a whole number")
    if not low <= value <= high:
        raise _Problem(f"{_shown(value)} is not within {low:,} to {high:,}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Problem(f"{_shown(value)} is not true or false (without quotes)")
    return value


def _duration(value: Any, most: timedelta | None = None) -> timedelta:
    try:
        duration = parse_duration(value)
    except ConfigurationError as error:
        raise _Problem(str(error)) from None
    if most and duration > most:
        raise _Problem(f"{_shown(value)} is more than {most.days} day{'s' * (most.days > 1)}")
    return duration


def _moment(value: Any) -> datetime:
    """A date is its midnight; without an offset it stays naive until the zone is known."""
    if not isinstance(value, date):
        raise _Problem(f"{_shown(value)} is not a date or a date and time, such as 2027-01-31 or 2027-01-31T09:00:00")
    if not 1970 <= value.year <= 9000:
        raise _Problem(f"{_shown(value)} is not within the years 1970 to 9000")
    return value if isinstance(value, datetime) else datetime.combine(value, time())


def _cron(value: Any) -> str:
    try:
        return Cron.parse(value).text
    except ConfigurationError as error:
        raise _Problem(str(error)) from None


def _zone(value: Any) -> str:
    try:
        return zone(_text(value)).key
    except ConfigurationError as error:
        raise _Problem(str(error)) from None


def _type(value: Any) -> str:
    if not isinstance(value, str) or not _TYPE.fullmatch(value):
        raise _Problem(f"{_shown(value)} cannot be a type: a letter or _, then up to 99 letters, digits and _ . -")
    return value


def _payload(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Problem(f"{_shown(value)} is not a table, such as {{ user_id = 42 }}")
    payload = {key: _json(each, key, 2) for key, each in value.items() if _text(key)}
    size = len(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MOST_PAYLOAD_BYTES:
        raise _Problem(f"it has {size:,} bytes as JSON, and {MOST_PAYLOAD_BYTES:,} is the most")
    return payload


def _json(value: Any, path: str, depth: int) -> Any:
    """The value as JSON has it: dates and times become ISO 8601 texts."""
    if depth > MOST_PAYLOAD_DEPTH:
        raise _Problem(f"it is nested deeper than {MOST_PAYLOAD_DEPTH} levels")
    if isinstance(value, dict):
        return {_text(key): _json(each, f"{path}.{key}", depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_json(each, f"{path}[{i}]", depth + 1) for i, each in enumerate(value)]
    return _json_scalar(value, path)


def _json_scalar(value: Any, path: str) -> Any:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise _Problem(f"{path} is {value}, which JSON does not have")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _Problem(f"{path} does not fit 64 bits; write it as a text")
    if isinstance(value, str) and "\0" in value:
        raise _Problem(f"{path} has a NUL character, which Postgres cannot store")
    return value


# --- The keys ------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """What a value may be: in words, as the function that reads it, and as JSON Schema."""

    words: str
    read: Callable[[Any], Any]
    schema: dict[str, Any]


class Key(NamedTuple):
    """A key of a schedule; its default is that of the field of `Schedule` with its name."""

    name: str
    kind: Kind
    doc: str
    inherited: bool = False
    """Whether [defaults] may have it."""


def _a_choice(*choices: str) -> Kind:
    words = ", ".join(f'`"{choice}"`' for choice in choices)
    return Kind(words, partial(_choice, choices=choices), {"enum": list(choices)})


def _a_whole(low: int, high: int) -> Kind:
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Kind(f"{low:,} to {high:,}", partial(_whole, low=low, high=high), schema)


def _a_duration(words: str = "duration", most: timedelta | None = None) -> Kind:
    text = {"type": "string", "pattern": rf"^(?=\d){_DURATION.pattern}$".replace("?:", "")}
    schema = {"anyOf": [text, {"type": "integer", "minimum": 1}]}
    return Kind(words, partial(_duration, most=most), schema)


def _a_text(read: Callable[[Any], str], **schema: Any) -> Kind:
    return Kind("text", read, {"type": "string", **schema})


_MOMENT = Kind("date, or date and time", _moment, {"type": "string"})
_UP_TO_A_DAY = _a_duration("duration, up to 1d", _DAY)

KEYS = (
    Key(
        "cron",
        _a_text(_cron, minLength=1, maxLength=256),
        "When: minute, hour, day-of-month, month, day-of-week; or six fields, the seconds first.",
    ),
    Key(
        "every",
        _a_duration(),
        "A period, instead of `cron`: counted from `starts`, else from 1970-01-01T00:00Z.",
    ),
    Key(
        "type",
        _a_text(_type, pattern=f"^{_TYPE.pattern}$"),
        "The type of the job. Without it, the schedule's name with `_` for `-`.",
    ),
    Key(
        "payload",
        Kind("table", _payload, {"type": "object"}),
        "The job's arguments: 64 KiB as JSON at most. Dates and times become ISO 8601 texts.",
    ),
    Key(
        "timezone",
        _a_text(_zone, minLength=1),
        'The IANA time zone in which `cron` is read, such as `"Europe/Paris"`.',
        inherited=True,
    ),
    Key(
        "catch_up",
        _a_choice("latest", "all", "none"),
        "Which windows to make when several are due: the latest one, all of them,"
        " or only one that is at most ten minutes old.",
        inherited=True,
    ),
    Key(
        "max_catch_up",
        _a_whole(1, 10_000),
        'With `catch_up = "all"`, how many windows are made at most; the oldest are skipped.',
        inherited=True,
    ),
    Key(
        "overlap",
        _a_choice("allow", "skip"),
        "`skip` makes no window while a job of this schedule is pending or running.",
        inherited=True,
    ),
    Key(
        "spread",
        _UP_TO_A_DAY,
        "Runs the jobs up to this much later, by an amount that is always the same for a name.",
        inherited=True,
    ),
    Key(
        "enabled",
        Kind("`true`, `false`", _flag, {"type": "boolean"}),
        "`false` makes no windows; the schedule can still be run by hand.",
    ),
    Key(
        "starts",
        _MOMENT,
        "No window before it. A date is its midnight; without an offset, local time in `timezone`.",
        inherited=True,
    ),
    Key("ends", _MOMENT, "No window at it or after it.", inherited=True),
    Key(
        "max_attempts",
        _a_whole(1, 100),
        "How often a job is tried before it is dead. Without it, what its handler says.",
        inherited=True,
    ),
    Key(
        "timeout",
        _UP_TO_A_DAY,
        "How long an attempt may take. Without it, what its handler says.",
        inherited=True,
    ),
    Key(
        "priority",
        _a_whole(-32_768, 32_767),
        "Jobs with a higher one are claimed first.",
        inherited=True,
    ),
    Key(
        "key",
        _a_text(partial(_nonempty, most=500), minLength=1, maxLength=500),
        "Jobs that have the same key never run at the same time.",
    ),
    Key("description", _a_text(_text), "For people: shown beside the schedule."),
)
_BY_NAME = {key.name: key for key in KEYS}
_IN_DEFAULTS = {key.name: key for key in KEYS if key.inherited}
_DEFAULTS = {each.name: each.default for each in fields(Schedule) if each.name in _BY_NAME}
_OTHER_WORDS = {
    "tz": "timezone",
    "time_zone": "timezone",
    "schedule": "cron",
    "interval": "every",
    "args": "payload",
    "jitter": "spread",
    "retries": "max_attempts",
    "disabled": "enabled",
    "handler": "type",
    "start": "starts",
    "end": "ends",
}

# --- The file ------------------------------------------------------------------------------------


def load(path: Path | str) -> tuple[Schedule, ...]:
    """The schedules of a file; SchedulesFileError tells everything that is wrong with it."""
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        _check_size(content, str(path))
        return parse(content.decode("utf-8-sig"), str(path))
    except OSError as error:
        raise SchedulesFileError(str(path), [f"it cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise SchedulesFileError(str(path), [f"it is not UTF-8 at byte {error.start:,}"]) from None


def parse(text: str, source: str = "schedules.toml") -> tuple[Schedule, ...]:
    """The schedules of a text; `source` is what an error calls it."""
    _check_size(text.encode("utf-8", "replace"), source)
    problems: list[str] = []
    schedules = _read(_toml(text, source), problems)
    if problems:
        raise SchedulesFileError(source, problems)
    return tuple(schedules)


def _check_size(content: bytes, source: str) -> None:
    if len(content) > MOST_BYTES:
        raise SchedulesFileError(source, [f"it has more than {MOST_BYTES:,} bytes"])


def _toml(text: str, source: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SchedulesFileError(source, ["it is nested too deeply to be read"]) from None
    except ValueError as error:
        why, _, where = str(error).partition(" (at ")
        line = f"{where.rstrip(')')}: {why}" if where else why
        raise SchedulesFileError(source, [line]) from None


def _read(document: dict[str, Any], problems: list[str]) -> list[Schedule]:
    problems += [_unknown_table(*each) for each in document.items() if each[0] not in _TABLES]
    defaults = _values("defaults", document.get("defaults", {}), _IN_DEFAULTS, problems)
    tables = document.get("schedules", {})
    if not isinstance(tables, dict):
        problems.append("schedules: each schedule is a table of its own, [schedules.NAME]")
        return []
    if len(tables) > MOST_SCHEDULES:
        problems.append(f"schedules: there are {len(tables):,}, and {MOST_SCHEDULES:,} is the most")
        return []
    return [_schedule(name, table, defaults, problems) for name, table in tables.items()]


_TABLES = ("defaults", "schedules")


def _unknown_table(name: str, table: Any) -> str:
    if isinstance(table, dict) and {"cron", "every"} & set(table):
        return f"{_bare(name)}: unknown table; did you mean [schedules.{_bare(name)}]?"
    kind = "table" if isinstance(table, dict | list) else "key"
    known = _nearest(name, _TABLES) or "; a file has [defaults] and [schedules.NAME]"
    return f"{_bare(name)}: unknown {kind}{known}"


def _bare(name: str) -> str:
    return name if _NAME.fullmatch(name) and "." not in name else json.dumps(name[:110])


def _schedule(name: str, table: Any, defaults: dict[str, Any], problems: list[str]) -> Schedule:
    place = f"schedules.{_bare(name)}"
    if not _NAME.fullmatch(name):
        problems.append(f"{place}: a name is a letter or digit, then up to 99 letters, digits and _ . -")
    own = _values(place, table, _BY_NAME, problems)
    values = {**_DEFAULTS, "payload": {}, "type": name.replace("-", "_"), **defaults, **own}
    for each in ("starts", "ends"):
        values[each] = _localised(values[each], values["timezone"])
    given = set(table) if isinstance(table, dict) else {"cron"}
    problems += [f"{place}{problem}" for problem in _contradictions(name, given, values)]
    return Schedule(name, **values)


def _values(place: str, table: Any, keys: Mapping[str, Key], problems: list[str]) -> dict[str, Any]:
    """The values of a table that can be read; what cannot is added to `problems`."""
    if not isinstance(table, dict):
        problems.append(f"{place}: {_shown(table)} is not a table")
        return {}
    values = {}
    for name, value in table.items():
        if name not in keys:
            problems.append(f"{place}.{_bare(name)}: {_unknown_key(name, keys)}")
            continue
        try:
            values[name] = keys[name].kind.read(value)
        except _Problem as problem:
            problems.append(f"{place}.{name}: {problem}")
    return values


def _unknown_key(name: str, keys: Mapping[str, Key]) -> str:
    if name in _BY_NAME:
        return "belongs to a schedule, not to [defaults]"
    if other := _OTHER_WORDS.get(name.lower().replace("-", "_")):
        return f'unknown key; did you mean "{other}"?'
    return f"unknown key{_nearest(name, keys) or '; the keys are ' + ', '.join(keys)}"


def _localised(moment: datetime | None, timezone: str) -> datetime | None:
    if moment is None:
        return None
    local = moment if moment.tzinfo else moment.replace(tzinfo=zone(timezone))
    return local.astimezone(UTC)


def _contradictions(name: str, given: set[str], values: dict[str, Any]) -> Iterable[str]:
    """What no key has wrong alone; each goes on where the schedule's path ends."""
    if {"cron", "every"} <= given:
        yield ": cron and every are both given; keep one"
    if not {"cron", "every"} & given and values["enabled"]:
        yield ": it has neither cron nor every; write one, or enabled = false to run it by hand"
    if "type" not in given and _NAME.fullmatch(name) and not _TYPE.fullmatch(values["type"]):
        yield f'.type: the name makes "{values["type"]}", which cannot be one; write type = "..."'
    if values["starts"] and values["ends"] and values["starts"] >= values["ends"]:
        yield ".ends: it is not after starts"
    if values["every"] and values["spread"] and values["spread"] >= values["every"]:
        yield ".spread: it is not shorter than every, so jobs would run in a later period"


# --- For editors and for the guide ---------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7, which editors know best) of schedules.toml."""
    schedule = _object_schema(KEYS) | {"not": {"required": ["cron", "every"]}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "schedules.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "defaults": _object_schema(_IN_DEFAULTS.values())
            | {"description": "Values for every schedule that does not have its own."},
            "schedules": {
                "type": "object",
                "description": "A table for each schedule: [schedules.NAME].",
                "propertyNames": {"pattern": f"^{_NAME.pattern}$"},
                "additionalProperties": schedule,
            },
        },
    }


def _object_schema(keys: Iterable[Key]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name: _property_schema(key) for key in keys},
    }


def _property_schema(key: Key) -> dict[str, Any]:
    default = _DEFAULTS[key.name]
    known = {"default": default} if isinstance(default, str | int) and default != "" else {}
    return {**key.kind.schema, "description": key.doc.replace("`", ""), **known}


def key_table() -> str:
    """The table of keys of the guide, in Markdown."""
    rows = [f"| `{key.name}` | {key.kind.words} | {_default_shown(key)} | {key.doc} |" for key in KEYS]
    return "\n".join(["| key | value | default | what it does |", "| --- | --- | --- | --- |", *rows])


def _default_shown(key: Key) -> str:
    default = _DEFAULTS[key.name]
    return f"`{json.dumps(default)}`" if isinstance(default, str | int) and default != "" else ""
