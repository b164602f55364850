"""The dashboard's house: who gets in, what keeps others out, Now, Ticks, and the link that replays."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import httpx
import psycopg
import pytest
from itsdangerous.timed import TimestampSigner
from psycopg.types.json import Jsonb

import tick as public
from tests.factories import a_job, job, move_clock, statuses, tick
from tests.test_web import Site, server  # noqa: F401 - a fixture
from tick import keys, tokens
from tick.config import Settings
from tick.dashboard import charts, pages, sessions, shown, ticks
from tick.history import BUCKETS, bucket
from tick.queue import Trigger

pytestmark = pytest.mark.usefixtures("empty_registry")

PASSWORD = "correct-horse-battery-staple"
KEY = "tick_env_" + "k" * 43
TEMPLATES = Path(shown.FOLDER) / "templates"
FORM = {"content-type": "application/x-www-form-urlencoded"}
NOON = "2026-01-01T12:00:00+00:00"
HTTPS = {"x-forwarded-proto": "https"}
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
PAGES = ["/dashboard", "/dashboard/ticks", "/dashboard/jobs", "/dashboard/dead", "/dashboard/schedules"]
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}'


class Visitor:
    """Somebody with a browser: keeps cookies, follows nothing."""

    def __init__(self, site: Site, **headers: str) -> None:
        self.client = httpx.Client(base_url=str(site.client.base_url), timeout=30, headers=headers)

    def get(self, path: str = "/dashboard", **options) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, csrf: str | None = "", /, headers=(), **fields) -> httpx.Response:
        """A form; with the session's token, unless another is given, or None for none."""
        token = {} if csrf is None else {"csrf": csrf or self.token()}
        return self.client.post(path, data=token | fields, headers=dict(headers))

    def log_in(self, secret: str = PASSWORD, **fields) -> httpx.Response:
        return self.post("/dashboard/login", None, secret=secret, **fields)

    def token(self) -> str:
        return re.search(r'name="csrf" value="([0-9a-f]{64})"', self.get("/dashboard/ticks").text)[1]

    @property
    def cookie(self) -> str | None:
        return self.client.cookies.get("tick_session")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, dashboard_password=PASSWORD, secrets=("another-long-secret",))


@pytest.fixture
def site(server, settings, conn) -> Site:  # noqa: F811
    server.serve(settings)
    return server


@pytest.fixture
def visit(site):
    """New visitors; with nothing given, one who has logged in."""
    visitors = []

    def visit(secret: str | None = PASSWORD, **headers) -> Visitor:
        visitor = Visitor(site, **headers)
        visitors.append(visitor)
        if secret:
            assert visitor.log_in(secret).status_code == 303
        return visitor

    yield visit
    for visitor in visitors:
        visitor.client.close()


@contextmanager
def back_then(monkeypatch, seconds: float):
    """What is signed meanwhile was signed so many seconds ago."""
    then = int(time.time() - seconds)
    with monkeypatch.context() as patched:
        patched.setattr(TimestampSigner, "get_timestamp", lambda self: then)
        yield


def text(response: httpx.Response) -> str:
    """What a page says, without its tags."""
    words = " ".join(unescape(re.sub(r"<[^>]*>", " ", response.text)).split())
    return re.sub(r" (?=[,.;:)])", "", words)


def a_key(conn, *scopes: str) -> tuple[str, str]:
    id, key = keys.create()
    conn.execute(
        "insert into tick.api_keys (id, name, scopes, hash) values (%s, 'mine', %s, %s)",
        [id, list(scopes), keys.digest(key)],
    )
    return id, key


def a_tick(conn, ago: str = "1 minute", **columns) -> uuid.UUID:
    id = uuid.uuid4()
    values = {"trigger": "vercel", "budget": 50.0, "used": 1.0, "finished_at": datetime.now(UTC)} | columns
    names = ", ".join(f'"{name}"' for name in values)
    conn.execute(
        f"insert into tick.ticks (id, started_at, {names}) values (%s, tick.now() - %s::interval, {', '.join(['%s'] * len(values))})",
        [id, ago, *values.values()],
    )
    return id


