"""The types `http` and `tick.callback`, against a real server of 127.0.0.1 that misbehaves in every way."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import gzip
import json
import logging
import re
import socket
import socketserver
import ssl
import struct
import threading
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from typing import NamedTuple

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

import tick as package
from tests import factories
from tick import addresses, config, http_job, runner, signing, sql_job
from tick.errors import InvalidPayload
from tick.handlers import Context, Registry, Shared
from tick.jobs import Dead, Done, Job, Retried

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
OLD, NEW = ("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


configuration: dict[str, config.Settings] = {}
"""The settings of the attempts of a test, once it has them."""


class Request(NamedTuple):
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1
        return values[0] if values else None


def response(status: int = 200, body: bytes = b"", *lines: str, connection: str = "close") -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", f"Connection: {connection}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def answers(*args, **kwargs):
    """Behaves well: reads a request, and answers it."""
    sent = response(*args, **kwargs)
    return lambda connection, server: connection.sendall(sent)


def slow_headers(connection, server):
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-")
    server.over.wait(30)


def slow_body(connection, server):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not server.over.wait(0.02):
        connection.sendall(b".")


def slow_to_answer(connection, server):
    server.over.wait(30)


def endless_body(connection, server):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while not server.over.is_set():
        connection.sendall(b"x" * 65_536)
        server.sent += 65_536


def endless_headers(connection, server):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not server.over.is_set():
        connection.sendall(b"X-More: " + b"y" * 8192 + b"\r\n")
        server.sent += 8192


def reset_in_the_body(connection, server):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def closed_in_the_body(connection, server):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


def closed_before_the_answer(connection, server):
    return


def no_http(connection, server):
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def echo(connection, server):
    request = server.requests[-1]
    text = json.dumps({"headers": request.headers, "body": request.body.decode()}).encode()
    connection.sendall(response(200, text, "Content-Type: application/json"))


class Server(socketserver.ThreadingTCPServer):
    """Behaves at each path as it was told to, and remembers what it was asked."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.tls = tls
        self.at: dict[str, Callable] = {}
        self.requests: list[Request] = []
        self.over = threading.Event()
        self.sent = 0
        self.port = self.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def handle_error(self, request, client_address):
        """A client that has heard enough is no error."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        self.shutdown()
        self.server_close()


class Connection(socketserver.StreamRequestHandler):
    def setup(self):
        if self.server.tls:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self):
        super().finish()
        self.request.close()

    def handle(self):
        line = self.rfile.readline().decode()
        if not line:
            return
        method, target, _ = line.split(" ")
        headers = []
        while header := self.rfile.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = header.partition(":")
            headers.append((name.lower(), value.strip()))
        length = int(dict(headers).get("content-length", 0))
        self.server.requests.append(Request(method, target, headers, self.rfile.read(length)))
        self.server.at[target.partition("?")[0]](self.connection, self.server)


@pytest.fixture
def server():
    with Server() as server:
        server.at["/"] = answers(200, b"fine", "Content-Type: text/plain")
        yield server


@pytest.fixture
def configure(tmp_path):
    """Sets what attempts are configured with; 127.0.0.1 may be called unless it is said otherwise."""

    def configured(**env: str) -> None:
        configuration["settings"] = config.Settings.load({"TICK_HTTP_ALLOW": "127.0.0.1"} | env, start=tmp_path)

    configured()
    yield configured
    configuration.clear()


@pytest.fixture
def settings(settings, server):
    """Those of a tick that may call the server."""
    return replace(settings, http_allow=(f"127.0.0.1:{server.port}",))


def attempt(payload, handler=http_job.http, *, remaining: float = 50.0, tries: int = 1, **columns):
    """The outcome of an attempt at a job; of the last one, when there are several in one tick."""
    row = {"id": 7, "type": handler.type, "payload": json.dumps(payload), "attempt": 1, "failures": 0, "losses": 0, "cuts": 0, "max_attempts": None,
           "timeout": None, "key": None, "schedule": None, "window": None, "priority": 0, "run_at": NOW}  # fmt: skip
    job = Job(**row | columns)

    async def run():
        shared = Shared(configuration["settings"])
        try:
            for _ in range(tries):
                context = Context(job, NOW, time.monotonic() + remaining, Registry(), shared)
                outcome = await runner.run(job, handler, context, runner.Threads())
            return outcome
        finally:
            await shared.close()

    return asyncio.run(run())


def result(payload, **columns):
    outcome = attempt(payload, **columns)
    assert isinstance(outcome, Done), outcome
    return json.loads(outcome.result)


def dead(payload, **columns) -> str:
    outcome = attempt(payload, **columns)
    assert isinstance(outcome, Dead), outcome
    return outcome.failure.message


def retried(payload, **columns) -> tuple[str, float]:
    outcome = attempt(payload, **columns)
    assert isinstance(outcome, Retried), outcome
    return outcome.failure.message, outcome.delay


@pytest.mark.usefixtures("configure")
class TestWhatIsSent:
    def test_a_url_alone_is_a_get(self, server):
        kept = result({"url": f"{server.url}/?a=b"})
        (request,) = server.requests
        assert (request.method, request.target, request.body) == ("GET", "/?a=b", b"")
        assert request.header("host") == f"127.0.0.1:{server.port}"
        assert request.header("user-agent").startswith("tick/0.")
        assert request.header("accept-encoding") == "identity"
        assert request.header("content-length") is None
        assert kept.pop("seconds") >= 0
        assert kept == {"status": 200, "bytes": 4, "body": "fine", "truncated": False, "content_type": "text/plain"}

    @pytest.mark.parametrize(
        ("payload", "method", "body", "content_type"),
        [
            ({"json": {"ü": [1, None]}}, "POST", '{"ü":[1,null]}'.encode(), "application/json"),
            ({"json": 0}, "POST", b"0", "application/json"),
            ({"json": "x", "headers": {"Content-Type": "application/ld+json"}}, "POST", b'"x"', "application/ld+json"),
            ({"body": "a=b"}, "POST", b"a=b", None),
            ({"body": ""}, "POST", b"", None),
            ({"body": "ü", "headers": {"content-type": "text/plain"}}, "POST", "ü".encode(), "text/plain"),
            ({"method": "POST"}, "POST", b"", None),
            ({"method": "PUT", "json": {}}, "PUT", b"{}", "application/json"),
            ({"method": "DELETE"}, "DELETE", b"", None),
            ({"method": "GET", "body": "q"}, "GET", b"q", None),
        ],
    )  # fmt: skip
    def test_a_body_makes_it_a_post(self, server, payload, method, body, content_type):
        result({"url": server.url} | payload)
        (request,) = server.requests
        assert (request.method, request.body, request.header("content-type")) == (method, body, content_type)

    def test_a_head_has_no_body(self, server):
        server.at["/"] = lambda connection, _: connection.sendall(b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n")
        assert result({"url": server.url, "method": "HEAD"})["status"] == 204

    def test_the_trace_goes_on(self, server):
        result({"url": server.url}, traceparent=TRACEPARENT)
        assert server.requests[0].header("traceparent") == TRACEPARENT

    def test_headers_are_the_jobs_to_set_or_to_replace(self, server):
        result(
            {
                "url": server.url,
                "headers": {"X-Team": "a b", "User-Agent": "mine", "Accept": "text/plain", "x-latin": "é"},
            }
        )
        request = server.requests[0]
        assert [request.header(name) for name in ("x-team", "user-agent", "accept", "x-latin")] == ["a b", "mine", "text/plain", "é"]  # fmt: skip

    @pytest.mark.parametrize(
        "name",
        ["Host", "content-length", "Transfer-Encoding", "Connection", "Accept-Encoding", "Expect", "Upgrade", "webhook-id", "Webhook-Signature", "Proxy-Authorization"],
    )  # fmt: skip
    def test_headers_that_are_not_a_jobs_to_set_are_refused(self, server, name):
        assert dead({"url": server.url, "headers": {name: "x"}}) == f"Permanent: the header {name.lower()} is not a job's to set: take it out of headers"  # fmt: skip
        assert server.requests == []

    def test_two_bodies_are_refused(self, server):
        assert (
            dead({"url": server.url, "body": "x", "json": 1})
            == "Permanent: body and json are two bodies: give one of them"
        )

    @pytest.mark.parametrize(
        "payload",
        [
            {}, {"url": ""}, {"url": "example.com"}, {"url": "ftp://example.com"}, {"url": "http://a b"}, {"url": "http://a\\@b"}, {"url": "http://a\n"},
            {"url": "http://a/" + "x" * 8192}, {"method": "post"}, {"method": "BREW"}, {"timeout": 0}, {"timeout": -1}, {"timeout": 3601}, {"timeout": "soon"}, {"timeout": None},
            {"redirects": -1}, {"redirects": 11}, {"redirects": True}, {"expect": [99]}, {"expect": ["200"]}, {"expect": 200}, {"headers": {"a b": "c"}}, {"headers": {"a\n": "c"}}, {"headers": {"": "c"}},
            {"headers": {"a": "b\r\nc: d"}}, {"headers": {"a": "b\n"}}, {"headers": {"a": "\x00"}}, {"headers": {"a": "\u20ac"}}, {"headers": {"a": 1}}, {"headers": ["a: b"]}, {"body": {}}, {"sign": 1}, {"verify": False},
        ],
        ids=lambda payload: ascii(payload)[:40],
    )  # fmt: skip
    def test_what_cannot_be_sent_is_refused_at_enqueue(self, payload):
        with pytest.raises(InvalidPayload, match="the payload does not fit http"):
            http_job.http.new_job(
                {"url": "https://example.com"} | payload if payload and "url" not in payload else payload
            )

    @pytest.mark.parametrize("timeout", ["0s", "1x", "1m1m", "99d9d"])
    def test_a_timeout_that_is_none_is_refused(self, server, timeout):
        payload = {"url": server.url, "timeout": timeout}
        try:
            http_job.http.new_job(payload)
        except InvalidPayload:
            return
        assert "is not a duration" in dead(payload)

    def test_one_connection_serves_the_calls_of_a_tick(self, server, monkeypatch):
        opened = []
        judge = addresses.Rules.check
        monkeypatch.setattr(addresses.Rules, "check", lambda *args: (opened.append(args), judge(*args)))

        def twice(connection, _):
            connection.sendall(response(200, b"1", connection="keep-alive"))
            while b"\r\n\r\n" not in connection.recv(65_536):
                pass
            connection.sendall(response(200, b"2"))

        server.at["/"] = twice
        assert result({"url": server.url}, tries=2)["body"] == "2"
        assert len(opened) == 1


@pytest.mark.usefixtures("configure")
class TestWhatComesBack:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
    def test_any_2xx_is_a_success(self, server, status):
        server.at["/"] = answers(status)
        assert result({"url": server.url})["status"] == status

    @pytest.mark.parametrize("status", [200, 302, 404, 503])
    def test_expected_statuses_are_a_success_too(self, server, status):
        server.at["/"] = answers(status, b"", "Location: /x")
        assert result({"url": server.url, "expect": [200, 302, 404, 503]})["status"] == status

    def test_a_2xx_that_is_not_expected_is_not_yet(self, server):
        server.at["/"] = answers(202, b"working")
        message, _ = retried({"url": server.url, "expect": [200]})
        assert message.startswith(f"CallFailed: GET {server.url}/ answered 202 after 0.")
        assert message.endswith(" s: working (it is not among the expected statuses)")

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 599])
    def test_the_receivers_bad_moments_are_retried_by_the_backoff(self, server, status):
        server.at["/"] = answers(status, b"oh\n  no")
        message, delay = retried({"url": server.url})
        assert message.startswith(f"CallFailed: GET {server.url}/ answered {status} after 0.") and message.endswith(
            " s: oh no"
        )
        assert 24 <= delay <= 36

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 422, 451])
    def test_refusals_are_final(self, server, status):
        server.at["/"] = answers(status, b"no")
        assert dead({"url": server.url}).startswith(f"Permanent: GET {server.url}/ answered {status} after 0.")

    def test_gone_says_what_it_means(self, server):
        server.at["/"] = answers(410)
        assert "the receiver wants no more of these calls" in dead({"url": server.url})

    @pytest.mark.parametrize("status", [300, 304, 399])
    def test_a_3xx_that_leads_nowhere_is_final(self, server, status):
        server.at["/"] = answers(status)
        assert f"answered {status}" in dead({"url": server.url, "redirects": 3})

    def test_errors_show_neither_the_query_nor_much_of_the_body(self, server):
        server.at["/a"] = answers(404, b"y" * 5000)
        message = dead({"url": f"{server.url}/a?token=hunter2"})
        assert "hunter2" not in message and message.endswith(" s: " + "y" * 200)

    def test_a_long_body_is_kept_in_part(self, server):
        server.at["/"] = answers(200, "ü".encode() * 3000)
        kept = result({"url": server.url})
        assert (kept["bytes"], kept["body"], kept["truncated"]) == (6000, "ü" * 2000, True)

    def test_an_endless_body_is_read_in_part(self, server):
        server.at["/"] = endless_body
        kept = result({"url": server.url})
        assert (kept["bytes"], len(kept["body"]), kept["truncated"]) == (65_536, 2000, True)
        # What the sockets hold comes on top of what was read.
        assert server.sent < 50_000_000

    def test_endless_headers_are_given_up(self, server):
        server.at["/"] = endless_headers
        assert retried({"url": server.url})[0].startswith(f"CallFailed: GET {server.url}/ failed: RemoteProtocolError")
        assert server.sent < 50_000_000

    def test_a_bomb_is_not_unpacked(self, server):
        bomb = gzip.compress(b"\0" * 50_000_000)
        server.at["/"] = answers(200, bomb, "Content-Encoding: gzip", "Content-Type: text/plain")
        kept = result({"url": server.url})
        assert kept["bytes"] == min(len(bomb), 65_536)
        assert kept["body"] == f"({kept['bytes']} bytes, encoded as gzip)"

    @pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"\0" * 100, bytes(range(256)), "\ud800".encode("utf-8", "surrogatepass"), b'\x1b[31m<script>"'])  # fmt: skip
    def test_any_bytes_can_be_stored(self, server, body, conn):
        server.at["/"] = answers(200, body, "Content-Type: text/html; charset=made-up\xff")
        outcome = attempt({"url": server.url})
        (stored,) = conn.execute("select %s::jsonb", [outcome.result.decode()]).fetchone()
        assert stored["bytes"] == len(body) and "unserialisable" not in stored

    def test_connections_that_break_are_retried(self, server):
        for behaviour in (reset_in_the_body, closed_in_the_body, closed_before_the_answer, no_http):
            server.at["/"] = behaviour
            message, delay = retried({"url": server.url})
            assert message.startswith(f"CallFailed: GET {server.url}/ failed: "), behaviour
            assert 24 <= delay <= 36

    def test_a_port_where_nobody_listens_is_retried(self, server):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        assert "ConnectError" in retried({"url": f"http://127.0.0.1:{port}/"})[0]

    def test_a_host_that_is_unknown_is_retried(self, configure):
        message, _ = retried({"url": "http://nowhere.invalid/"})
        assert "failed: ConnectError nowhere.invalid cannot be resolved" in message

    @pytest.mark.parametrize("behaviour", [slow_headers, slow_body, slow_to_answer])
    def test_slow_answers_end_with_the_timeout(self, server, behaviour):
        server.at["/"] = behaviour
        started = time.monotonic()
        message, _ = retried({"url": server.url, "timeout": 0.3})
        assert message == f"CallFailed: GET {server.url}/ was not answered, or not to the end, within 0.3 s"
        assert time.monotonic() - started < 10

    def test_redirects_and_slow_bodies_share_one_timeout(self, server):
        def slowly(connection, server):
            server.over.wait(0.2)
            connection.sendall(response(307, b"", "Location: /"))

        server.at["/"] = slowly
        assert "within 1 s" in retried({"url": server.url, "timeout": "1s", "redirects": 10})[0]


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "wait"),
        [
            ({"retry-after": "120"}, 120.0), ({"retry-after": " 7 "}, 7.0), ({"retry-after": "999999999"}, 86_400.0), ({"retry-after": "0"}, None), ({"retry-after": "-5"}, None),
            ({"retry-after": "1.5"}, None), ({"retry-after": "soon"}, None), ({"retry-after": ""}, None), ({}, None), ({"retry-after": "9" * 5000}, None), ({"retry-after": "１２"}, None),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:27:00 GMT"}, 60.0),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:29:00 GMT"}, None),
            ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None), ({"retry-after": "Wednesday, 21-Oct-15 07:28:00 GMT", "date": "nonsense"}, None),
            ({"retry-after": "Sun, 06 Nov 2994 08:49:37 GMT"}, 86_400.0), ({"retry-after": "Sun, 31 Feb 2994 08:49:37 GMT"}, None), ({"retry-after": "Sun, 06 Nov 99999 08:49:37 GMT"}, None),
        ],
        ids=lambda value: str(value)[:60],
    )  # fmt: skip
    def test_is_read_in_both_forms(self, headers, wait):
        assert http_job.retry_after(headers, now=dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()) == wait

    def test_without_a_date_it_counts_from_now(self):
        until = format_datetime(dt.datetime.fromtimestamp(1_000_090, dt.UTC), usegmt=True)
        assert http_job.retry_after({"retry-after": until}, now=1_000_000) == 90

    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(
        "lines",
        [["Retry-After: 600"], ["Retry-After: Wed, 21 Oct 2015 07:38:00 GMT", "Date: Wed, 21 Oct 2015 07:28:00 GMT"]],
    )
    def test_decides_when_to_try_again(self, server, configure, status, lines):
        server.at["/"] = answers(status, b"busy", *lines)
        message, delay = retried({"url": server.url})
        assert message.startswith(f"Retry: GET {server.url}/ answered {status} after") and delay == 600

    def test_makes_no_last_attempt_another(self, server, configure):
        server.at["/"] = answers(429, b"", "Retry-After: 5")
        assert "answered 429" in dead({"url": server.url}, failures=4)


@pytest.mark.usefixtures("configure")
class TestRedirects:
    def test_are_a_failure_that_says_where_they_lead(self, server):
        server.at["/"] = answers(301, b"", "Location: https://example.com/new")
        message = dead({"url": server.url})
        assert "answered 301" in message
        assert message.endswith("and points to https://example.com/new: write that URL, or allow more redirects")

    def test_are_followed_where_they_are_allowed(self, server):
        server.at |= {
            "/": answers(302, b"", "Location: /a"),
            "/a": answers(307, b"", "Location: b?c=d"),
            "/b": answers(200, b"here"),
        }
        assert result({"url": server.url, "redirects": 2})["body"] == "here"
        assert "allow more redirects" in dead({"url": server.url, "redirects": 1})
        assert [request.target for request in server.requests] == ["/", "/a", "/b?c=d", "/", "/a"]

    @pytest.mark.parametrize(
        ("status", "method", "then"),
        [(301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "PUT", "GET"), (307, "POST", "POST"), (308, "POST", "POST"), (301, "PUT", "PUT"), (303, "HEAD", "HEAD")],
    )  # fmt: skip
    def test_keep_or_change_the_method_as_browsers_do(self, server, status, method, then):
        server.at |= {"/": answers(status, b"", "Location: /a"), "/a": answers(204)}
        body = {} if method == "HEAD" else {"json": {"a": 1}}
        result({"url": server.url, "method": method, "redirects": 1, "headers": {"x-mine": "1"}} | body)
        second = server.requests[1]
        assert second.method == then and second.header("x-mine") == "1"
        assert second.body == (b'{"a":1}' if then in ("POST", "PUT") else b"")
        assert second.header("content-type") == ("application/json" if then in ("POST", "PUT") else None)

    @pytest.mark.parametrize(
        ("location", "said"),
        [
            ("http://169.254.169.254/latest/meta-data/", "link-local, where clouds keep their metadata"),
            ("http://[fd00:ec2::254]/latest/meta-data/", "a private address"),
            ("http://[::ffff:169.254.169.254]/", "link-local"),
            ("http://2852039166/", "link-local"),
            ("http://100.100.100.200/", "inside a provider's network"),
            ("http://10.0.0.1/", "a private address"),
            ("file:///etc/passwd", "points to file:///etc/passwd, which is not a URL to call"),
            ("http://user:pw@127.0.0.1/", "which is not a URL to call"),
            ("//\\169.254.169.254/", "which is not a URL to call"),
        ],
    )  # fmt: skip
    def test_are_judged_anew_at_each_hop(self, server, location, said):
        server.at["/"] = answers(302, b"", f"Location: {location}")
        message = dead({"url": server.url, "redirects": 3})
        assert message.startswith("AddressRefused: ") and said in message

    def test_take_nothing_secret_to_another_origin(self, server, configure):
        configure(TICK_SECRET_API="canary-of-the-api", TICK_SECRET_WEBHOOK=NEW)
        with Server() as other:
            other.at["/"] = answers(200, b"other")
            server.at["/"] = answers(307, b"", f"Location: {other.url}/")
            payload = {
                "url": server.url,
                "json": [1],
                "redirects": 1,
                "headers": {"authorization": "Bearer ${secret:api}", "x-key": "1"},
            }
            assert result(payload)["body"] == "other"
            (there,) = other.requests
        assert server.requests[0].header("authorization") == "Bearer canary-of-the-api"
        assert server.requests[0].header("webhook-signature")
        assert [there.header(name) for name in ("authorization", "x-key", "webhook-signature")] == [None, None, None]
        assert (there.method, there.body, there.header("content-type")) == ("POST", b"[1]", "application/json")

    def test_are_signed_for_what_they_send(self, server, configure):
        configure(TICK_SECRET_WEBHOOK=NEW)
        server.at |= {"/": answers(303, b"", "Location: /a"), "/a": answers(200)}
        result({"url": server.url, "json": {"a": 1}, "redirects": 1})
        for request in server.requests:
            Webhook(NEW).verify(request.body, dict(request.headers), json_parse=False)


class TestWhereItMayGo:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0", "[::1]", "[::ffff:127.0.0.1]", "①②⑦.⓪.⓪.①"])  # fmt: skip
    def test_is_not_this_machine_in_any_spelling(self, server, configure, host):
        configure(TICK_HTTP_ALLOW="unrelated.example")
        message = dead({"url": f"http://{host}:{server.port}/"})
        assert message.startswith("AddressRefused: ") and f":{server.port}" in message and "TICK_HTTP_ALLOW=" in message
        assert server.requests == []

    @pytest.mark.parametrize("allow", ["127.0.0.1", "127.0.0.0/8", "localhost, 127.0.0.1:{port}", "127.0.0.1/32"])
    def test_is_what_the_setting_opens(self, server, configure, allow):
        configure(TICK_HTTP_ALLOW=allow.format(port=server.port))
        assert result({"url": server.url})["status"] == 200

    def test_a_name_that_changes_its_address_is_called_where_it_was_judged(self, server, configure, monkeypatch):
        seen = []

        async def changing(host: str, port: int) -> list[str]:
            seen.append(host)
            return ["127.0.0.1"] if len(seen) == 1 else ["169.254.169.254"]

        monkeypatch.setattr(
            addresses,
            "open_pool",
            lambda rules: httpcore.AsyncConnectionPool(network_backend=addresses.GuardedNetwork(rules, changing)),
        )
        assert result({"url": f"http://rebind.example:{server.port}/"})["status"] == 200
        assert server.requests[0].header("host") == f"rebind.example:{server.port}"
        assert seen == ["rebind.example"]
        assert "169.254.169.254" in dead({"url": f"http://rebind.example:{server.port}/"})

    def test_over_tls_the_certificate_is_the_hosts(self, configure, monkeypatch, tmp_path):
        presented = a_certificate(tmp_path, "hooks.example")
        trusting = ssl.create_default_context(cafile=str(tmp_path / "hooks.example.pem"))
        monkeypatch.setattr(addresses, "_tls", lambda: trusting)

        async def here(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        pool = addresses.open_pool
        monkeypatch.setattr(addresses, "open_pool", lambda rules: pool(rules, here))
        with Server(presented) as server:
            server.at["/"] = answers(200, b"over TLS")
            assert result({"url": f"https://hooks.example:{server.port}/"})["body"] == "over TLS"
            assert server.requests[0].header("host") == f"hooks.example:{server.port}"
            message, _ = retried({"url": f"https://other.example:{server.port}/"})
        assert "certificate verify failed: Hostname mismatch" in message


def a_certificate(folder, name: str) -> ssl.SSLContext:
    """A server's context with a certificate for a name, which signs itself and is written to the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = folder / f"{name}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


