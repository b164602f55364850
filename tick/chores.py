"""What ticks do beside jobs: watch for what alerts are about, and prune what is old enough."""

from __future__ import annotations

from .config import Settings
from .queue import Queue

PRUNE_EVERY = 600.0
"""Seconds between two prunes, unless one has left something."""
WATCH_EVERY = 50.0
"""Seconds between two watches: less than the minute of most crons, so that no tick comes too early for it."""


async def do(name: str, queue: Queue, settings: Settings, seconds: float) -> None:
    """Do a chore within so many seconds, if no other tick has taken it; one that this version does not know is left.

    Raises whatever goes wrong: the tick tells it, and does not fail by it.
    """
    if name == "prune":
        from . import retention

        if chore := await queue.begin_chore(name, PRUNE_EVERY):
            await retention.prune(queue, chore, seconds)
    if name == "watch":
        from . import watch

        if chore := await queue.begin_chore(name, WATCH_EVERY):
            await watch.watch(queue, chore, settings, seconds)
