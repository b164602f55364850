"""Status, top, dead, prune, plan, alerts, and what is asked of jobs and schedules: as commands, on a real database."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import psycopg
import pytest

import tick
from tests.factories import a_job, job, jobs, move_clock, statuses
from tests.factories import tick as run_tick
from tick import cli, overview

REPOSITORY = Path(__file__).parents[1]
FOREIGN = ("TICK_", "DATABASE_URL", "CRON_SECRET", "PORT", "FORCE_COLOR")


class Terminal:
    """Runs commands in the folder of the test, in this process, with the handlers that the test has registered."""

    def __init__(self, settings, capsys) -> None:
        self.settings = settings
        self._capsys = capsys
        self.err = ""

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """What a command prints; it must end with this exit code."""
        self._capsys.readouterr()
        try:
            ended = cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            ended = stopped.code
        said = self._capsys.readouterr()
        self.err = said.err
        assert ended == code, f"exit code {ended}\n{said.out}\n{said.err}"
        assert "\x1b" not in said.out + said.err
        return said.out

    def json(self, *arguments: object, code: int = 0):
        return json.loads(self(*arguments, "--json", code=code))

    def write(self, text: str, name: str = "schedules.toml") -> Path:
        path = self.settings.root / name
        path.write_text(text)
        return path


@pytest.fixture
def run(settings, monkeypatch, capsys, empty_registry) -> Terminal:
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.chdir(settings.root)
    (settings.root / "pyproject.toml").write_text("")

    @tick.job(max_attempts=1)
    async def send_invoice(order: int) -> None:
        raise ValueError(f"order {order} refused, password=hunter2")

    @tick.job
    async def digest(day: str = "mon") -> None: ...

    return Terminal(settings, capsys)


class TestStatus:
    def test_of_a_database_that_has_never_ticked_says_what_to_do_next(self, run):
        said = run("status", code=1)
        assert said.startswith("Never ticked") and "Run `tick run-once`" in said and "no ticks" in said

    def test_when_all_is_well_is_exit_code_0(self, conn, run):
        run_tick(run.settings)
        conn.execute(
            "update tick.ticks set trigger = 'vercel'; insert into tick.ticks (id, trigger, started_at, finished_at, budget, used)"
            " select gen_random_uuid(), 'vercel', tick.now() - n * interval '1 minute', tick.now() - n * interval '1 minute', 50, 0"
            " from generate_series(1, 5) n"
        )
        a_job(conn, run_at="+3 hours")
        said = run("status").splitlines()
        assert said[0] == "All is well: ticks come every minute, nothing is due."
        assert said[2].startswith("0 due · 0 running · 1 later, the next in 2 h · 0 dead")
        assert said[4].split() == ["TICK", "TRIGGER", "LATE", "USED", "DID"]
        assert said[5].split()[:2] == ["just", "now"] and said[5].endswith("nothing to do")

    def test_in_json(self, conn, run):
        a_job(conn, "send_invoice", payload={"order": 1})
        run_tick(run.settings)
        said = run.json("status", code=1)
        assert (said["state"], said["healthy"], said["queue"]["dead"]) == ("warning", False, 1)
        assert said["headline"].startswith("1 job is dead")
        assert (said["ticks"][0]["trigger"], said["ticks"][0]["dead"]) == ("cli", 1)

    def test_after_handlers_that_cannot_be_loaded_is_told_all_the_same(self, run, monkeypatch):
        run_tick(run.settings)
        run.write("raise RuntimeError('no')\n", "broken_work.py")
        monkeypatch.setenv("TICK_MODULES", "broken_work")
        said = run("status", code=1)
        assert said.startswith(
            "The handlers cannot be loaded: broken_work.py:1: RuntimeError: no (module `broken_work`"
        )
        assert "\n- One tick so far" in said
        assert run.json("status", code=1)["state"] == "critical"

    def test_tells_ticks_that_run_from_those_that_were_killed(self, conn, run):
        run_tick(run.settings)
        conn.execute(
            "insert into tick.ticks (id, trigger, budget, started_at) values"
            " (gen_random_uuid(), 'cli', 50, tick.now() - interval '26 s'),"
            " (gen_random_uuid(), 'cli', 10, tick.now() - interval '27 s')"
        )
        lines = [line.split("  ")[-1].strip() for line in run("status").splitlines()[-3:]]
        assert lines[0] == "nothing to do" and lines[1].startswith("running for ") and lines[2] == "killed"
        assert "ticks  x>.\n" in run("top")

    def test_without_a_database_is_exit_code_75(self, run, monkeypatch):
        monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/d")
        run("status", code=75)


class TestTop:
    def test_in_a_pipe_is_one_picture(self, conn, run):
        a_job(conn, "send_invoice", payload={"order": 1})
        run_tick(run.settings)
        a_job(conn, "digest", "running", started_at="-12 minutes", progress={"done": 3, "total": 1200, "note": "rows"})
        said = run("top")
        assert said.startswith("1 job is dead")
        assert "ticks  #" in said
        lines = [" ".join(line.split()) for line in said.splitlines()]
        assert any(line.endswith("digest 12 min 1 3 of 1,200 rows") for line in lines)
        assert any(line.startswith("send_invoice 0 0 1") for line in lines)
        assert "hunter2" not in said
        assert all(line == line.rstrip() for line in said.splitlines())

    def test_the_mean_is_over_every_attempt_that_ran(self, conn, run):
        conn.execute(
            "insert into tick.stats (span, at, type, done, released, lost, run_seconds, runs, waits)"
            " values (60, date_trunc('minute', tick.now()), 'digest', 1, 1, 5, 20, '{2}', '{2}')"
        )
        assert "digest  1     0        0     10 s" in run("top")

    def test_of_nothing_says_so(self, run):
        said = run("top")
        assert "nothing runs" in said and "nothing has run" in said and "nothing is dead" in said

    def test_the_strip_shows_what_ticks_did_and_where_they_are_missing(self, conn, run):
        for at, columns in (
            ("-20 minutes", {"error": "no"}),
            ("-10 minutes", {"dead": 1}),
            ("-9 minutes", {"retried": 1}),
            ("-8 minutes", {"claimed": 1}),
            ("-7 minutes", {}),
        ):
            names = "".join(f", {name}" for name in columns)
            conn.execute(
                f"insert into tick.ticks (id, trigger, budget, used, started_at, finished_at{names})"
                f" values (gen_random_uuid(), 'vercel', 50, 1, now() + %s, now(){', %s' * len(columns)})",
                [at, *columns.values()],
            )
        assert "ticks  x  ###.\n" in run("top")

    @pytest.mark.parametrize("interval", ["0", "-1", "nan", "often"])
    def test_an_interval_that_is_none_is_wrong_usage(self, run, interval):
        run("top", f"--interval={interval}", code=2)

    def test_on_a_terminal_goes_on_until_q(self, run):
        pid, terminal = pty.fork()
        if not pid:
            os.environ |= {"TERM": "xterm-256color", "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
            os.execv(sys.executable, [sys.executable, "-m", "tick.cli", "top", "--interval", "0.2"])
        seen, end = b"", time.monotonic() + 30
        while seen.count(b"nothing is dead") < 3 and time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                seen += os.read(terminal, 65_536)
        os.write(terminal, b"q")
        while select.select([terminal], [], [], 10)[0]:
            try:
                seen += os.read(terminal, 65_536)
            except OSError:
                break
        assert os.waitpid(pid, 0)[1] == 0, seen
        os.close(terminal)
        assert seen.count(b"nothing is dead") >= 3 and b"\x1b[?1049l" in seen


def on_a_terminal(*arguments: object, columns: int = 80) -> str:
    """What a command writes to a terminal of so many columns, without tick's own colours."""
    primary, secondary = pty.openpty()
    termios.tcsetwinsize(secondary, (40, columns))
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tick.cli", *map(str, arguments)]
    process = subprocess.Popen(command, env=env, stdin=secondary, stdout=secondary, stderr=secondary)
    os.close(secondary)
    seen = b""
    with contextlib.suppress(OSError):  # a terminal that nobody writes to any more is an error of input
        while part := os.read(primary, 65536):
            seen += part
    os.close(primary)
    process.wait(60)
    return re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).replace("\r\n", "\n")


