"""Limits: how many jobs of a type, or of the keys that begin alike, run at once or start in a period. Plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from .backoff import parse_duration
from .errors import ConfigurationError

MOST = 1_000_000
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = r"(\d{1,7})\s*/\s*(?:(second|minute|hour|day)|((?:\d{1,9}[dhms])+))"


class Rate(NamedTuple):
    """At most so many starts in any period of so many seconds."""

    starts: int
    seconds: int


def parse_rate(text: object) -> Rate:
    """A rate such as "100/minute" or "5/10s". Raises ConfigurationError for anything else."""
    match = re.fullmatch(_RATE, text.strip(), re.ASCII) if isinstance(text, str) else None
    if match is None or not 1 <= int(match[1]) <= MOST:
        raise ConfigurationError(
            f"{text!r} is not a rate: write a number, a slash, and second, minute, hour, day or a duration:"
            ' "100/minute", "5/10s"'
        )
    seconds = _UNITS[match[2]] if match[2] else int(parse_duration(match[3]).total_seconds())
    return Rate(int(match[1]), seconds)


def check_concurrency(value: object) -> int:
    """How many may run at once. Raises ConfigurationError for what is not a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise ConfigurationError(f"{value!r} is not a whole number from 1 to {MOST:,}")
    return value


class Limit(msgspec.Struct, frozen=True):
    """What holds for the jobs of a type, or for those whose key begins with a prefix: all of them together.

    Attributes:
        type: the type it is for, or None.
        key_prefix: how the keys begin that it is for, or None. It goes before the limit of the type.
        concurrency: how many run at once.
        rate: how many start in any such period.
        rate_per_key: the same, for each key by itself.
    """

    type: str | None = None
    key_prefix: str | None = None
    concurrency: int | None = None
    rate: Rate | None = None
    rate_per_key: Rate | None = None

    @property
    def lane(self) -> str:
        """The name under which its jobs are counted."""
        return f"type {self.type}" if self.type else f"key {self.key_prefix}"

    def row(self, *, from_file: bool) -> dict[str, Any]:
        """The row of `tick.limits`; periods in seconds."""
        return {
            "from_file": from_file,
            "lane": self.lane,
            "type": self.type,
            "key_prefix": self.key_prefix,
            "concurrency": self.concurrency,
            "rate": self.rate and self.rate.starts,
            "period": self.rate and self.rate.seconds,
            "key_rate": self.rate_per_key and self.rate_per_key.starts,
            "key_period": self.rate_per_key and self.rate_per_key.seconds,
        }


def are_for(limits: Iterable[dict[str, Any]], type: str, key: str | None) -> bool:
    """Whether a job of this type and key is under one of these rows of `tick.limits`."""
    return any(
        limit["type"] == type or (limit["key_prefix"] is not None and (key or "").startswith(limit["key_prefix"]))
        for limit in limits
    )
