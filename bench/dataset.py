"""Databases for a benchmark: tick's tables, finished jobs behind, pending jobs in front."""

from __future__ import annotations

import asyncio

import psycopg

from tick import database

CHUNK = 250_000
TYPE = "noop"

CREATE_FINISHED = """
create table tick.finished (like tick.jobs including defaults, primary key (id, finished_at))
    partition by range (finished_at);
do $$ begin
    for month in 0..4 loop
        execute format('create table tick.finished_%s partition of tick.finished for values from (%L) to (%L)',
            month, date_trunc('month', now()) - interval '3 months' + make_interval(months => month),
            date_trunc('month', now()) - interval '2 months' + make_interval(months => month));
    end loop;
end $$
"""

# The past 60 days in the order they happened, ten jobs to a tick; a tenth has an idempotency key, a tenth a window.
INSERT_FINISHED = """
insert into {table} (id, type, payload, run_at, created_at, started_at, finished_at, tick_id, attempt, failures,
                     status, idempotency_key, schedule, "window", last_error)
overriding system value
select n, 'type_' || n %% 20, jsonb_build_object('user_id', n, 'template', 'weekly-report', 'audience', 'team'),
       at, at, at + interval '1 s', at + interval '2 s', md5((n / 10)::text)::uuid, 1 + (n %% 50 = 0)::int,
       (n %% 50 = 0)::int, case when n %% 100 = 0 then 'dead' when n %% 100 = 1 then 'cancelled' else 'done' end,
       case when n %% 10 = 3 then md5(n::text) end, case when n %% 10 = 7 then 'schedule-' || n %% 100 end,
       case when n %% 10 = 7 then date_trunc('second', at) + n * interval '1 us' end,
       case when n %% 100 = 0 then 'ConnectionError: the mail server closed the connection' end
  from (select n, now() - interval '60 days' * (1 - n / %(rows)s::float8) as at
          from generate_series(%(first)s::bigint, %(last)s::bigint) n) numbered
"""
INSERT_PENDING = """
insert into tick.jobs (type, payload)
select %(type)s, jsonb_build_object('user_id', n, 'template', 'weekly-report', 'audience', 'team')
  from generate_series(1, %(jobs)s) n
"""
INSERT_KEYED = """
insert into tick.jobs (type, payload, idempotency_key)
select %(type)s, jsonb_build_object('user_id', n, 'template', 'weekly-report', 'audience', 'team'),
       gen_random_uuid()::text
  from generate_series(1, %(jobs)s) n
on conflict (type, idempotency_key) where idempotency_key is not null do nothing
"""


def create(urls: str, name: str) -> str:
    """A new database with tick's tables; its URL."""
    with psycopg.connect(urls.format("postgres"), autocommit=True) as admin:
        admin.execute(f"create database {name}")
    url = urls.format(name)
    asyncio.run(_migrate(url))
    return url


async def _migrate(url: str) -> None:
    async with database.connect(url) as connection:
        await database.migrate(connection)


def add_history(url: str, rows: int, table: str = "tick.jobs") -> None:
    """Fill the table with finished jobs, as if the past 60 days had made them."""
    with psycopg.connect(url, autocommit=True) as connection:
        for first in range(1, rows + 1, CHUNK):
            last = min(first + CHUNK - 1, rows)
            connection.execute(INSERT_FINISHED.format(table=table), {"first": first, "last": last, "rows": rows})
        connection.execute("select setval(pg_get_serial_sequence('tick.jobs', 'id'), %s)", [max(rows, 1)])
        connection.execute(f"vacuum analyze {table}")
        connection.execute("checkpoint")


def create_finished(url: str) -> None:
    """The table of the alternative: finished jobs, partitioned by month."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CREATE_FINISHED)


class Bench:
    """One database between two rounds: cleared of what the last round left, filled for the next."""

    def __init__(self, urls: str, name: str, *, history: int = 0, moved: bool = False) -> None:
        self.urls, self.name = urls, name
        self.url = create(urls, name)
        self.history = history
        self.tables = ["tick.jobs"]
        if moved:
            create_finished(self.url)
            self.tables.append("tick.finished")
        if history:
            add_history(self.url, history, self.tables[-1])

    def clear(self) -> None:
        """Remove the jobs of the last round, down to their traces in the indexes."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("truncate tick.ticks, tick.types")
            for table in self.tables:
                connection.execute(f"delete from {table} where id > %s", [self.history])
                connection.execute(f"vacuum (index_cleanup on, truncate off, analyze) {table}")
            connection.execute("checkpoint")

    def fill(self, jobs: int) -> None:
        """Put pending jobs in, and let the server come to rest."""
        self.clear()
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(INSERT_PENDING, {"type": TYPE, "jobs": jobs})
            connection.execute("vacuum (truncate off, analyze) tick.jobs")
            connection.execute("checkpoint")

    def size(self) -> int:
        """Bytes on disk."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("select pg_database_size(current_database())").fetchone()
        return int(row[0]) if row else 0

    def drop(self) -> None:
        """Give the disk back."""
        with psycopg.connect(self.urls.format("postgres"), autocommit=True) as admin:
            admin.execute(f"drop database {self.name} with (force)")
