"""The watch: facts become alerts, alerts become jobs, and jobs tell, by real ticks against a real receiver."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

import tick as public
from tests.factories import a_job, jobs, move_clock, tick
from tests.test_callbacks import Receiver
from tick import alert_job, alerts, database, tokens, watch, web
from tick.errors import ConfigurationError
from tick.handlers import registry
from tick.queue import Queue, Trigger

START = datetime(2026, 3, 1, 10, tzinfo=UTC)


class Shop:
    """A project that ticks each minute and tells Slack, which is a server of this machine."""

    def __init__(self, conn, settings, receiver: Receiver) -> None:
        self.conn = conn
        self.settings = settings
        self.receiver = receiver
        self.now = START

    def tick(self, minutes: float = 1, trigger: str = "vercel", **options: Any) -> None:
        """So much later, a tick."""
        self.now += timedelta(minutes=minutes)
        move_clock(self.conn, self.now.isoformat())
        tick(self.settings, trigger=Trigger(trigger), **options)

    def ticks(self, count: int, minutes: float = 1, trigger: str = "vercel") -> None:
        for _ in range(count):
            self.tick(minutes, trigger=trigger)

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.receiver.requests]

    def told(self) -> list[str]:
        """The titles of what Slack was told since this was last asked."""
        told = [body["text"].partition(": ")[2] for body in self.bodies()]
        self.receiver.requests.clear()
        return told

    def alerts(self) -> dict[tuple[str, str], bool]:
        """Whether each still lasts."""
        rows = self.conn.execute("select rule, subject, ended_at is null from tick.alerts").fetchall()
        return {(rule, subject): lasts for rule, subject, lasts in rows}

    def dies(self, type: str = "send_mail", error: str = "ValueError: no such address", count: int = 1) -> None:
        """Jobs that somebody buried, now."""
        self.conn.execute(
            "insert into tick.jobs (type, status, attempt, failures, tick_id, started_at, finished_at, last_error, fingerprint)"
            " select %s, 'dead', 1, 1, gen_random_uuid(), tick.now(), tick.now(), %s, tick.fingerprint(%s)"
            " from generate_series(1, %s)",
            [type, error, error, count],
        )

    def count(self, query: str) -> int:
        return self.conn.execute(f"select count(*) from {query}").fetchone()[0]


@pytest.fixture
def receiver():
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def shop(conn, settings, receiver, empty_registry):
    registry.add(alert_job.alert)

    @public.job(max_attempts=1)
    async def send_mail(error: str = "") -> None:
        if error:
            raise ValueError(error)

    settings = replace(
        settings,
        url="https://shop.example/tick",
        http_allow=("127.0.0.1",),
        named_secrets={"slack": (f"{receiver.url}/T012345/B012345/veryverysecret",)},
        dashboard_password="correct horse",
        alerts={"slack": "secret:slack"},
    )
    shop = Shop(conn, settings, receiver)
    shop.tick(0)
    return shop


class TestTheChore:
    def test_it_is_there_when_somebody_is_to_be_told_and_goes_with_them(self, shop, conn):
        names = "select name from tick.chores where not settings ? 'off'"
        assert conn.execute(names).fetchall() == [("watch",)]
        shop.tick(alerts={})
        assert conn.execute(names).fetchall() == []

    def test_a_deployment_without_alerts_that_ticks_in_between_loses_no_death(self, shop):
        shop.dies()
        shop.tick(alerts={})
        shop.ticks(2)
        assert shop.told() == ["send_mail: 1 job died"]

    def test_a_queue_that_no_tick_gets_through_is_watched_all_the_same(self, shop, conn):
        @public.job
        async def slow() -> None:
            await asyncio.sleep(0.05)

        shop.dies()
        jobs(conn, "slow", 3000)
        shop.tick(budget=5)
        assert shop.count("tick.jobs where type = 'slow' and status = 'pending'") > 0
        assert shop.told() == ["send_mail: 1 job died"]

    def test_nor_does_a_job_that_runs_until_the_end_keep_it_away(self, shop, conn):
        @public.job
        async def endless() -> None:
            await asyncio.sleep(60)

        shop.dies()
        jobs(conn, "endless", 1)
        shop.tick(budget=5)
        assert shop.told() == ["send_mail: 1 job died"]

    def test_one_that_another_session_holds_keeps_no_tick(self, shop, url):
        with psycopg.connect(url) as other:
            other.execute("select * from tick.chores for update")
            shop.tick()
        shop.dies()
        shop.tick()
        assert shop.told() == ["send_mail: 1 job died"]

    def test_one_that_is_set_far_ahead_since_the_clock_was_put_back_is_due(self, shop, conn):
        conn.execute("update tick.chores set due_at = tick.now() + interval '1 hour'")
        shop.dies()
        shop.tick()
        assert shop.told() == ["send_mail: 1 job died"]

    def test_without_alerts_nothing_is_told_and_an_idle_tick_stays_one_round_trip(
        self, conn, settings, empty_registry, monkeypatch
    ):
        trips = []
        send = Queue._send_once
        monkeypatch.setattr(Queue, "_send_once", lambda self, batch: trips.append(1) or send(self, batch))
        tick(settings)
        a_job(conn, status="dead")
        trips.clear()
        tick(settings)
        assert (len(trips), conn.execute("select count(*) from tick.alerts").fetchone()) == (1, (0,))

    def test_it_is_done_once_a_minute_however_often_ticks_come(self, shop, conn):
        turns = []
        for _ in range(4):
            shop.tick(0.5)
            turns.append(conn.execute("select state -> 'turn' from tick.chores").fetchone()[0])
        assert turns == [1, 1, 2, 2]

    def test_the_file_goes_before_pyproject_key_by_key(self, shop, conn):
        shop.settings.schedules_path.write_text('[alerts]\nrepeat = "2h"\n[retention]\ndone = "7d"\n')
        conn.execute("insert into tick.chores (name) values ('prune')")
        shop.tick(retention={"done": "1d", "count": 5})
        kept = dict(conn.execute("select name, settings from tick.chores").fetchall())
        assert kept["prune"] == {"done": 7 * 86_400, "count": 5, "from_file": False}
        assert kept["watch"]["rules"]["repeat"] == 7200
        assert kept["watch"]["targets"] == [["slack", "secret:slack"]]

    def test_a_deployment_without_the_file_leaves_what_the_file_said(self, shop, conn):
        shop.settings.schedules_path.write_text('[alerts]\nrepeat = "2h"\n')
        shop.tick()
        shop.settings.schedules_path.unlink()
        shop.tick(alerts={})
        assert conn.execute("select settings #> '{rules,repeat}' from tick.chores").fetchall() == [(7200,)]

    def test_alerts_that_tell_nobody_are_an_error_of_the_file(self, shop):
        shop.settings.schedules_path.write_text("[alerts]\ndead = true\n")
        with pytest.raises(ConfigurationError, match="alerts: nobody is told; write slack, webhook or email"):
            shop.tick(alerts={})

    def test_what_is_wrong_in_pyproject_is_told_there(self, shop):
        with pytest.raises(
            ConfigurationError, match=r'pyproject.toml.*\n.*tool.tick.alerts.slak: unknown key; did you mean "slack"'
        ):
            shop.tick(alerts={"slak": "secret:slack"})

    def test_no_tick_fails_by_it(self, shop, conn, caplog):
        conn.execute("""update tick.chores set settings = '{"rules": 5}'""")
        shop.tick()
        assert "watch could not be done: " in caplog.text


class TestDeaths:
    def test_500_deaths_are_one_message_with_counts_by_type_and_error(self, shop):
        shop.tick()
        shop.dies(count=400)
        shop.dies(error="ConnectionError: 10.0.0.1 refused", count=99)
        shop.dies("invoice")
        shop.ticks(3)
        assert len(shop.bodies()) == 1
        text = json.dumps(shop.bodies()[0], ensure_ascii=False)
        assert "send_mail: 499 jobs died" in text
        assert "400 times ValueError: no such address" in text
        assert "99 times ConnectionError: 10.0.0.1 refused" in text
        assert "invoice: 1 job died" in text
        assert len(shop.told()) == 1

    def test_a_job_that_dies_in_a_tick_is_told_with_a_link_to_it(self, shop, conn):
        id = a_job(conn, "send_mail", payload={"error": "no such address"})
        shop.ticks(3)
        assert shop.count("tick.jobs where type = 'tick.alert' and status = 'done'") == 1
        (body,) = shop.bodies()
        assert shop.told() == ["send_mail: 1 job died"]
        assert f"https://shop.example/dashboard/jobs/{id}" in json.dumps(body)

    def test_what_died_before_anybody_was_to_be_told_is_no_news(self, conn, settings, shop):
        shop.tick(alerts={})
        shop.dies()
        shop.tick(10)
        shop.ticks(3)
        assert shop.told() == []

    def test_the_same_type_is_not_told_again_before_an_hour_and_then_with_how_many_more(self, shop):
        shop.dies()
        shop.ticks(2)
        assert shop.told() == ["send_mail: 1 job died"]
        for _ in range(11):
            shop.dies(count=3)
            shop.tick(5)
        assert shop.told() == []
        shop.dies(error="KeyError: 7")
        shop.ticks(7)
        (body,) = shop.bodies()
        assert "send_mail: 34 more jobs died" in body["text"]
        assert "33 times ValueError: no such address" in json.dumps(body)
        assert "35 since 2026-03-01 10:00 UTC" in json.dumps(body)

    def test_after_a_quiet_quarter_of_an_hour_it_has_recovered_which_is_told_once(self, shop):
        shop.dies()
        shop.ticks(14)
        assert shop.told() == ["send_mail: 1 job died"]
        assert shop.alerts() == {("dead", "send_mail"): True}
        shop.ticks(4)
        assert shop.told() == ["Recovered: no more jobs of send_mail die; 1 did, look at what is still dead"]
        assert shop.alerts() == {("dead", "send_mail"): False}

    def test_recovery_says_how_long_it_was_and_waits_until_the_last_deaths_are_told(self, shop):
        shop.dies()
        for _ in range(6):
            shop.tick(5)
            shop.dies()
        shop.ticks(5, minutes=5)
        assert shop.told() == ["send_mail: 1 job died"]
        shop.ticks(4, minutes=5)
        assert shop.told() == [
            "send_mail: 6 more jobs died",
            "Recovered after 30 min: no more jobs of send_mail die; 7 did, look at what is still dead",
        ]

    def test_what_dies_again_after_it_has_recovered_waits_for_its_hour_and_is_told_even_if_it_is_quiet_by_then(
        self, shop
    ):
        shop.dies()
        shop.ticks(5, minutes=5)
        assert len(shop.told()) == 2
        shop.dies(count=2)
        shop.ticks(6, minutes=5)
        assert shop.told() == []
        shop.ticks(3, minutes=5)
        assert shop.told()[0] == "send_mail: 2 jobs died"

    def test_a_job_that_was_not_committed_when_the_watch_looked_is_seen_by_the_next(self, shop):
        shop.tick()
        shop.dies()
        shop.conn.execute("update tick.jobs set finished_at = tick.now() - interval '20 seconds'")
        shop.tick()
        shop.dies(count=2)
        shop.conn.execute(
            "update tick.jobs set finished_at = tick.now() - interval '20 seconds' where fingerprint is not null and finished_at = tick.now()"
        )
        shop.tick()
        assert shop.conn.execute("select count, untold from tick.alerts").fetchall() == [(3, 2)]

    def test_one_that_two_watches_see_is_counted_once(self, shop):
        shop.tick()
        shop.now += timedelta(minutes=1)
        move_clock(shop.conn, shop.now.isoformat())
        shop.dies()
        shop.tick(0)
        shop.tick()
        assert shop.conn.execute("select count, untold from tick.alerts").fetchall() == [(1, 0)]

    def test_more_than_five_thousand_are_told_as_such(self, shop):
        shop.dies(count=5100)
        shop.ticks(2)
        assert shop.told() == ["send_mail: 5,000+ jobs died"]

    def test_muted_types_are_not_told(self, shop):
        shop.tick(alerts={"slack": "secret:slack", "mute": ["send_mail"]})
        shop.settings = replace(shop.settings, alerts={"slack": "secret:slack", "mute": ["send_mail"]})
        shop.dies()
        shop.dies("invoice")
        shop.ticks(2)
        assert shop.told() == ["invoice: 1 job died"]

    def test_a_rule_that_is_switched_off_tells_nothing_and_ends_what_lasts_quietly(self, shop):
        shop.dies()
        shop.ticks(2)
        shop.settings = replace(shop.settings, alerts={"slack": "secret:slack", "dead": False})
        shop.ticks(2)
        shop.dies()
        shop.ticks(20)
        assert shop.told() == ["send_mail: 1 job died"]
        assert shop.alerts() == {("dead", "send_mail"): False}

    def test_a_link_replays_what_died_of_one_kind_of_error(self, shop):
        shop.dies()
        shop.ticks(2)
        text = json.dumps(shop.bodies()[0])
        token = text.partition("https://shop.example/dashboard/replay/")[2].partition("|")[0]
        value = tokens.read(shop.settings, tokens.REPLAY, token, tokens.REPLAY_SECONDS)
        assert value == {"type": "send_mail", "fingerprint": "ValueError: no such address"}

    def test_no_link_names_a_kind_of_error_that_has_a_secret_in_it(self, shop):
        shop.dies(error="ValueError: password=hunter2 is wrong")
        shop.ticks(2)
        (text,) = map(json.dumps, shop.bodies())
        assert "/dashboard/jobs/1" in text
        assert "hunter2" not in text and "/dashboard/replay/" not in text


class TestItself:
    """What becomes of messages that cannot be sent."""

    def test_slack_that_fails_is_tried_again(self, shop):
        shop.receiver.answers = [500]
        shop.dies()
        shop.ticks(2)
        shop.tick(5)
        assert shop.told() == ["send_mail: 1 job died"] * 2
        assert shop.count("tick.jobs where type = 'tick.alert' and status = 'done'") == 1

    def test_a_dead_message_is_told_once_and_its_message_no_more(self, shop, conn):
        shop.receiver.answers = [404] * 1000
        shop.dies()
        shop.ticks(14)
        dead = (
            "select payload -> 'last', payload #>> '{message,parts,0,title}' from tick.jobs"
            " where type = 'tick.alert' and status = 'dead' order by id"
        )
        assert conn.execute(dead).fetchall() == [(False, "send_mail: 1 job died"), (True, "tick.alert: 1 job died")]
        assert shop.count("tick.jobs where type = 'tick.alert'") == 2
        assert conn.execute("select count from tick.alerts where subject = 'tick.alert'").fetchall() == [(1,)]

    def test_its_retries_are_no_failures_of_a_type(self, shop):
        shop.conn.execute(
            "insert into tick.stats (span, at, type, retried, runs, waits) values (60, tick.now(), 'tick.alert', 50, '{}', '{}')"
        )
        shop.ticks(3)
        assert shop.told() == []

    def test_no_secret_is_in_a_payload_an_error_or_the_log(self, shop, conn, caplog):
        shop.receiver.answers = [404] * 10
        shop.dies(error=f"ValueError: postgres://u:hunter2@db said {shop.settings.named_secrets['slack'][0]}")
        shop.ticks(4)
        rows = conn.execute(
            "select payload::text || errors::text || last_error from tick.jobs where type = 'tick.alert'"
        )
        texts = [row[0] for row in rows.fetchall()] + [json.dumps(body) for body in shop.bodies()] + [caplog.text]
        assert len(texts) > 3
        for secret in ("veryverysecret", "hunter2", "correct horse"):
            assert not [text for text in texts if secret in text], secret


def failures(shop, failed: int, done: int, type: str = "send_mail") -> None:
    shop.conn.execute(
        "insert into tick.stats (span, at, type, done, retried, runs, waits) values (60, tick.now(), %s, %s, %s, '{}', '{}')",
        [type, done, failed],
    )


class TestFailures:
    def test_a_type_of_which_half_the_attempts_fail_is_told_with_its_last_error(self, shop, conn):
        for _ in range(10):
            a_job(conn, "send_mail", payload={"error": "the server is away"})
        shop.settings = replace(shop.settings, alerts={"slack": "secret:slack", "dead": False})
        shop.ticks(3)
        assert "ValueError: the server is away" in json.dumps(shop.bodies())
        assert shop.told() == ["send_mail: 100 % of attempts fail"]

    @pytest.mark.parametrize(("failed", "done"), [(9, 0), (49, 51), (4, 5)])
    def test_less_than_ten_attempts_or_than_the_share_is_nothing(self, shop, failed, done):
        failures(shop, failed, done)
        shop.ticks(3)
        assert shop.told() == []

    def test_it_is_told_again_after_an_hour_and_recovers(self, shop):
        for _ in range(14):
            failures(shop, 8, 2)
            shop.tick(5)
        assert shop.told() == ["send_mail: 80 % of attempts fail"] * 2
        shop.ticks(8, minutes=5)
        (told,) = shop.told()
        assert told.startswith("Recovered after 1 h ")
        assert told.endswith(": attempts of send_mail succeed again")


class TestBacklog:
    def test_a_queue_that_does_not_shrink_is_told_and_so_is_that_it_has_caught_up(self, shop, conn):
        a_job(conn, "nobody_takes_it")
        shop.ticks(9)
        assert shop.told() == []
        shop.ticks(5)
        (told,) = shop.told()
        assert told.startswith("Falling behind: 1 job due, the oldest for 11 min")
        shop.ticks(7, minutes=3)
        assert shop.told() == []
        conn.execute("update tick.jobs set status = 'cancelled', finished_at = tick.now() where status = 'pending'")
        shop.ticks(2)
        assert shop.told() == ["Recovered after 25 min: the queue has caught up"]

    def test_one_that_shrinks_is_not(self, shop, conn):
        ids = [a_job(conn, "nobody_takes_it", run_at="-1 hour") for _ in range(12)]
        for id in ids:
            conn.execute("update tick.jobs set status = 'cancelled', finished_at = tick.now() where id = %s", [id])
            shop.tick()
        assert shop.told() == []

    def test_it_is_seen_by_ticks_that_are_far_apart(self, shop, conn):
        a_job(conn, "nobody_takes_it")
        for _ in range(6):
            shop.tick(7)
        assert len(shop.told()) == 1


class TestStoppedTicks:
    def test_the_next_tick_tells_of_the_gap_and_of_its_end_together(self, shop):
        shop.ticks(10)
        shop.tick(48, trigger="github")
        shop.tick()
        assert shop.told() == ["No tick from 2026-03-01 10:10 to 10:58 UTC"]
        shop.ticks(10)
        assert shop.told() == []
        assert shop.alerts() == {("stopped", ""): False}

    def test_flapping_ticks_are_told_of_once_an_hour(self, shop):
        shop.ticks(10)
        for _ in range(5):
            shop.tick(5)
            shop.ticks(2)
        assert len(shop.told()) == 1

    def test_an_interval_is_what_ticks_have_kept(self, shop):
        for _ in range(10):
            shop.tick(60)
        shop.tick(170)
        shop.tick(60)
        assert shop.told() == []
        shop.tick(190)
        shop.tick(1)
        assert len(shop.told()) == 1

    def test_a_few_ticks_are_no_interval(self, shop):
        shop.ticks(3)
        shop.tick(600)
        shop.ticks(2)
        assert shop.told() == []

    def test_a_trigger_that_stops_while_another_ticks_is_told_once_and_when_it_is_back(self, shop):
        for _ in range(8):
            shop.tick(0.5, trigger="vercel")
            shop.tick(0.5, trigger="github")
        shop.ticks(30, minutes=3, trigger="github")
        assert shop.told() == ["The trigger vercel has stopped"]
        shop.tick(trigger="vercel")
        shop.tick(trigger="github")
        (told,) = shop.told()
        assert told.startswith("Recovered after 1 h 2") and told.endswith("the trigger vercel ticks again")

    def test_after_an_outage_of_all_each_has_three_intervals_to_come_back(self, shop):
        for _ in range(8):
            shop.tick(0.5, trigger="vercel")
            shop.tick(0.5, trigger="github")
        shop.tick(60, trigger="github")
        shop.ticks(2, trigger="github")
        assert len(shop.told()) == 1
        shop.ticks(4, trigger="github")
        assert shop.told() == ["The trigger vercel has stopped"]

    def test_nobody_expects_a_person_to_tick(self, shop):
        shop.ticks(8, trigger="cli")
        shop.ticks(20, trigger="vercel")
        assert shop.told() == []


HOURLY = '[schedules.send-mail]\nevery = "1h"\npayload = { error = "no such address" }\n'


class TestMissedWindows:
    @pytest.fixture
    def shop(self, shop):
        shop.settings.schedules_path.write_text(HOURLY)
        shop.settings = replace(
            shop.settings, alerts={"slack": "secret:slack", "dead": False, "failure_rate": False, "stopped": False}
        )
        shop.tick(30)
        return shop

    def test_a_schedule_whose_last_three_windows_died_is_told_and_recovers_with_the_first_that_succeeds(self, shop):
        for _ in range(2):
            shop.tick(60)
        shop.ticks(2)
        assert shop.told() == []
        shop.tick(60)
        shop.ticks(2)
        (body,) = shop.bodies()
        assert "https://shop.example/dashboard/schedules/send-mail" in json.dumps(body)
        assert "ValueError: no such address" in json.dumps(body)
        assert shop.told() == ["send-mail: none of the last 3 windows succeeded"]
        shop.settings.schedules_path.write_text(HOURLY.replace("no such address", ""))
        shop.tick(60)
        shop.ticks(2)
        told = shop.told()[-1]
        assert told.startswith("Recovered after 1 h ") and told.endswith("a window of send-mail succeeded")

    def test_one_that_is_paused_or_removed_is_forgotten_without_a_word(self, shop, conn):
        for _ in range(3):
            shop.tick(60)
        shop.ticks(2)
        assert len(shop.told()) == 1
        conn.execute("update tick.schedules set paused = true")
        shop.ticks(2)
        assert (shop.told(), shop.alerts()) == ([], {("missed", "send-mail"): False})

    def test_windows_that_somebody_cancelled_or_that_wait_say_nothing(self, shop, conn):
        for _ in range(2):
            shop.tick(60)
        for status in ("cancelled", "pending"):
            a_job(
                conn,
                "send_mail",
                status,
                schedule="send-mail",
                window=shop.now + timedelta(minutes=len(status)),
                **({"run_at": "+1 hour"} if status == "pending" else {}),
            )
        shop.ticks(2)
        assert shop.told() == []

    def test_many_schedules_are_seen_page_by_page(self, shop, conn, monkeypatch):
        monkeypatch.setattr(watch, "PAGE", 2)
        text = "\n".join(HOURLY.replace("send-mail", f"s{n}") + 'type = "send_mail"' for n in range(5))
        shop.settings.schedules_path.write_text(text.replace("\npayload", "\ntimeout = '5s'\npayload"))
        shop.tick()
        for _ in range(3):
            shop.tick(60)
        shop.ticks(5)
        titles = re.findall(r"\*\W*(s\d): none of the last 3 windows", json.dumps(shop.bodies(), ensure_ascii=False))
        assert sorted(titles) == [f"s{n}" for n in range(5)]


class TestTogether:
    def test_of_two_ticks_at_once_one_tells(self, shop):
        shop.tick()
        shop.dies(count=3)
        shop.now += timedelta(minutes=1)
        move_clock(shop.conn, shop.now.isoformat())
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: tick(shop.settings), range(4)))
        shop.tick()
        assert shop.told() == ["send_mail: 3 jobs died"]

    def test_of_two_watches_at_once_one_writes(self, shop, settings, monkeypatch):
        """As when the first is so slow that its chore is due again, and both have looked before one of them writes."""
        shop.tick()
        shop.dies()
        look, looked = watch._look, asyncio.Barrier(2)

        async def look_and_wait(*args: Any) -> Any:
            seen = await look(*args)
            await looked.wait()
            return seen

        monkeypatch.setattr(watch, "_look", look_and_wait)

        async def both() -> None:
            async with database.connect(settings.database_url) as one, database.connect(settings.database_url) as two:
                queues = [Queue(each, lambda: database.open_connection(""), "tick") for each in (one, two)]
                shop.conn.execute("update tick.chores set due_at = tick.now()")
                first = await queues[0].begin_chore("watch", -1)
                second = await queues[1].begin_chore("watch", 60)
                await asyncio.gather(
                    watch.watch(queues[0], first, shop.settings, 5), watch.watch(queues[1], second, shop.settings, 5)
                )

        asyncio.run(both())
        assert shop.count("tick.jobs where type = 'tick.alert'") == 1

    def test_another_schema_does(self, fresh_url, settings, shop):
        other = replace(shop.settings, database_url=fresh_url, schema="other")

        async def migrate() -> None:
            async with database.connect(fresh_url) as connection:
                await database.migrate(connection, "other")

        asyncio.run(migrate())
        import psycopg

        tick(other)
        with psycopg.connect(fresh_url, autocommit=True) as conn:
            conn.execute("select other.enqueue('send_mail', '{\"error\": \"no\"}')")
            tick(other)
            conn.execute("update other.chores set due_at = other.now()")
            tick(other)
            tick(other)
            assert conn.execute("select rule, subject from other.alerts").fetchall() == [("dead", "send_mail")]
        assert shop.told() == ["send_mail: 1 job died"]


def health(shop, *, minutes: float = 0) -> int:
    """What a process that has not looked yet answers."""
    shop.now += timedelta(minutes=minutes)
    move_clock(shop.conn, shop.now.isoformat())
    return asked(shop)


def asked(shop) -> int:
    async def ask() -> int:
        transport = httpx.ASGITransport(web.create_app(shop.settings, registry))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.get("/health")).status_code

    return asyncio.run(ask())


class TestHealth:
    def test_it_tells_once_that_ticks_have_stopped_and_the_next_tick_that_they_are_back(self, shop):
        shop.ticks(10)
        assert health(shop, minutes=2) == 200
        assert shop.told() == []
        assert [health(shop, minutes=2) for _ in range(4)] == [503] * 4
        assert shop.told() == ["Ticks have stopped"]
        shop.tick(2)
        shop.tick()
        assert shop.told() == ["Recovered after 12 min: ticks are back, by vercel"]

    def test_of_many_processes_one_tells(self, shop):
        shop.ticks(10)
        shop.now += timedelta(minutes=5)
        move_clock(shop.conn, shop.now.isoformat())
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _: asked(shop), range(6))) == {503}
        assert shop.told() == ["Ticks have stopped"]

    def test_it_tells_again_after_an_hour(self, shop):
        shop.ticks(10)
        for _ in range(8):
            health(shop, minutes=10)
        assert shop.told() == ["Ticks have stopped"] * 2

    def test_when_nobody_could_be_told_it_is_tried_again_in_a_minute(self, shop):
        shop.ticks(10)
        shop.receiver.answers = [500]
        health(shop, minutes=5)
        health(shop)
        assert shop.told() == ["Ticks have stopped"]
        health(shop, minutes=1)
        health(shop, minutes=1)
        assert shop.told() == ["Ticks have stopped"]

    def test_a_deployment_without_alerts_tells_nothing(self, shop):
        shop.settings = replace(shop.settings, alerts={})
        shop.ticks(10)
        assert health(shop, minutes=5) == 503
        assert (shop.told(), shop.alerts()) == ([], {})

    def test_nor_does_one_that_switched_the_rule_off(self, shop):
        shop.settings = replace(shop.settings, alerts={"slack": "secret:slack", "stopped": False})
        shop.ticks(10)
        assert health(shop, minutes=5) == 503
        assert shop.told() == []


def test_every_statement_prepares(conn):
    for name, text in database.statements("watch").items():
        assert "%s" not in text, name


def test_the_rows_read_are_bounded(conn, shop):
    """The plans of what reads jobs: by indexes of the dead, of windows, and of ids."""
    questions = watch._questions(alerts.Rules(), alerts.Memory(since=START, counted=[1]))
    conn.execute("""
        insert into tick.jobs (type, schedule, "window", run_at, status, finished_at)
        select 'report', 'report', tick.now() - n * interval '1 minute', tick.now(), 'done', tick.now()
          from generate_series(1, 2000) n""")
    conn.execute("analyze tick.jobs")
    for name in ("deaths", "windows", "rates"):
        question = questions[name]
        text = database.statements(question.file)[question.name]
        with conn.transaction():
            conn.execute("set local enable_seqscan = off")
            plan = "\n".join(row[0] for row in conn.execute(f"explain {text}", question.params).fetchall())
        assert "Seq Scan on jobs" not in plan, (name, plan)
        index = {"deaths": "jobs_dead", "windows": "jobs_one_per_window", "rates": "jobs_pkey"}[name]
        assert index in plan, plan


def test_an_unknown_chore_is_left(shop, conn):
    conn.execute("insert into tick.chores (name) values ('sweep')")
    shop.tick()
    assert conn.execute("select due_at <= tick.now() from tick.chores where name = 'sweep'").fetchone() == (True,)
