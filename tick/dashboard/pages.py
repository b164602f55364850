"""Every page of the dashboard, and what holds for all of them: log-in, forged forms, errors, headers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from tick.api import Door
from tick.dashboard import dead, files, jobs, links, login, now, schedules, sessions, shown, ticks
from tick.dashboard.desk import Desk, LoggedOut, Refusal
from tick.errors import ConfigurationError, DatabaseError, DatabaseUnavailable

MOST_CONNECTIONS = 4
"""Pages of one process that are at the database at once."""
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Not no-referrer, which would have browsers send "Origin: null" with our own forms.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
FORGED = (
    "It did not come from a page of this dashboard, or its session is over. Nothing was changed: "
    "go back, load the page anew, and try again."
)

logger = logging.getLogger("tick")

Page = Callable[[Desk], Awaitable[Response]]


class Entry(NamedTuple):
    """A page, where it is, and whether one has to log in to see it."""

    route: Route
    page: Page
    needs_login: bool


def entries() -> Iterator[Entry]:
    """All pages there are."""
    kept = [(True, module.ROUTES) for module in (now, jobs, dead, schedules, ticks, login)]
    for needs_login, table in [(False, login.OPEN_ROUTES), (False, links.OPEN_ROUTES), *kept]:
        for path, methods, page in table:
            yield Entry(Route(path, page, methods=methods), page, needs_login)


class Pages:
    """The application behind /dashboard."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._room = asyncio.Semaphore(MOST_CONNECTIONS)
        self._entries = list(entries())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request({**scope, "path": scope["path"].rstrip("/")}, receive, send)
        response = await self.respond(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def respond(self, request: Request) -> Response:
        """The page, or one that says why there is none."""
        try:
            return await self._answer(request)
        except LoggedOut:
            return _to_login(request)
        except Refusal as refusal:
            return self._problem(request, refusal)
        except DatabaseUnavailable as error:
            return self._failure(request, 503, "Postgres is unavailable", error)
        except DatabaseError as error:
            return self._failure(request, 503, "The database is not ready", error)
        except ConfigurationError as error:
            return self._failure(request, 500, "The configuration cannot be used", error)
        except Exception:
            logger.exception("dashboard: a page has failed")
            return self._problem(request, Refusal(500, "Something went wrong", "The log says what."))

    async def _answer(self, request: Request) -> Response:
        if request.url.path.startswith("/dashboard/static/"):
            return files.serve(request)
        entry = self._find(request)
        session = sessions.read_session(self.door.settings, request) if entry.needs_login else None
        if entry.needs_login and session is None:
            return _to_login(request)
        request.state.session = session
        desk = Desk(request, self.door, session, self._room)
        try:
            return await _serve(entry, desk)
        finally:
            await desk.close()

    def _find(self, request: Request) -> Entry:
        """The entry for a request's path and method; the request gets the path's parameters. Raises Refusal."""
        allowed: set[str] = set()
        for entry in self._entries:
            match, found = entry.route.matches(request.scope)
            if match is Match.FULL:
                request.scope.update(found)
                return entry
            if match is Match.PARTIAL:
                allowed |= entry.route.methods or set()
        if not allowed:
            raise Refusal(404, "Not found", "There is no such page.")
        takes = ", ".join(sorted(allowed))
        raise Refusal(405, "Method not allowed", f"This takes {takes}.", {"allow": takes})

    def _failure(self, request: Request, status: int, title: str, error: Exception) -> Response:
        """What cannot work now; who has not logged in only learns that the log says why."""
        logger.error("dashboard: %s: %s", title, error)
        detail = _sentence(str(error)) if _session(request) else "Try again later; the log says why."
        headers = {"retry-after": "5"} if status == 503 else {}
        return self._problem(request, Refusal(status, title, detail, headers))

    def _problem(self, request: Request, refusal: Refusal) -> Response:
        values = {
            "session": _session(request),
            "path": request.url.path,
            "theme": sessions.theme(request),
            "notice": None,
            "code": refusal.status,
            "title": refusal.title,
            "detail": refusal.detail,
        }
        return HTMLResponse(shown.render("problem.html", values), refusal.status, headers=refusal.headers)


async def _serve(entry: Entry, desk: Desk) -> Response:
    """The page, for a request that is not forged and whose API key still stands."""
    is_post = desk.request.method == "POST"
    if is_post:
        await _check_form(desk)
    response = await entry.page(desk)
    if desk.session and desk.session.key and not desk.is_entered:
        await desk.read()
    if is_post and desk.session:
        logger.info("dashboard: %s by %s: %s", desk.request.url.path, desk.who, response.status_code)
    return response


async def _check_form(desk: Desk) -> None:
    """Read the form. Raises Refusal for one that another site's page may have sent, as far as possible unread."""
    if not sessions.is_from_here(desk.request.headers):
        raise Refusal(403, "That form is not ours", FORGED)
    await desk.read_form()
    if desk.session and not sessions.has_token(desk.session, desk.form.get("csrf", "")):
        raise Refusal(403, "That form is not ours", FORGED)


def _to_login(request: Request) -> Response:
    """To the form, and from there back to the page; a page that renews itself is left as a whole."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    back = wanted if request.method == "GET" and "hx-request" not in request.headers else ""
    path = f"/dashboard/login?next={quote(back, safe='/')}" if back else "/dashboard/login"
    if "hx-request" in request.headers:
        response = Response(status_code=401, headers={"hx-redirect": path})
    else:
        response = RedirectResponse(path, 303)
    if request.cookies:
        sessions.close_session(request, response)
    return response


def _session(request: Request) -> sessions.Session | None:
    session: sessions.Session | None = getattr(request.state, "session", None)
    return session


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
