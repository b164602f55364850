"""The connection and the migrations, on databases of their own."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

import tick as public
from tests.factories import tick, wait_until
from tick import database, intake, queue
from tick.config import Settings
from tick.database import Seat, normalise_url
from tick.errors import ConfigurationError, DatabaseUnavailable, MigrationError, NotMigrated
from tick.queue import Queue

REPOSITORY = Path(__file__).parents[1]
FILES = sorted((REPOSITORY / "migrations").glob("*.sql"))
EVERY_FILE = [argument for path in FILES for argument in ("-f", str(path))]


@pytest.fixture
def fresh(fresh_url):
    with psycopg.connect(fresh_url, autocommit=True) as connection:
        yield connection


def with_connection(url: str, use):
    async def main():
        async with database.connect(url) as connection:
            return await use(connection)

    return asyncio.run(main())


def migrate(url: str, schema: str = "tick") -> list[str]:
    return with_connection(url, lambda connection: database.migrate(connection, schema))


def pending(url: str, schema: str = "tick") -> list[str]:
    return [migration.name for migration in with_connection(url, lambda c: database.pending(c, schema))]


def a_file(folder: Path, name: str, body: str) -> database.Migration:
    """A migration of this test."""
    (folder / name).write_text(f"-- {name}\nbegin;\n{body}\ncommit;\n")
    return database.Migration(folder / name)


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Replaces what migrations there are: `files("9002_more.sql", "create table …")` adds one."""
    known = database.migrations()
    monkeypatch.setattr(database, "migrations", lambda: list(known))

    def add(name: str, body: str) -> None:
        known[:] = [migration for migration in known if migration.name != Path(name).stem]
        known.append(a_file(tmp_path, name, body))

    add.known = known
    return add


class TestTheUrl:
    @pytest.mark.parametrize(
        ("given", "taken"),
        [
            ("postgresql://u:p@h:5432/d", "postgresql://u:p@h:5432/d"),
            ("postgres://u:p@h/d", "postgres://u:p@h/d"),
            ("  postgresql://h/d\n", "postgresql://h/d"),
            ("postgresql+psycopg://u:p@h/d", "postgresql://u:p@h/d"),
            ("postgresql+psycopg2://u:p@h/d?sslmode=require", "postgresql://u:p@h/d?sslmode=require"),
            ("postgres+asyncpg://u:p@h/d", "postgres://u:p@h/d"),
            ("postgresql://h/d?pgbouncer=true", "postgresql://h/d"),
            ("postgresql://h/d?pgbouncer=true&connection_limit=1&sslmode=require&pool_timeout=5", "postgresql://h/d?sslmode=require"),
            ("postgresql://h/d?supa=base-pooler.x&schema=public", "postgresql://h/d"),
            ("postgresql://h/d?sslmode=require&uselibpqcompat=true", "postgresql://h/d?sslmode=require"),
            ("postgresql://h/d?sslmode=require&channel_binding=require", "postgresql://h/d?sslmode=require&channel_binding=require"),
            ("postgresql:///d", "postgresql:///d"),
            ("postgresql:///d?host=/tmp/pg&port=5433", "postgresql:///d?host=/tmp/pg&port=5433"),
            ("postgresql://u:@/d?host=%2Ftmp%2Fpg", "postgresql://u:@/d?host=%2Ftmp%2Fpg"),
            ("postgresql://h/d?options=-c%20geqo%3Doff", "postgresql://h/d?options=-c%20geqo%3Doff"),
            ("postgresql://u:p%40%23ss@h/d", "postgresql://u:p%40%23ss@h/d"),
            ("postgresql://a:1,b:2/d?target_session_attrs=read-write", "postgresql://a:1,b:2/d?target_session_attrs=read-write"),
            ("postgresql://[::1]:5432/d", "postgresql://[::1]:5432/d"),
            ("host=h dbname=d", "host=h dbname=d"),
        ],
    )  # fmt: skip
    def test_is_taken_as_other_tools_write_it(self, given, taken):
        assert normalise_url(given) == taken
        assert normalise_url(taken) == taken

    def test_keeps_what_an_option_says(self, url):
        def planned(connection):
            return connection.execute("show enable_seqscan")

        shown = with_connection(f"{url}&options=-c%20enable_seqscan%3Doff", planned)
        assert shown.pgresult.get_value(0, 0) == b"off"

    @pytest.mark.parametrize(
        "given",
        [
            "postgres//u:hunter2@h/d", "postgresql://u:hunter2%@h/d", "postgresql://u@h/d?hunter2",
            "postgresql://u:p@[hunter2/d", "mysql://u:hunter2@h/d",
        ],
    )  # fmt: skip
    def test_that_cannot_be_read_is_an_error_that_does_not_show_it(self, given):
        with pytest.raises(ConfigurationError, match="DATABASE_URL is not usable") as raised:
            with_connection(given, lambda _: None)
        assert "hunter2" not in str(raised.value)

    @pytest.mark.parametrize("given", ["mysql://x", "postgres//u@h/d", "sqlite:///tick.db", "h/d"])
    def test_that_begins_as_none_of_postgres_is_told_how_one_does(self, given):
        with pytest.raises(ConfigurationError, match="; write postgresql://user:password@host/database$"):
            with_connection(given, lambda _: None)

    def test_an_option_that_libpq_does_not_know_is_named(self):
        with pytest.raises(ConfigurationError, match='invalid URI query parameter: "pool_size"$'):
            with_connection("postgresql://h/d?pool_size=5", lambda _: None)

    def test_that_is_missing_is_said_to_be(self):
        with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
            with_connection("", lambda _: None)

    @pytest.mark.parametrize("given", ["postgresql://u:hunter2@127.0.0.1:1/d", "postgresql:///d?host=/nowhere", "postgresql://u:hunter2@[::1]:1/d"])  # fmt: skip
    def test_where_nothing_is_is_unavailable(self, given):
        with pytest.raises(DatabaseUnavailable, match="Postgres cannot be reached: ") as raised:
            with_connection(given, lambda _: None)
        assert "hunter2" not in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_a_database_that_does_not_exist_is_named(self, server_url):
        with pytest.raises(DatabaseUnavailable, match='database "tick_nowhere" does not exist'):
            with_connection(server_url.replace("/postgres?", "/tick_nowhere?"), lambda _: None)


