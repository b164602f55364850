"""What a network does: replies that are lost after the commit, connections that die, a server that cannot write."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

import tick as public
from tests.factories import job, jobs, statuses, tick, wait_until
from tick.config import GRACE
from tick.errors import DatabaseUnavailable

pytestmark = pytest.mark.usefixtures("empty_registry")


class Proxy:
    """Stands before Postgres on a socket of its own. `lose(n)`: forward the n-th request from now, and drop its reply."""

    def __init__(self, url: str) -> None:
        self.server = Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432"
        self.folder = Path(mkdtemp(prefix="tp-"))
        self.url = url.replace(str(self.server.parent), str(self.folder))
        self.requests = 0
        self.lost = 0
        self.refused = 0
        self.refusing = False
        self._lose_at: int | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / ".s.PGSQL.5432"))
        self._listener.listen(16)
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, n: int) -> None:
        self._lose_at = self.requests + n

    def restart(self) -> None:
        """Drop every connection, and refuse new ones until `refusing` is False again."""
        self.refusing = True
        for pair in self._pairs:
            self._hang_up(*pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                self.refused += 1
                self._hang_up(client)
                continue
            upstream = socket.socket(socket.AF_UNIX)
            upstream.connect(str(self.server))
            self._pairs.append((client, upstream))
            threading.Thread(target=self._requests, args=(client, upstream), daemon=True).start()
            threading.Thread(target=self._replies, args=(client, upstream), daemon=True).start()

    def _requests(self, client: socket.socket, upstream: socket.socket) -> None:
        while data := self._read(client):
            # A request ends with a Sync ("S", length 4), and in a pipeline with a Flush after it.
            self.requests += b"S\x00\x00\x00\x04" in data[-10:]
            with contextlib.suppress(OSError):
                upstream.sendall(data)

    def _replies(self, client: socket.socket, upstream: socket.socket) -> None:
        while data := self._read(upstream):
            # A reply is whole with ReadyForQuery ("Z", length 5, idle): the commit has happened by then.
            whole = data[-6:-1] == b"Z\x00\x00\x00\x05"
            if self._lose_at is not None and self.requests >= self._lose_at:
                if whole:
                    self._lose_at, self.lost = None, self.lost + 1
                    break
                continue
            client.sendall(data)
        self._hang_up(client, upstream)

    @staticmethod
    def _hang_up(*ends: socket.socket) -> None:
        for end in ends:
            # A close alone is not sent while another thread waits in a recv.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    @staticmethod
    def _read(source: socket.socket) -> bytes:
        try:
            return source.recv(1 << 20)
        except OSError:
            return b""

    def close(self) -> None:
        self._hang_up(self._listener, *(end for pair in self._pairs for end in pair))


@pytest.fixture
def proxy(url):
    standing = Proxy(url)
    yield standing
    standing.close()


@pytest.mark.parametrize("at", [2, 3, 5, 8])
def test_a_commit_whose_reply_is_lost_is_neither_repeated_nor_forgotten(conn, settings, proxy, at):
    ran: list[int] = []

    @public.job(type="noop")
    async def work(ctx: public.Context) -> None:
        ran.append(ctx.id)

    jobs(conn, count=300)
    proxy.lose(at)
    report = tick(settings, database_url=proxy.url, batch_size=40)
    assert proxy.lost == 1
    assert statuses(conn) == {"done": 300}
    assert (report.done, report.stale) == (300, 0)
    # What the lost reply had claimed was given back unrun, and claimed anew.
    assert sorted(ran) == list(range(1, 301))


def test_a_server_that_restarts_in_the_middle_of_a_tick_is_waited_for(conn, settings, proxy):
    restarted = []

    @public.job(type="noop")
    def work() -> None:
        if not restarted:
            restarted.append(1)
            proxy.restart()
            wait_until(lambda: proxy.refused >= 3)
            proxy.refusing = False

    jobs(conn, count=100)
    report = tick(settings, database_url=proxy.url, batch_size=20)
    assert (report.done, report.stale, statuses(conn)) == (100, 0, {"done": 100})


def test_a_follow_up_is_not_doubled_when_the_reply_to_its_commit_is_lost(conn, settings, proxy):
    @public.job
    async def second() -> None: ...

    @public.job
    async def first(ctx: public.Context) -> None:
        ctx.enqueue(second)

    jobs(conn, "first", 1)
    proxy.lose(2)
    tick(settings, database_url=proxy.url)
    assert proxy.lost == 1
    assert conn.execute("select type, status from tick.jobs order by id").fetchall() == [
        ("first", "done"),
        ("second", "done"),
    ]


def test_an_enqueue_whose_reply_is_lost_can_be_repeated_with_its_key(conn, proxy):
    @public.job
    def once() -> None: ...

    with psycopg.connect(proxy.url, autocommit=True) as first:
        proxy.lose(1)
        with pytest.raises(psycopg.OperationalError):
            once.using(idempotency_key="k").enqueue(first)
    with psycopg.connect(proxy.url, autocommit=True) as second:
        again = once.using(idempotency_key="k").enqueue(second)
    assert (again, again.created) == (1, False)
    assert conn.execute("select count(*) from tick.jobs").fetchone() == (1,)


def test_a_first_round_trip_that_is_lost_costs_its_claims_a_lease_and_no_more(conn, settings, proxy):
    @public.job(type="noop")
    async def work() -> None: ...

    jobs(conn, count=5)
    proxy.lose(1)
    with pytest.raises(DatabaseUnavailable):
        tick(settings, database_url=proxy.url)
    assert statuses(conn) == {"running": 5}
    conn.execute("update tick.jobs set lease_expires_at = tick.now()")
    assert tick(settings).done == 5


def test_a_server_that_only_reads_is_no_server(conn, settings, url):
    @public.job(type="noop")
    async def work() -> None: ...

    jobs(conn)
    name = conn.info.dbname
    conn.execute(f"alter database {name} set default_transaction_read_only = on")
    try:
        with pytest.raises(DatabaseUnavailable):
            tick(settings)
    finally:
        conn.execute("set default_transaction_read_only = off")
        conn.execute(f"alter database {name} reset default_transaction_read_only")
    assert job(conn, 1)["attempt"] == 0
    assert tick(settings).done == 1


def test_a_server_that_accepts_and_never_answers_does_not_hold_the_tick(settings, tmp_path):
    @public.job(type="noop")
    async def work() -> None: ...

    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / ".s.PGSQL.5432"))
        mute.listen()
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            tick(settings, database_url=f"postgresql:///x?host={tmp_path}", budget=1)
        assert time.monotonic() - started < 1 + GRACE
