"""The HTTP door: a real uvicorn on a socket, and a client that sends what the world sends."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import psycopg
import pytest
import uvicorn

import tick as public
from tests.factories import a_job, job, jobs, move_clock, statuses, wait_until
from tests.test_cli import REPORT, WORK, Project, answers, free_port
from tick import web
from tick.config import Settings
from tick.handlers import registry
from tick.processor import GRACE

pytestmark = pytest.mark.usefixtures("empty_registry")

SECRET = "correct-horse-battery-staple"
BEARER = {"authorization": f"Bearer {SECRET}"}
METHODS_AND_PATHS = [(method, path) for method in ("GET", "POST") for path in ("/tick", "/tick/")]


class Site:
    """A server that goes on for the whole module; each test puts its own application behind it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        self.app = None

    async def __call__(self, scope, receive, send) -> None:
        await self.app(scope, receive, send)

    def serve(self, settings: Settings) -> None:
        self.app = web.create_app(settings, registry)

    def tick(self, path: str = "/tick", method: str = "POST", **options) -> httpx.Response:
        return self.client.request(method, path, **{"headers": BEARER} | options)

    def send(self, *lines: bytes, method: str = "GET", path: str = "/tick") -> httpx.Response:
        """What comes back for header lines that no client of ours would send."""
        request = [f"{method} {path} HTTP/1.1".encode(), b"host: x", b"connection: close", *lines, b"", b""]
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as raw:
            raw.sendall(b"\r\n".join(request))
            head, _, body = b"".join(iter(lambda: raw.recv(65536), b"")).partition(b"\r\n\r\n")
        status, *headers = head.split(b"\r\n")
        return httpx.Response(int(status.split()[1]), headers=[line.split(b": ", 1) for line in headers], content=body)


