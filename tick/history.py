"""How long a type takes: a small histogram that answers a high percentile."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

BUCKETS = 44
"""Half-octaves: the first holds runs of up to 1 ms, the last those above 30 minutes."""
FEWEST = 5
"""Runs below which a percentile says nothing."""


def upper_bound(index: int) -> float:
    """The longest run, in seconds, that a bucket holds."""
    return float(0.001 * 2 ** (index / 2))


_BOUNDS = [upper_bound(index) for index in range(BUCKETS - 1)]


def bucket(seconds: float) -> int:
    """The bucket of a run of so many seconds."""
    # Half the time of the logarithm, and it is asked three times for every attempt.
    return bisect_left(_BOUNDS, seconds)


def percentile(histogram: Sequence[int], share: float = 0.95) -> float | None:
    """The seconds within which that share of the runs ended; None when there were too few runs to say.

    >>> percentile([0] * 20 + [10])
    1.024
    >>> percentile([1, 2]) is None
    True
    """
    total = sum(histogram)
    if total < FEWEST:
        return None
    seen = 0
    for index, count in enumerate(histogram):
        seen += count
        if seen >= total * share:
            return upper_bound(index)
    raise AssertionError("unreachable: the last bucket completes the total")


class Durations:
    """The runs of one tick, by type, beside what earlier ticks knew."""

    def __init__(self, known: dict[str, list[int]]) -> None:
        self._known = {type: percentile(histogram) for type, histogram in known.items()}
        self._runs: dict[str, list[int]] = {}
        self.mean = 0.0
        """Seconds that a run takes, lately: an average that forgets, and 0 before the first run."""

    def record(self, type: str, seconds: float) -> None:
        """Count one run."""
        runs = self._runs.get(type)
        if runs is None:
            runs = self._runs[type] = [0] * BUCKETS
        runs[bucket(seconds)] += 1
        self.mean += (seconds - self.mean) * (0.05 if self.mean else 1.0)

    def expected(self, type: str) -> float | None:
        """The 95th percentile of the type's runs in earlier ticks, in seconds, if there were enough of them."""
        return self._known.get(type)

    def rows(self) -> list[dict[str, object]]:
        """What to add to the table of types."""
        return [{"type": type, "durations": runs} for type, runs in sorted(self._runs.items())]


_COUNTS = ("done", "retried", "dead", "released", "lost")


class _Count:
    """How the attempts of one type ended."""

    __slots__ = ("ended", "run_seconds", "runs", "wait_seconds", "waits")

    def __init__(self) -> None:
        self.ended = dict.fromkeys(_COUNTS, 0)
        self.run_seconds = self.wait_seconds = 0.0
        self.runs, self.waits = [0] * BUCKETS, [0] * BUCKETS

    def include(self, other: _Count) -> None:
        """Add the attempts of another type."""
        for how, count in other.ended.items():
            self.ended[how] += count
        self.run_seconds += other.run_seconds
        self.wait_seconds += other.wait_seconds
        self.runs = [a + b for a, b in zip(self.runs, other.runs, strict=True)]
        self.waits = [a + b for a, b in zip(self.waits, other.waits, strict=True)]

    def row(self, type: str) -> dict[str, object]:
        sums = {"run_seconds": self.run_seconds, "wait_seconds": self.wait_seconds}
        return {"type": type, **self.ended, **sums, "runs": self.runs, "waits": self.waits}


class Tally:
    """How the attempts of one tick ended, by type: what it adds to the statistics."""

    def __init__(self) -> None:
        self._types: dict[str, _Count] = {}

    def add(self, type: str, how: str, ran: float, waited: float) -> None:
        """Count one attempt: done, retried, dead or released, the seconds it ran, and those it was due before."""
        count = self._types.get(type) or self._begin(type)
        count.ended[how] += 1
        count.run_seconds += ran
        count.wait_seconds += waited
        count.runs[bucket(ran)] += 1
        count.waits[bucket(waited)] += 1

    def lose(self, type: str, *, dead: bool) -> None:
        """Count an attempt that was lost; of a job that is dead by that, as one that ended so."""
        count = self._types.get(type) or self._begin(type)
        count.ended["dead" if dead else "lost"] += 1

    def _begin(self, type: str) -> _Count:
        count = self._types[type] = _Count()
        return count

    def take(self) -> list[dict[str, object]]:
        """What to add for each type, and for all of them together, which is the type ''; it begins anew with that."""
        types, self._types = self._types, {}
        if not types:
            return []
        together = _Count()
        for count in types.values():
            together.include(count)
        return [count.row(type) for type, count in sorted({"": together, **types}.items())]
