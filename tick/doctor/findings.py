"""What a check finds, and the table of everything that the doctor looks for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

ERROR, WARNING, NOTE = "error", "warning", "note"
LEVELS = (ERROR, WARNING, NOTE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or soon will be.

    Attributes:
        code: which of CHECKS found it.
        level: `error` for what does not work, `warning` for what will bite, `note` for what is good to know.
        what: what is so.
        where: the file and line, the variable, or the place in the database.
        why: why it hurts.
        fix: exactly what to do.
    """

    code: str
    level: str
    what: str
    where: str
    why: str
    fix: str

    def as_dict(self) -> dict[str, str]:
        """As JSON has it."""
        return asdict(self)


class Check(NamedTuple):
    """What is looked for: the level of what it finds, what that is in the guide's words, and why it hurts."""

    code: str
    level: str
    title: str
    why: str


def found(code: str, where: str, what: str, fix: str) -> Finding:
    """A finding of a check, with what CHECKS says of it; on one line each, without what a terminal would obey."""
    check = CHECKS[code]
    return Finding(code, check.level, _line(what), _line(where), check.why, _line(fix))


def _line(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def table(checks: tuple[Check, ...]) -> str:
    """The guide's table of some checks, in Markdown."""
    rows = [f"| `{check.code}` | {check.level} | {check.title} |" for check in checks]
    return "\n".join(["| code | level | what it finds |", "| --- | --- | --- |", *rows])


VERCEL = (
    Check("vercel-unreadable", ERROR, "vercel.json is not a JSON object", "Vercel refuses the deployment."),
    Check(
        "vercel-cron-shape",
        ERROR,
        "an entry of `crons` that is more or less than a `path` and a `schedule`",
        "Vercel refuses the deployment.",
    ),
    Check(
        "vercel-cron-syntax",
        ERROR,
        "an expression that Vercel does not take: names, macros, seconds, `L`, `W`, `#`, `?`, or both day fields",
        "Vercel takes five numeric fields alone; some others pass the build, and the cron never comes.",
    ),
    Check(
        "vercel-hobby",
        NOTE,
        "a cron more often than once a day, or more than 300 seconds",
        "On the Hobby plan the deployment fails; the Pro plan takes it.",
    ),
    Check(
        "vercel-path",
        WARNING,
        "the path of a cron that looks like `/tick` and is another",
        "The call gets a 404 that nobody sees, and nothing ticks.",
    ),
    Check(
        "vercel-redirect",
        ERROR,
        "`trailingSlash`, `redirects` or `routes` that redirect the cron's path",
        "Vercel's cron does not follow redirects and takes them for an end: nothing ticks, and no log says so.",
    ),
    Check(
        "vercel-middleware",
        NOTE,
        "a middleware that does not name `/tick`",
        "Middleware runs before the function; one that asks for a login turns the cron away.",
    ),
    Check("vercel-crons-many", ERROR, "more than 100 crons", "100 a project is the most that Vercel takes."),
    Check(
        "vercel-cron-twice",
        NOTE,
        "more than one cron for `/tick`",
        "Windows are made once all the same, but each tick costs an invocation.",
    ),
    Check(
        "vercel-builds",
        ERROR,
        "`builds` and `functions` together",
        "Vercel refuses the deployment: the two exclude each other.",
    ),
    Check(
        "vercel-schedules",
        NOTE,
        "`schedules`, which is a beta",
        "Its form still changes from one version of Vercel's tools to the next; `crons` does not.",
    ),
    Check(
        "vercel-nested",
        NOTE,
        "crons in a vercel.json of another folder",
        "Vercel reads the one in the project's Root Directory, and no other.",
    ),
    Check(
        "vercel-function",
        ERROR,
        "a key of `functions` that matches no file",
        "Vercel refuses the deployment, or its settings are nobody's.",
    ),
    Check(
        "vercel-duration",
        WARNING,
        "`maxDuration` below the budget and the 8 seconds that a tick leaves",
        "Ticks are shorter than the budget says, and jobs that need all of it never fit.",
    ),
    Check(
        "vercel-duration-missing",
        NOTE,
        "no `maxDuration` for the entrypoint",
        "How long a tick may take is then the plan's default, which a change of plan or setting moves.",
    ),
    Check(
        "vercel-duration-invalid",
        ERROR,
        'a `maxDuration` that is neither a whole number from 1 to 3600 nor `"max"`',
        "Vercel refuses the deployment.",
    ),
    Check(
        "vercel-excludes",
        ERROR,
        "the schedules file, migrations, a module with handlers or the entrypoint left out of the bundle by"
        " `excludeFiles`, .vercelignore or a folder `public`",
        "The deployment works without it: schedules are gone, or nothing starts.",
    ),
    Check(
        "vercel-python",
        ERROR,
        "`requires-python` or .python-version without 3.12, 3.13 and 3.14",
        "These are the versions that Vercel has.",
    ),
    Check(
        "vercel-dependencies",
        ERROR,
        "no pyproject.toml with dependencies, requirements.txt or Pipfile",
        "Vercel installs nothing, so that the function cannot import tick.",
    ),
    Check(
        "vercel-entrypoint",
        ERROR,
        "no entrypoint, or one that does not resolve to a name in a file of the project",
        "Vercel does not know what to serve.",
    ),
    Check(
        "no-trigger",
        WARNING,
        "a project for Vercel in which nothing calls `/tick`: no cron, no workflow",
        "Nothing ticks, unless something outside of the project does.",
    ),
    Check(
        "secret-in-url",
        WARNING,
        "a secret in the URL that a cron or workflow calls",
        "URLs are logged everywhere, and tick does not read it: the call gets a 401.",
    ),
)

GITHUB = (
    Check(
        "github-unreadable",
        NOTE,
        "a workflow that the doctor cannot read",
        "What is wrong with it is not found here.",
    ),
    Check(
        "github-cron",
        ERROR,
        "an expression that GitHub does not take",
        "GitHub refuses the workflow, or never runs it.",
    ),
    Check(
        "github-too-often",
        WARNING,
        "a schedule below five minutes",
        "GitHub runs it every five minutes at best, and some such schedules never.",
    ),
    Check(
        "github-on-the-hour",
        NOTE,
        "a schedule that fires at minute 0",
        "At full hours GitHub is busiest: runs are late or dropped.",
    ),
    Check(
        "github-schedule",
        NOTE,
        "a workflow on a schedule that ticks",
        "GitHub runs schedules of the default branch alone, late under load, and in a public repository stops them"
        " after 60 days without a commit.",
    ),
    Check(
        "github-curl-fail",
        WARNING,
        "curl without `--fail`",
        "A 401 or 503 leaves the run green, so that nobody learns that nothing ticks.",
    ),
    Check(
        "github-curl-redirect",
        WARNING,
        "curl with `--location`",
        "A redirect turns POST into GET and loses the Authorization on another host; /tick itself never redirects.",
    ),
    Check(
        "github-oidc",
        ERROR,
        "a step that asks for a token without `id-token: write`",
        "GitHub gives the step no token, nor the variables with which to ask.",
    ),
    Check(
        "github-timeout",
        WARNING,
        "`timeout-minutes` below the budget",
        "GitHub kills the run in the middle of its jobs, which are then run again.",
    ),
    Check(
        "github-variable",
        ERROR,
        "a variable of the script that no `env` sets",
        "It is empty there: secrets reach a step only through `env`.",
    ),
    Check(
        "github-cancel",
        WARNING,
        "`cancel-in-progress: true`",
        "The next run kills a tick in the middle of its jobs, which are then run again.",
    ),
)

PROJECT = (
    Check(
        "dependency-missing",
        WARNING,
        "dependencies without tick-jobs",
        "Where the project is installed from them, there is no tick.",
    ),
    Check("settings-unusable", ERROR, "settings that cannot be read", "Every command and every tick refuses to start."),
    Check(
        "module-broken",
        ERROR,
        "a module of handlers that is missing, or fails when it is imported",
        "Ticks answer 500, and no job of its types is run.",
    ),
    Check("modules-none", WARNING, "no modules with handlers", "Jobs of your own types are never run."),
    Check(
        "handlers-unusable",
        ERROR,
        "a handler whose signature or time-out cannot work",
        "Ticks answer 500 until it is mended.",
    ),
    Check(
        "schedules-unreadable",
        ERROR,
        "a schedules file with problems, alerts that reach nobody among them",
        "Ticks answer 500, and make none of its windows.",
    ),
    Check(
        "schedule-unrunnable",
        ERROR,
        "a schedule without a handler, with a payload that does not fit it, or with too long a time-out",
        "Ticks refuse the whole file, and make none of its windows.",
    ),
    Check("limit-unknown", WARNING, "a limit for a type without a handler", "It limits nothing; it may be misspelt."),
    Check(
        "schedule-surprise",
        WARNING,
        "an expression that means something else than it seems: both day fields, uneven steps, many seconds",
        "It fires more or less often than its author thinks.",
    ),
    Check(
        "schedule-gap",
        NOTE,
        "a time that a zone skips within a year",
        "On that day the local time does not exist: it fires at the end of the gap.",
    ),
    Check(
        "schedule-fold",
        NOTE,
        "a time that a zone repeats within a year",
        "On that day the local time comes twice: it fires the first time only.",
    ),
    Check(
        "secret-in-file",
        WARNING,
        "what looks like a secret, in the schedules file or in `[tool.tick]`",
        "Whoever can read the repository has it, and so has everybody who sees the payload.",
    ),
)

ENVIRONMENT = (
    Check("proof-missing", WARNING, "no proof configured for /tick", "/tick answers 503 to everybody."),
    Check("proof-unusable", ERROR, "a proof that can never work", "Every call of /tick answers 500."),
    Check("secret-short", WARNING, "a CRON_SECRET below 16 characters", "It can be guessed."),
    Check(
        "secret-spaces",
        ERROR,
        "a secret with a space, a line break or a character that is not ASCII",
        "A header cannot carry it: Vercel's build fails, callers get a 401, calls fail.",
    ),
    Check("secret-example", ERROR, "a CRON_SECRET or dashboard password out of a guide", "Everybody knows it."),
    Check("secret-empty", WARNING, "a secret that is set and empty", "It counts as not set."),
    Check(
        "secret-missing",
        WARNING,
        "a named secret that the schedules file or the alerts use, and that is not set",
        "The jobs that need it die; messages are not sent.",
    ),
    Check(
        "webhook-secret",
        ERROR,
        "a TICK_SECRET_WEBHOOK that cannot sign",
        "Callbacks are not sent: each of them fails.",
    ),
    Check(
        "qstash-url",
        WARNING,
        "QStash's keys without TICK_URL",
        "Its signatures name the URL that it calls, so that nothing proves them: QStash gets a 401.",
    ),
    Check(
        "tick-url",
        WARNING,
        "a TICK_URL that is not https, or does not end in /tick",
        "Secrets go over the wire in the clear, or signatures and links name another place.",
    ),
    Check("api-keys", ERROR, "TICK_API_KEYS or TICK_API_RATE that cannot be used", "Every call of /jobs answers 500."),
    Check(
        "dashboard-password",
        NOTE,
        "no TICK_DASHBOARD_PASSWORD",
        "The dashboard lets in only who has an API key with the scope admin.",
    ),
    Check("alerts-off", NOTE, "no alerts configured", "When a job dies or ticks stop, nobody is told."),
    Check(
        "alerts-mail",
        ERROR,
        "alerts by e-mail without TICK_SMTP_URL or TICK_MAIL_FROM",
        "The messages cannot be sent.",
    ),
    Check(
        "database-missing",
        WARNING,
        "no DATABASE_URL",
        "Commands use the embedded Postgres; a deployment has none, and answers 503.",
    ),
    Check(
        "database-session",
        WARNING,
        "a session pooler or direct connection of Supabase in a serverless project",
        "Each invocation holds a connection of few; when they are used up, ticks answer 503.",
    ),
    Check(
        "database-direct",
        NOTE,
        "Neon without its pooler in a serverless project",
        "Each invocation holds a connection of the server; its pooler has room for thousands.",
    ),
    Check(
        "database-no-tls",
        WARNING,
        "sslmode=disable to a public host",
        "The password and every payload go over the internet in the clear.",
    ),
    Check(
        "budget-unreachable",
        NOTE,
        "a budget above what the platform leaves",
        "Ticks end earlier, and jobs whose time-out needs the budget never fit.",
    ),
    Check(
        "batch-small",
        WARNING,
        "a batch smaller than the concurrency",
        "A tick claims fewer jobs at a time than it could run.",
    ),
    Check(
        "concurrency-high",
        NOTE,
        "a concurrency above 100",
        "So many handlers share one process: its memory, its connections, and what they call.",
    ),
)

DATABASE = (
    Check("database-unusable", ERROR, "a DATABASE_URL that cannot be read", "Nothing works without a database."),
    Check("database-unreachable", ERROR, "a database that does not answer", "Nothing works without a database."),
    Check(
        "pooler-statement",
        ERROR,
        "a pooler in statement mode",
        "It takes no transactions, and every change that tick makes is one.",
    ),
    Check("postgres-old", ERROR, "a Postgres before 14", "The migrations need 14."),
    Check("database-encoding", ERROR, "a database that is not in UTF-8", "Some payloads and errors cannot be stored."),
    Check("read-only", ERROR, "a replica, or a database that is read-only", "No tick can claim or settle anything."),
    Check(
        "isolation",
        WARNING,
        "a default isolation other than read committed",
        "Ticks that overlap fail with serialization errors, and run their jobs again.",
    ),
    Check(
        "statement-timeout",
        WARNING,
        "a statement_timeout below five seconds",
        "A claim or a settle that has to wait is cancelled, and the tick fails.",
    ),
    Check(
        "idle-session-timeout",
        WARNING,
        "an idle_session_timeout below the budget",
        "The server ends a tick's connection while its handlers run.",
    ),
    Check(
        "not-durable",
        WARNING,
        "fsync or synchronous_commit switched off",
        "A crash loses jobs that were acknowledged, and outcomes, so that jobs run again.",
    ),
    Check(
        "triggers-off",
        ERROR,
        "session_replication_role other than origin",
        "Triggers do not fire: keys are not kept in order, callbacks and chains do not follow.",
    ),
    Check(
        "autovacuum-off",
        WARNING,
        "autovacuum switched off, for the server or for a table",
        "Dead rows pile up before the live ones, and a claim reads all of them.",
    ),
    Check(
        "connections",
        WARNING,
        "nearly all connections in use",
        "The next ticks get none, and answer 503.",
    ),
    Check(
        "clock-skew",
        WARNING,
        "a clock here that is more than five seconds off the database's",
        "Signatures and tokens are judged by this one: they are refused, or good for too long.",
    ),
    Check(
        "clock-replaced",
        ERROR,
        "`tick.now()` replaced, as tests do",
        "Everything that is due, late or expired is so by that function.",
    ),
    Check(
        "sessions-hidden",
        NOTE,
        "a role that does not see other sessions",
        "What holds back vacuum, or holds a lock, is not found.",
    ),
    Check(
        "vacuum-held",
        WARNING,
        "a transaction that is older than five minutes and holds back vacuum",
        "No dead row can be removed since it began: a claim reads all of them, and becomes slower by the hour.",
    ),
    Check(
        "vacuum-held-by-slot",
        WARNING,
        "a replication slot that nobody reads",
        "It keeps the write-ahead log until the disk is full, and may hold back vacuum.",
    ),
    Check(
        "vacuum-held-by-prepared",
        WARNING,
        "a prepared transaction that is older than five minutes",
        "It holds its locks and holds back vacuum until somebody ends it, through restarts too.",
    ),
    Check(
        "locks-held",
        WARNING,
        "a session that is idle in a transaction, with locks on tick's tables, for over a minute",
        "What it has enqueued is not seen, keys and migrations wait for it.",
    ),
    Check(
        "wraparound",
        ERROR,
        "transaction ids that are about to run out",
        "At two billion the database takes no more writes.",
    ),
    Check("rights", ERROR, "a role that lacks a right on tick's tables", "Ticks fail where they need it."),
    Check("not-migrated", ERROR, "migrations that have not been applied", "/tick answers 503."),
    Check(
        "migrations-changed",
        ERROR,
        "a migration that is not the one that was applied",
        "What the tables are is not what this version thinks, and no migration will be applied.",
    ),
    Check(
        "schema-drift",
        ERROR,
        "a column, constraint, index, trigger, view or function of the migrations that is missing or different",
        "What tick relies on is not there: claims read whole tables, or what must be impossible happens.",
    ),
    Check(
        "schema-uncompared",
        NOTE,
        "a role or server that does not let a schema be created, even to be rolled back",
        "What the migrations make could not be compared with what is there.",
    ),
    Check("index-invalid", ERROR, "an invalid index", "It costs every write, is used by no read, and guards nothing."),
    Check(
        "trigger-disabled",
        ERROR,
        "a disabled trigger",
        "Keys are not kept in order, or callbacks and chains do not follow.",
    ),
    Check(
        "dead-rows",
        WARNING,
        "more dead rows than vacuum should leave",
        "A claim reads them all before it finds a job.",
    ),
    Check(
        "table-bloat",
        WARNING,
        "a table that is many times as large as its rows",
        "Reading and vacuuming it costs what its size costs.",
    ),
    Check(
        "never-analyzed",
        WARNING,
        "a large table without statistics",
        "The planner guesses, and a guess that is wrong reads whole tables.",
    ),
    Check(
        "pg-net-timeout",
        WARNING,
        "a job of pg_cron that calls /tick and waits for it, without a time limit of its own",
        "pg_net gives up after five seconds, and other requests of the project wait for it until then.",
    ),
)

QUEUE = (
    Check("never-ticked", ERROR, "no tick since tick was set up", "No job is run."),
    Check("ticks-stopped", ERROR, "no tick for three of their intervals", "No job is run."),
    Check(
        "trigger-stopped",
        WARNING,
        "one of several triggers has stopped",
        "The others carry on, until one of them stops too.",
    ),
    Check("ticks-late", WARNING, "a trigger that comes over five minutes late", "So late is everything that is due."),
    Check(
        "ticks-killed",
        WARNING,
        "ticks that never ended",
        "Their process was killed in the middle of its jobs, which wait for their lease and run again.",
    ),
    Check(
        "ticks-failing", ERROR, "a last tick that ended in an error", "What it could not do, the next cannot either."
    ),
    Check("falling-behind", WARNING, "jobs that have been due for long", "More comes in than ticks run."),
    Check("dead-jobs", WARNING, "dead jobs", "What they were to do has not been done."),
    Check(
        "types-unhandled",
        WARNING,
        "due jobs whose type has no handler here",
        "They wait until a deployment has one.",
    ),
    Check(
        "jobs-too-long",
        WARNING,
        "due jobs whose time-out is longer than the budget",
        "They start only where a tick begins, and are cut short when it ends.",
    ),
    Check(
        "leases-expired",
        WARNING,
        "leases that ran out and were not reclaimed",
        "Their jobs are neither running nor to be claimed until a tick takes them back.",
    ),
    Check(
        "stale-outcomes",
        WARNING,
        "outcomes that came after the lease",
        "The job outlived its tick, was run again, and what it said at last was not taken.",
    ),
    Check("prune-stopped", WARNING, "pruning that has not been done for a day", "The tables only grow."),
)

LOAD = (
    Check(
        "schedule-overlaps",
        WARNING,
        "a schedule whose jobs take longer than its interval",
        "Each one begins before the last has ended; what they do overlaps, and more and more of them wait.",
    ),
    Check(
        "overlap-skips",
        WARNING,
        "many windows skipped for overlap",
        "It runs less often than its rule says.",
    ),
    Check(
        "herd",
        WARNING,
        "more windows at once in the next 24 hours than a budget can run",
        "The tick of that minute leaves jobs to the next ones, and all of them are late.",
    ),
    Check(
        "schedule-too-fine",
        WARNING,
        "a schedule more often than ticks come",
        'Of the windows between two ticks only the latest is made, unless catch_up is "all".',
    ),
    Check(
        "catch-up-lost",
        WARNING,
        '`catch_up = "none"` with ticks more than ten minutes apart',
        "A window that is ten minutes old is not made: most of them are lost.",
    ),
    Check("schedule-paused", NOTE, "a schedule paused for over a week", "It makes no windows; it may be forgotten."),
)

DOCTOR = (
    Check(
        "check-failed",
        WARNING,
        "a check that failed itself",
        "What it looks for was not looked for.",
    ),
)

AREAS = {
    "vercel.json": VERCEL,
    "Workflows of GitHub": GITHUB,
    "The project": PROJECT,
    "The environment": ENVIRONMENT,
    "The database": DATABASE,
    "The queue": QUEUE,
    "Schedules and history": LOAD,
    "The doctor": DOCTOR,
}
"""Every check, by what it looks at: the headings of the guide."""
CHECKS = {check.code: check for checks in AREAS.values() for check in checks}
