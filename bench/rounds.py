"""Measuring on a noisy machine: contenders take turns, and what is compared is what happened side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """What one run gave: jobs a second, and how often it went to the database, where that is known."""

    rate: float
    round_trips: int = 0


Contender = Callable[[], Sample]


@dataclass
class Series:
    """The samples of one contender, in the order of the rounds."""

    samples: list[Sample] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        return [sample.rate for sample in self.samples]

    @property
    def median(self) -> float:
        return median(self.rates)

    def ratio(self, other: Series) -> tuple[float, float, float]:
        """This by the other, round by round: the median, the least and the greatest."""
        ratios = [mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True)]
        return median(ratios), min(ratios), max(ratios)

    def as_dict(self) -> dict[str, Any]:
        return {
            "median": round(self.median),
            "min": round(min(self.rates)),
            "max": round(max(self.rates)),
            "rates": [round(rate) for rate in self.rates],
            "round_trips": median(sample.round_trips for sample in self.samples),
        }


def alternate(contenders: dict[str, Contender], rounds: int) -> dict[str, Series]:
    """Run them in turn, forwards and backwards, after a warm-up round that does not count."""
    series = {name: Series() for name in contenders}
    for number in range(rounds + 1):
        turn = list(contenders)
        for name in reversed(turn) if number % 2 else turn:
            sample = contenders[name]()
            if number:
                series[name].samples.append(sample)
    return series


def line(name: str, series: Series, beside: str = "") -> str:
    """One contender for the terminal."""
    low, high = min(series.rates), max(series.rates)
    trips = median(sample.round_trips for sample in series.samples)
    told = f"{trips:>5.0f} round trips" if trips else " " * 17
    return f"  {name:<34} {series.median:>8,.0f}/s  ({low:,.0f} to {high:,.0f}) {told}  {beside}".rstrip()


def shown(ratio: tuple[float, float, float]) -> str:
    """A ratio with its range: 0.98 (0.93 to 1.02)."""
    return "{:.2f} ({:.2f} to {:.2f})".format(*ratio)
