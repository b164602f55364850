"""What the API refuses: every kind of problem that it answers with, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.responses import JSONResponse

from .problems import problem


class Kind(NamedTuple):
    """One kind of problem: its `type`, its status, its title, and when it comes."""

    type: str
    status: int
    title: str
    meaning: str


def _ours(name: str, *rest: Any) -> tuple[str, Kind]:
    return name, Kind(f"urn:tick:problem:{name}", *rest)


KINDS = dict(
    (
        _ours("malformed-request", 400, "Malformed request", "what was sent is not JSON, or did not arrive"),
        _ours(
            "malformed-idempotency-key",
            400,
            "Malformed Idempotency-Key",
            "the header is not one text of 1 to 255 printable characters",
        ),
        _ours("unauthorized", 401, "Unauthorized", "there is no API key, or it is not valid (any more)"),
        _ours("missing-scope", 403, "Missing scope", "the API key lacks the scope that this takes"),
        _ours("no-such-job", 404, "No such job", "no job has this id, or it has been pruned"),
        _ours("wrong-status", 409, "Wrong status", "the job's status does not allow this"),
        _ours(
            "request-in-flight",
            409,
            "Request in flight",
            "the first request with this Idempotency-Key is not answered yet",
        ),
        _ours("too-large", 413, "Too large", "the body is longer than 1 MiB"),
        _ours("unsupported-media-type", 415, "Unsupported media type", "the body is not application/json"),
        _ours(
            "invalid-request",
            422,
            "Invalid request",
            "what was sent does not fit; `violations` lists all that is wrong",
        ),
        _ours(
            "idempotency-key-reused",
            422,
            "Idempotency-Key reused",
            "this Idempotency-Key came before, with another request",
        ),
        (
            "quota-exceeded",
            Kind(
                "https://iana.org/assignments/http-problem-types#quota-exceeded",
                429,
                "Request cannot be satisfied as assigned quota has been exceeded",
                "the API key has sent more than TICK_API_RATE allows",
            ),
        ),
        _ours(
            "too-slow",
            503,
            "Too slow",
            "the database took more than 10 seconds over it, and was stopped; nothing has changed",
        ),
    )
)


class Refused(Exception):
    """A request that is refused; `kind` is a name of KINDS, and `members` are further members of the problem."""

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.kind = KINDS[kind]
        self.detail = detail
        self.headers = headers
        self.members = members

    def response(self) -> JSONResponse:
        """The answer, as RFC 9457 has it."""
        kind = self.kind
        return problem(kind.status, kind.title, self.detail, self.headers, type=kind.type, **self.members)