class TestSigning:
    def test_is_done_where_the_secret_is_set(self, server, configure):
        configure(TICK_SECRET_WEBHOOK=NEW)
        result({"url": server.url, "json": {"a": 1}}, id=42)
        (request,) = server.requests
        assert request.header("webhook-id") == "job_42"
        assert abs(int(request.header("webhook-timestamp")) - time.time()) < 60
        assert Webhook(NEW).verify(request.body, dict(request.headers)) == {"a": 1}
        with pytest.raises(WebhookVerificationError):
            Webhook(OLD).verify(request.body, dict(request.headers))

    def test_is_done_with_both_secrets_while_they_change(self, server, configure):
        configure(TICK_SECRET_WEBHOOK=f"{NEW},{OLD}")
        result({"url": server.url, "json": {}})
        for secret in (OLD, NEW):
            Webhook(secret).verify(server.requests[0].body, dict(server.requests[0].headers))

    def test_keeps_the_id_over_attempts(self, server, configure):
        configure(TICK_SECRET_WEBHOOK=NEW)
        for number in (1, 2):
            result({"url": server.url}, attempt=number)
        assert {request.header("webhook-id") for request in server.requests} == {"job_7"}

    def test_may_be_with_another_secret(self, server, configure):
        configure(TICK_SECRET_WEBHOOK=NEW, TICK_SECRET_PARTNER_A=OLD)
        result({"url": server.url, "json": {}, "sign": "partner_a"})
        Webhook(OLD).verify(server.requests[0].body, dict(server.requests[0].headers))

    @pytest.mark.parametrize(("sign", "env"), [(False, {"TICK_SECRET_WEBHOOK": NEW}), (None, {})])
    def test_is_not_done_when_it_is_not_wanted_or_not_set(self, server, configure, sign, env):
        configure(**env)
        result({"url": server.url, "sign": sign})
        assert server.requests[0].header("webhook-signature") is None
        assert server.requests[0].header("webhook-id") == "job_7"

    @pytest.mark.parametrize(("sign", "name"), [(True, "WEBHOOK"), ("partner", "PARTNER")])
    def test_with_a_secret_that_is_not_set_is_refused(self, server, configure, sign, name):
        assert dead({"url": server.url, "sign": sign}) == f"Permanent: there is no secret {name.lower()!r}: set TICK_SECRET_{name} where tick runs"  # fmt: skip
        assert server.requests == []

    def test_with_a_secret_that_cannot_sign_is_refused_without_showing_it(self, server, configure):
        configure(TICK_SECRET_WEBHOOK="canary-that-is-no-key")
        message = dead({"url": server.url})
        assert message.startswith("ConfigurationError: the secret is not base64") and "canary" not in message
        assert server.requests == []


