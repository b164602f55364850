"""The connection and the schema: how tick reaches Postgres, and how its tables come to be."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from .errors import ConfigurationError, DatabaseError, DatabaseUnavailable, MigrationError, NotMigrated

CONNECT_TIMEOUT = 5
RECONNECT = 0.25
"""Seconds between attempts to reach a database that went away in the middle of a tick."""
LOCK_TIMEOUT = "5s"
MIGRATION_LOCK = 7236483109254801
ROOM_SECONDS = 5.0
"""How long one waits for a seat in a room, before one is told to come again."""
READ_SECONDS = 10.0
"""How long the statements of `read` may take, each."""
NOT_THERE = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)
"""What Postgres says where a migration is missing."""
# What other tools' connection strings carry and libpq refuses.
_FOREIGN_OPTIONS = {"pgbouncer", "connection_limit", "pool_timeout", "schema", "supa", "uselibpqcompat"}


def _says_more_than_its_error(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("error ignored terminating")


# psycopg warns that it gives up the rest of a pipeline whose error is raised anyway.
logging.getLogger("psycopg").addFilter(_says_more_than_its_error)


def normalise_url(url: str) -> str:
    """The URL as libpq takes it: without SQLAlchemy's driver suffix and other tools' options."""
    url = re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", url.strip())
    base, mark, query = url.partition("?")
    if not mark or not re.match(r"postgres(?:ql)?://", url):
        return url
    # Cut out, not parsed and written anew: libpq's percent-encoding is not that of forms.
    options = [option for option in query.split("&") if option.partition("=")[0] not in _FOREIGN_OPTIONS]
    return f"{base}?{'&'.join(options)}" if options else base


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[AsyncConnection]:
    """One connection, closed at the end. No session state, so that a transaction-mode pooler will do."""
    connection = await open_connection(url)
    try:
        yield connection
    finally:
        await connection.close()


async def open_connection(url: str) -> AsyncConnection:
    """Connect within 5 seconds, or raise DatabaseUnavailable."""
    if not url:
        raise ConfigurationError("DATABASE_URL is not set: where is your Postgres?")
    try:
        return await AsyncConnection.connect(
            normalise_url(url),
            autocommit=True,
            # A statement prepared on one server connection of a pooler is unknown, or another's, on the next.
            prepare_threshold=None,
            connect_timeout=CONNECT_TIMEOUT,
        )
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"DATABASE_URL is not usable: {_why_unreadable(url, error)}") from None
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"Postgres cannot be reached: {one_line(error)}") from None


class Seat:
    """At most one connection, of the few that a room has for all who come: ticks must find some left.

    `busy` is what those are told who find no place within ROOM_SECONDS.
    """

    def __init__(self, url: str, room: asyncio.Semaphore, busy: str) -> None:
        self._url = url
        self._room = room
        self._busy = busy
        self._has_place = False
        self._connection: AsyncConnection[Any] | None = None

    async def connection(self) -> AsyncConnection[Any]:
        """Opened when it is first asked for. Raises as `open_connection` does, and when the room stays full."""
        if self._connection is None:
            await self._enter()
            self._connection = await open_connection(self._url)
            set_json_loads(decode, self._connection)
        return self._connection

    async def _enter(self) -> None:
        if self._has_place:
            return
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                await self._room.acquire()
        except TimeoutError:
            raise DatabaseUnavailable(self._busy) from None
        self._has_place = True

    async def leave(self) -> None:
        """Give back what was opened; who asks again opens it anew."""
        if self._connection is not None:
            await self._connection.close()
        if self._has_place:
            self._room.release()
        self._connection, self._has_place = None, False


def _why_unreadable(url: str, error: psycopg.Error) -> str:
    """What libpq says, and how a URL begins that it would have taken for one."""
    said = _without_secrets(one_line(error))
    is_ours = re.match(r"postgres(?:ql)?://", normalise_url(url))
    return said if is_ours else f"{said}; write postgresql://user:password@host/database"


def _without_secrets(message: str) -> str:
    """What libpq says of a URL it cannot read. What it quotes may hold the password, unless it is an option's name."""
    return re.sub(r'(?<!parameter: )(?<!option )"[^"]*"|"[^"]*[^a-z_"][^"]*"', '"..."', message)


