"""The types `http`, which calls a URL, and `tick.callback`, which tells one how a job ended."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import msgspec

from . import signing
from .config import Settings
from .errors import AddressRefused, ConfigurationError, Permanent, Retry
from .handlers import Context, job
from .options import seconds

if TYPE_CHECKING:
    import httpcore

    from .addresses import Url

TIMEOUT = 15.0
LONGEST_RETRY_AFTER = 86_400.0
MOST_READ = 64 * 1024
MOST_KEPT = 2000
MOST_SHOWN = 200
CALLBACK_RETRIES = ("5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h")
"""The example schedule of Standard Webhooks 1.0.0, "Deliverability and reliability"."""
RETRIED = frozenset({408, 425, 429})
DEFAULT_SECRET = "webhook"  # noqa: S105 - a name
_OURS = {
    *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive"),
    *("te", "trailer", "transfer-encoding", "upgrade"),
}
_SECRET = re.compile(r"\$\{secret:([^}]*)\}?")

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
Link = Annotated[str, msgspec.Meta(max_length=8192, pattern=r"^(?i:https?)://[^\s\\]+\Z")]
HeaderName = Annotated[str, msgspec.Meta(max_length=256, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")]
HeaderValue = Annotated[str, msgspec.Meta(max_length=8192, pattern=r"^[\t -~\x80-\xff]*\Z")]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=3600)] | Annotated[str, msgspec.Meta(pattern=r"^[0-9][0-9dhms]*\Z")]
Status = Annotated[int, msgspec.Meta(ge=200, le=599)]
Redirects = Annotated[int, msgspec.Meta(ge=0, le=10)]


class CallFailed(Exception):
    """A call that another attempt may well get through: no answer, no time, or a receiver that is not well."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent, the same on every attempt but for its timestamp.

    Attributes:
        id: the message's, for `webhook-id`.
        headers: those of the job, their secrets filled in, in lower case.
        body: None when there is none, which is not an empty one.
        secrets: to sign with; none is unsigned.
    """

    method: str
    url: Url
    id: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def sent_headers(self, timestamp: int) -> list[tuple[str, str]]:
        """All headers of one attempt, at that Unix time. Raises ConfigurationError for a secret that cannot sign."""
        ours = {"user-agent": f"tick/{_version()}", "accept": "*/*"}
        signed = signing.sign(self.id, timestamp, self.body or b"", self.secrets)
        if not self.secrets:
            del signed["webhook-signature"]
        # What is not decoded cannot be a bomb.
        fixed = {"host": self.url.authority, "accept-encoding": "identity"}
        return list((ours | dict(self.headers) | signed | fixed).items())

    def redirected(self, status: int, url: Url) -> Message:
        """The message for where a redirect leads, as browsers do it (WHATWG Fetch, "HTTP-redirect fetch").

        What was written for one origin, secrets and signature among it, does not go to another.
        """
        changed = replace(self, url=url)
        if (status == 303 and self.method != "HEAD") or (status in (301, 302) and self.method == "POST"):
            kept = {name: value for name, value in self.headers.items() if name != "content-type"}
            changed = replace(changed, method="GET", body=None, headers=kept)
        if url.origin != self.url.origin:
            kept = {name: value for name, value in changed.headers.items() if name in ("content-type", "traceparent")}
            changed = replace(changed, headers=kept, secrets=())
        return changed

    def __str__(self) -> str:
        return f"{self.method} {self.url}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: at most 64 KiB of it; `cut` says that there was more."""

    message: Message
    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool
    seconds: float

    @property
    def redirects(self) -> bool:
        return self.status in (301, 302, 303, 307, 308) and "location" in self.headers

    def text(self) -> str:
        """The body as text that can be stored, whatever it is."""
        encoding = self.headers.get("content-encoding", "identity").lower()
        if encoding not in ("", "identity"):
            return f"({len(self.body)} bytes, encoded as {encoding})"
        return self.body.decode("utf-8", "replace").replace("\0", "\ufffd")


class Secrets:
    """The named secrets: filled into what is sent, taken out of what is kept."""

    def __init__(self, settings: Settings) -> None:
        self._named = settings.named_secrets

    def get(self, name: str) -> tuple[str, ...]:
        """The values of a name, the newest first. Raises Permanent when it is not set."""
        values = self._named.get(name.lower())
        if values is None:
            raise Permanent(f"there is no secret {name!r}: set TICK_SECRET_{name.upper()} where tick runs")
        return values

    def signing(self, sign: str | bool | None) -> tuple[str, ...]:
        """With what to sign: a named secret; the default one, for True, or for None if it is set."""
        if sign is False or (sign is None and DEFAULT_SECRET not in self._named):
            return ()
        return self.get(sign if isinstance(sign, str) else DEFAULT_SECRET)

    def fill(self, name: str, text: str) -> str:
        """A header's value with `${secret:NAME}` replaced. Raises Permanent for what a header cannot hold."""
        filled = _SECRET.sub(lambda match: self.get(match[1])[0], text).strip(" \t")
        if not re.fullmatch(r"[\t -~\x80-\xff]*", filled):
            raise Permanent(f"the secret in the header {name} holds characters that no header can")
        return filled

    def redact(self, text: str) -> str:
        """The text without any secret: receivers do send back what they were sent."""
        values = {value for values in self._named.values() for value in values}
        # As it is, as it stands in a URL, and as PHP, for one, writes it in JSON.
        forms = values | {quote(value) for value in values} | {value.replace("/", "\\/") for value in values}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "***")
        return text


