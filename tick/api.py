"""Jobs over HTTP: put in, list, show, cancel, replay, run now. One table of operations is served, and described."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from typing import Any, Protocol

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from . import bodies, headers, keys, openapi, reading
from .calls import KEPT_SECONDS, MOST_CONNECTIONS, Answer, Call
from .config import Settings
from .errors import InvalidTransition, JobNotFound
from .handlers import Registry, current_traceparent
from .intake import JobId
from .jobs import NewJob
from .openapi import Operation
from .problems import NO_STORE
from .refusals import KINDS, Refused

LONGEST_BODY = 1024 * 1024
BODY_SECONDS = 10.0
"""How long a body may take to arrive."""

logger = logging.getLogger("tick")

_TEXT = {"type": "string"}
OPERATIONS = (
    Operation(
        "POST",
        "/jobs",
        "enqueue_jobs",
        "enqueue",
        "Put in one job, or a batch: all of it or nothing.",
        {201: "at least one job is new", 200: "all of it was there already"},
        gives=(bodies.EnqueuedJob, bodies.EnqueuedJobs),
        body=(bodies.JobToEnqueue, bodies.JobsToEnqueue),
        examples={
            "a job": {"type": "greet", "payload": {"name": "Ada"}, "delay": "10m", "key": "user:1"},
            "a batch": {"jobs": [{"type": "greet", "payload": {"name": name}} for name in ("Ada", "Bo")]},
        },
        headers={
            "Idempotency-Key": (
                f"the same key with the same body gets the same answer once more, for {KEPT_SECONDS // 3600} hours",
                _TEXT | {"pattern": headers.IDEMPOTENCY_KEY},
            ),
            "traceparent": ("the trace that the job belongs to", _TEXT),
        },
        answer_headers=("Location", "Idempotency-Replayed"),
        refuses=(
            "malformed-request",
            "malformed-idempotency-key",
            "request-in-flight",
            "too-large",
            "unsupported-media-type",
            "idempotency-key-reused",
        ),
    ),
    Operation(
        "GET",
        "/jobs",
        "list_jobs",
        "read",
        "List jobs, the newest first.",
        {200: "a page of them"},
        gives=(bodies.JobPage,),
        query=bodies.JobFilter,
    ),
    Operation(
        "POST",
        "/jobs/replay",
        "replay_jobs",
        "admin",
        "Replay what a filter finds; or say what that would be, which is the default.",
        {200: "how many they are"},
        gives=(bodies.Replayed,),
        body=(bodies.ReplayFilter,),
        examples={"a dry run": {"status": "dead", "type": "greet"}, "for real": {"type": "greet", "dry_run": False}},
        refuses=("malformed-request", "too-large", "unsupported-media-type"),
    ),
    Operation(
        "GET",
        "/jobs/{id}",
        "show_job",
        "read",
        "Show all there is to know of a job.",
        {200: "the job"},
        gives=(bodies.Job,),
        refuses=("no-such-job",),
    ),
    Operation(
        "POST",
        "/jobs/{id}/cancel",
        "cancel_job",
        "admin",
        "Cancel a pending job; a running one is told to stop.",
        {200: "the job is cancelled", 202: "the job is running, and is told at the next exchange"},
        gives=(bodies.Job,),
        refuses=("no-such-job", "wrong-status"),
    ),
    Operation(
        "POST",
        "/jobs/{id}/replay",
        "replay_job",
        "admin",
        "Make a dead or cancelled job pending again, with all its attempts before it.",
        {200: "the job is pending"},
        gives=(bodies.Job,),
        refuses=("no-such-job", "wrong-status"),
    ),
    Operation(
        "POST",
        "/jobs/{id}/run-now",
        "run_job_now",
        "admin",
        "Make a pending job due at once.",
        {200: "the job is due"},
        gives=(bodies.Job,),
        refuses=("no-such-job", "wrong-status"),
    ),
)


class Door(Protocol):
    """What the requests of a process share."""

    @property
    def settings(self) -> Settings: ...

    @property
    def registry(self) -> Registry: ...

    async def answer(
        self, work: Callable[[], Awaitable[Response]], tell: Callable[[Exception], str] = ...
    ) -> Response: ...


class _Path:
    """All that is served at one path: an ASGI application, since a route leaves what is not its method to the next."""

    def __init__(self, api: Api, operations: Sequence[Operation]) -> None:
        self.api = api
        self.operations = {operation.method: operation for operation in operations}
        if "GET" in self.operations:
            self.operations["HEAD"] = self.operations["GET"]
        self.allowed = ", ".join(sorted([*self.operations, "OPTIONS"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.respond(Request(scope, receive, send))
        await response(scope, receive, send)

    async def respond(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=NO_STORE | {"allow": self.allowed})
        operation = self.operations.get(request.method)
        if operation is None:
            raise HTTPException(405, headers={"Allow": self.allowed})
        return await self.api.door.answer(lambda: self.api.serve(operation, request), tell=_untold)


class Api:
    """The operations: a method for each, by its name."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._room = asyncio.Semaphore(MOST_CONNECTIONS)

    def routes(self) -> list[Route]:
        """A route for each path, with and without a slash at its end."""
        paths = dict.fromkeys(operation.path for operation in OPERATIONS)
        served = {path: _Path(self, [each for each in OPERATIONS if each.path == path]) for path in paths}
        routes = [Route(path + slash, served[path]) for path in paths for slash in ("", "/")]
        return [*routes, Route("/openapi.json", self.describe, methods=["GET"])]

    async def serve(self, operation: Operation, request: Request) -> Response:
        """The answer of an operation, or why it is refused."""
        try:
            caller = keys.recognise(request.headers, self.door.settings)
            call = Call(self.door.settings, caller, operation.scope, self._room)
            call.need(operation.scope)
        except Refused as refused:
            return refused.response()
        trace = current_traceparent.set(headers.traceparent(request.headers))
        try:
            response = await self._answer(operation, request, call)
        finally:
            current_traceparent.reset(trace)
            await call.close()
        logger.info("%s by %s: %s", operation.name, call.caller.id, response.status_code)
        if call.quota:
            response.headers.update(call.quota.headers())
        return response

    async def _answer(self, operation: Operation, request: Request, call: Call) -> Response:
        work: Callable[[Request, Call], Awaitable[Response]] = getattr(self, operation.name)
        try:
            return await work(request, call)
        except Refused as refused:
            return await self._refusal(refused, call)

    async def _refusal(self, refused: Refused, call: Call) -> Response:
        """What the caller is told, once it is proven that it may know."""
        try:
            await call.prove()
        except Refused as unproven:
            return unproven.response()
        return refused.response()

    @cached_property
    def _description(self) -> dict[str, Any]:
        return openapi.describe(OPERATIONS, version("tick-jobs"))

    async def describe(self, _: Request) -> Response:
        """GET: the description, for anybody."""
        return JSONResponse(self._description, headers=NO_STORE)

    async def enqueue_jobs(self, request: Request, call: Call) -> Response:
        """One job, a batch, or a CloudEvent."""
        key = headers.idempotency_key(request.headers)
        await call.prove()  # Reading a body is work, which nobody may ask for who has no key.
        body = await _body(request)
        if headers.is_event(request.headers):
            given = headers.event(request.headers, reading.decode(body or b"{}"))
        else:
            given = reading.decode(body)
        is_batch = isinstance(given, dict) and "jobs" in given
        news = self._read(given, is_batch=is_batch)

        def answer(ids: Sequence[JobId]) -> Answer:
            return _enqueued(news, ids, request.url.path.rstrip("/"), is_batch=is_batch)

        with _needing_admin(call, next(_acting(news, is_batch=is_batch), None)):
            if key is None:
                return _response(answer(await call.enqueue(news)))
            fingerprint = hashlib.sha256(msgspec.json.encode(given)).digest()
            kept, is_replayed = await call.enqueue_once(news, key, fingerprint, answer)
            return _response(kept, {"idempotency-replayed": "true"} if is_replayed else {})

    def _read(self, given: Any, *, is_batch: bool) -> list[NewJob]:
        """The jobs to be that a request asks for. Raises Refused with everything that is wrong with them."""
        read = reading.JobReading(self.door.registry)
        jobs = read.batch(given) if is_batch else [read.job(given)]
        read.done()
        return [job for job in jobs if job is not None]

    async def list_jobs(self, request: Request, call: Call) -> Response:
        """A page of jobs."""
        wanted = reading.query(bodies.JobFilter, request.url.query, ["limit"])
        given = {name: value or None for name, value in msgspec.structs.asdict(wanted).items()}
        params = given | {"before": _place(given["cursor"]), "limit": wanted.limit + 1}
        (rows,) = await call.run(("page", params))
        jobs = [bodies.listed(row) for row in rows[: wanted.limit]]
        return _json(bodies.JobPage(jobs=jobs, next=_cursor(jobs[-1].id) if len(rows) > wanted.limit else None))

    async def show_job(self, request: Request, call: Call) -> Response:
        """One job."""
        id = _id(request)
        (rows,) = await call.run(("job", {"id": id}))
        return _json(_found(rows, id))

    async def cancel_job(self, request: Request, call: Call) -> Response:
        """The job, cancelled or told."""
        job = await self._change(request, call, "cancel", "cancelled", "pending or running")
        return _json(job, 202 if job.status == "running" else 200)

    async def replay_job(self, request: Request, call: Call) -> Response:
        """The job, pending again."""
        return _json(await self._change(request, call, "replay", "replayed", "dead or cancelled"))

    async def run_job_now(self, request: Request, call: Call) -> Response:
        """The job, due."""
        return _json(await self._change(request, call, "run_now", "run now", "pending"))

    async def _change(self, request: Request, call: Call, statement: str, done: str, allowed: str) -> bodies.Job:
        """The job after a transition, which its status must allow."""
        id = _id(request)
        changed, rows = await call.run((statement, {"id": id, "ids": [id]}), ("job", {"id": id}))
        job = _found(rows, id)
        if not changed:
            refusal = InvalidTransition(id, job.status, done, allowed)
            raise Refused("wrong-status", str(refusal), job_status=job.status, allowed=allowed.split(" or "))
        return job

    async def replay_jobs(self, request: Request, call: Call) -> Response:
        """How many jobs a filter finds, or has replayed."""
        await call.prove()
        given = reading.decode(await _body(request))
        read = reading.Reading()
        wanted = read.fit(bodies.ReplayFilter, given)
        read.done()
        assert wanted is not None  # noqa: S101 - what does not fit is a violation
        params = msgspec.structs.asdict(wanted)
        (rows,) = await call.run(("replayable", params | {"limit": wanted.limit + 1}))
        ids = [row["id"] for row in rows[: wanted.limit]]
        if ids and not wanted.dry_run:
            (replayed,) = await call.run(("replay", {"ids": ids}))
            ids = sorted(row["id"] for row in replayed)
        found = bodies.Replayed(
            dry_run=wanted.dry_run, count=len(ids), sample=ids[: bodies.SAMPLE], more=len(rows) > wanted.limit
        )
        return _json(found)


