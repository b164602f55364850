"""examples/saas as it is deployed: uvicorn, SMTP, HTTP and the command line, each a real one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import psycopg
import pytest
from factories import move_clock, wait_until
from psycopg.rows import dict_row

import tick
from examples.saas.fakes import Answer, Mailbox, Services

FOLDER = Path(__file__).parents[1] / "examples" / "saas"
PARIS = ZoneInfo("Europe/Paris")
TABLES = "users, customers, invoices, signups_per_hour"
SECRET = "the-secret-of-this-test"
BUSY = Answer(503, "busy", retry_after="120")
REFUSED = Answer(400, '{"error": "contact limit reached"}')


class Saas:
    """The deployed application, the services it calls, and its database."""

    def __init__(self, client: httpx.Client, environment: dict[str, str], fakes: tuple[Mailbox, Services]) -> None:
        self.client = client
        self.environment = environment
        self.mailbox, self.services = fakes
        self.conn: psycopg.Connection[Any]

    def sign_up(self, name: str) -> httpx.Response:
        return self.client.post("/signup", json={"email": address(name), "name": name})

    def tick(self) -> dict[str, Any]:
        response = self.client.post("/tick", headers={"Authorization": f"Bearer {SECRET}"})
        assert response.status_code == 200, response.text
        report: dict[str, Any] = response.json()
        return report

    def tick_until_idle(self) -> None:
        while self.tick()["claimed"]:
            pass

    def command(self, *arguments: str) -> str:
        """What the command printed; it must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "tick.cli", *arguments],
            env=self.environment, cwd=FOLDER, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def jobs(self, type: str) -> list[dict[str, Any]]:
        cursor = self.conn.cursor(row_factory=dict_row)
        return cursor.execute("select * from tick.jobs where type = %s order by id", [type]).fetchall()

    def job(self, type: str) -> dict[str, Any]:
        (job,) = self.jobs(type)
        return job

    def count(self, table: str) -> int:
        (count,) = self.conn.execute(f"select count(*) from {table}").fetchone() or (0,)
        return int(count)


def address(name: str) -> str:
    return f"{name.lower()}@example.com"


@pytest.fixture(scope="module")
def deployed(worker_url: str) -> Iterator[Saas]:
    """One server process for all tests of this module, with the fakes it talks to."""
    mailbox, services = Mailbox(), Services()
    mailbox.start()
    services.start()
    environment = os.environ | {
        "DATABASE_URL": worker_url,
        "CRON_SECRET": SECRET,
        "SMTP_URL": mailbox.url,
        "CRM_URL": services.url,
        "PAYMENTS_URL": services.url,
        "HTTP_TIMEOUT": "1.5",
        "TICK_MODULES": "jobs",
    }
    with psycopg.connect(worker_url, autocommit=True) as conn, served(environment) as client:
        conn.execute((FOLDER / "schema.sql").read_bytes())
        yield Saas(client, environment, (mailbox, services))
        conn.execute(f"drop table {TABLES}")
    services.stop()
    mailbox.stop()


