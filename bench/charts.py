"""Charts of what the benchmark wrote: bars of those that took turns, curves of what grows.

    uv run python -m bench --report

Each is an SVG file without a background, in colours that are read on white and on black.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import Any, NamedTuple

WIDTH, ROW, LEFT, RIGHT, TOP = 720, 28, 190, 130, 44
HEIGHT, BOTTOM, LINES_LEFT, LINES_RIGHT = 330, 46, 62, 190
GREY, OURS = "#7d8590", "#2f81f7"
COLOURS = (OURS, "#d29922", "#3fb950", "#a371f7")
STYLE = f"text {{ font: 13px system-ui, sans-serif; fill: {GREY} }} .title {{ font-size: 15px; font-weight: 600 }}"
SETTINGS = "tick, concurrency"
"""How the names of tick with other settings begin, which are another question."""
APART = 16
"""Pixels between two labels."""

Figures = dict[str, Any]


class Scale(NamedTuple):
    """From figures to pixels; each power of ten is as long as any other where there are many."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, figure: float) -> float:
        part = (self._at(max(figure, self.low)) - self._at(self.low)) / (self._at(self.high) - self._at(self.low))
        return round(self.start + part * (self.end - self.start), 1)

    def _at(self, figure: float) -> float:
        return math.log10(figure) if self.log else figure

    def marks(self) -> list[float]:
        """Round figures along it."""
        if self.log:
            return [10.0**power for power in range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)]
        step = self.high / 5
        return [number * step for number in range(6)]


def scale(figures: Iterable[float], start: float, end: float) -> Scale:
    """One that holds all of them: from nothing, or by powers of ten when the greatest is 50 times the least."""
    known = list(figures)
    low, high = min(known), max(known)
    if low > 0 and high > 50 * low:
        return Scale(10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high)), start, end, log=True)
    return Scale(0, _round_up(high), start, end, log=False)


def _round_up(figure: float) -> float:
    unit = 10.0 ** math.floor(math.log10(figure))
    return next(step * unit for step in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if step * unit >= figure)


def short(figure: float) -> str:
    """As a person says it: 12k, 1M, 0.5."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if figure >= unit:
            return f"{figure / unit:.3g}{letter}"
    return f"{figure:.3g}"


# Pieces


def text(x: float, y: float, words: str, anchor: str = "start", **attributes: str) -> str:
    more = "".join(f' {name.rstrip("_")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = GREY, opacity: float = 1, width: float = 1) -> str:
    """A stroke."""
    at = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
    return f'<line {at} stroke="{colour}" stroke-opacity="{opacity}" stroke-width="{width}"/>'


def bar(y: float, end: float, colour: str) -> str:
    at = f'x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="18" rx="2"'
    return f'<rect {at} fill="{colour}" fill-opacity="0.55"/>'


def drawing(height: float, title: str, pieces: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-size="13">'
    said = f"<title>{escape(title)}</title><style>{STYLE}</style>{text(12, 24, title, class_='title')}"
    return "\n".join([head, said, *pieces, "</svg>", ""])


# Charts


def bars(title: str, rows: dict[str, Figures]) -> str:
    """The rate of each contender, the fastest first, with the least and the greatest."""
    measured = [row for row in rows.items() if "median" in row[1] and not row[0].startswith(SETTINGS)]
    known = sorted(measured, key=lambda row: -row[1]["median"])
    along = Scale(0, max(row["max"] for _, row in known), LEFT, WIDTH - RIGHT, log=False)
    pieces = []
    for number, (name, row) in enumerate(known):
        y = TOP + number * ROW
        ends = [along(row[end]) for end in ("min", "max")]
        pieces += [
            text(LEFT - 10, y + 16, name, "end"),
            bar(y + 3, along(row["median"]), OURS if name.startswith("tick") else GREY),
            line(ends[0], y + 12, ends[1], y + 12),
            *(line(end, y + 8, end, y + 16) for end in ends),
            text(max(ends) + 10, y + 16, f"{row['median']:,} jobs/s"),
        ]
    return drawing(TOP + len(known) * ROW + 12, title, pieces)


def curves(given: Figures) -> str:
    """What was measured along an axis, with the least and the greatest of each point."""
    found = given["curves"]
    points = [point for each in found.values() for point in each]
    across = scale((point[0] for point in points), LINES_LEFT, WIDTH - LINES_RIGHT)
    up = scale((figure for point in points for figure in point[1:]), HEIGHT - BOTTOM, TOP)
    pieces = [*_grid(across, up), text(LINES_LEFT, HEIGHT - 8, given["x"])]
    for colour, each in zip(COLOURS, found.values(), strict=False):
        pieces += _curve(each, across, up, colour)
    ends = {name: up(each[-1][1]) for name, each in found.items()}
    for colour, (name, y) in zip(COLOURS, apart(ends).items(), strict=False):
        pieces.append(text(WIDTH - LINES_RIGHT + 10, y + 4, name, style=f"fill: {colour}"))
    return drawing(HEIGHT, f"{given['title']}: {given['y']}", pieces)


def _grid(across: Scale, up: Scale) -> list[str]:
    heights = {mark: up(mark) for mark in up.marks()}
    return [
        *(line(LINES_LEFT, y, WIDTH - LINES_RIGHT, y, opacity=0.25) for y in heights.values()),
        *(text(LINES_LEFT - 8, y + 4, short(mark), "end") for mark, y in heights.items()),
        *(text(across(mark), HEIGHT - BOTTOM + 18, short(mark), "middle") for mark in across.marks()),
    ]


def _curve(points: list[list[float]], across: Scale, up: Scale, colour: str) -> list[str]:
    at = [(across(x), up(middle), up(low), up(high)) for x, middle, low, high in points]
    path = " ".join(f"{x},{y}" for x, y, *_ in at)
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y, *_ in at),
        *(line(x, low, x, high, colour, 0.6) for x, _, low, high in at),
    ]


def apart(heights: dict[str, float]) -> dict[str, float]:
    """Labels at these heights, pushed down where they would lie upon one another; in the order that was given."""
    placed: dict[str, float] = {}
    for name in sorted(heights, key=lambda name: heights[name]):
        placed[name] = max([heights[name], *(y + APART for y in placed.values())])
    return {name: placed[name] for name in heights}


# By report


def charts(report: Figures) -> dict[str, str]:
    """The charts of one JSON file by their names: those of each version of Postgres."""
    drawn = {}
    for each in report.get("drain", []):
        title = f"Drained by one process (PostgreSQL {each['postgres']})"
        drawn[f"drain-{major(each)}"] = bars(title, each["drain"])
    for each in report.get("growth", []):
        kinds = {kind: given for kind, given in each.items() if kind != "postgres"}
        drawn |= {f"growth-{kind}-{major(each)}": curves(given) for kind, given in kinds.items()}
    return drawn


def major(figures: Figures) -> str:
    """The version of Postgres, without the minor one."""
    return str(figures["postgres"]).partition(".")[0]
