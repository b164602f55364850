"""The type `tick.alert`, which tells somebody: by Slack, by a webhook, by mail."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote, urlsplit

import msgspec

from . import alerts, tokens
from .alerts import Link, Message, Part, Target
from .config import Settings
from .errors import AddressRefused, ConfigurationError, Permanent, Retry
from .handlers import Context, Registry, Shared, job
from .http_job import CallFailed, Secrets, callback, http
from .jobs import Job, NewJob
from .masking import known_secrets, mask_text
from .options import URL

if TYPE_CHECKING:
    import smtplib
    import ssl
    from email.message import EmailMessage

RETRIES = ("30s", "2m", "10m", "30m", "1h", "2h", "4h", "8h")
SLACK_SECONDS = 10.0
"""How long Slack may take to answer; it usually needs less than one."""
MAIL_SECONDS = 30.0
"""How long mailing may take, and each exchange with the server a third of it."""
MOST_BLOCKS = 50
URGENT = 32_767
"""The highest priority there is."""
LONGEST_SECTION = 3000
"""What Slack takes of blocks in a message, and of characters in a section.

Source: Slack's reference of Block Kit, "Blocks" and "Section block".
"""
SUBMISSION, SMTPS = 587, 465
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LONGEST_SUBJECT = 150
SHORTEST_HIDDEN = 12
"""Characters of a URL's path from which it may be all that keeps strangers out."""

Channel = Literal["slack", "webhook", "email"]


@job(type=alerts.ITSELF, max_attempts=len(RETRIES) + 1, backoff=RETRIES, permanent_on=AddressRefused)
async def alert(ctx: Context, *, channel: Channel, to: str, message: Message, last: bool = False) -> dict[str, Any]:  # noqa: ARG001 - for the rule `dead`
    """Tell somebody, once for each of whom there is to tell.

    Args:
        ctx: the attempt.
        channel: slack, webhook or email.
        to: the name of an address of [alerts]; the address itself, which may be a secret, is no part of the payload.
        message: what to tell.
        last: whether the job's own death is nothing to tell of.

    Returns what is known of its delivery.
    Raises Permanent or AddressRefused for what will never arrive, CallFailed or Retry for what may.
    """
    return await _tell(ctx, Target(channel, to), message, f"job_{ctx.id}")


def new_jobs(targets: Iterable[Target], message: Message, *, last: bool = False) -> list[NewJob]:
    """A job for each of whom to tell, so that one that cannot be reached is no other's trouble."""
    plain = msgspec.to_builtins(message)
    payloads = [{"channel": channel, "to": to, "message": plain, "last": last} for channel, to in targets]
    # A queue that is behind must not keep them waiting: that may be what they tell.
    return [NewJob(alerts.ITSELF, msgspec.json.encode(payload), priority=URGENT) for payload in payloads]


def test_message(settings: Settings) -> list[NewJob]:
    """The jobs that tell everybody that alerts arrive. Raises ConfigurationError when there is nobody to tell."""
    targets = _targets(settings)
    if not targets:
        raise ConfigurationError(
            'alerts tell nobody: write [alerts] with slack = "secret:slack", webhook = "https://..." '
            f'or email = "you@example.com" into {settings.schedules_path.name}'
        )
    return new_jobs(targets, alerts.test_message(app(settings), datetime.now(UTC)), last=True)


def app(settings: Settings) -> str:
    """What messages call the application: the host of TICK_URL, else the name of the project's folder."""
    host = urlsplit(settings.url).hostname if settings.url else None
    return host or settings.root.resolve().name or "tick"


async def send_now(settings: Settings, target: Target, message: Message) -> dict[str, Any]:
    """Tell one of them, outside of any tick. Raises as the job does."""
    at, shared = message.at, Shared(settings)
    nobody = Job(0, alerts.ITSELF, "{}", 1, 0, 0, 0, 1, None, None, None, None, 0, at)
    try:
        ctx = Context(nobody, at, time.monotonic() + MAIL_SECONDS, Registry(), shared)
        return await _tell(ctx, target, message, f"stopped_{at.timestamp():.0f}")
    finally:
        await shared.close()


async def _tell(ctx: Context, target: Target, message: Message, id: str) -> dict[str, Any]:
    address = _address(ctx.settings, target)
    with _hidden(ctx.settings, address):
        if target.channel == "email":
            return await _send_mail(ctx.settings, address, message, id)
        _check_url(address, target)
        if target.channel == "slack":
            body = slack_body(ctx.settings, message)
            answer = await http(ctx, url=address, json=body, sign=False, timeout=SLACK_SECONDS)
        else:
            at, data = message.at.isoformat(), webhook_data(ctx.settings, message)
            answer = await callback(ctx, url=address, id=id, type=alerts.ITSELF, timestamp=at, data=data)
    return {"status": answer["status"]}


def _address(settings: Settings, target: Target) -> str:
    """The address of that name. Raises CallFailed where it is not known: it can be made known, or is elsewhere."""
    address = _targets(settings).get(target)
    if address is None:
        raise CallFailed(f"{target.channel} = {target.to!r} is not in the [alerts] of this deployment")
    if not address.startswith("secret:"):
        return address
    try:
        return Secrets(settings).get(address.removeprefix("secret:"))[0]
    except Permanent as missing:
        raise CallFailed(f"{target.channel}: {missing}") from None


