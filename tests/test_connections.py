"""Enqueuing on every connection that tick takes, with the real libraries: what is committed is there, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sqlite3
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import psycopg
import pytest
import sqlalchemy
from django.conf import settings as django_settings
from django.core.cache import cache as django_cache
from django.db import connection as django_proxy
from django.db import connections as django_connections
from django.db import transaction as django_transaction
from django.db.utils import ConnectionHandler
from psycopg.rows import dict_row
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as aio
from sqlalchemy.pool import NullPool

import tick
from tests.factories import job, statuses
from tests.test_docs import blocks
from tick import connections, database
from tick.errors import NotMigrated
from tick.jobs import NewJob

pytestmark = pytest.mark.usefixtures("empty_registry")
REPOSITORY = Path(__file__).parents[1]
GUIDE = REPOSITORY / "docs" / "enqueue.md"

if not django_settings.configured:
    django_settings.configure()
    django.setup()


@dataclass
class Door:
    """A connection to enqueue on, and how its library ends or nests its transaction, for one that awaits and one that does not."""

    connection: Any
    owner: Any
    runner: asyncio.Runner

    def end(self, value: Any) -> Any:
        """The value, or what an awaitable gives."""
        return self.runner.run(value) if inspect.isawaitable(value) else value

    def commit(self) -> None:
        self.end(self.owner.commit())

    def rollback(self) -> None:
        self.end(self.owner.rollback())

    @contextmanager
    def nested(self) -> Iterator[None]:
        """A savepoint, which the library rolls back when the block raises."""
        if hasattr(self.owner, "savepoint_commit"):
            scope = django_transaction.atomic(using="default")
        else:
            scope = getattr(self.owner, "begin_nested", getattr(self.owner, "transaction", None))()
        with self.entered(scope):
            yield

    @contextmanager
    def entered(self, scope: Any) -> Iterator[Any]:
        if not hasattr(scope, "__aenter__") or hasattr(scope, "__enter__"):
            with scope as value:
                yield value
            return
        value = self.end(scope.__aenter__())
        try:
            yield value
        except BaseException as error:
            if not self.end(scope.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self.end(scope.__aexit__(None, None, None))


def sqlalchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


@contextmanager
def psycopg_owner(url: str, **options: Any) -> Iterator[psycopg.Connection]:
    connection = psycopg.connect(url, **options)
    with closing(connection):
        yield connection


@contextmanager
def engine_owner(url: str, make: Any, **options: Any) -> Iterator[Any]:
    engine = sqlalchemy.create_engine(sqlalchemy_url(url), poolclass=NullPool, **options)
    with closing(make(engine)) as owner:
        yield owner


@contextmanager
def async_owner(owner: Any, runner: asyncio.Runner) -> Iterator[Any]:
    try:
        yield owner
    finally:
        runner.run(owner.close())


def async_psycopg(url: str, runner: asyncio.Runner, **options: Any) -> Any:
    return async_owner(runner.run(psycopg.AsyncConnection.connect(url, **options)), runner)


def async_engine(url: str, make: Any, runner: asyncio.Runner, **options: Any) -> Any:
    async def made() -> Any:
        owner = make(aio.create_async_engine(sqlalchemy_url(url), poolclass=NullPool, **options))
        return await owner if inspect.isawaitable(owner) else owner

    return async_owner(runner.run(made()), runner)


@contextmanager
def django_owner(url: str, autocommit: bool = False) -> Iterator[Any]:
    given = psycopg.conninfo.conninfo_to_dict(url)
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": given["dbname"]} | {
        name.upper(): value for name, value in given.items() if name in ("user", "password", "host", "port")
    }
    connection = ConnectionHandler({"default": database})["default"]
    django_connections["default"] = connection
    connection.set_autocommit(autocommit)
    try:
        yield connection
    finally:
        connection.close()
        del django_connections["default"]


def scoped(engine: Any) -> Any:
    return orm.scoped_session(orm.sessionmaker(engine))


def async_scoped(engine: Any) -> Any:
    return aio.async_scoped_session(aio.async_sessionmaker(engine), scopefunc=lambda: None)


AUTO = {"isolation_level": "AUTOCOMMIT"}
SYNC: dict[str, tuple[Any, Any]] = {
    "psycopg": (psycopg_owner, None),
    "psycopg with rows of its own": (lambda url, **o: psycopg_owner(url, row_factory=dict_row, **o), None),
    "psycopg client cursors": (lambda url, **o: psycopg_owner(url, cursor_factory=psycopg.ClientCursor, **o), None),
    "psycopg raw cursors": (lambda url, **o: psycopg_owner(url, cursor_factory=psycopg.RawCursor, **o), None),
    "psycopg cursor": (psycopg_owner, lambda owner: owner.cursor(row_factory=dict_row)),
    "psycopg client cursor": (psycopg_owner, psycopg.ClientCursor),
    "SQLAlchemy session": (lambda url, **o: engine_owner(url, orm.Session, **o), None),
    "SQLAlchemy scoped session": (lambda url, **o: engine_owner(url, scoped, **o), None),
    "SQLAlchemy connection": (lambda url, **o: engine_owner(url, sqlalchemy.Engine.connect, **o), None),
    "Django connection": (django_owner, None),
    "Django proxy": (django_owner, lambda owner: django_proxy),
    "Django cursor": (django_owner, lambda owner: owner.cursor()),
}
ASYNC: dict[str, tuple[Any, Any]] = {
    "async psycopg": (async_psycopg, None),
    "async psycopg with rows of its own": (lambda u, r, **o: async_psycopg(u, r, row_factory=dict_row, **o), None),
    "async psycopg raw cursors": (lambda u, r, **o: async_psycopg(u, r, cursor_factory=psycopg.AsyncRawCursor, **o), None),
    "async psycopg cursor": (async_psycopg, lambda owner: owner.cursor()),
    "async SQLAlchemy session": (lambda u, r, **o: async_engine(u, aio.AsyncSession, r, **o), None),
    "async SQLAlchemy scoped session": (lambda u, r, **o: async_engine(u, async_scoped, r, **o), None),
    "async SQLAlchemy connection": (lambda u, r, **o: async_engine(u, aio.AsyncEngine.connect, r, **o), None),
}  # fmt: skip
KINDS = [*SYNC, *ASYNC]


@pytest.fixture
def opened() -> Iterator[Any]:
    """Opens a door of a kind, on the loop of this test."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())

        def opened(kind: str, url: str, *, autocommit: bool = False) -> Door:
            owned, connection_of = (SYNC | ASYNC)[kind]
            options: dict[str, Any] = {"autocommit": True} if autocommit else {}
            if autocommit and "SQLAlchemy" in kind:
                options = AUTO
            owner = stack.enter_context(owned(url, **options) if kind in SYNC else owned(url, runner, **options))
            return Door(connection_of(owner) if connection_of else owner, owner, runner)

        yield opened


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def door(kind, url, opened) -> Door:
    return opened(kind, url)