class TestTerminal:
    """Nothing that a job says is obeyed by a terminal, and what is shown fits it."""

    EVIL = "Boom: \x1b]0;PWNED\x07\x9b31m red\nfaked   line"

    @pytest.fixture
    def evil(self, conn) -> int:
        id = a_job(conn, "send_invoice", "dead", last_error=self.EVIL, fingerprint=self.EVIL, payload={"a": "\x9b31m"})
        error = {"at": "2026-01-01T00:00:00Z", "attempt": 1, "error": self.EVIL, "traceback": f"first\n{self.EVIL}"}
        conn.execute("update tick.jobs set errors = %s where id = %s", [json.dumps([error]), id])
        return id

    @pytest.mark.parametrize("command", ["jobs list", "jobs show 1", "dead", "top", "status"])
    def test_gets_no_control_character_of_an_error(self, run, evil, command):
        said = run(*command.split(), code=1 if command == "status" else 0)
        assert not any(ord(letter) < 32 and letter != "\n" or 127 <= ord(letter) < 160 for letter in said)
        assert command == "status" or r"\x1b]0;PWNED" in said

    @pytest.mark.parametrize("command", ["jobs list", "jobs show 1", "dead"])
    def test_that_is_one_gets_none_either(self, run, evil, command):
        said = on_a_terminal(*command.split(), columns=160)
        assert r"\x1b]0;PWNED" in said
        assert "\x1b]" not in said and "\x07" not in said and "\x9b" not in said

    def test_of_80_columns_has_a_line_for_each_job(self, conn, run):
        long = "ConnectionError: the server at mail.example.com refused the connection for the third time"
        a_job(conn, "send_invoice_to_customer", "dead", attempt=3, failures=2, losses=1, last_error=long)
        a_job(conn, "digest", run_at="+3 hours")
        lines = on_a_terminal("jobs", "list").splitlines()
        assert lines[0].split() == ["id", "type", "status", "attempts", "when", "last", "error"]
        assert len(lines) == 3 and all(len(line) <= 80 for line in lines)
        assert lines[1].split()[:3] == ["2", "digest", "pending"] and " in 2 h " in lines[1]
        assert lines[2].startswith("1   send_invoice_to_customer  dead     3, 2 failed")
        assert lines[2].rstrip().endswith("…")