class TestMigrate:
    def test_applies_all_then_nothing(self, fresh, fresh_url):
        names = [migration.name for migration in database.migrations()]
        assert names[0] == "0001_init"
        assert (pending(fresh_url), migrate(fresh_url)) == (names, names)
        assert (pending(fresh_url), migrate(fresh_url)) == ([], [])
        rows = fresh.execute("select name, checksum from tick.migrations order by number").fetchall()
        assert rows == [(migration.name, migration.checksum) for migration in database.migrations()]

    def test_looking_at_what_is_pending_changes_nothing(self, fresh, fresh_url):
        pending(fresh_url)
        assert fresh.execute("select to_regnamespace('tick')").fetchone() == (None,)

    def test_two_at_once_apply_each_file_once(self, fresh_url):
        with ThreadPoolExecutor(6) as pool:
            applied = list(pool.map(migrate, [fresh_url] * 6))
        assert sorted(sum(applied, [])) == [migration.name for migration in database.migrations()]

    def test_the_second_waits_for_the_first(self, fresh, fresh_url):
        with ThreadPoolExecutor(1) as pool:
            with fresh.transaction():
                fresh.execute("select pg_advisory_xact_lock(%s)", [database.MIGRATION_LOCK])
                second = pool.submit(migrate, fresh_url)
                wait_until(lambda: waiting(fresh_url))
                for migration in database.migrations():
                    fresh.execute(migration.body("tick").encode())
            assert second.result() == []
        assert fresh.execute("select count(*) from tick.migrations where checksum is null").fetchone() == (0,)

    def test_a_new_file_is_applied_in_a_transaction_of_its_own(self, fresh, fresh_url, files):
        migrate(fresh_url)
        files(
            "9002_more.sql",
            "create table tick.more (); insert into tick.migrations (number, name) values (9002, '9002_more');",
        )
        assert pending(fresh_url) == ["9002_more"]
        assert migrate(fresh_url) == ["9002_more"]
        assert fresh.execute("select checksum from tick.migrations where number = 9002").fetchone() == (files.known[-1].checksum,)  # fmt: skip

    def test_a_file_that_fails_leaves_nothing_behind_and_says_why(self, fresh, fresh_url, files):
        files("9002_more.sql", "create table tick.more (); select 1 / 0;")
        with pytest.raises(MigrationError, match=r"migrations/9002_more.sql was not applied: division by zero"):
            migrate(fresh_url)
        assert fresh.execute("select to_regclass('tick.more'), to_regclass('tick.jobs') is not null").fetchone() == (None, True)  # fmt: skip
        assert pending(fresh_url) == ["9002_more"]

    def test_a_file_that_has_changed_since_is_an_error_that_names_it(self, fresh_url, files):
        migrate(fresh_url)
        files("0001_init.sql", "select 1;")
        for refused in (migrate, pending):
            with pytest.raises(MigrationError, match=r"migrations/0001_init.sql has changed since it was applied"):
                refused(fresh_url)

    def test_a_file_that_is_missing_is_an_error_that_names_it(self, fresh, fresh_url):
        migrate(fresh_url)
        fresh.execute("insert into tick.migrations (number, name) values (7, '0007_later')")
        for refused in (migrate, pending):
            with pytest.raises(MigrationError, match="migration 0007_later, whose file is missing here"):
                refused(fresh_url)

    @pytest.mark.parametrize("held", ["advisory", "table"])
    def test_does_not_wait_for_ever_for_another_sessions_lock(self, fresh, fresh_url, monkeypatch, files, held):
        migrate(fresh_url)
        monkeypatch.setattr(database, "LOCK_TIMEOUT", "200ms")
        files("9002_more.sql", "alter table tick.jobs add column more text;")
        with fresh.transaction():
            if held == "advisory":
                fresh.execute("select pg_advisory_xact_lock(%s)", [database.MIGRATION_LOCK])
            else:
                fresh.execute("lock table tick.jobs in access share mode")
            with pytest.raises(MigrationError, match=r"9002_more.sql was not applied: another session held a lock"):
                migrate(fresh_url)
        assert pending(fresh_url) == ["9002_more"]

    def test_every_file_limits_how_long_it_waits_for_a_lock(self):
        for migration in database.migrations():
            assert "set local lock_timeout = '5s';" in migration.text, migration.name
            assert f"pg_advisory_xact_lock({database.MIGRATION_LOCK})" in migration.text, migration.name
        assert database.LOCK_TIMEOUT == "5s"

    def test_without_the_right_to_create_it_says_so(self, fresh, fresh_url):
        fresh.execute("drop role if exists tick_reader; create role tick_reader login")
        try:
            with pytest.raises(MigrationError, match="0001_init.sql was not applied: permission denied for database"):
                migrate(fresh_url.replace("postgres:@", "tick_reader@").replace("postgres@", "tick_reader@"))
        finally:
            fresh.execute("drop role tick_reader")

    def test_keeps_the_jobs_that_there_are(self, conn, url):
        conn.execute("insert into tick.jobs (type) values ('kept')")
        for path in FILES:
            conn.execute(path.read_bytes())
        migrate(url)
        assert conn.execute("select type from tick.jobs").fetchall() == [("kept",)]


