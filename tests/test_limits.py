"""Limits: never more at once than the concurrency, never more starts in any period than the rate, with ticks that overlap."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import psycopg
import pytest

import tick as public
from tests.factories import a_job, job, statuses, tick
from tests.test_keys_in_order import Hand, is_blocked
from tick import queue
from tick.errors import ConfigurationError, HandlerError
from tick.handlers import Registry, registry
from tick.jobs import Dead, Done, Failure, NewJob, Retried
from tick.limits import Limit, Rate, are_for, check_concurrency, parse_rate
from tick.materialise import merged
from tick.places import Stop
from tick.processor import FAIR_EVERY, process_tick

OOPS = Failure("ValueError: no", "Traceback ...")


class Run(NamedTuple):
    """One run of a handler, by this process's clock."""

    type: str
    key: str | None
    started: float
    ended: float


class Record:
    """What handlers say of their own runs."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def handler(self, type: str, seconds: float = 0.0, **options) -> None:
        """Register a handler that takes so long."""

        @public.job(type=type, **options)
        async def recorded(ctx: public.Context) -> None:
            started = time.monotonic()
            await asyncio.sleep(seconds)
            self.runs.append(Run(type, ctx.key, started, time.monotonic()))

    def starts(self, type: str | None = None, key: str | None = None) -> list[float]:
        return sorted(r.started for r in self.runs if type in (None, r.type) and key in (None, r.key))

    def most_at_once(self, belongs: Callable[[Run], bool] = lambda run: True) -> int:
        """How many ran at the same time, at most."""
        runs = [run for run in self.runs if belongs(run)]
        return max(sum(other.started <= run.started < other.ended for other in runs) for run in runs)


def most_in_any(seconds: float, starts: list[float]) -> int:
    """The most starts that any window of that length holds, wherever it begins."""
    return max(sum(start <= other < start + seconds for other in starts) for start in starts)


@pytest.fixture
def record(empty_registry) -> Record:
    return Record()


@pytest.fixture
def hand(conn) -> Hand:
    return Hand(conn)


def enqueue(conn: psycopg.Connection, type: str, count: int, key: str = "null", **columns: object) -> None:
    """Put jobs in as every producer does; `key` is an SQL expression of the number n."""
    options = "".join(f", {name} => {value}" for name, value in columns.items())
    conn.execute(f"select tick.enqueue(%s, key => {key}{options}) from generate_series(1, %s) n", [type, count])


def overlapping(settings, conn, ticks: int = 8, budget: float = 10.0, seconds: float = 60.0) -> None:
    """So many ticks beside each other, each followed by the next, until no job is pending."""
    over = threading.Event()
    giving_up = threading.Timer(seconds, over.set)
    giving_up.start()

    def keep_ticking() -> None:
        while not over.is_set() and set(statuses(conn)) - {"done", "dead"}:
            report = asyncio.run(process_tick(settings, registry, budget=budget))
            over.wait(0 if report.claimed else 0.05)

    with ThreadPoolExecutor(ticks) as pool:
        for each in [pool.submit(keep_ticking) for _ in range(ticks)]:
            each.result()
    giving_up.cancel()
    assert set(statuses(conn)) == {"done"}


def lanes(conn: psycopg.Connection) -> dict[str | None, int]:
    """How many pending jobs each lane has."""
    return dict(conn.execute("select lane, count(*) from tick.jobs where status = 'pending' group by lane").fetchall())


def write_limits(settings, text: str) -> None:
    settings.schedules_path.write_text(text)


class TestValues:
    @pytest.mark.parametrize(
        ("text", "rate"),
        [("100/minute", (100, 60)), ("5/10s", (5, 10)), (" 1 / second ", (1, 1)), ("7/hour", (7, 3600)),
         ("3/day", (3, 86400)), ("2/1h30m", (2, 5400)), ("1000000/second", (1_000_000, 1))],
    )  # fmt: skip
    def test_a_rate(self, text, rate):
        assert parse_rate(text) == Rate(*rate)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "5",
            "/minute",
            "0/minute",
            "1000001/s",
            "5/minutes",
            "-5/minute",
            "5/0s",
            "5//10s",
            5,
            None,
            "5.5/minute",
        ],
    )
    def test_what_is_no_rate_is_told_what_one_looks_like(self, text):
        with pytest.raises(ConfigurationError):
            parse_rate(text)

    @pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, None, 1_000_001])
    def test_what_is_no_concurrency(self, value):
        with pytest.raises(ConfigurationError, match="from 1 to 1,000,000"):
            check_concurrency(value)

    @pytest.mark.parametrize("options", [{"concurrency": 0}, {"rate": "fast"}, {"rate_per_key": "5"}])
    def test_a_handler_says_which_of_its_limits_is_none(self, empty_registry, options):
        with pytest.raises((ConfigurationError, HandlerError), match="slow"):
            public.job(type="slow", **options)(lambda: None)

    def test_the_file_goes_before_the_handler(self):
        handlers = [Limit(type="a", concurrency=1), Limit(type="b", concurrency=1)]
        file = [Limit(type="a", rate=Rate(1, 1)), Limit(key_prefix="k:", concurrency=2)]
        expected = [(file[0], True), (handlers[1], False), (file[1], True)]
        assert merged(handlers, file) == [limit.row(from_file=of_file) for limit, of_file in expected]

    def test_what_a_limit_is_for(self):
        rows = [
            Limit(type="a", concurrency=1).row(from_file=False),
            Limit(key_prefix="k:", concurrency=1).row(from_file=True),
        ]
        assert are_for(rows, "a", None)
        assert are_for(rows, "b", "k:1")
        assert not are_for(rows, "b", "l:1")
        assert not are_for(rows, "b", None)


class TestConcurrency:
    def test_of_a_type_in_eight_overlapping_ticks(self, conn, settings, record):
        record.handler("slow", 0.02, concurrency=3)
        enqueue(conn, "slow", 60)
        overlapping(settings, conn)
        assert len(record.runs) == 60
        assert 1 < record.most_at_once() <= 3

    def test_of_keys_that_begin_alike_whatever_their_type(self, conn, settings, record):
        record.handler("a", 0.02)
        record.handler("b", 0.02)
        write_limits(settings, '[limits."customer:*"]\nconcurrency = 2\n')
        for type in ("a", "b"):
            enqueue(conn, type, 20, "'customer:' || mod(n, 7)")
            enqueue(conn, type, 10, "'other:' || n")
        overlapping(settings, conn)
        limited = [run for run in record.runs if run.key.startswith("customer:")]
        assert len(limited) == 40
        assert record.most_at_once(lambda run: run.key.startswith("customer:")) == 2

    def test_it_holds_from_the_first_tick_that_knows_of_it_for_jobs_that_were_there_before(
        self, conn, settings, record
    ):
        record.handler("slow", 0.05, concurrency=2)
        enqueue(conn, "slow", 8)
        assert lanes(conn) == {None: 8}
        report = tick(settings)
        assert report.done == 8
        assert record.most_at_once() == 2

    def test_a_job_is_under_one_limit_the_one_of_the_longest_beginning_of_its_key(self, conn, settings, record):
        record.handler("a")
        write_limits(
            settings,
            '[limits.a]\nconcurrency = 9\n[limits."k:*"]\nconcurrency = 9\n[limits."k:vip:*"]\nconcurrency = 9\n',
        )
        tick(settings)
        for key in ("null", "'x'", "'k:1'", "'k:vip:1'"):
            enqueue(conn, "a", 1, key)
        assert lanes(conn) == {"type a": 2, "key k:": 1, "key k:vip:": 1}

    def test_a_job_that_ended_however_makes_room_and_so_does_a_lost_one(self, conn, hand):
        conn.execute("insert into tick.limits (lane, type, concurrency) values ('type noop', 'noop', 1)")
        enqueue(conn, "noop", 4)
        for outcome in (Done(), Retried(60.0, OOPS), Dead(OOPS)):
            (claimed,) = hand.claim()
            assert hand.claim() == []
            hand.settle(claimed, outcome)
        hand.claim()
        conn.execute("update tick.jobs set lease_expires_at = now() where status = 'running'")
        hand.reclaim()
        assert len(hand.claim("claim_suspect")) == 1

    def test_a_suspect_waits_for_room_too(self, conn, hand):
        conn.execute("insert into tick.limits (lane, type, concurrency) values ('type noop', 'noop', 1)")
        a_job(conn, lane="type noop", status="running")
        suspect = a_job(conn, lane="type noop", losses=1)
        assert hand.claim("claim_suspect") == []
        conn.execute("update tick.limits set concurrency = 2")
        assert hand.claimed(name="claim_suspect") == [suspect]

    def test_a_suspect_and_another_job_do_not_take_the_same_room(self, conn, url, hand):
        conn.execute("insert into tick.limits (lane, type, concurrency) values ('type noop', 'noop', 1)")
        a_job(conn, lane="type noop", losses=1)
        a_job(conn, lane="type noop")
        with psycopg.connect(url) as other, psycopg.connect(url) as third, ThreadPoolExecutor(1) as pool:
            assert len(Hand(other).claim()) == 1
            claimed = pool.submit(Hand(third).claim, "claim_suspect")
            while not is_blocked(conn, third):
                assert not claimed.done()
            other.commit()
            assert claimed.result(10) == []

    def test_a_limit_that_is_full_locks_out_nobody(self, conn, url):
        conn.execute("insert into tick.limits (lane, type, concurrency) values ('type noop', 'noop', 1)")
        enqueue(conn, "noop", 5)
        a_job(conn, lane="type noop", status="running")
        with psycopg.connect(url) as one, psycopg.connect(url) as another:
            assert Hand(one).claim() == Hand(another).claim() == []
            pids = [one.info.backend_pid, another.info.backend_pid]
            locks = conn.execute(
                "select from pg_locks where locktype = 'advisory' and pid = any(%s)", [pids]
            ).fetchall()
        assert locks == []


class TestRate:
    def test_of_a_type_in_eight_overlapping_ticks(self, conn, settings, record):
        record.handler("mail", rate="20/2s")
        enqueue(conn, "mail", 60)
        overlapping(settings, conn)
        assert len(record.starts()) == 60
        assert most_in_any(2.0, record.starts()) <= 20

    def test_of_each_key_by_itself(self, conn, settings, record):
        record.handler("mail", rate_per_key="3/1s")
        enqueue(conn, "mail", 32, "'k' || mod(n, 4)")
        overlapping(settings, conn)
        for key in ("k0", "k1", "k2", "k3"):
            assert len(record.starts(key=key)) == 8
            assert most_in_any(1.0, record.starts(key=key)) <= 3

    def test_of_the_keys_that_begin_alike_together_and_each_by_itself(self, conn, settings, record):
        record.handler("a")
        record.handler("b")
        write_limits(settings, '[limits."customer:*"]\nrate = "8/1s"\nrate_per_key = "2/1s"\nconcurrency = 3\n')
        for type in ("a", "b"):
            enqueue(conn, type, 12, "'customer:' || mod(n, 6)")
        overlapping(settings, conn)
        assert most_in_any(1.0, record.starts()) <= 8
        for n in range(6):
            assert most_in_any(1.0, record.starts(key=f"customer:{n}")) <= 2
        assert record.most_at_once() <= 3

    def test_a_retry_is_another_start(self, conn, settings, record):
        @public.job(rate="2/day")
        async def mail() -> None:
            raise public.Retry("no", after=0)

        enqueue(conn, "mail", 1)
        assert tick(settings).retried == 2
        assert tick(settings).claimed == 0

    def test_jobs_without_a_key_are_under_no_rate_of_each_key(self, conn, settings, record):
        record.handler("mail", rate_per_key="1/day")
        enqueue(conn, "mail", 20)
        enqueue(conn, "mail", 3, "'k'")
        assert tick(settings).done == 21

    def test_a_limited_job_does_not_wait_behind_others_that_were_claimed_with_it(self, conn, settings, record):
        """What was counted as a start is one: no slow job of a higher priority makes it wait until it is too late."""
        record.handler("slow", 0.7)
        record.handler("mail", rate="5/day")
        tick(settings)
        enqueue(conn, "slow", 20, priority=9)
        enqueue(conn, "mail", 10)
        report = tick(settings, concurrency=4, budget=20)
        assert (len(record.starts("mail")), report.released) == (5, 0)
        assert conn.execute("select count(*) from tick.starts").fetchone() == (5,)

    def test_what_is_claimed_and_cannot_start_in_time_is_released_and_not_run(
        self, conn, settings, record, monkeypatch
    ):
        monkeypatch.setattr("tick.processor.LIMITED_START", -1.0)
        record.handler("mail", rate="5/day")
        enqueue(conn, "mail", 3)
        report = tick(settings)
        assert (report.done, record.runs) == (0, [])
        assert statuses(conn) == {"pending": 3}

    def test_starts_are_forgotten_when_they_no_longer_count(self, conn, settings, record):
        record.handler("mail", rate="5/second")
        tick(settings)
        conn.execute(
            "insert into tick.starts (lane, at) select 'type mail', now() - interval '2 minutes' from generate_series(1, 100)"
        )
        enqueue(conn, "mail", 2)
        tick(settings)
        assert conn.execute("select count(*) from tick.starts").fetchone() == (2,)


class TestWaitingForRoom:
    def test_a_tick_stays_for_a_rate_that_has_room_again_soon(self, conn, settings, record):
        record.handler("mail", rate="4/1s")
        enqueue(conn, "mail", 12)
        report = tick(settings, budget=20)
        assert report.done == 12
        assert most_in_any(1.0, record.starts()) <= 4

    def test_but_not_for_one_that_has_none_for_long(self, conn, settings, record, trips):
        record.handler("mail", rate="4/hour")
        enqueue(conn, "mail", 12)
        report = tick(settings, budget=50)
        assert (report.done, report.left) == (4, 8)
        assert report.used < 15

    def test_nor_for_one_that_has_room_when_there_is_no_time_left_for_a_job(self, conn, settings, record):
        record.handler("mail", rate="1/3s", timeout="5s")
        enqueue(conn, "mail", 2)
        report = tick(settings, budget=7)
        assert report.done == 1
        assert report.used < 2.9

    def test_nor_when_what_is_in_the_way_is_something_else(self, conn, settings, record, hand):
        """The rate has had starts, and has room: what waits does so for its key, or for a place."""
        record.handler("mail", rate="5/10s", concurrency=1)
        enqueue(conn, "mail", 1)
        tick(settings)
        enqueue(conn, "mail", 4)
        (elsewhere,) = hand.claim(types=("mail",))
        report = tick(settings, budget=50)
        assert (report.claimed, report.left) == (0, 3)
        assert report.used < 8
        hand.settle(elsewhere, Done())
        assert tick(settings).done == 3

    def test_nor_for_keys_that_have_nothing_to_run(self, conn, settings, record):
        record.handler("mail", rate_per_key="1/3s")
        enqueue(conn, "mail", 5, "'k' || n")
        report = tick(settings, budget=50)
        assert report.done == 5
        assert report.used < 2.9

    def test_it_does_not_ask_the_database_meanwhile(self, conn, settings, record, trips):
        record.handler("mail", rate="1/2s")
        tick(settings)
        enqueue(conn, "mail", 3)
        trips.clear()
        assert tick(settings, budget=20).done == 3
        assert len(trips) <= 9

    def test_room_that_other_jobs_make_is_used_at_once_when_no_place_was_free_before(self, conn, settings, record):
        record.handler("slow", 0.2)
        record.handler("mail", concurrency=1)
        tick(settings)
        enqueue(conn, "slow", 2, priority=9)
        enqueue(conn, "mail", 3)
        assert tick(settings, concurrency=2).done == 5


@pytest.fixture
def trips(monkeypatch) -> list[int]:
    """One entry for each round trip that any queue makes."""
    made: list[int] = []
    once = queue.Queue._send_once

    async def counted(self, batch):
        made.append(len(batch))
        return await once(self, batch)

    monkeypatch.setattr(queue.Queue, "_send_once", counted)
    return made


class TestLanes:
    def test_a_new_limit_takes_jobs_under_it_whatever_they_wait_for(self, conn, settings, record):
        record.handler("mail")
        tick(settings)
        enqueue(conn, "mail", 3)
        enqueue(conn, "mail", 3, "'k'")
        enqueue(conn, "mail", 2, delay="interval '1 hour'")
        conn.execute('select tick.enqueue(\'parent\', "then" => \'[{"type": "mail"}]\')')
        a_job(conn, "mail", losses=1, run_at="+1 hour")
        write_limits(settings, "[limits.mail]\nconcurrency = 1\n")
        with_handler = replace(settings, concurrency=1)
        tick(with_handler, budget=0.5)
        assert lanes(conn).keys() == {"type mail", None}
        assert conn.execute("select type from tick.jobs where lane is null").fetchall() == [("parent",)]

    def test_a_limit_that_is_gone_lets_its_jobs_go(self, conn, settings, record):
        record.handler("mail")
        write_limits(settings, '[limits.mail]\nrate = "1/day"\n')
        tick(settings)
        enqueue(conn, "mail", 5)
        enqueue(conn, "mail", 5, "'k'")
        assert tick(settings).done == 1
        write_limits(settings, "")
        assert tick(settings).done == 9
        assert conn.execute("select count(*) from tick.limits").fetchone() == (0,)

    def test_a_file_that_is_missing_lifts_no_limit(self, conn, settings, record):
        record.handler("mail")
        write_limits(settings, '[limits.mail]\nrate = "1/day"\n')
        tick(settings)
        enqueue(conn, "mail", 5)
        settings.schedules_path.unlink()
        assert [tick(settings).done for _ in range(3)] == [1, 0, 0]
        with pytest.raises(ConfigurationError, match="there is no schedules file"):
            tick(replace(settings, schedules_named=True))
        assert conn.execute("select count(*) from tick.limits").fetchone() == (1,)

    def test_another_number_changes_no_job(self, conn, settings, record):
        record.handler("mail")
        write_limits(settings, "[limits.mail]\nconcurrency = 1\n")
        tick(settings)
        enqueue(conn, "mail", 5, delay="interval '1 hour'")
        before = conn.execute("select id, xmin::text from tick.jobs order by id").fetchall()
        write_limits(settings, "[limits.mail]\nconcurrency = 2\n")
        tick(settings)
        assert conn.execute("select id, xmin::text from tick.jobs order by id").fetchall() == before
        assert conn.execute("select concurrency from tick.limits").fetchone() == (2,)

    def test_the_limit_of_the_file_goes_before_that_of_the_handler(self, conn, settings, record):
        record.handler("mail", 0.05, concurrency=1)
        write_limits(settings, "[limits.mail]\nconcurrency = 3\n")
        enqueue(conn, "mail", 12)
        tick(settings)
        assert record.most_at_once() == 3

    def test_many_jobs_are_taken_by_the_thousand(self, conn, settings, record, monkeypatch):
        monkeypatch.setattr(queue, "RELANE_LIMIT", 10)
        record.handler("mail", rate="1/day")
        enqueue(conn, "mail", 95)
        assert tick(settings).done == 1
        assert lanes(conn) == {"type mail": 94}

    def test_what_there_is_no_time_for_the_next_tick_does(self, conn, settings, record, monkeypatch):
        relane = queue.Queue._relane
        monkeypatch.setattr(queue.Queue, "_relane", lambda self, seconds: relane(self, 0))
        record.handler("mail", rate="1/day")
        enqueue(conn, "mail", 30, delay="interval '1 hour'")
        tick(settings)
        assert lanes(conn) == {None: 30}
        monkeypatch.undo()
        tick(settings)
        assert lanes(conn) == {"type mail": 30}

    def test_a_job_that_somebody_has_locked_is_left_for_the_next_tick(self, conn, settings, record, url):
        record.handler("mail", rate="1/day")
        enqueue(conn, "mail", 3, delay="interval '1 hour'")
        with psycopg.connect(url) as other:
            other.execute("select from tick.jobs where id = 2 for update")
            tick(settings, budget=2)
            assert lanes(conn) == {"type mail": 2, None: 1}
        tick(settings)
        assert lanes(conn) == {"type mail": 3}
        (hash,) = conn.execute("select hash from tick.configuration").fetchone()
        tick(settings)
        assert conn.execute("select hash from tick.configuration").fetchone() == (hash,)

    def test_a_lane_without_a_limit_is_found_and_its_jobs_run(self, conn, settings, record):
        record.handler("mail")
        tick(settings)
        a_job(conn, "mail", lane="type gone")
        assert tick(settings).done == 1

    def test_a_job_that_a_schedule_a_chain_or_a_handler_makes_is_under_its_limit_too(self, conn, settings, record):
        record.handler("mail", rate="1/day")

        @public.job
        async def parent(ctx: public.Context) -> None:
            ctx.enqueue("mail")

        tick(settings)
        conn.execute('select tick.enqueue(\'parent\', "then" => \'[{"type": "mail"}]\')')
        tick(settings)
        assert len(record.runs) == 1
        assert lanes(conn) == {"type mail": 1}


class TestTwoDeployments:
    """They tick in turn with different limits: the one that ticked last decides, and no job is lost between them."""

    def deployment(self, **types: dict[str, object]) -> Registry:
        made = Registry()
        for type, options in types.items():

            async def handler() -> None:
                pass

            made.add(public.handlers.Handler(function=handler, type=type, **options))
        return made

    def tick(self, settings, registry: Registry):
        return asyncio.run(process_tick(settings, registry, budget=10))

    def test_the_last_one_decides_on_what_both_have_handlers_for(self, conn, settings):
        old, new = self.deployment(mail={}), self.deployment(mail={"rate": Rate(2, 86400)})
        enqueue(conn, "mail", 10, delay="interval '1 hour'")
        for deployment, expected in ((old, {None: 10}), (new, {"type mail": 10})) * 3:
            self.tick(settings, deployment)
            assert lanes(conn) == expected
        conn.execute("update tick.jobs set run_at = now()")
        assert self.tick(settings, new).done == 2
        assert self.tick(settings, old).done == 8

    def test_a_limit_of_a_type_that_only_the_other_has_stays(self, conn, settings):
        old, new = self.deployment(mail={}), self.deployment(mail={}, report={"concurrency": 1})
        self.tick(settings, new)
        enqueue(conn, "report", 2)
        for deployment in (old, new, old):
            self.tick(settings, deployment)
            assert conn.execute("select lane from tick.limits").fetchall() == [("type report",)]
        assert statuses(conn) == {"done": 2}

    def test_many_overlapping_ticks_of_both_run_every_job_once(self, conn, settings):
        deployments = [
            self.deployment(mail={"concurrency": 1}),
            self.deployment(mail={}),
            self.deployment(mail={"rate": Rate(100, 1)}),
        ]
        enqueue(conn, "mail", 200)

        def keep_ticking(deployment: Registry) -> None:
            while set(statuses(conn)) - {"done"}:
                self.tick(settings, deployment)

        with ThreadPoolExecutor(6) as pool:
            for each in [pool.submit(keep_ticking, deployment) for deployment in deployments * 2]:
                each.result(60)
        assert conn.execute("select count(*), max(failures) from tick.jobs where status = 'done'").fetchone() == (
            200,
            0,
        )


class TestFairness:
    def test_a_type_under_a_limit_does_not_slow_the_others(self, conn, settings, record):
        record.handler("mail", rate="1/day")
        record.handler("noop")
        tick(settings)
        enqueue(conn, "mail", 500, priority=9)
        enqueue(conn, "noop", 500)
        report = tick(settings)
        assert report.done == 501
        assert Counter(run.type for run in record.runs) == {"noop": 500, "mail": 1}

    @pytest.mark.parametrize("limited", ["neither", "urgent", "both"])
    def test_the_lowest_priority_is_not_starved_while_the_highest_is_always_full(
        self, conn, settings, empty_registry, limited
    ):
        """Each urgent job is followed by another one, so there are always more than can run at once."""
        stop, seen = Stop(), Counter()
        of_urgent = {"concurrency": 1000} if limited != "neither" else {}
        of_other = {"rate": "100000/second"} if limited == "both" else {}

        @public.job(**of_urgent)
        async def urgent(ctx: public.Context) -> None:
            seen["urgent"] += 1
            ctx.enqueue(NewJob("urgent", b"{}", priority=9))

        @public.job(**of_other)
        async def other() -> None:
            seen["other"] += 1
            if seen["other"] == 5:
                stop()

        tick(settings)
        enqueue(conn, "other", 5, priority=-5)
        enqueue(conn, "urgent", 300, priority=9)
        tick(settings, budget=30, stop=stop)
        assert seen["other"] == 5
        assert seen["urgent"] > 0

    def test_of_two_lanes_the_urgent_one_does_not_starve_the_other(self, conn, hand):
        for type in ("a", "b"):
            conn.execute(
                "insert into tick.limits (lane, type, concurrency) values ('type ' || %s, %s, 1000)", [type, type]
            )
        enqueue(conn, "b", 1)
        enqueue(conn, "a", 50, priority=9)
        types = ("a", "b")
        assert {each.type for each in hand.claim(limit=10, types=types)} == {"a"}
        assert hand.claim(limit=10, types=types, fair=True)[0].type == "b"

    def test_within_a_lane_the_lowest_priority_is_taken_when_it_is_the_oldest(self, conn, hand):
        conn.execute("insert into tick.limits (lane, type, concurrency) values ('type noop', 'noop', 3)")
        enqueue(conn, "noop", 1, priority=-9)
        enqueue(conn, "noop", 50, priority=9)
        claimed = hand.claim(limit=10, fair=True)
        assert len(claimed) == 3
        assert claimed[0].id == 1

    def test_the_limited_do_not_starve_the_unlimited_either(self, conn, hand):
        conn.execute("insert into tick.limits (lane, type, concurrency) values ('type a', 'a', 1000)")
        enqueue(conn, "b", 1, priority=-9)
        enqueue(conn, "a", 50, priority=9)
        claimed = [hand.claim(limit=4, types=("a", "b"), fair=turn == 0) for turn in range(FAIR_EVERY)]
        assert claimed[0][0].type == "b"
        assert {each.type for batch in claimed[1:] for each in batch} == {"a"}

    def test_the_order_within_a_lane_is_that_of_all_jobs(self, conn, hand):
        conn.execute("insert into tick.limits (lane, type, concurrency) values ('type noop', 'noop', 2)")
        late = a_job(conn, lane="type noop", run_at="-1 minute")
        early = a_job(conn, lane="type noop", run_at="-1 hour")
        urgent = a_job(conn, lane="type noop", priority=5)
        order = []
        while claimed := hand.claimed():
            order += sorted(claimed, key=lambda each: (-job(conn, each)["priority"], job(conn, each)["run_at"]))
            for id in claimed:
                conn.execute(
                    "update tick.jobs set status = 'done', lease_expires_at = null, finished_at = now() where id = %s",
                    [id],
                )
        assert order == [urgent, early, late]

    def test_starts_are_evenly_spread_over_the_periods(self, conn, settings, record):
        """A tick that waits for room takes it as it comes: no period is left unused."""
        record.handler("mail", rate="5/1s")
        enqueue(conn, "mail", 20)
        tick(settings, budget=30)
        firsts = record.starts()[::5]
        assert all(after - before >= 1.0 for before, after in pairwise(firsts))
