"""How values are shown: the templates, and the filters and functions that they have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tick import masking, verdict

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
NEAR = 20 * 3600.0
"""Seconds within which an hour needs no day beside it."""
LONGEST_TEXT = 256 * 1024
"""Characters of a text or of JSON that a page shows."""


def render(template: str, values: dict[str, Any]) -> str:
    """The page that the template makes of the values, all of which are escaped."""
    return environment().get_template(template).render(values)


@cache
def environment() -> Environment:
    """The templates of this package."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context

    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"quote": quoted, "exact": exact, "progress": progress}
    made.filters |= {
        "mask_text": pass_context(lambda context, text: mask_text(text, context["known"])),
        "pretty": pass_context(lambda context, value: pretty(value, context["known"])),
    }
    made.globals |= {
        "ago_in_words": ago,
        "clock_in_utc": clock,
        "count_in_words": verdict.count,
        "duration_in_words": verdict.duration,
        "every_in_words": verdict.every,
        "first_line": pass_context(lambda context, text: first_line(text, context["known"])),
        "listed": verdict.listed,
        "static": static,
        "words": words,
    }
    return made


def static(name: str) -> str:
    """The URL of a file of static/, which changes with its content."""
    return f"/dashboard/static/{fingerprint(name)}/{name}"


@cache
def fingerprint(name: str) -> str:
    """What the URL of a file of static/ says of its content."""
    return hashlib.sha256((FOLDER / "static" / name).read_bytes()).hexdigest()[:12]


def ago(instant: datetime, now: datetime) -> str:
    """How long it has been, or will be, in words.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> ago(noon, noon.replace(minute=14))
    '14 min ago'
    """
    return verdict.ago((now - instant).total_seconds())


def exact(instant: datetime) -> str:
    """The instant in UTC, to the second.

    >>> exact(datetime(2026, 1, 1, 12, tzinfo=UTC))
    '2026-01-01 12:00:00 UTC'
    """
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(instant: datetime, now: datetime) -> str:
    """The instant in UTC, as short as it is clear.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> clock(noon, noon.replace(hour=20)), clock(noon, noon.replace(day=3))
    ('12:00:00', '1 Jan 12:00')
    """
    at = instant.astimezone(UTC)
    is_near = abs((now - instant).total_seconds()) < NEAR
    return f"{at:%H:%M:%S}" if is_near else f"{at.day} {at:%b %H:%M}"


def quoted(text: str) -> str:
    """A text as one segment of a path, or one value of a query."""
    from urllib.parse import quote

    return quote(text, safe="")


# A secret that is cut is not known for one any more: so what is masked is bounded, and not the other way round.


def mask_text(text: object, known: Iterable[str] = ()) -> str:
    """A text without what looks like a secret or is a known one, as far as a page shows it."""
    return _bounded(masking.mask_text("" if text is None else str(text), known))


def first_line(text: str, known: Iterable[str] = ()) -> str:
    """The beginning of a text, likewise."""
    return verdict.first_line(masking.mask_text(text, known))


def pretty(value: Any, known: Iterable[str] = ()) -> str:
    """A JSON value as people read it, likewise."""
    return _bounded(json.dumps(masking.mask(value, known), indent=2, ensure_ascii=False, default=str))


def _bounded(text: str) -> str:
    more = len(text) - LONGEST_TEXT
    return text if more <= 0 else f"{text[:LONGEST_TEXT]}\n… and {more:,} more characters"


def progress(value: Any) -> dict[str, Any] | None:
    """How far a job says that it is, whatever it has written there.

    >>> progress({"note": 7}), progress([1])
    ({'done': '?', 'total': None, 'note': 7}, None)
    """
    if not isinstance(value, dict) or not value:
        return None
    return {"done": value.get("done", "?"), "total": value.get("total"), "note": value.get("note")}


def words(schedule: Any) -> str:
    """A schedule's rule in words."""
    from tick import cron_words

    return cron_words.describe(schedule)
