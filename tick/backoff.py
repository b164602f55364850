"""How long things take, as people write it; and how long a failed job waits before its next attempt."""

from __future__ import annotations

import json
import random
import re
from datetime import date, time, timedelta
from typing import Any

import msgspec

from .errors import ConfigurationError

JITTER = 0.2
LONGEST_WAIT = 3650 * 86_400.0
"""Seconds: ten years."""
DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)


class Backoff(msgspec.Struct, frozen=True):
    """Exponential by default: `base` x `factor`^(failures - 1) seconds, at most `cap`; or an explicit `ladder`.

    >>> [Backoff().before_jitter(failures) for failures in range(1, 6)]
    [30.0, 120.0, 480.0, 1920.0, 3600.0]
    >>> [Backoff(ladder=(5, 60, 600)).before_jitter(failures) for failures in range(1, 5)]
    [5.0, 60.0, 600.0, 600.0]
    """

    base: float = 30.0
    factor: float = 4.0
    cap: float = 3600.0
    ladder: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        steps_are_fine = all(0 <= step <= LONGEST_WAIT for step in self.ladder)
        if not (self.base > 0 and 1 <= self.factor <= 100 and 0 < self.cap <= LONGEST_WAIT and steps_are_fine):
            raise ConfigurationError(
                f"{self}: base and cap must be above 0 seconds, factor from 1 to 100, "
                "no step of a ladder below 0, and none of them above ten years"
            )

    def before_jitter(self, failures: int) -> float:
        """Seconds to wait after the given number of failures (at least 1)."""
        if self.ladder:
            return float(self.ladder[min(failures, len(self.ladder)) - 1])
        # At most 100^63, so that no count of failures overflows a float.
        return min(self.cap, self.base * self.factor ** min(failures - 1, 63))

    def delay(self, failures: int, job_id: int) -> float:
        """The wait in seconds, within 20 % of the plan, so that jobs that failed together do not return together.

        The jitter is drawn from the job and the count, so the same failure always waits the same time.
        """
        spread = random.Random(job_id << 8 | failures & 0xFF).uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
        return self.before_jitter(failures) * spread


def parse_duration(value: str | int) -> timedelta:
    """A positive duration: "90s", "10m", "1h30m", "2d", or a whole number of seconds.

    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)
    """
    seconds = value if type(value) is int else 0
    if isinstance(value, str) and (match := DURATION.fullmatch(value)):
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if not 0 < seconds <= LONGEST_WAIT:
        raise ConfigurationError(
            f'{shown(value)} is not a duration: write "90s", "10m", "1h30m", "2d" or a positive whole number of seconds'
        )
    return timedelta(seconds=seconds)


def shown(value: Any) -> str:
    """A TOML value as its author wrote it, or nearly."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, date | time):
        return value.isoformat()
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= 80 else f"{shown[:76]}..."
