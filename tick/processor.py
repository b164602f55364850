"""The tick: open, drain by exchanges, close.

    open       reclaim expired leases, claim the first jobs, read which windows are due: one round trip
    drain      run what is claimed; exchange outcomes for more jobs, until none are left or the budget says stop
    close      release what was never started, settle the rest, write the tick's row

One exchange settles every outcome that is ready, makes the windows that are due and claims more jobs, in one round trip
and one commit. There is no timer: while an exchange is in flight outcomes gather, and go with the next.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from . import database, materialise, runner
from .config import DEFAULT_BUDGET, GRACE, Settings
from .errors import ConfigurationError, DatabaseUnavailable
from .handlers import Context, Registry
from .history import Durations
from .jobs import Done, Job, Outcome, Released
from .queue import DUE_LIMIT, DueEntry, Plans, Queue, Trigger, Wanted

FLOOR = 1.0
"""Seconds that a type without a time-out or a history is taken to need."""
PREFETCH = 0.25
"""Seconds of work to hold beside what runs: enough to hide a round trip, too little to be a hoard."""
PATIENCE = 0.5
"""Seconds that an outcome waits for company while there are claimed jobs to start."""
COMPANY = 0.02
"""Seconds that an outcome waits at most for those of the jobs that run beside it, when no more can be claimed."""
PULSE = 5.0
"""Seconds between exchanges while handlers run: how soon a cancelled job is told, and new work seen."""
STUBBORN = 0.75
"""Seconds that a cancelled handler has to end, before it is abandoned."""
MARGIN = 0.25
"""Seconds of the grace kept for what comes after the tick: its report, its answer."""
YIELD = 0.01
"""Seconds of back-to-back handlers after which the loop gets a turn."""

logger = logging.getLogger("tick")


@dataclass(slots=True)
class Report:
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
        return asdict(self)


class Stop:
    """Ends a tick early: no more claims, what has not started is released, what runs gets the grace."""

    def __init__(self) -> None:
        self.asked_at: float | None = None
        self._wake: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        self.asked_at = self.asked_at or time.monotonic()
        self._wake()

    @property
    def asked(self) -> bool:
        return self.asked_at is not None

    def wakes(self, wake: Callable[[], None]) -> None:
        """Have this called when the stop is asked for."""
        self._wake = wake


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
    started = time.monotonic()
    url = settings.database_url or ""
    connection = await database.open_connection(url)
    queue = Queue(connection, lambda: database.open_connection(url), settings.schema)
    tick = Tick(settings, registry, queue, started, budget or settings.budget or DEFAULT_BUDGET)
    tick.stop, tick.progress = stop or Stop(), progress or (lambda report: None)
    running = asyncio.create_task(tick.run(trigger or Trigger()))
    try:
        # Not wait_for, which waits for what it cancels: a database that hangs would take the tick with it.
        await asyncio.wait({running}, timeout=tick.remaining() + GRACE - MARGIN)
        if not running.done():
            raise DatabaseUnavailable("the database did not answer before the tick's time was up")
        return running.result()
    finally:
        running.cancel()
        tick.drop_places()
        queue.leave()


_abandoned: set[asyncio.Task[None]] = set()
"""Handlers that did not stop: referred to here, since a loop holds its tasks only weakly."""


class Place:
    """One of the tick's concurrent places: the job that runs there, and until when it may."""

    __slots__ = ("context", "cut_at", "ends_at", "job", "started", "task", "why")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.task: asyncio.Task[None] | None = None
        self.context: Context | None = None
        self.started = self.ends_at = 0.0
        self.cut_at: float | None = None
        self.why = "deadline"

    def cut(self, why: str, now: float) -> None:
        """Tell the handler to stop; what it makes of that is seen when its task ends, or does not."""
        if self.cut_at is None and self.task is not None:
            self.why, self.cut_at = why, now
            self.task.cancel()


