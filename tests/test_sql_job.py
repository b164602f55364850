"""The type `sql`, on a real Postgres."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time

import psycopg
import pytest
from psycopg import sql as composed

from tests import factories
from tick import runner, sql_job
from tick.config import Settings
from tick.errors import InvalidPayload
from tick.handlers import Context, Registry, Shared
from tick.jobs import Dead, Done, Job, Retried

configuration: dict[str, Settings] = {}
"""The settings of the attempts of a test, once it has them."""

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


@pytest.fixture
def configure(url):
    """Points attempts at the test's database, or at another."""

    def configured(database_url: str | None) -> None:
        configuration["settings"] = Settings(database_url=database_url)

    configured(url)
    yield configured
    configuration.clear()


@pytest.fixture
def table(conn, configure):
    """A table of the users', with three rows."""
    conn.execute("drop table if exists things; create table things (id int primary key, name text, at timestamptz)")
    conn.execute("insert into things select n, 'n' || n, '2026-03-01 08:00Z' from generate_series(1, 3) n")
    yield conn
    conn.execute("drop table things")


async def attempt_async(payload, remaining: float = 50.0):
    job = Job(7, "sql", json.dumps(payload), 1, 0, 0, 0, None, None, None, None, None, 0, NOW)
    context = Context(job, NOW, time.monotonic() + remaining, Registry(), Shared(configuration["settings"]))
    return await runner.run(job, sql_job.sql, context, runner.Threads())


def attempt(statement: str, params=None, **payload):
    """The outcome of an attempt at a statement."""
    given = {"statement": statement} | ({} if params is None else {"params": params}) | payload
    remaining = given.pop("remaining", 50.0)
    return asyncio.run(attempt_async(given, remaining))


def result(statement: str, params=None, **payload):
    outcome = attempt(statement, params, **payload)
    assert isinstance(outcome, Done), outcome
    kept = json.loads(outcome.result)
    assert kept.pop("seconds") >= 0
    return kept


def dead(statement: str, params=None, **payload) -> str:
    outcome = attempt(statement, params, **payload)
    assert isinstance(outcome, Dead), outcome
    return outcome.failure.message


def retried(statement: str, params=None, **payload) -> str:
    outcome = attempt(statement, params, **payload)
    assert isinstance(outcome, Retried), outcome
    return outcome.failure.message


class TestAStatement:
    def test_says_how_many_rows_it_touched(self, table):
        assert result("update things set name = 'x' where id < 3") == {"rows": 2, "returned": []}
        assert result("delete from things where false") == {"rows": 0, "returned": []}
        assert table.execute("select count(*) from things where name = 'x'").fetchone() == (2,)

    def test_keeps_what_it_returns(self, table):
        assert result("delete from things where id = 1 returning id, name, at") == {
            "rows": 1,
            "returned": [{"id": 1, "name": "n1", "at": "2026-03-01T08:00:00Z"}],
        }

    def test_keeps_twenty_rows_of_many(self, table):
        kept = result("select n from generate_series(1, 1000) n")
        assert (kept["rows"], kept["returned"]) == (1000, [{"n": n} for n in range(1, 21)])

    def test_keeps_rows_that_are_small(self, table):
        kept = result("select repeat('x', 5000) as x from generate_series(1, 20)")
        assert (kept["rows"], len(kept["returned"])) == (20, 3)
        assert result("select repeat('x', 50000) as x")["returned"] == []

    def test_keeps_values_of_any_kind(self, table):
        row = result(
            "select 1.5::numeric as a, 'NaN'::float8 as b, '2 days'::interval as c, '{1,2}'::int[] as d, '{\"x\": null}'::jsonb as e,"
            " '10.0.0.1'::inet as f, '[1,5)'::int4range as g, null as h, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid as i, '\\xdead'::bytea as j"
        )["returned"][0]
        assert row == {"a": "1.5", "b": None, "c": "P2D", "d": [1, 2], "e": {"x": None}, "f": "10.0.0.1", "g": "[1, 5)", "h": None,
                       "i": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "j": "3q0="}  # fmt: skip

    def test_is_one_transaction(self, table):
        assert "23505" in retried("insert into things values (4); insert into things values (4)")
        assert table.execute("select count(*) from things").fetchone() == (3,)

    def test_may_be_several_and_the_last_is_told(self, table):
        assert result("delete from things where id = 1; select count(*) as left from things") == {
            "rows": 1,
            "returned": [{"left": 2}],
        }

    def test_may_call_a_procedure(self, table):
        table.execute(
            "create or replace procedure rename(who int) language sql as $$update things set name = 'called' where id = who$$"
        )
        assert result("call rename(%s)", [2]) == {"rows": None, "returned": []}
        assert table.execute("select name from things where id = 2").fetchone() == ("called",)
        table.execute("drop procedure rename")

    def test_may_start_a_job(self, table):
        result("select tick.enqueue('later', '{}')")
        assert factories.statuses(table) == {"pending": 1}


