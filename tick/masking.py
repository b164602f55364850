"""Secrets taken out of what people and logs see: by the names of members, and by what secrets look like.

Everything here takes time in proportion to its input, and never fails: names are only looked at where a word begins,
quantifiers are possessive where they could give back, and containers are walked without recursion.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from .config import Settings

MASK = "••••••"
SHORTEST_KNOWN = 6
"""Characters below which a secret of this process is not looked for: it would be found in half of all texts."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]++|[0-9]++|[^\W_A-Za-z0-9]++")
_SECRET = re.compile(
    r"(?:^|_)(?:"
    r"[a-z0-9]*(?:passwords?|passwd|passphrase|passcode|secrets?|tokens?|credentials?|authorization|apikeys?)"
    r"|pass|pwd|pw|cookies?|sessionid|ssn|cvv|cvc|otp|pin|jwt"
    r"|(?:credit|debit)?card(?=$|_(?:number|no|pan|data|details?)(?:_|$))|cardnumber"
    r"|(?:api|private|secret|access|signing|encryption|master|ssh|auth|account|service|webhook|licen[cs]e)_?keys?"
    r"|signatures?|sig|bearer|dsn|totp|mnemonic|iban|auth_header|account_number|seed_phrase"
    r"|webhook_urls?|(?:magic|reset)_links?"
    r")(?:_|$)|(?:^|_)auth$|^(?:tick_)?session$|^(?:connect_)?sid$|^tick_device$"
)
_HARMLESS = re.compile(
    r"_(?:id|ids|type|types|kind|name|names|count|counts|length|size|limit|usage|used|total|brand|last_?4"
    r"|at|in|on|until|expires|expired|expiry|expiration|ttl|exp|policy|consent|hint|version|status|set"
    r"|strength|algorithm|method"
    r"|declined|error|errors|exception|required|refused|rejected|denied|invalid|missing|found|warning)$"
    r"|^(?:max|min|num|number_of|n|total|used|prompt|completion|input|output|cached|reasoning)_(?:[a-z]+_)?tokens$"
    r"|^(?:has|is|needs)_|(?:^|_)(?:page|cursor|continuation)_token$"
)
"""What tells of a secret, and is none: card_id, token_type, password_changed_at, TokenError, max_tokens, page_token."""
_NUMBERS = re.compile(r"(?i)(?:^|[\W_])tokens$")
"""What may be a number of something, where it is a number."""

_NAME = re.compile(
    r"""(?:(?<![\w.-])|(?<=%[0-9A-Fa-f]{2}))(?P<name>[A-Za-z_][\w.-]*+)"""
    r"""(?:\\*+["'])?+\]?+\s?+(?:(?P<colon>:\s)|(?:=>|[:=])\s?+|%3[Dd])"""
)
_VALUE = re.compile(
    r"(?!(?:None|null|[Tt]rue|[Ff]alse)\b)(?:"
    r"(?i:bearer|basic|token|digest)\s++[^\s,;\"'<>]++"
    r"|v1a?,[\w+/=-]++(?:\s++v1a?,[\w+/=-]++)*+|t=[0-9]++(?:,v[0-9]=\w++)++"
    r"|[bru]?\"(?:[^\"\\]|\\.)++\"?+"
    r"|[bru]?'(?:[^'\\]|\\.)++'?+"
    r"|\\+\"[^\"]++\"?+"
    r"|[\[{(][^\]})]++[\]})]?+"
    r"|[^\s&;,\"'<>)\]}]++(?:;\s?[^\s=;,\"']++=[^\s;,\"']*+)*+"
    r")",
    re.DOTALL,
)
_WORD = re.compile(r"(?:(?i:basic|token|digest)\s++)?(?:[A-Za-z][a-z]{0,18}|[A-Z]{1,19})[.:!?]?")
"""What a sentence goes on with after a colon: `token: unexpected`. A secret has a digit, a symbol or mixed case."""
_NUMBER = re.compile(r"[0-9][0-9_.]*+")
_CURL = re.compile(r"(\s(?:-u\s?|--user[\s=])[\"']?[^\s:\"']{1,100}+:)[^\s\"']++")
"""Of an option so short only where the text speaks of curl: elsewhere it may be the user of a container."""
_SHAPES = re.compile(
    r"(?P<kept>://[^\s/?#@:\"'<>]*+:)[^\s/\"'<>]+(?=@)"
    r"|(?P<prefix>hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/"
    r"|hooks\.zapier\.com/|\.webhook\.office\.com/|/dashboard/replay/)[^\s\"'<>|)]++"
    r"|(?P<scheme>\b(?i:bearer)\s++)[\w.~+/=-]++"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]*+(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
    r"|(?<![\w-])(?:"
    r"tick_(?:env|[0-9a-f]{12})_[\w-]{20,}+|tick_[a-z0-9]{1,32}_(?=[a-z_-]*+[A-Z0-9])[\w-]{32,}+|bot[0-9]++:[\w-]{30,}+"
    r"|hf_\w{16,}+|do[opr]_v1_\w{16,}+"
    r"|eyJ[\w-]++\.[\w-]++\.[\w-]*+"
    r"|[rs]k_(?:live|test)_\w{4,}+|sk-[\w-]{16,}+|whsec_[\w+/=-]++|gh[opsru]_\w{16,}+|github_pat_\w{16,}+"
    r"|glpat-[\w-]{16,}+|xox[a-z](?:\.[a-z]+)?-[\w-]++|xapp-[\w-]{8,}+|A[KS]IA[A-Z0-9]{16}(?![\w-])|AIza[\w-]{35}+"
    r"|SG\.[\w-]{16,}+\.[\w-]++|npm_\w{30,}+|pypi-[\w-]{40,}+|shp(?:at|ca|pa|ss)_\w{16,}+"
    r")"
)


