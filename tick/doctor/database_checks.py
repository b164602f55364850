"""The database: the server and its sessions, the migrations, the schema, and how its tables are kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection

from tick import database
from tick.config import GRACE
from tick.database import Statement
from tick.doctor import drift
from tick.doctor.findings import Finding, found
from tick.doctor.subject import Project
from tick.errors import ConfigurationError, DatabaseUnavailable, MigrationError
from tick.masking import mask_text
from tick.verdict import lasting

OLDEST_POSTGRES = 140_000
HELD_SECONDS = 300.0
"""For how long a transaction may hold back vacuum."""
IDLE_SECONDS = 60.0
"""For how long a session may hold locks and do nothing."""
SKEW_SECONDS = 5.0
LEAST_TIMEOUT = 5000
"""Milliseconds that a statement has to have."""
MOST_TRANSACTIONS = 1_500_000_000
FULL = 0.85
"""The share of the connections at which they are nearly used up."""
MANY_ROWS = 10_000
LARGE = 64 * 1024 * 1024
LARGE_ROW = 8192
"""Bytes of a table for each of its rows beyond which it is mostly empty: less than one row a page."""

Row = Mapping[str, Any]


def ask(name: str, **params: Any) -> Statement:
    """A question of doctor_checks.sql."""
    return Statement(name, params, "doctor_checks")


def cannot_connect(error: Exception) -> Finding:
    """What is said when there is no connection."""
    if isinstance(error, ConfigurationError):
        return found(
            "database-unusable", "DATABASE_URL", str(error), "correct it: postgresql://user:password@host/database"
        )
    fix = "check that the server runs, and that its firewall, its pooler and the password let this machine in"
    return found("database-unreachable", "DATABASE_URL", str(error), fix)


async def pooler(connection: AsyncConnection[Any]) -> list[Finding]:
    """What a transaction sets, the next statement of it sees: not so where a pooler has a server for each statement."""
    try:
        async with connection.transaction():
            await connection.execute("select set_config('tick.doctor', 'here', true)")
            seen = await (await connection.execute("select current_setting('tick.doctor', true)")).fetchone()
        why = None if seen and seen[0] == "here" else "two statements of a transaction met different servers"
    except psycopg.OperationalError as error:
        if "statement pooling" not in str(error):
            raise DatabaseUnavailable(f"the database did not answer: {database.one_line(error)}") from error
        why = database.one_line(error)
    fix = "set pool_mode = transaction, or take the URL of the pooler's transaction mode"
    return [found("pooler-statement", "DATABASE_URL", why, fix)] if why else []


# The server


def measured_skew(before: float, clock: float, after: float) -> float:
    """Seconds by which this machine's clock is ahead, as far as the time of the round trip leaves no doubt."""
    return before - clock if before > clock else min(0.0, after - clock)


async def server(connection: AsyncConnection[Any], project: Project) -> tuple[Row, list[Finding]]:
    """What there is to say of the server; and what it says of itself."""
    schema, before = project.settings.schema, time.time()
    ((row,),) = await database.read(connection, schema, ask("server"))
    skew = measured_skew(before, row["clock"], time.time())
    checks = (version(row), *settings(row, project.budget), *capacity(row), *clocks(skew))
    return row, [finding for finding in checks if finding]


def version(row: Row) -> Finding | None:
    """The server is new enough."""
    if row["version_number"] >= OLDEST_POSTGRES:
        return None
    return found("postgres-old", "the server", f"it is Postgres {row['version']}", "upgrade it; 14 to 18 are supported")


def settings(row: Row, budget: float) -> Iterator[Finding]:
    """The server, database and role are set as tick needs them."""
    given = {name: str(value) for name, value in row["settings"].items()}
    if row["encoding"] != "UTF8":
        fix = "create a database with encoding 'UTF8' and template template0, and move there"
        yield found("database-encoding", "the database", f"its encoding is {row['encoding']}", fix)
    if row["replica"] or given["default_transaction_read_only"] == "on":
        what = "the server is a replica" if row["replica"] else "default_transaction_read_only is on"
        fix = "take the URL of the primary; with several hosts in it, add target_session_attrs=read-write"
        yield found("read-only", "DATABASE_URL", what, fix)
    for code, name, right in _misset(given, budget):
        fix = f"alter role {row['role']} set {name} = {right}; and remove it from the options of DATABASE_URL"
        yield found(code, f"{name} of the role, database or server", f"it is {given[name]}", fix)
    for code, name in (("not-durable", "fsync"), ("autovacuum-off", "autovacuum"), ("autovacuum-off", "track_counts")):
        if given[name] == "off":
            fix = f"alter system set {name} = on; select pg_reload_conf()"
            yield found(code, "the server", f"{name} is off", fix)


