"""A small shop's week in the database, for the pages that people look at: what ran, what failed, what waits."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

import tick
from tests.factories import a_job
from tests.factories import tick as run_tick
from tick.config import Settings
from tick.history import BUCKETS, bucket

SCHEDULES = """
[defaults]
timezone = "Europe/Paris"

[schedules.charge-invoices]
description = "Collects what is due today."
cron = "0 6 * * *"
type = "charge_invoice"
payload = { invoice_id = 1, amount = 9.5 }
overlap = "skip"

[schedules.nightly-report]
description = "The figures of the day, for the team."
cron = "30 2 * * *"
payload = { audience = "team" }

[schedules.sync-crm]
every = "15m"

[schedules.weekly-digest]
cron = "0 8 * * mon"
type = "send_digest"
spread = "10m"

[schedules.refresh-rates]
cron = "*/5 * * * *"
type = "sync_crm"
timezone = "UTC"
"""

TRACEBACK = """Traceback (most recent call last):
  File "/var/task/jobs/billing.py", line 41, in charge_invoice
    receipt = await stripe.charge(invoice_id, amount=amount, key=settings.stripe_key)
  File "/var/task/jobs/stripe.py", line 18, in charge
    raise CardDeclined(f"card declined for invoice {invoice_id}: insufficient funds")
jobs.stripe.CardDeclined: card declined for invoice 4711: insufficient funds
"""

DEAD = (
    ("charge_invoice", "CardDeclined: card declined for invoice {n}: insufficient funds", 23),
    (
        "charge_invoice",
        "InvalidPayload: the payload does not fit charge_invoice: Expected `float`, got `str` - at `$.amount`",
        4,
    ),
    ("sync_crm", "ConnectTimeout: crm.example.com:443 did not answer in 10.{n} s", 9),
    ("send_digest", "SMTPRecipientsRefused: {{'user{n}@example.com': (550, b'no such user')}}", 3),
    (
        "resize_avatar",
        "lost: the lease ran out before an outcome was written; the process was killed, or the handler outlived its tick",
        1,
    ),
)


def handlers() -> None:
    """The shop's handlers, in the registry of the running test."""

    @tick.job
    async def charge_invoice(invoice_id: int, amount: float, card_token: str = "") -> dict[str, object]:
        if amount <= 0:
            raise tick.Permanent(f"invoice {invoice_id} has nothing to charge")
        return {"charged": amount}

    @tick.job
    async def nightly_report(audience: str) -> None: ...

    @tick.job
    async def sync_crm() -> None: ...

    @tick.job
    async def send_digest() -> None: ...

    @tick.job
    async def send_welcome_email(user_id: int) -> None: ...

    @tick.job
    async def resize_avatar(url: str = "") -> None: ...


def write(conn: psycopg.Connection, settings: Settings) -> dict[str, int]:
    """Fill the database; the ids of jobs that tests look for."""
    Path(settings.schedules_path).write_text(SCHEDULES)
    run_tick(settings)
    conn.execute("truncate tick.ticks")
    _ticks(conn)
    _stats(conn)
    _windows(conn)
    return _jobs(conn)


def _ticks(conn: psycopg.Connection) -> None:
    """A tick on each minute of two days by one trigger, a quarter of an hour by another, and half an hour without any."""
    conn.execute(
        """
        insert into tick.ticks (id, trigger, scheduled_for, started_at, finished_at, budget, used, materialised, claimed, done,
                                retried, dead, "left", error, delivery_id)
        select gen_random_uuid(), by, at, at + late, at + late + make_interval(secs => used), 50, used, made, claimed,
               greatest(0, claimed - failed), failed, (random() < 0.02)::int * failed, case when claimed > 60 then 14 else 0 end,
               case when random() < 0.002 then 'DatabaseUnavailable: the database did not answer' end, 'd' || substr(md5(at::text), 1, 8)
          from (select by, at, make_interval(secs => 0.4 + 3 * random() ^ 4) as late, (random() < 0.15)::int as made,
                       case when busy then (20 + 60 * random())::int when random() < 0.4 then (8 * random())::int else 0 end as claimed,
                       (random() < 0.06)::int * 2 as failed, case when busy then 8 + 20 * random() else 0.03 + random() end as used
                  from (select 'vercel' as by, at, extract(hour from at) in (6, 7) as busy
                          from generate_series(date_trunc('minute', now()) - interval '2 days', now(), '1 minute') at
                        union all
                        select 'github', at, false
                          from generate_series(date_trunc('hour', now()) - interval '2 days', now(), '15 minutes') at) trigger) t
         where at not between now() - interval '37 minutes' and now() - interval '12 minutes'
        """
    )


