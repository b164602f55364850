"""The verdict: of rows as facts has them, and of a real database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import tick
from tests.factories import a_job, move_clock
from tests.factories import tick as run_tick
from tick import database, web
from tick.processor import Trigger
from tick.verdict import ago, beat, count, duration, every, judge, lasting, listed, questions, times

NOW = datetime(2026, 5, 1, 3, tzinfo=UTC)


def minutes(count: float) -> datetime:
    return NOW - timedelta(minutes=count)


WELL = {
    "depth": [{"now": NOW, "due": 0, "oldest_due": None, "dead": 0, "behind_keys": 0}],
    "pulse": [{"since": 20.0, "installed": 9e5, "gap": 60.0}],
    "triggers": [{"trigger": "vercel", "ticks": 900, "since": 20.0, "gap": 60.0}],
    "ticks": [{"finished_at": minutes(1), "started_at": minutes(1), "budget": 50.0, "error": None}],
    "rates": [],
    "dead": [],
    "unhandled": [],
    "paused": [],
}


def verdict(**changed):
    """The verdict when all is well but for this; one row stands for its changed columns."""
    rows = {name: [{**WELL[name][0], **given}] if isinstance(given, dict) else given for name, given in changed.items()}
    return judge(**WELL | rows)


def test_all_is_well():
    said = verdict()
    assert (said.state, said.healthy, said.details) == ("ok", True, ())
    assert said.headline == "All is well: ticks come every minute, nothing is due."
    busy = verdict(depth={"due": 1240, "oldest_due": minutes(2)})
    assert (busy.headline, busy.healthy) == ("All is well: ticks come every minute, 1,240 due.", True)
    assert busy.as_dict()["healthy"] is True


class TestTicks:
    def test_never_came(self):
        fresh = {"since": None, "installed": 30.0, "gap": None}
        said = verdict(pulse=fresh, triggers=[], ticks=[], depth={"due": 1})
        assert (said.state, said.healthy) == ("warning", False)
        assert said.headline == (
            "Never ticked: no tick has come since tick was set up 30 s ago. 1 job is due. "
            "Run `tick run-once`, or point a cron at /tick."
        )
        assert verdict(pulse=fresh | {"installed": 720.0}, triggers=[], ticks=[]).state == "critical"

    def test_have_stopped(self):
        said = verdict(
            pulse={"since": 2820.0}, triggers=[{"trigger": "github", "ticks": 50, "since": 2820.0, "gap": 60.0}]
        )
        assert said.state == "critical"
        assert said.headline == (
            "Ticks have stopped: the last was 47 min ago (github), they used to come every minute; check your cron."
        )

    def test_have_not_stopped_within_three_of_their_own_intervals(self):
        assert verdict(pulse={"since": 890.0, "gap": 300.0}).healthy
        assert not verdict(pulse={"since": 910.0, "gap": 300.0}).healthy

    def test_the_last_failed(self):
        said = verdict(ticks={"error": "schedules.toml: 1 problem\n  schedules.a.crom: unknown key"})
        assert (said.state, said.headline) == ("critical", "The last tick failed: schedules.toml: 1 problem")

    def test_that_runs_now_hides_no_failure(self):
        running, failed = {**WELL["ticks"][0], "finished_at": None}, {"finished_at": NOW, "error": "no"}
        assert verdict(ticks=[running, failed]).headline == "The last tick failed: no"
        assert verdict(ticks=[running, *WELL["ticks"]]).healthy

    def test_that_are_killed_are_told(self):
        killed = {"finished_at": None, "error": None, "started_at": minutes(10), "budget": 50.0}
        said = verdict(ticks=[*WELL["ticks"], killed, killed, killed])
        assert (said.state, said.headline.startswith("3 of the last 4 ticks never ended")) == ("warning", True)
        assert said.links[0][1] == "/dashboard/ticks"

    @pytest.mark.parametrize(("budget", "state"), [(600.0, "ok"), (599.0, "ok"), (597.0, "warning")])
    def test_that_still_run_have_their_budget_and_two_seconds(self, budget, state):
        running = {"finished_at": None, "error": None, "started_at": minutes(10), "budget": budget}
        assert verdict(ticks=[running] * 4 + WELL["ticks"]).state == state

    @pytest.mark.parametrize(
        ("rows", "headline"),
        [
            ([("cli", 1, None)], "One tick so far, by hand; nothing triggers ticks yet: point a cron at /tick."),
            ([("cli", 9, 7.0)], "9 ticks so far, by hand; nothing triggers ticks yet: point a cron at /tick."),
            ([("cli", 3, 70.0)], "3 ticks so far, by hand; nothing triggers ticks yet: point a cron at /tick."),
            ([("dashboard", 1, None), ("dev", 3, 1.0)], "4 ticks so far, by hand; nothing triggers ticks yet: point a cron at /tick."),
            ([("github", 1, None), ("cli", 1, None)], "2 ticks so far, by github, cli."),
            ([("github", 3, 60.0)], "All is well: ticks come every minute, nothing is due."),
            ([("cli", 5, 60.0)], "All is well: ticks come every minute, nothing is due."),
        ],
    )  # fmt: skip
    def test_it_takes_some_to_say_how_often_they_come(self, rows, headline):
        triggers = [{"trigger": name, "ticks": ticks, "since": 20.0, "gap": gap} for name, ticks, gap in rows]
        said = verdict(triggers=triggers)
        assert (said.headline, said.state, bool(said.every)) == (headline, "ok", headline.startswith("All"))
        stopped = verdict(triggers=triggers, pulse={"since": 600.0})
        assert ("used to come" in stopped.headline) is headline.startswith("All")

    def test_one_by_hand_is_trouble_once_something_is_due(self):
        one = [{"trigger": "cli", "ticks": 1, "since": 20.0, "gap": None}]
        said = verdict(triggers=one, depth={"due": 2, "oldest_due": NOW})
        assert (said.state, said.headline.endswith("at /tick. 2 jobs are due.")) == ("warning", True)
        behind = verdict(triggers=one, depth={"due": 2, "oldest_due": minutes(6)})
        assert behind.headline == "Falling behind: 2 due, the oldest for 6 min."
        assert behind.details[0].startswith("One tick so far")


class TestTheQueue:
    def test_falls_behind(self):
        said = verdict(depth={"due": 1240, "oldest_due": minutes(14)})
        assert (said.state, said.headline) == (
            "warning",
            "Falling behind: 1,240 due, the oldest for 14 min, and ticks come every minute.",
        )
        assert verdict(depth={"due": 10_001, "oldest_due": minutes(40)}).state == "critical"
        keyed = verdict(depth={"due": 12, "oldest_due": minutes(40), "behind_keys": 11})
        assert keyed.headline.endswith("every minute; 11 wait behind others of their key.")
        one = verdict(depth={"due": 2, "oldest_due": minutes(40), "behind_keys": 1})
        assert one.headline.endswith("; 1 waits behind others of their key.")

    def test_is_not_behind_while_nobody_ticks_or_nobody_could_take_it(self):
        stopped = verdict(pulse={"since": 2820.0}, depth={"due": 3, "oldest_due": minutes(30)})
        assert "Falling behind" not in " ".join([stopped.headline, *stopped.details])
        resize = {"type": "resize", "count": 3, "oldest": minutes(30), "handled": 0, "oldest_handled": None}
        alone = verdict(depth={"due": 3, "oldest_due": minutes(30)}, unhandled=[resize])
        assert (alone.state, alone.details) == ("warning", ())
        assert alone.headline == (
            "Some due jobs have no handler here: resize (3), the oldest for 30 min; deploy one, or check TICK_MODULES."
        )
        fresh = verdict(
            depth={"due": 5, "oldest_due": minutes(30)},
            unhandled=[resize | {"handled": 2, "oldest_handled": minutes(1)}],
        )
        assert (fresh.headline, fresh.details) == (alone.headline, ())
        late = verdict(
            depth={"due": 5, "oldest_due": minutes(90)},
            unhandled=[resize | {"handled": 2, "oldest_handled": minutes(14)}],
        )
        assert late.headline == "Falling behind: 2 due, the oldest for 14 min, and ticks come every minute."

    def test_fails(self):
        rates = [
            {"type": "", "done": 60, "failed": 40},
            {"type": "send_invoice", "done": 0, "failed": 20},
            {"type": "digest", "done": 60, "failed": 19},
        ]
        said = verdict(rates=rates)
        assert (said.state, said.headline) == (
            "warning",
            "Failing: 40 % of the last 15 min's attempts failed, mostly send_invoice.",
        )
        rates[1]["failed"] = 19
        assert verdict(rates=rates).headline.endswith(", most often send_invoice (19 of 40).")
        alone = [{"type": "", "done": 1, "failed": 9}, {"type": "send_invoice", "done": 1, "failed": 9}]
        assert verdict(rates=alone).headline.endswith("attempts failed, send_invoice.")
        assert verdict(rates=alone).state == "critical"

    @pytest.mark.parametrize(("done", "failed"), [(0, 2), (100, 20), (0, 0)])
    def test_does_not_fail_for_a_few(self, done, failed):
        assert verdict(
            rates=[{"type": "", "done": done, "failed": failed}, {"type": "a", "done": done, "failed": failed}]
        ).healthy

    def test_jobs_that_died_today_are_trouble_and_older_ones_a_word(self):
        dead = {"type": "send_invoice", "since": 190.0, "recent": 2}
        today = verdict(depth={"dead": 12}, dead=[dead])
        assert (today.state, today.headline) == (
            "warning",
            "12 jobs are dead, the last one 3 min ago: send_invoice; `tick dead` shows why.",
        )
        assert today.links == (("12 jobs are dead, the last one 3 min ago: send_invoice.", "/dashboard/dead"),)
        old = verdict(depth={"dead": 1}, dead=[dead | {"since": 200_000.0, "recent": 0}])
        assert (old.healthy, old.details) == (
            True,
            ("1 job is dead, the last one 2 days ago: send_invoice; `tick dead` shows why.",),
        )


class TestTriggers:
    @staticmethod
    def two(since: float, gap: float = 300.0, trigger: str = "vercel", ticks: int = 50):
        other = {"trigger": "github", "ticks": 500, "since": 20.0, "gap": 60.0}
        return verdict(triggers=[other, {"trigger": trigger, "ticks": ticks, "since": since, "gap": gap}])

    def test_one_of_two_has_stopped(self):
        said = self.two(3600.0)
        assert (said.state, said.headline) == (
            "warning",
            "One trigger of 2 has stopped: vercel came every 5 min, and last 1 h ago.",
        )

    @pytest.mark.parametrize(
        "case", [{"since": 800.0}, {"since": 9e4}, {"since": 3600.0, "trigger": "cli"}, {"since": 3600.0, "ticks": 2}]
    )
    def test_it_is_on_time_or_switched_off_or_a_person_or_came_but_twice(self, case):
        assert self.two(**case).healthy

    def test_all_of_them_are_the_ticks(self):
        rows = [{"trigger": name, "ticks": 50, "since": 3600.0, "gap": 60.0} for name in ("github", "vercel")]
        said = verdict(triggers=rows, pulse={"since": 3600.0})
        assert said.headline.startswith("Ticks have stopped") and said.details == ()


def test_paused_schedules_are_no_trouble():
    said = verdict(paused=[{"name": name} for name in "abcde"])
    assert (said.state, said.details) == ("ok", ("5 schedules are paused: a, b, c and 2 more.",))


def test_the_worst_comes_first_and_the_rest_as_it_is_listed():
    said = verdict(
        pulse={"since": 2820.0},
        depth={"dead": 3},
        dead=[{"type": "a", "since": 60.0, "recent": 3}],
        rates=[{"type": "", "done": 0, "failed": 9}, {"type": "a", "done": 0, "failed": 9}],
        paused=[{"name": "b"}],
    )
    assert said.state == "critical"
    assert [text.split()[0] for text in (said.headline, *said.details)] == ["Ticks", "Failing:", "3", "1"]


class TestWords:
    def test_durations(self):
        assert [duration(each) for each in (0, 0.9996, 1, 9.96, 10.4, 59.9, 60, 3600, 86_400, 172_801)] == [
            "0 ms", "1 s", "1 s", "10 s", "10 s", "1 min", "1 min", "1 h", "1 day", "2 days",
        ]  # fmt: skip
        assert duration(3660) == "1 h 1 min" and duration(14 * 3600 + 120) == "14 h" and duration(-3) == "0 ms"

    def test_times(self):
        assert [ago(each) for each in (0, -0.5, 59.99, -59.99, 86_400 * 2.9)] == [
            "just now", "just now", "59 s ago", "in 59 s", "2 days ago",
        ]  # fmt: skip
        assert [every(each) for each in (58, 0.2, 3599, 7200, 90)] == [
            "every minute",
            "every second",
            "every hour",
            "every 2 h",
            "every 2 min",
        ]
        assert lasting(-5) == "0 s"

    def test_numbers(self):
        assert (count(0, "job"), count(10_000), count(10_001), count(51, most=50)) == (
            "0 jobs",
            "10,000",
            "10,000+",
            "50+",
        )
        assert (listed([]), listed("ab"), times(3)) == ("", "a, b", "3 times")


def test_health_has_the_same_rule():
    for since, installed, gap in (
        (None, 10.0, None),
        (None, 400.0, None),
        (20.0, 9e5, 60.0),
        (181.0, 9e5, 2.0),
        (899.0, 9e5, 300.0),
    ):
        body = web.judge(since, NOW if since else None, installed, gap)
        assert (body["status"], body["expected_every"]) == beat(since, installed, gap)


class TestOfADatabase:
    def test_an_old_job_that_nobody_takes_makes_a_fresh_one_no_older(self, conn, settings, empty_registry):
        for _ in range(3):
            run_tick(settings, trigger=Trigger("github"))
        a_job(conn, "gone", run_at="-3 days")
        a_job(conn, "fresh", run_at="-1 minute")
        assert self.verdict(settings, ["fresh"]).headline.startswith("Some due jobs have no handler here: gone (1)")
        a_job(conn, "fresh", run_at="-6 minutes")
        assert self.verdict(settings, ["fresh"]).headline.startswith("Falling behind: 2 due, the oldest for 6 min")

    @staticmethod
    def verdict(settings, types=()):
        async def asking():
            async with database.connect(settings.database_url) as connection:
                return judge(*await database.read(connection, "tick", *questions(types)))

        return asyncio.run(asking())

    def test_that_is_new_and_then_ticks(self, conn, settings, empty_registry):
        assert self.verdict(settings).headline.startswith("Never ticked")
        run_tick(settings)
        assert self.verdict(settings).headline.startswith("One tick so far, by hand; nothing")
        run_tick(settings, trigger=Trigger("github"))
        run_tick(settings, trigger=Trigger("github"))
        assert self.verdict(settings).headline == "All is well: ticks come every minute, nothing is due."
        move_clock(conn, "+10 minutes")
        assert self.verdict(settings).headline.startswith("Ticks have stopped: the last was 10 min ago (github)")

    def test_in_which_everything_is_wrong(self, conn, settings, empty_registry):
        @tick.job(max_attempts=1)
        async def send_invoice() -> None:
            raise ValueError

        settings.schedules_path.write_text("[schedules.send_invoice]\ncron = '0 3 * * *'")
        for _ in range(4):
            a_job(conn, "send_invoice")
        a_job(conn, "resize", run_at="-30 minutes")
        run_tick(settings)
        conn.execute("update tick.schedules set paused = true")
        said = self.verdict(settings, ["send_invoice"])
        assert said.headline == "Failing: 100 % of the last 15 min's attempts failed, send_invoice."
        assert [text.split(":")[0] for text in said.details] == [
            "4 jobs are dead, the last one just now",
            "Some due jobs have no handler here",
            "One tick so far, by hand; nothing triggers ticks yet",
            "1 schedule is paused",
        ]
