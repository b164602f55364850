"""How long a failed job waits before its next attempt."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .errors import ConfigurationError

JITTER = 0.2
LONGEST_WAIT = 3650 * 86_400.0
"""Seconds: ten years."""


@dataclass(frozen=True, slots=True)
class Backoff:
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
