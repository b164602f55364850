"""The tick: open, drain by exchanges, close.

    open       reclaim expired leases, claim the first jobs, read which windows are due: one round trip
    drain      run what is claimed; exchange outcomes for more jobs, until none are left or the budget says stop
    close      release what was never started, settle the rest, write the tick's row

One exchange settles every outcome that is ready, makes the windows that are due and claims more jobs, in one round trip
and one commit. There is no timer: while an exchange is in flight outcomes gather, and go with the next.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from . import chores, database, heartbeats, logs, materialise, runner, telemetry
from .config import DEFAULT_BUDGET, GRACE, Settings
from .errors import ConfigurationError, DatabaseUnavailable, TickError
from .handlers import Registry
from .jobs import Job
from .limits import are_for
from .places import STUBBORN, Clock, Places, Stop
from .queue import DUE_LIMIT, DueEntry, Opening, Plans, Queue, Seen, Trigger, Wanted

logger = logging.getLogger("tick")
T = TypeVar("T")

PREFETCH = 0.25
"""Seconds of work to hold beside what runs: enough to hide a round trip, too little to be a hoard."""
PATIENCE = 0.5
"""Seconds that an outcome waits for company while there are claimed jobs to start."""
COMPANY = 0.02
"""Seconds that an outcome waits at most for those of the jobs that run beside it, when no more can be claimed."""
PULSE = 5.0
"""Seconds between exchanges while handlers run: how soon a cancelled job is told, and new work seen."""
FAIR_EVERY = 10
"""Of so many claims one is by how long jobs have waited, and not by priority, so that none starves."""
LOOK, LONGEST_LOOK = 20, 1.0
"""A look at the whole queue is good for so many times as long as it took, for so many seconds at most."""
LINGER = 15.0
"""Seconds that a tick with nothing else to do waits for a rate to have room again."""
LIMITED_START = 0.5
"""Seconds after its claim in which a limited job starts, or is released; `tick.lane_room` adds them to a period."""
CHORE_SECONDS = 2.0
"""Seconds that must be left for a chore to begin; it ends when half of them are."""
LONGEST_CHORE = 8.0
BUSY_CHORE = 0.5
"""Seconds that a chore may take while jobs run, whose outcomes wait for it."""
MARGIN = 0.25
"""Seconds of the grace kept for what comes after the tick: its report, its answer."""
FAREWELL = 2.0
"""Seconds that a monitor and a collector may hold up the end of a tick, and never beyond its grace."""
LAST_WORDS = 0.1
"""Seconds of the margin that are theirs even so, when the tick has used up all the rest."""


class Report(msgspec.Struct):
    """What a tick did. Counts of jobs, and `budget` and `used` in seconds.

    `released` jobs are pending again (not started, cut short, snoozed) or were cancelled; `stale` outcomes came too
    late and changed nothing; `left` counts due jobs still pending, up to ten thousand.
    """

    tick: str
    trigger: str
    materialised: int = 0
    claimed: int = 0
    done: int = 0
    retried: int = 0
    dead: int = 0
    released: int = 0
    reclaimed: int = 0
    stale: int = 0
    left: int = 0
    budget: float = 0.0
    used: float = 0.0

    def as_dict(self) -> dict[str, object]:
        return msgspec.structs.asdict(self)

    def count(self, settled: dict[str, int], sent: int) -> None:
        """Add outcomes accepted, by what they count as, of so many that were sent."""
        for name, number in settled.items():
            setattr(self, name, getattr(self, name) + number)
        self.stale += sent - sum(settled.values())


async def process_tick(
    settings: Settings,
    registry: Registry,
    *,
    trigger: Trigger | None = None,
    budget: float | None = None,
    stop: Stop | None = None,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """One tick, from its connection to its report. It returns within `budget` seconds and the grace of 2.

    Raises DatabaseUnavailable, NotMigrated, or ConfigurationError for a schedules file that cannot be used.
    """
    clock = Clock(time.monotonic(), budget or settings.budget or DEFAULT_BUDGET)
    told = Told(settings, trigger or Trigger(), clock)
    token = logs.current_tick.set(str(told.tick))
    try:
        with told.traced():
            report = await _run(settings, registry, told, stop or Stop(), progress)
    except Exception as error:
        await told.ended(error)
        raise
    else:
        await told.ended()
        return report
    finally:
        told.drop()
        logs.current_tick.reset(token)


async def _run(
    settings: Settings, registry: Registry, told: Told, stop: Stop, progress: Callable[[Report], None] | None
) -> Report:
    clock, url = told.clock, settings.database_url or ""
    connection = await _in_time(database.open_connection(url), clock)
    queue = Queue(connection, lambda: database.reopen(url, clock.remaining), settings.schema)
    queue.tick = told.tick
    tick = Tick(settings, registry, queue, told, stop)
    tick.progress = progress or tick.progress
    try:
        return await _in_time(tick.run(told.trigger), clock)
    finally:
        tick.places.drop()
        queue.leave()


async def _in_time(work: Coroutine[Any, Any, T], clock: Clock) -> T:
    """What the work returns, or DatabaseUnavailable when the budget and the grace are up."""
    running = asyncio.create_task(work)
    try:
        # Not wait_for, which waits for what it cancels: a database that hangs would take the tick with it.
        await asyncio.wait({running}, timeout=clock.remaining() + GRACE - MARGIN)
        if running.done():
            return running.result()
    finally:
        running.cancel()
    if clock.remaining() + GRACE < 0:
        text = "a handler blocked the event loop past the budget: what blocks belongs in a plain function"
        raise TickError(text)
    raise DatabaseUnavailable("the database did not answer before the tick's time was up")


class Told:
    """Who is told how a tick goes: the log, a monitor, a collector of traces. None of them can fail it."""

    def __init__(self, settings: Settings, trigger: Trigger, clock: Clock) -> None:
        self.tick = uuid.uuid4()
        self.trigger = trigger
        self.clock = clock
        self.report = Report(tick=str(self.tick), trigger=trigger.trigger, budget=clock.budget)
        self.lines = logs.Lines(settings, self.report.tick, trigger.trigger, trigger.delivery_id)
        self.tracing = telemetry.begin(settings, self.report.tick, trigger.trigger)
        self.heartbeat = heartbeats.begin(settings.heartbeat, self.report.tick, trigger.trigger)

    def traced(self) -> AbstractContextManager[Any]:
        """The tick's span, if there is one, as the current one."""
        return self.tracing.current() if self.tracing else nullcontext()

    def lost(self, type: str, *, dead: bool) -> None:
        """A job was taken back from a tick that is no more."""
        self.lines.job_lost(type, dead=dead)
        if self.tracing:
            self.tracing.job_lost(type)

    async def ended(self, error: Exception | None = None) -> None:
        """The tick is over, by this error or in order; who is far away has a moment to hear of it."""
        said, used = runner.describe(error) if error else None, round(self.clock.elapsed(), 4)
        if said:
            self.lines.tick_failed(said, used)
        else:
            self.lines.tick_ended(self.report.as_dict())
        if self.tracing:
            self.tracing.tick_ended(self.report.as_dict(), said, used, self.clock.budget)
        await self._send("fail" if said else "ok")

    async def _send(self, moment: heartbeats.Moment) -> None:
        seconds = max(LAST_WORDS, min(FAREWELL, self.clock.remaining() + GRACE - MARGIN))
        sends: list[Coroutine[Any, Any, None]] = []
        # They have a little less, so that what they warn of can still be written.
        if self.heartbeat:
            sends.append(self.heartbeat.end(moment, 0.9 * seconds))
        if self.tracing:
            sends.append(self.tracing.flush(0.9 * seconds))
        tasks = {asyncio.ensure_future(send) for send in sends}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()

    def drop(self) -> None:
        """Leave nothing under way."""
        if self.heartbeat:
            self.heartbeat.drop()