@pytest.fixture(scope="module")
def server():
    listener = socket.create_server(("127.0.0.1", 0))
    site = Site(listener.getsockname()[1])
    config = uvicorn.Config(site, lifespan="off", log_level="critical", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    yield site
    site.client.close()
    running.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def site(server, settings, conn) -> Site:
    conn.execute("update tick.migrations set applied_at = now()")
    server.serve(replace(settings, secrets=(SECRET,)))
    return server


def ticks(conn) -> int:
    return conn.execute("select count(*) from tick.ticks").fetchone()[0]


def check_problem(response: httpx.Response, status: int, **said: str) -> dict:
    """An error as RFC 9457 has it, that nothing may keep."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert list(body) == ["type", "title", "status", "detail"]
    assert body["status"] == status
    for name, part in said.items():
        assert part in body[name]
    return body


def noop() -> None:
    @public.job
    async def noop() -> None: ...


class TestWhoMayTick:
    @pytest.mark.parametrize(("method", "path"), METHODS_AND_PATHS)
    def test_get_and_post_with_and_without_a_slash(self, conn, site, method, path):
        noop()
        jobs(conn)
        response = site.tick(path, method)
        assert (response.status_code, response.json()["done"]) == (200, 1)
        assert (response.headers["content-type"], response.headers["cache-control"]) == ("application/json", "no-store")
        assert ticks(conn) == 1

    @pytest.mark.parametrize("path", ["/tick", "/tick/", "/tick?wait=0"])
    def test_head_answers_and_never_ticks(self, conn, site, path):
        response = site.tick(path, "HEAD")
        assert (response.status_code, response.content, response.headers["cache-control"]) == (200, b"", "no-store")
        assert site.client.head(path).status_code == 401
        assert ticks(conn) == 0

    @pytest.mark.parametrize(
        "given",
        [
            None, "", " ", "Bearer", "Bearer ", "Bearer  ", "Bearer None", "Bearer undefined", "Bearer null",
            "Bearer wrong", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", f"Bearer {SECRET.upper()}", f"Bearer {SECRET},",
            SECRET, f"Basic {SECRET}", "Basic dXNlcjpwYXNz", f"Bearer{SECRET}", f"Bearer Bearer {SECRET}",
            f'Bearer "{SECRET}"', "Bearer ${CRON_SECRET}", "Bearer $CRON_SECRET", "Bearer \xe9\xff\x80", "\x80\xff" * 40,
            b"Bearer " + bytes(range(0x80, 0x100)), "Bearer " + "x" * 30_000,
        ],
        ids=lambda given: repr(given)[:30],
    )  # fmt: skip
    def test_nobody_with_anything_but_the_secret(self, conn, site, given):
        raw = given.encode("latin-1") if isinstance(given, str) else given
        lines = [] if given is None else [b"authorization: " + raw]
        for method, path in METHODS_AND_PATHS:
            response = site.send(*lines, method=method, path=path)
            check_problem(response, 401, detail="Authorization: Bearer <CRON_SECRET>")
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert SECRET not in response.text
        assert ticks(conn) == 0

    def test_nobody_with_a_header_of_a_hundred_kilobytes(self, conn, site):
        response = site.send(b"authorization: Bearer " + b"x" * 100_000)
        assert response.status_code in (400, 401, 431)
        assert ticks(conn) == 0

    @pytest.mark.parametrize("first", [SECRET, "wrong"])
    def test_nobody_with_two_authorization_headers(self, conn, site, first):
        second = {"wrong": SECRET, SECRET: "wrong"}[first]
        lines = [f"authorization: Bearer {given}".encode() for given in (first, second)]
        check_problem(site.send(*lines), 401)
        assert ticks(conn) == 0

    def test_nobody_because_of_what_a_platform_would_send(self, conn, site):
        forged = {"user-agent": "vercel-cron/1.0", "x-vercel-cron": "1", "x-tick-trigger": "cli", "ce-type": "com.vercel.schedule.v1"}  # fmt: skip
        for headers in (forged, forged | {"authorization": "Bearer undefined"}):
            check_problem(site.client.get("/tick", headers=headers), 401)
        for query in (f"secret={SECRET}", f"authorization=Bearer%20{SECRET}", f"token={SECRET}"):
            check_problem(site.client.get(f"/tick?{query}"), 401)
        assert ticks(conn) == 0

    @pytest.mark.parametrize("given", [f"bearer {SECRET}", f"BEARER   {SECRET}", f"Bearer {SECRET}  "])
    def test_the_scheme_has_no_case_and_spaces_do_not_count(self, site, given):
        assert site.send(f"authorization: {given}".encode()).status_code == 200

    def test_each_of_several_secrets_while_one_is_replaced_by_another(self, site, settings):
        secrets = Settings.load({"CRON_SECRET": " old-one, new-one ,\n"}, start=settings.root).secrets
        site.serve(replace(settings, secrets=secrets))
        codes = [site.tick(headers={"authorization": f"Bearer {each}"}).status_code for each in ("old-one", "new-one", "old-one, new-one", "old-one,", ",")]  # fmt: skip
        assert codes == [200, 200, 200, 401, 401]

    def test_a_secret_may_have_any_letters(self, site, settings):
        secret = "schlüssel-ß-à"
        site.serve(replace(settings, secrets=(secret,)))
        assert site.tick(headers=[(b"authorization", f"Bearer {secret}".encode())]).status_code == 200
        assert site.tick(headers=[(b"authorization", f"Bearer {secret}".encode("latin-1"))]).status_code == 401

    @pytest.mark.parametrize("secret", [None, "", " ", "\n", ",", " , ,, "], ids=repr)
    def test_nobody_at_all_when_no_secret_is_configured(self, conn, site, settings, secret):
        env = {} if secret is None else {"CRON_SECRET": secret}
        site.serve(replace(settings, secrets=Settings.load(env, start=settings.root).secrets))
        for given in (None, "", "Bearer", "Bearer ", "Bearer None", f"Bearer {secret}".rstrip(), "Bearer ,"):
            lines = [] if given is None else [f"authorization: {given}".encode()]
            check_problem(site.send(*lines), 503, detail="CRON_SECRET is not set")
            assert site.send(*lines, method="HEAD").status_code == 503
        assert ticks(conn) == 0

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "TICK"])
    def test_no_other_method(self, conn, site, method):
        for path in ("/tick", "/tick/"):
            response = site.tick(path, method)
            check_problem(response, 405, detail=f"{path} takes GET, HEAD, POST")
            assert response.headers["allow"] == "GET, HEAD, POST"
        response = site.client.request(method, "/health")
        check_problem(response, 405, detail="/health takes GET, HEAD")
        assert response.headers["allow"] == "GET, HEAD"
        assert ticks(conn) == 0

    @pytest.mark.parametrize("path", ["/", "/tick/now", "/tick//", "//tick", "/ticks", "/Tick", "/job"])
    def test_no_other_path_and_never_a_redirect(self, site, path):
        assert site.send(path=path).status_code == 404
        check_problem(
            site.client.get(f"/not{path}"), 404, detail="try /tick, /health, /jobs, /dashboard or /openapi.json"
        )


class TestTheAnswer:
    def test_is_the_report_and_200_even_when_jobs_failed(self, conn, site):
        @public.job
        async def good() -> None: ...

        @public.job
        def bad() -> None:
            raise ValueError("s3kr1t")

        @public.job
        def hopeless() -> None:
            raise public.Permanent

        for type in ("good", "bad", "bad", "hopeless", "elsewhere"):
            a_job(conn, type)
        response = site.tick()
        report = response.json()
        assert (response.status_code, list(report)) == (200, REPORT)
        counts = {"claimed": 4, "done": 1, "retried": 2, "dead": 1, "left": 1, "released": 0, "stale": 0}
        assert {name: report[name] for name in counts} == counts
        assert (report["budget"], report["trigger"]) == (50.0, "http")
        assert 0 < report["used"] < 10
        assert "s3kr1t" not in response.text
        stored = conn.cursor(row_factory=psycopg.rows.dict_row).execute("select * from tick.ticks").fetchone()
        assert {name: stored[name] for name in counts} == counts
        assert str(stored["id"]) == report["tick"]

    @pytest.mark.parametrize(
        ("asked", "given"), [("2", 2.0), ("49.5", 49.5), ("50", 50.0), ("51", 50.0), ("21600", 50.0)]
    )
    def test_a_budget_may_only_be_lowered(self, site, asked, given):
        assert site.tick(f"/tick?budget={asked}").json()["budget"] == given

    def test_a_budget_that_is_set_is_the_most_that_can_be_asked_for(self, site, settings):
        site.serve(replace(settings, secrets=(SECRET,), budget=20.0))
        assert [site.tick(f"/tick{query}").json()["budget"] for query in ("", "?budget=30", "?budget=5")] == [20, 20, 5]

    def test_a_budget_below_a_handlers_time_out_only_leaves_that_alone(self, conn, site):
        @public.job(timeout="30s")
        async def slow() -> None: ...

        noop()
        a_job(conn, "slow")
        a_job(conn)
        response = site.tick("/tick?budget=5")
        assert (response.status_code, response.json()["done"], response.json()["left"]) == (200, 1, 1)

    @pytest.mark.parametrize("asked", ["", "0", "0.5", "-1", "soon", "nan", "inf", "-inf", "1e9", "5s", "%00", "1,5"])
    def test_a_budget_that_is_none_is_400_and_no_tick(self, conn, site, asked):
        check_problem(site.tick(f"/tick?budget={asked}"), 400, detail="budget must be a number of seconds from 1")
        check_problem(site.client.get(f"/tick?budget={asked}"), 401)
        assert ticks(conn) == 0

    @pytest.mark.parametrize(
        ("query", "prefer"),
        [
            ("?wait=0", None),
            ("?wait=false", None),
            ("?wait=No", None),
            ("", "respond-async"),
            ("", "wait=5, respond-async"),
        ],
    )
    def test_is_202_at_once_for_who_does_not_wait_and_the_work_is_done_after(self, conn, site, query, prefer):
        go = threading.Event()

        @public.job(type="noop")
        def work() -> None:
            go.wait(10)

        id = a_job(conn)
        response = site.tick(f"/tick{query}", headers=BEARER | ({"prefer": prefer} if prefer else {}))
        assert (response.status_code, response.headers["cache-control"]) == (202, "no-store")
        assert response.json() == {"status": "accepted", "budget": 50.0}
        wait_until(lambda: job(conn, id)["status"] == "running")
        go.set()
        wait_until(lambda: conn.execute("select done from tick.ticks where finished_at is not null").fetchone() == (1,))
        assert job(conn, id)["status"] == "done"

    @pytest.mark.parametrize("query", ["?wait=1", "?wait=true", "?wait=", "?other=0"])
    def test_is_waited_for_otherwise(self, conn, site, query):
        noop()
        jobs(conn)
        assert site.tick(f"/tick{query}").json()["done"] == 1

    def test_what_a_tick_meets_that_nobody_waits_for_is_in_the_log(self, site, settings, caplog):
        settings.schedules_path.write_text("[schedules.nightly]\n")
        with caplog.at_level(logging.ERROR, "tick"):
            assert site.tick("/tick?wait=0").status_code == 202
            wait_until(lambda: "schedules.nightly" in caplog.text)

    def test_is_503_with_a_time_to_come_back_when_postgres_is_away(self, site, settings):
        site.serve(replace(settings, secrets=(SECRET,), database_url="postgresql://u:hunter2@127.0.0.1:1/d"))
        response = site.tick()
        check_problem(response, 503, title="Postgres is unavailable", detail="127.0.0.1")
        assert response.headers["retry-after"] == "5"
        assert "hunter2" not in response.text

    @pytest.mark.parametrize("given", [None, "postgres//u:hunter2@h/d", "postgresql://u:hun[ter2@h/d", "postgresql://u:hunter2%@h/d"])  # fmt: skip
    def test_is_500_when_there_is_no_url_that_can_be_used_and_does_not_show_it(self, site, settings, given):
        site.serve(replace(settings, secrets=(SECRET,), database_url=given))
        response = site.tick()
        check_problem(response, 503 if "[" in (given or "") else 500)
        assert "hunter2" not in response.text and "hun[ter2" not in response.text

    def test_is_503_with_the_command_to_run_on_a_database_that_is_not_migrated(self, site, settings, server_url):
        site.serve(replace(settings, secrets=(SECRET,), database_url=server_url))
        response = site.tick()
        check_problem(response, 503, title="The database is not ready", detail="run `tick migrate`")
        assert int(response.headers["retry-after"]) > 0

    def test_is_500_with_entry_and_key_for_a_broken_schedules_file_and_jobs_run_all_the_same(
        self, conn, site, settings
    ):
        noop()
        id = a_job(conn)
        settings.schedules_path.write_text('[schedules.nightly]\ncrom = "0 3 * * *"\n')
        check_problem(site.tick(), 500, detail='schedules.nightly.crom: unknown key; did you mean "cron"?')
        assert job(conn, id)["status"] == "done"
        settings.schedules_path.unlink()
        assert site.tick().status_code == 200

    def test_is_500_and_tells_nothing_when_tick_itself_is_broken(self, site, monkeypatch):
        async def broken(*_args, **_options):
            raise RuntimeError(f"the secret is {SECRET}")

        monkeypatch.setattr(web, "process_tick", broken)
        response = site.tick()
        check_problem(response, 500, detail="RuntimeError")
        assert SECRET not in response.text

    def test_is_500_when_the_handlers_cannot_be_loaded(self, site, settings):
        @public.job(timeout="10m")
        def too_long() -> None: ...

        check_problem(site.tick(), 500, detail="timeout 600 s can never fit the budget of 50 s")


AT = "2026-03-01T10:00:00Z"
INSTANT = datetime(2026, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "stored"),
    [
        ({}, ("http", None, None)),
        ({"user-agent": "vercel-cron/1.0", "x-vercel-id": "cdg1::abc"}, ("vercel", "cdg1::abc", None)),
        ({"ce-type": "com.vercel.schedule.v1beta", "ce-id": "e1", "ce-vssscheduledat": AT}, ("vercel", "e1", INSTANT)),
        ({"ce-type": "com.vercel.schedule.v1beta", "ce-id": "e1", "ce-vssscheduledat": "soon"}, ("vercel", "e1", None)),
        ({"ce-type": "com.example.thing", "ce-id": "e1"}, ("http", None, None)),
        ({"x-cloudscheduler-jobname": "minutely", "x-cloudscheduler-scheduletime": AT}, ("cloud-scheduler", f"minutely {AT}", INSTANT)),
        ({"upstash-message-id": "msg_1"}, ("qstash", "msg_1", None)),
        ({"user-agent": "pg_net/0.14"}, ("pg_cron", None, None)),
        ({"x-tick-trigger": "github", "x-tick-delivery-id": "run 7"}, ("github", "run 7", None)),
        ({"x-tick-trigger": "github", "x-tick-delivery-id": "x" * 5000}, ("github", "x" * 200, None)),
        ({"x-tick-trigger": "Not A Name; drop table"}, ("http", None, None)),
        ({"x-tick-trigger": "x" * 41}, ("http", None, None)),
        ({"upstash-message-id": "\xe9\xff"}, ("qstash", "\xe9\xff", None)),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_who_asked_is_read_from_the_headers_and_kept(conn, site, headers, stored):
    raw = [(name, value.encode("latin-1")) for name, value in (BEARER | headers).items()]
    report = site.tick(headers=raw).json()
    assert conn.execute("select trigger, delivery_id, scheduled_for from tick.ticks").fetchone() == stored
    assert report["trigger"] == stored[0]


class TestTogether:
    def test_ten_ticks_at_once_run_each_job_once_and_make_each_window_once(self, conn, site, settings):
        ran = []

        @public.job(type="noop")
        async def work(ctx: public.Context) -> None:
            ran.append(ctx.id)

        @public.job
        async def hourly() -> None: ...

        settings.schedules_path.write_text('[schedules.hourly]\nevery = "1h"\ncatch_up = "all"\n')
        move_clock(conn, "2026-03-01T10:30Z")
        site.tick()
        move_clock(conn, "2026-03-01T15:30Z")
        jobs(conn, count=500)
        with ThreadPoolExecutor(10) as pool:
            responses = list(pool.map(lambda _: site.tick(), range(10)))
        assert [response.status_code for response in responses] == [200] * 10
        reports = [response.json() for response in responses]
        assert sum(report["materialised"] for report in reports) == 5
        assert sum(report["done"] for report in reports) == 505
        assert len(ran) == len(set(ran)) == 500
        assert statuses(conn) == {"done": 505}

    def test_a_caller_that_hangs_up_does_not_end_the_tick(self, conn, site):
        go = threading.Event()

        @public.job(type="noop")
        def work() -> None:
            go.wait(10)

        jobs(conn, count=15)
        with socket.create_connection(("127.0.0.1", site.port)) as raw:
            raw.sendall(
                f"POST /tick HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\ncontent-length: 0\r\n\r\n".encode()
            )
            wait_until(lambda: statuses(conn).get("running", 0) >= 10)
        go.set()
        wait_until(
            lambda: conn.execute("select done from tick.ticks where finished_at is not null").fetchone() == (15,)
        )
        assert statuses(conn) == {"done": 15}


class TestHealth:
    """200 while ticks come as they should, 503 once they have stopped."""

    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch):
        monkeypatch.setattr(web, "HEALTH_SECONDS", 0.0)

    @pytest.fixture
    def in_time(self, monkeypatch):
        """Time enough to look, and every look a new one."""
        monkeypatch.setattr(web.Service, "look_in_time", web.Service.look)

    def ticked(self, conn, *ago: str) -> None:
        for each in ago:
            conn.execute("insert into tick.ticks (id, trigger, budget, started_at) values (gen_random_uuid(), 'http', 50, tick.now() - %s::interval)", [each])  # fmt: skip

    def check(self, site, code: int, status: str) -> dict:
        response = site.client.get("/health")
        assert (response.status_code, response.json()["status"]) == (code, status)
        assert response.headers["cache-control"] == "no-store"
        return response.json()

    @pytest.mark.usefixtures("in_time")
    def test_waits_for_the_first_tick_and_for_the_first_minutes_only(self, conn, site):
        assert self.check(site, 200, "waiting") == {
            "status": "waiting", "last_tick": None, "seconds_since": None, "expected_every": 60.0
        }  # fmt: skip
        move_clock(conn, "+170 seconds")
        self.check(site, 200, "waiting")
        move_clock(conn, "+20 seconds")
        self.check(site, 503, "stopped")

    @pytest.mark.usefixtures("in_time")
    @pytest.mark.parametrize("path", ["/health", "/health/"])
    def test_is_ok_after_a_tick_and_needs_no_secret(self, site, settings, path):
        site.serve(replace(settings, secrets=()))
        site.serve(replace(settings, secrets=(SECRET,)))
        site.tick()
        body = site.client.get(path).json()
        assert (body["status"], body["expected_every"]) == ("ok", 60.0)
        assert body["seconds_since"] < 60
        assert datetime.fromisoformat(body["last_tick"]).tzinfo is not None
        assert site.client.head(path).status_code == 200

    @pytest.mark.usefixtures("in_time")
    def test_has_stopped_after_three_minutes_and_is_ok_with_the_next_tick(self, conn, site):
        site.tick()
        move_clock(conn, "+170 seconds")
        self.check(site, 200, "ok")
        move_clock(conn, "+11 seconds")
        assert self.check(site, 503, "stopped")["seconds_since"] >= 181
        site.tick()
        self.check(site, 200, "ok")

    @pytest.mark.usefixtures("in_time")
    def test_learns_what_interval_the_ticks_keep(self, conn, site):
        self.ticked(conn, "34 minutes", "29 minutes", "24 minutes", "19 minutes", "14 minutes")
        assert self.check(site, 200, "ok")["expected_every"] == 300.0
        move_clock(conn, "+61 seconds")
        self.check(site, 503, "stopped")

    @pytest.mark.usefixtures("in_time")
    def test_a_burst_of_ticks_does_not_make_the_next_minute_late(self, conn, site):
        self.ticked(conn, *(f"{100 + n} seconds" for n in range(20)))
        assert self.check(site, 200, "ok")["expected_every"] == 60.0

    def test_is_asked_of_the_database_once_in_five_seconds_however_many_ask(self, site, monkeypatch):
        monkeypatch.setattr(web, "HEALTH_SECONDS", 5.0)
        looks = []
        look = web.Service.look

        async def counted(self):
            looks.append(1)
            await asyncio.sleep(0.05)
            return await look(self)

        monkeypatch.setattr(web.Service, "look", counted)
        with ThreadPoolExecutor(20) as pool:
            bodies = list(pool.map(lambda _: site.client.get("/health").json(), range(40)))
        assert len(looks) == 1
        assert bodies == bodies[:1] * 40
        site.tick()
        assert site.client.get("/health").json()["status"] == "waiting"

    def test_is_503_when_postgres_is_away_and_does_not_say_where_it_was(self, site, settings, monkeypatch):
        monkeypatch.setattr(web, "HEALTH_SECONDS", 5.0)
        for url, code in (("postgresql://ada:hunter2@127.0.0.1:1/books", 503), ("postgres//ada:hunter2@h/books", 500)):
            site.serve(replace(settings, database_url=url))
            response = site.client.get("/health")
            check_problem(response, code)
            assert not any(word in response.text for word in ("ada", "hunter2", "127.0.0.1", "books"))

    def test_is_503_when_the_database_does_not_answer(self, site, settings, monkeypatch):
        monkeypatch.setattr(web, "HEALTH_SECONDS", 0.5)
        with psycopg.connect(settings.database_url) as other:
            other.execute("lock table tick.ticks")
            started = time.monotonic()
            check_problem(site.client.get("/health"), 503, title="Postgres is unavailable")
            assert time.monotonic() - started < 3

    def test_is_503_with_the_command_to_run_on_a_database_that_is_not_migrated(
        self, site, settings, server_url, monkeypatch
    ):
        monkeypatch.setattr(web, "HEALTH_SECONDS", 5.0)
        site.serve(replace(settings, database_url=server_url))
        check_problem(site.client.get("/health"), 503, detail="run `tick migrate`")


class TestSigterm:
    """A server that is told to end lets its ticks end in order, and is gone within a few seconds."""

    WORK = (
        WORK
        + """
    @tick.job
    async def a_moment() -> None:
        open("started", "a").write("one\\n")
        await asyncio.sleep(0.5)
    """
    )

    @contextmanager
    def serving(self, project: Project, command: str):
        """The process and where it listens: `tick serve`, or uvicorn with tick's application."""
        port = free_port()
        project.env["CRON_SECRET"] = SECRET
        if command == "uvicorn":
            project._command = lambda arguments: [sys.executable, "-m", "uvicorn", "tick.web:app", "--port", str(port)]
        with project.started("serve", "--host", "127.0.0.1", "--port", port) as process:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 20)
            yield process, f"http://127.0.0.1:{port}/tick"

    @pytest.mark.parametrize("command", ["serve", "uvicorn"])
    @pytest.mark.parametrize("query", ["", "?wait=0"])
    def test_in_the_middle_of_a_tick(self, conn, url, tmp_path, command, query):
        project = Project(tmp_path, url, work=self.WORK, schedules=None)
        moments = [a_job(conn, "a_moment", priority=9) for _ in range(3)]
        endless = [a_job(conn, "for_ever") for _ in range(20)]
        with self.serving(project, command) as (process, where), ThreadPoolExecutor(1) as pool:
            answer = pool.submit(httpx.post, where + query, headers=BEARER, timeout=30)
            wait_until(lambda: (tmp_path / "started").exists() and len((tmp_path / "started").read_text().split()) == 3)
            told = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = process.wait(10)
            assert time.monotonic() - told < GRACE + 2
            assert code == 0 if command == "serve" else code in (0, -signal.SIGTERM)
            response = answer.result()
        assert response.status_code == (202 if query else 200)
        if not query:
            assert (response.json()["done"], response.json()["claimed"]) == (3, response.json()["released"] + 3)
        assert [job(conn, id)["status"] for id in moments] == ["done"] * 3
        assert statuses(conn) == {"done": 3, "pending": 20}
        assert {(job(conn, id)["failures"], job(conn, id)["losses"], job(conn, id)["cuts"]) for id in endless} == {(0, 0, 0)}  # fmt: skip
        assert conn.execute("select finished_at is not null, done from tick.ticks").fetchall() == [(True, 3)]
        assert "Traceback" not in project.log

    def test_without_a_tick_it_ends_at_once(self, url, tmp_path):
        with self.serving(Project(tmp_path, url, schedules=None), "serve") as (process, _):
            process.send_signal(signal.SIGTERM)
            assert process.wait(3) == 0

    def test_an_application_that_cannot_work_does_not_start(self, url, tmp_path):
        project = Project(tmp_path, url)
        command = [sys.executable, "-m", "uvicorn", "tick.web:app", "--port", str(free_port())]
        done = subprocess.run(command, cwd=tmp_path, env=project.env | {"TICK_MODULES": "wrok"}, capture_output=True, text=True, timeout=20)  # fmt: skip
        assert done.returncode != 0
        assert "the module 'wrok'" in done.stderr
