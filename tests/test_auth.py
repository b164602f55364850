"""Who may call /tick: real requests to a real server, real issuers, and the official libraries as those who sign."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from qstash import Receiver
from qstash.errors import SignatureError
from standardwebhooks import Webhook

from tests.factories import a_job, statuses, wait_until
from tests.test_web import BEARER, SECRET, Site, check_problem, server, ticks
from tick import auth, web
from tick.config import Settings, TrustedIssuer
from tick.errors import ConfigurationError

__all__ = ["server"]
pytestmark = pytest.mark.usefixtures("empty_registry")

URL = "https://example.com/tick"
GUIDE = Path(__file__).parents[1] / "docs" / "authentication.md"
KEYS = {"first": rsa.generate_private_key(65537, 2048), "second": rsa.generate_private_key(65537, 2048)}
CURVE = ec.generate_private_key(ec.SECP256R1())
SHORT = rsa.generate_private_key(65537, 1024)


def public(key, id: str, **members) -> dict:
    """A key as its issuer publishes it."""
    kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return json.loads(kind.to_jwk(key.public_key())) | {"kid": id, "use": "sig"} | members


class Issuer(ThreadingHTTPServer):
    """An issuer on a port of its own, which remembers what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.pages: dict = {}
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.say("/.well-known/openid-configuration", {"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        self.publish(public(KEYS["first"], "first"))
        threading.Thread(target=partial(self.serve_forever, poll_interval=0.01), daemon=True).start()

    def say(self, path: str, content, status: int = 200, **headers: str) -> None:
        """Answer with JSON, with bytes, or with what a function writes to a socket."""
        body = content if callable(content) or isinstance(content, bytes) else json.dumps(content).encode()
        self.pages[path] = (status, headers, body)

    def publish(self, *keys: dict) -> None:
        self.say("/keys", {"keys": [*keys]})

    def claims(self, **changes) -> dict:
        """Those of a scheduled run of a workflow; None takes one away."""
        now = int(time.time())
        said = {
            "iss": self.url, "aud": URL, "iat": now, "nbf": now - 5, "exp": now + 300, "jti": "a1",
            "sub": "repo:acme/shop:ref:refs/heads/main", "repository": "acme/shop", "repository_id": "123",
            "ref": "refs/heads/main", "event_name": "schedule",
        }  # fmt: skip
        return {name: value for name, value in (said | changes).items() if value is not None}

    def token(self, key=KEYS["first"], id: str | None = "first", algorithm: str = "RS256", header: dict | None = None, **changes) -> str:  # fmt: skip
        headers = ({"kid": id} if id is not None else {}) | (header or {})
        return jwt.encode(self.claims(**changes), key, algorithm, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(self.path)
        status, headers, body = self.server.pages.get(path, (404, {}, b"{}"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        try:
            body(self.wfile) if callable(body) else self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, *args) -> None: ...


@pytest.fixture
def issuer():
    with Issuer() as running:
        yield running


@pytest.fixture
def other():
    """Somebody else's server: an issuer that is not trusted, or an attacker's."""
    with Issuer() as running:
        yield running


@pytest.fixture
def site(server, settings, conn) -> Site:
    """With one job pending, so that a tick that should not have been is seen in three places."""
    a_job(conn, "noop")
    server.settings = settings
    server.serve(replace(settings, secrets=(SECRET,)))
    return server


@pytest.fixture
def trusting(site, issuer) -> Site:
    site.serve(replace(site.settings, oidc=(trusted(issuer),)))
    return site


def trusted(issuer: Issuer, **claims) -> TrustedIssuer:
    pinned = {"repository_id": ("123",), "ref": ("refs/heads/main",), "event_name": ("schedule", "workflow_dispatch")}
    return TrustedIssuer(issuer.url, URL, claims or pinned)


def is_untouched(conn) -> bool:
    return ticks(conn) == 0 and statuses(conn) == {"pending": 1}


def check_refused(conn, response: httpx.Response) -> None:
    """The one answer that every refused caller gets, and a database that knows nothing of it."""
    body = check_problem(response, 401, title="Unauthorized")
    assert body["detail"].startswith("send the header `Authorization: Bearer <CRON_SECRET>`")
    assert response.headers["www-authenticate"] == 'Bearer realm="tick"'
    assert is_untouched(conn)


def bearer(token: str | bytes) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + (token.encode() if isinstance(token, str) else token))]


def segment(value) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(header, claims, key: bytes, digest: str = "sha256") -> str:
    """A token that no library would make: whatever header and claims, and an HMAC by the key."""
    content = f"{segment(header)}.{segment(claims)}"
    return f"{content}.{segment(hmac.digest(key, content.encode(), digest))}"


def pem(key) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class TestBearer:
    @pytest.mark.parametrize("sent", ["new", "old", "new,old", "new, old", " new,old\t"])
    def test_each_of_the_secrets_lets_in_and_so_does_the_variable_as_a_platform_sends_it(self, sent):
        assert auth.is_secret(sent, ("new", "old"))

    @pytest.mark.parametrize(
        "sent", ["", ",", "new,", "new,other", "old,new", "old,new,new", "newold", "None", "new\0", "\xff"]
    )
    def test_nothing_else_does(self, sent):
        assert not auth.is_secret(sent, ("new", "old"))
        assert not auth.is_secret(sent, ())

    @pytest.mark.parametrize("site_of_origin", ["same-origin", "same-site", "none"])
    def test_of_the_secret_is_let_in(self, site, site_of_origin):
        assert site.tick(headers=BEARER | {"sec-fetch-site": site_of_origin}).status_code == 200

    def test_that_a_browser_sends_on_behalf_of_another_site_is_refused(self, conn, site, caplog):
        check_refused(conn, site.tick(headers=BEARER | {"sec-fetch-site": "cross-site"}))
        assert "a browser sent it on behalf of another site" in caplog.text

    def test_of_the_secret_is_let_in_beside_what_is_wrong(self, site):
        wrong = {"webhook-signature": "v1,x", "upstash-signature": "a.b.c"}
        assert site.tick(headers=BEARER | wrong).status_code == 200

    @pytest.mark.parametrize("prefix", ["Bearer ", "Basic ", ""])
    async def test_of_a_megabyte_is_refused(self, conn, settings, issuer, prefix):
        a_job(conn, "noop")
        app = web.create_app(replace(settings, secrets=(SECRET,), oidc=(trusted(issuer),)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            for text in ("x" * 2**20, "a.b." + "x" * 2**20, ".".join([segment(b"[" * 2**19)] * 3)):
                check_refused(conn, await client.post("/tick", headers={"authorization": prefix + text}))
        assert issuer.asked == []

    def test_of_a_megabyte_does_not_get_through_a_server(self, conn, site):
        with suppress(OSError):  # it may hang up in the middle of it
            assert site.send(b"authorization: Bearer " + b"x" * 2**20).status_code in (400, 401, 431)
        assert is_untouched(conn)

    def test_need_send_no_body_and_it_is_not_waited_for(self, site):
        length = b"content-length: 100000000"
        assert site.send(b"authorization: Bearer " + SECRET.encode(), length, method="POST").status_code == 200
        assert site.send(b"authorization: Bearer wrong", length, method="POST").status_code == 401
        assert site.send(length, method="POST").status_code == 401


NOW = int(time.time())
FORGED_CLAIMS = {
    "another audience": {"aud": "https://example.com"},
    "the audience with more behind it": {"aud": URL + ".evil.example"},
    "the audience with a slash": {"aud": URL + "/"},
    "the audience in another case": {"aud": URL.upper()},
    "a list of other audiences": {"aud": ["https://github.com/acme", "x"]},
    "a list with the audience and another": {"aud": [URL, "https://evil.example"]},
    "an empty list of audiences": {"aud": []},
    "no audience": {"aud": None},
    "an audience that is an object": {"aud": {URL: URL}},
    "expired": {"exp": NOW - 61},
    "expired long ago": {"exp": 0},
    "no expiry": {"exp": None},
    "an expiry that is a word": {"exp": "never"},
    "an expiry that is no number": {"exp": float("nan")},
    "an expiry that is infinite": {"exp": float("inf")},
    "an expiry that is a list": {"exp": [NOW + 300]},
    "not valid yet": {"nbf": NOW + 3600},
    "issued in the future": {"iat": NOW + 3600},
    "another repository": {"repository_id": "124"},
    "another repository of the same name": {"repository_id": "999", "repository": "acme/shop"},
    "a longer id": {"repository_id": "1234"},
    "an id with a space": {"repository_id": "123 "},
    "an id that is a number": {"repository_id": 123},
    "an id that is a list": {"repository_id": ["123"]},
    "an id that is an object": {"repository_id": {"123": "123"}},
    "an id that is true": {"repository_id": True},
    "no id": {"repository_id": None},
    "an id in another claim": {"repository_id": None, "Repository_id": "123", "repository_ID": "123"},
    "another branch": {"ref": "refs/heads/evil"},
    "a branch that starts alike": {"ref": "refs/heads/main-evil"},
    "a branch below": {"ref": "refs/heads/main/evil"},
    "a branch in another case": {"ref": "refs/heads/Main"},
    "a branch and a line feed": {"ref": "refs/heads/main\n"},
    "a tag named as the branch": {"ref": "refs/tags/main"},
    "no branch": {"ref": None},
    "a pull request": {"event_name": "pull_request"},
    "a pull request of a fork": {"event_name": "pull_request_target"},
    "two events": {"event_name": "schedule,workflow_dispatch"},
    "all events": {"event_name": ["schedule", "workflow_dispatch"]},
    "no issuer": {"iss": None},
    "GitHub itself": {"iss": "https://token.actions.githubusercontent.com"},
    "an issuer that is a list": {"iss": ["http://127.0.0.1"]},
    "a subject that is a number": {"sub": 5},
}


def unsigned(issuer: Issuer, algorithm: str) -> str:
    return f"{segment({'alg': algorithm, 'kid': 'first'})}.{segment(issuer.claims())}."


def with_part(issuer: Issuer, number: int, part: str) -> str:
    parts = issuer.token().split(".")
    return ".".join([*parts[:number], part, *parts[number + 1 :]])


FORGED_TOKENS = {
    "alg none": lambda issuer: unsigned(issuer, "none"),
    "alg None": lambda issuer: unsigned(issuer, "None"),
    "alg NONE": lambda issuer: unsigned(issuer, "NONE"),
    "alg empty": lambda issuer: unsigned(issuer, ""),
    "alg none with a signature": lambda issuer: unsigned(issuer, "none") + issuer.token().split(".")[2],
    "alg missing": lambda issuer: with_part(issuer, 0, segment({"kid": "first"})),
    "HS256 with the public key": lambda issuer: signed({"alg": "HS256", "kid": "first"}, issuer.claims(), pem(KEYS["first"])),
    "HS256 with the public key as JSON": lambda issuer: signed({"alg": "HS256", "kid": "first"}, issuer.claims(), json.dumps(public(KEYS["first"], "first")).encode()),
    "HS256 with an empty key": lambda issuer: signed({"alg": "HS256", "kid": "first"}, issuer.claims(), b""),
    "HS256 with the key that is published": lambda issuer: signed({"alg": "HS256", "kid": "symmetric"}, issuer.claims(), b"k" * 32),
    "RS384": lambda issuer: issuer.token(algorithm="RS384"),
    "RS512": lambda issuer: issuer.token(algorithm="RS512"),
    "PS256": lambda issuer: issuer.token(algorithm="PS256"),
    "ES256 under the id of an RSA key": lambda issuer: issuer.token(CURVE, algorithm="ES256"),
    "another key under the same id": lambda issuer: issuer.token(KEYS["second"]),
    "a key of 1024 bits": lambda issuer: jwt_with_a_short_key(issuer),
    "a key for encryption": lambda issuer: issuer.token(id="encryption"),
    "an unknown key": lambda issuer: issuer.token(KEYS["second"], id="second"),
    "no key": lambda issuer: issuer.token(id=None),
    "an empty key": lambda issuer: issuer.token(id=""),
    "a key that is a path": lambda issuer: issuer.token(id="../../../../dev/null"),
    "a key that is a number": lambda issuer: with_part(issuer, 0, segment({"alg": "RS256", "kid": 1})),
    "a key that is a list": lambda issuer: with_part(issuer, 0, segment({"alg": "RS256", "kid": ["first"]})),
    "an extension that must be understood": lambda issuer: issuer.token(header={"crit": ["x"], "x": 1}),
    "other claims under the signature": lambda issuer: with_part(issuer, 1, segment(issuer.claims(jti="a2"))),
    "claims that are a list": lambda issuer: with_part(issuer, 1, segment([1])),
    "claims that are no JSON": lambda issuer: with_part(issuer, 1, segment(b"\xff{")),
    "claims without an end": lambda issuer: with_part(issuer, 1, segment(b"[" * 9000)),
    "a header that is a list": lambda issuer: with_part(issuer, 0, segment(["RS256"])),
    "a header without an end": lambda issuer: with_part(issuer, 0, segment(b'{"a":' * 2000)),
    "a signature of nothing": lambda issuer: with_part(issuer, 2, ""),
    "a signature cut short": lambda issuer: issuer.token()[:-10],
    "a signature that is no base64": lambda issuer: with_part(issuer, 2, "!!!!"),
    "a signature with one bit changed": lambda issuer: with_part(issuer, 2, ("A" if issuer.token().split(".")[2][0] != "A" else "B") + issuer.token().split(".")[2][1:]),
    "four parts": lambda issuer: issuer.token() + ".x",
    "two parts": lambda issuer: issuer.token().rpartition(".")[0],
    "dots": lambda issuer: "..",
    "two tokens": lambda issuer: f"{issuer.token()}, {issuer.token()}",
    "more characters than a token has": lambda issuer: issuer.token(padding="x" * 20_000),
    "other letters than ASCII": lambda issuer: issuer.token().encode() + "é".encode("latin-1"),
    "bytes": lambda issuer: bytes(range(0x80, 0x100)) + b"." + bytes(range(0x80, 0x100)) + b"." + bytes(range(0x80, 0x100)),
}  # fmt: skip


def jwt_with_a_short_key(issuer: Issuer) -> str:
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        return issuer.token(SHORT, id="short")


class TestToken:
    @pytest.fixture(autouse=True)
    def _keys(self, issuer):
        symmetric = {"kty": "oct", "kid": "symmetric", "alg": "HS256", "k": segment(b"k" * 32)}
        issuer.publish(
            public(KEYS["first"], "first"),
            public(KEYS["first"], "encryption", use="enc"),
            public(SHORT, "short"),
            public(CURVE, "curve"),
            symmetric,
            {"kty": "?", "kid": "unusable"},
        )

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"event_name": "workflow_dispatch"},
            {"aud": [URL]},
            {"nbf": NOW + 30, "iat": NOW + 30},
            {"nbf": None, "iat": None, "jti": None, "sub": None},
            {"sub": "repo:acme@1/shop@123:ref:refs/heads/main"},
        ],
        ids=" ".join,
    )
    def test_that_says_what_is_pinned_is_let_in(self, trusting, issuer, changes):
        assert trusting.tick(headers=bearer(issuer.token(**changes))).status_code == 200
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]

    def test_within_a_minute_after_its_end_is_let_in(self, trusting, issuer):
        token = issuer.token(exp=int(time.time()) - 20)
        assert trusting.tick(headers=bearer(token)).status_code == 200

    def test_may_be_signed_on_a_curve(self, trusting, issuer):
        assert trusting.tick(headers=bearer(issuer.token(CURVE, "curve", "ES256"))).status_code == 200

    @pytest.mark.parametrize("changes", FORGED_CLAIMS.values(), ids=FORGED_CLAIMS)
    def test_that_says_something_else_is_refused(self, conn, trusting, issuer, changes, caplog):
        # By hand, since the library refuses to say some of this.
        content = f"{segment({'alg': 'RS256', 'kid': 'first'})}.{segment(issuer.claims(**changes))}"
        key = jwt.get_algorithm_by_name("RS256")
        token = f"{content}.{segment(key.sign(content.encode(), KEYS['first']))}"
        check_refused(conn, trusting.tick(headers=bearer(token)))
        assert "a caller was refused: its " in caplog.text
        assert "InvalidSignature" not in caplog.text and token not in caplog.text

    @pytest.mark.parametrize("forged", FORGED_TOKENS.values(), ids=FORGED_TOKENS)
    def test_that_is_forged_is_refused(self, conn, trusting, issuer, forged, caplog):
        check_refused(conn, trusting.tick(headers=bearer(forged(issuer))))
        assert "a caller was refused: its " in caplog.text

    @pytest.mark.parametrize("members", ["jku", "x5u", "jwk", "x5c"])
    def test_that_brings_its_own_key_is_refused_and_nobody_is_asked_for_it(
        self, conn, trusting, issuer, other, members
    ):
        other.publish(public(KEYS["second"], "first"), public(KEYS["second"], "second"))
        brought = {"jku": f"{other.url}/keys", "x5u": f"{other.url}/keys", "jwk": public(KEYS["second"], "first"), "x5c": [segment(pem(KEYS["second"]))]}  # fmt: skip
        for id in ("first", "second"):
            token = issuer.token(KEYS["second"], id, header={members: brought[members]})
            check_refused(conn, trusting.tick(headers=bearer(token)))
        assert other.asked == []

    def test_of_an_issuer_that_is_not_trusted_is_refused_and_it_is_not_asked(self, conn, trusting, issuer, other):
        for iss in (other.url, issuer.url + "/", issuer.url.upper(), issuer.url + "@" + other.url[7:]):
            check_refused(conn, trusting.tick(headers=bearer(other.token(iss=iss))))
        assert (issuer.asked, other.asked) == ([], [])

    def test_of_one_trusted_issuer_signed_by_another_is_refused(self, conn, site, issuer, other):
        site.serve(replace(site.settings, oidc=(trusted(issuer), trusted(other))))
        other.publish(public(KEYS["second"], "second"), public(KEYS["second"], "first"))
        for id in ("first", "second"):
            check_refused(conn, site.tick(headers=bearer(other.token(KEYS["second"], id, iss=issuer.url))))
        assert site.tick(headers=bearer(other.token(KEYS["second"], "second"))).status_code == 200

    def test_fits_any_of_several_tables_of_its_issuer_but_one_of_them_wholly(self, conn, site, issuer, caplog):
        tables = (
            TrustedIssuer(issuer.url, URL, {"repository_id": ("1",), "ref": ("a",)}),
            TrustedIssuer(issuer.url, "other", {"repository_id": ("2",), "ref": ("b",)}),
        )
        site.serve(replace(site.settings, oidc=tables))
        for aud, id, ref in ((URL, "1", "b"), (URL, "2", "b"), ("other", "1", "a"), ("other", "2", "a")):
            check_refused(conn, site.tick(headers=bearer(issuer.token(aud=aud, repository_id=id, ref=ref))))
        assert "its aud is 'other' and not" in caplog.text and "its ref is 'a' and not 'b'" in caplog.text
        for aud, id, ref in ((URL, "1", "a"), ("other", "2", "b")):
            assert site.tick(headers=bearer(issuer.token(aud=aud, repository_id=id, ref=ref))).status_code == 200

    @pytest.mark.parametrize("verified", [None, False, "true", 1])
    def test_with_an_email_that_nobody_has_verified_is_refused(self, conn, site, issuer, verified):
        site.serve(replace(site.settings, oidc=(trusted(issuer, email=("ticker@acme.example",)),)))
        check_refused(conn, site.tick(headers=bearer(issuer.token(email="ticker@acme.example", email_verified=verified))))  # fmt: skip
        check_refused(conn, site.tick(headers=bearer(issuer.token(email="evil@acme.example", email_verified=True))))
        assert site.tick(headers=bearer(issuer.token(email="ticker@acme.example", email_verified=True))).is_success

    def test_in_two_headers_is_refused(self, conn, trusting, issuer):
        check_refused(conn, trusting.tick(headers=bearer(issuer.token()) * 2))
        check_refused(conn, trusting.tick(headers=bearer(issuer.token()) + bearer("x")))

    def test_anywhere_but_in_the_header_is_refused(self, conn, trusting, issuer):
        token = issuer.token()
        check_refused(conn, trusting.tick(f"/tick?access_token={token}", headers={}))
        check_refused(conn, trusting.tick(headers={"cookie": f"token={token}"}, content=token))
        check_refused(conn, trusting.tick(headers={"authorization": f"JWT {token}"}))
        check_refused(conn, trusting.tick(headers={"authorization": token, "x-forwarded-authorization": f"Bearer {token}"}))  # fmt: skip

    def test_is_not_asked_for_when_the_bearer_is_the_secret_even_if_it_looks_like_one(self, site, issuer):
        secret = issuer.token(KEYS["second"])
        site.serve(replace(site.settings, secrets=(secret,), oidc=(trusted(issuer),)))
        assert site.tick(headers=bearer(secret)).status_code == 200
        assert issuer.asked == []

    @given(token=st.text(st.characters(max_codepoint=255), max_size=60).map(lambda text: f"{text}.{text}.{text}"))
    @hypothesis_settings(deadline=None)
    def test_that_is_anything_is_refused_and_no_error(self, token):
        with pytest.raises(auth.Refused):
            auth.asyncio.run(auth._token(token, [TrustedIssuer("http://127.0.0.1:1", URL, {"a": ("b",)})]))


