"""Settings: read once, from the environment and `[tool.tick]` of pyproject.toml, checked, then frozen."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigurationError

DEFAULT_BUDGET = 50.0
GRACE = 2.0
"""Seconds past the budget by which a tick has returned, whatever its handlers do."""
LONGEST_BUDGET = 6 * 3600.0

HEARTBEATS = ("url", "start", "ok", "fail")

_NAMED = "TICK_SECRET_"
_TARGET = (
    r"(?P<range>[0-9a-f.:]+/[0-9]+|[0-9a-f]*:[0-9a-f.]*:[0-9a-f.:]*)"
    r"|(?P<host>\[[0-9a-f.:]+\]|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::(?P<port>[0-9]{1,5}))?"
)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_PROJECT_KEYS = (
    "alerts",
    "api_rate",
    "batch_size",
    "budget",
    "concurrency",
    "heartbeat",
    "http_allow",
    "log",
    "mail_from",
    "modules",
    "oidc",
    "retention",
    "schedules",
    "schema",
    "url",
)
_URL = re.compile(r"https?://[!-~]+")
_GITHUB = "https://token.actions.githubusercontent.com"
_QSTASH_KEYS = ("QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY")
_IDENTITIES = {_GITHUB: ("repository_id", "repository_owner_id"), "https://accounts.google.com": ("email", "sub")}
"""Issuers that give anybody a token for any audience, and the claims of which one must say whose token it is."""


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An OpenID Connect issuer whose tokens may tick, and what such a token must say.

    Attributes:
        issuer: its URL, exactly as `iss` has it.
        audience: whom a token must be for: the only value of `aud`.
        claims: further claims, and the values that each of them may have.
    """

    issuer: str
    audience: str
    claims: Mapping[str, tuple[str, ...]] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process ticks.

    Attributes:
        database_url: where Postgres is; None means the embedded one.
        root: the project's folder: where pyproject.toml or schedules.toml is.
        schedules_path: the schedules file; it may be absent, unless
        schedules_named: a setting names it.
        modules: what to import so that handlers register.
        budget: seconds a tick may take; None means what the platform allows, else 50.
        concurrency: jobs that run at once in a tick.
        batch_size: jobs claimed in one exchange, at most.
        schema: the Postgres schema of tick's tables.
        secrets: what a caller of /tick may present as a bearer.
        inbound_secrets: with what a caller of /tick may have signed its request, after Standard Webhooks.
        qstash_keys: with what QStash signs, the current key and the next.
        url: the public URL of /tick, which QStash's signatures name.
        oidc: whose tokens a caller of /tick may present.
        http_allow: what jobs may call beyond ports 80 and 443 of public addresses; `parse_target` reads one.
        api_keys: name:scopes:key of callers of /jobs; `tick.keys` reads them.
        api_rate: how many calls of /jobs each key may make, such as "600/minute".
        dashboard_password: with what a person gets into the dashboard, beside an API key of the scope admin.
        alerts: [tool.tick.alerts] as it is written; `[alerts]` of the schedules file goes before it.
        retention: [tool.tick.retention], likewise.
        smtp_url: through which server alerts are mailed: smtp://user:password@host:587, or smtps://.
        mail_from: who they are from.
        heartbeat: URLs to call when a tick starts, has ended well, or has failed: by `start`, `ok`, `fail` and `url`.
        log: how the log is written: json, text, or auto, which is json when it is not read on a terminal.
        named_secrets: TICK_SECRET_<NAME>, by the name in lower case: for headers and signatures of outgoing calls.
    """

    database_url: str | None = None
    root: Path = field(default_factory=Path.cwd)
    schedules_path: Path = Path("schedules.toml")
    schedules_named: bool = False
    modules: tuple[str, ...] = ()
    budget: float | None = None
    concurrency: int = 10
    batch_size: int = 500
    schema: str = "tick"
    secrets: tuple[str, ...] = field(default=(), repr=False)
    inbound_secrets: tuple[str, ...] = field(default=(), repr=False)
    qstash_keys: tuple[str, ...] = field(default=(), repr=False)
    url: str | None = None
    oidc: tuple[TrustedIssuer, ...] = ()
    http_allow: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    api_rate: str = "600/minute"
    dashboard_password: str | None = field(default=None, repr=False)
    alerts: Mapping[str, Any] = field(default_factory=dict, hash=False)
    retention: Mapping[str, Any] = field(default_factory=dict, hash=False)
    smtp_url: str | None = field(default=None, repr=False)
    mail_from: str | None = None
    heartbeat: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    log: str = "auto"
    named_secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, hash=False)

    @classmethod
    def load(cls, env: Mapping[str, str] | None = None, *, start: Path | None = None) -> Settings:
        """Read the settings; every problem is reported in one ConfigurationError."""
        env = os.environ if env is None else env
        root = find_root(start or Path.cwd())
        reader = _Reader(env, _project_table(root))
        settings = cls(
            database_url=(env.get("TICK_DATABASE_URL") or env.get("DATABASE_URL") or "").strip() or None,
            root=root,
            schedules_path=root / reader.text("schedules", "schedules.toml"),
            schedules_named=bool(reader.text("schedules", "")),
            modules=reader.names("modules"),
            budget=reader.seconds("budget", LONGEST_BUDGET),
            concurrency=reader.count("concurrency", 10, 1000),
            batch_size=reader.count("batch_size", 500, 10_000),
            schema=reader.text("schema", "tick"),
            secrets=_secrets(env.get("CRON_SECRET", "")),
            inbound_secrets=_secrets(env.get("TICK_INBOUND_SECRETS", "")),
            qstash_keys=tuple(key for name in _QSTASH_KEYS if (key := env.get(name, "").strip())),
            url=reader.url("url"),
            oidc=reader.issuers("oidc"),
            http_allow=reader.targets("http_allow"),
            api_keys=_secrets(env.get("TICK_API_KEYS", "")),
            api_rate=reader.text("api_rate", "600/minute"),
            dashboard_password=env.get("TICK_DASHBOARD_PASSWORD", "").strip() or None,
            alerts=reader.table("alerts"),
            retention=reader.table("retention"),
            smtp_url=env.get("TICK_SMTP_URL", "").strip() or None,
            mail_from=reader.text("mail_from", "") or None,
            heartbeat=reader.heartbeat(),
            log=reader.choice("log", "auto", ("auto", "json", "text")),
            named_secrets=_named_secrets(env),
        )
        if not _SCHEMA.fullmatch(settings.schema):
            reader.problems.append(f"  schema (TICK_SCHEMA): {settings.schema!r} is not a plain lower-case SQL name")
        if reader.problems:
            raise ConfigurationError("\n".join(["the settings have problems:", *reader.problems]))
        return settings


def find_root(start: Path) -> Path:
    """The nearest folder, from `start` upwards, that holds a pyproject.toml or a schedules.toml; else `start`."""
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").exists() or (folder / "schedules.toml").exists():
            return folder
    return start


def _project_table(root: Path) -> dict[str, Any]:
    path = root / "pyproject.toml"
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    if "tick" not in text:
        return {}
    import tomllib

    try:
        table = tomllib.loads(text).get("tool", {}).get("tick", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: tool.tick is {table!r}, and not a table: write [tool.tick]")
    unknown = sorted(set(table) - set(_PROJECT_KEYS))
    if unknown:
        raise ConfigurationError(
            f"{path}: [tool.tick] has unknown keys: {', '.join(unknown)}; it takes {', '.join(_PROJECT_KEYS)}"
        )
    return dict(table)


def _secrets(text: str) -> tuple[str, ...]:
    """Comma-separated, so that a new secret can be added before the old one is taken away."""
    return tuple(secret for part in text.split(",") if (secret := part.strip()))


def _named_secrets(env: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    named = {name: _secrets(value) for name, value in env.items() if name.startswith(_NAMED)}
    return {name.removeprefix(_NAMED).lower(): secrets for name, secrets in named.items() if secrets}


class _Reader:
    """Reads one setting at a time: TICK_<NAME> of the environment, else the project's key, else the default."""

    def __init__(self, env: Mapping[str, str], project: dict[str, Any]) -> None:
        self.env = env
        self.project = project
        self.problems: list[str] = []

    def _raw(self, name: str) -> Any:
        return self.env.get(f"TICK_{name.upper()}") or self.project.get(name)

    def text(self, name: str, default: str) -> str:
        return str(self._raw(name) or default)

    def names(self, name: str) -> tuple[str, ...]:
        raw = self._raw(name) or ()
        if isinstance(raw, str):
            raw = [part.strip() for part in raw.split(",")]
        if not isinstance(raw, list | tuple) or not all(isinstance(part, str) for part in raw):
            self.problems.append(f"  {name} (TICK_{name.upper()}): {raw!r} is not a list of names")
            return ()
        return tuple(part for part in raw if part)

    def targets(self, name: str) -> tuple[str, ...]:
        targets = self.names(name)
        for target in targets:
            try:
                parse_target(target)
            except ValueError as error:
                self.problems.append(f"  {name} (TICK_{name.upper()}): {error}")
        return targets

    def table(self, name: str) -> Mapping[str, Any]:
        raw = self.project.get(name, {})
        if isinstance(raw, dict):
            return raw
        self.problems.append(f"  {name}: {raw!r} is not a table: write [tool.tick.{name}]")
        return {}

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        text = self.text(name, default)
        if text not in choices:
            self.problems.append(f"  {name} (TICK_{name.upper()}): {text!r} is not one of {', '.join(choices)}")
        return text

    def heartbeat(self) -> Mapping[str, str]:
        """TICK_HEARTBEAT for one URL, TICK_HEARTBEAT_START, _OK, _FAIL for each; or a text or table of the project."""
        own = self.project.get("heartbeat", {})
        given = {"url": own} if isinstance(own, str) else dict(own) if isinstance(own, dict) else {"": own}
        for name in HEARTBEATS:
            if text := self.env.get(
                "TICK_HEARTBEAT" if name == "url" else f"TICK_HEARTBEAT_{name.upper()}", ""
            ).strip():
                given[name] = text
        for name, url in given.items():
            if name not in HEARTBEATS or not isinstance(url, str) or not _URL.fullmatch(url):
                known = ", ".join(HEARTBEATS)
                self.problems.append(f"  heartbeat (TICK_HEARTBEAT): {name} = {url!r} is no URL under one of {known}")
        return given

    def count(self, name: str, default: int, most: int) -> int:
        raw = self._raw(name)
        if raw is None:
            return default
        if re.fullmatch(r"\d{1,9}", str(raw)) and 1 <= int(raw) <= most:
            return int(raw)
        self.problems.append(f"  {name} (TICK_{name.upper()}): {raw!r} is not a number from 1 to {most}")
        return default

    def seconds(self, name: str, most: float) -> float | None:
        raw = self._raw(name)
        if raw is None:
            return None
        try:
            return check_budget(float(raw), most)
        except (ValueError, TypeError):
            self.problems.append(
                f"  {name} (TICK_{name.upper()}): {raw!r} is not a number of seconds from 1 to {most:.0f}"
            )
            return None

    def url(self, name: str) -> str | None:
        raw = self._raw(name)
        if raw is not None and not _URL.fullmatch(str(raw)):
            self.problems.append(f"  {name} (TICK_{name.upper()}): {raw!r} is no URL such as https://example.com/tick")
        return None if raw is None else str(raw)

    def issuers(self, name: str) -> tuple[TrustedIssuer, ...]:
        issuers = []
        for number, table in enumerate(self._tables(name), 1):
            try:
                issuers.append(_trusted_issuer(table))
            except ValueError as error:
                self.problems.append(f"  {name} (TICK_{name.upper()}), table {number}: {error}")
        return tuple(issuers)

    def _tables(self, name: str) -> list[Any]:
        raw = self._raw(name) or []
        try:
            tables = json.loads(raw) if isinstance(raw, str) else raw
        except (ValueError, RecursionError) as error:
            self.problems.append(f"  {name} (TICK_{name.upper()}): it is not JSON: {error}")
            return []
        return tables if isinstance(tables, list) else [tables]


