"""What a request to the dashboard has: what was sent with it, the database, and pages to answer with."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import dict_row
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tick import database, masking
from tick.api import Door
from tick.config import Settings
from tick.dashboard import sessions, shown
from tick.dashboard.sessions import Session
from tick.database import Seat, Statement
from tick.errors import DatabaseError, DatabaseUnavailable
from tick.handlers import Registry

LONGEST_FORM = 256 * 1024
LONGEST_EDIT = 2 * 1024 * 1024
"""Bytes of a form with a payload: 64 KiB of numbers, each on its line, come as half a megabyte."""
MOST_FIELDS = 100
MOST_CHOSEN = 11_000
"""Fields of a bulk change: its ids, and some more."""
FORM_SECONDS = 10.0
WRITE_SECONDS = 10.0
RESENDS = 3
PAUSE = 0.05
"""Seconds before a change that lost a race is sent again."""

_PASSING = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
_UNWRITABLE = (psycopg.DataError, psycopg.errors.CheckViolation)

Row = dict[str, Any]


class Refusal(Exception):
    """What is not done: told on a page of its own, with its status, a title, and what to do instead."""

    def __init__(self, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers or {}


class LoggedOut(Exception):
    """The API key that somebody has logged in with is no longer valid."""


class Desk:
    """One request, and what it needs.

    Attributes:
        request: as it came.
        session: of whoever has logged in; None on the few pages that need no log-in.
        form: the fields of the body, the last of each name; `values` has all of them.
        query: what the URL says behind its question mark, likewise.
    """

    def __init__(
        self, request: Request, door: Door, session: Session | None = None, room: asyncio.Semaphore | None = None
    ) -> None:
        self.request = request
        self.session = session
        self.form: dict[str, str] = {}
        self._fields: dict[str, list[str]] = {}
        self._queries = _queries(request)
        self.query = {name: values[-1] for name, values in self._queries.items()}
        self._door = door
        self.room = room or asyncio.Semaphore()
        self._seat = Seat(self.settings.database_url or "", self.room, "too many pages are asked for at once")
        self._now: datetime | None = None

    @property
    def settings(self) -> Settings:
        return self._door.settings

    @property
    def registry(self) -> Registry:
        return self._door.registry

    @cached_property
    def known(self) -> tuple[str, ...]:
        """The deployment's own secrets, which no page shows."""
        return masking.known_secrets(self.settings)

    def mask(self, value: Any) -> Any:
        """A JSON value without what is secret in it, as pages show it."""
        return masking.mask(value, self.known)

    @property
    def who(self) -> str:
        """Who has logged in: "password", "env:" and the name of an API key, or the id of one in the database."""
        return self.session.who if self.session else "link"

    @property
    def now(self) -> datetime:
        """The database's clock when it was last read; this machine's before."""
        return self._now or datetime.now(UTC)

    @property
    def is_entered(self) -> bool:
        """Whether the database has been asked, and with that whether the session's key is still valid."""
        return self._now is not None

    def values(self, name: str) -> list[str]:
        """All values of a field of the form or, in a request without one, of the URL's query."""
        return (self._fields if self.request.method == "POST" else self._queries).get(name, [])

    async def read_form(self) -> None:
        """Read the body into `form`. Raises Refusal for what is none, too long, or does not arrive."""
        self._fields = await _fields(self.request)
        self.form = {name: values[-1] for name, values in self._fields.items()}

    async def read(self, *questions: Statement) -> list[list[Row]]:
        """The rows of each question, in one round trip that cannot write.

        Raises LoggedOut, Refusal for what no column can hold, NotMigrated, DatabaseError and DatabaseUnavailable.
        """
        connection = await self._seat.connection()
        async with self._telling(connection):
            entered, *rows = await database.read(connection, self.settings.schema, self._entering(), *questions)
        self._enter(entered[0])
        return rows

    async def change(self, *statements: Statement) -> list[list[Row]]:
        """The rows of each statement, run in one transaction; a lost race is run again. Raises as `read` does."""
        for resend in range(RESENDS + 1):
            try:
                return await self._change(statements)
            except _PASSING as error:
                if resend == RESENDS:
                    raise DatabaseUnavailable(f"others were in the way: {database.one_line(error)}") from error
                await asyncio.sleep(PAUSE * 2**resend)
        raise AssertionError("unreachable: the last resend returns or raises")

    async def _change(self, statements: tuple[Statement, ...]) -> list[list[Row]]:
        async with self.writing() as connection:
            cursors = [await self._execute(connection, statement) for statement in statements]
        return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A transaction that may write, for what takes a connection, such as `intake.enqueue_many`."""
        connection = await self._seat.connection()
        async with self._telling(connection), connection.pipeline(), connection.transaction():
            milliseconds = f"{WRITE_SECONDS * 1000:.0f}"
            await self._execute(connection, Statement("patience", {"milliseconds": milliseconds}, "api"))
            entered = await self._execute(connection, self._entering())
            # Fetched before anything is written: a key that has been revoked must not write.
            self._enter((await entered.fetchall())[0])
            yield connection

    async def _execute(self, connection: AsyncConnection[Any], statement: Statement) -> AsyncCursor[Row]:
        text = database.statements(statement.file, self.settings.schema)[statement.name]
        return await connection.cursor(row_factory=dict_row).execute(text, statement.params)

    def _entering(self) -> Statement:
        """What goes before all else that a session asks."""
        session = self.session
        params = {"key": session.key, "proof": session.proof} if session else {"key": None, "proof": None}
        return Statement("enter", params, "dashboard_now")

    def _enter(self, row: Row) -> None:
        if not row["is_let_in"]:
            raise LoggedOut
        self._now = row["now"]

    @asynccontextmanager
    async def _telling(self, connection: AsyncConnection[Any]) -> AsyncIterator[None]:
        """What an error of the database is for people."""
        try:
            yield
        except _PASSING:
            raise
        except psycopg.Error as error:
            raise await self._told(connection, error) from error

    async def _told(self, connection: AsyncConnection[Any], error: psycopg.Error) -> Exception:
        if error.sqlstate == "TK429":
            wait = math.ceil(float(error.diag.message_detail or 1))
            return Refusal(429, "Too many tries", f"Wait {wait} s, then try again.")
        if isinstance(error, database.NOT_THERE):
            return await database.not_migrated(connection, self.settings.schema) or error
        if isinstance(error, _UNWRITABLE):
            said = error.diag.message_primary or database.one_line(error)
            return Refusal(422, "That cannot be", f"The database refuses it: {said}.")
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return DatabaseError(f"the database's role lacks a right: {database.one_line(error)}")
        if isinstance(error, psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction):
            return DatabaseUnavailable(f"the database did not answer: {database.one_line(error)}")
        return error

    async def close(self) -> None:
        """Give back what was opened; who asks again opens it anew."""
        await self._seat.leave()

    def page(self, template: str, *, code: int = 200, **values: Any) -> Response:
        """A whole page; what it is told by `go` of the page before is shown on it, once."""
        notice = sessions.read_notice(self.settings, self.request)
        response = self.part(template, code=code, notice=notice, **values)
        if notice:
            sessions.forget_notice(self.request, response)
        return response

    def part(self, template: str, *, code: int = 200, **values: Any) -> Response:
        """A piece of a page, for one that renews itself."""
        frame = {
            "known": self.known,
            "now": self.now,
            "path": self.request.url.path,
            "session": self.session,
            "theme": sessions.theme(self.request),
            "notice": None,
        }
        return HTMLResponse(shown.render(template, frame | values), code)

    def go(self, path: str, notice: str = "") -> Response:
        """On to another page by GET, which shows the notice once; the path is one of the dashboard's own."""
        response = RedirectResponse(path, 303)
        if notice:
            sessions.leave_notice(self.settings, self.request, response, notice)
        return response


