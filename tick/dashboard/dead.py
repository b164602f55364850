"""Dead letters: by type and kind of error, how many and since when, and the way to replay all of a kind."""

from __future__ import annotations

from starlette.responses import Response

from tick import facts
from tick.dashboard.desk import Desk, Row
from tick.dashboard.filters import Filter, digest

MOST_GROUPS = 100
MOST_COUNTED = 1_000
"""Jobs of a group that are counted: a hundred groups of so many take 10 ms, and of ten times as many 100 ms."""


async def show(desk: Desk) -> Response:
    """The groups, that with the latest death first."""
    depth, _, found = await desk.read(
        facts.depth(), facts.along_indexes(), facts.dead_groups(MOST_GROUPS, MOST_COUNTED)
    )
    wanted = desk.query.get("type")
    groups = [group for group in found if wanted in (None, "", group["type"])]
    return desk.page(
        "dead.html",
        groups=[group | {"query": _query(group)} for group in groups],
        most=MOST_COUNTED,
        most_groups=MOST_GROUPS,
        dead=depth[0]["dead"],
        are_all=depth[0]["dead"] <= sum(group["count"] for group in groups)
        or any(group["count"] > MOST_COUNTED for group in groups),
    )


def _query(group: Row) -> str:
    """The jobs of a group, as the page of jobs finds them."""
    return Filter("dead", group["type"], error=digest(group["fingerprint"])).query()


ROUTES = [("/dashboard/dead", ["GET"], show)]
