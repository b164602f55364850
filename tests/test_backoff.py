"""How long a failed job waits."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tick import backoff
from tick.backoff import Backoff
from tick.errors import ConfigurationError

failures = some.integers(1, 10_000)
ids = some.integers(1, 2**63 - 1)
sensible = some.builds(
    Backoff,
    base=some.floats(0.001, 1e6),
    factor=some.floats(1, 100),
    cap=some.floats(0.001, 1e6),
)


def test_the_examples_are_true():
    assert doctest.testmod(backoff).failed == 0


def test_the_default_is_half_a_minute_four_times_longer_each_time_to_an_hour():
    assert [Backoff().before_jitter(n) for n in (1, 2, 3, 4, 5, 99)] == [30, 120, 480, 1920, 3600, 3600]


def test_a_ladder_stays_on_its_last_step():
    ladder = Backoff(ladder=(5, 60, 600))
    assert [ladder.before_jitter(n) for n in (1, 2, 3, 4, 1000)] == [5, 60, 600, 600, 600]


def test_a_ladder_may_have_a_step_of_nought():
    assert Backoff(ladder=(0, 1)).delay(1, 7) == 0


@given(sensible, failures, ids)
def test_the_wait_is_within_a_fifth_of_the_plan(plan, failures, id):
    before = plan.before_jitter(failures)
    assert 0 < before <= plan.cap
    assert math.isclose(plan.delay(failures, id), before, rel_tol=0.2 + 1e-9)


@given(sensible, failures)
def test_the_plan_never_gets_shorter(plan, failures):
    assert plan.before_jitter(failures) <= plan.before_jitter(failures + 1)


@given(failures, ids)
def test_the_same_failure_of_the_same_job_always_waits_the_same_time(failures, id):
    assert Backoff().delay(failures, id) == Backoff().delay(failures, id)


def test_jobs_that_fail_together_do_not_come_back_together():
    waits = [Backoff().delay(1, id) for id in range(1000)]
    assert len(set(waits)) == 1000
    assert min(waits) < 25 and max(waits) > 35
    assert 29 < sum(waits) / 1000 < 31


def test_the_failures_of_one_job_have_their_own_jitter():
    flat = Backoff(factor=1)
    assert len({flat.delay(n, 7) for n in range(1, 100)}) == 99


@pytest.mark.parametrize(
    "options",
    [{"base": 0}, {"base": -1}, {"factor": 0.5}, {"factor": 101}, {"cap": 0}, {"ladder": (5, -1)},
     {"base": math.nan}, {"factor": math.nan}, {"cap": math.nan}, {"ladder": (math.nan,)}],
    ids=str,
)  # fmt: skip
def test_refuses_what_is_no_plan(options):
    with pytest.raises(ConfigurationError, match="above 0 seconds"):
        Backoff(**options)
