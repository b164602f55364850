"""tick: a cron-plus-webhook tick processor. Durable, recurring, retried jobs on your Postgres, with no worker.

Names are imported when they are first used: enqueuing imports no web framework, and a tick no dashboard.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backoff import Backoff as Backoff
    from .cron import windows as windows
    from .errors import ConfigurationError as ConfigurationError
    from .errors import CronError as CronError
    from .errors import DatabaseError as DatabaseError
    from .errors import DatabaseUnavailable as DatabaseUnavailable
    from .errors import InvalidPayload as InvalidPayload
    from .errors import NotMigrated as NotMigrated
    from .errors import Permanent as Permanent
    from .errors import Retry as Retry
    from .errors import SchedulesFileError as SchedulesFileError
    from .errors import Snooze as Snooze
    from .errors import TickError as TickError
    from .errors import UnknownJobType as UnknownJobType
    from .handlers import Context as Context
    from .handlers import Handler as Handler
    from .handlers import Middleware as Middleware
    from .handlers import enqueue as enqueue
    from .handlers import enqueue_many as enqueue_many
    from .handlers import group as group
    from .handlers import job as job
    from .handlers import of as of
    from .handlers import use as use
    from .handlers import wait as wait
    from .intake import Ended as Ended
    from .intake import JobId as JobId
    from .jobs import NewJob as NewJob
    from .options import Options as Options

_HOMES = {
    "Backoff": "backoff",
    "ConfigurationError": "errors",
    "Context": "handlers",
    "CronError": "errors",
    "DatabaseError": "errors",
    "DatabaseUnavailable": "errors",
    "Handler": "handlers",
    "InvalidPayload": "errors",
    "JobId": "intake",
    "Ended": "intake",
    "Middleware": "handlers",
    "NewJob": "jobs",
    "Options": "options",
    "enqueue_many": "handlers",
    "group": "handlers",
    "of": "handlers",
    "use": "handlers",
    "wait": "handlers",
    "NotMigrated": "errors",
    "Permanent": "errors",
    "Retry": "errors",
    "SchedulesFileError": "errors",
    "Snooze": "errors",
    "TickError": "errors",
    "UnknownJobType": "errors",
    "enqueue": "handlers",
    "job": "handlers",
    "windows": "cron",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tick' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
