"""The type `tick.alert`, against servers of this machine: Slack's webhooks as they are, any webhook, and mail."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email
import email.policy
import html
import json
import re
import socket
import socketserver
import ssl
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from standardwebhooks.webhooks import Webhook

from tests.factories import move_clock, tick
from tests.test_cli import free_port
from tests.test_http_job import Server as WebServer
from tests.test_http_job import a_certificate, answers, response, slow_to_answer
from tick import alert_job, alerts, tokens
from tick.alerts import Link, Message, Part, Target
from tick.config import Settings
from tick.errors import ConfigurationError
from tick.handlers import Context, Registry, Shared, registry
from tick.http_job import CallFailed
from tick.jobs import Dead, Done, Job, Outcome, Retried
from tick.runner import Threads, run

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATH = "/services/T012345/B012345/veryverysecret"
WEBHOOK = "whsec_" + base64.b64encode(bytes(range(32))).decode()
REPLAY = {"type": "send_mail", "fingerprint": "ValueError: no"}
LINKS = [Link("Replay", replay=REPLAY), Link("Look", "/dashboard/jobs/7?a=1&b=2")]
MESSAGE = Message("shop", NOW, [Part("send_mail: 1 job died", ["ValueError: no", "Since then"], LINKS)])
HOSTILE = Message(
    "shop",
    NOW,
    [
        Part(
            alerts.name("send\r\nBcc: evil@example.com <!channel> <script>alert(1)</script> \N{PILE OF POO}"),
            [
                alerts.line("<https://evil.example|click> & " + "x" * 1_000_000),
                "*bold* `code`",
                "\N{RIGHT-TO-LEFT OVERRIDE}",
            ],
            LINKS,
        )
    ]
    * 30,
)


@pytest.fixture
def web():
    with WebServer() as server:
        server.at[PATH] = answers(200, b"ok", "Content-Type: text/html")
        yield server


@pytest.fixture
def settings(settings, web) -> Settings:
    return replace(
        settings,
        url="https://shop.example/tick",
        http_allow=(f"127.0.0.1:{web.port}",),
        named_secrets={"slack": (web.url + PATH,), "webhook": (WEBHOOK,)},
        secrets=("s1",),
        alerts={"slack": "secret:slack", "webhook": [web.url + PATH], "email": "ops@example.com"},
        mail_from="Shop <shop@example.org>",
    )


def attempt(settings: Settings, channel: str = "slack", message: Message = MESSAGE, **columns: Any) -> Outcome:
    """How one attempt to tell ends."""
    (target,) = [target for target in alerts.targets(settings.alerts) if target.channel == channel]
    (new,) = alert_job.new_jobs([target], message)
    row = {"id": 7, "type": "tick.alert", "payload": new.payload.decode(), "attempt": 1, "failures": 0, "losses": 0, "cuts": 0,
           "max_attempts": None, "timeout": None, "key": None, "schedule": None, "window": None, "priority": 0, "run_at": NOW}  # fmt: skip
    job = Job(**row | columns)

    async def once() -> Outcome:
        shared = Shared(settings)
        try:
            context = Context(job, NOW, time.monotonic() + 50, Registry(), shared)
            return await run(job, alert_job.alert, context, Threads())
        finally:
            await shared.close()

    return asyncio.run(once())


def sent(outcome: Outcome) -> Any:
    assert isinstance(outcome, Done), outcome
    return json.loads(outcome.result)


def failed(outcome: Outcome, kind: type = Retried) -> str:
    """What is kept of a failure: the message; and no secret in it, nor in the traceback."""
    assert isinstance(outcome, kind), outcome
    for secret in ("veryverysecret", "hunter2", WEBHOOK):
        assert secret not in outcome.failure.message + outcome.failure.traceback
    return outcome.failure.message


class TestSlack:
    def test_it_is_sent_blocks_and_a_text(self, settings, web):
        assert sent(attempt(settings)) == {"status": 200}
        (request,) = web.requests
        body = json.loads(request.body)
        assert request.header("webhook-signature") is None
        assert body["text"] == "\N{LARGE RED CIRCLE} shop: send_mail: 1 job died"
        section, links, context = body["blocks"]
        assert section["text"]["text"] == "*\N{LARGE RED CIRCLE} send_mail: 1 job died*\nValueError: no\nSince then"
        assert links["text"]["text"].endswith("  |  <https://shop.example/dashboard/jobs/7?a=1&amp;b=2|Look>")
        assert context["elements"][0]["text"] == "shop, 2026-03-01 12:00 UTC"

    def test_the_link_replays_by_a_signed_token(self, settings, web):
        attempt(settings)
        (token,) = re.findall(rb"shop.example/dashboard/replay/([^|]+)\|", web.requests[0].body)
        assert tokens.read(settings, tokens.REPLAY, token.decode(), 60) == REPLAY

    @pytest.mark.parametrize(("changed", "texts"), [({"url": None}, []), ({"secrets": ()}, ["Look"])])
    def test_without_an_origin_or_anything_to_sign_with_there_are_fewer_links(self, settings, web, changed, texts):
        attempt(replace(settings, **changed))
        assert re.findall(r"\|(\w+)>", web.requests[0].body.decode()) == texts

    def test_it_stays_within_slacks_limits_and_nothing_of_it_is_markup(self, settings):
        body = alert_job.slack_body(settings, HOSTILE)
        assert len(body["blocks"]) <= 50
        texts = [block["text"]["text"] for block in body["blocks"][:-1]] + [body["text"]]
        assert max(map(len, texts)) <= 3000
        for text in texts:
            assert all(
                re.match(r"<https://shop\.example/", text[at:]) for at in (m.start() for m in re.finditer("<", text))
            )
            assert not re.search(r"&(?!amp;|lt;|gt;)", text)
        assert "&lt;!channel&gt;" in texts[0]
        assert all(block["text"]["verbatim"] for block in body["blocks"][:-1])

    def test_a_text_is_cut_and_no_entity_is_cut_in_half(self):
        for extra in range(8):
            cut = alert_job._slack("x" * (2990 + extra) + "&" * 50)
            assert len(cut) <= 3000
            assert not re.search(r"&(?!amp;)", cut)

    def test_what_is_over_is_green(self, settings):
        body = alert_job.slack_body(settings, alerts.test_message("shop", NOW))
        assert body["text"].startswith("\N{LARGE GREEN CIRCLE} shop: A test")

    @pytest.mark.parametrize(
        ("answer", "kind", "message"),
        [
            (response(500, b"oops"), Retried, "CallFailed: POST *** answered 500 after "),
            (response(404, b"no_service"), Dead, "Permanent: POST *** answered 404 after "),
            (response(403, b"invalid_token"), Dead, "Permanent: POST *** answered 403 after "),
            (response(302, b"", "Location: https://slack.com/veryverysecret"), Dead, "Permanent: POST *** answered 302 after "),
        ],
    )  # fmt: skip
    def test_what_an_answer_means(self, settings, web, answer, kind, message):
        web.at[PATH] = lambda connection, server: connection.sendall(answer)
        if kind is Dead and b"Location" in answer:
            answer = response(302, b"", f"Location: {web.url}{PATH}")
        assert failed(attempt(settings), kind).startswith(message)
        assert len(web.requests) == 1

    def test_when_it_is_sent_too_much_it_is_left_alone_for_as_long_as_it_asks(self, settings, web):
        web.at[PATH] = answers(429, b"rate_limited", "Retry-After: 77")
        outcome = attempt(settings)
        failed(outcome)
        assert outcome.delay == 77

    def test_one_that_hangs_is_given_up(self, settings, web, monkeypatch):
        monkeypatch.setattr(alert_job, "SLACK_SECONDS", 0.3)
        web.at[PATH] = slow_to_answer
        assert "was not answered, or not to the end, within 0.3 s" in failed(attempt(settings))

    def test_an_address_that_may_not_be_called_is_not(self, settings):
        message = failed(attempt(replace(settings, http_allow=())), Dead)
        assert "127.0.0.1 is a loopback address" in message

    @pytest.mark.parametrize(
        "secret", ["http://127.0.0.1:1" + PATH, "HTTP://127.0.0.1:1" + PATH + "?x=%41veryverysecret"]
    )
    def test_a_server_that_is_away_is_tried_again(self, settings, secret):
        settings = replace(settings, named_secrets={"slack": (secret,)}, http_allow=("127.0.0.1:1",))
        failed(attempt(settings))

    @pytest.mark.parametrize("secret", [f"hooks.slack.com{PATH}", f"https://u:hunter2@example.com{PATH}", f"https://hooks.slack.com {PATH}", f"https:\\\\x{PATH}"])  # fmt: skip
    def test_a_secret_that_is_no_url_is_not_repeated(self, settings, secret):
        settings = replace(settings, named_secrets={"slack": (secret,)})
        assert "slack: TICK_SECRET_SLACK is not a URL" in failed(attempt(settings))

    def test_a_secret_that_is_not_set_is_tried_again(self, settings):
        assert "set TICK_SECRET_SLACK where tick runs" in failed(attempt(replace(settings, named_secrets={})))

    def test_a_url_in_the_file_itself_is_no_part_of_payloads_and_errors(self, settings, web):
        web.at[PATH] = answers(404, b"gone: " + PATH.encode())
        settings = replace(settings, alerts={"slack": web.url + PATH})
        (new,) = alert_job.new_jobs(alerts.targets(settings.alerts), MESSAGE)
        assert "veryverysecret" not in new.payload.decode()
        failed(attempt(settings), Dead)

    def test_one_that_is_not_in_this_deployments_file_waits_for_one_that_knows_it(self, settings):
        (new,) = alert_job.new_jobs([Target("slack", "example.com #12345678")], MESSAGE)
        message = failed(attempt(settings, payload=new.payload.decode()))
        assert "slack = 'example.com #12345678' is not in the [alerts] of this deployment" in message


class TestWebhook:
    def test_it_is_signed_json_that_the_official_library_verifies(self, settings, web):
        sent(attempt(settings, "webhook"))
        (request,) = web.requests
        headers = {name: value for name, value in request.headers if name.startswith("webhook-")}
        body = Webhook(WEBHOOK).verify(request.body, headers)
        assert headers["webhook-id"] == "job_7"
        assert (body["type"], body["timestamp"]) == ("tick.alert", "2026-03-01T12:00:00+00:00")
        links = body["data"]["alerts"][0].pop("links")
        assert [link["text"] for link in links] == ["Replay", "Look"]
        assert links[1]["url"] == "https://shop.example/dashboard/jobs/7?a=1&b=2"
        assert body["data"] == {
            "app": "shop",
            "title": "send_mail: 1 job died",
            "recovered": False,
            "alerts": [
                {"title": "send_mail: 1 job died", "lines": ["ValueError: no", "Since then"], "recovered": False}
            ],
        }

    def test_without_a_secret_it_is_unsigned(self, settings, web):
        attempt(replace(settings, named_secrets={}), "webhook")
        assert web.requests[0].header("webhook-signature") is None

    def test_another_attempt_is_the_same_message(self, settings, web):
        for number in (1, 2):
            attempt(settings, "webhook", attempt=number)
        first, second = web.requests
        assert (first.body, first.header("webhook-id")) == (second.body, second.header("webhook-id"))


class Mailbox:
    """What a mail server was given: envelopes, and whether they came over TLS and from whom."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.refuses: str | None = None

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - the library's word
        if self.refuses:
            return self.refuses
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - the library's word
        self.received.append((session, envelope))
        return "250 OK"

    def mails(self) -> list[email.message.EmailMessage]:
        return [email.message_from_bytes(e.content, policy=email.policy.default) for _, e in self.received]