class TestSecrets:
    def test_are_filled_into_headers(self, server, configure):
        configure(TICK_SECRET_API="canary/1+2==,older", TICK_SECRET_TEAM="blue")
        result(
            {
                "url": server.url,
                "headers": {"Authorization": "Bearer ${secret:API}", "x": "${secret:team}-${secret:Team}"},
            }
        )
        assert server.requests[0].header("authorization") == "Bearer canary/1+2=="
        assert server.requests[0].header("x") == "blue-blue"

    @pytest.mark.parametrize("value", ["${secret:NOPE}", "${secret:}", "${secret:nope"])
    def test_that_are_not_set_are_named(self, server, configure, value):
        assert "Permanent: there is no secret" in dead({"url": server.url, "headers": {"x": value}})
        assert server.requests == []

    @pytest.mark.parametrize("value", ["two\nlines", "a\x01b", "\u20ac"])
    def test_that_no_header_can_hold_are_refused_without_showing_them(self, server, configure, value):
        configure(TICK_SECRET_API=f"canary{value}")
        message = dead({"url": server.url, "headers": {"x-key": "${secret:api}"}})
        assert message == "Permanent: the secret in the header x-key holds characters that no header can"

    def test_are_seen_nowhere(self, server, configure, caplog):
        """Receivers send back what they were sent: in bodies, headers, redirects and errors."""
        canary = "canary/0123456789abcdef"
        configure(TICK_SECRET_API=f"{canary},canary-the-older", TICK_SECRET_WEBHOOK=NEW)
        caplog.set_level(logging.DEBUG)
        server.at |= {
            "/echo": echo,
            "/long": answers(200, b"x" * 1990 + canary.encode()),
            "/php": answers(200, canary.replace("/", "\\/").encode()),
            "/404": answers(404, b"no such key: " + canary.encode()),
            "/500": answers(500, b"x" * 190 + canary.encode()),
            "/moved": answers(302, b"", f"Location: http://127.0.0.1/{canary}"),
            "/away": answers(302, b"", f"Location: ftp://127.0.0.1/{canary}"),
            "/nowhere": answers(302, b"", f"Location: http://{'x' * 80}/{canary}\\"),
            "/on": answers(302, b"", f"Location: /{canary}"),
            "/" + canary: answers(404),
            "/type": answers(200, b"", f"Content-Type: text/{canary}"),
            "/broken": closed_before_the_answer,
        }
        outcomes = []
        for path in server.at:
            payload = {
                "url": server.url + path,
                "json": {},
                "redirects": int(path in ("/away", "/nowhere", "/on")),
                "headers": {"authorization": "Bearer ${secret:api}"},
            }
            outcomes.append(attempt(payload))
            assert "canary" not in repr(outcomes[-1]), path
        assert len([1 for request in server.requests if request.header("authorization") == f"Bearer {canary}"]) > len(
            server.at
        )
        kept = "".join(repr(outcome) for outcome in outcomes) + caplog.text + repr(configuration)
        assert "Bearer ***" in kept
        for fragment in ("canary", "0123456789", NEW, NEW.removeprefix("whsec_")):
            assert fragment not in kept

    def test_are_settings_that_do_not_show(self, tmp_path):
        env = {"TICK_SECRET_API": " a, b ,", "TICK_SECRET_Odd_Name": "c", "TICK_SECRET_EMPTY": " ", "TICK_SECRETS": "d"}
        settings = config.Settings.load(env, start=tmp_path)
        assert settings.named_secrets == {"api": ("a", "b"), "odd_name": ("c",)}
        assert "named_secrets" not in repr(settings)


