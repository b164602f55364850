"""The workflows of GitHub that tick: by `tick run-once`, or by a call of /tick."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property

from tick.config import DEFAULT_BUDGET, GRACE
from tick.cron import Cron
from tick.doctor import vercel
from tick.doctor.findings import Finding, found
from tick.doctor.outline import Node
from tick.doctor.subject import Project
from tick.errors import CronError

SHORTEST = timedelta(minutes=5)
STARTUP = 60.0
"""Seconds that a run takes beside its tick: to check out, to install, to report."""
_RUN_ONCE = re.compile(r"\btick(?:\.cli)?\s+run-once\b")
_CURL = re.compile(r"\bcurl\s[^|;&\n]*(?:\"[^\"]*\"|'[^']*'|[^|;&\n])*")
_TARGET = re.compile(r"/tick\b|TICK_URL")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_VARIABLE = re.compile(r"(?<!\\)\$(?:\{([A-Z][A-Z0-9_]+)\}|([A-Z][A-Z0-9_]+))")
_ASSIGNED = re.compile(r"(?:^|[\s;(])(?:export\s+)?([A-Z][A-Z0-9_]+)=|\bread\s+(?:-\w+\s+)*([A-Z][A-Z0-9_]+)")
_GIVEN = re.compile(
    r"GITHUB_\w+|RUNNER_\w+|ACTIONS_\w+|CI|HOME|PATH|PWD|USER|SHELL|RANDOM|SECONDS|HOSTNAME|LANG|TMPDIR"
)
_TAKES_VALUE = set("AbCDdeEFHhKmoPQrtTuUwXxYyz")
_SECRET_IN_URL = re.compile(r"[?&](?:secret|token|key|password|cron_secret)=", re.IGNORECASE)
_BUDGET = re.compile(r"--budget[= ]+([\d.]+)")


class Step:
    """A script of a workflow that ticks.

    Attributes:
        script: its lines, those that go on joined.
        env: the variables that it is given.
        job: the job that it belongs to.
    """

    def __init__(self, path: str, root: Node, job: Node, step: Node) -> None:
        self.path, self.root, self.job, self.step = path, root, job, step
        self.script = re.sub(r"\\\n\s*", " ", step.text("run"))

    @cached_property
    def env(self) -> set[str]:
        """What `env` of the workflow, the job and the step set; and earlier steps through GITHUB_ENV."""
        tables = [node.get("env") for node in (self.root, self.job, self.step)]
        steps = (self.job.get("steps") or Node([], 0)).nodes()
        earlier = " ".join(step.text("run") for step in steps if "GITHUB_ENV" in step.text("run"))
        passed_on = set(re.findall(r"\b([A-Z][A-Z0-9_]+)=", earlier))
        return passed_on.union(*(dict(table.items()) for table in tables if table))

    @cached_property
    def calls(self) -> list[str]:
        """Its calls of curl that concern /tick."""
        return [call for call in _CURL.findall(self.script) if _TARGET.search(call)]

    @property
    def ticks(self) -> bool:
        return bool(_RUN_ONCE.search(self.script) or self.calls)

    def at(self, needle: str = "") -> str:
        """Where it is: the file, and the line that holds a text, or on which the step begins."""
        return f"{self.path}:{_line_of(self.step.get('run'), needle) or self.step.line}"


def _line_of(run: Node | None, needle: str) -> int | None:
    if run is None or not isinstance(run.value, str) or not needle:
        return run.line if run else None
    above = run.value.partition(needle)[0] if needle in run.value else ""
    return run.line + above.count("\n") + ("\n" in run.value)


def steps(project: Project) -> list[Step]:
    """The steps of all workflows that tick."""
    return [
        step
        for workflow in project.workflows
        if workflow.node
        for _, job in (workflow.node.get("jobs") or Node({}, 0)).items()
        for each in (job.get("steps") or Node([], 0)).nodes()
        if (step := Step(workflow.path, workflow.node, job, each)).ticks
    ]


def _roots(project: Project) -> dict[str, Node]:
    """The workflows that tick, by their paths."""
    return {step.path: step.root for step in steps(project)}


def _crons(root: Node) -> list[Node]:
    entries = root.get("on", "schedule")
    return [cron for each in (entries.nodes() if entries else ()) if (cron := each.get("cron"))]


def _scheduled(project: Project) -> Iterator[tuple[str, str, str]]:
    """Each expression of the workflows that tick: it, its file and line, and why it is refused, if it is."""
    for path, root in _roots(project).items():
        for cron in _crons(root):
            yield root_text(cron), f"{path}:{cron.line}", _refused(root_text(cron))


def root_text(node: Node) -> str:
    """The text of a node that is one."""
    return node.value if isinstance(node.value, str) else ""


def _refused(expression: str) -> str:
    """Why GitHub does not take an expression: it takes POSIX cron, with names."""
    if expression.startswith("@"):
        return "GitHub takes no macros"
    if len(expression.split()) != 5:
        return "GitHub takes five fields, and no seconds"
    if re.search(r"[?#]|\bL|\d[LW]", expression, re.IGNORECASE):
        return "GitHub takes no `L`, `W`, `#` and `?`"
    try:
        Cron.parse(expression)
    except CronError as error:
        return str(error)
    return ""


def can_be_read(project: Project) -> Iterator[Finding]:
    """Each workflow can be read."""
    for workflow in project.workflows:
        if workflow.problem:
            yield found("github-unreadable", workflow.path, workflow.problem, "compare it with docs/deploy.md by eye")


def crons(project: Project) -> Iterator[Finding]:
    """GitHub takes the expressions, and runs them."""
    better = 'write cron: "1-59/5 * * * *", every five minutes and off the full hour'
    for expression, where, refused in _scheduled(project):
        if refused:
            yield found("github-cron", where, f'"{expression}": {refused}', better)
            continue
        if (gap := vercel.shortest_gap(expression)) and gap < SHORTEST:
            yield found("github-too-often", where, f'"{expression}" fires every {gap.seconds // 60} min', better)
        start = datetime(2028, 1, 1, tzinfo=UTC)
        windows = Cron.parse(expression).windows(UTC, start, start + timedelta(days=32))
        if any(window.minute == 0 for window in windows):
            yield found("github-on-the-hour", where, f'"{expression}" fires at minute 0', better)


def schedule(project: Project) -> Iterator[Finding]:
    """What everybody should know who ticks by GitHub's schedule."""
    if paths := sorted({where.partition(":")[0] for _, where, _ in _scheduled(project)}):
        alone = not vercel.calls_tick(project)
        what = "GitHub ticks, and nothing else that is shown" if alone else "GitHub ticks, beside Vercel's cron"
        second = "add a second trigger: any mix is safe, and docs/deploy.md has several"
        fix = second if alone else "nothing, as long as the workflow is on the default branch"
        yield found("github-schedule", ", ".join(paths), what, fix)


