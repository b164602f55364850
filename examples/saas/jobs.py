"""The handlers: each a function that you can also call, and test, as a function.

Every one may be run more than once for the same job, since a process can be killed after the work and before tick has
written that it is done. So each says how it bears that.
"""

import os
import ssl
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import tick

import db
import mail

ZONE = ZoneInfo("Europe/Paris")
PATIENCE = float(os.environ.get("HTTP_TIMEOUT", "5"))  # seconds to wait for another service
TLS = ssl.create_default_context()
"""Made once: it takes tens of milliseconds, in which no other coroutine runs, and httpx would make one per client."""
REFUSALS = {400, 402, 404, 409, 410, 422}
"""Answers that the same request will get again. Not 401 and 403: a key that expired is renewed, and a retry works."""


# E-mail


@tick.job(timeout="20s")  # A job is started only in a tick that has its time-out left: do not be generous.
def send_welcome_email(ctx: tick.Context, user_id: int) -> None:
    """Welcome a user, once, and then tell the CRM.

    The guarantee, honestly: *at least* once, and almost always exactly once. The row stays locked while the message
    is sent, and is marked in the same transaction: so of two attempts that overlap, the second waits, sees the mark and
    sends nothing. A message is repeated only if this process, or its connection, dies between the mail server's "250
    accepted" and the commit: a few milliseconds. It then has the same Message-ID, so that it can be recognised.

    To mark first and send after would make it *at most* once: right for a message that must not come twice, wrong for
    one without which nobody finds back. No order of the two gives exactly once.
    """
    with db.connect() as connection:
        user = connection.execute(
            # `no key`: rows that refer to this user can be inserted meanwhile.
            "select email, name, welcomed_at from users where id = %s for no key update",
            [user_id],
        ).fetchone()
        if user is None:
            return  # The account was deleted since: there is nobody to welcome, and that is no failure.
        if user.welcomed_at is None:
            body = f"Hello {user.name},\n\nwelcome aboard. Just reply to this message if you need anything.\n"
            mail.send(mail.compose(user.email, f"Welcome, {user.name}", body, id=f"welcome.{ctx.id}"))
            connection.execute("update users set welcomed_at = now() where id = %s", [user_id])
    # Enqueued if, and only if, this attempt succeeds: both are one commit. Outside the `if`, since the attempt that
    # sent the message may have been the one that was killed before it could be settled.
    ctx.enqueue(sync_to_crm, user_id=user_id)


@tick.job
def nightly_digest(ctx: tick.Context, to: str) -> dict[str, Any]:
    """Yesterday's signups. `ctx.window` is what the job is *for*, so a digest that runs late is still of its own day.

    Sent at least once: a repeated digest annoys nobody, so it needs no mark.
    """
    day = local_day(ctx) - timedelta(days=1)
    with db.connect() as connection:
        users = connection.execute(
            "select name, email from users where created_at >= %s and created_at < %s order by created_at",
            [midnight(day), midnight(day + timedelta(days=1))],
        ).fetchall()
    if users:
        lines = [f"{user.name} <{user.email}>" for user in users]
        body = "\n".join([f"{len(users)} signed up on {day:%A %d %B}:", "", *lines, ""])
        mail.send(mail.compose(to, f"{len(users)} signups on {day}", body, id=f"digest.{ctx.id}"))
    return {"day": day, "signups": len(users)}  # kept with the job: see `tick jobs show`


def local_day(ctx: tick.Context) -> date:
    """The day, in Paris, of the job's window; today when it was run by hand."""
    return (ctx.window or datetime.now(UTC)).astimezone(ZONE).date()


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZONE)


# Numbers


