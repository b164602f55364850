"""Pruning: what has ended long enough ago is deleted, so much in each tick and no more."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import psycopg

from .database import Statement, one_line
from .errors import DatabaseUnavailable
from .queue import Chore, Queue, Reply, to_json

DAY = 86_400.0
PAGE = 5000
"""Rows looked at in one transaction."""
LONGEST_PRUNE = 2.0
"""Seconds that a tick prunes; what is left, the next one does."""
LAP = 144
"""Of so many prunes, which is a day of them, one begins with the first job of all, and not where the last one ended."""
SHORTEST_PATIENCE = 0.5

EVER = 36_500 * DAY

_FIRST = (datetime(1970, 1, 1, tzinfo=UTC), 0)
_BESIDE_JOBS = ("prune_ticks", "prune_skips", "fold_stats", "prune_stats", "prune_alerts")


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
    """The id of the job up to which it has come; 0 begins with the first."""
    complete: bool = False
    places: dict[str, tuple[datetime, int] | None] = field(default_factory=dict, repr=False)
    """The end and the id of the last dead and the last cancelled job looked at; None once that was all of them."""


async def prune(queue: Queue, chore: Chore, seconds: float) -> None:
    """The chore of a tick: go on where the last one ended."""
    rounds = chore.state.get("rounds", 0)
    pruned = Pruned(after=chore.state.get("after", 0))
    try:
        await prune_for(queue, Policy.of(chore.settings), pruned, min(seconds, LONGEST_PRUNE), patience=seconds)
    finally:
        rounds = (rounds + pruned.complete) % LAP
        begins_anew = pruned.complete and rounds == 0
        state = {"after": 0 if begins_anew else pruned.after, "rounds": rounds}
        await queue.end_chore(chore.name, state, again=not pruned.complete)


async def prune_for(
    queue: Queue,
    policy: Policy,
    pruned: Pruned,
    seconds: float,
    *,
    dry_run: bool = False,
    patience: float = math.inf,
) -> None:
    """Prune for so many seconds, or until nothing is left; `pruned` says what was done, also when it fails half-way.

    A dry run deletes nothing, and counts the jobs that would go. No statement runs on after `patience` seconds. Raises
    DatabaseUnavailable for that, and for a lock of somebody else's that is in the way.
    """
    work = _Work(queue, asdict(policy) | {"most": PAGE, "dry_run": dry_run}, pruned, seconds, patience)
    try:
        await work.do()
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"somebody else is in the way: {one_line(error)}") from error


class _Work:
    """One prune: its parameters, and until when it goes on."""

    def __init__(self, queue: Queue, params: dict[str, Any], pruned: Pruned, seconds: float, patience: float) -> None:
        self.queue = queue
        self.params = params
        self.pruned = pruned
        self.until = time.monotonic() + seconds
        self.patient_until = time.monotonic() + min(patience, DAY)

    async def do(self) -> None:
        (full,) = await self.send("full_types")
        self.params["full"] = to_json(dict(full.rows))
        is_all = await self.beside_jobs()
        if await self.ended("dead") and await self.ended("cancelled"):
            while not self.pruned.complete and self.has_time():
                await self.page()
        self.pruned.complete &= is_all

    def has_time(self) -> bool:
        return time.monotonic() < self.until

    async def beside_jobs(self) -> bool:
        """Prune what is no job; whether that was all of it."""
        if self.params["dry_run"]:
            return True
        back = DAY if self.pruned.after else EVER
        replies = await self.send(*_BESIDE_JOBS, back=back)
        self.pruned.ticks += replies[0].changed
        return all(reply.changed < PAGE for reply in replies)

    async def ended(self, status: str) -> bool:
        """Prune jobs that are dead or cancelled; whether that was all of them."""
        place = self.pruned.places.get(status, _FIRST)
        while place and self.has_time():
            params = {"status": status, "age": self.params[status], "after_at": place[0], "after": place[1]}
            (page,) = await self.send("prune_ended", **params)
            looked_at, jobs, *last = page.rows[0]
            self.count(looked_at, jobs)
            place = self.pruned.places[status] = None if looked_at < PAGE else (last[0], last[1])
        return place is None

    async def page(self) -> None:
        """Prune what is old of the next jobs by id."""
        (page,) = await self.send("prune_page", after=self.pruned.after)
        looked_at, jobs, self.pruned.after = page.rows[0]
        self.count(looked_at, jobs)
        self.pruned.complete = looked_at < PAGE

    def count(self, looked_at: int, jobs: int) -> None:
        self.pruned.looked_at += looked_at
        self.pruned.jobs += jobs

    async def send(self, *names: str, **more: Any) -> list[Reply]:
        left = max(SHORTEST_PATIENCE, self.patient_until - time.monotonic())
        patience = Statement("patience", {"milliseconds": f"{left * 1000:.0f}"}, "retention")
        _, *replies = await self.queue.send(
            patience, *(Statement(name, self.params | more, "retention") for name in names)
        )
        return replies
