"""What can go wrong, drawn.

TickError
├── ConfigurationError          a setting, a module or a file is not usable (exit code 2)
│   ├── CronError               an expression that is refused, with what to write instead
│   ├── SchedulesFileError      every problem of a schedules file, in one go
│   ├── DuplicateHandler        two handlers for one type
│   └── HandlerError            a function that cannot be a handler
├── DatabaseError               the database cannot be used as it is
│   ├── DatabaseUnavailable     no connection (HTTP 503; exit code 75)
│   ├── NotMigrated             a migration is missing: says which command to run
│   └── MigrationError          an applied migration has changed or is missing
├── AddressRefused              a URL or an address that outgoing calls may not reach
├── InvalidPayload              a payload that does not fit its handler's parameters
├── UnknownJobType              no handler has this type
├── JobNotFound                 no job has this id
└── InvalidTransition           a job whose status does not allow what was asked

Permanent, Retry, Snooze        not errors of tick: a handler raises them to say how its attempt ended
"""

from __future__ import annotations

from datetime import datetime, timedelta


class TickError(Exception):
    """Something that tick refuses or cannot do; its message says what, where and what instead."""


class ConfigurationError(TickError):
    """A setting, a module or a file is not usable."""


class CronError(ConfigurationError):
    """A cron expression that is refused; `hint` is the line that should have been written, if known."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.hint = hint


class SchedulesFileError(ConfigurationError):
    """A schedules file with problems; `problems` holds one line for each of them."""

    def __init__(self, source: str, problems: list[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  ".join([f"{source}: {count}", *problems]))
        self.source = source
        self.problems = problems


class DuplicateHandler(ConfigurationError):
    """Two handlers for one type."""

    def __init__(self, type: str, first: str, second: str) -> None:
        super().__init__(
            f"two handlers for the type {type!r}: {first} and {second}; "
            'give one of them another name with @tick.job(type="...")'
        )
        self.type = type


class HandlerError(ConfigurationError):
    """A function that cannot be a handler."""


class DatabaseError(TickError):
    """The database cannot be used as it is."""


class DatabaseUnavailable(DatabaseError):
    """There is no connection to be had, or it was lost and did not come back."""


class NotMigrated(DatabaseError):
    """The schema is missing, or older than this version of tick."""

    def __init__(self, schema: str, missing: list[str]) -> None:
        super().__init__(
            f"the database's schema {schema!r} lacks {', '.join(missing)}: run `tick migrate` "
            "(or `psql -f` each file of migrations/, in order)"
        )
        self.missing = missing


class MigrationError(DatabaseError):
    """A migration that was applied has changed since, or its file is missing."""


class AddressRefused(TickError):
    """A URL or an address that outgoing calls may not reach."""


class InvalidPayload(TickError):
    """A payload that does not fit the parameters of its type's handler."""

    def __init__(self, type: str, detail: str) -> None:
        super().__init__(f"the payload does not fit {type}: {detail}")
        self.type = type


class UnknownJobType(TickError):
    """No handler has this type."""

    def __init__(self, type: str, hint: str = "") -> None:
        super().__init__(f"no handler has the type {type!r}{'; ' if hint else ''}{hint}")
        self.type = type


class JobNotFound(TickError):
    """No job has this id."""

    def __init__(self, id: int) -> None:
        super().__init__(f"there is no job {id}")
        self.id = id


class InvalidTransition(TickError):
    """A job whose status does not allow what was asked."""

    def __init__(self, id: int, status: str, wanted: str, allowed: str) -> None:
        super().__init__(f"job {id} is {status}: only a job that is {allowed} can be {wanted}")
        self.id = id
        self.status = status


class Permanent(Exception):
    """Raised by a handler: this will never work. The job is dead at once, whatever attempts it had left."""


class Retry(Exception):
    """Raised by a handler: this failed, try again `after` so long, and not by the backoff.

    `after` is in seconds, a timedelta, or a text such as "90s". It counts against `max_attempts`; Snooze does not.
    """

    def __init__(self, message: str = "", *, after: str | float | timedelta) -> None:
        super().__init__(message or f"retry after {after}")
        self.after = after


class Snooze(Exception):
    """Raised by a handler: not now. It runs again `until` an instant or `after` so long; this is no failure."""

    def __init__(self, *, until: datetime | None = None, after: str | float | timedelta | None = None) -> None:
        if (until is None) == (after is None):
            raise TypeError("Snooze takes either until= or after=")
        if until is not None and until.tzinfo is None:
            raise TypeError("Snooze(until=...) takes an aware datetime, for example with timezone.utc")
        super().__init__(f"snoozed {'until' if until else 'for'} {until or after}")
        self.until = until
        self.after = after
