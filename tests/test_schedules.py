"""schedules.toml: what it may say, how it says no, and which windows are due."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tick import schedules, schedules_file
from tick.backoff import parse_duration
from tick.cron import Cron
from tick.errors import ConfigurationError, CronError, SchedulesFileError
from tick.limits import Limit, Rate
from tick.retention import Policy
from tick.schedules import Due, Schedule, Skip, due, spread_offset
from tick.schedules_file import load, parse

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "schedules.md"
SCHEMA = ROOT / "tick" / "schedules.schema.json"
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

stable = settings(derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def only(text: str) -> Schedule:
    """The one schedule of a text that leaves out the header."""
    (schedule,) = parse(f"[schedules.weekly-report]\n{text}")
    return schedule


def problems(text: str) -> list[str]:
    with pytest.raises(SchedulesFileError) as caught:
        parse(text)
    return caught.value.problems


NOW = utc("2026-07-01T12:00")


# --- Durations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("1h30m", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1d2h3m4s", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        (30, timedelta(seconds=30)),
        ("3650d", timedelta(days=3650)),
    ],
)
def test_a_duration(value: str | int, duration: timedelta) -> None:
    assert parse_duration(value) == duration


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0s",
        "5",
        "-5m",
        "5 m",
        "5min",
        "1m1h",
        "1.5h",
        "m",
        "5M",
        0,
        -1,
        1.5,
        True,
        None,
        "9" * 99,
    ]
    + ["3651d", "999999999d", [5], {"m": 5}, "\u0665m"],
)
def test_what_is_not_a_duration_is_told_what_is(value: Any) -> None:
    with pytest.raises(ConfigurationError, match='is not a duration: write "90s", "10m", "1h30m"'):
        parse_duration(value)


# --- Reading -------------------------------------------------------------------------------------


def test_an_empty_file_has_no_schedules() -> None:
    assert parse("") == parse("# nothing yet\n") == parse("[defaults]\n") == ()


def test_a_schedule_with_only_a_cron_has_the_defaults() -> None:
    assert only('cron = "0 8  * * mon"') == Schedule(name="weekly-report", type="weekly_report", cron="0 8 * * mon")


def test_every_key_is_read() -> None:
    schedule = only("""
        every = "10m"
        type = "report.weekly"
        timezone = "Europe/Paris"
        payload = { audience = "team", ids = [1, 2], on = 2026-01-31, at = 09:00:00, deep = { x = true } }
        catch_up = "all"
        max_catch_up = 50
        overlap = "skip"
        spread = "5m"
        enabled = false
        starts = 2026-01-31
        ends = 2026-12-31T09:00:00Z
        max_attempts = 5
        timeout = 30
        priority = -10
        key = "reports"
        description = "Every team's week"
    """)
    assert schedule == Schedule(
        name="weekly-report",
        type="report.weekly",
        every=10 * MINUTE,
        timezone="Europe/Paris",
        payload={
            "audience": "team",
            "ids": [1, 2],
            "on": "2026-01-31",
            "at": "09:00:00",
            "deep": {"x": True},
        },
        catch_up="all",
        max_catch_up=50,
        overlap="skip",
        spread=5 * MINUTE,
        enabled=False,
        starts=utc("2026-01-30T23:00"),
        ends=utc("2026-12-31T09:00"),
        max_attempts=5,
        timeout=timedelta(seconds=30),
        priority=-10,
        key="reports",
        description="Every team's week",
    )


def test_defaults_are_for_those_that_have_no_value_of_their_own() -> None:
    one, other = parse("""
        [defaults]
        timezone = "Europe/Paris"
        catch_up = "none"
        starts = 2026-01-01
        [schedules.one]
        cron = "@daily"
        [schedules.other]
        cron = "@daily"
        timezone = "Asia/Tokyo"
        catch_up = "all"
    """)
    assert (one.timezone, one.catch_up, one.starts) == (
        "Europe/Paris",
        "none",
        utc("2025-12-31T23:00"),
    )
    assert (other.timezone, other.catch_up, other.starts) == (
        "Asia/Tokyo",
        "all",
        utc("2025-12-31T15:00"),
    )


def test_a_schedule_without_a_rule_must_be_disabled() -> None:
    assert only("enabled = false").cron is None


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    text = '[schedules.x]\ncron = "@daily"\ndescription = "caf\u00e9"\n'
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "schedules.toml").write_text(text, encoding=encoding)
        assert load(tmp_path / "schedules.toml") == parse(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    (tmp_path / "big.toml").write_bytes(b"#" * (schedules_file.MOST_BYTES + 1))
    expected = {
        "none.toml": "No such file",
        "latin.toml": "not UTF-8 at byte 5",
        "big.toml": "bytes",
    }
    for name, told in expected.items():
        with pytest.raises(SchedulesFileError, match=told) as caught:
            load(tmp_path / name)
        assert caught.value.source == str(tmp_path / name)


REAL = json.loads((Path(__file__).parent / "data" / "real_schedules.json").read_text())


@pytest.mark.parametrize("project", REAL, ids=lambda project: project["project"])
def test_the_crons_of_real_projects_make_a_file(project: dict[str, Any]) -> None:
    """An expression that has no five fields ("every 10 minutes") is written as its refusal says."""
    text = "\n".join(
        f"[schedules.job-{number}]\n{rule_of(each)}\ntimezone = {json.dumps(each['timezone'])}"
        for number, each in enumerate(project["crons"])
    )
    loaded = parse(text)
    assert len(loaded) == project["count"]
    assert all(due(schedule, NOW, NOW).next_window for schedule in loaded)


def rule_of(real: dict[str, Any]) -> str:
    if real["cron"]:
        return f"cron = {json.dumps(real['cron'])}"
    with pytest.raises(CronError) as caught:
        Cron.parse(real["as_written"])
    (instead,) = re.findall(r"`([^`]+)`", caught.value.hint or "")
    return str(instead) if "every" in instead else f"cron = {json.dumps(instead)}"


def test_ten_thousand_schedules_are_read() -> None:
    text = "\n".join(
        f'[schedules.job-{i}]\ncron = "{i % 60} {i // 60 % 24} * * *"\npayload = {{ n = {i} }}' for i in range(10_000)
    )
    assert len(parse(text)) == 10_000


# --- Refusing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('catch_up = "lates"', '.catch_up: "lates" is not one of "latest", "all", "none"; did you mean "latest"?'),
        ("catch_up = 1", '.catch_up: 1 is not one of "latest", "all", "none"'),
        ('overlap = "queue"', '.overlap: "queue" is not one of "allow", "skip"'),
        ('timezone = "Europe/Pari"', '.timezone: "Europe/Pari" is not a known time zone; did you mean "Europe/Paris"'),
        ("timezone = 2", ".timezone: 2 is not a text in quotes"),
        ('priority = "high"', '.priority: "high" is not a whole number'),
        ("priority = true", ".priority: true is not a whole number"),
        ("priority = 1.0", ".priority: 1.0 is not a whole number"),
        ("priority = 32768", ".priority: 32768 is not within -32,768 to 32,767"),
        ("max_attempts = 0", ".max_attempts: 0 is not within 1 to 100"),
        ("max_attempts = 101", ".max_attempts: 101 is not within 1 to 100"),
        ("max_catch_up = 0", ".max_catch_up: 0 is not within 1 to 10,000"),
        ('timeout = "25h"', '.timeout: "25h" is more than 1 day'),
        ("timeout = 0", ".timeout: 0 is not a duration"),
        ("timeout = true", ".timeout: true is not a duration"),
        ('spread = "5min"', '.spread: "5min" is not a duration'),
        ('spread = "2d"', '.spread: "2d" is more than 1 day'),
        ('enabled = "yes"', '.enabled: "yes" is not true or false'),
        ("enabled = 1", ".enabled: 1 is not true or false"),
        ('starts = "2026-01-01"', '.starts: "2026-01-01" is not a date'),
        ("starts = 09:00:00", ".starts: 09:00:00 is not a date"),
        ("ends = 9999-01-01", ".ends: 9999-01-01 is not within the years"),
        ("starts = 2026-01-02\nends = 2026-01-01", ".ends: it is not after starts"),
        ("starts = 2026-01-01\nends = 2026-01-01T00:00:00Z", ".ends: it is not after starts"),
        ('key = ""', ".key: it is empty; leave the key out"),
        (f'key = "{"k" * 501}"', ".key: it has 501 bytes, and 500 is the most"),
        ('key = "a\\u0000"', ".key: it has a NUL character"),
        ("key = 5", ".key: 5 is not a text in quotes"),
        ("description = 5", ".description: 5 is not a text"),
        ('type = "9lives"', '.type: "9lives" cannot be a type'),
        ("type = 5", ".type: 5 cannot be a type"),
        ('payload = "x"', '.payload: "x" is not a table'),
        ("payload = [1]", ".payload: a list is not a table"),
        ("payload = { a = [1, { b = nan }] }", ".payload: a[1].b is nan, which JSON does not have"),
        ("payload = { a = -inf }", ".payload: a is -inf"),
        ("payload = { a = 9223372036854775808 }", ".payload: a does not fit 64 bits"),
        ('payload = { a = { b = "\\u0000" } }', ".payload: a.b has a NUL character"),
        (f'payload = {{ a = "{"x" * 65_600}" }}', ".payload: it has 65,608 bytes as JSON, and 65,536 is the most"),
        (f"payload = {{ a = {'[' * 40}{']' * 40} }}", ".payload: it is nested deeper than 32 levels"),
        ("crom = 5", '.crom: unknown key; did you mean "cron"?'),
        ('tz = "UTC"', '.tz: unknown key; did you mean "timezone"?'),
        ("retries = 5", '.retries: unknown key; did you mean "max_attempts"?'),
        ("qqq = 5", ".qqq: unknown key; the keys are cron, every, type"),
        ("sub.x = 5", ".sub: unknown key"),
        ('every = "10m"', ": cron and every are both given; keep one"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_path(text: str, problem: str) -> None:
    (found,) = problems(f'[schedules.weekly-report]\ncron = "@daily"\n{text}')
    assert found.startswith(f"schedules.weekly-report{problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[schedule.x]", 'schedule: unknown table; did you mean "schedules"?'),
        ("[default]", 'default: unknown table; did you mean "defaults"?'),
        ('[digest]\ncron = "@daily"', "digest: unknown table; did you mean [schedules.digest]?"),
        ("version = 1", "version: unknown key; a file has [defaults], [limits.TYPE], [alerts], [retention] and [schedules.NAME]"),
        ("schedules = 5", "schedules: each schedule is a table of its own, [schedules.NAME]"),
        ("[[schedules]]", "schedules: each schedule is a table of its own, [schedules.NAME]"),
        ("defaults = 5", "defaults: 5 is not a table"),
        ('[schedules]\nx = "@daily"', 'schedules.x: "@daily" is not a table'),
        ("[defaults]\ncron = 5", "defaults.cron: belongs to a schedule, not to [defaults]"),
        ("[defaults]\npayload = {}", "defaults.payload: belongs to a schedule, not to [defaults]"),
        ('[defaults]\ntimezon = "UTC"', 'defaults.timezon: unknown key; did you mean "timezone"?'),
        ("[schedules.x]", "schedules.x: it has neither cron nor every; write one, or enabled = false"),
        ('[schedules."a b"]\ncron = "@daily"', 'schedules."a b": a name is a letter or digit'),
        ('[schedules."\u00e9"]\ncron = "@daily"\ntype = "x"', 'schedules."\\u00e9": a name is'),
        (f'[schedules.{"x" * 101}]\ncron = "@daily"\ntype = "x"', 'schedules."xxxx'),
        ('[schedules.2fa]\ncron = "@daily"', 'schedules.2fa.type: the name makes "2fa"'),
        ('[schedules."a.b"]\ncron = "1 2"', 'schedules."a.b".cron: "1 2": it has 2 fields'),
        ('[schedules.x]\ncron = "0 0 31 2 *"', 'schedules.x.cron: "0 0 31 2 *": day-of-month `31` never'),
        ('[schedules.x]\ncron = ["@daily"]', "schedules.x.cron: A cron expression is a text"),
        ("[schedules.x]\nevery = -5", "schedules.x.every: -5 is not a duration"),
        ('[schedules.x]\nevery = "5m"\nspread = "5m"', "schedules.x.spread: it is not shorter than every"),
        ("[schedules.x\n", "line 1, column 13: "),
        ("a = 1\na = 2\n", "line 2, column 6: Cannot overwrite a value"),
        ("a = " + "[" * 100_000, "it is nested too deeply"),
        ("a = " + "9" * 5_000, "Exceeds the limit"),
        ("#" * (schedules_file.MOST_BYTES + 1), "it has more than 4,194,304 bytes"),
        ("\n".join(f"[schedules.s{i}]" for i in range(20_001)), "schedules: there are 20,001, and 20,000"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_where(text: str, problem: str) -> None:
    assert problems(text)[0].startswith(problem)


def test_all_problems_are_told_in_one_go() -> None:
    with pytest.raises(SchedulesFileError) as caught:
        parse(
            """
            [defaults]
            timezone = "Paris"
            [schedules.one]
            cron = "5/15 * * * *"
            catch_up = "lates"
            [schedules.two]
            every = "5m"
            cron = "* * * * *"
            priority = "high"
            """,
            "jobs/schedules.toml",
        )
    assert str(caught.value).splitlines() == [
        "jobs/schedules.toml: 5 problems",
        '  defaults.timezone: "Paris" is not a known time zone; did you mean "Europe/Paris"?',
        '  schedules.one.cron: "5/15 * * * *": minute `5/15` is a step without a range. Write `5-59/15 * * * *`.',
        '  schedules.one.catch_up: "lates" is not one of "latest", "all", "none"; did you mean "latest"?',
        '  schedules.two.priority: "high" is not a whole number',
        "  schedules.two: cron and every are both given; keep one",
    ]


tomls = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates(), st.times()),
    lambda each: st.one_of(st.lists(each, max_size=3), st.dictionaries(st.text(max_size=5), each, max_size=3)),
    max_leaves=8,
)  # fmt: skip


@settings(stable, max_examples=300)
@given(st.dictionaries(st.sampled_from([key.name for key in schedules_file.KEYS]), tomls, max_size=6))
def test_whatever_a_table_holds_is_read_or_told(table: dict[str, Any]) -> None:
    found: list[str] = []
    schedule = schedules_file._schedule("x", table, {}, found)
    assert found or Schedule.from_body("x", json.loads(json.dumps(schedule.body()))) == schedule
    assert all(problem.startswith("schedules.x") for problem in found)


# --- Warnings ------------------------------------------------------------------------------------


def test_warnings_name_their_schedule() -> None:
    loaded = parse("""
        [schedules.fine]
        cron = "0 8 * * mon"
        [schedules.hourly]
        every = "1h"
        [schedules.thirteenth]
        cron = "0 8 13 * fri"
    """)
    (warning,) = schedules.warnings(loaded)
    assert warning.startswith("thirteenth: it has a day-of-month `13` and a day-of-week `fri`")


def test_a_time_that_a_coming_night_skips_is_warned_of() -> None:
    nightly = only('cron = "30 2 * * *"\ntimezone = "Europe/Paris"')
    (warning,) = schedules.warnings([nightly], now=utc("2026-01-01T00:00"))
    assert warning == (
        "weekly-report: `30 2 * * *` names a local time that Europe/Paris skips on 2026-03-29:"
        " that day it fires at 03:00"
    )


# --- In the database -----------------------------------------------------------------------------


def test_a_body_is_json_and_brings_the_schedule_back() -> None:
    for schedule in (
        Schedule("a", "a", cron="@daily"),
        Schedule("b", "b", every=HOUR, spread=MINUTE, timeout=MINUTE, payload={"x": [1, None]}),
        Schedule("c", "c", enabled=False, starts=NOW, ends=NOW + DAY, key="k", description="d"),
    ):
        stored = json.loads(json.dumps(schedule.body()))
        assert Schedule.from_body(schedule.name, stored) == schedule
        assert "name" not in stored


def test_a_body_of_another_version_is_read() -> None:
    assert Schedule.from_body("a", {"type": "a", "cron": "@daily", "colour": "red"}) == Schedule(
        "a", "a", cron="@daily"
    )


@pytest.mark.parametrize(
    "change",
    [
        'cron = "0 9 * * *"',
        "every = 60",
        'type = "other"',
        'timezone = "Asia/Tokyo"',
        "starts = 2026-01-01",
        "ends = 2030-01-01",
    ],
)
def test_the_timing_hash_changes_with_when_and_what(change: str) -> None:
    rule = "" if change.startswith(("cron", "every")) else 'cron = "0 8 * * *"'
    assert only(f"{rule}\n{change}").timing_hash() != only('cron = "0 8 * * *"').timing_hash()


@pytest.mark.parametrize(
    "change",
    [
        "payload = { x = 1 }",
        "priority = 1",
        'catch_up = "all"',
        'description = "x"',
        "enabled = false",
    ],
)
def test_the_timing_hash_does_not_change_with_the_rest(change: str) -> None:
    before = only('cron = "0  8 * *  *"')
    assert only(f'cron = "0 8 * * *"\n{change}').timing_hash() == before.timing_hash()


def test_the_timing_hash_is_the_same_in_every_release() -> None:
    """A hash that changed would make every schedule of every user a new one."""
    schedule = Schedule("a", "a", cron="0 8 * * mon", timezone="Europe/Paris", starts=NOW)
    assert schedule.timing_hash() == "73b25dbc535cce2f2642bd66714206e0"


# --- Due -----------------------------------------------------------------------------------------

HOURLY = Schedule("hourly", "hourly", cron="0 * * * *")


def with_(schedule: Schedule, **changes: Any) -> Schedule:
    return Schedule.from_body(schedule.name, {**schedule.body(), **changes})


def hours(first: str, last: str) -> tuple[datetime, ...]:
    start, end = utc(f"2026-07-01T{first}"), utc(f"2026-07-01T{last}")
    return tuple(start + number * HOUR for number in range((end - start) // HOUR + 1))


def skipped(first: str, last: str, reason: str) -> tuple[Skip, ...]:
    windows = hours(first, last)
    return (Skip(windows[0], windows[-1], len(windows), reason),)


def test_nothing_is_due_between_two_windows() -> None:
    after, now = utc("2026-07-01T10:00"), utc("2026-07-01T10:59")
    assert due(HOURLY, after, now) == Due((), (), after, utc("2026-07-01T11:00"))


def test_the_window_that_has_come_is_due() -> None:
    after, now = utc("2026-07-01T10:00"), utc("2026-07-01T11:00")
    assert due(HOURLY, after, now) == Due((now,), (), now, utc("2026-07-01T12:00"))


def test_a_clock_that_went_back_makes_nothing_again() -> None:
    after, now = utc("2026-07-01T10:00"), utc("2026-07-01T08:30")
    assert due(HOURLY, after, now) == Due((), (), after, utc("2026-07-01T11:00"))


@pytest.mark.parametrize(
    ("changes", "at", "made", "skips"),
    [
        ({}, "12:00", hours("12:00", "12:00"), skipped("09:00", "11:00", "late")),
        ({}, "12:59", hours("12:00", "12:00"), skipped("09:00", "11:00", "late")),
        ({}, "09:30", hours("09:00", "09:00"), ()),
        ({"catch_up": "all"}, "12:30", hours("09:00", "12:00"), ()),
        (
            {"catch_up": "all", "max_catch_up": 2},
            "12:30",
            hours("11:00", "12:00"),
            skipped("09:00", "10:00", "cap"),
        ),
        (
            {"catch_up": "none"},
            "12:10",
            hours("12:00", "12:00"),
            skipped("09:00", "11:00", "late"),
        ),
        ({"catch_up": "none"}, "12:11", (), skipped("09:00", "12:00", "late")),
        ({"catch_up": "none"}, "09:05", hours("09:00", "09:00"), ()),
        ({"enabled": False}, "12:00", (), skipped("09:00", "12:00", "disabled")),
        (
            {"enabled": False, "catch_up": "all"},
            "12:00",
            (),
            skipped("09:00", "12:00", "disabled"),
        ),
    ],
)
def test_after_an_outage(changes: dict[str, Any], at: str, made: tuple[datetime, ...], skips: tuple[Skip, ...]) -> None:
    now = utc(f"2026-07-01T{at}")
    found = due(with_(HOURLY, **changes), utc("2026-07-01T08:00"), now)
    last = now.replace(minute=0)
    assert found == Due(made, skips, last, last + HOUR)


def test_a_paused_schedule_skips_its_windows_and_goes_on() -> None:
    found = due(HOURLY, utc("2026-07-01T08:00"), utc("2026-07-01T10:30"), paused=True)
    assert found.windows == ()
    assert found.skips == skipped("09:00", "10:00", "paused")
    assert found.until == utc("2026-07-01T10:00")


def test_a_year_of_minutes_is_skipped_without_being_counted() -> None:
    minutely = Schedule("m", "m", cron="* * * * *")
    found = due(minutely, NOW - 365 * DAY, NOW)
    assert found.windows == (NOW,)
    assert found.skips == (Skip(NOW - 365 * DAY + MINUTE, NOW - MINUTE, None, "late"),)


@pytest.mark.parametrize(("minutes", "count"), [(10_001, 10_000), (10_002, None)])
def test_skips_are_counted_up_to_ten_thousand(minutes: int, count: int | None) -> None:
    for rule in ({"cron": "* * * * *"}, {"every": MINUTE}):
        found = due(Schedule("m", "m", **rule), NOW - minutes * MINUTE, NOW)  # type: ignore[arg-type]
        (skip,) = found.skips
        assert (skip.count, skip.first) == (count, NOW - (minutes - 1) * MINUTE)


def test_the_cap_leaves_the_oldest_out_however_many_they_are() -> None:
    minutely = Schedule("m", "m", every=MINUTE, catch_up="all", max_catch_up=1000)
    found = due(minutely, NOW - 365 * DAY, NOW)
    assert len(found.windows) == 1000
    assert found.windows[-1] == NOW == found.until
    assert found.skips[0].last == found.windows[0] - MINUTE
    assert found.skips[0].reason == "cap"


def test_windows_begin_with_starts_and_end_before_ends() -> None:
    bounded = with_(HOURLY, catch_up="all", starts="2026-07-01T09:00:00+00:00", ends="2026-07-01T11:00:00+00:00")
    found = due(bounded, utc("2026-06-01T00:00"), utc("2026-07-02T00:00"))
    assert found == Due(hours("09:00", "10:00"), (), utc("2026-07-01T10:00"), None)
    before = due(bounded, utc("2026-06-01T00:00"), utc("2026-06-02T00:00"))
    assert before == Due((), (), utc("2026-06-01T00:00"), utc("2026-07-01T09:00"))
    assert due(bounded, NOW, NOW).next_window is None


def test_a_period_counts_from_the_epoch() -> None:
    schedule = Schedule("p", "p", every=timedelta(hours=7), catch_up="all")
    found = due(schedule, NOW, NOW + 2 * DAY)
    assert all(window.timestamp() % (7 * 3600) == 0 for window in found.windows)
    assert len(found.windows) == 7
    assert found.next_window == found.windows[-1] + 7 * HOUR


def test_a_period_counts_from_starts_which_is_its_first_window() -> None:
    starts = utc("2026-07-01T09:17")
    schedule = Schedule("p", "p", every=HOUR, starts=starts, catch_up="all")
    assert due(schedule, NOW - 30 * DAY, NOW).windows == tuple(starts + n * HOUR for n in range(3))
    assert due(schedule, NOW - 30 * DAY, NOW - 20 * DAY).next_window == starts


def test_a_schedule_without_a_rule_has_no_windows() -> None:
    manual = Schedule("m", "m", enabled=False)
    assert due(manual, NOW - 365 * DAY, NOW) == Due((), (), NOW - 365 * DAY, None)


def test_local_time_is_the_schedules_zone() -> None:
    schedule = Schedule("d", "d", cron="0 8 * * *", timezone="Europe/Paris")
    assert due(schedule, NOW - DAY, NOW).windows == (utc("2026-07-01T06:00"),)


rules = st.one_of(
    st.sampled_from(["* * * * *", "*/7 * * * *", "0 8 * * *", "30 2 * * *"]).map(
        lambda cron: {"cron": cron, "timezone": "Europe/Paris"}
    ),
    st.integers(1, 100_000).map(lambda seconds: {"every": timedelta(seconds=seconds)}),
)


@settings(stable, max_examples=150)
@given(
    rules,
    st.sampled_from(["latest", "all", "none"]),
    st.lists(st.integers(0, 40_000), min_size=1, max_size=6),
    st.booleans(),
)
def test_ticks_at_any_times_make_or_skip_every_window_once(
    rule: dict[str, Any], catch_up: str, waits: list[int], enabled: bool
) -> None:
    """Whatever the ticks' times, made and skipped windows together are the windows of the whole time."""
    schedule = Schedule("x", "x", catch_up=catch_up, max_catch_up=5, enabled=enabled, **rule)
    everything = Schedule("x", "x", catch_up="all", max_catch_up=10**6, **rule)
    start = cursor = now = utc("2026-03-28T20:00")
    made, skipped_count = [], 0
    for wait in waits:
        now += timedelta(seconds=wait)
        found = due(schedule, cursor, now)
        assert found.next_window is not None
        assert found.next_window > now >= found.until >= cursor
        made += found.windows
        skipped_count += sum(skip.count or 0 for skip in found.skips)
        cursor = found.until
    expected = due(everything, start, now).windows
    assert set(made) <= set(expected)
    assert made == sorted(set(made))
    assert len(made) + skipped_count == len(expected) or len(expected) > schedules.MOST_COUNTED


