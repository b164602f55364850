"""vercel.json, and what else Vercel reads of a project."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from difflib import SequenceMatcher
from itertools import islice, pairwise
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tick.config import DEFAULT_BUDGET
from tick.cron import Cron
from tick.cron_hints import ALIASES, FIELDS
from tick.doctor.findings import Finding, found
from tick.doctor.patterns import ignores, matches, serves
from tick.doctor.subject import Project
from tick.errors import CronError
from tick.masking import is_secret
from tick.platforms import MARGIN

FILE = "vercel.json"
TICK = "/tick"
MOST_CRONS = 100
LONGEST_ON_HOBBY = 300
LONGEST = 3600
PYTHONS = ((3, 12), (3, 13), (3, 14))
"""What Vercel's runtime for Python offers."""
_ENTRYPOINTS = [
    f"{folder}{name}.py"
    for folder in ("", "src/", "app/", "api/")
    for name in ("app", "index", "server", "main", "wsgi", "asgi")
]
_SERVED = {"app", "application", "handler"}
_EVERY_MINUTE = 'write "* * * * *" and leave the rest to schedules.toml: Vercel only has to tick'
_SPECIFIER = re.compile(r"\s*(~=|===?|!=|<=|>=|<|>)\s*([0-9]+(?:\.[0-9]+)*)(\.\*)?\s*")


def config(project: Project) -> dict[str, Any]:
    """vercel.json, or nothing."""
    return project.vercel.value or {}


def can_be_read(project: Project) -> Iterator[Finding]:
    """vercel.json is a JSON object."""
    if project.vercel.problem:
        yield found("vercel-unreadable", FILE, project.vercel.problem, "correct it; `vercel build` checks it too")


# Crons


def _crons(project: Project) -> list[dict[str, str]]:
    """The crons that have a path and a schedule."""
    crons = config(project).get("crons", [])
    return [each for each in crons if not _misshapen(each)] if isinstance(crons, list) else []


def _misshapen(cron: Any) -> str | None:
    """What an entry has wrong, by the rules of Vercel's own validator."""
    if not isinstance(cron, dict) or set(cron) != {"path", "schedule"}:
        return "it has to be an object with path and schedule, and no other key"
    path, schedule = cron["path"], cron["schedule"]
    if not isinstance(path, str) or not re.fullmatch(r"/.{0,511}", path):
        return "its path has to begin with / and have 512 characters at most"
    return None if isinstance(schedule, str) and 1 <= len(schedule) <= 256 else "its schedule has to be a text"


def _at(project: Project, text: str) -> str:
    return project.where(FILE, f'"{text}"')


def cron_shapes(project: Project) -> Iterator[Finding]:
    """Each cron is a path and a schedule."""
    crons = config(project).get("crons", [])
    for cron in crons if isinstance(crons, list) else [crons]:
        if why := "crons has to be a list" if not isinstance(crons, list) else _misshapen(cron):
            fix = 'write { "path": "/tick", "schedule": "* * * * *" }; time zones and all else go into schedules.toml'
            yield found("vercel-cron-shape", project.where(FILE, '"crons"'), f"{cron!r:.80}: {why}", fix)


def cron_syntax(project: Project) -> Iterator[Finding]:
    """Each expression has five plain numeric fields, as Vercel takes them."""
    for cron in _crons(project):
        schedule = cron["schedule"]
        if why := _refused(schedule):
            numeric = _numeric(schedule)
            fix = f'write "{numeric}"; or {_EVERY_MINUTE}' if numeric else _EVERY_MINUTE
            yield found("vercel-cron-syntax", _at(project, schedule), f'"{schedule}": {why}', fix)


def _refused(schedule: str) -> str | None:
    fields = schedule.split(" ")
    if len(fields) != 5:
        return "Vercel takes five fields with one space between them, no seconds and no macros"
    if odd := next((field for field in fields if not re.fullmatch(r"[\d*,/-]+", field)), None):
        return f"`{odd}` is more than numbers, `*`, lists, ranges and steps"
    if "*" not in (fields[2], fields[4]):
        return "it has a day-of-month and a day-of-week, of which one has to be `*`"
    try:
        Cron.parse(schedule)
    except CronError as error:
        return str(error)
    return None


