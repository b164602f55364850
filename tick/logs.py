"""The log: a line for each tick and for each attempt that has ended, as JSON where a machine reads it, else as text.

All of it goes through the loggers `tick.ticks` and `tick.jobs` of `logging`, with its fields on the records: an
application that has set up logging gets them in its own form. No line holds a payload, a result or a secret.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec

from .config import Settings
from .jobs import Cancelled, Dead, Done, Job, Outcome, Released, Retried, Snoozed

MOST_LINES = 1000
"""Lines that one tick writes of attempts that went well, unless the logger is at DEBUG; of the others it writes all."""

ticks = logging.getLogger("tick.ticks")
jobs = logging.getLogger("tick.jobs")

current_tick: ContextVar[str | None] = ContextVar("tick_current_tick", default=None)
current_job: ContextVar[Job | None] = ContextVar("tick_current_job", default=None)
"""What is running where something is logged: whatever logger it is, its line of JSON tells."""

_ENDS: dict[type[Outcome], tuple[int, str]] = {
    Done: (logging.INFO, "done"),
    Snoozed: (logging.INFO, "snoozed"),
    Cancelled: (logging.INFO, "cancelled"),
    Released: (logging.INFO, "released"),
    Retried: (logging.WARNING, "retry"),
    Dead: (logging.ERROR, "dead"),
}
_OWN = ("tick.ticks", "tick.jobs")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "time", "level", "logger"}
"""What every record or line has; whatever else is on a record is a field."""
_FOR_TERMINALS = {"color_message"}
"""What uvicorn puts on its records: the message once more."""
_ASKED = r"(?s)\?.*|(?<=/dashboard/replay/).+"
_UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_ROW_VALUES = r"\b(?:DETAIL|CONTEXT|LINE [0-9]+): [^\n]*(?:\n +\^)?"
"""Where Postgres echoes a row or a statement, on lines after its message; here they may have been joined to one."""


class Redaction:
    """Takes out what no log may hold; imported and compiled with the first line that needs it, since most need none."""

    def __init__(self, settings: Settings | None) -> None:
        self._settings = settings

    def text(self, text: str) -> str:
        """Without secrets, and without what Postgres may echo of a row."""
        from .masking import mask_text

        return mask_text(re.sub(_ROW_VALUES, "", text).rstrip(), self._known)

    def value(self, value: dict[str, Any]) -> dict[str, Any]:
        """The same of fields."""
        from .masking import mask

        masked: dict[str, Any] = mask(value, self._known)
        return masked

    @cached_property
    def _known(self) -> tuple[str, ...]:
        from .masking import known_secrets

        return known_secrets(self._settings) if self._settings else ()


class Lines:
    """The lines of one tick."""

    def __init__(self, settings: Settings, tick: str, trigger: str, delivery: str | None) -> None:
        self._redaction = Redaction(settings)
        self._tick = tick
        self._known = {"tick": tick, "trigger": trigger} | ({"delivery": delivery} if delivery else {})
        self._well = 0

    def job_ended(self, job: Job, outcome: Outcome, seconds: float, waited: float) -> None:
        """An attempt has ended, after so many seconds, and was due for so many before."""
        level, name = _ENDS[type(outcome)]
        # Asked first: where nobody listens, this is all that a job costs.
        if not jobs.isEnabledFor(level) or (level == logging.INFO and not self._has_room()):
            return
        fields = self._job_fields(job, name, seconds, waited)
        said = f"{name} in {seconds:.3f} s"
        if isinstance(outcome, Retried):
            fields |= {"retry_in": round(outcome.delay, 3)} | self._error(outcome.failure.message)
            said = f"failed in {seconds:.3f} s, again in {outcome.delay:.1f} s: {fields['error']}"
        elif isinstance(outcome, Dead):
            fields |= self._error(outcome.failure.message)
            said = f"dead after attempt {job.attempt}, {seconds:.3f} s: {fields['error']}"
        jobs.log(level, "%s %s: %s", job.type, job.id, said, extra=fields)

    def _has_room(self) -> bool:
        """Whether one more line of what went well is written."""
        self._well += 1
        if self._well == MOST_LINES + 1:
            fields = {"event": "job.lines_left_out", "tick": self._tick}
            jobs.info("further jobs of this tick that go well are only counted, in its own line", extra=fields)
        return self._well <= MOST_LINES or jobs.isEnabledFor(logging.DEBUG)

    def job_lost(self, type: str, *, dead: bool) -> None:
        """A lease has run out, and its job is pending again, or dead."""
        then = "it is dead" if dead else "it is pending again"
        fields = {"event": "job.lost", "tick": self._tick, "type": type, "outcome": "dead" if dead else "lost"}
        jobs.error("%s: lost, its lease ran out; %s", type, then, extra=fields)

    def tick_ended(self, report: Mapping[str, Any]) -> None:
        """A tick has done what it could; `report` is its report's dictionary."""
        if ticks.isEnabledFor(logging.INFO):
            counts = {name: value for name, value in report.items() if isinstance(value, int)}
            said = ", ".join(f"{value} {name}" for name, value in counts.items() if value) or "nothing to do"
            fields = {"event": "tick.ended", **self._known, "outcome": "done", **report}
            where = f"{self._tick[:8]} by {report['trigger']}"
            ticks.info("tick %s in %.2f s of %g s: %s", where, report["used"], report["budget"], said, extra=fields)

    def tick_failed(self, error: str, seconds: float) -> None:
        """A tick has met an error; the jobs that it had are settled, or reclaimed after their leases."""
        fields = {"event": "tick.ended", **self._known, "outcome": "failed", "used": round(seconds, 4)}
        fields |= self._error(error)
        where = f"{self._tick[:8]} by {self._known['trigger']}"
        ticks.error("tick %s failed after %.2f s: %s", where, seconds, fields["error"], extra=fields)

    def _job_fields(self, job: Job, outcome: str, seconds: float, waited: float) -> dict[str, Any]:
        fields = {
            "event": "job.ended",
            **self._known,
            "job": job.id,
            "type": job.type,
            "attempt": job.attempt,
            "outcome": outcome,
            "seconds": round(seconds, 4),
            "waited": round(waited, 3),
        }
        if job.schedule:
            fields["schedule"] = job.schedule
        if job.window:
            fields["window"] = _instant(job.window)
        if job.traceparent:
            fields["trace_id"] = job.traceparent[3:35]
        return fields

    def _error(self, message: str) -> dict[str, Any]:
        """An error in one line, without secrets and without what Postgres echoes of a row; and its SQLSTATE."""
        error = self._redaction.text(message)
        sqlstate = _sqlstate(message.partition(":")[0])
        return {"error": one_line(error)} | ({"sqlstate": sqlstate} if sqlstate else {})


