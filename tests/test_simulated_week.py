"""Real projects' schedules, 491 of them, through simulated days in which the clocks change in Europe and in America.

`TICK_SIMULATED_DAYS=8 ./scripts/test tests/test_simulated_week.py` is the whole week. However the ticks come, the windows are the same, wherever the catch-up rule says so, and every job is done.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import tick as public
from tests.factories import move_clock
from tick.backoff import parse_duration
from tick.handlers import registry
from tick.processor import process_tick

SETS = Path(__file__).parent / "data" / "real_schedules.json"
START = datetime(2026, 10, 24, 12, tzinfo=UTC)
DAYS = float(os.environ.get("TICK_SIMULATED_DAYS", "0.75"))
"""Eight hold the whole week and both changes of the clocks, and take some ten minutes; three quarters of one hold Europe's."""
END = START + timedelta(days=DAYS)
OUTAGE = (START + timedelta(hours=11, minutes=2), START + timedelta(hours=14, minutes=2))
NIGHT = (START + timedelta(hours=11), START + timedelta(hours=15)) if DAYS < 1 else (START, END)
"""What is ticked through minute by minute: the hours about Europe's change, or the whole week."""


SPOKEN = {
    "every 30 seconds": {"every": "30s"},
    "every 10 minutes": {"every": "10m"},
    "every 24 hours": {"every": "24h"},
    "every 7 days": {"every": "7d"},
    "every 1 month": {"cron": "@monthly"},
    "0, 15, 30, 45 * * * *": {"cron": "0,15,30,45 * * * *"},
}
"""What the sets say in other words than cron's."""


def real_schedules() -> list[dict]:
    """Every schedule of every set, each under its project's name; every other one catches up with all it missed."""
    entries = []
    for project in json.loads(SETS.read_text()):
        for cron in project["crons"]:
            n = len(entries)
            rule = {"cron": cron["cron"]} if cron["cron"] else SPOKEN[cron["as_written"]]
            name = re.sub(r"[^\w.-]", "-", f"{n}-{project['project']}-{cron['name']}")[:100]
            entries.append(
                {"name": name, "timezone": cron["timezone"] or "UTC", "catch_up": "all" if n % 2 else "latest"} | rule
            )
    return entries


def schedules_file(entries: list[dict]) -> str:
    lines = ["[defaults]\nmax_catch_up = 1000\n"]
    for entry in entries:
        rest = {key: value for key, value in entry.items() if key != "name"}
        lines.append(f'[schedules."{entry["name"]}"]\ntype = "work"')
        lines += [f"{key} = {json.dumps(value)}" for key, value in rest.items()]
    return "\n".join(lines)


def every(minutes: int, since: datetime = START, until: datetime = END) -> list[datetime]:
    return [since + timedelta(minutes=n) for n in range(0, int((until - since).total_seconds()) // 60 + 1, minutes)]


def expected(entries: list[dict], ticks: list[datetime]) -> set[tuple[str, datetime]]:
    """What the rule says: each window, or for `latest` the last one since the tick before."""
    made = set()
    for entry in entries:
        windows = windows_of(entry, ticks[0], ticks[-1])
        if entry["catch_up"] == "latest":
            windows = latest_by_tick(windows, ticks)
        made |= {(entry["name"], window) for window in windows}
    return made


def windows_of(entry: dict, after: datetime, until: datetime) -> list[datetime]:
    if "cron" in entry:
        return public.windows(entry["cron"], entry["timezone"], after=after, until=until)
    period = parse_duration(entry["every"])
    first = after + period - timedelta(seconds=after.timestamp() % period.total_seconds())
    return [first + n * period for n in range((until - first) // period + 1)]


def latest_by_tick(windows: list[datetime], ticks: list[datetime]) -> Iterable[datetime]:
    latest, at = {}, 0
    for window in windows:
        while ticks[at] < window:
            at += 1
        latest[at] = window
    return latest.values()


VARIANTS = {
    "a tick every minute": (every(1, *NIGHT), 1),
    "a tick every five minutes": (every(5), 1),
    "two overlapping ticks every five minutes": (every(5), 2),
    "a tick every five minutes and three hours without": (
        [at for at in every(5) if not OUTAGE[0] < at < OUTAGE[1]], 1),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_week(conn, settings, empty_registry, variant):
    @public.job
    async def work() -> None:
        pass

    entries = real_schedules()
    settings.schedules_path.write_text(schedules_file(entries))
    ticks, at_once = VARIANTS[variant]

    async def week() -> None:
        for at in ticks:
            move_clock(conn, at.isoformat())
            await asyncio.gather(*(process_tick(settings, registry, budget=30) for _ in range(at_once)))

    asyncio.run(week())
    rows = conn.execute('select schedule, "window" from tick.jobs').fetchall()
    assert len(rows) == len(set(rows))
    assert set(rows) == expected(entries, ticks)
    assert conn.execute("select distinct status, attempt from tick.jobs").fetchall() == [("done", 1)]
