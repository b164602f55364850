"""The command line. Exit codes: 0 done; 1 not so, or not there; 2 wrong usage or settings; 75 no database.

A tick from a crontab is a process that starts, runs and ends, and should not wait for what it does not use: commands
are imported when they are asked for.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .config import LONGEST_BUDGET, check_budget

MIN_INTERVAL = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser(given[0] if given else "").parse_args(given)
    from .commands import NO_DATABASE, NOT_SO, OK, USAGE, complain
    from .errors import DatabaseUnavailable, InvalidTransition, JobNotFound, TickError

    try:
        code = int(options.command(options) or OK)
        sys.stdout.flush()
    except DatabaseUnavailable as error:
        return complain(error, NO_DATABASE)
    except (JobNotFound, InvalidTransition) as error:
        return complain(error, NOT_SO)
    except TickError as error:
        return complain(error, USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return code


def entry() -> None:
    """The command's own process: it ends with its code, at once.

    Python would take down every module first, a sixth of the time of a tick with nothing to do, and wait for the
    threads of an executor, such as `asyncio.to_thread` uses: also for one that a handler left and that does not end.
    """
    # Of what importing makes nothing is garbage; looking for some after every 700 objects is a tenth of the time.
    gc.set_threshold(50_000)
    code = main()
    atexit._run_exitfuncs()  # noqa: SLF001 - the embedded Postgres is stopped by one, and logs are flushed
    _flush()
    os._exit(code)


def _flush() -> None:
    """Write what any open file has buffered, also those that a handler's module keeps open."""
    for each in gc.get_objects():
        if type(each) in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom) and not each.closed:
            with contextlib.suppress(OSError, ValueError):
                each.flush()


# The arguments


def _budget(text: str) -> float:
    try:
        return check_budget(float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds from 1 to {LONGEST_BUDGET:.0f}"
        ) from None


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not MIN_INTERVAL <= seconds <= LONGEST_BUDGET:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {MIN_INTERVAL:g}")
    return seconds


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def parser(command: str = "") -> argparse.ArgumentParser:
    """Every command with its options; for `run-once`, which should not wait for the others, that alone."""
    root = argparse.ArgumentParser(prog="tick", description="Durable, recurring, retried jobs on your Postgres.")
    parsers = root.add_subparsers(required=True, metavar="COMMAND")
    _once_arguments(parsers)
    if command != "run-once":
        for add in (_server_arguments, _overview_arguments, _schedule_arguments, _job_arguments, _key_arguments):
            add(parsers)
    return root


Command = Callable[[argparse.Namespace], int]


def _command(parsers: Any, name: str, function: Command, *, as_json: bool = False) -> argparse.ArgumentParser:
    text = (function.__doc__ or "").strip()
    command: argparse.ArgumentParser = parsers.add_parser(name, help=text, description=text)
    command.set_defaults(command=function)
    if as_json:
        command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _later(name: str, text: str, module: str = "overview") -> Command:
    """A command that is imported when it runs: a tick should not wait for it."""

    def function(options: argparse.Namespace) -> int:
        code: int = getattr(importlib.import_module(f".{module}", __package__), name)(options)
        return code

    function.__doc__ = text
    return function


def _once_arguments(parsers: Any) -> None:
    from . import ticking

    once = _command(parsers, "run-once", ticking.run_once, as_json=True)
    once.add_argument(
        "--budget", type=_budget, metavar="SECONDS", help="how long the tick may take; it goes before TICK_BUDGET"
    )
    once.add_argument("--trigger", default="cli", help="who asks, for the log (default: cli)")
    once.add_argument("--delivery-id", help="the platform's id of this run, for the log")


