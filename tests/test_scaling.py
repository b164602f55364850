"""What docs/scaling.md says of going past one Postgres: a replica that is read, and schemas that are apart."""

from __future__ import annotations

import asyncio
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import psycopg
import pytest
from psycopg import sql

import tick as public
from tests.conftest import debian_postgres
from tests.factories import a_job, statuses, tick, wait_until
from tests.visitor import PASSWORD, visiting
from tick import cli, database
from tick.dashboard import login
from tick.errors import DatabaseUnavailable
from tick.queue import statements

VERSION = "15"
SECRET = "s" * 40
KEY = "tick_env_" + "k" * 43
READS = {
    "status": 1, "top": 0, "dead": 0, "dead replay --dry-run": 0, "alerts": 0, "schedules --status": 0, "plan": 0,
    "jobs list": 0, "jobs show 1": 0, "jobs cancel --type noop --dry-run": 0, "api-keys list": 0, "migrate --dry-run": 0,
    "schedules explain night 2026-11-20T03:00": 0,
}  # fmt: skip
"""Commands that only read, and how they end where one job is dead."""
WRITES = [
    "run-once", "enqueue noop", "jobs run-now 3", "jobs cancel 3", "jobs replay 2", "dead replay --yes", "prune --yes",
    "prune --dry-run", "schedules pause night", "schedules run-now night", "api-keys create ci --scope read", "migrate",
]  # fmt: skip
PAGES = ["", "/live", "/chart.json", "/jobs", "/jobs?status=dead", "/jobs/1", "/dead", "/schedules", "/schedules/night", "/ticks"]  # fmt: skip
pytestmark = pytest.mark.usefixtures("empty_registry")


def migrate(url: str, *schemas: str) -> None:
    async def migrate() -> None:
        async with database.connect(url) as connection:
            for schema in schemas:
                await database.migrate(connection, schema)

    asyncio.run(migrate())


@pytest.fixture
def noop():
    @public.job(max_attempts=1)
    async def noop(fails: bool = False) -> None:
        if fails:
            raise ValueError("no")