# --- Spread --------------------------------------------------------------------------------------


def test_a_spread_is_stable_and_below_its_width() -> None:
    offsets = [spread_offset(Schedule(f"job-{n}", "x", every=HOUR, spread=5 * MINUTE)) for n in range(300)]
    assert all(timedelta() <= offset < 5 * MINUTE for offset in offsets)
    assert all(offset.microseconds == 0 for offset in offsets)
    assert len(set(offsets)) > 150
    assert spread_offset(Schedule("job-7", "other", cron="@daily", spread=5 * MINUTE)) == offsets[7]
    assert offsets[7] == timedelta(seconds=6)


def test_without_a_spread_there_is_no_offset() -> None:
    assert spread_offset(HOURLY) == timedelta()


# --- Schema and guide ----------------------------------------------------------------------------


def test_the_committed_schema_is_the_generated_one() -> None:
    """To write it anew: tick schedules --json-schema > tick/schedules.schema.json"""
    assert json.loads(SCHEMA.read_text()) == schedules_file.json_schema()


def validates(document: dict[str, Any]) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft7Validator(schedules_file.json_schema())
    return bool(validator.is_valid(json.loads(json.dumps(document, default=date_text))))


def date_text(value: date | time) -> str:
    return value.isoformat()


def test_the_schema_is_a_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft7Validator.check_schema(schedules_file.json_schema())


