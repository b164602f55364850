"""The rules and the words of alerts: plain values in, plain values out."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tick import alerts
from tick.alerts import Alert, Facts, Finding, Judged, Memory, Rules

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MEMORY = Memory(since=NOW - timedelta(minutes=1))
RULES = Rules()
POO = "\N{PILE OF POO}"


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def kind(type: str = "send_mail", count: int = 1, error: str = "ValueError: no", **rest: Any) -> dict[str, Any]:
    """A row of the deaths."""
    row = {"type": type, "fingerprint": error, "clean": True, "count": count, "last_id": 7, "last_error": error}
    return row | {"first_at": NOW, "last_at": NOW, "fresh": [7]} | rest


def died(count: int = 1, type: str = "send_mail") -> Finding:
    (finding,) = alerts.find(RULES, Facts(NOW, deaths=[kind(type, count)]), MEMORY)
    return finding


def judged(
    found: list[Finding], *known: Alert, now: datetime = NOW, rules: Rules = RULES, **facts: Any
) -> list[Judged]:
    return alerts.judge(rules, Facts(now, **facts), found, known)


def title(each: Judged, now: datetime = NOW) -> str:
    message = alerts.message("shop", [each], now)
    assert message
    return message.title


class TestRules:
    def test_they_are_all_on_unless_one_is_switched_off(self):
        assert all(getattr(Rules.of({}), name) for name in ("dead", "failure_rate", "backlog", "stopped", "missed"))

    def test_what_is_written_becomes_seconds_and_comes_back_from_json(self):
        rules = Rules.of({"slack": ("secret:slack",), "backlog": minutes(5), "missed": False, "mute": ["a"]})
        assert rules == Rules(backlog=300, missed=False, mute=("a",))
        assert Rules.of(msgspec.json.decode(msgspec.json.encode(asdict(rules)))) == rules

    def test_what_another_version_has_set_is_left_out(self):
        assert Rules.of({"moon": "full"}) == Rules()


class TestTargets:
    def test_each_has_a_name_that_gives_no_secret_away(self):
        table = {"slack": "secret:slack", "webhook": ("https://example.com/T0/B0/x",), "email": ["a@example.com"]}
        named = alerts.targets(table)
        assert [*named.values()] == ["secret:slack", "https://example.com/T0/B0/x", "a@example.com"]
        assert [target.channel for target in named] == ["slack", "webhook", "email"]
        assert "T0" not in str([*named])

    def test_two_urls_of_one_host_have_different_names(self):
        assert alerts.reference("https://example.com/a") != alerts.reference("https://example.com/b")


class TestDeaths:
    def test_a_type_is_one_finding_with_its_kinds_of_error_the_most_frequent_first(self):
        rows = [kind("b"), kind("a", 2, "X"), kind("a", 5, "Y")]
        first, second = alerts.find(RULES, Facts(NOW, deaths=rows), MEMORY)
        assert (first.subject, first.count, [each["last_error"] for each in first.details["kinds"]]) == (
            "a",
            7,
            ["Y", "X"],
        )
        assert second.subject == "b"

    def test_a_finding_raises_one_alert(self):
        (each,) = judged([died(3)])
        assert (each.tells, each.alert.count, title(each)) == ("raised", 3, "send_mail: 3 jobs died")
        assert alerts.told(each, NOW).untold == 0

    def test_more_deaths_are_added_up_until_they_are_told(self):
        alert = alerts.told(judged([died(3)])[0], NOW)
        for _ in range(2):
            (each,) = judged([died(2)], alert, now=NOW + minutes(5))
            assert each.tells == ""
            alert = alerts.told(each, NOW + minutes(5))
        (each,) = judged([died(1)], alert, now=NOW + minutes(60))
        assert (each.tells, each.alert.count, each.alert.untold) == ("lasts", 8, 5)
        assert title(each) == "send_mail: 5 more jobs died"
        assert [k["count"] for k in each.alert.details["kinds"]] == [5]

    @settings(deadline=None)
    @given(st.lists(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 9)), max_size=4), max_size=30))
    def test_every_death_is_told_exactly_once_in_the_end(self, watches):
        alert, now, told = None, NOW, 0
        for deaths in [*watches, *[[]] * 90]:
            now += minutes(1)
            rows = [kind(count=count, error=error, first_at=now, last_at=now) for error, count in dict(deaths).items()]
            found = alerts.find(RULES, Facts(now, deaths=rows), MEMORY)
            for each in judged(found, *([alert] if alert else []), now=now):
                told += each.alert.untold if each.tells in ("raised", "lasts") else 0
                alert = alerts.told(each, now)
        assert told == sum(count for deaths in watches for _, count in dict(deaths).items())
        assert alert is None or alert.ended_at

    @pytest.mark.parametrize("count", [1, 7])
    def test_the_end_does_not_say_what_has_become_of_the_dead(self, count):
        (raised,) = judged([died(count)])
        said = title(Judged(raised.alert, "recovered"))
        assert said == f"Recovered: no more jobs of send_mail die; {count} did, look at what is still dead"

    def test_kinds_beyond_the_fourth_are_counted(self):
        (finding,) = alerts.find(RULES, Facts(NOW, deaths=[kind(error=str(n)) for n in range(9)]), MEMORY)
        (part,) = alerts.message("shop", judged([finding]), NOW).parts
        assert part.lines[4:] == ["and 5 other kinds of error", "Since 2026-03-01 12:00 UTC"]


class TestBacklog:
    def depth(self, age: float, due: int = 5) -> dict[str, Any]:
        return {"due": due, "oldest_due": NOW - timedelta(seconds=age) if due else None}

    def memory(self, *samples: tuple[float, int, float]) -> Memory:
        return replace(MEMORY, samples=[(NOW.timestamp() - before, due, age) for before, due, age in samples])

    @pytest.mark.parametrize(
        ("samples", "raises"),
        [
            ([], False),
            ([(120, 5, 500)], False),
            ([(240, 5, 500)], True),
            ([(240, 4, 500)], True),
            ([(240, 6, 500)], False),
            ([(240, 5, 900)], False),
            ([(900, 6, 500), (240, 5, 500)], True),
            ([(240, 6, 500), (60, 5, 500)], False),
        ],
    )
    def test_only_one_that_did_not_shrink_for_five_minutes_raises(self, samples, raises):
        (finding,) = alerts.find(RULES, Facts(NOW, depth=[self.depth(700)]), self.memory(*samples))
        assert finding.raises == raises

    def test_a_young_queue_is_none_however_long(self):
        assert not alerts.find(RULES, Facts(NOW, depth=[self.depth(599, 10_001)]), self.memory((240, 5, 5)))
        assert not alerts.find(RULES, Facts(NOW, depth=[self.depth(0, 0)]), self.memory((240, 5, 5)))

    def test_one_that_is_told_goes_on_while_it_shrinks_and_ends_when_it_is_young(self):
        old = Alert("backlog", "", NOW, NOW, told_at=NOW)
        shrinking = Finding("backlog", "", NOW, NOW, 5, {"oldest": 700.0}, raises=False)
        assert judged([shrinking]) == []
        (each,) = judged([shrinking], old)
        assert (each.tells, each.alert.ended_at) == ("", None)
        (each,) = judged([], old, now=NOW + minutes(3))
        assert title(each, NOW + minutes(3)) == "Recovered after 3 min: the queue has caught up"

    def test_the_last_sample_is_kept_however_old(self):
        facts = Facts(NOW, depth=[self.depth(5)])
        memory = alerts.remember(self.memory((4000, 1, 1), (3600, 2, 2), (200, 3, 3)), facts, [], 500)
        assert [due for _, due, _ in memory.samples] == [2, 3, 5]

    def test_ten_thousand_are_a_bound(self):
        finding = Finding("backlog", "", NOW, NOW, 10_001, {"oldest": 840.0})
        assert title(judged([finding])[0]) == "Falling behind: 10,000+ jobs due, the oldest for 14 min"


def ticks(*minutes_ago: float, trigger: str = "vercel") -> list[dict[str, Any]]:
    return [{"started_at": NOW - minutes(ago), "trigger": trigger} for ago in minutes_ago]


class TestStopped:
    def test_a_gap_is_told_with_its_end(self):
        rows = ticks(0, 48, 49, 50, 51, 52, 53)
        (finding,) = alerts.find(RULES, Facts(NOW, ticks=rows), MEMORY)
        (each,) = judged([finding])
        assert (each.tells, title(each)) == ("over", "No tick from 2026-03-01 11:12 to 12:00 UTC")
        assert each.alert.ended_at == NOW

    def test_over_midnight_both_dates_are_told(self):
        finding = Finding("stopped", "", NOW - minutes(800), NOW, details={"by": "github"}, over=True)
        assert title(judged([finding])[0]) == "No tick from 2026-02-28 22:40 to 2026-03-01 12:00 UTC"

    @pytest.mark.parametrize(
        "rows",
        [ticks(0, 3, 4, 5, 6, 7, 8, 9), ticks(0, 48, 49, 50), ticks(0), [], ticks(0, 20, 30, 40, 50, 60, 70)],
        ids=["three minutes", "too few", "the first", "none", "rare"],
    )
    def test_what_is_no_gap(self, rows):
        assert alerts.find(RULES, Facts(NOW, ticks=rows), MEMORY) == []

    def test_one_that_an_earlier_watch_has_seen_is_not_found_again(self):
        rows = ticks(0, 48, 49, 50, 51, 52, 53)
        facts = Facts(NOW, ticks=rows)
        memory = alerts.remember(MEMORY, facts, alerts.find(RULES, facts, MEMORY), 500)
        assert memory.back_at == NOW
        assert alerts.find(RULES, facts, memory) == []

    def test_what_health_has_told_is_told_to_be_over(self):
        told = Alert("stopped", "", NOW - minutes(48), NOW - minutes(40), told_at=NOW - minutes(40))
        finding = Finding("stopped", "", NOW - minutes(48), NOW, details={"by": "github"}, over=True)
        (each,) = judged([finding], told)
        assert title(each) == "Recovered after 48 min: ticks are back, by github"

    def test_it_is_over_too_when_no_gap_can_be_seen(self):
        told = Alert("stopped", "", NOW - minutes(48), NOW - minutes(40), told_at=NOW - minutes(40))
        assert title(judged([], told)[0]) == "Recovered after 48 min: ticks are back"

    def trigger(self, **changed: Any) -> dict[str, Any]:
        return {"trigger": "vercel", "ticks": 20, "last_tick": NOW - minutes(20), "gap": 60.0} | changed

    @pytest.mark.parametrize(
        ("changed", "found"),
        [
            ({}, 1),
            ({"last_tick": NOW - minutes(3)}, 0),
            ({"gap": 600.0}, 0),
            ({"gap": 300.0}, 1),
            ({"ticks": 4}, 0),
            ({"gap": None, "ticks": 1}, 0),
            ({"gap": 5.0}, 0),
            ({"trigger": "cli"}, 0),
            ({"trigger": "doorbell"}, 0),
        ],
    )
    def test_a_trigger_that_came_regularly_and_does_no_more(self, changed, found):
        assert len(alerts.find(RULES, Facts(NOW, triggers=[self.trigger(**changed)]), MEMORY)) == found

    def test_it_is_told_once_and_forgotten_when_nobody_remembers_it(self):
        (finding,) = alerts.find(RULES, Facts(NOW, triggers=[self.trigger()]), MEMORY)
        alert = alerts.told(judged([finding])[0], NOW)
        assert judged([finding], alert, now=NOW + minutes(600))[0].tells == ""
        (each,) = judged([], alert, now=NOW + minutes(600))
        assert (each.tells, bool(each.alert.ended_at)) == ("", True)


class TestWindows:
    def rows(self, *how: str, schedule: str = "nightly") -> list[dict[str, Any]]:
        return [
            {"schedule": schedule, "paged": True, "last_id": n, "status": status.removesuffix("!"), "window": NOW, "failed": status.endswith("!"), "last_error": "KeyError: 'x'"}
            for n, status in enumerate(how)
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("how", "found"),
        [
            (["dead", "dead", "dead"], 1),
            (["pending!", "dead", "dead"], 1),
            (["dead", "dead", "done"], 0),
            (["dead", "dead", "dead", "done"], 1),
            (["dead", "dead"], 0),
            (["pending", "running", "dead", "cancelled", "dead", "dead"], 1),
            (["pending", "pending", "pending"], 0),
            (["done"], 0),
        ],
    )
    def test_three_that_did_not_succeed_and_none_that_is_only_waiting(self, how, found):
        assert len(alerts.find(RULES, Facts(NOW, windows=self.rows(*how)), MEMORY)) == found

    @pytest.mark.parametrize(
        ("how", "recovers"),
        [
            (["done", "dead", "dead", "dead"], True),
            (["pending", "done", "dead", "dead"], True),
            (["pending", "dead", "dead"], False),
            (["pending!", "running", "cancelled"], False),
            (["dead", "dead", "dead", "done"], False),
            ([], False),
        ],
    )
    def test_it_has_recovered_only_when_the_newest_that_ended_succeeded(self, how, recovers):
        (raised,) = judged(alerts.find(RULES, Facts(NOW, windows=self.rows("dead", "dead", "dead")), MEMORY))
        told = alerts.told(raised, NOW)
        nothing = self.rows("dead")[0] | {"status": None, "window": None}
        (each,) = judged(
            [], told, now=NOW + minutes(5), rules=replace(RULES, missed=5), windows=self.rows(*how) or [nothing]
        )
        assert (each.tells, bool(each.alert.ended_at)) == (("recovered", True) if recovers else ("", False))

    @pytest.mark.parametrize("changed", [{"rules": replace(RULES, missed=False)}, {"windows": []}])
    def test_it_ends_without_a_word_when_the_rule_or_the_schedule_is_gone(self, changed):
        (raised,) = judged(alerts.find(RULES, Facts(NOW, windows=self.rows("dead", "dead", "dead")), MEMORY))
        (each,) = judged([], alerts.told(raised, NOW), **({"windows": self.rows("dead", "dead")} | changed))
        assert (each.tells, bool(each.alert.ended_at)) == ("", True)

    def test_a_schedule_without_windows_is_one_row_of_nothing(self):
        row = dict.fromkeys(("last_id", "status", "window", "failed", "last_error")) | {
            "schedule": "new",
            "paged": True,
        }
        assert alerts.find(RULES, Facts(NOW, windows=[row]), MEMORY) == []

    def test_pages_follow_one_another_and_begin_anew(self):
        rows = [*self.rows("dead", schedule="a"), *self.rows("done", "done", schedule="b")]
        rows.insert(0, rows[0] | {"schedule": "z", "paged": False})
        assert alerts.remember(MEMORY, Facts(NOW, windows=rows), [], 2).after == "b"
        assert alerts.remember(MEMORY, Facts(NOW, windows=rows), [], 3).after == ""


class TestMessages:
    def test_nothing_to_tell_is_no_message(self):
        assert alerts.message("shop", [Judged(Alert("dead", "a", NOW, NOW))], NOW) is None

    def test_what_hurts_stands_before_what_is_over(self):
        over = Judged(Alert("failing", "b", NOW, NOW, told_at=NOW), "recovered")
        (each,) = judged([died()])
        message = alerts.message("shop", [over, each], NOW)
        assert message.title == "send_mail: 1 job died; and 1 more"
        assert [part.good for part in message.parts] == [False, True]
        assert not message.good

    def test_more_than_a_dozen_are_named_only(self):
        message = alerts.message("shop", judged([died(1, f"type_{n:03}") for n in range(300)]), NOW)
        assert len(message.parts) == 13
        assert message.parts[-1].title == "288 more alerts"
        assert len(msgspec.json.encode(message)) < 65_536

    def test_a_message_of_the_worst_fits_a_payload(self):
        types, errors = ([f"{n}{POO * 99}" for n in range(count)] for count in (13, 4))
        rows = [kind(type, 9, error + POO * 100, last_error=error * 10) for type in types for error in errors]
        found = alerts.find(RULES, Facts(NOW, deaths=rows), MEMORY)
        assert len(msgspec.json.encode(alerts.message("shop", judged(found), NOW))) < 131_072

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("a\nb\r\n\tc", "a b c"),
            ("a\0b\x1b[31mc", "a b [31mc"),
            ("right\N{RIGHT-TO-LEFT OVERRIDE}tfel", "right tfel"),
            ("", "(no name)"),
            ("\n", "(no name)"),
            ("x" * 200, "x" * 99 + "…"),
            ("\N{PILE OF POO}", "\N{PILE OF POO}"),
        ],
    )
    def test_a_name_is_one_line_whatever_it_is(self, text, shown):
        assert alerts.name(text) == shown

    def test_a_megabyte_of_error_is_a_line(self):
        assert len(alerts.line("x" * 1_000_000)) == 200

    def test_every_rule_has_words_for_each_thing_there_is_to_tell(self):
        found = {
            "dead": died(),
            "failing": Finding("failing", "a", NOW, NOW, 8, {"attempts": 10, "last_error": None}),
            "backlog": Finding("backlog", "", NOW, NOW, 8, {"oldest": 700.0}),
            "stopped": Finding("stopped", "vercel", NOW, NOW, 1, {"last": NOW, "gap": 60.0}),
            "missed": Finding("missed", "a", NOW, NOW, 3, {"window": NOW, "last_id": 1, "last_error": "no"}),
        }
        for rule, finding in found.items():
            (each,) = judged([finding])
            kept = Alert(**asdict(alerts.told(each, NOW)) | {"details": msgspec.to_builtins(each.alert.details)})
            for tells in ("raised", "lasts", "recovered"):
                message = alerts.message("shop", [Judged(kept, tells)], NOW + minutes(61))
                assert message.parts[0].links[-1].path.startswith("/dashboard"), rule
                assert msgspec.convert(msgspec.to_builtins(message), alerts.Message) == message


def test_a_memory_comes_back_from_json_and_begins_with_an_instant_alone():
    memory = Memory(NOW, 3, [1, 2], [(1.5, 2, 3.25)], "nightly", NOW)
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(memory)), Memory) == memory
    assert msgspec.convert({"since": "2026-03-01T12:00:00+00:00"}, Memory) == Memory(NOW)