@contextmanager
def _needing_admin(call: Call, why: str | None) -> Iterator[None]:
    """Have the call need the scope admin, for the reason given, if there is one; who lacks it is told that."""
    try:
        if why:
            call.need("admin")
        yield
    except Refused as refused:
        if why and refused.kind == KINDS["missing-scope"]:
            raise Refused("missing-scope", f"{why}; {refused.detail}", refused.headers) from None
        raise


def _acting(news: Sequence[NewJob], *, is_batch: bool) -> Iterator[str]:
    """For each job that does what its caller may not: where it is, and why that is so."""
    for number, new in enumerate(news):
        for place, each in _with_following(new, f"jobs[{number}]" if is_batch else ""):
            if why := _right_of_the_deployment(each):
                yield f"{place or '$'}: {why}"


def _with_following(new: NewJob, place: str) -> Iterator[tuple[str, NewJob]]:
    """A job and those of its `then`, each with its place in the request."""
    yield place, new
    following = new.then or ()
    for number, each in enumerate(following):
        step = "then" if len(following) == 1 else f"then[{number}]"
        yield from _with_following(each, f"{place}.{step}" if place else step)


def _right_of_the_deployment(new: NewJob) -> str | None:
    """Why a job is not for everybody who may enqueue; None when it is.

    A call has the deployment's secrets and its place in the network, where `http_allow` may open what is private.
    """
    if new.type in ("http", "sql") or new.type.startswith("tick."):
        return f"a job of the type {new.type!r} acts with the deployment's own rights"
    return None