class Tick:
    """One tick: what it knows of the queue, and what it does next."""

    def __init__(self, settings: Settings, registry: Registry, queue: Queue, told: Told, stop: Stop) -> None:
        self.settings = settings
        self.registry = registry
        self.queue = queue
        self.told = told
        self.clock = clock = told.clock
        self.stop = stop
        self.places = Places(settings, clock, registry, stop, told.lines)
        self.places.tracing = told.tracing
        self.report = told.report
        self.progress: Callable[[Report], None] = lambda report: None
        self.drained = False
        self.due: list[DueEntry] = []
        self.limited = False
        self.lanes_unseen = False
        self.room_at = math.inf
        self.seen: Seen | None = None
        self.look_at = 0.0
        self.turn = random.randrange(FAIR_EVERY)  # noqa: S311 - no secret
        self.file: str | None = None
        self.chores: list[str] = []
        self.error: ConfigurationError | None = None
        self.opened_at = datetime.min.replace(tzinfo=UTC)
        self.exchanged = self.tallied_at = clock.started
        stop.wakes(self.places.wake.set, asyncio.get_running_loop())

    async def run(self, trigger: Trigger) -> Report:
        if not await self.open(trigger):
            await self.drain()
            if self.chores:
                await self.keep_house()
            await self.close()
        self.report.used = round(self.clock.elapsed(), 4)
        self.progress(self.report)
        if self.error:
            raise self.error
        return self.report

    # open

    async def open(self, trigger: Trigger) -> bool:
        """The first round trip. True when there was nothing to do, and the tick is over with it."""
        self.file = materialise.fingerprint(self.settings, self.registry)
        if self.settings.schedules_named and not self.settings.schedules_path.exists():
            self.error = ConfigurationError(f"there is no schedules file {self.settings.schedules_path}")
        wanted, asked = self.wanted(), time.monotonic()
        opening = await self.queue.open(wanted, file=self.file, budget=self.clock.budget, trigger=trigger)
        self.clock.set(opening.now, asked)
        self.opened_at, self.due = opening.now, opening.due
        self.places.learn(opening.history)
        self.chores = opening.chores
        for type, status in opening.lost:
            self.places.tally.lose(type, dead=status == "dead")
            self.told.lost(type, dead=status == "dead")
        self.report.reclaimed, self.report.dead = len(opening.lost), sum(each[1] == "dead" for each in opening.lost)
        self.report.left = opening.left
        self.limited = opening.limited
        self.take(opening.jobs, wanted, asked)
        if not self.error and not (opening.file_known and opening.configured):
            await self.synchronise(opening)
        return opening.finished and opening.configured and not (opening.jobs or self.due or opening.lost)

    async def synchronise(self, opening: Opening) -> None:
        """Tell the database of schedules that it has not seen for an hour, or ever, and of limits that have changed.

        A file that cannot be used is this tick's error, told at its end: jobs that are pending run all the same.
        """
        budget = max(self.clock.budget, self.settings.budget or DEFAULT_BUDGET)
        try:
            told = materialise.configuration(self.settings, self.registry, budget)
        except ConfigurationError as error:
            self.error = error
            return
        self.limited = opening.limited or bool(told.limits)
        if not opening.configured:
            # What was claimed may be under a limit now, and what was not, under none.
            self.drained = False
            early = [job for job in opening.jobs if not job.lane and are_for(told.limits, job.type, job.key)]
            self.places.give_back(early)
        unknown = self.file is not None and not opening.file_known
        due = await self.queue.synchronise(
            told, entries=unknown, limits=not opening.configured, seconds=self.clock.remaining() / 4
        )
        self.due = due or self.due

    # drain

    async def drain(self) -> None:
        """Run and exchange until there is nothing more to do, or no more time to do it in."""
        await self.materialise()
        while not self.places.over():
            self.places.fill()
            if time.monotonic() >= self.chores_at():
                await self.do_chores()
                self.drained = False
            elif self.hungry() or self.should_settle():
                await self.exchange()
            elif not self.places.idle() or self.room_comes():
                await self.places.wait(min(self.next_settle(), self.room_at, self.chores_at(), self.clock.deadline))
            else:
                return
        stopped = self.stop.asked_at
        await self.places.empty(stopped + GRACE - STUBBORN if stopped else self.clock.deadline)

    async def materialise(self) -> None:
        """Make the windows that are due, by exchanges of some thousands, while what is claimed already runs."""
        while self.due and self.file and not self.places.over():
            self.places.fill()
            plans = materialise.plan(self.file, self.due, self.opened_at)
            await self.exchange(plans)
            more = len(self.due) == DUE_LIMIT or len(plans.plans) < len(self.due)
            self.due = await self.queue.due(self.file) if more else []

    def chores_at(self) -> float:
        """When chores that are due are done at the latest, also while jobs run and the queue does not end.

        A queue that no tick gets through is what people want to be told of.
        """
        return self.clock.deadline - max(2 * CHORE_SECONDS, self.clock.budget / 5) if self.chores else math.inf

    def tallied(self) -> list[dict[str, object]]:
        """What to add to the statistics, every few seconds: a tick that is killed has told what it did."""
        if time.monotonic() < self.tallied_at + PULSE:
            return []
        self.tallied_at = time.monotonic()
        return self.places.tally.take()

    def hungry(self) -> bool:
        """Whether more jobs should be claimed before those at hand run out."""
        more = self.places.unlocked or (self.lanes_unseen and self.places.free() > 0)
        if self.drained and not more and time.monotonic() < self.room_at:
            return False
        return len(self.places.buffer) <= self.low_water() and self.wanted().limit > 0

    def room_comes(self) -> bool:
        """Whether a rate has room again so soon that the tick stays for it, and has time for a job then."""
        if self.room_at >= self.exchanged + LINGER:
            return False
        left = self.clock.deadline - self.room_at
        return any(self.places.needs(type) < left for type in self.registry.types)

    def prefetch(self) -> int:
        """How many jobs run in the next quarter of a second, at the rate seen in this tick."""
        mean = self.places.durations.mean
        if not mean:
            return self.settings.concurrency
        seconds = min(PREFETCH, max(0.0, self.clock.remaining()))
        return int(min(self.settings.batch_size, self.settings.concurrency * seconds / mean))

    def low_water(self) -> int:
        """With how few held jobs more are asked for: the database finds the next ones while these run.

        Nobody knows how long those of the first claim take, until one of them has ended.
        """
        return self.prefetch() if self.places.durations.mean else self.settings.concurrency // 2

    def wanted(self) -> Wanted:
        """What to claim now: what can start, and a little more; nothing while a suspect is in flight."""
        remaining = self.clock.remaining()
        types = [type for type in self.registry.types if self.places.needs(type) < remaining]
        limit = 0
        if types and not self.places.over() and not self.places.has_suspect():
            free = self.settings.concurrency - len(self.places.running)
            limit = min(self.settings.batch_size, free + self.prefetch())
        return Wanted(
            limit=limit,
            free=self.places.free(),
            longest=self.places.longest,
            fair=self.turn % FAIR_EVERY == 0,
            types=types,
            remaining=remaining,
            lease=max(0.0, remaining) + 2 * GRACE,
            # Suspects come first, each by itself, but for half the budget at most.
            alone=self.places.idle() and remaining > self.clock.budget / 2,
            # An outcome may have freed a job that goes before what has been seen.
            seen=None if self.places.unlocked or time.monotonic() >= self.look_at else self.seen,
        )

    def should_settle(self) -> bool:
        """Whether to go to the database although nothing is to be claimed."""
        return time.monotonic() >= self.next_settle() and self.places.busy()

    def next_settle(self) -> float:
        """When to go to the database if nothing asks for it sooner.

        Outcomes go once no other follows at the pace at which jobs end, and not while there are jobs to start.
        """
        if not self.places.outcomes:
            return self.exchanged + PULSE
        if self.places.buffer:
            return self.exchanged + PATIENCE
        pace = min(COMPANY, 2 * self.places.durations.mean)
        return min(self.exchanged + PATIENCE, self.places.last_outcome + pace)

    async def exchange(self, plans: Plans | None = None) -> None:
        """Outcomes for jobs, in one round trip."""
        outcomes, wanted = self.places.take_outcomes(), self.wanted()
        self.places.unlocked, asked = False, time.monotonic()
        self.turn += 1
        exchange = await self.queue.exchange(
            outcomes,
            wanted,
            plans,
            held=self.places.held(),
            listen=bool(self.places.running),
            progress=self.places.take_progress(),
            limited=self.limited,
            stats=self.tallied(),
        )
        self.exchanged = time.monotonic()
        self.room_at = math.inf if exchange.room_in is None else self.exchanged + max(0.0, exchange.room_in)
        self.report.materialised += exchange.materialised
        if exchange.materialised:
            self.look_at = 0.0
        self.report.count(exchange.settled, len(outcomes))
        if wanted.limit:
            self.take(exchange.jobs, wanted, asked)
        self.places.cancel(exchange.cancel)
        self.progress(self.report)

    def take(self, jobs: list[Job], wanted: Wanted, asked: float) -> None:
        """Hold what was claimed. Fewer than asked for means that the queue is empty, unless a suspect came alone.

        Limited jobs were not asked for when no place was free; they are, once there is one.
        """
        self.report.claimed += len(jobs)
        self.places.start_by |= {job.id: asked + LIMITED_START for job in jobs if job.lane}
        self.places.hold(jobs)
        self.places.low_water = self.low_water()
        self.drained = len(jobs) < wanted.limit and not any(job.losses for job in jobs)
        self.see(jobs, wanted, asked)
        self.lanes_unseen = self.limited and wanted.free == 0

    def see(self, jobs: list[Job], wanted: Wanted, asked: float) -> None:
        """Remember how far a claim by priority has come. What a long transaction keeps is then walked once a look."""
        ordinary = [job for job in jobs if job.lane is None and not job.losses]
        if wanted.fair or not ordinary:
            return
        if wanted.seen is None:
            self.look_at = time.monotonic() + min(LONGEST_LOOK, LOOK * (time.monotonic() - asked))
        lowest = min(job.priority for job in ordinary)
        self.seen = max(Seen(lowest, job.run_at, job.id) for job in ordinary if job.priority == lowest)

    # close

    async def keep_house(self) -> None:
        """Do the chores that are due, and run what they have enqueued, after what has just ended is written."""
        if self.places.outcomes:
            await self.exchange()
        await self.do_chores()
        self.drained = False
        await self.drain()

    async def do_chores(self) -> None:
        """Do what is due as far as there is time: it is no job's, and no tick fails by it."""
        names, self.chores = self.chores, []
        for name in names:
            seconds = min(LONGEST_CHORE, self.clock.remaining() - CHORE_SECONDS / 2)
            if self.stop.asked_at or seconds < CHORE_SECONDS / 2:
                return
            try:
                async with asyncio.timeout(seconds):
                    await chores.do(
                        name, self.queue, self.settings, seconds * 0.8 if self.places.idle() else BUSY_CHORE
                    )
            except TimeoutError:
                # What is cut off in the middle of a statement leaves nothing that could be relied on.
                self.queue.leave()
                logger.warning("%s could not be done: it took more than %.1f s", name, seconds)
            except Exception as error:  # noqa: BLE001 - jobs have been run, and their outcomes must be written
                logger.warning("%s could not be done: %s", name, runner.describe(error))

    async def close(self) -> None:
        """The last round trip: settle the rest, record what was learnt, finish the tick's row."""
        outcomes = [*self.places.take_outcomes(), *self.places.overdue]
        error = runner.describe(self.error) if self.error else None
        totals = self.report.as_dict() | {"used": round(self.clock.elapsed(), 4), "error": error}
        progress = self.places.take_progress()
        settled, self.report.left = await self.queue.close(
            outcomes,
            totals,
            self.places.durations.rows(),
            held=self.places.abandoned,
            progress=progress,
            stats=self.places.tally.take(),
        )
        self.report.count(settled, len(outcomes))
        await self.places.close()