@pytest.fixture
def greet() -> tick.Handler:
    @tick.job
    def greet(name: str = "you") -> None: ...

    return greet


class TestEveryConnection:
    def test_a_job_is_there_when_it_is_committed_and_not_before(self, door, conn, greet):
        id = door.end(greet.using(key="a").enqueue(door.connection, "Ada: 100 % of %s, %(jobs)s and :jobs"))
        assert (type(id), id.created, statuses(conn)) == (tick.JobId, True, {})
        door.commit()
        row = job(conn, id)
        assert (row["payload"], row["key"]) == ({"name": "Ada: 100 % of %s, %(jobs)s and :jobs"}, "a")

    def test_a_job_that_is_rolled_back_never_was(self, door, conn, greet):
        door.end(greet.enqueue(door.connection))
        door.rollback()
        assert statuses(conn) == {}

    def test_a_savepoint_takes_its_jobs_with_it(self, door, conn, greet):
        first = door.end(greet.enqueue(door.connection, "before"))
        with pytest.raises(ZeroDivisionError), door.nested():
            door.end(greet.enqueue(door.connection, "inside"))
            raise ZeroDivisionError
        with door.nested():
            kept = door.end(greet.enqueue(door.connection, "kept"))
        door.commit()
        assert conn.execute("select id, payload ->> 'name' from tick.jobs order by id").fetchall() == [
            (first, "before"),
            (kept, "kept"),
        ]

    def test_what_is_met_is_told(self, door, greet):
        once = greet.using(idempotency_key="order 7")
        first, second = (door.end(once.enqueue(door.connection)) for _ in range(2))
        assert (first == second, first.created, second.created) == (True, True, False)

    def test_ten_thousand_come_back_in_order(self, door, conn, greet):
        jobs = [greet.of(f"user {n}") for n in range(10_000)]
        ids = door.end(tick.enqueue_many(door.connection, jobs))
        door.commit()
        rows = conn.execute("select id, payload ->> 'name' from tick.jobs order by id").fetchall()
        assert rows == [(id, f"user {n}") for n, id in enumerate(ids)]
        assert ids == sorted(ids)
        assert all(id.created for id in ids)

    def test_none_is_no_job(self, door):
        assert door.end(tick.enqueue_many(door.connection, [])) == []

    def test_a_group_is_put_in_whole(self, door, conn, greet):
        last, *members = door.end(tick.group(door.connection, [greet.of("a"), greet.of("b")], then=greet.of("last")))
        door.commit()
        rows = conn.execute("select id, group_id, waits from tick.jobs order by id").fetchall()
        assert rows == [(last, None, 2), *((id, last, 0) for id in members)]

    def test_one_that_is_refused_writes_nothing_and_leaves_the_transaction_usable(self, door, conn, greet):
        door.end(greet.enqueue(door.connection, "before"))
        with pytest.raises(tick.InvalidPayload):
            greet.enqueue(door.connection, name=5)
        door.commit()
        assert statuses(conn) == {"pending": 1}

    def test_what_the_database_lacks_is_what_to_run(self, kind, fresh_url, opened, greet):
        door = opened(kind, fresh_url)
        with pytest.raises(NotMigrated, match='lacks .*schema "tick" does not exist.*: run `tick migrate`') as raised:
            door.end(greet.enqueue(door.connection))
        own = {"psycopg": psycopg.Error, "SQLAlchemy": sqlalchemy.exc.DBAPIError, "Django": django.db.Error}
        assert isinstance(raised.value.__cause__, next(error for library, error in own.items() if library in kind))
        door.rollback()

    def test_a_database_of_an_older_version_is_one_too(self, kind, fresh_url, opened, greet):
        with psycopg.connect(fresh_url, autocommit=True) as admin:
            admin.execute(database.migrations()[0].body("tick").encode())
        door = opened(kind, fresh_url)
        with pytest.raises(NotMigrated, match=r"function tick.insert_jobs\(jsonb\) does not exist"):
            door.end(greet.enqueue(door.connection))
        door.rollback()

    def test_other_errors_are_the_librarys_own(self, kind, door, greet):
        own = {"psycopg": psycopg.Error, "SQLAlchemy": sqlalchemy.exc.DBAPIError, "Django": django.db.Error}
        expected = next(error for library, error in own.items() if library in kind)
        door.end(connections.fetch(door.connection, "select set_config('transaction_read_only', 'on', true)", {}))
        with pytest.raises(expected, match="read-only transaction") as raised:
            door.end(greet.enqueue(door.connection))
        assert not isinstance(raised.value, tick.TickError)
        door.rollback()

    def test_rows_are_tuples(self, door):
        rows = door.end(connections.fetch(door.connection, "select %(a)s::text, '1:2'::text, 3", {"a": "x"}))
        assert (rows, type(rows[0])) == ([("x", "1:2", 3)], tuple)