class TestTheCallback:
    PAYLOAD = {"id": "evt_7", "type": "job.done", "timestamp": "2026-03-01T08:00:00Z", "data": {"job": 7}}

    def test_is_a_signed_post(self, server, configure):
        configure(TICK_SECRET_WEBHOOK=f"{NEW},{OLD}")
        result({"url": server.url} | self.PAYLOAD, handler=http_job.callback)
        (request,) = server.requests
        assert (request.method, request.header("webhook-id"), request.header("content-type")) == (
            "POST",
            "evt_7",
            "application/json",
        )
        for secret in (OLD, NEW):
            assert Webhook(secret).verify(request.body, dict(request.headers)) == {"type": "job.done", "timestamp": "2026-03-01T08:00:00Z", "data": {"job": 7}}  # fmt: skip

    def test_may_be_signed_with_another_secret(self, server, configure):
        configure(TICK_SECRET_WEBHOOK=NEW, TICK_SECRET_PARTNER=OLD)
        result({"url": server.url, "secret": "partner"} | self.PAYLOAD, handler=http_job.callback)
        Webhook(OLD).verify(server.requests[0].body, dict(server.requests[0].headers))
        assert "there is no secret 'nobody'" in dead(
            {"url": server.url, "secret": "nobody"} | self.PAYLOAD, handler=http_job.callback
        )

    def test_is_unsigned_where_no_secret_is_set(self, server, configure):
        result({"url": server.url} | self.PAYLOAD, handler=http_job.callback)
        assert server.requests[0].header("webhook-signature") is None
        assert server.requests[0].header("webhook-id") == "evt_7"

    def test_is_retried_for_three_days(self, server, configure):
        server.at["/"] = answers(502)
        delays = [
            retried({"url": server.url} | self.PAYLOAD, handler=http_job.callback, failures=n)[1] for n in range(9)
        ]
        plan = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
        assert all(0.8 * step <= delay <= 1.2 * step for step, delay in zip(plan, delays, strict=True))
        assert "answered 502" in dead({"url": server.url} | self.PAYLOAD, handler=http_job.callback, failures=9)

    def test_ends_by_the_same_rules(self, server, configure):
        server.at["/"] = answers(410)
        assert "wants no more of these calls" in dead({"url": server.url} | self.PAYLOAD, handler=http_job.callback)
        server.at["/"] = answers(302, b"", "Location: /a")
        assert "points to /a" in dead({"url": server.url} | self.PAYLOAD, handler=http_job.callback)
        assert "AddressRefused" in dead({"url": "http://169.254.169.254/"} | self.PAYLOAD, handler=http_job.callback)

    def test_with_an_id_that_cannot_be_signed_is_refused(self, server, configure):
        assert "the webhook id 'a.b'" in dead(
            {"url": server.url} | self.PAYLOAD | {"id": "a.b"}, handler=http_job.callback
        )