def _targets(settings: Settings) -> dict[Target, str]:
    from .schedules_file import read_targets

    return read_targets(settings)


def _check_url(address: str, target: Target) -> None:
    """Raises CallFailed, without it, for what is no URL: what else is said of one may quote it."""
    from .addresses import parse_url

    try:
        parse_url(address if URL.fullmatch(address) else "")
    except AddressRefused:
        setting = target.to.removeprefix("secret:").upper()
        raise CallFailed(f"{target.channel}: TICK_SECRET_{setting} is not a URL such as https://...") from None


@contextmanager
def _hidden(settings: Settings, address: str) -> Iterator[None]:
    """Errors without the secrets of these settings, and without the path of the address."""
    try:
        yield
    except (CallFailed, Permanent, Retry, AddressRefused, ConfigurationError) as error:
        path = urlsplit(address).path
        hidden = {address, path, quote(path)} if len(path) >= SHORTEST_HIDDEN else set()
        error.args = (mask_text(str(error), [*sorted(hidden, key=len, reverse=True), *known_secrets(settings)]),)
        raise


# --- What is sent --------------------------------------------------------------------------------


def href(settings: Settings, link: Link) -> str | None:
    """Where a link leads, at the origin of TICK_URL; None when that is not known, or there is nothing to sign with."""
    if not settings.url:
        return None
    parts = urlsplit(settings.url)
    origin = f"{parts.scheme}://{parts.netloc}"
    if link.replay is None:
        return origin + link.path
    if not tokens.can_sign(settings):
        return None
    return f"{origin}/dashboard/replay/{tokens.sign(settings, tokens.REPLAY, link.replay)}"


def _links(settings: Settings, part: Part) -> list[tuple[str, str]]:
    """Each link's text and URL, of those that lead somewhere."""
    return [(link.text, url) for link in part.links if (url := href(settings, link))]


def slack_body(settings: Settings, message: Message) -> dict[str, Any]:
    """As an incoming webhook of Slack takes it: blocks, and a text for where these cannot be shown."""
    title = f"{_mark(message)} {message.app}: {message.title}"
    blocks = [block for part in message.parts for block in _slack_part(settings, part)]
    context = {"type": "context", "elements": [_slack_text(f"{message.app}, {alerts.clock(message.at)}")]}
    return {"text": _slack(title), "blocks": [*blocks[: MOST_BLOCKS - 1], context], "unfurl_links": False}


def _slack_part(settings: Settings, part: Part) -> Iterator[dict[str, Any]]:
    yield {"type": "section", "text": _slack_text("\n".join([f"*{_mark(part)} {part.title}*", *part.lines]))}
    if links := _slack_links(_links(settings, part)):
        yield {"type": "section", "text": {"type": "mrkdwn", "text": links, "verbatim": True}}


def _slack_links(links: Sequence[tuple[str, str]]) -> str:
    """As many as a section holds: half a link is none."""
    shown = ""
    for text, url in links:
        more = f"{'  |  ' if shown else ''}<{_slack(url).replace('|', '%7C')}|{_slack(text)}>"
        shown += more if len(shown + more) <= LONGEST_SECTION else ""
    return shown


def _slack_text(text: str) -> dict[str, Any]:
    # Verbatim, so that Slack makes neither links nor mentions of what stands in an error.
    return {"type": "mrkdwn", "text": _slack(text), "verbatim": True}