def _server_arguments(parsers: Any) -> None:
    from . import commands, ticking

    for name, function, host in (("serve", ticking.serve, "0.0.0.0"), ("dev", ticking.dev, "127.0.0.1")):  # noqa: S104 - a server's door
        command = _command(parsers, name, function)
        command.add_argument("--host", default=host)
        # A default that is text is read by `type`, and only when this command runs.
        command.add_argument("--port", type=ticking.port, default=os.environ.get("PORT") or "8000")
    command.add_argument(
        "--every", type=_budget, default=60.0, metavar="SECONDS", help="seconds between ticks (default: 60)"
    )
    command = _command(parsers, "migrate", commands.migrate)
    command.add_argument("--dry-run", action="store_true", help="say what would be applied")
    command.add_argument("--sql", action="store_true", help="print the migrations as SQL")


def _overview_arguments(parsers: Any) -> None:
    text = "How things are, in words and in numbers; exit code 0 when nobody has to do anything."
    _command(parsers, "status", _later("status", text), as_json=True)
    text = "How things are, again and again until q or Ctrl-C; in a pipe once."
    command = _command(parsers, "top", _later("top", text))
    command.add_argument(
        "--interval", type=_interval, default=2.0, metavar="SECONDS", help="between looks (default: 2)"
    )
    text = "Dead jobs by type and kind of error, the latest first."
    command = _command(parsers, "dead", _later("dead", text), as_json=True)
    command.add_argument("--type")
    _dead_replay_arguments(command.add_subparsers(metavar="replay"))
    text = "Delete jobs that have ended long enough ago, and old ticks, now and not bit by bit in ticks."
    command = _command(parsers, "prune", _later("prune", text), as_json=True)
    command.add_argument("--done", metavar="D", help="how long done and cancelled jobs are kept; before [retention]")
    command.add_argument("--dead", metavar="D", help="how long dead jobs are kept")
    command.add_argument("--count", type=_positive, metavar="N", help="how many done jobs of each type are kept")
    _agreement(command)
    text = "The alerts that last, and the latest that are over."
    command = _command(parsers, "alerts", _later("alerts", text), as_json=True)
    command.add_argument("--test", action="store_true", help="tell everybody who is told that alerts arrive")
    text = "What does not fit together in the project, its environment and its database, and how to mend it."
    command = _command(parsers, "doctor", _later("run", text, "doctor"), as_json=True)
    command.add_argument("--offline", action="store_true", help="without a look at the database")


def _dead_replay_arguments(actions: Any) -> None:
    text = "Make dead jobs pending again: all of them, or those of a type, an error or a group."
    command = _command(actions, "replay", _later("dead_replay", text))
    # Given before the word replay, it would be lost to this default.
    command.add_argument("--type", default=argparse.SUPPRESS)
    command.add_argument("--error", metavar="TEXT", help="groups whose last error has this text in it")
    command.add_argument("--group", metavar="ID", help="one group, as `tick dead` calls it")
    _agreement(command)


def _agreement(command: argparse.ArgumentParser) -> None:
    """What a command takes that changes many things at once."""
    command.add_argument("--dry-run", action="store_true", help="say what would be done")
    command.add_argument("--yes", action="store_true", help="do it without asking")


def _schedule_arguments(parsers: Any) -> None:
    from . import commands

    command = _command(parsers, "schedules", commands.schedules, as_json=True)
    command.add_argument("--check", action="store_true", help="only say whether the file can be deployed")
    command.add_argument("--json-schema", action="store_true", help="print the JSON Schema of the file")
    command.add_argument("--file", help="another schedules file")
    command.add_argument("--next", type=_positive, default=3, metavar="N", help="windows of each (default: 3)")
    text = "The schedules of the file that last ticked: how their last windows ended, and when the next is."
    command.add_argument(
        "--status", dest="command", action="store_const", const=_later("schedules_status", text), help=text
    )
    actions = command.add_subparsers(metavar="run-now|pause|resume|explain")
    _command(actions, "run-now", commands.run_now, as_json=True).add_argument("name")
    for name, function in (("pause", commands.pause), ("resume", commands.resume)):
        _command(actions, name, function).add_argument("name", nargs="+")
    text = "Why a schedule did, or did not, run at an instant."
    command = _command(actions, "explain", _later("schedules_explain", text), as_json=True)
    command.add_argument("name")
    command.add_argument(
        "at", help="2026-03-29T02:30 in the schedule's zone, with an offset or Z, or 02:30 for the last"
    )
    text = "What the schedules file would change in the database, before it is deployed; exit code 1 when it cannot be."
    command = _command(parsers, "plan", _later("plan", text), as_json=True)
    command.add_argument("--file", help="another schedules file")
    command = _command(parsers, "windows", commands.windows, as_json=True)
    command.add_argument("cron")
    command.add_argument("--timezone", default="UTC", metavar="TZ")
    command.add_argument("--after", required=True, metavar="T", help="exclusive")
    command.add_argument("--until", required=True, metavar="T", help="inclusive")


