"""The page of jobs: what a filter finds, and why each job that waits does; and every page about jobs in one table."""

from __future__ import annotations

from starlette.responses import Response

from tick.dashboard import bulk, editing, filters, story
from tick.dashboard.desk import Desk
from tick.dashboard.filters import Filter, Place


async def show(desk: Desk) -> Response:
    """The jobs that the query asks for, a page of them."""
    filter, place = Filter.of(desk.query), Place.of(desk.query)
    found = await filters.find(desk, filter, place)
    return desk.page(
        "jobs.html",
        filter=filter,
        statuses=filters.STATUSES,
        jobs=found.jobs,
        fingerprint=found.fingerprint,
        reasons=await story.reasons(desk, found.jobs),
        actions=bulk.possible(filter),
        since=found.since,
        look=filter.look(),
        next_url=_url(found.next_query(filter)),
        first_url=None if place == Place() else _url(filter.query()),
    )


def _url(query: str | None) -> str | None:
    return None if query is None else f"/dashboard/jobs?{query}" if query else "/dashboard/jobs"


ROUTES = [("/dashboard/jobs", ["GET"], show), *bulk.ROUTES, *story.ROUTES, *editing.ROUTES]
