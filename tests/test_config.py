"""The settings: where they come from, what wins, and how they are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tick.config import Settings, check_budget, find_root
from tick.errors import ConfigurationError


@pytest.fixture
def load(tmp_path):
    """Loads settings from a pyproject.toml and an environment."""

    def loaded(pyproject: str | None = None, **env: str) -> Settings:
        if pyproject is not None:
            (tmp_path / "pyproject.toml").write_text(pyproject)
        return Settings.load(env, start=tmp_path)

    return loaded


class TestWhereTheyComeFrom:
    def test_the_defaults_need_nothing(self, load, tmp_path):
        assert load() == Settings(
            database_url=None, root=tmp_path, schedules_path=tmp_path / "schedules.toml", modules=(), budget=None,
            concurrency=10, batch_size=500, schema="tick", secrets=(),
        )  # fmt: skip

    def test_the_project_says_how_it_ticks(self, load, tmp_path):
        settings = load('[tool.tick]\nmodules = ["a", "b.c"]\nbudget = 20\nconcurrency = 3\nbatch_size = 7\n'
                        'schema = "jobs"\nschedules = "conf/crons.toml"\n')  # fmt: skip
        assert (settings.modules, settings.budget, settings.concurrency, settings.batch_size) == (
            ("a", "b.c"),
            20.0,
            3,
            7,
        )
        assert (settings.schema, settings.schedules_path) == ("jobs", tmp_path / "conf/crons.toml")

    def test_the_environment_wins(self, load):
        settings = load(
            '[tool.tick]\nmodules = ["a"]\nbudget = 20\nconcurrency = 3\nschema = "jobs"\n',
            TICK_MODULES="b, c.d,", TICK_BUDGET="12.5", TICK_CONCURRENCY="4", TICK_SCHEMA="other",
        )  # fmt: skip
        assert (settings.modules, settings.budget, settings.concurrency, settings.schema) == (("b", "c.d"), 12.5, 4, "other")  # fmt: skip

    def test_a_variable_that_is_empty_is_not_set(self, load):
        settings = load("[tool.tick]\nconcurrency = 3\n", TICK_CONCURRENCY="", TICK_BUDGET="", DATABASE_URL="", CRON_SECRET="")  # fmt: skip
        assert (settings.concurrency, settings.budget, settings.database_url, settings.secrets) == (3, None, None, ())

    def test_ticks_own_database_url_wins(self, load):
        assert load(DATABASE_URL="a").database_url == "a"
        assert load(DATABASE_URL="a", TICK_DATABASE_URL="b").database_url == "b"
        assert load(DATABASE_URL=" postgresql://h/d\n").database_url == "postgresql://h/d"
        assert load(DATABASE_URL="  ").database_url is None

    @pytest.mark.parametrize(
        ("given", "secrets"),
        [("a", ("a",)), (" a\n", ("a",)), ("a,b", ("a", "b")), ("a, b ,", ("a", "b")), ("", ()), (" ", ()), (",,", ())],
    )
    def test_secrets_are_separated_by_commas(self, load, given, secrets):
        assert load(CRON_SECRET=given).secrets == secrets

    @pytest.mark.parametrize("table", ["[tool]\ntick = { concurrency = 3 }", "[ tool . tick ]\nconcurrency = 3", 'tool."tick".concurrency = 3'])  # fmt: skip
    def test_toml_may_be_written_in_any_way(self, load, table):
        assert load(table).concurrency == 3

    def test_another_tools_table_is_its_own(self, load):
        assert load('[project]\nname = "x"\ndependencies = ["tick-jobs"]\n[tool.ticket]\nconcurrency = "x"\n').concurrency == 10  # fmt: skip

    def test_nothing_can_change_them(self, load):
        with pytest.raises(dataclasses.FrozenInstanceError):
            load().budget = 5

    def test_they_do_not_show_their_secrets(self, load):
        assert "hunter2" not in repr(load(CRON_SECRET="hunter2"))


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("env", "said"),
        [
            ({"TICK_CONCURRENCY": "0"}, "concurrency (TICK_CONCURRENCY): '0' is not a number from 1 to 1000"),
            ({"TICK_CONCURRENCY": "1001"}, "'1001'"),
            ({"TICK_CONCURRENCY": "-1"}, "'-1'"),
            ({"TICK_CONCURRENCY": "2.5"}, "'2.5'"),
            ({"TICK_CONCURRENCY": "9" * 5000}, "is not a number from 1 to 1000"),
            ({"TICK_BATCH_SIZE": "10001"}, "batch_size (TICK_BATCH_SIZE): '10001' is not a number from 1 to 10000"),
            ({"TICK_BUDGET": "0.9"}, "budget (TICK_BUDGET): '0.9' is not a number of seconds from 1 to 21600"),
            ({"TICK_BUDGET": "50s"}, "'50s'"),
            ({"TICK_BUDGET": "nan"}, "'nan'"),
            ({"TICK_BUDGET": "inf"}, "'inf'"),
            ({"TICK_BUDGET": "21601"}, "'21601'"),
            ({"TICK_SCHEMA": "Tick"}, "schema (TICK_SCHEMA): 'Tick' is not a plain lower-case SQL name"),
            ({"TICK_SCHEMA": 'tick"; drop'}, "is not a plain lower-case SQL name"),
            ({"TICK_SCHEMA": "x" * 64}, "is not a plain lower-case SQL name"),
        ],
        ids=lambda value: str(value)[:50],
    )
    def test_with_the_name_the_value_and_what_it_may_be(self, load, env, said):
        with pytest.raises(ConfigurationError) as raised:
            load(**env)
        assert said in str(raised.value)

    def test_all_in_one_go(self, load):
        with pytest.raises(ConfigurationError) as raised:
            load(TICK_CONCURRENCY="x", TICK_BATCH_SIZE="x", TICK_BUDGET="x", TICK_SCHEMA="X")
        head, *problems = str(raised.value).splitlines()
        assert head == "the settings have problems:"
        assert [problem.split()[0] for problem in problems] == ["budget", "concurrency", "batch_size", "schema"]

    @pytest.mark.parametrize(
        ("pyproject", "said"),
        [
            (
                "[tool.tick]\nmodule = 'x'\n",
                "[tool.tick] has unknown keys: module; it takes alerts, api_rate, batch_size, budget",
            ),
            ("[tool.tick\n", "pyproject.toml: "),
            ("[tool.tick]\nconcurrency = 0\n", "0 is not a number from 1 to 1000"),
            ("[tool.tick]\nconcurrency = 2.5\n", "2.5 is not a number"),
            ("[tool.tick]\nbudget = [5]\n", "budget (TICK_BUDGET): [5] is not"),
            ("[tool.tick]\nmodules = 5\n", "modules (TICK_MODULES): 5 is not a list of names"),
            ("[tool.tick]\nmodules = [5]\n", "modules (TICK_MODULES): [5] is not a list of names"),
            ("[tool]\ntick = 5\n", "tool.tick is 5, and not a table"),
        ],
        ids=str,
    )
    def test_in_pyproject_too(self, load, pyproject, said):
        with pytest.raises(ConfigurationError) as raised:
            load(pyproject)
        assert said in str(raised.value)


class TestTheRoot:
    @pytest.mark.parametrize("file", ["pyproject.toml", "schedules.toml"])
    def test_is_the_nearest_folder_with_either_file(self, tmp_path, file):
        (tmp_path / "pyproject.toml").touch()
        below = tmp_path / "a" / "b" / "c"
        below.mkdir(parents=True)
        assert find_root(below) == tmp_path
        (tmp_path / "a" / file).touch()
        assert find_root(below) == tmp_path / "a"

    def test_is_where_one_is_when_there_is_none(self):
        assert find_root(Path("/nowhere/at/all")) == Path("/nowhere/at/all")


def test_a_budget_is_from_one_second_to_six_hours():
    assert [check_budget(seconds) for seconds in (1, 50.5, 21_600)] == [1, 50.5, 21_600]
    for seconds in (0.99, 0, -1, 21_601, float("nan"), float("inf")):
        with pytest.raises(ValueError):
            check_budget(seconds)
