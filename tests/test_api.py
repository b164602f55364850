"""Jobs over HTTP: a real uvicorn, a real Postgres, and requests as the world sends them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import httpx
import psycopg
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import tick as public
from tests.factories import NEVER, a_job, job, move_clock, statuses, tick, wait_until
from tests.test_cli import Project, answers, free_port
from tests.test_docs import blocks
from tests.test_pooler import PGBOUNCER, pooled_url  # noqa: F401 - a fixture
from tests.test_web import SECRET, Site, server  # noqa: F401 - a fixture
from tick import calls, database, keys, refusals, web
from tick.api import LONGEST_BODY
from tick.bodies import MOST_JOBS, redacted
from tick.handlers import registry

ROOT = Path(__file__).parents[1]
KEY = "tick_env_" + "k" * 43
OTHER = "tick_env_" + "o" * 43
PLAIN = "tick_env_" + "p" * 43
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
JSON = {"content-type": "application/json"}

pytestmark = pytest.mark.usefixtures("empty_registry")


@pytest.fixture
def client(server, settings, conn, empty_registry) -> httpx.Client:  # noqa: F811 - the fixture
    """A client with a key that may do everything, of a site with two handlers."""

    @public.job
    async def greet(name: str, times: int = 1, tone: Literal["kind", "cold"] = "kind") -> str:
        return name * times

    @public.job
    async def take(**anything) -> None: ...

    keys = (f"me:admin:{KEY}", f"you:admin:{OTHER}", f"plain:enqueue:{PLAIN}")
    server.serve(replace(settings, api_keys=keys, secrets=(SECRET,), api_rate="100000/minute"))
    with httpx.Client(
        base_url=server.client.base_url, headers={"authorization": f"Bearer {KEY}"}, timeout=60
    ) as client:
        yield client


def check(response: httpx.Response, status: int, kind: str = "", **members) -> dict:
    """A problem as RFC 9457 has it, of a kind that is in the table."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert list(body)[:4] == ["type", "title", "status", "detail"]
    assert body["status"] == status
    if kind:
        assert (body["type"], body["title"]) == (refusals.KINDS[kind].type, refusals.KINDS[kind].title)
        assert refusals.KINDS[kind].status == status
    for name, part in members.items():
        assert part in body[name], body
    return body


def wrong(response: httpx.Response) -> dict[str, str]:
    """The violations of a request, by their paths."""
    return {each["path"]: each["message"] for each in check(response, 422, "invalid-request")["violations"]}


def put(client: httpx.Client, **fields) -> int:
    response = client.post("/jobs", json={"type": "greet", "payload": {"name": "Ada"}} | fields)
    assert response.status_code == 201, response.text
    return response.json()["id"]


def count(conn) -> int:
    return conn.execute("select count(*) from tick.jobs").fetchone()[0]


class TestOneJob:
    def test_is_put_in_and_runs(self, client, conn, settings):
        response = client.post("/jobs", json={"type": "greet", "payload": {"name": "Ada", "times": 2}})
        assert (response.status_code, response.json()) == (201, {"id": 1, "type": "greet", "created": True})
        assert response.headers["location"] == "/jobs/1"
        assert (response.headers["content-type"], response.headers["cache-control"]) == ("application/json", "no-store")
        assert tick(settings).done == 1
        shown = client.get(response.headers["location"]).json()
        assert (shown["status"], shown["result"], shown["payload"]) == ("done", "AdaAda", {"name": "Ada", "times": 2})

    @pytest.mark.parametrize("path", ["/jobs", "/jobs/"])
    def test_with_and_without_a_slash(self, client, path):
        response = client.post(path, json={"type": "take"})
        assert (response.status_code, response.headers["location"]) == (201, "/jobs/1")

    def test_every_option_reaches_its_column(self, client, conn):
        options = {
            "run_at": "2030-01-01T12:00:00+02:00",
            "delay": "1h30m",
            "priority": -7,
            "key": "user:1",
            "key_order": "strict",
            "idempotency_key": "order-1",
            "max_attempts": 9,
            "timeout": 12.5,
            "callback_url": "https://example.com/done",
            "on_dead_url": "https://example.com/dead",
            "traceparent": TRACE,
        }
        row = job(conn, put(client, **options))
        assert row["run_at"] == datetime(2030, 1, 1, 11, 30, tzinfo=UTC)
        assert (row["priority"], row["strict_key"], row["timeout"]) == (-7, True, timedelta(seconds=12.5))
        for name in ("key", "idempotency_key", "max_attempts", "callback_url", "on_dead_url", "traceparent"):
            assert row[name] == options[name]

    def test_null_is_as_if_an_option_were_not_there(self, client, conn):
        row = job(conn, put(client, key=None, delay=None, run_at=None, then=None, timeout=None))
        assert (row["key"], row["timeout"]) == (None, None)

    def test_what_follows_it(self, client, conn, settings):
        chain = {"type": "greet", "payload": {"name": "B"}, "then": [{"type": "take"}, {"type": "take", "priority": 3}]}
        put(client, then=chain)
        assert conn.execute("select type, parent_id, priority from tick.jobs order by id").fetchall() == [
            ("greet", None, 0),
            ("greet", 1, 0),
            ("take", 2, 0),
            ("take", 2, 3),
        ]

    def test_of_an_idempotency_key_there_is_one(self, client, conn):
        body = {"type": "take", "idempotency_key": "order-1"}
        first, second = client.post("/jobs", json=body), client.post("/jobs", json=body)
        assert (first.status_code, second.status_code) == (201, 200)
        assert second.json() == {"id": 1, "type": "take", "created": False}
        assert second.headers["location"] == "/jobs/1"

    def test_on_conflict_and_throttle_work_as_everywhere(self, client, conn):
        for number in range(2):
            client.post(
                "/jobs",
                json={
                    "type": "take",
                    "payload": {"n": number},
                    "idempotency_key": "a",
                    "on_conflict": "replace",
                    "delay": 60,
                },
            )
            throttled = client.post("/jobs", json={"type": "take", "payload": {"n": number}, "throttle": "1d"})
        assert throttled.status_code in (200, 201)  # midnight may have been in between
        assert job(conn, 1)["payload"] == {"n": 1}

    def test_the_middleware_of_this_process_sees_it(self, client, conn, monkeypatch):
        class Tenant(public.Middleware):
            def enqueue(self, new):
                return new._replace(key="tenant:7")

        monkeypatch.setattr(registry, "middleware", [Tenant()])
        assert job(conn, put(client))["key"] == "tenant:7"

    def test_it_goes_where_the_application_is_mounted(self, client, server, settings):  # noqa: F811 - the fixture
        inner = web.create_app(replace(settings, api_keys=(f"me:admin:{KEY}",)), registry)
        server.app = Starlette(routes=[Mount("/inner", inner)])
        assert client.post("/inner/jobs", json={"type": "take"}).headers["location"] == "/inner/jobs/1"