def guide_examples() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", guide_examples())
def test_an_example_of_the_guide_is_read_and_fits_the_schema(example: str) -> None:
    assert parse(example) or "[defaults]" in example
    assert validates(tomllib.loads(example))


@pytest.mark.parametrize(
    "text",
    [
        "[schedules.x]\ncrom = 5",
        '[schedules.x]\ncron = "@daily"\nevery = "5m"',
        '[schedules.x]\nevery = "5min"',
        '[schedules.x]\nevery = ""',
        '[schedules.x]\ncatch_up = "lates"',
        "[schedules.x]\npriority = 99999",
        '[schedules."a b"]\ncron = "@daily"',
        '[defaults]\ncron = "@daily"',
        "[schedule.x]",
    ],
)
def test_the_schema_refuses_what_reading_refuses(text: str) -> None:
    assert problems(text)
    assert not validates(tomllib.loads(text))


def test_the_guide_has_the_table_of_the_keys() -> None:
    assert schedules_file.key_table() in GUIDE.read_text()


def test_the_guide_says_which_keys_defaults_may_have() -> None:
    inherited = ", ".join(f"`{key.name}`" for key in schedules_file.KEYS if key.inherited)
    assert inherited in " ".join(GUIDE.read_text().split())


def refusals_of_the_guide() -> list[tuple[str, str]]:
    (_, section) = GUIDE.read_text().split("## What is refused")
    return re.findall(r"^\| `([^`]+)` \| .+ \| `([^`]+)`.* \|$", section, re.MULTILINE)