class TestDead:
    @pytest.fixture(autouse=True)
    def some_dead(self, conn):
        for number in range(3):
            a_job(conn, "send_invoice", "dead", last_error=f"order {number} refused", fingerprint="order # refused")
        a_job(
            conn,
            "send_invoice",
            "dead",
            last_error="token=abc123 is bad",
            fingerprint="token=abc# is bad",
            finished_at="-1 hour",
        )
        a_job(conn, "digest", "dead", last_error="no day", fingerprint="no day", finished_at="-2 hours")

    def test_is_grouped_by_type_and_error_the_latest_first(self, run):
        head, *lines = [line.split() for line in run("dead").splitlines()]
        assert head == ["GROUP", "TYPE", "JOBS", "FIRST", "LAST", "ERROR"]
        assert [line[1:3] for line in lines] == [["send_invoice", "3"], ["send_invoice", "1"], ["digest", "1"]]
        groups = run.json("dead", "--type", "send_invoice")
        assert [(group["count"], group["fingerprint"]) for group in groups] == [
            (3, "order # refused"),
            (1, None),
        ]
        assert groups[0]["group"] == lines[0][0]

    def test_nothing_says_so(self, conn, run):
        conn.execute("delete from tick.jobs")
        assert run("dead") == "nothing is dead\n"
        assert run.json("dead") == []
        assert run("dead", "replay", "--yes") == "no jobs match: nothing to replay\n"

    def test_replay_of_a_group_an_error_a_type_or_all(self, conn, run):
        group = run.json("dead", "--type", "digest")[0]["group"]
        assert run("dead", "replay", "--group", group, "--yes") == "1 dead: digest\n1 replayed\n"
        assert run("dead", "replay", "--error", "ORDER", "--yes") == "3 dead: send_invoice\n3 replayed\n"
        assert run("dead", "replay", "--type", "digest", "--yes") == "no jobs match: nothing to replay\n"
        assert run("dead", "replay", "--yes").endswith("1 replayed\n")
        assert statuses(conn) == {"pending": 5}

    def test_replay_of_a_group_that_is_not_there_is_exit_code_1(self, run):
        run("dead", "replay", "--group", "zzz", "--yes", code=1)
        assert run.err == "tick: there is no group zzz of dead jobs: see `tick dead`\n"

    def test_a_type_may_be_given_before_the_word_replay(self, conn, run):
        run("dead", "--type", "digest", "replay", "--yes")
        assert statuses(conn) == {"pending": 1, "dead": 4}

    def test_replay_asks_first_and_in_a_pipe_wants_yes(self, conn, run):
        assert run("dead", "replay", "--dry-run") == "4 dead: send_invoice\n1 dead: digest\n"
        run("dead", "replay", code=2)
        assert "Replay 5 jobs? Nobody can be asked here: say --yes" in run.err
        assert statuses(conn) == {"dead": 5}

    @pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 1, 5), ("", 1, 5)])
    def test_a_person_is_asked_and_believed(self, conn, run, monkeypatch, answer, code, left):
        for stream in (sys.stdin, sys.stdout):
            monkeypatch.setattr(stream, "isatty", lambda: True)
        monkeypatch.setattr("builtins.input", lambda question: answer)
        run("dead", "replay", code=code)
        assert statuses(conn).get("dead", 0) == left