@pytest.fixture
def registered(empty_registry):
    empty_registry.add(http_job.http)
    empty_registry.add(http_job.callback)
    return empty_registry


@pytest.mark.usefixtures("registered")
class TestThroughTheQueue:
    def test_python_enqueues_it(self, server, conn, settings):
        id = http_job.http.enqueue(conn, url=server.url, json={"a": 1})
        assert factories.tick(settings).done == 1
        row = factories.job(conn, id)
        assert row["status"] == "done"
        assert (row["result"]["status"], row["result"]["body"]) == (200, "fine")
        assert server.requests[0].header("webhook-id") == f"job_{id}"

    def test_python_enqueues_it_by_its_name(self, server, conn, settings):
        id = package.enqueue(conn, "http", {"url": server.url})
        factories.tick(settings)
        assert factories.job(conn, id)["status"] == "done"

    def test_a_failure_is_kept_and_retried(self, server, conn, settings):
        server.at["/"] = answers(503, b"try later", "Retry-After: 3600")
        id = factories.a_job(conn, "http", payload={"url": server.url})
        assert factories.tick(settings).retried == 1
        row = factories.job(conn, id)
        assert (row["status"], row["failures"]) == ("pending", 1)
        assert (
            row["last_error"].startswith(f"Retry: GET {server.url}/ answered 503 after")
            and "try later" in row["last_error"]
        )
        (wait,) = conn.execute("select run_at - tick.now() from tick.jobs where id = %s", [id]).fetchone()
        assert dt.timedelta(minutes=55) < wait <= dt.timedelta(hours=1)

    def test_a_refusal_is_kept_and_dead(self, server, conn, settings):
        server.at["/"] = answers(404, b"no such thing")
        id = factories.a_job(conn, "http", payload={"url": server.url})
        assert factories.tick(settings).dead == 1
        row = factories.job(conn, id)
        assert row["status"] == "dead" and "answered 404" in row["last_error"]
        assert "no such thing" in json.dumps(row["errors"], default=str)

    def test_a_payload_that_another_program_wrote_is_checked_too(self, conn, settings):
        id = factories.a_job(conn, "http", payload={"url": "ftp://example.com/"})
        assert factories.tick(settings).dead == 1
        assert "$.url" in factories.job(conn, id)["last_error"]

    def test_the_ticks_end_is_no_failure(self, server, conn, settings):
        server.at["/"] = slow_body
        id = factories.a_job(conn, "http", payload={"url": server.url, "timeout": 60})
        report = factories.tick(settings, budget=1.5)
        row = factories.job(conn, id)
        assert (report.released, row["status"], row["failures"]) == (1, "pending", 0)

    def test_schedules_toml_alone_calls_a_url(self, server, conn, settings):
        settings.schedules_path.write_text(
            '[schedules.ping]\ntype = "http"\nevery = "1m"\n'
            f'payload = {{ url = "{server.url}/", json = {{ from = "schedules.toml" }}, timeout = "5s" }}\n'
        )
        factories.tick(settings)
        factories.move_clock(conn, "+2 minutes")
        assert factories.tick(settings).done == 1
        (request,) = server.requests
        assert (request.method, json.loads(request.body)) == ("POST", {"from": "schedules.toml"})

    def test_many_share_a_tick(self, server, conn, settings):
        server.at["/"] = answers(200)
        for number in range(60):
            http_job.http.enqueue(conn, url=f"{server.url}/?{number}")
        assert factories.tick(settings, budget=30).done == 60
        assert len({request.target for request in server.requests}) == 60


