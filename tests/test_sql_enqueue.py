"""`tick.enqueue` in SQL: the same rows as Python's, from psql, triggers and plpgsql, by roles that may do no more."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.types.json import Jsonb

import tick
from tests import factories
from tests.factories import job, move_clock, statuses
from tests.test_docs import blocks
from tick.jobs import NewJob
from tick.options import Options
from tick.queue import to_json

GUIDE = Path(__file__).parents[1] / "docs" / "enqueue.md"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
AT = datetime(2031, 5, 1, 12, tzinfo=UTC)
NEXT = NewJob("next", b'{"n": 1}', delay=60.0, key="after", priority=3)

CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "run_at": {"run_at": AT},
    "delay": {"delay": HOUR},
    "run_at and delay": {"run_at": AT, "delay": -HOUR},
    "priority": {"priority": -7},
    "priority of nought": {"priority": 0},
    "key": {"key": "user:7"},
    "key_order strict": {"key": "user:7", "key_order": "strict"},
    "key_order loose": {"key": "user:7", "key_order": "loose"},
    "idempotency_key": {"idempotency_key": "order 7"},
    "keep": {"idempotency_key": "order 7", "on_conflict": "keep", "delay": DAY},
    "replace": {"idempotency_key": "order 7", "on_conflict": "replace", "delay": DAY},
    "postpone": {"idempotency_key": "order 7", "on_conflict": "postpone", "delay": DAY},
    "max_wait": {"idempotency_key": "order 7", "on_conflict": "postpone", "delay": DAY, "max_wait": 24.5 * HOUR},
    "throttle": {"throttle": 5 * HOUR},
    "throttle by key": {"throttle": HOUR, "key": "user:7"},
    "throttle by the second": {"throttle": timedelta(seconds=1)},
    "max_attempts": {"max_attempts": 100},
    "timeout": {"timeout": timedelta(seconds=1.5)},
    "callback_url": {"callback_url": "https://example.com/done"},
    "on_dead_url": {"on_dead_url": "https://example.com/dead?a=1"},
    "traceparent": {"traceparent": TRACE},
    "replace with a key": {"idempotency_key": "order 7", "on_conflict": "replace", "key": "user:7", "delay": HOUR},
    "then": {"then": NEXT, "traceparent": TRACE},
    "then several": {"then": [NEXT, NewJob("last", b"{}", then=(NEXT,))], "idempotency_key": "order 7"},
}


def in_python(conn: psycopg.Connection, payload: dict[str, Any], options: dict[str, Any]) -> int:
    return tick.enqueue(conn, "greet", payload, **options)


def in_sql(conn: psycopg.Connection, payload: dict[str, Any], options: dict[str, Any]) -> int:
    arguments = {"type": "greet", "payload": payload} | options
    call = sql.SQL("select tick.enqueue({})").format(
        sql.SQL(", ").join(sql.SQL("{} => {}").format(sql.Identifier(n), value(v)) for n, v in arguments.items())
    )
    return conn.execute(call).fetchone()[0]


def in_sql_by_the_many(conn: psycopg.Connection, payload: dict[str, Any], options: dict[str, Any]) -> int:
    jobs = [{"type": "greet", "payload": payload} | {name: as_json(given) for name, given in options.items()}]
    return conn.execute("select id from tick.enqueue_many(%s)", [Jsonb(jobs)]).fetchone()[0]


def value(given: Any) -> sql.Composable:
    if isinstance(given, NewJob | list | dict):
        return sql.SQL("{}::jsonb").format(json.dumps(as_json(given)))
    return sql.Literal(given)


def as_json(given: Any) -> Any:
    match given:
        case NewJob():
            return json.loads(to_json(given.fields()))
        case list():
            return [as_json(each) for each in given]
        case timedelta():
            return given.total_seconds()
        case datetime():
            return given.isoformat()
        case _:
            return given


@pytest.fixture(autouse=True)
def types(empty_registry) -> None:
    @tick.job(priority=2)
    def greet(name: str = "you") -> None: ...

    @tick.job
    def next(n: int) -> None: ...


@pytest.fixture
def defaults(settings, types) -> None:
    """A tick tells the producers that have no handlers what these say."""
    factories.tick(settings)


def rows(conn: psycopg.Connection) -> list[dict[str, Any]]:
    cursor = conn.cursor(row_factory=psycopg.rows.dict_row)
    return cursor.execute("select * from tick.jobs order by id").fetchall()


def twice(conn: psycopg.Connection, door: Any, options: dict[str, Any]) -> tuple[list[int], list[dict[str, Any]]]:
    """The ids that two producers get, an hour apart, and all that is then in the table."""
    conn.execute("truncate tick.jobs restart identity")
    move_clock(conn, "2031-01-01T00:30:00Z")
    first = door(conn, {"name": "Ada"}, options)
    move_clock(conn, "2031-01-01T01:30:00Z")
    second = door(conn, {"name": "Grace"}, options)
    return [int(first), int(second)], rows(conn)


class TestTheSameAsPython:
    @pytest.mark.usefixtures("defaults")
    @pytest.mark.parametrize("door", [in_sql, in_sql_by_the_many])
    @pytest.mark.parametrize("options", CASES.values(), ids=CASES)
    def test_every_option_makes_the_same_rows(self, conn, options, door):
        assert twice(conn, door, options) == twice(conn, in_python, options)

    def test_every_option_is_compared(self):
        assert {name for case in CASES.values() for name in case} == {field.name for field in fields(Options)}

    def test_the_parameters_are_the_options(self, conn):
        names = "select proargnames from pg_proc where oid = 'tick.enqueue'::regproc"
        assert set(conn.execute(names).fetchone()[0]) == {"type", "payload", *(field.name for field in fields(Options))}

    def test_the_members_of_many_are_the_options_too(self, conn):
        with pytest.raises(errors.InvalidParameterValue, match="a job has no option 'waits_for'") as raised:
            conn.execute("""select * from tick.enqueue_many('[{"type": "a"}, {"type": "a", "waits_for": "job"}]')""")
        named = raised.value.diag.message_hint.removeprefix("The options are ").removesuffix(".").split(", ")
        assert set(named) == {"type", "payload", *(field.name for field in fields(Options))}
        assert statuses(conn) == {}

    def test_a_group_is_the_same_group(self, conn):
        move_clock(conn, "2031-01-01T00:30:00Z")
        members, last = [NewJob("greet", b'{"name": "Ada"}', key="a"), NEXT], NewJob("greet", b"{}", priority=2)
        ids = tick.group(conn, members, then=last)
        expected = rows(conn)
        conn.execute("truncate tick.jobs restart identity")
        call = "select tick.enqueue_group(%s, %s)"
        made = conn.execute(call, [Jsonb(as_json(members)), Jsonb(as_json(last))]).fetchall()
        assert [id for (id,) in made] == ids
        # Without a tick nobody has told the database of the handlers' priorities; these jobs do not go by them.
        assert rows(conn) == [row | {"priority": row["priority"]} for row in expected]

    def test_what_is_not_given_is_what_python_leaves_out(self, conn):
        conn.execute("select tick.enqueue('greet')")
        conn.execute("select tick.enqueue('greet', null)")
        conn.execute("select tick.enqueue('greet', '{}', null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)")  # fmt: skip
        made = [{k: v for k, v in row.items() if k not in ("id", "run_at", "created_at")} for row in rows(conn)]
        assert made[0] == made[1] == made[2]
        assert (made[0]["payload"], made[0]["status"], made[0]["priority"]) == ({}, "pending", 0)

    def test_a_null_inside_a_payload_is_kept(self, conn):
        id = conn.execute("""select tick.enqueue('greet', '{"name": null, "deep": {"a": null}}')""").fetchone()[0]
        assert job(conn, id)["payload"] == {"name": None, "deep": {"a": None}}


class TestDefaultsOfATypeWithoutItsHandler:
    @pytest.fixture(autouse=True)
    def strict(self, settings, types) -> None:
        tick.job(type="strict", priority=9, key_order="strict", concurrency=2)(lambda: None)
        factories.tick(settings)

    def test_a_tick_tells_them_and_sql_uses_them(self, conn):
        row = job(conn, conn.execute("select tick.enqueue('strict', key => 'a')").fetchone()[0])
        assert (row["priority"], row["strict_key"], row["lane"] is not None) == (9, True, True)
        assert job(conn, tick.of("strict") and tick.enqueue(conn, "strict", key="b"))["lane"] == row["lane"]

    def test_what_is_given_goes_before_them(self, conn):
        call = "select tick.enqueue('strict', key => 'a', priority => 0, key_order => 'loose')"
        row = job(conn, conn.execute(call).fetchone()[0])
        assert (row["priority"], row["strict_key"]) == (0, False)

    def test_another_type_has_none(self, conn):
        row = job(conn, conn.execute("select tick.enqueue('other', key => 'a')").fetchone()[0])
        assert (row["priority"], row["strict_key"], row["lane"]) == (0, False, None)

    def test_those_of_jobs_that_come_after_are_used_too(self, conn):
        conn.execute("""select tick.enqueue('other', "then" => '{"type": "strict"}')""")
        assert [row["priority"] for row in rows(conn)] == [0, 9]


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ("'greet', key => ''", "key"),
            ("'greet', key => repeat('x', 513)", "key"),
            ("'greet', key_order => 'sloppy'", 'key_order is "sloppy", and can be strict or loose'),
            ("'greet', idempotency_key => ''", "idempotency_key"),
            ("'greet', max_attempts => 0", "max_attempts"),
            ("'greet', max_attempts => 101", "max_attempts"),
            ("'greet', timeout => '0'", "timeout"),
            ("'greet', callback_url => ''", "callback_url"),
            ("'greet', on_dead_url => ''", "on_dead_url"),
            ("'greet', priority => 40000", "priority is 40000, and must be from -32768 to 32767"),
            ("'greet', delay => '100 years'", "delay is 3155760000.000000, and must be a number of seconds"),
            ("'greet', max_wait => '-1s', idempotency_key => 'a'", "max_wait is -1.000000, and must be a number"),
            ("'greet', throttle => '0'", "throttle is 0.000000, and must be a number of seconds, from one to a year"),
            ("'greet', throttle => '1h', idempotency_key => 'a'", "must be given without an idempotency_key only"),
            (
                "'greet', timeout => '2 days'",
                "timeout is 172800.000000, and must be a number of seconds, a day at most",
            ),
            ("'greet', on_conflict => 'explode', idempotency_key => 'a'", 'on_conflict is "explode", and must be keep'),
            ("'greet', on_conflict => 'replace'", "must be given with an idempotency_key only"),
            ("'greet', callback_url => 'ftp://a'", 'callback_url is "ftp://a", and must be an http:// or https:// URL'),
            ("'greet', on_dead_url => 'https://a b'", 'on_dead_url is "https://a b", and must be'),
            ("'greet', traceparent => '00'", 'traceparent is "00", and must be a traceparent of W3C Trace Context'),
            ("""'greet', "then" => '5'""", "then is 5, and must be a job, or an array of jobs"),
            ("""'greet', "then" => '{"type": "b", "priority": "high"}'""", 'priority is "high", and must be from'),
            ("'greet', run_at => 'infinity'", "runs_at_a_date"),
            ("'greet', run_at => '1999-12-31'", "runs_at_a_date"),
            ("'greet', '[]'", "payload"),
            ("''", "type"),
            ("repeat('x', 101)", "type"),
            ("null", "type is missing from"),
            ("""'greet', "then" => '{"type": "b", "delai": 5}'""", "a job has no option 'delai'"),
            ("""'greet', "then" => '{"type": "b", "then": [{"typ": "c"}]}'""", "a job has no option 'typ'"),
            ("""'greet', "then" => '[5]'""", "not an array of objects"),
            ("""'greet', "then" => '{"payload": {}}'""", "type is missing from"),
        ],
    )
    def test_name_what_is_wrong_and_write_nothing(self, conn, arguments, said):
        with pytest.raises(psycopg.Error) as raised:
            conn.execute(f"select tick.enqueue({arguments})")
        assert said in raised.value.diag.message_primary
        assert statuses(conn) == {}

    def test_an_option_that_does_not_exist_is_a_function_that_does_not(self, conn):
        with pytest.raises(errors.UndefinedFunction, match="delai"):
            conn.execute("select tick.enqueue('greet', delai => '1h')")

    @pytest.mark.parametrize("jobs", ["{}", "5", '"greet"', "[5]", '[[{"type": "greet"}]]'])
    def test_many_are_an_array_of_objects(self, conn, jobs):
        with pytest.raises(errors.InvalidParameterValue, match="jobs is not an array of objects"):
            conn.execute("select * from tick.enqueue_many(%s)", [jobs])

    def test_an_option_that_is_null_is_not_given(self, conn):
        names = (
            "run_at",
            "delay",
            "priority",
            "key",
            "key_order",
            "idempotency_key",
            "on_conflict",
            "throttle",
            "then",
        )
        jobs = [{"type": "greet"} | dict.fromkeys(names)] * 2
        made = conn.execute("select created from tick.enqueue_many(%s)", [Jsonb(jobs)]).fetchall()
        assert made == [(True,), (True,)]
        jobs = [{"type": "greet", "idempotency_key": None}] * 2
        made = conn.execute("select created from tick.enqueue_many(%s)", [Jsonb(jobs)]).fetchall()
        assert made == [(True,), (True,)]

    def test_of_many_none_is_written_when_one_is_refused(self, conn):
        with pytest.raises(errors.InvalidParameterValue, match='key is "", and must be'):
            conn.execute("""select * from tick.enqueue_many('[{"type": "a"}, {"type": "a", "key": ""}]')""")
        assert statuses(conn) == {}


class TestFromEverywhere:
    @pytest.fixture
    def orders(self, conn) -> Iterator[None]:
        conn.execute("create table public.orders (id serial primary key, email text, paid boolean default false)")
        yield
        conn.execute("drop table public.orders cascade")
        conn.execute("drop function if exists public.order_paid")

    def a_trigger(self, conn) -> None:
        conn.execute("""
            create function public.order_paid() returns trigger language plpgsql as $$
            begin
                perform tick.enqueue('send_receipt', jsonb_build_object('order_id', new.id),
                                     idempotency_key => 'receipt:' || new.id);
                return null;
            end $$;
            create trigger order_paid after update on public.orders for each row
                when (new.paid and not old.paid) execute function public.order_paid()""")

    def test_a_trigger_on_a_table_of_ones_own(self, conn, url, orders):
        self.a_trigger(conn)
        conn.execute("insert into public.orders (email) select 'user' || n from generate_series(1, 3) n")
        with psycopg.connect(url) as connection:
            connection.execute("update public.orders set paid = true where id = 1")
            connection.rollback()
        assert statuses(conn) == {}
        conn.execute("update public.orders set paid = true where id < 3")
        conn.execute("update public.orders set paid = false")
        conn.execute("update public.orders set paid = true where id = 2")
        assert [(row["type"], row["payload"]) for row in rows(conn)] == [
            ("send_receipt", {"order_id": 1}),
            ("send_receipt", {"order_id": 2}),
        ]

    def test_a_query_that_enqueues_for_each_row(self, conn, orders):
        conn.execute("insert into public.orders (email) select 'user' || n from generate_series(1, 500) n")
        ids = conn.execute("select tick.enqueue('remind', jsonb_build_object('email', email)) from public.orders order by id").fetchall()  # fmt: skip
        assert len(ids) == 500
        assert [row["payload"]["email"] for row in rows(conn)] == [f"user{n}" for n in range(1, 501)]

    def test_one_statement_with_jsonb_agg_for_many(self, conn, orders):
        conn.execute("insert into public.orders (email) select 'user' || n from generate_series(1, 500) n")
        made = conn.execute("""
            select * from tick.enqueue_many((
                select jsonb_agg(jsonb_build_object('type', 'remind', 'payload', jsonb_build_object('email', email))
                                 order by id) from public.orders))""").fetchall()
        assert [(job(conn, id)["payload"]["email"], created) for id, created in made[::100]] == [
            (f"user{n}", True) for n in (1, 101, 201, 301, 401)
        ]

    def test_none_in_an_empty_table_is_none(self, conn, orders):
        call = (
            "select * from tick.enqueue_many((select jsonb_agg(jsonb_build_object('type', email)) from public.orders))"
        )
        assert conn.execute(call).fetchall() == []

    def test_a_block_of_plpgsql_and_what_its_exception_takes_back(self, conn):
        conn.execute("""
            do $$
            declare kept bigint;
            begin
                kept := tick.enqueue('kept');
                begin
                    perform tick.enqueue('lost');
                    raise exception 'no';
                exception when raise_exception then null;
                end;
                assert kept = (select id from tick.jobs where type = 'kept');
            end $$""")
        assert [row["type"] for row in rows(conn)] == ["kept"]

    def test_psql(self, conn, url):
        call = """select tick.enqueue('greet', '{"name": "Ada"}', delay => '10 minutes', key => 'user:7')"""
        done = subprocess.run(["psql", url, "-X", "-qtA", "-c", call], capture_output=True, text=True, timeout=60)
        assert (done.stderr, done.returncode) == ("", 0)
        row = job(conn, int(done.stdout))
        assert (row["payload"], row["key"]) == ({"name": "Ada"}, "user:7")
        assert row["run_at"] - row["created_at"] == timedelta(minutes=10)

    def test_a_search_path_of_ones_own_does_not_matter(self, conn, url):
        with psycopg.connect(url, autocommit=True, options="-c search_path=nowhere") as connection:
            for case in CASES.values():
                in_sql(connection, {}, case)
            tick.group(connection, [tick.of("next", {"n": 1})], then=tick.of("greet"))
        assert conn.execute("select count(*) > 20 from tick.jobs").fetchone() == (True,)

    def test_a_transaction_of_any_isolation_level(self, conn, url):
        for level in psycopg.IsolationLevel:
            with psycopg.connect(url) as connection:
                connection.isolation_level = level
                in_sql(connection, {}, {"idempotency_key": level.name, "key": "a"})
        assert len(rows(conn)) == 4

    def test_prepared_and_executed_often(self, conn):
        for n in range(20):
            conn.execute("select tick.enqueue('greet', idempotency_key => %s, key => 'a')", [str(n)], prepare=True)
        assert len(rows(conn)) == 20


class TestGrants:
    """The role of the guide, which may enqueue and nothing else."""

    @pytest.fixture
    def role(self, conn) -> Iterator[str]:
        name = f"producer_of_{conn.info.dbname}"
        self.drop(conn, name)
        conn.execute(f"create role {name}")
        yield name
        self.drop(conn, name)

    def drop(self, conn, name: str) -> None:
        if conn.execute("select from pg_roles where rolname = %s", [name]).fetchone() is not None:
            conn.execute(f"drop owned by {name}; drop role {name}")

    def grants(self, role: str) -> list[str]:
        block = next(block for block in blocks(GUIDE, "sql") if "grant" in block)
        return [line.replace("shop", role) for line in block.splitlines() if line.startswith("grant")]

    def use(self, url: str, role: str) -> None:
        """Everything that a producer does."""
        with psycopg.connect(url) as connection:
            connection.execute(f"set role {role}")
            for case in CASES.values():
                for door in (in_python, in_sql, in_sql_by_the_many):
                    door(connection, {"name": "Ada"}, case)
                connection.commit()
            tick.group(connection, [tick.of("next", {"n": 1})], then=tick.of("greet"))

    def test_of_the_guide_are_enough(self, conn, url, role):
        for grant in self.grants(role):
            conn.execute(grant)
        self.use(url, role)
        assert len(rows(conn)) > 20

    def test_of_the_guide_are_enough_to_look_again_at_commit(self, conn, url, role):
        """A job waited for another of its key, which is gone when the producer commits."""
        for grant in self.grants(role):
            conn.execute(grant)
        first = in_sql(conn, {}, {"key": "user:7"})
        with psycopg.connect(url) as connection:
            connection.execute(f"set role {role}")
            second = in_sql(connection, {}, {"key": "user:7"})
            assert job(connection, second)["waits_for"] == "key"
            conn.execute("delete from tick.jobs where id = %s", [first])
        assert job(conn, second)["waits_for"] is None

    @pytest.mark.parametrize("left_out", range(4))
    def test_of_the_guide_are_all_needed(self, conn, url, role, left_out):
        grants = self.grants(role)
        assert len(grants) == 4
        for n, grant in enumerate(grants):
            if n != left_out:
                conn.execute(grant)
        with pytest.raises(errors.InsufficientPrivilege, match="permission denied"):
            self.use(url, role)

    @pytest.mark.parametrize(
        "statement",
        [
            "update tick.jobs set status = 'dead'",
            "update tick.jobs set attempt = 5",
            "delete from tick.jobs",
            "truncate tick.jobs",
            "insert into tick.limits (lane, type, concurrency) values ('a', 'a', 1)",
            "insert into tick.defaults (type) values ('a')",
            "create table tick.mine ()",
        ],
    )
    def test_of_the_guide_allow_no_more(self, conn, url, role, statement):
        for grant in self.grants(role):
            conn.execute(grant)
        with psycopg.connect(url) as connection:
            connection.execute(f"set role {role}")
            with pytest.raises(errors.InsufficientPrivilege, match="permission denied"):
                connection.execute(statement)

    def test_of_the_guide_are_about_no_other_table(self, conn, role):
        for grant in self.grants(role):
            conn.execute(grant)
        found = conn.execute(
            """select relname from pg_class where relnamespace = 'tick'::regnamespace and relkind in ('r', 'v', 'S')
                  and (has_table_privilege(%(role)s, oid, 'select, insert, update, delete, truncate, trigger')
                       or has_any_column_privilege(%(role)s, oid, 'select, insert, update'))""",
            {"role": role},
        ).fetchall()
        assert {name for (name,) in found} == {"jobs", "limits", "defaults"}

    def test_a_function_of_the_owners_lets_a_role_enqueue_that_may_read_nothing(self, conn, url, role):
        conn.execute("""
            create function public.send_receipt(order_id bigint) returns bigint language sql
                security definer set search_path = pg_catalog
                as $$ select tick.enqueue('send_receipt', jsonb_build_object('order_id', order_id)) $$""")
        with psycopg.connect(url) as connection:
            connection.execute(f"set role {role}")
            connection.execute("select public.send_receipt(7)")
            connection.commit()
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute("select payload from tick.jobs")
        conn.execute("drop function public.send_receipt")
        assert rows(conn)[0]["payload"] == {"order_id": 7}


class TestTheGuide:
    def test_its_sql_runs_from_top_to_bottom(self, conn):
        conn.execute("create table public.orders (id bigint, paid boolean default false)")
        try:
            for block in blocks(GUIDE, "sql"):
                if "grant" not in block:
                    conn.execute(block)
            conn.execute("insert into public.orders (id) values (7); update public.orders set paid = true")
        finally:
            conn.execute("drop table public.orders cascade; drop function public.order_paid")
        assert [row["payload"]["order_id"] for row in rows(conn)] == [12, 12, 14, 15, 7]

    @pytest.mark.parametrize("language", ["js", "ruby", "go"])
    def test_its_statements_for_other_languages_can_be_prepared(self, conn, language):
        statements = [found for block in blocks(GUIDE, language) for found in re.findall(r'"(select .*?\))"', block)]
        assert statements
        for statement in statements:
            conn.execute(f"prepare of_the_guide as {statement}")
            conn.execute("deallocate of_the_guide")
