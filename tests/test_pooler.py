"""Ticks through a real PgBouncer in transaction mode, with fewer server connections than ticks."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

import tick as public
from tests.factories import jobs, move_clock, statuses, tick, wait_until
from tick import database

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
POOL = 2

pytestmark = [
    pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed (apt-get install pgbouncer)"),
    pytest.mark.usefixtures("empty_registry"),
]


@pytest.fixture(scope="module")
def pooled_url(worker_url):
    """The worker's database behind PgBouncer: transaction mode, two server connections."""
    parts = urlsplit(worker_url)
    name, host = parts.path[1:], parse_qs(parts.query)["host"][0]
    # Short: the path of a socket has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="tick-pgb-"))
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "ini").write_text(
        f"[databases]\n{name} = host={host} dbname={name} user=postgres\n"
        f"[pgbouncer]\npool_mode = transaction\ndefault_pool_size = {POOL}\nmax_client_conn = 100\n"
        f"listen_addr =\nlisten_port = 6432\nunix_socket_dir = {folder}\nauth_type = trust\nauth_file = {folder}/users\n"
        f"logfile = {folder}/log\n"
    )
    # Whoever may use the server's socket; and PgBouncer refuses to run as root.
    owner = os.stat(host)
    who = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([PGBOUNCER, "-q", str(folder / "ini")], cwd="/", **who, **quiet)
    url = f"postgresql://postgres@/{name}?host={folder}&port=6432"
    try:
        wait_until(lambda: answers(url))
        yield url
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def answers(url: str) -> bool:
    try:
        with psycopg.connect(url) as connection:
            return connection.execute("select 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


@pytest.fixture
def pooled(settings, pooled_url):
    return replace(settings, database_url=pooled_url)


def backends(conn) -> list[tuple[str, str]]:
    """The state and the last query of every session of this database but our own."""
    return conn.execute(
        "select state, query from pg_stat_activity where datname = current_database()"
        " and backend_type = 'client backend' and pid <> pg_backend_pid()"
    ).fetchall()


def check_nothing_is_left(conn, pooled_url: str) -> None:
    """No transaction, lock, prepared statement or setting stays on the server connections for whoever comes next."""
    assert 1 <= len(backends(conn)) <= POOL
    assert {state for state, _ in backends(conn)} == {"idle"}
    locks = "select count(*) from pg_locks l join pg_database d on d.oid = l.database where datname = current_database() and locktype = 'advisory'"
    assert conn.execute(locks).fetchone() == (0,)
    with psycopg.connect(pooled_url) as one, psycopg.connect(pooled_url) as other:
        seen = set()
        for connection in (one, other):  # both in a transaction, and so on a server connection each
            found = connection.execute(
                "select pg_backend_pid(), (select count(*) from pg_prepared_statements),"
                " (select count(*) from pg_cursors), current_setting('search_path'), current_setting('lock_timeout'),"
                " (select count(*) from pg_listening_channels())"
            ).fetchone()
            seen.add(found[0])
            assert found[1:] == (0, 0, '"$user", public', "0", 0)
        assert len(seen) == POOL


def test_three_ticks_at_once_drain_three_hundred_jobs(conn, pooled, pooled_url):
    @public.job(type="noop")
    async def work() -> None:
        await asyncio.sleep(0.01)

    jobs(conn, count=300)
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda _: tick(pooled, budget=20, batch_size=20), range(3)))
    assert statuses(conn) == {"done": 300}
    assert sum(report.done for report in reports) == 300
    assert sum(report.stale for report in reports) == 0
    check_nothing_is_left(conn, pooled_url)


def test_windows_are_made_once(conn, pooled, pooled_url):
    @public.job
    async def hourly() -> None: ...

    pooled.schedules_path.write_text('[schedules.hourly]\nevery = "1h"\ncatch_up = "all"\n')
    move_clock(conn, "2026-03-01T10:30Z")
    tick(pooled)
    move_clock(conn, "2026-03-02T10:30Z")
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda _: tick(pooled), range(3)))
    assert sum(report.materialised for report in reports) == 24
    assert statuses(conn) == {"done": 24}
    check_nothing_is_left(conn, pooled_url)


def test_a_tick_holds_no_server_connection_while_its_handlers_run(conn, pooled):
    others: list[int] = []

    @public.job
    def look() -> None:
        with psycopg.connect(pooled.database_url) as one, psycopg.connect(pooled.database_url) as other:
            others.extend(connection.execute("select pg_backend_pid()").fetchone()[0] for connection in (one, other))

    jobs(conn, "look")
    assert tick(pooled).done == 1
    assert len(set(others)) == POOL


def test_migrating_and_enqueuing_go_through_it_as_well(conn, pooled, pooled_url):
    handler = public.job(type="noop")(lambda: None)

    async def main() -> list[str]:
        async with database.connect(pooled_url) as connection:
            assert await database.migrate(connection) == []
            assert (await handler.using(idempotency_key="a").enqueue(connection)).created
            return await database.migrate(connection, "pooled")

    try:
        assert asyncio.run(main()) == [migration.name for migration in database.migrations()]
        with psycopg.connect(pooled_url, prepare_threshold=None) as connection:
            for _ in range(20):
                assert not handler.using(idempotency_key="a").enqueue(connection).created
                connection.commit()
        check_nothing_is_left(conn, pooled_url)
    finally:
        conn.execute("drop schema if exists pooled cascade")
