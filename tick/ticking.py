"""The commands that tick: once, behind an endpoint, or on every minute of a developer's day."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from . import handlers, logs, platforms
from .commands import (
    BLOCKED,
    OK,
    USAGE,
    complain,
    load_handlers,
    log_to_stderr,
    migrate_now,
    read,
    settings_with_database,
)
from .config import GRACE, Settings

if TYPE_CHECKING:
    from .places import Stop
    from .processor import Report

HIGHEST_PORT = 65_535

# tick run-once


def run_once(options: argparse.Namespace) -> int:
    """One tick here and now; its report."""
    log_to_stderr(tells_ticks=True)
    settings = settings_with_database()
    budget = options.budget or platforms.budget(settings)
    registry = load_handlers(settings, max(budget, platforms.budget(settings)))
    progress, has_ended = _Progress(options.json), False
    try:
        _tick_in_its_own_loop(settings, registry, budget, options, progress)
        has_ended = True
    finally:
        # Also when the schedules file is this tick's error: jobs that were pending were run all the same.
        if progress.report is not None:
            _print_report(progress.report, options.json, has_ended=has_ended)
    if progress.report and progress.report.left:
        _tell_of_unhandled(settings, registry)
    return OK


def _tell_of_unhandled(settings: Settings, registry: handlers.Registry) -> None:
    """Say which due jobs wait for a handler that this project does not have: no tick of it will ever run them."""
    from . import facts

    (rows,) = read(settings, facts.unhandled(registry.types))
    if rows:
        types = ", ".join(f"{row['type']} ({row['count']})" for row in rows)
        print(f"tick: due, but without a handler here: {types}", file=sys.stderr)


def _tick_in_its_own_loop(
    settings: Settings, registry: handlers.Registry, budget: float, options: argparse.Namespace, progress: _Progress
) -> None:
    """Run the tick, and leave the loop without waiting for handlers that did not stop, as asyncio.run would."""
    from .places import Stop
    from .processor import process_tick
    from .queue import Trigger

    stop, loop = Stop(), asyncio.new_event_loop()
    loop.set_exception_handler(
        lambda loop, context: None if "task" in context else loop.default_exception_handler(context)
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    watchdog = _watchdog(budget)
    with progress:
        work = process_tick(
            settings,
            registry,
            trigger=Trigger(options.trigger, options.delivery_id),
            budget=budget,
            stop=stop,
            progress=progress,
        )
        try:
            # What a handler prints must not get between a reader and the report's JSON.
            with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
                loop.run_until_complete(work)
        finally:
            watchdog.cancel()
            _leave(loop)


def _leave(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
    loop.close()


def _watchdog(budget: float) -> threading.Timer:
    """Ends the process when a coroutine has blocked the loop, so that even then the tick keeps its time."""

    def end() -> None:
        text = "tick: a handler blocked the event loop past the budget; its jobs are reclaimed when their leases expire"
        os.write(2, f"{text}\n".encode())
        os._exit(BLOCKED)

    timer = threading.Timer(budget + GRACE - 0.1, end)
    timer.daemon = True
    timer.start()
    return timer


class _Progress:
    """Counts that move while a tick drains: on a terminal alone, and on its standard error."""

    def __init__(self, as_json: bool) -> None:
        self.report: Report | None = None
        self._status: Any = None
        self._silent = as_json or not sys.stderr.isatty()

    def __enter__(self) -> Self:
        if not self._silent:
            from rich.console import Console

            self._status = Console(stderr=True).status("ticking")
            self._status.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, report: Report) -> None:
        self.report = report
        if self._status is not None:
            self._status.update(
                f"{report.claimed} claimed · {report.done} done · {report.retried} retried · {report.dead} dead"
            )


def _print_report(report: Report, as_json: bool, *, has_ended: bool = True) -> None:
    values = report.as_dict()
    if as_json:
        print(json.dumps(values))
        return
    counts = {name: value for name, value in values.items() if isinstance(value, int)}
    said = [f"{value} {name}" for name, value in counts.items() if value or name == "done"]
    how = "" if has_ended else "failed "
    line = f"tick {report.tick[:8]} {how}in {report.used:.2f} s of {report.budget:g} s: {', '.join(said)}"
    print(line, flush=True)  # `tick dev` goes on, and its log should not wait for a buffer to fill


# tick serve, tick dev


def serve(options: argparse.Namespace) -> int:
    """The HTTP endpoint, for an external cron to call."""
    from . import auth

    log_to_stderr()
    settings = settings_with_database()
    _handlers_of_a_server(settings)
    if not auth.is_configured(settings):
        text = "CRON_SECRET is not set: /tick answers 503 until it is, or until there is another proof"
        print(f"tick: {text}", file=sys.stderr)
    _serve(settings, options.host, options.port)
    return OK


def port(text: str) -> int:
    """A port to serve; 0 is one that the system chooses. Raises ArgumentTypeError for what is none."""
    if not text.isascii() or not text.isdigit() or int(text) > HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {HIGHEST_PORT}")
    return int(text)


def _handlers_of_a_server(settings: Settings) -> handlers.Registry:
    """The handlers, when everything a server needs can work: from inside the server an error is a traceback."""
    from . import auth, keys

    auth.check(settings)
    keys.check(settings)
    return load_handlers(settings, platforms.budget(settings))


def _serve(settings: Settings, host: str, port: int) -> None:
    from .web import create_app, serve

    serve(create_app(settings), host, port)


def dev(options: argparse.Namespace) -> int:
    """The endpoint and a tick on every minute, on the embedded Postgres unless DATABASE_URL is set."""
    log_to_stderr(tells_ticks=True)
    settings = settings_with_database()
    registry = _handlers_of_a_server(settings)
    asyncio.run(migrate_now(settings))
    settings = _with_a_password(settings)
    _tell_where(settings, options.host, options.port)
    ticker = _Ticker(settings, registry, options.every)
    ticker.start()
    try:
        _serve(settings, options.host, options.port)
    finally:
        ticker.end()
    return OK


def _with_a_password(settings: Settings) -> Settings:
    """The settings, with a password for the dashboard where none is set: it holds as long as this process."""
    import secrets

    if settings.dashboard_password:
        return settings
    password = secrets.token_urlsafe(9)
    _tell(f"the password of the dashboard is {password}; TICK_DASHBOARD_PASSWORD sets one that stays")
    return replace(settings, dashboard_password=password)


def _tell_where(settings: Settings, host: str, port: int) -> None:
    """Say where the dashboard is, and how to call /tick as a cron would."""
    from . import auth

    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}" if port else f"http://{shown}:PORT"
    _tell(f"the dashboard is at {url}/dashboard")
    if settings.secrets:
        _tell(f'a cron calls: curl --fail -H "Authorization: Bearer $CRON_SECRET" {url}/tick')
    elif not auth.is_configured(settings):
        _tell(f"CRON_SECRET is not set: {url}/tick answers 503; CRON_SECRET=try-it tick dev lets you call it")


def _tell(text: str) -> None:
    """A word beside what is printed: on stderr."""
    print(f"tick: {text}", file=sys.stderr)


class _Ticker(threading.Thread):
    """Ticks now, and then on each multiple of `every` seconds of the clock, until it is ended."""

    def __init__(self, settings: Settings, registry: handlers.Registry, every: float) -> None:
        super().__init__(name="tick-dev", daemon=True)
        self._settings, self._registry, self._every = settings, registry, every
        self._loop = asyncio.new_event_loop()
        self._stop: Callable[[], None]
        self._ended = threading.Event()

    def run(self) -> None:
        from .places import Stop

        while not self._ended.is_set():
            self._stop = stop = Stop()
            try:
                report = self._loop.run_until_complete(self._tick(stop))
                if not logs.is_json(self._settings.log):  # a line of JSON has told it already
                    _print_report(report, as_json=False)
            except Exception as error:  # noqa: BLE001 - whatever this tick has met, the next is on its minute
                complain(error, USAGE)
            self._ended.wait(self._every - time.time() % self._every)

    async def _tick(self, stop: Stop) -> Report:
        from .processor import process_tick
        from .queue import Trigger

        budget = min(self._every, platforms.budget(self._settings))
        return await process_tick(self._settings, self._registry, trigger=Trigger("dev"), budget=budget, stop=stop)

    def end(self) -> None:
        """Stop the tick that runs, and wait until it has let go of its jobs."""
        self._ended.set()
        self._loop.call_soon_threadsafe(lambda: self._stop())  # noqa: PLW0108 - the stop of the tick that then runs
        self.join(GRACE + 1)