async def reopen(url: str, remaining: Callable[[], float]) -> AsyncConnection:
    """Connect again, trying for as long as there are seconds left: a Postgres that restarts is soon back."""
    while True:
        try:
            return await open_connection(url)
        except DatabaseUnavailable:
            if remaining() < RECONNECT:
                raise
            await asyncio.sleep(RECONNECT)


def one_line(error: BaseException) -> str:
    """An error's message without its line breaks, or its type when it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def in_schema(statement: str, schema: str) -> str:
    """The statement with tick's schema under another name."""
    if schema == "tick":
        return statement
    renamed = re.sub(r"\btick\.(?=\w)", f'"{schema}".', statement)
    return renamed.replace("schema if not exists tick;", f'schema if not exists "{schema}";')


class Statement(NamedTuple):
    """A statement of one of the package's .sql files by its name, and what to bind."""

    name: str
    params: dict[str, Any]
    file: str = "queue"


@cache
def statements(file: str, schema: str = "tick") -> dict[str, str]:
    """The named statements of one of the package's .sql files, in the given schema, without their comments."""
    text = in_schema(Path(__file__).with_name(f"{file}.sql").read_text(encoding="utf-8"), schema)
    blocks = re.split(r"^-- name: (\w+).*$", text, flags=re.MULTILINE)[1:]
    return {
        name: re.sub(r"^\s*--.*\n?", "", body, flags=re.MULTILINE).strip()
        for name, body in zip(blocks[::2], blocks[1::2], strict=True)
    }


def decode(text: str | bytes) -> Any:
    """JSON, or its text where Postgres holds what cannot be decoded (1e5000, a nest of thousands)."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return text if isinstance(text, str) else bytes(text).decode("utf-8", "replace")


async def read(
    connection: AsyncConnection[Any], schema: str, *questions: Statement, seconds: float = READ_SECONDS
) -> list[list[dict[str, Any]]]:
    """The rows of each question, in one round trip and one transaction that cannot write.

    Raises NotMigrated when a table is missing, and DatabaseUnavailable when the connection is lost or a statement
    takes longer than so many seconds.
    """
    patience = {"ms": f"{seconds * 1000:.0f}"}
    try:
        async with connection.pipeline(), connection.transaction():
            await connection.execute(
                "select set_config('statement_timeout', %(ms)s, true), set_config('jit', 'off', true),"
                " set_config('transaction_read_only', 'on', true)",
                patience,
            )
            set_json_loads(decode, connection)
            cursors = [
                await connection.cursor(row_factory=dict_row).execute(statements(q.file, schema)[q.name], q.params)
                for q in questions
            ]
        return [await cursor.fetchall() for cursor in cursors]
    except NOT_THERE as error:
        raise await not_migrated(connection, schema) or error from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(f"the database's role lacks a right: {one_line(error)}") from error
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"the database did not answer: {one_line(error)}") from error


class Migration:
    """One numbered file of migrations/."""

    def __init__(self, path: Path) -> None:
        from hashlib import sha256

        self.number = int(path.name.split("_")[0])
        self.name = path.stem
        self.text = path.read_text(encoding="utf-8")
        self.checksum = sha256(self.text.encode()).hexdigest()

    def body(self, schema: str) -> str:
        """The statements between the file's own `begin;` and `commit;`."""
        start, end = self.text.index("\nbegin;\n") + 8, self.text.rindex("\ncommit;")
        return in_schema(self.text[start:end], schema)


def migrations() -> list[Migration]:
    """All of them, in order: from the wheel, or from the checkout."""
    package = Path(__file__).parent
    folders = (package / "migrations", package.parent / "migrations")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise ConfigurationError(f"no migrations/ beside {package}: the installation is incomplete")
    return sorted((Migration(path) for path in folder.glob("[0-9]*.sql")), key=lambda m: m.number)


