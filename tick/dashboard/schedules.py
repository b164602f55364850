"""Schedules: what they mean in words, their last windows and their next; pause, run now, and why one did (not) run."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from starlette.responses import Response

from tick import explain, facts, history, intake, materialise, platforms, schedules
from tick.cron import zone
from tick.dashboard import filters
from tick.dashboard.desk import Desk, Refusal, Row
from tick.database import Statement
from tick.errors import ConfigurationError
from tick.explain import Explanation
from tick.jobs import NewJob
from tick.schedules import Schedule

PAGE = 100
STRIP = 20
LONG_STRIP = 50
LAST_WINDOWS = 20
NEXT_WINDOWS = 10

logger = logging.getLogger("tick")


class Window(NamedTuple):
    """A window that has been, or a row of them that were skipped; `kind` is a status, retrying or skipped."""

    at: datetime
    kind: str
    text: str
    job: Row | None = None
    skip: Row | None = None


class Shown(NamedTuple):
    """A schedule as a page shows it."""

    schedule: Schedule
    row: Row
    outcomes: list[Row]
    skips: list[Row]
    each: int
    p95: float | None

    @property
    def url(self) -> str:
        return url(self.schedule.name)

    @property
    def is_off(self) -> str | None:
        """Why its windows are skipped, in a word, if they are."""
        return "disabled" if not self.schedule.enabled else "paused" if self.row["paused"] else None

    @property
    def last_window(self) -> datetime | None:
        """The last one that was made."""
        return next((row["window"] for row in self.outcomes), None)

    @property
    def next_window(self) -> datetime | None:
        """The one that the ticks wait for."""
        window: datetime | None = self.row["next_window"]
        return window

    @property
    def strip(self) -> list[dict[str, Any]]:
        """What became of the last windows, the oldest first; windows that were skipped for one reason are one."""
        made = [(row["window"], _kind(row), f"/dashboard/jobs/{row['id']}") for row in self.outcomes]
        skipped = [(row["last_window"], _skipped(row), None) for row in self.skips]
        last = sorted([*made, *skipped], key=lambda item: item[0])[-self.each :]
        return [
            {
                "kind": text.partition(",")[0],
                "text": f"{explain.shown(at, self.schedule.timezone)}: {text}",
                "href": href,
            }
            for at, text, href in last
        ]


async def show(desk: Desk) -> Response:
    """The schedules of the file that last ticked, a hundred to a page, or those that a search finds."""
    text, after = desk.query.get("text", "").strip(), desk.query.get("after") or None
    params = {"text": filters.pattern(text), "after": after, "limit": PAGE + 1}
    (rows,) = await desk.read(Statement("find_schedules", params, "dashboard"))
    is_more = len(rows) > PAGE
    found = await _shown(desk, rows[:PAGE], STRIP)
    return desk.page(
        "schedules.html",
        found=found,
        local=_local,
        text=text,
        next_url=_next(text, found[-1].schedule.name) if is_more else None,
        first_url=_next(text, None) if after else None,
    )


async def show_one(desk: Desk) -> Response:
    """One schedule; with `at` in the query, also why it did or did not run then."""
    name = desk.request.path_params["name"]
    rows, skips = await desk.read(facts.schedules(name=name), facts.skips(name, limit=LAST_WINDOWS))
    if not rows:
        raise await _unknown(desk, name)
    (shown,) = await _shown(desk, rows, LONG_STRIP)
    at = desk.query.get("at", "").strip()
    explanation, problem = await _explained(desk, name, at) if at else (None, None)
    return desk.page(
        "schedule.html",
        shown=shown,
        windows=_windows(shown, skips),
        coming=list(_coming(shown.schedule, desk.now)),
        in_zone=lambda instant: explain.shown(instant, shown.schedule.timezone),
        is_handled=shown.schedule.type in desk.registry,
        at=at,
        example=_example(shown, desk.now),
        explanation=explanation,
        problem=problem,
    )


async def _shown(desk: Desk, rows: Sequence[Row], each: int) -> list[Shown]:
    found = [(Schedule.from_body(row["schedule"], row["body"]), row) for row in rows]
    if not found:
        return []
    named = [{"schedule": schedule.name, "type": schedule.type} for schedule, _ in found]
    types = sorted({schedule.type for schedule, _ in found})
    names = [schedule.name for schedule, _ in found]
    outcomes, skips, durations = await desk.read(
        facts.outcomes(named, each),
        Statement("skips_of", {"schedules": names, "each": each}, "dashboard"),
        Statement("durations", {"types": types}, "dashboard"),
    )
    p95 = {row["type"]: history.percentile(row["durations"]) for row in durations}
    made, skipped = _by_schedule(outcomes), _by_schedule(skips)
    return [
        Shown(schedule, row, made.get(schedule.name, []), skipped.get(schedule.name, []), each, p95.get(schedule.type))
        for schedule, row in found
    ]


def _by_schedule(rows: Iterable[Row]) -> dict[str, list[Row]]:
    of: dict[str, list[Row]] = {}
    for row in rows:
        of.setdefault(row["schedule"], []).append(row)
    return of


def _skipped(row: Row) -> str:
    if row["count"] == 1:
        return "skipped"
    return "skipped, with " + (f"{row['count'] - 1:,}" if row["count"] else "more than 10,000") + " before it"


def _kind(row: Row) -> str:
    return "retrying" if row["status"] == "pending" and row["failures"] else str(row["status"])


def _local(instant: datetime, schedule: Schedule) -> str:
    """What a clock in the schedule's zone shows."""
    return f"{instant.astimezone(zone(schedule.timezone)):%a %Y-%m-%d %H:%M %Z}"


