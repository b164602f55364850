"""The project itself: its dependencies, its handlers, its schedules file, and secrets where they should not be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

from tick import materialise
from tick.cron import Cron, zone
from tick.doctor.findings import Finding, found
from tick.doctor.subject import Project, texts
from tick.errors import ConfigurationError
from tick.masking import is_secret, mask_text

YEAR = timedelta(days=365)
MOST_LOOKED_AT = 1000
"""Schedules whose next year is looked at."""
_DAY = timedelta(days=1)
_OURS = re.compile(r"\btick[-_]jobs\b", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{secret:|^secret:")
_A_NAME = re.compile(r"[a-z0-9_]{1,40}")


def dependency(project: Project) -> Iterator[Finding]:
    """Whoever installs the project gets tick."""
    manifests = [name for name in ("pyproject.toml", "requirements.txt", "Pipfile") if project.text(name)]
    table = project.pyproject.get("project", {})
    declares = table.get("dependencies") is not None or len(manifests) > ("pyproject.toml" in manifests)
    if declares and not any(_OURS.search(project.text(name) or "") for name in manifests):
        fix = 'add "tick-jobs" to the dependencies'
        yield found("dependency-missing", manifests[0], "none of the dependencies is tick-jobs", fix)


def settings(project: Project) -> Iterator[Finding]:
    """The settings can be read."""
    if project.problem:
        yield found("settings-unusable", "the environment and pyproject.toml", project.problem, "correct what it names")


def modules(project: Project) -> Iterator[Finding]:
    """There are modules with handlers, and they can be imported."""
    where = project.where("pyproject.toml", "modules") + " or TICK_MODULES"
    if project.registry.problem:
        fix = "correct it; `tick schedules --check` imports the modules too"
        yield found("module-broken", where, project.registry.problem, fix)
    elif not project.settings.modules and not _needs_no_handlers(project):
        fix = 'add [tool.tick] modules = ["jobs"] to pyproject.toml, the modules in which @tick.job stands'
        yield found("modules-none", where, "no modules are named", fix)


def _needs_no_handlers(project: Project) -> bool:
    """Schedules of the built-in types need none."""
    return bool(project.schedules) and all(each.type in ("http", "sql") for each in project.schedules)


def handlers(project: Project) -> Iterator[Finding]:
    """Every handler can work."""
    try:
        project.handlers.check(project.budget)
    except ConfigurationError as error:
        for problem in str(error).splitlines()[1:]:
            where, _, why = problem.partition(": ")
            yield found("handlers-unusable", where, why, "correct the function; or raise TICK_BUDGET")


# schedules.toml


def schedules_file(project: Project) -> Iterator[Finding]:
    """The schedules file can be read."""
    lines = (project.contents.problem or "").splitlines()
    for problem in lines[1:] or lines:
        fix = "correct it; `tick schedules --check` reads it again, and docs/schedules.md has every key"
        yield found("schedules-unreadable", project.schedules_path, problem.strip(), fix)


def schedules(project: Project) -> Iterator[Finding]:
    """Every schedule can run."""
    if project.registry.value is None or project.contents.value is None:
        return
    for problem in materialise.check(project.contents.value.schedules, project.handlers, project.budget):
        where, _, why = problem.partition(": ")
        name = where.removeprefix("schedules.").rpartition(".")[0]
        fix = "write the handler and name its module in modules; or correct the schedule"
        yield found("schedule-unrunnable", project.schedule_at(name), f"{where}: {why}", fix)


def limits(project: Project) -> Iterator[Finding]:
    """Every limit is for a type that there is."""
    if project.registry.value is None or project.contents.value is None:
        return
    for limit in project.contents.value.limits:
        if limit.type and limit.type not in project.handlers:
            where = project.where(project.schedules_path, f"limits.{limit.type}")
            fix = f"write one of {', '.join(project.handlers.types[:8])}; or remove it"
            yield found("limit-unknown", where, f"no handler has the type {limit.type}", fix)


def surprises(project: Project) -> Iterator[Finding]:
    """Every expression means what it seems to."""
    for schedule in project.schedules[:MOST_LOOKED_AT]:
        for warning in Cron.parse(schedule.cron).warnings if schedule.cron else ():
            where = project.schedule_at(schedule.name)
            fix = "write two schedules, or another rule; `tick windows` shows when an expression fires"
            yield found("schedule-surprise", where, f"`{schedule.cron}`: {warning}", fix)


def clock_changes(project: Project) -> Iterator[Finding]:
    """No schedule stands at a time that a zone skips or repeats within a year."""
    now = datetime.now(UTC)
    fix = "choose a time outside of the change; or leave it, if that will do"
    for schedule in project.schedules[:MOST_LOOKED_AT]:
        if schedule.cron:
            for code, what in _changes(Cron.parse(schedule.cron), schedule.timezone, now):
                yield found(code, project.schedule_at(schedule.name), what, fix)


def _changes(cron: Cron, timezone: str, now: datetime) -> Iterator[tuple[str, str]]:
    where = zone(timezone)
    for local in (window.astimezone(where) for window in cron.moved(where, now, now + YEAR)):
        what = f"`{cron.text}` names a local time that {timezone} skips on {local:%Y-%m-%d}: it fires at {local:%H:%M}"
        yield "schedule-gap", what
    repeated = _repeated(cron, where, now.date().isoformat()) if cron.fixed else []
    for local in (window.astimezone(where) for window in repeated):
        what = f"{local:%H:%M} comes twice in {timezone} on {local:%Y-%m-%d}: `{cron.text}` fires the first time only"
        yield "schedule-fold", what


def _repeated(cron: Cron, where: tzinfo, today: str) -> list[datetime]:
    """The windows of a year whose local time comes twice."""
    return [
        window
        for day in _longer_days(where, today)
        for window in cron.windows(where, day - _DAY, day + _DAY)
        if _is_ambiguous(window.astimezone(where))
    ]


@lru_cache(maxsize=512)
def _longer_days(where: tzinfo, today: str) -> tuple[datetime, ...]:
    """The days of the year from today during which clocks are put back: noon, in UTC, of each."""
    noon = datetime.fromisoformat(today).replace(hour=12, tzinfo=UTC)
    days = [noon + number * _DAY for number in range(366)]
    offsets = [day.astimezone(where).utcoffset() or timedelta() for day in days]
    return tuple(day for day, a, b in zip(days, offsets, offsets[1:], strict=False) if b < a)


def _is_ambiguous(local: datetime) -> bool:
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()


# Secrets in files


def secrets(project: Project) -> Iterator[Finding]:
    """No file has a secret in it."""
    tables = {
        project.schedules_path: project.document,
        "pyproject.toml": project.pyproject.get("tool", {}).get("tick", {}),
    }
    for path, table in tables.items():
        for place, value in texts(table):
            if _looks_secret(place[-1], value):
                where = project.where(path, value.splitlines()[0][:40])
                written = '"secret:NAME"' if place[0] == "alerts" else "${secret:NAME}"
                fix = f"put it into TICK_SECRET_<NAME>, and write {written}; then replace it, since it has been seen"
                yield found("secret-in-file", where, f"{'.'.join(place)} looks like a secret", fix)


def _looks_secret(name: str, value: str) -> bool:
    """By its name or by its shape; `sign = "webhook"` only names one."""
    if _REFERENCE.search(value):
        return False
    named = is_secret(name) and not _A_NAME.fullmatch(value) and " " not in value
    return named or mask_text(value) != value


CHECKS = (dependency, settings, modules, handlers, schedules_file, schedules, limits, surprises, clock_changes, secrets)
