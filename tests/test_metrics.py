"""/metrics over real HTTP, read by Prometheus' own parser; and the dashboard and the rules that are made for it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import psycopg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

import tick as public
from tests.factories import NEVER, a_job, job, jobs, move_clock, tick
from tests.test_web import SECRET, server  # noqa: F401 - a fixture
from tick import database, facts, history, keys, metrics

GRAFANA = Path(__file__).parents[1] / "docs" / "grafana"
KEY = "tick_env_" + "k" * 43
WEAK = "tick_env_" + "w" * 43

pytestmark = pytest.mark.usefixtures("empty_registry")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


class Scrape:
    """What one scrape gave: samples by name and labels, and the families they are in."""

    def __init__(self, text: str, parse=text_string_to_metric_families) -> None:
        self.text = text
        self.families = {family.name: family for family in parse(text)}
        self.samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, *sorted(labels.items())))

    def attempts(self, type: str) -> dict[str, float]:
        return {
            outcome: count
            for outcome in metrics.OUTCOMES
            if (count := self.value("tick_attempts_total", type=type, outcome=outcome))
        }

    def types(self) -> set[str]:
        return {dict(labels)["type"] for name, *labels in self.samples if name == "tick_attempts_total"}


@pytest.fixture
def client(server, settings) -> httpx.Client:  # noqa: F811 - the fixture
    server.serve(replace(settings, secrets=("another", SECRET), api_keys=(f"prom:read:{KEY}", f"app:enqueue:{WEAK}")))
    with httpx.Client(base_url=server.client.base_url, headers=bearer(SECRET), timeout=60) as client:
        yield client


def scrape(client: httpx.Client) -> Scrape:
    response = client.get("/metrics")
    assert response.status_code == 200, response.text
    return Scrape(response.text)


def handlers() -> None:
    """Types of which each ends in its own way."""

    @public.job
    async def fine() -> None: ...

    @public.job(max_attempts=2, backoff=[3600])
    async def shaky() -> None:
        raise RuntimeError("not today")

    @public.job
    async def hopeless() -> None:
        raise public.Permanent("never")

    @public.job
    async def sleepy() -> None:
        raise public.Snooze(after=3600)


class TestTheScrape:
    def test_of_an_empty_database_has_every_figure_that_can_be(self, client, conn):
        found = scrape(client)
        assert found.value("tick_build_info", version="0.1.0") == 1
        for name in ("due", "running", "later", "dead", "lease_expired", "behind_keys"):
            assert found.value(f"tick_jobs_{name}") == 0
        assert (found.value("tick_oldest_due_seconds"), found.value("tick_schedules")) == (0, 0)
        assert found.value("tick_last_tick_timestamp_seconds") is None
        assert found.value("tick_last_tick_age_seconds") > 0
        assert found.types() == set()

    def test_says_what_jobs_did(self, client, conn, settings):
        handlers()
        for type, count in {"fine": 3, "shaky": 2, "hopeless": 1, "sleepy": 1}.items():
            jobs(conn, type, count)
        a_job(conn, "fine", "running", lease_expires_at="-1 second", losses=2)
        tick(settings)
        found = scrape(client)
        assert found.attempts("fine") == {"done": 3, "dead": 1}
        assert found.attempts("shaky") == {"retried": 2}
        assert found.attempts("hopeless") == {"dead": 1}
        assert found.attempts("sleepy") == {"released": 1}
        assert found.types() == {"fine", "shaky", "hopeless", "sleepy"}
        for histogram in ("tick_job_run_seconds", "tick_job_wait_seconds"):
            assert found.value(f"{histogram}_count", type="shaky") == 2
            assert found.value(f"{histogram}_bucket", type="shaky", le="+Inf") == 2
        assert (found.value("tick_jobs_dead"), found.value("tick_jobs_later")) == (2, 3)
        assert found.value("tick_last_tick_budget_seconds") == 10
        assert 0 < found.value("tick_last_tick_used_seconds") < 10
        assert found.value("tick_trigger_last_tick_timestamp_seconds", trigger="cli") == found.value(
            "tick_last_tick_timestamp_seconds"
        )

    def test_says_what_waits_and_runs(self, client, conn):
        move_clock(conn, "2026-03-01T12:00Z")
        a_job(conn, run_at="-90 seconds")
        a_job(conn, run_at="-30 seconds", key="k")
        a_job(conn, run_at="-20 seconds", key="k")
        a_job(conn, run_at="+1 hour")
        a_job(conn, status="running", lease_expires_at="-1 second")
        a_job(conn, status="running")
        a_job(conn, status="dead")
        found = scrape(client)
        names = ("due", "behind_keys", "later", "running", "lease_expired", "dead")
        assert [found.value(f"tick_jobs_{name}") for name in names] == [3, 1, 1, 2, 1, 1]
        assert found.value("tick_oldest_due_seconds") == 90

    def test_says_how_ticks_come(self, client, conn, settings):
        for minute in range(0, 50, 5):
            move_clock(conn, f"2026-03-01T12:{minute:02}:00Z")
            tick(settings)
        move_clock(conn, "2026-03-01T13:00:00Z")
        found = scrape(client)
        assert found.value("tick_last_tick_age_seconds") == 15 * 60
        assert found.value("tick_expected_interval_seconds") == 5 * 60
        assert found.value("tick_trigger_interval_seconds", trigger="cli") == 5 * 60
        (started,) = conn.execute("select extract(epoch from max(started_at))::float8 from tick.ticks").fetchone()
        assert found.value("tick_last_tick_timestamp_seconds") == started

    def test_counts_schedules_and_alerts(self, client, conn, settings):
        handlers()
        settings.schedules_path.write_text('[schedules.fine]\ncron = "0 0 1 1 *"\n[schedules.shaky]\nevery = "1h"\n')
        tick(settings)
        conn.execute("update tick.schedules set paused = true where name = 'shaky'")
        conn.execute(
            "insert into tick.alerts (rule, subject, since, seen_at, ended_at) values ('dead', 'a', now(), now(), null),"
            " ('dead', 'b', now(), now(), null), ('stopped', '', now(), now(), now())"
        )
        found = scrape(client)
        assert (found.value("tick_schedules"), found.value("tick_schedules_paused")) == (2, 1)
        assert found.value("tick_alerts_open", rule="dead") == 2
        assert found.value("tick_alerts_open", rule="stopped") is None

    def test_of_a_tick_that_runs_tells_the_use_of_the_one_before(self, client, conn, settings):
        tick(settings)
        conn.execute(
            "insert into tick.ticks (id, trigger, budget, used, started_at)"
            " values (%s, 'http', 60, 0, tick.now() + interval '1 s')",
            [NEVER],
        )
        assert scrape(client).value("tick_last_tick_budget_seconds") == 10

    def test_is_one_round_trip(self, client, conn, monkeypatch):
        asked = []
        read = database.read

        async def counted(connection, schema, *questions, **options):
            asked.append([question.name for question in questions])
            return await read(connection, schema, *questions, **options)

        monkeypatch.setattr(database, "read", counted)
        scrape(client)
        assert asked == [[question.name for question in metrics.QUESTIONS]]

    def test_changes_nothing(self, client, conn, settings):
        handlers()
        jobs(conn, "fine", 2)
        scrape(client)
        assert conn.execute("select count(*) from tick.ticks").fetchone() == (0,)
        assert [job(conn, id)["status"] for id in (1, 2)] == ["pending", "pending"]

    def test_names_of_any_kind_are_labels(self, client, conn, settings):
        name = 'a "quoted" \\ name of 🦊, {odd}'

        @public.job(type=name)
        async def odd() -> None: ...

        jobs(conn, name, 2)
        tick(settings)
        assert scrape(client).attempts(name) == {"done": 2}

    def test_counts_end_at_their_bound_and_say_so(self, client, conn):
        jobs(conn, count=facts.MOST + 5)
        found = scrape(client)
        assert found.value("tick_jobs_due") == facts.MOST + 1
        assert f"{facts.MOST + 1} means more" in found.families["tick_jobs_due"].documentation

    def test_many_at_once_are_all_answered(self, client, conn, settings):
        handlers()
        jobs(conn, "fine", 5)
        tick(settings)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: scrape(client).attempts("fine"), range(16)))
        assert answers == [{"done": 5}] * 16


class TestHistograms:
    def test_buckets_are_cumulative_and_in_seconds(self, client, conn):
        runs = [0] * history.BUCKETS
        runs[0], runs[1], runs[2], runs[20], runs[43] = 1, 2, 4, 8, 16
        conn.execute(
            "insert into tick.stats (span, at, type, done, run_seconds, runs, waits)"
            " values (0, '-infinity', 'noop', 31, 9.5, %s, %s)",
            [runs, [0] * history.BUCKETS],
        )
        found = scrape(client)
        within = {
            le: found.value("tick_job_run_seconds_bucket", type="noop", le=le)
            for le in ("0.001", "0.002", "1.024", "+Inf")
        }
        assert within == {"0.001": 1, "0.002": 7, "1.024": 15, "+Inf": 31}
        assert found.value("tick_job_run_seconds_sum", type="noop") == 9.5
        bounds = [dict(labels)["le"] for name, *labels in found.samples if name == "tick_job_run_seconds_bucket"]
        assert len(bounds) == len(set(bounds)) == 23
        assert [float(bound) for bound in bounds] == sorted(map(float, bounds))

    def test_a_run_is_within_the_bucket_of_its_length(self, client, conn, settings):
        @public.job
        async def slow() -> None:
            await asyncio.sleep(0.05)

        jobs(conn, "slow")
        tick(settings)
        found = scrape(client)
        assert found.value("tick_job_run_seconds_bucket", type="slow", le="0.032") == 0
        assert found.value("tick_job_run_seconds_sum", type="slow") >= 0.05
        assert found.value("tick_job_run_seconds_bucket", type="slow", le="+Inf") == 1


class TestCardinality:
    def fill(self, conn, names: list[str]) -> None:
        empty = [0] * history.BUCKETS
        with conn.cursor() as cursor:
            cursor.executemany(
                "insert into tick.stats (span, at, type, done, dead, run_seconds, runs, waits)"
                " values (0, '-infinity', %s, 2, 1, 0.1, %s, %s)",
                [(name, [3, *empty[1:]], [0, 3, *empty[2:]]) for name in names],
            )

    def test_types_beyond_a_hundred_are_summed_up(self, client, conn):
        self.fill(conn, [f"type_{number:03}" for number in range(130)])
        found = scrape(client)
        assert len(found.types()) == metrics.TYPES + 1
        assert found.attempts("_other") == {"done": 60, "dead": 30}
        assert found.value("tick_job_run_seconds_bucket", type="_other", le="0.001") == 90
        assert found.value("tick_job_run_seconds_count", type="_other") == 90
        assert found.value("tick_job_wait_seconds_bucket", type="_other", le="0.001") == 0
        assert found.value("tick_job_run_seconds_sum", type="_other") == pytest.approx(3)

    def test_a_hundred_are_not(self, client, conn):
        self.fill(conn, [f"type_{number:03}" for number in range(100)])
        assert len(scrape(client).types()) == 100

    def test_a_type_of_that_very_name_is_no_series_twice(self, client, conn):
        self.fill(conn, ["_other", "a"])
        assert scrape(client).attempts("_other") == {"done": 2, "dead": 1}
        self.fill(conn, [f"type_{number:03}" for number in range(120)])
        assert scrape(client).attempts("_other") == {"done": 44, "dead": 22}

    def test_no_counter_goes_down_whatever_types_come(self, client, conn):
        self.fill(conn, [f"m{number:03}" for number in range(105)])
        before = scrape(client)
        self.fill(conn, ["a", "z", "_other", "m0505"])
        never_less(before, scrape(client))

    def test_triggers_are_twenty_at_most(self, client, conn):
        conn.execute(
            "insert into tick.ticks (id, trigger, budget, started_at) select gen_random_uuid(), 't' || n, 50,"
            " now() - n * interval '1 minute' from generate_series(1, 50) n"
        )
        found = scrape(client)
        triggers = {dict(labels)["trigger"] for name, *labels in found.samples if "trigger_last" in name}
        assert triggers == {f"t{number}" for number in range(1, 21)}


def never_less(before: Scrape, after: Scrape) -> None:
    """Every counter and bucket is still there, unless its type is summed up now, and is as much or more."""
    for key, value in before.samples.items():
        if key[0].endswith(("_total", "_bucket", "_count", "_sum")) and key in after.samples:
            assert after.samples[key] >= value, key
    assert ("tick_attempts_total", ("outcome", "done"), ("type", "_other")) in after.samples


def test_counters_outlive_what_is_pruned(client, conn, settings):
    handlers()
    jobs(conn, "fine", 4)
    jobs(conn, "hopeless", 2)
    tick(settings)
    before = scrape(client)
    move_clock(conn, "+500 days")
    conn.execute("insert into tick.chores (name) values ('prune')")
    tick(settings)
    assert conn.execute("select count(*) from tick.jobs").fetchone() == (0,)
    after = scrape(client)
    assert (after.attempts("fine"), after.attempts("hopeless")) == ({"done": 4}, {"dead": 2})
    assert after.value("tick_job_run_seconds_sum", type="fine") == before.value("tick_job_run_seconds_sum", type="fine")
    assert after.value("tick_jobs_dead") == 0


class TestTheDoor:
    @pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
    def test_with_and_without_a_slash_and_never_kept(self, client, conn, path):
        response = client.get(path)
        assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"

    def test_head_has_the_headers_alone(self, client, conn):
        response = client.head("/metrics")
        assert (response.status_code, response.content) == (200, b"")
        assert int(response.headers["content-length"]) > 1000

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    def test_is_for_reading(self, client, conn, method):
        response = client.request(method, "/metrics")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")

    def test_speaks_openmetrics_to_who_prefers_it(self, client, conn, settings):
        handlers()
        jobs(conn, "fine", 2)
        tick(settings)
        wanted = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        response = client.get("/metrics", headers={"accept": wanted})
        assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert response.text.endswith("# EOF\n")
        found = Scrape(response.text, parse_openmetrics)
        assert found.attempts("fine") == {"done": 2}
        assert found.value("tick_job_run_seconds_count", type="fine") == 2

    @pytest.mark.parametrize("token", [SECRET, "another", KEY])
    def test_lets_in_who_ticks_and_who_may_read(self, client, conn, token):
        assert client.get("/metrics", headers=bearer(token)).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": ""},
            bearer("wrong"),
            bearer(SECRET + "x"),
            {"authorization": f"Basic {SECRET}"},
            {"authorization": SECRET},
            bearer("tick_gone_" + "x" * 43),
        ],
    )
    def test_refuses_all_others(self, client, conn, headers):
        response = client.get("/metrics", headers=headers)
        assert response.status_code == 401
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.headers["cache-control"] == "no-store"
        assert "tick_jobs" not in response.text

    def test_refuses_two_headers_of_which_one_is_right(self, client, conn):
        headers = [("authorization", "Bearer wrong"), ("authorization", f"Bearer {SECRET}")]
        with httpx.Client(base_url=client.base_url) as bare:
            assert bare.get("/metrics", headers=headers).status_code == 401

    def test_a_key_without_the_scope_is_told_so(self, client, conn):
        response = client.get("/metrics", headers=bearer(WEAK))
        assert (response.status_code, response.json()["type"]) == (403, "urn:tick:problem:missing-scope")

    def test_a_key_of_the_table_is_let_in_until_it_is_revoked(self, client, conn):
        id, key = keys.create()
        conn.execute(
            "insert into tick.api_keys (id, name, scopes, hash) values (%s, 'prom', '{read}', %s)",
            [id, keys.digest(key)],
        )
        assert client.get("/metrics", headers=bearer(key)).status_code == 200
        conn.execute("update tick.api_keys set revoked_at = tick.now()")
        assert client.get("/metrics", headers=bearer(key)).status_code == 401

    def test_a_secret_of_other_letters(self, client, conn, server, settings):  # noqa: F811 - the fixture
        server.serve(replace(settings, secrets=("gehört-niemandem",)))
        given = [(b"authorization", "Bearer gehört-niemandem".encode())]
        assert client.build_request("GET", "/metrics").headers
        with httpx.Client(base_url=client.base_url) as bare:
            assert bare.get("/metrics", headers=given).status_code == 200

    def test_is_closed_as_long_as_nothing_is_configured(self, client, conn, server, settings):  # noqa: F811 - the fixture
        server.serve(settings)
        response = client.get("/metrics")
        assert (response.status_code, response.json()["title"]) == (503, "No secret is configured")
        id, key = keys.create()
        conn.execute(
            "insert into tick.api_keys (id, name, scopes, hash) values (%s, 'prom', '{read}', %s)",
            [id, keys.digest(key)],
        )
        assert client.get("/metrics", headers=bearer(key)).status_code == 200

    def test_without_a_database_it_is_a_problem_that_tells_nothing(self, client, server, settings):  # noqa: F811 - the fixture
        server.serve(replace(settings, secrets=(SECRET,), database_url="postgresql://nobody@127.0.0.1:1/none"))
        response = client.get("/metrics")
        assert (response.status_code, response.json()["title"]) == (503, "Postgres is unavailable")
        assert "127.0.0.1" not in response.text
        assert response.headers["retry-after"] == "5"

    def test_before_the_migrations_it_is_a_problem(self, client, server, settings, fresh_url):  # noqa: F811 - the fixture
        server.serve(replace(settings, secrets=(SECRET,), database_url=fresh_url))
        assert client.get("/metrics").status_code == 503

    def test_a_database_that_hangs_is_not_waited_for(self, client, conn, url, monkeypatch):
        monkeypatch.setattr(metrics, "SECONDS", 0.3)
        with psycopg.connect(url) as other:
            other.execute("lock table tick.stats in access exclusive mode")
            assert client.get("/metrics").status_code == 503
        assert client.get("/metrics").status_code == 200

    def test_under_another_schema(self, client, server, settings, fresh_url):  # noqa: F811 - the fixture
        async def migrate() -> None:
            async with database.connect(fresh_url) as connection:
                await database.migrate(connection, "theirs")

        asyncio.run(migrate())
        server.serve(replace(settings, secrets=(SECRET,), database_url=fresh_url, schema="theirs"))
        assert scrape(client).value("tick_jobs_due") == 0


@pytest.fixture
def served(client, conn, settings) -> Scrape:
    """A scrape in which every family has a sample."""
    handlers()
    for type in ("fine", "shaky", "hopeless"):
        jobs(conn, type)
    tick(settings)
    conn.execute("update tick.ticks set started_at = started_at - interval '1 minute'")
    tick(settings)
    conn.execute("insert into tick.alerts (rule, subject, since, seen_at) values ('dead', '', now(), now())")
    found = scrape(client)
    assert all(family.samples for family in found.families.values())
    return found


def labels_of(found: Scrape) -> dict[str, set[str]]:
    """The labels of each sample's name."""
    known: dict[str, set[str]] = {}
    for name, *labels in found.samples:
        known.setdefault(name, set()).update(label for label, _ in labels)
    return known


