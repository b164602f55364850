"""What monitors are told of a tick, and that nothing they do is the tick's trouble: with real servers."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import tick as public
from tests.factories import a_job, job, tick, wait_until
from tick import heartbeats
from tick.config import GRACE
from tick.queue import Trigger

ROOT = Path(__file__).parents[1]
ID = "5f0c7a0e-4a53-4a3e-9d3c-0d6a1f2b3c4d"
KEY = "Abc-123_xyzAbc-123_xyz"


class Monitor:
    """A monitor on 127.0.0.1 that answers as it is told to, and keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.connections: set[tuple] = set()
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, tuple[int, dict[str, str]]] = {}
        self.stuck = ""
        self.go = threading.Event()
        self.go.set()
        monitor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                monitor.calls.append(self.path)
                monitor.connections.add(self.client_address)
                monitor.headers.append(dict(self.headers))
                if not monitor.stuck or monitor.stuck in self.path:
                    monitor.go.wait(30)
                status, headers = monitor.answers.get(urlsplit(self.path).path, (200, {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"OK")

            def log_message(self, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None: ...

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def paths(self) -> list[str]:
        return [urlsplit(call).path for call in self.calls]

    def end(self) -> None:
        self.go.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    monitor = Monitor()
    yield monitor
    monitor.end()


@contextmanager
def silent_server(reset: bool = False) -> Iterator[str]:
    """Takes connections and never answers; or resets them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def take() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()
                else:
                    held.append(connection)

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


@pytest.fixture(autouse=True)
def handlers(empty_registry, caplog):
    @public.job(type="noop")
    async def noop() -> None: ...

    caplog.set_level(logging.WARNING, "tick")


def warnings(caplog) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if record.name == "tick" and "heartbeat" in record.getMessage()
    ]


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "start", "ok", "fail"),
        [
            (
                f"https://hc-ping.com/{ID}",
                f"https://hc-ping.com/{ID}/start?rid=T",
                f"https://hc-ping.com/{ID}?rid=T",
                f"https://hc-ping.com/{ID}/fail?rid=T",
            ),
            (
                f"https://hc-ping.com/{KEY}/tick?create=1",
                f"https://hc-ping.com/{KEY}/tick/start?create=1&rid=T",
                f"https://hc-ping.com/{KEY}/tick?create=1&rid=T",
                f"https://hc-ping.com/{KEY}/tick/fail?create=1&rid=T",
            ),
            (
                f"http://checks.internal:8000/ping/{ID}/",
                f"http://checks.internal:8000/ping/{ID}/start?rid=T",
                f"http://checks.internal:8000/ping/{ID}?rid=T",
                f"http://checks.internal:8000/ping/{ID}/fail?rid=T",
            ),
            (
                f"https://ping.example.com/{ID}",
                f"https://ping.example.com/{ID}/start?rid=T",
                f"https://ping.example.com/{ID}?rid=T",
                f"https://ping.example.com/{ID}/fail?rid=T",
            ),
            (
                f"https://example.com/hc/ping/{KEY}/the-tick",
                f"https://example.com/hc/ping/{KEY}/the-tick/start?rid=T",
                f"https://example.com/hc/ping/{KEY}/the-tick?rid=T",
                f"https://example.com/hc/ping/{KEY}/the-tick/fail?rid=T",
            ),
            (
                "https://cronitor.link/p/KEY/tick?env=production",
                "https://cronitor.link/p/KEY/tick?env=production&state=run&series=T",
                "https://cronitor.link/p/KEY/tick?env=production&state=complete&series=T",
                "https://cronitor.link/p/KEY/tick?env=production&state=fail&series=T",
            ),
            (
                "https://o1.ingest.us.sentry.io/api/42/cron/tick/KEY/",
                "https://o1.ingest.us.sentry.io/api/42/cron/tick/KEY/?status=in_progress&check_in_id=T",
                "https://o1.ingest.us.sentry.io/api/42/cron/tick/KEY/?status=ok&check_in_id=T",
                "https://o1.ingest.us.sentry.io/api/42/cron/tick/KEY/?status=error&check_in_id=T",
            ),
        ],
    )
    def test_of_a_service_that_is_known_are_its_own(self, url, start, ok, fail):
        told = heartbeats.urls({"url": url}, "T", "http")
        assert told == {"start": start, "ok": ok, "fail": fail}

    @pytest.mark.parametrize(
        "url",
        [
            "https://uptime.betterstack.com/api/v1/heartbeat/abc",
            f"https://example.com/api/push/{ID}?status=up",
            "https://example.com/",
            "https://hc-ping.com.example.com/x",
            "https://[broken",
        ],
    )
    def test_of_any_other_are_called_when_all_is_well(self, url):
        assert heartbeats.urls({"url": url}, "T", "http") == {"ok": url}

    def test_that_are_written_out_are_called_as_they_are_and_go_first(self):
        given = {"url": f"https://hc-ping.com/{ID}", "fail": f"https://x/{ID}", "start": "https://y/cronitor.link"}
        told = heartbeats.urls(given, "T", "http")
        assert (told["start"], told["fail"]) == ("https://y/cronitor.link", f"https://x/{ID}")
        assert told["ok"] == f"https://hc-ping.com/{ID}?rid=T"
        assert heartbeats.urls({"fail": "https://x/"}, "T", "http") == {"fail": "https://x/"}

    def test_may_name_the_tick_and_the_trigger(self):
        told = heartbeats.urls({"ok": "https://x/{trigger}?id={tick}&t={tick}"}, "T", "a b&c")
        assert told == {"ok": "https://x/a%20b%26c?id=T&t=T"}

    def test_of_nothing_are_none(self):
        assert heartbeats.begin({}, "T", "http") is None


class TestTick:
    def test_tells_that_it_begins_and_that_it_went_well_by_its_id(self, conn, settings, monitor, caplog):
        a_job(conn)
        report = tick(settings, heartbeat={"url": f"{monitor.url}/ping/{ID}"}, trigger=Trigger("vercel"))
        assert report.done == 1
        assert monitor.calls == [f"/ping/{ID}/start?rid={report.tick}", f"/ping/{ID}?rid={report.tick}"]
        assert uuid.UUID(report.tick)
        assert monitor.headers[0]["host"] == monitor.url.removeprefix("http://")
        assert warnings(caplog) == []

    def test_with_nothing_to_do_tells_so_over_one_connection(self, settings, monitor):
        tick(settings, heartbeat={"url": f"{monitor.url}/ping/{ID}"})
        assert monitor.paths() == [f"/ping/{ID}/start", f"/ping/{ID}"]
        assert len(monitor.connections) == 1

    def test_tells_that_it_begins_before_it_runs_a_job(self, conn, settings, monitor):
        seen = []

        @public.job(type="work")
        def work() -> None:
            wait_until(lambda: monitor.calls)
            seen.extend(monitor.paths())

        a_job(conn, "work")
        tick(settings, heartbeat={"url": f"{monitor.url}/ping/{ID}"})
        assert seen == [f"/ping/{ID}/start"]

    def test_begins_without_waiting_for_the_monitor(self, conn, settings, monitor):
        @public.job(type="work")
        async def work() -> None:
            monitor.go.set()

        monitor.go.clear()
        a_job(conn, "work")
        assert tick(settings, heartbeat={"url": f"{monitor.url}/ping/{ID}"}).done == 1
        assert monitor.paths()[-1] == f"/ping/{ID}"

    def test_whose_jobs_fail_went_well(self, conn, settings, monitor):
        @public.job(type="fails", max_attempts=1)
        def fails() -> None:
            raise ValueError

        a_job(conn, "fails")
        assert tick(settings, heartbeat={"url": f"{monitor.url}/ping/{ID}"}).dead == 1
        assert monitor.paths() == [f"/ping/{ID}/start", f"/ping/{ID}"]

    def test_that_cannot_reach_its_database_has_failed(self, settings, monitor):
        with pytest.raises(public.DatabaseUnavailable):
            tick(settings, heartbeat={"url": f"{monitor.url}/ping/{ID}"}, database_url="postgresql://u@127.0.0.1:1/d")
        assert monitor.paths() == [f"/ping/{ID}/start", f"/ping/{ID}/fail"]

    def test_that_has_no_database_has_failed(self, settings, monitor):
        with pytest.raises(public.ConfigurationError):
            tick(settings, heartbeat={"url": f"{monitor.url}/ping/{ID}"}, database_url=None)
        assert monitor.paths() == [f"/ping/{ID}/start", f"/ping/{ID}/fail"]

    def test_with_a_broken_schedules_file_has_failed_and_run_its_jobs(self, conn, settings, monitor):
        a_job(conn)
        settings.schedules_path.write_text("[schedules.nightly]\n")
        with pytest.raises(public.ConfigurationError):
            tick(settings, heartbeat={"url": f"{monitor.url}/ping/{ID}"})
        assert monitor.paths() == [f"/ping/{ID}/start", f"/ping/{ID}/fail"]
        assert job(conn, 1)["status"] == "done"

    def test_without_a_monitor_for_a_moment_calls_none(self, settings, monitor):
        tick(settings, heartbeat={"fail": f"{monitor.url}/fail"})
        assert monitor.calls == []
        tick(settings, heartbeat={"ok": f"{monitor.url}/ok"})
        assert monitor.paths() == ["/ok"]

    def test_of_cronitor_and_sentry_says_it_in_their_words(self, settings, monitor):
        report = tick(settings, heartbeat={"url": f"{monitor.url}/api/42/cron/tick/KEY/"})
        asked = [parse_qs(urlsplit(call).query) for call in monitor.calls]
        assert asked == [{"status": [status], "check_in_id": [report.tick]} for status in ("in_progress", "ok")]


class TestTrouble:
    """Whatever a monitor does, the tick is done, and says so in its log, once."""

    def check(self, conn, settings, caplog, url: str, why: str, longest: float = 1.0) -> None:
        id = a_job(conn)
        started = time.monotonic()
        report = tick(settings, heartbeat={"url": url}, budget=30)
        took = time.monotonic() - started
        assert report.done == 1
        assert job(conn, id)["status"] == "done"
        # Its own work takes little; what a monitor adds is bounded, whatever a loaded machine adds to that.
        assert took - report.used < longest + 3
        (warning,) = warnings(caplog)
        assert re.search(why, warning), warning
        assert ID not in warning

    def test_that_hangs_holds_up_a_tick_for_two_seconds_at_most(self, conn, settings, caplog):
        with silent_server() as url:
            self.check(conn, settings, caplog, f"{url}/ping/{ID}", "no answer within", longest=2.0)

    def test_that_resets_connections(self, conn, settings, caplog):
        with silent_server(reset=True) as url:
            self.check(conn, settings, caplog, f"{url}/ping/{ID}", "(Read|Remote|Connect|Write)")

    def test_that_is_not_there(self, conn, settings, caplog):
        self.check(conn, settings, caplog, f"http://127.0.0.1:1/ping/{ID}", "ConnectError")

    def test_whose_host_has_no_address(self, conn, settings, caplog):
        self.check(
            conn, settings, caplog, f"http://monitor.invalid/ping/{ID}", "monitor.invalid cannot be resolved|no answer"
        )

    def test_whose_url_cannot_be_called(self, conn, settings, caplog):
        self.check(conn, settings, caplog, f"http://ada:hunter2@127.0.0.1/ping/{ID}", "its URL cannot be called: write")
        assert "hunter2" not in caplog.text

    def test_that_does_not_know_the_check(self, conn, settings, caplog, monitor):
        monitor.answers = {f"/ping/{ID}": (404, {}), f"/ping/{ID}/start": (404, {})}
        self.check(conn, settings, caplog, f"{monitor.url}/ping/{ID}", "it answered 404")

    def test_that_points_elsewhere_is_not_followed(self, conn, settings, caplog, monitor):
        monitor.answers = {f"/ping/{ID}": (301, {"Location": "/elsewhere"})}
        self.check(conn, settings, caplog, f"{monitor.url}/ping/{ID}", "it answered 301, which points elsewhere")
        assert "/elsewhere" not in monitor.paths()

    def test_that_hangs_at_the_start_hears_of_the_end_all_the_same(self, conn, settings, monitor):
        monitor.stuck = "/start"
        monitor.go.clear()
        tick(settings, heartbeat={"url": f"{monitor.url}/ping/{ID}"})
        assert monitor.paths() == [f"/ping/{ID}/start", f"/ping/{ID}"]

    def test_that_hangs_never_takes_a_tick_beyond_its_grace(self, conn, settings):
        @public.job(type="work")
        def work() -> None:
            time.sleep(30)

        a_job(conn, "work")
        with silent_server() as url:
            started = time.monotonic()
            tick(settings, heartbeat={"url": f"{url}/ping/{ID}"}, budget=1)
        assert time.monotonic() - started < 1 + GRACE

    def test_in_a_url_of_another_moment_is_no_trouble_before_it(self, settings, caplog, monitor):
        tick(settings, heartbeat={"ok": f"{monitor.url}/ok", "fail": "http://u:p@127.0.0.1/fail"})
        assert monitor.paths() == ["/ok"]


def test_run_once_tells_before_it_ends(conn, url, tmp_path, monitor):
    (tmp_path / "pyproject.toml").write_text(f'[tool.tick]\nheartbeat = "{monitor.url}/ping/{ID}"\n')
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TICK_")}
    env = kept | {"PYTHONPATH": str(ROOT), "DATABASE_URL": url}
    done = subprocess.run([sys.executable, "-m", "tick.cli", "run-once", "--json"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert monitor.calls == [f"/ping/{ID}/start?rid={report['tick']}", f"/ping/{ID}?rid={report['tick']}"]


def test_a_tick_without_a_monitor_imports_no_client(url, tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TICK_")}
    program = "import sys, tick.cli; tick.cli.main(['run-once']); print('httpcore' in sys.modules, 'opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=kept | {"PYTHONPATH": str(ROOT), "DATABASE_URL": url}, capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False False", done.stderr