def _untold(error: Exception) -> str:
    """What a caller who may be anybody is told of an error here."""
    logger.error("a call of the API has failed: %s", error)
    return "try again; the log says why"


async def _body(request: Request) -> bytes:
    """The body, of at most 1 MiB, which has to arrive in 10 seconds. Raises Refused."""
    headers.check_media_type(request.headers)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LONGEST_BODY:
                    raise Refused("too-large", f"send at most {LONGEST_BODY:,} bytes; a larger batch, in parts")
    except (TimeoutError, ClientDisconnect):
        raise Refused("malformed-request", f"the body did not arrive in {BODY_SECONDS:g} s") from None
    return bytes(body)


def _id(request: Request) -> int:
    """The job's id. Raises Refused for what no job can have."""
    given = request.path_params["id"]
    if not re.fullmatch(r"[0-9]{1,18}", given):
        raise Refused("no-such-job", f"{given[:40]!r} is not the id of a job: that is a whole number")
    return int(given)


def _found(rows: list[dict[str, Any]], id: int) -> bodies.Job:
    if not rows:
        raise Refused("no-such-job", str(JobNotFound(id)))
    return bodies.shown(rows[0])


def _enqueued(news: Sequence[NewJob], ids: Sequence[JobId], path: str, *, is_batch: bool) -> Answer:
    """201 when a job is new, else 200; with its place, when there is one job."""
    jobs = [
        bodies.EnqueuedJob(id=int(id), type=new.type, created=id.created) for new, id in zip(news, ids, strict=True)
    ]
    body = msgspec.json.encode(bodies.EnqueuedJobs(jobs=jobs) if is_batch else jobs[0])
    return Answer(201 if any(id.created for id in ids) else 200, body, None if is_batch else f"{path}/{ids[0]}")


def _response(answer: Answer, more: dict[str, str] | None = None) -> Response:
    place = {"location": answer.location} if answer.location else {}
    return Response(answer.body, answer.status, NO_STORE | place | (more or {}), "application/json")


def _json(value: msgspec.Struct, status: int = 200) -> Response:
    return _response(Answer(status, msgspec.json.encode(value)))


def _cursor(id: int) -> str:
    return base64.urlsafe_b64encode(f"before {id}".encode()).decode().rstrip("=")


def _place(cursor: str | None) -> int | None:
    """The id that a page goes on after. Raises Refused for a cursor that no page gave."""
    if cursor is None:
        return None
    try:
        match = re.fullmatch(rb"before ([0-9]{1,18})", base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        match = None
    if match is None:
        violation = {"path": "cursor", "message": "it is not the `next` of a page"}
        raise Refused("invalid-request", "cursor: it is not the `next` of a page", violations=[violation])
    return int(match[1])
