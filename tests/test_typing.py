"""The types are part of the API: mypy and pyright read `typing/api.py`, in which each wrong call must be an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
API = REPOSITORY / "tests" / "typing" / "api.py"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)


def test_mypy_takes_every_right_call_and_refuses_every_wrong_one():
    done = run("mypy", "--strict", "--warn-unused-ignores", "--no-error-summary", str(API))
    assert (done.stdout, done.stderr) == ("", "")
    assert done.returncode == 0


def test_pyright_takes_every_right_call_and_refuses_every_wrong_one():
    if (there := run("pyright", "--version")).returncode:
        pytest.skip(f"pyright cannot be run here: {there.stderr[-200:]}")
    done = run("pyright", "--outputjson", "--pythonpath", sys.executable, str(API))
    found = json.loads(done.stdout)["generalDiagnostics"]
    assert [f"{each['range']['start']['line'] + 1}: {each['message']}" for each in found] == []
    assert done.returncode == 0


def test_there_are_wrong_calls_to_refuse():
    assert API.read_text().count("# type: ignore[") > 25