def _job_arguments(parsers: Any) -> None:
    from . import commands

    jobs = parsers.add_parser("jobs", help="List, show, replay, cancel and run jobs.")
    actions = jobs.add_subparsers(required=True, metavar="list|show|replay|cancel|run-now")
    command = _command(actions, "list", commands.jobs_list, as_json=True)
    _filter_arguments(command)
    command.add_argument("--before", type=_positive, metavar="ID", help="the jobs after this one in the list")
    command.add_argument("--limit", type=_positive, default=50)
    command = _command(actions, "show", commands.jobs_show, as_json=True)
    command.add_argument("id", type=_positive)
    command.add_argument("--show-secrets", action="store_true", help="do not mask what looks like a secret")
    for name, function in (("replay", commands.jobs_replay), ("cancel", commands.jobs_cancel)):
        command = _command(actions, name, function)
        command.add_argument("id", type=_positive, nargs="*")
        _filter_arguments(command)
        _agreement(command)
    replay = actions.choices["replay"]
    replay.add_argument("--error", metavar="KIND", help="dead jobs of the type, as `error` of `tick dead --json`")
    replay.add_argument("--payload", metavar="JSON", help="replay one job with this payload")
    _command(actions, "run-now", commands.jobs_run_now).add_argument("id", type=_positive, nargs="+")
    _enqueue_arguments(parsers)


def _filter_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--status", choices=("pending", "running", "done", "dead", "cancelled"))
    for name in ("type", "key", "schedule"):
        command.add_argument(f"--{name}")
    command.add_argument("--search", metavar="TEXT", help="in payloads and errors, whatever its case")


def _enqueue_arguments(parsers: Any) -> None:
    from . import commands
    from .options import KEY_ORDERS, ON_CONFLICTS

    command = _command(parsers, "enqueue", commands.enqueue, as_json=True)
    command.add_argument("type")
    command.add_argument("payload", nargs="?", default="{}", metavar="JSON")
    for name, text in (("run-at", "an instant"), ("delay", 'such as "10m"'), ("key", "one running job per key"),
                       ("idempotency-key", "the same key, the same job"), ("max-wait", "with --on-conflict postpone"),
                       ("throttle", "at most one job of the type and key in each such period"),
                       ("timeout", "how long an attempt may take"), ("callback-url", "is told how the job ended"),
                       ("on-dead-url", "is told when it is dead")):  # fmt: skip
        command.add_argument(f"--{name}", help=text)
    command.add_argument("--key-order", choices=KEY_ORDERS)
    command.add_argument("--on-conflict", choices=ON_CONFLICTS, help="what becomes of the job that is there")
    command.add_argument("--priority", type=int)
    command.add_argument("--max-attempts", type=_positive)


def _key_arguments(parsers: Any) -> None:
    from . import commands

    text = "Make, list and revoke keys for the API."
    keys = parsers.add_parser("api-keys", help=text, description=text)
    actions = keys.add_subparsers(required=True, metavar="create|list|revoke")
    command = _command(actions, "create", commands.api_keys_create, as_json=True)
    command.add_argument("name", help="what it is for")
    command.add_argument("--scope", action="append", required=True, choices=("enqueue", "read", "admin"))
    command.add_argument("--expires", metavar="D", help='after how long, such as "90d" (default: never)')
    _command(actions, "list", commands.api_keys_list, as_json=True)
    _command(actions, "revoke", commands.api_keys_revoke).add_argument("id")


if __name__ == "__main__":
    entry()