@pytest.mark.parametrize("kind", KINDS)
def test_with_autocommit_the_job_is_there_at_once(kind, url, opened, conn, greet):
    door = opened(kind, url, autocommit=True)
    door.end(greet.enqueue(door.connection))
    assert statuses(conn) == {"pending": 1}


@pytest.mark.parametrize("kind", ASYNC)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_forgotten_await_is_noticed(kind, url, opened, conn, greet):
    door = opened(kind, url)
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always")
        greet.enqueue(door.connection)
        gc.collect()
    assert any("was never awaited" in str(warning.message) for warning in noticed)
    door.commit()
    assert statuses(conn) == {}


class TestPsycopg:
    def test_a_cursor_keeps_what_it_was_reading(self, url, greet):
        with psycopg.connect(url) as connection:
            cursor = connection.execute("select generate_series(1, 3)")
            assert cursor.fetchone() == (1,)
            greet.enqueue(cursor)
            assert cursor.fetchall() == [(2,), (3,)]

    def test_a_server_cursor_stands_for_its_connection(self, url, greet):
        with psycopg.connect(url) as connection, connection.cursor("named") as cursor:
            cursor.execute("select generate_series(1, 3)")
            greet.enqueue(cursor)
            assert cursor.fetchall() == [(1,), (2,), (3,)]

    def test_a_pipeline_takes_it_with_the_rest(self, conn, url, greet):
        with psycopg.connect(url) as connection, connection.pipeline():
            connection.execute("select 1")
            id = greet.enqueue(connection)
        assert job(conn, id)["status"] == "pending"

    def test_a_subclass_is_what_it_inherits_from(self, url, conn, greet):
        class Traced(psycopg.Connection):
            pass

        with Traced.connect(url) as connection:
            greet.enqueue(connection)
        assert statuses(conn) == {"pending": 1}

    def test_the_cursors_of_the_connection_are_used_so_that_tracing_sees_the_statement(self, url, greet):
        seen = []

        class Traced(psycopg.Cursor):
            def execute(self, query, *args, **kwargs):
                seen.append(query)
                return super().execute(query, *args, **kwargs)

        with psycopg.connect(url, cursor_factory=Traced) as connection:
            greet.enqueue(connection)
        assert len(seen) == 1
        assert "tick.insert_jobs" in seen[0]

    def test_a_closed_connection_is_psycopgs_error(self, url, greet):
        with psycopg.connect(url) as connection:
            pass
        with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
            greet.enqueue(connection)

    def test_a_transaction_that_has_failed_is_psycopgs_error(self, url, greet):
        with psycopg.connect(url) as connection:
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute("select 1 / 0")
            with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                greet.enqueue(connection)


