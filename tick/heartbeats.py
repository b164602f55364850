"""Tells a monitor that a tick has begun, has ended well, or has failed: Healthchecks, Cronitor, Sentry Crons, any URL.

A monitor is told, never asked: what it answers, or that it does not, changes nothing about the tick.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Literal
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from .errors import AddressRefused

if TYPE_CHECKING:
    import httpcore

    from .addresses import Url

LONGEST = 2.0
"""Seconds that a monitor has for one call, from resolving its host to its answer."""
MOST_READ = 64 * 1024

Moment = Literal["start", "ok", "fail"]

_UUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_HEALTHCHECKS = rf"/{_UUID}/?|.*/ping/(?:{_UUID}|[\w-]{{22}}/[\w-]+)/?"
"""https://ping.example.com/<uuid>, https://example.com/ping/<uuid>, https://example.com/ping/<ping key>/<slug>."""
_SENTRY = r".*/api/[0-9]+/cron/[^/]+/[^/]+/?"

logger = logging.getLogger("tick")


def urls(configured: Mapping[str, str], tick: str, trigger: str) -> dict[Moment, str]:
    """What to call at which moment of a tick, from the setting `heartbeat`.

    A single `url` is understood by its host or its form; `start`, `ok` and `fail` are called as they are written, and
    go before it. `{tick}` and `{trigger}` are filled in.
    """
    calls: dict[Moment, str] = _understood(configured["url"], tick) if "url" in configured else {}
    moments: tuple[Moment, ...] = ("start", "ok", "fail")
    calls |= {moment: configured[moment] for moment in moments if moment in configured}
    return {moment: url.replace("{tick}", tick).replace("{trigger}", quote(trigger)) for moment, url in calls.items()}


def _understood(url: str, tick: str) -> dict[Moment, str]:
    """A single URL, by whose it is.

    Sources: https://healthchecks.io/docs/http_api/, https://cronitor.io/docs/telemetry-api,
    https://docs.sentry.io/product/crons/getting-started/http/
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return {"ok": url}
    if parts.hostname == "cronitor.link":
        states: dict[Moment, str] = {"start": "run", "ok": "complete", "fail": "fail"}
        return {moment: _with(parts, state=state, series=tick) for moment, state in states.items()}
    if re.fullmatch(_SENTRY, parts.path):
        states = {"start": "in_progress", "ok": "ok", "fail": "error"}
        return {moment: _with(parts, status=state, check_in_id=tick) for moment, state in states.items()}
    if parts.hostname == "hc-ping.com" or re.fullmatch(_HEALTHCHECKS, parts.path):
        path = parts.path.rstrip("/")
        paths: dict[Moment, str] = {"start": f"{path}/start", "ok": path, "fail": f"{path}/fail"}
        return {moment: _with(parts._replace(path=path), rid=tick) for moment, path in paths.items()}
    return {"ok": url}


def _with(parts: SplitResult, **query: str) -> str:
    return parts._replace(query="&".join(filter(None, [parts.query, urlencode(query)]))).geturl()


def begin(configured: Mapping[str, str], tick: str, trigger: str) -> Heartbeat | None:
    """The heartbeat of a tick, its start under way; None where no monitor is configured."""
    return Heartbeat(urls(configured, tick, trigger)) if configured else None


class Heartbeat:
    """The calls of one tick, one after the other, over the same connection where they can be."""

    def __init__(self, calls: dict[Moment, str]) -> None:
        self._calls = calls
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._warned = False
        self._started = asyncio.ensure_future(self._tell("start", LONGEST))

    async def end(self, moment: Moment, seconds: float) -> None:
        """Tell how the tick has ended, within so many seconds: the start goes before it, but not for ever."""
        until = time.monotonic() + seconds
        await asyncio.wait({self._started}, timeout=seconds / 2)
        self._started.cancel()
        await self._tell(moment, min(LONGEST, until - time.monotonic()))
        if self._pool is not None:
            # What was cut short may still be in use, and no more than a warning of the pool's own.
            with suppress(Exception):
                await self._pool.aclose()

    def drop(self) -> None:
        """Leave nothing under way."""
        self._started.cancel()

    async def _tell(self, moment: Moment, seconds: float) -> None:
        """Call the moment's URL, if it has one; a call that goes wrong is worth a warning, the first of this tick."""
        url = self._calls.get(moment)
        if url is None:
            return
        # The connection to the database is on its way before anything is imported here.
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                status = await self._call(url)
            problem = None if 200 <= status <= 299 else f"it answered {status}{_ADVICE if 300 <= status <= 399 else ''}"
        except TimeoutError:
            problem = f"no answer within {seconds:.1f} s"
        except AddressRefused:
            problem = "its URL cannot be called: write http:// or https://, a host without user or password, and a path"
        except Exception as error:  # noqa: BLE001 - a monitor's trouble, whatever it is, is not the tick's
            problem = f"{type(error).__name__} {error}".rstrip()
        if problem and not self._warned:
            self._warned = True
            logger.warning("the heartbeat %r did not get through to %s: %s", moment, _shown(url), problem)

    async def _call(self, url: str) -> int:
        """The status of the answer; a redirect is not followed."""
        from .addresses import parse_url

        target = parse_url(url)
        self._pool = self._pool or _open_pool(self._calls.values())
        async with self._pool.stream("GET", _as_httpcore(target), headers=_headers(target)) as response:
            # A connection is used again once the body has been read to its end; a long one is not worth that.
            unread = MOST_READ
            async with aclosing(response.aiter_stream()) as chunks:  # type: ignore[type-var] # a generator it is
                async for chunk in chunks:
                    unread -= len(chunk)
                    if unread < 0:
                        break
            return response.status


def _open_pool(urls: Iterable[str]) -> httpcore.AsyncConnectionPool:
    """Connections to wherever these URLs lead: who may set them may name a monitor on a private network."""
    from .addresses import Rules, open_pool, parse_url

    hosts = []
    for url in urls:
        with suppress(AddressRefused):  # It is told when it is called.
            hosts.append(parse_url(url).authority)
    return open_pool(Rules(hosts))


_ADVICE = ", which points elsewhere: write the URL that it points to"


def _as_httpcore(url: Url) -> httpcore.URL:
    import httpcore

    return httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)


def _headers(url: Url) -> list[tuple[bytes, bytes]]:
    return [(b"host", url.authority.encode()), (b"user-agent", b"tick"), (b"accept", b"*/*")]


def _shown(url: str) -> str:
    """The URL without what is after its host: that is a secret, as anybody who has it may call it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."
