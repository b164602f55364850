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
