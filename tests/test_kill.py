"""The worst night: processes killed, stopped and resumed in the middle of their jobs, as real processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psycopg
import pytest

from tests.factories import a_job, job, jobs, move_clock, statuses, wait_until

LEASE = 60 + 4
"""Seconds from a claim until its lease has surely run out: the budgets below, and twice the grace."""

HANDLERS = """
    import asyncio, os, time
    import psycopg, tick

    def effect(id, what):
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as conn:
            conn.execute("insert into effects (job, what) values (%s, %s)", [id, what])

    @tick.job
    async def short(ctx: tick.Context) -> None:
        await asyncio.sleep(0.005)

    @tick.job
    def told(ctx: tick.Context) -> None:
        effect(ctx.id, "started")
        time.sleep(0.2)

    @tick.job
    async def pill(ctx: tick.Context) -> None:
        os.kill(os.getpid(), 9)

    @tick.job
    def paused(ctx: tick.Context) -> None:
        effect(ctx.id, f"attempt {ctx.attempt}")
        while not os.path.exists(os.environ["GO"]):
            time.sleep(0.02)

    @tick.job
    async def leaves_a_thread() -> None:
        await asyncio.to_thread(time.sleep, 60)

    @tick.job
    async def blocks_the_loop() -> None:
        time.sleep(60)
"""


class Ticks:
    """Starts `tick run-once` as a process of its own, and ends what is left of it."""

    def __init__(self, url: str, folder: Path) -> None:
        (folder / "killed_handlers.py").write_text(textwrap.dedent(HANDLERS))
        self.go = folder / "go"
        self.env = os.environ | {"DATABASE_URL": url, "TICK_MODULES": "killed_handlers", "GO": str(self.go),
                                 "PYTHONPATH": str(Path(__file__).parents[1])}  # fmt: skip
        self.folder = folder
        self.running: list[subprocess.Popen] = []

    def start(self, budget: float = 50) -> subprocess.Popen:
        command = [sys.executable, "-m", "tick.cli", "run-once", "--json", "--budget", str(budget)]
        process = subprocess.Popen(command, env=self.env, cwd=self.folder, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        self.running.append(process)
        return process

    def run(self, budget: float = 50) -> subprocess.Popen:
        process = self.start(budget)
        process.communicate(timeout=budget + 20)
        return process

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def ticks(url, tmp_path):
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("drop table if exists effects; create table effects (job bigint, what text)")
    started = Ticks(url, tmp_path)
    yield started
    started.end()


def expire(conn) -> None:
    """Let every lease there is run out."""
    conn.execute("update tick.jobs set lease_expires_at = tick.now() - interval '1 second' where status = 'running'")


def test_a_tick_killed_again_and_again_in_five_hundred_jobs_loses_none(conn, ticks):
    chance = random.Random(5)
    jobs(conn, "short", 500)
    for _ in range(5):
        before = statuses(conn).get("done", 0)
        process = ticks.start()
        wait_until(lambda before=before: statuses(conn).get("done", 0) > before or process.poll() is not None)
        time.sleep(chance.random() * 0.05)
        process.kill()
        process.wait()
        # What it had sent may still be committed: until Postgres has noticed that it is gone.
        wait_until(lambda: conn.execute("select count(*) from pg_stat_activity where datname = current_database() "
                                        "and backend_type = 'client backend'").fetchone()[0] == 1)  # fmt: skip
        expire(conn)
    for _ in range(3):
        assert ticks.run().returncode == 0
    assert statuses(conn) == {"done": 500}
    assert conn.execute("select count(*) from tick.ticks where finished_at is null").fetchone()[0] >= 1


def test_nothing_is_stuck_past_its_lease_and_one_tick(conn, ticks):
    jobs(conn, "told", 10)
    process = ticks.start(budget=2)
    wait_until(lambda: conn.execute("select count(*) from effects").fetchone()[0] > 0)
    process.kill()
    process.wait()
    move_clock(conn, "+6 seconds")
    ticks.run()
    assert statuses(conn) == {"done": 10}


def test_a_job_that_kills_its_process_is_buried_alone(conn, ticks):
    pill = a_job(conn, "pill", priority=1)
    jobs(conn, "short", 30)
    for _ in range(4):
        ticks.run()
        expire(conn)
    ticks.run()
    row = job(conn, pill)
    assert (row["status"], row["losses"], row["failures"]) == ("dead", 3, 0)
    assert "lease ran out" in row["last_error"]
    assert statuses(conn) == {"dead": 1, "done": 30}
    assert conn.execute("select max(losses) from tick.jobs where type = 'short'").fetchone()[0] <= 1


def test_a_process_paused_past_its_lease_cannot_overwrite_the_newer_outcome(conn, ticks):
    id = a_job(conn, "paused")
    zombie = ticks.start(budget=40)
    wait_until(lambda: conn.execute("select count(*) from effects").fetchone()[0] == 1)
    zombie.send_signal(signal.SIGSTOP)
    expire(conn)
    ticks.go.touch()
    heir = ticks.run(budget=20)
    assert heir.returncode == 0
    after = job(conn, id)
    assert (after["status"], after["attempt"], after["losses"]) == ("done", 2, 1)
    zombie.send_signal(signal.SIGCONT)
    out, _ = zombie.communicate(timeout=30)
    assert '"stale": 1' in out and '"done": 0' in out
    assert job(conn, id) == after


def test_sigterm_releases_what_has_not_started_and_exits_zero(conn, ticks):
    jobs(conn, "told", 40)
    process = ticks.start(budget=40)
    wait_until(lambda: conn.execute("select count(*) from effects").fetchone()[0] >= 5)
    process.terminate()
    process.communicate(timeout=5)
    assert process.returncode == 0
    assert set(statuses(conn)) == {"done", "pending"}
    started = conn.execute("select count(distinct job) from effects").fetchone()[0]
    assert statuses(conn)["done"] == started


def test_a_coroutine_that_blocks_the_loop_ends_with_the_process_in_time(conn, ticks):
    a_job(conn, "blocks_the_loop")
    started = time.monotonic()
    process = ticks.run(budget=1)
    assert process.returncode == 70
    assert time.monotonic() - started < 1 + 2 + 2  # the budget, the grace, and Python's own start
    expire(conn)
    assert job(conn, 1)["status"] == "running"


@pytest.mark.parametrize("type", ["paused", "leaves_a_thread"])
def test_a_thread_that_outlives_its_tick_does_not_hold_the_process(conn, ticks, type):
    a_job(conn, type)
    started = time.monotonic()
    process = ticks.run(budget=1)
    assert process.returncode == 0
    assert time.monotonic() - started < 1 + 2 + 2