def _queries(request: Request) -> dict[str, list[str]]:
    """What the URL says behind its question mark."""
    most = _most_fields(request)
    try:
        return parse_qs(request.url.query, keep_blank_values=True, max_num_fields=most)
    except ValueError:
        raise Refusal(400, "That is no query", f"It has more than {most:,} fields.") from None


def _most_fields(request: Request) -> int:
    return MOST_CHOSEN if request.url.path == "/dashboard/jobs/bulk" else MOST_FIELDS


async def _fields(request: Request) -> dict[str, list[str]]:
    """The fields of an urlencoded body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("", "application/x-www-form-urlencoded"):
        raise Refusal(415, "That is no form", "Send application/x-www-form-urlencoded, as the dashboard's forms do.")
    try:
        async with asyncio.timeout(FORM_SECONDS):
            text = (await _body(request)).decode()
        return parse_qs(text, keep_blank_values=True, max_num_fields=_most_fields(request), errors="strict")
    except (TimeoutError, ClientDisconnect):
        raise Refusal(400, "The form did not arrive", f"It took more than {FORM_SECONDS:g} s; send it again.") from None
    except ValueError:
        most = f"{_most_fields(request):,}"
        raise Refusal(400, "That is no form", f"It is not UTF-8, or has more than {most} fields.") from None


async def _body(request: Request) -> bytes:
    most = LONGEST_EDIT if request.url.path.endswith("/edit") else LONGEST_FORM
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise Refusal(413, "The form is too long", f"It may have {most // 1024:,} KiB.")
    return bytes(body)