class TestJobsByFilter:
    def test_list_finds_by_key_schedule_and_text(self, conn, run):
        a_job(conn, key="k")
        a_job(conn, payload={"order": "Ångström 50%"})
        a_job(conn, "send_invoice", "dead", last_error="no such account", schedule="nightly")
        assert [row["id"] for row in run.json("jobs", "list", "--key", "k")] == [1]
        assert [row["id"] for row in run.json("jobs", "list", "--search", "ångström 50%")] == [2]
        assert [row["id"] for row in run.json("jobs", "list", "--search", "such acc")] == [3]
        assert [row["id"] for row in run.json("jobs", "list", "--schedule", "nightly")] == [3]

    def test_list_goes_on_before_a_job(self, conn, run):
        for number in range(6):
            a_job(conn, status="dead", finished_at=f"-{number} minutes")
        assert [row["id"] for row in run.json("jobs", "list", "--limit", 2)] == [6, 5]
        assert [row["id"] for row in run.json("jobs", "list", "--limit", 2, "--before", 5)] == [4, 3]
        assert [row["id"] for row in run.json("jobs", "list", "--status", "dead", "--limit", 2)] == [1, 2]
        assert [row["id"] for row in run.json("jobs", "list", "--status", "dead", "--limit", 2, "--before", 2)] == [
            3,
            4,
        ]
        run("jobs", "list", "--status", "pending", "--before", 2, code=2)
        assert "raise --limit" in run.err
        run("jobs", "list", "--status", "dead", "--before", 99, code=1)

    def test_list_looks_so_far_and_says_how_far(self, conn, run, monkeypatch):
        from tick.dashboard import filters

        monkeypatch.setattr(filters, "_NEWEST", filters._NEWEST._replace(look=40))
        jobs(conn, "rare")
        jobs(conn, "common", 50)
        assert run.json("jobs", "list", "--type", "rare") == []
        assert "these are those since " in run.err and "go on with --before 12 to look further back" in run.err
        assert [row["id"] for row in run.json("jobs", "list", "--type", "rare", "--before", 12)] == [1]
        assert run.err == ""

    def test_replay_and_cancel_all_that_match(self, conn, run):
        for status in ("dead", "dead", "cancelled", "pending"):
            a_job(conn, "digest", status, key="k" if status == "dead" else None)
        assert run("jobs", "replay", "--type", "digest", "--yes") == "2 dead: digest\n2 replayed\n"
        assert run("jobs", "replay", "--status", "cancelled", "--dry-run") == "1 cancelled: digest\n"
        assert run("jobs", "cancel", "--key", "k", "--yes") == "2 pending: digest\n2 cancelled\n"
        assert statuses(conn) == {"cancelled": 3, "pending": 1}

    def test_replay_of_one_kind_of_error(self, conn, run):
        a_job(conn, "digest", "dead", last_error="no day", fingerprint="no day")
        a_job(conn, "digest", "dead", last_error="no night", fingerprint="no night")
        run("jobs", "replay", "--error", "no day", code=2)
        assert "say --type too" in run.err
        run("jobs", "replay", "--type", "digest", "--error", "no day", "--yes")
        assert job(conn, 1)["status"] == "pending" and job(conn, 2)["status"] == "dead"
        (group,) = run.json("dead")
        run("jobs", "replay", "--type", "digest", "--error", group["error"], "--yes")
        assert job(conn, 2)["status"] == "pending"

    def test_what_says_nothing_or_two_things_is_refused(self, conn, run):
        for arguments, said in {
            ("replay",): "say which jobs to replay: their ids, or a filter such as --type",
            ("cancel", "1", "--type", "digest"): "say which jobs to cancel",
            ("cancel", "--status", "dead"): "only pending or running jobs can be cancelled",
            ("replay", "--payload", "{}"): "--payload is for one job",
        }.items():
            run("jobs", *arguments, code=2)
            assert said in run.err

    def test_more_than_one_command_changes_are_done_by_the_next(self, conn, run, monkeypatch):
        from tick import commands

        monkeypatch.setattr(commands, "MOST_CHANGED", 3)
        for _ in range(5):
            a_job(conn, "digest", "dead")
        assert run("jobs", "replay", "--type", "digest", "--yes") == "3 dead: digest; and there are more\n3 replayed\n"
        assert "run it again to replay the next" in run.err
        assert statuses(conn) == {"pending": 3, "dead": 2}

    def test_what_has_changed_by_then_is_told(self, conn, run, monkeypatch, url):
        a_job(conn, "digest", "dead")
        a_job(conn, "digest", "dead")

        def somebody_is_faster(*_: object, **__: object) -> bool:
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("delete from tick.jobs where id = 1")
            return True

        monkeypatch.setattr("tick.commands.confirmed", somebody_is_faster)
        assert run("jobs", "replay", "--type", "digest").endswith("1 replayed; 1 had changed by then\n")

    def test_run_now_makes_pending_ones_due(self, conn, run):
        later, done = a_job(conn, run_at="+1 hour"), a_job(conn, status="done")
        assert run("jobs", "run-now", later, done, code=1) == f"job {later} due now\n"
        assert f"job {done} is done: only a job that is pending can be made due" in run.err
        assert conn.execute("select run_at <= now() from tick.jobs where id = %s", [later]).fetchone() == (True,)


