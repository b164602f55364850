"""What requests and answers of the API hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

MOST_JOBS = 1000
MOST_LISTED = 100
MOST_REPLAYED = 10_000
SAMPLE = 10
_SECRET = re.compile(
    r"password|passwd|secret|token|authorization|cookie|api[-_]?key|private[-_]?key|credential", re.IGNORECASE
)
_PRIVATE_PARTS = re.compile(r"(?<=//)[^/?#@]*@|[?#].*", re.DOTALL)
_URL_NAME = re.compile(r"ur[li]$", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_TEXT = r"^[^\x00]*$"

Text = Annotated[str, Meta(min_length=1, max_length=512, pattern=_TEXT)]
Type = Annotated[str, Meta(min_length=1, max_length=100, pattern=_TEXT)]
Instant = Annotated[datetime, Meta(tz=True)]
Status = Literal["pending", "running", "done", "dead", "cancelled"]


def _meant(description: str, **schema: Any) -> Meta:
    """What the description says of an option, whose bounds `tick.Options` checks, in its own words."""
    return Meta(description=description, extra_json_schema=schema)


_DURATION = _meant('such as "90s" or "1h30m"', pattern="^([0-9]+[dhms])+$")
_ADDRESS = _meant("an http:// or https:// URL", pattern="^https?://", maxLength=2000)
_KEY = {"minLength": 1, "maxLength": 512}
Duration = Annotated[float, _meant("seconds")] | Annotated[str, _DURATION]


class JobToEnqueue(Struct, kw_only=True, forbid_unknown_fields=True):
    """A job: its type, the arguments of its handler, and how it is to be run."""

    type: Annotated[str, _meant("what is to be done", minLength=1, maxLength=100)]
    payload: dict[str, Any] = {}
    run_at: Annotated[datetime, Meta(tz=True, description="when it is due; now by default")] | None = None
    delay: Duration | None = None
    priority: Annotated[int, _meant("the higher is claimed first", minimum=-32768, maximum=32767)] | None = None
    key: Annotated[str, _meant("jobs that share one never run at the same time", **_KEY)] | None = None
    key_order: Literal["loose", "strict"] | None = None
    idempotency_key: Annotated[str, _meant("of a type there is one job with it", **_KEY)] | None = None
    on_conflict: Literal["keep", "replace", "postpone"] | None = None
    max_wait: Duration | None = None
    throttle: Duration | None = None
    max_attempts: Annotated[int, _meant("failures after which it is dead", minimum=1, maximum=100)] | None = None
    timeout: Duration | None = None
    callback_url: Annotated[str, _ADDRESS] | None = None
    on_dead_url: Annotated[str, _ADDRESS] | None = None
    traceparent: Annotated[str, _meant("of W3C Trace Context", minLength=55, maxLength=55)] | None = None
    then: JobToEnqueue | list[JobToEnqueue] | None = None


class JobsToEnqueue(Struct, kw_only=True, forbid_unknown_fields=True):
    """Jobs that are all put in, or none of them."""

    jobs: Annotated[list[JobToEnqueue], Meta(min_length=1, max_length=MOST_JOBS)]


class EnqueuedJob(Struct, kw_only=True):
    """A job that is in; `created` is false when it was there already, by its idempotency key or throttle."""

    id: int
    type: str
    created: bool


class EnqueuedJobs(Struct, kw_only=True):
    """The jobs of a batch, in its order."""

    jobs: list[EnqueuedJob]


class ListedJob(Struct, kw_only=True):
    """A job in a list. Instants are in UTC."""

    id: int
    type: str
    status: Status
    key: str | None
    schedule: str | None
    window: datetime | None
    priority: int
    run_at: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    failures: int
    losses: int
    waits_for: Literal["key", "job", "group"] | None
    last_error: str | None


class Job(ListedJob, kw_only=True):
    """All there is to know of a job; what its name says is secret says "[redacted]", and URLs have no query."""

    payload: Any
    result: Any
    progress: Any
    errors: list[dict[str, Any]]
    cuts: int
    max_attempts: int | None
    timeout: Annotated[float, Meta(description="seconds")] | None
    idempotency_key: str | None
    parent_id: int | None
    group_id: int | None
    lease_expires_at: datetime | None
    cancel_requested_at: datetime | None
    callback_url: Annotated[str, Meta(description="without its query")] | None
    on_dead_url: Annotated[str, Meta(description="without its query")] | None
    traceparent: str | None
    lane: Annotated[str, Meta(description="the limit that it is under")] | None


class JobPage(Struct, kw_only=True):
    """Jobs, the newest first; `next` is the cursor of the page after this one, if there is one."""

    jobs: list[ListedJob]
    next: str | None


class JobFilter(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which jobs to list; every filter that is given holds. Instants are exclusive."""

    # Unset and not None: in a query, "null" is a text like any other.
    status: Status | UnsetType = UNSET
    type: Type | UnsetType = UNSET
    key: Text | UnsetType = UNSET
    schedule: Text | UnsetType = UNSET
    created_after: Instant | UnsetType = UNSET
    created_before: Instant | UnsetType = UNSET
    finished_after: Instant | UnsetType = UNSET
    finished_before: Instant | UnsetType = UNSET
    cursor: (
        Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,40}$", description="`next` of the page before")] | UnsetType
    ) = UNSET
    limit: Annotated[int, Meta(ge=1, le=MOST_LISTED)] = 50


