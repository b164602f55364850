"""The files that platforms read: Vercel's, and GitHub's workflows."""

from __future__ import annotations

import inspect
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERCEL = json.loads((ROOT / "vercel.json").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_vercel_takes_the_crons():
    """Its own rules: a path from a slash, five plain numeric fields, and no other key."""
    for cron in VERCEL["crons"]:
        assert set(cron) == {"path", "schedule"}
        assert re.fullmatch(r"/.{0,511}", cron["path"])
        assert re.fullmatch(r"[\d*,/-]+( [\d*,/-]+){4}", cron["schedule"])
        assert 9 <= len(cron["schedule"]) <= 256


def test_vercel_runs_the_entrypoint_longer_than_a_tick_takes():
    module, _, attribute = PROJECT["tool"]["vercel"]["entrypoint"].partition(":")
    ((name, function),) = VERCEL["functions"].items()
    assert name == module.replace(".", "/") + ".py"
    assert 1 <= function["maxDuration"] <= 300
    assert "builds" not in VERCEL
    app = getattr(import_module(module), attribute)
    assert list(inspect.signature(app.__call__).parameters) == ["scope", "receive", "send"]
    assert inspect.iscoroutinefunction(app.__call__)


def test_the_entrypoint_imports_without_any_setting(tmp_path):
    code = "import tick.web; print(type(tick.web.app).__name__)"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout == "Starlette\n", ran.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_github_takes_the_workflow(path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_workflow_that_calls_a_url_sends_the_secret_and_its_name(tmp_path):
    """Its own shell lines, with a curl that writes down what it was given."""
    lines = (ROOT / ".github" / "workflows" / "tick-call.yml").read_text().split("run: |\n")[1]
    script = "\n".join(line[10:] for line in lines.splitlines())
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\nfor a in "$@"; do echo "$a"; done\n')
    curl.chmod(curl.stat().st_mode | stat.S_IXUSR)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TICK_URL": "https://x.example/tick",
        "CRON_SECRET": "s",
        "GITHUB_RUN_ID": "7",
    }
    ran = subprocess.run(["bash", "-eu", "-c", script], env=env, capture_output=True, text=True, check=True)
    said = ran.stdout.splitlines()
    assert {
        "https://x.example/tick",
        "Authorization: Bearer s",
        "X-Tick-Trigger: github",
        "X-Tick-Delivery-Id: 7",
    } <= set(said)


def test_the_pinned_requirements_have_hashes_and_everything_a_tick_needs():
    text = (ROOT / "requirements.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)(?:\[\w+\])?==", text, re.MULTILINE))
    needed = {re.match(r"[a-z0-9-]+", each)[0] for each in PROJECT["project"]["dependencies"]}
    assert needed <= pinned
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=[a-z])", text.strip()))
