"""What the platform says: how long this invocation may take, who triggered it, and when it should have been."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .config import DEFAULT_BUDGET, Settings
from .queue import Trigger

MARGIN = 8.0
"""Seconds before the platform's own deadline by which a tick's budget ends: grace, answer, and the platform's kill."""


def budget(settings: Settings, *, asked: float | None = None, scope: Mapping[str, Any] | None = None) -> float:
    """The budget of a tick in seconds: what was asked, TICK_BUDGET, what the platform leaves, else 50; the least.

    A request may only lower what is set, and nothing may outlive the platform's deadline where that is known.
    """
    allowed = settings.budget or DEFAULT_BUDGET
    left = seconds_left(scope or {})
    if left is not None:
        allowed = min(allowed, max(1.0, left - MARGIN))
    return min(allowed, asked) if asked is not None else allowed


def seconds_left(scope: Mapping[str, Any]) -> float | None:
    """Seconds until the platform ends this invocation, if it says so."""
    if os.environ.get("VERCEL"):
        return _vercel_seconds_left()
    if os.environ.get("AWS_LAMBDA_FUNCTION_NAME") and "aws.context" in scope:
        return float(scope["aws.context"].get_remaining_time_in_millis()) / 1000
    given = os.environ.get("CLOUD_RUN_TIMEOUT_SECONDS", "")
    return float(given) if re.fullmatch(r"\d+", given) else None


def _vercel_seconds_left() -> float | None:
    """Vercel's Python runtime hands out the deadline of the invocation; its module exists there alone."""
    try:
        from vercel_runtime import get_deadline  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    deadline = get_deadline()
    if deadline is None:
        return None
    if isinstance(deadline, datetime):
        return (deadline - datetime.now(UTC)).total_seconds()
    return float(deadline) - time.time()


def trigger(headers: Mapping[str, str]) -> Trigger:
    """Who sent a request to /tick, by its headers: a name for the log, never a reason to trust it.

    `ce-` headers are those of CloudEvents 1.0 in binary mode; another version's are not read.
    """
    agent = headers.get("user-agent", "")
    event = headers if headers.get("ce-specversion", "1.0") == "1.0" else {}
    if named := re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,39}", headers.get("x-tick-trigger", "")):
        return Trigger(named[0], _short(headers.get("x-tick-delivery-id")))
    if event.get("ce-type", "").startswith("com.vercel.schedule"):
        return Trigger("vercel", _short(event.get("ce-id")), _instant(event.get("ce-vssscheduledat")))
    if agent.startswith("vercel-cron/") or "x-vercel-cron-schedule" in headers:
        return Trigger("vercel", _short(headers.get("x-vercel-id")))
    if "x-cloudscheduler-jobname" in headers:
        due = headers.get("x-cloudscheduler-scheduletime")
        return Trigger("cloud-scheduler", _short(f"{headers['x-cloudscheduler-jobname']} {due}"), _instant(due))
    if "upstash-message-id" in headers:
        return Trigger("qstash", _short(headers["upstash-message-id"]))
    if all(event.get(name) for name in ("ce-id", "ce-source", "ce-type")):
        return Trigger("cloudevents", _short(event.get("ce-id")))
    if agent.startswith("pg_net/"):
        return Trigger("pg_cron")
    return Trigger("http")


def _short(text: str | None) -> str | None:
    return text[:200].replace("\0", "") if text else None


def _instant(text: str | None) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
