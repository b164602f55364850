"""What is examined: a project's files, its settings and its handlers, each read when it is first asked for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tick import handlers, platforms, schedules_file
from tick.config import Settings, find_root
from tick.doctor import outline
from tick.errors import ConfigurationError, TickError
from tick.handlers import Registry
from tick.schedules import Schedule

MOST_FILES = 20_000
MOST_BYTES = schedules_file.MOST_BYTES
_NOT_OURS = {"node_modules", "__pycache__", "venv", "dist", "build"}
_TABLE = re.compile(r"""\s*\[\s*schedules\s*\.\s*(?:["']([^"']+)["']|([\w-]+))\s*\]""")
_PLATFORMS = ("VERCEL", "AWS_LAMBDA_FUNCTION_NAME", "K_SERVICE", "NETLIFY")


class Reading(NamedTuple):
    """A file's content; or None, and why it cannot be read."""

    value: Any = None
    problem: str | None = None


class Workflow(NamedTuple):
    """A workflow of GitHub; without `node` when it cannot be read."""

    path: str
    node: outline.Node | None
    problem: str | None = None


class Project:
    """A project's folder, and the environment in which it would run.

    Attributes:
        settings: as they are, or the defaults when they cannot be read; `problem` says why.
        env: the environment's variables.
    """

    def __init__(self, env: Mapping[str, str] | None = None, *, start: Path | None = None) -> None:
        self.env = os.environ if env is None else env
        self.root = find_root(start or Path.cwd())
        self.problem: str | None = None
        try:
            self.settings = Settings.load(self.env, start=self.root)
        except ConfigurationError as error:
            self.problem = str(error)
            url = self.env.get("TICK_DATABASE_URL") or self.env.get("DATABASE_URL")
            self.settings = Settings(url, self.root, self.root / "schedules.toml")

    @cached_property
    def budget(self) -> float:
        """Seconds that a tick may take."""
        return platforms.budget(self.settings)

    # Files

    def text(self, path: str) -> str | None:
        """The beginning of a file, by its path from the root; None when it cannot be read."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(MOST_BYTES).decode("utf-8-sig", "replace")
        except OSError:
            return None

    def where(self, path: str, needle: str = "") -> str:
        """A file and the first of its lines that holds a text, as `file:line`."""
        lines = (self.text(path) or "").splitlines() if needle else []
        return next((f"{path}:{number}" for number, line in enumerate(lines, 1) if needle in line), path)

    @cached_property
    def files(self) -> list[str]:
        """The paths of the project's files from its root, up to twenty thousand."""
        found: list[str] = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(
                name for name in folders if name not in _NOT_OURS and (name[0] != "." or name == ".github")
            )
            here = Path(folder).relative_to(self.root)
            found += [(here / name).as_posix() for name in sorted(names)]
            if len(found) > MOST_FILES:
                break
        return found[:MOST_FILES]

    @cached_property
    def vercel(self) -> Reading:
        """vercel.json as a dict; None without a problem when there is none."""
        text = self.text("vercel.json")
        if text is None:
            return Reading()
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return Reading(problem=f"it is not JSON: {error}")
        return Reading(value) if isinstance(value, dict) else Reading(problem="it is not an object")

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        """pyproject.toml; empty when it is absent or cannot be read, which the settings tell."""
        return _toml(self.text("pyproject.toml"))

    @cached_property
    def workflows(self) -> list[Workflow]:
        """The workflows of GitHub."""
        folder = self.root / ".github" / "workflows"
        paths = sorted((*folder.glob("*.yml"), *folder.glob("*.yaml"))) if folder.is_dir() else []
        return [self._workflow(path.relative_to(self.root).as_posix()) for path in paths]

    def _workflow(self, path: str) -> Workflow:
        try:
            return Workflow(path, outline.read(self.text(path) or ""))
        except (outline.Unreadable, RecursionError) as error:
            return Workflow(path, None, str(error))

    @property
    def is_on_vercel(self) -> bool:
        """Whether it is made for Vercel."""
        return self.vercel != Reading() or "vercel" in self.pyproject.get("tool", {})

    @property
    def is_serverless(self) -> bool:
        """Whether each tick may have a process of its own."""
        return self.is_on_vercel or any(self.env.get(name) for name in _PLATFORMS)

    # Schedules and handlers

    @property
    def schedules_path(self) -> str:
        """Where the schedules file is, from the root."""
        return os.path.relpath(self.settings.schedules_path, self.root)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The schedules file as TOML has it, not checked."""
        return _toml(self.text(self.schedules_path))

    @cached_property
    def contents(self) -> Reading:
        """What the file says; None with every problem when it cannot be used."""
        if self.settings.schedules_named and not self.settings.schedules_path.exists():
            return Reading(problem="there is no such file")
        try:
            return Reading(schedules_file.read_project(self.settings))
        except TickError as error:
            return Reading(problem=str(error))

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules of the file that make windows."""
        return tuple(each for each in self.contents.value.schedules if each.enabled) if self.contents.value else ()

    @cached_property
    def _tables(self) -> dict[str, int]:
        """The lines on which the tables of schedules begin, by their names."""
        lines = enumerate((self.text(self.schedules_path) or "").splitlines(), 1)
        return {match[1] or match[2]: number for number, line in lines if (match := _TABLE.match(line))}

    def schedule_at(self, name: str) -> str:
        """Where a schedule is: the file, the line of its table, and its name."""
        return f"{self.schedules_path}:{self._tables.get(name, 1)}, schedules.{name}"

    @cached_property
    def registry(self) -> Reading:
        """The handlers that the project's modules register; None and why when one of them cannot be imported."""
        try:
            return Reading(handlers.load(self.settings.modules, self.root))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's module raises
            said = str(error) if isinstance(error, TickError) else f"{type(error).__name__}: {error}"
            return Reading(problem=said)

    @property
    def handlers(self) -> Registry:
        """The handlers, or none."""
        return self.registry.value or Registry()

    @cached_property
    def alerts(self) -> dict[str, Any]:
        """What is said of alerts: in the schedules file, and in pyproject.toml where that says nothing."""
        own = self.document.get("alerts", {})
        return {**self.settings.alerts, **(own if isinstance(own, dict) else {})}

    # The environment

    def variables(self, prefix: str) -> Iterator[tuple[str, str]]:
        """The variables whose names begin so."""
        return ((name, value) for name, value in sorted(self.env.items()) if name.startswith(prefix))


def texts(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in tables and lists, and the names that lead to it."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from texts(each, (*place, str(name)))
    elif isinstance(value, list):
        for each in value:
            yield from texts(each, place)
    elif isinstance(value, str) and value.strip():
        yield place, value


def _toml(text: str | None) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text or "")
    except (ValueError, RecursionError):
        return {}