Base = orm.declarative_base()


class User(Base):
    __tablename__ = "sqlalchemy_users"
    id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
    email = sqlalchemy.Column(sqlalchemy.Text, unique=True)


class TestSQLAlchemy:
    @pytest.fixture
    def engine(self, url) -> Iterator[Any]:
        engine = sqlalchemy.create_engine(sqlalchemy_url(url), poolclass=NullPool)
        Base.metadata.create_all(engine)
        yield engine
        Base.metadata.drop_all(engine)
        engine.dispose()

    def test_a_job_and_the_objects_of_its_session_are_committed_together(self, engine, conn):
        @tick.job
        def welcome(user_id: int) -> None: ...

        with orm.Session(engine) as session, session.begin():
            session.add(user := User(email="ada@example.com"))
            session.flush()
            welcome.enqueue(session, user_id=user.id)
            assert statuses(conn) == {}
        assert conn.execute("select u.id, j.payload from sqlalchemy_users u, tick.jobs j").fetchall() == [
            (1, {"user_id": 1})
        ]

    @pytest.mark.parametrize("autoflush", [True, False])
    def test_objects_that_are_not_flushed_yet_are_committed_with_the_job(self, engine, conn, greet, autoflush):
        with orm.Session(engine, autoflush=autoflush) as session:
            session.add(User(email="ada@example.com"))
            greet.enqueue(session)
            session.commit()
        assert conn.execute("select count(*) from sqlalchemy_users").fetchone() == (1,)
        assert statuses(conn) == {"pending": 1}

    @pytest.mark.parametrize("autoflush", [True, False])
    def test_a_flush_that_fails_takes_the_job_with_it(self, engine, conn, greet, autoflush):
        conn.execute("insert into sqlalchemy_users (email) values ('ada@example.com')")
        with orm.Session(engine, autoflush=autoflush) as session:
            session.add(User(email="ada@example.com"))
            with pytest.raises(sqlalchemy.exc.IntegrityError):
                greet.enqueue(session)
                session.commit()
        assert statuses(conn) == {}

    def test_a_nested_session_transaction_is_its_own(self, engine, conn, greet):
        with orm.Session(engine) as session, session.begin():
            greet.enqueue(session, "outer")
            with pytest.raises(sqlalchemy.exc.IntegrityError), session.begin_nested():
                session.add_all([User(email="same"), User(email="same")])
                greet.enqueue(session, "inner")
                session.flush()
            greet.enqueue(session, "after")
        names = conn.execute("select payload ->> 'name' from tick.jobs order by id").fetchall()
        assert names == [("outer",), ("after",)]

    def test_events_of_the_engine_see_the_statement(self, engine, greet):
        seen = []
        sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
        with orm.Session(engine) as session:
            greet.enqueue(session)
        assert ["tick.insert_jobs" in statement for statement in seen] == [True]

    def test_a_subclass_of_session_is_a_session(self, engine, conn, greet):
        class Theirs(orm.Session):
            pass

        with Theirs(engine) as session:
            greet.enqueue(session)
            session.commit()
        assert statuses(conn) == {"pending": 1}

    def test_the_sync_session_inside_an_async_one_is_taken_too(self, url, conn, greet):
        async def main() -> None:
            engine = aio.create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
            async with aio.AsyncSession(engine) as session, session.begin():
                assert await session.run_sync(greet.enqueue) == 1

        asyncio.run(main())
        assert statuses(conn) == {"pending": 1}

    def test_a_long_batch_of_a_streaming_session_comes_back_whole(self, engine, greet):
        with orm.Session(engine.execution_options(stream_results=True, yield_per=10)) as session:
            assert len(tick.enqueue_many(session, [greet.of()] * 500)) == 500