class TestReplica:
    @pytest.fixture(scope="class")
    @staticmethod
    def pair():
        """The URLs of a primary, and of a server that streams from it."""
        server = debian_postgres(VERSION)
        if not server.binaries.is_dir():
            shutil.rmtree(server.folder)
            pytest.skip(f"Postgres {VERSION} of Debian is not installed (apt-get install postgresql-{VERSION})")
        with server as primary:
            migrate(primary, "tick")
            copy, control = str(server.folder / "copy"), str(server.binaries / "pg_ctl")
            server.run(str(server.binaries / "pg_basebackup"), "-D", copy, "-R", "-c", "fast", "-d", primary)
            options = (
                f"-c listen_addresses= -c unix_socket_directories={server.folder} -c port=5433 -c max_connections=200"
            )
            server.run(control, "-D", copy, "-o", options, "-l", f"{copy}.log", "-w", "start")
            try:
                yield primary, f"{primary}&port=5433"
            finally:
                server.run(control, "-D", copy, "-m", "immediate", "stop")

    @pytest.fixture
    def primary(self, pair, settings, tmp_path, noop):
        """Settings for the primary, where a job is done, one dead and one due next year; the replica knows it."""
        (tmp_path / "pyproject.toml").write_text("")
        settings.schedules_path.write_text('[schedules.night]\ncron = "0 3 * * *"\ntype = "noop"\n')
        settings = replace(
            settings,
            database_url=pair[0],
            secrets=(SECRET,),
            api_keys=(f"ops:admin:{KEY}",),
            dashboard_password=PASSWORD,
        )
        with psycopg.connect(pair[0], autocommit=True) as conn:
            conn.execute(
                "truncate tick.jobs, tick.ticks, tick.entries, tick.schedules, tick.files restart identity cascade"
            )
            a_job(conn, payload={"fails": False})
            a_job(conn, payload={"fails": True})
            a_job(conn, run_at="+365 days")
            assert tick(settings).dead == 1
            self.catch_up(conn, pair[1])
        return settings

    @pytest.fixture
    def replica(self, primary, pair):
        return replace(primary, database_url=pair[1])

    def catch_up(self, conn, replica: str) -> None:
        """Until the replica has what has been committed so far."""
        (position,) = conn.execute("select pg_current_wal_insert_lsn()").fetchone()
        with psycopg.connect(replica, autocommit=True) as reader:
            reached = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
            wait_until(lambda: reader.execute(reached, [position]).fetchone()[0])

    @pytest.fixture
    def run(self, replica, monkeypatch, capsys):
        """Runs a command against the replica: what it prints, and what it says beside it."""
        monkeypatch.setenv("DATABASE_URL", replica.database_url)
        monkeypatch.chdir(replica.root)

        def run(command: str, code: int) -> tuple[str, str]:
            assert cli.main(command.split()) == code
            return capsys.readouterr()

        return run

    def test_what_reads_works(self, run):
        for command, code in READS.items():
            said, _ = run(command, code)
            assert said, command
        assert "ValueError: no" in run("dead", 0)[0]

    def test_what_writes_says_that_it_cannot_and_changes_nothing(self, run, primary):
        for command in WRITES:
            _, complaint = run(command, 75)
            assert "read-only transaction" in complaint.splitlines()[-1], command
        with psycopg.connect(primary.database_url) as conn:
            assert statuses(conn) == {"done": 1, "dead": 1, "pending": 1}

    def test_the_doctor_says_what_it_is(self, run):
        assert "the server is a replica" in run("doctor", 1)[0]

    def test_no_tick_begins_on_it_and_none_is_lost(self, replica, primary, pair):
        with psycopg.connect(primary.database_url, autocommit=True) as conn:
            a_job(conn)
            self.catch_up(conn, pair[1])
            with pytest.raises(DatabaseUnavailable, match="read-only transaction"):
                tick(replica)
            assert tick(primary).done == 1

    def test_pages_metrics_and_health_are_served_and_ticks_refused(self, replica):
        with visiting(replica) as visitor:
            for page in PAGES:
                assert visitor.client.get(f"/dashboard{page}").status_code == 200, page
            assert visitor.get("/dashboard/jobs").ids == [3, 2, 1]
            bearer = {"authorization": f"Bearer {SECRET}"}
            metrics = visitor.client.get("/metrics", headers=bearer)
            assert (metrics.status_code, 'outcome="dead",type="noop"} ' in metrics.text) == (200, True)
            assert visitor.client.get("/health").json()["status"] == "ok"
            refused = visitor.client.get("/tick", headers=bearer)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert "read-only transaction" in refused.json()["detail"]

    def test_the_api_counts_calls_and_so_needs_the_primary(self, replica):
        with visiting(replica) as visitor:
            bearer = {"authorization": f"Bearer {KEY}"}
            for answer in (visitor.client.get("/jobs", headers=bearer), put(visitor.client, bearer)):
                assert (answer.status_code, answer.json()["title"]) == (503, "Postgres is unavailable")

    def test_who_has_logged_in_at_the_primary_is_known(self, replica, primary):
        with visiting(primary) as visitor, visiting(replica) as other:
            other.client.cookies = visitor.client.cookies
            assert other.client.get("/dashboard/jobs", follow_redirects=False).status_code == 200

    def test_wrong_passwords_end_there_too(self, replica, monkeypatch):
        monkeypatch.setattr(login, "uncounted", login.Uncounted())
        with visiting(replica) as visitor:
            visitor.client.cookies.clear()
            answers = [log_in(visitor.client, f"wrong {number}") for number in range(login.TRIES)]
            assert set(answers) == {503}
            assert log_in(visitor.client, "wrong") == 429
            assert log_in(visitor.client, PASSWORD) == 429

    def test_wrong_passwords_that_the_database_counts_are_not_counted_here(self, primary, monkeypatch):
        monkeypatch.setattr(login, "uncounted", login.Uncounted())
        with visiting(primary) as visitor:
            assert log_in(visitor.client, "wrong") == 401
        (until,) = login.uncounted._until.values()
        assert until <= time.monotonic()


def put(client: httpx.Client, headers: dict[str, str]) -> httpx.Response:
    return client.post("/jobs", json={"type": "noop"}, headers=headers)


def log_in(client: httpx.Client, secret: str) -> int:
    return client.post("/dashboard/login", data={"secret": secret}, follow_redirects=False).status_code


