"""Pruning: what has ended long enough ago is deleted, so much in each tick and no more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .database import Statement
from .queue import Chore, Queue, to_json

DAY = 86_400.0
PAGE = 5000
"""Jobs looked at in one transaction."""
LONGEST_PRUNE = 2.0
"""Seconds that a tick prunes; what is left, the next one does."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things are kept, in seconds from their end; `count` is how many done or cancelled jobs of each type."""

    done: float = 30 * DAY
    cancelled: float = 30 * DAY
    dead: float = 90 * DAY
    ticks: float = 90 * DAY
    idle_ticks: float = 7 * DAY
    count: int = 1_000_000

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Policy:
        """The policy with what is set of it; what another version has set is left out."""
        return cls(**{each.name: settings[each.name] for each in fields(cls) if each.name in settings})


@dataclass(slots=True)
class Pruned:
    """What a prune has looked at and deleted; `complete` once it has seen all that could be old enough."""

    looked_at: int = 0
    jobs: int = 0
    ticks: int = 0
    after: int = 0
    """The id of the job up to which it has come; 0 when it begins anew."""
    complete: bool = False


async def prune(queue: Queue, chore: Chore, seconds: float) -> None:
    """The chore of a tick: go on where the last one ended."""
    pruned = Pruned(after=chore.state.get("after", 0))
    try:
        await prune_for(queue, Policy.of(chore.settings), pruned, min(seconds, LONGEST_PRUNE))
    finally:
        await queue.end_chore(chore.name, {"after": pruned.after}, again=not pruned.complete)


async def prune_for(queue: Queue, policy: Policy, pruned: Pruned, seconds: float, *, dry_run: bool = False) -> None:
    """Prune for so many seconds, or until nothing is left; `pruned` says what was done, also when it fails half-way."""
    until = time.monotonic() + seconds
    params = asdict(policy) | {"most": PAGE, "dry_run": dry_run}
    (full,) = await queue.send(_ask("full_types", params))
    params["full"] = to_json([{"type": type, "before": before} for type, before in full.rows])
    params["youngest"] = 0.0 if full.rows else min(policy.done, policy.cancelled, policy.dead)
    if not dry_run:
        ticks, *_ = await queue.send(*(_ask(f"prune_{each}", params) for each in ("ticks", "skips", "stats", "alerts")))
        pruned.ticks += ticks.changed
    while not pruned.complete and time.monotonic() < until:
        await _prune_page(queue, params, pruned)


async def _prune_page(queue: Queue, params: Mapping[str, Any], pruned: Pruned) -> None:
    (page,) = await queue.send(_ask("prune_jobs", {**params, "after": pruned.after}))
    after, looked_at, jobs, _, young = page.rows[0]
    pruned.looked_at += looked_at
    pruned.jobs += jobs
    pruned.complete = bool(young) or looked_at < PAGE
    pruned.after = 0 if pruned.complete else after


def _ask(name: str, params: Mapping[str, Any]) -> Statement:
    return Statement(name, dict(params), "retention")
