"""What the platforms say, each in its own way. Who triggered a tick is in test_web.py, as requests."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace

import pytest

from tick import platforms
from tick.config import Settings
from tick.platforms import budget, seconds_left, trigger


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch):
    for name in ("VERCEL", "AWS_LAMBDA_FUNCTION_NAME", "CLOUD_RUN_TIMEOUT_SECONDS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def vercel(monkeypatch):
    """Vercel, with its runtime module and this deadline."""

    def runtime(deadline) -> None:
        module = ModuleType("vercel_runtime")
        module.get_deadline = lambda: deadline
        monkeypatch.setitem(sys.modules, "vercel_runtime", module)
        monkeypatch.setenv("VERCEL", "1")

    return runtime


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def a_lambda(seconds: float) -> dict:
    return {"aws.context": SimpleNamespace(get_remaining_time_in_millis=lambda: int(seconds * 1000))}


class TestBudget:
    @pytest.mark.parametrize(
        ("setting", "asked", "given"),
        [(None, None, 50), (20, None, 20), (300, None, 300), (None, 5, 5), (20, 5, 5), (20, 30, 20), (None, 60, 50)],
    )
    def test_is_what_was_asked_what_is_set_or_fifty_seconds_the_least(self, setting, asked, given):
        assert budget(Settings(budget=setting), asked=asked) == given

    @pytest.mark.parametrize("deadline", [in_seconds, lambda seconds: time.time() + seconds])
    def test_ends_before_vercel_does(self, vercel, deadline):
        vercel(deadline(30))
        assert 21 < budget(Settings()) <= 22
        assert 21 < budget(Settings(budget=300)) <= 22
        assert budget(Settings(), asked=5) == 5
        vercel(deadline(300))
        assert budget(Settings()) == 50
        assert budget(Settings(budget=200)) == 200

    def test_is_at_least_a_second_however_late_it_is(self, vercel):
        vercel(in_seconds(3))
        assert budget(Settings()) == 1
        vercel(in_seconds(-10))
        assert budget(Settings()) == 1

    def test_is_as_ever_where_vercel_does_not_say(self, vercel, monkeypatch):
        vercel(None)
        assert budget(Settings()) == 50
        monkeypatch.setitem(sys.modules, "vercel_runtime", None)
        assert budget(Settings()) == 50

    def test_ends_before_a_lambda_does(self, monkeypatch):
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
        assert budget(Settings(), scope=a_lambda(20)) == 12
        assert budget(Settings(), scope={}) == 50

    def test_believes_a_lambdas_context_only_in_a_lambda(self):
        assert budget(Settings(), scope=a_lambda(20)) == 50

    @pytest.mark.parametrize(
        ("said", "given"), [("30", 22), ("60", 50), ("3600", 50), ("", 50), ("soon", 50), ("-5", 50)]
    )
    def test_ends_before_a_cloud_run_function_does(self, monkeypatch, said, given):
        monkeypatch.setenv("CLOUD_RUN_TIMEOUT_SECONDS", said)
        assert budget(Settings()) == given

    def test_nobody_says_anything_on_a_plain_server(self):
        assert seconds_left({}) is None


class TestTrigger:
    def test_has_a_name_that_a_log_can_hold_whatever_is_sent(self):
        for given in ("\0", "a b", "A", "x" * 41, "", "é", "a\n"):
            assert trigger({"x-tick-trigger": given}).trigger == "http"
        assert trigger({"x-tick-trigger": "my-cron.1_a"}).trigger == "my-cron.1_a"

    def test_has_a_delivery_id_that_postgres_can_hold(self):
        made = trigger({"x-tick-trigger": "a", "x-tick-delivery-id": "a\0" * 1000})
        assert made.delivery_id == "a" * 100

    @pytest.mark.parametrize(
        ("said", "meant"),
        [
            ("2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
            ("2026-03-01T10:00:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
            ("2026-03-01T11:00:00+01:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
            ("now", None), ("", None), ("1772359200", None),
        ],
    )  # fmt: skip
    def test_has_an_instant_only_if_it_is_one(self, said, meant):
        headers = {"x-cloudscheduler-jobname": "minutely", "x-cloudscheduler-scheduletime": said}
        assert trigger(headers).scheduled_for == meant

    @pytest.mark.parametrize(
        ("headers", "named"),
        [
            ({}, ("cloudevents", "e1")),
            ({"ce-specversion": "1.0"}, ("cloudevents", "e1")),
            ({"ce-specversion": "0.3"}, ("http", None)),
            ({"ce-specversion": ""}, ("http", None)),
            ({"ce-specversion": "2.0", "ce-type": "com.vercel.schedule.v1"}, ("http", None)),
            ({"ce-id": ""}, ("http", None)),
            ({"ce-source": ""}, ("http", None)),
            ({"ce-type": ""}, ("http", None)),
            ({"ce-type": "com.vercel.schedule.v1"}, ("vercel", "e1")),
            ({"x-tick-trigger": "mine"}, ("mine", None)),
            ({"upstash-message-id": "m1"}, ("qstash", "m1")),
        ],
        ids=str,
    )
    def test_of_a_cloud_event_is_named_by_its_id(self, headers, named):
        event = {"ce-id": "e1", "ce-source": "/clock", "ce-type": "com.example.minute"}
        assert trigger(event | headers)[:2] == named


def test_the_margin_is_more_than_the_grace_and_vercels_own_kill():
    from tick.config import GRACE

    assert platforms.MARGIN >= GRACE + 5
