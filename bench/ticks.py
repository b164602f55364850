"""A tick as a benchmark runs one: with the default settings, timed, its round trips counted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from tick import processor, queue
from tick.config import Settings
from tick.handlers import Handler, Registry

from .dataset import TYPE


async def noop(user_id: int, template: str, audience: str) -> None:
    """A job that is all overhead."""


def noops() -> Registry:
    """A registry with that handler alone."""
    registry = Registry()
    registry.add(Handler(noop, TYPE))
    return registry


class Timed(NamedTuple):
    """What a tick did, and what it took, from its connection to its report."""

    report: processor.Report
    seconds: float
    round_trips: int


async def timed(url: str, registry: Registry, schedules: Path = Path("no schedules file"), **settings: Any) -> Timed:
    """Run one tick; with other settings than the defaults, if they are given."""
    chosen = Settings(database_url=url, schedules_path=schedules, **settings)
    opened: list[queue.Queue] = []

    def remembered(*args: Any) -> queue.Queue:
        opened.append(queue.Queue(*args))
        return opened[-1]

    with patch.object(processor, "Queue", remembered):
        started = time.perf_counter()
        report = await processor.process_tick(chosen, registry)
        seconds = time.perf_counter() - started
    return Timed(report, seconds, opened[0].round_trips)