class ReplayFilter(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which jobs to replay, the oldest first; and whether only to say how many those are, which is the default."""

    status: Literal["dead", "cancelled"] = "dead"
    type: Type | None = None
    key: Text | None = None
    schedule: Text | None = None
    finished_after: Instant | None = None
    finished_before: Instant | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_REPLAYED)] = MOST_REPLAYED
    dry_run: bool = True


class Replayed(Struct, kw_only=True):
    """How many jobs are, or would be, pending again; `more` says that the filter fits more than the limit."""

    dry_run: bool
    count: int
    sample: Annotated[list[int], Meta(max_length=SAMPLE, description="the first ids")]
    more: bool


class Violation(Struct, kw_only=True):
    """One thing that is wrong with a request: where, as in `jobs[3].payload.user_id`, and what."""

    path: str
    message: str


class Problem(Struct, kw_only=True):
    """An error, after RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    violations: list[Violation] | UnsetType = UNSET


def listed(row: Mapping[str, Any]) -> ListedJob:
    """A job of a list, from its row."""
    return ListedJob(**{name: _in_utc(value) for name, value in row.items()})


def shown(row: Mapping[str, Any]) -> Job:
    """A job, from its row, without what is secret by its name."""
    public = {name: redacted(row[name]) for name in ("payload", "result", "progress", "errors")}
    public |= {name: row[name] and _PRIVATE_PARTS.sub("", row[name]) for name in ("callback_url", "on_dead_url")}
    return Job(**{name: _in_utc(value) for name, value in (dict(row) | public).items()})


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def redacted(value: Any, room: int = 64) -> Any:
    """The value without what its name says is secret, and without what is nested too deeply to look at.

    Members named as URLs are shown without what in a URL may be secret: user, password, query and fragment.

    >>> redacted({"tokens": 42, "to": {"api_key": "k", "url": "https://u:p@example.com/a?k=v"}})
    {'tokens': 42, 'to': {'api_key': '[redacted]', 'url': 'https://example.com/a'}}
    """
    if not isinstance(value, dict | list):
        return value
    if not room:
        return "[nested too deeply]"
    if isinstance(value, list):
        return [redacted(item, room - 1) for item in value]
    return {name: _redacted_member(name, item, room - 1) for name, item in value.items()}


def _redacted_member(name: str, item: Any, room: int) -> Any:
    if isinstance(item, str | dict | list) and _SECRET.search(name):
        return "[redacted]"
    if isinstance(item, str) and _URL_NAME.search(name) and _URL.match(item):
        return _PRIVATE_PARTS.sub("", item)
    return redacted(item, room)