def is_secret(name: str) -> bool:
    """Whether a member of this name holds a secret, judged by its words: apiKey does, card_id and discard do not."""
    words = "_".join(_WORDS.findall(name)).lower()
    return _SECRET.search(words) is not None and _HARMLESS.search(words) is None


def mask(value: Any, known: Iterable[str] = ()) -> Any:
    """A copy of a JSON value without what looks like a secret; what is empty, true or null says nothing, and stays.

    `known` are secrets of this process, as `known_secrets` gives them.
    """
    known, top = tuple(known), [value]
    unseen: list[Any] = [top]
    while unseen:
        container = unseen.pop()
        for place, item in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(place, str) and is_secret(place):
                container[place] = _mask_secret(place, item, known)
                if isinstance(container[place], dict):
                    unseen.append(container[place])
            elif isinstance(item, str):
                container[place] = mask_text(item, known)
            elif isinstance(item, dict):
                container[place] = {_mask_name(name, known): member for name, member in item.items()}
                unseen.append(container[place])
            elif isinstance(item, list | tuple):
                container[place] = list(item)
                unseen.append(container[place])
    return top[0]


def mask_text(text: str, known: Iterable[str] = ()) -> str:
    """The text without what looks like a secret: `password=...`, tokens of known shapes, passwords in URLs.

    `known` are secrets of this process, as `known_secrets` gives them: the longest first.
    """
    for secret in known:
        text = text.replace(secret, MASK)
    text = _SHAPES.sub(_mask_shape, _mask_named(text))
    return _CURL.sub(rf"\1{MASK}", text) if "curl" in text else text


def known_secrets(settings: Settings) -> tuple[str, ...]:
    """The secrets that these settings hold, in every form in which a text may have them, the longest first."""
    urls = (settings.database_url, settings.smtp_url)
    keys = (key.split(":", 2)[-1] for key in settings.api_keys)
    named = (secret for secrets in settings.named_secrets.values() for secret in secrets)
    secrets = [*settings.secrets, *settings.inbound_secrets, *settings.qstash_keys, *keys, *named]
    secrets += [settings.dashboard_password or "", *map(_password, urls)]
    forms = {form for secret in secrets if len(secret) >= SHORTEST_KNOWN for form in _forms(secret)}
    return tuple(sorted(forms, key=len, reverse=True))


def _mask_secret(name: str, value: Any, known: tuple[str, ...]) -> Any:
    """What is shown of the value of a secret name; of a card all but what would be secret by itself."""
    if not value or value is True or (isinstance(value, int | float) and _NUMBERS.search(name)):
        return value
    if isinstance(value, dict) and name.lower().endswith("card"):
        shown = {member: MASK if item and is_secret(f"card_{member}") else item for member, item in value.items()}
        return {_mask_name(member, known): item for member, item in shown.items()}
    return MASK


def _mask_name(name: Any, known: tuple[str, ...]) -> Any:
    return mask_text(name, known) if isinstance(name, str) else name


def _mask_named(text: str) -> str:
    """The text without what is said of secrets by name; the value is read only where the name is a secret's."""
    pieces, at = [], 0
    for found in _NAME.finditer(text):
        if found.start() < at or not is_secret(found["name"]):
            continue
        if (value := _VALUE.match(text, found.end())) and not _is_told(found, value[0]):
            pieces += [text[at : found.end()], MASK]
            at = value.end()
    return "".join([*pieces, text[at:]])


def _is_told(found: re.Match[str], value: str) -> bool:
    """Whether what follows the name of a secret is but a word about it, or a number of them."""
    if _NUMBERS.search(found["name"]) and _NUMBER.fullmatch(value):
        return True
    return found["colon"] is not None and _WORD.fullmatch(value) is not None


def _mask_shape(found: re.Match[str]) -> str:
    return (found["kept"] or found["prefix"] or found["scheme"] or "") + MASK


def _password(url: str | None) -> str:
    try:
        return unquote(urlsplit(url or "").password or "")
    except ValueError:
        return ""


def _forms(secret: str) -> set[str]:
    """A secret as it is, as it stands in a URL, and as JSON and PHP's JSON write it."""
    written = encode_basestring_ascii(secret)[1:-1]
    in_urls = {quote(secret, safe=safe, errors="surrogateescape") for safe in ("/", "")}
    return {secret, written, written.replace("/", "\\/")} | in_urls
