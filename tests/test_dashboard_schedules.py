"""The dashboard's pages of schedules, over real HTTP: what they say, pause and resume, run now, and why it did not run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import tick
from tests.factories import NEVER, a_job, job, move_clock
from tests.factories import tick as run_tick
from tests.visitor import PASSWORD, visiting
from tick.config import Settings
from tick.database import statements
from tick.history import BUCKETS

pytestmark = pytest.mark.usefixtures("empty_registry")

FILE = """
[defaults]
timezone = "Europe/Paris"

[schedules.nightly-report]
description = "The figures of the day"
cron = "30 2 * * *"
payload = { audience = "team", api_token = "geheim" }

[schedules."v1.2_sync"]
every = "15m"
type = "sync"
key = "sync:all"
max_attempts = 3
timeout = "20s"
priority = 7
on_dead_url = "https://example.com/dead"

[schedules.old-import]
cron = "0 4 * * mon"
type = "sync"
enabled = false
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.schedules_path.write_text(FILE)
    return replace(settings, dashboard_password=PASSWORD, secrets=("another-long-secret",))


@pytest.fixture
def handlers(empty_registry):
    @tick.job
    def nightly_report(audience: str, api_token: str = ""): ...

    @tick.job
    def sync(): ...


@pytest.fixture
def visitor(settings, handlers):
    with visiting(settings) as visitor:
        yield visitor


@pytest.fixture
def ticked(conn, settings, handlers):
    """A tick has seen the file, at noon in Paris."""
    move_clock(conn, "2026-03-10T11:00:00Z")
    run_tick(settings)
    return conn


def test_schedules_are_listed_with_rule_windows_outcomes_and_duration(ticked, visitor, settings):
    move_clock(ticked, "2026-03-11T01:30:05Z")
    run_tick(settings)
    (nightly, old, sync) = visitor.get("/dashboard/schedules").rows
    assert nightly[0] == "nightly-report The figures of the day"
    assert nightly[1] == "At 02:30, every day (Europe/Paris) 30 2 * * *"
    assert nightly[2].endswith("Wed 2026-03-11 02:30 CET")
    assert nightly[3] == "in 23 h Thu 2026-03-12 02:30 CET"
    assert nightly[4] == "Wed 2026-03-11 02:30 CET (2026-03-11T01:30Z): done"
    assert (sync[0], sync[1]) == ("v1.2_sync", "Every 15 min")
    assert old[3] == "disabled"
    assert old[4] == "none yet"
    assert nightly[5] == "–"
    ticked.execute(
        "update tick.types set durations = %s where type = 'nightly_report'", [[0] * 20 + [99] + [0] * (BUCKETS - 21)]
    )
    assert visitor.get("/dashboard/schedules").rows[0][5] == "1 s"


def test_the_strip_shows_how_the_last_windows_ended_the_oldest_first(ticked, visitor):
    ended = ["done", "dead", "cancelled", "running", "pending", "pending"]
    ids = [
        a_job(ticked, "sync", status, schedule="v1.2_sync", window=f"2026-03-10T10:{n:02}:00Z", failures=int(n == 5))
        for n, status in enumerate(ended)
    ]
    blocks = visitor.get("/dashboard/schedules").main.all("ol")[0].all("li")
    assert [block.attributes["class"] for block in blocks] == [f"of-{kind}" for kind in (*ended[:-1], "retrying")]
    assert [block.one("a").attributes["href"] for block in blocks] == [f"/dashboard/jobs/{id}" for id in ids]
    for n in range(30):
        a_job(ticked, "sync", "done", schedule="v1.2_sync", window=f"2026-03-10T09:{n:02}:00Z")
    assert len(visitor.get("/dashboard/schedules").main.all("ol")[0].all("li")) == 20
    assert len(visitor.get("/dashboard/schedules/v1.2_sync").main.all("ol", class_="strip")[0].all("li")) == 36


def test_schedules_are_searched_by_name_type_and_description(ticked, visitor):
    for text, names in [
        ("nightly", ["nightly-report"]),
        ("FIGURES", ["nightly-report"]),
        ("sync", ["old-import", "v1.2_sync"]),
        ("v1_2", []),
        ("%", []),
    ]:
        rows = visitor.get("/dashboard/schedules", text=text).rows
        assert [row[0].split()[0] for row in rows] == names, text
    assert "No schedule matches" in visitor.get("/dashboard/schedules", text="nothing").said
    assert visitor.get("/dashboard/schedules", text="a\0b").status == 422


def test_a_page_holds_a_hundred_schedules(conn, visitor, settings):
    settings.schedules_path.write_text(
        "".join(f'[schedules.s{n:03}]\nevery = "1h"\ntype = "sync"\n' for n in range(250))
    )
    run_tick(settings)
    page, seen = visitor.get("/dashboard/schedules"), []
    for count in (100, 100, 50):
        assert len(page.rows) == count
        seen += [row[0] for row in page.rows]
        page = page.follow("More") if count == 100 else page
    assert seen == [f"s{n:03}" for n in range(250)]
    assert len(page.follow("Newest").rows) == 100
    assert len(visitor.get("/dashboard/schedules", text="s0").rows) == 100


