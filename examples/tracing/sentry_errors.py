"""Failures of handlers as events in Sentry: with the job's type, id and attempt as tags, and without its payload."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import sentry_sdk

import tick


class SentryErrors(tick.Middleware):
    """Reports what a handler raises, unless that is its way to say "later"."""

    async def run(self, ctx: tick.Context, call: Callable[[], Awaitable[Any]]) -> Any:
        with sentry_sdk.isolation_scope() as scope:
            scope.set_tags({"job.type": ctx.type, "job.id": ctx.id, "job.attempt": ctx.attempt})
            try:
                return await call()
            except (tick.Snooze, tick.Retry):
                raise
            except Exception as error:
                sentry_sdk.capture_exception(error)
                # A serverless host may freeze the process right after the tick.
                await asyncio.to_thread(sentry_sdk.flush, 2)
                raise


def install(**options: Any) -> None:
    """Set Sentry up; its DSN is read from SENTRY_DSN."""
    # The local variables of a traceback hold the payload.
    sentry_sdk.init(**{"include_local_variables": False, **options})
    tick.use(SentryErrors())
