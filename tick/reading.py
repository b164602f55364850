"""Reading a request into values: everything that is wrong with it is said at once, where it is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from inspect import Parameter
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec

from .bodies import MOST_JOBS, JobToEnqueue, Violation
from .errors import InvalidPayload, UnknownJobType
from .handlers import Handler, Registry
from .jobs import NewJob
from .options import Options, seconds
from .refusals import Refused

MOST_DEPTH = 40
"""Levels of a body: those of a payload, and of what is around it."""
MOST_VIOLATIONS = 100
LONGEST_NAME = 100
LONGEST_MESSAGE = 300
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(9990, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_MISSING = "Object missing required field"
_NOT_LISTED = "Invalid enum value "
_INSTANT = "write 2030-01-01T00:00:00Z; or for Z an offset such as +01:00, which is %2B01:00 in a query"
_INSTEAD = {
    "Invalid RFC3339 encoded datetime": f"it is no instant of RFC 3339: {_INSTANT}",
    "Expected `datetime` with a timezone component": f"it has no time zone: {_INSTANT}",
}
_AT = re.compile(r"(?s)(?P<message>.*?)(?: - at `(?:key in )?\$(?P<path>.*)`)?")

T = TypeVar("T", bound=msgspec.Struct)


class Reading:
    """Reads a request into values, and gathers what is wrong with it: `done` refuses it if anything is."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    @property
    def is_full(self) -> bool:
        """Whether no further violation is told, so that looking for more is of no use."""
        return len(self.violations) >= MOST_VIOLATIONS

    def wrong(self, path: str, message: str) -> None:
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(Violation(path=path or "$", message=_short(message, LONGEST_MESSAGE)))

    def done(self) -> None:
        """Raises Refused with every violation, up to a hundred of them."""
        if count := len(self.violations):
            first = self.violations[0]
            more = f", and {count - 1} more{' at least' * (count == MOST_VIOLATIONS)}" if count > 1 else ""
            detail = f"{first.path}: {first.message}{more}"
            raise Refused("invalid-request", detail, violations=msgspec.to_builtins(self.violations))

    def fit(self, shape: type[T], given: Any, path: str = "") -> T | None:
        """The value in this shape; None when it does not fit."""
        if not isinstance(given, dict):
            self.wrong(path, f"Expected `object`, got `{_json_type(given)}`")
            return None

        def convert(members: Mapping[str, Any]) -> T:
            return msgspec.convert(members, shape)

        try:
            return convert(given)
        except msgspec.ValidationError:
            fields = _fields(shape)
            required = [field.name for field in fields if field.required]
            self.members(given, convert, {field.name: field.type for field in fields}, required, path)
            return None

    def members(
        self,
        given: Mapping[str, Any],
        convert: Callable[[Mapping[str, Any]], Any],
        known: Mapping[str, Any],
        required: Iterable[str],
        path: str,
    ) -> None:
        """Note what is wrong with each member by itself, and which are missing; `known` are all, with their types."""
        for name, value in given.items():
            if self.is_full:
                return
            if problem := _problem(convert, name, value):
                message, inner = problem
                unknown = "unknown field" in message and not inner
                self.wrong(
                    _join(path, name) + inner.removeprefix(f".{name}"),
                    _unknown(name, list(known)) if unknown else _instead(message, known.get(name)),
                )
        for name in required:
            if name not in given:
                self.wrong(_join(path, name), "it is missing")