class TestEditAndReplay:
    def test_replays_with_another_payload(self, conn, run):
        id = a_job(conn, "digest", "dead", payload={"dya": "mon"})
        assert run("jobs", "replay", id, "--payload", '{"day": "tue"}') == f"job {id} replayed with another payload\n"
        row = job(conn, id)
        assert (row["status"], row["payload"], row["failures"]) == ("pending", {"day": "tue"}, 0)

    @pytest.mark.parametrize(
        ("payload", "said"),
        [('{"day": 5}', "Expected `str`, got `int`"), ("[1]", "it is not a JSON object"), ("{", "it is not JSON")],
    )
    def test_of_what_does_not_fit_changes_nothing(self, conn, run, payload, said):
        id = a_job(conn, "digest", "dead")
        run("jobs", "replay", id, "--payload", payload, code=2)
        assert said in run.err
        assert job(conn, id)["status"] == "dead"

    def test_of_a_job_that_is_not_dead_or_not_there_or_of_no_handler(self, conn, run):
        pending, other = a_job(conn, "digest"), a_job(conn, "elsewhere", "dead")
        run("jobs", "replay", pending, "--payload", "{}", code=1)
        assert "only a job that is dead or cancelled can be replayed" in run.err
        run("jobs", "replay", 99, "--payload", "{}", code=1)
        run("jobs", "replay", other, "--payload", "{}", code=2)
        assert "no handler has the type 'elsewhere'" in run.err