def waiting(url: str) -> bool:
    """Whether a session of this database waits for a lock."""
    with psycopg.connect(url) as conn:
        return conn.execute("select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')").fetchone()[0]  # fmt: skip


def psql(url: str, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["psql", url, "-v", "ON_ERROR_STOP=1", "-q", *arguments], input=text, capture_output=True, text=True)  # fmt: skip


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
class TestPsql:
    def test_applies_the_files_as_well_and_again_without_a_change(self, fresh, fresh_url):
        for _ in range(2):
            done = psql(fresh_url, *EVERY_FILE)
            assert done.returncode == 0, done.stderr
        assert fresh.execute("select name, checksum from tick.migrations order by number").fetchall() == [
            (path.stem, None) for path in FILES
        ]

    def test_applies_them_twice_at_once(self, fresh, fresh_url):
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda _: psql(fresh_url, *EVERY_FILE), range(4)))
        assert [(each.returncode, "ERROR" in each.stderr) for each in done] == [(0, False)] * 4
        assert fresh.execute("select count(*) from tick.migrations").fetchone() == (len(FILES),)

    def test_what_it_applied_is_known_and_gets_its_checksum(self, fresh, fresh_url):
        psql(fresh_url, *EVERY_FILE)
        assert (pending(fresh_url), migrate(fresh_url)) == ([], [])
        checksums = fresh.execute("select checksum from tick.migrations order by number").fetchall()
        assert checksums == [(migration.checksum,) for migration in database.migrations()]

    def test_takes_the_exported_script_of_any_schema(self, fresh, fresh_url):
        done = psql(fresh_url, text=database.export("jobs_v2"))
        assert done.returncode == 0, done.stderr
        assert pending(fresh_url, "jobs_v2") == []
        assert fresh.execute("select to_regclass('jobs_v2.jobs') is not null, to_regnamespace('tick')").fetchone() == (True, None)  # fmt: skip


