"""Progress, results, and waiting for a job: what is known of it while it runs and when it has ended."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import psycopg
import pytest

import tick as public
from tests.factories import a_job, job, statuses, tick
from tick import database, processor
from tick.errors import JobNotFound
from tick.queue import Queue, Wanted, statements

pytestmark = pytest.mark.usefixtures("empty_registry")


@pytest.fixture
def trips(monkeypatch) -> list[list[str]]:
    """The names of the statements of each round trip that any queue makes."""
    made: list[list[str]] = []
    once = Queue._send_once

    async def counted(self, batch):
        made.append([statement.name for statement in batch])
        return await once(self, batch)

    monkeypatch.setattr(Queue, "_send_once", counted)
    return made


@pytest.fixture
def quick_pulse(monkeypatch):
    """A tick whose handlers run exchanges at once, and not after five seconds."""
    monkeypatch.setattr(processor, "PULSE", 0.02)


class Watcher:
    """Looks at a job through connections of its own."""

    def __init__(self, url: str, id: int) -> None:
        self.url, self.id = url, id

    def sees(self) -> dict | None:
        with psycopg.connect(self.url) as other:
            return job(other, self.id)["progress"]

    async def until(self, condition) -> dict:
        for _ in range(1000):
            if (seen := await asyncio.to_thread(self.sees)) and condition(seen):
                return seen
            await asyncio.sleep(0.01)
        raise AssertionError("nothing such was seen")


class TestProgress:
    def test_others_see_it_while_the_job_runs(self, conn, url, settings, quick_pulse):
        seen = []

        @public.job
        async def work(ctx: public.Context) -> None:
            watcher = Watcher(url, ctx.id)
            ctx.progress(3, 10, "three of ten")
            seen.append(await watcher.until(lambda progress: True))
            ctx.progress(4)
            ctx.progress(5.5, 10)
            seen.append(await watcher.until(lambda progress: progress["done"] != 3))

        work.enqueue(conn)
        assert tick(settings).done == 1
        for progress in seen:
            assert progress.pop("at")
        assert seen == [{"done": 3, "total": 10, "note": "three of ten"}, {"done": 5.5, "total": 10, "note": ""}]

    def test_a_plain_function_says_it_too(self, conn, url, settings, quick_pulse):
        @public.job
        def work(ctx: public.Context) -> int:
            ctx.progress(1, 2)
            return asyncio.run(Watcher(url, ctx.id).until(lambda progress: True))["done"]

        id = work.enqueue(conn)
        tick(settings)
        assert job(conn, id)["result"] == 1

    def test_it_takes_no_round_trip_of_its_own(self, conn, settings, trips):
        @public.job
        async def work(ctx: public.Context, say: bool) -> None:
            if say:
                ctx.progress(1, 1)

        made = []
        for say in (False, True):
            trips.clear()
            work.enqueue(conn, say=say)
            tick(settings)
            made.append(len(trips))
        assert made == [2, 2]

    def test_it_goes_with_the_exchanges_that_are_made_anyway(self, conn, url, settings, quick_pulse, trips):
        @public.job
        async def work(ctx: public.Context) -> None:
            for done in range(1, 4):
                ctx.progress(done)
                await Watcher(url, ctx.id).until(lambda progress: progress["done"] == done)

        work.enqueue(conn)
        tick(settings)
        told = [names for names in trips if "record_progress" in names]
        assert len(told) >= 3
        # This one asks whom to cancel: every exchange does, while something runs.
        assert all("cancel_requests" in names for names in told[:3])

    def test_what_was_written_is_kept_at_the_end(self, conn, url, settings, quick_pulse):
        @public.job(max_attempts=1)
        async def work(ctx: public.Context, fails: bool) -> None:
            ctx.progress(2, 2, "almost")
            await Watcher(url, ctx.id).until(lambda progress: True)
            if fails:
                raise ValueError

        for fails, status in ((False, "done"), (True, "dead")):
            id = work.enqueue(conn, fails=fails)
            tick(settings)
            assert (job(conn, id)["status"], job(conn, id)["progress"]["note"]) == (status, "almost")
        conn.execute(statements()["replay"], {"id": id, "ids": [id]})
        assert job(conn, id)["progress"] is None

    @pytest.mark.parametrize("kind", ["done", "retried", "dead", "timed out"])
    def test_the_last_word_is_kept_however_short_the_run_was(self, conn, settings, trips, kind):
        @public.job(max_attempts=1 if kind == "dead" else 2, timeout=0.2)
        async def work(ctx: public.Context) -> None:
            ctx.progress(1, 2)
            ctx.progress(2, 2, "all")
            if kind == "timed out":
                await asyncio.sleep(60)
            elif kind != "done":
                raise ValueError

        id = work.enqueue(conn)
        tick(settings)
        assert (job(conn, id)["status"], job(conn, id)["progress"]["note"]) == (
            {"done": "done", "dead": "dead"}.get(kind, "pending"), "all",
        )  # fmt: skip
        assert len(trips) == 2

    def test_an_attempt_that_was_lost_changes_nothing(self, conn, url):
        a_job(conn)

        async def main():
            q = Queue(await database.open_connection(url), lambda: database.open_connection(url))
            (lost,) = (await q.exchange((), Wanted(1, ["noop"], 50, 60))).jobs
            conn.execute("update tick.jobs set attempt = 2")
            await q.exchange((), progress=[(lost, b'{"done": 1}')])
            assert job(conn, lost.id)["progress"] is None
            await q.exchange((), progress=[(lost._replace(attempt=2), b'{"done": 2}')])
            assert job(conn, lost.id)["progress"]["done"] == 2
            q.leave()

        asyncio.run(main())

    def test_each_of_many_jobs_has_its_own(self, conn, url, settings, quick_pulse):
        @public.job
        async def work(ctx: public.Context, n: int) -> None:
            ctx.progress(n)
            await Watcher(url, ctx.id).until(lambda progress: True)

        for n in range(5):
            work.enqueue(conn, n=n)
        tick(settings)
        rows = conn.execute("select payload -> 'n', progress -> 'done' from tick.jobs").fetchall()
        assert all(n == done for n, done in rows)
        assert len(rows) == 5

    @pytest.mark.parametrize(
        ("note", "kept"), [("x" * 501, "x" * 500), ("a\0b", "a�b"), ("\ud800", "?"), ("näher", "näher")]
    )
    def test_any_note_can_be_written(self, conn, url, settings, quick_pulse, note, kept):
        @public.job
        async def work(ctx: public.Context) -> None:
            ctx.progress(1, float("nan"), note)
            await Watcher(url, ctx.id).until(lambda progress: True)

        id = work.enqueue(conn)
        assert tick(settings).done == 1
        progress = job(conn, id)["progress"]
        assert (progress["note"], progress["total"]) == (kept, None)

    def test_what_is_no_number_is_a_failure_like_any_other(self, conn, settings):
        @public.job
        async def work(ctx: public.Context) -> None:
            ctx.progress(object())

        id = work.enqueue(conn)
        tick(settings)
        assert (job(conn, id)["status"], job(conn, id)["failures"]) == ("pending", 1)


@pytest.fixture(params=["sync", "async", "transaction", "async transaction"])
def waiting(request, url):
    """Waits on a connection of each kind."""

    @asynccontextmanager
    async def connected():
        autocommit = "transaction" not in request.param
        if request.param.startswith("async"):
            async with await psycopg.AsyncConnection.connect(url, autocommit=autocommit) as connection:
                yield connection
        else:
            with psycopg.connect(url, autocommit=autocommit) as connection:
                yield connection

    async def wait(id: int, **options):
        async with connected() as connection:
            return await public.wait(connection, id, **options)

    return wait


class TestWait:
    @pytest.mark.parametrize("status", ["done", "dead", "cancelled"])
    async def test_a_job_that_has_ended(self, conn, waiting, status):
        id = a_job(conn, status=status, result={"n": 7} if status == "done" else None)
        ended = await waiting(id)
        assert ended == (status, {"n": 7} if status == "done" else None, "no" if status == "dead" else None)
        assert (ended.status, ended.result, ended.error) == ended

    @pytest.mark.parametrize("status", ["pending", "running"])
    async def test_a_job_that_does_not_end_in_time(self, conn, waiting, status):
        id = a_job(conn, status=status)
        with pytest.raises(TimeoutError, match=f"job {id} is still {status} after 0.1 s"):
            await waiting(id, timeout=0.1)

    async def test_a_job_that_is_not_there(self, waiting):
        with pytest.raises(JobNotFound, match="4711"):
            await waiting(4711)

    async def test_a_job_that_ends_while_somebody_waits(self, conn, settings, waiting):
        started, go_on = threading.Event(), threading.Event()

        @public.job
        def work() -> str:
            started.set()
            assert go_on.wait(10)
            return "here"

        id = work.enqueue(conn)
        with ThreadPoolExecutor(1) as pool:
            ticking = pool.submit(tick, settings)
            await asyncio.to_thread(started.wait, 10)
            asyncio.get_running_loop().call_later(0.1, go_on.set)
            assert await waiting(id, timeout="30s") == ("done", "here", None)
            assert await asyncio.wrap_future(ticking)

    async def test_it_can_be_cut_short_by_the_caller(self, conn, waiting):
        id = a_job(conn)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await waiting(id)
        assert statuses(conn) == {"pending": 1}


def test_a_result_is_what_the_handler_returned_as_json(conn, settings):
    @public.job
    async def work() -> dict:
        return {"sum": 7, "parts": [3, 4]}

    id = work.enqueue(conn)
    tick(settings)
    ended = asyncio.run(public.wait(conn, id))
    assert json.dumps(ended.result) == json.dumps({"sum": 7, "parts": [3, 4]})