def _numeric(schedule: str) -> str | None:
    """The same without names, macros and a leading second 0, if Vercel takes that."""
    fields = ALIASES.get(schedule.strip().lower(), schedule).lower().split()
    fields = fields[1:] if len(fields) == 6 and fields[0] == "0" else fields
    for place, field in enumerate(FIELDS[1:]):
        for offset, name in enumerate(field.names if place < len(fields) else ()):
            fields[place] = re.sub(rf"\b{name}\b", str(field.low + offset), fields[place])
    numeric = " ".join(fields).replace("?", "*")
    return None if _refused(numeric) else numeric


def plan(project: Project) -> Iterator[Finding]:
    """Nothing that the Hobby plan refuses."""
    for cron in _crons(project):
        if not _refused(cron["schedule"]) and (gap := shortest_gap(cron["schedule"])) and gap < timedelta(days=1):
            what = f'"{cron["schedule"]}" fires more than once a day'
            fix = 'on Hobby write "0 5 * * *", and let a workflow of GitHub or QStash tick between; on Pro it is right'
            yield found("vercel-hobby", _at(project, cron["schedule"]), what, fix)
    for pattern, function in _functions(project).items():
        duration = function.get("maxDuration")
        if isinstance(duration, int) and duration > LONGEST_ON_HOBBY:
            what = f"maxDuration {duration} is more than {LONGEST_ON_HOBBY} seconds"
            yield found("vercel-hobby", _at(project, pattern), what, "on Hobby write 300 at most; on Pro it is right")


def shortest_gap(expression: str) -> timedelta | None:
    """The least time between two of the next two hundred windows of an expression."""
    start = datetime(2028, 1, 1, tzinfo=UTC)
    windows = Cron.parse(expression).windows(UTC, start, start + timedelta(days=800))
    return min((b - a for a, b in pairwise(islice(windows, 200))), default=None)


def paths(project: Project) -> Iterator[Finding]:
    """No path that is nearly /tick, and no secret in one."""
    for cron in _crons(project):
        parts = urlsplit(cron["path"])
        name = parts.path.rstrip("/") or "/"
        if not name.endswith(TICK) and SequenceMatcher(None, TICK, name.lower()).ratio() > 0.7:
            fix = f'write "path": "{TICK}", unless your application has mounted it under this name'
            yield found("vercel-path", _at(project, cron["path"]), f"a cron calls {name}, and tick is at {TICK}", fix)
        if named := [name for name, value in parse_qsl(parts.query) if is_secret(name) and value]:
            fix = "take it out, and set CRON_SECRET: Vercel sends it by itself"
            where = _at(project, cron["path"])
            yield found("secret-in-url", where, f"the path of a cron has {', '.join(named)} in it", fix)


