"""Who may call /tick: who bears the secret or an issuer's token, or signs as a webhook or as QStash; nobody else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import math
import time
from collections.abc import AsyncIterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from . import signing
from .config import Settings, TrustedIssuer, is_safe_url
from .errors import ConfigurationError

if TYPE_CHECKING:
    import httpx
    import jwt

LEEWAY = 60.0
"""Seconds by which the clock of who signs may differ from ours."""
LONGEST_BODY = 65_536
"""Bytes of a body that are read to verify its signature."""
BODY_SECONDS = 10.0
"""How long a body may take to arrive."""
LONGEST_TOKEN = 16_384
"""Characters of a signed token; those of GitHub and Google have about 2,000."""
ALGORITHMS = ("RS256", "ES256")
FETCH_SECONDS = 5.0
"""How long an issuer may take to tell its keys."""
LONGEST_DOCUMENT = 262_144
"""Bytes of each document of an issuer."""
KEPT_SECONDS = 3600.0
"""How long an issuer's keys are believed without asking again."""
REFETCH_SECONDS = 60.0
"""The least time between two requests for an issuer's keys, however many unknown keys tokens name."""
RETRY_SECONDS = 5.0
"""The same after a request that failed."""

logger = logging.getLogger("tick")


class Refused(Exception):
    """A credential that is not believed; the message is for the log and never for the caller."""


class BodyTooLong(Exception):
    """A body of more than LONGEST_BODY bytes, so that its signature cannot be verified."""


class KeysUnavailable(Exception):
    """An issuer's keys cannot be had, so that its tokens can be neither believed nor refused."""


def is_configured(settings: Settings) -> bool:
    """Whether there is any way to be let in."""
    return bool(settings.secrets or settings.inbound_secrets or _takes_qstash(settings) or settings.oidc)


def qstash_gap(settings: Settings) -> str | None:
    """Why QStash is not let in although its keys are set; None when it is, or they are not.

    No error, since an integration of Upstash sets them for its other products too.
    """
    if settings.qstash_keys and not settings.url:
        return "the signing keys of QStash are set and TICK_URL is not: set it to the URL of /tick that QStash calls"
    return None


def check(settings: Settings) -> None:
    """Raises ConfigurationError for a scheme that is configured and can never work."""
    for secret in settings.inbound_secrets:
        try:
            signing.check_secret(secret)
        except ConfigurationError as error:
            raise ConfigurationError(f"TICK_INBOUND_SECRETS: {error}") from None
    if settings.oidc and not (find_spec("jwt") and find_spec("cryptography")):
        raise ConfigurationError("[[tool.tick.oidc]] (TICK_OIDC) needs PyJWT: install tick-jobs[oidc]")


async def authenticate(headers: Headers, chunks: AsyncIterable[bytes], settings: Settings) -> str | None:
    """Who sent a request, by the first credential that is believed; None when there is none, and the log says why.

    `chunks` is the body, which is read only for a scheme that signs it. What a platform's own headers claim counts for
    nothing. Raises BodyTooLong, KeysUnavailable, and ConfigurationError for settings that cannot work.
    """
    check(settings)
    try:
        who = await _recognise(Caller(headers, chunks), settings)
    except Refused as refused:
        logger.warning("a caller was refused: %s", refused)
        return None
    logger.info("called by %s", who)
    return who


class Caller:
    """A request that is to be judged: its headers, and its body once it is needed."""

    def __init__(self, headers: Headers, chunks: AsyncIterable[bytes]) -> None:
        self.headers = headers
        self._chunks = chunks
        self._body: bytes | None = None

    def header(self, name: str) -> str | None:
        """The one header of this name; several are refused, since others might read another one of them."""
        given = self.headers.getlist(name)
        if len(given) > 1:
            raise Refused(f"it has {len(given)} headers {name}")
        return given[0] if given else None

    async def body(self) -> bytes:
        """The raw body, read once. Raises BodyTooLong, and Refused when it does not come."""
        if self._body is None:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    self._body = await self._read()
            except (TimeoutError, ClientDisconnect):
                raise Refused("its body did not arrive") from None
        return self._body

    async def _read(self) -> bytes:
        body = bytearray()
        async for chunk in self._chunks:
            body += chunk
            if len(body) > LONGEST_BODY:
                raise BodyTooLong
        return bytes(body)


async def _recognise(caller: Caller, settings: Settings) -> str:
    """By the first scheme that believes the caller. Raises Refused with the reasons of all that do not."""
    if "cross-site" in caller.headers.getlist("sec-fetch-site"):
        raise Refused("a browser sent it on behalf of another site")
    reasons = []
    for verify in (_bearer, _webhook, _qstash):
        try:
            if who := await verify(caller, settings):
                return who
        except Refused as refused:
            reasons.append(str(refused))
    raise Refused("; ".join(reasons) or "it shows no credential")