@job(type="http", permanent_on=(AddressRefused, ConfigurationError))
async def http(
    ctx: Context,
    *,
    url: Link,
    method: Method | None = None,
    headers: dict[HeaderName, HeaderValue] | None = None,
    body: str | None = None,
    json: Any = None,
    timeout: Timeout = TIMEOUT,  # noqa: ASYNC109 - a word of the payload
    expect: list[Status] | None = None,
    redirects: Redirects = 0,
    sign: str | bool | None = None,
) -> dict[str, Any]:
    """Call a URL, and keep what it answered.

    Args:
        ctx: the attempt.
        url: where: http or https, to a public address unless `http_allow` opens another.
        method: GET without a body and POST with one, unless it is given.
        headers: further ones; `${secret:NAME}` in a value is TICK_SECRET_NAME.
        body: a text to send.
        json: or a value to send as JSON.
        timeout: seconds, or a text such as "30s", for everything from resolving the host to the answer's last byte.
        expect: the statuses that are a success; any from 200 to 299 by default.
        redirects: how many to follow.
        sign: the name of the secret to sign with; by default `webhook`, if it is set; False is not to sign.

    Returns the status, the seconds it took, the bytes read, an excerpt of the body and its content type.
    Raises Permanent, AddressRefused or ConfigurationError for what will never work, CallFailed or Retry for what may.
    """
    secrets = Secrets(ctx.settings)
    if body is not None and json is not None:
        raise Permanent("body and json are two bodies: give one of them")
    content = msgspec.json.encode(json) if json is not None else None if body is None else body.encode()
    message = Message(
        method=method or ("GET" if content is None else "POST"),
        url=_parse(url),
        id=f"job_{ctx.id}",
        headers=_headers(ctx, headers or {}, secrets, is_json=json is not None),
        body=content,
        secrets=secrets.signing(sign),
    )
    return await _deliver(ctx, message, secrets, timeout=seconds(timeout), expect=expect, redirects=redirects)


@job(
    type="tick.callback",
    max_attempts=len(CALLBACK_RETRIES) + 1,
    backoff=CALLBACK_RETRIES,
    # Not for a secret that is not usable: it can be mended while there are attempts left.
    permanent_on=AddressRefused,
)
async def callback(
    ctx: Context, *, url: Link, id: str, type: str, timestamp: str, data: Any, secret: str | None = None
) -> dict[str, Any]:
    """Tell a URL how a job ended: a POST after Standard Webhooks, retried for three days.

    Args:
        ctx: the attempt.
        url: where.
        id: the message's, the same on every attempt: what the receiver knows it by.
        type: what happened, such as "job.done".
        timestamp: when, in ISO 8601.
        data: what there is to know of it.
        secret: the name of the secret to sign with; by default `webhook`, and unsigned where that is not set.

    Returns and raises as `http` does.
    """
    secrets = Secrets(ctx.settings)
    if not signing.is_id(id):
        raise Permanent(f"the webhook id {id!r} must be printable ASCII without a dot or a space")
    message = Message(
        method="POST",
        url=_parse(url),
        id=id,
        headers=_headers(ctx, {}, secrets, is_json=True),
        body=msgspec.json.encode({"type": type, "timestamp": timestamp, "data": data}),
        secrets=secrets.signing(secret),
    )
    return await _deliver(ctx, message, secrets)


@asynccontextmanager
async def open_client(allow: tuple[str, ...]) -> AsyncIterator[httpcore.AsyncConnectionPool]:
    """The connections of one tick's calls; imported with the first call, since most ticks make none."""
    from . import addresses

    async with addresses.open_pool(addresses.Rules(allow)) as pool:
        yield pool


def _parse(url: str) -> Url:
    from .addresses import parse_url

    return parse_url(url)


@cache
def _version() -> str:
    from importlib.metadata import version

    return version("tick-jobs")


def _headers(ctx: Context, given: Mapping[str, str], secrets: Secrets, *, is_json: bool) -> dict[str, str]:
    named = {name.lower(): secrets.fill(name, value) for name, value in given.items()}
    for name in named:
        if name in _OURS or name.startswith(("webhook-", "proxy-")):
            raise Permanent(f"the header {name} is not a job's to set: take it out of headers")
    ours = {"content-type": "application/json"} if is_json else {}
    if ctx.traceparent:
        ours["traceparent"] = ctx.traceparent
    return ours | named


