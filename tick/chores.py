"""What ticks do beside jobs: watch for what alerts are about, and prune what is old enough."""

from __future__ import annotations

from .config import Settings
from .queue import Queue

PRUNE_EVERY = 600.0
"""Seconds between two prunes, unless one has left something."""


async def do(name: str, queue: Queue, settings: Settings, seconds: float) -> None:  # noqa: ARG001 - for watching
    """Do a chore within so many seconds, if no other tick has taken it; one that this version does not know is left."""
    if name == "prune":
        from . import retention

        chore = await queue.begin_chore(name, PRUNE_EVERY)
        if chore:
            await retention.prune(queue, chore, seconds)