class TestABatch:
    def test_goes_in_as_a_whole_and_in_order(self, client, conn):
        jobs = [{"type": "greet", "payload": {"name": str(n)}} for n in range(MOST_JOBS)]
        response = client.post("/jobs", json={"jobs": jobs})
        assert response.status_code == 201
        told = response.json()["jobs"]
        assert [each["id"] for each in told] == list(range(1, MOST_JOBS + 1))
        assert all(each["created"] for each in told)
        assert conn.execute("select payload ->> 'name' from tick.jobs where id = 1000").fetchone() == ("999",)
        assert "location" not in response.headers

    def test_is_201_with_one_new_job_and_200_with_none(self, client):
        old, new = ({"type": "take", "idempotency_key": name} for name in ("old", "new"))
        assert client.post("/jobs", json={"jobs": [old]}).status_code == 201
        second = client.post("/jobs", json={"jobs": [old, new]})
        assert (second.status_code, [each["created"] for each in second.json()["jobs"]]) == (201, [False, True])
        third = client.post("/jobs", json={"jobs": [new, old, new]})
        assert (third.status_code, [each["id"] for each in third.json()["jobs"]]) == (
            200,
            [3, 1, 3],
        )  # a duplicate leaves a gap

    def test_is_refused_as_a_whole(self, client, conn):
        jobs = [{"type": "take"}] * 4
        jobs[3] = {"type": "greet", "payload": {"name": 7}}
        assert wrong(client.post("/jobs", json={"jobs": jobs})) == {"jobs[3].payload.name": "Expected `str`, got `int`"}
        assert count(conn) == 0

    @pytest.mark.parametrize(
        "jobs", [[], {}, None, "x", [{"type": "take"}] * (MOST_JOBS + 1)], ids=lambda jobs: str(jobs)[:10]
    )
    def test_has_from_one_to_a_thousand_jobs(self, client, conn, jobs):
        assert wrong(client.post("/jobs", json={"jobs": jobs})) == {"jobs": "Expected `array` of 1 to 1,000 jobs"}
        assert count(conn) == 0

    def test_those_that_follow_count_too(self, client, conn):
        jobs = [{"type": "take", "then": [{"type": "take"}] * 600}] * 2
        ((path, message),) = wrong(client.post("/jobs", json={"jobs": jobs})).items()
        assert path == "jobs[1].then[398]"
        assert "more than 1,000" in message

    def test_its_options_are_those_of_its_jobs(self, client):
        assert list(wrong(client.post("/jobs", json={"jobs": [{"type": "take"}], "type": "take", "delay": 3}))) == [
            "type",
            "delay",
        ]

    def test_two_that_meet_crosswise_are_both_answered(self, client, conn):
        """Each holds what the other waits for: Postgres ends one of them, which is sent again."""
        crossing = threading.Barrier(2)

        def send(keys, number):
            crossing.wait(10)
            jobs = [{"type": "take", "idempotency_key": f"{number}-{key}"} for key in keys]
            # Under two callers: one caller's calls wait for each other.
            headers = {"authorization": f"Bearer {OTHER if keys[0] else KEY}"}
            return client.post("/jobs", json={"jobs": jobs}, headers=headers).status_code

        with ThreadPoolExecutor(2) as pool:
            for number in range(4):
                sent = [pool.submit(send, keys, number) for keys in (range(100), range(99, -1, -1))]
                assert {each.result(60) for each in sent} <= {200, 201}
        assert count(conn) == 400


class TestWhatIsWrong:
    """Everything at once, where it is, and nothing is written."""

    WRITE = "write 2030-01-01T00:00:00Z; or for Z an offset such as +01:00, which is %2B01:00 in a query"
    CASES = [
        ({}, {"type": "it is missing"}),
        ([], {"$": "Expected `object`, got `array`"}),
        (7, {"$": "Expected `object`, got `int`"}),
        (None, {"$": "Expected `object`, got `null`"}),
        ({"type": 7}, {"type": "Expected `str`, got `int`"}),
        ({"type": ""}, {"type": "no handler has the type ''"}),
        ({"type": "gret"}, {"type": "no handler has the type 'gret'; did you mean 'greet'?"}),
        ({"type": "x" * 5000}, {"type": "no handler has this type"}),
        ({"type": "greet"}, {"payload.name": "it is missing"}),
        ({"type": "greet", "payload": []}, {"payload": "Expected `object`, got `array`"}),
        ({"type": "greet", "payload": None}, {"payload": "Expected `object`, got `null`"}),
        (
            {"type": "greet", "payload": {"nam": "x", "times": "2", "tone": "warm"}},
            {
                "payload.nam": "unknown field; did you mean `name`?",
                "payload.times": "Expected `int`, got `str`",
                "payload.tone": "'warm' is not one of kind, cold",
                "payload.name": "it is missing",
            },
        ),
        ({"type": "take", "dellay": 3}, {"dellay": "unknown field; did you mean `delay`?"}),
        ({"type": "take", "priority": 99999}, {"priority": "priority=99999 is not from -32768 to 32767"}),
        ({"type": "take", "priority": "high"}, {"priority": "Expected `int | null`, got `str`"}),
        ({"type": "take", "delay": "soon"}, {"delay": None}),
        ({"type": "take", "timeout": 0}, {"timeout": "timeout=0.0 is not a time of up to a day"}),
        ({"type": "take", "max_attempts": 0}, {"max_attempts": "max_attempts=0 is not from 1 to 100"}),
        ({"type": "take", "key": "a\x00"}, {"key": "key='a\\x00' is not a text of 1 to 512 bytes, without NUL"}),
        ({"type": "take", "key_order": "x"}, {"key_order": "'x' is not one of loose, strict"}),
        ({"type": "take", "on_conflict": "y" * 5000}, {"on_conflict": f"'{'y' * 98}… is not one of keep, replace, postpone"}),
        ({"type": "take", "run_at": "2030-01-01T00:00:00"}, {"run_at": f"it has no time zone: {WRITE}"}),
        ({"type": "take", "run_at": "tomorrow"}, {"run_at": f"it is no instant of RFC 3339: {WRITE}"}),
        ({"type": "take", "run_at": "1999-12-31T23:59:59Z"}, {"run_at": "it is not from the year 2000 to 9989, with the delay"}),
        ({"type": "take", "run_at": "9989-12-31T23:59:59Z", "delay": "1d"}, {"run_at": "it is not from the year 2000 to 9989, with the delay"}),
        ({"type": "take", "run_at": "9999-12-31T23:59:59Z", "delay": "3000d"}, {"run_at": "it is not from the year 2000 to 9989, with the delay"}),
        ({"type": "take", "on_conflict": "replace"}, {"on_conflict": "on_conflict='replace' is about an idempotency_key, and there is none"}),
        ({"type": "take", "throttle": 60, "idempotency_key": "a"}, {"$": "throttle and idempotency_key are both given; keep one"}),
        ({"type": "take", "then": 7}, {"then": "Expected `object`, got `int`"}),
        ({"type": "take", "then": [{"type": "take"}, {"type": "greet", "payload": {"name": 1}, "status": "done"}]},
         {"then[1].status": None, "then[1].payload.name": "Expected `str`, got `int`"}),
        ({"type": "take", "payload": {"a": "\x00"}}, {"payload": "it holds a NUL character, which Postgres cannot store"}),
        ({"type": "take", "payload": {"a": "x" * 70_000}}, {"payload": None}),
        ({"type": "take", "traceparent": "00-xyz"}, {"traceparent": "traceparent='00-xyz' is not a traceparent of W3C Trace Context"}),
    ]  # fmt: skip

    @pytest.mark.parametrize(("body", "said"), CASES, ids=lambda value: json.dumps(value)[:50])
    def test_is_said(self, client, conn, body, said):
        found = wrong(client.post("/jobs", content=json.dumps(body), headers=JSON))
        assert list(found) == list(said)
        assert {path: message for path, message in said.items() if message} == {
            path: found[path] for path, message in said.items() if message
        }
        assert count(conn) == 0

    def test_is_said_with_what_the_annotations_of_a_handler_list(self, client):
        class Colour(Enum):
            RED = "red"
            BLUE = "blue"

        def paint(
            colour: Colour | None, size: Annotated[Literal[1, 2], "of a brush"], tags: list[Literal["a"]]
        ) -> None: ...

        paint.__annotations__ |= {"colour": Colour | None}
        public.job(paint)
        body = {"type": "paint", "payload": {"colour": "green", "size": 3, "tags": ["b"]}}
        assert wrong(client.post("/jobs", json=body)) == {
            "payload.colour": "'green' is not one of red, blue",
            "payload.size": "3 is not one of 1, 2",
            "payload.tags[0]": "Invalid enum value 'b'",
        }

    @pytest.mark.parametrize(
        "column",
        ["status", "attempt", "schedule", "window", "id", "tick_id", "failures", "result", "parent_id", "group_id", "waits_for",
         "strict_key", "lane", "inputs", "created_at", "lease_expires_at", "finished_at", "fence", "__class__"],
    )  # fmt: skip
    def test_no_other_column_can_be_set(self, client, conn, column):
        found = wrong(client.post("/jobs", json={"type": "take", column: 1}))
        assert list(found) == [column]
        assert found[column].startswith("unknown field; ")
        assert count(conn) == 0

    def test_is_said_of_all_jobs_at_once_up_to_a_hundred(self, client):
        jobs = [{"type": "greet", "payload": {"name": 1, "times": "x"}, "oops": 1}] * 500
        response = client.post("/jobs", json={"jobs": jobs})
        assert len(wrong(response)) == 100
        assert response.json()["detail"].endswith("and 99 more at least")
        assert len(response.content) < 20_000

    def test_does_not_give_back_what_is_long(self, client):
        response = client.post("/jobs", json={"type": "take", "x" * 500_000: 1, "callback_url": "y" * 300_000})
        assert list(map(len, wrong(response))) == [100, len("callback_url")]
        assert len(response.content) < 3000

    def test_what_the_database_alone_can_refuse_is_no_error_of_ours(self, client, conn):
        conn.execute("alter table tick.jobs add constraint no_ada check (payload ->> 'name' <> 'Ada')")
        try:
            body = check(
                client.post("/jobs", json={"type": "greet", "payload": {"name": "Ada"}}), 422, "invalid-request"
            )
        finally:
            conn.execute("alter table tick.jobs drop constraint no_ada")
        assert "no_ada" in body["detail"]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"nope",
            b"\xff\xfe",
            b'{"type": "take",}',
            b'{"type": 1e999}',
            b"[" * 100_000,
            b'"\\ud800"',
            b"{}{}",
        ],
        ids=lambda body: repr(body[:20]),
    )
    def test_a_body_that_is_no_json(self, client, conn, body):
        for path in ("/jobs", "/jobs/replay"):
            check(client.post(path, content=body, headers=JSON), 400, "malformed-request")

    @pytest.mark.parametrize("depth", [31, 45, 5000])
    def test_a_payload_that_is_deep(self, client, conn, depth):
        body = b'{"type": "take", "payload": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
        response = client.post("/jobs", content=body, headers=JSON)
        if depth == 31:
            assert response.status_code == 201
        else:
            assert "deeper than 40 levels" in check(response, 400, "malformed-request")["detail"]

    def test_a_body_that_is_long(self, client, conn):
        padding = b" " * (LONGEST_BODY - len(b'{"type": "take"}'))
        assert client.post("/jobs", content=b'{"type": "take"}' + padding, headers=JSON).status_code == 201
        response = client.post("/jobs", content=b'{"type": "take"}' + padding + b" ", headers=JSON)
        assert "1,048,576 bytes" in check(response, 413, "too-large")["detail"]
        assert count(conn) == 1

    def test_a_body_that_is_long_and_does_not_say_so(self, client, conn):
        def chunks():
            yield from [b" " * 65_536] * 17

        check(client.post("/jobs", content=chunks(), headers=JSON), 413, "too-large")

    @pytest.mark.parametrize(
        "given", ["text/plain", "application/x-www-form-urlencoded", "application/cloudevents+json", "", "json"]
    )
    def test_a_body_that_is_not_said_to_be_json(self, client, conn, given):
        response = client.post("/jobs", content=b'{"type": "take"}', headers={"content-type": given})
        check(response, 415, "unsupported-media-type")
        assert response.headers["accept-post"] == "application/json"

    @pytest.mark.parametrize(
        "given", ["application/json", "application/json; charset=utf-8", "Application/JSON ;x=y", None]
    )
    def test_a_body_that_is(self, client, given):
        headers = {} if given is None else {"content-type": given}
        assert client.post("/jobs", content=b'{"type": "take"}', headers=headers).status_code == 201


