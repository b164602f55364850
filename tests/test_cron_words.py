"""A rule in words, and that the words are true."""

from __future__ import annotations

import csv
import random
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tick.cron import Cron, windows
from tick.cron_words import describe, in_words
from tick.errors import CronError
from tick.schedules import Schedule

SAID = {
    "* * * * *": "Every minute",
    "*/10 * * * *": "Every 10 min",
    "0,15,30,45 * * * *": "Every 15 min",
    "0 * * * *": "Every hour",
    "@hourly": "Every hour",
    "0 */4 * * *": "Every 4 h",
    "*/60 * * * *": "Every hour",
    "*/45 * * * *": "At 0 and 45 min past every hour",
    "*/7 * * * *": "Every 7 min from :00 to :56 of every hour",
    "20 * * * *": "At 20 min past every hour",
    "15 */4 * * *": "Every 4 h from 00:15 to 20:15",
    "0 3-23/4 * * *": "Every 4 h from 03:00 to 23:00",
    "55 6-21 * * *": "Every hour from 06:55 to 21:55",
    "*/15 9-17 * * *": "Every 15 min from 09:00 to 17:45",
    "* */12 * * *": "Every minute of the hours 0 and 12",
    "0,45 9-13 * * *": "At 0 and 45 min past the hours 9, 10, 11, 12 and 13, every day",
    "0 3 * * *": "At 03:00, every day",
    "30 8 * * mon-fri": "At 08:30, Monday to Friday",
    "0 0 * * 0": "At 00:00, Sunday",
    "0 0 * * 7": "At 00:00, Sunday",
    "0 9 * * sat,sun": "At 09:00, Saturday and Sunday",
    "0 9 13 * fri": "At 09:00, on the 13th and Friday too",
    "0 9 */2 * mon": "At 09:00, every 2nd day of the month from the 1st to the 31st if it is Monday",
    "0 0 1-31 * mon": "At 00:00, every day",
    "0 0 L * *": "At 00:00, on the last day of the month",
    "0 0 15,L * *": "At 00:00, on the 15th and the last day of the month",
    "0 9 * * 5L": "At 09:00, the last Friday of the month",
    "0 9 * * mon#2": "At 09:00, the second Monday of the month",
    "0 12 1 6-8,12 *": "At 12:00, on the 1st, in June to August and December",
    "*/30 * * * * *": "Every 30 s",
    "30 * * * * *": "At second 30 of every minute",
    "* * * * * mon-fri": "Every second, Monday to Friday",
    "5,40 0 0 * * *": "At seconds 5 and 40 of these minutes: at 00:00, every day",
}


@pytest.mark.parametrize(("expression", "words"), SAID.items())
def test_says(expression, words):
    assert in_words(Cron.parse(expression)) == words


class TestASchedule:
    def test_names_its_zone_where_that_matters(self):
        paris = {"name": "a", "type": "a", "timezone": "Europe/Paris"}
        assert describe(Schedule(cron="30 8 * * 1", **paris)) == "At 08:30, Monday (Europe/Paris)"
        assert describe(Schedule(cron="0 * 1 * *", **paris)) == "Every hour, on the 1st (Europe/Paris)"
        assert describe(Schedule(cron="*/5 * * * *", **paris)) == "Every 5 min"
        assert describe(Schedule("a", "a", cron="0 3 * * *")) == "At 03:00, every day (UTC)"

    @pytest.mark.parametrize(
        ("every", "words"),
        [
            (timedelta(minutes=10), "Every 10 min"),
            (timedelta(hours=1), "Every hour"),
            (timedelta(days=1), "Every day"),
            (timedelta(days=2, minutes=5), "Every 2 days 5 min"),
            (timedelta(minutes=90), "Every 1 h 30 min"),
        ],
    )
    def test_may_have_a_period(self, every, words):
        assert describe(Schedule("a", "a", every=every)) == words

    def test_may_have_neither(self):
        assert describe(Schedule("a", "a", enabled=False)) == "Only by hand"

    def test_that_only_another_version_can_read_is_shown_as_it_is(self):
        assert describe(Schedule("a", "a", cron="H 3 * * *")) == "H 3 * * *"


def field(rng: random.Random, low: int, high: int) -> str:
    """A field as people write them, and as nobody does."""
    one = rng.randint(low, high)
    kinds = ["*", "*", str(one), f"{low}-{one}", f"{one}-{high}", f"*/{rng.choice((1, 2, 3, 5, 7, 10, 15, 30))}"]
    kinds += [",".join(map(str, sorted(rng.sample(range(low, high + 1), 3))))]
    if one < high:
        kinds.append(f"{one}-{high}/{rng.choice((2, 3, 4))}")
    return rng.choice(kinds)


def expressions() -> dict[str, Cron]:
    """What people have committed, and many that were made up."""
    real = (Path(__file__).parent / "data" / "real_crons.tsv").read_text().splitlines()
    texts = [row["expression"] for row in csv.DictReader(real, delimiter="\t")]
    rng = random.Random(4)
    for _ in range(1500):
        fields = [field(rng, *bounds) for bounds in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))]
        texts.append(" ".join([*([field(rng, 0, 59)] if rng.random() < 0.2 else []), *fields]))
    return {text: cron for text in [*SAID, *texts] for cron in [parsed(text)] if cron}


def parsed(text: str) -> Cron | None:
    try:
        return Cron.parse(text)
    except CronError:
        return None


def meaning(cron: Cron) -> object:
    """What an expression matches, whichever way it is written."""
    days = [
        cron.days.in_month(year, month)
        for year in range(2024, 2031)
        for month in range(1, 13)
        if cron.months >> month & 1
    ]
    return cron.seconds, cron.times, cron.months, tuple(days)


def test_the_same_words_are_never_said_of_two_rules_that_differ():
    meant: dict[str, tuple[object, str]] = {}
    for text, cron in expressions().items():
        before = meant.setdefault(in_words(cron), (meaning(cron), text))
        assert before[0] == meaning(cron), f"{text} and {before[1]}: {in_words(cron)}"
    assert len(meant) > 1000


START = datetime(2026, 3, 1, tzinfo=UTC)
UNITS = {"second": 1, "minute": 60, "hour": 3600, "s": 1, "min": 60, "h": 3600}


def test_a_period_that_is_said_is_the_distance_of_all_windows():
    checked = 0
    for text, cron in expressions().items():
        said = re.fullmatch(r"Every (?:(\d+) )?(second|minute|hour|s|min|h)", in_words(cron))
        if said:
            found = windows(text, after=START - timedelta(seconds=1), until=START + timedelta(days=1))
            period = timedelta(seconds=int(said[1] or 1) * UNITS[said[2]])
            assert {after - before for before, after in pairwise(found)} == {period}, text
            checked += 1
    assert checked > 10


def test_the_times_that_are_said_are_those_of_a_day():
    checked = 0
    for text, cron in expressions().items():
        said = re.fullmatch(r"At ((?:\d\d:\d\d(?:, | and )?)+), every day", in_words(cron))
        if said:
            found = windows(text, after=START - timedelta(seconds=1), until=START + timedelta(hours=23, minutes=59))
            assert [f"{window:%H:%M}" for window in found] == re.findall(r"\d\d:\d\d", said[1]), text
            checked += 1
    assert checked >= 5


def test_every_expression_that_is_taken_has_words():
    for text, cron in expressions().items():
        words = in_words(cron)
        assert words.startswith(("Every ", "At ")) and "  " not in words, text
