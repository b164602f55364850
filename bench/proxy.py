"""A network in front of a Postgres: each way takes half a round trip, and the round trips are counted.

It runs in a process of its own, so that it takes no time from the tick that is measured, and in threads, since a timer
of asyncio's loop is up to a millisecond late.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias
from urllib.parse import parse_qs, urlsplit

from .questions import Server

CHUNK = 1 << 18
SPAWN = multiprocessing.get_context("spawn")
"""Processes that begin afresh: a fork would take over the connections and the event loop of the benchmark."""
Seconds: TypeAlias = "Synchronized[float]"
Count: TypeAlias = "Synchronized[int]"
SSL_REQUEST = 8
"""Bytes of what a client sends to ask for TLS."""


class Certificate(NamedTuple):
    """What the far end of a network with TLS shows."""

    cert: Path
    key: Path


def self_signed(folder: Path) -> Certificate:
    """A new certificate of localhost, good for a day."""
    made = Certificate(folder / "proxy.crt", folder / "proxy.key")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", made.key, "-out", made.cert], check=True, capture_output=True)
    return made


class Proxy:
    """A network on 127.0.0.1 to one private Postgres; a context manager.

    `delay` is a round trip in seconds, for the connections that begin after it was set. With a certificate the far end
    ends TLS, as a pooler does: the client's part of it is the same.
    """

    def __init__(self, server: Server, certificate: Certificate | None = None) -> None:
        self.server, self.certificate = server, certificate
        self._delay, self._turns = SPAWN.Value("d", 0.0), SPAWN.Value("q", 0)
        self._process: SpawnProcess | None = None
        self.port = 0

    def __enter__(self) -> Self:
        ours, theirs = SPAWN.Pipe()
        network = Network(_socket_path(self.server), self.certificate, self._delay, self._turns)
        self._process = SPAWN.Process(target=network.serve, args=[theirs], daemon=True)
        self._process.start()
        self.port = ours.recv()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process:
            self._process.kill()
            self._process.join()

    def url(self, database: str, user: str = "postgres", **options: str) -> str:
        """Where a database of the server is, on this side of the network; libpq's options as they are."""
        given = {"sslmode": "require" if self.certificate else "disable", "gssencmode": "disable"} | options
        told = "&".join(f"{name}={value}" for name, value in given.items())
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?{told}"

    @property
    def delay(self) -> float:
        """Seconds of a round trip."""
        return float(self._delay.value)

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._delay.value = seconds

    @property
    def round_trips(self) -> int:
        """How often a client has had to wait for the network since the start: a TCP handshake is once, too."""
        return int(self._turns.value)


def _socket_path(server: Server) -> str:
    (folder,) = parse_qs(urlsplit(server.urls).query)["host"]
    return f"{folder}/.s.PGSQL.5432"


class Network:
    """What the proxy's own process does: two threads for each way of each connection."""

    def __init__(self, target: str, certificate: Certificate | None, delay: Seconds, turns: Count) -> None:
        self.target = target
        self.certificate = certificate
        self.delay, self.turns = delay, turns

    def serve(self, told: Connection) -> None:
        """Tell the port, and carry whatever comes, until the process is killed."""
        far_end = _far_end(self.target, self.certificate) if self.certificate else None
        with socket.create_server(("127.0.0.1", 0), backlog=64) as near_end:
            told.send(near_end.getsockname()[1])
            while True:
                client, _ = near_end.accept()
                self.connect(client, _connected(far_end or self.target))

    def connect(self, client: socket.socket, server: socket.socket) -> None:
        """Carry between the two, from after the round trip that a TCP handshake takes."""
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        delay, turns = self.delay.value, Turns(self.turns)
        opened = time.monotonic() + delay
        Way(client, server, delay / 2, opened).start(turns.sent, turns.arrived)
        Way(server, client, delay / 2, opened).start(turns.answered, turns.heard)


class Turns:
    """Counts how often a client has waited: what it sent after it had heard something has arrived and is answered."""

    def __init__(self, count: Count) -> None:
        self.count = count
        self.has_heard, self.is_sent, self.has_arrived = True, False, False
        self._add()

    def sent(self, piece: bytes) -> None:
        """The client sends. What it had not heard anything before goes with the piece before; one that left is gone."""
        self.is_sent = bool(piece) and (self.is_sent or self.has_heard)
        self.has_heard = False

    def arrived(self) -> None:
        """The server is about to have it."""
        self.has_arrived = self.is_sent

    def answered(self, _piece: bytes) -> None:
        """The server sends, be it an answer or what was under way already."""
        if self.is_sent and self.has_arrived:
            self.is_sent = self.has_arrived = False
            self._add()

    def heard(self) -> None:
        """The client is about to have it."""
        self.has_heard = True

    def _add(self) -> None:
        with self.count.get_lock():
            self.count.value += 1


class Way:
    """One direction of a connection: each piece arrives so long after it was sent, and waits for no other's delay."""

    def __init__(self, source: socket.socket, target: socket.socket, seconds: float, opened: float) -> None:
        self.source, self.target = source, target
        self.seconds, self.opened = seconds, opened
        self.under_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()

    def start(self, taken: Callable[[bytes], None], given: Callable[[], None]) -> None:
        """Carry from now on, and call `taken` and `given` at either end."""
        for work in (partial(self.take, taken), partial(self.give, given)):
            threading.Thread(target=work, daemon=True).start()

    def take(self, taken: Callable[[bytes], None]) -> None:
        """Take pieces in until the sender has no more, which is the last, an empty one."""
        piece = b"anything"
        while piece:
            piece = self._received()
            taken(piece)
            self.under_way.put((max(time.monotonic(), self.opened) + self.seconds, piece))

    def _received(self) -> bytes:
        with contextlib.suppress(OSError):
            return self.source.recv(CHUNK)
        return b""

    def give(self, given: Callable[[], None]) -> None:
        """Give each out when it is due."""
        with contextlib.suppress(OSError):
            while True:
                due, piece = self.under_way.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not piece:
                    return self.target.shutdown(socket.SHUT_WR)
                given()
                self.target.sendall(piece)


def _connected(target: str | int) -> socket.socket:
    """A connection to a port of this machine, or to a Unix socket."""
    if isinstance(target, int):
        return socket.create_connection(("127.0.0.1", target))
    made = socket.socket(socket.AF_UNIX)
    made.connect(target)
    return made


# The end of TLS


def _far_end(target: str, certificate: Certificate) -> int:
    """The port of a server that ends TLS and hands on what was in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    port: SimpleQueue[int] = SimpleQueue()
    threading.Thread(target=lambda: asyncio.run(_end_tls(target, context, port)), daemon=True).start()
    return port.get()


async def _end_tls(target: str, context: ssl.SSLContext, port: SimpleQueue[int]) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(SSL_REQUEST)
            writer.write(b"S")
            await writer.start_tls(context)
            from_server, to_server = await asyncio.open_unix_connection(target)
            await asyncio.gather(_hand_on(reader, to_server), _hand_on(from_server, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(CHUNK):
        writer.write(piece)
        await writer.drain()
    writer.close()