async def _deliver(
    ctx: Context,
    message: Message,
    secrets: Secrets,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - of the whole, redirects and slow bodies included
    expect: list[int] | None = None,
    redirects: int = 0,
) -> dict[str, Any]:
    """Send the message, and say what became of it: the result, or an exception without a secret in it.

    The tick's own deadline needs no second clock here: it cancels this coroutine, and that is no failure.
    """
    pool = await ctx.shared(open_client, ctx.settings.http_allow)
    try:
        async with asyncio.timeout(timeout):
            answer = await _follow(pool, message, redirects)
    except TimeoutError:
        raise CallFailed(f"{message} was not answered, or not to the end, within {timeout:g} s") from None
    except AddressRefused as error:
        raise AddressRefused(secrets.redact(str(error))) from None
    except (Permanent, Retry, ConfigurationError):
        raise
    except Exception as error:  # noqa: BLE001 - redacted and raised again
        # Whatever it is: its words may be what was sent, and they are stored.
        raise CallFailed(secrets.redact(f"{message} failed: {type(error).__name__} {error}".rstrip())) from None
    if answer.status in expect if expect is not None else 200 <= answer.status <= 299:
        return _result(answer, secrets)
    raise _failure(answer, secrets)


async def _follow(pool: httpcore.AsyncConnectionPool, message: Message, redirects: int) -> Answer:
    answer = await _send(pool, message)
    for _ in range(redirects):
        if not answer.redirects:
            break
        answer = await _send(pool, _next(answer))
    return answer


def _next(answer: Answer) -> Message:
    location = answer.headers["location"]
    try:
        return answer.message.redirected(answer.status, answer.message.url.join(location))
    except AddressRefused:
        # Not in its own words: they are cut, and half a secret is not found to be one.
        raise AddressRefused(f"{answer.message} points to {location}, which is not a URL to call") from None


async def _send(pool: httpcore.AsyncConnectionPool, message: Message) -> Answer:
    """One request, and as much of its answer as is read at all."""
    started = time.monotonic()
    async with pool.stream(
        message.method,
        _as_httpcore(message.url),
        headers=[(name.encode(), value.encode("latin-1")) for name, value in message.sent_headers(int(time.time()))],
        content=b"" if message.body is None and message.method != "GET" else message.body,
    ) as response:
        body = bytearray()
        async with aclosing(response.aiter_stream()) as chunks:  # type: ignore[type-var] # a generator it is
            async for chunk in chunks:
                body += chunk
                if len(body) > MOST_READ:
                    break
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        took = time.monotonic() - started
        return Answer(message, response.status, headers, bytes(body[:MOST_READ]), len(body) > MOST_READ, took)


def _as_httpcore(url: Url) -> httpcore.URL:
    import httpcore

    return httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)


def _result(answer: Answer, secrets: Secrets) -> dict[str, Any]:
    text = secrets.redact(answer.text())
    return {
        "status": answer.status,
        "seconds": round(answer.seconds, 3),
        "bytes": len(answer.body),
        "body": text[:MOST_KEPT],
        "truncated": answer.cut or len(text) > MOST_KEPT,
        "content_type": secrets.redact(answer.headers.get("content-type", ""))[:MOST_SHOWN] or None,
    }


def _failure(answer: Answer, secrets: Secrets) -> Exception:
    """What an answer that is no success means for the job."""
    excerpt = " ".join(secrets.redact(answer.text()).split())[:MOST_SHOWN]
    said = secrets.redact(f"{answer.message} answered {answer.status} after {answer.seconds:.2f} s")
    told = f"{said}: {excerpt}" if excerpt else said
    if answer.redirects:
        location = secrets.redact(answer.headers["location"])[:MOST_SHOWN]
        return Permanent(f"{said}, and points to {location}: write that URL, or allow more redirects")
    if answer.status == 410:
        return Permanent(f"{told} (Gone: the receiver wants no more of these calls; stop making them)")
    if answer.status in RETRIED or answer.status >= 500:
        after = retry_after(answer.headers, time.time())
        return CallFailed(told) if after is None else Retry(told, after=after)
    if 200 <= answer.status <= 299:
        # Such as a 202 where a 200 is expected: not yet.
        return CallFailed(f"{told} (it is not among the expected statuses)")
    return Permanent(told)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the receiver asks to wait, a day at most; None when it does not, or not in so many words.

    A date counts from the receiver's own, so that its clock may be wrong; else from `now`, in Unix seconds.
    Source: RFC 9110, section 10.2.3.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,12}", text):
        wait = float(text)
    else:
        until, since = _unix(text), _unix(headers.get("date", ""))
        wait = 0.0 if until is None else until - (now if since is None else since)
    return min(wait, LONGEST_RETRY_AFTER) if wait > 0 else None


def _unix(date: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