def test_every_refusal_of_the_guide_is_one_and_offers_what_the_guide_says() -> None:
    assert len(refusals_of_the_guide()) == 19
    for cron, instead in refusals_of_the_guide():
        with pytest.raises(CronError) as caught:
            Cron.parse(cron)
        assert f"`{instead}`" in (caught.value.hint or "")


def test_importing_schedules_is_light() -> None:
    source = Path(schedules.__file__).read_text()
    assert not re.search(r"^(from|import) (tomllib|croniter|jsonschema)", source, re.MULTILINE)


# --- Limits --------------------------------------------------------------------------------------


def limits(text: str) -> list[Limit]:
    return list(schedules_file.contents(text).limits)


def test_a_limit_of_a_type_and_one_of_keys() -> None:
    assert limits("""
        [limits.send_email]
        concurrency = 5
        rate = "100/minute"
        [limits."customer:*"]
        rate_per_key = "5/10s"
    """) == [
        Limit(type="send_email", concurrency=5, rate=Rate(100, 60)),
        Limit(key_prefix="customer:", rate_per_key=Rate(5, 10)),
    ]


def test_a_file_may_have_limits_only_and_a_schedule_beside_them_is_read_as_ever() -> None:
    text = '[limits.a]\nconcurrency = 1\n[schedules.a]\ncron = "@daily"'
    assert [schedule.name for schedule in parse(text)] == ["a"]
    assert parse("[limits.a]\nconcurrency = 1") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limits = 5", "limits: each limit is a table of its own, [limits.TYPE]"),
        ("[limits]\na = 5", "limits.a: 5 is not a table"),
        ("[limits.a]", "limits.a: it limits nothing; write concurrency, rate or rate_per_key"),
        ('[limits."k:*"]', 'limits."k:*": it limits nothing; write concurrency, rate or rate_per_key'),
        ("[limits.a]\nconcurency = 5", 'limits.a.concurency: unknown key; did you mean "concurrency"?'),
        ("[limits.a]\ntimeout = 5", "limits.a.timeout: belongs to a schedule, not to [limits]"),
        ("[limits.a]\nconcurrency = 0", "limits.a.concurrency: 0 is not within 1 to 1,000,000"),
        ("[limits.a]\nconcurrency = true", "limits.a.concurrency: true is not a whole number"),
        ("[limit.a]\nconcurrency = 5", 'limit: unknown table; did you mean "limits"?'),
    ],
)
def test_a_wrong_limit_is_told_where(text: str, expected: str) -> None:
    assert problems(text) == [expected]


