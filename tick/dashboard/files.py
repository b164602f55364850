"""The files of static/: kept by browsers for ever, since their URLs change with their content."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from tick.dashboard import shown
from tick.dashboard.desk import Refusal

FOREVER = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}


def serve(request: Request) -> Response:
    """The file that the path names, with the fingerprint of its content. Raises Refusal."""
    fingerprint, _, name = request.url.path.removeprefix("/dashboard/static/").partition("/")
    if name not in _names() or fingerprint != shown.fingerprint(name):
        raise Refusal(404, "Not found", "There is no such file.")
    if request.method not in ("GET", "HEAD"):
        raise Refusal(405, "Method not allowed", "This takes GET.", {"allow": "GET, HEAD"})
    is_small = "gzip" in request.headers.get("accept-encoding", "")
    encoding = {"content-encoding": "gzip"} if is_small else {}
    return Response(_content(name, is_small), headers=FOREVER | encoding, media_type=TYPES[Path(name).suffix])


@cache
def _names() -> frozenset[str]:
    return frozenset(path.name for path in (shown.FOLDER / "static").iterdir() if path.suffix in TYPES)


@cache
def _content(name: str, is_small: bool) -> bytes:
    content = (shown.FOLDER / "static" / name).read_bytes()
    return gzip.compress(content, 9, mtime=0) if is_small else content
