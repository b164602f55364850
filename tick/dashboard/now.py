"""How things are now: the verdict, the numbers that matter, what has run lately, and who ticks."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from tick import facts, verdict
from tick.dashboard import charts, ticks
from tick.dashboard.charts import SPANS, Span
from tick.dashboard.desk import Desk, Row
from tick.database import Statement

STRIP = 60
MOST_RUNNING = 20
MOST_TYPES = 10
MOST_ALERTS = 20


async def show(desk: Desk) -> Response:
    """The page."""
    return desk.page("now.html", **await _values(desk))


async def live(desk: Desk) -> Response:
    """What of the page changes from second to second."""
    return desk.part("now_live.html", **await _values(desk))


async def chart(desk: Desk) -> Response:
    """The numbers of the charts."""
    span = _span(desk)
    await desk.read()
    (rows,) = await desk.read(facts.chart(span.period, charts.first_period(span, desk.now)))
    return JSONResponse(charts.series(rows, span, desk.now).as_dict())


async def _values(desk: Desk) -> dict[str, Any]:
    span, asked = _span(desk), verdict.questions(desk.registry.types)
    answers = await desk.read(
        *asked,
        facts.recent_ticks(STRIP),
        facts.alerts(MOST_ALERTS),
        Statement("running", {"limit": MOST_RUNNING, "most": facts.MOST}, "dashboard_now"),
    )
    # A week of every type would be too much to add up.
    types_of = charts.HOUR if span == charts.HOUR else charts.DAY._replace(period=3600)
    rows, busiest = await desk.read(
        facts.chart(span.period, charts.first_period(span, desk.now)),
        facts.by_type(types_of.period, charts.first_period(types_of, desk.now), MOST_TYPES),
    )
    (depth,), (pulse,), triggers, _, rates, _, unhandled, _, recent, alerts, running = answers
    return {
        "verdict": verdict.judge(*answers[: len(asked)]),
        "depth": depth,
        "pulse": pulse,
        "beat": verdict.beat(pulse["since"], pulse["installed"], pulse["gap"]),
        "rate": _rate(rates),
        "strip_items": ticks.strip(recent, pulse["gap"], pulse["since"], desk.now),
        "last": ticks.described(recent[0], pulse["gap"], desk.now) if recent else None,
        "triggers": triggers,
        "running": running,
        "unhandled": unhandled,
        "alerts": [alert for alert in alerts if alert["ended_at"] is None],
        "busiest": busiest,
        "busiest_of": types_of.name,
        **_pictures(rows, span, desk),
    }


def _pictures(rows: list[Row], span: Span, desk: Desk) -> dict[str, Any]:
    series = charts.series(rows, span, desk.now)
    most = charts.longest(series)
    return {
        "span": span.name,
        "period": span.period,
        "spans": list(SPANS),
        "bars": charts.bars(series),
        "highest": max(map(sum, zip(*series.counts.values(), strict=True))),
        "sums": {name: sum(counts) for name, counts in series.counts.items()},
        "lines": {name: charts.line(values, most) for name, values in series.times.items()},
        "longest": most,
        "times": charts.overall(rows),
        "width": charts.WIDTH,
        "height": charts.HEIGHT,
    }


def _rate(rates: list[Row]) -> Row | None:
    """Of the attempts of the last quarter of an hour, how many failed; None when there were none."""
    total = next((row for row in rates if row["type"] == ""), None)
    if total is None or not total["done"] + total["failed"]:
        return None
    ended = total["done"] + total["failed"]
    return {"share": total["failed"] / ended, "failed": total["failed"], "ended": ended}


def _span(desk: Desk) -> Span:
    return SPANS.get(desk.query.get("span", ""), SPANS["hour"])


ROUTES = [
    ("/dashboard", ["GET"], show),
    ("/dashboard/live", ["GET"], live),
    ("/dashboard/chart.json", ["GET"], chart),
]
