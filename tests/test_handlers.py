"""What users write against: registering a handler, calling it, and putting its jobs in."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from psycopg.rows import dict_row, namedtuple_row

import tick
from tests.factories import job, statuses, wait_until
from tick import handlers
from tick.backoff import Backoff
from tick.errors import ConfigurationError, DuplicateHandler, HandlerError, InvalidPayload, UnknownJobType
from tick.handlers import Context, Handler, registry

pytestmark = pytest.mark.usefixtures("empty_registry")


def greet(name: str = "you", times: int = 1) -> str:
    return f"Hello, {name}!" * times


def enqueued(conn, id: int) -> dict:
    """What a caller has decided of a job."""
    row = job(conn, id)
    return {name: row[name] for name in ("type", "payload", "priority", "key", "idempotency_key", "max_attempts")}


class TestRegistering:
    def test_makes_a_function_the_handler_of_its_name(self):
        handler = tick.job(greet)
        assert isinstance(handler, tick.Handler)
        assert (handler.type, handler.max_attempts, handler.timeout, handler.priority) == ("greet", 5, None, 0)
        assert handler.backoff == Backoff()
        assert registry.types == ["greet"]
        assert registry.get("greet") is handler

    def test_calling_it_calls_the_function(self):
        assert tick.job(greet)("Ada", times=2) == "Hello, Ada!Hello, Ada!"

        @tick.job
        async def later(n: int) -> int:
            return n + 1

        assert asyncio.run(later(1)) == 2

    def test_takes_options(self):
        @tick.job(type="mail.welcome", max_attempts=3, timeout="1m30s", priority=-2, backoff=["5s", 60, timedelta(hours=1)],
                  permanent_on=KeyError)  # fmt: skip
        def welcome() -> None: ...

        assert (welcome.type, welcome.max_attempts, welcome.timeout, welcome.priority) == ("mail.welcome", 3, 90.0, -2)
        assert welcome.backoff.ladder == (5.0, 60.0, 3600.0)
        assert welcome.permanent_on == (KeyError,)
        assert tick.job(permanent_on=[KeyError, OSError], backoff=Backoff(base=1), timeout=5)(greet).permanent_on == (KeyError, OSError)  # fmt: skip

    @pytest.mark.parametrize("function", [asyncio.sleep, greet])
    def test_knows_whether_it_is_a_coroutine_function(self, function):
        assert tick.job(type="x")(function).is_async == (function is asyncio.sleep)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"max_attempts": 0}, "max_attempts=0 is not from 1 to 100"),
            ({"max_attempts": 101}, "max_attempts=101"),
            ({"timeout": 0}, "timeout=0 is not a time above 0"),
            ({"timeout": -5}, "timeout=-5"),
            ({"timeout": float("nan")}, "timeout=nan"),
            ({"timeout": float("inf")}, "timeout=inf"),
            ({"timeout": timedelta(seconds=-1)}, "is not a time above 0"),
            ({"timeout": "soon"}, '"soon" is not a duration'),
            ({"timeout": "0s"}, '"0s" is not a duration'),
            ({"priority": 40_000}, "priority=40000 is not from -32768 to 32767"),
            ({"type": "x" * 101}, "more than 100 characters"),
            ({"type": "a\0b"}, "not all printable"),
            ({"backoff": ["5s", "soon"]}, '"soon" is not a duration'),
            ({"backoff": [-1]}, "no step of a ladder below 0"),
        ],
        ids=str,
    )
    def test_refuses_options_that_cannot_be(self, options, said):
        with pytest.raises(ConfigurationError, match=said):
            tick.job(**options)(greet)
        assert registry.types == []

    def test_refuses_an_option_that_does_not_exist(self):
        with pytest.raises(TypeError, match="max_attempt"):
            tick.job(max_attempt=3)(greet)

    @pytest.mark.parametrize("function", [lambda: None, "greet", 5])
    def test_refuses_what_has_no_name_to_be_a_type(self, function):
        with pytest.raises(HandlerError, match="has no name to be a type"):
            tick.job(function)

    def test_two_handlers_for_one_type_are_an_error_that_names_both(self):
        tick.job(greet)
        with pytest.raises(DuplicateHandler) as raised:
            tick.job(type="greet")(enqueued)
        assert f"{__name__}.greet (" in str(raised.value)
        assert f") and {__name__}.enqueued (" in str(raised.value)
        assert raised.value.type == "greet"
        assert registry.get("greet").function is greet

    def test_the_same_function_again_is_a_module_that_was_read_again(self):
        tick.job(greet)
        assert registry.get("greet") is not tick.job(greet)
        assert registry.types == ["greet"]

    def test_an_unknown_type_is_an_error_with_the_nearest_one(self):
        tick.job(greet)
        with pytest.raises(UnknownJobType, match="no handler has the type 'gret'; did you mean 'greet'\\?"):
            registry.get("gret")
        with pytest.raises(UnknownJobType, match="no handler has the type 'send_mail'$"):
            registry.get("send_mail")


class TestChecking:
    """`Registry.check` is what a start does, so that a deployment fails and not a job at night."""

    def problem(self, function, budget: float = 50.0, **options) -> str:
        tick.job(type="it", **options)(function)
        with pytest.raises(ConfigurationError) as raised:
            registry.check(budget)
        assert f"{function.__module__}.{function.__qualname__}: " in str(raised.value)
        return str(raised.value)

    def test_lets_through_what_can_work(self):
        def typed(when: datetime, at: date, tags: list[str], size: int | None = None, *, ctx, **rest) -> None: ...

        tick.job(timeout=49)(typed)
        tick.job(greet)
        registry.check(50.0)

    def test_names_a_time_out_that_fits_no_budget(self):
        assert "timeout 50 s can never fit the budget of 50 s; lower it, or raise TICK_BUDGET" in self.problem(greet, timeout=50)  # fmt: skip

    def test_names_an_annotation_that_cannot_be_found(self):
        def missing(user: NoSuchUser) -> None: ...  # noqa: F821

        assert "NoSuchUser" in self.problem(missing)

    def test_names_an_annotation_that_raises(self):
        def broken(user: asyncio.no_such_thing) -> None: ...

        assert "no_such_thing" in self.problem(broken)

    def test_names_an_annotation_that_payloads_cannot_be_checked_by(self):
        def two(value: Backoff | Context) -> None: ...

        two.__annotations__ = {"value": Backoff | handlers.Options}
        assert "an annotation that payloads cannot be checked by" in self.problem(two)

    @pytest.mark.parametrize("kind", ["*", "/"])
    def test_names_a_parameter_that_json_cannot_name(self, kind):
        if kind == "*":

            def takes(*names: str) -> None: ...
        else:

            def takes(names: str, /) -> None: ...

        assert "which a JSON object cannot name; give it a plain parameter" in self.problem(takes)

    def test_tells_all_problems_in_one_go(self):
        def star(*names: str) -> None: ...

        tick.job(timeout=60)(star)
        tick.job(timeout=70)(greet)
        with pytest.raises(ConfigurationError) as raised:
            registry.check(50.0)
        assert len(str(raised.value).splitlines()) == 4


class TestTheContext:
    def parameter(self, function) -> str | None:
        return tick.job(type="it")(function).parameters.context

    def test_is_the_parameter_with_its_annotation_wherever_it_is(self):
        def first(run: tick.Context, n: int) -> None: ...
        def last(n: int, *, run: Context) -> None: ...

        assert (self.parameter(first),) == ("run",)
        registry._handlers.clear()
        assert self.parameter(last) == "run"

    def test_or_the_one_of_that_name(self):
        def named(n: int, ctx) -> None: ...

        assert self.parameter(named) == "ctx"

    def test_or_none(self):
        assert self.parameter(greet) is None

    def test_is_no_part_of_a_payload(self, conn):
        @tick.job
        def work(ctx: tick.Context, n: int) -> None: ...

        assert job(conn, work.enqueue(conn, n=1))["payload"] == {"n": 1}
        assert job(conn, work.enqueue(conn, 2))["payload"] == {"n": 2}
        with pytest.raises(InvalidPayload, match="ctx"):
            work.enqueue(conn, ctx=1, n=1)


class TestUsing:
    def test_makes_a_copy_and_leaves_the_handler_as_it_was(self, conn):
        handler = tick.job(greet)
        urgent = handler.using(priority=9, key="a")
        assert urgent is not handler
        assert (handler.options.priority, urgent.options.priority) == (None, 9)
        assert registry.get("greet") is handler
        assert enqueued(conn, handler.enqueue(conn))["priority"] == 0
        assert enqueued(conn, urgent.enqueue(conn))["priority"] == 9

    def test_adds_to_what_was_given_before(self, conn):
        made = tick.job(greet).using(priority=9, key="a").using(key="b", max_attempts=2)
        assert enqueued(conn, made.enqueue(conn)) == {
            "type": "greet", "payload": {}, "priority": 9, "key": "b", "idempotency_key": None, "max_attempts": 2
        }  # fmt: skip

    def test_a_priority_of_nought_is_one(self, conn):
        handler = tick.job(priority=5)(greet)
        assert enqueued(conn, handler.enqueue(conn))["priority"] == 5
        assert enqueued(conn, handler.using(priority=0).enqueue(conn))["priority"] == 0

    @pytest.mark.parametrize("delay", ["90m", 5400, 5400.0, timedelta(minutes=90)])
    def test_a_delay_counts_from_run_at_or_from_now(self, conn, delay):
        at = datetime(2031, 5, 1, tzinfo=UTC)
        later = tick.job(greet).using(delay=delay)
        assert job(conn, later.using(run_at=at).enqueue(conn))["run_at"] == at + timedelta(minutes=90)
        row = job(conn, later.enqueue(conn))
        assert row["run_at"] - row["created_at"] == timedelta(minutes=90)

    def test_a_reminder_may_be_an_hour_before(self, conn):
        at = datetime(2031, 5, 1, tzinfo=UTC)
        before = tick.job(greet).using(run_at=at, delay=-timedelta(hours=1))
        assert job(conn, before.enqueue(conn))["run_at"] == at - timedelta(hours=1)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"run_at": datetime(2031, 5, 1)}, "is not an aware datetime, one with a time zone"),
            ({"run_at": "2031-05-01"}, "run_at='2031-05-01' is not an aware datetime"),
            ({"run_at": date(2031, 5, 1)}, "is not an aware datetime"),
            ({"delay": float("nan")}, "delay=nan"),
            ({"delay": float("inf")}, "delay=inf is not a time of up to ten years"),
            ({"delay": timedelta(days=100_000)}, "up to ten years"),
            ({"priority": 32_768}, "priority=32768 is not from -32768 to 32767"),
            ({"max_attempts": 0}, "max_attempts=0 is not from 1 to 100"),
            ({"max_attempts": 101}, "max_attempts=101"),
            ({"key": ""}, "key='' is not a text of 1 to 512 bytes"),
            ({"key": 42}, "key=42 is not a text"),
            ({"key": "é" * 257}, "1 to 512 bytes"),
            ({"idempotency_key": "a\0b"}, "idempotency_key='a\\\\x00b'"),
        ],
        ids=str,
    )
    def test_refuses_what_cannot_be_and_writes_nothing(self, conn, options, said):
        tick.job(greet)
        for enqueue in (lambda: registry.get("greet").using(**options).enqueue(conn), lambda: tick.enqueue(conn, "greet", **options)):  # fmt: skip
            with pytest.raises(InvalidPayload, match=said):
                enqueue()
        assert statuses(conn) == {}


class TestJobsToBe:
    @pytest.mark.parametrize("slip", [5, ("greet", {}), [], None])
    def test_what_is_none_is_refused_and_told_what_to_write(self, conn, slip):
        handler = tick.job(greet)
        for call in (
            lambda: tick.enqueue_many(conn, [slip]),
            lambda: tick.group(conn, [slip], then=handler.of()),
            lambda: tick.group(conn, [handler.of()], then=slip),
        ):
            with pytest.raises(TypeError, match=r"is not a job to be: write handler.of\(...\)"):
                call()
        assert statuses(conn) == {}

    def test_a_group_that_cannot_be_leaves_the_callers_transaction_alone(self, conn):
        handler = tick.job(greet)
        with conn.transaction():
            with pytest.raises(InvalidPayload, match="a job of a group is always a new one"):
                tick.group(conn, [handler.using(idempotency_key="a").of()], then=handler.of())
            handler.enqueue(conn)
        assert statuses(conn) == {"pending": 1}

    def test_an_empty_group_in_sql_is_that_of_no_rows(self, conn):
        conn.execute(
            """select tick.enqueue_group((select jsonb_agg(x) from (select) x where false), '{"type": "last"}')"""
        )
        assert conn.execute("select waits_for, waits from tick.jobs").fetchall() == [(None, 0)]

    def test_a_middleware_is_an_instance(self):
        with pytest.raises(TypeError, match=r"not an instance of a subclass of tick\.Middleware"):
            tick.use(tick.Middleware)


class TestEnqueue:
    def test_writes_a_job_and_returns_its_id(self, conn):
        id = tick.job(greet).enqueue(conn, "Ada", times=2)
        assert (id, type(id), id.created) == (1, tick.JobId, True)
        row = job(conn, id)
        assert (row["status"], row["payload"], row["attempt"]) == ("pending", {"name": "Ada", "times": 2}, 0)
        assert row["run_at"] == row["created_at"]

    def test_is_awaited_on_an_async_connection(self, conn, url):
        handler = tick.job(greet)

        async def main():
            async with await psycopg.AsyncConnection.connect(url) as connection:
                made = await handler.using(idempotency_key="a").enqueue(connection, "Ada")
                again = await handler.using(idempotency_key="a").enqueue(connection, "Ada")
                by_name = await tick.enqueue(connection, "greet", {"name": "Grace"})
                return made, made.created, again, again.created, by_name

        assert asyncio.run(main()) == (1, True, 1, False, 3)
        assert statuses(conn) == {"pending": 2}

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_is_part_of_the_transaction_of_its_caller(self, conn, url, kind):
        handler = tick.job(greet)

        async def asynchronously():
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await handler.enqueue(connection)
                await connection.rollback()
                await handler.enqueue(connection)

        if kind == "async":
            asyncio.run(asynchronously())
        else:
            with psycopg.connect(url) as connection:
                handler.enqueue(connection)
                assert statuses(conn) == {}
                connection.rollback()
                handler.enqueue(connection)
        assert statuses(conn) == {"pending": 1}

    @pytest.mark.parametrize("factory", [dict_row, namedtuple_row])
    def test_takes_a_connection_with_rows_of_any_kind(self, conn, url, factory):
        handler = tick.job(greet).using(idempotency_key="a")
        with psycopg.connect(url, row_factory=factory) as connection:
            assert handler.enqueue(connection) == handler.enqueue(connection) == 1

        async def main():
            async with await psycopg.AsyncConnection.connect(url, row_factory=factory) as connection:
                return await handler.enqueue(connection)

        assert asyncio.run(main()) == 1

    def test_keeps_what_is_typed_and_gives_it_back_to_the_handler(self, conn):
        @tick.job
        def typed(at: datetime, day: date, wait: timedelta, tags: set[str], raw: bytes, size: float = 1.5) -> None: ...

        given = {"at": datetime(2026, 3, 1, tzinfo=UTC), "day": date(2026, 3, 1), "wait": timedelta(hours=1), "tags": {"a"}, "raw": b"\xff\0"}  # fmt: skip
        payload = job(conn, typed.enqueue(conn, **given))["payload"]
        assert typed.parameters.fit(payload) == given | {"size": 1.5}

    def test_a_parameter_may_have_the_name_of_anything(self, conn):
        @tick.job
        def odd(self: int, connection: int, type: str, payload: dict, function: str) -> None: ...

        given = {"self": 1, "connection": 2, "type": "x", "payload": {}, "function": "f"}
        assert job(conn, odd.enqueue(conn, **given))["payload"] == given

    def test_an_open_handler_takes_any_arguments(self, conn):
        @tick.job
        def everything(n: int, **rest: object) -> None: ...

        assert job(conn, everything.enqueue(conn, n=1, more={"a": [None]}))["payload"] == {
            "n": 1,
            "more": {"a": [None]},
        }

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"times": 1}, r"the payload does not fit strict: missing a required argument: 'name'"),
            ({"name": 5}, r"Expected `str`, got `int` - at `\$.name`"),
            ({"name": "a", "times": "2"}, r"Expected `int`, got `str` - at `\$.times`"),
            ({"name": "a", "time": 2}, r"unexpected keyword argument 'time'"),
            ({"name": "a\0b"}, "NUL"),
            ({"name": "\ud800"}, "cannot be written as JSON"),
            ({"name": object()}, "cannot be written as JSON"),
            ({"name": "x" * 70_000}, "65,536 at most; store the data, and pass its id"),
        ],
        ids=lambda value: str(value)[:18],
    )
    def test_refuses_what_does_not_fit_names_the_field_and_writes_nothing(self, conn, arguments, said):
        @tick.job
        def strict(name: str, times: int = 1) -> None: ...

        with conn.transaction():
            with pytest.raises(InvalidPayload, match=said) as raised:
                strict.enqueue(conn, **arguments)
            assert raised.value.type == "strict"
            assert conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        assert statuses(conn) == {}


class TestByName:
    def test_takes_every_option(self, conn):
        tick.job(greet)
        at = datetime(2031, 5, 1, tzinfo=UTC)
        id = tick.enqueue(conn, "greet", {"name": "Ada"}, run_at=at, delay="1h", priority=7, key="k", idempotency_key="i", max_attempts=2)  # fmt: skip
        assert enqueued(conn, id) == {
            "type": "greet", "payload": {"name": "Ada"}, "priority": 7, "key": "k", "idempotency_key": "i", "max_attempts": 2
        }  # fmt: skip
        assert job(conn, id)["run_at"] == at + timedelta(hours=1)

    def test_needs_no_payload(self, conn):
        tick.job(greet)
        assert enqueued(conn, tick.enqueue(conn, "greet"))["payload"] == {}

    def test_refuses_an_unknown_type_with_the_nearest_one(self, conn, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        tick.job(greet)
        with pytest.raises(UnknownJobType, match="did you mean 'greet'"):
            tick.enqueue(conn, "gret")
        assert statuses(conn) == {}

    def test_imports_the_projects_modules_when_it_has_not_seen_the_type(self, conn, monkeypatch, tmp_path):
        (tmp_path / "pyproject.toml").write_text('[tool.tick]\nmodules = ["their_jobs"]\n')
        (tmp_path / "their_jobs.py").write_text("import tick\n@tick.job\ndef theirs(n: int): ...\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.path", [*__import__("sys").path])
        assert enqueued(conn, tick.enqueue(conn, "theirs", {"n": 1}))["payload"] == {"n": 1}

    def test_what_does_not_fit_names_the_field(self, conn):
        tick.job(greet)
        with pytest.raises(InvalidPayload, match="unknown field `nam`"):
            tick.enqueue(conn, "greet", {"nam": "Ada"})
        with pytest.raises(TypeError):
            tick.enqueue(conn, "greet", name="Ada")


class TestIdempotency:
    def test_the_second_is_the_first_whatever_it_carries(self, conn):
        handler = tick.job(greet).using(idempotency_key="order 7")
        first, second = handler.enqueue(conn, "Ada"), handler.enqueue(conn, "Grace")
        assert (first, first.created, second, second.created) == (1, True, 1, False)
        assert job(conn, 1)["payload"] == {"name": "Ada"}

    def test_another_type_may_have_the_same_key(self, conn):
        one, other = tick.job(greet), tick.job(type="other")(greet)
        assert one.using(idempotency_key="a").enqueue(conn).created
        assert other.using(idempotency_key="a").enqueue(conn).created

    @pytest.mark.parametrize("ends", ["commit", "rollback"])
    def test_of_two_at_once_the_second_waits_for_what_becomes_of_the_first(self, conn, url, ends):
        handler = tick.job(greet).using(idempotency_key="order 7")
        with psycopg.connect(url) as one, psycopg.connect(url) as other, ThreadPoolExecutor(1) as pool:
            first = handler.enqueue(one)
            waiting = pool.submit(handler.enqueue, other)
            wait_until(lambda: self.is_blocked(conn, other))
            assert not waiting.done()
            getattr(one, ends)()
            second = waiting.result(timeout=10)
            other.commit()
        assert (second == first, second.created) == ((True, False) if ends == "commit" else (False, True))
        assert conn.execute("select id from tick.jobs").fetchall() == [(second,)]

    def is_blocked(self, conn, other) -> bool:
        pid = other.info.backend_pid
        return conn.execute("select wait_event_type = 'Lock' from pg_stat_activity where pid = %s", [pid]).fetchone()[0]

    def test_of_twenty_at_once_one_makes_it(self, conn, url):
        handler = tick.job(greet).using(idempotency_key="order 7")
        together = threading.Barrier(20)

        def enqueue(_):
            with psycopg.connect(url) as connection:
                together.wait(20)
                return handler.enqueue(connection)

        with ThreadPoolExecutor(20) as pool:
            ids = list(pool.map(enqueue, range(20)))
        assert len(set(ids)) == 1
        assert sum(id.created for id in ids) == 1


class TestLoad:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("import no_such_library\n", "broken_jobs.py:1: ModuleNotFoundError: No module named 'no_such_library'"),
            ("\n1 / 0\n", "broken_jobs.py:2: ZeroDivisionError: division by zero"),
            ("import json\n\njson.loads('no')\n", "broken_jobs.py:3: JSONDecodeError: "),
            ("x = 1\ndef broken(:\n", "broken_jobs.py:2: SyntaxError: "),
            ("raise SystemExit(3)\n", "broken_jobs.py:1: SystemExit: 3"),
        ],
    )
    def test_of_a_module_that_fails_the_place_is_told(self, tmp_path, monkeypatch, text, said):
        (tmp_path / "broken_jobs.py").write_text(text)
        monkeypatch.setattr("sys.path", [*__import__("sys").path])
        monkeypatch.delitem(__import__("sys").modules, "broken_jobs", raising=False)
        with pytest.raises(ConfigurationError) as refused:
            handlers.load(["broken_jobs"], tmp_path)
        assert str(refused.value).startswith(said)
        assert str(refused.value).endswith("(module `broken_jobs` of [tool.tick] modules or TICK_MODULES)")
        assert refused.value.__cause__ is not None

    @pytest.mark.parametrize("name", ["no_such_jobs", "no_such.jobs", "tick.no_such"])
    def test_a_module_that_is_not_there_is_named(self, tmp_path, monkeypatch, name):
        monkeypatch.setattr("sys.path", [*__import__("sys").path])
        with pytest.raises(ConfigurationError, match=f"the module '{name}' of .* cannot be found from {tmp_path}"):
            handlers.load([name], tmp_path)


def test_a_handler_can_be_told_from_its_repr():
    assert "greet" in repr(tick.job(greet))
    assert Handler(function=greet, type="greet").where == f"{__name__}.greet"
