"""Standard Webhooks 1.0.0: signing what tick sends, verifying what it is sent."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence

from .errors import ConfigurationError

PREFIX = "whsec_"
TOLERANCE = 300.0
"""Seconds that a timestamp may differ from the clock: five minutes, as in the official libraries."""
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SHAPE = (
    "a signing secret is whsec_ and the base64 of 24 to 64 random bytes; "
    'make one with: echo "whsec_$(openssl rand -base64 32)"'
)


def sign(id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The headers that prove where `body` comes from, with one signature for each secret.

    `id` names the message and stays the same when it is sent again; `timestamp` is when it is sent, in Unix seconds.
    Raises ConfigurationError for a secret that is none, and for an `id` that is empty or holds a dot or a space.
    Source: the Standard Webhooks specification, 1.0.0, "Webhook metadata" and "Signature scheme".
    """
    if not is_id(id):
        raise ConfigurationError(f"the webhook id {id!r} must be printable ASCII without a dot or a space")
    content = _content(id, str(timestamp), body)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(check_secret(secret), content) for secret in secrets),
    }


def verify(
    headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float, tolerance: float = TOLERANCE
) -> bool:
    """Whether any of the message's signatures is by any of the secrets, and `now` within `tolerance` of its timestamp.

    `now` is in Unix seconds, `tolerance` in seconds. Names of headers are read in any case. What is malformed,
    a secret of ours among it, is False and no exception; compared in constant time.
    """
    given = {name.lower(): value for name, value in headers.items() if isinstance(name, str)}
    id, timestamp, signatures = (given.get(f"webhook-{part}") for part in ("id", "timestamp", "signature"))
    if not (isinstance(id, str) and isinstance(timestamp, str) and isinstance(signatures, str)):
        return False
    if not (is_id(id) and _TIMESTAMP.fullmatch(timestamp) and abs(now - int(timestamp)) <= tolerance):
        return False
    content = _content(id, timestamp, body)
    offered = [text.encode("utf-8", "surrogatepass") for text in signatures.split(" ")]
    expected = [_signature(key, content).encode() for key in _keys(secrets)]
    return any(hmac.compare_digest(mine, theirs) for mine in expected for theirs in offered)


def check_secret(text: str) -> bytes:
    """The key that a secret stands for. Raises ConfigurationError, without the secret, for a text that is none."""
    try:
        # Strictly: other decoders skip what is not base64, and would sign with another key than this one.
        key = base64.b64decode(text.removeprefix(PREFIX).encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ConfigurationError(f"the secret is not base64: {_SHAPE}") from None
    if not text.startswith(PREFIX):
        raise ConfigurationError(f"the secret does not start with {PREFIX}: {_SHAPE}")
    if not 24 <= len(key) <= 64:
        raise ConfigurationError(f"the secret is {len(key)} bytes long: {_SHAPE}")
    return key


def is_id(text: str) -> bool:
    # A dot in the id would let one signature fit two messages: id and timestamp are joined by dots.
    return text.isascii() and text.isprintable() and bool(text) and not set(text) & {".", " "}


def _content(id: str, timestamp: str, body: bytes) -> bytes:
    return f"{id}.{timestamp}.".encode() + body


def _signature(key: bytes, content: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def _keys(secrets: Sequence[str]) -> Iterator[bytes]:
    for secret in secrets:
        try:
            yield check_secret(secret)
        except ConfigurationError:
            continue
