"""A day in the life of this application, in a few seconds and with nothing to set up.

    uv run python -m examples.saas.demo         from the root of tick's repository
    uv run python demo.py                       from this folder

It starts an embedded Postgres, a mail server, a CRM that fails and the application itself; signs people up; sends
ticks, as your cron would; and moves the clock, instead of making you wait.
"""

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import httpx
import psycopg

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from fakes import Answer, Mailbox, Services  # noqa: E402 - this folder is not a package, so that you can copy it

SECRET = "a-long-random-text"
BUSY = Answer(503, "we are down for maintenance", retry_after="120")
REFUSED = Answer(400, '{"error": "contact limit of your plan is reached"}')
HANGS = Answer(hangs=True)


def main() -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        mailbox, services = start_fakes(stack)
        environment = os.environ | {
            "DATABASE_URL": start_postgres(),
            "CRON_SECRET": SECRET,
            "SMTP_URL": mailbox.url,
            "CRM_URL": services.url,
            "PAYMENTS_URL": services.url,
            "HTTP_TIMEOUT": "2",
        }
        tick("migrate", env=environment)
        database = stack.enter_context(psycopg.connect(environment["DATABASE_URL"], autocommit=True))
        database.execute((HERE / "schema.sql").read_bytes())
        client = stack.enter_context(an_application(environment))
        tell(client, database, services, environment)
    print(f"\nThat was it, in {time.monotonic() - began:.0f} s. Now read jobs.py: it is what you would write.")


def tell(client: httpx.Client, database: psycopg.Connection, services: Services, environment: dict[str, str]) -> None:
    heading("1. Signups: each inserts a user and enqueues an e-mail, in one transaction")
    services.script = {
        "grace@example.com": [BUSY],
        "linus@example.com": [HANGS],
        "edsger@example.com": [REFUSED],
    }
    for name in ("Ada", "Grace", "Linus", "Edsger", "Ada"):
        response = client.post("/signup", json={"email": f"{name.lower()}@example.com", "name": name})
        print(f"POST /signup {name:7} {response.status_code}  {response.json()['message']}")

    heading("2. A tick: your cron sends one a minute. The CRM takes Ada, and is busy, silent or unwilling for the rest")
    send_tick(client)
    tick("jobs", "list", env=environment)

    heading("3. An hour later: what was busy and what timed out is tried again, by itself")
    move_clock(database, "1 hour")
    send_tick(client)
    print(f"the CRM knows {', '.join(sorted(contact['name'] for contact in services.contacts.values()))}")

    heading("4. What the CRM refused is dead, and kept, until somebody has seen to it")
    tick("jobs", "list", "--status", "dead", env=environment)
    (dead,) = database.execute("select id from tick.jobs where status = 'dead'").fetchone() or (0,)
    print("\nyou buy the larger plan, and then:")
    tick("jobs", "replay", str(dead), env=environment)
    send_tick(client)
    print(f"the CRM knows {', '.join(sorted(contact['name'] for contact in services.contacts.values()))}")

    heading("5. The next morning: schedules.toml makes the digest, the rollups and the renewals")
    database.execute("insert into customers (email, price_cents, renews_on) values ('ada@example.com', 900, now())")
    move_clock(database, until_morning(database))
    send_tick(client)
    for key, charge in services.charges.items():
        print(f"charged: {charge['amount_cents'] / 100:.2f} for {key}")
    hours = database.execute("select hour, signups from signups_per_hour where signups > 0").fetchall()
    print("rolled up:", ", ".join(f"{signups} signups in the hour of {hour:%H:%M}" for hour, signups in hours))

    heading("6. All of it, in the one table that there is")
    query = "select type, status, count(*), sum(attempt) from tick.jobs group by 1, 2 order by 1, 2"
    for type, status, jobs, attempts in database.execute(query):
        print(f"{type:20} {status:8} {jobs:3} {'job ' if jobs == 1 else 'jobs'} {attempts:3} attempts")


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def send_tick(client: httpx.Client) -> None:
    report = client.post("/tick", headers={"Authorization": f"Bearer {SECRET}"}).raise_for_status().json()
    counts = ("materialised", "claimed", "done", "retried", "dead")
    said = ", ".join(f"{report[name]} {name}" for name in counts)
    print(f"POST /tick: {said}, in {report['used']:.2f} s", flush=True)


def move_clock(database: psycopg.Connection, interval: str) -> None:
    """tick asks one function of the database for the time; tests, and this demo, replace it."""
    database.execute(
        "create or replace function tick.now() returns timestamptz language sql stable parallel safe"
        f" as $$select pg_catalog.now() + interval '{interval}'$$"
    )


def until_morning(database: psycopg.Connection) -> str:
    """How long it is to 8 o'clock tomorrow in Paris, when the digest of half past seven is due."""
    query = "select (((now() at time zone zone)::date + 1 + time '08:00') at time zone zone - now())::text"
    (interval,) = database.execute(f"{query} from (select 'Europe/Paris') as z (zone)").fetchone() or ("",)
    return str(interval)


def tick(*arguments: str, env: dict[str, str]) -> None:
    """Run tick's command line, as you would."""
    print(f"$ tick {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "tick.cli", *arguments], env=env, cwd=HERE, check=True)


def start_fakes(stack: contextlib.ExitStack) -> tuple[Mailbox, Services]:
    mailbox, services = Mailbox(print_mail), Services()
    for fake in (mailbox, services):
        fake.start()
        stack.callback(fake.stop)
    return mailbox, services


def print_mail(message: Message) -> None:
    print(f"mail to {message['To']}: {message['Subject']}   {message['Message-ID']}", flush=True)


def start_postgres() -> str:
    """An embedded server, stopped at exit; its data are deleted after that."""
    from tick import embedded

    folder = Path(tempfile.mkdtemp(prefix="saas-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return embedded.url(folder)


@contextlib.contextmanager
def an_application(environment: dict[str, str]) -> Iterator[httpx.Client]:
    """The application under uvicorn. It is given a socket that listens already, so nothing has to wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app:app", "--fd", str(listener.fileno()), "--log-level", "warning"],
            env=environment,
            cwd=HERE,
            pass_fds=[listener.fileno()],
        )
        host, port = listener.getsockname()
    try:
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    main()
