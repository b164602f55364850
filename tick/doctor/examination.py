"""One examination: every check in turn, where one that fails is a finding itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from tick import database
from tick.doctor import database_checks, environment, load, project, queue_checks, vercel, workflows
from tick.doctor.findings import AREAS, CHECKS, DATABASE, ERROR, LEVELS, LOAD, QUEUE, Finding, found
from tick.doctor.subject import Project
from tick.errors import ConfigurationError, DatabaseUnavailable

OFFLINE: tuple[Callable[[Project], Iterable[Finding]], ...] = (
    *vercel.CHECKS,
    *workflows.CHECKS,
    *project.CHECKS,
    *environment.CHECKS,
)
_ONLINE = (DATABASE, QUEUE, LOAD)
MOST_OF_ONE = 20
"""Findings of one check that are told."""


class Examination(NamedTuple):
    """What was found, the worst first; how many checks looked; and whether the database was looked at."""

    findings: list[Finding]
    checks: int
    with_database: bool


async def examine(project: Project, *, offline: bool = False) -> Examination:
    """Every check that can be made; without a database, or `offline`, those of the project and the environment."""
    findings = [finding for check in OFFLINE for finding in look(check, project)]
    with_database = not offline and bool(project.settings.database_url)
    if with_database:
        findings += await _look_at_database(project)
    unseen = 0 if with_database else sum(map(len, _ONLINE))
    return Examination(sift(findings), len(CHECKS) - len(AREAS["The doctor"]) - unseen, with_database)


def sift(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once, the worst first; of many from one check the first, and how many more there are."""
    told: dict[str, list[Finding]] = {}
    for finding in dict.fromkeys(findings):
        told.setdefault(finding.code, []).append(finding)
    some = [finding for each in told.values() for finding in (*each[:MOST_OF_ONE], *_more(each[MOST_OF_ONE:]))]
    return sorted(some, key=lambda finding: LEVELS.index(finding.level))


def _more(findings: Sequence[Finding]) -> list[Finding]:
    return [found(findings[0].code, "elsewhere", f"{len(findings)} more of these", findings[0].fix)] if findings else []


def look(check: Callable[..., Iterable[Finding]], *given: Any) -> list[Finding]:
    """What a check finds; or that it failed."""
    try:
        return list(check(*given))
    except Exception as error:  # noqa: BLE001 - a check of the doctor may not end the others
        return [_failed(check, error)]


def _failed(check: Callable[..., Any], error: Exception) -> Finding:
    said = f"{type(error).__name__}: {database.one_line(error)}"
    name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
    return found("check-failed", name, said[:300], "report it, with the file or setting that it was reading")


async def _look_at_database(project: Project) -> list[Finding]:
    """One connection, and one thing after the other: what comes later needs what came before to be right."""
    try:
        async with database.connect(project.settings.database_url or "") as connection:
            return await _look_through(connection, project)
    except (ConfigurationError, DatabaseUnavailable) as error:
        return [database_checks.cannot_connect(error)]


async def _look_through(connection: AsyncConnection[Any], project: Project) -> list[Finding]:
    if findings := await database_checks.pooler(connection):
        return findings
    server, findings = await database_checks.server(connection, project)
    findings += await _try(database_checks.sessions, connection, project)
    if server["has_pg_cron"]:
        findings += await _try(database_checks.pg_cron, connection, project)
    for stage in (database_checks.rights, database_checks.migrations):
        wrong = await _try(stage, connection, project)
        findings += wrong
        if any(finding.level == ERROR for finding in wrong):
            return findings
    findings += await _try(database_checks.schema, connection, project)
    return findings + await _try(_look_at_queue, connection, project)


async def _look_at_queue(connection: AsyncConnection[Any], project: Project) -> list[Finding]:
    state = await queue_checks.read(connection, project)
    checks = (*queue_checks.CHECKS, *load.CHECKS)
    return [finding for check in checks for finding in look(check, state, project)]


async def _try(
    stage: Callable[[AsyncConnection[Any], Project], Awaitable[list[Finding]]],
    connection: AsyncConnection[Any],
    project: Project,
) -> list[Finding]:
    try:
        return await stage(connection, project)
    except Exception as error:  # noqa: BLE001 - as above
        return [_failed(stage, error)]