class TestLoggingIn:
    def test_a_page_leads_to_the_form_and_from_there_back(self, visit):
        visitor = visit(None)
        response = visitor.get("/dashboard/jobs?status=dead&type=a%20b")
        assert response.status_code == 303
        form = visitor.get(response.headers["location"])
        next = unescape(re.search(r'name="next" value="([^"]*)"', form.text)[1])
        assert next == "/dashboard/jobs?status=dead&type=a%20b"
        response = visitor.log_in(next=next)
        assert (response.status_code, response.headers["location"]) == (303, next)
        assert visitor.get(next).status_code == 200
        assert visitor.get("/dashboard/login").headers["location"] == "/dashboard"

    @pytest.mark.parametrize("path", ["/dashboard", "/dashboard/", *PAGES, *(f"{page}/" for page in PAGES)])
    def test_every_page_is_there_with_and_without_a_slash(self, visit, path):
        response = visit().get(path)
        assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert visit(None).get(path).headers["location"].startswith("/dashboard/login?next=/dashboard")

    @pytest.mark.parametrize("secret", ["", "wrong", PASSWORD + "x", PASSWORD.upper(), "💥", KEY, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "x" * 10_000, "é\x00"])  # fmt: skip
    def test_anything_else_is_refused_in_the_same_words(self, visit, secret, monkeypatch):
        monkeypatch.setattr("tick.dashboard.login.WRONG_SECONDS", 0.01)
        visitor = visit(None)
        response = visitor.log_in(secret)
        assert response.status_code == 401
        assert "neither the dashboard's password nor a valid API key" in text(response)
        assert visitor.cookie is None
        assert secret not in response.text or not secret

    def test_who_is_wrong_waits(self, visit):
        start = time.monotonic()
        assert visit(None).log_in("wrong").status_code == 401
        assert time.monotonic() - start >= 1

    def test_after_too_many_wrong_tries_the_right_one_waits_too_in_every_process(
        self, visit, site, settings, conn, monkeypatch
    ):
        monkeypatch.setattr("tick.dashboard.login.WRONG_SECONDS", 0.0)
        move_clock(conn, NOON)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda n: visit(None).log_in(f"wrong {n}"), range(34)))
        codes = [answer.status_code for answer in answers]
        assert (codes.count(401), codes.count(429)) == (30, 4)
        site.serve(settings)
        response = visit(None).log_in()
        assert response.status_code == 429
        assert "Wait 2 s" in text(response)
        move_clock(conn, "2026-01-01T12:00:03+00:00")
        assert visit(None).log_in().status_code == 303

    def test_who_has_logged_in_before_is_not_kept_out_by_the_guesses_of_others(self, visit, conn, monkeypatch):
        monkeypatch.setattr("tick.dashboard.login.WRONG_SECONDS", 0.0)
        move_clock(conn, NOON)
        owner, forger = visit(), visit(None)
        owner.post("/dashboard/logout")
        assert owner.cookie is None
        forger.client.cookies.set("tick_device", "x" + owner.client.cookies["tick_device"])
        for n in range(15):
            visit(None).log_in(f"wrong {n}")
            forger.log_in(f"wrong {n}")
        assert visit(None).log_in().status_code == 429
        assert forger.log_in().status_code == 429
        assert owner.log_in("wrong").status_code == 401
        assert owner.log_in().status_code == 303
        for n in range(29):
            owner.log_in(f"wrong {n}")
        assert owner.log_in().status_code == 429

    def test_a_device_opens_nothing(self, visit):
        stolen = visit().client.cookies["tick_device"]
        visitor = visit(None)
        for name in ("tick_device", "tick_session"):
            visitor.client.cookies.set(name, stolen)
        assert visitor.get().status_code == 303

    @pytest.mark.parametrize("path", ["/dashboard/login", "/dashboard/jobs/bulk", "/dashboard/jobs"])
    def test_a_query_without_end_is_refused(self, visit, path):
        response = visit().get(f"{path}?{'a&' * 11_500}")
        assert response.status_code == 400
        assert "That is no query" in text(response)

    def test_a_form_has_no_more_fields_than_a_page_has(self, visit):
        response = visit(None).client.post("/dashboard/login", content="a=1&" * 200, headers=FORM)
        assert response.status_code == 400
        assert "more than 100 fields" in text(response)

    def test_spaces_around_it_are_forgiven(self, visit):
        assert visit(None).log_in(f" {PASSWORD}\n").status_code == 303

    @pytest.mark.parametrize("next", ["https://evil.example/", "//evil.example/dashboard", "/\\evil.example", "/tick", "/dashboard\\..\\x", "/dashboardx", "javascript:alert(1)", "/dashboard/../tick", "/dashboard/..?a=b", "/dashboard/%2e%2e/openapi.json", "/dashboard/.%2E/tick", "/dashboard\r\nset-cookie: a=b", ""])  # fmt: skip
    def test_it_leads_nowhere_else(self, visit, next):
        assert visit(None).log_in(next=next).headers["location"] == "/dashboard"
        form = visit(None).get(f"/dashboard/login?next={quote(next)}")
        assert 'name="next" value="/dashboard"' in form.text

    def test_over_http_the_cookie_is_for_this_host_and_no_script(self, visit):
        cookies = visit(None).log_in().headers.get_list("set-cookie")
        assert [cookie.partition("=")[0] for cookie in cookies] == ["tick_session", "tick_device"]
        assert {part.strip().lower() for part in cookies[0].split(";")[1:]} == {
            "httponly", "max-age=43200", "path=/", "samesite=lax",
        }  # fmt: skip

    @pytest.mark.parametrize("proto", ["https", "HTTPS", "https, http"])
    def test_over_https_it_is_secure_and_for_this_very_host(self, visit, proto):
        visitor = visit(None, **{"x-forwarded-proto": proto})
        cookies = visitor.log_in().headers.get_list("set-cookie")
        assert [cookie.partition("=")[0] for cookie in cookies] == ["__Host-tick_session", "__Host-tick_device"]
        for cookie in cookies:
            assert "; secure" in cookie.lower()
            assert "domain" not in cookie.lower()

    def test_over_https_a_cookie_that_came_by_http_does_not_count(self, visit):
        cookie = visit().cookie
        other = visit(None, **HTTPS)
        assert other.get(headers={"cookie": f"tick_session={cookie}"}).status_code == 303
        assert other.get(headers={"cookie": f"__Host-tick_session={cookie}"}).status_code == 200

    def test_a_page_by_http_from_afar_says_that_others_can_read(self, visit):
        assert "Use https" in visit(None).get("/dashboard/login", headers={"host": "tick.example.com"}).text
        assert "Use https" not in visit(None).get("/dashboard/login", headers={"host": "tick.example.com"} | HTTPS).text
        assert "Use https" not in visit(None).get("/dashboard/login").text


class TestSessions:
    def test_it_ends_after_twelve_hours_whatever_is_done(self, visit, settings, monkeypatch):
        value = {"who": "password", "proof": sessions._proof(b""), "nonce": "n"}
        for hours, status in ((11.9, 200), (12.1, 303)):
            with back_then(monkeypatch, hours * 3600):
                cookie = tokens.sign(settings, "session", value)
            assert visit(None).get(headers={"cookie": f"tick_session={cookie}"}).status_code == status

    def test_what_nobody_signed_is_no_session(self, visit, settings):
        value = {"who": "password", "proof": "", "nonce": "n"}
        cookie = visit().cookie
        payload, rest = cookie.split(".", 1)
        forged = [
            "", "x", f"{payload}.", f"{payload[:-1]}A.{rest}", f"{cookie}x", cookie[:-1], "." * 100, "x" * 5000,
            tokens.sign(settings, "replay", value), tokens.sign(settings, "notice", value),
            tokens.sign(replace(settings, dashboard_password="another"), "session", value),
            tokens.sign(settings, "session", "password"), tokens.sign(settings, "session", {"who": None}),
            tokens.sign(settings, "session", {"who": "env:nobody", "proof": ""}),
            tokens.sign(settings, "session", ["password"]),
        ]  # fmt: skip
        for cookie in forged:
            assert visit(None).get(headers={"cookie": f"tick_session={cookie}"}).status_code == 303, cookie

    @pytest.mark.parametrize("change", [{"dashboard_password": "another"}, {"dashboard_password": None, "api_keys": (f"ops:admin:{KEY}",)}, {"secrets": ("new",)}])  # fmt: skip
    def test_it_ends_when_the_password_or_a_secret_changes(self, visit, site, settings, change):
        visitor = visit()
        site.serve(replace(settings, **change))
        assert visitor.get().status_code == 303

    def test_a_restart_does_not_end_it(self, visit, site, settings):
        visitor = visit()
        site.serve(settings)
        assert visitor.get().status_code == 200

    def test_logging_out_takes_the_cookie_away_and_needs_the_form(self, visit):
        visitor = visit()
        assert visitor.get("/dashboard/logout").status_code == 405
        response = visitor.post("/dashboard/logout")
        assert (response.status_code, response.headers["location"]) == (303, "/dashboard/login")
        assert visitor.cookie is None
        assert visitor.get().status_code == 303

    def test_each_has_a_token_of_its_own(self, visit):
        assert visit().token() != visit().token()

    def test_a_page_that_renews_itself_is_left_as_a_whole(self, visit):
        response = visit(None).get("/dashboard/live", headers={"hx-request": "true"})
        assert (response.status_code, response.headers["hx-redirect"]) == (401, "/dashboard/login")