@contextmanager
def served(environment: dict[str, str]) -> Iterator[httpx.Client]:
    """The application under uvicorn, on a socket that listens before it does: so nobody has to wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--fd", str(listener.fileno()), "--log-level", "error"],
            env=environment, cwd=FOLDER, pass_fds=[listener.fileno()],
        )  # fmt: skip
    try:
        with httpx.Client(
            base_url=f"http://{host}:{port}", timeout=60, limits=httpx.Limits(max_keepalive_connections=0)
        ) as client:
            yield client
    finally:
        process.terminate()
        assert process.wait(10) in (0, -15)


@pytest.fixture
def saas(deployed: Saas, conn: psycopg.Connection) -> Saas:
    """The application with empty tables, empty mailboxes and services that work."""
    conn.execute(f"truncate {TABLES} restart identity")
    deployed.mailbox.reset()
    deployed.services.reset()
    deployed.conn = conn
    return deployed


# Signing up


def test_a_signup_is_welcomed_and_put_into_the_crm_by_one_tick(saas: Saas) -> None:
    assert saas.sign_up("Ada").status_code == 201
    saas.tick()
    (mail,) = saas.mailbox.to("ada@example.com")
    assert mail["Subject"] == "Welcome, Ada"
    assert mail["Message-ID"] == f"<welcome.{saas.job('send_welcome_email')['id']}@example.com>"
    assert saas.services.contacts == {"1": {"email": "ada@example.com", "name": "Ada"}}


def test_a_form_signs_up_as_json_does(saas: Saas) -> None:
    assert "<form" in saas.client.get("/").text
    response = saas.client.post("/signup", data={"email": "Ada@Example.com", "name": "Ada <b>"})
    assert (response.status_code, "Welcome, Ada &lt;b&gt;." in response.text) == (201, True)
    saas.tick()
    assert len(saas.mailbox.to("ada@example.com")) == 1


def test_an_address_that_is_taken_is_a_409_and_enqueues_nothing(saas: Saas) -> None:
    assert [saas.sign_up("Ada").status_code for _ in range(2)] == [201, 409]
    assert (saas.count("users"), saas.count("tick.jobs")) == (1, 1)


def test_of_twenty_signups_at_once_with_one_address_one_succeeds(saas: Saas) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = Counter(response.status_code for response in pool.map(saas.sign_up, ["Ada"] * 20))
    assert answers == {201: 1, 409: 19}
    assert (saas.count("users"), saas.count("tick.jobs")) == (1, 1)


@pytest.mark.parametrize(
    "fields",
    [{}, {"email": "ada", "name": "Ada"}, {"email": "a@example.com\r\nBcc: b@example.com", "name": "Ada"},
     {"email": "a@example.com", "name": "Ada\r\nBcc: b@example.com"}, {"email": "a@example.com", "name": " "}],
)  # fmt: skip
def test_what_is_no_address_and_name_is_refused(saas: Saas, fields: dict[str, str]) -> None:
    assert saas.client.post("/signup", json=fields).status_code == 422
    assert saas.count("users") == 0


def test_a_signup_that_fails_at_its_commit_enqueues_nothing(saas: Saas) -> None:
    with a_commit_that_fails(saas.conn, "ada@example.com"):
        assert saas.sign_up("Ada").status_code == 500
    assert (saas.count("users"), saas.count("tick.jobs")) == (0, 0)
    (used,) = saas.conn.execute("select last_value from tick.jobs_id_seq where is_called").fetchone() or (0,)
    assert used == 1, "the job was inserted, and then rolled back with the user"
    saas.tick()
    assert saas.mailbox.messages == []


@contextmanager
def a_commit_that_fails(conn: psycopg.Connection, email: str) -> Iterator[None]:
    """A constraint that is looked at when everything has been written."""
    conn.execute(
        "create function refuse() returns trigger language plpgsql as $$begin raise 'refused at commit'; end$$"
    )
    conn.execute(
        "create constraint trigger refuse after insert on users deferrable initially deferred"
        f" for each row when (new.email = '{email}') execute function refuse()"
    )
    try:
        yield
    finally:
        conn.execute("drop trigger refuse on users; drop function refuse")


def test_signups_during_ticks_are_each_welcomed_exactly_once(saas: Saas) -> None:
    names = [f"User{number}" for number in range(40)]

    def keep_ticking(signing: list[Future[httpx.Response]]) -> None:
        while not all(signup.done() for signup in signing):
            saas.tick()

    with ThreadPoolExecutor(8) as pool:
        signing = [pool.submit(saas.sign_up, name) for name in names]
        ticking = [pool.submit(keep_ticking, signing) for _ in range(3)]
    assert {signup.result().status_code for signup in signing} == {201}
    assert [each.result() for each in ticking] == [None] * 3
    saas.tick_until_idle()
    assert Counter(mail["To"] for mail in saas.mailbox.messages) == Counter(map(address, names))
    assert Counter(request.path for request in saas.services.requests) == Counter(
        f"/contacts/{id}" for (id,) in saas.conn.execute("select id from users")
    )


# E-mail


def test_a_refused_address_is_dead_with_the_mail_servers_reason_and_never_reaches_the_crm(saas: Saas) -> None:
    saas.mailbox.refuse = {"ada@example.com": ["550 5.1.1 no such mailbox"]}
    saas.sign_up("Ada")
    saas.tick()
    job = saas.job("send_welcome_email")
    assert (job["status"], job["attempt"]) == ("dead", 1)
    assert job["last_error"] == "Permanent: ada@example.com is refused: 550 5.1.1 no such mailbox"
    assert saas.services.requests == []


def test_a_greylisted_message_is_sent_by_the_next_attempt(saas: Saas) -> None:
    saas.mailbox.refuse = {"ada@example.com": ["450 4.2.0 try again in five minutes"]}
    saas.sign_up("Ada")
    saas.tick()
    assert "450" in saas.job("send_welcome_email")["last_error"]
    move_clock(saas.conn, "+1 hour")
    saas.tick()
    assert len(saas.mailbox.to("ada@example.com")) == 1
    assert (saas.job("send_welcome_email")["status"], saas.job("sync_to_crm")["status"]) == ("done", "done")


def test_a_tick_killed_before_the_mark_repeats_the_message_under_its_message_id(saas: Saas) -> None:
    """The one way to a second message that the handler's docstring admits."""
    saas.mailbox.hold()
    saas.sign_up("Ada")
    process = subprocess.Popen([sys.executable, "-m", "tick.cli", "run-once"], env=saas.environment, cwd=FOLDER)
    wait_until(lambda: saas.mailbox.to("ada@example.com"))
    process.kill()
    process.wait(10)
    saas.mailbox.release()
    assert saas.tick()["claimed"] == 0, "its lease still holds"
    move_clock(saas.conn, "+1 hour")
    saas.tick()
    first, second = saas.mailbox.to("ada@example.com")
    assert first["Message-ID"] == second["Message-ID"]
    job = saas.job("send_welcome_email")
    assert (job["status"], job["attempt"], job["losses"], job["failures"]) == ("done", 2, 1, 0)
    assert saas.job("sync_to_crm")["status"] == "done"