class TestTheKeysOfAnIssuer:
    def test_are_fetched_once_for_many_calls_at_once(self, trusting, issuer):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: trusting.tick(headers=bearer(issuer.token())), range(16)))
        assert {answer.status_code for answer in answers} == {200}
        assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]

    def test_are_fetched_again_for_a_new_one_and_the_old_one_is_then_forgotten(self, conn, trusting, issuer, monkeypatch):  # fmt: skip
        monkeypatch.setattr(auth, "REFETCH_SECONDS", 0.0)
        assert trusting.tick(headers=bearer(issuer.token())).status_code == 200
        issuer.publish(public(KEYS["first"], "first"), public(KEYS["second"], "second"))
        new = partial(issuer.token, KEYS["second"], "second")
        assert trusting.tick(headers=bearer(new())).status_code == 200
        assert trusting.tick(headers=bearer(issuer.token())).status_code == 200
        assert issuer.asked.count("/keys") == 2
        issuer.publish(public(KEYS["second"], "second"))
        assert trusting.tick(headers=bearer(issuer.token(id="unknown"))).status_code == 401
        assert trusting.tick(headers=bearer(issuer.token())).status_code == 401
        assert trusting.tick(headers=bearer(new())).status_code == 200

    def test_are_not_fetched_for_each_unknown_one(self, trusting, issuer):
        for number in range(10):
            assert trusting.tick(headers=bearer(issuer.token(id=f"unknown-{number}"))).status_code == 401
        assert issuer.asked.count("/keys") == 1
        assert trusting.tick(headers=bearer(issuer.token())).status_code == 200

    def test_are_asked_for_again_after_an_hour_and_not_believed_without(self, conn, trusting, issuer):
        assert trusting.tick(headers=bearer(issuer.token())).status_code == 200
        keys = auth._keys_of(issuer.url)
        assert 3500 < keys._good_until - time.monotonic() <= 3600
        issuer.say("/keys", {}, 500)
        keys._good_until = keys._not_before = time.monotonic()
        assert trusting.tick(headers=bearer(issuer.token())).status_code == 503
        issuer.publish(public(KEYS["second"], "second"))
        keys._not_before = time.monotonic()
        assert trusting.tick(headers=bearer(issuer.token())).status_code == 401
        assert ticks(conn) == 1

    def check_unavailable(self, conn, site: Site, issuer: Issuer, caplog, why: str) -> None:
        response = site.tick(headers=bearer(issuer.token()))
        check_problem(response, 503, title="The caller cannot be verified")
        assert response.headers["retry-after"] == "5"
        assert f"the keys of {issuer.url} cannot be had: " in caplog.text
        assert why in caplog.text
        assert is_untouched(conn)

    @pytest.mark.parametrize(
        ("path", "content", "status", "why"),
        [
            ("/.well-known/openid-configuration", {}, 404, "/.well-known/openid-configuration answers 404"),
            ("/.well-known/openid-configuration", b"<html>", 200, "JSONDecodeError"),
            ("/.well-known/openid-configuration", [], 200, "discovery document is that of None"),
            ("/.well-known/openid-configuration", {"issuer": "https://evil.example"}, 200, "is that of 'https://evil.example'"),
            ("/.well-known/openid-configuration", b"[" * 100_000, 200, "RecursionError"),
            ("/.well-known/openid-configuration", b" " * 300_000, 200, "has more than 262144 bytes"),
            ("/keys", {}, 500, "/keys answers 500"),
            ("/keys", {}, 200, "PyJWKSetError"),
            ("/keys", {"keys": []}, 200, "PyJWKSetError"),
            ("/keys", {"keys": "none"}, 200, "PyJWKSetError"),
            ("/keys", {"keys": [{"kty": "?"}, 5]}, 200, "PyJWKSetError"),
            ("/keys", lambda file: [file.write(b" " * 65536) for _ in range(10_000)], 200, "has more than 262144 bytes"),
        ],
        ids=lambda value: "flood" if callable(value) else str(value)[:50],
    )  # fmt: skip
    def test_that_cannot_be_had_let_nobody_in(self, conn, trusting, issuer, path, content, status, why, caplog):
        issuer.say(path, content, status)
        self.check_unavailable(conn, trusting, issuer, caplog, why)

    @pytest.mark.parametrize(
        ("where", "why"),
        [
            ("http://192.0.2.1/keys", "is not https"),
            ("http://localhost.evil.example/keys", "is not https"),
            ("http://127.0.0.1@192.0.2.1/keys", "is not https"),
            ("ftp://127.0.0.1/keys", "is not https"),
            ("file:///etc/passwd", "is not https"),
            ("https:///keys", "is not https"),
            ("https://[1", "is not https"),
            ("", "is not https"),
            (5, "AttributeError"),
        ],
    )
    def test_are_never_read_over_what_is_not_https(self, conn, trusting, issuer, where, why, caplog):
        issuer.say("/.well-known/openid-configuration", {"issuer": issuer.url, "jwks_uri": where})
        self.check_unavailable(conn, trusting, issuer, caplog, why)
        assert issuer.asked == ["/.well-known/openid-configuration"]

    @pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys"])
    def test_are_not_looked_for_where_a_redirect_points(self, conn, trusting, issuer, other, path, caplog):
        other.say(path, issuer.pages[path][2])
        issuer.say(path, {}, 302, location=other.url + path)
        self.check_unavailable(conn, trusting, issuer, caplog, f"{path} answers 302")
        assert other.asked == []

    def test_may_be_on_another_host_that_the_issuer_names(self, trusting, issuer, other):
        issuer.say("/.well-known/openid-configuration", {"issuer": issuer.url, "jwks_uri": f"{other.url}/keys"})
        assert trusting.tick(headers=bearer(issuer.token())).status_code == 200
        assert other.asked == ["/keys"]

    def test_are_not_waited_for_longer_than_a_few_seconds(self, conn, trusting, issuer, monkeypatch, caplog):
        monkeypatch.setattr(auth, "FETCH_SECONDS", 0.5)
        done = threading.Event()

        def drip(file) -> None:
            while not done.wait(0.05):
                file.write(b" ")
                file.flush()

        issuer.say("/keys", drip)
        try:
            self.check_unavailable(conn, trusting, issuer, caplog, "TimeoutError")
        finally:
            done.set()

    def test_are_asked_for_again_only_after_a_while_when_they_could_not_be_had(self, conn, trusting, issuer, monkeypatch, caplog):  # fmt: skip
        monkeypatch.setattr(auth, "RETRY_SECONDS", 60.0)
        good = issuer.pages["/keys"]
        issuer.say("/keys", {}, 500)
        for _ in range(5):
            self.check_unavailable(conn, trusting, issuer, caplog, "answers 500")
        assert issuer.asked.count("/keys") == 1
        issuer.pages["/keys"] = good
        auth._keys_of(issuer.url)._not_before = time.monotonic()
        assert trusting.tick(headers=bearer(issuer.token())).status_code == 200

    def test_of_an_issuer_that_is_gone_do_not_keep_out_who_has_the_secret(self, conn, site, caplog):
        with Issuer() as gone:
            pass
        site.serve(replace(site.settings, secrets=(SECRET,), oidc=(trusted(gone),)))
        self.check_unavailable(conn, site, gone, caplog, "ConnectError")
        assert site.tick().status_code == 200