def _stats(conn: psycopg.Connection) -> None:
    rows = conn.execute(
        "select span, extract(epoch from at)::bigint as t, at from (values (60, '3 hours'), (600, '2 days'), (3600, '8 days')) s (span, back)"
        " cross join lateral generate_series(to_timestamp(floor(extract(epoch from now() - back::interval) / span) * span), now(),"
        " make_interval(secs => span)) at"
    ).fetchall()
    share = {"": 1.0, "send_welcome_email": 0.5, "sync_crm": 0.3, "charge_invoice": 0.15, "resize_avatar": 0.05}
    with (
        conn.cursor() as cursor,
        cursor.copy(
            "copy tick.stats (span, at, type, done, retried, dead, released, lost, run_seconds, wait_seconds, runs, waits) from stdin"
        ) as copy,
    ):
        for span, t, at in rows:
            day = 1 + math.sin(2 * math.pi * (t % 86_400) / 86_400 - 1.5)
            noise = 0.8 + 0.4 * ((t * 2_654_435_761) % 1000) / 1000
            for type, part in share.items():
                done = int(span / 60 * 14 * day * noise * part) + (type == "")
                retried = done // 19
                runs, waits = _spread(done + retried, 0.12 + 0.1 * day), _spread(done + retried, 0.6 + 4 * day)
                lost = int(t // span % 41 == 0)
                row = (span, at, type, done, retried, done // 140, lost, lost, done * 0.15, done * 1.2, runs, waits)
                copy.write_row(row)


def _spread(count: int, seconds: float) -> list[int]:
    """So many attempts around a duration, most of them near to it."""
    counts, middle = [0] * BUCKETS, bucket(seconds)
    for place, part in ((middle - 2, 0.15), (middle - 1, 0.3), (middle, 0.35), (middle + 1, 0.14), (middle + 3, 0.06)):
        counts[max(0, place)] += int(count * part)
    return counts


def _windows(conn: psycopg.Connection) -> None:
    conn.execute(
        """
        insert into tick.jobs (type, schedule, "window", run_at, status, attempt, started_at, finished_at, last_error, failures)
        select type, name, at, at, case when bad then 'dead' else 'done' end, 1, at + interval '1 s', at + interval '3 s',
               case when bad then 'ConnectTimeout: crm.example.com:443 did not answer in 10.2 s' end, bad::int
          from (select type, name, at, name = 'sync-crm' and extract(hour from at) = 4 as bad
                  from (values ('sync_crm', 'sync-crm', interval '15 minutes', interval '0'),
                               ('nightly_report', 'nightly-report', interval '1 day', interval '90 minutes'),
                               ('sync_crm', 'refresh-rates', interval '5 minutes', interval '0')) s (type, name, every, at_hour)
                 cross join lateral generate_series(date_trunc('day', now()) + at_hour - every * 40, now() - interval '1 minute', every) at) w
        on conflict do nothing
        """
    )
    conn.execute(
        "insert into tick.skips (schedule, first_window, last_window, count, reason, tick_id)"
        " values ('nightly-report', now() - interval '3 days', now() - interval '3 days', 1, 'late', gen_random_uuid()),"
        " ('charge-invoices', now() - interval '2 days', now() - interval '1 day', 2, 'overlap', gen_random_uuid())"
    )


def _jobs(conn: psycopg.Connection) -> dict[str, int]:
    ids = {}
    conn.execute(
        """
        insert into tick.jobs (type, payload, status, attempt, created_at, run_at, started_at, finished_at, key, result)
        select (array['send_welcome_email', 'sync_crm', 'resize_avatar'])[1 + n % 3], jsonb_build_object('user_id', n), 'done', 1,
               at, at, at + interval '1 s', at + interval '2 s', case when n % 4 = 0 then 'user:' || n % 40 end,
               case when n % 5 = 0 then jsonb_build_object('sent', true) end
          from (select n, now() - interval '20 hours' + n * interval '90 s' as at from generate_series(1, 780) n) jobs
        """
    )
    for type, error, count in DEAD:
        for n in range(count):
            said = error.format(n=4711 + n * 13)
            ended = datetime.now(UTC) - timedelta(minutes=n * 17 + 3)
            errors = [
                {
                    "attempt": a,
                    "at": (ended - timedelta(minutes=(5 - a) * 11)).isoformat(),
                    "error": said,
                    "traceback": TRACEBACK,
                }
                for a in (3, 4, 5)
            ]
            payload = {
                "invoice_id": 4711 + n * 13,
                "amount": "12,50" if "InvalidPayload" in error else 0,
                "card_token": "tok_4711",
            }
            id = a_job(conn, type, "dead", payload=payload if type == "charge_invoice" else {"url": "https://example.com/a.png"},
                       last_error=said, errors=errors, finished_at=ended, created_at=f"-{n * 17 + 90} minutes",
                       schedule="charge-invoices" if type == "charge_invoice" else None)  # fmt: skip
            ids.setdefault(said.split(":")[0], id)
    conn.execute("update tick.jobs set fingerprint = tick.fingerprint(last_error) where status = 'dead'")
    for n, (type, done) in enumerate((("sync_crm", 140), ("send_digest", 12))):
        progress = {"done": done, "total": 400, "note": f"page {done // 10}", "at": datetime.now(UTC).isoformat()}
        ids[f"running {type}"] = a_job(conn, type, "running", progress=progress, started_at=f"-{n * 9 + 6} seconds",
                                       created_at="-2 minutes", run_at="-40 seconds")  # fmt: skip
    for n in range(14):
        a_job(
            conn,
            "send_welcome_email",
            payload={"user_id": n},
            run_at=f"-{n * 31} seconds",
            created_at=f"-{n * 40} seconds",
        )
    for n in range(30):
        a_job(conn, "send_digest", payload={}, run_at=f"+{n * 7 + 1} hours", priority=n % 3)
    ids["key"] = a_job(
        conn, "charge_invoice", payload={"invoice_id": 8, "amount": 3.5}, key="customer:8", run_at="-1 minute"
    )
    a_job(conn, "charge_invoice", payload={"invoice_id": 9, "amount": 4.5}, key="customer:8", run_at="-30 seconds")
    ids["unknown"] = a_job(conn, "import_catalogue", payload={"file": "spring.csv"}, run_at="-3 hours")
    ids["cancelled"] = a_job(conn, "resize_avatar", "cancelled", payload={"url": "https://example.com/b.png"})
    error = "CardDeclined: card declined for invoice 4711: insufficient funds"
    kind = {
        "fingerprint": "CardDeclined: #",
        "clean": error,
        "count": 23,
        "last_id": ids["CardDeclined"],
        "last_error": error,
    }
    conn.execute(
        "insert into tick.alerts (rule, subject, since, seen_at, told_at, count, details) values"
        " ('dead', 'charge_invoice', now() - interval '2 hours', now(), now() - interval '2 hours', 27, %s)",
        [Jsonb({"kinds": [kind], "others": 0, "more": False})],
    )
    conn.execute("analyze")
    return ids
