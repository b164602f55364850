"""Signed texts that expire: for links in messages, and for the cookies of the dashboard."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Any

from .config import Settings
from .errors import ConfigurationError

if TYPE_CHECKING:
    from itsdangerous import URLSafeTimedSerializer

REPLAY = "replay"
"""The purpose of a link that replays dead jobs: {"type", "fingerprint"}, or {"type"} for all of a type."""
REPLAY_SECONDS = 86_400.0
LONGEST = 4096
"""Characters of a token that is looked at."""


def can_sign(settings: Settings) -> bool:
    """Whether there is anything to sign with."""
    return any(_secrets(settings))


def sign(settings: Settings, purpose: str, value: Any) -> str:
    """A token that holds the value, which is JSON, and the time: safe in a URL, readable by anybody, changed by nobody.

    Raises ConfigurationError when nothing is set to sign with.
    """
    if not can_sign(settings):
        raise ConfigurationError("there is nothing to sign with: set TICK_DASHBOARD_PASSWORD, or CRON_SECRET")
    return _serializer(settings, purpose).dumps(value)


def read(settings: Settings, purpose: str, token: str, seconds: float) -> Any:
    """What was signed for this purpose at most so many seconds ago; None for any other text."""
    from itsdangerous import BadData

    if len(token) > LONGEST or not token.isascii() or not can_sign(settings):
        return None
    try:
        return _serializer(settings, purpose).loads(token, max_age=int(seconds))
    except BadData:
        return None


def _serializer(settings: Settings, purpose: str) -> URLSafeTimedSerializer:
    from itsdangerous import URLSafeTimedSerializer

    # All of them, so that who was given one of them, such as a cron, cannot sign with it.
    key = _stretched(json.dumps(_secrets(settings)))
    return URLSafeTimedSerializer(key, salt=f"tick.{purpose}", signer_kwargs={"digest_method": hashlib.sha256})


@cache
def _stretched(secrets: str) -> bytes:
    """A key that costs 50 ms, once a process: who has a signed link could try passwords on it as fast as that."""
    return hashlib.scrypt(secrets.encode(), salt=b"tick.tokens", n=2**14, r=8, p=1, dklen=32)


def _secrets(settings: Settings) -> list[list[str]]:
    """What opens a door here, by what it is; sorted, since the order of a list of secrets says nothing."""
    password = [settings.dashboard_password] if settings.dashboard_password else []
    rest = (settings.secrets, settings.inbound_secrets, settings.qstash_keys, settings.api_keys)
    return [password, *(sorted(each) for each in rest)]