def _trusted_issuer(table: Any) -> TrustedIssuer:
    """One table of [[tool.tick.oidc]]. Raises ValueError for what nobody, or anybody, could satisfy."""
    if not isinstance(table, dict) or set(table) != {"issuer", "audience", "claims"}:
        raise ValueError("it takes issuer, audience and claims, all three of them and nothing else")
    issuer, audience, claims = table["issuer"], table["audience"], table["claims"]
    if not isinstance(issuer, str) or not is_safe_url(issuer) or set(issuer) & {"?", "#"}:
        raise ValueError(f"issuer: {issuer!r} is not a URL such as {_GITHUB}")
    if not isinstance(audience, str) or not audience.strip():
        raise ValueError(f"audience: {audience!r} is not a text such as the URL of /tick")
    if not isinstance(claims, dict) or not claims:
        raise ValueError('claims: pin at least one, such as { repository_id = "123" }: any token would do otherwise')
    _check_identity(issuer, claims)
    return TrustedIssuer(issuer, audience, {name: _texts(name, value) for name, value in claims.items()})


def _check_identity(issuer: str, claims: Mapping[str, Any]) -> None:
    if issuer.startswith(_GITHUB) and "sub" in claims:
        raise ValueError("claims.sub: GitHub is changing how it writes sub; pin repository_id, ref and event_name")
    identities = _IDENTITIES.get(issuer)
    if identities and not claims.keys() & set(identities):
        raise ValueError(f"claims: pin {' or '.join(identities)}: anybody gets tokens there, for any audience")


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"claims.{name}: {value!r} is not a text or a list of texts")
    return tuple(texts)