def trigger(project: Project) -> Iterator[Finding]:
    """Something calls /tick."""
    if project.is_on_vercel and not vercel.calls_tick(project) and not any(map(_crons, _roots(project).values())):
        fix = 'add "crons": [{ "path": "/tick", "schedule": "* * * * *" }] to vercel.json; or keep the trigger you have'
        yield found("no-trigger", vercel.FILE, "no cron and no workflow of the project calls /tick", fix)


def calls(project: Project) -> Iterator[Finding]:
    """A curl fails when /tick does, follows no redirect, and shows no secret."""
    for step in steps(project):
        for call in step.calls:
            plain, where = _QUOTED.sub('""', call), step.at("curl")
            if not _has(plain, "f", "fail", "fail-with-body"):
                yield found("github-curl-fail", where, "curl ends well whatever /tick answers", "add --fail-with-body")
            if _has(plain, "L", "location"):
                yield found("github-curl-redirect", where, "curl follows redirects", "remove --location (-L)")
            if _SECRET_IN_URL.search(call):
                fix = 'send --header "Authorization: Bearer $CRON_SECRET" instead'
                yield found("secret-in-url", where, "the URL has a secret in it", fix)


def _has(call: str, short: str, *long: str) -> bool:
    """Whether a call of curl has an option; short ones may stand together, before one that takes a value."""
    words = call.split()
    if any(word == f"--{name}" for word in words for name in long):
        return True
    return any(short in _cluster(word) for word in words if re.match(r"-[A-Za-z#]", word))


def _cluster(word: str) -> str:
    letters = ""
    for letter in word[1:]:
        letters += letter
        if letter in _TAKES_VALUE:
            break
    return letters


def tokens(project: Project) -> Iterator[Finding]:
    """Who asks GitHub for a token may have one."""
    for step in steps(project):
        if "ACTIONS_ID_TOKEN_REQUEST" not in step.script:
            continue
        permissions = step.job.get("permissions") or step.root.get("permissions")
        if permissions is None or (permissions.value != "write-all" and permissions.text("id-token") != "write"):
            fix = "add permissions: id-token: write, to the workflow or to the job"
            where = step.at("ACTIONS_ID_TOKEN_REQUEST")
            yield found("github-oidc", where, "it asks for a token, and has no right to one", fix)


def timeouts(project: Project) -> Iterator[Finding]:
    """A run may take as long as its tick."""
    for step in steps(project):
        node = step.step.get("timeout-minutes") or step.job.get("timeout-minutes")
        minutes = root_text(node) if node else ""
        given = _BUDGET.search(step.script)
        budget = float(given[1]) if given else project.settings.budget or DEFAULT_BUDGET
        if node and re.fullmatch(r"[\d.]+", minutes) and float(minutes) * 60 < budget + GRACE + STARTUP:
            what = f"timeout-minutes is {minutes}, and a tick of {budget:g} s and what is around it needs more"
            fix = f"write timeout-minutes: {int((budget + GRACE + STARTUP) // 60 + 1)}"
            yield found("github-timeout", f"{step.path}:{node.line}", what, fix)


def variables(project: Project) -> Iterator[Finding]:
    """A script has every variable that it uses."""
    for step in steps(project):
        for name in _missing(step):
            fix = f"add env: {name}: ${{{{ secrets.{name} }}}} to the step; or vars.{name} if it is no secret"
            yield found("github-variable", step.at(f"${name}"), f"{name} is not set", fix)


def _missing(step: Step) -> list[str]:
    used = {braced or bare for braced, bare in _VARIABLE.findall(step.script)}
    given = step.env | {name for pair in _ASSIGNED.findall(step.script) for name in pair}
    if _RUN_ONCE.search(step.script) and not given & {"DATABASE_URL", "TICK_DATABASE_URL"}:
        used.add("DATABASE_URL")
    return sorted(name for name in used - given if not _GIVEN.fullmatch(name))


def cancelling(project: Project) -> Iterator[Finding]:
    """The next run waits for a tick to end."""
    seen = set()
    for step in steps(project):
        for node in (step.root, step.job):
            cancels = node.get("concurrency", "cancel-in-progress")
            if cancels and cancels.value == "true" and (where := f"{step.path}:{cancels.line}") not in seen:
                seen.add(where)
                what = "a run that begins kills the one before it"
                yield found("github-cancel", where, what, "write cancel-in-progress: false")


CHECKS = (can_be_read, crons, schedule, trigger, calls, tokens, timeouts, variables, cancelling)
