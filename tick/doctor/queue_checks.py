"""The queue: whether ticks come and end, and what becomes of jobs. Judged from rows; only `read` asks the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from tick import database, facts, verdict
from tick.doctor.database_checks import ask
from tick.doctor.findings import Finding, found
from tick.doctor.subject import Project
from tick.masking import mask_text
from tick.verdict import ago, count, every, first_line, lasting, listed

TICKS = 200
"""The latest ticks that are looked at."""
EXPIRED_SECONDS = 300.0
LATE_SECONDS = 300.0
FEWEST_TICKS = 5
FEWEST_KILLED = 3
MOST_GROUPS, MOST_TYPES = 100, 5
LATE_AFTER = 3
"""Intervals without a tick of a trigger after which it is said to have stopped."""

Rows = Sequence[Mapping[str, Any]]


class State(NamedTuple):
    """What the database says of the queue, a field for each question."""

    depth: Rows
    pulse: Rows
    triggers: Rows
    ticks: Rows
    unhandled: Rows
    dead: Rows
    too_long: Rows
    expired: Rows
    chores: Rows
    types: Rows
    totals: Rows
    overlaps: Rows
    paused: Rows

    @property
    def interval(self) -> float:
        """Seconds between two ticks, usually; a minute at least."""
        pulse = self.pulse[0]
        return verdict.beat(pulse["since"], pulse["installed"], pulse["gap"]).interval


async def read(connection: AsyncConnection[Any], project: Project) -> State:
    """All of it in one round trip."""
    answers = await database.read(
        connection,
        project.settings.schema,
        facts.depth(),
        facts.pulse(),
        facts.triggers(),
        facts.recent_ticks(TICKS),
        facts.unhandled(project.handlers.types),
        facts.dead_groups(MOST_GROUPS),
        ask("too_long", seconds=project.budget - 1),
        ask("expired", seconds=EXPIRED_SECONDS),
        ask("overdue_chores"),
        ask("types"),
        facts.totals(1000),
        ask("overlap_skips"),
        ask("paused"),
    )
    return State(*answers)


# Ticks


def pulse(state: State, _: Project) -> Iterator[Finding]:
    """Ticks come."""
    row = state.pulse[0]
    beat = verdict.beat(row["since"], row["installed"], row["gap"])
    if beat.status != "stopped":
        return
    fix = 'look at the cron, and at what it gets of /tick: curl -i -X POST URL -H "Authorization: Bearer ..."'
    if row["since"] is None:
        what = f"it was set up {ago(row['installed'] or 0.0)}, and no tick has come"
        yield found(
            "never-ticked", "ticks", what, f"run `tick run-once`, then have it called: docs/deploy.md; or {fix}"
        )
    else:
        last = state.triggers[0]["trigger"] if state.triggers else "unknown"
        what = f"the last tick was {ago(row['since'])} ({last}); they used to come {every(beat.interval)}"
        yield found("ticks-stopped", "ticks", what, fix)


def triggers(state: State, _: Project) -> Iterator[Finding]:
    """Every trigger that came still comes, and on time."""
    regular = [row for row in state.triggers if row["ticks"] >= FEWEST_TICKS and row["trigger"] not in verdict.BY_HAND]
    for row in regular:
        interval = max(verdict.SHORTEST_INTERVAL, row["gap"] or 0.0)
        where = f"trigger {row['trigger']}"
        others_come = any(other["since"] < row["since"] for other in state.triggers if other is not row)
        if others_come and row["since"] > LATE_AFTER * interval and row["gap"]:
            what = f"it came {every(row['gap'])}, and last {ago(row['since'])}"
            yield found("trigger-stopped", where, what, "look at its log where it runs; switch it on, or remove it")
        if (row["late"] or 0.0) > LATE_SECONDS:
            what = f"one of twenty of its ticks is {lasting(row['late'])} late or more"
            yield found("ticks-late", where, what, "add a second trigger, such as QStash or pg_cron: docs/deploy.md")


def ends(state: State, project: Project) -> Iterator[Finding]:
    """Ticks end, without an error and within their lease."""
    # The newest may be running; a tick that a newer one has followed by far has had its time.
    past = [row for row in state.ticks if _age(row, state) > row["budget"] + 60.0]
    if len(killed := [row for row in past if not row["finished_at"]]) >= FEWEST_KILLED:
        what = f"{len(killed)} of the last {len(past)} did not end; they were killed ({_listed(killed)})"
        fix = f"set TICK_BUDGET below the time limit of the host, less 8 s; it is {project.budget:g} s now"
        yield found("ticks-killed", "ticks", what, fix)
    ended = next((row for row in state.ticks if row["finished_at"]), None)
    if ended and ended["error"]:
        what = f"the last one ended in an error: {mask_text(first_line(ended['error']))}"
        yield found(
            "ticks-failing", f"tick {ended['id']}", what, "correct what it names; `tick run-once` shows all of it"
        )
    if stale := sum(row["stale"] for row in state.ticks):
        what = f"{stale} outcomes of the last {len(state.ticks)} ticks came too late and were not taken"
        fix = "let handlers of plain functions look at ctx.remaining(), or give their type a timeout that they keep"
        yield found("stale-outcomes", "ticks", what, fix)


def _age(row: Mapping[str, Any], state: State) -> float:
    return float((state.depth[0]["now"] - row["started_at"]).total_seconds())


def _listed(ticks: Rows) -> str:
    return listed(dict.fromkeys(row["trigger"] for row in ticks))


# Jobs


def depth(state: State, _: Project) -> Iterator[Finding]:
    """What is due is run, and what has died is looked at."""
    row = state.depth[0]
    waited = (row["now"] - row["oldest_due"]).total_seconds() if row["oldest_due"] else 0.0
    handled = sum(each["count"] for each in state.unhandled) < row["due"]
    comes = verdict.beat(state.pulse[0]["since"], state.pulse[0]["installed"], state.pulse[0]["gap"]).status == "ok"
    if comes and handled and waited > verdict.BEHIND * state.interval:
        what = (
            f"{count(row['due'], 'job')} due, the oldest for {lasting(waited)}, and ticks come {every(state.interval)}"
        )
        fix = "tick more often, raise TICK_CONCURRENCY or TICK_BUDGET, or make handlers faster: `tick top` shows which"
        yield found("falling-behind", "jobs", what, fix)
    if row["dead"]:
        groups = listed(f"{type} ({count(number, most=1000)})" for type, number in _by_type(state.dead)[:MOST_TYPES])
        fix = "read why: tick dead; then: tick dead replay, or cancel what need not be done"
        yield found("dead-jobs", "jobs", f"{count(row['dead'], 'job')}: {groups}", fix)


def _by_type(groups: Rows) -> list[tuple[str, int]]:
    """How many dead jobs there are of each type, most first."""
    counts: Counter[str] = Counter()
    for group in groups:
        counts[group["type"]] += group["count"]
    return counts.most_common()


def types(state: State, project: Project) -> Iterator[Finding]:
    """Due jobs have a handler."""
    for row in state.unhandled if project.registry.value is not None else ():
        what = f"{row['count']:,} due, the oldest since {row['oldest']:%Y-%m-%d %H:%M} UTC"
        fix = f"add the module with its handler to modules, and deploy; or: tick jobs cancel --type {row['type']}"
        yield found("types-unhandled", f"type {row['type']}", what, fix)


def time_outs(state: State, project: Project) -> Iterator[Finding]:
    """Due jobs fit a tick."""
    for row in state.too_long:
        what = f"{row['count']:,} due with a time-out of up to {row['seconds']:g} s; the budget is {project.budget:g} s"
        fix = (
            f"raise TICK_BUDGET above {row['seconds']:g} where the host allows it; or split the work into smaller jobs"
        )
        yield found("jobs-too-long", f"type {row['type']}, job {row['id']}", what, fix)


def leases(state: State, _: Project) -> Iterator[Finding]:
    """Leases that run out are reclaimed."""
    row = state.expired[0]
    if row["count"]:
        what = f"{count(row['count'], 'lease', most=999)} ran out, the first {ago(row['seconds'])}"
        yield found("leases-expired", "jobs", what, "tick: `tick run-once` reclaims them; then see that ticks come")


def chores(state: State, _: Project) -> Iterator[Finding]:
    """Chores are done."""
    for row in state.chores:
        what = f"{row['name']} has been due for {lasting(row['seconds'])}, though ticks came"
        fix = "tick prune; then look at the log of ticks: they have no time left, or fail"
        yield found("prune-stopped", f"chore {row['name']}", what, fix)


CHECKS = (pulse, triggers, ends, depth, types, time_outs, leases, chores)
