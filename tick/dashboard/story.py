"""One job's whole story: how it came, every attempt that is kept, how it ended, what came of it; and its buttons."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from starlette.responses import Response

from tick import facts
from tick.dashboard import filters, waiting
from tick.dashboard.bulk import ACTIONS, Action
from tick.dashboard.desk import Desk, Refusal, Row
from tick.dashboard.filters import Filter, digest
from tick.dashboard.waiting import Reason
from tick.database import Statement
from tick.errors import InvalidTransition

LONGEST_TEXT = 100_000
"""Characters of an error or a traceback that are read."""
MOST_KIN = 100
NEIGHBOURS = 3_000
"""Jobs that are looked through for the callbacks of one that has ended."""
CALLBACK = "tick.callback"

logger = logging.getLogger("tick")


class Event(NamedTuple):
    """Something that happened to a job."""

    at: datetime | None
    kind: str
    """made, attempt, failed, or the status in which it ended."""
    title: str
    text: str = ""
    traceback: str = ""


async def show(desk: Desk) -> Response:
    """A job, with all that belongs to it."""
    id = job_id(desk)
    _, jobs, kin, callbacks = await desk.read(
        facts.along_indexes(),
        _ask("job", id=id, most=LONGEST_TEXT),
        _ask("kin", id=id, limit=MOST_KIN + 1, look=10 * MOST_KIN),
        _ask("callbacks", id=id, type=CALLBACK, look=NEIGHBOURS),
    )
    if not jobs:
        raise no_such_job(id)
    job, told = jobs[0], events(jobs[0])
    # In a thread: to look for secrets in texts of a megabyte takes a second, in which ticks should go on.
    return await asyncio.to_thread(
        desk.page,
        "job.html",
        job=job,
        events=told,
        traceback=next((event.traceback for event in reversed(told) if event.text == job["last_error"]), None),
        is_masked=desk.mask(job["payload"]) != job["payload"],
        reason=(await reasons(desk, [job])).get(id),
        kin=_by_kin(kin),
        most_kin=MOST_KIN,
        callbacks=callbacks,
        actions=[action for action in ACTIONS.values() if job["status"] in action.statuses],
        group_query=_group(job),
        has_handler=job["type"] in desk.registry,
    )


async def reasons(desk: Desk, jobs: Sequence[Row]) -> dict[int, Reason]:
    """Why those of the jobs that are pending do not run, by id."""
    pending = [job for job in jobs if job["status"] == "pending"]
    if not pending:
        return {}
    ids = [job["id"] for job in pending]
    _, rows = await desk.read(facts.along_indexes(), _ask("obstacles", ids=ids))
    obstacles = {row["id"]: row for row in rows}
    return {job["id"]: waiting.reason(job, obstacles.get(job["id"]), desk.now, desk.registry) for job in pending}


def events(job: Row) -> list[Event]:
    """What happened to a job, as far as that is kept, the first first."""
    failed = [
        Event(
            _instant(error["at"]),
            "failed",
            f"Attempt {error['attempt'] if error['attempt'] is not None else '?'} failed",
            error["error"] or "",
            error["traceback"] or "",
        )
        for error in job["errors"]
    ]
    told = [Event(job["created_at"], "made", _origin(job)), *failed, *_latest(job, failed)]
    return sorted(told, key=lambda event: event.at or job["created_at"])


def _latest(job: Row, failed: Sequence[Event]) -> list[Event]:
    """The last start, what a person has asked for, and the end."""
    told = []
    if job["started_at"]:
        by = f" in a tick of {job['trigger']}" if job["trigger"] else ""
        told.append(Event(job["started_at"], "attempt", f"Attempt {job['attempt']} started{by}"))
    if job["cancel_requested_at"]:
        told.append(Event(job["cancel_requested_at"], "cancelled", "Somebody asked for it to be cancelled"))
    if job["finished_at"]:
        is_told = bool(failed) and failed[-1].text == job["last_error"]
        text = "" if is_told or job["status"] == "done" else job["last_error"] or ""
        told.append(Event(job["finished_at"], job["status"], _END[job["status"]], text))
    return told


_END = {"done": "Done", "dead": "Dead: it is not tried again by itself", "cancelled": "Cancelled"}


def _origin(job: Row) -> str:
    if job["schedule"]:
        return "Made for a window of its schedule" if job["window"] else "Put in by hand for its schedule"
    return "Put in, to follow another job" if job["parent_id"] else "Put in"


def _instant(text: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo else None


def _by_kin(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {kin: [row for row in rows if row["kin"] == kin] for kin in ("parent", "child", "group", "member")}


def _group(job: Row) -> str | None:
    """The query for the dead jobs of its kind."""
    if job["status"] != "dead" or job["fingerprint"] is None:
        return None
    return Filter("dead", job["type"], error=digest(job["fingerprint"])).query()


def job_id(desk: Desk) -> int:
    """The id in the path. Raises Refusal for what no job can have."""
    given = desk.request.path_params["id"]
    if not filters.is_id(str(given)):
        raise no_such_job(given)
    return int(given)


def no_such_job(id: object) -> Refusal:
    """What is said of a job that is not there, or no longer."""
    return Refusal(
        404, "No such job", f"There is no job {str(id)[:40]}; one that has ended may have been pruned since."
    )


def changing(action: Action) -> Callable[[Desk], Awaitable[Response]]:
    """The button that does this to one job."""

    async def press(desk: Desk) -> Response:
        id = job_id(desk)
        changed, after = await desk.change(
            action.statement._replace(params={"ids": [id]}), Statement("job_status", {"id": id})
        )
        if not after:
            raise no_such_job(id)
        if changed:
            logger.info("dashboard: job %d %s by %s", id, action.done, desk.who)
            return desk.go(f"/dashboard/jobs/{id}", _told(action, after[0]["status"]))
        refusal = InvalidTransition(id, after[0]["status"], action.done, " or ".join(action.statuses))
        return desk.go(f"/dashboard/jobs/{id}", f"Nothing was changed: {refusal}.")

    return press


def _told(action: Action, status: str) -> str:
    if action.name == "cancel" and status == "running":
        return "It is told to stop, with the next exchange of its tick."
    return f"It was {action.done}: it is {status} now."


def _ask(name: str, **params: Any) -> Statement:
    return Statement(name, params, "dashboard")


ROUTES = [
    ("/dashboard/jobs/{id}", ["GET"], show),
    *((f"/dashboard/jobs/{{id}}/{name}", ["POST"], changing(action)) for name, action in ACTIONS.items()),
]