class TestSchemas:
    """Three schemas of one database, each with tables of its own."""

    @pytest.fixture(scope="class")
    @staticmethod
    def database(server_url, worker_id):
        name = f"tick_shops_{worker_id}"
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute(f"drop database if exists {name} with (force)")
            admin.execute(f"create database {name}")
            url = server_url.replace("/postgres?", f"/{name}?")
            migrate(url, *Shop.NAMES)
            yield url
            admin.execute(f"drop database {name} with (force)")

    @pytest.fixture
    def shops(self, database, settings, noop):
        with psycopg.connect(database, autocommit=True) as conn:
            for name in Shop.NAMES:
                conn.execute(
                    Shop.within("truncate {0}.jobs, {0}.ticks, {0}.limits, {0}.entries restart identity", name)
                )
            yield [Shop(conn, name, replace(settings, database_url=database, schema=name)) for name in Shop.NAMES]

    def test_ticks_at_once_find_their_own_jobs(self, shops):
        for number, shop in enumerate(shops):
            shop.enqueue(*[{"type": "noop"}] * number)
        with ThreadPoolExecutor(len(shops)) as at_once:
            reports = list(at_once.map(lambda shop: tick(shop.settings), shops))
        assert [report.done for report in reports] == [0, 1, 2]
        assert [shop.count("ticks") for shop in shops] == [1, 1, 1]
        assert [shop.statuses() for shop in shops] == [{}, {"done": 1}, {"done": 2}]

    def test_a_key_that_is_busy_in_one_is_free_in_another(self, shops):
        one, other, _ = shops
        one.enqueue({"type": "noop", "key": "customer 7"}, {"type": "noop", "key": "customer 7"})
        one.run("update {0}.jobs set status = 'running', attempt = 1, tick_id = gen_random_uuid(), started_at = now(),"
                " lease_expires_at = now() + interval '1 hour' where id = 1")  # fmt: skip
        other.enqueue({"type": "noop", "key": "customer 7"})
        assert [tick(each.settings).done for each in (one, other)] == [0, 1]

    def test_an_idempotency_key_is_of_its_schema(self, shops):
        for shop in shops:
            created = [shop.enqueue({"type": "noop", "idempotency_key": "order 7"})[0][1] for _ in range(2)]
            assert created == [True, False]

    def test_a_full_limit_holds_up_its_own_schema_only(self, shops):
        @public.job(type="limited", concurrency=1)
        async def limited() -> None: ...

        one, other, _ = shops
        for shop in (one, other):
            tick(shop.settings)
            shop.enqueue({"type": "limited"}, {"type": "noop"})
        one.enqueue({"type": "limited"})
        one.run("update {0}.jobs set status = 'running', attempt = 1, tick_id = gen_random_uuid(), started_at = now(),"
                " lease_expires_at = now() + interval '1 hour' where id = 1")  # fmt: skip
        assert [tick(each.settings, budget=3).done for each in (one, other)] == [1, 2]

    def test_what_follows_a_job_is_put_where_it_is(self, shops):
        one, *others = shops
        one.enqueue({"type": "noop", "callback_url": "https://example.com/told"})
        tick(one.settings, budget=1)
        assert one.run("select count(*) from {0}.jobs where type = 'tick.callback'").fetchone() == (1,)
        assert [shop.statuses() for shop in others] == [{}, {}]

    def test_sql_puts_jobs_into_the_schema_of_the_function(self, shops):
        one, other, _ = shops
        one.run("select {0}.enqueue('noop')")
        assert (one.statuses(), other.statuses()) == ({"pending": 1}, {})


class Shop:
    """One of the schemas: what is in it, and settings with which it ticks."""

    NAMES = ("shop_a", "shop_b", "shop_c")

    def __init__(self, conn: psycopg.Connection, name: str, settings) -> None:
        self.conn, self.name, self.settings = conn, name, settings

    @staticmethod
    def within(statement: str, name: str) -> sql.Composed:
        return sql.SQL(statement).format(sql.Identifier(name))

    def run(self, statement: str) -> psycopg.Cursor:
        return self.conn.execute(self.within(statement, self.name))

    def enqueue(self, *news: dict) -> list[tuple[int, bool]]:
        return self.conn.execute(
            statements(self.name)["enqueue"], {"jobs": psycopg.types.json.Jsonb(list(news))}
        ).fetchall()

    def count(self, table: str) -> int:
        return self.run(f"select count(*) from {{0}}.{table}").fetchone()[0]

    def statuses(self) -> dict[str, int]:
        return dict(self.run("select status, count(*) from {0}.jobs group by status").fetchall())