async def applied(connection: AsyncConnection, schema: str) -> dict[int, tuple[str, str | None]]:
    """Number to (name, checksum) of every migration that the database says it has."""
    try:
        rows = await connection.execute(
            sql.SQL("select number, name, checksum from {}.migrations").format(sql.Identifier(schema))
        )
        return {number: (name, checksum) for number, name, checksum in await rows.fetchall()}
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return {}


async def pending(connection: AsyncConnection, schema: str) -> list[Migration]:
    """Those still to apply. Raises MigrationError if an applied one has changed or is missing here."""
    known, done = migrations(), await applied(connection, schema)
    _check_history(known, done)
    return [migration for migration in known if migration.number not in done]


def _check_history(known: list[Migration], done: dict[int, tuple[str, str | None]]) -> None:
    files = {migration.number: migration for migration in known}
    for number, (name, checksum) in sorted(done.items()):
        if number not in files:
            raise MigrationError(
                f"the database has migration {name}, whose file is missing here: "
                "this version of tick is older than the database's; upgrade it, or restore the file"
            )
        if checksum is not None and files[number].checksum != checksum:
            raise MigrationError(
                f"migrations/{files[number].name}.sql has changed since it was applied; "
                "restore it, and put the change into a new migration"
            )


async def migrate(connection: AsyncConnection, schema: str = "tick") -> list[str]:
    """Apply what is pending, each file in a transaction of its own; the names applied.

    Raises MigrationError for one that the database refuses, or that waits too long for another session's lock.
    """
    waiting = await pending(connection, schema)
    done = [migration.name for migration in waiting if await _apply(connection, migration, schema)]
    await _fill_checksums(connection, schema)
    return done


async def _apply(connection: AsyncConnection, migration: Migration, schema: str) -> bool:
    try:
        async with connection.transaction():
            return await _apply_alone(connection, migration, schema)
    except psycopg.errors.LockNotAvailable:
        why = "another session held a lock that it needs; nothing has changed, run `tick migrate` again"
        raise MigrationError(f"migrations/{migration.name}.sql was not applied: {why}") from None
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(f"the database went away: {one_line(error)}") from error
    except psycopg.Error as error:
        raise MigrationError(f"migrations/{migration.name}.sql was not applied: {one_line(error)}") from error


async def _apply_alone(connection: AsyncConnection, migration: Migration, schema: str) -> bool:
    await connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    await connection.execute("select pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
    # Another process may have applied it while this one waited for the lock.
    if await _is_applied(connection, migration, schema):
        return False
    await connection.execute(migration.body(schema).encode())
    await connection.execute(
        sql.SQL("update {}.migrations set checksum = %s where number = %s").format(sql.Identifier(schema)),
        [migration.checksum, migration.number],
    )
    return True


async def _is_applied(connection: AsyncConnection, migration: Migration, schema: str) -> bool:
    exists = await connection.execute("select to_regclass(%s) is not null", [f'"{schema}".migrations'])
    if not (await exists.fetchone() or [False])[0]:
        return False
    return migration.number in await applied(connection, schema)


async def _fill_checksums(connection: AsyncConnection, schema: str) -> None:
    """Give a checksum to the migrations that psql applied."""
    statement = sql.SQL("update {}.migrations set checksum = %s where number = %s and checksum is null").format(
        sql.Identifier(schema)
    )
    for migration in migrations():
        await connection.execute(statement, [migration.checksum, migration.number])


def export(schema: str = "tick") -> str:
    """The migrations as one SQL script, for `psql` or a reviewer."""
    return "\n".join(in_schema(migration.text, schema) for migration in migrations())


async def not_migrated(connection: AsyncConnection, schema: str) -> NotMigrated | None:
    """What a tick says when a table is missing: which migrations, and what to run."""
    missing = [migration.name for migration in await pending(connection, schema)]
    return NotMigrated(schema, missing) if missing else None