class TestDjango:
    @pytest.fixture
    def connection(self, url) -> Iterator[Any]:
        with django_owner(url, autocommit=True) as connection:
            yield connection

    def test_atomic_decides(self, connection, conn, greet):
        with pytest.raises(ZeroDivisionError), django_transaction.atomic():
            greet.enqueue(connection, "lost")
            raise ZeroDivisionError
        with django_transaction.atomic():
            greet.enqueue(django_proxy, "kept")
            with pytest.raises(ZeroDivisionError), django_transaction.atomic():
                greet.enqueue(connection, "lost too")
                raise ZeroDivisionError
            assert statuses(conn) == {}
        assert conn.execute("select payload ->> 'name' from tick.jobs").fetchall() == [("kept",)]

    def test_what_waits_for_the_commit_waits_for_the_commit(self, connection, conn, greet):
        calls = []
        with django_transaction.atomic():
            django_transaction.on_commit(lambda: calls.append(statuses(conn)))
            greet.enqueue(connection)
            assert calls == []
        assert calls == [{"pending": 1}]

    def test_a_job_may_be_enqueued_on_commit(self, connection, conn, greet):
        with django_transaction.atomic():
            django_transaction.on_commit(lambda: greet.enqueue(connection))
            assert statuses(conn) == {}
        assert statuses(conn) == {"pending": 1}

    def test_wrappers_of_execution_see_the_statement(self, connection, greet):
        seen = []

        def wrapper(execute, sql, params, many, context):
            seen.append(sql)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(wrapper):
            greet.enqueue(connection)
        assert ["tick.insert_jobs" in statement for statement in seen] == [True]

    def test_the_cursor_that_logs_queries_is_a_cursor(self, connection, greet):
        connection.force_debug_cursor = True
        with connection.cursor() as cursor:
            greet.enqueue(cursor)
        assert "tick.insert_jobs" in connection.queries[-1]["sql"]

    def test_in_a_coroutine_it_is_django_that_refuses(self, connection, greet):
        async def main() -> None:
            greet.enqueue(connection)

        with pytest.raises(django.core.exceptions.SynchronousOnlyOperation):
            asyncio.run(main())

    def test_a_connection_to_another_database_is_refused(self, greet):
        sqlite = ConnectionHandler({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})["default"]
        with pytest.raises(TypeError, match=r"django\.db\.backends\.sqlite3\.base\.DatabaseWrapper is no connection"):
            greet.enqueue(sqlite)

    def test_a_cache_behind_the_same_proxy_is_refused(self, greet):
        with pytest.raises(TypeError, match="ConnectionProxy is no connection that tick can use"):
            greet.enqueue(django_cache)


