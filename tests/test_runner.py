"""One attempt, without a database: a job and its handler in, an outcome out."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

import tick
from tick import runner
from tick.backoff import Backoff
from tick.handlers import Context, Handler, registry
from tick.jobs import Cancelled, Dead, Done, Job, Released, Retried, Snoozed
from tick.runner import Threads, describe, failed, stopped, trace

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def a_job(**columns) -> Job:
    row = {"id": 7, "type": "it", "payload": "{}", "attempt": 1, "failures": 0, "losses": 0, "cuts": 0, "max_attempts": None, "timeout": None,
               "key": None, "schedule": None, "window": None, "priority": 0, "run_at": NOW}  # fmt: skip
    return Job(**row | columns)


def a_handler(function=lambda: None, **options) -> Handler:
    return Handler(function=function, type="it", **options)


def run(function, threads: Threads | None = None, *, options=None, **columns):
    """The outcome of one attempt at a job with these columns."""
    job = a_job(**columns)
    context = Context(job, NOW, time.monotonic() + 50, registry)
    return asyncio.run(runner.run(job, a_handler(function, **options or {}), context, threads or Threads()))


def raising(error: BaseException):
    """A plain and a coroutine function that raise this."""

    def plain() -> None:
        raise error

    async def coroutine() -> None:
        raise error

    return plain, coroutine


class TestRun:
    def test_a_plain_function_runs_in_a_thread_and_a_coroutine_function_on_the_loop(self):
        def plain() -> str:
            return threading.current_thread().name

        async def coroutine() -> str:
            return threading.current_thread().name

        assert json.loads(run(plain).result) == "tick-handler"
        assert json.loads(run(coroutine).result) == "MainThread"

    def test_what_it_returns_is_awaited_if_it_can_be(self):
        async def inner() -> str:
            return "done"

        async def coroutine():
            return inner()

        for wraps in (lambda: inner(), coroutine):
            assert run(wraps) == Done(b'"done"')

    def test_the_payload_becomes_arguments_as_they_are_annotated(self):
        seen = []

        def work(at: datetime, ctx: tick.Context, n: int = 5) -> None:
            seen.append((at, n, ctx.id))

        assert run(work, payload='{"at": "2026-03-01T00:00:00Z"}') == Done()
        assert seen == [(NOW, 5, 7)]

    def test_a_payload_that_does_not_fit_is_dead_without_a_call(self):
        def work(n: int) -> None:
            raise AssertionError

        outcome = run(work, payload='{"n": "x"}')
        assert isinstance(outcome, Dead)
        assert (
            outcome.failure.message
            == "InvalidPayload: the payload does not fit it: Expected `int`, got `str` - at `$.n`"
        )

    def test_a_plain_function_sees_the_context_variables_of_its_place(self):
        variable = contextvars.ContextVar("variable", default="none")

        async def main():
            variable.set("of the place")
            return await Threads().run(variable.get)

        assert asyncio.run(main()) == "of the place"

    def test_what_it_returns_is_json_or_else_its_repr(self):
        assert run(lambda: {"n": 1}).result == b'{"n":1}'
        assert run(lambda: None).result is None
        kept = json.loads(run(lambda: object()).result)
        assert kept["unserialisable"].startswith("<object object at") and "error" in kept
        assert json.loads(run(lambda: "x" * 70_000).result)["bytes"] == 70_002
        assert json.loads(run(lambda: "a\0b").result)["unserialisable"] == "'a\\x00b'"

    def test_a_repr_that_raises_does_not_undo_the_work(self):
        class Mute:
            def __repr__(self) -> str:
                raise RuntimeError

        assert json.loads(run(Mute).result)["unserialisable"] == "<Mute: repr failed: RuntimeError>"

    def test_its_follow_ups_are_part_of_its_success(self):
        target = a_handler(lambda n: None)

        def work(ctx) -> None:
            ctx.enqueue(target.using(key="k"), n=1)

        (follow_up,) = run(work).follow_ups
        assert (follow_up.type, follow_up.payload, follow_up.key) == ("it", b'{"n":1}', "k")

    @pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), StopIteration(1), asyncio.CancelledError(), GeneratorExit()], ids=repr)  # fmt: skip
    def test_whatever_it_raises_is_a_failure(self, error):
        for function in raising(error):
            outcome = run(function)
            assert isinstance(outcome, Retried)
            assert type(error).__name__ in outcome.failure.message

    def test_being_cancelled_from_outside_is_no_outcome(self):
        async def work() -> None:
            await asyncio.sleep(30)

        async def main():
            job = a_job()
            context = Context(job, NOW, 0, registry)
            task = asyncio.create_task(runner.run(job, a_handler(work), context, Threads()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())


class TestFailed:
    def test_waits_by_the_backoff_of_the_failures_there_were(self):
        for failures, plan in enumerate((30, 120, 480, 1920)):
            outcome = failed(a_job(failures=failures), a_handler(), ValueError())
            assert plan * 0.8 <= outcome.delay <= plan * 1.2

    @pytest.mark.parametrize(("of_job", "of_handler", "failures", "dies"), [
        (None, 5, 3, False), (None, 5, 4, True), (2, 5, 0, False), (2, 5, 1, True), (10, 5, 4, False), (None, 1, 0, True), (3, 5, 9, True),
    ])  # fmt: skip
    def test_the_last_attempt_is_the_jobs_own_or_the_handlers(self, of_job, of_handler, failures, dies):
        outcome = failed(
            a_job(max_attempts=of_job, failures=failures), a_handler(max_attempts=of_handler), ValueError()
        )
        assert isinstance(outcome, Dead if dies else Retried)

    def test_permanent_and_what_is_permanent_for_the_handler_are_dead_at_once(self):
        handler = a_handler(permanent_on=(LookupError,))
        assert isinstance(failed(a_job(), handler, tick.Permanent("no such user")), Dead)
        assert isinstance(failed(a_job(), handler, KeyError("x")), Dead)
        assert isinstance(failed(a_job(), handler, ValueError("x")), Retried)

    @pytest.mark.parametrize("after", [90, 90.0, "1m30s", timedelta(seconds=90)])
    def test_retry_and_snooze_say_how_long(self, after):
        assert failed(a_job(), a_handler(), tick.Retry(after=after)).delay == 90
        assert failed(a_job(failures=99), a_handler(), tick.Snooze(after=after)) == Snoozed(None, 90)

    def test_retry_at_the_last_attempt_is_dead(self):
        assert isinstance(failed(a_job(failures=4), a_handler(), tick.Retry("busy", after=1)), Dead)

    def test_snooze_until_an_instant(self):
        assert failed(a_job(), a_handler(max_attempts=1), tick.Snooze(until=NOW)) == Snoozed(NOW)

    @pytest.mark.parametrize("after", ["soon", -1, float("nan"), float("inf"), 1e12, [5]], ids=repr)
    def test_a_wait_that_is_none_is_an_ordinary_failure_that_says_so(self, after):
        for error in (tick.Retry(after=after), tick.Snooze(after=after)):
            outcome = failed(a_job(), a_handler(backoff=Backoff(base=60, factor=1)), error)
            assert isinstance(outcome, Retried)
            assert 48 <= outcome.delay <= 72
            assert outcome.failure.message.split(":")[0] in ("ConfigurationError", "ValueError", "TypeError")

    def test_a_snooze_needs_one_of_both(self):
        for options in ({}, {"until": NOW, "after": 1}, {"until": datetime(2026, 3, 1)}):
            with pytest.raises(TypeError, match="Snooze"):
                tick.Snooze(**options)


class TestStopped:
    @pytest.mark.parametrize(
        ("why", "cuts", "outcome"),
        [
            ("cancel", 0, Cancelled()),
            ("stop", 9, Released()),
            ("deadline", 0, Released(cut=True)),
            ("deadline", 1, Released(cut=True)),
        ],
    )
    def test_is_no_failure(self, why, cuts, outcome):
        assert stopped(a_job(cuts=cuts), a_handler(), why, 5.0) == outcome

    def test_by_its_own_time_out_is_a_failure_that_says_how_long(self):
        outcome = stopped(a_job(), a_handler(), "timeout", 2.345)
        assert isinstance(outcome, Retried)
        assert outcome.failure.message == "TimeoutError: timed out: it ran for 2.3 s"
        assert isinstance(stopped(a_job(), a_handler(max_attempts=1), "timeout", 1.0), Dead)

    def test_by_the_third_deadline_is_a_failure_that_says_what_to_do(self):
        outcome = stopped(a_job(cuts=2), a_handler(), "deadline", 48.0)
        assert isinstance(outcome, Retried)
        assert "cut short by the deadline of its tick 3 times" in outcome.failure.message
        assert "raise TICK_BUDGET" in outcome.failure.message


class TestThreads:
    def test_are_used_again(self):
        names = []
        threads = Threads()

        async def main():
            for _ in range(20):
                names.append(await threads.run(threading.get_ident))

        asyncio.run(main())
        assert len(set(names)) <= 2

    def test_are_as_many_as_run_at_once(self):
        together = threading.Barrier(8)
        threads = Threads()

        async def main():
            return await asyncio.gather(*(threads.run(lambda: together.wait(10)) for _ in range(8)))

        assert sorted(asyncio.run(main())) == list(range(8))

    def test_do_not_hold_a_process_that_ends(self):
        go = threading.Event()

        async def main():
            waiting = asyncio.create_task(Threads().run(lambda: go.wait(10)))
            await asyncio.sleep(0.01)
            waiting.cancel()

        started = time.monotonic()
        asyncio.run(main())
        assert time.monotonic() - started < 2
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "tick-handler")
        go.set()


class TestWhatIsKeptOfAnError:
    def test_is_one_line_that_postgres_can_store(self):
        assert describe(ValueError("two\nlines  of\ttext")) == "ValueError: two lines of text"
        assert describe(ValueError()) == "ValueError"
        assert describe(ValueError("a\0b\ud800")) == "ValueError: a\\x00b\\ud800"
        assert len(describe(ValueError("x" * 10_000))) == 1000

    def test_is_a_traceback_with_its_head_and_its_end(self):
        def deep(n: int) -> None:
            if n:
                deep(n - 1) if n % 2 else deeper(n - 1)
            raise ValueError("the end\0")

        def deeper(n: int) -> None:
            deep(n)

        with pytest.raises(ValueError) as raised:
            deep(200)
        kept = trace(raised.value)
        assert len(kept) < 8100
        assert kept.startswith("Traceback (most recent call last)")
        assert kept.rstrip().endswith("ValueError: the end\\x00")
        assert "characters ..." in kept

    @pytest.mark.parametrize("is_async", [False, True])
    def test_of_a_handler_begins_with_its_own_line(self, is_async):
        kept = run(raising(ValueError("no"))[is_async]).failure.traceback.splitlines()
        assert kept[0] == "Traceback (most recent call last):"
        assert kept[1].startswith(f'  File "{__file__}", line ')
        assert kept[-1] == "ValueError: no"
        assert runner.__file__ not in "\n".join(kept)

    def test_of_a_handler_that_calls_tick_goes_on_into_it(self):
        kept = run(lambda: runner.wait(-1)).failure.traceback
        assert kept.index(__file__) < kept.index(runner.__file__)

    def test_has_its_causes_each_from_its_first_line_that_is_not_of_tick(self):
        def handler() -> None:
            try:
                runner.wait(-1)
            except ValueError as first:
                try:
                    raise KeyError("second")
                except KeyError:
                    raise ExceptionGroup("third", [OSError("in it")]) from first

        kept = run(handler).failure.traceback
        assert kept.count("The above exception was the direct cause of") == 1
        assert kept.index("ValueError: after=-1") < kept.index("ExceptionGroup: third") < kept.index("OSError: in it")
        assert "KeyError" not in kept
        assert kept.count(runner.__file__) == 1

    def test_that_is_all_of_tick_is_kept_as_it_is(self):
        with pytest.raises(ValueError) as raised:
            runner.wait(-1)
        own = raised.value.with_traceback(raised.value.__traceback__.tb_next)
        assert trace(own).count(runner.__file__) == 1

    def test_survives_errors_that_cannot_be_shown(self):
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        assert describe(Mute()) == "Mute: <str failed: RuntimeError>"
        assert trace(Mute())
