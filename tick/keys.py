"""API keys: what they look like, what they allow, how often they may call, and which of them a request bears."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from starlette.datastructures import Headers

from .config import Settings
from .errors import ConfigurationError
from .limits import Rate, parse_rate
from .refusals import Refused

SCOPES = {
    "enqueue": "put jobs in",
    "read": "list and show jobs",
    "admin": "everything: cancel, replay and run jobs, and enqueue those that act with the deployment's own rights",
}
KEY = re.compile(r"tick_([a-z0-9]{1,32})_([A-Za-z0-9_-]{32,128})")
_NAME = re.compile(r"[A-Za-z0-9 ._-]{1,100}")
_WANTED = {"www-authenticate": 'Bearer realm="tick"'}
_INVALID = {"www-authenticate": 'Bearer realm="tick", error="invalid_token"'}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request.

    Attributes:
        id: of a key in the table; "env:" and the name of one in the environment. Its calls are counted under it.
        scopes: what the key allows; None as long as only the database knows.
        hash: of a key that the database has to vouch for; None for one that the environment has vouched for.
    """

    id: str
    scopes: frozenset[str] | None = None
    hash: bytes | None = None

    def need(self, scope: str) -> None:
        """Raises Refused when the key is known to lack the scope."""
        if self.scopes is not None and not self.scopes & {scope, "admin"}:
            raise lacks(scope)


def lacks(scope: str) -> Refused:
    headers = {"www-authenticate": f'Bearer realm="tick", error="insufficient_scope", scope="{scope}"'}
    return Refused("missing-scope", f"this takes a key with the scope {scope}: {SCOPES[scope]}", headers)


def invalid() -> Refused:
    return Refused("unauthorized", "the API key is not valid: it may be mistyped, revoked or expired", _INVALID)


def recognise(headers: Headers, settings: Settings) -> Caller:
    """Who bears the key of a request; one that is not in the environment is for the database to judge.

    Raises Refused for anything but one header `Authorization: Bearer <key>`, and ConfigurationError.
    """
    given = headers.getlist("authorization")
    scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise Refused("unauthorized", "send one header `Authorization: Bearer <API key>`", _WANTED)
    hash = digest(key.strip())
    # All of them, so that the time it takes does not tell which.
    known = [caller for kept, caller in from_environment(settings.api_keys) if hmac.compare_digest(kept, hash)]
    if known:
        return known[0]
    if match := KEY.fullmatch(key.strip()):
        return Caller(match[1], hash=hash)
    raise invalid()


def digest(key: str) -> bytes:
    """What is kept of a key. It is random and long, so that a slow hash would protect it no better."""
    return hashlib.sha256(key.encode()).digest()


@lru_cache(maxsize=8)
def from_environment(entries: tuple[str, ...]) -> tuple[tuple[bytes, Caller], ...]:
    """The keys of TICK_API_KEYS by their hashes. Raises ConfigurationError, which shows nothing of a key."""
    return tuple(_entry(number, *entry.split(":")) for number, entry in enumerate(entries, 1))


def _entry(number: int, name: str, scopes: str = "", key: str = "", *more: str) -> tuple[bytes, Caller]:
    where = f"TICK_API_KEYS, entry {number}"
    if more or not KEY.fullmatch(key) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{where}: it is not name:scopes:key with a key such as this prints: "
            "python -c 'import secrets; print(\"tick_env_\" + secrets.token_urlsafe(32))'"
        )
    return digest(key), Caller(f"env:{name}", scopes=frozenset(check_scopes(scopes.split("+"), where)))


def check_scopes(scopes: Iterable[str], where: str) -> list[str]:
    """The scopes, each once. Raises ConfigurationError for one that does not exist."""
    # Not shown, since it may be a key in the wrong place.
    if not set(scopes) <= set(SCOPES):
        raise ConfigurationError(f"{where}: there is a scope that is none of {', '.join(SCOPES)}")
    return sorted(set(scopes))


@lru_cache(maxsize=8)
def rate(text: str) -> Rate:
    """How many calls a key may make. Raises ConfigurationError."""
    try:
        return parse_rate(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"api_rate (TICK_API_RATE): {error}") from None


def check(settings: Settings) -> None:
    """Raises ConfigurationError for keys or a rate that cannot be used."""
    from_environment(settings.api_keys)
    rate(settings.api_rate)


def create() -> tuple[str, str]:
    """A new key: its id, and the key itself, of 256 random bits."""
    id = secrets.token_hex(6)
    return id, f"tick_{id}_{secrets.token_urlsafe(32)}"


def check_name(name: str) -> str:
    """The name of a key. Raises ConfigurationError."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is not a name of 1 to 100 letters, digits, spaces and . _ -")
    return name