CURRENT, NEXT = "sig_" + "c" * 32, "sig_" + "n" * 32
BODY = b'{"hello": "w\xc3\xb6rld"}'


def body_hash(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()


def qstash_claims(body: bytes = BODY, **changes) -> dict:
    now = int(time.time())
    said = {"iss": "Upstash", "sub": URL, "exp": now + 300, "nbf": now, "iat": now, "jti": "jwt_1", "body": body_hash(body)}  # fmt: skip
    return {name: value for name, value in (said | changes).items() if value is not None}


def qstash_token(key: str = CURRENT, header: dict | None = None, **changes) -> str:
    return signed(header or {"alg": "HS256", "typ": "JWT"}, qstash_claims(**changes), key.encode())


QSTASH_TOKENS = {
    "as it should be": qstash_token,
    "the next key": lambda: qstash_token(NEXT),
    "a body without padding": lambda: signed({"alg": "HS256"}, qstash_claims() | {"body": body_hash(BODY).rstrip("=")}, CURRENT.encode()),
    "another key": lambda: qstash_token("sig_" + "x" * 32),
    "another issuer": lambda: qstash_token(iss="upstash"),
    "no issuer": lambda: qstash_token(iss=None),
    "another url": lambda: qstash_token(sub="https://example.com/other"),
    "the url with a slash": lambda: qstash_token(sub=URL + "/"),
    "the url with more behind it": lambda: qstash_token(sub=URL + ".evil.example"),
    "the url of another host": lambda: qstash_token(sub="http://127.0.0.1/tick"),
    "no url": lambda: qstash_token(sub=None),
    "expired": lambda: qstash_token(exp=int(time.time()) - 61),
    "no expiry": lambda: qstash_token(exp=None),
    "an expiry that is a word": lambda: qstash_token(exp="never"),
    "an expiry that is no number": lambda: qstash_token(exp=float("nan")),
    "not yet valid": lambda: qstash_token(nbf=int(time.time()) + 600),
    "no start": lambda: qstash_token(nbf=None),
    "another body": lambda: qstash_token(body=b"{}"),
    "HS512": lambda: signed({"alg": "HS512"}, qstash_claims(), CURRENT.encode(), "sha512"),
    "said to be HS512": lambda: qstash_token(header={"alg": "HS512"}),
    "said to be none": lambda: qstash_token(header={"alg": "none"}),
    "unsigned": lambda: f"{segment({'alg': 'none'})}.{segment(qstash_claims())}.",
    "no algorithm": lambda: qstash_token(header={"typ": "JWT"}),
    "an extension that must be understood": lambda: qstash_token(header={"alg": "HS256", "crit": ["x"], "x": 1}),
    "a header that is a list": lambda: signed(["HS256"], qstash_claims(), CURRENT.encode()),
    "claims that are a list": lambda: signed({"alg": "HS256"}, ["Upstash"], CURRENT.encode()),
    "claims that are a number": lambda: signed({"alg": "HS256"}, 5, CURRENT.encode()),
    "claims that are no JSON": lambda: signed({"alg": "HS256"}, b"\xff", CURRENT.encode()),
    "four parts": lambda: signed({"alg": "HS256"}, qstash_claims(), CURRENT.encode()).replace(".", ".x.", 1),
    "an empty key": lambda: signed({"alg": "HS256"}, qstash_claims(), b""),
    "other claims under the signature": lambda: ".".join([*qstash_token().split(".")[:1], segment(qstash_claims(jti="2")), qstash_token().split(".")[2]]),
    "nothing": lambda: "",
    "dots": lambda: "..",
    "words": lambda: "not a token",
}  # fmt: skip
GOOD_TOKENS = {"as it should be", "the next key", "a body without padding"}


def is_believed_by_qstash(token: str) -> bool:
    receiver = Receiver(current_signing_key=CURRENT, next_signing_key=NEXT)
    try:
        receiver.verify(signature=token, body=BODY.decode(), url=URL)
    except (SignatureError, KeyError):
        return False
    return True


class TestQStash:
    @pytest.fixture(autouse=True)
    def _keys(self, site):
        site.serve(replace(site.settings, qstash_keys=(CURRENT, NEXT), url=URL))

    @pytest.mark.parametrize("name", QSTASH_TOKENS)
    def test_is_let_in_exactly_when_its_own_library_would(self, conn, site, name):
        token = QSTASH_TOKENS[name]()
        response = site.tick(headers={"upstash-signature": token}, content=BODY)
        assert is_believed_by_qstash(token) == (name in GOOD_TOKENS)
        if name in GOOD_TOKENS:
            assert response.status_code == 200
        else:
            check_refused(conn, response)

    @pytest.mark.parametrize("changes", [{"exp": -20}, {"nbf": 30}], ids=str)
    def test_may_be_made_by_a_clock_that_differs_a_little(self, site, changes):
        token = qstash_token(**{name: int(time.time()) + offset for name, offset in changes.items()})
        assert site.tick(headers={"upstash-signature": token}, content=BODY).status_code == 200

    def test_without_what_it_says_of_the_body_is_refused(self, conn, site):
        claims = qstash_claims()
        del claims["body"]
        token = signed({"alg": "HS256"}, claims, CURRENT.encode())
        for body in (b"", BODY):
            check_refused(conn, site.tick(headers={"upstash-signature": token}, content=body))

    @pytest.mark.parametrize("body", [BODY + b" ", BODY[:-1], b"", BODY.replace(b"hello", b"hullo")], ids=str)
    def test_with_another_body_than_it_signed_is_refused(self, conn, site, body):
        check_refused(conn, site.tick(headers={"upstash-signature": qstash_token()}, content=body))

    def test_may_sign_an_empty_body_and_one_of_any_bytes(self, site):
        for body in (b"", bytes(range(256)), b"x" * auth.LONGEST_BODY):
            token = signed({"alg": "HS256"}, qstash_claims(body), CURRENT.encode())
            assert site.tick(headers={"upstash-signature": token}, content=body).status_code == 200

    def test_is_compared_with_the_url_that_is_set_and_not_with_the_one_that_was_called(self, conn, site):
        here = f"http://127.0.0.1:{site.port}/tick"
        headers = {"upstash-signature": qstash_token(sub=here), "x-forwarded-host": "example.com", "x-forwarded-proto": "https"}  # fmt: skip
        check_refused(conn, site.tick(headers=headers, content=BODY))
        check_refused(conn, site.tick(headers=headers | {"host": "example.com"}, content=BODY))
        assert site.tick(headers={"upstash-signature": qstash_token(), "host": "internal"}, content=BODY).is_success

    def test_signs_with_the_next_key_before_and_after_they_are_rolled(self, conn, site):
        token = qstash_token(NEXT)
        for keys in ((CURRENT, NEXT), (NEXT, "sig_" + "z" * 32), (NEXT,)):
            site.serve(replace(site.settings, qstash_keys=keys, url=URL))
            assert site.tick(headers={"upstash-signature": token}, content=BODY).status_code == 200
        old = qstash_token(CURRENT)
        assert site.tick(headers={"upstash-signature": old}, content=BODY).status_code == 401

    def test_in_two_headers_is_refused(self, conn, site):
        line = (b"upstash-signature", qstash_token().encode())
        check_refused(conn, site.tick(headers=[line, line], content=BODY))

    @pytest.mark.parametrize("given", [b"\xff.\x80.\xe9", b"x" * 40_000, b"." * 40_000], ids=lambda given: str(given)[:20])  # fmt: skip
    def test_that_is_garbage_is_refused(self, conn, site, given):
        check_refused(conn, site.tick(headers=[(b"upstash-signature", given)], content=BODY))

    @pytest.mark.parametrize("missing", ["keys", "url"])
    def test_is_refused_while_its_keys_or_the_url_are_not_set(self, conn, site, missing, caplog):
        without = {"keys": {"url": URL}, "url": {"qstash_keys": (CURRENT, NEXT)}}[missing]
        site.serve(replace(site.settings, secrets=(SECRET,), **without))
        check_refused(conn, site.tick(headers={"upstash-signature": qstash_token()}, content=BODY))
        assert "QSTASH_CURRENT_SIGNING_KEY or TICK_URL is not set" in caplog.text
        site.serve(replace(site.settings, **without))
        response = site.tick(headers={"upstash-signature": qstash_token()}, content=BODY)
        check_problem(response, 503, title="No secret is configured", detail="CRON_SECRET is not set")
        assert ("TICK_URL is not" in response.json()["detail"]) == (missing == "url")


WHSEC = "whsec_" + base64.b64encode(b"w" * 32).decode()
NEWER = "whsec_" + base64.b64encode(b"n" * 32).decode()


def webhook(secret: str = WHSEC, body: bytes = BODY, ago: float = 0.0, **changes: str) -> dict[str, str]:
    """The headers of a message that the official library has signed; changes come after that."""
    at = datetime.now(UTC) - timedelta(seconds=ago)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body.decode()),
    }
    return headers | {f"webhook-{name}": value for name, value in changes.items()}