class Masked(logging.Formatter):
    """What both forms share: times in UTC, and no secret in what others have written."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self._redaction = Redaction(settings)

    def message(self, record: logging.LogRecord) -> str:
        # Those of this module are made of what may be in a log.
        return record.getMessage() if record.name in _OWN else self._redaction.text(record.getMessage())

    def traceback(self, record: logging.LogRecord) -> str | None:
        if record.exc_info and record.exc_info[0] is not None:
            return self._redaction.text(self.formatException(record.exc_info))
        return self._redaction.text(record.exc_text) if record.exc_text else None


class JsonLines(Masked):
    """A record as one line of JSON: time, level, logger, event, message, and whatever fields it carries."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD | _FOR_TERMINALS}
        if record.name not in _OWN:
            fields = _running() | self._redaction.value(fields)
        if traceback := self.traceback(record):
            fields["traceback"] = traceback
        return _json({**line, "event": "log", "message": self.message(record), **fields})


class TextLines(Masked):
    """A record as a line of text: time, level, logger, message; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname} {record.name}: {one_line(self.message(record))}"
        if traceback := self.traceback(record):
            # Indented, so that no line of an error can be taken for one of the log.
            line += "".join(f"\n    {one_line(text)}" for text in traceback.split("\n"))
        return line


class _StandardError(logging.Handler):
    """Writes to the standard error that there is when a line is written: a progress display puts its own in place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - logging's own rule: a line that cannot be written fails nobody's work
            self.handleError(record)


def configure(settings: Settings, *, tells_ticks: bool = False) -> None:
    """Write the log to standard error, unless the application has set up logging for itself.

    With `tells_ticks` the caller says itself how ticks end, so that a person need not read it twice.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    as_json = is_json(settings.log)
    handler = _StandardError()
    handler.setFormatter((JsonLines if as_json else TextLines)(settings))
    handler.addFilter(lambda record: as_json or not tells_ticks or record.name != ticks.name)
    root.addHandler(handler)
    logging.getLogger("tick").setLevel(logging.INFO)


def path_alone(record: logging.LogRecord) -> bool:
    """A filter of a server's access log: no line of it holds a query, or the token of a link that acts by itself."""
    if isinstance(record.args, tuple):
        record.args = tuple(re.sub(_ASKED, "", part) if isinstance(part, str) else part for part in record.args)
    return True


def _running() -> dict[str, Any]:
    """Which tick and which job something is logged in."""
    tick, job = current_tick.get(), current_job.get()
    known: dict[str, Any] = {"tick": tick} if tick else {}
    return known | ({"job": job.id, "type": job.type, "attempt": job.attempt} if job else {})


def is_json(form: str) -> bool:
    """Whether a log in this form, `auto` among them, is written as JSON here."""
    return form == "json" or (form == "auto" and not (sys.stderr and sys.stderr.isatty()))


def _sqlstate(name: str) -> str | None:
    """The SQLSTATE of one of psycopg's exceptions, by its name; where none was imported, none was raised."""
    known = getattr(sys.modules.get("psycopg.errors"), name.strip(), None)
    return getattr(known, "sqlstate", None)


def _time(record: logging.LogRecord) -> str:
    return _instant(datetime.fromtimestamp(record.created, UTC), "milliseconds")


def _instant(instant: datetime, precision: str = "seconds") -> str:
    """As RFC 3339 writes it, in UTC."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _json(line: dict[str, Any]) -> str:
    try:
        text = msgspec.json.encode(line, enc_hook=repr).decode()
    except (ValueError, TypeError, OverflowError, RecursionError):
        text = json.dumps({str(name): str(value) for name, value in line.items()})
    # JSON may hold what ends a line elsewhere, or moves a terminal's cursor.
    return text if text.isascii() else re.sub(_UNPRINTABLE, lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """A text whose control characters are escaped: it moves no cursor, and begins no line of its own."""
    if text.isprintable():
        return text
    return re.sub(_UNPRINTABLE, lambda found: found[0].encode("unicode_escape").decode(), text)
