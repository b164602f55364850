"""Sending one e-mail over SMTP: SMTP_URL is smtp://user:password@host:587, or smtps:// with TLS from the start."""

import contextlib
import os
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from urllib.parse import SplitResult, unquote, urlsplit

import tick

TIMEOUT = 5  # seconds for each exchange with the server, so that a server that hangs fails the attempt


def compose(to: str, subject: str, body: str, *, id: str) -> EmailMessage:
    """A plain text message. The same `id` gives the same Message-ID, by which a repeated message is recognised."""
    sender = os.environ.get("MAIL_FROM", "Saas <hello@example.com>")
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{id}@{parseaddr(sender)[1].partition('@')[2]}>"
    message.set_content(body)
    return message


def send(message: EmailMessage) -> None:
    """Hand the message to the server. Raises Permanent when it refuses the recipient for good."""
    with contextlib.closing(_connect(urlsplit(os.environ.get("SMTP_URL", "smtp://localhost:25")))) as server:
        try:
            server.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            code, reason = next(iter(error.recipients.values()))
            if code >= 500:  # 4xx is "not now" (a full mailbox, greylisting) and worth another attempt.
                raise tick.Permanent(f"{message['To']} is refused: {code} {reason.decode()}") from error
            raise
        # The message is accepted: an error while saying goodbye must not fail the attempt and send it again.
        with contextlib.suppress(smtplib.SMTPException, OSError):
            server.quit()


def _connect(url: SplitResult) -> smtplib.SMTP:
    host, port = url.hostname or "localhost", url.port or 0
    if url.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT, context=ssl.create_default_context())
    else:
        server = smtplib.SMTP(host, port, timeout=TIMEOUT)
    if url.username:
        if url.scheme != "smtps":
            server.starttls(context=ssl.create_default_context())
        server.login(unquote(url.username), unquote(url.password or ""))
    return server
