"""What ran, as charts: rows of statistics into series of numbers, and into the shapes of a picture without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tick import history

WIDTH, HEIGHT = 600.0, 120.0
"""Of a picture, in its own units."""
COUNTS = ("done", "retried", "dead")
TIMES = {"wait_p50": ("waits", 0.5), "wait_p95": ("waits", 0.95), "run_p50": ("runs", 0.5), "run_p95": ("runs", 0.95)}

Row = dict[str, Any]


class Span(NamedTuple):
    """What a chart covers, and the periods of the statistics that it is made of, in seconds."""

    name: str
    seconds: int
    period: int


HOUR, DAY, WEEK = Span("hour", 3600, 60), Span("day", 86_400, 600), Span("week", 604_800, 3600)
SPANS = {span.name: span for span in (HOUR, DAY, WEEK)}


class Series(NamedTuple):
    """Numbers for each period of a span, the first first: None where nothing ran, so that nothing took any time."""

    at: list[int]
    counts: dict[str, list[int]]
    times: dict[str, list[float | None]]

    def as_dict(self) -> dict[str, Any]:
        """As the charts of the page read it: instants in seconds since 1970, times in seconds."""
        return {"at": self.at, **self.counts, **self.times}


def first_period(span: Span, now: datetime) -> datetime:
    """When the first period of a chart begins that ends with the one that is on."""
    last = int(now.timestamp()) // span.period * span.period
    return datetime.fromtimestamp(last - span.seconds + span.period, UTC)


def series(rows: Sequence[Row], span: Span, now: datetime) -> Series:
    """The numbers of a chart, from rows of `facts.chart`; a period in which nothing ran has no row."""
    first = int(first_period(span, now).timestamp())
    at = [first + number * span.period for number in range(span.seconds // span.period)]
    known = {int(row["at"].timestamp()): row for row in rows}
    counts = {name: [known[each][name] if each in known else 0 for each in at] for name in COUNTS}
    return Series(at, counts, {name: [_time(known.get(each), *how) for each in at] for name, how in TIMES.items()})


def _time(row: Row | None, column: str, share: float) -> float | None:
    return percentile(row[column], share) if row else None


def percentile(histogram: Sequence[int], share: float) -> float | None:
    """As `history.percentile` has it, of however few there were: a chart says what was, and promises nothing."""
    total = sum(histogram)
    return history.percentile([count * history.FEWEST for count in histogram], share) if total else None


def overall(rows: Sequence[Row]) -> dict[str, float | None]:
    """The times of all rows together."""
    sums = {column: _added([row[column] for row in rows]) for column in ("waits", "runs")}
    return {name: percentile(sums[column], share) for name, (column, share) in TIMES.items()}


def _added(numbers: Sequence[Sequence[int]]) -> list[int]:
    return [sum(each) for each in zip(*numbers, strict=True)]


# Pictures


class Bar(NamedTuple):
    """A part of a column: what it counts, and where it is."""

    kind: str
    x: float
    y: float
    width: float
    height: float


def bars(series: Series) -> list[Bar]:
    """The counts of each period, stacked."""
    totals = _added(list(series.counts.values()))
    scale = HEIGHT / max(1, *totals)
    step = WIDTH / len(series.at)
    return [bar for place in range(len(series.at)) for bar in _column(series, place, step, scale)]


def _column(series: Series, place: int, step: float, scale: float) -> Iterator[Bar]:
    y = HEIGHT
    for kind, counts in series.counts.items():
        if height := counts[place] * scale:
            y -= height
            yield Bar(kind, round(place * step, 2), round(y, 2), round(step * 0.8, 2), round(height, 2))


def line(values: Sequence[float | None], most: float) -> str:
    """The path of a line, which is broken where there is no value; dots where a value stands alone."""
    step, path, is_drawing = WIDTH / max(1, len(values)), [], False
    for place, value in enumerate(values):
        if value is not None:
            x, y = round((place + 0.5) * step, 1), round(HEIGHT * (1 - value / most), 1)
            path.append(f"L{x} {y}" if is_drawing else f"M{x} {y}h0.1")
        is_drawing = value is not None
    return "".join(path)


def longest(series: Series) -> float:
    """The longest time in a chart, for its scale."""
    return max((value for values in series.times.values() for value in values if value is not None), default=1.0)
