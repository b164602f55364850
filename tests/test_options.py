"""The options of an enqueue: what each makes of a job, and how each is refused."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, date, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tick.errors import InvalidPayload
from tick.jobs import NewJob
from tick.options import KEY_ORDERS, ON_CONFLICTS, Given, Options, seconds

AT = datetime(2031, 5, 1, tzinfo=UTC)
NEXT = NewJob("next", b"{}")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def made(**options) -> NewJob:
    return Options(**options).new_job("greet", b'{"name":"Ada"}')


class TestWhatAnOptionMakes:
    def test_without_any_the_rest_is_left_to_the_type(self):
        assert made() == NewJob("greet", b'{"name":"Ada"}')
        assert made().fields() == {"type": "greet", "payload": msgspec.Raw(b'{"name":"Ada"}')}

    @pytest.mark.parametrize(
        ("options", "columns"),
        [
            ({"run_at": AT}, {"run_at": AT}),
            ({"delay": "1h30m"}, {"delay": 5400.0}),
            ({"delay": -60}, {"delay": -60.0}),
            ({"priority": -32768}, {"priority": -32768}),
            ({"key": "user:7"}, {"key": "user:7"}),
            ({"key_order": "strict"}, {"strict_key": True}),
            ({"key_order": "loose"}, {"strict_key": False}),
            ({"idempotency_key": "order 7"}, {"idempotency_key": "order 7"}),
            ({"idempotency_key": "a", "on_conflict": "replace"}, {"idempotency_key": "a", "on_conflict": "replace"}),
            ({"max_wait": timedelta(minutes=5)}, {"max_wait": 300.0}),
            ({"throttle": "1m"}, {"throttle": 60.0}),
            ({"max_attempts": 100}, {"max_attempts": 100}),
            ({"timeout": 0.5}, {"timeout": 0.5}),
            ({"callback_url": "https://example.com/done?id=1"}, {"callback_url": "https://example.com/done?id=1"}),
            ({"on_dead_url": "http://127.0.0.1:8000/"}, {"on_dead_url": "http://127.0.0.1:8000/"}),
            ({"then": NEXT}, {"then": (NEXT,)}),
            ({"then": [NEXT, NEXT]}, {"then": (NEXT, NEXT)}),
            ({"then": []}, {"then": None}),
            ({"traceparent": TRACE}, {"traceparent": TRACE}),
        ],
        ids=str,
    )
    def test_each_is_a_part_of_the_job_and_nothing_else(self, options, columns):
        assert made(**options) == made()._replace(**columns)

    def test_what_a_handler_says_gives_way_to_an_option(self):
        assert Options().new_job("greet", b"{}", priority=5, strict=True)[:7] == (
            "greet",
            b"{}",
            None,
            None,
            5,
            None,
            True,
        )
        given = Options(priority=0, key_order="loose").new_job("greet", b"{}", priority=5, strict=True)
        assert (given.priority, given.strict_key) == (0, False)

    def test_jobs_that_come_after_are_written_within_it(self):
        job = Options(then=[Options(then=NEXT).new_job("second", b"[]"), NEXT]).new_job("first", b"{}")
        assert msgspec.json.decode(msgspec.json.encode(job.fields())) == {
            "type": "first",
            "payload": {},
            "then": [
                {"type": "second", "payload": [], "then": [{"type": "next", "payload": {}}]},
                {"type": "next", "payload": {}},
            ],
        }


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"run_at": datetime(2031, 5, 1)}, "run_at=datetime.datetime(2031, 5, 1, 0, 0) "),
            ({"run_at": "2031-05-01"}, "run_at='2031-05-01' "),
            ({"run_at": date(2031, 5, 1)}, "run_at=datetime.date(2031, 5, 1) "),
            ({"delay": "soon"}, "delay='soon' is not a time of up to ten years"),
            ({"delay": "11 years"}, "delay='11 years' is not a time of up to ten years"),
            ({"delay": timedelta(days=3700)}, "up to ten years"),
            ({"delay": float("nan")}, "delay=nan is not"),
            ({"delay": float("-inf")}, "delay=-inf is not"),
            ({"delay": [1]}, "delay=[1] is not"),
            ({"delay": b"1h"}, "delay=b'1h' is not"),
            ({"priority": 32768}, "priority=32768 is not from -32768 to 32767"),
            ({"priority": True}, "priority=True is not"),
            ({"priority": 1.0}, "priority=1.0 is not"),
            ({"priority": "high"}, "priority='high' is not"),
            ({"key": ""}, "key='' is not a text of 1 to 512 bytes, without NUL"),
            ({"key": "é" * 257}, "1 to 512 bytes"),
            ({"key": "a\0"}, "without NUL"),
            ({"key": 7}, "key=7 is not a text"),
            ({"key_order": "Strict"}, "key_order='Strict' is not loose or strict"),
            ({"key_order": ["strict"]}, "key_order=['strict'] is not"),
            ({"idempotency_key": ""}, "idempotency_key='' is not a text of 1 to 512 bytes"),
            ({"idempotency_key": 7}, "idempotency_key=7 is not"),
            ({"idempotency_key": "a", "on_conflict": "explode"}, "on_conflict='explode' is not keep, replace or postpone"),
            ({"on_conflict": "replace"}, "on_conflict='replace' is about an idempotency_key, and there is none"),
            ({"on_conflict": "postpone"}, "on_conflict='postpone' is about an idempotency_key"),
            ({"max_wait": -1}, "max_wait=-1 is not a time of up to ten years"),
            ({"throttle": 0}, "throttle=0 is not a time from one second to a year"),
            ({"throttle": "367d"}, "throttle='367d' is not"),
            ({"throttle": "1m", "idempotency_key": "a"}, "throttle and idempotency_key are both given; keep one"),
            ({"max_attempts": 0}, "max_attempts=0 is not from 1 to 100"),
            ({"max_attempts": 101}, "max_attempts=101 is not from 1 to 100"),
            ({"timeout": 0}, "timeout=0 is not a time of up to a day"),
            ({"timeout": "25h"}, "timeout='25h' is not a time of up to a day"),
            ({"callback_url": "ftp://example.com"}, "callback_url='ftp://example.com' is not an http:// or https:// URL"),
            ({"callback_url": "example.com"}, "callback_url='example.com' is not"),
            ({"callback_url": "https://example.com/\n"}, "without spaces"),
            ({"callback_url": "https://example.com/" + "x" * 2000}, "at most 2,000 characters"),
            ({"on_dead_url": "https://a b"}, "on_dead_url='https://a b' is not"),
            ({"then": "greet"}, "then='greet' is not a job to be, or a list of them: write handler.of(...)"),
            ({"then": [NEXT, "greet"]}, "is not a job to be"),
            ({"traceparent": "00-abc"}, "traceparent='00-abc' is not a traceparent of W3C Trace Context"),
            ({"traceparent": TRACE.upper()}, "is not a traceparent"),
        ],
        ids=str,
    )  # fmt: skip
    def test_names_the_option_and_what_it_can_be(self, options, said):
        with pytest.raises(InvalidPayload) as raised:
            made(**options)
        assert said in str(raised.value)
        assert raised.value.type == "greet"

    def test_tells_all_problems_in_one_go(self):
        problems = Options(priority=70_000, key="", throttle="1m", idempotency_key="").problems()
        assert [problem.split("=")[0] for problem in problems] == [
            "priority",
            "key",
            "idempotency_key",
            "throttle and idempotency_key are both given; keep one",
        ]

    def test_every_option_has_a_test_here(self):
        tested = {
            name
            for mark in TestWhatIsRefused.test_names_the_option_and_what_it_can_be.pytestmark
            for options, _ in mark.args[1]
            for name in options
        }
        assert tested == {field.name for field in fields(Options)}

    @pytest.mark.parametrize("name", [field.name for field in fields(Options)])
    def test_none_is_an_option_that_is_not_given(self, name):
        assert Options(**{name: None}).problems() == []


class TestTheNamesAgree:
    def test_of_the_options_and_of_what_type_checkers_read(self):
        assert Given.__annotations__.keys() == {field.name for field in fields(Options)}
        assert Given.__optional_keys__ == Given.__annotations__.keys()

    def test_every_option_is_told_in_the_docstring(self):
        for field in fields(Options):
            assert f"\n        {field.name}: " in Options.__doc__

    def test_the_words_that_can_be_given(self):
        assert all(Options(key_order=word).problems() == [] for word in KEY_ORDERS)
        assert all(Options(idempotency_key="a", on_conflict=word).problems() == [] for word in ON_CONFLICTS)


class TestSeconds:
    @pytest.mark.parametrize(
        ("duration", "expected"),
        [("90s", 90.0), ("1h30m", 5400.0), (90, 90.0), (0.25, 0.25), (timedelta(minutes=2), 120.0), (-5, -5.0)],
    )
    def test_takes_texts_numbers_and_timedeltas(self, duration, expected):
        assert seconds(duration) == expected

    @given(st.integers(1, 366 * 86400))
    def test_a_text_and_a_number_say_the_same(self, number):
        assert seconds(f"{number}s") == seconds(number) == seconds(timedelta(seconds=number))


@given(
    st.datetimes(
        datetime(2000, 1, 2),
        datetime(9998, 1, 1),
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5)), timezone(timedelta(hours=14))]),
    ),
    st.integers(-32768, 32767),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=128),
    st.floats(1, 86400),
)
def test_what_is_within_bounds_is_written_as_it_is(at, priority, key, throttle):
    job = made(run_at=at, priority=priority, key=key, throttle=throttle)
    assert (job.run_at, job.priority, job.key, job.throttle) == (at, priority, key, throttle)
    assert msgspec.json.decode(msgspec.json.encode(job.fields()))["key"] == key