async def _bearer(caller: Caller, settings: Settings) -> str | None:
    given = caller.header("authorization")
    if given is None:
        return None
    scheme, _, token = given.partition(" ")
    if scheme.lower() != "bearer":
        raise Refused("its Authorization is no Bearer")
    if is_secret(token, settings.secrets):
        return "bearer"
    if settings.oidc and token.count(".") == 2:
        return await _token(token.strip(), settings.oidc)
    raise Refused("its bearer is not in CRON_SECRET")


def is_secret(given: str, secrets: Sequence[str]) -> bool:
    """Whether it is one of the secrets, or all of them, in a time that tells nothing about them.

    All of them, separated by commas, is what a platform sends that puts CRON_SECRET into the header as it is.
    """
    # Starlette reads headers as Latin-1, which gives back the very bytes that were sent.
    sent = given.encode("latin-1").strip()
    matches = [_is_same(sent, secret) for secret in secrets]
    if len(secrets) > 1:
        matches.append(
            _is_same(b",".join(part.strip() for part in sent.split(b",") if part.strip()), ",".join(secrets))
        )
    return any(matches)


def _is_same(given: bytes, secret: str) -> bool:
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(secret.encode()).digest())


async def _webhook(caller: Caller, settings: Settings) -> str | None:
    """Standard Webhooks 1.0.0."""
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    headers = {name: value for name in names if (value := caller.header(name)) is not None}
    if "webhook-signature" not in headers:
        return None
    if not settings.inbound_secrets:
        raise Refused("it has a webhook-signature, and TICK_INBOUND_SECRETS is not set")
    if not signing.verify(headers, await caller.body(), settings.inbound_secrets, time.time()):
        raise Refused("its webhook-signature is by none of TICK_INBOUND_SECRETS, or of another time or message")
    return "webhook"


def _takes_qstash(settings: Settings) -> bool:
    return bool(settings.qstash_keys and settings.url)


async def _qstash(caller: Caller, settings: Settings) -> str | None:
    """A JWT in Upstash-Signature, as upstash.com/docs/qstash/features/security describes it."""
    token = caller.header("upstash-signature")
    if token is None:
        return None
    if not _takes_qstash(settings):
        raise Refused("it has an Upstash-Signature, and QSTASH_CURRENT_SIGNING_KEY or TICK_URL is not set")
    claims = _signed_claims(token, settings.qstash_keys)
    _check_times(claims)
    _check_claim(claims, "iss", ("Upstash",))
    _check_claim(claims, "sub", (settings.url,))
    digest = _base64url(hashlib.sha256(await caller.body()).digest())
    _check_claim(claims, "body", (digest, digest + "="))
    return "qstash"