class TestWebhook:
    @pytest.fixture(autouse=True)
    def _secrets(self, site):
        site.serve(replace(site.settings, inbound_secrets=(WHSEC,)))

    @pytest.mark.parametrize("ago", [0, 240, -240])
    def test_that_is_signed_is_let_in(self, site, ago):
        assert site.tick(headers=webhook(ago=ago), content=BODY).status_code == 200

    @pytest.mark.parametrize(
        "changes",
        [
            {"id": "msg_2"}, {"id": ""}, {"id": "msg_1."}, {"id": "msg\xe9"},
            {"timestamp": "1700000000"}, {"timestamp": ""}, {"timestamp": "now"}, {"timestamp": "-1"},
            {"timestamp": "9" * 400}, {"timestamp": "1e9"}, {"timestamp": "nan"}, {"timestamp": "١٢٣".encode().decode("latin-1")},
            {"signature": ""}, {"signature": "v1,"}, {"signature": "v1"}, {"signature": "v1,AAAA"}, {"signature": "v1," + " " * 1000 + "x"},
            {"signature": "v1," + base64.b64encode(bytes(32)).decode()}, {"signature": "\xff\xfe,\x80"},
            {"signature": webhook()["webhook-signature"].replace("v1,", "v1a,")},
            {"signature": webhook()["webhook-signature"].replace("v1,", "v2,")},
            {"signature": "v1,x " * 8000 + "v1"},
        ],
        ids="".join,
    )  # fmt: skip
    def test_with_another_header_than_was_signed_is_refused(self, conn, site, changes, caplog):
        raw = [(name.encode(), value.encode("latin-1")) for name, value in webhook(**changes).items()]
        check_refused(conn, site.tick(headers=raw, content=BODY))
        assert "a caller was refused: its webhook-signature is by none of TICK_INBOUND_SECRETS" in caplog.text

    @pytest.mark.parametrize("ago", [310, 86_400, -310, -86_400])
    def test_that_is_too_old_or_too_new_is_refused(self, conn, site, ago):
        check_refused(conn, site.tick(headers=webhook(ago=ago), content=BODY))

    @pytest.mark.parametrize("body", [BODY + b"\n", BODY[1:], b"", b"\xff" * 10], ids=str)
    def test_with_another_body_than_was_signed_is_refused(self, conn, site, body):
        check_refused(conn, site.tick(headers=webhook(), content=body))

    @pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
    def test_without_one_of_the_headers_is_refused(self, conn, site, missing):
        headers = webhook()
        del headers[missing]
        check_refused(conn, site.tick(headers=headers, content=BODY))

    @pytest.mark.parametrize("twice", ["webhook-id", "webhook-timestamp", "webhook-signature"])
    def test_with_one_of_the_headers_twice_is_refused(self, conn, site, twice):
        for value in (webhook()[twice], "another"):
            check_refused(conn, site.tick(headers=[*webhook().items(), (twice, value)], content=BODY))

    def test_signed_with_another_secret_is_refused(self, conn, site):
        check_refused(conn, site.tick(headers=webhook(NEWER), content=BODY))

    def test_may_be_signed_with_the_old_secret_or_the_new_while_one_is_replaced(self, conn, site, settings):
        secrets = Settings.load({"TICK_INBOUND_SECRETS": f" {NEWER}, {WHSEC},"}, start=settings.root).inbound_secrets
        site.serve(replace(site.settings, inbound_secrets=secrets))
        assert [site.tick(headers=webhook(secret), content=BODY).status_code for secret in (WHSEC, NEWER)] == [200, 200]
        site.serve(replace(site.settings, inbound_secrets=(NEWER,)))
        both = " ".join(webhook(secret)["webhook-signature"] for secret in (WHSEC, NEWER))
        assert site.tick(headers=webhook(signature=both), content=BODY).status_code == 200
        assert site.tick(headers=webhook(WHSEC), content=BODY).status_code == 401

    def test_is_refused_while_no_secret_is_set(self, conn, site, caplog):
        site.serve(replace(site.settings, secrets=(SECRET,)))
        check_refused(conn, site.tick(headers=webhook(), content=BODY))
        assert "it has a webhook-signature, and TICK_INBOUND_SECRETS is not set" in caplog.text

    def test_is_let_in_beside_a_bearer_that_is_wrong(self, site):
        headers = webhook() | {"authorization": "Bearer wrong", "upstash-signature": "x"}
        assert site.tick(headers=headers, content=BODY).status_code == 200

    def test_of_the_longest_body_is_let_in_and_of_a_longer_one_is_too_long(self, conn, site):
        longest = b"x" * auth.LONGEST_BODY
        for content in (longest + b"x", iter([longest, b"x"]), b"x" * 10_000_000):
            response = site.tick(headers=webhook(body=longest), content=content)
            check_problem(response, 413, title="The body is too long", detail="65536 bytes")
            assert is_untouched(conn)
        assert site.tick(headers=webhook(body=longest), content=iter([longest[:1000], longest[1000:]])).is_success

    def test_whose_body_does_not_come_is_refused(self, conn, site, monkeypatch, caplog):
        monkeypatch.setattr(auth, "BODY_SECONDS", 0.2)
        lines = [f"{name}: {value}".encode() for name, value in webhook().items()]
        check_refused(conn, site.send(*lines, b"content-length: 20", method="POST"))
        assert "its body did not arrive" in caplog.text

    def test_whose_sender_hangs_up_is_refused(self, conn, site, caplog):
        lines = [f"{name}: {value}".encode() for name, value in webhook().items()]
        with socket.create_connection(("127.0.0.1", site.port), timeout=30) as raw:
            raw.sendall(b"\r\n".join([b"POST /tick HTTP/1.1", b"host: x", *lines, b"content-length: 20", b"", b"half"]))
        wait_until(lambda: "its body did not arrive" in caplog.text)
        assert is_untouched(conn)