def authenticate(server, session, envelope, mechanism, data):
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (b"mailer", b"hunter2!")
    return AuthResult(success=known, handled=False)


@pytest.fixture
def mailbox():
    return Mailbox()


@pytest.fixture
def serve(mailbox, tmp_path, monkeypatch):
    """Starts a mail server for `localhost`, and gives its port."""
    context = a_certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))
    running = []

    def started(*, tls: bool = False, implicit: bool = False, auth: bool = False) -> int:
        options = {"auth_required": auth, "auth_require_tls": tls, "authenticator": authenticate} if auth else {}
        options |= {"tls_context": context, "require_starttls": True} if tls else {}
        controller = Controller(mailbox, "localhost", free_port(), ssl_context=context if implicit else None, **options)
        controller.start()
        running.append(controller)
        return controller.port

    yield started
    for controller in running:
        controller.stop()


class Impostor(socketserver.ThreadingTCPServer):
    """A mail server with a certificate that nobody has signed, and what it heard before its client left."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext, *, implicit: bool) -> None:
        super().__init__(("127.0.0.1", 0), ImpostorConnection)
        self.context, self.implicit = context, implicit
        self.heard: list[bytes] = []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()


class ImpostorConnection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        if not self.server.implicit:
            self.go_on_to_tls()
        with contextlib.suppress(OSError), self.server.context.wrap_socket(self.request, server_side=True) as tls:
            self.server.heard.append(tls.recv(100))

    def go_on_to_tls(self) -> None:
        self.wfile.write(b"220 localhost\r\n")
        while line := self.rfile.readline().upper():
            self.server.heard.append(line)
            self.wfile.write(b"250-localhost\r\n250 STARTTLS\r\n" if line.startswith(b"EHLO") else b"220 go on\r\n")
            if line.startswith(b"STARTTLS"):
                return


class TestMail:
    def test_it_is_a_text_and_html_with_proper_headers(self, settings, mailbox, serve):
        settings = replace(settings, smtp_url=f"smtp://localhost:{serve()}")
        result = sent(attempt(settings, "email"))
        ((_, envelope),), (mail,) = mailbox.received, mailbox.mails()
        assert (envelope.mail_from, envelope.rcpt_tos) == ("shop@example.org", ["ops@example.com"])
        assert (mail["From"], mail["To"]) == ("Shop <shop@example.org>", "ops@example.com")
        assert mail["Subject"] == "[shop] send_mail: 1 job died"
        assert parsedate_to_datetime(mail["Date"]) == NOW
        assert mail["Auto-Submitted"] == "auto-generated"
        assert re.fullmatch(r"<[0-9a-f]{32}@example\.org>", mail["Message-ID"])
        assert result == {"message_id": mail["Message-ID"]}
        text, page = (mail.get_body((kind,)).get_content() for kind in ("plain", "html"))
        assert "ValueError: no\nSince then\nReplay: https://shop.example/dashboard/replay/" in text.replace(
            "\r\n", "\n"
        )
        assert "<strong>send_mail: 1 job died</strong><br>ValueError: no<br>Since then" in page

    def test_a_token_survives_the_mail(self, settings, mailbox, serve):
        attempt(replace(settings, smtp_url=f"smtp://localhost:{serve()}"), "email")
        (mail,) = mailbox.mails()
        for kind in ("plain", "html"):
            (token,) = re.findall(r'/dashboard/replay/([^\s"<]+)', mail.get_body((kind,)).get_content())
            assert tokens.read(settings, tokens.REPLAY, token, 60) == REPLAY

    def test_over_starttls_with_a_password(self, settings, mailbox, serve):
        port = serve(tls=True, auth=True)
        sent(attempt(replace(settings, smtp_url=f"smtp://mailer:hunter2%21@localhost:{port}"), "email"))
        ((session, _),) = mailbox.received
        assert session.ssl and session.authenticated

    def test_over_tls_from_the_start(self, settings, mailbox, serve):
        sent(attempt(replace(settings, smtp_url=f"smtps://localhost:{serve(implicit=True)}"), "email"))
        assert len(mailbox.received) == 1

    def test_a_wrong_password_is_tried_again_and_not_repeated(self, settings, serve):
        port = serve(tls=True, auth=True)
        message = failed(attempt(replace(settings, smtp_url=f"smtp://mailer:hunter2no@localhost:{port}"), "email"))
        assert message.startswith(
            "CallFailed: the mail server localhost could not be used: SMTPAuthenticationError (535"
        )

    @pytest.mark.parametrize("scheme", ["smtp", "smtps"])
    def test_a_certificate_of_nobody_is_refused(self, settings, tmp_path, scheme):
        with Impostor(a_certificate(tmp_path, "localhost"), implicit=scheme == "smtps") as impostor:
            url = f"{scheme}://mailer:hunter2@localhost:{impostor.server_address[1]}"
            message = failed(attempt(replace(settings, smtp_url=url), "email"))
        assert "SSLCertVerificationError" in message
        assert not [line for line in impostor.heard if b"AUTH" in line or b"MAIL" in line]

    def test_no_password_goes_to_another_machine_without_tls(self, settings, mailbox, serve, monkeypatch):
        port = serve()
        names = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *a, **k: names("localhost" if host == "mail.example" else host, *a, **k)
        )
        message = failed(attempt(replace(settings, smtp_url=f"smtp://mailer:hunter2@mail.example:{port}"), "email"))
        assert "the mail server offers no STARTTLS" in message
        assert mailbox.received == []

    @pytest.mark.parametrize(("answer", "kind"), [("550 no such user", Dead), ("450 try later", Retried)])
    def test_what_a_refusal_means(self, settings, mailbox, serve, answer, kind):
        mailbox.refuses = answer
        message = failed(attempt(replace(settings, smtp_url=f"smtp://localhost:{serve()}"), "email"), kind)
        assert message.endswith(f"the mail server localhost answered {answer}")

    def test_another_attempt_has_the_same_id_and_another_job_another(self, settings, mailbox, serve):
        settings = replace(settings, smtp_url=f"smtp://localhost:{serve()}")
        for number, id in ((1, 7), (2, 7), (1, 8)):
            attempt(settings, "email", attempt=number, id=id)
        first, again, other = [mail["Message-ID"] for mail in mailbox.mails()]
        assert first == again != other

    def test_nothing_that_is_told_becomes_a_header_or_markup(self, settings, mailbox, serve):
        sent(attempt(replace(settings, smtp_url=f"smtp://localhost:{serve()}"), "email", HOSTILE))
        ((_, envelope),), (mail,) = mailbox.received, mailbox.mails()
        assert envelope.rcpt_tos == ["ops@example.com"]
        assert (mail["Bcc"], len(mail.get_all("Subject"))) == (None, 1)
        page = mail.get_body(("html",)).get_content()
        assert set(re.findall(r"</?(\w+)", page)) == {"html", "body", "p", "strong", "br", "a", "small"}
        assert "<script>" in html.unescape(page)
        assert all(len(line) <= 998 for line in envelope.content.split(b"\r\n"))

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"mail_from": None}, "TICK_MAIL_FROM must say from whom to mail"),
            ({"mail_from": "shop"}, "TICK_MAIL_FROM must say from whom to mail, such as Shop <tick@your-domain>"),
            ({"mail_from": "a@example.com\nBcc: b@example.com"}, "TICK_MAIL_FROM must say from whom to mail"),
            ({"smtp_url": None}, "TICK_SMTP_URL must say where the mail server is"),
            ({"smtp_url": "mail.example:25"}, "TICK_SMTP_URL must say where the mail server is"),
            ({"smtp_url": "http://u:hunter2@mail.example"}, "TICK_SMTP_URL must say where the mail server is"),
            ({"smtp_url": "smtp://u:hunter2@mail.example:port"}, "TICK_SMTP_URL must say where the mail server is"),
            ({"smtp_url": "smtp://[::1"}, "TICK_SMTP_URL must say where the mail server is"),
            ({"smtp_url": "smtp://127.0.0.1:1"}, "the mail server 127.0.0.1 could not be used: ConnectionRefusedError"),
        ],
    )
    def test_what_is_set_wrongly_is_told_and_tried_again(self, settings, changed, message):
        assert message in failed(attempt(replace(settings, **{"smtp_url": "smtp://localhost:1"} | changed), "email"))

    def test_a_server_that_says_nothing_is_given_up_and_its_thread_left(self, settings, monkeypatch):
        monkeypatch.setattr(alert_job, "MAIL_SECONDS", 0.5)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
            message = failed(attempt(replace(settings, smtp_url=url), "email"))
        assert "timed out" in message or "did not take the message within 0.5 s" in message


class TestTest:
    def test_a_test_message_is_a_job_for_each(self, settings, conn, empty_registry, web):
        registry.add(alert_job.alert)
        jobs = alert_job.test_message(settings)
        assert [json.loads(new.payload)["channel"] for new in jobs] == ["slack", "webhook", "email"]
        for new in jobs[:2]:
            conn.execute("select tick.enqueue('tick.alert', %s)", [new.payload.decode()])
        tick(settings)
        assert conn.execute("select count(*) from tick.jobs where status = 'done'").fetchone() == (2,)
        assert b"A test: alerts arrive here" in web.requests[0].body

    def test_there_has_to_be_somebody_to_tell(self, settings):
        with pytest.raises(ConfigurationError, match="alerts tell nobody: write"):
            alert_job.test_message(replace(settings, alerts={}))

    def test_the_app_is_called_by_its_host_or_its_folder(self, settings, tmp_path):
        assert alert_job.app(settings) == "shop.example"
        assert alert_job.app(replace(settings, url=None)) == tmp_path.name


def test_a_job_that_fails_is_tried_again_by_ticks(conn, settings, empty_registry, web):
    registry.add(alert_job.alert)
    web.at[PATH] = answers(500)
    (new, *_) = alert_job.test_message(settings)
    conn.execute("select tick.enqueue('tick.alert', %s)", [new.payload.decode()])
    tick(settings)
    assert conn.execute("select status, failures from tick.jobs").fetchone() == ("pending", 1)
    web.at[PATH] = answers(200)
    move_clock(conn, "+1 minute")
    tick(settings)
    assert conn.execute("select status from tick.jobs").fetchone() == ("done",)


def test_to_send_now_raises_what_a_job_would(settings, web):
    web.at[PATH] = answers(500)
    target = Target("slack", "secret:slack")
    with pytest.raises(CallFailed):
        asyncio.run(alert_job.send_now(settings, target, MESSAGE))
    web.at[PATH] = answers(200)
    assert asyncio.run(alert_job.send_now(settings, target, MESSAGE)) == {"status": 200}