def test_a_call_that_is_cut_short_leaves_nothing_behind(server, configure):
    """Cancelled in the middle of a body, it lets go of its connection."""
    server.at["/"] = slow_body

    async def cut():
        shared = Shared(configuration["settings"])
        job = Job(7, "http", "{}", 1, 0, 0, 0, None, None, None, None, None, 0, NOW)
        context = Context(job, NOW, time.monotonic() + 50, Registry(), shared)
        call = asyncio.create_task(http_job.http(context, url=server.url, timeout=60))
        await asyncio.to_thread(factories.wait_until, lambda: server.requests)
        pool = await context.shared(http_job.open_client, ("127.0.0.1",))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert pool.connections == []
        await shared.close()

    asyncio.run(cut())


def test_starting_up_imports_no_client():
    import subprocess
    import sys

    code = "import sys, tick.http_job; assert not {'anyio', 'httpcore', 'httpx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_sent_can_be_verified_by_ourselves(server, configure):
    configure(TICK_SECRET_WEBHOOK=NEW)
    result({"url": server.url, "json": {"a": 1}})
    request = server.requests[0]
    assert signing.verify(dict(request.headers), request.body, [OLD, NEW], time.time())
    assert not signing.verify(dict(request.headers), request.body + b" ", [NEW], time.time())


