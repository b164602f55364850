"""The page behind the link of an alert: replay these dead jobs. The signed token in the link stands for a log-in."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from starlette.responses import Response

from tick import tokens
from tick.dashboard.desk import Desk, Refusal
from tick.database import Statement

MOST = 10_000
"""Jobs that are replayed at once."""

logger = logging.getLogger("tick")


class Wanted(NamedTuple):
    """What a link replays: some jobs, or the dead ones of a type, with one kind of error or with any."""

    ids: tuple[int, ...] = ()
    type: str | None = None
    fingerprint: str | None = None

    @classmethod
    def of(cls, value: Any) -> Wanted | None:
        """As a token holds it; None for what no link of ours has."""
        match value:
            case {"ids": [*ids]} if ids and all(isinstance(id, int) for id in ids):
                return cls(ids=tuple(ids))
            case {"type": str(type), "fingerprint": str(fingerprint)}:
                return cls(type=type, fingerprint=fingerprint)
            case {"type": str(type)}:
                return cls(type=type)
        return None

    def found(self, limit: int = MOST + 1) -> Statement:
        """The question which jobs those are now, the first that died first."""
        if self.ids:
            return Statement("jobs_to_replay", {"ids": list(self.ids), "limit": limit}, "dashboard_now")
        params = {"type": self.type, "fingerprint": self.fingerprint, "limit": limit}
        return Statement("group_to_replay", params, "dashboard_now")


async def show(desk: Desk) -> Response:
    """What the link would replay, and the button that does it: whatever opens links in mails presses none."""
    wanted = _wanted(desk)
    (jobs,) = await desk.read(wanted.found())
    return desk.page("replay_link.html", wanted=wanted, count=len(jobs), sample=jobs[:1], done=None, most=MOST)


async def replay(desk: Desk) -> Response:
    """Replay them, and say how many it were."""
    wanted = _wanted(desk)
    (jobs,) = await desk.read(wanted.found())
    ids = [job["id"] for job in jobs[:MOST]]
    (replayed,) = await desk.change(Statement("replay", {"ids": ids}))
    logger.warning("dashboard: a link has replayed %d jobs: %s", len(replayed), wanted.type or ids)
    more = len(jobs) > MOST
    return desk.page("replay_link.html", wanted=wanted, count=0, sample=[], done=len(replayed), most=MOST, more=more)


def _wanted(desk: Desk) -> Wanted:
    value = tokens.read(desk.settings, tokens.REPLAY, desk.request.path_params["token"], tokens.REPLAY_SECONDS)
    wanted = Wanted.of(value)
    if wanted is None:
        raise Refusal(
            404,
            "This link is no longer good",
            "Links to replay jobs are good for a day, and until a secret of the deployment changes. "
            "Log in: the page of dead jobs replays the same ones.",
        )
    return wanted


OPEN_ROUTES = [
    ("/dashboard/replay/{token}", ["GET"], show),
    ("/dashboard/replay/{token}", ["POST"], replay),
]
