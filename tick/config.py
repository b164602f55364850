"""Settings: read once, from the environment and `[tool.tick]` of pyproject.toml, checked, then frozen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigurationError

DEFAULT_BUDGET = 50.0
GRACE = 2.0
"""Seconds past the budget by which a tick has returned, whatever its handlers do."""
LONGEST_BUDGET = 6 * 3600.0

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_PROJECT_KEYS = ("batch_size", "budget", "concurrency", "modules", "schedules", "schema")


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process ticks.

    Attributes:
        database_url: where Postgres is; None means the embedded one.
        root: the project's folder: where pyproject.toml or schedules.toml is.
        schedules_path: the schedules file; it may be absent.
        modules: what to import so that handlers register.
        budget: seconds a tick may take; None means what the platform allows, else 50.
        concurrency: jobs that run at once in a tick.
        batch_size: jobs claimed in one exchange, at most.
        schema: the Postgres schema of tick's tables.
        secrets: what a caller of /tick may present; none means that nobody can.
    """

    database_url: str | None = None
    root: Path = field(default_factory=Path.cwd)
    schedules_path: Path = Path("schedules.toml")
    modules: tuple[str, ...] = ()
    budget: float | None = None
    concurrency: int = 10
    batch_size: int = 500
    schema: str = "tick"
    secrets: tuple[str, ...] = field(default=(), repr=False)

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
            modules=reader.names("modules"),
            budget=reader.seconds("budget", LONGEST_BUDGET),
            concurrency=reader.count("concurrency", 10, 1000),
            batch_size=reader.count("batch_size", 500, 10_000),
            schema=reader.text("schema", "tick"),
            secrets=_secrets(env.get("CRON_SECRET", "")),
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


def check_budget(seconds: float, most: float = LONGEST_BUDGET) -> float:
    """The budget, if it is one: at least one second, at most `most`. Raises ValueError."""
    if not 1 <= seconds <= most:
        raise ValueError(seconds)
    return seconds
