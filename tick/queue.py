"""The queue: every transition of a job, as `queue.sql` names it, sent in as few round trips as there can be."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, assert_never

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.adapt import Dumper
from psycopg.types.json import set_json_loads

from . import database
from .config import DEFAULT_BUDGET
from .database import Statement
from .errors import DatabaseError, DatabaseUnavailable
from .jobs import Cancelled, Dead, Done, Failure, Job, Outcome, Released, Retried, Snoozed

ERRORS_KEPT = 5
MOST_LOSSES = 3
RECLAIM_LIMIT = 500
DUE_LIMIT = 1000
RELANE_LIMIT = 5000
RELANE_PAUSE = 0.02
RESENDS = 3
LOST = "lost: the lease ran out before an outcome was written; the process was killed, or the handler outlived its tick"

_PASSING = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.UniqueViolation,
)
_SYNC = ("lock_materialising", "forget_files", "sync", "due_entries")
_CONFIGURE = ("set_limits", "set_defaults", "set_chores", "set_configuration")
_UNWRITABLE = (psycopg.DataError, psycopg.errors.CheckViolation, psycopg.errors.NotNullViolation)


def statements(schema: str = "tick") -> dict[str, str]:
    """The named statements of queue.sql."""
    return database.statements("queue", schema)


class Numbers(list[int]):
    """Numbers for a `bigint[]`, of which an exchange binds a thousand."""


class _NumbersDumper(Dumper):
    # psycopg's own calls a dumper for each element, a tenth of the time that a job without work took.
    oid = psycopg.adapters.types["int8"].array_oid

    def dump(self, obj: Numbers) -> bytes:
        return b"{%b}" % ",".join(map(str, obj)).encode()


class Reply(NamedTuple):
    """What one statement came back with."""

    rows: list[tuple[Any, ...]]
    changed: int


class DueEntry(NamedTuple):
    """A schedule with a window that has come: the columns of `due_entries`."""

    schedule: str
    definition: str
    body: dict[str, Any]
    cursor: datetime
    paused: bool


class Opening(NamedTuple):
    """What a tick learns in its first round trip."""

    now: datetime
    finished: bool
    left: int
    file_known: bool
    configured: bool
    limited: bool
    due: list[DueEntry]
    history: dict[str, list[int]]
    lost: list[tuple[str, str]]
    """The type and the new status of each job that was reclaimed."""
    chores: list[str]
    """What else is due."""
    jobs: list[Job]


class Chore(NamedTuple):
    """What a tick does beside jobs, once it has taken it: how it is set, and what the last one left."""

    name: str
    settings: dict[str, Any]
    state: dict[str, Any]


class Exchange(NamedTuple):
    """What an exchange gave back: the jobs claimed, how many outcomes of each kind were accepted, what to cancel."""

    jobs: list[Job]
    settled: dict[str, int]
    cancel: list[int]
    materialised: int
    room_in: float | None = None
    """Seconds until a rate lets the next of the limited jobs that are due start; None when none waits for that."""


class Trigger(NamedTuple):
    """Who asked for the tick, and what the platform said of its delivery."""

    trigger: str = "cli"
    delivery_id: str | None = None
    scheduled_for: datetime | None = None


class Seen(NamedTuple):
    """How far claims by priority have come: the last job of the lowest priority that they took."""

    level: int
    run_at: datetime
    id: int


class Wanted(msgspec.Struct, frozen=True):
    """How many jobs to claim, and which: of these types, and none whose timeout is longer than `remaining` seconds.

    `alone` says that nothing is in flight, so that a suspect may be claimed, and then only that one.
    """

    limit: int
    types: list[str]
    remaining: float
    lease: float
    alone: bool = False
    longest: float = DEFAULT_BUDGET
    """Seconds that a job can need at most, whatever its timeout says: what a whole tick has."""
    free: int = 0
    """How many could start at once: so many limited jobs, which may not wait once they are claimed."""
    fair: bool = False
    """Whether to claim by how long jobs have waited, and not by their priority."""
    seen: Seen | None = None
    """Where to go on; None looks everywhere, also over what has died and cannot be removed yet."""


class Configuration(msgspec.Struct, frozen=True):
    """What a tick tells the database of its project, under the content hash of its files and handlers.

    JSON-able rows for `sync`, `set_limits`, `set_defaults` and `set_chores`. `types` are those it has handlers for.
    """

    hash: str | None
    types: list[str]
    has_file: bool
    entries: list[dict[str, Any]]
    limits: list[dict[str, Any]]
    defaults: list[dict[str, Any]]
    chores: list[dict[str, Any]]


class Plans(msgspec.Struct):
    """Windows to make, for the entries of one file: JSON-able rows for the parameters of `materialise`."""

    file: str
    plans: list[dict[str, Any]] = msgspec.field(default_factory=list)
    windows: list[dict[str, Any]] = msgspec.field(default_factory=list)
    skips: list[dict[str, Any]] = msgspec.field(default_factory=list)


class Queue:
    """One tick's hold on the queue: its connection, its id, and how often it went to the database."""

    def __init__(
        self,
        connection: AsyncConnection,
        reconnect: Callable[[], Awaitable[AsyncConnection]],
        schema: str = "tick",
    ) -> None:
        self.tick = uuid.uuid4()
        self.round_trips = 0
        self.tallies = 0
        self.schema = schema
        self._reconnect = reconnect
        self._adopt(connection)

    def _adopt(self, connection: AsyncConnection) -> None:
        # A claim is committed before its payloads are read: one that cannot be decoded must not be all of them's death.
        set_json_loads(database.decode, connection)
        connection.adapters.register_dumper(Numbers, _NumbersDumper)
        self.connection = connection

    def leave(self) -> None:
        """Drop the connection, without waiting for a server that may not answer."""
        self.connection.pgconn.finish()

    async def open(self, wanted: Wanted, *, file: str | None, budget: float, trigger: Trigger) -> Opening:
        """Reclaim, claim, and read what is due, in one round trip; an idle tick is finished by it."""
        reclaimed, due, history, _, _, *claims, opened = await self.send(
            Statement("reclaim", {"message": LOST, "most_losses": MOST_LOSSES, "keep": ERRORS_KEPT,
                                  "limit": RECLAIM_LIMIT}),
            Statement("due_entries", {"file": file, "limit": DUE_LIMIT}),
            Statement("type_history", {"types": wanted.types}),
            Statement("see_file", {"file": file}),
            Statement("heal_keys", {}),
            *self._claims(wanted),
            Statement("open_tick", {"tick": self.tick, "file": file, "budget": budget, "lease": wanted.lease,
                                    **trigger._asdict()}),
        )  # fmt: skip
        now, finished, left, known, configured, limited, chores = opened.rows[0]
        return Opening(
            now=now,
            finished=finished,
            left=left,
            file_known=known,
            configured=configured,
            limited=limited,
            due=[DueEntry._make(row) for row in due.rows],
            history=dict(history.rows),
            lost=reclaimed.rows,
            chores=chores,
            jobs=_jobs(claims),
        )

    async def exchange(
        self,
        outcomes: Sequence[tuple[Job, Outcome]] = (),
        wanted: Wanted | None = None,
        plans: Plans | None = None,
        *,
        held: Sequence[int] = (),
        listen: bool = False,
        progress: Sequence[tuple[Job, bytes]] = (),
        limited: bool = False,
        stats: Sequence[dict[str, Any]] = (),
    ) -> Exchange:
        """Settle, make windows and claim: one round trip, one transaction, one commit.

        `held` are the ids of the claims that the tick keeps; with `listen` it is told which of them to cancel, and
        when there are limits (`limited`) when the next rate has room. `progress` is what handlers said of theirs.
        """
        settles = settlements(outcomes)
        makes = _materialisations(plans, self.tick)
        claims = self._claims(wanted) if wanted and wanted.limit > 0 else []
        rooms = [Statement("room_in", {"types": wanted.types})] if wanted and limited else []
        listens = [Statement("cancel_requests", {"tick": self.tick})] if listen else []
        try:
            batch = [*settles, *makes, *claims, *rooms, *listens, *self._tallies(stats)]
            replies = await self._send_surely(batch, outcomes, held, progress)
        except (*_UNWRITABLE, *_PASSING):
            if not (outcomes or progress):
                raise
            counts = await self._settle_each(outcomes)
            again = await self.exchange((), wanted, plans, held=held, listen=listen, limited=limited, stats=stats)
            return again._replace(settled=counts)
        parts = (len(settles), len(makes), len(claims), len(rooms), len(listens))
        settled, made, claimed, room, told, _ = _cut(replies, *parts)
        return Exchange(
            jobs=_jobs(claimed),
            settled=_counts(settles, settled),
            cancel=[row[0] for reply in told for row in reply.rows],
            materialised=made[-1].rows[0][0] if plans else 0,
            room_in=room[0].rows[0][0] if room else None,
        )

    async def close(
        self,
        outcomes: Sequence[tuple[Job, Outcome]],
        totals: dict[str, Any],
        types: list[dict[str, Any]],
        held: Sequence[int] = (),
        *,
        progress: Sequence[tuple[Job, bytes]] = (),
        stats: Sequence[dict[str, Any]] = (),
    ) -> tuple[dict[str, int], int]:
        """Settle the rest and finish the tick's row: the outcomes accepted, and how many due jobs are left.

        The row counts these last outcomes as accepted; should one be stale, only the report says so.
        """
        settles = settlements(outcomes)
        expected = _counts(settles, [Reply([], len(s.params["ids"])) for s in settles])
        totals = totals | {name: totals[name] + count for name, count in expected.items()}
        records = [Statement("record_types", {"types": to_json(types)})] if types else []
        records += self._tallies(stats)
        finish = Statement("close_tick", totals | {"tick": self.tick})
        try:
            # What other ticks write too comes last, so that they wait for no more than the commit.
            replies = await self._send_surely([*settles, finish, *records], outcomes, held, progress)
        except (*_UNWRITABLE, *_PASSING):
            if not (outcomes or progress):
                raise
            counts = await self._settle_each(outcomes)
            return counts, (await self.close((), totals, types, held, stats=stats))[1]
        return _counts(settles, replies), replies[len(settles)].rows[0][0]

    def _tallies(self, stats: Sequence[dict[str, Any]]) -> list[Statement]:
        """Add to the statistics, under a number of its own, by which it is known when it is sent again."""
        if not stats:
            return []
        self.tallies += 1
        return [Statement("record_stats", {"tick": self.tick, "number": self.tallies, "stats": to_json(stats)})]

    async def _settle_each(self, outcomes: Sequence[tuple[Job, Outcome]]) -> dict[str, int]:
        """Settle one by one, when Postgres refuses one of them: that job is dead, its neighbours are not.

        What somebody else's lock is in the way of is left to its lease.
        """
        counts: dict[str, int] = {}
        for job, outcome in outcomes:
            try:
                settles = settlements([(job, outcome)])
                replies = await self.send(*settles)
            except _PASSING:
                continue
            except _UNWRITABLE as error:
                own: Failure = getattr(outcome, "failure", Failure(""))
                message = f"its outcome cannot be written: {database.one_line(error)} {own.message}"
                failure = Failure(message[:1000], own.traceback)
                settles = settlements([(job, Dead(failure))])
                replies = await self.send(*settles)
            for name, count in _counts(settles, replies).items():
                counts[name] = counts.get(name, 0) + count
        return counts

    async def synchronise(
        self, told: Configuration, *, entries: bool, limits: bool, seconds: float = math.inf
    ) -> list[DueEntry]:
        """Make a project known: its schedules, after which all of them are due, its limits, defaults and chores.

        New limits take jobs under them for so many seconds; what is left then, the next tick does.
        """
        params: dict[str, Any] = {
            name: to_json(getattr(told, name)) for name in ("entries", "limits", "defaults", "chores")
        }
        params |= {"file": told.hash, "hash": told.hash or "", "types": told.types}
        params |= {"limit": DUE_LIMIT, "has_file": told.has_file, "settled": False}
        names = [*_SYNC * entries, *_CONFIGURE * limits]
        replies = dict(zip(names, await self.send(*(Statement(name, params) for name in names)), strict=True))
        if limits and not replies["set_configuration"].changed and await self._relane(seconds):
            await self.send(Statement("set_configuration", params | {"settled": True}))
        return [DueEntry._make(row) for row in replies["due_entries"].rows] if entries else []

    async def _relane(self, seconds: float) -> bool:
        """Put jobs into the lanes of the limits that they are under; whether that was done for all of them.

        Those that another tick is claiming at this moment are seen to once more.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if await self._relane_once(until):
                return True
            await asyncio.sleep(RELANE_PAUSE)
        return False

    async def _relane_once(self, until: float) -> bool:
        after, complete = 0, True
        while after is not None and time.monotonic() < until:
            (page,) = await self.send(Statement("relane", {"after": after, "most_moved": RELANE_LIMIT}))
            after, all_moved = page.rows[0]
            complete = complete and all_moved
        return complete and after is None

    async def begin_chore(self, name: str, every: float) -> Chore | None:
        """Take a chore that is due, and have the next be due in so many seconds; None when another tick has it."""
        (reply,) = await self.send(Statement("begin_chore", {"name": name, "every": every}))
        return Chore(name, *reply.rows[0]) if reply.rows else None

    async def end_chore(self, name: str, state: dict[str, Any], *, again: bool = False) -> None:
        """Keep what the next one should know; with `again` it is due at once."""
        await self.send(Statement("end_chore", {"name": name, "state": to_json(state), "again": again}))

    async def due(self, file: str) -> list[DueEntry]:
        """The next entries whose window has come."""
        (due,) = await self.send(Statement("due_entries", {"file": file, "limit": DUE_LIMIT}))
        return [DueEntry._make(row) for row in due.rows]

    def _claims(self, wanted: Wanted) -> list[Statement]:
        params = {
            "tick": self.tick,
            "types": wanted.types,
            "remaining": wanted.remaining,
            "lease": wanted.lease,
            "alone": wanted.alone,
            "limit": wanted.limit,
            "fair": wanted.fair,
            "longest": wanted.longest,
            "free": wanted.free,
            "level": wanted.seen and wanted.seen.level,
            "seen_run_at": wanted.seen and wanted.seen.run_at,
            "seen_id": wanted.seen and wanted.seen.id,
        }
        names = ("claim_suspect", "claim") if wanted.alone else ("claim",)
        return [Statement(name, params) for name in names]

    async def _send_surely(
        self,
        batch: list[Statement],
        outcomes: Sequence[tuple[Job, Outcome]],
        held: Sequence[int],
        progress: Sequence[tuple[Job, bytes]],
    ) -> list[Reply]:
        """Send, and once more over a new connection if this one is lost; what was claimed unseen is given back.

        Progress goes first: the last of a job can be written as long as its outcome is not.
        """
        says = _progress(progress)
        try:
            return (await self.send(*says, *batch))[len(says) :]
        except DatabaseUnavailable:
            self.leave()
            self._adopt(await self._reconnect())
            known = [*held, *(job.id for job, _ in outcomes)]
            give_back = Statement("release_unknown", {"tick": self.tick, "held": Numbers(known)})
            _, *replies = await self.send(give_back, *says, *batch)
            return await self._recount(replies[len(says) :], outcomes)

    async def _recount(self, replies: list[Reply], outcomes: Sequence[tuple[Job, Outcome]]) -> list[Reply]:
        """Count as settled what had been committed before the reply to it was lost."""
        if not outcomes:
            return replies
        (settled,) = await self.send(Statement("already_settled", _fences(outcomes)))
        missing = settled.rows[0][0] - sum(r.changed for r in replies[: len(settlements(outcomes))])
        return [replies[0]._replace(changed=replies[0].changed + missing), *replies[1:]]

    async def send(self, *batch: Statement) -> list[Reply]:
        """Run the statements in one round trip and one transaction; a lost race is run again, three times at most.

        Raises DatabaseUnavailable when the connection is lost or is to a read-only server, NotMigrated when a
        table is missing.
        """
        for resend in range(RESENDS + 1):
            try:
                return await self._send_once(batch)
            except _PASSING:
                if resend == RESENDS:
                    raise
            except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:
                raise DatabaseUnavailable(f"the database went away: {database.one_line(error)}") from error
            except database.NOT_THERE as error:
                raise await self._explain(error) from error
            except psycopg.errors.InsufficientPrivilege as error:
                raise DatabaseError(f"the database's role lacks a right: {database.one_line(error)}") from error
        raise AssertionError("unreachable: the last resend returns or raises")

    async def _send_once(self, batch: Sequence[Statement]) -> list[Reply]:
        self.round_trips += 1
        async with self.connection.pipeline():
            await self.connection.execute(statements(self.schema)["without_jit"])
            cursors = [
                await self.connection.execute(
                    database.statements(each.file, self.schema)[each.name], each.params, binary=True
                )
                for each in batch
            ]
        return [Reply(await _rows(cursor), cursor.rowcount) for cursor in cursors]

    async def _explain(self, error: psycopg.Error) -> Exception:
        return await database.not_migrated(self.connection, self.schema) or error


async def _rows(cursor: psycopg.AsyncCursor[Any]) -> list[tuple[Any, ...]]:
    return await cursor.fetchall() if cursor.description else []


def _jobs(replies: Iterable[Reply]) -> list[Job]:
    """The claimed jobs in the order they run: `returning` has none."""
    jobs = [Job._make(row) for reply in replies for row in reply.rows]
    jobs.sort(key=lambda job: (-job.priority, job.run_at, job.id))
    return jobs


def _cut(replies: list[Reply], *lengths: int) -> list[list[Reply]]:
    """The replies in consecutive parts of these lengths, and the rest."""
    parts, start = [], 0
    for length in lengths:
        parts.append(replies[start : start + length])
        start += length
    return [*parts, replies[start:]]


def to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _materialisations(plans: Plans | None, tick: uuid.UUID) -> list[Statement]:
    if plans is None:
        return []
    rows = {name: to_json(getattr(plans, name)) for name in ("plans", "windows", "skips")}
    return [
        Statement("lock_materialising", {}),
        Statement("materialise", {"file": plans.file, "tick": tick} | rows),
    ]


def _progress(progress: Sequence[tuple[Job, bytes]]) -> list[Statement]:
    if not progress:
        return []
    jobs = [(job, None) for job, _ in progress]
    return [Statement("record_progress", _fences(jobs) | {"progress": [said.decode() for _, said in progress]})]


def _fences(settled: Sequence[tuple[Job, Any]]) -> dict[str, Any]:
    return {"ids": Numbers(job.id for job, _ in settled), "fences": Numbers(job.fence for job, _ in settled)}


_COUNTS_AS = {
    "complete": "done",
    "complete_with": "done",
    "complete_and_enqueue": "done",
    "retry": "retried",
    "bury": "dead",
    "snooze": "released",
    "release": "released",
    "stop_cancelled": "released",
}
"""Transition -> the count of the report that it adds to."""


def _counts(settles: Sequence[Statement], replies: Sequence[Reply]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for statement, reply in zip(settles, replies, strict=False):
        name = _COUNTS_AS[statement.name]
        counts[name] = counts.get(name, 0) + reply.changed
    return counts


def settlements(outcomes: Sequence[tuple[Job, Outcome]]) -> list[Statement]:
    """The statements that write these outcomes: one for each kind there is, ids in ascending order.

    Every exchange locks rows in the same order, so two that meet cannot deadlock.
    """
    kinds: dict[str, list[tuple[Job, Any]]] = {}
    for settled in sorted(outcomes, key=_id):
        kinds.setdefault(_transition(settled[1]), []).append(settled)
    return [
        Statement(name.split("/")[0], _fences(settled) | _details(name, settled)) for name, settled in kinds.items()
    ]


def _id(settled: tuple[Job, Any]) -> int:
    return settled[0].id


def _transition(outcome: Outcome) -> str:
    match outcome:
        case Done(result=None, follow_ups=[]):
            return "complete"
        case Done(follow_ups=[]):
            return "complete_with"
        case Done():
            return "complete_and_enqueue"
        case Retried():
            return "retry"
        case Dead():
            return "bury"
        case Snoozed():
            return "snooze"
        case Released(cut):
            return "release/cut" if cut else "release"
        case Cancelled():
            return "stop_cancelled"
        case _:
            assert_never(outcome)


def _details(name: str, settled: list[tuple[Job, Any]]) -> dict[str, Any]:
    """What a transition binds beside the ids and fences."""
    outcomes = [outcome for _, outcome in settled]
    match name:
        case "complete_with" | "complete_and_enqueue":
            results = [outcome.result and outcome.result.decode() for outcome in outcomes]
            return {"results": results, "follow_ups": _follow_ups(settled)}
        case "retry":
            return _failures(outcomes) | {"delays": [outcome.delay for outcome in outcomes]}
        case "bury":
            return _failures(outcomes)
        case "snooze":
            return {"untils": [o.until for o in outcomes], "delays": [o.delay for o in outcomes]}
        case "release" | "release/cut":
            return {"cut": int(name == "release/cut")}
        case _:
            return {}


def _failures(outcomes: list[Any]) -> dict[str, Any]:
    return {
        "messages": [outcome.failure.message for outcome in outcomes],
        "tracebacks": [outcome.failure.traceback for outcome in outcomes],
        "keep": ERRORS_KEPT,
    }


def _follow_ups(settled: list[tuple[Job, Done]]) -> str:
    return to_json([{"follows": job.id} | new.fields() for job, outcome in settled for new in outcome.follow_ups])