class TestWhatIsNoConnection:
    @pytest.mark.parametrize(
        "given",
        [None, 5, {}, object(), sqlite3, django_connections, orm.sessionmaker(), psycopg.Connection, lambda: None],
        ids=lambda given: type(given).__name__,
    )
    def test_is_refused_with_what_is_taken_and_with_what_every_driver_can_do(self, given, greet):
        with pytest.raises(TypeError) as raised:
            greet.enqueue(given)
        assert f"{type(given).__module__}.{type(given).__qualname__} is no connection that tick can use" in str(
            raised.value
        )
        for part in ("psycopg 3", "SQLAlchemy 2", "Django", "`select tick.enqueue('type', '{\"argument\": 1}')`"):
            assert part in str(raised.value)

    def test_another_databases_connection_is_none(self, greet):
        with (
            closing(sqlite3.connect(":memory:")) as sqlite,
            pytest.raises(TypeError, match=r"sqlite3\.Connection is no"),
        ):
            greet.enqueue(sqlite)

    def test_an_engine_is_told_how_to_get_a_transaction(self, url, greet):
        engine = sqlalchemy.create_engine(sqlalchemy_url(url))
        for given in (engine, aio.create_async_engine(sqlalchemy_url(url))):
            with pytest.raises(
                TypeError, match=r"no transaction of its own. Write `with engine.begin\(\) as connection:`"
            ):
                greet.enqueue(given)

    def test_a_url_is_told_to_connect(self, url, greet):
        with pytest.raises(TypeError, match="a URL has no transaction") as raised:
            greet.enqueue(url)
        assert url not in str(raised.value)

    def test_the_statement_in_the_message_works(self, conn, greet):
        with pytest.raises(TypeError) as raised:
            greet.enqueue(None)
        statement = str(raised.value).split("`")[-2]
        conn.execute(statement)
        assert job(conn, 1)["payload"] == {"argument": 1}


