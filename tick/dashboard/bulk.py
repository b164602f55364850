"""Many jobs at once: a page that says what would be changed, and the change."""

from __future__ import annotations

import logging
from collections import Counter
from typing import NamedTuple

from starlette.responses import Response

from tick.dashboard import filters
from tick.dashboard.desk import Desk, Refusal
from tick.dashboard.filters import MOST, Filter, Found, Place
from tick.database import Statement

SAMPLE = 10

logger = logging.getLogger("tick")


class Action(NamedTuple):
    """What is done to jobs of some statuses: the statement that does it, and the words for it."""

    name: str
    statement: Statement
    statuses: tuple[str, ...]
    """The first is taken where none is asked for."""
    verb: str
    done: str
    means: str


ACTIONS = {
    action.name: action
    for action in (
        Action(
            "replay",
            Statement("replay", {}),
            ("dead", "cancelled"),
            "Replay",
            "replayed",
            "They are pending again and due at once, with all their attempts before them.",
        ),
        Action(
            "run-now",
            Statement("run_jobs_now", {}, "dashboard"),
            ("pending",),
            "Run now",
            "made due",
            "They are due at once; what they wait for still goes before them.",
        ),
        Action(
            "cancel",
            Statement("cancel_jobs", {}, "dashboard"),
            ("pending", "running"),
            "Cancel",
            "cancelled",
            "Pending ones will not run. Running ones are told to stop, which a coroutine does at its next await.",
        ),
    )
}


def possible(filter: Filter) -> list[Action]:
    """What may be done to jobs that a filter finds."""
    return [action for action in ACTIONS.values() if filter.status in (None, *action.statuses)]


async def ask(desk: Desk) -> Response:
    """What would be done, to how many jobs, with some of them."""
    action = _action(desk.query.get("do", ""))
    filter, found = await _meant(desk, action)
    jobs = [job for job in found.jobs if job["status"] in action.statuses]
    return desk.page(
        "bulk.html",
        action=action,
        filter=filter,
        fingerprint=found.fingerprint,
        ids=[job["id"] for job in jobs] if filter is None else None,
        count=len(jobs),
        most=MOST,
        others=len(found.jobs) - len(jobs),
        types=Counter(job["type"] for job in jobs).most_common(SAMPLE),
        sample=jobs[:SAMPLE],
        more=found.next is not None and len(jobs) == MOST,
        since=found.since,
        back=_back(filter),
    )


async def do(desk: Desk) -> Response:
    """Do it, in one transaction; whoever was faster has been so."""
    action = _action(desk.form.get("do", ""))
    filter, found = await _meant(desk, action)
    ids = sorted(job["id"] for job in found.jobs)
    (changed,) = await desk.change(action.statement._replace(params={"ids": ids}))
    logger.info("dashboard: %d jobs %s by %s: %s", len(changed), action.done, desk.who, filter or ids[:SAMPLE])
    return desk.go(_back(filter), _told(action, len(changed), len(ids)))


def _action(name: str) -> Action:
    if name not in ACTIONS:
        raise Refusal(422, "No such action", f"Jobs can be changed by {', '.join(ACTIONS)}; choose one of them.")
    return ACTIONS[name]


async def _meant(desk: Desk, action: Action) -> tuple[Filter | None, Found]:
    """The jobs that are meant: all that a filter finds, or those that were chosen, without one."""
    given = desk.form or desk.query
    if given.get("all"):
        filter = Filter.of(given)
        filter = filter if filter.status else filter._replace(status=action.statuses[0])
        if filter.status not in action.statuses:
            raise Refusal(422, "That cannot be", f"Only {' or '.join(action.statuses)} jobs can be {action.done}.")
        return filter, await filters.find(desk, filter, Place(), MOST, filters.FARTHER)
    ids = [int(id) for id in desk.values("id") if filters.is_id(id)][:MOST]
    if not ids:
        raise Refusal(422, "No jobs were chosen", "Go back and tick some, or choose all that match.")
    (jobs,) = await desk.read(Statement("jobs_by_id", {"ids": ids}, "dashboard"))
    return None, Found(jobs)


def _back(filter: Filter | None) -> str:
    return f"/dashboard/jobs?{filter.query()}" if filter else "/dashboard/jobs"


def _told(action: Action, changed: int, meant: int) -> str:
    told = f"{changed:,} job{' was' if changed == 1 else 's were'} {action.done}."
    if changed < meant:
        told += f" {meant - changed:,} had another status by then: somebody, or a tick, was faster."
    return told


ROUTES = [("/dashboard/jobs/bulk", ["GET"], ask), ("/dashboard/jobs/bulk", ["POST"], do)]