def _ticks(project: Project) -> list[str]:
    """The paths of the crons, and of the schedules of the beta, that tick."""
    schedules = config(project).get("schedules", [])
    entries = list(schedules.values()) if isinstance(schedules, dict) else schedules
    beta = [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    targets = [_path_of(each) for each in beta]
    paths = [urlsplit(path).path for path in (*(cron["path"] for cron in _crons(project)), *targets)]
    return [path for path in paths if path.rstrip("/").endswith(TICK)]


def _path_of(schedule: dict[str, Any]) -> str:
    target = schedule.get("target")
    return str(schedule.get("path") or (target.get("path") if isinstance(target, dict) else "") or "")


def calls_tick(project: Project) -> bool:
    """Whether a cron of Vercel ticks."""
    return bool(_ticks(project))


def counts(project: Project) -> Iterator[Finding]:
    """Not too many crons, and one for /tick."""
    if len(crons := _crons(project)) > MOST_CRONS:
        fix = "keep the one for /tick, and make the others schedules of schedules.toml"
        yield found("vercel-crons-many", project.where(FILE, '"crons"'), f"there are {len(crons)} crons", fix)
    if len(ticks := _ticks(project)) > 1:
        fix = "keep the most frequent one"
        yield found("vercel-cron-twice", project.where(FILE, TICK), f"{len(ticks)} crons call {TICK}", fix)


def redirects(project: Project) -> Iterator[Finding]:
    """Nothing redirects the paths that crons call."""
    for path in dict.fromkeys(_ticks(project)):
        for where, why, fix in _redirected(project, path):
            yield found("vercel-redirect", where, f"{path} is redirected: {why}", fix)


def _redirected(project: Project, path: str) -> Iterator[tuple[str, str, str]]:
    slash = config(project).get("trailingSlash")
    if isinstance(slash, bool) and path != "/" and path.endswith("/") is not slash:
        right = f"{path}/" if slash else path.rstrip("/")
        fix = f'write "path": "{right}"; tick answers with and without the slash'
        yield project.where(FILE, '"trailingSlash"'), f"trailingSlash is {str(slash).lower()}", fix
    for key in ("redirects", "routes"):
        for rule in config(project).get(key) or []:
            if isinstance(rule, dict) and _redirects(rule, key, path):
                source = str(rule.get("source") or rule.get("src"))
                fix = f'leave {path} out of the rule: "source": "/((?!tick).*)"; or call the place that it leads to'
                yield _at(project, source), f"{key} has {source}", fix


def _redirects(rule: dict[str, Any], key: str, path: str) -> bool:
    """Whether a rule does it to everybody: `has` and `missing` are for some hosts, headers or cookies."""
    if rule.get("has") or rule.get("missing"):
        return False
    if key == "redirects":
        return serves(str(rule.get("source", "")), path)
    is_one = str(rule.get("status", "")).startswith("3")
    return is_one and serves(f"({str(rule.get('src', '')).removeprefix('^').removesuffix('$')})", path)


def middleware(project: Project) -> Iterator[Finding]:
    """A middleware knows of /tick."""
    for path in project.files if project.is_on_vercel else ():
        if re.fullmatch(r"(?:src/)?middleware\.(?:ts|js|mjs)", path) and "tick" not in (project.text(path) or ""):
            fix = 'leave /tick out of its matcher, such as matcher: ["/((?!tick).*)"]'
            yield found("vercel-middleware", path, "it does not say what becomes of /tick", fix)


def shape(project: Project) -> Iterator[Finding]:
    """Keys that exclude each other, and those that are a beta."""
    if {"builds", "functions"} <= set(config(project)):
        yield found("vercel-builds", project.where(FILE, '"builds"'), "it has builds and functions", "remove builds")
    if "schedules" in config(project):
        fix = 'write "crons": [{ "path": "/tick", "schedule": "* * * * *" }] instead; or keep it: its POST is taken too'
        where = project.where(FILE, '"schedules"')
        yield found("vercel-schedules", where, "it has schedules, which Vercel calls a beta", fix)


def nested(project: Project) -> Iterator[Finding]:
    """Crons stand in the root's vercel.json."""
    for path in project.files:
        if path.endswith(f"/{FILE}") and '"crons"' in (project.text(path) or ""):
            fix = (
                f"check that the project's Root Directory in Vercel is {PurePosixPath(path).parent}; or move its crons"
            )
            yield found("vercel-nested", project.where(path, '"crons"'), "it has crons, beside the root's files", fix)


# Functions


def _functions(project: Project) -> dict[str, dict[str, Any]]:
    functions = config(project).get("functions")
    return (
        {key: each for key, each in functions.items() if isinstance(each, dict)} if isinstance(functions, dict) else {}
    )


def functions(project: Project) -> Iterator[Finding]:
    """Each entry of functions is for a file."""
    for pattern in _functions(project):
        if not any(matches(pattern, path) for path in project.files):
            entrypoint = _entrypoint(project)
            fix = f'write "{entrypoint}"' if entrypoint else "write the path of the entrypoint's file"
            yield found("vercel-function", _at(project, pattern), f'"{pattern}" matches no file', fix)


def durations(project: Project) -> Iterator[Finding]:
    """The function may run for longer than a tick."""
    needed = (project.settings.budget or DEFAULT_BUDGET) + MARGIN
    for pattern, function in _functions(project).items():
        duration = function.get("maxDuration")
        if duration is None or duration == "max":
            continue
        if type(duration) is not int or not 1 <= duration <= LONGEST:
            fix = f'write "maxDuration": {needed:.0f}'
            yield found("vercel-duration-invalid", _at(project, pattern), f"maxDuration is {duration!r:.40}", fix)
        elif duration < needed:
            what = f"maxDuration is {duration}, and the budget of {needed - MARGIN:g} s needs {needed:.0f}"
            fix = f'write "maxDuration": {needed:.0f}; or set TICK_BUDGET={max(1, duration - MARGIN):.0f}'
            yield found("vercel-duration", _at(project, pattern), what, fix)


def durations_missing(project: Project) -> Iterator[Finding]:
    """The entrypoint's function says how long it may run."""
    entrypoint = _entrypoint(project)
    if entrypoint is None or not config(project) or "builds" in config(project):
        return
    if not any("maxDuration" in each for key, each in _functions(project).items() if matches(key, entrypoint)):
        fix = f'add "functions": {{ "{entrypoint}": {{ "maxDuration": 60 }} }}'
        yield found("vercel-duration-missing", FILE, f"there is no maxDuration for {entrypoint}", fix)


def bundle(project: Project) -> Iterator[Finding]:
    """What a tick needs is deployed."""
    if not project.is_on_vercel:
        return
    for path, what in _needed(project).items():
        for where, why in _left_out(project, path):
            fix = f"take {path} out of it" if where != path else f"move {path} to a folder of another name"
            yield found("vercel-excludes", where, f"{what} ({path}) is not deployed: {why}", fix)


def _needed(project: Project) -> dict[str, str]:
    needed = {path: f"the module {name}" for name in project.settings.modules if (path := _module(project, name))}
    if project.settings.schedules_path.exists():
        needed[project.schedules_path] = "the schedules file"
    if entrypoint := _entrypoint(project):
        needed[entrypoint] = "the entrypoint"
    if "tick/database.py" in project.files:
        needed |= {path: "a migration" for path in project.files if re.fullmatch(r"migrations/0001_\w+\.sql", path)}
    return needed


def _left_out(project: Project, path: str) -> Iterator[tuple[str, str]]:
    for function in _functions(project).values():
        pattern = function.get("excludeFiles")
        if isinstance(pattern, str) and matches(pattern, path):
            yield _at(project, pattern), f'excludeFiles is "{pattern}"'
    if line := ignores((project.text(".vercelignore") or "").splitlines(), path):
        yield project.where(".vercelignore", line), f".vercelignore has {line}"
    if "public" in path.split("/")[:-1]:
        yield path, "Vercel serves what is in a folder named public, and leaves it out of functions"


def _module(project: Project, name: str) -> str | None:
    """The file of a module of this project."""
    base = name.replace(".", "/")
    places = (f"{folder}{base}{end}" for folder in ("", "src/") for end in (".py", "/__init__.py"))
    return next((place for place in places if (project.root / place).is_file()), None)


# Python


def python(project: Project) -> Iterator[Finding]:
    """A version of Python that Vercel has."""
    if not project.is_on_vercel:
        return
    wanted = project.pyproject.get("project", {}).get("requires-python")
    if isinstance(wanted, str) and not any(_allows(wanted, version) for version in PYTHONS):
        where = project.where("pyproject.toml", "requires-python")
        yield found("vercel-python", where, f'requires-python is "{wanted}"', 'write requires-python = ">=3.12"')
    pinned = (project.text(".python-version") or "").strip()
    if (match := re.match(r"(\d+)\.(\d+)", pinned)) and (int(match[1]), int(match[2])) not in PYTHONS:
        yield found("vercel-python", ".python-version", f"it says {pinned:.20}", "write 3.12, 3.13 or 3.14")


def _allows(specifiers: str, version: tuple[int, int]) -> bool:
    """Whether some patch release of a version meets the specifiers (PEP 440, as far as two numbers tell)."""
    return all(_meets(match, version) for part in specifiers.split(",") if (match := _SPECIFIER.fullmatch(part)))


def _meets(match: re.Match[str], version: tuple[int, int]) -> bool:
    operator, numbers = match[1], tuple(int(number) for number in match[2].split("."))
    wanted, exact = (*numbers, 0)[:2], len(numbers) > 2
    if operator == "~=":
        return version == wanted if exact else version >= wanted and version[0] == wanted[0]
    if operator == "!=":
        return version != wanted or exact
    if operator in ("==", "==="):
        return version[: len(numbers)] == wanted[: len(numbers)] if match[3] else version == wanted
    below = version < wanted or (version == wanted and (operator == "<=" or exact))
    return below if operator[0] == "<" else version >= wanted


def dependencies(project: Project) -> Iterator[Finding]:
    """There is something from which Vercel installs the project."""
    manifests = ("requirements.txt", "Pipfile", "Pipfile.lock", "uv.lock", "pylock.toml")
    declared = project.pyproject.get("project", {}).get("dependencies") or "poetry" in project.pyproject.get("tool", {})
    if project.is_on_vercel and not declared and not any((project.root / name).is_file() for name in manifests):
        fix = 'add a pyproject.toml with [project] and dependencies = ["tick-jobs"]'
        yield found("vercel-dependencies", "pyproject.toml", "there are no dependencies", fix)


def _configured(project: Project) -> str | None:
    table = project.pyproject.get("tool", {}).get("vercel", {})
    entrypoint = table.get("entrypoint") if isinstance(table, dict) else None
    return entrypoint if isinstance(entrypoint, str) else None


def _entrypoint(project: Project) -> str | None:
    """The file that Vercel serves, as it looks for it."""
    if configured := _configured(project):
        return _module(project, configured.partition(":")[0])
    return next((path for path in _ENTRYPOINTS if _SERVED & _names(project, path)), None)


def entrypoint(project: Project) -> Iterator[Finding]:
    """The entrypoint is a name in a file of the project."""
    if (
        not project.is_on_vercel
        or "builds" in config(project)
        or config(project).get("framework", "python") != "python"
    ):
        return
    example = 'write an app.py with `from tick.web import app`, and [tool.vercel] entrypoint = "app:app"'
    configured, path = _configured(project), _entrypoint(project)
    where = project.where("pyproject.toml", "entrypoint") if configured else "pyproject.toml"
    if path is None:
        what = (
            f'no file of the project is "{configured}"' if configured else "no entrypoint is set, and no app.py found"
        )
        yield found("vercel-entrypoint", where, what, example)
    elif configured and (name := configured.partition(":")[2].partition(".")[0]) not in _names(project, path):
        yield found("vercel-entrypoint", where, f'{path} has no name "{name}" at its top', example)


def _names(project: Project, path: str) -> set[str]:
    """The names that a file has at its top."""
    text = project.text(path)
    try:
        return set(_defined(ast.parse(text or "").body))
    except (SyntaxError, ValueError):
        return set()


def _defined(body: Iterable[ast.stmt]) -> Iterator[str]:
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield statement.name
            case ast.Import() | ast.ImportFrom():
                yield from (each.asname or each.name.partition(".")[0] for each in statement.names)
            case ast.Assign() | ast.AnnAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                yield from (name.id for each in targets for name in ast.walk(each) if isinstance(name, ast.Name))
            case ast.If() | ast.Try() | ast.With():
                handlers = getattr(statement, "handlers", ())
                yield from _defined([*statement.body, *(line for each in handlers for line in each.body)])
                yield from _defined(getattr(statement, "orelse", ()))


CHECKS = (
    can_be_read,
    cron_shapes,
    cron_syntax,
    plan,
    paths,
    counts,
    redirects,
    middleware,
    shape,
    nested,
    functions,
    durations,
    durations_missing,
    bundle,
    python,
    dependencies,
    entrypoint,
)
