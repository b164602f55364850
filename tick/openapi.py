"""The description of the API, OpenAPI 3.1: made from the operations that are served, and the types of their bodies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .bodies import Problem
from .keys import SCOPES
from .refusals import KINDS, Kind

ALWAYS = ("unauthorized", "missing-scope", "invalid-request", "quota-exceeded", "too-slow")
_REFERENCE = "#/components/schemas/{name}"
_UNAVAILABLE = Kind("about:blank", 503, "Postgres is unavailable", "the database cannot be reached, or is not migrated")

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that the API does.

    Attributes:
        name: of the method that does it, and its operationId.
        scope: what a key has to allow for it.
        does: in one line.
        answers: status to when it is that.
        gives: what is in the answer's body: one of these.
        query: what it takes in the query.
        body: what it takes in the body: one of these.
        examples: of bodies, by what they show.
        headers: of the request, by name: what they are for, and their schema.
        answer_headers: names of ANSWER_HEADERS that its answers have, beside those of every answer.
        refuses: names of KINDS, beside those that every operation refuses.
    """

    method: str
    path: str
    name: str
    scope: str
    does: str
    answers: Mapping[int, str]
    gives: tuple[type, ...] = ()
    query: type | None = None
    body: tuple[type, ...] = ()
    examples: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, tuple[str, Schema]] = field(default_factory=dict)
    answer_headers: Sequence[str] = ()
    refuses: Sequence[str] = ()


ANSWER_HEADERS: dict[str, tuple[str, Schema]] = {
    "RateLimit-Policy": ("how many calls (q) a key may make in how many seconds (w)", {"type": "string"}),
    "RateLimit": ("how many calls are left (r), and the seconds (t) until all are again", {"type": "string"}),
    "Location": ("where the job is", {"type": "string"}),
    "Idempotency-Replayed": ("true, when this is the kept answer to an earlier request", {"const": "true"}),
    "Retry-After": ("seconds to wait", {"type": "integer"}),
    "WWW-Authenticate": ("what is wanted", {"type": "string"}),
}
_REFUSAL_HEADERS = {401: ["WWW-Authenticate"], 403: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}


def describe(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """The document."""
    types = {type for operation in operations for type in _types(operation)}
    _, components = msgspec.json.schema_components([*sorted(types, key=str), Problem], ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, components)
    queries = {operation.query.__name__ for operation in operations if operation.query}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tick",
            "version": version,
            "description": "Jobs on your Postgres: put in, look at, and decide on.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in queries},
            "securitySchemes": {"key": _security()},
        },
    }


def _security() -> Schema:
    scopes = "; ".join(f"`{name}`: {meaning}" for name, meaning in SCOPES.items())
    return {"type": "http", "scheme": "bearer", "description": f"An API key. Its scopes: {scopes}."}


def _types(operation: Operation) -> Iterable[type]:
    yield from operation.body
    yield from operation.gives
    if operation.query:
        yield operation.query


def _operation(operation: Operation, components: Mapping[str, Schema]) -> Schema:
    described: Schema = {
        "operationId": operation.name,
        "summary": operation.does,
        "security": [{"key": [operation.scope]}],
        "parameters": [*_path(operation), *_query(operation, components), *_headers(operation)],
        "responses": _responses(operation),
    }
    if operation.body:
        examples = {name: {"value": value} for name, value in operation.examples.items()}
        content = {"application/json": {"schema": _one_of(operation.body), "examples": examples}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _one_of(types: Sequence[type]) -> Schema:
    schemas = [{"$ref": _REFERENCE.format(name=type.__name__)} for type in types]
    return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}


def _path(operation: Operation) -> Iterable[Schema]:
    for name in re.findall(r"{(\w+)}", operation.path):
        schema = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query(operation: Operation, components: Mapping[str, Schema]) -> Iterable[Schema]:
    if operation.query:
        for name, schema in components[operation.query.__name__]["properties"].items():
            yield {"name": name, "in": "query", "schema": schema}


def _headers(operation: Operation) -> Iterable[Schema]:
    for name, (meaning, schema) in operation.headers.items():
        yield {"name": name, "in": "header", "description": meaning, "schema": schema}


def _responses(operation: Operation) -> Schema:
    given = {str(status): _answer(operation, meaning) for status, meaning in operation.answers.items()}
    kinds = [KINDS[name] for name in (*ALWAYS, *operation.refuses)] + [_UNAVAILABLE]
    statuses = sorted({kind.status for kind in kinds})
    return given | {
        str(status): _refusal(status, [kind for kind in kinds if kind.status == status]) for status in statuses
    }


def _answer(operation: Operation, meaning: str) -> Schema:
    return {
        "description": meaning,
        "headers": _described("RateLimit-Policy", "RateLimit", *operation.answer_headers),
        "content": {"application/json": {"schema": _one_of(operation.gives)}},
    }


def _refusal(status: int, kinds: Sequence[Kind]) -> Schema:
    schema = {"allOf": [_one_of([Problem]), {"properties": {"type": {"enum": [kind.type for kind in kinds]}}}]}
    return {
        "description": "; or ".join(f"{kind.title}: {kind.meaning}" for kind in kinds),
        "headers": _described(*_REFUSAL_HEADERS.get(status, [])),
        "content": {"application/problem+json": {"schema": schema}},
    }


def _described(*names: str) -> Schema:
    return {
        name: {"description": meaning, "schema": schema} for name in names for meaning, schema in [ANSWER_HEADERS[name]]
    }
