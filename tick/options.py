"""How a job is enqueued: the options of every producer, checked. Plain values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from .backoff import LONGEST_WAIT, parse_duration
from .errors import ConfigurationError, InvalidPayload
from .jobs import NewJob

Duration = str | float | timedelta
KEY_ORDERS = ("loose", "strict")
ON_CONFLICTS = ("keep", "replace", "postpone")
_DURATIONS = ("delay", "max_wait", "throttle", "timeout")
URL = re.compile(r"https?://[^\s\x00-\x20\x7f\\/?#@]{1,253}([/?#][^\s\x00-\x20\x7f\\]{0,1730})?", re.ASCII)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Given(TypedDict, total=False):
    """The options by name, for type checkers; what each of them does is told at `Options`."""

    run_at: datetime | None
    delay: Duration | None
    priority: int | None
    key: str | None
    key_order: str | None
    idempotency_key: str | None
    on_conflict: str | None
    max_wait: Duration | None
    throttle: Duration | None
    max_attempts: int | None
    timeout: Duration | None
    callback_url: str | None
    on_dead_url: str | None
    then: NewJob | Sequence[NewJob] | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Options:
    """How a job is enqueued. None of them is part of the payload.

    Attributes:
        run_at: when it is due, an aware datetime; now by default.
        delay: how long after `run_at`, or after now.
        priority: the higher is claimed first; -32768 to 32767.
        key: jobs that share one never run at the same time, and start in the order of their `run_at`.
        key_order: "strict" lets a job that is retried go before the others of its key; "loose" lets them pass.
        idempotency_key: of a type there is one job with it, as long as that is kept; enqueuing again finds that one.
        on_conflict: what becomes of the one that is found, while it is pending: "keep", "replace" (its payload and
            `run_at` become the new ones) or "postpone" (its payload too, its `run_at` only to a later time).
        max_wait: how long after it was enqueued a job can be postponed at most; a day by default.
        throttle: at most one job of the type and `key` in each such period, counted from 1970-01-01T00:00Z.
        max_attempts: failures after which it is dead, 1 to 100; what its handler says by default.
        timeout: how long an attempt may take; what its handler says by default.
        callback_url: is sent a signed POST when the job has ended: done, dead or cancelled.
        on_dead_url: is sent one when it is dead.
        then: a job, or several, to run when this one is done (`handler.of(...)`, `tick.of(...)`).
        traceparent: the trace it belongs to, as W3C Trace Context writes it.
    """

    run_at: datetime | None = None
    delay: Duration | None = None
    priority: int | None = None
    key: str | None = None
    key_order: str | None = None
    idempotency_key: str | None = None
    on_conflict: str | None = None
    max_wait: Duration | None = None
    throttle: Duration | None = None
    max_attempts: int | None = None
    timeout: Duration | None = None
    callback_url: str | None = None
    on_dead_url: str | None = None
    then: NewJob | Sequence[NewJob] | None = None
    traceparent: str | None = None

    def new_job(self, type: str, payload: bytes, priority: int | None = None, strict: bool | None = None) -> NewJob:
        """The row that these options and this payload make; `priority` and `strict` are what the handler says.

        Raises InvalidPayload with everything that is out of bounds.
        """
        if problems := self.problems():
            raise InvalidPayload(type, "; ".join(problems))
        times: dict[str, Any] = {
            name: None if (given := getattr(self, name)) is None else seconds(given) for name in _DURATIONS
        }
        then = (self.then,) if isinstance(self.then, NewJob) else self.then
        return NewJob(
            type=type,
            payload=payload,
            run_at=self.run_at,
            priority=priority if self.priority is None else self.priority,
            key=self.key,
            strict_key=strict if self.key_order is None else self.key_order == "strict",
            idempotency_key=self.idempotency_key,
            on_conflict=self.on_conflict,
            max_attempts=self.max_attempts,
            callback_url=self.callback_url,
            on_dead_url=self.on_dead_url,
            traceparent=self.traceparent,
            then=tuple(then) if then else None,
            **times,
        )

    def problems(self) -> list[str]:
        """A line for each option that is not usable."""
        problems = [line for name in self.__slots__ if (line := self._problem(name, getattr(self, name)))]
        if self.on_conflict in ("replace", "postpone") and self.idempotency_key is None:
            problems.append(f"on_conflict={self.on_conflict!r} is about an idempotency_key, and there is none")
        if self.throttle is not None and self.idempotency_key is not None:
            problems.append("throttle and idempotency_key are both given; keep one")
        return problems

    def _problem(self, name: str, value: Any) -> str:
        if value is None:
            return ""
        usable, words = _CHECKS[name]
        try:
            return "" if usable(value) else f"{name}={value!r} is not {words}"
        except (TypeError, ValueError, ConfigurationError) as error:
            return f"{name}={value!r} is not {words}: {error}"


def seconds(duration: Duration) -> float:
    """Seconds of a number, a timedelta, or a text such as "90s" or "1h30m"."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, str):
        return parse_duration(duration).total_seconds()
    return float(duration)


def _is_instant(value: Any) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None and 2000 <= value.year < 9999


def _is_whole(low: int, high: int) -> Any:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_time(low: float, high: float) -> Any:
    def check(value: Any) -> bool:
        return low <= seconds(value) <= high

    return check


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value.encode()) <= 512 and "\0" not in value


def _is_one_of(words: Sequence[str]) -> Any:
    return lambda value: value in words


def _is_jobs(value: Any) -> bool:
    return isinstance(value, NewJob) or (
        isinstance(value, list | tuple) and all(isinstance(each, NewJob) for each in value)
    )


def _matches(pattern: re.Pattern[str]) -> Any:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


_KEY = "a text of 1 to 512 bytes, without NUL"
_ENDPOINT = "an http:// or https:// URL of at most 2,000 characters, without spaces, a user or a password"
_CHECKS: dict[str, tuple[Any, str]] = {
    "run_at": (_is_instant, "an aware datetime, one with a time zone, in the years 2000 to 9998"),
    "delay": (_is_time(-LONGEST_WAIT, LONGEST_WAIT), "a time of up to ten years"),
    "priority": (_is_whole(-32768, 32767), "from -32768 to 32767"),
    "key": (_is_key, _KEY),
    "key_order": (_is_one_of(KEY_ORDERS), "loose or strict"),
    "idempotency_key": (_is_key, _KEY),
    "on_conflict": (_is_one_of(ON_CONFLICTS), "keep, replace or postpone"),
    "max_wait": (_is_time(0, LONGEST_WAIT), "a time of up to ten years"),
    "throttle": (_is_time(1, 366 * 86400), "a time from one second to a year"),
    "max_attempts": (_is_whole(1, 100), "from 1 to 100"),
    "timeout": (_is_time(0.001, 86400), "a time of up to a day"),
    "callback_url": (_matches(URL), _ENDPOINT),
    "on_dead_url": (_matches(URL), _ENDPOINT),
    "then": (_is_jobs, "a job to be, or a list of them: write handler.of(...) or tick.of(type, payload)"),
    "traceparent": (_matches(_TRACEPARENT), "a traceparent of W3C Trace Context"),
}