class TestParameters:
    @pytest.mark.parametrize(
        ("statement", "params", "row"),
        [
            ("select %s::int + %s::int as a", [1, 2], {"a": 3}),
            ("select %(x)s || %(x)s as a", {"x": "y"}, {"a": "yy"}),
            ("select %s::jsonb -> 'b' as a", [{"b": [1]}], {"a": [1]}),
            ("select %(x)s::jsonb -> 'b' as a", {"x": {"b": 1}}, {"a": 1}),
            ("select %s::int[] as a", [[1, 2]], {"a": [1, 2]}),
            ("select %s::text as a", [None], {"a": None}),
            ("select %s::text as a", ["'; drop table things; --"], {"a": "'; drop table things; --"}),
            ("select 5 %% %s::int as a", [3], {"a": 2}),
            ("select 5 % 3 as a", None, {"a": 2}),
            ("select '%s' as a", None, {"a": "%s"}),
        ],
    )
    def test_stand_for_values(self, table, statement, params, row):
        assert result(statement, params)["returned"] == [row]

    @pytest.mark.parametrize(
        ("statement", "params"),
        [("select %s", []), ("select 1", [1]), ("select %(x)s", {}), ("select %(x)s", [1]), ("select %s", {"x": 1}), ("select 5 % 3", [1]), ("select %s; select 1", [1])],
    )  # fmt: skip
    def test_that_do_not_fit_are_refused(self, table, statement, params):
        assert dead(statement, params).startswith("Permanent: ")

    @pytest.mark.parametrize("payload", [{}, {"statement": ""}, {"statement": 1}, {"statement": "x", "params": "y"}, {"statement": "x", "timeout": 0}, {"statement": "x", "timeout": "soon"}, {"statement": "x", "sql": 1}])  # fmt: skip
    def test_that_are_none_are_refused_at_enqueue(self, payload):
        with pytest.raises(InvalidPayload, match="the payload does not fit sql"):
            sql_job.sql.new_job(payload)


class TestFailures:
    @pytest.mark.parametrize(
        ("statement", "said"),
        [
            ("selekt 1", '42601: syntax error at or near "selekt"'),
            ("select * from nowhere", '42P01: relation "nowhere" does not exist'),
            ("select nothing from things", '42703: column "nothing" does not exist'),
            ("select no_such_function()", "42883: function no_such_function() does not exist"),
            ("insert into nowhere.things values (1)", "42P01"),
            ("create table nowhere.x ()", '3F000: schema "nowhere" does not exist'),
            ("vacuum things", "25001: VACUUM cannot run inside a transaction block"),
            ("do $$begin commit; end$$", "2D000: invalid transaction termination"),
            ("copy things to stdout", "COPY"),
        ],
    )
    def test_that_no_attempt_can_mend_are_final(self, table, statement, said):
        message = dead(statement)
        assert message.startswith("Permanent: ") and said in message

    def test_that_are_a_matter_of_rights_are_final(self, table):
        table.execute("drop role if exists nobody_here; create role nobody_here")
        assert "42501: permission denied for table things" in dead("set local role nobody_here; select * from things")
        table.execute("drop role nobody_here")

    @pytest.mark.parametrize(
        ("statement", "said"),
        [
            ("insert into things values (1)", "StatementFailed: 23505: duplicate key value violates unique constraint"),
            ("select 1/0", "StatementFailed: 22012: division by zero"),
            ("do $$begin raise exception 'not today'; end$$", "StatementFailed: P0001: not today"),
            ("do $$begin raise serialization_failure; end$$", "StatementFailed: 40001"),
            ("select pg_terminate_backend(pg_backend_pid())", "StatementFailed: 57P01"),
        ],
    )
    def test_that_another_attempt_may_mend_are_retried(self, table, statement, said):
        assert retried(statement).startswith(said)

    def test_do_not_show_the_values_of_rows(self, table):
        table.execute("alter table things add constraint few check (id < 10)")
        outcome = attempt("insert into things values (99, 'canary')")
        assert "23514" in outcome.failure.message and "canary" not in repr(outcome)

    def test_of_time_are_retried(self, table):
        started = time.monotonic()
        message = retried("select pg_sleep(60)", timeout=0.2)
        assert message == "TimeoutError: 57014: canceling statement due to statement timeout (it may take 0.2 s: give it a longer timeout, or less to do)"  # fmt: skip
        assert time.monotonic() - started < 30

    def test_the_server_stops_what_the_ticks_deadline_did_not(self, table):
        assert "57014" in retried("select pg_sleep(60)", remaining=-0.8, timeout="10m")

    def test_of_two_that_wait_for_each_other_are_retried(self, table, url):
        """A deadlock: this process holds row 2 and waits for row 1, which the job holds while it waits for row 2."""
        with psycopg.connect(url) as other:
            other.execute("update things set name = 'other' where id = 2")

            async def both():
                statement = "update things set name = 'job' where id = 1; update things set name = 'job' where id = 2"
                job = asyncio.create_task(attempt_async({"statement": statement}))
                await asyncio.to_thread(factories.wait_until, lambda: waiting_for_a_lock(table))
                try:
                    await asyncio.to_thread(other.execute, "update things set name = 'other' where id = 1")
                except psycopg.errors.DeadlockDetected:
                    other.rollback()
                    return await job
                outcome = await job
                assert outcome.failure.message.startswith("StatementFailed: 40P01: deadlock detected")
                return outcome

            # Which of the two Postgres ends is its own choice.
            assert isinstance(asyncio.run(both()), Retried | Done)

    @pytest.mark.parametrize("database_url", ["postgresql://127.0.0.1:1/none", "postgresql:///none?host=/nowhere"])
    def test_to_connect_are_retried(self, configure, database_url):
        configure(database_url)
        assert retried("select 1").startswith("DatabaseUnavailable: Postgres cannot be reached")

    def test_to_be_configured_are_final(self, configure):
        configure(None)
        assert dead("select 1").startswith("ConfigurationError: DATABASE_URL is not set")