class TestTheGuide:
    PAGE = (Path(__file__).parents[1] / "docs" / "http-jobs.md").read_text()

    def test_its_python_enqueues_and_verifies(self, server, configure, registered, conn, url, monkeypatch):
        registered.add(sql_job.sql)
        configure(TICK_SECRET_WEBHOOK=NEW)
        monkeypatch.setenv("WEBHOOK_SECRET", NEW)
        names = {"DATABASE_URL": url}
        for code in re.findall(r"^```python\n(.*?)^```", self.PAGE, re.MULTILINE | re.DOTALL):
            exec(compile(code, "http-jobs.md", "exec"), names)
        assert conn.execute("select type from tick.jobs order by id").fetchall() == [("http",), ("sql",)]
        result({"url": server.url, "json": {"a": 1}})
        (request,) = server.requests
        assert names["receive"](dict(request.headers), request.body) == 200
        assert names["receive"](dict(request.headers), request.body + b" ") == 401

    def test_its_sql_enqueues(self, conn, registered):
        for statement in re.findall(r"^```sql\n(.*?)^```", self.PAGE, re.MULTILINE | re.DOTALL):
            conn.execute(statement)
        (payload,) = conn.execute("select payload from tick.jobs where type = 'http'").fetchone()
        http_job.http.new_job(payload)

    def test_its_schedules_fit_the_handlers(self):
        handlers = {"http": http_job.http, "sql": sql_job.sql}
        for text in re.findall(r"^```toml\n(.*?)^```", self.PAGE, re.MULTILINE | re.DOTALL):
            for entry in tomllib.loads(text).get("schedules", {}).values():
                handlers[entry["type"]].new_job(entry["payload"])

    def test_its_settings_can_be_read(self, tmp_path):
        (text,) = (
            text
            for text in re.findall(r"^```toml\n(.*?)^```", self.PAGE, re.MULTILINE | re.DOTALL)
            if "[tool.tick]" in text
        )
        (tmp_path / "pyproject.toml").write_text(text)
        addresses.Rules(config.Settings.load({}, start=tmp_path).http_allow)

    @pytest.mark.parametrize("handler", [http_job.http, sql_job.sql], ids=lambda handler: handler.type)
    def test_it_has_every_parameter(self, handler):
        for name in handler.parameters.signature.parameters:
            assert f"| `{name}` |" in self.PAGE
