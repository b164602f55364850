"""The least SQL that can work a queue, on tick's own table: claim some, settle some, and nothing else.

What the claim asks for is what the index of due jobs holds. No types, keys, suspects, fences, histories, reports: what
is left is the price of the promise that two workers never take the same job, and that an outcome is durable.
"""

from __future__ import annotations

import uuid

import psycopg
from psycopg import AsyncConnection, sql

BATCH = 500

CLAIM = """
update tick.jobs set status = 'running', attempt = attempt + 1, tick_id = %(tick)s, started_at = now(),
       lease_expires_at = now() + interval '1 minute'
 where id = any(array(
       select id from tick.jobs
        where status = 'pending' and losses = 0 and waits_for is null and lane is null and run_at <= now()
        order by priority desc, run_at, id limit %(limit)s for update skip locked))
returning id
"""
KEEP = """
update tick.jobs set status = 'done', finished_at = now(), lease_expires_at = null
 where id = any(%(ids)s) and tick_id = %(tick)s
"""
MOVE = """
with moved as (delete from tick.jobs where id = any(%(ids)s) and tick_id = %(tick)s returning *)
insert into tick.finished ({names}) select {values} from moved
"""
REPLACED = {"status": "'done'", "finished_at": "now()", "lease_expires_at": "null"}


def move_statement(url: str) -> str:
    """The settle that moves finished jobs to the table `tick.finished`."""
    with psycopg.connect(url) as connection:
        description = connection.execute("select * from tick.jobs limit 0").description or []
        names = [column.name for column in description]
        quoted = {name: sql.Identifier(name).as_string(connection) for name in names}
    values = ", ".join(REPLACED.get(name, quoted[name]) for name in names)
    return MOVE.format(names=", ".join(quoted.values()), values=values)


async def drain(connection: AsyncConnection, settle: str) -> tuple[int, int]:
    """Claim, then settle and claim in one round trip and one commit until none are left: jobs, round trips."""
    tick, ids, jobs, trips = uuid.uuid4(), list[int](), 0, 0
    while trips == 0 or ids:
        async with connection.pipeline():
            if ids:
                await connection.execute(settle, {"ids": ids, "tick": tick})
            claimed = await connection.execute(CLAIM, {"limit": BATCH, "tick": tick}, binary=True)
        ids = [row[0] for row in await claimed.fetchall()]
        jobs, trips = jobs + len(ids), trips + 1
    return jobs, trips
