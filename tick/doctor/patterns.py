"""Patterns of paths, as vercel.json, .vercelignore and path-to-regexp write them, turned into regular expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable

_GLOB = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]*\]|[{},]|[^*?\[{},]+|.", re.DOTALL)
_PARTS = {
    "**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")",
}  # fmt: skip
_PARAMETER = re.compile(r"(?P<slash>/?):\w+(?P<inner>\([^)]*\))?(?P<times>[*+?]?)|(?P<group>\([^)]*\)[*+?]?)")


def matches(pattern: str, path: str) -> bool:
    """Whether a glob with `*`, `**`, `?`, `[...]` and `{a,b}` matches the whole path.

    >>> [matches("{tests,docs}/**", path) for path in ("tests/test_web.py", "schedules.toml")]
    [True, False]
    """
    try:
        return re.fullmatch(_regular(pattern), path) is not None
    except re.error:
        return False


def _regular(pattern: str) -> str:
    parts, depth = [], 0
    for part in _GLOB.findall(pattern.removeprefix("./").removeprefix("/")):
        depth += (part == "{") - (part == "}")
        if part == "," and depth > 0:
            parts.append("|")
        else:
            parts.append(part if part.startswith("[") else _PARTS.get(part) or re.escape(part))
    return "".join(parts)


def ignores(lines: Iterable[str], path: str) -> str | None:
    """The line of an ignore file (gitignore's rules) that leaves a path out; None when it is kept.

    >>> ignores(["*.toml", "!schedules.toml"], "schedules.toml"), ignores(["docs/"], "docs/a/b.md")
    (None, 'docs/')
    """
    ignoring = None
    for line in (line.strip() for line in lines):
        if line and not line.startswith("#") and _is_ignored(line.removeprefix("!"), path):
            ignoring = None if line.startswith("!") else line
    return ignoring


def _is_ignored(pattern: str, path: str) -> bool:
    """By itself, or by a folder that holds it; a pattern without a slash counts in every folder."""
    name = pattern.rstrip("/")
    anchored = name if "/" in name else f"**/{name}"
    folders = path.split("/")
    places = ["/".join(folders[: end + 1]) for end in range(len(folders))]
    places = places[:-1] if pattern.endswith("/") else places
    return any(matches(anchored, place) for place in places)


def serves(source: str, path: str) -> bool:
    """Whether a `source` of redirects, such as `/old/:path*` or `/(.*)`, matches the path.

    >>> [serves(source, "/tick") for source in ("/:path*", "/(.*)", "/ticks", "/:page")]
    [True, True, False, True]
    """
    parts, end = [], 0
    for match in _PARAMETER.finditer(source):
        parts += [re.escape(source[end : match.start()]), _parameter(match)]
        end = match.end()
    parts.append(re.escape(source[end:]))
    try:
        return re.fullmatch("".join(parts), path) is not None
    except re.error:
        return False


def _parameter(match: re.Match[str]) -> str:
    if match["group"]:
        return match["group"]
    segment = match["inner"] or "[^/]+"
    repeated = f"{match['slash']}{segment}(?:/{segment})*"
    return {
        "*": f"(?:{repeated})?",
        "+": repeated,
        "?": f"(?:{match['slash']}{segment})?",
    }.get(match["times"], match["slash"] + segment)
