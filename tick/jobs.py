"""A job as a tick holds it, and the ways an attempt can end."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

ATTEMPT_BITS = 20


class Job(NamedTuple):
    """A claimed row: the columns that `claim` returns, in its order. `payload` is JSON, `timeout` is in seconds."""

    id: int
    type: str
    payload: str
    attempt: int
    failures: int
    losses: int
    cuts: int
    max_attempts: int | None
    timeout: float | None
    key: str | None
    schedule: str | None
    window: datetime | None
    priority: int
    run_at: datetime
    lane: str | None = None
    inputs: dict[str, Any] | None = None
    traceparent: str | None = None
    followed: bool = False
    """Whether its end lets other jobs go: callbacks, those that come after it, the last of its group."""

    @property
    def fence(self) -> int:
        """The value that every later write must match: (id, attempt) in one bigint, as `queue.sql` builds it.

        One number, because Postgres hashes `= any(bigint[])` and plans a join of two arrays badly.
        """
        return self.id << ATTEMPT_BITS | self.attempt & (1 << ATTEMPT_BITS) - 1


class NewJob(NamedTuple):
    """A row to be, as `tick.insert_jobs` takes it. What is None is left to the type's defaults, or is not there.

    `payload` is JSON. Seconds in `delay`, which counts from `run_at` or now, in `max_wait`, `throttle` and `timeout`.
    """

    type: str
    payload: bytes
    run_at: datetime | None = None
    delay: float | None = None
    priority: int | None = None
    key: str | None = None
    strict_key: bool | None = None
    idempotency_key: str | None = None
    on_conflict: str | None = None
    max_wait: float | None = None
    throttle: float | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    schedule: str | None = None
    callback_url: str | None = None
    on_dead_url: str | None = None
    traceparent: str | None = None
    then: tuple[NewJob, ...] | None = None

    def fields(self) -> dict[str, Any]:
        """What is given of it, ready to be written as JSON."""
        pairs = zip(self._fields, self, strict=True)
        given: dict[str, Any] = {name: value for name, value in pairs if value is not None}
        if self.then is not None:
            given["then"] = [child.fields() for child in self.then]
        given["payload"] = msgspec.Raw(self.payload)
        return given


class Failure(msgspec.Struct, frozen=True):
    """Why an attempt did not succeed: one line, and the traceback, both bounded and safe to store."""

    message: str
    traceback: str = ""


class Done(msgspec.Struct, frozen=True):
    """The handler returned. `result` is JSON or None; `follow_ups` are enqueued in the same transaction."""

    result: bytes | None = None
    follow_ups: list[NewJob] = msgspec.field(default_factory=list)


class Retried(msgspec.Struct, frozen=True):
    """The handler failed and the job is pending again after `delay` seconds."""

    delay: float
    failure: Failure


class Dead(msgspec.Struct, frozen=True):
    """The handler failed for the last time."""

    failure: Failure


class Snoozed(msgspec.Struct, frozen=True):
    """The handler asked to be run again later, which is no failure."""

    until: datetime | None
    delay: float = 0.0


class Released(msgspec.Struct, frozen=True):
    """Pending again, through no fault of the job's; `cut` when it had started and the tick's deadline ended it."""

    cut: bool = False


class Cancelled(msgspec.Struct, frozen=True):
    """Somebody cancelled the job while it ran, and it has stopped."""


Outcome = Done | Retried | Dead | Snoozed | Released | Cancelled