class Tick:
    """The state of one tick: what it holds, what runs, what waits to be settled."""

    def __init__(self, settings: Settings, registry: Registry, queue: Queue, started: float, budget: float) -> None:
        self.settings = settings
        self.registry = registry
        self.queue = queue
        self.started = started
        self.deadline = started + budget
        self.report = Report(tick=str(queue.tick), trigger="", budget=budget)
        self.buffer: deque[Job] = deque()
        self.places: set[Place] = set()
        self.outcomes: list[tuple[Job, Outcome]] = []
        self.durations = Durations({})
        self.threads = runner.Threads()
        self.stop = Stop()
        self.progress: Callable[[Report], None] = lambda report: None
        self.error: ConfigurationError | None = None
        self.drained = False
        self.due: list[DueEntry] = []
        self.file: str | None = None
        self.opened_at = datetime.min.replace(tzinfo=UTC)
        self.started_at = datetime.min.replace(tzinfo=UTC)
        self.exchanged = self.last_outcome = started
        self._abandoned: list[int] = []
        self._low_water = 0
        self._needs: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._blank = contextvars.copy_context()

    async def run(self, trigger: Trigger) -> Report:
        self.report.trigger = trigger.trigger
        self.stop.wakes(self._wake.set)
        if not await self.open(trigger):
            await self.drain()
            await self.close()
        self.report.used = round(time.monotonic() - self.started, 4)
        self.progress(self.report)
        if self.error:
            raise self.error
        return self.report

    # open

    async def open(self, trigger: Trigger) -> bool:
        """The first round trip. True when there was nothing to do, and the tick is over with it."""
        self.file = materialise.fingerprint(self.settings.schedules_path, self.registry)
        wanted = self.wanted()
        asked = time.monotonic()
        opening = await self.queue.open(wanted, file=self.file, budget=self.report.budget, trigger=trigger)
        self.opened_at = opening.now
        self.started_at = opening.now - timedelta(seconds=asked - self.started)
        self.durations = Durations(opening.history)
        self._needs.clear()
        self.due = opening.due
        self.report.reclaimed, self.report.dead = opening.reclaimed, opening.buried
        self.report.left = opening.left
        self.take(opening.jobs, wanted.limit)
        if self.file and not opening.file_known:
            await self.synchronise(self.file)
        return opening.finished and not (opening.jobs or self.due or opening.reclaimed)

    async def synchronise(self, file: str) -> None:
        """Tell the database of a schedules file that it has not seen for an hour, or ever.

        A file that cannot be used is this tick's error, told at its end: jobs that are pending run all the same.
        """
        path = self.settings.schedules_path
        try:
            rows = materialise.entries(path, self.registry, self.report.budget)
        except ConfigurationError as error:
            self.error = error
        else:
            self.due = await self.queue.sync(file, rows)

    # drain

    async def drain(self) -> None:
        """Run and exchange until there is nothing more to do, or no more time to do it in."""
        await self.materialise()
        while not self.over():
            self.fill_places()
            if self.should_exchange():
                await self.exchange()
            elif self.places or self.buffer:
                await self.wait()
                self.look_after_places()
            else:
                return
        await self.wind_down()

    async def materialise(self) -> None:
        """Make every window that is due, a thousand schedules an exchange."""
        while self.due and self.file:
            more = len(self.due) == DUE_LIMIT
            await self.exchange(materialise.plan(self.file, self.due, self.opened_at))
            self.due = await self.queue.due(self.file) if more and not self.over() else []

    def over(self) -> bool:
        return self.stop.asked or self.remaining() <= 0

    def remaining(self) -> float:
        return self.deadline - time.monotonic()

    def should_exchange(self) -> bool:
        """Whether there is something to settle that has waited enough, or too little left to run."""
        if self.hungry():
            return True
        return bool(self.places) and time.monotonic() >= self.next_exchange()

    def next_exchange(self) -> float:
        """When to go to the database if nothing asks for it sooner.

        Outcomes go once no other follows at the pace at which jobs end, and not while there are jobs to start.
        """
        if not self.outcomes:
            return self.exchanged + PULSE
        if self.buffer:
            return self.exchanged + PATIENCE
        pace = min(COMPANY, 2 * self.durations.mean)
        return min(self.exchanged + PATIENCE, self.last_outcome + pace)

    def hungry(self) -> bool:
        """Whether more jobs should be claimed before those at hand run out."""
        return not self.drained and len(self.buffer) <= self.prefetch() // 2 and self.wanted().limit > 0

    def prefetch(self) -> int:
        """How many jobs run in the next quarter of a second, at the rate seen in this tick."""
        if not self.durations.mean:
            return self.settings.concurrency
        seconds = min(PREFETCH, max(0.0, self.remaining()))
        jobs = self.settings.concurrency * seconds / self.durations.mean
        return int(min(self.settings.batch_size, jobs))

    def wanted(self) -> Wanted:
        """What to claim now: what can start, and a little more; nothing while a suspect is in flight."""
        remaining = self.remaining()
        free = self.settings.concurrency - len(self.places)
        alone = not self.places and not self.buffer
        types = [type for type in self.registry.types if self.needs(type) < remaining]
        limit = 0
        if types and not self.over() and not self.suspect_in_flight():
            limit = min(self.settings.batch_size, free + self.prefetch())
        return Wanted(
            limit=limit,
            types=types,
            remaining=remaining,
            lease=max(0.0, remaining) + 2 * GRACE,
            # Suspects come first, each by itself, but for half the budget at most.
            alone=alone and remaining > self.report.budget / 2,
        )

    def suspect_in_flight(self) -> bool:
        held = [place.job for place in self.places if place.job]
        return any(job.losses for job in [*held, *list(self.buffer)[:1]])

    def needs(self, type: str) -> float:
        """Seconds that a job of this type must be given: its time-out, else what its history says, else the floor."""
        need = self._needs.get(type)
        if need is None:
            timeout = self.registry.get(type).timeout
            expected = timeout or self.durations.expected(type) or min(FLOOR, self.report.budget / 10)
            # What was slow once must still find a tick it may start in: a fresh one.
            need = self._needs[type] = min(expected, max(timeout or 0.0, self.report.budget * 0.8))
        return need

    def admits(self, job: Job) -> bool:
        return (job.timeout or self.needs(job.type)) < self.remaining()

    async def exchange(self, plans: Plans | None = None) -> None:
        """Outcomes for jobs, in one round trip."""
        outcomes, self.outcomes = self.outcomes, []
        wanted = self.wanted()
        held = [place.job.id for place in self.places if place.job]
        held += [job.id for job in self.buffer] + self._abandoned
        exchange = await self.queue.exchange(outcomes, wanted, plans, held=held, listen=bool(self.places))
        self.exchanged = time.monotonic()
        self.report.materialised += exchange.materialised
        self.count(exchange.settled, len(outcomes))
        if wanted.limit:
            self.take(exchange.jobs, wanted.limit)
        self.cancel(exchange.cancel)
        self.progress(self.report)

    def take(self, jobs: list[Job], limit: int) -> None:
        """Hold what was claimed. Fewer than asked for means that the queue is empty, unless a suspect came alone."""
        self.report.claimed += len(jobs)
        self.buffer.extend(jobs)
        self._low_water = self.prefetch() // 2
        self.drained = len(jobs) < limit and not any(job.losses for job in jobs)

    def count(self, settled: dict[str, int], sent: int) -> None:
        for name, number in settled.items():
            setattr(self.report, name, getattr(self.report, name) + number)
        self.report.stale += sent - sum(settled.values())

    def cancel(self, ids: list[int]) -> None:
        for place in self.places:
            if place.job and place.job.id in ids and place.context:
                place.context.cancelled = True
                place.cut("cancel", self.exchanged)

    # the places where jobs run

    def fill_places(self) -> None:
        """Start as many places as there are jobs for."""
        for _ in range(min(len(self.buffer), self.settings.concurrency - len(self.places))):
            place = Place()
            self.places.add(place)
            place.task = asyncio.create_task(self.work(place), context=self._blank.copy())

    async def work(self, place: Place) -> None:
        """Run jobs one after the other until there are none: a task for a place, not for each tiny job."""
        turn = time.monotonic()
        try:
            while not self.over() and (job := self.next_job()) is not None:
                await self.run_job(place, job)
                if place not in self.places or self.context_was_changed():
                    return
                if self.buffer and time.monotonic() - turn > YIELD:
                    await asyncio.sleep(0)
                    turn = time.monotonic()
        finally:
            self.places.discard(place)
            self._wake.set()

    def next_job(self) -> Job | None:
        """The next job that the time left admits; the others wait in the buffer's place until they are released."""
        while self.buffer:
            job = self.buffer.popleft()
            if len(self.buffer) == self._low_water:
                self._wake.set()
            if self.admits(job):
                return job
            self.settle(job, Released())
        return None

    async def run_job(self, place: Place, job: Job) -> None:
        handler = self.registry.get(job.type)
        timeout = job.timeout or handler.timeout
        place.job, place.started = job, time.monotonic()
        place.ends_at = min(self.deadline, place.started + timeout) if timeout else self.deadline
        place.why = "timeout" if place.ends_at < self.deadline else "deadline"
        place.context = Context(job, self.instant(place.ends_at), place.ends_at, self.registry)
        try:
            outcome = await runner.run(job, handler, place.context, self.threads)
        except asyncio.CancelledError:
            if place.task is not None:
                place.task.uncancel()
            outcome = runner.stopped(job, handler, place.why, time.monotonic() - place.started)
            if not handler.is_async and place.why in ("deadline", "stop"):
                self.abandon(place)
                return
        if place not in self.places:
            return  # It was abandoned while it ran: its outcome is no longer this tick's to write.
        place.job, place.cut_at = None, None
        self.durations.record(job.type, time.monotonic() - place.started)
        self.settle(job, outcome)

    def instant(self, monotonic: float) -> datetime:
        """A point of this process's clock, as the database's clock would show it."""
        return self.started_at + timedelta(seconds=monotonic - self.started)

    def settle(self, job: Job, outcome: Outcome) -> None:
        self.outcomes.append((job, outcome))
        self.last_outcome = time.monotonic()
        if job.key is not None or (isinstance(outcome, Done) and outcome.follow_ups):
            self.drained = False  # The next of its key, or what follows from it, may be claimed now.
        if not self.buffer:
            self._wake.set()

    def context_was_changed(self) -> bool:
        """Whether the handler left context variables behind, which the next job must not see."""
        return contextvars.copy_context() != self._blank

    async def wait(self) -> None:
        """Until something has happened, or is due to."""
        self._wake.clear()
        timer = asyncio.get_running_loop().call_later(max(0.0, self.next_event() - time.monotonic()), self._wake.set)
        await self._wake.wait()
        timer.cancel()

    def next_event(self) -> float:
        """When something is due to happen by itself."""
        events = [place.cut_at + STUBBORN if place.cut_at else place.ends_at for place in self.places]
        if self.stop.asked:
            return min([*events, max(self.stop_by(), time.monotonic() + YIELD)])
        events.append(self.next_exchange())
        return min(events) if self.over() else min([*events, self.deadline])

    def look_after_places(self) -> None:
        """Cut what has outrun its time, and abandon what does not heed that."""
        now = time.monotonic()
        for place in list(self.places):
            if place.job is None:
                continue
            if place.cut_at is None and now >= place.ends_at:
                place.cut(place.why, now)
            elif place.cut_at is not None and now >= place.cut_at + STUBBORN:
                self.abandon(place)

    def abandon(self, place: Place) -> None:
        """Leave a handler that does not stop to itself, and free its place.

        Its own time-out or a cancellation is settled; at the tick's deadline nothing is written, so that the job
        stays leased while the handler may still be at work, and is reclaimed after.
        """
        job = place.job
        self.places.discard(place)
        if place.task is not None:
            _abandoned.add(place.task)
            place.task.add_done_callback(_abandoned.discard)
        if job is None:
            return
        logger.warning("abandoned: job %s (%s) did not stop when it was told to (%s)", job.id, job.type, place.why)
        if place.why in ("timeout", "cancel"):
            handler = self.registry.get(job.type)
            self.settle(job, runner.stopped(job, handler, place.why, time.monotonic() - place.started))
        else:
            self._abandoned.append(job.id)

    # close

    async def wind_down(self) -> None:
        """Let go of what is not started, and end what runs: at once at the deadline, after the grace on a stop."""
        self.outcomes += [(job, Released()) for job in self.buffer]
        self.buffer.clear()
        while self.stop.asked and self.places and time.monotonic() < self.stop_by():
            await self.wait()
            self.look_after_places()
        now = time.monotonic()
        for place in self.places:
            place.cut("stop" if self.stop.asked and now < self.deadline else "deadline", now)
        while self.places:
            await self.wait()
            self.look_after_places()

    def stop_by(self) -> float:
        """When a stop that was asked for cuts what still runs."""
        return min(self.deadline, (self.stop.asked_at or self.started) + GRACE - STUBBORN)

    async def close(self) -> None:
        """The last round trip: settle the rest, record what was learnt, finish the tick's row."""
        outcomes, self.outcomes = self.outcomes, []
        used = round(time.monotonic() - self.started, 4)
        error = runner.describe(self.error) if self.error else None
        totals = self.report.as_dict() | {"used": used, "error": error}
        settled, self.report.left = await self.queue.close(
            outcomes, totals, self.durations.rows(), held=self._abandoned
        )
        self.count(settled, len(outcomes))

    def drop_places(self) -> None:
        """Leave nothing running that still could be stopped, when the tick itself has failed."""
        for place in self.places:
            if place.task is not None:
                place.task.cancel()