class TestTheLog:
    def test_says_who_was_let_in(self, site, issuer, caplog):
        site.serve(replace(site.settings, secrets=(SECRET,), inbound_secrets=(WHSEC,), oidc=(trusted(issuer),)))
        with caplog.at_level(logging.INFO, "tick"):
            for headers in (BEARER, webhook(), bearer(issuer.token())):
                assert site.tick(headers=headers, content=BODY).status_code == 200
        said = [line for line in caplog.messages if line.startswith("called by ")]
        assert said[:2] == ["called by bearer", "called by webhook"]
        assert said[2].startswith(f"called by {issuer.url} {{'repository_id': ('123',)")

    @pytest.mark.parametrize(
        ("headers", "why"),
        [
            ({}, "it shows no credential"),
            ({"x-vercel-cron": "1", "user-agent": "vercel-cron/1.0"}, "it shows no credential"),
            ({"authorization": "Bearer nope"}, "its bearer is not in CRON_SECRET"),
            ({"authorization": "Basic nope"}, "its Authorization is no Bearer"),
            ([("authorization", "Bearer a"), ("authorization", "Bearer b")], "it has 2 headers authorization"),
            (webhook(signature="v1,x"), "its webhook-signature is by none of TICK_INBOUND_SECRETS"),
            ({"upstash-signature": "a.b.c"}, "its Upstash-Signature is by neither of QStash's signing keys"),
            ({"authorization": "Bearer x", "upstash-signature": "x"}, "its bearer is not in CRON_SECRET; its Upstash-"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_says_why_somebody_was_not(self, conn, site, headers, why, caplog):
        site.serve(replace(site.settings, secrets=(SECRET,), inbound_secrets=(WHSEC,), qstash_keys=(CURRENT,), url=URL))
        check_refused(conn, site.tick(headers=headers))
        assert f"a caller was refused: {why}" in caplog.text

    def test_holds_no_secret_and_nothing_that_could_be_taken_for_another_line(self, conn, site, issuer, caplog):
        site.serve(replace(site.settings, secrets=(SECRET,), inbound_secrets=(WHSEC,), qstash_keys=(CURRENT,), url=URL, oidc=(trusted(issuer),)))  # fmt: skip
        canary = "refs/heads/x\nERROR all is lost \x1b[31m" + "y" * 5000
        with caplog.at_level(logging.DEBUG, "tick"):
            token = issuer.token(ref=canary)
            site.tick(headers=[*bearer(token), *webhook(NEWER).items(), ("upstash-signature", qstash_token(sub=canary))], content=BODY)  # fmt: skip
            site.tick(content=BODY)
        (refused,) = [record.getMessage() for record in caplog.records if "was refused" in record.getMessage()]
        assert refused.isprintable() and len(refused) < 1000
        assert "its ref is 'refs/heads/x\\nERROR" in refused
        for secret in (SECRET, WHSEC, CURRENT, token, webhook(NEWER)["webhook-signature"]):
            assert secret not in caplog.text


class TestTheSettings:
    TABLE = {"issuer": "https://id.example", "audience": URL, "claims": {"team": "a", "role": ["b", "c"]}}
    MEANT = TrustedIssuer("https://id.example", URL, {"team": ("a",), "role": ("b", "c")})

    def load(self, tmp_path, toml: str = "", **env: str) -> Settings:
        (tmp_path / "pyproject.toml").write_text(toml)
        return Settings.load(env, start=tmp_path)

    def test_of_issuers_are_tables_of_the_project_or_json(self, tmp_path):
        table = f'[[tool.tick.oidc]]\nissuer = "https://id.example"\naudience = "{URL}"\nclaims = {{ team = "a", role = ["b", "c"] }}\n'  # fmt: skip
        assert self.load(tmp_path, table).oidc == (self.MEANT,)
        assert self.load(tmp_path, table * 2).oidc == (self.MEANT, self.MEANT)
        assert self.load(tmp_path, TICK_OIDC=json.dumps([self.TABLE])).oidc == (self.MEANT,)
        assert self.load(tmp_path, table, TICK_OIDC=json.dumps(self.TABLE | {"audience": "x"})).oidc == (replace(self.MEANT, audience="x"),)  # fmt: skip
        assert self.load(tmp_path).oidc == self.load(tmp_path, TICK_OIDC="").oidc == ()

    def test_of_one_process_can_be_told_apart(self, tmp_path):
        assert hash(self.load(tmp_path, TICK_OIDC=json.dumps([self.TABLE]))) != hash(self.load(tmp_path))

    def test_of_qstash_are_those_of_its_console(self, tmp_path):
        env = {"QSTASH_CURRENT_SIGNING_KEY": f" {CURRENT}\n", "QSTASH_NEXT_SIGNING_KEY": NEXT}
        assert self.load(tmp_path, **env).qstash_keys == (CURRENT, NEXT)
        assert self.load(tmp_path, QSTASH_CURRENT_SIGNING_KEY=" ", QSTASH_NEXT_SIGNING_KEY="").qstash_keys == ()

    def test_do_not_show_what_is_secret(self, tmp_path):
        shown = repr(self.load(tmp_path, TICK_INBOUND_SECRETS=WHSEC, QSTASH_NEXT_SIGNING_KEY=NEXT, TICK_URL=URL))
        assert WHSEC not in shown and NEXT not in shown and URL in shown

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"issuer": "http://id.example"}, "issuer: 'http://id.example' is not a URL such as https://token."),
            ({"issuer": "id.example"}, "issuer: 'id.example'"),
            ({"issuer": "https://"}, "issuer: 'https://'"),
            ({"issuer": "https://id.example/?a"}, "issuer: 'https://id.example/?a'"),
            ({"issuer": "https://id.example#a"}, "issuer: 'https://id.example#a'"),
            ({"issuer": "https://[id"}, "issuer: 'https://[id'"),
            ({"issuer": "https://id.example/ "}, "issuer: 'https://id.example/ '"),
            ({"issuer": 5}, "issuer: 5"),
            ({"audience": ""}, "audience: '' is not a text"),
            ({"audience": [URL]}, f"audience: ['{URL}'] is not a text"),
            ({"claims": {}}, 'claims: pin at least one, such as { repository_id = "123" }'),
            ({"claims": "a"}, "claims: pin at least one"),
            ({"claims": {"id": 123}}, "claims.id: 123 is not a text or a list of texts"),
            ({"claims": {"id": []}}, "claims.id: [] is not a text or a list of texts"),
            ({"claims": {"id": ["a", ""]}}, "claims.id: ['a', ''] is not"),
            ({"claims": {"id": True}}, "claims.id: True is not"),
            ({"audience": None}, "it takes issuer, audience and claims, all three of them and nothing else"),
            ({"audiences": "x"}, "it takes issuer, audience and claims"),
        ],
        ids=str,
    )
    def test_of_an_issuer_that_nobody_or_anybody_could_satisfy_are_refused(self, tmp_path, change, said):
        table = {name: value for name, value in (self.TABLE | change).items() if value is not None}
        with pytest.raises(ConfigurationError) as raised:
            self.load(tmp_path, TICK_OIDC=json.dumps([self.TABLE, table]))
        assert f"  oidc (TICK_OIDC), table 2: {said}" in str(raised.value)

    @pytest.mark.parametrize(
        ("issuer", "claims", "said"),
        [
            ("https://token.actions.githubusercontent.com", {"ref": "a"}, "claims: pin repository_id or repository_owner_id: anybody gets tokens there"),
            ("https://token.actions.githubusercontent.com", {"repository": "acme/shop"}, "claims: pin repository_id or"),
            ("https://token.actions.githubusercontent.com", {"repository_id": "1", "sub": "repo:acme/shop"}, "claims.sub: GitHub is changing how it writes sub"),
            ("https://token.actions.githubusercontent.com/acme", {"sub": "x"}, "claims.sub: GitHub"),
            ("https://accounts.google.com", {"hd": "acme.example"}, "claims: pin email or sub: anybody gets tokens there"),
        ],
        ids=str,
    )  # fmt: skip
    def test_that_would_let_in_strangers_are_refused(self, tmp_path, issuer, claims, said):
        with pytest.raises(ConfigurationError) as raised:
            self.load(tmp_path, TICK_OIDC=json.dumps({"issuer": issuer, "audience": URL, "claims": claims}))
        assert f"table 1: {said}" in str(raised.value)

    @pytest.mark.parametrize(
        ("env", "said"),
        [
            ({"TICK_OIDC": "{"}, "oidc (TICK_OIDC): it is not JSON: "),
            ({"TICK_OIDC": "5"}, "oidc (TICK_OIDC), table 1: it takes"),
            ({"TICK_URL": "example.com/tick"}, "url (TICK_URL): 'example.com/tick' is no URL such as https://example.com/tick"),
            ({"TICK_URL": "https://example.com/tick\n"}, "url (TICK_URL): "),
        ],
        ids=str,
    )  # fmt: skip
    def test_that_cannot_be_read_are_refused(self, tmp_path, env, said):
        with pytest.raises(ConfigurationError) as raised:
            self.load(tmp_path, **env)
        assert said in str(raised.value)

    @pytest.mark.parametrize("package", ["jwt", "cryptography"])
    def test_of_issuers_need_their_extra(self, conn, trusting, issuer, package, monkeypatch, caplog):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ConfigurationError, match=r"install tick-jobs\[oidc\]"):
            auth.check(trusting.app.state.service.settings)
        response = trusting.tick(headers=bearer("a.b.c"))
        check_problem(response, 500, detail="the log says why")
        assert "nobody is let in: [[tool.tick.oidc]] (TICK_OIDC) needs PyJWT: install tick-jobs[oidc]" in caplog.text
        assert is_untouched(conn)

    def test_of_a_webhook_secret_that_is_none_let_nobody_in(self, conn, site, caplog):
        site.serve(replace(site.settings, secrets=(SECRET,), inbound_secrets=("whsec_c2hvcnQ=",)))
        check_problem(site.tick(), 500, detail="the log says why")
        assert "nobody is let in: TICK_INBOUND_SECRETS: the secret is 5 bytes long" in caplog.text
        assert "c2hvcnQ" not in caplog.text
        assert is_untouched(conn)

    @pytest.mark.parametrize("headers", [{}, BEARER, webhook(), {"upstash-signature": "x"}, {"authorization": "Bearer a.b.c"}], ids=" ".join)  # fmt: skip
    def test_of_nothing_let_nobody_in(self, conn, site, headers):
        site.serve(site.settings)
        check_problem(site.tick(headers=headers, content=BODY), 503, detail="CRON_SECRET is not set")
        assert is_untouched(conn)

    def test_of_the_bearer_alone_need_no_library(self, settings):
        code = "import sys; sys.modules['jwt'] = sys.modules['cryptography'] = None; import tick.web; print('httpx' in sys.modules)"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=settings.root, env=os.environ | {"PYTHONPATH": str(GUIDE.parents[1])})  # fmt: skip
        assert (ran.stdout, ran.stderr) == ("False\n", "")


