"""Why did it (not) run at …: real ticks of a real file, with the clock moved to where it hurts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

import tick
from tests.factories import a_job, move_clock
from tests.factories import tick as run_tick
from tick import database
from tick.errors import ConfigurationError
from tick.explain import asked, explain


@pytest.fixture
def schedule(conn, settings, empty_registry):
    """Writes one schedule, and ticks at instants; `schedule.why(at)` explains."""

    @tick.job
    async def nightly() -> None: ...

    @tick.job
    async def stumble() -> None:
        raise ValueError("the floor is wet")

    class Written:
        def write(self, name: str = "nightly", **keys: object) -> None:
            lines = [
                f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
                for key, value in keys.items()
            ]
            settings.schedules_path.write_text("\n".join([f"[schedules.{name}]", *lines]))

        def ticks(self, *instants: str, **options: object) -> None:
            for instant in instants:
                move_clock(conn, instant)
                run_tick(settings, **options)

        def why(self, at: str, name: str = "nightly"):
            async def asking():
                async with database.connect(settings.database_url) as connection:
                    return await explain(lambda *q: database.read(connection, "tick", *q), name, at)

            return asyncio.run(asking())

    return Written()


class TestItRan:
    def test_says_which_job_when_and_in_whose_tick(self, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z", "2026-05-01T03:00:12Z")
        why = schedule.why("2026-05-01T03:00Z")
        assert (why.outcome, why.job) == ("ran", 1)
        assert why.headline == "It ran: job 1 (nightly) was done at Fri 2026-05-01 03:00:12 UTC."
        assert "It was made 12 s after its window." in why.details
        assert "Attempt 1 started at Fri 2026-05-01 03:00:12 UTC in a tick of cli and took 0 ms." in why.details
        assert (why.before, why.after) == (datetime(2026, 4, 30, 3, tzinfo=UTC), datetime(2026, 5, 2, 3, tzinfo=UTC))

    def test_says_how_late_and_that_no_tick_came(self, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T02:59Z", "2026-05-01T05:30Z")
        why = schedule.why("2026-05-01T03:00Z")
        assert "It was made 2 h 30 min after its window." in why.details
        assert "No tick came from Fri 2026-05-01 02:59 UTC to Fri 2026-05-01 05:30 UTC: 2 h 31 min." in why.details

    def test_that_failed_says_with_what(self, schedule):
        schedule.write("stumble", cron="0 3 * * *", max_attempts=1)
        schedule.ticks("2026-05-01T00:00Z", "2026-05-01T03:00Z")
        why = schedule.why("03:00", "stumble")
        assert why.headline.endswith("died at Fri 2026-05-01 03:00 UTC: ValueError: the floor is wet.")

    def test_that_is_tried_again_says_when(self, schedule):
        schedule.write("stumble", cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z", "2026-05-01T03:00Z")
        why = schedule.why("03:00", "stumble")
        assert why.outcome == "waits"
        assert why.headline.startswith("It was made and waits: job 1 (stumble) failed once, and is due in ")
        assert "It failed once, the last time with: ValueError: the floor is wet" in why.details

    def test_under_an_earlier_definition(self, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z", "2026-05-01T03:00Z")
        schedule.write(cron="0 4 * * *")
        schedule.ticks("2026-05-01T03:30Z")
        why = schedule.why("2026-05-01T03:00Z")
        assert why.outcome == "ran"
        assert "It is of an earlier definition: today's was first seen Fri 2026-05-01 03:30 UTC." in why.details

    def test_spread_is_told(self, schedule, conn):
        schedule.write(cron="0 3 * * *", spread="10m")
        schedule.ticks("2026-05-01T00:00Z", "2026-05-01T03:00Z")
        why = schedule.why("2026-05-01T03:00Z")
        assert why.outcome == "waits"
        assert any(said.startswith("Its spread lets it run ") for said in why.details)

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"waits_for": "key", "key": "k"}, "has been due for 1 h behind another job of its key."),
            ({"lane": "type nightly"}, "has been due for 1 h within the limit of type nightly."),
            (
                {"status": "running", "started_at": "2026-05-01T03:59Z"},
                "It runs now: job 2 (nightly) started 1 min ago.",
            ),
            (
                {"status": "cancelled", "finished_at": "2026-05-01T03:00Z"},
                "It was made, and cancelled before it ran: job 2 (nightly), 1 h ago.",
            ),
            (
                {"status": "cancelled", "attempt": 1, "finished_at": "2026-05-01T03:00Z"},
                "It was made, and cancelled: job 2 (nightly), 1 h ago.",
            ),
        ],
    )
    def test_or_does_not_and_says_what_it_does(self, conn, schedule, columns, said):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z")
        move_clock(conn, "2026-05-01T04:00Z")
        window = {"schedule": "nightly", "window": "2026-05-01T03:00Z", "run_at": "2026-05-01T03:00Z"}
        a_job(conn, key="k", run_at="2026-05-01T02:00Z")
        a_job(conn, "nightly", **({"created_at": "2026-05-01T03:00Z"} | window | columns))
        why = schedule.why("03:00")
        assert why.headline.endswith(said)
        assert (why.outcome == "cancelled") is ("cancelled before" in said)


class TestItWasSkipped:
    def test_as_late(self, schedule):
        schedule.write(cron="0 * * * *")
        schedule.ticks("2026-05-01T00:30Z", "2026-05-01T04:05Z")
        why = schedule.why("2026-05-01T02:00Z")
        assert (why.outcome, why.job) == ("skipped", None)
        assert why.headline == ("It was skipped: several windows were due at once, and the latest of them was made.")
        assert any(
            "for all windows from Fri 2026-05-01 01:00 UTC to Fri 2026-05-01 03:00 UTC" in said for said in why.details
        )
        assert any(
            said.startswith("No tick came from Fri 2026-05-01 00:30 UTC to Fri 2026-05-01 04:05")
            for said in why.details
        )

    @pytest.mark.parametrize(
        ("keys", "reason"),
        [
            ({"catch_up": "none"}, "several windows were due at once, and the latest of them was made"),
            (
                {"catch_up": "all", "max_catch_up": 1},
                "more windows were due at once than max_catch_up let be made",
            ),
            ({"enabled": False}, "the schedule was disabled (enabled = false)"),
        ],
    )
    def test_for_what_its_keys_say(self, schedule, keys, reason):
        schedule.write(cron="0 * * * *", **keys)
        schedule.ticks("2026-05-01T00:30Z", "2026-05-01T04:05Z")
        assert schedule.why("2026-05-01T02:00Z").headline == f"It was skipped: {reason}."

    def test_as_late_in_words_that_an_edit_of_the_file_leaves_true(self, schedule):
        schedule.write(cron="0 * * * *", catch_up="none")
        schedule.ticks("2026-05-01T00:30Z", "2026-05-01T04:15Z")
        said = "It was skipped: it had been due for {} when a tick came, which was too late."
        for catch_up in ("none", "latest", "all"):
            schedule.write(cron="0 * * * *", catch_up=catch_up)
            schedule.ticks("2026-05-01T04:20Z")
            assert schedule.why("2026-05-01T02:00Z").headline == said.format("2 h")
            assert schedule.why("2026-05-01T04:00Z").headline == said.format("15 min")

    def test_for_a_later_one_within_ten_minutes(self, schedule):
        schedule.write(cron="* * * * *", catch_up="none")
        schedule.ticks("2026-05-01T00:30Z", "2026-05-01T00:35Z")
        assert schedule.why("2026-05-01T00:33Z").headline == (
            "It was skipped: several windows were due at once, and the latest of them was made."
        )

    def test_as_paused(self, conn, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z")
        conn.execute("update tick.schedules set paused = true")
        schedule.ticks("2026-05-01T03:00Z")
        assert schedule.why("2026-05-01T03:00Z").headline == "It was skipped: the schedule was paused."

    def test_as_overlapping(self, conn, schedule):
        schedule.write(cron="0 3 * * *", overlap="skip")
        schedule.ticks("2026-05-01T00:00Z")
        a_job(conn, "nightly", schedule="nightly", run_at="2027-01-01T00:00Z")
        schedule.ticks("2026-05-01T03:00Z")
        assert "a job of the schedule was still pending or running" in schedule.why("2026-05-01T03:00Z").headline


class TestItIsNoWindow:
    def test_says_what_is_around_it(self, schedule):
        schedule.write(cron="0 3 * * mon-fri", timezone="Europe/Paris")
        schedule.ticks("2026-05-01T00:00Z")
        why = schedule.why("2026-05-02T03:00")
        assert (why.outcome, why.window) == ("no window", None)
        assert why.headline == (
            "Sat 2026-05-02 03:00 CEST (2026-05-02T01:00Z) is no window of nightly: `0 3 * * mon-fri` does not name it."
        )
        assert why.details == (
            "The window before is Fri 2026-05-01 03:00 CEST (2026-05-01T01:00Z).",
            "The next window is Mon 2026-05-04 03:00 CEST (2026-05-04T01:00Z).",
        )

    def test_before_it_starts_and_after_it_ends(self, schedule, settings):
        text = "[schedules.nightly]\ncron = '0 3 * * *'\nstarts = 2026-05-10\nends = 2026-05-20\n"
        settings.schedules_path.write_text(text)
        schedule.ticks("2026-05-01T00:00Z")
        assert schedule.why("2026-05-09T03:00Z").headline == "nightly starts only at Sun 2026-05-10 00:00 UTC."
        assert schedule.why("2026-05-21T03:00Z").headline == "nightly has ended at Wed 2026-05-20 00:00 UTC."

    def test_of_a_period(self, schedule):
        schedule.write(every="1h")
        schedule.ticks("2026-05-01T00:00Z")
        assert "every 1 h does not name it" in schedule.why("2026-05-01T03:30Z").headline

    def test_a_window_of_another_definition_is_told(self, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z")
        schedule.write(cron="0 4 * * *")
        schedule.ticks("2026-05-01T00:30Z")
        assert any("It is one of another definition (0 3 * * *)" in said for said in schedule.why("03:00").details)

    def test_the_minute_is_enough_for_six_fields(self, schedule):
        schedule.write(cron="20 0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z", "2026-05-01T03:01Z")
        assert schedule.why("2026-05-01T03:00Z").window == datetime(2026, 5, 1, 3, 0, 20, tzinfo=UTC)


class TestTheClocks:
    """Paris, 2026: 02:30 does not exist on 29 March, and comes twice on 25 October."""

    def test_a_fixed_time_that_is_skipped_was_moved_to_the_end_of_the_gap(self, schedule):
        schedule.write(cron="30 2 * * *", timezone="Europe/Paris")
        schedule.ticks("2026-03-28T12:00Z", "2026-03-29T01:00Z")
        why = schedule.why("2026-03-29T02:30")
        assert (why.outcome, why.window) == ("ran", datetime(2026, 3, 29, 1, tzinfo=UTC))
        assert why.details[:2] == (
            "02:30 does not exist on 2026-03-29 in Europe/Paris: the clocks go forward by 1 h.",
            "So it is for the end of the gap, once: Sun 2026-03-29 03:00 CEST (2026-03-29T01:00Z).",
        )

    def test_what_follows_elapsed_time_is_lost_in_the_gap(self, schedule):
        schedule.write(cron="*/30 2 * * *", timezone="Europe/Paris")
        schedule.ticks("2026-03-28T12:00Z")
        why = schedule.why("2026-03-29T02:30")
        assert why.outcome == "no window"
        assert "follows the time that passes, so what the clocks skip is left out" in why.details[1]

    def test_a_time_in_the_gap_that_was_never_meant_is_no_window(self, schedule):
        schedule.write(cron="0 2 * * *", timezone="Europe/Paris")
        schedule.ticks("2026-03-28T12:00Z")
        why = schedule.why("2026-03-29T02:30")
        assert why.outcome == "no window"
        assert why.headline.startswith("2026-03-29 02:30 in Europe/Paris is no window")

    def test_a_fixed_time_that_comes_twice_is_for_the_first(self, schedule):
        schedule.write(cron="30 2 * * *", timezone="Europe/Paris")
        schedule.ticks("2026-10-24T12:00Z", "2026-10-25T00:30Z", "2026-10-25T01:30Z")
        first, second = schedule.why("2026-10-25T02:30"), schedule.why("2026-10-25T02:30+01:00")
        assert (first.outcome, first.window) == ("ran", datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
        assert (second.outcome, second.window) == ("no window", None)
        for why in (first, second):
            assert why.details[:2] == (
                "02:30 comes twice on 2026-10-25 in Europe/Paris: first as CEST (2026-10-25T00:30Z) and then as CET (2026-10-25T01:30Z).",
                "A fixed time is for the first of the two only.",
            )

    def test_what_follows_elapsed_time_is_for_both(self, schedule):
        schedule.write(cron="*/30 * * * *", timezone="Europe/Paris")
        schedule.ticks("2026-10-24T23:00Z", "2026-10-25T00:30Z", "2026-10-25T01:30Z")
        assert schedule.why("2026-10-25T02:30").window == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
        assert schedule.why("2026-10-25T02:30+01:00").window == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


class TestNothingIsThere:
    def test_since_it_has_not_come_yet(self, conn, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z")
        assert schedule.why("2026-05-01T03:00Z").headline == "It has not come yet: Fri 2026-05-01 03:00 UTC is in 3 h."
        conn.execute("update tick.schedules set paused = true")
        assert "`tick schedules resume nightly`" in schedule.why("2026-05-01T03:00Z").details[0]

    def test_since_the_schedule_was_not_yet_known(self, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T03:30Z")
        why = schedule.why("2026-05-01T03:00Z")
        assert why.outcome == "not seen"
        assert (
            why.headline == "It was not made: the schedule, as it is now, was first seen at Fri 2026-05-01 03:30 UTC."
        )

    def test_since_no_tick_came(self, conn, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T02:50Z")
        move_clock(conn, "2026-05-01T04:00Z")
        why = schedule.why("2026-05-01T03:00Z")
        assert (why.outcome, "the last was at Fri 2026-05-01 02:50 UTC" in why.headline) == ("no tick", True)

    def test_since_the_ticks_failed(self, conn, schedule, settings):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T02:50Z")
        settings.schedules_path.write_text("[schedules.nightly]\ncrom = '0 3 * * *'")
        with pytest.raises(ConfigurationError):
            schedule.ticks("2026-05-01T03:00Z")
        move_clock(conn, "2026-05-01T03:05Z")
        why = schedule.why("2026-05-01T03:00Z")
        assert why.headline == "It has been due for 5 min, and the ticks since have not made it."
        assert why.details[0].startswith("The first of them failed: ")

    def test_since_it_was_removed(self, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z")
        schedule.write("stumble", cron="0 5 * * *")
        schedule.ticks("2026-05-01T02:00Z", "2026-05-01T03:30Z")
        why = schedule.why("2026-05-01T03:00Z")
        assert why.outcome == "removed"
        assert "the file that ticks now does not have nightly" in why.headline
        assert schedule.why("2026-05-02T03:00Z").details[0].startswith("It will not: the file that ticks now")

    def test_since_its_job_was_deleted(self, conn, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z", "2026-05-01T03:00Z")
        conn.execute("delete from tick.jobs")
        why = schedule.why("2026-05-01T03:00Z")
        assert why.outcome == "forgotten"
        assert "its job, or the record of why it was skipped, has been pruned since" in why.headline


class TestAsking:
    NOW = datetime(2026, 5, 1, 3, 15, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("text", "instant"),
        [
            ("2026-05-01T02:30", "2026-05-01T00:30"),
            ("2026-05-01T02:30+00:00", "2026-05-01T02:30"),
            ("2026-05-01T02:30Z", "2026-05-01T02:30"),
            ("05:00", "2026-05-01T03:00"),
            ("05:30", "2026-04-30T03:30"),
            ("03:00Z", "2026-05-01T03:00"),
            ("03:30z", "2026-04-30T03:30"),
            ("2026-05-01", "2026-04-30T22:00"),
        ],
    )
    def test_takes_local_time_an_offset_or_a_time_of_day(self, text, instant):
        assert asked(text, "Europe/Paris", self.NOW).instant == datetime.fromisoformat(f"{instant}Z")

    @pytest.mark.parametrize(
        "text", ["yesterday", "", "25:00", "25:00Z", "2026-02-30T00:00", "9999-12-31T23:59-12:00", "0001-01-01T00:00"]
    )
    def test_refuses_what_is_none_and_says_what_to_write(self, text):
        with pytest.raises(ConfigurationError, match="is not an instant: write|is not a time of day"):
            asked(text, "Europe/Paris", self.NOW)

    def test_of_a_schedule_that_is_not_there_names_the_nearest(self, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z")
        with pytest.raises(ConfigurationError, match="there is no schedule 'nightli'; did you mean 'nightly'"):
            schedule.why("03:00", "nightli")
        with pytest.raises(ConfigurationError, match="there is no schedule 'x'; the first tick"):
            schedule.why("03:00", "x")

    def test_of_one_whose_files_are_forgotten_says_so(self, conn, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z")
        conn.execute("delete from tick.files")
        with pytest.raises(ConfigurationError, match="is in no file that has ticked for a month"):
            schedule.why("03:00")

    def test_is_json_too(self, schedule):
        schedule.write(cron="0 3 * * *")
        schedule.ticks("2026-05-01T00:00Z")
        said = schedule.why("2026-05-01T03:00Z").as_dict()
        assert (said["outcome"], said["window"], said["details"]) == ("to come", "2026-05-01T03:00Z", [])