def _slack(text: str) -> str:
    """Escaped as Slack wants it, and cut to a section."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) <= LONGEST_SECTION:
        return escaped
    return re.sub(r"&[a-z]{0,3}$", "", escaped[: LONGEST_SECTION - 1]) + "…"


def _mark(told: Message | Part) -> str:
    return "\N{LARGE GREEN CIRCLE}" if told.good else "\N{LARGE RED CIRCLE}"


def webhook_data(settings: Settings, message: Message) -> dict[str, Any]:
    """The `data` of a webhook: everything there is to tell, as plain texts."""
    told = [
        {
            "title": part.title,
            "lines": part.lines,
            "links": [{"text": text, "url": url} for text, url in _links(settings, part)],
            "recovered": part.good,
        }
        for part in message.parts
    ]
    return {"app": message.app, "title": message.title, "recovered": message.good, "alerts": told}


# --- By mail -------------------------------------------------------------------------------------


async def _send_mail(settings: Settings, address: str, message: Message, id: str) -> dict[str, Any]:
    from .runner import Threads

    sent = mail(settings, address, message, id)
    try:
        async with asyncio.timeout(MAIL_SECONDS):
            await Threads().run(lambda: _post(settings, sent))
    except TimeoutError:
        raise CallFailed(f"the mail server did not take the message within {MAIL_SECONDS:g} s") from None
    return {"message_id": str(sent["Message-ID"])}


def mail(settings: Settings, address: str, message: Message, id: str) -> EmailMessage:
    """The mail: a text, the same as HTML, and a Message-ID that is the same on every attempt.

    Raises CallFailed when TICK_MAIL_FROM is not set, or not an address.
    """
    from email.message import EmailMessage
    from email.utils import format_datetime

    sent, domain = EmailMessage(), _domain(settings)
    name = hashlib.sha256(f"{id} {message.at.isoformat()} {address}".encode()).hexdigest()[:32]
    subject = f"[{alerts.name(message.app)}] {alerts.line(message.title, LONGEST_SUBJECT)}"
    sent["From"], sent["To"], sent["Subject"] = settings.mail_from, address, subject
    sent["Date"], sent["Message-ID"] = format_datetime(message.at), f"<{name}@{domain}>"
    sent["Auto-Submitted"] = "auto-generated"
    sent.set_content(_as_text(settings, message))
    sent.add_alternative(_as_html(settings, message), subtype="html")
    return sent


def _domain(settings: Settings) -> str:
    """That of TICK_MAIL_FROM."""
    from email.utils import parseaddr

    sender = settings.mail_from or ""
    name, _, domain = parseaddr(sender)[1].rpartition("@")
    if not name or not sender.isprintable() or not re.fullmatch(r"[A-Za-z0-9.-]+", domain):
        raise CallFailed("TICK_MAIL_FROM must say from whom to mail, such as Shop <tick@your-domain>")
    return domain


def _as_text(settings: Settings, message: Message) -> str:
    paragraphs = [
        "\n".join([part.title, *part.lines, *(f"{text}: {url}" for text, url in _links(settings, part))])
        for part in message.parts
    ]
    return "\n\n".join([*paragraphs, f"-- \n{message.app}, {alerts.clock(message.at)}"])


def _as_html(settings: Settings, message: Message) -> str:
    parts = "".join(_html_part(part, _links(settings, part)) for part in message.parts)
    foot = f"<p><small>{escape(message.app)}, {alerts.clock(message.at)}</small></p>"
    return f"<!doctype html><html><body>{parts}{foot}</body></html>"


def _html_part(part: Part, links: Sequence[tuple[str, str]]) -> str:
    lines = "".join(f"<br>{escape(line)}" for line in part.lines)
    anchors = " &middot; ".join(f'<a href="{escape(url)}">{escape(text)}</a>' for text, url in links)
    return f"<p><strong>{escape(part.title)}</strong>{lines}{'<br>' if anchors else ''}{anchors}</p>"


def _post(settings: Settings, sent: EmailMessage) -> None:
    """Hand the mail to the server of TICK_SMTP_URL. Raises Permanent for what it will never take, else CallFailed."""
    import smtplib

    where = f"the mail server {_server(settings)[1]}"
    try:
        with _connected(settings) as smtp:
            smtp.send_message(sent)
    except smtplib.SMTPRecipientsRefused as error:
        ((code, text),) = error.recipients.values()
        raise _refused(where, code, text) from None
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        raise _refused(where, error.smtp_code, error.smtp_error) from None
    except (OSError, smtplib.SMTPException) as error:
        raise CallFailed(f"{where} could not be used: {type(error).__name__} {error}") from None


def _refused(where: str, code: int, text: bytes | str) -> Exception:
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    told = f"{where} answered {code} {alerts.line(said)}"
    return Permanent(told) if code >= 500 else CallFailed(told)


def _connected(settings: Settings) -> smtplib.SMTP:
    """A connection over TLS, logged in; without TLS only to this very machine, or without a password."""
    import smtplib
    import ssl

    scheme, host, port, user, password = _server(settings)
    name, patience, tls = _domain(settings), MAIL_SECONDS / 3, ssl.create_default_context()
    if scheme == "smtps":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(host, port or SMTPS, name, timeout=patience, context=tls)
    else:
        smtp = smtplib.SMTP(host, port or SUBMISSION, name, timeout=patience)
    try:
        if scheme == "smtp":
            _start_tls(smtp, tls, needed=bool(user or port in (None, SUBMISSION)) and host not in LOOPBACK)
        if user:
            smtp.login(user, password)
    except BaseException:
        smtp.close()
        raise
    return smtp


def _start_tls(smtp: smtplib.SMTP, tls: ssl.SSLContext, *, needed: bool) -> None:
    smtp.ehlo()
    if smtp.has_extn("starttls"):
        smtp.starttls(context=tls)
    elif needed:
        raise CallFailed("the mail server offers no STARTTLS, without which passwords are not sent: write smtps://")


def _server(settings: Settings) -> tuple[str, str, int | None, str, str]:
    """TICK_SMTP_URL: its scheme, host, port, user and password. Raises CallFailed, without it, for what is none."""
    try:
        url = urlsplit(settings.smtp_url or "")
        if url.scheme in ("smtp", "smtps") and url.hostname:
            return url.scheme, url.hostname, url.port, unquote(url.username or ""), unquote(url.password or "")
    except ValueError:
        pass
    raise CallFailed("TICK_SMTP_URL must say where the mail server is: smtp://user:password@host:587, or smtps://...")