@pytest.mark.parametrize("name", ["*", "a b", "a*b", "", "k\\u0000*", "k" * 501 + "*"])
def test_a_limit_is_for_a_type_or_for_the_beginning_of_keys(name: str) -> None:
    (problem,) = problems(f'[limits."{name}"]\nconcurrency = 1')
    assert problem.endswith('a limit is for a type, or for keys: write their beginning and a *, "customer:*"')


@pytest.mark.parametrize("rate", ['"100"', '"0/minute"', '"5/0s"', '"5/4000d"', '"1 per second"', "5", '""'])
def test_a_rate_that_is_none_is_told_what_one_looks_like(rate: str) -> None:
    (problem,) = problems(f"[limits.a]\nrate = {rate}")
    assert problem.startswith("limits.a.rate: ")


def test_the_schema_knows_limits() -> None:
    assert validates({"limits": {"a": {"concurrency": 1, "rate": "5/10s"}, "k:*": {"rate_per_key": "100/minute"}}})
    for wrong in ({}, {"concurrency": 0}, {"rate": "fast"}, {"rates": "5/10s"}):
        assert not validates({"limits": {"a": wrong}})


def test_the_guide_has_the_table_of_the_limits() -> None:
    assert schedules_file.limit_table() in GUIDE.read_text()