class TestAnotherSchema:
    @pytest.fixture
    def elsewhere(self, fresh_url, monkeypatch, tmp_path):
        """Settings of a schema of this name, for handlers' enqueue too."""

        def settings(schema: str) -> Settings:
            monkeypatch.setattr(intake, "_default_schema", lambda: schema)
            migrate(fresh_url, schema)
            return Settings(fresh_url, root=tmp_path, schedules_path=tmp_path / "schedules.toml", schema=schema)

        return settings

    @pytest.mark.parametrize("schema", ["jobs_v2", "order", "_"])
    def test_holds_everything_from_enqueue_to_done(self, fresh, elsewhere, empty_registry, schema):
        settings = elsewhere(schema)
        settings.schedules_path.write_text('[schedules.hourly]\nevery = "1h"\n')

        @public.job
        async def hourly(ctx: public.Context) -> None:
            if ctx.attempt == 1 and not ctx.schedule:
                ctx.enqueue("hourly")
                raise public.Retry(after=0)

        assert hourly.using(idempotency_key="one").enqueue(fresh).created
        assert not hourly.using(idempotency_key="one").enqueue(fresh).created
        assert tick(settings).retried == 1
        fresh.execute(f"update \"{schema}\".definitions set cursor = now() - interval '90 minutes'")
        fresh.execute(f'update "{schema}".entries set next_window = now()')
        report = tick(settings)
        assert report.materialised == 1
        assert tick(settings).left == 0
        assert dict(fresh.execute(f'select status, count(*) from "{schema}".jobs group by status').fetchall()) == {"done": 2}  # fmt: skip
        assert fresh.execute("select to_regnamespace('tick')").fetchone() == (None,)

    def test_no_statement_mentions_the_usual_one(self):
        for name, statement in queue.statements("jobs_v2").items():
            assert " tick." not in statement, name

    def test_two_share_a_database(self, fresh, elsewhere, empty_registry):
        one, other = elsewhere("one"), elsewhere("other")

        @public.job
        async def noop() -> None: ...

        noop.enqueue(fresh)  # into the last one
        assert (tick(one).done, tick(other).done) == (0, 1)


class TestNotMigrated:
    def test_says_what_is_missing_and_what_to_run(self, fresh_url):
        async def ask(connection):
            made = Queue(connection, lambda: database.open_connection(fresh_url))
            with pytest.raises(NotMigrated, match="'tick' lacks 0001_init, .*: run `tick migrate`") as raised:
                await made.send(queue.Statement("job_status", {"id": 1}))
            return raised.value.missing

        assert with_connection(fresh_url, ask) == [path.stem for path in FILES]

    def test_a_tick_says_so(self, fresh_url, settings, empty_registry):
        with pytest.raises(NotMigrated, match="tick migrate"):
            tick(replace(settings, database_url=fresh_url))


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_a_wheel_has_all_that_an_installation_reads(tmp_path):
    done = subprocess.run(["uv", "build", "--wheel", "--offline", "-q", "-o", str(tmp_path), str(REPOSITORY)], capture_output=True, text=True, timeout=60)  # fmt: skip
    if done.returncode and "network" in done.stderr.lower():
        pytest.skip(f"the build backend is not in uv's cache: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= {"tick/migrations/0001_init.sql", "tick/queue.sql", "tick/py.typed", "tick/schedules.schema.json"}
    assert {name.split("/")[0].split("-")[0] for name in names} == {"tick", "tick_jobs"}
    modules = {f"tick/{path.name}" for path in (REPOSITORY / "tick").glob("*.py")}
    assert modules <= names


class TestSeat:
    def test_of_a_room_that_is_full_is_waited_for_so_long_and_no_longer(self, url, monkeypatch):
        monkeypatch.setattr(database, "ROOM_SECONDS", 0.05)

        async def main() -> None:
            room = asyncio.Semaphore(1)
            one, other = Seat(url, room, "come again"), Seat(url, room, "come again")
            assert await one.connection() is await one.connection()
            with pytest.raises(DatabaseUnavailable, match="come again"):
                await other.connection()
            await other.leave()
            assert room.locked()
            await one.leave()
            assert not (await other.connection()).closed
            await other.leave()

        asyncio.run(main())

    def test_is_given_back_by_who_could_not_connect(self):
        async def main() -> None:
            room = asyncio.Semaphore(1)
            seat = Seat("", room, "come again")
            with pytest.raises(ConfigurationError):
                await seat.connection()
            await seat.leave()
            assert not room.locked()

        asyncio.run(main())
