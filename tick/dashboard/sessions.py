"""Who has logged in: the password or key that was typed, the cookie that remembers it, and the proof against forgery.

A session is nothing but its signed cookie, which names who it is and is good for twelve hours. It ends before when the
signing key changes (with the password or any secret of the deployment), or with the API key that opened it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from tick import keys, tokens
from tick.config import Settings
from tick.keys import Caller

PASSWORD = "password"  # noqa: S105 - who has typed it
SESSION_SECONDS = 12 * 3600
DEVICE_SECONDS = 90 * 86_400
NOTICE_SECONDS = 60
LONGEST_NOTICE = 500
THEMES = ("auto", "light", "dark")
_SESSION, _DEVICE, _NOTICE, _THEME = "tick_session", "tick_device", "tick_notice", "tick_theme"
_YEAR = 365 * 86_400


class Session(NamedTuple):
    """Who has logged in: "password", "env:" and the name of an API key, or the id of one in the database.

    The proof ties it to the very key: a name may come to have another one, and who can sign does not have the key.
    """

    who: str
    proof: str
    cookie: str

    @property
    def key(self) -> str | None:
        """The id of the key that the database has to vouch for, if it is one of its own."""
        return None if self.who == PASSWORD or self.who.startswith("env:") else self.who

    @property
    def csrf(self) -> str:
        """What each form of this session carries: nobody can make it who does not have the cookie."""
        return hashlib.sha256(f"csrf {self.cookie}".encode()).hexdigest()


def can_open(settings: Settings) -> bool:
    """Whether somebody could log in with what the settings hold: a password, or an API key of the scope admin."""
    return settings.dashboard_password is not None or bool(admins(settings))


def admins(settings: Settings) -> dict[str, bytes]:
    """The keys of the environment that may do everything: the digest of each, by who has it."""
    known = keys.from_environment(settings.api_keys)
    return {caller.id: digest for digest, caller in known if caller.scopes and "admin" in caller.scopes}


def is_password(settings: Settings, typed: str) -> bool:
    """Whether this is the dashboard's password; the time that it takes tells nothing about it."""
    kept = settings.dashboard_password
    return kept is not None and hmac.compare_digest(_digest(kept), _digest(typed))


def caller_of(settings: Settings, typed: str) -> Caller | None:
    """Who has the API key that was typed, if it looks like one. Raises Refused for one without the scope admin."""
    if not keys.KEY.fullmatch(typed):
        return None
    caller = keys.recognise(Headers({"authorization": f"Bearer {typed}"}), settings)
    caller.need("admin")
    return caller


def open_session(settings: Settings, request: Request, response: Response, who: str, digest: bytes = b"") -> None:
    """Set the cookie of a new session, with the digest of the API key that opens it."""
    value = {"who": who, "proof": _proof(digest), "nonce": secrets.token_urlsafe(16)}
    _set(request, response, _SESSION, tokens.sign(settings, "session", value), SESSION_SECONDS)


def remember_device(settings: Settings, request: Request, response: Response) -> None:
    """Have this browser known as one that somebody has logged in with, for ninety days."""
    nonce = device(settings, request) or secrets.token_urlsafe(16)
    _set(request, response, _DEVICE, tokens.sign(settings, "device", nonce), DEVICE_SECONDS)


def device(settings: Settings, request: Request) -> str | None:
    """By what a browser is known that somebody has logged in with; None for any other."""
    cookie = request.cookies.get(_name(request, _DEVICE), "")
    nonce = tokens.read(settings, "device", cookie, DEVICE_SECONDS) if cookie else None
    return nonce if isinstance(nonce, str) else None


def close_session(request: Request, response: Response) -> None:
    """Take the cookie away."""
    _forget(request, response, _SESSION)


def read_session(settings: Settings, request: Request) -> Session | None:
    """The session of a request, if it has one that this deployment has opened and that still stands."""
    cookie = request.cookies.get(_name(request, _SESSION), "")
    value = tokens.read(settings, "session", cookie, SESSION_SECONDS) if cookie else None
    if not isinstance(value, dict):
        return None
    session = Session(str(value.get("who")), str(value.get("proof")), cookie)
    return session if session.key or _stands(settings, session) else None


def _stands(settings: Settings, session: Session) -> bool:
    """Whether the settings still hold what the session was opened with."""
    if session.who == PASSWORD:
        return settings.dashboard_password is not None
    digest = admins(settings).get(session.who)
    return digest is not None and hmac.compare_digest(session.proof, _proof(digest))


def is_from_here(headers: Headers) -> bool:
    """Whether a form was sent by a page of this origin, as the browser says: by Sec-Fetch-Site, else by Origin.

    What says neither is no browser, and nobody's page has made it send the form.
    """
    if site := headers.get("sec-fetch-site"):
        return site == "same-origin"
    origin = headers.get("origin")
    # A proxy may call us by another name than the browser does; no page of another origin can set either header.
    return origin is None or _host(origin) in {headers.get("host"), headers.get("x-forwarded-host")} - {None, ""}


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def has_token(session: Session, given: str) -> bool:
    """Whether a form carries the token of the session."""
    return hmac.compare_digest(session.csrf.encode(), given.encode("utf-8", "surrogatepass"))


def is_https(request: Request) -> bool:
    """Whether the browser came by https, as far as the proxy before this process says."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return (forwarded or request.url.scheme) == "https"


def own_path(path: str) -> str:
    """The path, when it is one of the dashboard's own; else the dashboard.

    >>> own_path("/dashboard/jobs?status=dead"), own_path("//evil.example/dashboard"), own_path("/dashboardx")
    ('/dashboard/jobs?status=dead', '/dashboard', '/dashboard')
    """
    place = unquote(path.partition("?")[0].partition("#")[0])
    is_plain = path.isprintable() and "\\" not in place and not {".", ".."} & set(place.split("/"))
    is_ours = path == "/dashboard" or path.startswith(("/dashboard/", "/dashboard?"))
    return path if is_plain and is_ours else "/dashboard"


def theme(request: Request) -> str:
    """How the pages shall look: auto, light or dark."""
    given = request.cookies.get(_THEME, "")
    return given if given in THEMES else "auto"


def keep_theme(request: Request, response: Response, theme: str) -> None:
    """Remember it for a year."""
    response.set_cookie(_THEME, theme, _YEAR, path="/", secure=is_https(request), httponly=True, samesite="lax")


def leave_notice(settings: Settings, request: Request, response: Response, notice: str) -> None:
    """Have the next page say this."""
    _set(request, response, _NOTICE, tokens.sign(settings, "notice", notice[:LONGEST_NOTICE]), NOTICE_SECONDS)


def read_notice(settings: Settings, request: Request) -> str | None:
    """What the page before had to say."""
    cookie = request.cookies.get(_name(request, _NOTICE), "")
    notice = tokens.read(settings, "notice", cookie, NOTICE_SECONDS) if cookie else None
    return notice if isinstance(notice, str) else None


def forget_notice(request: Request, response: Response) -> None:
    """It has been said."""
    _forget(request, response, _NOTICE)


def _proof(digest: bytes) -> str:
    """As the statement `enter` makes it of the key's row."""
    return hashlib.sha256(b"session " + digest).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _name(request: Request, name: str) -> str:
    """Behind https, a name that browsers take from this very host and by https alone."""
    return f"__Host-{name}" if is_https(request) else name


def _set(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        _name(request, name), value, seconds, path="/", secure=is_https(request), httponly=True, samesite="lax"
    )


def _forget(request: Request, response: Response, name: str) -> None:
    response.delete_cookie(_name(request, name), path="/", secure=is_https(request), httponly=True, samesite="lax")