def test_an_attempt_after_the_mark_sends_nothing_and_still_tells_the_crm(saas: Saas) -> None:
    saas.sign_up("Ada")
    saas.conn.execute("update users set welcomed_at = now()")
    saas.tick()
    assert saas.mailbox.messages == []
    assert list(saas.services.contacts) == ["1"]


# The CRM


def test_a_busy_crm_is_asked_again_when_it_said_and_not_before(saas: Saas) -> None:
    saas.services.script = {"ada@example.com": [BUSY]}
    saas.sign_up("Ada")
    saas.tick()
    job = saas.job("sync_to_crm")
    assert (job["status"], job["failures"]) == ("pending", 1)
    assert job["last_error"].startswith("Retry: 503")
    move_clock(saas.conn, "+110 seconds")
    saas.tick()
    assert saas.services.asked("ada@example.com") == [503]
    move_clock(saas.conn, "+20 seconds")
    saas.tick()
    assert saas.services.asked("ada@example.com") == [503, 200]
    assert (saas.job("sync_to_crm")["status"], saas.job("sync_to_crm")["attempt"]) == ("done", 2)


def test_a_retry_after_may_be_a_date(saas: Saas) -> None:
    (now,) = saas.conn.execute("select now()").fetchone() or (None,)
    until = format_datetime((now + timedelta(minutes=30)).astimezone(UTC), usegmt=True)
    saas.services.script = {"ada@example.com": [Answer(429, "slow down", retry_after=until)]}
    saas.sign_up("Ada")
    saas.tick()
    wait = saas.job("sync_to_crm")["run_at"] - now
    assert timedelta(minutes=29) < wait < timedelta(minutes=31)


