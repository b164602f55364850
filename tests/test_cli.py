"""The command line, as real processes in a real project folder."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.factories import a_job, job, jobs, statuses, wait_until
from tick import cli

REPOSITORY = Path(__file__).parents[1]
MIGRATIONS = sorted((REPOSITORY / "migrations").glob("*.sql"))
REPORT = [
    "tick",
    "trigger",
    "materialised",
    "claimed",
    "done",
    "retried",
    "dead",
    "released",
    "reclaimed",
    "stale",
    "left",
    "budget",
    "used",
]

WORK = """
    import asyncio, os, time
    import tick

    @tick.job
    def chatter() -> None:
        print("chattering")


    @tick.job
    async def greet(name: str, times: int = 1) -> str:
        return f"Hello, {name}!" * times

    @tick.job(max_attempts=2)
    def stumble() -> None:
        raise ValueError("the floor is wet")

    @tick.job
    def give_up() -> None:
        raise tick.Permanent("never")

    @tick.job(timeout="40s")
    def takes_forty() -> None: ...

    @tick.job
    def half_a_second() -> None:
        time.sleep(0.5)

    @tick.job
    async def for_ever() -> None:
        await asyncio.sleep(600)
"""

SCHEDULES = """
    [defaults]
    timezone = "Europe/Paris"

    [schedules.morning-greeting]
    type = "greet"
    cron = "30 8 * * mon-fri"
    payload = { name = "everybody" }
    priority = 3

    [schedules.stumble]
    every = "10m"

    [schedules.by-hand]
    type = "greet"
    enabled = false
    payload = { name = "you" }
    key = "by-hand"
