"""Logging in and out, and the colours of the pages."""

from __future__ import annotations

import asyncio
import logging
import math
import time

from starlette.responses import RedirectResponse, Response

from tick import keys, tokens
from tick.calls import Call
from tick.dashboard import sessions
from tick.dashboard.desk import Desk, Refusal
from tick.dashboard.sessions import PASSWORD
from tick.database import Statement
from tick.keys import Caller
from tick.refusals import Refused

WRONG_SECONDS = 1.0
"""How long who was wrong waits for the answer."""
WRONG = "That is neither the dashboard's password nor a valid API key of the scope admin."
TRIES, TRY_SECONDS = 30, 2.0
"""How many wrong passwords may come at once, and after how long one more: `try_password` allows as many."""

logger = logging.getLogger("tick")


class Uncounted:
    """Wrong passwords that the database has not counted, and cannot where it only reads: this process does."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def check(self, bucket: str) -> None:
        """Raises Refusal when there were too many."""
        self._until = {each: until for each, until in self._until.items() if until > time.monotonic()}
        wait = self._until.get(bucket, 0.0) - time.monotonic() - (TRIES - 1) * TRY_SECONDS
        if wait > 0:
            raise Refusal(429, "Too many tries", f"Wait {math.ceil(wait)} s, then try again.")

    def add(self, bucket: str) -> None:
        """One more."""
        self._until[bucket] = max(time.monotonic(), self._until.get(bucket, 0.0)) + TRY_SECONDS

    def remove(self, bucket: str) -> None:
        """The database has counted one of them."""
        self._until[bucket] = self._until.get(bucket, 0.0) - TRY_SECONDS


uncounted = Uncounted()


async def ask(desk: Desk) -> Response:
    """The form; or what to set, as long as nobody could log in."""
    if not await _is_on(desk):
        return desk.page("login.html", code=503, is_on=False)
    if sessions.read_session(desk.settings, desk.request):
        return RedirectResponse(_next(desk.query), 303)
    return _form(desk, _next(desk.query))


async def log_in(desk: Desk) -> Response:
    """The session of whoever gives the password or a key; what is wrong is told a second later."""
    typed = desk.form.get("secret", "").strip()
    try:
        caller = await _recognise(desk, typed)
    except Refused as refused:
        logger.warning("dashboard: a log-in was refused: %s", refused.detail)
        await desk.close()
        await asyncio.sleep(WRONG_SECONDS)
        error = WRONG if refused.kind.status == 401 else refused.detail
        return _form(desk, _next(desk.form), error, refused.kind.status)
    response = RedirectResponse(_next(desk.form), 303)
    # Of a password nothing goes into the cookie, not even its digest: it could be guessed from that.
    digest = b"" if caller.id == PASSWORD else keys.digest(typed)
    sessions.open_session(desk.settings, desk.request, response, caller.id, digest)
    sessions.remember_device(desk.settings, desk.request, response)
    logger.info("dashboard: %s has logged in", caller.id)
    return response


async def log_out(desk: Desk) -> Response:
    """The form, and no session."""
    response = RedirectResponse("/dashboard/login", 303)
    sessions.close_session(desk.request, response)
    return response


async def choose_theme(desk: Desk) -> Response:
    """Back to the page, in other colours."""
    theme = desk.form.get("theme", "")
    response = RedirectResponse(_next(desk.form), 303)
    sessions.keep_theme(desk.request, response, theme if theme in sessions.THEMES else "auto")
    return response


async def _is_on(desk: Desk) -> bool:
    """Whether somebody can log in; the database is asked only when the settings name nobody."""
    if not tokens.can_sign(desk.settings):
        return False
    if sessions.can_open(desk.settings):
        return True
    ((row,),) = await desk.read(Statement("admin_keys", {}, "dashboard_now"))
    return bool(row["are_there"])


async def _recognise(desk: Desk, typed: str) -> Caller:
    """Who has given the password or the key. Raises Refused, and Refusal after too many tries."""
    uncounted.check(_bucket(desk))
    if sessions.is_password(desk.settings, typed):
        await desk.read(Statement("try_password", {"caller": _bucket(desk)}, "dashboard_now"))
        return Caller(PASSWORD)
    caller = sessions.caller_of(desk.settings, typed)
    if caller is None:
        await _count_try(desk)
        raise Refused("unauthorized", "it was neither the password nor a key")
    call = Call(desk.settings, caller, "admin", desk.room)
    try:
        await call.run()
    finally:
        await call.close()
    return caller


async def _count_try(desk: Desk) -> None:
    bucket = _bucket(desk)
    # Before anything is awaited: of many tries at once each must be known to the next.
    uncounted.add(bucket)
    await desk.change(Statement("count_try", {"caller": bucket}, "dashboard_now"))
    uncounted.remove(bucket)


def _bucket(desk: Desk) -> str:
    """With whose wrong passwords one counts: with those of this browser, where it is known, else of all strangers."""
    device = sessions.device(desk.settings, desk.request)
    return f"dashboard:{device}" if device else "dashboard"


def _form(desk: Desk, next: str, error: str | None = None, code: int = 200) -> Response:
    values = {"is_on": True, "next": next, "error": error, "is_open_line": _is_open_line(desk)}
    return desk.page("login.html", code=code, **values)


def _is_open_line(desk: Desk) -> bool:
    """Whether others on the way could read what is typed."""
    return not sessions.is_https(desk.request) and desk.request.url.hostname not in ("localhost", "127.0.0.1", "::1")


def _next(given: dict[str, str]) -> str:
    return sessions.own_path(given.get("next", ""))


OPEN_ROUTES = [
    ("/dashboard/login", ["GET"], ask),
    ("/dashboard/login", ["POST"], log_in),
]
ROUTES = [
    ("/dashboard/logout", ["POST"], log_out),
    ("/dashboard/theme", ["POST"], choose_theme),
]
