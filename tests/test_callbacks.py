"""Callbacks: a URL is told of each end of a job, once, against a real HTTP server of 127.0.0.1."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest
from standardwebhooks.webhooks import Webhook

import tick as public
from tests.factories import NEVER, a_job, job, move_clock, statuses, tick, wait_until
from tick import http_job, processor, queue
from tick.errors import InvalidPayload
from tick.handlers import registry
from tick.queue import statements

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Receiver(ThreadingHTTPServer):
    """Remembers what it is sent, and answers as it is told to: 200, or the next of `answers`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"http://127.0.0.1:{self.server_port}/hook"
        self.answers: list[int] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    def told(self) -> list[tuple[int, str]]:
        """Which jobs it was told of, and what of them."""
        bodies = [json.loads(body) for _, _, body in self.requests]
        return [(body["data"]["id"], body["type"]) for body in bodies]


class _Connection(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def receiver():
    """A server that jobs may call."""
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def settings(settings, receiver):
    """Those of a tick that may call the receiver."""
    return replace(settings, http_allow=(f"127.0.0.1:{receiver.server_port}",))


@pytest.fixture
def work(empty_registry):
    """A handler that ends as its payload says."""
    registry.add(http_job.callback)

    @public.job(max_attempts=2)
    async def work(ctx: public.Context, how: str = "done", size: int = 0) -> Any:
        if how == "retried" and ctx.attempt == 1:
            raise public.Retry("not yet", after=60)
        if how == "snoozed" and ctx.attempt == 1:
            raise public.Snooze(after=60)
        if how == "dead":
            raise public.Permanent("the card was refused")
        return {"at": "x" * size} if size else {"sum": 7}

    return work


def drain(settings) -> None:
    while tick(settings).claimed:
        pass


def change(conn, name: str, id: int) -> None:
    """A person cancels or replays a job."""
    conn.execute(statements()[name], {"id": id, "ids": [id]})


def callbacks(conn) -> list[dict[str, Any]]:
    rows = conn.execute("select payload from tick.jobs where type = 'tick.callback' order by id").fetchall()
    return [payload for (payload,) in rows]


class TestWhatIsSent:
    def test_a_url_is_told_of_a_job_that_is_done(self, conn, settings, work, receiver):
        id = work.using(callback_url=receiver.url, key="k").enqueue(conn)
        drain(settings)
        ((path, headers, body),) = receiver.requests
        finished_at = job(conn, id)["finished_at"]
        sent = json.loads(body)
        assert (path, headers["content-type"]) == ("/hook", "application/json")
        assert headers["webhook-id"].rpartition("_")[0] == f"job_{id}_1_done"
        assert datetime.fromisoformat(sent["data"].pop("finished_at")) == finished_at
        assert datetime.fromisoformat(sent.pop("timestamp")) == finished_at
        assert sent == {
            "type": "job.done",
            "data": {"id": id, "type": "work", "status": "done", "attempt": 1, "key": "k", "result": {"sum": 7}},
        }

    def test_it_is_signed_as_the_official_library_verifies_it(self, conn, settings, work, receiver):
        settings = replace(settings, named_secrets={"webhook": (SECRET,)})
        work.using(callback_url=receiver.url).enqueue(conn)
        drain(settings)
        ((_, headers, body),) = receiver.requests
        assert Webhook(SECRET).verify(body, headers)["type"] == "job.done"

    def test_it_is_not_signed_without_a_secret(self, conn, settings, work, receiver):
        work.using(callback_url=receiver.url).enqueue(conn)
        drain(settings)
        ((_, headers, _),) = receiver.requests
        assert "webhook-signature" not in headers
        assert headers["webhook-id"]

    def test_a_dead_job_says_why(self, conn, settings, work, receiver):
        work.using(callback_url=receiver.url).enqueue(conn, how="dead")
        drain(settings)
        sent = json.loads(receiver.requests[0][2])
        assert (sent["type"], sent["data"]["error"]) == ("job.dead", "Permanent: the card was refused")
        assert "result" not in sent["data"]

    def test_a_window_says_which_it_was(self, conn, settings, work, receiver):
        settings.schedules_path.write_text(
            f'[schedules.work]\nevery = "1h"\ncallback_url = "{receiver.url}"\non_dead_url = "{receiver.url}?dead"\n'
        )
        move_clock(conn, "2026-03-01T10:30Z")
        tick(settings)
        move_clock(conn, "2026-03-01T11:00Z")
        drain(settings)
        ((path, _, body),) = receiver.requests
        data = json.loads(body)["data"]
        assert (path, data["schedule"]) == ("/hook", "work")
        assert datetime.fromisoformat(data["window"]) == datetime(2026, 3, 1, 11, tzinfo=UTC)

    def test_a_result_above_16_kb_is_omitted(self, conn, settings, work, receiver):
        work.using(callback_url=receiver.url).enqueue(conn, size=17_000)
        drain(settings)
        data = json.loads(receiver.requests[0][2])["data"]
        assert (data["result_omitted"], "result" in data) == (True, False)

    def test_it_belongs_to_the_trace_of_its_job(self, conn, settings, work, receiver):
        work.using(callback_url=receiver.url, traceparent=TRACE).enqueue(conn)
        drain(settings)
        assert receiver.requests[0][1]["traceparent"] == TRACE

    def test_the_session_of_whoever_ends_the_job_may_be_in_any_time_zone(self, conn, work):
        id = a_job(conn, "work", "running", callback_url="https://example.com/")
        with conn.transaction():
            conn.execute("set local timezone = 'Asia/Kolkata'")
            conn.execute(
                "update tick.jobs set status = 'done', finished_at = tick.now(), lease_expires_at = null where id = %s",
                [id],
            )
        assert datetime.fromisoformat(callbacks(conn)[0]["timestamp"]) == job(conn, id)["finished_at"]

    @pytest.mark.parametrize("address", ["ftp://example.com", "example.com", "https://a b", "", 7])
    @pytest.mark.parametrize("option", ["callback_url", "on_dead_url"])
    def test_a_url_that_is_none_is_refused_at_the_door(self, conn, work, option, address):
        with pytest.raises(InvalidPayload, match=f"{option}=.* is not an http:// or https:// URL"):
            work.using(**{option: address}).enqueue(conn)
        assert statuses(conn) == {}


class TestWhenItIsSent:
    @pytest.mark.parametrize("how", ["retried", "snoozed"])
    def test_what_is_no_end_is_not_told(self, conn, settings, work, receiver, how):
        id = work.using(callback_url=receiver.url, on_dead_url=receiver.url).enqueue(conn, how=how)
        drain(settings)
        assert job(conn, id)["status"] == "pending"
        assert callbacks(conn) == []
        move_clock(conn, "+61 s")
        drain(settings)
        assert receiver.told() == [(id, "job.done")]

    def test_a_job_that_is_lost_is_told_of_at_its_third_loss(self, conn, settings, work, receiver):
        id = a_job(conn, "work", on_dead_url=receiver.url)
        for lost in range(1, 4):
            conn.execute(
                "update tick.jobs set status = 'running', attempt = attempt + 1, tick_id = %s,"
                " lease_expires_at = tick.now() where id = %s",
                [NEVER, id],
            )
            reclaim = {"message": queue.LOST, "most_losses": queue.MOST_LOSSES, "keep": 5, "limit": 500}
            conn.execute(statements()["reclaim"], reclaim)
            assert len(callbacks(conn)) == lost // 3
        drain(settings)
        assert receiver.told() == [(id, "job.dead")]
        assert json.loads(receiver.requests[0][2])["data"]["error"].startswith("lost: ")

    def test_a_pending_job_that_is_cancelled(self, conn, settings, work, receiver):
        id = work.using(callback_url=receiver.url, on_dead_url=receiver.url).enqueue(conn)
        change(conn, "cancel", id)
        change(conn, "cancel", id)
        drain(settings)
        assert receiver.told() == [(id, "job.cancelled")]

    def test_a_running_job_that_is_cancelled(self, conn, settings, work, receiver, monkeypatch):
        @public.job
        async def long(ctx: public.Context) -> None:
            await asyncio.to_thread(_cancel_elsewhere, settings.database_url, ctx.id)
            await asyncio.sleep(60)

        monkeypatch.setattr(processor, "PULSE", 0.05)
        id = long.using(callback_url=receiver.url).enqueue(conn)
        drain(settings)
        assert receiver.told() == [(id, "job.cancelled")]

    def test_a_child_that_is_cancelled_with_its_parent(self, conn, settings, work, receiver):
        id = work.using(then=work.using(callback_url=receiver.url).of()).enqueue(conn)
        change(conn, "cancel", id)
        drain(settings)
        assert receiver.told() == [(id + 1, "job.cancelled")]

    def test_on_dead_url_is_told_of_death_alone(self, conn, settings, work, receiver):
        done = work.using(on_dead_url=receiver.url).enqueue(conn)
        dead = work.using(on_dead_url=receiver.url).enqueue(conn, how="dead")
        change(conn, "cancel", work.using(on_dead_url=receiver.url, delay="1h").enqueue(conn))
        drain(settings)
        assert job(conn, done)["status"] == "done"
        assert receiver.told() == [(dead, "job.dead")]

    def test_both_urls_are_told_of_death_and_one_that_is_given_twice_is_told_once(self, conn, settings, work, receiver):
        both = work.using(callback_url=receiver.url, on_dead_url=receiver.url + "?dead").enqueue(conn, how="dead")
        same = work.using(callback_url=receiver.url, on_dead_url=receiver.url).enqueue(conn, how="dead")
        drain(settings)
        told = sorted((path, json.loads(body)["data"]["id"]) for path, _, body in receiver.requests)
        assert told == [("/hook", both), ("/hook", same), ("/hook?dead", both)]

    def test_from_sql(self, conn, settings, work, receiver):
        conn.execute(
            "select tick.enqueue('work', '{\"how\": \"dead\"}', callback_url => %s, on_dead_url => %s)",
            [receiver.url, receiver.url + "?dead"],
        )
        drain(settings)
        assert sorted(path for path, _, _ in receiver.requests) == ["/hook", "/hook?dead"]

    def test_whoever_ends_the_job_by_hand_has_it_told(self, conn, settings, work, receiver):
        id = a_job(conn, "work", callback_url=receiver.url, run_at="+1 hour")
        conn.execute("update tick.jobs set status = 'cancelled', finished_at = now() where id = %s", [id])
        drain(settings)
        assert receiver.told() == [(id, "job.cancelled")]

    def test_what_ends_again_is_told_again_under_another_id(self, conn, settings, work, receiver):
        id = work.using(callback_url=receiver.url).enqueue(conn, how="dead")
        drain(settings)
        change(conn, "replay", id)
        drain(settings)
        assert receiver.told() == [(id, "job.dead")] * 2
        ids = [headers["webhook-id"].rpartition("_")[0] for _, headers, _ in receiver.requests]
        assert ids == [f"job_{id}_1_dead", f"job_{id}_2_dead"]

    def test_what_is_cancelled_twice_is_told_twice(self, conn, work):
        id = work.using(callback_url="https://a.example/").enqueue(conn)
        for transition in ("cancel", "replay", "cancel"):
            change(conn, transition, id)
        told = conn.execute("select payload ->> 'id' from tick.jobs where type = 'tick.callback'").fetchall()
        assert len(set(told)) == 2

    def test_two_urls_are_told_of_one_end_under_two_ids(self, conn, settings, work):
        work.using(callback_url="https://a.example/", on_dead_url="https://b.example/", max_attempts=1).enqueue(
            conn, how="dead"
        )
        tick(settings)
        told = conn.execute("select payload ->> 'id' from tick.jobs where type = 'tick.callback'").fetchall()
        assert len(set(told)) == 2

    def test_each_of_many_jobs_of_one_exchange_is_told_of_once(self, conn, settings, work, receiver):
        ids = [work.using(callback_url=receiver.url).enqueue(conn) for _ in range(50)]
        drain(settings)
        assert sorted(receiver.told()) == [(id, "job.done") for id in ids]

    def test_a_callback_calls_nobody_back(self, conn, settings, work, receiver):
        receiver.answers = [410]
        work.using(callback_url=receiver.url, on_dead_url=receiver.url).enqueue(conn)
        drain(settings)
        rows = conn.execute(
            "select status, callback_url, on_dead_url from tick.jobs where type = 'tick.callback'"
        ).fetchall()
        assert rows == [("dead", None, None)]


class TestDelivery:
    def test_the_id_and_the_body_are_the_same_on_every_attempt(self, conn, settings, work, receiver):
        settings = replace(settings, named_secrets={"webhook": (SECRET,)})
        receiver.answers = [500, 503]
        work.using(callback_url=receiver.url).enqueue(conn)
        for _ in range(3):
            drain(settings)
            move_clock(conn, "+10 minutes")
        assert len(receiver.requests) == 3
        assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 1
        assert len({body for _, _, body in receiver.requests}) == 1
        for _, headers, body in receiver.requests:
            Webhook(SECRET).verify(body, headers)

    def test_a_receiver_that_is_gone_changes_nothing_of_the_job(self, conn, settings, work, receiver):
        receiver.answers = [410]
        id = work.using(callback_url=receiver.url).enqueue(conn)
        drain(settings)
        assert job(conn, id)["status"] == "done"
        assert statuses(conn) == {"done": 1, "dead": 1}

    def test_an_end_that_is_rolled_back_is_not_told(self, conn, work):
        id = a_job(conn, "work", "running", callback_url="https://example.com/")
        with conn.transaction(force_rollback=True):
            conn.execute(
                "update tick.jobs set status = 'done', finished_at = tick.now(), lease_expires_at = null where id = %s",
                [id],
            )
            assert len(callbacks(conn)) == 1
        assert callbacks(conn) == []
        assert job(conn, id)["status"] == "running"

    def test_a_settle_whose_connection_is_killed_half_way_is_told_once(self, conn, settings, work, receiver):
        """The tick settles again over a new connection; the first settle, and its callback, never were."""
        locked = threading.Event()

        @public.job
        def locks_its_row(ctx: public.Context) -> None:
            threading.Thread(target=_hold, args=(settings.database_url, ctx.id, locked)).start()
            assert locked.wait(10)

        id = locks_its_row.using(callback_url=receiver.url).enqueue(conn)
        drain(settings)
        assert len(callbacks(conn)) == 1
        assert receiver.told() == [(id, "job.done")]


def _hold(url: str, id: int, locked: threading.Event) -> None:
    """Keep a job's row locked until somebody waits for it; kill whoever that is."""
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as watcher:
        holder.execute("select from tick.jobs where id = %s for update", [id])
        locked.set()
        blocked = "select pid from pg_stat_activity where %s = any(pg_blocking_pids(pid))"
        (pid,) = wait_until(lambda: watcher.execute(blocked, [holder.info.backend_pid]).fetchone())
        watcher.execute("select pg_terminate_backend(%s)", [pid])
        gone = "select true where not exists (select from pg_stat_activity where pid = %s)"
        wait_until(lambda: watcher.execute(gone, [pid]).fetchone())


def _cancel_elsewhere(url: str, id: int) -> None:
    with psycopg.connect(url) as other:
        change(other, "cancel", id)
