"""schedules.toml: reading it strictly, and describing it to editors and to people.

`KEYS` is the one table of what a schedule may say; reading, the JSON Schema that editors use and the table of the
guide come from it. Only `load` touches a file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from . import alerts, payloads
from .alerts import Rules
from .backoff import DURATION, parse_duration, shown
from .config import Settings
from .cron import Cron, zone
from .errors import ConfigurationError, SchedulesFileError
from .limits import MOST, Limit, Rate, parse_rate
from .options import URL
from .schedules import Schedule

MOST_BYTES = 4 * 1024 * 1024
MOST_SCHEDULES = 20_000

_DAY = timedelta(days=1)

# --- Values --------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_TYPE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


class _Problem(ValueError):
    """A value that is refused; the message follows the key's path and a colon."""


def _nearest(word: object, words: Iterable[str]) -> str:
    near = get_close_matches(str(word)[:100], list(words), 1)
    return f'; did you mean "{near[0]}"?' if near else ""


def _text(value: Any, most: int = 1000) -> str:
    if not isinstance(value, str):
        raise _Problem(f"{shown(value)} is not a text in quotes")
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
    raise _Problem(f"{shown(value)} is not one of {listed}{_nearest(value, choices)}")


def _whole(value: Any, low: int, high: int) -> int:
    if type(value) is not int:
        raise _Problem(f"{shown(value)} is not a whole number")
    if not low <= value <= high:
        raise _Problem(f"{shown(value)} is not within {low:,} to {high:,}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Problem(f"{shown(value)} is not true or false (without quotes)")
    return value


def _duration(value: Any, most: timedelta | None = None) -> timedelta:
    try:
        duration = parse_duration(value)
    except ConfigurationError as error:
        raise _Problem(str(error)) from None
    if most and duration > most:
        raise _Problem(f"{shown(value)} is more than {most.days} day{'s' * (most.days > 1)}")
    return duration


def _moment(value: Any) -> datetime:
    """A date is its midnight; without an offset it stays naive until the zone is known."""
    if not isinstance(value, date):
        raise _Problem(f"{shown(value)} is not a date or a date and time, such as 2027-01-31 or 2027-01-31T09:00:00")
    if not 1970 <= value.year <= 9000:
        raise _Problem(f"{shown(value)} is not within the years 1970 to 9000")
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
        raise _Problem(f"{shown(value)} cannot be a type: a letter or _, then up to 99 letters, digits and _ . -")
    return value


def _url(value: Any) -> str:
    if not isinstance(value, str) or not URL.fullmatch(value):
        raise _Problem(f"{shown(value)} is not a URL: http:// or https://, and at most 2,000 characters without spaces")
    return _text(value, 2000)


def _payload(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Problem(f"{shown(value)} is not a table, such as {{ user_id = 42 }}")
    payload = {key: _json(each, key, 2) for key, each in value.items() if _text(key)}
    size = len(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())
    if size > payloads.MOST_BYTES:
        raise _Problem(f"it has {size:,} bytes as JSON, and {payloads.MOST_BYTES:,} is the most")
    return payload


def _json(value: Any, path: str, depth: int) -> Any:
    """The value as JSON has it: dates and times become ISO 8601 texts."""
    if depth > payloads.MOST_DEPTH:
        raise _Problem(f"it is nested deeper than {payloads.MOST_DEPTH} levels")
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
    text = {"type": "string", "pattern": rf"^(?=\d){DURATION.pattern}$".replace("?:", "")}
    schema = {"anyOf": [text, {"type": "integer", "minimum": 1}]}
    return Kind(words, partial(_duration, most=most), schema)


def _a_text(read: Callable[[Any], str], **schema: Any) -> Kind:
    return Kind("text", read, {"type": "string", **schema})


_MOMENT = Kind("date, or date and time", _moment, {"type": "string"})
_URL = _a_text(_url, pattern="^https?://", maxLength=2000)
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
    Key("callback_url", _URL, "Is sent a signed POST when a job has ended: done, dead or cancelled.", inherited=True),
    Key("on_dead_url", _URL, "Is sent a signed POST when a job is dead.", inherited=True),
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


class Contents(NamedTuple):
    """What a file says; of alerts and retention, what is set by key."""

    schedules: tuple[Schedule, ...] = ()
    limits: tuple[Limit, ...] = ()
    alerts: Mapping[str, Any] = MappingProxyType({})
    retention: Mapping[str, Any] = MappingProxyType({})


def load(path: Path | str) -> tuple[Schedule, ...]:
    """The schedules of a file; SchedulesFileError tells everything that is wrong with it."""
    return read(path).schedules


def read(path: Path | str) -> Contents:
    """What a file says; SchedulesFileError tells everything that is wrong with it."""
    return contents(_text_of(path), str(path))


def _text_of(path: Path | str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        _check_size(content, str(path))
        return content.decode("utf-8-sig")
    except OSError as error:
        raise SchedulesFileError(str(path), [f"it cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise SchedulesFileError(str(path), [f"it is not UTF-8 at byte {error.start:,}"]) from None


def parse(text: str, source: str = "schedules.toml") -> tuple[Schedule, ...]:
    """The schedules of a text; `source` is what an error calls it."""
    return contents(text, source).schedules


def contents(text: str, source: str = "schedules.toml") -> Contents:
    """What a text says; `source` is what an error calls it."""
    _check_size(text.encode("utf-8", "replace"), source)
    problems: list[str] = []
    document = _toml(text, source)
    schedules = _read(document, problems)
    limits = _limits(document.get("limits", {}), problems)
    told = _values("alerts", document.get("alerts", {}), _ALERT_KEYS, problems)
    kept = _values("retention", document.get("retention", {}), _RETENTION_KEYS, problems)
    if problems:
        raise SchedulesFileError(source, problems)
    return Contents(tuple(schedules), tuple(limits), told, kept)


def read_project(settings: Settings) -> Contents:
    """What the project's file says, and of alerts and retention what pyproject.toml says where the file does not.

    Raises SchedulesFileError for what is wrong in either, and for alerts that nobody would be told.
    """
    path = settings.schedules_path
    said = read(path) if path.exists() else Contents()
    problems: list[str] = []
    told = _values("tool.tick.alerts", settings.alerts, _ALERT_KEYS, problems)
    kept = _values("tool.tick.retention", settings.retention, _RETENTION_KEYS, problems)
    if problems:
        raise SchedulesFileError(str(settings.root / "pyproject.toml"), problems)
    said = said._replace(alerts={**told, **said.alerts}, retention={**kept, **said.retention})
    if said.alerts and not alerts.targets(said.alerts):
        raise SchedulesFileError(path.name, ["alerts: nobody is told; write slack, webhook or email"])
    return said


def read_targets(settings: Settings) -> dict[alerts.Target, str]:
    """Whom the project's alerts tell, without a look at its schedules. Raises SchedulesFileError."""
    path, problems = settings.schedules_path, list[str]()
    document = _toml(_text_of(path), str(path)) if path.exists() else {}
    told = _values("tool.tick.alerts", settings.alerts, _ALERT_KEYS, problems)
    told |= _values("alerts", document.get("alerts", {}), _ALERT_KEYS, problems)
    if problems:
        raise SchedulesFileError(str(path), problems)
    return alerts.targets(told)


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


_TABLES = ("alerts", "defaults", "limits", "retention", "schedules")


# --- Limits --------------------------------------------------------------------------------------


def _rate(value: Any) -> Rate:
    try:
        return parse_rate(value)
    except ConfigurationError as error:
        raise _Problem(str(error)) from None


_A_RATE = Kind("rate", _rate, {"type": "string", "pattern": r"^\d+ */ *(second|minute|hour|day|\d+[dhms].*)$"})
LIMIT_KEYS = (
    Key("concurrency", _a_whole(1, MOST), "How many of its jobs run at once, in all ticks together."),
    Key("rate", _A_RATE, 'How many of its jobs start in any such period: `"100/minute"`, `"5/10s"`.'),
    Key("rate_per_key", _A_RATE, "The same, for each key by itself."),
)
_LIMIT_KEYS = {key.name: key for key in LIMIT_KEYS}
_PREFIX = re.compile(r"[^\0]{1,500}\*")


def _limits(tables: Any, problems: list[str]) -> list[Limit]:
    """[limits.TYPE], or [limits."PREFIX*"] for the keys that begin with a prefix."""
    if not isinstance(tables, dict):
        problems.append("limits: each limit is a table of its own, [limits.TYPE]")
        return []
    return [limit for name, table in tables.items() if (limit := _limit(name, table, problems))]


def _limit(name: str, table: Any, problems: list[str]) -> Limit | None:
    place = f"limits.{_bare(name)}"
    values = _values(place, table, _LIMIT_KEYS, problems)
    if table == {}:
        problems.append(f"{place}: it limits nothing; write concurrency, rate or rate_per_key")
    if _PREFIX.fullmatch(name):
        return Limit(key_prefix=name[:-1], **values)
    if not _TYPE.fullmatch(name):
        problems.append(f'{place}: a limit is for a type, or for keys: write their beginning and a *, "customer:*"')
        return None
    return Limit(type=name, **values)


# --- Alerts and retention ------------------------------------------------------------------------

_REFERENCE = re.compile(r"secret:[a-z0-9_]{1,100}", re.ASCII)
_ADDRESS = re.compile(r"[^@\s<>\"(),:;\\\[\]]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*", re.ASCII)
_MOST_TARGETS = 10


def _hook(value: Any) -> str:
    if isinstance(value, str) and (_REFERENCE.fullmatch(value) or URL.fullmatch(value)):
        return value
    if isinstance(value, str) and value.startswith("secret:"):
        raise _Problem(f"{shown(value)} names no secret: write secret:slack for TICK_SECRET_SLACK, in lower case")
    # Not shown: it may be most of a URL that is a secret.
    raise _Problem('it is neither a URL (http:// or https://) nor "secret:NAME", for TICK_SECRET_NAME')


def _email(value: Any) -> str:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value) or len(value) > 254:
        raise _Problem(f'{shown(value)} is not an address such as "ops@example.com"')
    return value


def _one_or_more(value: Any, read: Callable[[Any], str]) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= _MOST_TARGETS:
        raise _Problem(f"it has {len(values)} of them, and may have 1 to {_MOST_TARGETS}")
    return tuple(dict.fromkeys(map(read, values)))


def _types(value: Any) -> tuple[str, ...]:
    return tuple(_text(each, 1000) for each in (value if isinstance(value, list) else [value]))


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise _Problem(f"{shown(value)} is not a share above 0 and up to 1, such as 0.5 for half")
    return float(value)


def _unless_off(kind: Kind) -> Kind:
    def read(value: Any) -> Any:
        return False if value is False else kind.read(value)

    return Kind(f"{kind.words}, or `false`", read, {"anyOf": [{"const": False}, kind.schema]})


def _a_list(kind: Kind) -> Kind:
    schema = {"anyOf": [kind.schema, {"type": "array", "items": kind.schema, "minItems": 1, "maxItems": _MOST_TARGETS}]}
    return Kind(f"{kind.words}, or a list of them", partial(_one_or_more, read=kind.read), schema)


_ON = Kind("`true`, `false`", _flag, {"type": "boolean"})
_HOOK = Kind(
    '`"secret:NAME"`, or URL',
    _hook,
    {"type": "string", "pattern": "^(https?://|secret:[a-z0-9_]+$)", "maxLength": 2000},
)
_EMAIL = Kind("address", _email, {"type": "string", "pattern": "^[^@ ]+@[A-Za-z0-9.-]+$", "maxLength": 254})
_SHARE = Kind("share, up to 1", _share, {"type": "number", "exclusiveMinimum": 0, "maximum": 1})

ALERT_KEYS = (
    Key("slack", _a_list(_HOOK), "Incoming webhooks of Slack: a URL, or the name of the secret that holds it."),
    Key("webhook", _a_list(_HOOK), "URLs that are sent each message as JSON, signed if `TICK_SECRET_WEBHOOK` is set."),
    Key("email", _a_list(_EMAIL), "Addresses to mail to, through `TICK_SMTP_URL`, from `TICK_MAIL_FROM`."),
    Key("dead", _ON, "A job has died."),
    Key("failure_rate", _unless_off(_SHARE), "So much of a type's attempts in 15 minutes failed, of ten at least."),
    Key(
        "backlog",
        _unless_off(_a_duration()),
        "The oldest due job has waited for longer, and the queue has not shrunk for five minutes.",
    ),
    Key("stopped", _ON, "No tick for three intervals, or none by a trigger that had come regularly."),
    Key("missed", _unless_off(_a_whole(1, 100)), "None of a schedule's last so many windows succeeded."),
    Key("repeat", _a_duration(), "An alert that lasts, or comes again, is told again after so long."),
    Key("quiet", _a_duration(), "Without a death or a failure for so long, a type has recovered."),
    Key(
        "mute",
        Kind("type, or a list of them", _types, {"type": ["string", "array"], "items": {"type": "string"}}),
        "Types of which neither deaths nor failures are told.",
    ),
)
RETENTION_KEYS = (
    Key("done", _a_duration(), "How long jobs that are done are kept, from their end; 30 days by default."),
    Key("cancelled", _a_duration(), "The same for cancelled ones; 30 days by default."),
    Key("dead", _a_duration(), "The same for dead ones; 90 days by default."),
    Key(
        "count",
        _a_whole(1, 1_000_000_000),
        "How many done or cancelled jobs of each type are kept; 1,000,000 by default.",
    ),
    Key("ticks", _a_duration(), "How long ticks are kept, and what was skipped; 90 days by default."),
    Key("idle_ticks", _a_duration(), "The same for ticks that had nothing to do; 7 days by default."),
)
_ALERT_KEYS = {key.name: key for key in ALERT_KEYS}
_RETENTION_KEYS = {key.name: key for key in RETENTION_KEYS}
_ALERT_DEFAULTS = asdict(Rules())


def _unknown_table(name: str, table: Any) -> str:
    if isinstance(table, dict) and {"cron", "every"} & set(table):
        return f"{_bare(name)}: unknown table; did you mean [schedules.{_bare(name)}]?"
    kind = "table" if isinstance(table, dict | list) else "key"
    known = _nearest(name, _TABLES) or (
        "; a file has [defaults], [limits.TYPE], [alerts], [retention] and [schedules.NAME]"
    )
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
        problems.append(f"{place}: {shown(table)} is not a table")
        return {}
    values = {}
    for name, value in table.items():
        if name not in keys:
            problems.append(f"{place}.{_bare(name)}: {_unknown_key(name, keys, place)}")
            continue
        try:
            values[name] = keys[name].kind.read(value)
        except _Problem as problem:
            problems.append(f"{place}.{name}: {problem}")
    return values


def _unknown_key(name: str, keys: Mapping[str, Key], place: str) -> str:
    if name in _BY_NAME:
        return f"belongs to a schedule, not to [{'limits' if keys is _LIMIT_KEYS else place}]"
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
            "limits": {
                "type": "object",
                "description": "How many jobs run at once or start in a period: of a type, or of keys (customer:*).",
                "additionalProperties": _object_schema(LIMIT_KEYS) | {"minProperties": 1},
            },
            "alerts": _object_schema(ALERT_KEYS) | {"description": "When to tell somebody, and whom."},
            "retention": _object_schema(RETENTION_KEYS) | {"description": "How long what has ended is kept."},
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
    default = _DEFAULTS.get(key.name)
    known = {"default": default} if isinstance(default, str | int) and default != "" else {}
    return {**key.kind.schema, "description": key.doc.replace("`", ""), **known}


def key_table() -> str:
    """The table of a schedule's keys in the guide, in Markdown."""
    rows = [f"| `{key.name}` | {key.kind.words} | {_default_shown(key)} | {key.doc} |" for key in KEYS]
    return "\n".join(["| key | value | default | what it does |", "| --- | --- | --- | --- |", *rows])


def limit_table() -> str:
    """The table of a limit's keys in the guide, in Markdown."""
    rows = [f"| `{key.name}` | {key.kind.words} | {key.doc} |" for key in LIMIT_KEYS]
    return "\n".join(["| key | value | what it limits |", "| --- | --- | --- |", *rows])


def alert_table() -> str:
    """The table of the keys of [alerts] in the guide, in Markdown."""
    rows = [f"| `{key.name}` | {key.kind.words} | {_alert_default(key.name)} | {key.doc} |" for key in ALERT_KEYS]
    return "\n".join(["| key | value | default | what it means |", "| --- | --- | --- | --- |", *rows])


def _alert_default(name: str) -> str:
    default = _ALERT_DEFAULTS.get(name, ())
    if _ALERT_KEYS[name].kind.words.startswith("duration"):
        hours, minutes = divmod(round(default / 60), 60)
        return f'`"{hours}h"`' if hours else f'`"{minutes}m"`'
    return f"`{json.dumps(default)}`" if default != () else ""


def _default_shown(key: Key) -> str:
    default = _DEFAULTS[key.name]
    return f"`{json.dumps(default)}`" if isinstance(default, str | int) and default != "" else ""