class TestShow:
    def test_masks_secrets_unless_it_is_told_not_to(self, conn, run):
        id = a_job(conn, "digest", payload={"day": "mon", "api_key": "s3cret"}, last_error="postgres://u:hunter2@h/d")
        for arguments in ((), ("--json",)):
            said = run("jobs", "show", id, *arguments)
            assert "s3cret" not in said and "hunter2" not in said and "mon" in said
        assert "s3cret" in run("jobs", "show", id, "--show-secrets")

    def test_leaves_out_what_says_nothing(self, conn, run):
        said = run("jobs", "show", a_job(conn, "digest"))
        for name in ("awaited", "waits", "strict_key", "losses", "inputs"):
            assert f"\n{name} " not in said
        assert "losses" in run("jobs", "show", a_job(conn, "digest", losses=2))

    def test_lists_without_secrets_too(self, conn, run):
        a_job(conn, "digest", "dead", last_error="password=hunter2\nsecond line")
        assert "hunter2" not in run("jobs", "list")
        assert run.json("jobs", "list")[0]["last_error"].startswith("password=••••••")


NIGHTLY = '[schedules.nightly]\ntype = "digest"\ncron = "0 3 * * *"\n'


class TestSchedules:
    def test_status_shows_what_is_deployed(self, conn, run):
        run.write(NIGHTLY + '[schedules.off]\ntype = "digest"\nenabled = false\n')
        assert run("schedules", "--status") == "no tick has seen a schedule\n"
        move_clock(conn, "2026-05-01T00:00Z")
        run_tick(run.settings)
        move_clock(conn, "2026-05-01T03:00Z")
        run_tick(run.settings)
        head, nightly, off = run("schedules", "--status").splitlines()
        assert head.split() == ["SCHEDULE", "WHEN", "STATE", "LAST", "NEXT"]
        cells = [cell.strip() for cell in nightly.split("  ") if cell]
        assert cells == ["nightly", "At 03:00, every day (UTC)", "on", "done (job 1), just now", "in 1 day"]
        assert off.split() == ["off", "Only", "by", "hand", "disabled", "-", "-"]
        row = run.json("schedules", "--status")[0]
        assert (row["state"], row["last"]["status"], row["next_window"]) == ("on", "done", "2026-05-02T03:00:00+00:00")

    def test_pages_are_put_together(self, conn, run, monkeypatch):
        monkeypatch.setattr(overview, "PAGE", 2)
        run.write("".join(f'[schedules.s{n}]\ntype = "digest"\nevery = "1h"\n' for n in range(5)))
        run_tick(run.settings)
        assert [row["schedule"] for row in run.json("schedules", "--status")] == ["s0", "s1", "s2", "s3", "s4"]

    def test_pause_and_resume(self, conn, run):
        run.write(NIGHTLY)
        run_tick(run.settings)
        assert run("schedules", "pause", "nightly", "other", code=1) == "nightly paused\n"
        assert "no tick has seen a schedule 'other'" in run.err
        (paused,) = conn.execute("select paused_by from tick.schedules where paused and paused_at <= now()").fetchone()
        assert paused.startswith("cli (")
        assert "paused" in run("schedules", "--status")
        assert run("schedules", "resume", "nightly") == "nightly resumed\n"
        assert conn.execute("select paused, paused_at, paused_by from tick.schedules").fetchone() == (False, None, None)

    def test_pausing_again_keeps_since_when_and_by_whom(self, conn, run):
        run.write(NIGHTLY)
        run_tick(run.settings)
        conn.execute("update tick.schedules set paused = true, paused_at = '2026-01-01', paused_by = 'Ada'")
        run("schedules", "pause", "nightly")
        assert conn.execute("select paused_at < '2026-02-01', paused_by from tick.schedules").fetchone() == (
            True,
            "Ada",
        )

    def test_explain_says_why(self, conn, run):
        run.write(NIGHTLY)
        move_clock(conn, "2026-05-01T00:00Z")
        run_tick(run.settings)
        assert run("schedules", "explain", "nightly", "2026-05-01T03:00") == (
            "It has not come yet: Fri 2026-05-01 03:00 UTC is in 3 h.\n"
        )
        assert run.json("schedules", "explain", "nightly", "2026-05-01T04:00")["outcome"] == "no window"
        run("schedules", "explain", "nightli", "03:00", code=2)
        assert "did you mean 'nightly'?" in run.err
        run("schedules", "explain", "nightly", "soon", code=2)
        assert "'soon' is not an instant" in run.err


