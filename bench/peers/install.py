"""Peers are installed once, each in a folder of its own below a cache, and never beside what tick itself needs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PATIENCE = 600.0
"""Seconds that one installation may take."""


class NotInstalled(Exception):
    """A peer could not be installed; says why."""


def cache() -> Path:
    """Where peers are kept: TICK_BENCH_CACHE, or tick-bench in the user's cache."""
    named = os.environ.get("TICK_BENCH_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "tick-bench"


def python(name: str, requires: tuple[str, ...], interpreter: str = sys.executable) -> Path:
    """The interpreter of a virtual environment that holds these packages, for this Python."""

    def make(folder: Path) -> None:
        made = folder / "bin" / "python"
        _run(["uv", "venv", "--clear", "--python", interpreter, str(folder)], folder.parent)
        _run(["uv", "pip", "install", "--compile-bytecode", "--python", str(made), *requires], folder.parent)

    return _made(f"python-{name}", requires, make) / "bin" / "python"


def node(name: str, requires: tuple[str, ...]) -> Path:
    """A folder whose node_modules holds these packages."""

    def make(folder: Path) -> None:
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", *requires]
        try:
            _run(command, folder)
        except NotInstalled:
            # A machine whose own certificates vouch for a proxy needs those.
            _run(command, folder, NODE_EXTRA_CA_CERTS=CERTIFICATES)

    return _made(f"node-{name}", requires, make)


def _made(name: str, requires: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """The folder for exactly these packages, made when it is not there."""
    digest = hashlib.sha256("\n".join(requires).encode()).hexdigest()[:12]
    folder = cache() / f"{name}-{digest}"
    done = folder / "installed"
    with _alone():
        if not done.exists():
            print(f"  installing {', '.join(requires)} into {folder}, once", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make(folder)
            done.touch()
    return folder


@contextmanager
def _alone() -> Iterator[None]:
    """Two benchmarks at once install one after the other."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], folder: Path, **env: str) -> None:
    try:
        subprocess.run(
            command, cwd=folder, env=os.environ | env, capture_output=True, text=True, check=True, timeout=PATIENCE
        )
    except FileNotFoundError:
        raise NotInstalled(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{command[0]} {command[1]} took longer than {PATIENCE:g} s") from None
    except subprocess.CalledProcessError as error:
        raise NotInstalled(f"{command[0]} {command[1]} failed: {last_line(error.stderr or error.stdout)}") from None


def last_line(text: str) -> str:
    """What a program said last, which mostly says what went wrong; not where it says that it wrote a log."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "complete log" not in line]
    return lines[-1] if lines else "it said nothing"