class TestApiKeys:
    def test_a_key_of_the_table_opens_a_session_that_dies_with_it(self, visit, conn):
        id, key = a_key(conn, "admin")
        visitor = visit(key)
        assert [visitor.get(page).status_code for page in PAGES] == [200] * len(PAGES)
        assert key not in visitor.cookie
        token = visitor.token()
        conn.execute("update tick.api_keys set revoked_at = tick.now() where id = %s", [id])
        assert [visitor.get(page).status_code for page in PAGES] == [303] * len(PAGES)
        dead = a_job(conn, status="dead")
        assert visitor.post(f"/dashboard/jobs/{dead}/replay", token).status_code == 303
        assert job(conn, dead)["status"] == "dead"

    @pytest.mark.parametrize("change", ["expires_at = tick.now()", "scopes = '{read}'", "hash = sha256('another')", "id = 'other'"])  # fmt: skip
    def test_it_also_dies_when_the_key_expires_or_is_another(self, visit, conn, change):
        id, key = a_key(conn, "admin")
        visitor = visit(key)
        assert visitor.get().status_code == 200
        conn.execute(f"update tick.api_keys set {change} where id = %s", [id])
        assert visitor.get().status_code == 303

    @pytest.mark.parametrize("scopes", [("read",), ("enqueue", "read")])
    def test_other_scopes_are_not_enough(self, visit, conn, scopes, monkeypatch):
        monkeypatch.setattr("tick.dashboard.login.WRONG_SECONDS", 0.0)
        response = visit(None).log_in(a_key(conn, *scopes)[1])
        assert response.status_code == 403
        assert "admin" in text(response)

    def test_who_can_sign_but_has_no_key_gets_nowhere(self, visit, conn, settings):
        id, _ = a_key(conn, "admin")
        for proof in ("", sessions._proof(b""), sessions._proof(b"x" * 32)):
            cookie = tokens.sign(settings, "session", {"who": id, "proof": proof, "nonce": "n"})
            assert visit(None).get(headers={"cookie": f"tick_session={cookie}"}).status_code == 303

    def test_a_key_of_the_environment_lets_in_as_long_as_it_is_there(self, visit, site, settings):
        admin = replace(settings, dashboard_password=None, api_keys=(f"ops:admin:{KEY}",))
        site.serve(admin)
        visitor = visit(KEY)
        assert visitor.get().status_code == 200
        session = {"who": "env:ops", "proof": sessions._proof(keys.digest(KEY)), "nonce": "n"}
        for entry in ("ops:admin:tick_env_" + "x" * 43, f"others:admin:{KEY}", f"ops:read:{KEY}"):
            changed = replace(admin, api_keys=(entry,))
            site.serve(changed)
            # Signed with the new secrets, so that it is the key that decides.
            cookie = tokens.sign(changed, "session", session)
            assert visit(None).get(headers={"cookie": f"tick_session={cookie}"}).status_code == 303

    def test_its_calls_are_counted(self, visit, conn):
        id, key = a_key(conn, "admin")
        visit(key)
        assert conn.execute("select count(*) from tick.api_rates where caller = %s", [id]).fetchone() == (1,)


class TestOff:
    def test_without_a_password_or_key_it_says_what_to_set(self, visit, site, settings, conn):
        site.serve(replace(settings, dashboard_password=None))
        response = visit(None).get("/dashboard/login")
        assert response.status_code == 503
        assert "TICK_DASHBOARD_PASSWORD" in text(response)
        assert "api-keys create" in text(response)
        assert site.client.get("/").status_code == 404
        _, key = a_key(conn, "read")
        assert visit(None).get("/dashboard/login").status_code == 503
        _, key = a_key(conn, "admin")
        assert visit(None).get("/dashboard/login").status_code == 200
        assert visit(key).get().status_code == 200

    def test_with_nothing_to_sign_with_no_key_helps(self, visit, site, settings, conn):
        site.serve(replace(settings, dashboard_password=None, secrets=()))
        _, key = a_key(conn, "admin")
        assert visit(None).get("/dashboard/login").status_code == 503
        assert visit(None).log_in(key).status_code == 500

    def test_an_empty_password_opens_nothing(self, visit, site, settings, monkeypatch):
        monkeypatch.setattr("tick.dashboard.login.WRONG_SECONDS", 0.0)
        site.serve(replace(settings, dashboard_password=None, api_keys=(f"ops:admin:{KEY}",)))
        assert visit(None).log_in("").status_code == 401

    def test_the_root_leads_to_it_when_it_is_on(self, site):
        response = site.client.get("/")
        assert (response.status_code, response.headers["location"]) == (303, "/dashboard")


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "null", "x-forwarded-host": ""},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1"},
]


class TestForgedForms:
    @pytest.mark.parametrize("headers", FOREIGN)
    def test_a_form_of_another_site_is_refused_with_the_right_token_too(self, visit, conn, headers):
        visitor = visit()
        dead = a_job(conn, status="dead")
        for path in ("/dashboard/logout", "/dashboard/theme", f"/dashboard/jobs/{dead}/replay"):
            response = visitor.post(path, headers=headers)
            assert response.status_code == 403
            assert "not ours" in text(response)
        assert job(conn, dead)["status"] == "dead"
        assert visitor.get().status_code == 200

    @pytest.mark.parametrize("headers", FOREIGN)
    def test_nobody_is_logged_in_by_another_site(self, visit, headers):
        assert visit(None).post("/dashboard/login", None, headers, secret=PASSWORD).status_code == 403

    @pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "same-origin", "origin": "null"}, {"origin": "https://tick.example", "x-forwarded-host": "tick.example"}, {}])  # fmt: skip
    def test_ours_are_taken(self, visit, headers):
        assert visit().post("/dashboard/theme", headers=headers, theme="dark").status_code == 303

    def test_our_own_origin_is_taken(self, visit):
        visitor = visit()
        origin = str(visitor.client.base_url).rstrip("/")
        assert visitor.post("/dashboard/theme", headers={"origin": origin}).status_code == 303

    @pytest.mark.parametrize("token", [None, "x", "0" * 64, "é", "💥"])
    def test_without_the_token_nothing_happens(self, visit, conn, token):
        dead = a_job(conn, status="dead")
        assert visit().post(f"/dashboard/jobs/{dead}/replay", token).status_code == 403
        assert job(conn, dead)["status"] == "dead"

    def test_the_token_of_another_session_is_none(self, visit):
        theirs = visit().token()
        assert visit().post("/dashboard/logout", theirs).status_code == 403

    def test_a_token_in_the_url_is_none(self, visit):
        visitor = visit()
        assert visitor.post(f"/dashboard/logout?csrf={visitor.token()}", None).status_code == 403

    def test_no_get_changes_anything(self, visit, conn):
        visitor = visit()
        a_job(conn, status="dead")
        table = [(re.sub(r"\{[^}]*\}", "1", entry.route.path), entry.route.methods) for entry in pages.entries()]
        shown = {path for path, methods in table if "GET" in methods}
        only_forms = {path for path, _ in table} - shown
        assert len(only_forms) >= 8
        for path in sorted(only_forms):
            assert visitor.get(path).status_code == 405, path
        for path in sorted(shown):
            visitor.get(path)
        assert statuses(conn) == {"dead": 1}

    def test_without_a_session_a_form_leads_to_the_log_in(self, visit, conn):
        dead = a_job(conn, status="dead")
        response = visit(None).post(f"/dashboard/jobs/{dead}/replay", "x")
        assert (response.status_code, response.headers["location"]) == (303, "/dashboard/login")
        assert job(conn, dead)["status"] == "dead"