@cache
def _fields(shape: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """The members of a shape; msgspec works them out anew for each who asks, which takes longer than all the rest."""
    return msgspec.structs.fields(shape)


def _problem(convert: Callable[[Mapping[str, Any]], Any], name: str, value: Any) -> tuple[str, str] | None:
    """What is wrong with one member, and where in the object: the others that are missing do not count."""
    try:
        convert({name: value})
    except msgspec.ValidationError as error:
        message, inner = _told(str(error))
    except InvalidPayload as error:
        message, inner = _told(str(error).removeprefix(f"the payload does not fit {error.type}: "))
    else:
        return None
    return None if message.startswith(_MISSING) and not inner else (message, inner)


def _instead(message: str, hint: Any) -> str:
    """What msgspec says, with what would be right, as far as the member's type tells."""
    choices = ", ".join(map(str, _choices(hint)))
    if message.startswith(_NOT_LISTED) and choices:
        return f"{_short(message.removeprefix(_NOT_LISTED), LONGEST_NAME)} is not one of {choices}"
    return _INSTEAD.get(message, message)


def _choices(hint: Any) -> list[Any]:
    """The values of a type that lists them: of a Literal or an enum, alone, in a union or annotated."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [member.value for member in hint]
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in (Union, UnionType, Annotated):
        return [value for each in get_args(hint) for value in _choices(each)]
    return []


def _told(text: str) -> tuple[str, str]:
    match = _AT.fullmatch(text)
    return (match["message"], match["path"] or "") if match else (text, "")


def _join(path: str, name: str) -> str:
    name = _short(name, LONGEST_NAME)
    return f"{path}.{name}" if path else name


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _unknown(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(_short(name, LONGEST_NAME), known, 1)
    return f"unknown field; did you mean `{nearest[0]}`?" if nearest else f"unknown field; there are {', '.join(known)}"


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "str", bool: "bool", int: "int", float: "float", type(None): "null"}
    return names[type(value)]


class JobReading(Reading):
    """Reads jobs to be, against the handlers that are there."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.registry = registry
        self.count = 0

    def batch(self, given: Mapping[str, Any]) -> list[NewJob | None]:
        """The jobs of a batch."""
        for name in given:
            if name != "jobs":
                self.wrong(_join("", name), "unknown field; a batch has `jobs` alone, and each of them its own options")
        jobs = given["jobs"]
        if isinstance(jobs, list) and 1 <= len(jobs) <= MOST_JOBS:
            return self.jobs(jobs, "jobs")
        self.wrong("jobs", f"Expected `array` of 1 to {MOST_JOBS:,} jobs")
        return []

    def jobs(self, given: list[Any], path: str) -> list[NewJob | None]:
        if len(given) > MOST_JOBS:
            self.wrong(path, f"Expected `array` of {MOST_JOBS:,} jobs at most")
            return []
        return [self.job(each, f"{path}[{place}]") for place, each in enumerate(given) if not self.is_full]

    def job(self, given: Any, path: str = "") -> NewJob | None:
        """The job to be; None when something is wrong with it."""
        before = len(self.violations)
        self.count += 1
        if self.count == MOST_JOBS + 1:
            self.wrong(path, f"these are more than {MOST_JOBS:,} jobs, with those of `then`")
        alone, following = _without(given, "then") if isinstance(given, dict) else (given, None)
        order = self.fit(JobToEnqueue, alone, path) or _what_fits(alone)
        options = self.options(order, path)
        children = self.following(following, _join(path, "then"))
        handler = self.handler(alone, path)
        if handler is None:
            return None
        if len(self.violations) > before:
            self.payload(handler, alone.get("payload", {}), path)
            return None
        return self.prepared(handler.using(**options, then=children or None), order.payload, path)

    def following(self, given: Any, path: str) -> list[NewJob]:
        """The jobs of `then`, which is one or a list."""
        if given is None:
            return []
        jobs = self.jobs(given, path) if isinstance(given, list) else [self.job(given, path)]
        return [job for job in jobs if job is not None]

    def handler(self, given: Any, path: str) -> Handler[..., ..., Any] | None:
        """The handler of the type that is given, if it is one."""
        type = given.get("type") if isinstance(given, dict) else None
        if not isinstance(type, str):
            return None
        try:
            return self.registry.get(type)
        except UnknownJobType as error:
            self.wrong(_join(path, "type"), str(error) if len(type) <= LONGEST_NAME else "no handler has this type")
            return None

    def options(self, order: JobToEnqueue, path: str) -> dict[str, Any]:
        """The options that are given, whose bounds are checked."""
        given = {name: value for name in Options.__slots__ if (value := getattr(order, name)) is not None}
        lines = Options(**given | {"run_at": None}).problems()
        for line in lines:
            name = line.partition("=")[0]
            self.wrong(_join(path, name) if name in given else path, line)
        if not lines and order.run_at and not _is_storable(order.run_at, order.delay):
            self.wrong(_join(path, "run_at"), "it is not from the year 2000 to 9989, with the delay")
        return given

    def prepared(self, handler: Handler[..., ..., Any], payload: dict[str, Any], path: str) -> NewJob | None:
        try:
            return handler.prepared(payload)
        except InvalidPayload as error:
            before = len(self.violations)
            self.payload(handler, payload, path)
            if len(self.violations) == before:
                self.wrong(_join(path, "payload"), str(error).removeprefix(f"the payload does not fit {error.type}: "))
            return None

    def payload(self, handler: Handler[..., ..., Any], payload: Any, path: str) -> None:
        """Note what is wrong with the payload, if it is an object at all."""
        if isinstance(payload, dict):
            parameters = handler.parameters.signature.parameters.values()
            named = [each for each in parameters if each.kind is not Parameter.VAR_KEYWORD]
            required = [each.name for each in named if each.default is Parameter.empty]
            hints = get_type_hints(handler.function)
            known = {each.name: hints.get(each.name) for each in named}
            self.members(payload, handler.parameters.fit, known, required, _join(path, "payload"))


def _without(given: dict[str, Any], name: str) -> tuple[dict[str, Any], Any]:
    return {key: value for key, value in given.items() if key != name}, given.get(name)


def _what_fits(given: Any) -> JobToEnqueue:
    """The job without what is wrong with it, so that the rest of it is looked at too."""

    def convert(members: Mapping[str, Any]) -> JobToEnqueue:
        return msgspec.convert(members, JobToEnqueue)

    members = given.items() if isinstance(given, dict) else ()
    return convert({"type": "?"} | {name: value for name, value in members if _problem(convert, name, value) is None})


def _is_storable(run_at: datetime, delay: float | str | None) -> bool:
    try:
        return EARLIEST <= run_at + timedelta(seconds=seconds(delay or 0)) < LATEST
    except OverflowError:
        return False


def decode(body: bytes) -> Any:
    """The JSON of a body. Raises Refused for what is none, or is nested too deeply."""
    if not body:
        raise Refused("malformed-request", "the body is empty, and should be a JSON object")
    try:
        value = msgspec.json.decode(body)
        _check_depth(value, MOST_DEPTH)
    except RecursionError:
        raise Refused("malformed-request", f"the body is nested deeper than {MOST_DEPTH} levels") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise Refused("malformed-request", f"the body is not JSON: {error}") from None
    return value


def _check_depth(value: Any, room: int) -> None:
    if room < 0:
        raise RecursionError
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, room - 1)


def query(shape: type[T], text: str, numbers: Sequence[str]) -> T:
    """The parameters of a query, of which some are whole numbers. Raises Refused with all that is wrong with them."""
    reading = Reading()
    pairs = parse_qsl(text, keep_blank_values=True)
    # All of it is text; msgspec would read texts less strictly than it should, "0.5" as an instant.
    given = {name: int(value) if name in numbers and _NUMBER.fullmatch(value) else value for name, value in pairs}
    for name in given:
        if (times := sum(name == each for each, _ in pairs)) > 1:
            reading.wrong(_join("", name), f"it is given {times} times")
    read = reading.fit(shape, given)
    reading.done()
    assert read is not None  # noqa: S101 - what does not fit is a violation
    return read