"""


class Project:
    """A user's folder, and the commands they run in it."""

    def __init__(self, folder: Path, url: str | None, *, work: str = WORK, schedules: str | None = SCHEDULES) -> None:
        self.folder = folder
        foreign = (
            "TICK_",
            "DATABASE_URL",
            "CRON_SECRET",
            "PORT",
            "VERCEL",
            "AWS_",
            "CLOUD_RUN_",
            "FORCE_COLOR",
            "PYTHONUNBUFFERED",
        )
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.env |= {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        if url:
            self.env["DATABASE_URL"] = url
        self.write("pyproject.toml", '[tool.tick]\nmodules = ["work"]\n')
        self.write("work.py", work)
        if schedules is not None:
            self.write("schedules.toml", schedules)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def run(self, *arguments: object, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; it must end with this exit code."""
        done = subprocess.run(
            self._command(arguments), cwd=self.folder, env=self.env | env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr, "what goes into a pipe has no colours"
        return done

    def tell(self, *arguments: object, **env: str) -> str:
        return self.run(*arguments, **env).stdout

    def read(self, *arguments: object, **env: str):
        """What a command says with --json."""
        return json.loads(self.tell(*arguments, "--json", **env))

    def complaint(self, *arguments: object, code: int = 2, **env: str) -> str:
        """What a command says on stderr when it fails."""
        return self.run(*arguments, code=code, **env).stderr

    @contextmanager
    def started(self, *arguments: object, **env: str):
        """A command that goes on until it is told to end."""
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen(
                self._command(arguments), cwd=self.folder, env=self.env | env, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def log(self) -> str:
        """What the started command has written."""
        return (self.folder / "log").read_text()

    def _command(self, arguments) -> list[str]:
        return [sys.executable, "-m", "tick.cli", *map(str, arguments)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def answers(url: str) -> httpx.Response | None:
    try:
        return httpx.get(url, timeout=30)
    except httpx.TransportError:
        return None


@pytest.fixture
def project(url, tmp_path) -> Project:
    return Project(tmp_path, url)


class TestRunOnce:
    def test_says_in_a_line_what_it_did(self, conn, project):
        a_job(conn, "greet", payload={"name": "Ada"})
        a_job(conn, "give_up")
        a_job(conn, "elsewhere")
        said = project.tell("run-once")
        assert re.fullmatch(r"tick [0-9a-f]{8} in \d+\.\d\d s of 50 s: 2 claimed, 1 done, 1 dead, 1 left\n", said), said

    def test_writes_what_a_handler_has_put_into_a_file_and_not_closed(self, conn, url, tmp_path):
        work = """
            import tick
            audit = open("audit.log", "a")

            @tick.job
            def greet() -> None:
                audit.write("Ada")
        """
        a_job(conn, "greet")
        Project(tmp_path, url, work=work, schedules=None).run("run-once")
        assert (tmp_path / "audit.log").read_text() == "Ada"

    def test_reports_in_json_and_failed_jobs_are_no_failure_of_the_command(self, conn, project):
        a_job(conn, "stumble")
        a_job(conn, "give_up")
        report = project.read("run-once", "--trigger", "github", "--delivery-id", "run 17", "--budget", 9)
        assert list(report) == REPORT
        assert (report["trigger"], report["budget"], report["used"] < 9) == ("github", 9.0, True)
        assert (report["claimed"], report["retried"], report["dead"]) == (2, 1, 1)
        stored = conn.execute("select id::text, trigger, delivery_id, claimed, dead from tick.ticks").fetchone()
        assert stored == (report["tick"], "github", "run 17", 2, 1)

    def test_names_the_types_of_due_jobs_that_no_handler_takes(self, conn, project):
        a_job(conn, "elsewhere")
        a_job(conn, "elsewhere")
        done = project.run("run-once")
        assert "due, but without a handler here: elsewhere (2)" in done.stderr

    def test_what_handlers_print_and_log_does_not_get_into_the_json(self, conn, project):
        a_job(conn, "chatter")
        assert project.read("run-once")["done"] == 1

    def test_a_short_budget_leaves_alone_what_cannot_fit_and_is_no_error(self, conn, project):
        a_job(conn, "takes_forty")
        a_job(conn, "greet", payload={"name": "Ada"})
        assert project.read("run-once", "--budget", 5)["done"] == 1
        assert statuses(conn) == {"pending": 1, "done": 1}

    @pytest.mark.parametrize("budget", ["0", "-1", "nan", "soon", "1e9"])
    def test_refuses_a_budget_that_is_none(self, project, budget, capsys):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["run-once", f"--budget={budget}"])
        assert f"'{budget}' is not a number of seconds" in capsys.readouterr().err

    def test_ends_with_75_when_postgres_is_away(self, project):
        said = project.complaint("run-once", code=75, DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/d")
        assert "\ntick: Postgres cannot be reached" in f"\n{said}"
        assert "hunter2" not in said

    def test_does_not_show_the_password_of_a_url_that_cannot_be_read(self, project):
        said = project.complaint("run-once", DATABASE_URL="postgres//u:hunter2@h/d")
        assert "DATABASE_URL is not usable" in said
        assert "hunter2" not in said

    def test_ends_with_2_and_the_command_to_run_when_it_is_not_migrated(self, project, fresh_url):
        said = project.complaint("run-once", DATABASE_URL=fresh_url)
        assert "0001_init" in said and "tick migrate" in said

    def test_ends_with_2_and_the_entry_and_key_of_a_broken_file_but_runs_the_jobs(self, conn, project):
        a_job(conn, "greet", payload={"name": "Ada"})
        project.write("schedules.toml", '[schedules.nightly]\ncrom = "0 3 * * *"\n')
        said = project.complaint("run-once")
        assert 'schedules.nightly.crom: unknown key; did you mean "cron"?' in said
        assert statuses(conn) == {"done": 1}

    def test_ends_with_2_and_every_setting_that_is_wrong(self, project):
        said = project.complaint("run-once", TICK_CONCURRENCY="many", TICK_BUDGET="0.1")
        assert "concurrency (TICK_CONCURRENCY): 'many' is not a number from 1 to 1000" in said
        assert "budget (TICK_BUDGET): '0.1'" in said

    def test_without_a_database_url_uses_an_embedded_postgres_and_migrates_it(self):
        # Short: the path of a socket has 107 bytes at most.
        with tempfile.TemporaryDirectory(prefix="tick-") as name:
            project = Project(Path(name), None)
            enqueued = project.run("enqueue", "greet", '{"name": "Ada"}')
            assert enqueued.stdout == "job 1 (greet) enqueued\n"
            assert f"DATABASE_URL is not set: using the embedded Postgres in {name}/.tick/postgres" in enqueued.stderr
            assert project.run("jobs", "list").stderr == "", "it is said when it is made, and not each time"
            assert project.read("run-once")["done"] == 1
            assert (Path(name) / ".tick" / "postgres" / "PG_VERSION").exists()
            assert (Path(name) / ".tick" / ".gitignore").read_text() == "*\n"

    @pytest.mark.parametrize(
        "command",
        ["status", "top", "dead", "alerts", "jobs list", "jobs show 1", "prune --dry-run", "plan", "schedules --status",
         "schedules explain x 2026-01-01T00:00Z", "doctor", "migrate --dry-run"],
    )  # fmt: skip
    def test_what_only_reads_makes_no_database(self, tmp_path, command):
        project = Project(tmp_path, None)
        if command == "doctor":
            project.run(*command.split())
        else:
            said = f"tick: no database yet: `tick dev` or `tick run-once` makes one in {tmp_path}/.tick/postgres\n"
            assert project.complaint(*command.split()) == said
        assert not (tmp_path / ".tick").exists()

    @pytest.mark.parametrize("command", ["status", "run-once", "migrate", "jobs list"])
    def test_outside_of_a_project_makes_nothing(self, tmp_path, command):
        project = Project(tmp_path, None)
        for name in ("pyproject.toml", "schedules.toml"):
            (tmp_path / name).unlink()
        said = f"tick: there is no tick project here or above {tmp_path}: cd to it, or set DATABASE_URL\n"
        assert project.complaint(*command.split()) == said
        assert not (tmp_path / ".tick").exists()


class TestProject:
    """What is wrong with a project is exit code 2, and says where."""

    @pytest.mark.parametrize(
        "command", ["run-once", "serve --port 0", "dev --port 0", "enqueue greet", "schedules --check"]
    )
    def test_a_module_that_cannot_be_imported(self, project, command):
        project.write("work.py", "import nosuchlib\n")
        said = project.complaint(*command.split())
        problem = "work.py:1: ModuleNotFoundError: No module named 'nosuchlib'"
        assert said.endswith(f"tick: {problem} (module `work` of [tool.tick] modules or TICK_MODULES)\n")

    def test_two_handlers_for_one_type(self, project):
        project.write("more.py", '@__import__("tick").job(type="greet")\ndef greet_too(): ...\n')
        said = project.complaint("run-once", TICK_MODULES="work,more")
        assert "two handlers for the type 'greet': work.greet (" in said
        assert ") and more.greet_too (" in said

    def test_a_schedule_without_a_handler(self, project):
        project.write("schedules.toml", '[schedules.greeet]\nevery = "1h"\n')
        said = project.complaint("run-once")
        assert "schedules.greeet.type: no handler has the type 'greeet'; did you mean 'greet'?" in said

    def test_a_module_that_is_not_there(self, project):
        assert "the module 'wrok' of [tool.tick] modules" in project.complaint("run-once", TICK_MODULES="wrok")

    def test_a_key_of_pyproject_that_is_unknown(self, project):
        project.write("pyproject.toml", '[tool.tick]\nmodule = "work"\n')
        assert "[tool.tick] has unknown keys: module; it takes" in project.complaint("run-once")

    def test_a_handler_whose_time_out_fits_no_budget(self, project):
        said = project.complaint("run-once", TICK_BUDGET="30")
        assert "work.takes_forty: timeout 40 s can never fit the budget of 30 s" in said

    def test_it_is_found_from_a_folder_below(self, conn, project):
        below = project.folder / "deep" / "down"
        below.mkdir(parents=True)
        a_job(conn, "greet", payload={"name": "Ada"})
        top, project.folder = project.folder, below
        assert project.read("run-once")["done"] == 1
        assert conn.execute("select count(*) from tick.entries").fetchone() == (3,)
        project.folder = top


class TestMigrate:
    def test_says_what_it_would_apply_applies_it_and_then_has_nothing_to_do(self, project, fresh_url):
        there = {"DATABASE_URL": fresh_url}
        names = [path.stem for path in MIGRATIONS]
        assert project.tell("migrate", "--dry-run", **there).splitlines() == [f"would apply {name}" for name in names]
        assert project.tell("migrate", **there).splitlines() == [f"applied {name}" for name in names]
        assert project.tell("migrate", "--dry-run", **there) == "nothing to apply\n"
        assert project.tell("migrate", **there) == "nothing to apply\n"

    def test_prints_the_sql_without_a_database(self, project):
        del project.env["DATABASE_URL"]
        assert project.tell("migrate", "--sql") == "\n".join(path.read_text() for path in MIGRATIONS) + "\n"
        renamed = project.tell("migrate", "--sql", TICK_SCHEMA="jobs_v2")
        assert 'create table if not exists "jobs_v2".jobs' in renamed
        assert not re.search(r"\btick\.\w", renamed)

    def test_ends_with_75_when_postgres_is_away(self, project):
        project.run("migrate", code=75, DATABASE_URL="postgresql://127.0.0.1:1/d")

    def test_a_schema_that_is_no_name_is_refused(self, project):
        said = project.complaint("migrate", TICK_SCHEMA="Robert'); drop table jobs;--")
        assert "schema (TICK_SCHEMA)" in said and "is not a plain lower-case SQL name" in said

    def test_the_other_commands_on_a_database_that_is_not_migrated_say_so(self, project, fresh_url):
        for command in (["jobs", "list"], ["jobs", "replay", 1], ["enqueue", "greet", '{"name": "Ada"}']):
            assert "run `tick migrate`" in project.complaint(*command, DATABASE_URL=fresh_url)


class TestSchedules:
    def test_shows_the_next_windows_of_each(self, project):
        lines = project.tell("schedules", "--next", 2).splitlines()
        assert lines[0].split() == ["SCHEDULE", "RULE", "TIMEZONE", "LOCAL", "UTC"]
        assert [line.split()[0] for line in lines[1:]] == ["morning-greeting"] * 2 + ["stumble"] * 2 + ["by-hand"]
        assert re.search(r"30 8 \* \* mon-fri  Europe/Paris  \w{3} \d{4}-\d\d-\d\d 08:30:00 CES?T", lines[1])
        assert "disabled" in lines[5]

    def test_shows_them_in_json(self, project):
        rows = project.read("schedules", "--next", 5)
        stumbles = [row["utc"] for row in rows if row["schedule"] == "stumble"]
        assert len(stumbles) == 5 and all(utc.endswith("0:00Z") for utc in stumbles)
        assert datetime.fromisoformat(stumbles[0]) > datetime.now(UTC)
        assert [row["utc"] for row in rows if row["schedule"] == "by-hand"] == [None]

    def test_check_says_that_the_file_can_be_deployed(self, project):
        assert project.tell("schedules", "--check") == "schedules.toml: 3 schedules, no problems\n"

    def test_check_names_each_entry_that_cannot_run(self, project):
        project.write(
            "schedules.toml",
            """
            [schedules.gret]
            every = "1h"
            [schedules.greet]
            every = "1h"
            payload = { nam = "x" }
            [schedules.stumble]
            every = "1h"
            timeout = "1h"
            """,
        )
        done = project.run("schedules", "--check", code=1)
        assert done.stdout == "schedules.toml: 3 schedules, 3 problems\n"
        gret, greet, stumble = done.stderr.splitlines()
        assert "schedules.gret.type: no handler has the type 'gret'; did you mean 'greet'?" in gret
        assert "schedules.greet.payload" in greet and "nam" in greet
        assert "schedules.stumble.timeout: 3600 s can never fit the budget of 50 s" in stumble

    def test_a_broken_file_is_wrong_usage_with_every_problem(self, project):
        project.write("schedules.toml", '[schedules.a]\ncron = "61 * * * *"\n[schedules.b]\nevery = "soon"\n')
        said = project.complaint("schedules", "--check")
        assert "2 problems" in said and "schedules.a.cron" in said and "schedules.b.every" in said

    def test_a_file_that_is_not_there_is_wrong_usage(self, project):
        assert "nowhere.toml: there is no such file" in project.complaint("schedules", "--file", "nowhere.toml")

    def test_another_file_may_be_looked_at(self, project):
        project.write("other.toml", '[schedules.other]\nevery = "1h"\n')
        assert [row["schedule"] for row in project.read("schedules", "--file", "other.toml", "--next", 1)] == ["other"]

    def test_the_json_schema_is_the_one_in_the_package(self, project):
        printed = json.loads(project.tell("schedules", "--json-schema"))
        assert printed == json.loads((REPOSITORY / "tick/schedules.schema.json").read_text())

    def test_run_now_enqueues_what_the_schedule_says_for_no_window_a_disabled_one_too(self, conn, project):
        assert project.tell("schedules", "run-now", "morning-greeting") == "job 1 (greet) enqueued\n"
        assert project.read("schedules", "run-now", "by-hand") == {"id": 2, "type": "greet", "created": True}
        first, second = job(conn, 1), job(conn, 2)
        assert (first["payload"], first["priority"]) == ({"name": "everybody"}, 3)
        assert (first["schedule"], first["window"]) == ("morning-greeting", None)
        assert (second["payload"], second["key"]) == ({"name": "you"}, "by-hand")
        assert project.read("run-once")["done"] == 2

    def test_run_now_of_what_is_not_there(self, project):
        assert "schedules.toml has no schedule 'evening'" in project.complaint("schedules", "run-now", "evening")


class TestWindows:
    """`tick windows` answers what happens on the two nights."""

    def windows(self, project, cron: str, after: str, until: str) -> list[str]:
        options = ("--timezone", "Europe/Paris", "--after", after, "--until", until)
        text, found = project.tell("windows", cron, *options), project.read("windows", cron, *options)
        assert [line.split()[0] for line in text.splitlines()[1:]] == found
        return [line.split(maxsplit=1)[1] for line in text.splitlines()[1:]]

    def test_a_time_that_the_clocks_skip_comes_right_after_the_gap(self, project):
        assert self.windows(project, "30 2 * * *", "2026-03-28T12:00Z", "2026-03-30T12:00Z") == [
            "Sun 2026-03-29 03:00:00 CEST",
            "Mon 2026-03-30 02:30:00 CEST",
        ]

    def test_a_time_that_comes_twice_is_meant_once_the_first_time(self, project):
        assert self.windows(project, "30 2 * * *", "2026-10-24T12:00Z", "2026-10-26T12:00Z") == [
            "Sun 2026-10-25 02:30:00 CEST",
            "Mon 2026-10-26 02:30:00 CET",
        ]

    def test_every_hour_goes_by_elapsed_time(self, project):
        assert self.windows(project, "30 * * * *", "2026-10-25T00:00Z", "2026-10-25T02:00Z") == [
            "Sun 2026-10-25 02:30:00 CEST",
            "Sun 2026-10-25 02:30:00 CET",
        ]

    def test_none_is_said_so(self, project):
        assert project.tell("windows", "0 0 1 1 *", "--after", "2026-01-02", "--until", "2026-01-03") == "no windows\n"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("61 * * * *",), "61"),
            (("0 0 * * *", "--timezone", "Europe/Pariss"), "Europe/Paris"),
            (("0 0 * * *", "--after", "yesterday"), "'yesterday' is not an instant"),
        ],
    )
    def test_nonsense_is_refused_with_what_is_wrong(self, project, arguments, said, capsys):
        assert cli.main(["windows", "--after", "2026-01-01", "--until", "2026-01-03", *arguments]) == 2
        assert said in capsys.readouterr().err


class TestJobs:
    def test_list_shows_the_latest_first_aligned_and_filtered(self, conn, project):
        a_job(conn, "greet", "done")
        dead = a_job(conn, "stumble", "dead", last_error="ValueError: " + "x" * 500)
        a_job(conn, "greet", key="k" * 30, schedule="morning-greeting")
        head, *lines = project.tell("jobs", "list").splitlines()
        assert [line.split()[:3] for line in lines] == [
            ["3", "greet", "pending"], ["2", "stumble", "dead"], ["1", "greet", "done"]
        ]  # fmt: skip
        assert head.split()[:3] == ["ID", "TYPE", "STATUS"]
        assert all(len(line) < 200 for line in lines)
        (row,) = project.read("jobs", "list", "--status", "dead", "--type", "stumble")
        assert (row["id"], len(row["last_error"])) == (dead, 400)
        assert [r["id"] for r in project.read("jobs", "list", "--limit", 2)] == [3, 2]
        assert [r["id"] for r in project.read("jobs", "list", "--schedule", "morning-greeting")] == [3]

    def test_an_empty_list_says_so(self, project):
        assert project.tell("jobs", "list") == "no jobs\n"
        assert project.read("jobs", "list") == []

    def test_a_list_that_nobody_reads_to_its_end_is_no_error(self, conn, project):
        jobs(conn, count=3000)
        for limit, reader in ((3000, "head -1"), (1, "true")):
            command = f"{sys.executable} -m tick.cli jobs list --limit {limit} | {reader}; exit ${{PIPESTATUS[0]}}"
            done = subprocess.run(["bash", "-c", command], cwd=project.folder, env=project.env, capture_output=True)
            assert (done.returncode, done.stderr) == (0, b"")

    def test_show_has_every_error_with_its_traceback(self, conn, project):
        id = a_job(conn, "stumble")
        project.run("run-once")
        shown = project.tell("jobs", "show", id)
        assert re.search(r"^status +pending$", shown, re.MULTILINE)
        assert re.search(r"^attempt 1, .*: ValueError: the floor is wet$", shown, re.MULTILINE)
        assert 'raise ValueError("the floor is wet")' in shown
        as_json = project.read("jobs", "show", id)
        assert (as_json["id"], as_json["failures"], len(as_json["errors"])) == (id, 1, 1)

    def test_replay_and_cancel_do_so(self, conn, project):
        dead, waiting, running = a_job(conn, "greet", "dead"), a_job(conn), a_job(conn, status="running")
        assert project.tell("jobs", "replay", dead) == f"job {dead} replayed\n"
        assert project.tell("jobs", "cancel", waiting, running) == (
            f"job {waiting} cancelled\njob {running} is told to stop\n"
        )
        assert statuses(conn) == {"pending": 1, "cancelled": 1, "running": 1}
        assert job(conn, running)["cancel_requested_at"] is not None

    def test_what_cannot_be_is_told_for_each_and_the_rest_is_done(self, conn, project):
        done, dead = a_job(conn, status="done"), a_job(conn, status="dead")
        result = project.run("jobs", "replay", done, 999, dead, code=1)
        assert result.stdout == f"job {dead} replayed\n"
        assert result.stderr.splitlines() == [
            f"tick: job {done} is done: only a job that is dead or cancelled can be replayed",
            "tick: there is no job 999",
        ]
        assert "only a job that is pending or running can be cancelled" in project.complaint(
            "jobs", "cancel", done, code=1
        )
        assert project.complaint("jobs", "show", 999, code=1) == "tick: there is no job 999\n"

    @pytest.mark.parametrize("id", ["0", "-1", "x", "9" * 30, "²"])
    def test_what_is_no_id_is_wrong_usage(self, id, capsys):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["jobs", "show", "--", id])
        assert f"'{id}' is not a number from 1" in capsys.readouterr().err


class TestWhatItWaitsFor:
    def test_a_job_behind_its_key_or_under_a_limit_says_so(self, conn, project):
        a_job(conn, key="k")
        a_job(conn, key="k")
        a_job(conn, lane="type mail")
        said = project.tell("jobs", "list")
        assert "limit: type mail" in said
        assert [row["waits_for"] for row in project.read("jobs", "list")] == [None, "key", None]


class TestEnqueue:
    def test_writes_what_it_is_told(self, conn, project):
        said = project.tell("enqueue", "greet", '{"name": "Ada"}', "--priority", 7, "--key", "user:1", "--delay", "1h30m",
                            "--max-attempts", 2, "--run-at", "2031-05-01T00:00Z")  # fmt: skip
        assert said == "job 1 (greet) enqueued\n"
        row = job(conn, 1)
        assert (row["payload"], row["priority"], row["key"], row["max_attempts"]) == ({"name": "Ada"}, 7, "user:1", 2)
        assert row["run_at"] == datetime(2031, 5, 1, 1, 30, tzinfo=UTC)

    def test_knows_every_option_but_those_that_are_no_texts(self, conn, project):
        project.tell("enqueue", "greet", '{"name": "Ada"}', "--idempotency-key", "a", "--delay", "1h", "--timeout", "20s",
                     "--key", "k", "--key-order", "strict", "--callback-url", "https://a.example/", "--on-dead-url", "https://b.example/")  # fmt: skip
        row = job(conn, 1)
        assert (row["timeout"], row["strict_key"]) == (timedelta(seconds=20), True)
        assert (row["callback_url"], row["on_dead_url"]) == ("https://a.example/", "https://b.example/")
        project.tell("enqueue", "greet", '{"name": "Bob"}', "--idempotency-key", "a", "--delay", "3h",
                     "--on-conflict", "postpone", "--max-wait", "2h")  # fmt: skip
        assert job(conn, 1)["payload"] == {"name": "Bob"}
        assert job(conn, 1)["run_at"] - row["created_at"] == timedelta(hours=2)
        project.tell("enqueue", "greet", '{"name": "Ada"}', "--throttle", "1h")
        assert "was there already" in project.tell("enqueue", "greet", '{"name": "Ada"}', "--throttle", "1h")

    def test_the_same_idempotency_key_is_the_same_job(self, conn, project):
        again = ("enqueue", "greet", '{"name": "Ada"}', "--idempotency-key", "order 7")
        assert project.read(*again) == {"id": 1, "type": "greet", "created": True}
        assert project.read(*again) == {"id": 1, "type": "greet", "created": False}
        assert project.tell(*again) == "job 1 (greet) was there already\n"
        assert statuses(conn) == {"pending": 1}

    def test_refuses_what_could_not_run_and_says_what_instead(self, conn, project):
        for arguments, said in {
            ("greet", "{name: Ada}"): "it is not JSON",
            ("greet", '["Ada"]'): 'it is not a JSON object, such as {"user_id": 42}',
            ("greet", "[" * 100_000): "it is not JSON",
            ("greeet", "{}"): "no handler has the type 'greeet'; did you mean 'greet'?",
            ("greet", '{"name": 5}'): "Expected `str`, got `int` - at `$.name`",
            ("greet", "{}"): "missing required field `name`",
            ("greet", '{"name": "a", "nam": "b"}'): "unknown field `nam`",
            ("greet", '{"name": "\\u0000"}'): "it holds a NUL character",
            ("greet", '{"name": "a"}', "--delay", "soon"): '"soon" is not a duration',
            ("greet", '{"name": "a"}', "--run-at", "soon"): "'soon' is not an instant",
            ("greet", '{"name": "a"}', "--priority", "99999"): "priority=99999 is not from -32768 to 32767",
        }.items():
            assert said in project.complaint("enqueue", *arguments), arguments
        assert statuses(conn) == {}


class TestArguments:
    def test_none_are_wrong_usage_and_show_what_there_is(self, project):
        said = project.complaint()
        assert said.startswith("usage: tick") and "COMMAND" in said

    def commands(self, parser, path=()):
        """Every command that there is, as the words that call it."""
        for action in parser._actions:
            for name, command in (getattr(action, "choices", None) or {}).items() if action.nargs == "A..." else ():
                yield (*path, name), command
                yield from self.commands(command, (*path, name))

    def test_every_command_has_help_that_says_what_it_does(self, capsys):
        found = dict(self.commands(cli.parser()))
        assert set(found) >= {("run-once",), ("serve",), ("dev",), ("migrate",), ("schedules",), ("schedules", "run-now"),
                              ("windows",), ("jobs",), ("jobs", "list"), ("jobs", "show"), ("jobs", "replay"),
                              ("jobs", "cancel"), ("jobs", "run-now"), ("enqueue",), ("status",), ("top",), ("dead",),
                              ("dead", "replay"), ("prune",), ("plan",), ("alerts",), ("doctor",), ("schedules", "pause"),
                              ("schedules", "resume"), ("schedules", "explain")}  # fmt: skip
        for words, command in found.items():
            with pytest.raises(SystemExit, match="0"):
                cli.main([*words, "--help"])
            said = capsys.readouterr().out
            assert said.startswith(f"usage: tick {words[0]}"), words
            assert command.description or words == ("jobs",), words

    def test_a_command_that_does_not_exist_is_wrong_usage(self, capsys):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["run-twice"])
        assert "run-twice" in capsys.readouterr().err

    def test_a_port_that_is_none_is_the_error_of_those_who_need_one(self, monkeypatch, capsys):
        monkeypatch.setenv("PORT", "tcp://10.0.0.1:80")
        assert cli.main(["windows", "0 0 * * *", "--after", "2026-01-01", "--until", "2026-01-03"]) == 0
        with pytest.raises(SystemExit, match="2"):
            cli.main(["serve"])
        assert "'tcp://10.0.0.1:80' is not a number" in capsys.readouterr().err

    @pytest.mark.parametrize("given", ["99999", "65536", "-1", "x", "", "٣", "8000.0"])
    @pytest.mark.parametrize("command", ["serve", "dev"])
    def test_a_port_that_no_server_can_have_is_wrong_usage(self, capsys, command, given):
        with pytest.raises(SystemExit, match="2"):
            cli.main([command, f"--port={given}"])
        assert f"argument --port: {given!r} is not a number from 0 to 65535" in capsys.readouterr().err

    @pytest.mark.parametrize("given", [0, 80, 65535])
    def test_a_port_that_a_server_can_have_is_taken(self, given):
        assert cli.parser().parse_args(["serve", "--port", str(given)]).port == given


def test_a_tick_imports_nothing_that_only_people_ask_for(project):
    program = "import sys, tick.cli; tick.cli.main(['run-once']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project.folder, env=project.env, capture_output=True, text=True
    )
    imported = set(done.stdout.splitlines()[-1].split())
    assert "tick.commands" in imported
    assert imported & {"tick.overview", "tick.explain", "tick.verdict", "tick.cron_words", "tick.dashboard"} == set()


class TestServe:
    def test_does_not_start_on_what_cannot_work(self, project):
        assert "the module 'wrok'" in project.complaint("serve", TICK_MODULES="wrok")

    @pytest.mark.parametrize(
        ("name", "given", "said"),
        [
            ("TICK_API_RATE", "x", "tick: api_rate (TICK_API_RATE): 'x' is not a rate: write "),
            ("TICK_API_KEYS", "foo", "tick: TICK_API_KEYS, entry 1: it is not name:scopes:key"),
            ("TICK_INBOUND_SECRETS", "foo", "tick: TICK_INBOUND_SECRETS: "),
        ],
    )
    @pytest.mark.parametrize("command", ["serve", "dev"])
    def test_says_in_one_line_what_cannot_work(self, project, command, name, given, said):
        (line,) = project.complaint(command, "--port", free_port(), **{name: given}).splitlines()
        assert line.startswith(said)

    @contextmanager
    def serving(self, project, **env):
        port = free_port()
        with project.started("serve", "--host", "127.0.0.1", "--port", port, **env):
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 20)
            yield httpx.get(f"http://127.0.0.1:{port}/tick")

    def test_asks_for_no_secret_when_there_is_another_proof(self, project):
        with self.serving(project, TICK_INBOUND_SECRETS=f"whsec_{'A' * 43}=") as response:
            assert response.status_code == 401
        assert "CRON_SECRET" not in project.log

    def test_says_that_qstash_needs_the_url_when_it_has_its_keys_alone(self, project):
        gap = "the signing keys of QStash are set and TICK_URL is not: set it to the URL of /tick that QStash calls"
        with self.serving(project, QSTASH_CURRENT_SIGNING_KEY="sig_x") as response:
            assert (response.status_code, gap in response.json()["detail"]) == (503, True)
        assert "CRON_SECRET is not set: /tick answers 503 until it is" in project.log
        assert f"QStash is not let in: {gap}" in project.log
        with self.serving(project, QSTASH_CURRENT_SIGNING_KEY="sig_x", TICK_URL="https://example.com/tick") as response:
            assert response.status_code == 401
        assert "is not set" not in project.log and "is not let in" not in project.log

    def test_says_that_it_has_no_secret_and_serves_health_all_the_same(self, project):
        port = free_port()
        with project.started("serve", "--host", "127.0.0.1", "--port", port) as process:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 20)
            assert httpx.get(f"http://127.0.0.1:{port}/tick").status_code == 503
            process.terminate()
            assert process.wait(10) == 0
        assert "CRON_SECRET is not set: /tick answers 503 until it is" in project.log


class TestDev:
    def test_says_where_the_dashboard_is_and_how_a_cron_calls(self, project):
        port = free_port()
        with project.started("dev", "--port", port) as process:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 20)
            process.terminate()
            assert process.wait(6) == 0
        assert re.search(
            r"^tick: the password of the dashboard is \S{12}; TICK_DASHBOARD_PASSWORD sets", project.log, re.MULTILINE
        )
        assert f"tick: the dashboard is at http://127.0.0.1:{port}/dashboard\n" in project.log
        assert f"CRON_SECRET is not set: http://127.0.0.1:{port}/tick answers 503" in project.log

    def test_lets_people_in_with_the_password_that_is_set_and_prints_no_secret(self, project):
        port, secrets = free_port(), {"TICK_DASHBOARD_PASSWORD": "correct horse", "CRON_SECRET": "battery staple 123"}
        with project.started("dev", "--port", port, **secrets) as process:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 20)
            bearer = {"Authorization": "Bearer battery staple 123"}
            assert httpx.get(f"http://127.0.0.1:{port}/tick", headers=bearer, timeout=30).status_code == 200
            process.terminate()
            assert process.wait(6) == 0
        assert f'curl --fail -H "Authorization: Bearer $CRON_SECRET" http://127.0.0.1:{port}/tick' in project.log
        assert "the password of the dashboard" not in project.log
        assert "battery" not in project.log and "horse" not in project.log

    def test_ticks_serves_and_on_sigterm_lets_go_of_its_jobs(self, conn, project):
        done, endless = a_job(conn, "greet", payload={"name": "Ada"}), a_job(conn, "for_ever")
        port = free_port()
        with project.started("dev", "--port", port, "--every", 30) as process:
            wait_until(lambda: job(conn, done)["status"] == "done", 20)
            health = wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 20)
            assert health.json()["status"] == "ok"
            assert job(conn, endless)["status"] == "running"
            process.terminate()
            assert process.wait(6) == 0
        row = job(conn, endless)
        assert (row["status"], row["losses"], row["cuts"]) == ("pending", 0, 0)

    def test_ticks_again_and_again_whatever_a_tick_meets(self, conn, project):
        project.write("schedules.toml", '[schedules.nightly]\ncrom = "0 3 * * *"\n')
        with project.started("dev", "--port", free_port(), "--every", 1, TICK_MODULES="work") as process:
            wait_until(lambda: conn.execute("select count(*) from tick.ticks").fetchone()[0] >= 3, 20)
            assert conn.execute("select distinct trigger, budget from tick.ticks").fetchall() == [("dev", 1.0)]
            process.send_signal(signal.SIGINT)
            assert process.wait(6) == 0
        assert "schedules.nightly.crom" in project.log
        assert "Traceback" not in project.log