def _signed_claims(token: str, keys: Sequence[str]) -> dict[str, Any]:
    """The claims of a token that one of the keys has signed with HS256; nothing of it is read before that is sure."""
    content, _, signature = token.encode("latin-1").rpartition(b".")
    digests = [hmac.digest(key.encode(), content, hashlib.sha256) for key in keys]
    matches = [hmac.compare_digest(signature, _base64url(digest).encode()) for digest in digests]
    if not any(matches):
        raise Refused("its Upstash-Signature is by neither of QStash's signing keys")
    try:
        header, claims = (dict(json.loads(_base64url_decoded(segment))) for segment in content.split(b"."))
    except (ValueError, TypeError) as error:
        raise Refused(f"its Upstash-Signature is no token: {_shown(error)}") from None
    if header.get("alg") != "HS256" or "crit" in header:
        raise Refused(f"its Upstash-Signature has the header {_shown(header)}")
    return claims


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def _base64url_decoded(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def _check_times(claims: Mapping[str, Any]) -> None:
    now, nbf, exp = time.time(), claims.get("nbf"), claims.get("exp")
    if not isinstance(nbf, int | float) or not isinstance(exp, int | float):
        raise Refused(f"its nbf is {_shown(nbf)} and its exp is {_shown(exp)}")
    # Asked for what is right, and not for what is wrong, since neither is true of a NaN.
    if not nbf - LEEWAY <= now < exp + LEEWAY:
        raise Refused(f"it is valid from {nbf} to {exp}, and now is {now:.0f}")


def _check_claim(claims: Mapping[str, Any], name: str, allowed: Sequence[Any]) -> None:
    if claims.get(name) not in allowed:
        raise Refused(f"its {name} is {_shown(claims.get(name))} and not {' or '.join(map(_shown, allowed))}")


def _shown(value: Any) -> str:
    """What the log may hold of what a caller sent: one line, not long."""
    return f"{value!r:.200}"


async def _token(token: str, trusted: Sequence[TrustedIssuer]) -> str:
    """The issuer of a token that fits one of its tables. Raises Refused and KeysUnavailable."""
    import jwt

    if len(token) > LONGEST_TOKEN:
        raise Refused(f"its token has {len(token)} characters")
    try:
        # Unverified: it only chooses among the issuers that are configured, and the key that must have signed it.
        unverified = jwt.decode_complete(token, options={"verify_signature": False})
        issuer, id = unverified["payload"].get("iss"), unverified["header"].get("kid")
        tables = [each for each in trusted if each.issuer == issuer]
        _check_claim({"iss": issuer}, "iss", [each.issuer for each in trusted])
        claims = _verified(token, await _keys_of(tables[0].issuer).find(id), tables[0].issuer)
    except jwt.PyJWTError as error:
        raise Refused(f"its token is refused: {_shown(error)}") from None
    return _fitting(claims, tables)


def _verified(token: str, key: jwt.PyJWK, issuer: str) -> dict[str, Any]:
    """The claims of a token that is signed with the key, by the issuer, for now. Raises PyJWTError."""
    import jwt

    return jwt.decode(
        token,
        key,
        algorithms=ALGORITHMS,
        issuer=issuer,
        leeway=LEEWAY,
        options={"require": ["exp", "iss", "aud"], "verify_aud": False, "enforce_minimum_key_length": True},
    )


def _fitting(claims: Mapping[str, Any], tables: Sequence[TrustedIssuer]) -> str:
    reasons = []
    for table in tables:
        try:
            _check_pinned(claims, table)
        except Refused as refused:
            reasons.append(str(refused))
        else:
            return f"{table.issuer} {dict(table.claims)}"
    raise Refused("; ".join(reasons))


def _check_pinned(claims: Mapping[str, Any], table: TrustedIssuer) -> None:
    """Every claim exactly, and nothing but them: a token for others, too, could be used by those others."""
    _check_claim(claims, "aud", (table.audience, [table.audience]))
    for name, allowed in table.claims.items():
        _check_claim(claims, name, allowed)
    if "email" in table.claims and claims.get("email_verified") is not True:
        raise Refused(f"its email_verified is {_shown(claims.get('email_verified'))}")


class IssuerKeys:
    """The public keys of one issuer, by their ids.

    They are fetched when first needed, again after an hour, and again when a token names one that is not among them;
    never more often than once a minute, or once in five seconds while that fails.
    """

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._keys: dict[str, jwt.PyJWK] = {}
        self._good_until = self._not_before = -math.inf
        self._fetching = asyncio.Lock()

    async def find(self, id: str | None) -> jwt.PyJWK:
        """Raises KeysUnavailable when there are none to look in, Refused when it is not among them."""
        if not self._are_good() or id not in self._keys:
            async with self._fetching:
                await self._renew()
        if not self._are_good():
            raise KeysUnavailable(self.issuer)
        if id not in self._keys:
            raise Refused(f"its key {_shown(id)} is none of {self.issuer}")
        return self._keys[id]

    def _are_good(self) -> bool:
        return time.monotonic() < self._good_until

    async def _renew(self) -> None:
        if time.monotonic() < self._not_before:
            return
        try:
            self._keys = await _fetch_keys(self.issuer)
        except Exception as error:  # noqa: BLE001 - whatever an issuer's answer breaks, its keys cannot be had
            self._not_before = time.monotonic() + RETRY_SECONDS
            logger.error("the keys of %s cannot be had: %s", self.issuer, _shown(error))  # noqa: TRY400 - it says it all
        else:
            self._not_before = time.monotonic() + REFETCH_SECONDS
            self._good_until = time.monotonic() + KEPT_SECONDS


@cache
def _keys_of(issuer: str) -> IssuerKeys:
    return IssuerKeys(issuer)


async def _fetch_keys(issuer: str) -> dict[str, jwt.PyJWK]:
    """From where the issuer's discovery document says (OpenID Connect Discovery 1.0), and never where a token says."""
    import httpx
    import jwt

    async with asyncio.timeout(FETCH_SECONDS), httpx.AsyncClient(headers={"accept-encoding": "identity"}) as client:
        document = await _fetch(client, issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != issuer:
            raise ValueError(f"its discovery document is that of {document.get('issuer')!r}")
        keys = jwt.PyJWKSet.from_dict(await _fetch(client, document["jwks_uri"]))
    return {key.key_id: key for key in keys if key.key_id and key.public_key_use != "enc"}


async def _fetch(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """A JSON object, read to its bounded end without following redirects."""
    if not is_safe_url(url):
        raise ValueError(f"{url!r} is not https")
    body = bytearray()
    async with client.stream("GET", url) as response:
        if response.status_code != 200:
            raise ValueError(f"{url} answers {response.status_code}")
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > LONGEST_DOCUMENT:
                raise ValueError(f"{url} has more than {LONGEST_DOCUMENT} bytes")
    return dict(json.loads(body))
