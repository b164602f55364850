"""The documentation cannot rot: its code runs, its commands exist, and everything that exists is in it."""

from __future__ import annotations

import argparse
import doctest
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import tick
from tick import cli, config, errors, schedules_file
from tick.processor import Report

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "examples" / "saas" / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
]
TEXT = "\n".join(page.read_text() for page in PAGES)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "docs" / "handlers.md", ROOT / "docs" / "deploy.md"], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, conn, url, empty_registry, monkeypatch):
    conn.execute("drop table if exists users; create table users (id serial, email text)")
    module = types.ModuleType("jobs")
    module.DATABASE_URL = url
    monkeypatch.setitem(sys.modules, "jobs", module)
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), module.__dict__)
    conn.execute("drop table users")
    enqueues = any("enqueue(" in code for code in blocks(page, "python"))
    assert conn.execute("select count(*) > 0 from tick.jobs").fetchone()[0] == enqueues


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_toml_and_json_of_a_page_can_be_read(page):
    for code in blocks(page, "json"):
        json.loads(code)
    for code in blocks(page, "toml"):
        if "[schedules." in code:
            schedules_file.parse(code, page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def commands(parser: argparse.ArgumentParser, name: str = "tick"):
    """Every command with its own options."""
    deeper = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    yield name, [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    for action in deeper:
        for word, child in action.choices.items():
            yield from commands(child, f"{name} {word}")


@pytest.mark.parametrize(
    ("command", "options"), [*commands(cli.parser())][1:], ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_and_option_is_in_the_guide(command, options):
    lines = [line for line in (ROOT / "docs" / "cli.md").read_text().splitlines() if f"`{command}" in line]
    assert lines or command == "tick jobs", command
    for option in set(options) - {"--help"}:
        assert any(option in line for line in lines), f"{command} {option}"


def test_every_setting_is_in_the_guide():
    for name in config._PROJECT_KEYS:
        assert (f"[tool.tick.{name}]" if name in ("alerts", "retention") else f"TICK_{name.upper()}") in TEXT
    for name in ("DATABASE_URL", "TICK_DATABASE_URL", "CRON_SECRET"):
        assert f"`{name}`" in TEXT


def test_every_key_of_the_report_is_in_the_guide():
    guide = (ROOT / "docs" / "cli.md").read_text()
    for name in Report("", "").as_dict():
        assert f"`{name}`" in guide


def test_every_public_name_is_in_the_documentation_or_an_error():
    for name in tick.__all__:
        value = getattr(tick, name)
        is_error = isinstance(value, type) and issubclass(value, errors.TickError)
        assert is_error or name in TEXT, name
        assert value.__doc__, name


def test_the_tree_of_errors_is_drawn_as_it_is():
    drawn = re.findall(r"(?:TickError|[├└]── (\w+))", errors.__doc__)
    classes = {c.__name__ for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.TickError)}
    assert classes == {name for name in drawn if name} | {"TickError"}


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules([str(ROOT / "tick")])])
def test_the_examples_in_docstrings_are_true(name):
    assert doctest.testmod(importlib.import_module(f"tick.{name}")).failed == 0


def test_every_module_is_on_the_map():
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    for module in pkgutil.iter_modules([str(ROOT / "tick")]):
        assert f"`{module.name}`" in architecture, module.name
    assert len(architecture.splitlines()) <= 150


WORDS = (
    r"(?<!no )\b(worker|enqueuer|fetch(?:es|ed)? jobs?|discard(?:ed)?_job|backfill_job|dequeue|task queue|defer_job)\b"
)


def test_the_words_are_the_ones_of_the_glossary():
    for path in ROOT.glob("tick/*.py"):
        assert not (found := re.search(WORDS, path.read_text())), f"{path.name}: {found}"


def test_no_committed_file_names_a_registry():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    hosts = re.compile("https?://[a-z.]*(pypi|pythonhosted|npmjs)\\.(org|com)")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yml", ".json", ".sql", ""} and path.is_file():
            assert not hosts.search(path.read_text(errors="replace")), name
