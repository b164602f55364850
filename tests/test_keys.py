"""API keys: their shape, their scopes, what the table and the environment say of them, and how often they may call."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from starlette.datastructures import Headers

import tick as public
from tests.factories import a_job, move_clock
from tests.test_cli import Project
from tests.test_web import SECRET, Site, server  # noqa: F401 - a fixture
from tick import calls, keys
from tick.config import Settings
from tick.errors import ConfigurationError
from tick.limits import Rate
from tick.refusals import Refused

KEY = "tick_env_" + "k" * 43
OTHER = "tick_env_" + "o" * 43


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def environment(*entries: str, **changes) -> Settings:
    return Settings(api_keys=entries, **changes)


class TestTheEnvironment:
    def test_a_key_says_who_calls_and_what_it_may(self):
        settings = environment(f"ci:enqueue+read:{KEY}", f"ops:admin:{OTHER}")
        assert keys.recognise(Headers(bearer(KEY)), settings) == keys.Caller("env:ci", frozenset({"enqueue", "read"}))
        assert keys.recognise(Headers(bearer(OTHER)), settings) == keys.Caller("env:ops", frozenset({"admin"}))

    def test_it_is_read_with_the_other_settings(self, tmp_path):
        settings = Settings.load({"TICK_API_KEYS": f" ci:read:{KEY} , ops:admin:{OTHER}"}, start=tmp_path)
        assert [caller.id for _, caller in keys.from_environment(settings.api_keys)] == ["env:ci", "env:ops"]
        assert KEY not in repr(settings)
        keys.check(settings)

    @pytest.mark.parametrize(
        "entry",
        [
            KEY, f"ci:{KEY}", "ci:read:short", f"ci:read:{KEY}:more", f":read:{KEY}", f"ci::{KEY}", f"ci:write:{KEY}",
            f"ci:read+:{KEY}", f"ci:Read:{KEY}", f"c\x00i:read:{KEY}", f"ci:read:{KEY[5:]}", f"{KEY}:read:ci",
            f"ci:{KEY}:{KEY}", f"ci:read:{KEY}é",
        ],
    )  # fmt: skip
    def test_an_entry_that_is_none_is_an_error_without_the_key(self, entry):
        with pytest.raises(ConfigurationError, match=r"^TICK_API_KEYS, entry 2: ") as raised:
            keys.check(environment(f"ops:admin:{OTHER}", entry))
        assert KEY not in str(raised.value)

    def test_the_command_it_names_makes_a_key(self):
        with pytest.raises(ConfigurationError, match="python -c") as raised:
            keys.check(environment("nonsense"))
        code = re.search(r"python -c '(.*)'", str(raised.value))[1]
        made = []
        exec(code, {"print": made.append})
        assert keys.KEY.fullmatch(made[0])

    def test_one_name_may_have_two_keys_while_they_are_changed(self):
        settings = environment(f"ci:read:{KEY}", f"ci:read:{OTHER}")
        assert keys.recognise(Headers(bearer(KEY)), settings) == keys.recognise(Headers(bearer(OTHER)), settings)

    @pytest.mark.parametrize("text", ["0/minute", "fast", "600", "1/0s", "-1/minute", ""])
    def test_a_rate_that_is_none_is_an_error(self, text):
        with pytest.raises(ConfigurationError, match=r"^api_rate \(TICK_API_RATE\): "):
            keys.check(environment(api_rate=text))

    def test_a_rate(self, tmp_path):
        assert keys.rate(Settings.load({}, start=tmp_path).api_rate) == Rate(600, 60)
        assert keys.rate(Settings.load({"TICK_API_RATE": "5/10s"}, start=tmp_path).api_rate) == Rate(5, 10)


class TestTheHeader:
    @pytest.mark.parametrize(
        "given",
        [
            "", "Bearer", "Bearer ", "Bearer None", "Basic " + KEY, KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Bearer {KEY.upper()}",
            f"Bearer Bearer {KEY}", f"Bearer {KEY}, {KEY}", "Bearer tick_", "Bearer tick__", f"Bearer {SECRET}", "Bearer \xe9\xff",
            "Bearer tick_A_" + "x" * 43, "Bearer tick_a_" + "x" * 31, "Bearer tick_a_" + "x" * 129, "Bearer " + "x" * 60_000,
        ],
        ids=lambda given: repr(given)[:30],
    )  # fmt: skip
    def test_anything_else_is_refused_without_the_database(self, given):
        settings = environment(f"ci:read:{KEY}", secrets=(SECRET,))
        try:
            caller = keys.recognise(Headers(raw=[(b"authorization", given.encode("latin-1"))]), settings)
        except Refused as refused:
            assert refused.kind.status == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
        else:
            # It looks like a key, so that only the table can tell.
            assert caller.scopes is None
            assert given in (f"Bearer {KEY}x", f"Bearer {KEY[:-1]}")

    def test_two_headers_are_refused(self):
        raw = [(b"authorization", f"Bearer {KEY}".encode())] * 2
        with pytest.raises(Refused):
            keys.recognise(Headers(raw=raw), environment(f"ci:read:{KEY}"))

    def test_the_scheme_is_in_any_case(self):
        settings = environment(f"ci:read:{KEY}")
        assert keys.recognise(Headers({"authorization": f"bearer  {KEY}"}), settings).id == "env:ci"

    def test_a_new_key_is_of_the_shape_and_never_the_same(self):
        made = {keys.create() for _ in range(100)}
        assert len({id for id, _ in made}) == len({key for _, key in made}) == 100
        for id, key in made:
            assert keys.KEY.fullmatch(key)[1] == id
            assert len(key.rsplit("_", 1)[-1]) <= 43 <= len(key.split("_", 2)[2])


@pytest.mark.usefixtures("empty_registry")
class TestOverHttp:
    @pytest.fixture
    def site(self, server, settings, conn) -> Site:  # noqa: F811 - the fixture
        @public.job
        async def noop() -> None: ...

        self.settings = replace(settings, secrets=(SECRET,))
        server.serve(self.settings)
        return server

    def key(self, conn, *scopes: str, **columns) -> str:
        """A key in the table."""
        id, key = keys.create()
        values = {"id": id, "name": "test", "scopes": list(scopes), "hash": keys.digest(key)} | columns
        conn.execute(
            f"insert into tick.api_keys ({', '.join(values)}) values ({', '.join(['%s'] * len(values))})",
            [*values.values()],
        )
        return key

    def ask(self, site, key: str, method: str = "GET", path: str = "/jobs", **options) -> httpx.Response:
        return site.client.request(method, path, headers=bearer(key), **options)

    OPERATIONS = (
        ("GET", "/jobs", None, "read"),
        ("GET", "/jobs/1", None, "read"),
        ("POST", "/jobs", {"type": "noop"}, "enqueue"),
        ("POST", "/jobs/1/cancel", None, "admin"),
        ("POST", "/jobs/1/replay", None, "admin"),
        ("POST", "/jobs/1/run-now", None, "admin"),
        ("POST", "/jobs/replay", {}, "admin"),
    )

    @pytest.mark.parametrize(("method", "path", "body", "needed"), OPERATIONS, ids=lambda value: str(value))
    @pytest.mark.parametrize("where", ["table", "environment"])
    @pytest.mark.parametrize("scope", list(keys.SCOPES))
    def test_what_each_scope_allows(self, conn, site, where, method, path, body, needed, scope):
        a_job(conn, "noop", "dead" if "replay" in path else "pending")
        before = conn.execute("select jsonb_agg(j) from tick.jobs j").fetchone()
        key = self.key(conn, scope) if where == "table" else KEY
        site.serve(replace(self.settings, api_keys=(f"ci:{scope}:{KEY}",)))
        response = self.ask(site, key, method, path, json=body)
        if scope in (needed, "admin"):
            assert response.status_code in (200, 201), response.text
        else:
            assert response.status_code == 403
            assert response.json()["type"] == "urn:tick:problem:missing-scope"
            assert needed in response.json()["detail"]
            assert f'scope="{needed}"' in response.headers["www-authenticate"]
            assert conn.execute("select jsonb_agg(j) from tick.jobs j").fetchone() == before

    def test_with_no_key_anywhere_nobody_is_let_in(self, conn, site):
        for given in (None, SECRET, "None", KEY, "tick_a_" + "x" * 43):
            headers = {} if given is None else bearer(given)
            for method, path, body, _ in self.OPERATIONS:
                response = site.client.request(method, path, headers=headers, json=body)
                assert response.status_code == 401, (given, path)
                assert response.json()["type"] == "urn:tick:problem:unauthorized"

    def test_an_api_key_does_not_tick(self, conn, site):
        assert self.ask(site, self.key(conn, "admin"), "POST", "/tick").status_code == 401

    @pytest.mark.parametrize(
        "columns", [{"revoked_at": "2020-01-01"}, {"expires_at": "2020-01-01"}, {"hash": hashlib.sha256(b"x").digest()}]
    )
    def test_a_key_that_is_no_longer_valid(self, conn, site, columns):
        response = self.ask(site, self.key(conn, "admin", **columns))
        assert response.status_code == 401
        assert 'error="invalid_token"' in response.headers["www-authenticate"]

    def test_a_key_expires(self, conn, site):
        key = self.key(conn, "read", expires_at="2030-01-01")
        move_clock(conn, "2029-12-31T23:59:59Z")
        assert self.ask(site, key).status_code == 200
        move_clock(conn, "2030-01-01T00:00:00Z")
        assert self.ask(site, key).status_code == 401

    def test_when_it_was_last_used_is_written_once_a_minute(self, conn, site):
        key = self.key(conn, "read")
        seen = []
        for shift in ("2030-01-01T00:00:00Z", "2030-01-01T00:00:59Z", "2030-01-01T00:01:01Z"):
            move_clock(conn, shift)
            self.ask(site, key)
            seen += conn.execute(
                "select to_char(last_used_at at time zone 'UTC', 'MI:SS') from tick.api_keys"
            ).fetchone()
        assert seen == ["00:00", "00:00", "01:01"]

    def test_a_caller_who_is_not_proven_learns_nothing_of_the_types(self, conn, site):
        body = {"type": "nop"}
        stranger = self.ask(site, "tick_a_" + "x" * 43, "POST", "/jobs", json=body)
        reader = self.ask(site, self.key(conn, "read"), "POST", "/jobs", json=body)
        known = self.ask(site, self.key(conn, "enqueue"), "POST", "/jobs", json=body)
        assert [stranger.status_code, reader.status_code, known.status_code] == [401, 403, 422]
        assert "noop" in known.text
        assert "noop" not in stranger.text + reader.text


@pytest.mark.usefixtures("empty_registry")
class TestTheRate:
    @pytest.fixture
    def site(self, server, settings, conn) -> Site:  # noqa: F811 - the fixture
        @public.job
        async def noop() -> None: ...

        entries = (f"ci:admin:{KEY}", f"ops:admin:{OTHER}")
        server.serve(replace(settings, api_keys=entries, api_rate="3/minute"))
        move_clock(conn, "2030-01-01T00:00:00Z")
        return server

    def ask(self, site, key: str = KEY) -> httpx.Response:
        return site.client.get("/jobs", headers=bearer(key))

    def test_one_call_too_many(self, conn, site):
        left = [self.ask(site).headers["ratelimit"] for _ in range(3)]
        assert left == ['"calls";r=2;t=20', '"calls";r=1;t=40', '"calls";r=0;t=60']
        response = self.ask(site)
        assert response.status_code == 429
        assert response.headers["ratelimit-policy"] == '"calls";q=3;w=60'
        assert response.headers["ratelimit"] == '"calls";r=0;t=20'
        assert response.headers["retry-after"] == "20"
        body = response.json()
        assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
        assert body["violated-policies"] == ["calls"]
        assert "3 calls in 60 s" in body["detail"]

    def test_it_fills_evenly(self, conn, site):
        for _ in range(3):
            self.ask(site)
        statuses = []
        for at in ("00:00:19", "00:00:20", "00:00:21", "00:00:40", "00:01:40", "00:01:40", "00:01:40", "00:01:40"):
            move_clock(conn, f"2030-01-01T{at}Z")
            statuses.append(self.ask(site).status_code)
        assert statuses == [429, 200, 429, 200, 200, 200, 200, 429]

    def test_each_key_has_its_own(self, conn, site):
        for _ in range(4):
            last = self.ask(site)
        assert (last.status_code, self.ask(site, OTHER).status_code) == (429, 200)

    def test_what_is_refused_is_not_done_and_not_counted(self, conn, site):
        for _ in range(6):
            last = site.client.post("/jobs", headers=bearer(KEY), json={"type": "noop"})
        assert last.headers["retry-after"] == "20"
        assert conn.execute("select count(*) from tick.jobs").fetchone() == (3,)

    @pytest.mark.parametrize("rate", ["1/1s", "7/minute", "13/hour", "999983/day", "1000000/1s"])
    def test_steps_that_are_no_whole_microseconds_neither_lose_nor_add_a_call(self, conn, site, rate):
        limit = min(keys.rate(rate).starts, 13)
        count, seconds = keys.rate(rate)
        params = {"caller": "x", "hash": None, "calls": count, "period": float(seconds)}
        left = [conn.execute(calls.statements()["count_call"], params).fetchone()[0] for _ in range(limit)]
        assert left == [count - number for number in range(1, limit + 1)]

    def test_many_at_once_are_counted_exactly(self, conn, site):
        with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=site.client.base_url, timeout=30) as client:
            answers = [*pool.map(lambda _: client.get("/jobs", headers=bearer(KEY)).status_code, range(24))]
        assert sorted(answers) == [200] * 3 + [429] * 21


class TestTheCommands:
    @pytest.fixture
    def project(self, url, tmp_path) -> Project:
        return Project(tmp_path, url)

    def test_a_key_is_shown_once_and_kept_as_a_hash(self, conn, project):
        made = project.run("api-keys", "create", "ci", "--scope", "enqueue", "--scope", "read", "--expires", "90d")
        key = made.stdout.strip()
        id = keys.KEY.fullmatch(key)[1]
        assert f"{id} (ci)" in made.stderr
        row = conn.execute("select name, scopes, hash, expires_at - created_at from tick.api_keys").fetchone()
        assert row[:3] == ("ci", ["enqueue", "read"], keys.digest(key))
        assert row[3].days == 90
        listed = project.read("api-keys", "list")
        assert [(each["id"], each["name"], each["scopes"]) for each in listed] == [(id, "ci", "enqueue read")]
        assert key not in project.tell("api-keys", "list")

    def test_a_key_that_never_expires(self, conn, project):
        made = project.read("api-keys", "create", "ops", "--scope", "admin")
        assert made["expires_at"] is None
        assert keys.KEY.fullmatch(made["key"])[1] == made["id"]

    def test_a_key_is_revoked(self, conn, project):
        id = project.read("api-keys", "create", "ops", "--scope", "admin")["id"]
        assert project.tell("api-keys", "revoke", id) == f"{id} (ops) is revoked\n"
        at = conn.execute("select revoked_at from tick.api_keys").fetchone()
        assert at[0]
        project.tell("api-keys", "revoke", id)
        assert conn.execute("select revoked_at from tick.api_keys").fetchone() == at
        assert "there is no API key nobody" in project.complaint("api-keys", "revoke", "nobody", code=1)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["x"], "--scope"),
            (["x", "--scope", "write"], "write"),
            (["a\nb", "--scope", "read"], "is not a name"),
            (["x", "--scope", "read", "--expires", "soon"], '"soon" is not a duration'),
        ],
    )
    def test_what_cannot_be_made(self, conn, project, arguments, said):
        assert said in project.complaint("api-keys", "create", *arguments)
        assert conn.execute("select count(*) from tick.api_keys").fetchone() == (0,)
