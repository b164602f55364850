"""What a person looks for among the jobs: read from a URL, found along an index, paged, and bounded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tick import facts
from tick.dashboard.desk import Desk, Refusal, Row
from tick.database import Statement

STATUSES = ("pending", "running", "done", "dead", "cancelled")
PAGE = 50
MOST = 10_000
"""Jobs that are changed at once."""
FARTHER = 5
"""How many times as far a change of all that match looks as a page does."""
READING = 4
"""By how much shorter a look is that reads payloads and errors too."""
_SPECIAL, _ESCAPED = re.compile(r"[%_\\]"), r"\\\g<0>"


class Source(NamedTuple):
    """A statement that finds jobs: along an index that answers a part of a filter, `look` jobs far."""

    jobs: str
    edge: str | None
    """The statement that says where the look has ended; None where that is told by its number alone."""
    answers: frozenset[str]
    look: int


_NEWEST = Source("newest_jobs", "oldest_looked_at", frozenset(), 20_000)
_OF_SCHEDULE = Source("jobs_of_schedule", "oldest_looked_at_of_schedule", frozenset({"schedule"}), 5_000)
_ENDED = Source("ended_jobs", "oldest_looked_at_of_ended", frozenset({"status"}), 5_000)
_ALIKE = _ENDED._replace(answers=frozenset({"status", "type", "error"}))
_RUNNING = Source("running_jobs", None, frozenset({"status"}), 2_000)
_PENDING = Source("pending_jobs", None, frozenset({"status"}), 2_000)
_PENDING_OF = Source("pending_jobs_of", None, frozenset({"status", "key", "schedule"}), 2_000)


class Filter(NamedTuple):
    """What is looked for; what is None is not asked about.

    `error` is the digest of a fingerprint that dead jobs of one type share: errors may tell secrets, and URLs must not.
    """

    status: str | None = None
    type: str | None = None
    key: str | None = None
    schedule: str | None = None
    text: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Filter:
        """The filter that a query or a form holds. Raises Refusal for a status that no job has."""
        filter = cls(**{name: given.get(name, "").strip() or None for name in cls._fields})
        if filter.status not in (None, *STATUSES):
            raise Refusal(422, "No such status", f"A job is {', '.join(STATUSES)}; not {filter.status[:40]!r}.")
        # It says something of the dead of one type only.
        is_kind = filter.error is not None and filter.type is not None and filter.status in (None, "dead")
        return filter._replace(status="dead") if is_kind else filter._replace(error=None)

    @property
    def fields(self) -> dict[str, str]:
        """What is asked about, as a form or a URL holds it."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def query(self, **more: Any) -> str:
        """The filter as the query of a URL, with what else belongs there."""
        return urlencode(self.fields | {name: value for name, value in more.items() if value is not None})

    @property
    def source(self) -> Source:
        """Where such jobs are found."""
        if self.status in ("dead", "cancelled"):
            return _ENDED if self.error is None else _ALIKE
        if self.status == "running":
            return _RUNNING
        if self.status == "pending":
            return _PENDING_OF if self.key or self.schedule else _PENDING
        return _OF_SCHEDULE if self.schedule else _NEWEST

    def look(self, farther: int = 1) -> int:
        """How many jobs are looked at, for those that match."""
        return self.source.look * farther // (READING if self.text else 1)

    def params(self, fingerprint: str | None) -> dict[str, Any]:
        """What the statements bind; the text may stand anywhere in a payload or an error."""
        return {**self._asdict(), "text": pattern(self.text), "error": fingerprint}


class Place(NamedTuple):
    """From where a page goes on: from before a job, or after so many of them."""

    before: int | None = None
    before_at: str | None = None
    skip: int = 0

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Place:
        """The place that a query holds; the beginning, where it holds none that could be."""
        before, skip = (_number(given.get(name, "")) for name in ("before", "skip"))
        at = given.get("before_at", "")
        try:
            is_instant = datetime.fromisoformat(at).tzinfo is not None
        except ValueError:
            is_instant = False
        return cls(before, at if is_instant and before is not None else None, min(skip or 0, MOST))


class Found(NamedTuple):
    """Jobs that match; where those go on that were not looked at, and since when those are that were."""

    jobs: list[Row]
    next: Place | None = None
    since: datetime | None = None
    fingerprint: str | None = None
    """That of their errors, where a kind of error was asked for."""

    def next_query(self, filter: Filter) -> str | None:
        """The query of the next page; None when this is the last one."""
        if self.next is None:
            return None
        return filter.query(before=self.next.before, before_at=self.next.before_at, skip=self.next.skip or None)


async def find(desk: Desk, filter: Filter, place: Place, limit: int = PAGE, farther: int = 1) -> Found:
    """The jobs that match, as far as one look goes."""
    fingerprint = await _fingerprint(desk, filter)
    if filter.error is not None and fingerprint is None:
        return Found([])
    source = filter.source
    is_answered = source.edge is not None and filter.fields.keys() <= source.answers
    look = limit + 1 if is_answered else filter.look(farther)
    params = {**filter.params(fingerprint), **place._asdict(), "look": look, "limit": limit + 1}
    statements = [_ask(name, **params) for name in (source.jobs, source.edge) if name]
    _, found, *edges = await desk.read(facts.along_indexes(), *statements)
    jobs = found[:limit]
    if len(found) > limit:
        return Found(jobs, _after(source, jobs[-1], place.skip + limit), None, fingerprint)
    for edge in edges[0] if edges else ():
        return Found(jobs, Place(edge["id"], edge["at"].isoformat()), edge["at"], fingerprint)
    return Found(jobs, fingerprint=fingerprint)


async def _fingerprint(desk: Desk, filter: Filter) -> str | None:
    """That of the errors that are asked for; None when they are not, or when no dead job has one of that kind."""
    if filter.error is None:
        return None
    (kinds,) = await desk.read(_ask("kind_of_error", type=filter.type, digest=filter.error))
    return next((kind["fingerprint"] for kind in kinds), None)


def _after(source: Source, job: Row, skip: int) -> Place:
    if source.edge is None:
        return Place(skip=skip)
    return Place(job["id"], job["finished_at"].isoformat() if job["finished_at"] else None)


def _ask(name: str, **params: Any) -> Statement:
    return Statement(name, params, "dashboard")


def digest(fingerprint: str) -> str:
    """By what a URL names a kind of error."""
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:16]


def pattern(text: str | None) -> str | None:
    r"""What `ilike` takes for a text that may stand anywhere.

    >>> pattern("50 %")
    '%50 \\%%'
    """
    return f"%{_SPECIAL.sub(_ESCAPED, text)}%" if text else None


def is_id(text: str) -> bool:
    """Whether a text is a number that a job may have.

    >>> is_id("42"), is_id("-1"), is_id("9" * 30)
    (True, False, False)
    """
    return re.fullmatch(r"[0-9]{1,18}", text) is not None


def _number(text: str) -> int | None:
    return int(text) if is_id(text) else None