def test_tick_imports_neither_sqlalchemy_nor_django(tmp_path, url):
    program = (
        "import sys, psycopg, tick.intake, tick.jobs\n"
        "with psycopg.connect(sys.argv[1]) as connection:\n"
        "    tick.intake.enqueue(connection, tick.jobs.NewJob('x', b'{}'))\n"
        "assert not {'sqlalchemy', 'django'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, url], cwd=REPOSITORY, check=True, timeout=60)


def test_a_schema_by_another_name_is_named(fresh_url, monkeypatch, greet):
    monkeypatch.setenv("TICK_SCHEMA", "tock")
    from tick import intake

    monkeypatch.setattr(intake, "_default_schema", lambda: "tock")
    with psycopg.connect(fresh_url) as connection, pytest.raises(NotMigrated, match="schema 'tock' lacks"):
        intake.enqueue(connection, NewJob("x", b"{}"))


TYPED = """
from typing import Any, assert_type
import psycopg, sqlalchemy, sqlalchemy.orm, tick
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session

@tick.job
def greet(name: str) -> None: ...

def blocking(
    a: psycopg.Cursor[Any], b: sqlalchemy.orm.Session, c: sqlalchemy.Connection, d: psycopg.ClientCursor[Any],
    e: sqlalchemy.orm.scoped_session[sqlalchemy.orm.Session],
) -> None:
    assert_type(greet.enqueue(a, "Ada"), tick.JobId)
    assert_type(greet.enqueue(b, "Ada"), tick.JobId)
    assert_type(greet.enqueue(c, name="Ada"), tick.JobId)
    assert_type(greet.enqueue(d, name="Ada"), tick.JobId)
    assert_type(greet.enqueue(e, name="Ada"), tick.JobId)
    greet.enqueue(b, 1)  # type: ignore[call-overload]
    greet.enqueue(b)  # type: ignore[call-overload]

async def awaited(
    a: psycopg.AsyncCursor[Any], b: AsyncSession, c: AsyncConnection, d: async_scoped_session[AsyncSession]
) -> None:
    assert_type(await greet.enqueue(a, "Ada"), tick.JobId)
    assert_type(await greet.enqueue(b, "Ada"), tick.JobId)
    assert_type(await greet.enqueue(c, name="Ada"), tick.JobId)
    assert_type(await greet.enqueue(d, name="Ada"), tick.JobId)
    print(greet.enqueue(b, "Ada") + 1)  # type: ignore[operator]

def refused(a: sqlalchemy.Engine, b: AsyncEngine) -> None:
    greet.enqueue(a, "Ada")  # type: ignore[call-overload]
    greet.enqueue(b, "Ada")  # type: ignore[call-overload]
    greet.enqueue(None, "Ada")  # type: ignore[call-overload]

class Atomic:
    def on_commit(self, func: Any, robust: bool = False) -> None: ...

class DjangoCursor:
    db: Atomic

def like_django(a: Atomic, b: DjangoCursor) -> None:
    assert_type(greet.enqueue(a, "Ada"), tick.JobId)
    assert_type(greet.enqueue(b, "Ada"), tick.JobId)
"""


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_know_which_connections_are_awaited(tmp_path, checker):
    there = subprocess.run([sys.executable, "-m", checker, "--version"], capture_output=True, text=True, timeout=120)
    if there.returncode:
        pytest.skip(f"{checker} cannot be run here: {there.stderr[-200:]}")
    (tmp_path / "typed.py").write_text(TYPED)
    options = {"mypy": ["--strict", "--warn-unused-ignores"], "pyright": ["--pythonpath", sys.executable]}[checker]
    command = [sys.executable, "-m", checker, *options, str(tmp_path / "typed.py")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


class TestTheGuide:
    def test_its_python_runs_from_top_to_bottom(self, conn, url, monkeypatch):
        conn.execute("create table orders (id bigint, email text)")
        module = types.ModuleType("receipts")
        module.DATABASE_URL = url
        monkeypatch.setitem(sys.modules, "receipts", module)
        try:
            with django_owner(url, autocommit=True):
                for code in blocks(GUIDE, "python"):
                    exec(compile(code, str(GUIDE), "exec"), module.__dict__)
        finally:
            conn.execute("drop table orders")
        ids = {row["order_id"] for (row,) in conn.execute("select payload from tick.jobs").fetchall()}
        assert ids == {*range(7, 12), *range(16, 21), *range(100, 200)}