class TestPlan:
    BEFORE = """
        [limits.digest]
        concurrency = 5
        [schedules.same]
        type = "digest"
        every = "1h"
        [schedules.moved]
        type = "digest"
        cron = "0 3 * * *"
        [schedules.told]
        type = "digest"
        cron = "0 4 * * *"
        [schedules.gone]
        type = "digest"
        cron = "0 5 * * *"
    """
    AFTER = """
        [limits.digest]
        concurrency = 6
        [retention]
        done = "10d"
        [schedules.same]
        type = "digest"
        every = "1h"
        [schedules.moved]
        type = "digest"
        cron = "0 3 * * mon"
        [schedules.told]
        type = "digest"
        cron = "0 4 * * *"
        payload = { day = "tue" }
        [schedules.new]
        type = "digest"
        cron = "0 6 * * *"
        timezone = "Europe/Paris"
    """

    @pytest.fixture(autouse=True)
    def deployed(self, conn, run):
        conn.execute("insert into tick.chores (name, due_at) values ('prune', 'infinity')")
        run.write(self.BEFORE)
        move_clock(conn, "2026-05-01T00:00Z")
        run_tick(run.settings)

    def test_of_what_is_deployed_is_nothing(self, run):
        assert run("plan") == "schedules.toml: 0 added, 0 changed, 0 removed, 4 unchanged, no problems\n"

    def test_says_what_is_added_changed_and_removed_and_what_that_does(self, conn, run):
        a_job(conn, "digest", schedule="gone", run_at="+1 hour")
        run.write(self.AFTER)
        assert run("plan").splitlines() == [
            "+ new: At 06:00, every day (Europe/Paris); next Fri 2026-05-01 06:00 CEST (2026-05-01T04:00Z)",
            '~ moved: cron "0 3 * * *" -> "0 3 * * mon": it starts anew from the first tick that sees it; next Mon 2026-05-04 03:00 UTC',
            '~ told: payload {} -> {"day": "tue"}: from the next window on',
            "- gone: no more windows; 1 job of it will still run",
            "~ limits type digest: concurrency 5 -> 6",
            "~ settings retention: done none -> 864000.0",
            "schedules.toml: 1 added, 2 changed, 1 removed, 1 unchanged, no problems",
        ]

    def test_says_nothing_of_retention_where_pruning_was_switched_off(self, conn, run):
        conn.execute("delete from tick.chores")
        run.write(self.AFTER)
        assert "retention" not in run("plan")

    def test_is_what_then_happens(self, conn, run):
        run.write(self.AFTER)
        move_clock(conn, "2026-05-01T00:01Z")
        run_tick(run.settings)
        assert run("plan").startswith("schedules.toml: 0 added, 0 changed, 0 removed, 4 unchanged")

    def test_of_another_file_in_json(self, run):
        run.write(self.AFTER, "other.toml")
        said = run.json("plan", "--file", "other.toml")
        assert [row["schedule"] for row in said["added"]] == ["new"]
        assert said["changed"][0]["keys"] == {"cron": {"from": "0 3 * * *", "to": "0 3 * * mon"}}
        assert said["removed"] == [{"schedule": "gone", "pending": 0}]

    def test_that_cannot_be_deployed_is_exit_code_1_and_says_why(self, run):
        run.write('[schedules.new]\ntype = "digst"\ncron = "0 9 13 * fri"\n')
        assert run("plan", code=1).endswith("1 added, 0 changed, 4 removed, 0 unchanged, 1 problem\n")
        assert "schedules.new.type: no handler has the type 'digst'; did you mean 'digest'?" in run.err
        assert "warning: new: it has a day-of-month `13` and a day-of-week `fri`" in run.err

    def test_of_a_file_that_is_broken_or_not_there_is_wrong_usage(self, run):
        run.write("[schedules.new]\ncrom = 1\n")
        run("plan", code=2)
        run("plan", "--file", "nowhere.toml", code=2)
        assert "nowhere.toml: there is no such file" in run.err


