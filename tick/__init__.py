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
    from .handlers import enqueue as enqueue
    from .handlers import job as job
    from .queue import JobId as JobId

_HOMES = {
    "Backoff": "backoff",
    "ConfigurationError": "errors",
    "Context": "handlers",
    "CronError": "errors",
    "DatabaseError": "errors",
    "DatabaseUnavailable": "errors",
    "Handler": "handlers",
    "InvalidPayload": "errors",
    "JobId": "queue",
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