def test_without_schedules_the_page_says_what_to_do(visitor):
    assert "Write schedules.toml" in visitor.get("/dashboard/schedules").said


def test_the_page_of_a_schedule_has_its_rule_its_windows_and_what_was_skipped_and_why(ticked, visitor, settings):
    ticked.execute(
        "insert into tick.skips (schedule, first_window, last_window, count, reason, tick_id) values"
        " ('nightly-report', '2026-03-07T01:30Z', '2026-03-09T01:30Z', 3, 'late', %(t)s),"
        " ('nightly-report', '2026-01-01T01:30Z', '2026-03-01T01:30Z', null, 'cap', %(t)s),"
        " ('nightly-report', '2026-03-05T01:30Z', '2026-03-05T01:30Z', 1, 'overlap', %(t)s)",
        {"t": NEVER},
    )
    dead = a_job(ticked, "nightly_report", "dead", schedule="nightly-report", window="2026-03-06T01:30Z", last_error="Boom: 1",
                 started_at="2026-03-06T01:30:07Z", finished_at="2026-03-06T01:31:07Z")  # fmt: skip
    page = visitor.get("/dashboard/schedules/nightly-report")
    assert "The figures of the day At 02:30, every day (Europe/Paris) 30 2 * * *" in page.said
    assert "geheim" not in page.response.text
    kinds = ["skipped", "skipped", "dead", "skipped"]
    for seen in (page, visitor.get("/dashboard/schedules")):
        blocks = seen.main.all("ol", class_="strip")[0].all("li")
        assert [block.attributes["class"] for block in blocks] == [f"of-{kind}" for kind in kinds]
        assert blocks[-1].attributes["title"].endswith(": skipped, with 2 before it")
    windows = [" ".join(item.text.split()) for item in page.main.all("ol", class_="story")[0].all("li")]
    assert windows[0].startswith(
        "3 windows from Sat 2026-03-07 02:30 CET (2026-03-07T01:30Z) to Mon 2026-03-09 02:30 CET (2026-03-09T01:30Z)"
    )
    assert "it was late" in windows[0]
    assert (
        windows[1]
        == f"Fri 2026-03-06 02:30 CET (2026-03-06T01:30Z) dead {dead} started 7 s after it, took 1 min Boom: 1"
    )
    assert "still pending or running" in windows[2]
    assert windows[3].startswith("More than 10,000 windows from")
    coming = [" ".join(item.text.split()) for item in page.main.all("ol", class_="rows")[0].all("li")]
    assert len(coming) == 10
    assert coming[0] == "Wed 2026-03-11 02:30 CET (2026-03-11T01:30Z) in 14 h"
    # The night on which the clocks change is one of the windows.
    page = visitor.get("/dashboard/schedules/v1.2_sync")
    assert "Every 15 min" in page.said
    assert "https://example.com" not in page.said


def test_windows_that_do_not_come_any_more_are_said_to_be_none(conn, visitor, settings):
    settings.schedules_path.write_text('[schedules.once]\nevery = "1h"\ntype = "sync"\nends = 2020-01-01T00:00:00Z\n')
    run_tick(settings)
    assert "There is none to come" in visitor.get("/dashboard/schedules/once").said
    assert visitor.get("/dashboard/schedules").rows[0][3] == "none"


def test_a_schedule_is_paused_and_resumed_and_its_windows_meanwhile_are_skipped(ticked, visitor, settings):
    page = visitor.get("/dashboard/schedules/nightly-report")
    assert "its windows are skipped and recorded" in page.said
    page = page.press("Pause")
    assert page.path == "/dashboard/schedules/nightly-report"
    assert "Paused just now by password" in page.said
    row = ticked.execute(
        "select paused, paused_by, paused_at = tick.now() from tick.schedules where name = 'nightly-report'"
    ).fetchone()
    assert row == (True, "password", True)
    assert visitor.get("/dashboard/schedules").rows[0][3] == "paused"
    move_clock(ticked, "2026-03-11T01:30:05Z")
    run_tick(settings)
    page = visitor.get("/dashboard/schedules/nightly-report")
    assert "the schedule was paused; recorded just now" in page.said
    page = page.press("Resume")
    assert "It is resumed" in page.said
    assert page.buttons == ["Pause", "Run it now", "Explain"]
    assert ticked.execute(
        "select paused, paused_by, paused_at from tick.schedules where name = 'nightly-report'"
    ).fetchone() == (False, None, None)
    move_clock(ticked, "2026-03-12T01:30:05Z")
    run_tick(settings)
    assert ticked.execute("select count(*) from tick.jobs where type = 'nightly_report'").fetchone() == (1,)