def is_safe_url(url: str) -> bool:
    """Whether what is read there cannot be changed on the way: https, or http to this very machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    is_local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    return bool(_URL.fullmatch(url) and parts.hostname) and (parts.scheme == "https" or is_local)


def parse_target(text: str) -> tuple[str, int | None]:
    """A target of `http_allow`: a host, *.suffix or range of addresses, and its port, or None for all of them.

    An address is the range that holds it alone.

    >>> [parse_target(text) for text in ("API.internal:8080", "*.internal", "127.0.0.1:80", "10.0.0.0/8", "[::1]:80")]
    [('api.internal', 8080), ('*.internal', None), ('127.0.0.1/32', 80), ('10.0.0.0/8', None), ('::1/128', 80)]

    Raises ValueError, with what a target looks like.
    """
    from ipaddress import ip_address, ip_network

    match = re.fullmatch(_TARGET, text.lower())
    if match is None or not 1 <= int(match["port"] or 1) <= 65_535:
        raise ValueError(f"{text!r} is not a host, host:port, *.suffix, address or range such as 10.0.0.0/8")
    port = int(match["port"]) if match["port"] else None
    if match["range"]:
        return str(ip_network(match["range"])), port
    try:
        return str(ip_network(ip_address(match["host"].strip("[]")))), port
    except ValueError:
        if match["host"].startswith("["):
            raise
        return match["host"], port


def check_budget(seconds: float, most: float = LONGEST_BUDGET) -> float:
    """The budget, if it is one: at least one second, at most `most`. Raises ValueError."""
    if not 1 <= seconds <= most:
        raise ValueError(seconds)
    return seconds