class TestWhoMayWhat:
    @pytest.fixture
    def plain(self, client) -> dict[str, str]:
        """The headers of a key that may only enqueue."""
        from tick import http_job, sql_job

        for handler in (sql_job.sql, http_job.http, http_job.callback):
            registry.add(handler)
        return {"authorization": f"Bearer {PLAIN}"}

    SQL = {"type": "sql", "payload": {"statement": "select 1"}}
    CALL = {"type": "http", "payload": {"url": "https://example.com/"}}
    UNSIGNED = {"type": "http", "payload": {"url": "https://example.com/", "sign": False}}

    @pytest.mark.parametrize(
        "body",
        [
            SQL,
            {"jobs": [{"type": "take"}, SQL]},
            {"type": "take", "then": {"type": "take", "then": SQL}},
            {
                "type": "tick.callback",
                "payload": {"url": "https://example.com/", "id": "a", "type": "b", "timestamp": "c", "data": {}},
            },
            CALL,
            {"type": "http", "payload": UNSIGNED["payload"] | {"headers": {"x": "${secret:stripe}"}}},
            {"type": "http", "payload": UNSIGNED["payload"] | {"headers": {"x": "a ${secret:"}}},
            {"type": "http", "payload": {"url": "https://example.com/", "sign": None}},
            {"type": "http", "payload": {"url": "https://example.com/", "sign": True}},
            {"type": "http", "payload": {"url": "https://example.com/", "sign": ""}},
            {"type": "http", "payload": {"url": "https://example.com/", "sign": "billing"}},
        ],
        ids=lambda body: json.dumps(body)[:70],
    )
    def test_what_acts_with_the_rights_of_the_deployment_takes_admin(self, client, conn, plain, body):
        check(client.post("/jobs", json=body, headers=plain), 403, "missing-scope", detail="admin")
        assert count(conn) == 0
        assert client.post("/jobs", json=body).status_code == 201

    def test_a_call_does_so_too_without_any_secret(self, client, conn, plain):
        check(client.post("/jobs", json=self.UNSIGNED, headers=plain), 403, "missing-scope", detail="admin")
        assert count(conn) == 0

    @pytest.mark.parametrize(
        ("body", "place"),
        [
            (SQL, "$"),
            ({"jobs": [{"type": "take"}, SQL, SQL]}, "jobs[1]"),
            ({"type": "take", "then": {"type": "take", "then": SQL}}, "then.then"),
            ({"jobs": [{"type": "take", "then": [{"type": "take"}, SQL]}]}, "jobs[0].then[1]"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    @pytest.mark.parametrize("kept", ["environment", "table"])
    def test_who_lacks_the_scope_is_told_for_which_job(self, client, conn, plain, body, place, kept):
        if kept == "table":
            id, key = keys.create()
            conn.execute(
                "insert into tick.api_keys (id, name, scopes, hash) values (%s, 'x', '{enqueue}', %s)",
                [id, keys.digest(key)],
            )
            plain = {"authorization": f"Bearer {key}"}
        said = check(client.post("/jobs", json=body, headers=plain), 403, "missing-scope")["detail"]
        assert said.startswith(f"{place}: a job of the type 'sql' acts with the deployment's own rights; this takes")
        assert "with the scope admin" in said
        assert client.post("/jobs", json={"type": "take"}, headers=plain).status_code == 201


class TestTheIdempotencyKey:
    BODY = {"type": "take", "payload": {"order": 1}}

    def send(self, client, key: str = '"abc"', body=None, **headers) -> httpx.Response:
        return client.post("/jobs", json=body or self.BODY, headers={"idempotency-key": key, **headers})

    @pytest.mark.parametrize("body", [BODY, {"jobs": [BODY, BODY]}], ids=["one", "batch"])
    def test_gives_the_same_answer_once_more(self, client, conn, body):
        first, second = self.send(client, body=body), self.send(client, body=body)
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.content == second.content
        assert first.headers.get("location") == second.headers.get("location")
        assert "idempotency-replayed" not in first.headers
        assert second.headers["idempotency-replayed"] == "true"
        assert count(conn) == len(body.get("jobs", "x"))

    def test_is_the_same_quoted_and_bare_and_however_the_body_is_written(self, client, conn):
        self.send(client)
        assert self.send(client, "abc").headers["idempotency-replayed"] == "true"
        spaced = json.dumps(self.BODY, indent=4).encode()
        response = client.post("/jobs", content=spaced, headers={"idempotency-key": "abc"} | JSON)
        assert response.headers["idempotency-replayed"] == "true"

    def test_is_of_the_request_and_not_of_its_trace(self, client):
        self.send(client, traceparent=TRACE)
        assert self.send(client, traceparent=TRACE.replace("b7", "c8")).headers["idempotency-replayed"] == "true"

    def test_is_refused_with_another_body(self, client, conn):
        self.send(client)
        check(self.send(client, body={"type": "take"}), 422, "idempotency-key-reused", detail="'abc'")
        assert count(conn) == 1

    def test_belongs_to_who_sends_it(self, client, conn):
        self.send(client)
        other = self.send(client, authorization=f"Bearer {OTHER}")
        assert "idempotency-replayed" not in other.headers
        assert count(conn) == 2

    def test_is_not_spent_by_what_is_refused(self, client, conn):
        assert self.send(client, body={"type": "tak"}).status_code == 422
        assert self.send(client).status_code == 201

    @pytest.mark.parametrize(
        "given",
        [
            "",
            '""',
            '"',
            '"a',
            'a"',
            '"a"b"',
            '"a\\b"',
            '"é"',
            "é",
            "a b",
            "a,b",
            "a;b",
            '"a";b=c',
            "x" * 256,
            f'"{"x" * 256}"',
        ],
    )
    def test_that_is_malformed(self, client, conn, given):
        response = client.post("/jobs", json=self.BODY, headers=[(b"idempotency-key", given.encode())])
        check(response, 400, "malformed-idempotency-key")
        assert count(conn) == 0

    def test_that_comes_twice_is_malformed(self, client):
        headers = [(b"idempotency-key", b"a"), (b"idempotency-key", b"a")]
        check(client.post("/jobs", json=self.BODY, headers=headers), 400, "malformed-idempotency-key")

    @pytest.mark.parametrize(
        ("given", "key"),
        [('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"), ('"a b, c;d"', "a b, c;d"),
         (r'"a\"b\\c"', r'a"b\c'), ("a/b.c:d_e-f~g", "a/b.c:d_e-f~g"), ("x" * 255, "x" * 255)],
    )  # fmt: skip
    def test_as_it_may_be_written(self, client, conn, given, key):
        assert self.send(client, given).status_code == 201
        assert conn.execute("select caller, key from tick.api_answers").fetchone() == ("env:me", key)

    def test_is_kept_for_a_day_and_then_cleaned_by_the_next(self, client, conn):
        move_clock(conn, "2030-01-01T00:00:00Z")
        self.send(client)
        self.send(client, "other")
        move_clock(conn, "2030-01-01T23:59:59Z")
        assert self.send(client).headers["idempotency-replayed"] == "true"
        move_clock(conn, "2030-01-02T00:00:00Z")
        again = self.send(client, body={"type": "take"})
        assert again.status_code == 201
        assert conn.execute("select key from tick.api_answers").fetchall() == [("abc",)]
        assert count(conn) == 3

    @contextmanager
    def held(self, url, client):
        """A request that is being worked on, for as long as another transaction holds its job's own key."""
        body = {"type": "take", "idempotency_key": "mine"}
        with psycopg.connect(url) as blocker, ThreadPoolExecutor(1) as pool:
            blocker.execute("select tick.enqueue('take', idempotency_key => 'mine')")
            first = pool.submit(self.send, client, body=body)
            with psycopg.connect(url, autocommit=True) as watcher:
                wait_until(lambda: self.waiting(watcher))
                yield body, first, blocker, watcher

    def waiting(self, conn) -> list:
        return conn.execute(
            "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        ).fetchall()

    def test_that_is_in_flight_is_a_conflict(self, client, conn, url):
        with self.held(url, client) as (body, first, blocker, _):
            response = self.send(client, body=body)
            check(response, 409, "request-in-flight")
            assert response.headers["retry-after"] == "1"
            blocker.rollback()
            assert first.result(30).status_code == 201, first.result().text
        assert self.send(client, body=body).headers["idempotency-replayed"] == "true"
        assert count(conn) == 1

    def test_a_crash_leaves_neither_the_job_nor_the_answer(self, client, conn, url):
        with self.held(url, client) as (body, first, _, watcher):
            ((pid,),) = self.waiting(watcher)
            watcher.execute("select pg_terminate_backend(%s)", [pid])
            check(first.result(30), 503)
            assert watcher.execute("select count(*) from tick.api_answers").fetchone() == (0,)
        again = self.send(client, body=body)
        assert again.status_code == 201 or again.json()["created"] is False
        assert "idempotency-replayed" not in again.headers
        assert count(conn) == 1

    def test_of_many_at_once_one_is_done(self, client, conn):
        with ThreadPoolExecutor(8) as pool:
            sent = [pool.submit(self.send, client) for _ in range(24)]
            codes = [each.result(60).status_code for each in sent]
        assert set(codes) <= {201, 409}
        assert 201 in codes
        assert count(conn) == 1


class TestACloudEvent:
    HEADERS = {
        "ce-specversion": "1.0",
        "ce-type": "greet",
        "ce-source": "/orders",
        "ce-id": "A-1",
        "ce-time": "whenever",
    }

    def test_is_a_job_of_its_type(self, client, conn):
        response = client.post("/jobs", json={"name": "Ada"}, headers=self.HEADERS)
        assert (response.status_code, response.headers["location"]) == (201, "/jobs/1")
        row = job(conn, 1)
        assert (row["type"], row["payload"], row["idempotency_key"]) == ("greet", {"name": "Ada"}, "/orders A-1")

    def test_that_comes_again_is_there_already(self, client, conn):
        for _ in range(2):
            response = client.post("/jobs", json={"name": "Ada"}, headers=self.HEADERS)
        assert (response.status_code, response.json()["created"]) == (200, False)
        other = client.post("/jobs", json={"name": "Ada"}, headers=self.HEADERS | {"ce-source": "/other"})
        assert other.status_code == 201

    def test_its_headers_are_percent_encoded(self, client, conn):
        client.post("/jobs", json={"name": "Ada"}, headers=self.HEADERS | {"ce-source": "/caf%C3%A9"})
        assert job(conn, 1)["idempotency_key"] == "/café A-1"

    def test_without_data_has_no_payload(self, client, conn):
        headers = self.HEADERS | {"ce-type": "take"}
        assert client.post("/jobs", headers=headers).status_code == 201
        assert job(conn, 1)["payload"] == {}

    def test_its_payload_is_checked_as_any(self, client, conn):
        assert wrong(client.post("/jobs", json={"name": 1}, headers=self.HEADERS)) == {
            "payload.name": "Expected `str`, got `int`"
        }
        assert list(wrong(client.post("/jobs", json={"jobs": []}, headers=self.HEADERS))) == [
            "payload.jobs",
            "payload.name",
        ]
        assert list(wrong(client.post("/jobs", json=[1], headers=self.HEADERS))) == ["payload"]

    @pytest.mark.parametrize("name", ["ce-type", "ce-source", "ce-id"])
    def test_that_lacks_what_it_must_have(self, client, name):
        headers = {key: value for key, value in self.HEADERS.items() if key != name}
        assert wrong(client.post("/jobs", json={"name": "Ada"}, headers=headers)) == {name: "it is missing"}

    def test_of_another_version(self, client):
        headers = self.HEADERS | {"ce-specversion": "0.3"}
        assert list(wrong(client.post("/jobs", json={"name": "Ada"}, headers=headers))) == ["ce-specversion"]

    def test_whose_id_is_too_long(self, client):
        headers = self.HEADERS | {"ce-id": "x" * 600}
        assert list(wrong(client.post("/jobs", json={"name": "Ada"}, headers=headers))) == ["idempotency_key"]


class TestTheTrace:
    def test_is_kept_with_the_job(self, client, conn):
        client.post(
            "/jobs",
            json={"jobs": [{"type": "take"}, {"type": "take", "then": {"type": "take"}}]},
            headers={"traceparent": TRACE},
        )
        assert conn.execute("select distinct traceparent from tick.jobs").fetchall() == [(TRACE,)]

    def test_of_a_job_goes_before_that_of_the_request(self, client, conn):
        other = TRACE.replace("b7", "c8")
        client.post("/jobs", json={"type": "take", "traceparent": other}, headers={"traceparent": TRACE})
        assert job(conn, 1)["traceparent"] == other

    @pytest.mark.parametrize(
        "given",
        ["", "x", TRACE.upper(), TRACE[:-1], TRACE + "0", TRACE + "-00", "ff" + TRACE[2:], f"00-{'0' * 32}-b7ad6b7169203331-01",
         f"00-{'a' * 32}-{'0' * 16}-01", "01" + TRACE[2:] + "x"],
    )  # fmt: skip
    def test_that_is_malformed_is_ignored(self, client, conn, given):
        response = client.post("/jobs", json={"type": "take"}, headers={"traceparent": given})
        assert response.status_code == 201
        assert job(conn, 1)["traceparent"] is None

    def test_of_a_later_version_is_read_as_far_as_it_is_known(self, client, conn):
        client.post("/jobs", json={"type": "take"}, headers={"traceparent": "cc" + TRACE[2:] + "-what-will-be"})
        assert job(conn, 1)["traceparent"] == "cc" + TRACE[2:]

    def test_is_of_its_own_request_alone(self, client, conn):
        client.post("/jobs", json={"type": "take"}, headers={"traceparent": TRACE})
        client.post("/jobs", json={"type": "take"})
        assert job(conn, 2)["traceparent"] is None


class TestLooking:
    def test_at_nothing(self, client):
        assert client.get("/jobs").json() == {"jobs": [], "next": None}

    def test_at_a_list_the_newest_first(self, client, conn):
        for status in ("pending", "running", "done", "dead", "cancelled"):
            a_job(conn, "take", status)
        jobs = client.get("/jobs").json()["jobs"]
        assert [(each["id"], each["status"]) for each in jobs] == [
            (5, "cancelled"), (4, "dead"), (3, "done"), (2, "running"), (1, "pending")
        ]  # fmt: skip
        assert list(jobs[0]) == [
            "id", "type", "status", "key", "schedule", "window", "priority", "run_at", "created_at", "started_at", "finished_at",
            "attempt", "failures", "losses", "waits_for", "last_error",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("query", "ids"),
        [
            ("status=pending", [7, 6, 1]), ("status=running", [2]), ("status=dead", [4]), ("status=cancelled", [5]), ("status=done", [3]),
            ("type=greet", [7]), ("type=greet&status=dead", []), ("key=user:1", [6, 1]), ("schedule=nightly", [3]),
            ("key=user:1&limit=1", [6]), ("key=null", []), ("schedule=null", []), ("created_after=2029-12-31T23:59:59Z", [7]), ("created_before=2020-01-01T00:00:00%2B01:00", [1]),
            ("created_before=2019-12-31T23:00:00Z", [1]), ("created_before=2019-12-31T22:59:00Z", []),
            ("finished_after=2021-06-01T00:00:00Z", [5, 4]), ("finished_before=2021-06-01T00:00:00Z", [3]),
            ("finished_after=2021-01-01T00:00:00Z&finished_before=2024-01-01T00:00:00Z", [4]), ("type=nobody", []), ("limit=100", [7, 6, 5, 4, 3, 2, 1]),
        ],
    )  # fmt: skip
    def test_at_what_the_filters_let_through(self, client, conn, query, ids):
        a_job(conn, "take", key="user:1", created_at="2019-12-31T22:59:59Z")
        a_job(conn, "take", "running", created_at="2020-02-01")
        a_job(conn, "take", "done", schedule="nightly", finished_at="2021-01-01", created_at="2020-03-01")
        a_job(conn, "take", "dead", finished_at="2023-01-01", created_at="2020-03-01")
        a_job(conn, "take", "cancelled", finished_at="2024-01-01", created_at="2020-03-01")
        a_job(conn, "take", key="user:1", created_at="2020-03-01")
        a_job(conn, "greet", created_at="2030-01-01")
        response = client.get(f"/jobs?{query}")
        assert [each["id"] for each in response.json()["jobs"]] == ids, response.text

    def test_page_by_page_while_others_come_in(self, client, conn):
        for _ in range(25):
            a_job(conn, "take")
        seen, cursor = [], ""
        while cursor is not None:
            page = client.get("/jobs", params={"limit": 10} | ({"cursor": cursor} if cursor else {})).json()
            seen += [each["id"] for each in page["jobs"]]
            cursor = page["next"]
            a_job(conn, "take")
        assert seen == list(range(25, 0, -1))

    @pytest.mark.parametrize(
        ("query", "path"),
        [
            ("status=nope", "status"), ("status=", "status"), ("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("limit=1.5", "limit"), ("limit=", "limit"), ("finished_before=0.5", "finished_before"),
            ("statu=dead", "statu"), ("cursor=x", "cursor"), ("cursor=%00", "cursor"), ("cursor=YmVmb3JlIDA-", "cursor"), ("key=%00", "key"),
            ("key=", "key"), (f"type={'x' * 101}", "type"), ("created_after=yesterday", "created_after"),
            ("created_after=2030-01-01T00:00:00", "created_after"), ("status=dead&status=done", "status"), ("before=7", "before"),
        ],
    )  # fmt: skip
    def test_at_what_no_filter_can_be(self, client, query, path):
        assert list(wrong(client.get(f"/jobs?{query}"))) == [path]

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("status=bogus", "'bogus' is not one of pending, running, done, dead, cancelled"),
            ("created_after=2030-01-01T00:00:00+00:00", "it is no instant of RFC 3339: write 2030-01-01T00:00:00Z; "),
            ("created_after=2030-01-01T00:00:00", "it has no time zone: write 2030-01-01T00:00:00Z; "),
        ],
    )
    def test_at_what_no_filter_can_be_says_what_could(self, client, query, said):
        (message,) = wrong(client.get(f"/jobs?{query}")).values()
        assert message.startswith(said)
        assert "%2B01:00 in a query" in message or query.startswith("status")

    def test_all_that_is_wrong_with_a_query_is_said(self, client):
        assert list(wrong(client.get("/jobs?statu=dead&limit=0&status=x"))) == ["statu", "limit", "status"]

    @pytest.mark.parametrize("text", ["before 7", "before x", "after 7", "before 99999999999999999999", ""])
    def test_at_a_cursor_of_anybody_s_own_making(self, client, text):
        cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        response = client.get("/jobs", params={"cursor": cursor})
        assert response.status_code == (200 if text == "before 7" else 422)

    def test_at_one_job_and_all_there_is_to_know(self, client, conn, settings):
        @public.job(max_attempts=2)
        async def stumble(**rest) -> None:
            raise ValueError("the floor is wet")

        id = put(
            client,
            type="stumble",
            payload={"a": 1},
            key="k",
            idempotency_key="i",
            callback_url="https://example.com/x?token=t#f",
        )
        tick(settings)
        shown = client.get(f"/jobs/{id}").json()
        assert (shown["status"], shown["attempt"], shown["failures"], shown["last_error"]) == (
            "pending", 1, 1, "ValueError: the floor is wet"
        )  # fmt: skip
        assert (shown["payload"], shown["key"], shown["idempotency_key"]) == ({"a": 1}, "k", "i")
        assert "the floor is wet" in shown["errors"][0]["traceback"]
        assert shown["callback_url"] == "https://example.com/x"
        assert shown["created_at"].endswith("Z")
        for name in (
            "result",
            "progress",
            "waits_for",
            "started_at",
            "finished_at",
            "timeout",
            "max_attempts",
            "on_dead_url",
        ):
            assert name in shown

    def test_at_what_it_waits_for_and_what_it_said(self, client, conn):
        parent = a_job(conn, "take", "running", progress={"done": 1, "total": 4, "note": "x"}, awaited=True)
        child = a_job(conn, "take", parent_id=parent, waits_for="job")
        assert client.get(f"/jobs/{parent}").json()["progress"]["total"] == 4
        shown = client.get(f"/jobs/{child}").json()
        assert (shown["waits_for"], shown["parent_id"]) == ("job", parent)

    def test_at_a_secret_is_not_possible(self, client, conn):
        payload = {
            "user": 1,
            "password": "hunter2",
            "nested": [{"Api-Key": "hunter2", "access_token": {"x": "hunter2"}}],
            "tokens": 12,
        }
        id = a_job(conn, "take", "done", payload=payload, result={"client_secret": "hunter2", "ok": True})
        response = client.get(f"/jobs/{id}")
        assert "hunter2" not in response.text
        assert response.json()["payload"] == {
            "user": 1, "password": "[redacted]", "tokens": 12,
            "nested": [{"Api-Key": "[redacted]", "access_token": "[redacted]"}],
        }  # fmt: skip
        assert response.json()["result"] == {"client_secret": "[redacted]", "ok": True}

    def test_at_what_a_url_holds_beside_its_place_is_not_possible(self, client, conn):
        url, place = "https://u:sekrit@example.com/a?key=sekrit#sekrit", "https://example.com/a"
        payload = {"url": url, "json": {"imageUrl": url, "redirect_uri": f"{url}\nsekrit", "curl": "is it a url? no"}}
        id = a_job(conn, "http", payload=payload, result={"hooks": [{"url": url}]})
        response = client.get(f"/jobs/{id}")
        assert "sekrit" not in response.text
        shown = response.json()
        assert shown["payload"] == {
            "url": place, "json": {"imageUrl": place, "redirect_uri": place, "curl": "is it a url? no"},
        }  # fmt: skip
        assert shown["result"] == {"hooks": [{"url": place}]}

    def test_at_a_payload_that_no_parser_can_read(self, client, conn):
        for payload in ('{"a": 1e5000}', '{"a": ' + "[" * 3000 + "]" * 3000 + "}"):
            (id,) = conn.execute(
                "insert into tick.jobs (type, payload) values ('take', %s) returning id", [payload]
            ).fetchone()
            response = client.get(f"/jobs/{id}")
            assert response.status_code == 200
            assert isinstance(response.json()["payload"], str)

    def test_what_is_nested_is_looked_at_as_far_as_it_makes_sense(self):
        deep = {"token": "x"}
        for _ in range(100):
            deep = {"a": deep}
        assert "[nested too deeply]" in json.dumps(redacted(deep))
        assert '"x"' not in json.dumps(redacted(deep))

    @pytest.mark.parametrize("id", ["1", "0", "-1", "x", "1.0", "9" * 18, "9" * 30, "%00", "٣", "1e3"])
    def test_at_a_job_that_is_not_there(self, client, id):
        for method, path in (
            ("GET", f"/jobs/{id}"),
            ("POST", f"/jobs/{id}/cancel"),
            ("POST", f"/jobs/{id}/replay"),
            ("POST", f"/jobs/{id}/run-now"),
        ):
            check(client.request(method, path), 404, "no-such-job")


class TestDeciding:
    def test_cancel_a_pending_job(self, client, conn):
        response = client.post(f"/jobs/{put(client)}/cancel")
        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
        assert response.json()["finished_at"]

    def test_tell_a_running_job_to_stop(self, client, conn):
        response = client.post(f"/jobs/{a_job(conn, 'take', 'running')}/cancel")
        assert (response.status_code, response.json()["status"]) == (202, "running")
        assert response.json()["cancel_requested_at"]

    @pytest.mark.parametrize("status", ["dead", "cancelled"])
    def test_replay(self, client, conn, settings, status):
        id = a_job(conn, "greet", status, payload={"name": "Ada"})
        response = client.post(f"/jobs/{id}/replay")
        assert (response.status_code, response.json()["status"], response.json()["failures"]) == (200, "pending", 0)
        assert tick(settings).done == 1

    def test_run_now(self, client, conn):
        id = put(client, delay="2d")
        shown = client.post(f"/jobs/{id}/run-now").json()
        assert datetime.fromisoformat(shown["run_at"]) < datetime.now(UTC) + timedelta(hours=1)

    @pytest.mark.parametrize(
        ("action", "allowed"),
        [("cancel", ["pending", "running"]), ("replay", ["dead", "cancelled"]), ("run-now", ["pending"])],
    )
    @pytest.mark.parametrize("status", ["pending", "running", "done", "dead", "cancelled"])
    def test_what_a_status_does_not_allow(self, client, conn, action, allowed, status):
        id = a_job(conn, "take", status)
        before = job(conn, id)
        response = client.post(f"/jobs/{id}/{action}")
        if status in allowed:
            assert response.status_code in (200, 202)
        else:
            body = check(
                response, 409, "wrong-status", detail=f"job {id} is {status}: only a job that is {' or '.join(allowed)}"
            )
            assert (body["job_status"], body["allowed"]) == (status, allowed)
            assert job(conn, id) == before

    def test_a_body_is_not_looked_at(self, client, conn):
        assert (
            client.post(f"/jobs/{put(client)}/cancel", content=b"{", headers={"content-type": "text/x"}).status_code
            == 200
        )


class TestReplayingMany:
    @pytest.fixture(autouse=True)
    def rows(self, client, conn):
        for number in range(15):
            a_job(
                conn,
                "take",
                "dead",
                key=f"k{number % 2}",
                finished_at=f"2026-01-{number + 1:02}",
                schedule="nightly" if number < 3 else None,
            )
        for _ in range(4):
            a_job(conn, "greet", "cancelled")
        a_job(conn, "take", "done")

    def replay(self, client, **wanted) -> dict:
        response = client.post("/jobs/replay", json=wanted)
        assert response.status_code == 200, response.text
        return response.json()

    @pytest.mark.parametrize("body", [b"{}", b'{"dry_run": true}'])
    def test_says_first_what_it_would_do(self, client, conn, body):
        found = client.post("/jobs/replay", content=body, headers=JSON).json()
        assert found == {"dry_run": True, "count": 15, "sample": list(range(1, 11)), "more": False}
        assert statuses(conn) == {"dead": 15, "cancelled": 4, "done": 1}

    def test_does_it_when_told_to(self, client, conn, settings):
        assert self.replay(client, dry_run=False) == {
            "dry_run": False,
            "count": 15,
            "sample": list(range(1, 11)),
            "more": False,
        }
        assert statuses(conn) == {"pending": 15, "cancelled": 4, "done": 1}
        assert tick(settings).done == 15

    @pytest.mark.parametrize(
        ("wanted", "count"),
        [
            ({"status": "cancelled"}, 4), ({"type": "greet"}, 0), ({"type": "greet", "status": "cancelled"}, 4), ({"key": "k1"}, 7),
            ({"schedule": "nightly"}, 3), ({"finished_after": "2026-01-10T00:00:00Z"}, 5), ({"finished_before": "2026-01-03T00:00:00Z"}, 2),
            ({"limit": 15}, 15), ({"key": "k1", "schedule": "nightly"}, 1),
        ],
    )  # fmt: skip
    def test_those_that_the_filter_finds(self, client, conn, wanted, count):
        assert self.replay(client, **wanted)["count"] == count
        done = self.replay(client, dry_run=False, **wanted)
        assert (done["count"], done["more"]) == (count, False)
        assert statuses(conn).get("pending", 0) == count

    def test_the_oldest_as_many_as_the_limit(self, client, conn):
        assert self.replay(client, limit=4, dry_run=False) == {
            "dry_run": False,
            "count": 4,
            "sample": [1, 2, 3, 4],
            "more": True,
        }

    def test_ten_thousand_at_once(self, client, conn):
        conn.execute(
            "insert into tick.jobs (type, status, finished_at, attempt, tick_id)"
            " select 'greet', 'dead', now(), 1, %s from generate_series(1, 10003)", [NEVER],
        )  # fmt: skip
        done = self.replay(client, type="greet", dry_run=False)
        assert (done["count"], done["more"]) == (10_000, True)
        assert self.replay(client, type="greet", dry_run=False)["count"] == 3

    def test_counts_as_one_call(self, client, conn):
        at = "select full_at from tick.api_rates"
        self.replay(client)
        move_clock(conn, "2030-01-01T00:00:00Z")
        self.replay(client, dry_run=False)
        (first,) = conn.execute(at).fetchone()
        assert first == datetime(2030, 1, 1, 0, 0, 0, 600, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("wanted", "path"),
        [({"status": "done"}, "status"), ({"limit": 10_001}, "limit"), ({"limit": 0}, "limit"), ({"dryrun": False}, "dryrun"),
         ({"dry_run": "false"}, "dry_run"), ({"ids": [1]}, "ids"), ({"key": "\x00"}, "key"), ([], "$")],
    )  # fmt: skip
    def test_what_is_no_filter(self, client, conn, wanted, path):
        assert list(wrong(client.post("/jobs/replay", json=wanted))) == [path]
        assert statuses(conn)["dead"] == 15

    def test_a_status_that_cannot_be_replayed_is_answered_with_those_that_can(self, client):
        found = wrong(client.post("/jobs/replay", json={"status": "done"}))
        assert found == {"status": "'done' is not one of dead, cancelled"}


class TestTheProtocol:
    PATHS = {
        "/jobs": "GET, HEAD, OPTIONS, POST",
        "/jobs/1": "GET, HEAD, OPTIONS",
        "/jobs/replay": "OPTIONS, POST",
        "/jobs/1/cancel": "OPTIONS, POST",
        "/jobs/1/replay": "OPTIONS, POST",
        "/jobs/1/run-now": "OPTIONS, POST",
        "/jobs/replay/": "OPTIONS, POST",
        "/openapi.json": "GET, HEAD",
    }

    @pytest.mark.parametrize("path", PATHS)
    def test_options_and_methods_that_are_not_there(self, client, conn, path):
        a_job(conn, "take")
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO"} - set(self.PATHS[path].split(", ")):
            response = client.request(method, path)
            check(response, 405)
            assert response.headers["allow"] == self.PATHS[path]
        if path != "/openapi.json":
            response = httpx.options(f"{client.base_url}{path}")
            assert (response.status_code, response.headers["allow"], response.content) == (204, self.PATHS[path], b"")
        assert statuses(conn) == {"pending": 1}

    @pytest.mark.parametrize("path", ["/jobs", "/jobs/1", "/openapi.json"])
    def test_head_is_get_without_the_body(self, client, conn, path):
        a_job(conn, "take")
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length", "cache-control"):
            assert head.headers[name] == get.headers[name]

    def test_no_other_origin_is_let_in(self, client):
        response = client.get("/jobs", headers={"origin": "https://evil.example"})
        preflight = client.options(
            "/jobs", headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
        )
        for each in (response, preflight):
            assert not [name for name in each.headers if name.startswith("access-control")]

    def test_every_answer_tells_the_rate(self, client, conn):
        for response in (client.get("/jobs"), client.get("/jobs/7"), client.post("/jobs", json={"type": "take"})):
            assert response.headers["ratelimit-policy"] == '"calls";q=100000;w=60'
            assert re.fullmatch(r'"calls";r=999\d\d;t=1', response.headers["ratelimit"])


class TestTheDatabase:
    @pytest.fixture
    def opened(self, monkeypatch) -> list[str]:
        """The connections that are opened; they are as real as ever."""
        opened, really = [], database.open_connection

        async def open_connection(url: str):
            opened.append(url)
            return await really(url)

        monkeypatch.setattr(database, "open_connection", open_connection)
        return opened

    def test_is_asked_over_one_connection(self, client, conn, opened):
        for method, path, body in (
            ("GET", "/jobs", None),
            ("POST", "/jobs", {"type": "take"}),
            ("POST", "/jobs/replay", {"dry_run": False}),
        ):
            opened.clear()
            assert client.request(method, path, json=body, headers={"idempotency-key": "a"}).is_success
            assert len(opened) == 1

    def test_is_not_asked_about_what_is_refused_anyway(self, client, opened):
        client.get("/jobs", headers={"authorization": "Bearer no"})
        client.post("/jobs", json={"type": "tak"})
        client.post("/jobs", content=b"{", headers=JSON)
        client.get("/jobs/x")
        client.post("/jobs", json={"type": "take"}, headers={"idempotency-key": ""})
        client.get("/jobs?limit=x")
        client.get("/openapi.json")
        assert opened == []

    def test_is_left_by_every_request(self, client, conn):
        for _ in range(5):
            client.get("/jobs")
            client.post("/jobs", json={"type": "take"}, headers={"idempotency-key": "a"})
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        wait_until(lambda: conn.execute(others).fetchone() == (0,))

    def test_that_is_away(self, client, server, settings, caplog):  # noqa: F811 - the fixture
        server.serve(
            replace(settings, api_keys=(f"me:admin:{KEY}",), database_url="postgresql://u:hunter2@127.0.0.1:1/d")
        )
        for key in (KEY, "tick_a_" + "x" * 43):
            response = client.get("/jobs", headers={"authorization": f"Bearer {key}"})
            check(response, 503, title="Postgres is unavailable")
            assert response.headers["retry-after"] == "5"
            assert "hunter2" not in response.text
            assert "127.0.0.1" not in response.text
        assert "127.0.0.1" in caplog.text

    def test_that_is_not_migrated(self, client, server, settings, fresh_url):  # noqa: F811 - the fixture
        server.serve(replace(settings, api_keys=(f"me:admin:{KEY}",), database_url=fresh_url))
        for method, path in (("GET", "/jobs"), ("POST", "/jobs")):
            check(client.request(method, path, json={"type": "take"}), 503, detail="tick migrate")

    def test_that_takes_too_long_is_stopped(self, client, conn, url, monkeypatch):
        monkeypatch.setattr(calls, "PATIENCE", 0.3)
        with psycopg.connect(url) as blocker:
            blocker.execute("lock table tick.jobs")
            response = client.get("/jobs")
            check(response, 503, "too-slow")
            assert response.headers["retry-after"] == "5"
        assert client.get("/jobs").status_code == 200

    @pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")
    def test_behind_a_pooler(self, client, conn, server, settings, pooled_url):  # noqa: F811 - the fixtures
        server.serve(
            replace(settings, api_keys=(f"me:admin:{KEY}",), database_url=pooled_url, api_rate="100000/minute")
        )

        def work(number: int) -> list[int]:
            key = {"idempotency-key": f"k{number % 10}"}
            body = {"jobs": [{"type": "take", "payload": {"n": number % 10}}] * 3}
            sent = client.post("/jobs", json=body, headers=key).status_code
            return [sent, client.get("/jobs").status_code, client.post("/jobs/1/run-now").status_code]

        work(0)
        with ThreadPoolExecutor(8) as pool:
            codes = {code for codes in pool.map(work, range(40)) for code in codes}
        assert codes <= {200, 201, 409}
        assert count(conn) == 30


@pytest.fixture(scope="module")
def many(worker_url):
    """A connection to 200,000 jobs, in a schema of their own."""

    async def migrate() -> None:
        async with database.connect(worker_url) as connection:
            await database.migrate(connection, "many")

    with psycopg.connect(worker_url, autocommit=True) as conn:
        conn.execute("drop schema if exists many cascade")
        asyncio.run(migrate())
        conn.execute(
            "insert into many.jobs (type, status, created_at, finished_at, attempt, key, schedule, lease_expires_at, tick_id)"
            " select 'type_' || n %% 20, status, at, case when status in ('done', 'dead', 'cancelled') then at end, 1,"
            " case when n %% 10 = 0 then 'user:' || n %% 5000 end, case when n %% 100 = 0 then 'schedule-' || n / 100 %% 7 end,"
            " case when status = 'running' then at end, %s"
            " from generate_series(1, 200000) n, lateral (select case when n > 198000 then 'pending' when n %% 40000 = 3 then"
            " 'running' when n %% 1000 = 1 then 'dead' when n %% 1000 = 2 then 'cancelled' else 'done' end,"
            " now() - (200000 - n) * interval '3 s') as r (status, at)",
            [NEVER],
        )
        conn.execute("vacuum analyze many.jobs")
        yield conn
        conn.execute("drop schema many cascade")


class TestLists:
    """By the plans of Postgres, with 200,000 jobs."""

    def buffers(self, conn, statement: str = "page", **wanted) -> int:
        names = (
            "status",
            "type",
            "key",
            "schedule",
            "created_after",
            "created_before",
            "finished_after",
            "finished_before",
            "before",
        )
        params = dict.fromkeys(names) | {"limit": 51} | wanted
        explain = f"explain (analyze, buffers, format json) {calls.statements('many')[statement]}"
        plan = conn.execute(explain, params).fetchone()[0][0]["Plan"]
        return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    def test_touch_what_they_show(self, many):
        recently = datetime.now(UTC) - timedelta(hours=3)
        pages = [
            {}, {"before": 100_000}, {"status": "pending"}, {"status": "running"}, {"status": "done"}, {"status": "dead"}, {"status": "cancelled"},
            {"type": "type_3"}, {"type": "type_1", "status": "dead"}, {"schedule": "schedule-3"}, {"schedule": "never"},
            {"created_after": recently}, {"finished_after": recently}, {"status": "dead", "finished_after": recently},
        ]  # fmt: skip
        for wanted in pages:
            assert self.buffers(many, **wanted) <= 500, wanted
        for status in ("dead", "cancelled"):
            assert self.buffers(many, "replayable", status=status, limit=10_001) <= 500

    def test_that_find_hardly_anything_read_the_table_once(self, many):
        (size,) = many.execute("select pg_relation_size('many.jobs') / 8192").fetchone()
        for wanted in ({"type": "never"}, {"key": "user:10"}, {"created_before": datetime(2000, 1, 1, tzinfo=UTC)}):
            assert self.buffers(many, **wanted) <= 2 * size, wanted


class TestTheGuide:
    PAGE = ROOT / "docs" / "api.md"

    def test_explains_every_problem(self):
        text = self.PAGE.read_text()
        for kind in refusals.KINDS.values():
            assert f"| `{kind.type}` | {kind.status} |" in text

    def test_runs_as_it_is_written(self, url, conn, tmp_path):
        """Its commands in one shell, with a server; what it says comes back is what comes back, but for instants."""
        (work,) = blocks(self.PAGE, "python")
        project = Project(tmp_path, url, work=work, schedules=None)
        key = project.read("api-keys", "create", "guide", "--scope", "admin")["key"]
        port = free_port()
        base = f"http://127.0.0.1:{port}"
        pieces = re.findall(
            r"^```bash\n(.*?)^```\n(?:\n```json\n(.*?)^```)?", self.PAGE.read_text(), re.MULTILINE | re.DOTALL
        )
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "tick").write_text(f'#!/bin/sh\nexec {sys.executable} -m tick.cli "$@"\n')
        (tmp_path / "bin" / "tick").chmod(0o755)
        with project.started("serve", "--host", "127.0.0.1", "--port", port):
            wait_until(lambda: answers(f"{base}/openapi.json"), 30)
            env = project.env | {"TICK": base, "TICK_API_KEY": key, "PATH": f"{tmp_path / 'bin'}:{project.env['PATH']}"}
            for code, expected in pieces:
                ran = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
                )
                assert ran.returncode == 0, f"{code}\n{ran.stdout}\n{ran.stderr}\n{project.log}"
                if expected:
                    said = ran.stdout[ran.stdout.index("{") :]
                    assert timeless(said) == timeless(expected), code
        assert len([expected for _, expected in pieces if expected]) >= 8


def timeless(text: str) -> dict:
    """JSON with every instant at the same time, and every rate the same."""
    return json.loads(re.sub(r'"\d{4}-\d\d-\d\dT[^"]*"', '"at some time"', text))
