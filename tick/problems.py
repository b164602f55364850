"""Errors as HTTP tells them: application/problem+json, after RFC 9457."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

NO_STORE = {"cache-control": "no-store"}


def problem(
    status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any
) -> JSONResponse:
    """An error with its status, a title that is always the same for its kind, and what happened this time.

    `members` are further members of the problem, such as `violations`; `type` is one of them.
    """
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail} | members
    return JSONResponse(body, status, headers={**NO_STORE, **(headers or {})}, media_type="application/problem+json")