def _misset(given: Mapping[str, str], budget: float) -> Iterator[tuple[str, str, str]]:
    """The settings of a session that are wrong, and what each should be."""
    if given["default_transaction_isolation"] != "read committed":
        yield "isolation", "default_transaction_isolation", "'read committed'"
    if 0 < int(given["statement_timeout"]) < LEAST_TIMEOUT:
        yield "statement-timeout", "statement_timeout", "'30s'"
    if 0 < int(given["idle_session_timeout"]) < (budget + GRACE) * 1000:
        yield "idle-session-timeout", "idle_session_timeout", "0"
    if given["session_replication_role"] != "origin":
        yield "triggers-off", "session_replication_role", "origin"
    if given["synchronous_commit"] == "off":
        yield "not-durable", "synchronous_commit", "on"


def capacity(row: Row) -> Iterator[Finding]:
    """There are connections and transaction ids left."""
    if row["connections"] >= FULL * row["most_connections"]:
        what = f"{row['connections']} of {row['most_connections']} connections are in use"
        fix = "put a transaction-mode pooler before it, such as PgBouncer; or raise max_connections"
        yield found("connections", "the server", what, fix)
    if row["oldest_transaction"] > MOST_TRANSACTIONS:
        what = f"its oldest transaction id is {row['oldest_transaction']:,} transactions old"
        yield found("wraparound", "the database", what, "end what holds back vacuum, then: vacuum freeze")
    if not row["sees_sessions"]:
        fix = f"grant pg_read_all_stats to {row['role']}"
        yield found("sessions-hidden", f"role {row['role']}", "it sees its own sessions only", fix)


def clocks(skew: float) -> Iterator[Finding]:
    """Here and in the database it is the same time."""
    if abs(skew) > SKEW_SECONDS:
        what = f"it is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the database's"
        yield found("clock-skew", "the clock of this machine", what, "let both follow NTP: timedatectl set-ntp true")


# Sessions


async def sessions(connection: AsyncConnection[Any], project: Project) -> list[Finding]:
    """Nobody holds back vacuum, or locks on tick's tables."""
    held = {"seconds": HELD_SECONDS}
    old, idle, slots, prepared = await database.read(
        connection,
        project.settings.schema,
        ask("sessions", **held),
        ask("idle_locks", schema=project.settings.schema, seconds=IDLE_SECONDS),
        ask("slots"),
        ask("prepared", **held),
    )
    return [*map(_old, old), *map(_idle, idle), *map(slot, slots), *map(_prepared, prepared)]


def _who(row: Row) -> str:
    return f"pid {row['pid']} ({row['role']}, {row['application'] or 'no application_name'})"


def _old(row: Row) -> Finding:
    what = f"its transaction has been open for {lasting(row['seconds'])}, {row['state']}: {mask_text(row['query'])}"
    fix = (
        f"end it: select pg_terminate_backend({row['pid']}); then set idle_in_transaction_session_timeout for its role"
    )
    return found("vacuum-held", _who(row), what, fix)


def _idle(row: Row) -> Finding:
    since = lasting(row["seconds"])
    what = f"it has held locks on {row['tables']} for {since}, and does nothing: {mask_text(row['query'])}"
    fix = f"commit there before anything slow; now: select pg_terminate_backend({row['pid']})"
    return found("locks-held", _who(row), what, fix)


def slot(row: Row) -> Finding:
    """What is said of a replication slot that nobody reads."""
    kept = f"it keeps {(row['bytes'] or 0) / 1_048_576:,.0f} MB of log"
    what = f"{'it is read, but slowly' if row['active'] else 'nobody reads it'}; {kept}"
    fix = f"start its reader, or: select pg_drop_replication_slot('{row['name']}')"
    return found("vacuum-held-by-slot", f"slot {row['name']}", what, fix)


def _prepared(row: Row) -> Finding:
    what = f"it was prepared {lasting(row['seconds'])} ago, by {row['role']}"
    fix = f"commit prepared '{row['gid']}'; or: rollback prepared '{row['gid']}'"
    return found("vacuum-held-by-prepared", f"prepared transaction {row['gid']}", what, fix)


