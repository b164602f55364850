"""The smallest handlers: what `./scripts/demo` runs, and what this repository's own schedules.toml names."""

from __future__ import annotations

import asyncio

import tick


@tick.job
async def greet(name: str) -> dict[str, str]:
    """A coroutine function, with a typed parameter that payloads are checked against."""
    await asyncio.sleep(0.05)
    return {"said": f"Hello, {name}!"}


@tick.job(max_attempts=3, backoff=["10s", "1m"])
def stumble(ctx: tick.Context) -> str:
    """A plain function, run in a thread. It fails the first time, and is retried after ten seconds."""
    if ctx.attempt == 1:
        raise ConnectionError("the other side hung up")
    return f"done at attempt {ctx.attempt}"


@tick.job
async def heartbeat(ctx: tick.Context) -> None:
    """What a schedule runs: `ctx.window` is the instant it is for."""
    ctx.logger.info("heartbeat for %s", ctx.window)
