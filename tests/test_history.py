"""How long a type takes, as a histogram remembers it."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tick import history
from tick.history import BUCKETS, Durations, bucket, percentile, upper_bound

runs = some.floats(0, 1800)


def test_the_examples_are_true():
    assert doctest.testmod(history).failed == 0


@given(runs)
def test_a_run_is_in_the_bucket_that_just_holds_it(seconds):
    index = bucket(seconds)
    assert 0 <= index < BUCKETS
    assert seconds <= upper_bound(index) * (1 + 1e-9)
    assert index == 0 or seconds > upper_bound(index - 1) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("seconds", "index"), [(-1, 0), (0, 0), (0.001, 0), (0.0011, 1), (1.024, 20), (1800, 42), (1e9, 43)]
)
def test_whatever_a_clock_says_has_a_bucket(seconds, index):
    assert bucket(seconds) == index


@given(some.lists(runs, min_size=5, max_size=60), some.floats(0.01, 1))
def test_that_share_of_the_runs_ended_within_the_percentile(durations, share):
    histogram = [0] * BUCKETS
    for seconds in durations:
        histogram[bucket(seconds)] += 1
    limit = percentile(histogram, share)
    within = sum(seconds <= limit * (1 + 1e-9) for seconds in durations)
    assert within >= share * len(durations) - 1e-9
    assert limit <= upper_bound(bucket(max(durations)))


def test_of_too_few_runs_it_says_nothing():
    assert percentile([4] + [0] * 43) is None
    assert percentile([5] + [0] * 43) == 0.001
    assert percentile([]) is None


def test_one_slow_run_in_a_hundred_does_not_make_a_type_slow():
    histogram = [0] * BUCKETS
    histogram[10], histogram[40] = 99, 1
    assert percentile(histogram) == upper_bound(10)


class TestDurations:
    def test_expects_what_earlier_ticks_knew_and_not_what_this_one_sees(self):
        durations = Durations({"slow": [0] * 20 + [10], "rare": [1]})
        for _ in range(10):
            durations.record("slow", 100.0)
        assert durations.expected("slow") == 1.024
        assert (durations.expected("rare"), durations.expected("new")) == (None, None)

    def test_gives_the_rows_to_add(self):
        durations = Durations({})
        for seconds in (0.0005, 0.0005, 1.0):
            durations.record("b", seconds)
        durations.record("a", 1.0)
        first, second = durations.rows()
        assert (first["type"], second["type"]) == ("a", "b")
        assert (second["durations"][0], second["durations"][20], sum(second["durations"])) == (2, 1, 3)
        assert len(second["durations"]) == BUCKETS
        assert Durations({}).rows() == []

    def test_its_mean_starts_with_the_first_run_and_follows_the_latest(self):
        durations = Durations({})
        assert durations.mean == 0
        durations.record("a", 1.0)
        assert durations.mean == 1.0
        for _ in range(200):
            durations.record("a", 0.1)
        assert 0.1 <= durations.mean < 0.11