def check_expression(expression: str, known: dict[str, set[str]]) -> None:
    """Every metric that it names is served, with the labels that it names; and its brackets match."""
    named = re.findall(r"\b(tick_\w+)(?:\{([^}]*)\})?", expression)
    assert named, expression
    for name, matchers in named:
        assert name in known, name
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            assert label in known[name], f"{name} has no label {label}"
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        for label in grouped.split(", "):
            assert any(label in known[name] for name, _ in named), label
    for pair in ("()", "{}", "[]"):
        assert expression.count(pair[0]) == expression.count(pair[1]), expression


def rules() -> list[dict]:
    document = YAML(typ="safe").load((GRAFANA / "alerts.yml").read_text())
    assert set(document) == {"groups"}
    assert all(set(group) == {"name", "rules"} for group in document["groups"])
    return [rule for group in document["groups"] for rule in group["rules"]]


class TestTheRules:
    def test_each_is_one_that_prometheus_can_load(self, served):
        names = [rule["alert"] for rule in rules()]
        assert len(names) == len(set(names)) == 6
        for rule in rules():
            assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
            assert re.fullmatch(r"[A-Z][A-Za-z]+", rule["alert"])
            assert re.fullmatch(r"[0-9]+[smh]", rule.get("for", "1m"))
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert set(rule["annotations"]) == {"summary", "description"}
            check_expression(rule["expr"], labels_of(served))

    def test_a_label_of_a_message_is_one_that_the_expression_keeps(self):
        for rule in rules():
            told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
            kept = set(",".join(re.findall(r"\bby \(([^)]*)\)", rule["expr"])).replace(" ", "").split(","))
            assert told <= kept, rule["alert"]

    def test_every_one_is_in_the_guide(self):
        guide = (GRAFANA.parent / "metrics.md").read_text()
        for rule in rules():
            assert f"`{rule['alert']}`" in guide

    @pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
    def test_promtool_takes_rules_and_metrics(self, served, tmp_path):
        subprocess.run(["promtool", "check", "rules", GRAFANA / "alerts.yml"], check=True, capture_output=True)
        subprocess.run(["promtool", "check", "metrics"], input=served.text, text=True, check=True, capture_output=True)
        records = [
            {"record": f"panel:{number}", "expr": in_time(expression)}
            for number, expression in enumerate(expressions())
        ]
        (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": records}]}))
        subprocess.run(["promtool", "check", "rules", tmp_path / "panels.yml"], check=True, capture_output=True)

    @pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
    def test_each_fires_when_it_should(self, tmp_path):
        (tmp_path / "test.yml").write_text(json.dumps({"rule_files": [str(GRAFANA / "alerts.yml")], "tests": SCENES}))
        done = subprocess.run(["promtool", "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def series(**values: str) -> list[dict[str, str]]:
    return [
        {"series": name.replace("__", '{type="a",outcome="') + ('"}' if "__" in name else ""), "values": value}
        for name, value in values.items()
    ]


def scene(name: str, at: str, given: list[dict[str, str]], *, fires: bool) -> dict:
    """Whether an alert fires by then, of samples that came once a minute; its texts are not compared."""
    count = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    expected = [{"labels": "{}", "value": int(fires)}]
    return {
        "interval": "1m",
        "input_series": given,
        "promql_expr_test": [{"expr": count, "eval_time": at, "exp_samples": expected}],
    }


COMES = {"tick_last_tick_age_seconds": "30x60", "tick_expected_interval_seconds": "60x60"}
SCENES = [
    scene("TickNotScraped", "10m", series(tick_jobs_due="1x60"), fires=True),
    scene("TickNotScraped", "10m", series(**COMES), fires=False),
    scene("TicksStopped", "10m", series(**COMES | {"tick_last_tick_age_seconds": "0+60x60"}), fires=True),
    scene("TicksStopped", "10m", series(**COMES), fires=False),
    scene(
        "TicksStopped",
        "20m",
        series(tick_last_tick_age_seconds="600x60", tick_expected_interval_seconds="300x60"),
        fires=False,
    ),
    scene("TickBacklogOld", "10m", series(tick_oldest_due_seconds="1000x60"), fires=True),
    scene("TickBacklogOld", "10m", series(tick_oldest_due_seconds="800x60"), fires=False),
    scene("TickJobsDead", "20m", series(tick_attempts_total__dead="0x15 1x60"), fires=True),
    scene("TickJobsDead", "20m", series(tick_attempts_total__dead="7x60"), fires=False),
    scene(
        "TickFailureRate",
        "30m",
        series(tick_attempts_total__done="0+1x60", tick_attempts_total__retried="0+1x60"),
        fires=True,
    ),
    scene(
        "TickFailureRate",
        "30m",
        series(tick_attempts_total__done="0+9x60", tick_attempts_total__retried="0+1x60"),
        fires=False,
    ),
    scene(
        "TickFailureRate",
        "30m",
        series(tick_attempts_total__done="0x60", tick_attempts_total__retried="0x14 1x60"),
        fires=False,
    ),
    scene("TickLeasesExpire", "30m", series(tick_attempts_total__lost="0+1x60"), fires=True),
    scene("TickLeasesExpire", "30m", series(tick_jobs_lease_expired="2x60"), fires=True),
    scene("TickLeasesExpire", "30m", series(tick_jobs_lease_expired="0x60"), fires=False),
]


def dashboard() -> dict:
    return json.loads((GRAFANA / "dashboard.json").read_text())


def targets(kind: str) -> list[dict]:
    return [
        target
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
        if target["datasource"]["type"] == kind
    ]


def expressions() -> list[str]:
    return [target["expr"] for target in targets("prometheus")]


def in_time(text: str) -> str:
    """A query with Grafana's variables filled in."""
    for name, value in {"$__rate_interval": "5m", "$type": ".*", "$span": "600"}.items():
        text = text.replace(name, value)
    return re.sub(r"\$__timeFilter\((\w+)\)", r"\1 between now() - interval '1 day' and now() + interval '1 day'", text)


class TestTheDashboard:
    def test_it_can_be_imported(self):
        found = dashboard()
        assert found["schemaVersion"] >= 39
        assert [panel["title"] for panel in found["panels"] if panel["type"] == "row"] == [
            "From /metrics, by Prometheus",
            "From the database",
        ]
        ids = [panel["id"] for panel in found["panels"]]
        assert len(ids) == len(set(ids))
        variables = {variable["name"]: variable for variable in found["templating"]["list"]}
        assert variables["prometheus"]["type"] == variables["postgres"]["type"] == "datasource"
        for panel in found["panels"]:
            if panel["type"] != "row":
                assert panel["datasource"]["uid"] in ("${prometheus}", "${postgres}"), panel["title"]
                assert {target["datasource"]["uid"] for target in panel["targets"]} == {panel["datasource"]["uid"]}

    def test_no_panel_lies_over_another(self):
        taken: set[tuple[int, int]] = set()
        for panel in dashboard()["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert place["x"] + place["w"] <= 24
            taken |= cells

    def test_every_metric_that_it_asks_for_is_served(self, served):
        for expression in expressions():
            check_expression(in_time(expression), labels_of(served))

    def test_every_metric_that_is_served_is_in_the_guide(self, served):
        guide = (GRAFANA.parent / "metrics.md").read_text()
        for name, family in served.families.items():
            whole = f"{name}_total" if family.type == "counter" else name
            assert f"`{whole}`" in guide, whole

    def test_every_statement_runs_and_finds_something(self, served, conn):
        for target in targets("grafana-postgresql-datasource"):
            cursor = conn.execute(in_time(target["rawSql"]).encode())
            assert cursor.fetchall(), target["rawSql"]
            if target["format"] == "time_series":
                assert cursor.description[0].name == "time"
