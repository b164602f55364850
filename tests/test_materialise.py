"""From schedules.toml to jobs: cursors, catch-up, overlap, two deployments, and what each tick has to evaluate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

import tick as public
from tests.factories import job, move_clock, statuses, tick
from tick import schedules, schedules_file


@pytest.fixture(autouse=True)
def handler(empty_registry):
    @public.job
    async def work() -> None:
        pass


def windows(conn, schedule: str = "work") -> list[str]:
    rows = conn.execute('select "window" from tick.jobs where schedule = %s order by "window"', [schedule])
    return [f"{window.astimezone(UTC):%d %H:%M}" for (window,) in rows]


def skips(conn) -> list[tuple]:
    rows = conn.execute("select first_window, last_window, count, reason from tick.skips order by last_window, reason")
    return [(f"{a.astimezone(UTC):%d %H:%M}", f"{b.astimezone(UTC):%d %H:%M}", n, why) for a, b, n, why in rows]


class Deployment:
    """A schedules file, and ticks with it at given instants."""

    def __init__(self, conn, settings, text: str, path: Path | None = None) -> None:
        self.conn = conn
        self.path = path or settings.schedules_path
        self.settings = settings
        self.write(text)

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def tick(self, at: str, **options):
        move_clock(self.conn, at)
        return tick(self.settings, schedules_path=self.path, **options)


@pytest.fixture
def deploy(conn, settings):
    def deployed(rule: str, name: str = "schedules.toml") -> Deployment:
        text = f"[schedules.work]\n{rule}\n"
        return Deployment(conn, settings, text, settings.root / name)

    return deployed


def test_a_new_schedule_starts_from_when_it_was_first_seen(conn, deploy):
    app = deploy('cron = "*/10 * * * *"')
    app.tick("2026-03-01T10:05Z")
    assert windows(conn) == []
    app.tick("2026-03-01T10:12Z")
    assert windows(conn) == ["01 10:10"]
    assert statuses(conn) == {"done": 1}


def test_late_doubled_and_missing_ticks_make_the_same_windows(conn, deploy):
    app = deploy('cron = "*/10 * * * *"\ncatch_up = "all"')
    for at in ("10:05", "10:10", "10:10", "10:19", "10:20", "10:51", "10:51"):
        app.tick(f"2026-03-01T{at}Z")
    assert windows(conn) == ["01 10:10", "01 10:20", "01 10:30", "01 10:40", "01 10:50"]


class TestAfterAnOutage:
    def outage(self, deploy, rule: str) -> None:
        app = deploy(f'cron = "0 * * * *"\n{rule}')
        app.tick("2026-03-01T10:00Z")
        app.tick("2026-03-01T14:05Z")

    def test_the_latest_window_is_made_and_the_others_are_recorded(self, conn, deploy):
        self.outage(deploy, "")
        assert windows(conn) == ["01 14:00"]
        assert skips(conn) == [("01 11:00", "01 13:00", 3, "late")]

    def test_all_are_made(self, conn, deploy):
        self.outage(deploy, 'catch_up = "all"')
        assert windows(conn) == ["01 11:00", "01 12:00", "01 13:00", "01 14:00"]
        assert skips(conn) == []

    def test_all_are_made_up_to_the_cap(self, conn, deploy):
        self.outage(deploy, 'catch_up = "all"\nmax_catch_up = 3')
        assert windows(conn) == ["01 12:00", "01 13:00", "01 14:00"]
        assert skips(conn) == [("01 11:00", "01 11:00", 1, "cap")]

    def test_none_makes_only_what_is_fresh(self, conn, deploy):
        self.outage(deploy, 'catch_up = "none"')
        assert windows(conn) == ["01 14:00"]
        deploy('cron = "0 * * * *"\ncatch_up = "none"').tick("2026-03-01T16:30Z")
        assert windows(conn) == ["01 14:00"]
        assert skips(conn)[-1] == ("01 15:00", "01 16:00", 2, "late")

    def test_of_a_year_costs_one_job_and_one_record(self, conn, deploy):
        app = deploy('cron = "* * * * *"')
        app.tick("2025-03-01T10:00Z")
        app.tick("2026-03-01T10:00Z")
        assert windows(conn) == ["01 10:00"]
        assert skips(conn)[0][2:] == (None, "late")


def test_windows_are_deduped_by_the_table_even_when_the_cursor_was_lost(conn, deploy):
    app = deploy('cron = "0 * * * *"')
    app.tick("2026-03-01T10:00Z")
    app.tick("2026-03-01T11:00Z")
    conn.execute(
        "update tick.definitions set cursor = cursor - interval '1 hour'; update tick.entries set next_window = now() - interval '2 years'"
    )
    app.tick("2026-03-01T11:01Z")
    assert windows(conn) == ["01 11:00"]


def test_the_cursor_outlives_the_jobs(conn, deploy):
    app = deploy('cron = "0 * * * *"')
    app.tick("2026-03-01T10:00Z")
    app.tick("2026-03-01T11:00Z")
    conn.execute("delete from tick.jobs")
    app.tick("2026-03-01T11:30Z")
    assert windows(conn) == []


class TestOverlap:
    def test_skip_makes_no_window_while_one_is_pending(self, conn, deploy):
        app = deploy('cron = "0 * * * *"\noverlap = "skip"')
        app.tick("2026-03-01T10:00Z")
        app.tick("2026-03-01T11:00Z")
        conn.execute("update tick.jobs set status = 'pending', run_at = '9000-01-01', finished_at = null")
        app.tick("2026-03-01T12:00Z")
        assert windows(conn) == ["01 11:00"]
        assert skips(conn) == [("01 12:00", "01 12:00", 1, "overlap")]
        conn.execute("update tick.jobs set status = 'dead', finished_at = now()")
        app.tick("2026-03-01T13:00Z")
        assert windows(conn) == ["01 11:00", "01 13:00"]

    def test_skip_makes_one_of_several_that_are_due(self, conn, deploy):
        app = deploy('cron = "0 * * * *"\noverlap = "skip"\ncatch_up = "all"')
        app.tick("2026-03-01T10:00Z")
        app.tick("2026-03-01T13:00Z")
        assert windows(conn) == ["01 13:00"]
        assert skips(conn) == [("01 11:00", "01 12:00", 2, "overlap")]

    def test_allow_makes_every_window(self, conn, deploy):
        app = deploy('cron = "0 * * * *"')
        app.tick("2026-03-01T10:00Z")
        app.tick("2026-03-01T11:00Z")
        conn.execute("update tick.jobs set status = 'pending', run_at = '9000-01-01', finished_at = null")
        app.tick("2026-03-01T12:00Z")
        assert windows(conn) == ["01 11:00", "01 12:00"]


def test_a_paused_schedule_makes_nothing_and_does_not_catch_up(conn, deploy):
    app = deploy('cron = "0 * * * *"\ncatch_up = "all"')
    app.tick("2026-03-01T10:00Z")
    conn.execute("update tick.schedules set paused = true")
    app.tick("2026-03-01T12:00Z")
    conn.execute("update tick.schedules set paused = false")
    app.tick("2026-03-01T13:00Z")
    assert windows(conn) == ["01 13:00"]
    assert skips(conn) == [("01 11:00", "01 12:00", 2, "paused")]


def test_a_spread_delays_the_run_and_not_the_window(conn, deploy):
    app = deploy('cron = "0 * * * *"\nspread = "30m"')
    app.tick("2026-03-01T10:00Z")
    app.tick("2026-03-01T11:00Z")
    row = conn.execute('select "window", run_at - "window", status from tick.jobs').fetchone()
    assert row[0] == datetime(2026, 3, 1, 11, tzinfo=UTC)
    assert 0 < row[1].total_seconds() < 1800
    assert row[2] == "pending"


def test_what_the_file_says_of_its_jobs_is_on_the_job(conn, deploy, settings):
    @public.job
    def greet(name: str) -> None:
        raise ValueError

    text = (
        '[schedules.hello]\ntype = "greet"\nevery = "1h"\npayload = { name = "Ada" }\n'
        'max_attempts = 2\ntimeout = "7s"\npriority = 9\nkey = "k"\n'
    )
    app = Deployment(conn, settings, text)
    app.tick("2026-03-01T10:30Z")
    app.tick("2026-03-01T11:00Z")
    row = job(conn, 1)
    assert (row["type"], row["payload"], row["max_attempts"], row["priority"], row["key"], row["failures"]) == (
        "greet", {"name": "Ada"}, 2, 9, "k", 1)  # fmt: skip
    assert row["timeout"].total_seconds() == 7


class TestEdits:
    def test_an_edit_does_not_back_fill(self, conn, deploy):
        deploy('cron = "0 12 * * *"').tick("2026-03-01T10:00Z")
        deploy('cron = "0 9 * * *"').tick("2026-03-01T11:00Z")
        assert windows(conn) == []
        deploy('cron = "0 9 * * *"').tick("2026-03-02T09:00Z")
        assert windows(conn) == ["02 09:00"]

    def test_an_edit_that_is_taken_back_the_next_day_does_not_back_fill(self, conn, deploy):
        eight, nine = 'cron = "0 8 * * *"', 'cron = "0 9 * * *"'
        for rule, at in (
            (eight, "01T07:00"),
            (eight, "01T08:00"),
            (nine, "01T10:00"),
            (nine, "02T09:00"),
            (eight, "02T12:00"),
        ):
            deploy(rule).tick(f"2026-03-{at}Z")
        assert windows(conn) == ["01 08:00", "02 09:00"]
        deploy(eight).tick("2026-03-03T08:00Z")
        assert windows(conn) == ["01 08:00", "02 09:00", "03 08:00"]

    def test_a_schedule_that_was_removed_and_comes_back_does_not_back_fill(self, conn, deploy):
        app = deploy('cron = "0 * * * *"\ncatch_up = "all"')
        app.tick("2026-03-01T10:00Z")
        with_it = app.path.read_text()
        for hour in range(11, 20):
            app.write("")
            app.tick(f"2026-03-01T{hour}:00Z")
        app.write(with_it)
        app.tick("2026-03-01T20:30Z")
        assert windows(conn) == []
        app.tick("2026-03-01T21:00Z")
        assert windows(conn) == ["01 21:00"]

    def test_a_changed_payload_changes_the_next_window_and_loses_none(self, conn, settings):
        @public.job
        def say(word: str) -> None: ...

        app = Deployment(conn, settings, '[schedules.say]\nevery = "1h"\npayload = { word = "a" }\n')
        app.tick("2026-03-01T10:30Z")
        app.write('[schedules.say]\nevery = "1h"\npayload = { word = "b" }\n')
        app.tick("2026-03-01T11:00Z")
        assert job(conn, 1)["payload"] == {"word": "b"}

    @pytest.mark.parametrize(
        ("one", "other"), [("*/3 * * * *", "*/4 * * * *"), ("*/5 * * * *", "*/5 * * * *"), ("7 * * * *", "8 * * * *")]
    )
    def test_two_deployments_that_tick_in_turn_neither_lose_nor_double_a_window(self, conn, deploy, one, other):
        apps = [
            deploy(f'cron = "{rule}"\ncatch_up = "all"\ndescription = "{n}"', f"{n}.toml")
            for n, rule in enumerate((one, other))
        ]
        start = "2026-03-01T10:00Z"
        for app in apps:
            app.tick(start)
        for n, minute in enumerate(range(5, 125, 5)):
            apps[n % 2].tick(f"2026-03-01T{10 + minute // 60}:{minute % 60:02}Z")
        for app in apps:
            app.tick("2026-03-01T12:00Z")
        expected = {
            f"{w:%d %H:%M}"
            for rule in (one, other)
            for w in public.windows(
                rule, after=datetime(2026, 3, 1, 10, tzinfo=UTC), until=datetime(2026, 3, 1, 12, tzinfo=UTC)
            )
        }
        assert windows(conn) == sorted(expected)


def test_ticks_at_the_same_instant_make_each_window_once(conn, settings):
    names = [f"s{n}" for n in range(40)]
    text = "".join(f'[schedules.{name}]\ntype = "work"\nevery = "1h"\ncatch_up = "all"\n' for name in names)
    app = Deployment(conn, settings, text)
    app.tick("2026-03-01T10:30Z")
    move_clock(conn, "2026-03-01T14:30Z")
    with ThreadPoolExecutor(6) as pool:
        reports = list(pool.map(lambda _: tick(settings), range(6)))
    assert sum(report.materialised for report in reports) == 160
    assert statuses(conn) == {"done": 160}


@pytest.fixture
def evaluations(monkeypatch) -> list[str]:
    """The names of the schedules that were evaluated."""
    seen: list[str] = []
    due = schedules.due

    def counted(schedule, *args, **options):
        seen.append(schedule.name)
        return due(schedule, *args, **options)

    monkeypatch.setattr(schedules, "due", counted)
    return seen


def test_a_tick_evaluates_the_ten_schedules_that_are_due_and_not_ten_thousand(conn, settings, evaluations, monkeypatch):
    lines = [f'[schedules.s{n}]\ntype = "work"\ncron = "0 {"11" if n < 10 else "23"} * * *"\n' for n in range(10_000)]
    app = Deployment(conn, settings, "".join(lines))
    app.tick("2026-03-01T10:30Z", budget=50)
    assert len(evaluations) == 10_000
    evaluations.clear()
    monkeypatch.setattr(schedules_file, "read", None)
    report = app.tick("2026-03-01T11:00Z")
    assert report.materialised == 10
    assert sorted(evaluations) == [f"s{n}" for n in range(10)]


def test_a_long_outage_of_many_schedules_is_made_good_exchange_by_exchange(conn, settings, monkeypatch):
    monkeypatch.setattr("tick.materialise.MOST_WINDOWS", 100)
    names = [f"s{n}" for n in range(12)]
    text = "".join(f'[schedules.{name}]\ntype = "work"\nevery = "1m"\ncatch_up = "all"\n' for name in names)
    app = Deployment(conn, settings, text)
    app.tick("2026-03-01T10:00Z")
    report = app.tick("2026-03-01T11:00Z")
    assert report.materialised == 12 * 60
    assert statuses(conn) == {"done": 12 * 60}