def test_a_schedule_is_run_now_for_no_window_with_all_its_options(ticked, visitor):
    page = visitor.get("/dashboard/schedules/v1.2_sync").press("Run it now")
    (id,) = ticked.execute("select id from tick.jobs where schedule = 'v1.2_sync'").fetchone()
    assert page.path == f"/dashboard/jobs/{id}"
    assert "This is the job of v1.2_sync, due now and for no window." in page.said
    assert "Put in by hand for its schedule" in page.said
    row = job(ticked, id)
    assert (row["type"], row["window"], row["priority"], row["key"], row["max_attempts"], row["timeout"].total_seconds(), row["on_dead_url"]) == (
        "sync", None, 7, "sync:all", 3, 20, "https://example.com/dead",
    )  # fmt: skip
    assert row["run_at"] == ticked.execute("select tick.now()").fetchone()[0]
    # A paused or disabled one too: that is about its windows.
    visitor.get("/dashboard/schedules/old-import").press("Run it now")
    assert ticked.execute("select count(*) from tick.jobs where schedule = 'old-import'").fetchone() == (1,)


def test_what_has_no_handler_here_is_not_run_from_here(ticked, visitor, empty_registry):
    del empty_registry._handlers["sync"]
    page = visitor.get("/dashboard/schedules/v1.2_sync")
    assert page.buttons == ["Pause", "Explain"]
    assert "no handler here has the type sync" in page.said
    page = visitor.send("post", "/dashboard/schedules/v1.2_sync/run-now", {"csrf": visitor.csrf()})
    assert (page.status, "It cannot run here" in page.said) == (409, True)
    assert ticked.execute("select count(*) from tick.jobs").fetchone() == (0,)


def test_why_it_did_not_run_is_explained(ticked, visitor, settings):
    move_clock(ticked, "2026-03-11T01:30:05Z")
    run_tick(settings)
    page = visitor.get("/dashboard/schedules/nightly-report").press("Explain", at="2026-03-11T02:30")
    (id,) = ticked.execute("select id from tick.jobs where type = 'nightly_report'").fetchone()
    assert f"It ran: job {id}" in page.said
    assert f"Job {id}" in page.follow(f"Show job {id}").one("title").text
    assert "is no window of nightly-report" in page.press("Explain", at="2026-03-11T05:00").said
    assert page.all("input", name="at")[0].attributes["value"] == "2026-03-11T02:30"
    page = page.press("Explain", at="<script>soon</script>")
    assert "is not an instant" in page.one("p", id="problem").text
    assert not page.main.all("script")


def test_a_schedule_that_is_not_there_is_not_found_and_one_that_was_is_remembered(ticked, visitor, settings):
    page = visitor.get("/dashboard/schedules/nothing")
    assert (page.status, "No tick has seen a schedule" in page.said) == (404, True)
    settings.schedules_path.write_text('[schedules.another]\nevery = "1h"\ntype = "sync"\n')
    move_clock(ticked, "+5 minutes")
    run_tick(settings)
    page = visitor.get("/dashboard/schedules/nightly-report")
    assert (page.status, "is not in the one that last ticked" in page.said) == (404, True)
    token = visitor.csrf()
    for action in ("pause", "resume", "run-now"):
        assert visitor.send("post", f"/dashboard/schedules/nothing/{action}", {"csrf": token}).status == 404
        assert visitor.get(f"/dashboard/schedules/another/{action}").status == 405
    for odd in ("%00", "a%2Fb", "%F0%9F%A6%84", "x" * 3000, "'%20or%201=1"):
        assert visitor.get(f"/dashboard/schedules/{odd}").status in (404, 422), odd


def test_nothing_of_what_a_schedule_holds_becomes_markup(ticked, visitor):
    hostile = (Path(__file__).parent / "data" / "hostile_html.txt").read_text(encoding="utf-8").split("\n")
    pages = []
    for text in ("\n".join(hostile[n : n + 10]) for n in range(0, len(hostile), 10)):
        ticked.execute(
            "update tick.entries set body = body || jsonb_build_object('description', %(text)s::text, 'payload', jsonb_build_object(%(text)s::text, %(text)s::text),"
            " 'key', %(text)s::text, 'type', %(text)s::text, 'overlap', %(text)s::text, 'catch_up', %(text)s::text) where schedule = 'nightly-report'",
            {"text": text},
        )
        ticked.execute("update tick.schedules set paused = true, paused_by = %s where name = 'nightly-report'", [text])
        pages += [visitor.get("/dashboard/schedules/nightly-report", at=text), visitor.get("/dashboard/schedules")]
        pages.append(visitor.get("/dashboard/schedules", text=text))
    for page in pages:
        assert page.status in (200, 422)
        assert all(script.attributes["src"].startswith("/dashboard/static/") for script in page.all("script"))
        assert all(image.attributes["src"].startswith("/dashboard/static/") for image in page.all("img"))
        assert not [name for element in page for name in element.attributes if name.startswith("on") or name == "style"]
        assert not {element.tag for element in page} & {"iframe", "object", "embed", "svg", "math", "base", "style"}
        assert all((element.attributes.get("href") or "/").startswith(("/", "?", "#")) for element in page.main)


def test_ten_thousand_schedules_are_found_without_reading_jobs(conn):
    plan = "\n".join(
        line
        for (line,) in conn.execute(
            f"explain {statements('dashboard')['find_schedules']}", {"text": "%x%", "after": None, "limit": 101}
        ).fetchall()
    )
    assert "on jobs" not in plan