class TestForms:
    @pytest.mark.parametrize("path", ["/dashboard/login", "/dashboard/theme"])
    def test_one_that_is_too_long_is_refused(self, visit, path):
        response = visit().post(path, secret="x" * 1024 * 1024)
        assert response.status_code == 413
        assert "256 KiB" in text(response)

    def test_one_with_too_many_fields_is_refused(self, visit):
        body = "&".join(f"a{n}=" for n in range(12_000))
        response = visit().client.post("/dashboard/login", content=body, headers={"content-type": "application/x-www-form-urlencoded"})  # fmt: skip
        assert response.status_code == 400

    @pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain"])
    def test_another_kind_is_refused(self, visit, kind):
        assert visit().client.post("/dashboard/login", content=b"{}", headers={"content-type": kind}).status_code == 415

    def test_what_is_not_utf_8_is_refused(self, visit):
        response = visit().client.post("/dashboard/login", content=b"secret=%ff%fe", headers={"content-type": "application/x-www-form-urlencoded"})  # fmt: skip
        assert response.status_code == 400


class Markup(HTMLParser):
    """What a page has of scripts and styles of its own, and the addresses that it names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inline, self.addresses, self._in = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes) -> None:
        self._in = tag
        for name, value in attributes:
            if name.startswith("on") or name == "style" or str(value).lower().startswith("javascript:"):
                self.inline.append((tag, name))
            if name in ("src", "href", "action") and value:
                self.addresses.append(value)
        if tag == "style":
            self.inline.append((tag, "element"))

    def handle_data(self, data) -> None:
        if self._in == "script" and data.strip():
            self.inline.append(("script", data))

    def handle_endtag(self, tag) -> None:
        self._in = None


class TestResponses:
    def all_of_them(self, visit, conn, settings) -> dict[str, httpx.Response]:
        id = a_tick(conn)
        dead = a_job(conn, status="dead", fingerprint="no")
        visitor, stranger = visit(), visit(None)
        link = tokens.sign(settings, tokens.REPLAY, {"type": "noop", "fingerprint": "no"})
        paths = [*PAGES, f"/dashboard/ticks/{id}", f"/dashboard/jobs/{dead}", "/dashboard/live", "/dashboard/chart.json",
                 "/dashboard/nothing", f"/dashboard/ticks/{uuid.uuid4()}", "/dashboard/ticks?before=x", "/dashboard/logout",
                 "/dashboard/static/x/style.css", shown.static("style.css")]  # fmt: skip
        responses = {path: visitor.get(path) for path in paths}
        responses |= {f"{path} (stranger)": stranger.get(path) for path in [*PAGES, "/dashboard/login", f"/dashboard/replay/{link}", "/dashboard/replay/x"]}  # fmt: skip
        responses["forged"] = visitor.post("/dashboard/logout", "x")
        return responses

    def test_each_has_the_headers_and_nothing_inline(self, visit, conn, settings):
        responses = self.all_of_them(visit, conn, settings)
        assert {response.status_code for response in responses.values()} == {200, 303, 403, 404, 405, 422}
        for path, response in responses.items():
            headers = response.headers
            assert headers["content-security-policy"] == POLICY, path
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["referrer-policy"] == "same-origin", path
            is_file = path == shown.static("style.css")
            assert headers["cache-control"] == ("public, max-age=31536000, immutable" if is_file else "no-store"), path
            if headers.get("content-type", "").startswith("text/html"):
                markup = Markup(response.text)
                assert (path, markup.inline) == (path, [])
                assert [a for a in markup.addresses if not a.startswith(("/dashboard", "#"))] == [], path

    def test_the_templates_trust_nothing(self):
        for path in TEMPLATES.iterdir():
            template = path.read_text(encoding="utf-8")
            assert not re.search(r"\|\s*safe\b|Markup|autoescape", template), path.name
            assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]* src=)", template), path.name
        for path in shown.FOLDER.glob("*.py"):
            assert "Markup" not in path.read_text(encoding="utf-8"), path.name
        assert shown.environment().autoescape is True

    def test_the_script_evaluates_nothing(self):
        script = (shown.FOLDER / "static" / "tick.js").read_text(encoding="utf-8")
        assert not re.search(r"\beval\b|new Function|innerHTML|document\.write|insertAdjacentHTML", script)

    def test_head_is_answered_and_other_methods_are_not(self, visit):
        visitor = visit()
        response = visitor.client.head("/dashboard/ticks")
        assert (response.status_code, response.content) == (200, b"")
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "POST"):
            response = visitor.client.request(method, "/dashboard/ticks")
            assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")

    def test_colours_are_kept_and_only_those_there_are(self, visit):
        visitor = visit()
        assert "data-theme" not in visitor.get().text
        assert visitor.post("/dashboard/theme", theme="dark", next="/dashboard/ticks").headers["location"] == "/dashboard/ticks"  # fmt: skip
        assert '<html lang="en" data-theme="dark">' in visitor.get().text
        visitor.post("/dashboard/theme", theme='"><script>')
        assert "data-theme" not in visitor.get().text
        assert "data-theme" not in visitor.get(headers={"cookie": f"tick_session={visitor.cookie}; tick_theme=x"}).text

    def test_a_notice_is_shown_once_and_only_ours(self, visit, conn, settings):
        visitor = visit()
        dead = a_job(conn, status="dead")
        response = visitor.post(f"/dashboard/jobs/{dead}/replay")
        assert response.status_code == 303
        assert 'class="notice"' in visitor.get(response.headers["location"]).text
        assert 'class="notice"' not in visitor.get(response.headers["location"]).text
        cookies = f"tick_session={visitor.cookie}; tick_notice="
        signed = tokens.sign(settings, "notice", HOSTILE)
        assert HOSTILE not in (page := visitor.get(headers={"cookie": cookies + signed}).text)
        assert "&lt;script&gt;alert(1)" in page
        assert 'class="notice"' not in visitor.get(headers={"cookie": cookies + "You+have+won"}).text


def test_a_server_that_shows_no_page_loads_none(tmp_path):
    program = "import sys, tick.web; print([name for name in sys.modules if name.startswith('tick.dashboard.')])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(shown.FOLDER.parents[1])}, capture_output=True, text=True)  # fmt: skip
    assert (done.stdout, done.stderr) == ("[]\n", "")


class TestFiles:
    def test_each_is_there_by_its_fingerprint_for_ever_and_smaller_when_asked(self, visit):
        visitor = visit(None)
        for name in ("style.css", "tick.js", "htmx.min.js", "uPlot.iife.min.js", "uPlot.min.css", "icon.svg", "htmx.LICENSE", "uPlot.LICENSE"):  # fmt: skip
            content = (shown.FOLDER / "static" / name).read_bytes()
            for accept in ("gzip", "identity"):
                response = visitor.get(shown.static(name), headers={"accept-encoding": accept})
                assert (response.status_code, response.content) == (200, content)
                assert response.headers.get("content-encoding") == ("gzip" if accept == "gzip" else None)
                assert response.headers["vary"] == "accept-encoding"

    @pytest.mark.parametrize("path", ["x/style.css", "{}/nothing.css", "{}/../desk.py", "{}/..%2Fdesk.py", "{}/%2e%2e/desk.py", "{}", "", "style.css"])  # fmt: skip
    def test_nothing_else_is(self, visit, path):
        response = visit(None).get("/dashboard/static/" + path.format(shown.fingerprint("style.css")))
        assert response.status_code == 404

    def test_they_take_get_alone(self, visit):
        assert visit(None).client.post(shown.static("style.css")).status_code == 405


class TestTroubleWithTheDatabase:
    @pytest.fixture
    def lost(self, site, settings):
        site.serve(replace(settings, database_url="postgresql://u:hunter2@127.0.0.1:1/none"))

    def test_a_database_that_is_away_is_told_without_its_password(self, visit, site, settings):
        visitor = visit()
        site.serve(replace(settings, database_url="postgresql://u:hunter2@127.0.0.1:1/none"))
        for path in [*PAGES, f"/dashboard/ticks/{uuid.uuid4()}", "/dashboard/live"]:
            response = visitor.get(path)
            assert (response.status_code, response.headers["retry-after"]) == (503, "5"), path
            assert "Postgres is unavailable" in text(response)
            assert "Traceback" not in response.text
            assert "hunter2" not in response.text

    def test_a_stranger_learns_nothing_of_it(self, visit, lost):
        response = visit(None).log_in()
        assert response.status_code == 503
        assert "127.0.0.1" not in response.text
        assert "the log says why" in text(response)

    def test_a_database_that_is_not_migrated_says_what_to_run(self, visit, site, settings, fresh_url):
        visitor = visit()
        site.serve(replace(settings, database_url=fresh_url))
        response = visitor.get()
        assert response.status_code == 503
        assert "tick migrate" in text(response)

    def test_what_nobody_foresaw_is_told_without_a_traceback(self, visit, monkeypatch, caplog):
        visitor = visit()
        monkeypatch.setattr("tick.dashboard.now._rate", lambda rates: 1 / 0)
        response = visitor.get()
        assert response.status_code == 500
        assert "ZeroDivisionError" not in response.text
        assert "ZeroDivisionError" in caplog.text

    def test_many_pages_at_once_take_few_connections(self, visit, conn):
        cookie = visit().cookie
        seen = set()

        def look(_: int) -> int:
            return visit(None).get(headers={"cookie": f"tick_session={cookie}"}).status_code

        with ThreadPoolExecutor(16) as pool:
            answers = [pool.submit(look, n) for n in range(40)]
            while not all(answer.done() for answer in answers):
                query = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
                seen.add(conn.execute(query).fetchone()[0])
        assert {answer.result() for answer in answers} == {200}
        # One that has been closed may still be there for a moment.
        assert max(seen) <= 2 * pages.MOST_CONNECTIONS


def stat(conn, type: str = "", ago: str = "0 minutes", span: int = 60, *, done=0, retried=0, dead=0, run=0.1, wait=1.0) -> None:  # fmt: skip
    """What ran in one period: the attempts as they ended, and how long each ran and waited."""
    count = done + retried + dead
    runs, waits = [0] * BUCKETS, [0] * BUCKETS
    runs[bucket(run)] = waits[bucket(wait)] = count
    conn.execute(
        "insert into tick.stats (span, at, type, done, retried, dead, run_seconds, wait_seconds, runs, waits)"
        " select %(span)s, to_timestamp(floor(extract(epoch from tick.now() - %(ago)s::interval) / %(span)s) * %(span)s),"
        " %(type)s, %(done)s, %(retried)s, %(dead)s, %(run)s, %(wait)s, %(runs)s, %(waits)s",
        {"span": span, "ago": ago, "type": type, "done": done, "retried": retried, "dead": dead,
         "run": run * count, "wait": wait * count, "runs": runs, "waits": waits},
    )  # fmt: skip


class TestNow:
    def test_an_empty_database_says_what_to_do_next(self, visit):
        page = text(visit().get())
        assert "Never ticked" in page
        assert "point a cron at /tick" in page
        assert "nothing to replay" in page
        assert "Nothing has run in the last hour" in page

    def test_the_verdict_and_the_numbers(self, visit, conn):
        @public.job
        async def slow() -> None: ...

        for minutes in range(20):
            a_tick(conn, f"{minutes} minutes")
        for _ in range(3):
            a_job(conn, "slow", run_at="-40 minutes")
        a_job(conn, "later", run_at="+1 hour")
        a_job(conn, "busy", "running", progress={"done": 30, "total": 120, "note": "page 3"})
        a_job(conn, "gone", "dead")
        stat(conn, done=30, retried=8, dead=2)
        stat(conn, "gone", done=30, retried=8, dead=2)
        page = text(visit().get())
        assert "Falling behind: 3 due, the oldest for 40 min" in page
        assert "Due 3 the oldest 40 min ago" in page
        assert "Running 1 1 for later" in page
        assert "Dead 1 look, and replay them" in page
        assert "Failure rate 25 % 10 of 40 in 15 min" in page
        assert "30 done 8 retried 2 dead" in page
        assert "30 of 120, page 3" in page
        assert re.search(r"gone 30 10 100 ms", page)

    def test_due_jobs_without_a_handler_are_told_by_type(self, visit, conn):
        @public.job
        async def known() -> None: ...

        a_job(conn, "known")
        assert "no handler here" not in text(visit().get())
        a_job(conn, "unknown", run_at="-5 minutes")
        a_job(conn, "unknown")
        page = text(visit().get())
        assert "Due, and no handler here takes them" in page
        assert "unknown 2 due, the oldest 5 min ago" in page

    def test_open_alerts_are_told_and_ended_ones_are_not(self, visit, conn):
        for subject, ended in (("charge", None), ("forgotten", datetime.now(UTC))):
            conn.execute(
                "insert into tick.alerts (rule, subject, since, seen_at, ended_at, count, details)"
                " values ('dead', %s, tick.now() - interval '2 hours', tick.now(), %s, 27, %s)",
                [subject, ended, Jsonb({"error": "password=hunter2 is wrong"})],
            )
        page = text(visit().get())
        assert "dead charge since 2 h ago, 27 so far" in page
        assert "forgotten" not in page
        assert "hunter2" not in page

    def test_what_renews_itself_is_what_the_page_has(self, visit, conn):
        a_tick(conn)
        a_job(conn, "gone", "dead")
        visitor = visit()
        live = visitor.get("/dashboard/live?span=day").text
        assert "<html" not in live
        swapped = re.findall(r'id="(\w+)"[^>]*hx-swap-oob="(\w+)"', live)
        assert swapped == [("verdict", "innerHTML"), ("numbers", "true"), ("rest", "true")]
        page = visitor.get("/dashboard?span=day").text
        assert 'hx-get="/dashboard/live?span=day" hx-trigger="every 5s"' in page
        assert "hx-swap-oob" not in page
        assert page.count("aria-live") == 1

    def test_the_times_are_the_database_s(self, visit, conn):
        a_tick(conn, "0 seconds")
        move_clock(conn, "+3 hours")
        assert "Last tick 3 h ago" in text(visit().get())

    @pytest.mark.parametrize(("span", "period", "length"), [("hour", 60, 60), ("day", 600, 144), ("week", 3600, 168)])
    def test_the_numbers_of_the_charts(self, visit, conn, span, period, length):
        stat(conn, span=period, done=7, retried=2, dead=1, run=0.1, wait=3.0)
        stat(conn, span=period, ago=f"{3 * period} seconds", done=5, run=0.1, wait=3.0)
        stat(conn, span=period, ago=f"{length * period} seconds", done=99)
        data = visit().get(f"/dashboard/chart.json?span={span}").json()
        assert set(data) == {"at", "done", "retried", "dead", "wait_p50", "wait_p95", "run_p50", "run_p95"}
        assert {len(values) for values in data.values()} == {length}
        assert {b - a for a, b in zip(data["at"], data["at"][1:], strict=False)} == {period}
        assert (data["done"][-1], data["retried"][-1], data["dead"][-1], data["done"][-4]) == (7, 2, 1, 5)
        assert sum(data["done"]) == 12
        assert 0.1 <= data["run_p95"][-1] < 0.15
        assert 3 <= data["wait_p50"][-4] < 4.5
        assert data["run_p95"][-2] is None

    def test_without_scripts_there_is_a_picture_of_them(self, visit, conn):
        for type in ("", "charge"):
            stat(conn, type, done=7, retried=2, dead=1)
        page = visit().get().text
        assert [page.count(f'<rect class="bar-{kind}"') for kind in charts.COUNTS] == [1, 1, 1]
        assert 'aria-label="Attempts in the last hour: 7 done, 2 retried, 1 dead; up to 10 in a period."' in page
        assert page.count('<path class="line-') == 4

    def test_an_unknown_span_is_an_hour(self, visit):
        assert len(visit().get("/dashboard/chart.json?span=century").json()["at"]) == 60


class TestCharts:
    NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def row(self, at: datetime, **columns) -> dict:
        return {"at": at, "done": 0, "retried": 0, "dead": 0, "runs": [0] * BUCKETS, "waits": [0] * BUCKETS} | columns

    def test_bars_stand_on_each_other_and_fill_the_height(self):
        rows = [self.row(self.NOON, done=6, retried=3, dead=1), self.row(self.NOON - timedelta(minutes=1), done=5)]
        bars = charts.bars(charts.series(rows, charts.SPANS["hour"], self.NOON))
        assert [bar.kind for bar in bars] == ["done", "done", "retried", "dead"]
        assert [bar.height for bar in bars] == [60.0, 72.0, 36.0, 12.0]
        assert [bar.y for bar in bars] == [60.0, 48.0, 12.0, 0.0]
        assert bars[0].x < bars[1].x == bars[3].x < charts.WIDTH

    def test_a_line_is_broken_where_nothing_ran(self):
        path = charts.line([1.0, 2.0, None, 4.0], 4.0)
        assert path == "M75.0 90.0h0.1L225.0 60.0M525.0 0.0h0.1"
        assert charts.line([], 1.0) == charts.line([None], 1.0) == ""

    def test_of_one_attempt_the_percentile_is_that_attempt(self):
        histogram = [0] * BUCKETS
        assert charts.percentile(histogram, 0.95) is None
        histogram[bucket(2.0)] = 1
        assert charts.percentile(histogram, 0.5) == charts.percentile(histogram, 0.95) >= 2.0


class TestTicks:
    def test_none_yet(self, visit):
        assert "No tick has come yet" in text(visit().get("/dashboard/ticks"))

    def test_the_log_the_latest_first_with_what_each_cost_and_did(self, visit, conn):
        a_tick(conn, "3 minutes", used=12.0, done=7, claimed=7, scheduled_for=datetime.now(UTC) - timedelta(minutes=5))
        a_tick(conn, "2 minutes", trigger="github", error="token=hunter2 was refused\nmore")
        a_tick(conn, "1 minute", used=None, finished_at=None)
        page = text(visit().get("/dashboard/ticks"))
        order = [page.index(part) for part in ("not ended", "was refused", "7 done")]
        assert order == sorted(order)
        assert "12 s of 50 s" in page
        assert "was refused" in page
        assert "hunter2" not in page

    def test_where_ticks_are_missing_the_log_and_the_strip_say_so(self, visit, conn):
        move_clock(conn, NOON)
        for minutes in (*range(40, 60), *range(1, 10)):
            a_tick(conn, f"{minutes} minutes")
        visitor = visit()
        assert "No tick for 31 min before: 30 were missing" in text(visitor.get("/dashboard/ticks"))
        strip = re.search(r'<ol class="strip".*?</ol>', visitor.get().text, re.DOTALL)[0]
        assert "no tick for 31 min: 30 ticks missing" in strip
        assert strip.count('class="of-gap"') == 1
        move_clock(conn, "2026-01-01T12:10:00+00:00")
        strip = re.search(r'<ol class="strip".*?</ol>', visitor.get().text, re.DOTALL)[0]
        assert strip.count('class="of-gap"') == 2
        assert strip.rindex("of-gap") > strip.rindex("of-idle")

    def test_filters(self, visit, conn):
        a_tick(conn, "4 minutes", trigger="github")
        a_tick(conn, "3 minutes", claimed=2, done=2)
        a_tick(conn, "2 minutes", trigger="github", claimed=1, dead=1)
        a_tick(conn, "1 minute", error="boom")
        visitor = visit()

        def found(query: str) -> int:
            return visitor.get(f"/dashboard/ticks?{query}").text.count('<a href="/dashboard/ticks/')

        assert [found(q) for q in ("", "trigger=github", "kind=work", "kind=trouble", "kind=trouble&trigger=github", "kind=x")] == [4, 2, 2, 2, 1, 4]  # fmt: skip
        assert "No tick fits this" in text(visitor.get("/dashboard/ticks?trigger=nobody"))

    def test_pages_lead_back_to_the_first_tick_and_none_is_left_out(self, visit, conn):
        conn.execute(
            "insert into tick.ticks (id, trigger, started_at, finished_at, budget)"
            " select gen_random_uuid(), 'vercel', tick.now() - n * interval '1 minute', tick.now(), 50 from generate_series(1, 120) n"
        )
        visitor, seen, path = visit(), [], "/dashboard/ticks?trigger=vercel"
        while path:
            page = visitor.get(path).text
            seen += re.findall(r'href="/dashboard/ticks/([0-9a-f-]{36})"', page)
            older = re.search(r'href="([^"]*before[^"]*)">Older', page)
            path = older and unescape(older[1])
        assert len(seen) == len(set(seen)) == 120

    def test_a_filter_says_how_far_it_looked(self, visit, conn, monkeypatch):
        monkeypatch.setattr(ticks, "LOOK", 20)
        conn.execute(
            "insert into tick.ticks (id, trigger, started_at, finished_at, budget, error)"
            " select gen_random_uuid(), 'vercel', tick.now() - n * interval '1 minute', tick.now(), 50,"
            " case when n = 30 then 'boom' end from generate_series(1, 35) n"
        )
        visitor = visit()
        first = visitor.get("/dashboard/ticks?kind=trouble")
        assert "Looked at 20 ticks, until" in text(first)
        further = unescape(re.search(r'href="([^"]*before[^"]*)">Look further back', first.text)[1])
        second = visitor.get(further)
        assert "boom" in second.text
        assert "Look further back" not in second.text

    def test_one_of_them(self, visit, conn):
        before, id, after = a_tick(conn, "9 minutes"), a_tick(conn, "5 minutes", used=49.0, claimed=3, done=2, dead=1, delivery_id="d-1", error="boom"), a_tick(conn, "1 minute")  # fmt: skip
        mine = a_job(conn, "mine", "running", tick_id=id)
        a_job(conn, "other", "running")
        response = visit().get(f"/dashboard/ticks/{id}")
        page = text(response)
        for part in ("Tick by vercel, 5 min ago", "49 s of 50 s", "boom", "d-1", "After the one before 4 min", "claimed 3", "done 2", f"mine {mine}"):  # fmt: skip
            assert part in page
        assert "other" not in page
        assert f"/dashboard/ticks/{before}" in response.text
        assert f"/dashboard/ticks/{after}" in response.text

    def test_one_that_never_ended_says_so(self, visit, conn):
        lost, running = (a_tick(conn, ago, finished_at=None, used=None) for ago in ("10 minutes", "5 seconds"))
        visitor = visit()
        assert "never ended" in text(visitor.get(f"/dashboard/ticks/{lost}"))
        assert "running" in text(visitor.get(f"/dashboard/ticks/{running}"))
        assert "never ended" not in text(visitor.get(f"/dashboard/ticks/{running}"))

    @pytest.mark.parametrize("path", [f"ticks/{uuid.UUID(int=5)}", "ticks/5", "ticks/x", "ticks/%00"])
    def test_one_that_is_not_there(self, visit, path):
        assert visit().get(f"/dashboard/{path}").status_code == 404

    @pytest.mark.parametrize("query", ["before=x", "before=2026-01-01", "before=2026-01-01T00:00:00", "before=9" * 40, "trigger=%00"])  # fmt: skip
    def test_nonsense_is_refused(self, visit, query):
        response = visit().get(f"/dashboard/ticks?{query}")
        assert response.status_code == 422
        assert "Traceback" not in response.text

    def test_hostile_names_are_text(self, visit, conn):
        a_tick(conn, trigger=HOSTILE, error=HOSTILE, delivery_id=HOSTILE)
        a_job(conn, HOSTILE, "running", progress={"done": 1, "total": "x", "note": HOSTILE})
        stat(conn, HOSTILE, done=1)
        visitor = visit()
        (id,) = conn.execute("select id from tick.ticks").fetchone()
        for path in (
            "/dashboard",
            "/dashboard/ticks",
            f"/dashboard/ticks?trigger={quote(HOSTILE)}",
            f"/dashboard/ticks/{id}",
        ):
            page = visitor.get(path)
            assert page.status_code == 200
            assert Markup(page.text).inline == []
            assert "<script>alert" not in page.text
            assert "<img src=x" not in page.text
            assert "49" not in re.findall(r"onerror=alert\(2\)&gt;(\d+)", page.text)


class TestLinks:
    def link(self, settings, value) -> str:
        return f"/dashboard/replay/{tokens.sign(settings, tokens.REPLAY, value)}"

    def dead(self, conn, count: int = 1, type: str = "charge", error: str = "declined", **columns) -> list[int]:
        return [a_job(conn, type, "dead", last_error=error, fingerprint=error, **columns) for _ in range(count)]

    def test_it_shows_what_it_would_do_and_does_it_when_told(self, visit, conn, settings):
        ids = self.dead(conn, 3, error="password=hunter2 was refused")
        others = self.dead(conn, error="another") + self.dead(conn, type="other", error="password=hunter2 was refused")
        path = self.link(settings, {"type": "charge", "fingerprint": "password=hunter2 was refused"})
        stranger = visit(None)
        for _ in range(2):
            page = text(stranger.get(path))
            assert "Replay 3 jobs?" in page
            assert "charge" in page
            assert "was refused" in page
            assert "hunter2" not in page
            assert statuses(conn) == {"dead": 5}
        response = stranger.post(path, None)
        assert response.status_code == 200
        assert "3 jobs are pending again" in text(response)
        assert {job(conn, id)["status"] for id in ids} == {"pending"}
        assert {job(conn, id)["status"] for id in others} == {"dead"}
        assert "There is nothing to replay" in text(stranger.get(path))
        assert "0 jobs are pending again There was nothing left" in text(stranger.post(path, None))

    def test_a_type_alone_is_all_of_it(self, visit, conn, settings):
        self.dead(conn, 2)
        self.dead(conn, error="another")
        self.dead(conn, type="other")
        assert "3 jobs are pending again" in text(visit(None).post(self.link(settings, {"type": "charge"}), None))
        assert statuses(conn) == {"pending": 3, "dead": 1}

    def test_ids_are_these_jobs_as_far_as_they_can_be(self, visit, conn, settings):
        ids = [
            *self.dead(conn),
            a_job(conn, status="cancelled"),
            a_job(conn, status="done"),
            a_job(conn, status="running"),
        ]
        path = self.link(settings, {"ids": [*ids, 4711]})
        assert "Replay 2 jobs?" in text(visit(None).get(path))
        assert "2 jobs are pending again" in text(visit(None).post(path, None))
        assert statuses(conn) == {"pending": 2, "done": 1, "running": 1}

    def test_ten_thousand_at_a_time(self, visit, conn, settings):
        conn.execute(
            "insert into tick.jobs (type, status, finished_at, last_error, fingerprint)"
            " select 'charge', 'dead', now() - n * interval '1 s', 'no', 'no' from generate_series(1, 10050) n"
        )
        path = self.link(settings, {"type": "charge", "fingerprint": "no"})
        assert "Replay 10,000+ jobs?" in text(visit(None).get(path))
        response = visit(None).post(path, None)
        assert "10,000 jobs are pending again" in text(response)
        assert "There are more of them" in text(response)
        # Those that died last are left.
        assert conn.execute("select count(*), max(id) from tick.jobs where status = 'dead'").fetchone() == (50, 50)
        assert "50 jobs are pending again" in text(visit(None).post(path, None))

    def test_it_is_good_for_a_day(self, visit, conn, settings, monkeypatch):
        self.dead(conn)
        for hours, status in ((23.9, 200), (24.1, 404)):
            with back_then(monkeypatch, hours * 3600):
                path = self.link(settings, {"type": "charge"})
            response = visit(None).get(path)
            assert response.status_code == status
        assert "Log in" in text(response)
        assert visit(None).post(path, None).status_code == 404
        assert statuses(conn) == {"dead": 1}

    def test_what_nobody_signed_for_this_replays_nothing(self, visit, conn, settings):
        self.dead(conn)
        value = {"type": "charge"}
        forged = [
            "x", tokens.sign(settings, "session", value), tokens.sign(replace(settings, secrets=("other",)), tokens.REPLAY, value),
            tokens.sign(settings, tokens.REPLAY, value)[:-1], visit().cookie, "x" * 5000,
            *(tokens.sign(settings, tokens.REPLAY, each) for each in
              (None, [], {}, "charge", {"type": 5}, {"ids": []}, {"ids": ["1"]}, {"ids": 1}, {"type": "charge", "fingerprint": 5, "ids": [None]})),
        ]  # fmt: skip
        codes = [(visit(None).get(f"/dashboard/replay/{each}").status_code, visit(None).post(f"/dashboard/replay/{each}", None).status_code) for each in forged[:-1]]  # fmt: skip
        assert codes == [(404, 404)] * (len(forged) - 1)
        assert statuses(conn) == {"dead": 1}

    @pytest.mark.parametrize("headers", FOREIGN)
    def test_a_page_of_another_site_cannot_press_the_button(self, visit, conn, settings, headers):
        self.dead(conn)
        assert visit(None).post(self.link(settings, {"type": "charge"}), None, headers).status_code == 403
        assert statuses(conn) == {"dead": 1}

    def test_the_link_of_an_alert_is_not_logged(self, visit, conn, settings, caplog):
        self.dead(conn)
        path = self.link(settings, {"type": "charge"})
        with caplog.at_level("INFO", logger="tick"):
            visit(None).post(path, None)
        assert "a link has replayed 1 jobs: charge" in caplog.text
        assert path.rpartition("/")[2] not in caplog.text


class TestTheWholeWay:
    def test_what_ticks_do_is_on_the_pages(self, visit, conn, settings):
        @public.job(max_attempts=1)
        async def charge(amount: int) -> None:
            if amount < 0:
                raise ValueError(f"cannot charge {amount}")

        for amount in (5, 7, -1):
            a_job(conn, "charge", payload={"amount": amount})
        tick(settings, trigger=Trigger("vercel"))
        visitor = visit()
        page = text(visitor.get())
        assert "2 done 0 retried 1 dead" in page
        assert "by vercel: 2 done, 1 dead" in page
        assert "charge" in text(visitor.get("/dashboard/dead"))
        path = f"/dashboard/replay/{tokens.sign(settings, tokens.REPLAY, {'type': 'charge'})}"
        assert "1 job is pending again" in text(visit(None).post(path, None))
        conn.execute("update tick.jobs set payload = '{\"amount\": 1}'")
        tick(settings)
        assert statuses(conn) == {"done": 3}

    def test_all_of_it_works_in_another_schema(self, visit, site, settings, fresh_url):
        import asyncio

        from tick import database

        async def migrate() -> None:
            async with database.connect(fresh_url) as connection:
                await database.migrate(connection, "jobs_of_ours")

        asyncio.run(migrate())
        ours = replace(settings, database_url=fresh_url, schema="jobs_of_ours")
        site.serve(ours)
        tick(ours, trigger=Trigger("vercel"))
        visitor = visit()
        assert [visitor.get(page).status_code for page in PAGES] == [200] * len(PAGES)
        with psycopg.connect(fresh_url, autocommit=True) as connection:
            (id,) = connection.execute("select id from jobs_of_ours.ticks").fetchone()
        assert visitor.get(f"/dashboard/ticks/{id}").status_code == 200