def _example(shown: Shown, now: datetime) -> str:
    """An instant that somebody may ask about, as it is written."""
    instant = shown.last_window or shown.next_window or now
    return f"{instant.astimezone(zone(shown.schedule.timezone)):%Y-%m-%dT%H:%M}"


def _windows(shown: Shown, skips: Iterable[Row]) -> list[Window]:
    """What became of the last windows, the latest first."""
    made = [Window(row["window"], _kind(row), row["last_error"] or "", job=row) for row in shown.outcomes]
    skipped = [Window(row["last_window"], "skipped", REASONS[row["reason"]], skip=row) for row in skips]
    return sorted([*made, *skipped], key=lambda window: window.at, reverse=True)[:LAST_WINDOWS]


REASONS = {
    "late": "it was late: a later window was due too, or catch_up does not want it",
    "cap": "more windows were due at once than max_catch_up allows",
    "overlap": "the job of an earlier window was still pending or running",
    "paused": "the schedule was paused",
    "disabled": "the schedule was disabled in its file",
}


def _coming(schedule: Schedule, now: datetime) -> Iterable[datetime]:
    """The next windows."""
    at = now
    for _ in range(NEXT_WINDOWS):
        window = schedules.due(schedule, at, at).next_window
        if window is None:
            return
        yield window
        at = window


async def _explained(desk: Desk, name: str, at: str) -> tuple[Explanation | None, str | None]:
    """Why the schedule did or did not run then; or what is wrong with the instant."""
    try:
        return await explain.explain(desk.read, name, at), None
    except ConfigurationError as error:
        return None, str(error)


async def _unknown(desk: Desk, name: str) -> Refusal:
    (rows,) = await desk.read(Statement("remembered", {"name": name}, "dashboard"))
    if rows:
        why = f"{name} was in a schedules file once, and is not in the one that last ticked."
        return Refusal(404, "No longer a schedule", f"{why} Its jobs are still found by its name.")
    return Refusal(404, "No such schedule", f"No tick has seen a schedule {name[:100]!r}.")


async def pause(desk: Desk) -> Response:
    """Skip its windows from now on."""
    await _change(desk, Statement("pause_schedule", {"name": _name(desk), "by": desk.who}), "paused")
    return desk.go(
        url(_name(desk)), "It is paused: its windows are skipped, and recorded as such, until it is resumed."
    )


async def resume(desk: Desk) -> Response:
    """Make its windows again."""
    await _change(desk, Statement("resume_schedule", {"name": _name(desk)}), "resumed")
    return desk.go(url(_name(desk)), "It is resumed: the windows after this moment are made again.")


async def _change(desk: Desk, statement: Statement, done: str) -> None:
    (changed,) = await desk.change(statement)
    if not changed:
        raise await _unknown(desk, _name(desk))
    logger.info("dashboard: schedule %s %s by %s", _name(desk), done, desk.who)


async def run_now(desk: Desk) -> Response:
    """Enqueue its job at once, for no window."""
    name = _name(desk)
    (rows,) = await desk.read(facts.schedules(name=name))
    if not rows:
        raise await _unknown(desk, name)
    new = _by_hand(desk, Schedule.from_body(name, rows[0]["body"]))
    async with desk.writing() as connection:
        (id,) = await intake.enqueue_many(connection, [new], desk.settings.schema)
    logger.info("dashboard: schedule %s run now as job %d by %s", name, id, desk.who)
    return desk.go(f"/dashboard/jobs/{id}", f"This is the job of {name}, due now and for no window.")


def _by_hand(desk: Desk, schedule: Schedule) -> NewJob:
    """The job to be. Raises Refusal when this deployment could not run it."""
    if problems := materialise.check([schedule], desk.registry, platforms.budget(desk.settings)):
        raise Refusal(409, "It cannot run here", "; ".join(problems))
    return desk.registry.get(schedule.type).new_job(schedule.payload)._replace(
        priority=schedule.priority,
        key=schedule.key,
        max_attempts=schedule.max_attempts,
        timeout=schedule.timeout.total_seconds() if schedule.timeout else None,
        schedule=schedule.name,
        callback_url=schedule.callback_url,
        on_dead_url=schedule.on_dead_url,
    )  # fmt: skip


def _name(desk: Desk) -> str:
    return str(desk.request.path_params["name"])


def url(name: str) -> str:
    """The page of a schedule."""
    return f"/dashboard/schedules/{quote(name, safe='')}"


def _next(text: str, after: str | None) -> str:
    given = {name: value for name, value in (("text", text), ("after", after)) if value}
    return f"/dashboard/schedules?{urlencode(given)}" if given else "/dashboard/schedules"


ROUTES = [
    ("/dashboard/schedules", ["GET"], show),
    ("/dashboard/schedules/{name}", ["GET"], show_one),
    ("/dashboard/schedules/{name}/pause", ["POST"], pause),
    ("/dashboard/schedules/{name}/resume", ["POST"], resume),
    ("/dashboard/schedules/{name}/run-now", ["POST"], run_now),
]