@pytest.mark.parametrize("retry_after", ["99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_mad_retry_after_is_an_hour(saas: Saas, retry_after: str) -> None:
    saas.services.script = {"ada@example.com": [Answer(503, "", retry_after=retry_after)]}
    saas.sign_up("Ada")
    saas.tick()
    move_clock(saas.conn, "+61 minutes")
    saas.tick()
    assert saas.services.asked("ada@example.com") == [503, 200]


@pytest.mark.parametrize("answer", [Answer(hangs=True), Answer(500), Answer(503), Answer(503, retry_after="soon")])
def test_a_crm_that_is_silent_or_broken_is_asked_again_by_the_backoff(saas: Saas, answer: Answer) -> None:
    saas.services.script = {"ada@example.com": [answer]}
    saas.sign_up("Ada")
    saas.tick()
    job = saas.job("sync_to_crm")
    assert (job["status"], job["failures"]) == ("pending", 1)
    assert job["last_error"].startswith(
        "ReadTimeout" if answer.hangs else f"HTTPStatusError: Server error '{answer.status}"
    )
    move_clock(saas.conn, "+1 hour")
    saas.tick()
    assert (saas.job("sync_to_crm")["status"], saas.job("sync_to_crm")["attempt"]) == ("done", 2)
    assert list(saas.services.contacts) == ["1"]


def test_what_the_crm_refuses_is_dead_with_its_reason_and_done_once_mended_and_replayed(saas: Saas) -> None:
    saas.services.script = {"ada@example.com": [REFUSED]}
    saas.sign_up("Ada")
    saas.tick()
    (dead,) = json.loads(saas.command("jobs", "list", "--status", "dead", "--json"))
    assert (dead["type"], dead["attempt"]) == ("sync_to_crm", 1)
    assert dead["last_error"].startswith("Permanent: 400") and "contact limit reached" in dead["last_error"]
    move_clock(saas.conn, "+1 hour")
    saas.tick()
    assert saas.services.asked("ada@example.com") == [400], "dead is dead until somebody replays it"

    assert saas.command("jobs", "replay", str(dead["id"])) == f"job {dead['id']} replayed\n"
    saas.tick()
    job = saas.job("sync_to_crm")
    assert (job["status"], job["attempt"], job["failures"]) == ("done", 2, 0)
    assert saas.services.contacts["1"]["email"] == "ada@example.com"
    assert len(saas.mailbox.to("ada@example.com")) == 1, "the e-mail was not the CRM's business"


# Schedules


def test_the_schedules_file_can_be_deployed(saas: Saas) -> None:
    assert saas.command("schedules", "--check") == "schedules.toml: 3 schedules, no problems\n"


def test_the_digest_and_the_rollups_of_a_day_run_from_the_schedules_file_once(saas: Saas) -> None:
    saas.tick()
    (first_seen, now) = saas.conn.execute("select min(cursor), now() from tick.definitions, now()").fetchone() or ()
    day = now.astimezone(PARIS).date() + timedelta(days=1)
    for name, time in (("Ada", "10:00"), ("Grace", "10:59:59"), ("Linus", "23:59:59"), ("Edsger", "23:59:59 -1 day")):
        saas.conn.execute(
            "insert into users (email, name, created_at)"
            " values (%s, %s, (%s::date + %s::interval) at time zone 'Europe/Paris')",
            [address(name), name, day, time],
        )
    seven = datetime(day.year, day.month, day.day, 7, 31, tzinfo=PARIS) + timedelta(days=1)
    move_clock(saas.conn, seven.isoformat())
    saas.tick_until_idle()

    (digest,) = saas.mailbox.to("founders@example.com")
    assert digest["Subject"] == f"3 signups on {day}"
    assert str(digest.get_payload()).splitlines()[2:] == [
        f"{name} <{address(name)}>" for name in ("Ada", "Grace", "Linus")
    ]
    assert saas.job("nightly_digest")["result"] == {"day": f"{day}", "signups": 3}

    hours = dict(saas.conn.execute("select hour, signups from signups_per_hour").fetchall())
    assert hours[datetime(day.year, day.month, day.day, 10, tzinfo=PARIS)] == 2
    assert hours[datetime(day.year, day.month, day.day, 23, tzinfo=PARIS)] == 1
    windows = list(tick.windows("5 * * * *", "Europe/Paris", after=first_seen, until=seven))
    assert len(hours) == len(windows) > 30, "catch_up = all: an hour for every window of the outage"
    assert [job["window"] for job in saas.jobs("hourly_rollup")] == windows

    saas.tick()
    assert len(saas.mailbox.to("founders@example.com")) == 1


# Renewals


def customers(saas: Saas, *overdue: str) -> None:
    for number, interval in enumerate(overdue, 1):
        saas.conn.execute(
            "insert into customers (email, price_cents, renews_on) values (%s, 900, current_date - %s::interval)",
            [f"customer{number}@example.com", interval],
        )


def renew(saas: Saas, customer: int, times: int) -> None:
    saas.conn.execute(
        "insert into tick.jobs (type, key, payload) select 'renew_subscription', 'customer:' || id,"
        " jsonb_build_object('customer_id', id) from customers, generate_series(1, %s) where id = %s",
        [times, customer],
    )


def test_renewals_of_one_customer_never_overlap_and_those_of_two_do(saas: Saas) -> None:
    customers(saas, "2 months 10 days", "1 month 10 days")
    renew(saas, 1, times=3)
    renew(saas, 2, times=2)
    saas.services.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(saas.tick)
        wait_until(lambda: saas.services.under_way == {1: 1, 2: 1})
        assert saas.tick()["claimed"] == 0, "a second tick leaves alone what shares a key with what runs"
        saas.services.gate.set()
        first.result()
    saas.tick_until_idle()
    assert saas.services.most_at_once == {1: 1, 2: 1}
    assert len(saas.services.charges) == saas.count("invoices") == 5
    assert Counter(job["status"] for job in saas.jobs("renew_subscription")) == {"done": 5}


def test_renewals_run_twice_in_a_day_charge_each_customer_once(saas: Saas) -> None:
    customers(saas, "2 days", "3 days", "-5 days")
    for _ in range(2):
        saas.command("schedules", "run-now", "renewals")
        saas.tick_until_idle()
    assert [job["result"] for job in saas.jobs("renewals")] == [2, 0]
    assert [job["key"] for job in saas.jobs("renew_subscription")] == ["customer:1", "customer:2"]
    assert (len(saas.services.charges), saas.count("invoices")) == (2, 2)


def test_two_runs_of_renewals_before_any_renewal_enqueue_each_once(saas: Saas) -> None:
    customers(saas, "2 days", "3 days")
    saas.services.gate.clear()
    for _ in range(2):
        saas.command("schedules", "run-now", "renewals")
    with ThreadPoolExecutor(1) as pool:
        ticking = pool.submit(saas.tick)
        wait_until(lambda: [job["status"] for job in saas.jobs("renewals")] == ["done", "done"])
        saas.services.gate.set()
        ticking.result()
    saas.tick_until_idle()
    assert [job["result"] for job in saas.jobs("renewals")] == [2, 2]
    assert (len(saas.jobs("renew_subscription")), len(saas.services.charges)) == (2, 2)


def test_renewals_come_with_the_morning(saas: Saas) -> None:
    saas.tick()
    customers(saas, "0 days")
    move_clock(saas.conn, "+25 hours")  # a day of the autumn has as many
    saas.tick_until_idle()
    assert saas.job("renewals")["schedule"] == "renewals"
    assert saas.count("invoices") == 1


# Doors


def test_ticks_own_doors_are_the_applications(saas: Saas) -> None:
    assert saas.client.post("/tick").status_code == 401
    saas.tick()
    assert saas.client.get("/health").json()["status"] == "ok"


def test_the_demo_tells_its_story_to_the_end(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TICK_", "DATABASE"))}
    done = subprocess.run(
        [sys.executable, "-m", "examples.saas.demo"],
        env=environment, cwd=FOLDER.parents[1], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mail to ada@example.com") == 1
    assert "the CRM knows Ada, Edsger, Grace, Linus" in done.stdout
    assert "mail to founders@example.com: 4 signups" in done.stdout