@tick.job
def hourly_rollup(ctx: tick.Context) -> None:
    """Count the hour before the window. Counting it again gives the same row, so it may run any number of times."""
    end = (ctx.window or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
    with db.connect() as connection:
        connection.execute(
            """
            insert into signups_per_hour (hour, signups)
            select %(start)s, count(*) from users where created_at >= %(start)s and created_at < %(end)s
            on conflict (hour) do update set signups = excluded.signups
            """,
            {"start": end - timedelta(hours=1), "end": end},
        )


# Other services


@tick.job(max_attempts=10, timeout="20s")
async def sync_to_crm(user_id: int) -> None:
    """Put the user into the CRM. PUT of the whole contact: to repeat it changes nothing."""
    async with await db.connect_async() as connection:
        cursor = await connection.execute("select email, name from users where id = %s", [user_id])
        user = await cursor.fetchone()
    if user is None:
        return
    async with httpx.AsyncClient(timeout=PATIENCE, verify=TLS) as client:
        response = await client.put(
            f"{os.environ['CRM_URL']}/contacts/{user_id}", json={"email": user.email, "name": user.name}
        )
    check(response)


@tick.job
def renewals(ctx: tick.Context) -> int:
    """Enqueue a renewal for each customer who is due.

    key: no two renewals of one customer ever run at the same time. idempotency_key: one a day for each customer,
    however often this job is run, by hand too. They are enqueued with this job's success: all of them, or none.
    """
    day = local_day(ctx)
    with db.connect() as connection:
        due = connection.execute("select id from customers where renews_on <= %s order by id", [day]).fetchall()
    for customer in due:
        name = f"customer:{customer.id}"
        renewal = renew_subscription.using(key=name, idempotency_key=f"{name}:{day}")
        ctx.enqueue(renewal, customer_id=customer.id)
    return len(due)


@tick.job(max_attempts=10, timeout="20s")
async def renew_subscription(customer_id: int) -> str:
    """Charge one month, and write it down. The payment service knows a repeated charge by its Idempotency-Key.

    The key is made of what is paid for, and not of the job: so no second job can charge the same month either.
    """
    async with await db.connect_async() as connection:
        customer = await due_customer(connection, customer_id)
        if customer is None:
            return "not due"
        # The transaction ends here, and not around the request: nothing needs a lock, `key` has seen to that.
        await connection.commit()
        async with httpx.AsyncClient(timeout=PATIENCE, verify=TLS) as client:
            response = await client.post(
                f"{os.environ['PAYMENTS_URL']}/charges",
                json={"customer": customer_id, "amount_cents": customer.price_cents},
                headers={"Idempotency-Key": f"renewal-{customer_id}-{customer.renews_on}"},
            )
        check(response)
        await write_down(connection, customer)
    return f"paid from {customer.renews_on}"


async def due_customer(connection: Any, customer_id: int) -> Any:
    cursor = await connection.execute(
        "select id, price_cents, renews_on from customers where id = %s and renews_on <= tick.now()::date",
        [customer_id],
    )
    return await cursor.fetchone()


async def write_down(connection: Any, customer: Any) -> None:
    await connection.execute(
        "insert into invoices (customer_id, period, amount_cents) values (%s, %s, %s) on conflict do nothing",
        [customer.id, customer.renews_on, customer.price_cents],
    )
    await connection.execute(
        "update customers set renews_on = renews_on + interval '1 month' where id = %s and renews_on = %s",
        [customer.id, customer.renews_on],
    )


def check(response: httpx.Response) -> None:
    """What another service's answer means for the job.

    Busy, and it says until when: retry then. Refused: dead at once, with its reason, to be replayed once somebody has
    seen to it. Anything else that is no success, a time-out too, is an ordinary failure: retried by the backoff.
    """
    status, wait = response.status_code, retry_after(response)
    if status in (429, 503) and wait is not None:
        raise tick.Retry(f"{status} from {response.url}: busy for {wait:.0f} s", after=wait)
    if status in REFUSALS:
        raise tick.Permanent(f"{status} from {response.url}: {response.text[:300]}")
    response.raise_for_status()


def retry_after(response: httpx.Response) -> float | None:
    """The seconds that Retry-After asks for, in either of its forms; an hour at most, whatever it says."""
    text = response.headers.get("retry-after", "")
    try:
        seconds = float(text) if text.isdigit() else (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 1.0), 3600.0)