class TestTheGuide:
    TEXT = GUIDE.read_text()

    def blocks(self, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```", self.TEXT, re.MULTILINE | re.DOTALL)

    @pytest.fixture
    def workflow(self, tmp_path) -> Path:
        (text,) = self.blocks("yaml")
        path = tmp_path / "tick.yml"
        path.write_text(text)
        return path

    def test_has_a_workflow_that_github_takes(self, workflow):
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow)]  # fmt: skip
        checked = subprocess.run(command, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr

    @pytest.mark.skipif(not (shutil.which("jq") and shutil.which("curl")), reason="GitHub's runners have jq and curl")
    def test_has_a_workflow_that_ticks(self, conn, trusting, issuer, workflow):
        """Its own shell lines, with GitHub's part played by an issuer that gives out tokens."""
        issuer.say("/token", {"value": issuer.token()})
        script = textwrap.dedent(workflow.read_text().split("run: |\n")[1])
        env = os.environ | {
            "TICK_URL": f"http://127.0.0.1:{trusting.port}/tick",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{issuer.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t",
            "GITHUB_RUN_ID": "7",
        }
        ran = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], env=env, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert conn.execute("select trigger, delivery_id from tick.ticks").fetchall() == [("github", "7")]
        assert unquote(issuer.asked[0]) == f"/token?api-version=2.0&audience={env['TICK_URL']}"

    def test_has_tables_that_can_be_used(self, tmp_path):
        (tmp_path / "pyproject.toml").write_text("\n".join(self.blocks("toml")))
        (more,) = self.blocks("json")
        github, google = Settings.load({}, start=tmp_path).oidc
        assert github.claims["event_name"] == ("schedule", "workflow_dispatch")
        assert google.claims == {"email": ("ticker@my-project.iam.gserviceaccount.com",)}
        assert len(Settings.load({"TICK_OIDC": more}, start=tmp_path).oidc) == 1

    def test_has_a_sender_of_webhooks_that_ticks(self, conn, site, monkeypatch):
        site.serve(replace(site.settings, inbound_secrets=(WHSEC,)))
        monkeypatch.setenv("WEBHOOK_SECRET", WHSEC)
        monkeypatch.setenv("TICK_URL", f"http://127.0.0.1:{site.port}/tick")
        (code,) = self.blocks("python")
        exec(compile(code, str(GUIDE), "exec"), {})
        assert ticks(conn) == 1

    @pytest.mark.parametrize("name", ["CRON_SECRET", "TICK_INBOUND_SECRETS", "QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY", "TICK_URL", "TICK_OIDC"])  # fmt: skip
    def test_has_every_setting_and_so_has_the_list_of_them(self, name):
        assert f"`{name}`" in self.TEXT
        assert f"`{name}`" in (GUIDE.parent / "cli.md").read_text()
