"""The log of ticks, and what one of them cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from starlette.responses import Response

from tick import facts, verdict
from tick.config import GRACE
from tick.dashboard.desk import Desk, Refusal, Row
from tick.database import Statement

PAGE = 50
LOOK = 5_000
"""Ticks that a filter looks at for a page."""
KINDS = {"all": "all", "work": "with work", "trouble": "with trouble"}
MOST_JOBS = 50
SLACK = 1.5
"""Intervals after which a tick has been missed."""


class Filter(NamedTuple):
    """Which ticks: of a trigger, of a kind, from before an instant."""

    trigger: str | None
    kind: str
    before: datetime | None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """As a URL has it. Raises Refusal for an instant that is none."""
        kind = query.get("kind", "all")
        return cls(query.get("trigger") or None, kind if kind in KINDS else "all", _instant(query.get("before")))

    @property
    def look(self) -> int:
        """How many ticks to look at for a page: without a filter, those that are on it."""
        return LOOK if self.trigger or self.kind != "all" else PAGE + 2

    def url(self, before: datetime | None = None) -> str:
        """The page from before an instant, or the first one."""
        kind = None if self.kind == "all" else self.kind
        values = {"trigger": self.trigger, "kind": kind, "before": before and before.isoformat()}
        query = urlencode({name: value for name, value in values.items() if value})
        return f"/dashboard/ticks{'?' if query else ''}{query}"


async def log(desk: Desk) -> Response:
    """A page of ticks, the latest first."""
    filter = Filter.of(desk.query)
    params = {**filter._asdict(), "limit": PAGE + 1, "look": filter.look}
    rows, (looked,), triggers, pulse = await desk.read(
        Statement("ticks", params, "dashboard_now"),
        Statement("ticks_looked_at", params, "dashboard_now"),
        facts.triggers(),
        facts.pulse(),
    )
    # Either the page is full, or the look ended before the ticks did.
    until = looked["until"] if looked["count"] == filter.look else None
    edge = rows[PAGE - 1]["started_at"] if len(rows) > PAGE else until
    return desk.page(
        "ticks.html",
        ticks=[described(tick, pulse[0]["gap"], desk.now) for tick in rows[:PAGE]],
        filter=filter,
        kinds=KINDS,
        triggers=sorted({row["trigger"] for row in triggers} | ({filter.trigger} if filter.trigger else set())),
        looked=looked if len(rows) <= PAGE else None,
        next_url=edge and filter.url(edge),
        first_url=filter.url() if filter.before else None,
    )


async def tick(desk: Desk) -> Response:
    """One tick: what it cost, what it did, and what it still has."""
    id = str(desk.request.path_params["id"])
    rows, jobs, pulse = await desk.read(
        Statement("tick", {"id": id}, "dashboard_now"),
        Statement("jobs_of_tick", {"id": id, "limit": MOST_JOBS}, "dashboard_now"),
        facts.pulse(),
    )
    if not rows:
        raise Refusal(404, "No such tick", "No tick has this id, or it has been pruned.")
    return desk.page("tick.html", tick=described(rows[0], pulse[0]["gap"], desk.now), jobs=jobs)


def described(tick: Row, interval: float | None, now: datetime) -> Row:
    """A tick with its `kind`, what it `did`, the `share` of its budget that it used, the ticks `missed` before it."""
    return tick | {
        "kind": kind(tick, now),
        "did": did(tick, now),
        "share": min(1.0, (tick["used"] or 0.0) / tick["budget"]),
        "missed": missed(tick["gap"], interval),
    }


def kind(tick: Row, now: datetime) -> str:
    """How a tick went: running, lost (it never ended), trouble, retrying, work or idle."""
    if tick["finished_at"] is None:
        return "lost" if _is_lost(tick, now) else "running"
    if tick["error"] or tick["dead"]:
        return "trouble"
    if tick["retried"] or tick["reclaimed"]:
        return "retrying"
    return "work" if tick["claimed"] or tick["materialised"] else "idle"


def _is_lost(tick: Row, now: datetime) -> bool:
    return bool((now - tick["started_at"]).total_seconds() > tick["budget"] + 2 * GRACE)


def did(tick: Row, now: datetime) -> str:
    """What a tick has done, in words."""
    if tick["finished_at"] is None:
        return "never ended: its process was killed" if _is_lost(tick, now) else "still running"
    names = ("done", "retried", "dead", "released", "reclaimed", "stale", "materialised", "left")
    return ", ".join(f"{tick[name]:,} {name}" for name in names if tick[name]) or "nothing was due"


def missed(gap: float | None, interval: float | None) -> int:
    """How many ticks should have been in a gap, by the interval that they keep, which is a minute at least."""
    usual = max(interval or 0.0, verdict.SHORTEST_INTERVAL)
    return round(gap / usual) - 1 if gap and gap > SLACK * usual else 0


def strip(ticks: Sequence[Row], interval: float | None, since: float | None, now: datetime) -> list[dict[str, Any]]:
    """Ticks, the latest first, as the items of a strip, the oldest first; where one should have been there is a gap."""
    items: list[dict[str, Any]] = []
    for tick in reversed(ticks):
        if items and (count := missed(tick["gap"], interval)):
            items.append(_gap(count, tick["gap"]))
        items.append({"kind": kind(tick, now), "text": _told(tick, now)})
    if ticks and (count := missed(since, interval)):
        items.append(_gap(count, since or 0.0))
    return items


def _gap(count: int, seconds: float) -> dict[str, Any]:
    ticks = "1 tick" if count == 1 else f"{count:,} ticks"
    return {"kind": "gap", "text": f"no tick for {verdict.lasting(seconds)}: {ticks} missing"}


def _told(tick: Row, now: datetime) -> str:
    at = tick["started_at"].astimezone(UTC)
    late = f", {verdict.duration(tick['late'])} late" if (tick["late"] or 0) >= 1 else ""
    used = f", used {verdict.duration(tick['used'])} of {verdict.duration(tick['budget'])}" if tick["used"] else ""
    error = f": {verdict.first_line(tick['error'])}" if tick["error"] else ""
    return f"{at:%H:%M:%S} UTC, {tick['trigger']}{late}: {did(tick, now)}{used}{error}"


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise Refusal(422, "That is no instant", "`before` has to look like 2026-01-31T08:00:00+00:00.")
    return instant


ROUTES = [
    ("/dashboard/ticks", ["GET"], log),
    ("/dashboard/ticks/{id:uuid}", ["GET"], tick),
]