def waiting_for_a_lock(conn) -> bool:
    waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%%name = ''job''%%' and pid <> pg_backend_pid()"
    return conn.execute(waiting.replace("%%", "%")).fetchone() is not None


class TestBeingCutShort:
    def test_stops_the_statement_in_the_database(self, table):
        async def cut():
            running = asyncio.create_task(attempt_async({"statement": "select pg_sleep(60), 'cut short'"}))
            await asyncio.to_thread(factories.wait_until, lambda: is_running(table))
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(cut())
        factories.wait_until(lambda: not is_running(table))


def is_running(conn) -> bool:
    running = composed.SQL(
        "select 1 from pg_stat_activity where query like {} and state = 'active' and pid <> pg_backend_pid()"
    )
    return conn.execute(running.format(composed.Literal("select pg_sleep%"))).fetchone() is not None


@pytest.fixture
def registered(empty_registry):
    empty_registry.add(sql_job.sql)


@pytest.mark.usefixtures("registered")
class TestThroughTheQueue:
    def test_python_enqueues_it(self, table, settings):
        id = sql_job.sql.enqueue(table, statement="delete from things where id = %(id)s", params={"id": 3})
        assert factories.tick(settings).done == 1
        row = factories.job(table, id)
        assert (row["status"], row["result"]["rows"]) == ("done", 1)
        assert table.execute("select max(id) from things").fetchone() == (2,)

    def test_a_wrong_statement_is_dead_with_its_reason(self, table, settings):
        id = factories.a_job(table, "sql", payload={"statement": "selekt 1"})
        assert factories.tick(settings).dead == 1
        assert factories.job(table, id)["last_error"] == 'Permanent: 42601: syntax error at or near "selekt"'

    def test_statements_of_one_tick_do_not_wait_for_each_other(self, table, settings):
        """Each waits until both are there: together they end, one after the other they would not."""
        table.execute("create table if not exists arrivals (n int)")
        statement = (
            "insert into arrivals values (%s); commit; begin; do $$begin for i in 1..2000 loop"
            " exit when (select count(*) from arrivals) = 2; perform pg_sleep(0.01); end loop; end$$;"
            " select 1 / (count(*) - 1) from arrivals"
        )
        for n in (1, 2):
            sql_job.sql.enqueue(table, statement=statement.replace("%s", str(n)))
        assert factories.tick(settings, budget=40).done == 2
        table.execute("drop table arrivals")

    def test_schedules_toml_alone_runs_a_statement(self, table, settings):
        settings.schedules_path.write_text(
            '[schedules.clean-up]\ntype = "sql"\nevery = "1m"\n'
            'payload = { statement = "delete from things where id <= %s", params = [2], timeout = "10s" }\n'
        )
        factories.tick(settings)
        factories.move_clock(table, "+2 minutes")
        assert factories.tick(settings).done == 1
        assert table.execute("select count(*) from things").fetchone() == (1,)