async def pg_cron(connection: AsyncConnection[Any], project: Project) -> list[Finding]:
    """Calls by pg_net do not wait for a tick."""
    (calls,) = await database.read(connection, project.settings.schema, ask("pg_cron_calls"))
    fix = "call /tick?wait=0, and give net.http_post timeout_milliseconds := 10000: docs/deploy.md"
    return [found("pg-net-timeout", f"cron.job {row['id']}", "it waits for the tick to end", fix) for row in calls]


# The schema


async def rights(connection: AsyncConnection[Any], project: Project) -> list[Finding]:
    """The role may do what ticks do."""
    schema = project.settings.schema
    (rows,) = await database.read(connection, schema, ask("rights", schema=schema))
    fix = (
        f"as the owner: grant usage on schema {schema} to ROLE;"
        f" grant select, insert, update, delete on all tables in schema {schema} to ROLE"
    )
    return [found("rights", f"table {schema}.{row['table']}", f"it may not {row['missing']}", fix) for row in rows]


async def migrations(connection: AsyncConnection[Any], project: Project) -> list[Finding]:
    """The migrations have been applied, and have not changed since."""
    where = f"schema {project.settings.schema}"
    try:
        pending = await database.pending(connection, project.settings.schema)
    except MigrationError as error:
        return [found("migrations-changed", where, str(error), "restore the file, or upgrade tick; then: tick migrate")]
    what = (
        f"{len(pending)} are pending: {', '.join(migration.name for migration in pending)}; the rest was not examined"
    )
    return [found("not-migrated", where, what, "tick migrate")] if pending else []


async def schema(connection: AsyncConnection[Any], project: Project) -> list[Finding]:
    """The schema is what the migrations make, nothing of it is switched off, and its clock is Postgres's."""
    name = project.settings.schema
    broken, tables, ((clock),) = await database.read(
        connection, name, ask("broken", schema=name), ask("tables", schema=name), ask("clock")
    )
    return [
        *await drift.look(connection, name),
        *(_broken(row, name) for row in broken),
        *kept(tables, name),
        *_clock(clock, name),
    ]


def _broken(row: Row, schema: str) -> Finding:
    where = f"{row['kind']} {schema}.{row['name']}"
    if row["kind"] == "index":
        fix = f"reindex index concurrently {schema}.{row['name']}; if it fails, remove the duplicates it names first"
        return found("index-invalid", where, f"it is invalid, on {schema}.{row['table']}", fix)
    fix = f"alter table {schema}.{row['table']} enable trigger {row['name']}"
    return found("trigger-disabled", where, f"it is disabled, on {schema}.{row['table']}", fix)


def _clock(row: Row, schema: str) -> Iterator[Finding]:
    if row["ahead"]:
        what = f"it is {lasting(abs(row['ahead']))} {'ahead of' if row['ahead'] > 0 else 'behind'} the server's clock"
        fix = (
            f"create or replace function {schema}.now() returns timestamptz language sql stable parallel safe"
            " as 'select pg_catalog.now()'"
        )
        yield found("clock-replaced", f"function {schema}.now()", what, fix)


def kept(tables: Sequence[Row], schema: str) -> Iterator[Finding]:
    """The tables are vacuumed and analyzed, and about as large as their rows."""
    for row in tables:
        name, rows = f"{schema}.{row['name']}", row["live"] + row["dead"]
        if row["left_alone"]:
            fix = f"alter table {name} reset (autovacuum_enabled)"
            yield found("autovacuum-off", f"table {name}", "autovacuum_enabled is false", fix)
        if row["dead"] > max(MANY_ROWS, row["live"] / 2):
            since = f"; last vacuumed {row['vacuumed']:%Y-%m-%d %H:%M} UTC" if row["vacuumed"] else "; never vacuumed"
            fix = f"find what holds back vacuum, then: vacuum (verbose, analyze) {name}"
            yield found(
                "dead-rows", f"table {name}", f"{row['dead']:,} dead rows, {row['live']:,} live ones{since}", fix
            )
        if row["bytes"] > LARGE and row["bytes"] > LARGE_ROW * max(1, rows):
            what = f"{row['bytes'] / 1_048_576:,.0f} MB for {rows:,} rows"
            fix = f"once, when it is quiet: vacuum full {name}; or pg_repack, which does not lock it"
            yield found("table-bloat", f"table {name}", what, fix)
        if row["live"] > MANY_ROWS and not row["analyzed"]:
            yield found("never-analyzed", f"table {name}", f"{row['live']:,} rows, never analyzed", f"analyze {name}")