# --- Alerts and retention ------------------------------------------------------------------------


def test_alerts_are_read_with_their_channels_and_rules() -> None:
    said = schedules_file.contents("""
        [alerts]
        slack = "secret:slack"
        webhook = ["https://example.com/a", "https://example.com/b", "https://example.com/a"]
        email = "ops@example.com"
        failure_rate = 1
        backlog = "1h"
        missed = false
        mute = "noisy"
    """).alerts
    assert said == {
        "slack": ("secret:slack",),
        "webhook": ("https://example.com/a", "https://example.com/b"),
        "email": ("ops@example.com",),
        "failure_rate": 1.0,
        "backlog": HOUR,
        "missed": False,
        "mute": ("noisy",),
    }


def test_retention_may_last_for_years() -> None:
    said = schedules_file.contents('[retention]\ndone = "3650d"\nidle_ticks = 3600\ncount = 5\n').retention
    assert said == {"done": 3650 * DAY, "idle_ticks": HOUR, "count": 5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alerts = 5", "alerts: 5 is not a table"),
        ('[alerts]\nslak = "secret:slack"', 'alerts.slak: unknown key; did you mean "slack"?'),
        ("[alerts]\ncron = '* * * * *'", "alerts.cron: belongs to a schedule, not to [alerts]"),
        ('[alert]\nslack = "x"', 'alert: unknown table; did you mean "alerts"?'),
        ('[alerts]\nslack = "secret:Slack"', 'alerts.slack: "secret:Slack" names no secret: write secret:slack for'),
        ('[alerts]\nslack = "hooks.slack.com/T/B/x"', "alerts.slack: it is neither a URL (http:// or https://) nor"),
        ("[alerts]\nwebhook = []", "alerts.webhook: it has 0 of them, and may have 1 to 10"),
        ("[alerts]\nwebhook = 5", "alerts.webhook: it is neither a URL"),
        ('[alerts]\nemail = "ops"', 'alerts.email: "ops" is not an address such as "ops@example.com"'),
        ('[alerts]\nemail = "a@b\\nBcc: c@d"', 'alerts.email: "a@b\\nBcc: c@d" is not an address'),
        ('[alerts]\nemail = ["a@example.com", "Ada <a@example.com>"]', "alerts.email: "),
        ("[alerts]\nfailure_rate = 50", "alerts.failure_rate: 50 is not a share above 0 and up to 1"),
        ("[alerts]\nfailure_rate = true", "alerts.failure_rate: true is not a share"),
        ("[alerts]\nbacklog = 0", "alerts.backlog: 0 is not a duration"),
        ("[alerts]\nmissed = 0", "alerts.missed: 0 is not within 1 to 100"),
        ("[alerts]\ndead = 1", "alerts.dead: 1 is not true or false"),
        ("[alerts]\nmute = 5", "alerts.mute: 5 is not a text in quotes"),
        ('[retention]\ndone = "1y"', 'retention.done: "1y" is not a duration'),
        ('[retention]\ncount = "5"', 'retention.count: "5" is not a whole number'),
        ("[retention]\ndon = 5", 'retention.don: unknown key; did you mean "done"?'),
    ],
)
def test_wrong_alerts_and_retention_are_told_where(text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(expected)


def test_the_url_of_a_channel_is_not_repeated_in_an_error() -> None:
    (problem,) = problems('[alerts]\nslack = "https//hooks.slack.com/T0/B0/verysecret"')
    assert "verysecret" not in problem


def test_the_schema_knows_alerts_and_retention() -> None:
    assert validates(
        {"alerts": {"slack": "secret:slack", "email": ["a@example.com"], "missed": False, "backlog": "5m"}}
    )
    assert validates({"retention": {"done": "30d", "count": 5}})
    for wrong in ({"slack": "x"}, {"email": []}, {"failure_rate": 2}, {"missed": True}, {"slak": "secret:slack"}):
        assert not validates({"alerts": wrong})
    for wrong in ({"done": 0}, {"count": 0}, {"forever": True}):
        assert not validates({"retention": wrong})


def test_the_guide_has_the_table_of_alerts() -> None:
    assert schedules_file.alert_table() in (ROOT / "docs" / "alerts.md").read_text()


def test_the_keys_of_retention_say_the_defaults_and_are_in_the_guide() -> None:
    defaults = Policy()
    days = {key.name: re.search(r"(\d+) days? by default", key.doc) for key in schedules_file.RETENTION_KEYS}
    assert {name: int(found[1]) * 86_400 for name, found in days.items() if found} == {
        name: getattr(defaults, name) for name in ("done", "cancelled", "dead", "ticks", "idle_ticks")
    }
    counted = next(key.doc for key in schedules_file.RETENTION_KEYS if key.name == "count")
    assert f"{defaults.count:,} by default" in counted
    assert {key.name for key in schedules_file.RETENTION_KEYS} == {each.name for each in fields(Policy)}
    guide = (ROOT / "docs" / "retention.md").read_text()
    assert all(f"| `{key.name}` |" in guide for key in schedules_file.RETENTION_KEYS)
