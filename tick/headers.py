"""What the headers of a request to the API say: an Idempotency-Key, a trace, a CloudEvent, the type of the body."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers

from .reading import Reading
from .refusals import Refused

# RFC 8941, section 3.3.3: a String; and what nearly everybody sends, which is one without its quotes.
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_BARE = re.compile(r"[!#-+\--:<-\[\]-~]{1,255}")
IDEMPOTENCY_KEY = f"^(?:{_QUOTED.pattern}|{_BARE.pattern})$"
"""What an Idempotency-Key looks like, as a regular expression for the description."""
# W3C Trace Context, section 3.2: version ff and identifiers of zeros are invalid; later versions may be longer.
_TRACEPARENT = re.compile(
    r"((?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:(?<!^00-.{52})-.*)?"
)


def idempotency_key(headers: Headers) -> str | None:
    """The key of draft-ietf-httpapi-idempotency-key-header-07. Raises Refused when it is malformed."""
    given = headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) == 1:
        if match := _QUOTED.fullmatch(given[0]):
            return re.sub(r'\\(["\\])', r"\1", match[1])
        if _BARE.fullmatch(given[0]):
            return given[0]
    raise Refused("malformed-idempotency-key", 'send one text of 1 to 255 characters, such as "8e03978e-40d5-43dd"')


def traceparent(headers: Headers) -> str | None:
    """The trace that a request belongs to; a malformed one is ignored, as W3C Trace Context, section 4.3, says."""
    given = headers.getlist("traceparent")
    match = _TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
    return match[1] if match else None


def check_media_type(headers: Headers) -> None:
    """Raises Refused unless the body is said to be JSON, or nothing is said of it."""
    given = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if given != "application/json":
        raise Refused(
            "unsupported-media-type",
            f"send `Content-Type: application/json`, and not {given[:100] or 'an empty one'!r}",
            {"accept-post": "application/json"},
        )


def is_event(headers: Headers) -> bool:
    """Whether the request is a CloudEvent in binary mode."""
    return "ce-specversion" in headers


def event(headers: Headers, data: Any) -> dict[str, Any]:
    """The job that a CloudEvent asks for: its type is the event's, and what came with it before is not made again.

    Source: CloudEvents 1.0.2, HTTP Protocol Binding, section 3.1. Raises Refused.
    """
    reading = Reading()
    said = {name: unquote(headers.get(f"ce-{name}", "")) for name in ("specversion", "type", "source", "id")}
    if said["specversion"] != "1.0":
        reading.wrong("ce-specversion", "only CloudEvents 1.0 are understood")
    for name in ("type", "source", "id"):
        if not said[name]:
            reading.wrong(f"ce-{name}", "it is missing")
    reading.done()
    return {"type": said["type"], "payload": data, "idempotency_key": f"{said['source']} {said['id']}"}