class TestPrune:
    @pytest.fixture(autouse=True)
    def some_old(self, conn):
        for status, age in (("done", 40), ("done", 5), ("cancelled", 40), ("dead", 100), ("dead", 40)):
            a_job(conn, "digest", status, created_at=f"-{age + 1} days", finished_at=f"-{age} days")

    def test_deletes_what_is_old(self, conn, run):
        assert run("prune", "--dry-run").startswith("3 jobs would be deleted, of ")
        assert statuses(conn) == {"done": 2, "cancelled": 1, "dead": 2}
        assert run("prune", "--yes").startswith("3 jobs and 0 ticks deleted, of ")
        assert statuses(conn) == {"done": 1, "dead": 1}

    def test_by_ages_of_its_own(self, conn, run):
        said = run.json("prune", "--done", "3d", "--dead", "200d", "--dry-run")
        assert (said["jobs"], said["ticks"], said["dry_run"]) == (3, 0, True)
        run("prune", "--done", "3d", "--dead", "200d", "--yes")
        assert statuses(conn) == {"dead": 2}

    def test_by_what_the_file_says_which_the_ticks_go_by(self, conn, run):
        run.write('[retention]\ndone = "2d"\ncancelled = "3d"\ndead = "300d"\n')
        conn.execute("insert into tick.chores (name, due_at) values ('prune', 'infinity')")
        run_tick(run.settings)
        run("prune", "--yes")
        assert statuses(conn) == {"dead": 2}

    def test_asks_first(self, conn, run):
        run("prune", code=2)
        assert "Delete 3 jobs and old ticks? What waits for a dead one is cancelled. Nobody can be asked" in run.err
        assert sum(statuses(conn).values()) == 5
        run("prune", "--done", "soon", "--yes", code=2)
        assert '"soon" is not a duration' in run.err


class TestAlerts:
    def test_lists_those_that_last_and_those_that_are_over(self, conn, run):
        assert run("alerts") == "no alerts\n"
        conn.execute(
            "insert into tick.alerts (rule, subject, since, seen_at, told_at, ended_at, count) values"
            " ('dead', 'send_invoice', now() - interval '5 min', now(), now(), null, 12),"
            " ('backlog', '', now() - interval '2 days', now(), null, now() - interval '1 day', 1)"
        )
        head, first, second = [line.split() for line in run("alerts").splitlines()]
        assert head == ["ALERT", "OF", "SINCE", "OVER", "COUNT", "TOLD"]
        assert first[:2] == ["dead", "send_invoice"] and second[0] == "backlog"
        assert [row["rule"] for row in run.json("alerts")] == ["dead", "backlog"]

    def test_a_test_message_is_a_job_for_each_that_is_told(self, conn, run):
        run.write('[alerts]\nslack = "https://hooks.example.com/x"\nemail = "ada@example.com"\n')
        assert run("alerts", "--test").splitlines()[0] == "the next tick tells everybody: job 1, job 2"
        assert conn.execute("select distinct type, status from tick.jobs").fetchall() == [("tick.alert", "pending")]

    def test_a_test_without_anybody_to_tell_says_what_to_write(self, run):
        run("alerts", "--test", code=2)
        assert "[alerts]" in run.err


def test_doctor_is_a_command(run):
    (code,) = {cli.main(["doctor", "--offline"]), cli.main(["doctor", "--offline", "--json"])}
    assert code in (0, 1)
