"""Why a pending job does not run: the first thing that stands in its way, in words. Plain values, no I/O."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Reason(NamedTuple):
    """What a job waits for; the job that it waits for, if it is one; the instant, if it is that."""

    text: str
    job: int | None = None
    until: datetime | None = None
    is_usual: bool = False
    """Whether nothing stands in its way but time, or the next tick."""


def reason(job: Row, obstacle: Row | None, now: datetime, handled: Container[str]) -> Reason:
    """Why this pending job does not run now.

    `obstacle` is its row of the statement `obstacles`; None when it has stopped waiting since the job was read.
    """
    if job["type"] not in handled:
        return Reason("no handler here has its type")
    return _for_others(job, obstacle) or _for_its_time(job, now) or _for_room(job, obstacle) or _nothing(job)


def _for_others(job: Row, obstacle: Row | None) -> Reason | None:
    if job["waits_for"] == "job":
        parent = obstacle["parent_id"] if obstacle else None
        return Reason(_parent(obstacle["parent_status"] if obstacle else None), parent)
    if job["waits_for"] == "group":
        waits = obstacle["waits"] if obstacle else 0
        return Reason(f"for {waits} job{'' if waits == 1 else 's'} of its group to end")
    if obstacle and obstacle["holder_id"]:
        doing = "runs" if obstacle["holder_status"] == "running" else "goes first"
        return Reason(f"behind the job that has its key and {doing}", obstacle["holder_id"])
    return Reason("behind another job of its key") if job["waits_for"] == "key" else None


def _parent(status: str | None) -> str:
    if status is None:
        return "for a job that is no longer there"
    return "for a job that is dead: replay that one" if status == "dead" else f"for a job to be done, which is {status}"


def _for_its_time(job: Row, now: datetime) -> Reason | None:
    if job["run_at"] <= now:
        return None
    return Reason("to be tried again" if job["failures"] else "not due yet", None, job["run_at"], True)


def _for_room(job: Row, obstacle: Row | None) -> Reason | None:
    if obstacle and obstacle["room"] is not None and obstacle["room"] <= 0:
        return Reason(f"the limit {job['lane']} is full")
    if obstacle and obstacle["key_is_full"]:
        return Reason(f"the limit {job['lane']} is full for its key")
    return None


def _nothing(job: Row) -> Reason:
    if job["losses"]:
        return Reason("due, as a suspect: its lease ran out, so it runs alone when a tick has nothing else in flight")
    return Reason("due: the next tick takes it", is_usual=True)
