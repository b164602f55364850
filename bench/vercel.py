"""Vercel's own Python runtime, run as its platform does: it says on a socket where it serves, and is sent a request."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .peers import NotMeasured
from .rounds import Contender, Sample

REQUIRES = "vercel-runtime==0.24.1"
PATIENCE = 30.0
"""Seconds until it serves, and again until it answers."""
SECRET = "cold"
TICK, EMPTY = "Vercel: /tick, one due job", "Vercel: an empty Starlette app"

EMPTY_APP = """
import os

import psycopg
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def answer(request):
    async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        await connection.execute("select 1")
    return JSONResponse({"done": 1})


app = Starlette(routes=[Route("/tick", answer)])
"""


@dataclass(frozen=True)
class Call:
    """A cold call: the runtime started with the app of a module, and one request.

    Attributes:
        python: the interpreter of an environment that has the runtime.
        module: the app's, whose name is `app`.
        folder: the project's.
        env: the environment, beside the runtime's own.
        before: what to do first, which is not timed.
    """

    python: str
    module: str
    folder: Path
    env: dict[str, str]
    before: Callable[[], object]

    def __call__(self) -> Sample:
        """Milliseconds from the start of the process to the whole answer. Raises NotMeasured when there is none."""
        self.before()
        with listening() as (listener, path):
            started = time.perf_counter()
            process = subprocess.Popen(
                [self.python, "-m", "vercel_runtime.vc_init"],
                env=self.env | self._runtime(path),
                cwd=self.folder,
                stderr=subprocess.DEVNULL,
            )
            try:
                answered = get(f"http://127.0.0.1:{port(listener)}/tick")
                took = time.perf_counter() - started
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
        if answered.get("done") != 1:
            raise NotMeasured(f"it answered {answered}")
        return Sample(1000 * took)

    def _runtime(self, path: str) -> dict[str, str]:
        file = self.module.replace(".", "/") + ".py"
        return {
            "VERCEL": "1",
            "VERCEL_IPC_PATH": path,
            "CRON_SECRET": SECRET,
            "__VC_HANDLER_ENTRYPOINT": file,
            "__VC_HANDLER_ENTRYPOINT_ABS": str(self._source(file)),
            "__VC_HANDLER_MODULE_NAME": self.module,
            "__VC_HANDLER_VARIABLE_NAME": "app",
        }

    def _source(self, file: str) -> Path:
        folders = [self.folder, *map(Path, self.env.get("PYTHONPATH", "").split(os.pathsep))]
        return next(folder / file for folder in folders if (folder / file).exists())


def calls(python: str, folder: Path, env: dict[str, str], enqueue: Callable[[], object]) -> dict[str, Contender]:
    """tick with one due job, and an empty app that connects and queries once."""
    (folder / "empty_app.py").write_text(EMPTY_APP)
    return {
        TICK: Call(python, "tick.web", folder, env, enqueue),
        EMPTY: Call(python, "empty_app", folder, env, lambda: None),
    }


@contextmanager
def listening() -> Iterator[tuple[socket.socket, str]]:
    """A socket for what the runtime has to say, and its path."""
    with tempfile.TemporaryDirectory(prefix="tick-ipc-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/ipc.sock"
        listener.bind(path)
        listener.listen()
        listener.settimeout(PATIENCE)
        yield listener, path


def port(listener: socket.socket) -> int:
    """Where the runtime serves, as soon as it says so; what else it says is left unread. Raises NotMeasured."""
    said = b""
    try:
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE)
        while chunk := connection.recv(65_536):
            said += chunk
            for message in map(json.loads, said.split(b"\0")[:-1]):
                if message["type"] == "server-started":
                    return int(message["payload"]["httpPort"])
    except TimeoutError:
        pass
    raise NotMeasured(f"the runtime did not start: {said[:500]!r}")


def get(url: str) -> dict[str, object]:
    """The answer, as Vercel's cron asks."""
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "User-Agent": "vercel-cron/1.0",
        "x-vercel-internal-invocation-id": "1",
        "x-vercel-internal-request-id": "1",
        "x-vercel-internal-span-id": "1",
        "x-vercel-internal-trace-id": "1",
    }
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE) as response:
        answer: dict[str, object] = json.load(response)
    return answer
