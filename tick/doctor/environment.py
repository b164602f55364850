"""The environment: secrets, proofs, where the database is, and settings that cannot be meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from tick import auth, keys, signing
from tick.config import Settings
from tick.database import normalise_url
from tick.doctor import vercel
from tick.doctor.findings import Finding, found
from tick.doctor.subject import Project, texts
from tick.errors import ConfigurationError

SHORTEST_SECRET, SHORTEST_PASSWORD = 16, 12
MOST_CONCURRENCY = 100
SECRET = "CRON_SECRET"  # noqa: S105 - a name
MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
_EXAMPLES = re.compile(
    r"(?:(?:my|your|a|the|change|super|some|cron|random|long|secret|text|me|this|here|example|test|dev"
    r"|password|token|value|foo|bar|abc|123|1234)[-_ .]*)+|x+|\*+|\.+|<.*>|\$\{.*\}|\$\(.*\)|openssl rand .*",
    re.IGNORECASE,
)
_VISIBLE = re.compile(r"[!-~]")
_PRINTABLE = re.compile(r"[ -~\t]")
_LETTERS = {"\n": "a line break", "\r": "a carriage return", " ": "a space", "\t": "a tab"}
_INNER = (".internal", ".local", ".lan", ".localdomain", ".svc")


def proofs(project: Project) -> Iterator[Finding]:
    """Somebody may call /tick."""
    if not auth.is_configured(project.settings):
        fix = f"set {SECRET} where tick is deployed, to what this prints: {MAKE_ONE}; or see docs/authentication.md"
        yield found("proof-missing", SECRET, "no secret is set here, nor another proof", fix)
    try:
        auth.check(project.settings)
    except ConfigurationError as error:
        yield found("proof-unusable", "TICK_INBOUND_SECRETS or TICK_OIDC", str(error), "correct it, or remove it")
    if gap := auth.qstash_gap(project.settings):
        yield found("qstash-url", "TICK_URL", gap, "set TICK_URL, such as https://example.com/tick")


def cron_secret(project: Project) -> Iterator[Finding]:
    """CRON_SECRET is one that nobody guesses."""
    for secret in project.settings.secrets:
        if _EXAMPLES.fullmatch(secret):
            yield found(
                "secret-example", SECRET, "it is one that a guide would show", f"set what this prints: {MAKE_ONE}"
            )
        elif len(secret) < SHORTEST_SECRET:
            what = f"it has {len(secret)} characters"
            yield found("secret-short", SECRET, what, f"set what this prints: {MAKE_ONE}")


def secrets(project: Project) -> Iterator[Finding]:
    """Secrets can be sent in a header."""
    for name, value, allowed in _secrets_of(project):
        if not value.strip():
            yield found("secret-empty", name, "it is set, and empty", "set it, or remove it")
        elif odd := _odd(value, allowed):
            fix = f'set it anew, without that; on Vercel: printf %s "$SECRET" | vercel env add {name} production'
            yield found("secret-spaces", name, odd, fix)


def _secrets_of(project: Project) -> Iterator[tuple[str, str, re.Pattern[str]]]:
    """The variables with secrets, and what each may hold: CRON_SECRET is sent by others, as it is."""
    names = (SECRET, "QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY")
    yield from ((name, project.env[name], _VISIBLE) for name in names if name in project.env)
    for prefix in ("TICK_SECRET_", "TICK_INBOUND_SECRETS"):
        yield from ((name, value.strip(), _PRINTABLE) for name, value in project.variables(prefix))


def _odd(value: str, allowed: re.Pattern[str]) -> str | None:
    """What is wrong with a secret, without showing it."""
    place = next((number for number, letter in enumerate(value) if not allowed.fullmatch(letter)), None)
    if place is None:
        return None
    kind = _LETTERS.get(value[place]) or ("a control character" if value[place].isascii() else "no ASCII character")
    at = "its end" if place >= len(value.rstrip()) else "its beginning" if place == 0 else f"its place {place + 1}"
    return f"there is {kind} at {at}"


def named_secrets(project: Project) -> Iterator[Finding]:
    """The secrets that are used are set."""
    for name, where in sorted(_used_secrets(project).items()):
        if name not in project.settings.named_secrets:
            variable = f"TICK_SECRET_{name.upper()}"
            yield found("secret-missing", where, f"it uses the secret {name}", f"set {variable} where tick is deployed")
    for secret in project.settings.named_secrets.get("webhook", ()):
        try:
            signing.check_secret(secret)
        except ConfigurationError as error:
            fix = 'set what this prints: echo "whsec_$(openssl rand -base64 32)"'
            yield found("webhook-secret", "TICK_SECRET_WEBHOOK", str(error), fix)


def _used_secrets(project: Project) -> dict[str, str]:
    """The names of secrets in the schedules file and in the alerts, and where each is."""
    used: dict[str, str] = {}
    for _, text in (*texts(project.document), *texts({"alerts": project.settings.alerts})):
        for name in re.findall(r"\$\{secret:([^}]+)\}", text) + re.findall(r"^secret:(\w+)$", text):
            path = project.schedules_path if text in (project.text(project.schedules_path) or "") else "pyproject.toml"
            used.setdefault(name.lower(), project.where(path, text))
    return used


def doors(project: Project) -> Iterator[Finding]:
    """The doors beside /tick can be used."""
    try:
        keys.check(project.settings)
    except ConfigurationError as error:
        yield found("api-keys", "TICK_API_KEYS or TICK_API_RATE", str(error), "correct it; `tick api-keys` makes keys")
    password = project.settings.dashboard_password
    if password and (_EXAMPLES.fullmatch(password) or len(password) < SHORTEST_PASSWORD):
        what = "it is one that a guide would show, or shorter than 12 characters"
        yield found("secret-example", "TICK_DASHBOARD_PASSWORD", what, f"set what this prints: {MAKE_ONE}")
    if not password:
        fix = f"set it to what this prints: {MAKE_ONE}; or make a key: tick api-keys create NAME --scope admin"
        yield found("dashboard-password", "TICK_DASHBOARD_PASSWORD", "it is not set", fix)


def tick_url(project: Project) -> Iterator[Finding]:
    """TICK_URL is the URL of /tick."""
    if not (url := project.settings.url):
        return
    parts = urlsplit(url)
    if parts.scheme != "https" and not _is_inner(parts.hostname or ""):
        yield found("tick-url", "TICK_URL", f"{parts.scheme}://{parts.hostname} is not https", "write https://")
    if not parts.path.rstrip("/").endswith(vercel.TICK):
        fix = f"write https://{parts.hostname}{vercel.TICK}, or the very URL that is called"
        yield found("tick-url", "TICK_URL", f"its path is {parts.path or 'empty'}, and not {vercel.TICK}", fix)


def alerts(project: Project) -> Iterator[Finding]:
    """Somebody is told, and can be."""
    where = project.where(project.schedules_path, "[alerts]")
    if not project.alerts:
        fix = 'add [alerts] with slack = "secret:slack", webhook or email to schedules.toml: docs/alerts.md'
        yield found("alerts-off", where, "there is no [alerts]", fix)
    given = {"TICK_SMTP_URL": project.settings.smtp_url, "TICK_MAIL_FROM": project.settings.mail_from}
    missing = [name for name, value in given.items() if not value]
    if project.alerts.get("email") and missing:
        fix = "set TICK_SMTP_URL=smtp://user:password@host:587 and TICK_MAIL_FROM=tick@example.com"
        yield found("alerts-mail", where, f"alerts go to an e-mail address; {' and '.join(missing)} not set", fix)


# The database's URL


def database_url(project: Project) -> Iterator[Finding]:
    """There is a database, of the kind that such a project should have."""
    if not project.settings.database_url:
        fix = "set DATABASE_URL where tick is deployed; here, to have the database examined"
        yield found("database-missing", "DATABASE_URL", "it is not set", fix)
        return
    host, port, options = _target(project.settings)
    if project.is_serverless:
        yield from _pooling(host, port)
    if options.get("sslmode") == ["disable"] and not _is_inner(host):
        what = f"sslmode=disable, and {host} is no address of a network of yours"
        yield found("database-no-tls", "DATABASE_URL", what, "write sslmode=require; or verify-full with sslrootcert")


def _target(settings: Settings) -> tuple[str, int, dict[str, list[str]]]:
    try:
        parts = urlsplit(normalise_url(settings.database_url or ""))
        return (parts.hostname or "").lower(), parts.port or 5432, parse_qs(parts.query)
    except ValueError:
        return "", 5432, {}


def _pooling(host: str, port: int) -> Iterator[Finding]:
    if host.endswith((".supabase.co", ".pooler.supabase.com")) and port == 5432:
        fix = "take the transaction pooler's URL from Supabase's page Connect: ...pooler.supabase.com:6543"
        yield found("database-session", "DATABASE_URL", f"{host}:{port} gives each client a connection of its own", fix)
    if host.endswith(".neon.tech") and "-pooler." not in host:
        first, _, rest = host.partition(".")
        yield found("database-direct", "DATABASE_URL", f"{host} is not the pooler", f"write {first}-pooler.{rest}")


def _is_inner(host: str) -> bool:
    """Whether a host is this machine, or one of a private network."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_INNER)


# How much at once


def sizes(project: Project) -> Iterator[Finding]:
    """The settings fit each other."""
    settings = project.settings
    if settings.budget and project.budget < settings.budget:
        what = f"the budget is {settings.budget:g} s, and the platform leaves {project.budget:g}"
        yield found("budget-unreachable", "TICK_BUDGET", what, "raise the platform's time limit, or lower the budget")
    if settings.batch_size < settings.concurrency:
        what = f"batch_size is {settings.batch_size}, and concurrency {settings.concurrency}"
        yield found("batch-small", "TICK_BATCH_SIZE", what, f"set it to {max(500, settings.concurrency)}")
    if settings.concurrency > MOST_CONCURRENCY:
        what = f"{settings.concurrency} jobs run at once"
        yield found(
            "concurrency-high", "TICK_CONCURRENCY", what, "10 to 50 is usual; plain functions take a thread each"
        )


CHECKS = (proofs, cron_secret, secrets, named_secrets, doors, tick_url, alerts, database_url, sizes)
